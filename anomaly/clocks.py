"""Layer 0, batch by batch: is the clock of a machine's device right (ISO 13374 block DM).

delay = time of receipt - event time of the newest reading of the machine in the batch

A delay that leaves its usual size by more than two periods, stays there while a hundred readings arrive and time passes
accordingly, is a clock that was set wrong; so is an event time ahead of its receipt. A backlog that drains after an outage
is not: it comes faster than time passes, and its delay shrinks.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from anomaly.columns import NEVER, AnyArray, BoolArray, Columns, CountArray, FloatArray, IntArray, column
from anomaly.state import Rule
from fettle.model import Flag

if TYPE_CHECKING:
    from anomaly.engine import Engine

_SAMPLES = 100
_BATCHES = 10
_PERIODS = 2.0
_SLACK_US = 5_000_000.0
_LEARN = 0.05


class Clocks(Columns):
    """One row per machine; delays in microseconds, event time behind receipt counts as positive."""

    usual: FloatArray = column("f8", float("nan"))
    spread: FloatArray = column("f8", 0.0)
    batches: CountArray = column("i4", 0)
    off: FloatArray = column("f8", 0.0)  # mean of the delay while it is off
    off_samples: CountArray = column("i4", 0)
    off_batches: CountArray = column("i4", 0)
    off_since: IntArray = column("i8", NEVER)  # event time
    off_received: IntArray = column("i8", NEVER)
    fine_batches: CountArray = column("i4", 0)
    alarm: IntArray = column("i8", -1)


@dataclass(frozen=True, slots=True)
class Skew:
    """What is known of a clock that is wrong, in seconds behind (negative: ahead)."""

    now_s: float
    usual_s: float
    allowed_s: float


class ClockWatch:
    """Judges the clocks of the machines of an engine."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self.rows = Clocks()

    def grow(self) -> None:
        """Give every machine its row and its alarm."""
        e = self._engine
        for row in self.rows.add(e.machines.n - self.rows.n).tolist():
            alarm = int(e.alarms.add(1)[0])
            self.rows.alarm[row] = alarm
            e.subject_of(alarm, Rule.SKEW, row)

    def allowed_us(self, machines: IntArray) -> FloatArray:
        """Return how far the delay of machines may leave its usual size."""
        e = self._engine
        period = np.full(e.machines.n, 0.0)
        known = np.isfinite(e.sensors.period_us)
        np.maximum.at(period, e.sensors.machine[known], e.sensors.period_us[known])
        return np.asarray(_PERIODS * period[machines] + _SLACK_US + 4.0 * self.rows.spread[machines])

    def skew(self, machine: int) -> Skew:
        t = self.rows
        usual = float(np.nan_to_num(t.usual[machine]))
        return Skew(
            (usual + float(t.off[machine])) / 1e6, usual / 1e6, float(self.allowed_us(np.array([machine]))[0]) / 1e6
        )

    def take(self, sensor_rows: IntArray, ts: IntArray, flags: AnyArray, live: BoolArray, received_us: int) -> None:
        """Take one batch: sensor rows, event times and flags of its readings, and when it was received."""
        if received_us <= 0 or not live.any():
            return
        e, t = self._engine, self.rows
        machine = e.sensors.machine[sensor_rows[live]]
        newest = np.full(e.machines.n, NEVER)
        np.maximum.at(newest, machine, ts[live])
        m = np.flatnonzero(newest > NEVER)
        samples = np.bincount(machine, minlength=e.machines.n)[m]
        clamped = np.bincount(machine, weights=(flags[live] & Flag.CLAMPED) != 0, minlength=e.machines.n)[m]
        delay = (received_us - newest[m]).astype(np.float64)
        allowed = self.allowed_us(m)
        young = t.batches[m] < _BATCHES
        usual = np.where(np.isfinite(t.usual[m]), t.usual[m], np.maximum(delay, 0.0))
        away = delay - usual
        ahead = (delay < -_SLACK_US) | (clamped > 0.5 * samples)
        is_off = ahead | (~young & (np.abs(away) > allowed))
        # the baseline learns what is usual, never what is off
        share = np.where(young, 1.0 / (t.batches[m] + 1.0), _LEARN)
        good = ~is_off
        t.usual[m] = np.where(good, usual + share * away, usual)
        t.spread[m] = np.where(good & ~young, t.spread[m] + share * (np.abs(away) - t.spread[m]), t.spread[m])
        t.batches[m] = np.where(good, t.batches[m] + 1, t.batches[m])
        self._runs(m, is_off, away, samples, newest[m], allowed, received_us)

    def _runs(
        self,
        m: IntArray,
        is_off: BoolArray,
        away: FloatArray,
        samples: IntArray,
        newest: IntArray,
        allowed: FloatArray,
        received_us: int,
    ) -> None:
        e, t = self._engine, self.rows
        # an error of a clock keeps its size
        steady = (t.off_batches[m] > 0) & (np.abs(away - t.off[m]) <= np.maximum(0.25 * np.abs(t.off[m]), allowed / 2))
        fresh = is_off & ~steady
        on = is_off & steady
        t.off[m] = np.where(fresh, away, np.where(on, t.off[m] + 0.2 * (away - t.off[m]), t.off[m]))
        t.off_samples[m] = np.where(fresh, samples, np.where(on, t.off_samples[m] + samples, 0))
        t.off_batches[m] = np.where(fresh, 1, np.where(on, t.off_batches[m] + 1, 0))
        t.off_since[m] = np.where(fresh, newest, t.off_since[m])
        t.off_received[m] = np.where(fresh, received_us, t.off_received[m])
        t.fine_batches[m] = np.where(is_off, 0, t.fine_batches[m] + 1)
        lasted_event, lasted = newest - t.off_since[m], received_us - t.off_received[m]
        in_step = lasted > 0.5 * lasted_event  # a backlog drains faster than time passes
        sure = (t.off_samples[m] >= _SAMPLES) & (t.off_batches[m] >= _BATCHES) & in_step & (lasted_event > 0)
        active = e.alarms.active[t.alarm[m]]
        for k in np.flatnonzero(sure & ~active):
            row, alarm = int(m[k]), int(t.alarm[m[k]])
            e.alarms.active[alarm] = True
            e.alarms.since[alarm] = int(t.off_since[row])
            e.alarms.raised_at[alarm] = int(newest[k])
            e.raised[row].append(alarm)
        for k in np.flatnonzero(active & (t.fine_batches[m] >= _BATCHES)):
            alarm = int(t.alarm[m[k]])
            e.alarms.active[alarm] = False
            e.alarms.since[alarm] = NEVER
            e.cleared[int(m[k])].append(alarm)

    def is_active(self, machine: int) -> bool:
        alarm = int(self.rows.alarm[machine])
        return alarm >= 0 and bool(self._engine.alarms.active[alarm])

    def dump(self) -> dict[str, AnyArray]:
        return self.rows.dump("clock")

    def load(self, arrays: dict[str, AnyArray]) -> None:
        """Take the table of a state; one from before clocks were watched starts without."""
        if "clock.alarm" in arrays:
            self.rows.load("clock", arrays)
