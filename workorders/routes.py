"""The web routes of tickets: file, list, read, move; and the machine record that an equipment number fills in."""

import base64
import binascii
from collections.abc import Mapping
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.encoders import jsonable_encoder
from fastapi.responses import JSONResponse
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from fettle.http import Principal, answer_once, begin, edge_of, etag, expected_version, require
from fettle.model import (
    CustomerId,
    EngineerId,
    FindingOutcome,
    Rejection,
    Repair,
    Role,
    TicketId,
    TicketState,
    TicketType,
)
from fettle.problems import ProblemKind
from fettle.words import FieldProblem, InvalidFields, Words
from workorders import intake, lifecycle, store, tickets
from workorders.model import Actor, Resolution, Ticket, is_internal

router = APIRouter(prefix="/api/v1", tags=["tickets"])

PROBLEMS: Mapping[type[Exception], ProblemKind] = {
    store.NoSuchTicket: ProblemKind(404, "no-such-ticket", Words("No such ticket", "工单不存在"), "工单 {ticket_id} 不存在，或您无权查看。"),
    store.NoSuchMachine: ProblemKind(404, "no-such-machine", Words("No such machine", "设备不存在"), "没有设备编号为 {number} 的设备。"),
    tickets.StaleVersion: ProblemKind(412, "stale-version", Words("Somebody was faster", "工单已被他人修改"), "工单当前版本为 {version}，而不是 {expected}，请重新读取后再操作。"),
    tickets.MachineIsSettled: ProblemKind(409, "machine-settled", Words("The machine is settled", "设备已确定"), "工单 {number} 的设备为 {machine}，状态为 {state}；如为其他设备，请另行提交工单。"),
    lifecycle.IllegalTransition: ProblemKind(409, "illegal-transition", Words("Not part of the life cycle", "状态流转不允许"), "工单不能从 {from_state} 变为 {to_state}；可变为：{allowed}。"),
    lifecycle.NotYourMove: ProblemKind(403, "not-your-move", Words("Not your move", "角色无权流转"), "角色 {role} 无权将工单从 {from_state} 变为 {to_state}；需要：{takes}。"),
    lifecycle.NotReady: ProblemKind(409, "not-ready", Words("Not ready yet", "条件尚未满足"), "工单暂时不能变为 {to_state}：{why_zh}。"),
}  # fmt: skip

FILERS = (Role.CUSTOMER_REP, Role.ORDER_TAKER, Role.SUPERVISOR, Role.ENGINEER, Role.ADMIN, Role.MACHINE_ACCOUNT)
READERS = (
    Role.CUSTOMER_REP,
    Role.ORDER_TAKER,
    Role.SUPERVISOR,
    Role.ENGINEER,
    Role.FINANCE,
    Role.ADMIN,
    Role.HQ_VIEWER,
)
MOVERS = (Role.CUSTOMER_REP, Role.ORDER_TAKER, Role.SUPERVISOR, Role.ENGINEER)

Filer = Annotated[Principal, Depends(require(*FILERS))]
Reader = Annotated[Principal, Depends(require(*READERS))]
Mover = Annotated[Principal, Depends(require(*MOVERS))]
Office = Annotated[Principal, Depends(require(Role.ORDER_TAKER, Role.SUPERVISOR))]

TicketPath = Annotated[int, Path(ge=1, le=2**63 - 1, description="The ticket's id")]

_SEND_BACK = Words(
    "send the result back with POST /api/v1/tickets/{id}/rejection, so that an engineer has the job again",
    "请通过 POST /api/v1/tickets/{id}/rejection 退回，以便工程师重新接手",
)
_BAD_DUPLICATE = Words(
    "Give the id of the other ticket that this one repeats, with resolution=duplicate and with nothing else.",
    "仅当 resolution=duplicate 时填写 duplicate_of，且须为本工单所重复的另一张工单的编号。",
)
_BAD_OUTCOME = Words(
    "Give outcome with to=closed alone; with outcome=rejected give outcome_reason (process_change, sensor, tolerated or duplicate); repair goes with outcome=confirmed.",
    "仅在 to=closed 时填写 outcome；outcome=rejected 时须填写 outcome_reason（process_change、sensor、tolerated 或 duplicate）；repair 仅与 outcome=confirmed 同时填写。",
)
_BAD_CURSOR = Words("The cursor is not one that this list gave out. Start without it.", "游标无效，请去掉后重新开始。")


