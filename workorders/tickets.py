"""File tickets and move them through their life. Each change of state writes one event in the same transaction."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from fettle.db import AsyncConn
from fettle.errors import FettleError
from fettle.model import Priority, Role, TicketId, TicketState, TicketType, UserId
from workorders import lifecycle, store
from workorders.model import Actor, Channel, DispatchHold, Report, Requirement, Resolution, Ticket


class StaleVersion(FettleError):
    """The ticket has version {version} now, not {expected}: somebody changed it. Read it again."""


class MachineIsSettled(FettleError):
    """Ticket {number} is about machine {machine} and {state}; for another machine, file another ticket."""


async def file_ticket(conn: AsyncConn, *, report: Report, actor: Actor, now: datetime) -> Ticket:
    """File a report as a ticket in state submitted; the equipment number fills in machine and customer.

    A report about an unknown number is kept: the ticket has no machine, and is not confirmed until somebody finds out.
    A customer's report is always that customer's, whoever owns the machine.
    """
    machine = await store.fetch_one(
        conn, "find_machine_by_number", {"number": report.equipment_number, "region": report.region}
    )
    customer_id = machine["customer_id"] if machine else None
    if actor.role is Role.CUSTOMER_REP:
        customer_id = actor.customer_id
    ticket_id = await insert_ticket(
        conn,
        values={
            "type": report.type.value,
            "channel": report.channel.value,
            "priority": report.priority.value,
            "severity": "low",
            "equipment_number": machine["number"] if machine else report.equipment_number,
            "machine_id": machine["id"] if machine else None,
            "customer_id": customer_id,
            "fault_family": "",
            "fault_description": report.fault_description,
            "fault_description_zh": "",
            "contact_phone": report.contact_phone,
            "region": report.region,
            "work_center": report.work_center,
            "operation": report.operation,
            "answers": Jsonb(report.answers),
            "occurred_at": min(report.occurred_at or now, now),
        },
        now=now,
    )
    assert ticket_id is not None  # only potential faults can collide
    await add_requirements(conn, ticket_id=ticket_id, requirements=machine_requirements(machine))
    await store.add_event(
        conn,
        ticket_id=ticket_id,
        at=now,
        actor=actor.name,
        kind="filed",
        detail={"channel": report.channel.value, "machine_is_known": machine is not None, "role": actor.role.value},
    )
    return await store.read_ticket(conn, ticket_id=ticket_id)


async def identify_machine(
    conn: AsyncConn,
    *,
    ticket_id: TicketId,
    equipment_number: str,
    actor: Actor,
    now: datetime,
    expected_version: int | None = None,
) -> Ticket:
    """Say which machine a ticket is about whose equipment number nobody knew; it fills in customer and requirements.

    Raises:
        store.NoSuchTicket: the tenant has none of that id.
        store.NoSuchMachine: nor a machine of that number.
        StaleVersion: the ticket is no longer at `expected_version`.
        MachineIsSettled: its machine is known, or it is closed.
    """
    ticket = await store.lock_ticket(conn, ticket_id=ticket_id)
    if expected_version is not None and ticket.version != expected_version:
        raise StaleVersion(version=ticket.version, expected=expected_version)
    if ticket.has_known_machine or ticket.state is TicketState.CLOSED:
        raise MachineIsSettled(number=ticket.number, machine=ticket.equipment_number, state=ticket.state.value)
    number = equipment_number.strip()
    machine = await store.fetch_one(conn, "find_machine_by_number", {"number": number, "region": ticket.region})
    if machine is None:
        raise store.NoSuchMachine(number=number)
    await conn.execute(
        store.queries.put_machine_on_ticket,
        {
            "ticket_id": ticket_id,
            "machine_id": machine["id"],
            "number": machine["number"],
            "customer_id": machine["customer_id"],
            "now": now,
        },
    )
    await add_requirements(conn, ticket_id=ticket_id, requirements=machine_requirements(machine))
    await store.add_event(
        conn,
        ticket_id=ticket_id,
        at=now,
        actor=actor.name,
        kind="note",
        reason=f"machine {machine['number']}, filed as {ticket.equipment_number}",
        detail={"filed_as": ticket.equipment_number, "machine": machine["number"], "role": actor.role.value},
    )
    return await store.read_ticket(conn, ticket_id=ticket_id)


async def insert_ticket(conn: AsyncConn, *, values: Mapping[str, Any], now: datetime) -> TicketId | None:
    """Take the next number and insert the row; None if an open potential-fault ticket for its cause is there.

    Called inside a transaction; the caller rolls back to before the call when nothing was inserted, so that no number
    is lost.
    """
    counted = await store.fetch_one(conn, "take_ticket_number", {})
    assert counted is not None, "the transaction names no tenant"
    number = f"T-{counted['tickets_filed']:06d}"
    row = await store.fetch_one(conn, "add_ticket", {**values, "number": number, "now": now})
    return TicketId(row["id"]) if row else None


def machine_requirements(machine: Mapping[str, Any] | None) -> list[Requirement]:
    """Return what a machine itself asks of whoever works on it."""
    if machine is None or not machine["required_certificate"]:
        return []
    return [Requirement(machine["required_certificate"], machine["required_level"])]


async def add_requirements(conn: AsyncConn, *, ticket_id: TicketId, requirements: Iterable[Requirement]) -> None:
    """Write a ticket's requirements; of one code the highest level."""
    levels: dict[str, int] = {}
    for requirement in requirements:
        levels[requirement.certificate_code] = max(requirement.level, levels.get(requirement.certificate_code, 0))
    for code, level in levels.items():
        await conn.execute(
            store.queries.add_requirement, {"ticket_id": ticket_id, "certificate_code": code, "level": level}
        )


