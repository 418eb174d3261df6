"""What the built-in board shows, read from `report.*` in the caller's own transaction and cut to the caller's scope.

    principal ─▶ scope ─▶ overview (machines, open tickets) │ trace (one machine, one range) │ ticket (one number)

Knows no HTTP. Times leave as milliseconds since 1970, which is what the browser counts in.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from psycopg.rows import dict_row

from dashboards import evidence as evidence_words
from dashboards.actions import actions_for
from dashboards.assignment import explain_assignment
from dashboards.macros import expand
from dashboards.pages import PLANT, TRACE_POINTS
from fettle.db import AsyncConn, load_queries
from fettle.errors import FettleError
from fettle.http import Principal
from fettle.model import Role, TicketState
from fettle.words import Language
from workorders.api import is_internal

QUERIES = load_queries("dashboards")
LONGEST = timedelta(days=400)
SILENT_AFTER = timedelta(minutes=10)
_LIMITED = {Role.CUSTOMER_REP, Role.ENGINEER}

Row = dict[str, Any]


class NoSuchMachine(FettleError):
    """There is no machine {machine_id} that you may see. Choose one of the list on the board."""


class NoSuchTicket(FettleError):
    """There is no ticket {number} that you may see. Check the number; closed tickets keep theirs."""


class WrongRange(FettleError):
    """The range from {from_ms} to {to_ms} cannot be shown: `from` must lie before `to`, by at most 400 days (both in milliseconds since 1970)."""


@dataclass(frozen=True, slots=True)
class Scope:
    """The machines and tickets a caller may see; None stands for all of the tenant."""

    machines: frozenset[int] | None
    tickets: frozenset[int] | None

    def has_machine(self, machine_id: int) -> bool:
        return self.machines is None or machine_id in self.machines

    def has_ticket(self, ticket_id: int) -> bool:
        return self.tickets is None or ticket_id in self.tickets


async def _rows(conn: AsyncConn, sql: str, parameters: Mapping[str, object] | None = None) -> list[Row]:
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(cast("Any", sql), parameters)
        return await cursor.fetchall()


async def load_scope(conn: AsyncConn, *, principal: Principal) -> Scope:
    """Return what a caller may see: a customer its own machines, an engineer those of his jobs, others everything."""
    if principal.role not in _LIMITED:
        return Scope(None, None)
    who = {"customer_id": principal.customer_id, "engineer_id": principal.engineer_id}
    if principal.role is Role.CUSTOMER_REP:
        who["engineer_id"] = None
    else:
        who["customer_id"] = None
    machines = await _rows(conn, QUERIES.list_scope_machines, who)
    tickets = await _rows(conn, QUERIES.list_scope_tickets, who)
    return Scope(frozenset(row["machine_id"] for row in machines), frozenset(row["ticket_id"] for row in tickets))


def milliseconds(at: datetime | None) -> int | None:
    """Return milliseconds since 1970, or None."""
    return None if at is None else (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def instant(at_ms: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at_ms)


def _panel_sql(key: str, now: datetime) -> str:
    """Return the SQL of a panel that does not depend on the range, as the board runs it."""
    return expand(PLANT.panel(key).sql, from_at=now, to_at=now, interval=timedelta(minutes=1), timescale=False)


async def load_overview(conn: AsyncConn, *, scope: Scope, language: Language, now: datetime) -> dict[str, Any]:
    """Return all machines with their health and newest values, and the open tickets, most severe first."""
    tenant = await _rows(conn, QUERIES.find_tenant)
    latest: dict[int, list[Row]] = {}
    for row in await _rows(conn, QUERIES.list_latest):
        latest.setdefault(row["machine_id"], []).append(row)
    machines = [
        _machine(row, latest.get(row["machine_id"], []), now)
        for row in await _rows(conn, QUERIES.list_machines)
        if scope.has_machine(row["machine_id"])
    ]
    evidence = {row["ticket_id"]: row["evidence"] for row in await _rows(conn, QUERIES.list_open_evidence)}
    tickets = [
        _ticket_row(row, evidence.get(row["ticket_id"]), language)
        for row in await _rows(conn, _panel_sql("tickets", now))
        if scope.has_ticket(row["ticket_id"])
    ]
    return {
        "now_ms": milliseconds(now),
        "tenant": tenant[0]["name"] if tenant else "",
        "machines": machines,
        "tickets": tickets,
    }


def _machine(row: Row, latest: list[Row], now: datetime) -> dict[str, Any]:
    newest = max((value["at"] for value in latest if value["at"] is not None), default=None)
    is_silent = bool(latest) and (newest is None or now - newest > SILENT_AFTER)
    return {
        "id": row["machine_id"],
        "number": row["number"],
        "name": row["name"],
        "class": row["class"],
        "site": row["site"],
        "site_name": row["site_name"],
        "line": row["line"],
        "line_name": row["line_name"],
        "customer": row["customer"],
        "region": row["region"],
        "health": "silent" if is_silent and row["health"] == "well" else row["health"],
        "is_silent": is_silent,
        "open": row["open_tickets"],
        "newest_ms": milliseconds(newest),
        "values": [
            {"kind": value["kind"], "name": value["name"], "unit": value["unit"], "value": _rounded(value["value"])}
            for value in latest
            if value["value"] is not None
        ],
    }


def _ticket_row(row: Row, evidence: Row | None, language: Language) -> dict[str, Any]:
    return {
        "number": row["number"],
        "type": row["type"],
        "state": row["state"],
        "severity": row["severity"],
        "priority": row["priority"],
        "family": row["fault_family"].removeprefix("reported"),
        "description": _description(row, language),
        "hold": row["dispatch_hold"],
        "headline": evidence_words.headline(evidence, language) if evidence else "",
        "machine_id": row["machine_id"],
        "machine": row["machine"],
        "equipment": row["equipment_number"],
        "engineer": row["engineer"],
        "assignment": row["assignment_status"],
        "occurred_ms": milliseconds(row["occurred_at"]),
        "created_ms": milliseconds(row["created_at"]),
    }


def _description(row: Row, language: Language) -> str:
    """Return what was reported in the reader's language, or as it was reported where there is no other."""
    return str((language == "zh" and row["fault_description_zh"]) or row["fault_description"])


