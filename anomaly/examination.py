"""Looks closer at raised findings, beside the fold: stored waveforms, and second opinions on stored readings.

raised ─▶ look    newest waveforms of the machine   before it is stored, in a few milliseconds; a race names the family
stored ─▶ opine   baseline and window of readings   later, by itself; a line of evidence

Whatever fails here is logged and costs a line of evidence, never a finding and never the fold.
"""

import asyncio
import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from anomaly import diagnosis
from anomaly.config import VIBRATION
from anomaly.diagnosis import Recording
from anomaly.engine import Engine
from anomaly.envelope import RecordingUnusable
from anomaly.finding import Change, Finding, FindingEvent
from anomaly.limits import Limits
from anomaly.opinions import TooFewRows, second_opinions
from anomaly.store import finding_of, to_instant, to_us
from fettle import logs
from fettle.db import AsyncConn, Pool, load_queries, transaction
from fettle.model import FaultFamily, FindingKind, MachineId, SignalKind

log = logs.get("examine")

_DAY_US = 86_400_000_000
_STEP_US = 600_000_000
_LOOK_S = 5.0
_MOST_LOOKS = 20
_BASELINE_DAYS = 14
_EARLIER = 4
_SPEAKS_OF = {FaultFamily.BEARING, FaultFamily.IMBALANCE, FaultFamily.UNKNOWN_DEVIATION, FaultFamily.OVERHEATING}


