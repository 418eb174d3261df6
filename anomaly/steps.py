"""One analysis step of many machines at once: means, mode, residuals, scores, alarms, learning."""

from typing import TYPE_CHECKING

import numpy as np

from anomaly import ticks
from anomaly.calibrate import END_SHARE, LOW_LEVEL
from anomaly.columns import NEVER, BoolArray, FloatArray, IntArray
from anomaly.config import KINDS, VIBRATION
from anomaly.finding import FindingEvent
from anomaly.fitting import against_siblings, fit_machine, stands_longer, to_scale
from anomaly.model import LAG_FEATURES, LAG_TAUS_S, LOAD_FEATURES, features, smoothing, step_lag
from anomaly.policy import advance_alarms
from anomaly.soundness import Soundness
from anomaly.state import Mode, Tier, View
from fettle.model import SignalKind

if TYPE_CHECKING:
    from anomaly.engine import Engine

_LAG_SETTLE_US = int(2 * LAG_TAUS_S.max() * 1e6)
_TEMPERATURE = KINDS.index(SignalKind.TEMPERATURE)
_HEAT = np.concatenate([LOAD_FEATURES, LAG_FEATURES])
_MISTAKEN_LOAD = 3.0
_VIBRATION_CODES = np.array([KINDS.index(kind) for kind in VIBRATION])


