r"""No ticket for a while, because a person says so: shelving, suppression, out of service, maintenance (ISA-18.2).

    finding      ____/~~~~~~~~~~~~~~~~~~~~\____       stored with its evidence all the same
    inhibition  [##########)                          a reason, an end, a name: always
    ticket                  ^ the finding is still raised when the inhibition ends: it is handed on now

A finding that comes and goes while it is inhibited is never handed on. What is decided follows from instants that are stored,
so that a replay decides the same.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from fettle.db import AsyncConn, load_queries
from fettle.errors import FettleError
from fettle.model import FaultFamily
from fettle.words import FieldProblem, InvalidFields, Words


class InhibitionKind(StrEnum):
    """Why a machine may stay silent."""

    SHELVED = "shelved"  # an engineer knows of it
    SUPPRESSED = "suppressed"  # by design: this cannot be a fault here
    OUT_OF_SERVICE = "out_of_service"
    MAINTENANCE = "maintenance"


LONGEST: Mapping[InhibitionKind, timedelta] = {
    InhibitionKind.SHELVED: timedelta(days=7),
    InhibitionKind.MAINTENANCE: timedelta(days=30),
    InhibitionKind.SUPPRESSED: timedelta(days=90),
    InhibitionKind.OUT_OF_SERVICE: timedelta(days=366),
}
"""How long each kind may last; the database holds the same table."""

OLDEST_START = timedelta(days=1)
"""How far back an inhibition may begin: somebody writes down this morning's maintenance in the afternoon."""


class NoSuchInhibition(FettleError):
    """There is no inhibition {id} that is in force, or it is not yours to see."""


@dataclass(frozen=True, slots=True)
class Inhibition:
    """A period without tickets: of a machine, of one of its sensors or of one fault family."""

    id: int
    machine_id: int
    sensor_id: int | None
    fault_family: str
    kind: str
    starts_at: datetime
    ends_at: datetime
    reason: str
    created_by: str
    created_at: datetime
    ended_at: datetime | None = None
    ended_by: str = ""

    @property
    def until(self) -> datetime:
        return self.ends_at if self.ended_at is None else min(self.ends_at, self.ended_at)

    def covers(self, at: datetime) -> bool:
        return self.starts_at <= at < self.until


def holder(
    inhibitions: Iterable[Inhibition], *, family: str, sensor_ids: Collection[int], at: datetime
) -> Inhibition | None:
    """Return the inhibition under which a finding makes no ticket at an instant.

    One of a sensor holds a finding only if every sensor of the finding is held.
    """
    active = [i for i in inhibitions if i.covers(at) and i.fault_family in {"", family}]
    for inhibition in active:
        if inhibition.sensor_id is None:
            return inhibition
    if sensor_ids and set(sensor_ids) <= {i.sensor_id for i in active}:
        return active[0]
    return None


def covered(
    inhibitions: Sequence[Inhibition],
    *,
    family: str,
    sensor_ids: Collection[int],
    since: datetime,
    until: datetime,
) -> Inhibition | None:
    """Return the inhibition that holds a finding at `since` if it is held at every instant of [since, until]; else None.

    Cover can begin anywhere, but it can only lapse where an inhibition ends.
    """
    ends = {i.until for i in inhibitions if since < i.until <= until}
    held = [holder(inhibitions, family=family, sensor_ids=sensor_ids, at=at) for at in (since, *sorted(ends))]
    return None if None in held else held[0]


def check(*, kind: InhibitionKind, starts_at: datetime, ends_at: datetime, reason: str, now: datetime) -> None:
    """Say nothing if an inhibition may be made.

    Raises:
        InvalidFields: it has no reason, is over, begins too long ago, or lasts longer than its kind may.
    """
    longest = LONGEST[kind]
    problems = []
    if not reason.strip():
        problems.append(FieldProblem("reason", "missing", Words("Give the reason.", "请填写原因。")))
    if ends_at <= max(starts_at, now):
        problems.append(FieldProblem("ends_at", "over", Words("The end must lie after the start and after now.", "结束时间必须晚于开始时间和当前时间。")))  # fmt: skip
    elif ends_at - starts_at > longest:
        days = f"{longest / timedelta(days=1):g}"
        problems.append(
            FieldProblem(
                "ends_at",
                "too-long",
                Words(
                    f"{kind.value} lasts at most {days} days; choose an earlier end, or a kind that may last longer.",
                    f"{kind.value} 最长 {days} 天；请提前结束时间，或选择允许更长时间的类型。",
                ),
            )
        )
    if starts_at < now - OLDEST_START:
        problems.append(FieldProblem("starts_at", "too-early", Words("It may begin at most a day ago.", "开始时间最早为一天前。")))  # fmt: skip
    if problems:
        raise InvalidFields(problems)


