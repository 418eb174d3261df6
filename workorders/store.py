"""Rows of tickets: what `queries.sql` returns, as values."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from psycopg.rows import class_row, dict_row, kwargs_row
from psycopg.types.json import Jsonb

from fettle.db import AsyncConn, load_queries
from fettle.errors import FettleError
from fettle.model import CustomerId, EngineerId, TicketId, TicketState, TicketType
from workorders.model import Requirement, Ticket

queries = load_queries("workorders")
Row = dict[str, Any]


class NoSuchTicket(FettleError):
    """There is no ticket {ticket_id}, or it is not yours to see."""


class NoSuchMachine(FettleError):
    """No machine has the equipment number {number}."""


def _ticket(**row: Any) -> Ticket:
    return Ticket(**{**row, "state": TicketState(row["state"]), "type": TicketType(row["type"])})


async def fetch_one(conn: AsyncConn, name: str, parameters: Mapping[str, Any]) -> Row | None:
    """Run a named query and return its first row."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(queries[name], parameters)
        return await cursor.fetchone() if cursor.description else None


async def fetch_all(conn: AsyncConn, name: str, parameters: Mapping[str, Any]) -> list[Row]:
    """Run a named query and return all its rows."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(queries[name], parameters)
        return await cursor.fetchall()


async def lock_ticket(conn: AsyncConn, *, ticket_id: TicketId) -> Ticket:
    """Return a ticket and keep others from changing it until the transaction ends.

    Raises:
        NoSuchTicket: the tenant has none of that id.
    """
    async with conn.cursor(row_factory=kwargs_row(_ticket)) as cursor:
        await cursor.execute(queries.lock_ticket, {"ticket_id": ticket_id})
        ticket = await cursor.fetchone()
    if ticket is None:
        raise NoSuchTicket(ticket_id=ticket_id)
    return ticket


async def read_ticket(
    conn: AsyncConn,
    *,
    ticket_id: TicketId,
    customer_id: CustomerId | None = None,
    engineer_id: EngineerId | None = None,
) -> Ticket:
    """Return a ticket; with a customer or an engineer only one that is theirs.

    Raises:
        NoSuchTicket: there is none within that scope.
    """
    async with conn.cursor(row_factory=kwargs_row(_ticket)) as cursor:
        await cursor.execute(
            queries.read_ticket, {"ticket_id": ticket_id, "customer_id": customer_id, "engineer_id": engineer_id}
        )
        ticket = await cursor.fetchone()
    if ticket is None:
        raise NoSuchTicket(ticket_id=ticket_id)
    return ticket


async def list_tickets(
    conn: AsyncConn,
    *,
    customer_id: CustomerId | None = None,
    engineer_id: EngineerId | None = None,
    states: Sequence[TicketState] | None = None,
    types: Sequence[TicketType] | None = None,
    equipment_number: str | None = None,
    before: tuple[datetime, TicketId] | None = None,
    limit: int = 50,
) -> list[Ticket]:
    """Return a page of tickets, newest first, that come after the place `before`."""
    async with conn.cursor(row_factory=kwargs_row(_ticket)) as cursor:
        await cursor.execute(
            queries.list_tickets,
            {
                "customer_id": customer_id,
                "engineer_id": engineer_id,
                "states": [s.value for s in states] if states else None,
                "types": [t.value for t in types] if types else None,
                "equipment_number": equipment_number,
                "before_at": before[0] if before else None,
                "before_id": before[1] if before else None,
                "limit": limit,
            },
        )
        return await cursor.fetchall()


async def read_requirements(conn: AsyncConn, *, ticket_id: TicketId) -> tuple[Requirement, ...]:
    async with conn.cursor(row_factory=class_row(Requirement)) as cursor:
        await cursor.execute(queries.read_requirements, {"ticket_id": ticket_id})
        return tuple(await cursor.fetchall())


async def add_event(
    conn: AsyncConn,
    *,
    ticket_id: TicketId,
    at: datetime,
    actor: str,
    kind: str,
    from_state: TicketState | None = None,
    to_state: TicketState | None = None,
    reason: str = "",
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Write one row of a ticket's history: filed, transition, evidence, note or assignment."""
    await conn.execute(
        queries.add_event,
        {
            "ticket_id": ticket_id,
            "at": at,
            "actor": actor,
            "kind": kind,
            "from_state": from_state.value if from_state else None,
            "to_state": to_state.value if to_state else None,
            "reason": reason,
            "detail": Jsonb(dict(detail or {})),
        },
    )
