"""Layer 0, step by step: sensor faults that neighbours in time do not show (ISO 13374 block DM).

noise     the signal's roughness left its usual size, its level did not, and no other channel of the machine moves;
          loads scatter as the process does, and what a start stirs up does not count
silence   the sensor sends nothing while others of its machine do
spikes    clear by themselves once they become rare
"""

import numpy as np

from anomaly.columns import NEVER, BoolArray, FloatArray, IntArray
from anomaly.config import KINDS, LOADS, VIBRATION, EngineConfig
from anomaly.policy import advance_alarms
from anomaly.state import Alarms, Channels, Rule, Sensors, View
from anomaly.validity import AlarmChange, Validity

_VIBRATION_CODES = np.array([KINDS.index(kind) for kind in VIBRATION])
_LOAD_CODES = np.array([KINDS.index(kind) for kind in LOADS])
_QUIET = 0.02  # a signal without any turn counts as this share of its usual roughness


class Soundness:
    """Judges the sensors of machines whose step closes."""

    def __init__(
        self, config: EngineConfig, sensors: Sensors, channels: Channels, alarms: Alarms, validity: Validity
    ) -> None:
        self._config = config
        self._sensors = sensors
        self._channels = channels
        self._alarms = alarms
        self._validity = validity
        levels = np.flatnonzero(channels.view == View.LEVEL)
        self._level_of = np.full(sensors.n, -1)
        self._level_of[channels.sensor[levels]] = levels
        phases = channels.sensor[(channels.view == View.SIBLINGS) & channels.two_sided]
        self._is_phase = np.zeros(sensors.n, dtype=bool)
        self._is_phase[phases] = True

    def is_clean(self, rows: IntArray) -> BoolArray:
        """Say which sensors have been sound for an hour, or 60 samples, or 6 of a slow one."""
        s = self._sensors
        with np.errstate(divide="ignore", invalid="ignore"):
            hour = np.nan_to_num(3.6e9 / s.period_us[rows], nan=0.0, posinf=0.0)
        needed = np.clip(hour, 6, self._config.clean_samples)
        return s.clean[rows] >= np.minimum(needed, s.seen[rows])

    def judge(
        self,
        rows: IntArray,
        owner: IntArray,
        machines: int,
        at: IntArray,
        mean: FloatArray,
        *,
        running: BoolArray,
        settled: BoolArray,
        certain: BoolArray,
        learning: BoolArray,
    ) -> BoolArray:
        """Judge `rows`, the sensors of the closing machines; return which of them must not be blamed on the machine now.

        `owner` is each row's machine among `machines`; `at` is the end of its step. Of its machine are: `running` all
        through the step, `settled`, which is running in the step before too, `certain`, which is running for sure, and
        `learning`.
        """
        s = self._sensors
        self._stuck(rows, at, running, certain)
        # the step after a start holds inrush and run-up, which are no noise of a sensor
        suspect = self._spiky(rows, at) | self._noise(rows, owner, machines, at, mean, settled, learning)
        # constant in a step where the machine stands: it may be stuck, which only running can tell; a phase is judged by
        # the others, and the one that is lost may be the one that tells the load
        suspect |= ~running & ~self._is_phase[rows] & (s.count[rows] >= 3) & (s.least[rows] == s.most[rows])
        suspect |= s.run[rows] >= np.maximum(3, s.stuck_at[rows] // 3)  # on its way to be stuck
        self._silence(rows, owner, machines, at)
        raised = self._alarms.active[s.alarm[rows] + int(Rule.SPIKE)]
        if raised.any():
            age_s = (at - s.spiked_at[rows]) / 1e6
            rare = raised & (s.spikes[rows] * np.exp(-np.clip(age_s / self._config.spike_memory_s, 0, 700)) < 1.0)
            self._validity.calm(Rule.SPIKE, rows[rare], at[rare])
        return suspect

    def _noise(
        self,
        rows: IntArray,
        owner: IntArray,
        machines: int,
        at: IntArray,
        mean: FloatArray,
        settled: BoolArray,
        learning: BoolArray,
    ) -> BoolArray:
        s, ch, config = self._sensors, self._channels, self._config
        count = s.count[rows]
        is_vibration = np.isin(s.kind[rows], _VIBRATION_CODES)
        is_load = np.isin(s.kind[rows], _LOAD_CODES)  # scatters as the process does
        judged = settled & ~is_load & (count > 0) & self.is_clean(rows) & (s.seen[rows] > 20)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            bends = s.bends[rows] / count / np.where(is_vibration, np.abs(mean), 1.0)
        judged &= np.isfinite(bends)
        bends = np.where(judged, bends, 0.0)
        steps, usual = s.usual_noise_steps[rows], s.usual_noise[rows]
        weight = np.where(judged, 1.0 - np.exp(-count / (0.5 * config.noise_samples)), 0.0)
        size = np.where(steps == 0, bends, s.noise_size[rows])
        size = np.where(judged, size + weight * (bends - size), s.noise_size[rows])
        s.noise_size[rows] = size
        with np.errstate(divide="ignore", invalid="ignore"):
            noise = np.where(usual > 0, np.log(np.maximum(size / usual, _QUIET)), 0.0)
        young = steps < 4 * config.noise_steps
        learns = judged & learning & (young | (np.abs(noise) < np.log(2.0)))
        share = 1.0 / (np.minimum(steps, 500) + 1.0)
        s.usual_noise[rows] = np.where(learns, usual + share * (bends - usual), usual)
        spread = s.usual_noise_spread[rows]
        spread = np.where(learns & ~young, spread + share * (np.abs(noise) - spread), spread)
        s.usual_noise_spread[rows] = spread
        s.usual_noise_steps[rows] = np.where(learns, steps + 1, steps)
        # of few samples an hour, scatter is the machine's doing
        quick = s.period_us[rows] * 100 <= config.spike_memory_s * 1e6
        ready = judged & ~young & (usual > 0) & quick
        noise = np.where(ready, noise, 0.0)

        level = self._level_of[rows]
        score = np.where(level >= 0, ch.score[level], 0.0)
        shift = np.where((level >= 0) & ch.is_log[level], np.abs(ch.level[level]), 0.0)
        moves = (np.abs(noise) > np.log(2.0)) | (score > config.warn_share)
        movers = np.bincount(owner, weights=moves, minlength=machines)[owner] - moves
        loud = np.abs(noise) > np.maximum(np.log(config.noise_ratio), config.noise_spreads * spread)
        blamed = ready & loud & (movers == 0) & (shift < 0.3 * np.abs(noise)) & ((score < 1.0) | is_vibration)
        alarm = s.alarm[rows] + int(Rule.NOISE)
        involved = ready & (blamed | (self._alarms.since[alarm] > NEVER))
        if involved.any():
            needed = np.clip(np.ceil(config.noise_samples / np.maximum(count[involved], 1)), 3, 60).astype(np.int64)
            raised, cleared = advance_alarms(
                self._alarms,
                alarm[involved],
                at_us=at[involved],
                is_over=blamed[involved],
                is_under=np.abs(noise[involved]) < np.log(2.0),
                on_count=needed,
                off_count=needed,
            )
            for which, is_raised in ((raised, True), (cleared, False)):
                for k in which:
                    row = int(rows[involved][k])
                    self._validity.changes.append(
                        AlarmChange(int(alarm[involved][k]), row, is_raised=is_raised, at_us=int(at[involved][k]))
                    )
        return np.asarray(blamed | self._alarms.active[alarm], dtype=np.bool_)

    def _stuck(self, rows: IntArray, at: IntArray, running: BoolArray, certain: BoolArray) -> None:
        """Raise on identical values once it is certain that the machine runs: switching off can look the same for a step.

        A machine that was never seen to change between rest and work may be at rest: then only a signal that used to
        change from sample to sample, and does not tell the load itself, is taken to be stuck.
        """
        s = self._sensors
        used_to_change = (s.pairs[rows] >= self._config.grown_samples) & (s.same[rows] < 0.5 * s.pairs[rows])
        may = certain | (running & used_to_change & ~np.isin(s.kind[rows], _LOAD_CODES))
        stuck = may & (s.run[rows] >= s.stuck_at[rows])
        if stuck.any():
            r = rows[stuck]
            fresh = r[~self._alarms.active[s.alarm[r] + int(Rule.STUCK)]]
            self._validity.fire(Rule.STUCK, r, at[stuck])
            since = s.last_ts[fresh] - (s.run[fresh] * np.nan_to_num(s.period_us[fresh])).astype(np.int64)
            self._alarms.since[s.alarm[fresh] + int(Rule.STUCK)] = since

    def _spiky(self, rows: IntArray, at: IntArray) -> BoolArray:
        """Say which sensors had several spikes of late: their means are not to be trusted, even before it is a finding."""
        s, config = self._sensors, self._config
        age_s = (at - s.spiked_at[rows]) / 1e6
        spikes = s.spikes[rows] * np.exp(-np.clip(age_s / config.spike_memory_s, 0.0, 700.0))
        quick = s.period_us[rows] * 100 <= config.spike_memory_s * 1e6
        return np.asarray(quick & (spikes >= np.maximum(2.0, 2.0 * s.usual_spikes[rows])), dtype=np.bool_)

    def _silence(self, rows: IntArray, owner: IntArray, machines: int, at: IntArray) -> None:
        s, config = self._sensors, self._config
        heard = s.count[rows] > 0
        others = np.bincount(owner, weights=heard, minlength=machines)[owner] > 0
        raised = self._alarms.active[s.alarm[rows] + int(Rule.SILENT)]
        back = raised & heard
        if back.any():
            self._validity.calm(Rule.SILENT, rows[back], at[back])
        quiet = ~heard & others & ~raised & (s.seen[rows] >= 20)
        if quiet.any():
            gone = at - s.last_ts[rows]
            silent = quiet & (gone > config.silent_periods * np.nan_to_num(s.period_us[rows], nan=np.inf))
            since = s.last_ts[rows[silent]]
            self._validity.fire(Rule.SILENT, rows[silent], at[silent])
            self._alarms.since[s.alarm[rows[silent]] + int(Rule.SILENT)] = since