def _rounded(value: float | None) -> float | None:
    """Keep what a screen can show: five significant digits."""
    return None if value is None else float(f"{value:.5g}")


async def load_trace(
    conn: AsyncConn, *, scope: Scope, machine_id: int, from_ms: int, to_ms: int, points: int, language: Language
) -> dict[str, Any]:
    """Return the traces of one machine over a range, with the tickets that fell into it.

    At most `TRACE_POINTS` points a sensor, whatever the range.

    Raises:
        NoSuchMachine: it does not exist, or is outside the caller's scope.
        WrongRange: empty, turned round, or longer than 400 days.
    """
    found = await _rows(conn, QUERIES.find_machine, {"machine_id": machine_id}) if scope.has_machine(machine_id) else []
    if not found:
        raise NoSuchMachine(machine_id=machine_id)
    if not 0 < to_ms - from_ms <= LONGEST / timedelta(milliseconds=1) or from_ms < 0:
        raise WrongRange(from_ms=from_ms, to_ms=to_ms)
    span = {
        "machine_id": machine_id,
        "from_at": instant(from_ms),
        "to_at": instant(to_ms),
        "points": min(points, TRACE_POINTS),
    }
    sensors = {
        row["sensor_id"]: {
            **row,
            "label": evidence_words.place(row["kind"], row["name"]),
            "at": [],
            "mean": [],
            "low": [],
            "high": [],
        }
        for row in await _rows(conn, QUERIES.list_sensors, {"machine_id": machine_id})
    }
    cursor = await conn.execute(QUERIES.list_trace, span)
    async for sensor_id, _name, _kind, _unit, at, mean, low, high in cursor:
        series = sensors[sensor_id]
        series["at"].append(milliseconds(at))
        series["mean"].append(_rounded(mean))
        series["low"].append(_rounded(low))
        series["high"].append(_rounded(high))
    newest = await _rows(conn, QUERIES.find_newest_reading, {"machine_id": machine_id})
    step = await _rows(
        conn,
        "SELECT extract(epoch FROM report.trace_step(%(from_at)s, %(to_at)s, %(points)s))::float8 AS step_s",
        span,
    )
    tickets = [
        _marked(row, language)
        for row in await _rows(conn, QUERIES.list_tickets_in_range, span)
        if scope.has_ticket(row["ticket_id"])
    ]
    return {
        "machine": found[0],
        "from_ms": from_ms,
        "to_ms": to_ms,
        "step_ms": round(step[0]["step_s"] * 1000),
        "newest_ms": milliseconds(newest[0]["max"]) if newest else None,
        "sensors": list(sensors.values()),
        "tickets": tickets,
    }