class Examiner:
    """Examines the findings of one watched shard; `apply` hands to its engine what was found in the meantime."""

    def __init__(self, pool: Pool, *, limits: Limits) -> None:
        self._pool = pool
        self._limits = limits
        self._said: list[tuple[str, list[dict[str, Any]]]] = []
        self._tried: set[str] = set()

    # -- waveforms ---------------------------------------------------------------------------------------------------

    async def look(
        self, engine: Engine, events: list[FindingEvent], *, tenant_of: Mapping[int, int]
    ) -> list[FindingEvent]:
        """Return the events with what the newest waveforms say; those it cannot examine come back as they are."""
        out = []
        looks = 0
        for event in events:
            f = event.finding
            due = event.change is not Change.CLEARED and f.kind is FindingKind.MACHINE and f.fault_family in _SPEAKS_OF
            if not due or looks >= _MOST_LOOKS:
                out.append(event)
                continue
            looks += 1
            try:
                async with asyncio.timeout(_LOOK_S):
                    found = await self._diagnose(engine, f, tenant_of[int(f.machine_id)], event.at_us)
            except Exception:  # a line of evidence must not cost a finding
                log.exception("examine.waveform_failed", finding=f.key)
                found = None
            out.append(event if found is None else self._amended(engine, event, found))
        return out

    @staticmethod
    def _amended(engine: Engine, event: FindingEvent, found: dict[str, Any]) -> FindingEvent:
        is_bearing = diagnosis.names_bearing(found)
        family = FaultFamily.BEARING if is_bearing and event.change is Change.RAISED else None
        amended = engine.incidents.amend(event.finding.key, family=family, waveform=found)
        if amended is None:
            return event
        note = event.finding.evidence.get("incident")
        evidence = {**event.finding.evidence, "waveform": found}
        evidence |= {name: amended.evidence[name] for name in ("family_now", "checks")} | {"incident": note}
        return FindingEvent(
            event.change,
            event.finding.changed(fault_family=amended.fault_family, evidence=evidence),
            event.at_us,
        )

    async def _diagnose(self, engine: Engine, finding: Finding, tenant_id: int, at_us: int) -> dict[str, Any] | None:
        async with transaction(self._pool, tenant_id=tenant_id) as conn:
            recordings = await _read_recordings(conn, finding, at_us=at_us)
            if not recordings:
                return None
            speed_hz = await _read_speed(conn, finding, at_us=recordings[0].t0_us)
        meta = engine.find_machine(int(finding.machine_id))
        bearing = None if meta is None else self._limits.bearing(meta)
        now, *earlier = recordings
        try:
            return await asyncio.to_thread(diagnosis.diagnose, now, earlier, bearing=bearing, shaft_hz=speed_hz)
        except RecordingUnusable as error:
            log.warning("examine.recording_unusable", finding=finding.key, why=str(error))
            return None

    # -- second opinions ---------------------------------------------------------------------------------------------

    async def opine(self, tenant_ids: Iterable[int], machine_ids: set[int], *, most: int = 3) -> int:
        """Ask for second opinions on up to `most` findings that have none; return how many were asked for."""
        asked = 0
        for tenant_id in sorted(set(tenant_ids)):
            async with transaction(self._pool, tenant_id=tenant_id) as conn:
                cursor = await conn.execute(load_queries("anomaly").list_unexamined, {"tenant_id": tenant_id})
                findings = [finding_of(row) for row in await cursor.fetchall()]
            mine = [f for f in findings if int(f.machine_id) in machine_ids and f.key not in self._tried]
            for finding in mine[: most - asked]:
                self._tried.add(finding.key)
                asked += 1
                try:
                    said = await self._ask(finding, tenant_id)
                except TooFewRows as error:
                    log.info("examine.no_opinion", finding=finding.key, why=str(error))
                    continue
                except Exception:  # an opinion is a line of evidence; the other findings want theirs
                    log.exception("examine.opinion_failed", finding=finding.key)
                    continue
                self._said.append((finding.key, said))
        return asked

    async def _ask(self, finding: Finding, tenant_id: int) -> list[dict[str, Any]]:
        onset = finding.onset_us
        until = max(finding.raised_us, onset + _DAY_US // 12)
        async with transaction(self._pool, tenant_id=tenant_id) as conn:
            healthy, order = await _read_means(conn, finding, onset - (_BASELINE_DAYS + 1) * _DAY_US, onset - _DAY_US)
            window, _ = await _read_means(conn, finding, onset, until, order=order)
        first = next((order.index(int(s)) for s in finding.sensor_ids if int(s) in order), 0)
        opinions = await asyncio.to_thread(second_opinions, healthy, window, first=first)
        return [o.as_dict() for o in opinions]

    def apply(self, engine: Engine) -> list[FindingEvent]:
        """Add the opinions given since the last call to the findings of an engine; return the changes."""
        said, self._said = self._said, []
        events = []
        for key, opinions in said:
            finding = engine.incidents.amend(key, second_opinions=opinions)
            if finding is not None and finding.cleared_us is None:
                at_us = max(int(finding.evidence["at_us"]), finding.raised_us) + 1
                events.append(FindingEvent(Change.EVIDENCE, finding, at_us))
        return engine.assessment.out(events, 0) if events else []


async def _read_recordings(conn: AsyncConn, finding: Finding, *, at_us: int) -> list[Recording]:
    """Return the newest waveform since the onset, and earlier ones of its sensor; empty where there is none."""
    parameters = {
        "machine_id": int(finding.machine_id),
        "onset": to_instant(finding.onset_us - _DAY_US // 24),
        "until": to_instant(at_us + _DAY_US // 24),
        "earlier": to_instant(finding.onset_us - _DAY_US),
        "most": _EARLIER,
        "kinds": [kind.value for kind in VIBRATION],
    }
    cursor = await conn.execute(load_queries("anomaly").list_waveforms, parameters, binary=True)
    rows = await cursor.fetchall()
    return [
        Recording(
            name, unit, to_us(t0), fs_hz, np.frombuffer(data, dtype=np.dtype(dtype)).astype(np.float64) * float(scale)
        )
        for name, unit, t0, fs_hz, dtype, scale, data in rows
    ]


async def _read_speed(conn: AsyncConn, finding: Finding, *, at_us: int) -> float | None:
    """Return the measured shaft speed in Hz at an instant, or None."""
    parameters = {
        "machine_id": int(finding.machine_id),
        "kind": SignalKind.SPEED.value,
        "start": to_instant(at_us - 600_000_000),
        "stop": to_instant(at_us + 600_000_000),
        "at": to_instant(at_us),
    }
    cursor = await conn.execute(load_queries("anomaly").find_speed, parameters)
    row = await cursor.fetchone()
    if row is None or not row[0] > 0:
        return None
    return float(row[0]) / (60.0 if row[1] == "1/min" else 1.0)


async def _read_means(
    conn: AsyncConn, finding: Finding, start_us: int, stop_us: int, *, order: list[int] | None = None
) -> tuple[Any, list[int]]:
    """Return (steps of ten minutes, sensors) of a machine's stored means, NaN where there are none, and the sensors' order."""
    parameters = {
        "machine_id": int(MachineId(finding.machine_id)),
        "start": to_instant(start_us // _STEP_US * _STEP_US),
        "stop": to_instant(stop_us),
        "points": max(-(-(stop_us - start_us) // _STEP_US), 10),
    }
    cursor = await conn.execute(load_queries("anomaly").read_means, parameters)
    rows = await cursor.fetchall()
    sensors = order if order is not None else sorted({int(row[0]) for row in rows})
    times = sorted({row[1] for row in rows})
    place, column = {at: i for i, at in enumerate(times)}, {s: i for i, s in enumerate(sensors)}
    means = np.full((len(times), len(sensors)), np.nan)
    for sensor, mine in itertools.groupby(rows, key=lambda row: int(row[0])):
        if sensor in column:
            for _, at, mean in mine:
                means[place[at], column[sensor]] = np.nan if mean is None else float(mean)
    return means, sensors
