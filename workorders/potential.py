"""Turn findings into potential-fault tickets: one open ticket per machine and fault family, however often it is told.

raised    no open ticket of that family -> a new one, confirmed by the machine account, ready for dispatch
          an open one                    -> evidence appended; severity may rise, never falls
evidence  the same
cleared   a note on the open ticket proposes to close it; a person closes
"""

import tomllib
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from importlib import resources

import psycopg
from psycopg.types.json import Jsonb

from fettle.db import AsyncConn
from fettle.model import FaultFamily, Priority, Severity, TenantId, TicketId, TicketState, TicketType
from workorders import store, tickets, wording
from workorders.model import (
    DETECTION,
    Appended,
    Channel,
    NoOpenTicket,
    Opened,
    ReportedFinding,
    Requirement,
)

_RANK = {Severity.LOW: 0, Severity.MEDIUM: 1, Severity.HIGH: 2}
_PRIORITY = {Severity.LOW: Priority.LOW, Severity.MEDIUM: Priority.NORMAL, Severity.HIGH: Priority.HIGH}


@cache
def default_requirements() -> Mapping[FaultFamily, Mapping[str, int]]:
    """Return the shipped table: fault family -> certificate code -> level."""
    table = tomllib.loads(resources.files("workorders").joinpath("requirements.toml").read_text(encoding="utf-8"))
    return {family: table[family.value] for family in FaultFamily}


async def open_potential_fault(
    conn: AsyncConn, *, tenant_id: TenantId, finding: ReportedFinding, now: datetime
) -> Opened | Appended:
    """Open the ticket that a finding calls for, or append its evidence to the one that is there.

    Safe to repeat and to run from many processes at once: the database decides who is first. A finding whose ticket was
    closed by a person does not open another, unless it has become worse than that ticket knew.

    Raises:
        store.NoSuchMachine: the tenant has no such machine.
    """
    while True:
        known = await _known_ticket(conn, finding)
        if known is not None:
            return await _append(conn, known, finding, now)
        async with conn.transaction() as attempt:
            opened = await _open(conn, tenant_id, finding, now)
            if opened is not None:
                return opened
            raise psycopg.Rollback(attempt)  # another process was faster: give the number back, append to its ticket


async def note_cleared(conn: AsyncConn, *, finding: ReportedFinding, now: datetime) -> Appended | NoOpenTicket:
    """Note on the open ticket that its finding has cleared, and propose to close it."""
    row = await store.fetch_one(
        conn,
        "lock_open_potential_fault",
        {"machine_id": finding.machine_id, "fault_family": finding.fault_family.value},
    )
    if row is None:
        return NoOpenTicket()
    is_news = await _add_evidence(conn, TicketId(row["id"]), finding)
    if is_news:
        words = wording.describe_clearing(finding)
        await store.add_event(
            conn,
            ticket_id=TicketId(row["id"]),
            at=now,
            actor=DETECTION.name,
            kind="note",
            reason=words.en,
            detail={"reason_zh": words.zh, "finding_key": finding.key, "proposes": "close"},
        )
    return Appended(TicketId(row["id"]), row["number"], is_news, severity_rose=False)


async def _known_ticket(conn: AsyncConn, finding: ReportedFinding) -> store.Row | None:
    """Return the ticket that a finding belongs to already."""
    row = await store.fetch_one(
        conn,
        "lock_open_potential_fault",
        {"machine_id": finding.machine_id, "fault_family": finding.fault_family.value},
    )
    if row is not None:
        return row
    row = await store.fetch_one(
        conn, "find_ticket_of_finding", {"machine_id": finding.machine_id, "finding_key": finding.key}
    )
    if row is not None and _RANK[finding.severity] <= _RANK[Severity(row["severity"])]:
        return row
    return None