class TicketReport(BaseModel):
    """A fault report. Four fields are required: equipment_number, fault_description, contact_phone and region."""

    model_config = ConfigDict(  # what is not known is told by intake, together with what is missing
        extra="allow", json_schema_extra={"required": list(intake.REQUIRED), "additionalProperties": False}
    )

    equipment_number: Any = Field(
        None, description="设备编号, as on the name plate", json_schema_extra={"type": "string"}
    )
    fault_description: Any = Field(None, description="设备故障现象描述", json_schema_extra={"type": "string"})
    contact_phone: Any = Field(None, description="联系电话", json_schema_extra={"type": "string"})
    region: Any = Field(None, description="所属区域, the service region", json_schema_extra={"type": "string"})
    type: Any = Field(
        None,
        description="repair, maintenance, emergency_stop, part_request or inspection",
        json_schema_extra={"type": "string"},
    )
    priority: Any = Field(None, description="low, normal or high", json_schema_extra={"type": "string"})
    channel: Any = Field(None, description="api, board, phone, mail or chat", json_schema_extra={"type": "string"})
    occurred_at: AwareDatetime | None = None
    work_center: str = Field("", max_length=128)
    operation: str = Field("", max_length=128)
    answers: dict[str, Any] = Field(default_factory=dict, description="Answers to the guided questions")


class Move(BaseModel):
    """A wish to move a ticket to another state."""

    model_config = ConfigDict(extra="forbid")

    to: TicketState
    reason: str = Field("", max_length=2000)
    resolution: Resolution | None = Field(None, description="Why it is closed; only with to=closed")
    duplicate_of: int | None = Field(
        None, ge=1, le=2**63 - 1, description="The ticket it repeats; with resolution=duplicate, and only then"
    )
    outcome: FindingOutcome | None = Field(
        None, description="What became of the finding; with to=closed, and only then"
    )
    outcome_reason: Rejection | None = Field(
        None, description="Why it was no fault; with outcome=rejected, and only then"
    )
    repair: Repair | None = Field(
        None, description="What was done to the machine; with outcome=confirmed, and only then"
    )


class Identification(BaseModel):
    """The machine that a ticket is about."""

    model_config = ConfigDict(extra="forbid")

    equipment_number: str = Field(min_length=1, max_length=128, description="设备编号 of a machine that is known")


class TicketOut(BaseModel):
    """A ticket as the API shows it."""

    id: int
    number: str
    type: str
    state: str
    channel: str
    priority: str
    severity: str
    equipment_number: str
    machine_id: int | None
    machine_is_known: bool
    customer_id: int | None
    fault_family: str
    fault_description: str
    fault_description_zh: str
    contact_phone: str
    region: str
    work_center: str
    operation: str
    answers: dict[str, Any]
    resolution_code: str | None
    duplicate_of: int | None
    rework_count: int
    satisfaction: int | None
    dispatch_hold: str
    dispatch_after: datetime | None
    version: int
    occurred_at: datetime
    created_at: datetime
    updated_at: datetime
    closed_at: datetime | None
    next_states: list[str] = Field(description="States that may follow, whoever may move it there")


class TicketDetail(TicketOut):
    """A ticket with its requirements, history, evidence and assignments, each oldest first."""

    requirements: list[dict[str, Any]]
    events: list[dict[str, Any]]
    evidence: list[dict[str, Any]]
    assignments: list[dict[str, Any]]


class TicketPage(BaseModel):
    """Tickets, newest first. `next` is the cursor of the following page; null on the last one."""

    tickets: list[TicketOut]
    next: str | None


class MachineRecord(BaseModel):
    """What an equipment number fills in."""

    number: str
    name: str
    machine_class: str
    site: str
    site_name: str
    region: str
    time_zone: str
    line: str
    customer_code: str
    customer_name: str
    customer_phone: str
    tickets: list[TicketOut] = Field(description="The newest ten")


def actor_of(principal: Principal) -> Actor:
    """Return who acts, as the life cycle knows them."""
    return Actor(principal.login, principal.role, principal.engineer_id, principal.customer_id)


def scope_of(principal: Principal) -> dict[str, Any]:
    """Return what a caller may see of the tenant's tickets: a customer its own, an engineer those offered to him or her."""
    match principal.role:
        case Role.CUSTOMER_REP:
            return {"customer_id": principal.customer_id or CustomerId(0), "engineer_id": None}
        case Role.ENGINEER:
            return {"customer_id": None, "engineer_id": principal.engineer_id or EngineerId(0)}
        case _:
            return {"customer_id": None, "engineer_id": None}


