"""What people's decisions do to an engine: alarm levels that rejections raised, and a baseline that starts anew.

    rejection -> lift      the rule on that sensor asks for more, for a time
    repair    -> reset     what was learned of the machine no longer holds

Both leave the other machines as they are. The caller keeps the decisions and applies them again after a restart.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from anomaly.bounds import LIMIT_MOST
from anomaly.columns import NEVER, Columns, IntArray
from anomaly.config import KINDS, UNSCORED
from anomaly.engine import Engine
from anomaly.finding import FindingEvent
from anomaly.state import Rule, View
from fettle.model import SignalKind

VIEWS: dict[str, tuple[View, ...]] = {
    "residual": (View.LEVEL,),
    "drift": (View.LEVEL,),
    "siblings": (View.SIBLINGS,),
    "excess": (View.EXCESS_HIGH, View.EXCESS_LOW),
}
"""The features of a finding's evidence that have an alarm level, and the channels that carry it."""

LEVEL_RULES = (*VIEWS, "change")
"""Rules that see one and the same: how far a value is from where it should be."""

_KEPT_OF_MACHINE = {"machine_id", "seen_us", "load_row", "version", "newest", "is_silent", "historical"}
_KEPT_OF_SENSOR = {
    "sensor_id", "machine", "alarm", "kind", "low", "high", "alarm_at", "limit_lift", "change_lift", "last_ts", "last_x", "prev_x",
    "period_us", "late",
}  # fmt: skip
_KEPT_OF_CHANNEL = {
    "sensor", "machine", "view", "alarm", "needs_running", "two_sided", "group", "alarm_sigmas", "lift", "peak",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Lift:
    """One rule on one sensor asks for `factor` times its calibrated level; `is_stopped` silences a rule that has none."""

    sensor_id: int
    feature: str
    factor: float
    is_stopped: bool = False


def set_lifts(engine: Engine, lifts: Iterable[Lift]) -> list[FindingEvent]:
    """Put exactly these lifts in force; a rule that is heard again while its alarm stands is raised now."""
    sensors, channels, alarms = engine.sensors, engine.channels, engine.alarms
    level, limit, change = np.ones(channels.n), np.ones(sensors.n), np.ones(sensors.n)
    muted = np.zeros(alarms.n, dtype=bool)
    row_of = {int(sensor_id): row for row, sensor_id in enumerate(sensors.sensor_id)}
    subjects = engine.subjects()
    alarm_of = {subject: alarm for alarm, subject in enumerate(subjects)}
    for lift in lifts:
        row = row_of.get(lift.sensor_id)
        if row is None:
            continue
        if lift.feature in VIEWS:
            mine = (channels.sensor == row) & np.isin(channels.view, VIEWS[lift.feature])
            level[mine] = np.maximum(level[mine], lift.factor)
        elif lift.feature == Rule.CHANGE.name.lower():
            change[row] = max(change[row], lift.factor)
        elif lift.feature == Rule.LIMIT.name.lower():
            limit[row] = max(limit[row], min(lift.factor, LIMIT_MOST))
        elif lift.is_stopped and lift.feature.upper() in Rule.__members__:
            rule = Rule[lift.feature.upper()]
            alarm = alarm_of.get((rule, int(sensors.machine[row]) if rule is Rule.SKEW else row))
            if alarm is not None:
                muted[alarm] = True
    heard_again = np.flatnonzero(alarms.is_muted & ~muted & alarms.active)
    channels.lift[:], sensors.change_lift[:], alarms.is_muted[:] = level, change, muted
    if not np.array_equal(limit, sensors.limit_lift):
        sensors.limit_lift[:] = limit
        engine.apply_limits()
    if len(heard_again) == 0:
        return []
    machines = [_machine_of(engine, *subjects[alarm]) for alarm in heard_again.tolist()]
    for alarm, machine in zip(heard_again.tolist(), machines, strict=True):
        engine.raised[machine].append(alarm)
    return engine.settle(int(sensors.last_ts[np.isin(sensors.machine, machines)].max()))


def _machine_of(engine: Engine, rule: Rule, row: int) -> int:
    """Return the row of the machine that an alarm is about, given what it judges."""
    if rule is Rule.SKEW:
        return row
    return int(engine.channels.machine[row] if rule is Rule.DEVIATION else engine.sensors.machine[row])


def peaks(engine: Engine, sensor_id: int, feature: str) -> float:
    """Return the highest score, in calibrated alarm levels, of the present or last excursion of a rule on a sensor."""
    rows = np.flatnonzero(engine.sensors.sensor_id == sensor_id)
    if len(rows) == 0 or feature not in VIEWS:
        return 0.0
    mine = (engine.channels.sensor == rows[0]) & np.isin(engine.channels.view, VIEWS[feature])
    return float(engine.channels.peak[mine].max(initial=0.0))


def reset(engine: Engine, machine_id: int, *, after_version: int = 0) -> list[FindingEvent]:
    """Forget what was learned of a machine and learn it again; its open findings are cleared.

    Limits stay in force. The number of its next model is above `after_version` and above the present one.
    """
    found = np.flatnonzero(engine.machines.machine_id == machine_id)
    if len(found) == 0:
        return []
    machine = int(found[0])
    which = np.array([machine])
    rows = engine.sensors_of.of(machine)
    channels = engine.channels_of.of(machine)
    alarms = np.array([a for a, subject in enumerate(engine.subjects()) if _machine_of(engine, *subject) == machine])
    engine.cleared[machine].extend(alarms[engine.alarms.active[alarms]].tolist())
    health = engine.assessment.health
    for table, mine, kept in (
        (engine.machines, which, _KEPT_OF_MACHINE),
        (engine.sensors, rows, _KEPT_OF_SENSOR),
        (engine.channels, channels, _KEPT_OF_CHANNEL),
        (engine.alarms, alarms, {"is_muted"}),
        (engine.assessment.bounds.rows, rows, {"rate_alarm", "change_alarm"}),
        (health.condition, which, set[str]()),
        (health.trends, channels, set[str]()),
    ):
        _blank(table, mine, kept)
    engine.machines.step_us[machine] = int(engine.config.fine_step_s * 1e6)
    engine.machines.version[machine] = max(int(engine.machines.version[machine]), after_version)
    engine.machines.newest[machine] = max(int(engine.machines.newest[machine]), after_version)
    load = int(engine.machines.load_row[machine])
    for row in rows.tolist():
        kind = KINDS[int(engine.sensors.kind[row])]
        engine.sensors.stuck_at[row] = 1 << 30 if kind in UNSCORED else engine.config.stuck_unknown
        is_phase = kind is SignalKind.CURRENT
        engine.sensors.rest_below[row] = np.inf if row == load else 0.0 if is_phase else -np.inf
    engine.relearn(machine, rows)
    return engine.settle(int(engine.sensors.last_ts[rows].max(initial=NEVER)))


def _blank(table: Columns, rows: IntArray, kept: set[str]) -> None:
    """Give rows the values of new ones, in all columns but those kept."""
    for name, fill in table.defaults().items():
        if name not in kept:
            getattr(table, name)[rows] = fill
