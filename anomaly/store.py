"""Detection's part of the database: the fleet, the ledger of batches, state with positions, findings."""

import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from psycopg.types.json import Jsonb

from anomaly.finding import Change, Finding, FindingEvent, MachineMeta, SensorMeta
from fettle.db import AsyncConn, Pool, load_queries, set_tenant, transaction
from fettle.errors import FettleError
from fettle.model import FaultFamily, FindingKind, MachineId, SensorId, Severity, SignalKind
from fettle.wire import READING_DTYPE, ReadingArray

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class LostShard(FettleError):
    """Shard {shard} was taken over by another process; this one stops watching it."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """The machines and sensors of all tenants, and whose they are."""

    machines: list[MachineMeta]
    sensors: list[SensorMeta]
    tenant_of: dict[int, int]

    def part(self, shard: str) -> "Fleet":
        """Return the machines that shard k/n owns, by machine id modulo n."""
        k, n = (int(word) for word in shard.split("/"))
        mine = {int(m.machine_id) for m in self.machines if int(m.machine_id) % n == k}
        return Fleet(
            [m for m in self.machines if int(m.machine_id) in mine],
            [s for s in self.sensors if int(s.machine_id) in mine],
            self.tenant_of,
        )


@dataclass(frozen=True, slots=True)
class Batch:
    """One committed batch of a collector; `readings` is None where the ledger has dropped its bytes."""

    collector_id: int
    number: int
    committed_us: int
    readings: ReadingArray | None


@dataclass(frozen=True, slots=True)
class Announcement:
    """A change of a finding to hand on. The same (finding key, revision) may come twice after a crash, never altered."""

    tenant_id: int
    finding_id: int
    revision: int
    event: FindingEvent


def to_instant(us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=us)


def to_us(instant: datetime) -> int:
    return (instant - _EPOCH) // timedelta(microseconds=1)


async def load_fleet(pool: Pool) -> Fleet:
    """Read machines and sensors of every tenant."""
    queries = load_queries("anomaly")
    machines: list[MachineMeta] = []
    sensors: list[SensorMeta] = []
    tenant_of: dict[int, int] = {}
    async with transaction(pool, tenant_id=None) as conn:
        tenants = [row[0] for row in await (await conn.execute(queries.list_tenants)).fetchall()]
        for tenant_id in tenants:
            await set_tenant(conn, tenant_id=tenant_id)
            for row in await (await conn.execute(queries.list_machines, {"tenant_id": tenant_id})).fetchall():
                machine_id, number, machine_class, iso_class, rated, line, site = row
                tenant_of[machine_id] = tenant_id
                machines.append(
                    MachineMeta(
                        MachineId(machine_id),
                        number,
                        machine_class=machine_class or None,
                        iso_class=iso_class or None,
                        rated_current_a=rated,
                        line=line,
                        site=site,
                    )
                )
            for row in await (await conn.execute(queries.list_sensors, {"tenant_id": tenant_id})).fetchall():
                sensor_id, machine_id, name, kind, unit = row
                sensors.append(SensorMeta(SensorId(sensor_id), MachineId(machine_id), name, SignalKind(kind), unit))
    return Fleet(machines, sensors, tenant_of)


async def load_state(pool: Pool, *, shard: str) -> tuple[dict[int, int], bytes] | None:
    """Return the positions and the state of a shard, or None if it has never stored any."""
    async with pool.connection() as conn:
        row = await (await conn.execute(load_queries("anomaly").find_state, {"shard": shard})).fetchone()
    return None if row is None else ({int(c): int(n) for c, n in row[0].items()}, bytes(row[1]))


async def newest_versions(pool: Pool, *, tenant_ids: Iterable[int]) -> dict[int, int]:
    """Return by machine the number of its newest registered model version."""
    numbers: dict[int, int] = {}
    for tenant_id in sorted(set(tenant_ids)):
        async with transaction(pool, tenant_id=tenant_id) as conn:
            cursor = await conn.execute(load_queries("anomaly").list_newest_versions, {"tenant_id": tenant_id})
            numbers.update(await cursor.fetchall())
    return numbers


async def forget_state(pool: Pool, *, shard: str) -> None:
    """Drop the state of a shard; it is learned again from the batches the ledger still holds."""
    async with pool.connection() as conn:
        await conn.execute(load_queries("anomaly").delete_state, {"shard": shard})


async def next_batches(pool: Pool, positions: Mapping[int, int], *, most: int) -> list[Batch]:
    """Return the batches after `positions` in order of commit, over all collectors, up to `most` of each.

    A collector that has more than `most` waiting bounds the others: none of theirs is returned that was committed after
    its last one here, or the fold would take them for older than what it has yet to see.
    """
    parameters = {"collectors": list(positions), "numbers": list(positions.values()), "most": most}
    async with pool.connection() as conn:
        cursor = await conn.execute(load_queries("anomaly").list_batches, parameters, binary=True)
        rows = await cursor.fetchall()
    waiting = Counter(row[0] for row in rows)
    last_of = {row[0]: row[2] for row in rows}
    bounds = [last_of[collector] for collector, count in waiting.items() if count >= most]
    return [
        Batch(
            collector_id,
            number,
            to_us(committed_at),
            None if payload is None else np.frombuffer(payload, dtype=READING_DTYPE),
        )
        for collector_id, number, committed_at, payload in rows
        if all(committed_at <= bound for bound in bounds)
    ]


async def save(
    pool: Pool,
    *,
    shard: str,
    derived_from: Mapping[int, int] | None,
    positions: Mapping[int, int],
    state: bytes,
    code_version: str,
    events: Iterable[FindingEvent],
    tenant_of: Mapping[int, int],
    shadow: int | None = None,
    also: Callable[[AsyncConn], Awaitable[None]] | None = None,
) -> None:
    """Store findings, state and positions in one transaction; and whatever `also` stores in it.

    With `shadow`, the id of a configuration, findings go to where those of configurations in shadow are kept.

    Raises:
        LostShard: the stored state is not the one this state was derived from.
    """
    queries = load_queries("anomaly")
    async with transaction(pool, tenant_id=None) as conn:
        parameters = {
            "shard": shard,
            "positions": Jsonb({str(c): n for c, n in positions.items()}),
            "state": state,
            "code_version": code_version,
        }
        if derived_from is None:
            cursor = await conn.execute(queries.insert_state, parameters)
        else:
            before = Jsonb({str(c): n for c, n in derived_from.items()})
            cursor = await conn.execute(queries.replace_state, {**parameters, "derived_from": before})
        if cursor.rowcount != 1:
            raise LostShard(shard=shard)
        await store_findings(conn, events, tenant_of=tenant_of, shadow=shadow)
        if also is not None:
            await also(conn)


async def store_findings(
    conn: AsyncConn, events: Iterable[FindingEvent], *, tenant_of: Mapping[int, int], shadow: int | None = None
) -> None:
    """Store changes of findings in the transaction of their state."""
    queries = load_queries("anomaly")
    for event in events:
        tenant_id = tenant_of[int(event.finding.machine_id)]
        await set_tenant(conn, tenant_id=tenant_id)
        row = _as_row(tenant_id, event)
        if shadow is None:
            await conn.execute(queries.store_finding, row)
        else:
            await conn.execute(queries.store_shadow_finding, {**row, "config_id": shadow})


def _as_row(tenant_id: int, event: FindingEvent) -> dict[str, Any]:
    finding = event.finding
    body = finding.as_dict()
    extra = {name: body[name] for name in ("block", "tier", "mode", "threshold", "set_rate", "sensor_ids")}
    return {
        "tenant_id": tenant_id,
        "machine_id": int(finding.machine_id),
        "key": finding.key,
        "fault_family": finding.fault_family.value,
        "kind": finding.kind.value,
        "severity": finding.severity.value,
        "onset_at": to_instant(finding.onset_us),
        "raised_at": to_instant(finding.raised_us),
        "cleared_at": None if finding.cleared_us is None else to_instant(finding.cleared_us),
        "detector": finding.detector,
        "model_version": finding.model_version,
        "score": finding.score,
        "p_value": finding.p_value,
        "evidence": Jsonb({**finding.evidence, **extra, "changed_us": event.at_us}),
        "change": event.change.value,
    }


def finding_of(row: tuple[Any, ...]) -> Finding:
    evidence = row[14] if isinstance(row[14], dict) else json.loads(row[14])
    return Finding(
        key=row[3],
        machine_id=MachineId(row[2]),
        fault_family=FaultFamily(row[4]),
        kind=FindingKind(row[5]),
        severity=Severity(row[6]),
        onset_us=to_us(row[7]),
        raised_us=to_us(row[8]),
        cleared_us=None if row[9] is None else to_us(row[9]),
        detector=row[10],
        model_version=row[11],
        score=row[12],
        p_value=row[13],
        evidence=evidence,
        block=evidence["block"],
        tier=evidence["tier"],
        mode=evidence["mode"],
        threshold=evidence["threshold"],
        set_rate=evidence["set_rate"],
        sensor_ids=tuple(SensorId(s) for s in evidence["sensor_ids"]),
    )


@dataclass(frozen=True, slots=True)
class Unannounced:
    """A finding whose last change was not handed on; `announced` is the revision that was, 0 for none."""

    id: int
    finding: Finding
    change: Change
    revision: int
    announced: int
    held: str
    held_by: int | None

    def announcements(self, tenant_id: int) -> list[Announcement]:
        """Return what to hand on; a finding never announced is first raised."""
        changes = []
        if self.announced == 0 and self.change is not Change.RAISED:
            raised = FindingEvent(Change.RAISED, self.finding.changed(cleared_us=None), self.finding.raised_us)
            changes.append(Announcement(tenant_id, self.id, 1, raised))
        event = FindingEvent(self.change, self.finding, int(self.finding.evidence["changed_us"]))
        return [*changes, Announcement(tenant_id, self.id, self.revision, event)]


async def list_unannounced(conn: AsyncConn, *, tenant_id: int) -> list[Unannounced]:
    """Return the findings of a tenant whose last change was stored but not handed on, oldest first."""
    cursor = await conn.execute(load_queries("anomaly").list_unannounced, {"tenant_id": tenant_id})
    return [
        Unannounced(row[0], finding_of(row), Change(row[15]), row[16], row[17], row[18], row[19])
        for row in await cursor.fetchall()
    ]


async def mark_announced(pool: Pool, announcement: Announcement) -> None:
    async with transaction(pool, tenant_id=announcement.tenant_id) as conn:
        await conn.execute(
            load_queries("anomaly").mark_announced,
            {
                "tenant_id": announcement.tenant_id,
                "id": announcement.finding_id,
                "revision": announcement.revision,
                "change": announcement.event.change.value,
            },
        )


async def find_finding(conn: AsyncConn, *, tenant_id: int, name: str) -> tuple[int, Finding] | None:
    """Return the number and the finding that `name` (its key or number) names."""
    cursor = await conn.execute(load_queries("anomaly").find_finding, {"tenant_id": tenant_id, "name": name})
    row = await cursor.fetchone()
    if row is not None:
        return row[0], finding_of(row)
    is_number = name.isascii() and name.isdecimal() and len(name) < 19
    found = await find_finding_by_id(conn, tenant_id=tenant_id, id=int(name)) if is_number else None
    return None if found is None else (int(name), found)


async def find_finding_by_id(conn: AsyncConn, *, tenant_id: int, id: int) -> Finding | None:  # noqa: A002 - the column's name
    """Return the finding of a number."""
    cursor = await conn.execute(load_queries("anomaly").find_finding_by_id, {"tenant_id": tenant_id, "id": id})
    row = await cursor.fetchone()
    return None if row is None else finding_of(row)


class UnknownMachine(FettleError):
    """No machine has the equipment number {number}, or it is not yours to see."""


class SeveralMachines(FettleError):
    """Several sites have a machine {number} ({sites}): say which site."""


@dataclass(frozen=True, slots=True)
class FoundMachine:
    """A machine that an equipment number names."""

    id: int
    number: str
    machine_class: str
    site: str


async def find_machine(
    conn: AsyncConn,
    *,
    tenant_id: int,
    number: str,
    site: str | None = None,
    customer_id: int | None = None,
    engineer_id: int | None = None,
) -> FoundMachine:
    """Return the machine of an equipment number; with a customer or an engineer only among those that are theirs to see.

    Raises:
        UnknownMachine: there is none.
        SeveralMachines: there are several, and `site` does not choose one.
    """
    parameters = {
        "tenant_id": tenant_id,
        "number": number,
        "site": site,
        "customer_id": customer_id,
        "engineer_id": engineer_id,
    }
    rows = await (await conn.execute(load_queries("anomaly").find_machines, parameters)).fetchall()
    if not rows:
        raise UnknownMachine(number=number)
    if len(rows) > 1:
        raise SeveralMachines(number=number, sites=", ".join(row[3] for row in rows))
    return FoundMachine(*rows[0])


class UnknownSensor(FettleError):
    """Machine {number} has no sensor {name!r}."""


async def find_sensor(conn: AsyncConn, *, tenant_id: int, machine: FoundMachine, name: str) -> int:
    """Return the id of a machine's sensor.

    Raises:
        UnknownSensor: it has none of that name.
    """
    parameters = {"tenant_id": tenant_id, "machine_id": machine.id, "name": name}
    row = await (await conn.execute(load_queries("anomaly").find_sensor, parameters)).fetchone()
    if row is None:
        raise UnknownSensor(number=machine.number, name=name)
    return int(row[0])


async def is_in_scope(conn: AsyncConn, *, machine_id: int, customer_id: int | None, engineer_id: int | None) -> bool:
    """Say whether a machine is the customer's own, or one of the engineer's jobs."""
    parameters = {"machine_id": machine_id, "customer_id": customer_id, "engineer_id": engineer_id}
    return await (await conn.execute(load_queries("anomaly").find_machine_in_scope, parameters)).fetchone() is not None