async def add_inhibition(
    conn: AsyncConn,
    *,
    tenant_id: int,
    machine_id: int,
    kind: InhibitionKind,
    ends_at: datetime,
    reason: str,
    by: str,
    now: datetime,
    starts_at: datetime | None = None,
    sensor_id: int | None = None,
    fault_family: FaultFamily | None = None,
) -> Inhibition:
    """Keep a machine, or a part of it, from making tickets until `ends_at`.

    Raises:
        InvalidFields: see `check`.
    """
    starts_at = starts_at or now
    check(kind=kind, starts_at=starts_at, ends_at=ends_at, reason=reason, now=now)
    async with conn.cursor(row_factory=class_row(Inhibition)) as cursor:
        await cursor.execute(
            load_queries("anomaly").add_inhibition,
            {
                "tenant_id": tenant_id,
                "machine_id": machine_id,
                "sensor_id": sensor_id,
                "fault_family": fault_family.value if fault_family else "",
                "kind": kind.value,
                "starts_at": starts_at,
                "ends_at": ends_at,
                "reason": reason.strip(),
                "created_by": by,
                "now": now,
            },
        )
        made = await cursor.fetchone()
    assert made is not None
    await note(conn, tenant_id=tenant_id, machine_id=machine_id, at=now, actor=by, kind="inhibited", reason=made.reason, detail=describe(made))  # fmt: skip
    return made


async def end_inhibition(conn: AsyncConn, *, tenant_id: int, id: int, by: str, now: datetime) -> Inhibition:  # noqa: A002 - its number
    """End an inhibition now; findings that are still raised are handed on.

    Raises:
        NoSuchInhibition: there is none of that number, or it is over.
    """
    async with conn.cursor(row_factory=class_row(Inhibition)) as cursor:
        await cursor.execute(
            load_queries("anomaly").end_inhibition, {"tenant_id": tenant_id, "id": id, "ended_by": by, "now": now}
        )
        ended = await cursor.fetchone()
    if ended is None:
        raise NoSuchInhibition(id=id)
    await note(conn, tenant_id=tenant_id, machine_id=ended.machine_id, at=now, actor=by, kind="inhibition_ended", detail=describe(ended))  # fmt: skip
    return ended


async def find_inhibition(conn: AsyncConn, *, tenant_id: int, id: int) -> Inhibition:  # noqa: A002 - its number
    """Return an inhibition.

    Raises:
        NoSuchInhibition: there is none of that number.
    """
    async with conn.cursor(row_factory=class_row(Inhibition)) as cursor:
        await cursor.execute(load_queries("anomaly").find_inhibition, {"tenant_id": tenant_id, "id": id})
        found = await cursor.fetchone()
    if found is None:
        raise NoSuchInhibition(id=id)
    return found


async def list_inhibitions(
    conn: AsyncConn, *, tenant_id: int, machine_ids: Collection[int], since: datetime
) -> list[Inhibition]:
    """Return the inhibitions of machines that end at or after `since`, in force, planned or ended early."""
    async with conn.cursor(row_factory=class_row(Inhibition)) as cursor:
        await cursor.execute(
            load_queries("anomaly").list_inhibitions,
            {"tenant_id": tenant_id, "machine_ids": list(machine_ids), "since": since},
        )
        return await cursor.fetchall()


def describe(inhibition: Inhibition) -> dict[str, Any]:
    """Return an inhibition as JSON values."""
    body = asdict(inhibition)
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in body.items()
        if value is not None
    }


async def note(
    conn: AsyncConn,
    *,
    tenant_id: int,
    machine_id: int,
    at: datetime,
    actor: str,
    kind: str,
    reason: str = "",
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Write one row of the history of detection, which nobody can change."""
    await conn.execute(
        load_queries("anomaly").add_detection_event,
        {
            "tenant_id": tenant_id,
            "machine_id": machine_id,
            "at": at,
            "actor": actor,
            "kind": kind,
            "reason": reason,
            "detail": Jsonb(dict(detail or {})),
        },
    )