def _marked(row: Row, language: Language) -> dict[str, Any]:
    evidence = row["evidence"]
    return {
        "number": row["number"],
        "type": row["type"],
        "state": row["state"],
        "severity": row["severity"],
        "family": row["fault_family"],
        "description": _description(row, language),
        "headline": evidence_words.headline(evidence, language) if evidence else "",
        "from_ms": milliseconds(row["occurred_at"]),
        "filed_ms": milliseconds(row["created_at"]),
        "to_ms": milliseconds(row["closed_at"]),
        "limits": evidence_words.limits(evidence) if evidence else [],
    }


async def load_ticket(
    conn: AsyncConn, *, scope: Scope, number: str, language: Language, principal: Principal
) -> dict[str, Any]:
    """Return one ticket with its evidence, its life, its assignments, and what the caller may do with it.

    Why an engineer was chosen names other engineers: customers are not told.

    Raises:
        NoSuchTicket: it does not exist, or is outside the caller's scope.
    """
    found = await _rows(conn, QUERIES.find_ticket, {"number": number})
    if not found or not scope.has_ticket(found[0]["ticket_id"]):
        raise NoSuchTicket(number=number)
    ticket = found[0]
    with_reasons = principal.role is not Role.CUSTOMER_REP
    by_id = {"ticket_id": ticket["ticket_id"]}
    evidence = await _rows(conn, QUERIES.list_ticket_evidence, by_id)
    events = await _rows(conn, QUERIES.list_ticket_events, by_id)
    assignments = await _rows(conn, QUERIES.list_ticket_assignments, by_id)
    return {
        **{name: value for name, value in ticket.items() if name not in _INSTANTS},
        "fault_description": _description(ticket, language),
        **{f"{name.removesuffix('_at')}_ms": milliseconds(ticket[name]) for name in _INSTANTS},
        "evidence": _evidence(evidence, language),
        "events": [_event(row, language, with_reasons=with_reasons) for row in events],
        "assignments": [_assignment(row, language, with_reasons=with_reasons) for row in assignments],
        "actions": actions_for(
            role=principal.role,
            engineer_id=principal.engineer_id,
            ticket_id=ticket["ticket_id"],
            state=TicketState(ticket["state"]),
            has_customer=ticket["has_customer"],
            has_machine=ticket["machine_id"] is not None,
            assignments=[(row["assignment_id"], row["engineer_id"], row["status"]) for row in assignments],
        ),
    }


def _event(row: Row, language: Language, *, with_reasons: bool) -> dict[str, Any]:
    reason = row["reason_zh"] if language == "zh" and row["reason_zh"] else row["reason"]
    if not with_reasons and is_internal(kind=row["kind"], actor=row["actor"]):
        reason = ""
    return {
        "at_ms": milliseconds(row["at"]),
        "actor": row["actor"],
        "kind": row["kind"],
        "from_state": row["from_state"],
        "to_state": row["to_state"],
        "reason": reason,
    }


_INSTANTS = ("occurred_at", "created_at", "updated_at", "closed_at")


def _evidence(found: list[Row], language: Language) -> dict[str, Any] | None:
    if not found:
        return None
    newest = found[0]
    body = newest["evidence"]
    return {
        "revisions": len(found),
        "at_ms": milliseconds(newest["at"]),
        "headline": evidence_words.headline(body, language),
        "rows": evidence_words.rows(body, language),
        "zone": evidence_words.zone(body, language),
        "checks": evidence_words.checks(body, language),
        "beside": evidence_words.beside(body, language),
        "window_ms": evidence_words.window_ms(body),
        "confidence": evidence_words.confidence(newest, language),
        "detector": newest["detector"],
        "model_version": newest["model_version"],
        "score": _rounded(newest["score"]),
        "onset_ms": milliseconds(newest["onset_at"]),
        "raised_ms": milliseconds(newest["raised_at"]),
        "cleared_ms": milliseconds(newest["cleared_at"]),
    }


def _assignment(row: Row, language: Language, *, with_reasons: bool) -> dict[str, Any]:
    return {
        "engineer": row["engineer"],
        "phone": row["engineer_phone"],
        "status": row["status"],
        "offered_ms": milliseconds(row["offered_at"]),
        "expires_ms": milliseconds(row["expires_at"]),
        "ended_ms": milliseconds(row["ended_at"]),
        "reason": explain_assignment(row["reason"], language) if with_reasons else [],
    }