class Steps:
    """Closes steps for an engine and works on its tables."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self._soundness = Soundness(engine.config, engine.sensors, engine.channels, engine.alarms, engine.validity)

    def close(self, which: IntArray) -> list[FindingEvent]:
        """Close the open step of the machines `which`; return the changes of findings it caused."""
        e = self._engine
        m, s, ch, config = e.machines, e.sensors, e.channels, e.config
        sensor_rows, owner = e.sensors_of.rows(which)
        heard = np.bincount(owner, weights=s.count[sensor_rows] > 0, minlength=len(which)) > 0
        if not heard.any():
            return []
        if not heard.all():  # a step without a sample is none, whoever else closes one
            which = which[heard]
            sensor_rows, owner = e.sensors_of.rows(which)
        count = s.count[sensor_rows]
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.where(count > 0, s.total[sensor_rows] / count, np.nan)
        at = (m.open_step[which] + 1) * m.step_us[which]
        dt_s = np.minimum((at - m.last_step_us[which]) / 1e6, 1e9)
        has_load = m.load_row[which] >= 0
        ran = (m.mode[which] == Mode.RUNNING) | ~has_load
        load = self._load(which, sensor_rows, mean, at, dt_s)
        m.last_step_us[which] = at
        runs = (m.mode[which] == Mode.RUNNING) | ~has_load
        suspect = self._soundness.judge(
            sensor_rows,
            owner,
            len(which),
            at[owner],
            mean,
            running=runs[owner],
            settled=(runs & ran)[owner],
            certain=(runs & (m.is_sure[which] | ~has_load))[owner],
            learning=m.is_learning[which][owner],
        )
        mean = np.where(self._soundness.is_clean(sensor_rows), mean, np.nan)

        position = np.full(s.n, -1)
        position[sensor_rows] = np.arange(len(sensor_rows))
        c, c_owner = e.channels_of.rows(which)
        at_c = at[c_owner]
        sensor = ch.sensor[c]
        x = mean[position[sensor]]
        residual, expected, heat = self._residual(c, c_owner, which, x, load, at)
        period = np.maximum(m.step_us[which][c_owner], np.nan_to_num(s.period_us[sensor])) / 1e6
        tau_s = config.smooth_steps * period
        valid = np.isfinite(residual)
        weight, anew = smoothing(
            np.minimum((at_c - ch.level_at[c]) / 1e6, 1e9),
            step_s=period,
            tau_s=tau_s,
            reseed_gap_s=config.reseed_taus * tau_s,
        )
        start = np.where(anew, 0.0, ch.level[c])
        level = np.where(valid, start + weight * (np.where(valid, residual, 0.0) - start), ch.level[c])
        ch.level[c] = level
        ch.level_at[c] = np.where(valid, at_c, ch.level_at[c])
        ch.last_value[c] = x
        ch.expected[c] = expected
        is_hot = s.kind[sensor] == _TEMPERATURE
        lasting = self._lasting(c, residual, valid)
        up, down = np.maximum(level, lasting), np.minimum(level, lasting)
        down = np.where(is_hot, -config.down_share * down, -down)
        signed = np.where(ch.two_sided[c], np.maximum(up, down), up)
        with np.errstate(invalid="ignore"):
            sigmas = np.where(ch.is_fitted[c], np.maximum(signed, 0.0) / ch.sigma[c], 0.0)
        score = sigmas / (ch.alarm_sigmas[c] * ch.lift[c])
        ch.score[c] = score
        live = ~m.historical[which][c_owner] & ~suspect[position[sensor]]
        self._compare_heat(c, residual, heat, valid & is_hot, period)
        self._alarms(c, at_c, score, valid & live, period, self._is_far(c, x, valid) & runs[c_owner] & live)

        e.assessment.step(which, at, sensor_rows, owner, mean, c, c_owner, residual, expected, score, valid & live)
        suspicious = np.zeros(len(which), dtype=bool)
        suspicious[c_owner[valid & (score > config.warn_share)]] = True
        self._calibrate(which, at, c, c_owner, sigmas, valid & live, period)
        self._adapt(c, residual, valid & live & ~suspicious[c_owner], period, is_hot)
        self._learn(which, at, dt_s, sensor_rows, owner, np.where(suspect, np.nan, mean), suspicious)
        e.take_sensor_changes()
        events = e.settle(int(at.max())) if e.raised or e.cleared else []
        return [*events, *e.assessment.refresh(which, at)]

    def _lasting(self, c: IntArray, residual: FloatArray, valid: BoolArray) -> FloatArray:
        """Return the part of the last three residuals that all of them share, less their scatter: quick where a change is gross."""
        e = self._engine
        ch = e.channels
        with np.errstate(invalid="ignore"):
            three = np.concatenate([ch.residuals[c], residual[:, None]], axis=1)
            scatter = e.config.leap_noise * ch.noise[c]
            high, low = three.min(axis=1) - scatter, three.max(axis=1) + scatter
        ch.residuals[c, 0] = np.where(valid, ch.residuals[c, 1], ch.residuals[c, 0])
        ch.residuals[c, 1] = np.where(valid, residual, ch.residuals[c, 1])
        shared = np.where(high > 0, high, np.where(low < 0, low, 0.0))
        return np.where(np.isfinite(shared), shared, 0.0)

    def _calibrate(
        self,
        which: IntArray,
        at: IntArray,
        c: IntArray,
        c_owner: IntArray,
        sigmas: FloatArray,
        may: BoolArray,
        period_s: FloatArray,
    ) -> None:
        """Note excursions that ended; once their machine stayed well, pool them and set alarm levels anew."""
        e = self._engine
        m, ch, config = e.machines, e.channels, e.config
        sustained = np.minimum(sigmas, ch.sigmas[c].min(axis=1))  # what the on-delay lets through
        ch.sigmas[c, 1] = np.where(may, ch.sigmas[c, 0], ch.sigmas[c, 1])
        ch.sigmas[c, 0] = np.where(may, sigmas, ch.sigmas[c, 0])
        may = may & ~m.is_learning[which][c_owner]
        if may.any():
            ch.watched_days[c] += np.where(may, period_s / 86400.0, 0.0)
            peak = ch.excursion[c]
            ended = may & (peak > 0) & (sigmas < END_SHARE * LOW_LEVEL)
            if ended.any():
                rows = c[ended]
                least = ch.peaks[rows].argmin(axis=1)
                ch.peaks[rows, least] = np.maximum(ch.peaks[rows, least], peak[ended])
                ch.peaks_n[rows] += 1
            grown = np.where(may & (sustained >= LOW_LEVEL), np.maximum(peak, sustained), peak)
            ch.excursion[c] = np.where(ended, 0.0, grown)
        alarm = ch.alarm[c]
        active = e.alarms.active[alarm]
        lasting = active & (at[c_owner] - e.alarms.raised_at[alarm] > 86_400_000_000)
        m.is_spoilt[which[c_owner[lasting]]] = True
        since = np.where(m.proof_since[which] > NEVER, m.proof_since[which], at)
        m.proof_since[which] = since
        over = at - since >= config.proof_days * 86_400e6
        if not over.any():
            return
        is_raised = np.bincount(c_owner, weights=active, minlength=len(which)) > 0
        self._conclude(c[over[c_owner]], (over & ~is_raised & ~m.is_spoilt[which])[c_owner[over[c_owner]]])
        m.proof_since[which[over]] = at[over]
        m.is_spoilt[which[over]] = False
        self.set_alarm_levels()

    def _conclude(self, c: IntArray, is_well: BoolArray) -> None:
        """Pool what the channels `c` saw since the last proof where their machine stayed well; forget it elsewhere."""
        e = self._engine
        ch = e.channels
        well = c[is_well]
        e.pool.watch(ch.group[well], ch.watched_days[well], np.maximum(ch.peaks_n[well] - ch.peaks.shape[1], 0))
        held = ch.peaks[well].astype(np.float64)
        e.pool.push(np.repeat(ch.group[well], held.shape[1])[held.ravel() > 0], held[held > 0])
        ch.peaks[c] = 0.0
        ch.peaks_n[c] = 0
        ch.watched_days[c] = 0.0

    def set_alarm_levels(self) -> None:
        """Give every channel the level that its group reaches at the channel's share of the set rate."""
        e = self._engine
        ch, config = e.channels, e.config
        rate = config.rate_margin * config.false_tickets_per_machine_day
        for group in np.unique(ch.group):
            mine = ch.group == group
            share = e.channel_count[ch.machine[mine]]
            for count in np.unique(share):
                rows = np.flatnonzero(mine)[share == count]
                ch.alarm_sigmas[rows] = e.pool.level(int(group), rate / int(count))

    def _adapt(
        self, c: IntArray, residual: FloatArray, may: BoolArray, period_s: FloatArray, is_hot: BoolArray
    ) -> None:
        """Let the expected value follow a healthy machine slowly, never far from the accepted baseline."""
        e = self._engine
        ch, config = e.channels, e.config
        may = may & (ch.fitted_us[c] >= config.own_model_hours * 3.6e9) & (ch.view[c] <= View.SIBLINGS)
        if not may.any():
            return
        days = period_s / 86400.0
        move = np.where(may, residual, 0.0) * (1.0 - np.exp(-days / config.adapt_days))
        season = config.season_k_per_day * days
        move = np.where(is_hot, np.clip(move, -season, season), move)
        cap = np.where(is_hot, config.season_most_k, config.adapt_cap * np.nan_to_num(ch.sigma[c]))
        ch.shift[c] = np.where(may, np.clip(ch.shift[c] + move, -cap, cap), ch.shift[c])

    def _load(
        self, which: IntArray, sensor_rows: IntArray, mean: FloatArray, at: IntArray, dt_s: FloatArray
    ) -> FloatArray:
        """Update thermal memory and mode; return the load over its 90th percentile, NaN where unknown."""
        e = self._engine
        m, s, config = e.machines, e.sensors, e.config
        position = np.full(s.n + 1, -1)
        position[sensor_rows] = np.arange(len(sensor_rows))
        row = m.load_row[which]
        has = row >= 0
        fresh_raw = np.where(has, mean[position[row]], np.nan)
        arrived = np.isfinite(fresh_raw)
        held = np.stack([fresh_raw, s.least[row], s.most[row]], axis=1)
        # sensors sampled apart from the load are judged by its last value while that is no older than it should be
        age_us = at - m.load_at[which]
        usable = age_us <= 1.5 * np.nan_to_num(s.period_us[row])
        held = np.where(arrived[:, None], held, np.where(usable[:, None], m.held_load[which], np.nan))
        m.held_load[which] = held
        m.load_at[which] = np.where(arrived, at, m.load_at[which])
        raw, least_raw, most_raw = held[:, 0], held[:, 1], held[:, 2]
        known = np.isfinite(raw)
        gap = dt_s > config.reseed_taus * LAG_TAUS_S.min()
        lag = m.lag[which]
        lag[gap & known] = np.nan
        fresh = known & ~np.isfinite(lag[:, 0])
        lag = np.where(known[:, None], step_lag(lag, np.nan_to_num(raw), dt_s), lag)
        m.lag[which] = lag
        m.lag_since[which] = np.where(fresh, at, m.lag_since[which])
        with np.errstate(invalid="ignore"):
            scale = m.load_scale[which]
            least, most = least_raw / scale, most_raw / scale
            load = raw / scale
            on = least > config.running_on_share
            off = most < config.running_off_share
            outside = on & ((load < m.load_low[which]) | (load > m.load_high[which]))
            small = (load > _MISTAKEN_LOAD) & (m.tier[which] < Tier.OWN_MODEL)
        if small.any():  # what passed for full load was a machine standing still
            self._forget_scale(which[small])
            load = np.where(small, np.nan, load)
            on, off, outside = on & ~small, off & ~small, outside & ~small
            known = known & ~small
        mode = np.where(on, Mode.RUNNING, np.where(off, Mode.OFF, Mode.SWITCHING))
        mode = np.where(outside | ~known | ~np.isfinite(scale), Mode.UNKNOWN, mode)
        m.mode[which] = mode
        return np.where(has, load, 0.0)

    def _forget_scale(self, machines: IntArray) -> None:
        """Start the scale of a load anew: its models were made for a machine at rest."""
        e = self._engine
        e.machines.load_scale[machines] = np.nan
        e.sensors.rest_below[e.machines.load_row[machines]] = np.inf
        rows, _ = e.channels_of.rows(np.sort(machines))
        e.channels.is_fitted[rows] = False
        e.channels.fitted_us[rows] = 0
        e.machines.next_fit[machines] = 0

    def _residual(
        self, c: IntArray, c_owner: IntArray, which: IntArray, x: FloatArray, load: FloatArray, at: IntArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return measured less expected on each channel's own scale, the expected value, and the part that load makes of it.

        The first is NaN where it cannot be judged.
        """
        e = self._engine
        m, s, ch = e.machines, e.sensors, e.channels
        has_load = m.load_row[which] >= 0
        scale = np.where(has_load, m.load_scale[which], 1.0)
        lag = np.nan_to_num(m.lag[which]) / np.repeat(np.stack([scale, scale * scale], axis=1), len(LAG_TAUS_S), axis=1)
        design = features(np.nan_to_num(load), np.nan_to_num(lag), at)
        predicted = np.einsum("ij,ij->i", design[c_owner], ch.coefficients[c])
        predicted = (
            np.clip(predicted, ch.least[c], ch.most[c]) + ch.shift[c]
        )  # a model knows nothing beyond its baseline
        view = ch.view[c]
        y = to_scale(x, is_log=ch.is_log[c])
        siblings = view == View.SIBLINGS
        middle = np.full(len(c), np.nan)
        if siblings.any():
            kind = s.kind[ch.sensor[c]]
            group = c_owner * len(KINDS) + kind
            medians = ticks.group_median(x[siblings], group[siblings], len(which) * len(KINDS))
            middle = medians[group]
            is_vibration = np.isin(kind, _VIBRATION_CODES)
            y = np.where(siblings, against_siblings(x, middle, is_vibration), y)
        edge = ch.edge[c]
        with np.errstate(invalid="ignore"):
            excess_high = np.maximum(x - edge, 0.0)
            excess_low = np.maximum(edge - x, 0.0)
        residual = y - predicted
        residual = np.where(view == View.EXCESS_HIGH, excess_high, residual)
        residual = np.where(view == View.EXCESS_LOW, excess_low, residual)
        mode = m.mode[which][c_owner]
        loaded = has_load[c_owner]
        is_excess = (view == View.EXCESS_HIGH) | (view == View.EXCESS_LOW)
        ready = ch.is_fitted[c]
        # against the wrong statistics no verdict: mode unknown, switching, or standing still
        at_rest = (mode == Mode.OFF) & m.knows_off[which][c_owner]
        ready &= (
            ~loaded | is_excess | (mode == Mode.RUNNING) | ((at_rest | (mode == Mode.SWITCHING)) & ~ch.needs_running[c])
        )
        ready &= ~(is_excess & (mode != Mode.RUNNING) & (mode != Mode.UNKNOWN))
        # phases are judged whenever current flows: the one that carries the load may be the one that is lost
        phases = siblings & ch.two_sided[c]
        if phases.any():
            least_on = e.config.running_on_share * m.load_scale[which][c_owner]
            flows = self._flows(c, group, phases, len(which) * len(KINDS), least_on)
            on = middle > least_on
            ready = np.where(phases, ch.is_fitted[c] & flows & on, ready)
        hours = ch.fitted_us[c] / 3.6e9
        high, low = view == View.EXCESS_HIGH, view == View.EXCESS_LOW
        # a machine that is not driven near its limit tells nothing about it, neither good nor bad
        near = e.config.excess_near
        ready &= ~(is_excess & (hours < e.config.excess_hours))
        ready &= ~((high & (x < near * edge)) | (low & (x > (2.0 - near) * edge)))
        idle = ~loaded & ch.needs_running[c] & (view == View.LEVEL) & (residual < np.log(e.config.idle_vibration_share))
        ready &= ~idle
        uses_lag = (ch.coefficients[c][:, LAG_FEATURES] != 0).any(axis=1)
        ready &= ~(uses_lag & (at[c_owner] - m.lag_since[which][c_owner] < _LAG_SETTLE_US))
        raw = m.lag[which]
        strange = ((raw < m.lag_low[which]) | (raw > m.lag_high[which])).any(axis=1)
        ready &= ~(uses_lag & np.asarray(strange)[c_owner])
        logs = np.exp(np.clip(y - residual, -50, 50))
        expected = np.where(is_excess, edge, np.where(ch.is_log[c], logs, predicted))
        if siblings.any():
            expected = np.where(siblings, middle * np.where(is_vibration, logs, 1.0 + predicted), expected)
        heat = np.einsum("ij,ij->i", design[c_owner][:, _HEAT], ch.coefficients[c][:, _HEAT])
        return np.where(ready, residual, np.nan), expected, heat

    def _compare_heat(
        self, c: IntArray, residual: FloatArray, heat: FloatArray, may: BoolArray, period_s: FloatArray
    ) -> None:
        """Keep how the residual of a temperature goes with the heat that its load makes."""
        if not may.any():
            return
        ch = self._engine.channels
        rows = c[may]
        weight = 1.0 - np.exp(-period_s[may] / (86400.0 * self._engine.config.drift_days))
        mean = ch.heat[rows]
        off_heat, off = heat[may] - mean[:, 0], residual[may] - mean[:, 1]
        ch.heat[rows, 0] = mean[:, 0] + weight * off_heat
        ch.heat[rows, 1] = mean[:, 1] + weight * off
        ch.heat[rows, 2] = (1 - weight) * (mean[:, 2] + weight * off_heat * off_heat)
        ch.heat[rows, 3] = (1 - weight) * (mean[:, 3] + weight * off_heat * off)
        ch.heat[rows, 4] = (1 - weight) * (mean[:, 4] + weight * off * off)

    def _drifts(self, c: IntArray) -> BoolArray:
        """Say which temperatures deviate as much without heat as with it, while nothing else of their machine moves.

        Lost cooling shows in proportion to the heat that is to be carried away; a sensor that drifts does not care.
        """
        e = self._engine
        ch, config = e.channels, e.config
        if len(c) == 0:
            return np.zeros(0, dtype=bool)
        heat, mean, variance, together, scatter = ch.heat[c].T
        # it must have been seen with little heat: what is constant while running may be heat as well
        widely = np.sqrt(variance) > config.drift_range * np.abs(heat)
        tells = widely & e.machines.knows_off[ch.machine[c]] & (variance > np.square(4.0 * ch.noise[c]))
        with np.errstate(divide="ignore", invalid="ignore"):
            without = mean - together / variance * heat
            # heat scatters, what it causes would scatter alike
            calm = np.sqrt(scatter) / np.abs(mean) < config.drift_calm * np.sqrt(variance) / np.abs(heat)
            alike = without / mean > config.drift_share
        alone = np.array(
            [
                (ch.score[e.channels_of.of(int(ch.machine[k]))] > config.warn_share).sum() <= 1
                and not e.incidents.is_open(int(e.machines.machine_id[ch.machine[k]]))
                for k in c
            ]
        )
        is_hot = e.sensors.kind[ch.sensor[c]] == _TEMPERATURE
        return np.asarray(is_hot & tells & alone & calm & alike, dtype=np.bool_)

    def _flows(self, c: IntArray, group: IntArray, phases: BoolArray, groups: int, least_on: FloatArray) -> BoolArray:
        """Say which phases may be compared: current flowed all through this step and the one before, no start in either.

        Whether it flows most phases tell, since the one that carries the load may be lost; how the load goes does not matter.
        """
        e = self._engine
        s, ch = e.sensors, e.channels
        sensor = ch.sensor[c]
        low = ticks.group_median(s.least[sensor][phases], group[phases], groups)[group]
        flows = phases & (low > least_on)
        before = ch.flowed[c]
        ch.flowed[c] = flows
        return np.asarray(flows & before, dtype=np.bool_)

    def _is_far(self, c: IntArray, x: FloatArray, valid: BoolArray) -> BoolArray:
        """Say which loads stay far below the limit that they passed: no verdict, but what they passed is over for now."""
        ch = self._engine.channels
        is_high = ch.view[c] == View.EXCESS_HIGH
        return np.asarray(is_high & ~valid & np.isfinite(x) & self._engine.alarms.active[ch.alarm[c]], dtype=np.bool_)

    def _alarms(
        self,
        c: IntArray,
        at_c: IntArray,
        score: FloatArray,
        valid: BoolArray,
        period_s: FloatArray,
        is_far: BoolArray,
    ) -> None:
        e = self._engine
        ch, alarms, config = e.channels, e.alarms, e.config
        ch.warned_at[c] = np.where(
            score > config.warn_share, np.where(ch.warned_at[c] > NEVER, ch.warned_at[c], at_c), NEVER
        )
        alarm = ch.alarm[c]
        judged = is_far | (valid & ((score >= 1.0) | (alarms.since[alarm] > NEVER)))
        if not judged.any():
            return
        score = np.where(is_far, 0.0, score)
        alarm, at, k = alarm[judged], at_c[judged], c[judged]
        period = period_s[judged]
        raised_for = np.where(alarms.active[alarm], (at - alarms.raised_at[alarm]) / 1e6, 0.0)
        off_s = np.maximum(config.off_delay_s, np.minimum(config.off_delay_share * raised_for, config.off_delay_most_s))
        # the heaviest product, on which alone it shows, may come once a day
        off_s = np.where(ch.view[k] == View.EXCESS_HIGH, config.off_delay_most_s, off_s)
        off = np.maximum(config.off_delay_steps, np.ceil(off_s / period)).astype(np.int64)
        raised, cleared = advance_alarms(
            alarms,
            alarm,
            at_us=at,
            is_over=score[judged] >= 1.0,
            is_under=score[judged] < config.clear_share,
            on_count=np.where(ch.edge[k] > 0, config.excess_on_steps, config.on_delay_steps),
            off_count=off,
        )
        reached = score[judged] * ch.lift[k]
        ch.peak[k] = np.where(alarms.since[alarm] == at, reached, np.maximum(ch.peak[k], reached))
        ch.is_drift[k[raised]] = self._drifts(k[raised])
        for i in raised:
            e.raised[int(ch.machine[k[i]])].append(int(alarm[i]))
        for i in cleared:
            e.cleared[int(ch.machine[k[i]])].append(int(alarm[i]))

    def _learn(
        self,
        which: IntArray,
        at: IntArray,
        dt_s: FloatArray,
        sensor_rows: IntArray,
        owner: IntArray,
        mean: FloatArray,
        suspicious: BoolArray,
    ) -> None:
        e = self._engine
        m, s, config = e.machines, e.sensors, e.config
        if not m.is_learning[which].any():
            return
        period = np.full(m.n, np.inf)
        np.minimum.at(period, s.machine[sensor_rows], np.nan_to_num(s.period_us[sensor_rows], nan=np.inf))
        longest = np.maximum(m.step_us[which], np.where(np.isfinite(period[which]), 1.5 * period[which], 0.0))
        covered = np.minimum(dt_s * 1e6, longest).astype(np.int64)
        m.covered_us[which] += covered
        # a provisional model may be what is wrong: it cannot stop its own correction for longer than it has learned
        m.frozen_us[which] = np.where(suspicious, m.frozen_us[which] + covered, 0)
        longest_freeze = np.maximum(config.freeze_hours * 3.6e9, m.learned_us[which])
        released = (m.tier[which] < Tier.OWN_MODEL) & (m.frozen_us[which] > longest_freeze)
        learning = m.is_learning[which] & (~suspicious | released)
        which_now = which[learning]
        m.learned_us[which_now] += covered[learning]
        m.learned_steps[which_now] += 1
        runs = which_now[(m.mode[which_now] == Mode.RUNNING) & (m.load_row[which_now] >= 0)]
        m.load_floor[runs] = np.minimum(m.load_floor[runs], s.least[m.load_row[runs]])
        new_position = np.cumsum(learning) - 1
        mine = learning[owner]
        row = m.load_row[which_now]
        loads = np.where(row >= 0, m.held_load[which_now, 0], np.nan)[new_position[owner[mine]]]
        is_load = sensor_rows[mine] == row[new_position[owner[mine]]]
        mean = mean[mine]
        mean = np.where(is_load & ~np.isfinite(mean), loads, mean)
        e.training.append(which_now, at[learning], m.lag[which_now], sensor_rows[mine], new_position[owner[mine]], mean)
        hours = np.array([*config.fit_hours, np.inf])
        due = (m.learned_us[which_now] >= hours[m.next_fit[which_now]] * 3.6e9) & (
            m.learned_steps[which_now] >= config.first_fit_steps
        )
        for machine in which_now[due].tolist():
            self._fit(machine)
        coarse_us = int(config.coarse_step_s * 1e6)
        for machine in which[
            (m.step_us[which] < coarse_us) & (m.covered_us[which] >= config.fine_hours * 3.6e9)
        ].tolist():
            e.training.coarsen(machine, e.sensors_of.of(machine), coarse_us)
            end = (m.open_step[machine] + 1) * m.step_us[machine]
            m.step_us[machine] = coarse_us
            m.open_step[machine] = end // coarse_us - 1

    def _fit(self, machine: int) -> None:
        e = self._engine
        m, s, config = e.machines, e.sensors, e.config
        rows = e.sensors_of.of(machine)
        channel_rows = e.channels_of.of(machine)
        at, lag, means = e.training.rows(machine, rows)
        hours = np.array(config.fit_hours) * 3.6e9
        m.next_fit[machine] = np.searchsorted(hours, m.learned_us[machine], side="right")
        if self._stands(machine, rows, means):
            return
        keeps = bool(stands_longer(e.channels, channel_rows, int(m.learned_us[machine])).any())
        fit_machine(
            config,
            m,
            s,
            e.channels,
            machine=machine,
            sensor_rows=rows,
            channel_rows=channel_rows,
            at=at,
            lag=lag,
            means=means,
        )
        self._learn_stuck(rows)
        began = m.trained_from[machine] if keeps and m.trained_from[machine] > NEVER else at[0]
        m.trained_from[machine], m.trained_until[machine] = began, at[-1]
        m.version[machine] = m.newest[machine] = max(m.version[machine], m.newest[machine]) + 1
        own = (
            m.learned_us[machine] >= config.own_model_hours * 3.6e9
            and m.learned_steps[machine] >= config.own_model_steps
        )
        tier = Tier.OWN_MODEL if own else Tier.PROVISIONAL
        m.tier[machine] = max(int(m.tier[machine]), tier) if keeps else tier
        m.is_sure[machine] |= own or m.knows_off[machine] or self._rated(machine) > 0.0
        if m.next_fit[machine] >= len(config.fit_hours):
            m.is_learning[machine] = False
            e.training.close(machine, rows)
        if e.on_fit is not None:
            e.on_fit(int(m.machine_id[machine]))

    def _rated(self, machine: int) -> float:
        """Return the rated current of a machine whose load is a current, 0 where unknown."""
        e = self._engine
        row = int(e.machines.load_row[machine])
        is_current = row >= 0 and e.sensor_meta(row).kind is SignalKind.CURRENT
        return float(e.machine_meta(machine).rated_current_a or 0.0) if is_current else 0.0

    def _stands(self, machine: int, rows: IntArray, means: FloatArray) -> bool:
        """Say whether the name plate shows that a machine hardly ran yet: there is nothing to learn of it."""
        rated = self._rated(machine)
        if not rated > 0.0:
            return False
        load = means[:, rows == self._engine.machines.load_row[machine]]
        load = np.abs(load[np.isfinite(load)])
        return len(load) > 0 and float(np.quantile(load, 0.9)) < self._engine.config.running_off_share * rated

    def _learn_stuck(self, rows: IntArray) -> None:
        """Set how many identical neighbours in a row are too many, from their share and the longest run in the baseline."""
        s, config = self._engine.sensors, self._engine.config
        for row in rows:
            if s.pairs[row] < 200 or s.stuck_at[row] > 1 << 29:
                continue
            share = min(max(s.same[row] / s.pairs[row], 1e-4), 0.999)
            per_day = 86400e6 / max(s.period_us[row], 1.0)
            needed = np.log(max(per_day * (1 - share) / config.stuck_false_per_day, 2.0)) / -np.log(share)
            s.stuck_at[row] = int(max(config.stuck_least, np.ceil(needed), 2 * s.longest_run[row]))
