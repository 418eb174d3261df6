"""Layer 0 and 1, sample by sample: is the value believable, is the sensor sound, is an absolute limit passed (ISO 13374 DM, SD).

    accept   sums of the open step      flag   stored elsewhere, never learned, masks the channel until it is clean again

Sensor faults are told apart before anything is blamed on the machine:

    stuck      identical values longer than chance allows        ────────
    spike      one sample out and back                           ──∧──
    offset     a jump that nothing usual explains, and stays     ──┌──
    unit       the same, by a factor of 1000 or from °C to °F
    invalid    not finite, marked bad, out of the believable range

Noise, silence and drift need more than neighbours; `anomaly.steps` judges them.
"""

from dataclasses import dataclass

import numpy as np

from anomaly.columns import NEVER, BoolArray, FloatArray, IntArray
from anomaly.config import KINDS, EngineConfig
from anomaly.policy import advance_alarms
from anomaly.state import SENSOR_RULES, Alarms, Rule, Sensors
from fettle.model import SignalKind

Rows = IntArray | slice
_TEMPERATURE = KINDS.index(SignalKind.TEMPERATURE)
_CELSIUS_TO_FAHRENHEIT = (1.8, 32.0)


@dataclass(frozen=True, slots=True)
class AlarmChange:
    """An alarm that was raised or cleared, by its row and that of its sensor."""

    alarm: int
    sensor: int
    is_raised: bool
    at_us: int