async def _append(conn: AsyncConn, row: store.Row, finding: ReportedFinding, now: datetime) -> Appended:
    ticket_id = TicketId(row["id"])
    is_news = await _add_evidence(conn, ticket_id, finding)
    rose = _RANK[finding.severity] > _RANK[Severity(row["severity"])]
    if rose:
        await conn.execute(
            store.queries.raise_severity,
            {
                "ticket_id": ticket_id,
                "severity": finding.severity.value,
                "priority": _PRIORITY[finding.severity].value,
                "now": now,
            },
        )
    if is_news:
        severity = wording.SEVERITIES[finding.severity]
        await store.add_event(
            conn,
            ticket_id=ticket_id,
            at=now,
            actor=DETECTION.name,
            kind="evidence",
            reason=f"severity rose to {severity.en}" if rose else "",
            detail={
                "finding_key": finding.key,
                "revision": finding.revision,
                **({"reason_zh": f"严重程度升至{severity.zh}"} if rose else {}),
            },
        )
    return Appended(ticket_id, row["number"], is_news, rose)


async def _open(conn: AsyncConn, tenant_id: TenantId, finding: ReportedFinding, now: datetime) -> Opened | None:
    machine = await store.fetch_one(conn, "find_machine", {"machine_id": finding.machine_id})
    if machine is None:
        raise store.NoSuchMachine(number=f"id {finding.machine_id} of tenant {tenant_id}")
    words = wording.describe_finding(finding, equipment_number=machine["number"])
    ticket_id = await tickets.insert_ticket(
        conn,
        values={
            "type": TicketType.POTENTIAL_FAULT.value,
            "channel": Channel.DETECTOR.value,
            "priority": _PRIORITY[finding.severity].value,
            "severity": finding.severity.value,
            "equipment_number": machine["number"],
            "machine_id": machine["id"],
            "customer_id": machine["customer_id"],
            "fault_family": finding.fault_family.value,
            "fault_description": words.en,
            "fault_description_zh": words.zh,
            "contact_phone": machine["customer_phone"],
            "region": machine["region"],
            "work_center": machine["line"],
            "operation": "",
            "answers": Jsonb({}),
            "occurred_at": min(finding.onset_at, now),
        },
        now=now,
    )
    if ticket_id is None:
        return None
    await tickets.add_requirements(
        conn,
        ticket_id=ticket_id,
        requirements=[*tickets.machine_requirements(machine), *await _family_requirements(conn, finding.fault_family)],
    )
    await store.add_event(
        conn,
        ticket_id=ticket_id,
        at=now,
        actor=DETECTION.name,
        kind="filed",
        detail={"channel": Channel.DETECTOR.value, "finding_key": finding.key, "detector": finding.detector},
    )
    await _add_evidence(conn, ticket_id, finding)
    ticket = await tickets.transition(
        conn,
        ticket_id=ticket_id,
        to=TicketState.PENDING_CONFIRMATION,
        actor=DETECTION,
        now=now,
        reason="evidence attached",
        detail={"reason_zh": "证据已附"},
    )
    return Opened(ticket.id, ticket.number)


async def _family_requirements(conn: AsyncConn, family: FaultFamily) -> list[Requirement]:
    """Return the certificates for a fault family: the tenant's own table where it has one, else the shipped one."""
    row = await store.fetch_one(conn, "read_policy", {})
    own = (row["policy"] if row else {}).get("family_certificates", {})
    table: Mapping[str, int] = own.get(family.value, default_requirements()[family])
    return [Requirement(code, int(level)) for code, level in table.items()]


async def _add_evidence(conn: AsyncConn, ticket_id: TicketId, finding: ReportedFinding) -> bool:
    """Attach one revision of a finding; say whether it was new."""
    row = await store.fetch_one(
        conn,
        "add_evidence",
        {
            "ticket_id": ticket_id,
            "finding_id": finding.finding_id,
            "finding_key": finding.key,
            "revision": finding.revision,
            "at": finding.at,
            "evidence": Jsonb(
                {
                    **finding.evidence,
                    "severity": finding.severity.value,
                    "detector": finding.detector,
                    "score": finding.score,
                    "threshold": finding.threshold,
                }
            ),
        },
    )
    return row is not None