async def transition(
    conn: AsyncConn,
    *,
    ticket_id: TicketId,
    to: TicketState,
    actor: Actor,
    now: datetime,
    reason: str = "",
    expected_version: int | None = None,
    resolution: Resolution | None = None,
    duplicate_of: TicketId | None = None,
    satisfaction: int | None = None,
    dispatch_hold: DispatchHold = DispatchHold.NONE,
    dispatch_after: datetime | None = None,
    owner_account_id: UserId | None = None,
    detail: Mapping[str, Any] | None = None,
) -> Ticket:
    """Move a ticket to another state, with one event in the same transaction.

    Raises:
        store.NoSuchTicket: the tenant has none of that id, or none that it could be a duplicate of.
        StaleVersion: it is no longer at `expected_version`.
        lifecycle.IllegalTransition, lifecycle.NotYourMove, lifecycle.NotReady: see there.
    """
    ticket = await store.lock_ticket(conn, ticket_id=ticket_id)
    if expected_version is not None and ticket.version != expected_version:
        raise StaleVersion(version=ticket.version, expected=expected_version)
    facts = await gather_facts(conn, ticket=ticket, actor=actor, reason=reason, resolution=resolution)
    move = (ticket.state, to)
    if move == (TicketState.DISPATCHED, TicketState.PENDING_CONFIRMATION) and actor.role is Role.SUPERVISOR:
        dispatch_hold, facts = DispatchHold.TAKEN_BACK, replace(facts, has_live_offer=False)  # the offer goes with it
    lifecycle.judge(ticket.state, to, role=actor.role, facts=facts)
    if duplicate_of is not None:
        await store.read_ticket(conn, ticket_id=duplicate_of)
    if to in {TicketState.CLOSED, TicketState.PENDING_CONFIRMATION}:
        await conn.execute(store.queries.withdraw_live_assignment, {"ticket_id": ticket_id, "now": now})
    is_rework = move == (TicketState.PENDING_ACCEPTANCE, TicketState.IN_PROGRESS)
    await conn.execute(
        store.queries.move_ticket,
        {
            "ticket_id": ticket_id,
            "to_state": to.value,
            "resolution": resolution.value if resolution and to is TicketState.CLOSED else None,
            "duplicate_of": duplicate_of,
            "satisfaction": satisfaction,
            "rework": int(is_rework),
            "dispatch_hold": dispatch_hold.value,
            "dispatch_after": dispatch_after,
            "resets_offers": ticket.state is TicketState.SUBMITTED,
            "owner_account_id": owner_account_id,
            "now": now,
        },
    )
    await store.add_event(
        conn,
        ticket_id=ticket_id,
        at=now,
        actor=actor.name,
        kind="transition",
        from_state=ticket.state,
        to_state=to,
        reason=reason,
        detail={
            "role": actor.role.value,
            **({"resolution": resolution.value} if resolution else {}),
            **({"satisfaction": satisfaction} if satisfaction else {}),
            **(detail or {}),
        },
    )
    return await store.read_ticket(conn, ticket_id=ticket_id)


async def gather_facts(
    conn: AsyncConn, *, ticket: Ticket, actor: Actor, reason: str, resolution: Resolution | None
) -> lifecycle.Facts:
    """Return what the guards ask about a ticket and whoever wants to move it."""
    work = await store.fetch_one(conn, "read_work", {"ticket_id": ticket.id})
    assert work is not None
    is_assignee = actor.engineer_id is not None and work["live_engineer_id"] == actor.engineer_id
    return lifecycle.Facts(
        is_complete=ticket.has_known_machine,
        is_emergency=ticket.type is TicketType.EMERGENCY_STOP or ticket.priority == Priority.EMERGENCY,
        is_machine_made=ticket.channel == Channel.DETECTOR,
        has_live_offer=work["live_engineer_id"] is not None,
        is_assignee=is_assignee,
        has_started=work["live_status"] == "started",
        has_result=bool(work["has_result"]),
        has_customer=ticket.customer_id is not None,
        is_own_customer=ticket.customer_id is not None and actor.customer_id == ticket.customer_id,
        reason=reason.strip(),
        resolution=resolution,
    )
