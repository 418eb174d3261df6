"""Rows of dispatch: engineers, jobs, assignments and decisions as values."""

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from psycopg.rows import dict_row

from dispatch.model import Absence, Certificate, Engineer, Job, Policy, Requirement, Shift
from dispatch.policy import read_policy as parse_policy
from fettle.db import AsyncConn, load_queries
from fettle.errors import FettleError
from fettle.model import EngineerId, Priority, TicketId, TicketType

queries = load_queries("dispatch")
Row = dict[str, Any]


class NoSuchEngineer(FettleError):
    """There is no engineer {engineer_id}."""


async def fetch_one(conn: AsyncConn, name: str, parameters: Mapping[str, Any]) -> Row | None:
    """Run a named query and return its first row."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(queries[name], parameters)
        return await cursor.fetchone()


async def fetch_all(conn: AsyncConn, name: str, parameters: Mapping[str, Any]) -> list[Row]:
    """Run a named query and return all its rows."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(queries[name], parameters)
        return await cursor.fetchall()


async def read_policy(conn: AsyncConn) -> Policy:
    """Return the dispatch policy of the transaction's tenant.

    Raises:
        BadPolicy: what the tenant has set cannot be.
    """
    row = await fetch_one(conn, "read_policy", {})
    return parse_policy((row["policy"] if row else {}).get("dispatch", {}))


async def read_job(conn: AsyncConn, *, ticket_id: TicketId) -> Job:
    """Return what a ticket asks; the caller has made sure that there is such a ticket."""
    row = await fetch_one(conn, "read_job", {"ticket_id": ticket_id})
    assert row is not None
    needs = await fetch_all(conn, "read_requirements", {"ticket_id": ticket_id})
    return Job(
        ticket_id=TicketId(row["id"]),
        number=row["number"],
        type=TicketType(row["type"]),
        priority=Priority(row["priority"]),
        region=row["region"],
        latitude=row["latitude"],
        longitude=row["longitude"],
        requirements=tuple(Requirement(**need) for need in needs),
        refused_by=frozenset(row["refused_by"]),
    )


async def read_engineers(
    conn: AsyncConn, *, now: datetime, policy: Policy, codes: list[str] | None = None
) -> list[Engineer]:
    """Return the tenant's engineers in the order of their ids; of certificates only `codes`, or all."""
    until = now + timedelta(hours=policy.horizon_hours + 24)
    certificates: dict[int, list[Certificate]] = defaultdict(list)
    shifts: dict[int, list[Shift]] = defaultdict(list)
    absences: dict[int, list[Absence]] = defaultdict(list)
    # rows as tuples, in the order of the fields: a thousand engineers come with some five thousand shifts
    for who, *certificate in await _fetch_tuples(conn, "read_certificates", {"codes": codes}):
        certificates[who].append(Certificate(*certificate))
    known: dict[tuple[Any, ...], Shift] = {}  # engineers share few patterns: one object each compares fast
    for who, *shift in await _fetch_tuples(conn, "read_shifts", {}):
        pattern = tuple(shift)
        shifts[who].append(known.get(pattern) or known.setdefault(pattern, Shift(*pattern)))
    for who, *absence in await _fetch_tuples(conn, "read_absences", {"now": now, "until": until}):
        absences[who].append(Absence(*absence))
    return [
        Engineer(
            EngineerId(who), code, name, latitude, longitude, time_zone, job_cap, active_jobs, tuple(regions),
            tuple(certificates.get(who, ())), tuple(shifts.get(who, ())), tuple(absences.get(who, ())),
        )
        for who, code, name, latitude, longitude, time_zone, job_cap, active_jobs, regions in await _fetch_tuples(
            conn, "read_engineers", {}
        )
    ]  # fmt: skip


async def _fetch_tuples(conn: AsyncConn, name: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    cursor = await conn.execute(queries[name], parameters)
    return await cursor.fetchall()
