"""Layer 1, step by step: limits that one sample cannot show (ISO 13374 block SD).

change   vibration velocity further from its baseline than a quarter of the B/C limit, or beyond 1.25 times that limit
rate     a signal that moves faster than its unit allows: slope of two EWMAs, exact for a ramp

    E fast  ___/     slope = (E fast - E slow) / (tau slow - tau fast)
    E slow  __/      each tau less what sampling takes of it

Both are live from the first minute (the baseline of `change` needs a day), need no calibration, and no better model
switches them off. ISO 20816-1 annex: ALARM is the baseline plus a quarter of B/C, and no more than 1.25 times B/C.
"""

from typing import TYPE_CHECKING

import numpy as np

from anomaly.columns import NEVER, AnyArray, Columns, FloatArray, IntArray, column
from anomaly.config import KINDS
from anomaly.policy import advance_alarms
from anomaly.state import Rule, View
from fettle.model import SignalKind

if TYPE_CHECKING:
    from anomaly.engine import Engine

LIMIT_MOST = 1.5
"""An absolute limit is never lifted further than this, however often it was rejected."""

TAU_FAST_S, TAU_SLOW_S = 60.0, 300.0
_RESEED = 4.0
_RATE_ON, _RATE_OFF = 2, 6
_CHANGE_ON, _OFF = 6, 6
_CLEAR = 0.6
_BASELINE_US = 86_400_000_000
_VELOCITY = KINDS.index(SignalKind.VIBRATION_VELOCITY)


class Bounded(Columns):
    """One row per sensor."""

    fast: FloatArray = column("f8", float("nan"))
    slow: FloatArray = column("f8", float("nan"))
    at: IntArray = column("i8", NEVER)
    slope: FloatArray = column("f8", 0.0)  # per minute
    change: FloatArray = column("f8", 0.0)  # measured less its baseline, smoothed
    baseline: FloatArray = column("f8", float("nan"))
    rate_alarm: IntArray = column("i8", -1)
    change_alarm: IntArray = column("i8", -1)