class Validity:
    """Judges ticks on the tables of an engine; `changes` collects the alarms it raised and cleared."""

    def __init__(self, config: EngineConfig, sensors: Sensors, alarms: Alarms) -> None:
        self._config = config
        self._sensors = sensors
        self._alarms = alarms
        self._busy = np.zeros(SENSOR_RULES, dtype=np.int64)
        self.changes: list[AlarmChange] = []
        for rule in range(SENSOR_RULES):
            self._count_busy(rule)

    def _count_busy(self, rule: int) -> None:
        s = self._sensors
        self._busy[rule] = int(np.count_nonzero(self._alarms.since[s.alarm + rule] != NEVER)) if s.n else 0

    def tick(self, sel: Rows, rows: IntArray, ts: IntArray, x: FloatArray, bad: BoolArray, live: BoolArray) -> None:
        """Take one sample of each of `rows`, all newer than the sensor's last; `sel` selects the same rows, as a slice if it can."""
        s, config = self._sensors, self._config
        before, last, prev = s.last_ts[sel], s.last_x[sel], s.prev_x[sel]
        seen = s.seen[sel]
        if seen.min() < 200:
            self._learn_periods(rows, ts, before)
        missing = bad
        wrong = missing | ~((x >= s.low[sel]) & (x <= s.high[sel]))
        learning = s.is_learning[sel]
        if self._busy[Rule.UNIT] or wrong.any():
            k = np.flatnonzero(wrong | np.isinf(s.offset[sel]))
            out = wrong & ~missing & live & (seen >= config.grown_samples)
            if len(k):
                self._rescaled(rows[k], ts[k], x[k], last[k], out[k])

        # identical neighbours: a standing machine may be constant, which makes its sensors neither more nor less suspect
        is_same = x == last
        counts = is_same & ~s.is_off[sel] & ((x != 0) | s.is_running[sel]) & (x > s.rest_below[sel])
        run = np.where(is_same, s.run[sel] + counts, 0)
        stuck = run >= s.stuck_at[sel]
        if learning.any():
            fair = learning & ~wrong & ~stuck
            s.pairs[sel] += fair
            s.same[sel] += fair & counts
            s.longest_run[sel] = np.where(fair, np.maximum(s.longest_run[sel], run), s.longest_run[sel])
        s.run[sel] = run

        # the sample before this one, seen from both sides
        rise, back = last - prev, last - x
        size = np.abs(rise)
        turn = np.where(rise * back > 0, np.minimum(size, np.abs(back)), 0.0)
        rough, largest = s.rough[sel], s.largest_step[sel]
        grown = seen >= config.grown_samples
        bend = np.abs(rise + back) * 0.5
        seen_bend = np.isfinite(bend) & ~wrong
        bend = np.where(seen_bend, np.where(grown, np.minimum(bend, 10.0 * rough), bend), 0.0)
        spike = grown & (turn > np.maximum(config.spike_roughness * rough, config.spike_step_share * largest)) & ~wrong
        if spike.any():
            # out of rest and then running: inrush, or a run-up; a temperature does not start from zero
            starts = (np.abs(prev) < config.start_share * np.abs(x)) & (s.kind[sel] != _TEMPERATURE)
            spike &= ~starts
        weight = np.where(seen_bend & ~s.is_off[sel], np.maximum(0.005, 1.0 / seen.clip(1)), 0.0)
        usual = np.where(grown, np.minimum(bend, 4.0 * rough), bend)
        s.rough[sel] = rough + weight * (usual - rough)
        leap = grown & (size > config.leap_share * largest) & ~spike
        if learning.any():
            fair_step = learning & ~spike & ~leap & (size < np.inf)
            s.largest_step[sel] = np.where(fair_step, np.maximum(largest, size), largest)
        if spike.any():
            self._take_back(rows[spike], before[spike], last[spike], ts[spike], learning[spike])
        if leap.any():
            stays = leap & ~wrong & (np.abs(back) < 0.3 * size)
            if stays.any():
                self._jumped(rows[stays], ts[stays], prev[stays], last[stays], live[stays])
        frozen = wrong | np.isinf(s.offset[sel])  # out of its range by a thousand: remember how it was before
        s.prev_x[sel] = np.where(frozen | spike, prev, last)
        s.last_x[sel] = np.where(frozen, last, x)
        s.last_ts[sel] = ts
        s.seen[sel] = seen + 1

        off = config.clean_samples
        self._judge(
            Rule.INVALID, sel, rows, ts, is_over=wrong & live & ~np.isinf(s.offset[sel]), is_under=~wrong, on=3, off=off
        )
        if self._busy[Rule.STUCK]:
            self._judge(Rule.STUCK, sel, rows, ts, is_over=stuck & live, is_under=run == 0, on=1 << 30, off=off)
            is_stuck = self._alarms.active[s.alarm[sel] + int(Rule.STUCK)]
            flagged = wrong | is_stuck | (s.offset[sel] != 0)
        else:
            flagged = wrong | (s.offset[sel] != 0)
        limit = s.alarm_at[sel]
        over_limit = (x >= limit) & ~flagged & live
        if self._busy[Rule.INVALID]:
            over_limit &= ~self._alarms.active[s.alarm[sel] + int(Rule.INVALID)]
        if self._busy[Rule.LIMIT] or over_limit.any():
            self._judge(
                Rule.LIMIT,
                sel,
                rows,
                ts,
                is_over=over_limit,
                is_under=x < limit * config.limit_clear_share,
                on=config.limit_on_samples,
                off=self._limit_off(rows),
                on_us=int(config.limit_on_s * 1e6),
            )
        if flagged.any():
            s.clean[sel] = np.where(flagged & ~missing, 0, s.clean[sel] + 1)  # a gap is no fault
            self._sum(rows[~flagged], rows[~flagged], ts[~flagged], x[~flagged], bend[~flagged])
        else:
            s.clean[sel] += 1
            self._sum(sel, rows, ts, x, bend)

    def _sum(self, sel: Rows, rows: IntArray, ts: IntArray, x: FloatArray, bend: FloatArray) -> None:
        """Add samples to the step they belong to; those of a step that is closed are too late for it."""
        s = self._sensors
        ahead = ts >= s.ends_at[sel]
        behind = ts < s.starts_at[sel]
        if ahead.any() or behind.any():
            here = ~(ahead | behind)
            r = rows[ahead]
            s.next_count[r] += 1
            s.next_total[r] += x[ahead]
            s.next_bends[r] += bend[ahead]
            s.next_least[r] = np.minimum(s.next_least[r], x[ahead])
            s.next_most[r] = np.maximum(s.next_most[r], x[ahead])
            sel, x, bend = rows[here], x[here], bend[here]
        s.count[sel] += 1
        s.total[sel] += x
        s.bends[sel] += bend
        s.least[sel] = np.minimum(s.least[sel], x)
        s.most[sel] = np.maximum(s.most[sel], x)

    def _take_back(self, rows: IntArray, before: IntArray, last: FloatArray, ts: IntArray, learning: BoolArray) -> None:
        """Remove spikes from the sums they went into, and count them."""
        s, config = self._sensors, self._config
        here = (before >= s.starts_at[rows]) & (before < s.ends_at[rows]) & (s.count[rows] > 0)
        s.count[rows[here]] -= 1
        s.total[rows[here]] -= last[here]
        there = (before >= s.ends_at[rows]) & (s.next_count[rows] > 0)
        s.next_count[rows[there]] -= 1
        s.next_total[rows[there]] -= last[there]
        age_s = (ts - s.spiked_at[rows]) / 1e6
        s.spikes[rows] = 1.0 + s.spikes[rows] * np.exp(-np.minimum(age_s / config.spike_memory_s, 700.0))
        s.spiked_at[rows] = ts
        s.usual_spikes[rows] = np.where(
            learning, np.maximum(s.usual_spikes[rows], s.spikes[rows]), s.usual_spikes[rows]
        )
        many = s.spikes[rows] >= np.maximum(config.spikes_alarm, 3.0 * s.usual_spikes[rows] * ~learning)
        many &= s.period_us[rows] * 100 <= config.spike_memory_s * 1e6  # of few samples, many out of line are no spikes
        self.fire(Rule.SPIKE, rows[many], ts[many])

    def _jumped(self, rows: IntArray, ts: IntArray, prev: FloatArray, last: FloatArray, live: BoolArray) -> None:
        """Judge jumps that stay: a change of unit on any signal, an offset where inertia forbids jumps, or the way back."""
        s = self._sensors
        size = last - prev
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.log10(np.abs(last / prev))
        is_hot = s.kind[rows] == _TEMPERATURE
        factor, shift = _CELSIUS_TO_FAHRENHEIT
        fahrenheit = is_hot & (np.abs(last - (factor * prev + shift)) < 0.1 * np.abs(factor * prev + shift))
        celsius = is_hot & (np.abs(prev - (factor * last + shift)) < 0.1 * np.abs(factor * last + shift))
        was_unit = self._alarms.active[s.alarm[rows] + int(Rule.UNIT)]
        thousand = np.abs(np.abs(ratio) - 3.0) < 0.15
        undone = (thousand | celsius | fahrenheit) & (size * s.offset[rows] < 0)
        returned = np.abs(size + s.offset[rows]) < 0.3 * np.abs(s.offset[rows])
        back = (s.offset[rows] != 0) & np.where(was_unit, undone, returned)
        s.offset[rows[back]] = 0.0
        for rule in (Rule.OFFSET, Rule.UNIT):
            self.calm(rule, rows[back], ts[back])
        # near zero every ratio is an accident
        moving = np.minimum(np.abs(prev), np.abs(last)) > np.maximum(3.0 * s.rough[rows], s.rest_below[rows])
        unit = ~back & live & moving & (fahrenheit | celsius | thousand) & ~was_unit
        offset = ~back & live & is_hot & ~unit & (s.offset[rows] == 0)
        usual = ~back & ~unit & ~offset & s.is_learning[rows]
        s.largest_step[rows[usual]] = np.maximum(s.largest_step[rows[usual]], np.abs(size[usual]))
        s.offset[rows[unit | offset]] = size[unit | offset]
        self.fire(Rule.UNIT, rows[unit], ts[unit])
        self.fire(Rule.OFFSET, rows[offset], ts[offset])

    def _rescaled(self, rows: IntArray, ts: IntArray, x: FloatArray, last: FloatArray, out: BoolArray) -> None:
        """Judge values out of range by a factor of a thousand, and whether a sensor that left its range so is back."""
        s = self._sensors
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.log10(np.abs(x / last))
        moving = np.abs(last) > np.maximum(3.0 * s.rough[rows], s.rest_below[rows])
        unit = out & (s.offset[rows] == 0) & moving & (np.abs(np.abs(ratio) - 3.0) < 0.3)
        s.offset[rows[unit]] = np.inf
        self.fire(Rule.UNIT, rows[unit], ts[unit])
        back = np.isinf(s.offset[rows]) & ~out & (np.abs(ratio) < 0.5)
        s.offset[rows[back]] = 0.0
        self.calm(Rule.UNIT, rows[back], ts[back])

    def fire(self, rule: Rule, rows: IntArray, ts: IntArray) -> None:
        """Raise a rule that needs no delay on the sensors `rows`; those raised already stay as they are."""
        if len(rows) == 0:
            return
        alarm = self._sensors.alarm[rows] + int(rule)
        fresh = ~self._alarms.active[alarm]
        self._alarms.active[alarm[fresh]] = True
        self._alarms.since[alarm[fresh]] = ts[fresh]
        self._alarms.raised_at[alarm[fresh]] = ts[fresh]
        for a, r, at in zip(alarm[fresh].tolist(), rows[fresh].tolist(), ts[fresh].tolist(), strict=True):
            self.changes.append(AlarmChange(a, r, is_raised=True, at_us=at))
        self._count_busy(int(rule))

    def calm(self, rule: Rule, rows: IntArray, ts: IntArray) -> None:
        """Clear a rule on the sensors `rows` where it is raised."""
        alarm = self._sensors.alarm[rows] + int(rule)
        active = self._alarms.active[alarm]
        self._alarms.active[alarm[active]] = False
        self._alarms.since[alarm[active]] = NEVER
        for a, r, at in zip(alarm[active].tolist(), rows[active].tolist(), ts[active].tolist(), strict=True):
            self.changes.append(AlarmChange(a, r, is_raised=False, at_us=at))
        self._count_busy(int(rule))

    def _limit_off(self, rows: IntArray) -> IntArray:
        with np.errstate(invalid="ignore", divide="ignore"):
            samples = self._config.limit_off_s * 1e6 / self._sensors.period_us[rows]
        return np.maximum(self._config.limit_off_samples, np.nan_to_num(samples, nan=0.0, posinf=0.0)).astype(np.int64)

    def _judge(
        self,
        rule: Rule,
        sel: Rows,
        rows: IntArray,
        ts: IntArray,
        *,
        is_over: BoolArray,
        is_under: BoolArray,
        on: int,
        off: IntArray | int,
        on_us: int = 0,
    ) -> None:
        if self._busy[rule] == 0 and not is_over.any():
            return
        s, alarms = self._sensors, self._alarms
        alarm = s.alarm[sel] + int(rule)
        raised, cleared = advance_alarms(
            alarms, alarm, at_us=ts, is_over=is_over, is_under=is_under, on_count=on, off_count=off, on_us=on_us
        )
        self._count_busy(int(rule))
        for k in raised:
            self.changes.append(AlarmChange(int(alarm[k]), int(rows[k]), is_raised=True, at_us=int(ts[k])))
        for k in cleared:
            self.changes.append(AlarmChange(int(alarm[k]), int(rows[k]), is_raised=False, at_us=int(ts[k])))

    def _learn_periods(self, rows: IntArray, ts: IntArray, before: IntArray) -> None:
        s = self._sensors
        young = (s.seen[rows] < 200) & (before > NEVER)
        if not young.any():
            return
        r = rows[young]
        gap = (ts[young] - before[young]).astype(np.float64)
        known = s.period_us[r]
        factor = 1.0 + 1.0 / (2.0 + s.seen[r] / 8.0)  # a stochastic median that settles
        moved = np.where(gap > known, np.minimum(known * factor, gap), np.maximum(known / factor, gap))
        s.period_us[r] = np.where(np.isfinite(known), moved, gap)
