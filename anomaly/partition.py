"""Engines put together and taken apart by machine: what a change of the number of processes needs.

    0/1 ──┬─▶ 0/2          one engine's machines go to two engines, or those of two to one; each machine keeps its state
          └─▶ 1/2

Machines do not influence each other's scores, but for the pool that calibration draws from: every part takes over the pool
of the engine that has watched the most.
"""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from anomaly.columns import AnyArray, Columns, IntArray
from anomaly.engine import Engine
from anomaly.state import Rule

_LINKS = {"machine", "sensor", "load_row", "sensor_id", "machine_id", "view"}
_OF_MACHINES = {Rule.SKEW}


def assemble(sources: Sequence[Engine], machine_ids: Collection[int] | None = None) -> Engine:
    """Return an engine with the machines of several engines of one configuration, or with some of them.

    The engines must have folded the same batches. They are not changed.
    """
    first = sources[0]
    whole = Engine(first.config, limits=first.limits)
    notes: list[dict[str, Any]] = []
    for source in sources:
        ids = source.machines.machine_id
        taken = np.arange(len(ids)) if machine_ids is None else np.flatnonzero(np.isin(ids, list(machine_ids)))
        here = set(taken.tolist())
        whole.register(
            [source.machine_meta(row) for row in taken.tolist()],
            [source.sensor_meta(row) for row, owner in enumerate(source.sensors.machine.tolist()) if owner in here],
        )
        if here:
            _Move(source, whole, taken).run()
        notes.append(_grouped(source.assessment.grouping.dump(), set(ids[taken].tolist())))
        whole.unknown_samples = max(whole.unknown_samples, source.unknown_samples)
    whole.assessment.grouping.load(
        {
            "seen": [row for note in notes for row in note["seen"]],
            "held": {key: events for note in notes for key, events in note["held"].items()},
            "incidents": [row for note in notes for row in note["incidents"]],
        }
    )
    whole.pool.load(max(sources, key=lambda e: e.pool.days).pool.dump())
    whole.apply_limits()
    whole.reindex()
    return whole


def _grouped(body: dict[str, Any], machine_ids: set[int]) -> dict[str, Any]:
    """Return what grouping knows of some machines; an incident goes where its headline goes."""
    return {
        "seen": [row for row in body["seen"] if row["finding"]["machine_id"] in machine_ids],
        "held": {k: events for k, events in body["held"].items() if events[0]["finding"]["machine_id"] in machine_ids},
        "incidents": [row for row in body["incidents"] if row["headline"]["machine_id"] in machine_ids],
    }


class _Move:
    """Copies the rows of some machines of one engine into another, which has registered them and their sensors."""

    def __init__(self, source: Engine, whole: Engine, machines: IntArray) -> None:
        self._source, self._whole = source, whole
        sensors = np.flatnonzero(np.isin(source.sensors.machine, machines))
        self._rows: dict[str, tuple[IntArray, IntArray]] = {
            "machine": (machines, _places(whole.machines.machine_id, source.machines.machine_id[machines])),
            "sensor": (sensors, _places(whole.sensors.sensor_id, source.sensors.sensor_id[sensors])),
        }
        self._rows["channel"] = self._match_channels(sensors)
        self._rows["alarm"] = self._match_alarms()

    def _match_channels(self, sensors: IntArray) -> tuple[IntArray, IntArray]:
        """Return the channels of some sensors, and those that look at the same sensor in the same way there."""
        s, w = self._source, self._whole
        there = {
            (int(w.sensors.sensor_id[row]), view): c
            for c, (row, view) in enumerate(zip(w.channels.sensor.tolist(), w.channels.view.tolist(), strict=True))
        }
        pairs = [
            (c, there[key])
            for c in np.flatnonzero(np.isin(s.channels.sensor, sensors)).tolist()
            if (key := (int(s.sensors.sensor_id[s.channels.sensor[c]]), int(s.channels.view[c]))) in there
        ]
        return _two(pairs)

    def _match_alarms(self) -> tuple[IntArray, IntArray]:
        """Return the alarms of the moved machines, sensors and channels, and those of the same rule there."""
        place = {kind: dict(zip(a.tolist(), b.tolist(), strict=True)) for kind, (a, b) in self._rows.items()}
        there = {subject: alarm for alarm, subject in enumerate(self._whole.subjects())}
        pairs = []
        for alarm, (rule, row) in enumerate(self._source.subjects()):
            kind = "channel" if rule is Rule.DEVIATION else "machine" if rule in _OF_MACHINES else "sensor"
            to_row = place[kind].get(row)
            if to_row is not None and (rule, to_row) in there:
                pairs.append((alarm, there[rule, to_row]))
        return _two(pairs)

    def run(self) -> None:
        s, w = self._source, self._whole
        for kind, table, into in (
            ("machine", s.machines, w.machines),
            ("machine", s.assessment.clocks.rows, w.assessment.clocks.rows),
            ("machine", s.assessment.health.condition, w.assessment.health.condition),
            ("sensor", s.sensors, w.sensors),
            ("sensor", s.assessment.bounds.rows, w.assessment.bounds.rows),
            ("channel", s.channels, w.channels),
            ("channel", s.assessment.health.trends, w.assessment.health.trends),
            ("alarm", s.alarms, w.alarms),
        ):
            _copy_rows(table, into, *self._rows[kind])
        machines, to_machines = self._rows["machine"]
        sensors, to_sensors = self._rows["sensor"]
        new_row = np.full(s.sensors.n + 1, -1, dtype=np.int64)
        new_row[sensors] = to_sensors
        w.machines.load_row[to_machines] = new_row[s.machines.load_row[machines]]
        for machine, to_machine in zip(machines.tolist(), to_machines.tolist(), strict=True):
            mine = s.sensors_of.of(machine)
            w.training.take(s.training, machine, mine, to_machine, new_row[mine])
        alarm_of = dict(zip(*(rows.tolist() for rows in self._rows["alarm"]), strict=True))
        w.incidents.take(s.incidents, set(s.machines.machine_id[machines].tolist()), alarm_of)


def _places(ids: IntArray, wanted: IntArray) -> IntArray:
    place = {int(one): row for row, one in enumerate(ids)}
    return np.array([place[int(one)] for one in wanted], dtype=np.int64)


def _two(pairs: list[tuple[int, int]]) -> tuple[IntArray, IntArray]:
    both = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def _copy_rows(table: Columns, into: Columns, rows: IntArray, to_rows: IntArray) -> None:
    """Copy all columns but those that say where a row belongs."""
    for name in table.defaults():
        if name not in _LINKS and not name.endswith("alarm"):
            column: AnyArray = getattr(into, name)
            column[to_rows] = getattr(table, name)[rows]