def show(ticket: Ticket) -> dict[str, Any]:
    """Return a ticket as JSON values."""
    fields = {name: getattr(ticket, name, None) for name in TicketOut.model_fields}
    fields |= {
        "machine_is_known": ticket.has_known_machine,
        "next_states": [state.value for state in lifecycle.followers(ticket.state)],
    }
    encoded: dict[str, Any] = jsonable_encoder(fields)
    return encoded


def answer_ticket(ticket: Ticket, status: int = HTTPStatus.OK) -> JSONResponse:
    """Return a ticket with its version as ETag; a new one with its address."""
    headers = {"ETag": etag(ticket.version)}
    if status == HTTPStatus.CREATED:
        headers["Location"] = f"/api/v1/tickets/{ticket.id}"
    return JSONResponse(show(ticket), status, headers=headers)


@router.post("/tickets", status_code=HTTPStatus.CREATED, response_model=TicketOut)
async def file_ticket(request: Request, body: TicketReport, principal: Filer) -> Response:
    """File a ticket. An unknown equipment number is kept and flagged; missing fields are named, each with its remedy."""
    report = intake.read_report(body.model_dump())
    async with begin(request, principal) as conn:

        async def act() -> JSONResponse:
            ticket = await tickets.file_ticket(
                conn, report=report, actor=actor_of(principal), now=edge_of(request).now()
            )
            return answer_ticket(ticket, HTTPStatus.CREATED)

        return await answer_once(request, principal, conn, act)