class Bounds:
    """Judges the sensors of machines whose step closes; what it raises and clears is queued in the engine."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self.rows = Bounded()
        self._rate_at: FloatArray = np.zeros(0)  # per minute, infinite where there is no such limit
        self._bc: FloatArray = np.zeros(0)  # mm/s
        self._is_own: AnyArray = np.zeros(0, dtype=bool)  # the machine's own severity class, not an assumed one

    def grow(self) -> None:
        """Give every sensor its row, its limits and its alarms."""
        e = self._engine
        fresh = self.rows.add(e.sensors.n - self.rows.n)
        if not len(fresh) and len(self._rate_at) == self.rows.n:
            self._read_limits()
            return
        self._read_limits()
        for row in fresh.tolist():
            self.rows.rate_alarm[row] = self._new_alarm(Rule.RATE, row)
            self.rows.change_alarm[row] = self._new_alarm(Rule.CHANGE, row)

    def _new_alarm(self, rule: Rule, row: int) -> int:
        alarm = int(self._engine.alarms.add(1)[0])
        self._engine.subject_of(alarm, rule, row)
        return alarm

    def _read_limits(self) -> None:
        e = self._engine
        metas = [e.sensor_meta(row) for row in range(self.rows.n)]
        self._rate_at = np.array([e.limits.rate(meta)[0] for meta in metas])
        tables = [e.zones(int(m)) for m in e.sensors.machine]
        is_velocity = e.sensors.kind == _VELOCITY
        self._bc = np.where(is_velocity, [t.bc for t in tables], np.nan) if tables else np.zeros(0)
        self._is_own = np.array([not t.is_assumed for t in tables], dtype=bool)

    def rate_limit(self, row: int) -> float:
        return float(self._rate_at[row])

    def change_limit(self, row: int) -> float:
        return 0.25 * float(self._bc[row])

    def step(self, sensor_rows: IntArray, at: IntArray, mean: FloatArray, machine: IntArray) -> None:
        """Take the clean step means of sensors, NaN where there is none; `machine` owns each."""
        known = np.isfinite(mean)
        if not known.any():
            return
        rows, at, mean, machine = sensor_rows[known], at[known], mean[known], machine[known]
        self._rates(rows, at, mean, machine)
        is_velocity = np.isfinite(self._bc[rows])
        if is_velocity.any():
            self._changes(rows[is_velocity], at[is_velocity], mean[is_velocity], machine[is_velocity])

    def _rates(self, rows: IntArray, at: IntArray, mean: FloatArray, machine: IntArray) -> None:
        b = self.rows
        dt_s = np.minimum((at - b.at[rows]) / 1e6, 1e9)
        anew = ~np.isfinite(b.fast[rows]) | (dt_s > _RESEED * TAU_SLOW_S)
        lag_s = []
        for name, tau_s in (("fast", TAU_FAST_S), ("slow", TAU_SLOW_S)):
            values = getattr(b, name)
            weight = 1.0 - np.exp(-dt_s / tau_s)
            before = np.where(anew, mean, values[rows])
            values[rows] = before + weight * (mean - before)
            lag_s.append(dt_s * (1.0 - weight) / weight)  # how far a sampled EWMA trails a ramp; tau in the limit
        b.at[rows] = at
        slope = 60.0 * (b.fast[rows] - b.slow[rows]) / np.maximum(lag_s[1] - lag_s[0], 1e-9)
        b.slope[rows] = slope
        limited = np.isfinite(self._rate_at[rows])
        if limited.any():
            size = np.abs(slope[limited]) / self._rate_at[rows[limited]]
            self._judge(b.rate_alarm[rows[limited]], at[limited], size, _RATE_ON, _RATE_OFF, machine[limited])

    def _changes(self, rows: IntArray, at: IntArray, mean: FloatArray, machine: IntArray) -> None:
        e, b = self._engine, self.rows
        ch = e.channels
        channel = e.assessment.level_channel[rows]
        has = channel >= 0
        # only where the baseline lasts a day, and the step was judged: running, settled, a load that is known
        fitted = has & ch.is_fitted[channel] & (ch.fitted_us[channel] >= _BASELINE_US) & (ch.level_at[channel] == at)
        expected = np.where(fitted, ch.expected[channel], np.nan)
        change = np.where(fitted, mean - expected, 0.0)
        share = 1.0 - np.exp(-1.0 / e.config.smooth_steps)
        b.change[rows] = np.where(fitted, b.change[rows] + share * (change - b.change[rows]), b.change[rows])
        b.baseline[rows] = np.where(fitted, expected, b.baseline[rows])
        size = np.where(fitted, np.abs(b.change[rows]) / (0.25 * self._bc[rows]), 0.0)
        over = np.where(self._is_own[rows], mean / (1.25 * self._bc[rows]), 0.0)
        judged = fitted | (over >= _CLEAR)
        if judged.any():
            lift = e.sensors.change_lift[rows]  # a limit is never lifted by more than half
            size = np.maximum(size / lift, over / np.minimum(lift, LIMIT_MOST))[judged]
            self._judge(b.change_alarm[rows[judged]], at[judged], size, _CHANGE_ON, _OFF, machine[judged])

    def _judge(self, alarm: IntArray, at: IntArray, size: FloatArray, on: int, off: int, machine: IntArray) -> None:
        e = self._engine
        involved = (size >= 1.0) | (e.alarms.since[alarm] > NEVER)
        if not involved.any():
            return
        alarm, machine = alarm[involved], machine[involved]
        live = ~e.machines.historical[machine]
        raised, cleared = advance_alarms(
            e.alarms, alarm, at_us=at[involved], is_over=(size[involved] >= 1.0) & live, is_under=size[involved] < _CLEAR,
            on_count=on, off_count=off,
        )  # fmt: skip
        for i in raised:
            e.raised[int(machine[i])].append(int(alarm[i]))
        for i in cleared:
            e.cleared[int(machine[i])].append(int(alarm[i]))

    def active(self, row: int) -> list[tuple[Rule, int]]:
        """Return the rules that are raised on a sensor, with their alarms."""
        b, alarms = self.rows, self._engine.alarms
        found = ((Rule.RATE, int(b.rate_alarm[row])), (Rule.CHANGE, int(b.change_alarm[row])))
        return [(rule, alarm) for rule, alarm in found if alarm >= 0 and alarms.active[alarm]]

    def dump(self) -> dict[str, AnyArray]:
        return self.rows.dump("bound")

    def load(self, arrays: dict[str, AnyArray]) -> None:
        """Take the table of a state; one from before there were such limits starts without."""
        if "bound.at" in arrays:
            self.rows.load("bound", arrays)


def level_channels(engine: "Engine") -> IntArray:
    """Return for each sensor the channel that looks at its level, -1 where there is none."""
    out = np.full(engine.sensors.n, -1, dtype=np.int64)
    levels = np.flatnonzero(engine.channels.view == View.LEVEL)
    out[engine.channels.sensor[levels]] = levels
    return out
