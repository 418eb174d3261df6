"""What stands beside the fold: step limits, clocks, health and outlook, and which findings belong together.

step closed  ─▶ bounds, health                 (SD, HA)
batch folded ─▶ clocks                         (DM)
finding      ─▶ health index, time to limit    (PA), what feedback knows of its rule
events out   ─▶ grouping                       (AG)
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from anomaly.bounds import Bounds, level_channels
from anomaly.clocks import ClockWatch
from anomaly.columns import AnyArray, BoolArray, FloatArray, IntArray
from anomaly.finding import Finding, FindingEvent
from anomaly.grouping import Grouping
from anomaly.health import Health
from fettle.model import FindingKind

if TYPE_CHECKING:
    from anomaly.engine import Engine

_REFRESH_US = 86_400_000_000

Feedback = Callable[[int, str, str], Mapping[str, Any]]
"""Returns, for a machine id, a detector and a fault family, `precision` ({"value", "low", "high", "n"}) and `similar`."""


class Assessment:
    """Assesses the machines of one engine; its state is saved with the engine's."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self.bounds = Bounds(engine)
        self.clocks = ClockWatch(engine)
        self.health = Health(engine)
        self.grouping = Grouping(engine.find_machine, engine.list_machines)
        self.level_channel: IntArray = np.zeros(0, dtype=np.int64)
        self.feedback: Feedback | None = None
        self._reached_us = 0

    def index(self) -> None:
        """Follow the engine's tables after machines or sensors were added."""
        self.level_channel = level_channels(self._engine)
        self.bounds.grow()
        self.clocks.grow()
        self.health.grow()
        self.grouping.census_changed()

    def step(
        self,
        which: IntArray,
        at: IntArray,
        sensor_rows: IntArray,
        owner: IntArray,
        mean: FloatArray,
        c: IntArray,
        c_owner: IntArray,
        residual: FloatArray,
        expected: FloatArray,
        score: FloatArray,
        judged: BoolArray,
    ) -> None:
        """Take a closed step; alarms it raises or clears are queued for the engine to settle."""
        self.bounds.step(sensor_rows, at[owner], mean, which[owner])
        self.health.step(which, at, c, c_owner, residual, expected, score, judged)

    def batch(
        self, sensor_rows: IntArray, ts: IntArray, flags: AnyArray, live: BoolArray, received_us: int
    ) -> list[FindingEvent]:
        """Take a folded batch; return what its clocks raise and clear."""
        self.clocks.take(sensor_rows, ts, flags, live, received_us)
        e = self._engine
        return e.settle(int(ts.max())) if e.raised or e.cleared else []

    def refresh(self, which: IntArray, at: IntArray) -> list[FindingEvent]:
        """Tell anew, once a day of event time, how long open faults of machines have until their limit."""
        e = self._engine
        events: list[FindingEvent] = []
        faulty = e.incidents.faulty()
        if not faulty:
            return events
        condition = self.health.condition
        is_faulty = np.isin(e.machines.machine_id[which], list(faulty))
        for machine, at_us in zip(which[is_faulty].tolist(), at[is_faulty].tolist(), strict=True):
            if at_us - max(int(condition.refreshed_at[machine]), 0) < _REFRESH_US:
                continue
            condition.refreshed_at[machine] = at_us
            events.extend(e.refresh(machine, at_us))
        return events

    def outlook(self, machine: int, at_us: int) -> dict[str, Any] | None:
        """Return the time to the limit of a machine, ready for JSON, or None: no estimate."""
        found = self.health.outlook(machine, at_us)
        if found is None:
            return None
        meta = self._engine.sensor_meta(found.sensor)
        return found.as_dict(sensor_id=int(meta.sensor_id), name=meta.name, unit=meta.unit)

    def known(self, machine: int, detector: str, family: str) -> dict[str, Any]:
        """Return what feedback says of a rule on a machine; empty slots where there is none yet."""
        machine_id = int(self._engine.machines.machine_id[machine])
        found = self.feedback(machine_id, detector, family) if self.feedback else {}
        return {"precision": found.get("precision"), "similar": list(found.get("similar") or [])}

    def out(self, events: list[FindingEvent], reached_us: int) -> list[FindingEvent]:
        """Return what leaves the engine of `events`, once event time has come to `reached_us`."""
        self._reached_us = max(self._reached_us, reached_us)
        return self.grouping.take(events, self._reached_us)

    def waited(self, events: list[FindingEvent], now_us: int) -> list[FindingEvent]:
        """Return what leaves the engine of `events` at `now_us`, a time of receipt: event time stays where it is."""
        return [*self.out(events, 0), *self.grouping.overdue(now_us)]

    def raised_now(self, machine: int, at_us: int, kind: FindingKind) -> None:
        """Note that a finding was told just now, so that its refresh is due a day later."""
        if kind is FindingKind.MACHINE:
            self.health.condition.refreshed_at[machine] = at_us

    def dump(self) -> tuple[dict[str, AnyArray], dict[str, Any]]:
        arrays = {**self.bounds.dump(), **self.clocks.dump(), **self.health.dump()}
        return arrays, {"grouping": self.grouping.dump(), "reached_us": self._reached_us}

    def load(self, arrays: dict[str, AnyArray], body: Mapping[str, Any]) -> None:
        """Take the state; what an older one lacks starts anew."""
        for part in (self.bounds, self.clocks, self.health):
            part.load(arrays)
        self.grouping.load(dict(body.get("grouping") or {}))
        self._reached_us = int(body.get("reached_us") or 0)


__all__ = ["Assessment", "Feedback", "Finding"]