@router.get("/tickets")
async def list_tickets(
    request: Request,
    principal: Reader,
    state: Annotated[list[TicketState] | None, Query(description="Repeat for several")] = None,
    type: Annotated[list[TicketType] | None, Query(description="Repeat for several")] = None,  # noqa: A002 - the parameter's name
    machine: Annotated[str | None, Query(description="Equipment number", max_length=128)] = None,
    cursor: Annotated[str | None, Query(description="`next` of the page before", max_length=200)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> TicketPage:
    """List the tickets that the caller may see, newest first."""
    async with begin(request, principal) as conn:
        found = await store.list_tickets(
            conn,
            **scope_of(principal),
            states=state,
            types=type,
            equipment_number=machine,
            before=_read_cursor(cursor) if cursor else None,
            limit=limit + 1,
        )
    following = _make_cursor(found[limit - 1]) if len(found) > limit else None
    return TicketPage.model_validate({"tickets": [show(ticket) for ticket in found[:limit]], "next": following})


@router.get("/tickets/{ticket_id}", response_model=TicketDetail)
async def read_ticket(request: Request, ticket_id: TicketPath, principal: Reader) -> Response:
    """Read a ticket with its history, evidence and assignments. The ETag is its version, for If-Match.

    Why one engineer was chosen and not another is left out for customers.
    """
    async with begin(request, principal) as conn:
        ticket = await store.read_ticket(conn, ticket_id=TicketId(ticket_id), **scope_of(principal))
        parts = {
            "requirements": [
                {"certificate_code": r.certificate_code, "level": r.level}
                for r in await store.read_requirements(conn, ticket_id=ticket.id)
            ],
            "events": await store.fetch_all(conn, "read_events", {"ticket_id": ticket.id}),
            "evidence": await store.fetch_all(conn, "read_evidence", {"ticket_id": ticket.id}),
            "assignments": await store.fetch_all(conn, "read_assignments", {"ticket_id": ticket.id}),
        }
    if principal.role is Role.CUSTOMER_REP:
        parts["events"] = [_for_customer(event) for event in parts["events"]]
        parts["assignments"] = [{**one, "reason": {}, "refusal": ""} for one in parts["assignments"]]
    return JSONResponse({**show(ticket), **jsonable_encoder(parts)}, headers={"ETag": etag(ticket.version)})


@router.post("/tickets/{ticket_id}/transitions", response_model=TicketOut)
async def move_ticket(request: Request, ticket_id: TicketPath, body: Move, principal: Mover) -> Response:
    """Move a ticket to another state. If-Match takes the version you saw. A result is sent back by POST …/rejection."""
    version = expected_version(request)
    _check_duplicate(body, ticket_id)
    _check_outcome(body)
    async with begin(request, principal) as conn:

        async def act() -> JSONResponse:
            # what the caller may not see is not there
            ticket = await store.read_ticket(conn, ticket_id=TicketId(ticket_id), **scope_of(principal))
            if (ticket.state, body.to) == (TicketState.PENDING_ACCEPTANCE, TicketState.IN_PROGRESS):
                raise lifecycle.NotReady(to_state=body.to.value, why=_SEND_BACK.en, why_zh=_SEND_BACK.zh)
            moved = await tickets.transition(
                conn,
                ticket_id=TicketId(ticket_id),
                to=body.to,
                actor=actor_of(principal),
                now=edge_of(request).now(),
                reason=body.reason,
                expected_version=version,
                resolution=body.resolution,
                duplicate_of=TicketId(body.duplicate_of) if body.duplicate_of is not None else None,
                owner_account_id=principal.account_id,
                detail={
                    name: value.value
                    for name in ("outcome", "outcome_reason", "repair")
                    if (value := getattr(body, name)) is not None
                },
            )
            return answer_ticket(moved)

        return await answer_once(request, principal, conn, act)


@router.post("/tickets/{ticket_id}/machine", response_model=TicketOut)
async def identify_machine(
    request: Request, ticket_id: TicketPath, body: Identification, principal: Office
) -> Response:
    """Say which machine a ticket is about whose equipment number nobody knew. If-Match takes the version you saw."""
    version = expected_version(request)
    async with begin(request, principal) as conn:

        async def act() -> JSONResponse:
            ticket = await tickets.identify_machine(
                conn,
                ticket_id=TicketId(ticket_id),
                equipment_number=body.equipment_number,
                actor=actor_of(principal),
                now=edge_of(request).now(),
                expected_version=version,
            )
            return answer_ticket(ticket)

        return await answer_once(request, principal, conn, act)


@router.get("/machines/{number}")
async def read_machine(request: Request, number: str, principal: Reader) -> MachineRecord:
    """Return what an equipment number fills in: machine, site, customer and the newest tickets."""
    async with begin(request, principal) as conn:
        machine = await store.fetch_one(conn, "find_machine_by_number", {"number": number, "region": ""})
        scope = scope_of(principal)
        if machine is None or scope["customer_id"] not in {None, machine["customer_id"]}:
            raise store.NoSuchMachine(number=number)
        found = await store.list_tickets(conn, **scope, equipment_number=machine["number"], limit=10)
    return MachineRecord.model_validate(
        {**machine, "machine_class": machine["class"], "tickets": [show(ticket) for ticket in found]}
    )


def _for_customer(event: store.Row) -> store.Row:
    return {**event, "reason": "", "detail": {}} if is_internal(kind=event["kind"], actor=event["actor"]) else event


def _check_duplicate(body: Move, ticket_id: int) -> None:
    is_duplicate = body.to is TicketState.CLOSED and body.resolution is Resolution.DUPLICATE
    if is_duplicate == (body.duplicate_of is not None) and body.duplicate_of != ticket_id:
        return
    code = "missing" if body.duplicate_of is None else "itself" if is_duplicate else "not-wanted"
    raise InvalidFields([FieldProblem("duplicate_of", code, _BAD_DUPLICATE)])


def _check_outcome(body: Move) -> None:
    wrong = [
        name
        for name, is_wrong in (
            ("outcome", body.outcome is not None and body.to is not TicketState.CLOSED),
            ("outcome_reason", (body.outcome is FindingOutcome.REJECTED) != (body.outcome_reason is not None)),
            ("repair", body.repair is not None and body.outcome is not FindingOutcome.CONFIRMED),
        )
        if is_wrong
    ]
    if wrong:
        raise InvalidFields([FieldProblem(name, "bad-outcome", _BAD_OUTCOME) for name in wrong])


def _make_cursor(ticket: Ticket) -> str:
    return base64.urlsafe_b64encode(f"{ticket.created_at.isoformat()} {ticket.id}".encode()).decode()


def _read_cursor(cursor: str) -> tuple[datetime, TicketId]:
    try:
        at, number = base64.urlsafe_b64decode(cursor).decode().rsplit(" ", 1)
        return datetime.fromisoformat(at), TicketId(int(number))
    except (binascii.Error, ValueError) as error:
        raise InvalidFields([FieldProblem("cursor", "bad-cursor", _BAD_CURSOR)]) from error
