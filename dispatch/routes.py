"""The web routes of dispatch: an engineer's offers and jobs, the customer's judgement, the supervisor's hand."""

from collections.abc import Mapping
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi.encoders import jsonable_encoder
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from dispatch import offers, store
from dispatch.policy import BadPolicy
from fettle.http import Principal, answer_once, begin, edge_of, require
from fettle.model import EngineerId, Role, TicketId
from fettle.problems import ProblemKind
from fettle.words import Words
from workorders.api import read_ticket
from workorders.routes import actor_of, answer_ticket, scope_of

router = APIRouter(prefix="/api/v1", tags=["dispatch"])

PROBLEMS: Mapping[type[Exception], ProblemKind] = {
    offers.NoSuchAssignment: ProblemKind(404, "no-such-assignment", Words("No such assignment", "派单不存在"), "派单 {assignment_id} 不存在，或不属于您。"),
    offers.OfferGone: ProblemKind(409, "offer-gone", Words("Not at this stage", "派单状态不符"), "派单当前为 {status}；此操作需要 {needed}。"),
    offers.CertificateLapsed: ProblemKind(409, "certificate-lapsed", Words("Certificate not valid", "证书无效"), "该任务所需证书在作业时段内无效，将改派他人。"),
    offers.NotEligible: ProblemKind(409, "not-eligible", Words("Not eligible", "不符合条件"), "不能指派 {name}：{why_zh}。"),
    offers.NothingToDispatch: ProblemKind(409, "nothing-to-dispatch", Words("Nothing to dispatch", "无需派单"), "工单状态为 {state}，无需自动派单；改派请指定工程师。"),
    store.NoSuchEngineer: ProblemKind(404, "no-such-engineer", Words("No such engineer", "工程师不存在"), "没有编号为 {engineer_id} 的工程师。"),
    BadPolicy: ProblemKind(500, "bad-policy", Words("Dispatch policy is wrong", "派单策略有误"), "派单策略 {key} 有误：{why}。"),
}  # fmt: skip

Id = Annotated[int, Path(ge=1, le=2**63 - 1)]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)]
TheEngineer = Annotated[Principal, Depends(require(Role.ENGINEER))]
TheJudge = Annotated[Principal, Depends(require(Role.CUSTOMER_REP, Role.ORDER_TAKER, Role.SUPERVISOR))]
TheSupervisor = Annotated[Principal, Depends(require(Role.SUPERVISOR))]
TheOffice = Annotated[
    Principal, Depends(require(Role.SUPERVISOR, Role.ORDER_TAKER, Role.ADMIN, Role.HQ_VIEWER, Role.FINANCE))
]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Refusal(_Body):
    reason: Text = Field(description="Why; it is mandatory")


class Part(_Body):
    """A part that was built in."""

    number: Text
    quantity: float = Field(gt=0, le=1e6)
    serial_in: str = Field("", max_length=200)
    serial_out: str = Field("", max_length=200)


class Result(_Body):
    """What was done."""

    result: Text
    hours: float = Field(ge=0, lt=1000, description="Working hours")
    cause: str = Field("", max_length=2000)
    parts: list[Part] = Field(default_factory=list, max_length=200)


class Acceptance(_Body):
    satisfaction: int | None = Field(None, ge=1, le=5, description="1 bad to 5 excellent")


class Choice(_Body):
    """Whom to offer the ticket. Without an engineer dispatch chooses."""

    engineer_id: int | None = Field(None, ge=1, le=2**31 - 1)
    reason: str = Field("", max_length=2000)
    waive: bool = Field(False, description="Set aside shift, region and an earlier refusal; never certificates")


class Offer(BaseModel):
    """A live job of an engineer: offered, accepted or started."""

    assignment_id: int
    status: str
    offered_at: datetime
    expires_at: datetime | None
    starts_at: datetime
    ends_at: datetime
    reason: dict[str, Any]
    ticket_id: int
    number: str
    type: str
    state: str
    priority: str
    severity: str
    equipment_number: str
    fault_description: str
    fault_description_zh: str
    contact_phone: str
    region: str
    site_name: str
    latitude: float | None
    longitude: float | None


class DecisionOut(BaseModel):
    """Why a ticket went to whom: every candidate with what excluded it, or its terms and score."""

    id: int
    at: datetime
    actor: str
    outcome: str
    engineer_id: int | None
    record: dict[str, Any]


@router.get("/offers")
async def list_offers(request: Request, principal: TheEngineer) -> list[Offer]:
    """List the caller's own offers and jobs."""
    async with begin(request, principal) as conn:
        rows = await store.fetch_all(conn, "list_offers", {"engineer_id": principal.engineer_id})
    return [Offer.model_validate(row) for row in rows]


@router.post("/assignments/{assignment_id}/acceptance")
async def accept_offer(request: Request, assignment_id: Id, principal: TheEngineer) -> Response:
    """Accept an offer."""
    async with begin(request, principal) as conn:

        async def act() -> JSONResponse:
            ticket = await offers.accept_offer(
                conn, assignment_id=assignment_id, actor=actor_of(principal), now=edge_of(request).now()
            )
            return answer_ticket(ticket)

        return await answer_once(request, principal, conn, act)


@router.post("/assignments/{assignment_id}/rejection", status_code=HTTPStatus.OK)
async def reject_offer(request: Request, assignment_id: Id, body: Refusal, principal: TheEngineer) -> Response:
    """Refuse an offer, or give a job back before it begins. The next best engineer gets it at once."""
    async with begin(request, principal) as conn:

        async def act() -> JSONResponse:
            await offers.reject_offer(
                conn,
                assignment_id=assignment_id,
                actor=actor_of(principal),
                reason=body.reason,
                now=edge_of(request).now(),
                policy=await store.read_policy(conn),
            )
            return JSONResponse({"assignment_id": assignment_id, "status": "rejected"})

        return await answer_once(request, principal, conn, act)


@router.post("/assignments/{assignment_id}/check-in")
async def check_in(request: Request, assignment_id: Id, principal: TheEngineer) -> Response:
    """Begin the job at the machine."""
    async with begin(request, principal) as conn:

        async def act() -> JSONResponse:
            ticket = await offers.check_in(
                conn,
                assignment_id=assignment_id,
                actor=actor_of(principal),
                now=edge_of(request).now(),
                policy=await store.read_policy(conn),
            )
            return answer_ticket(ticket)

        return await answer_once(request, principal, conn, act)


@router.post("/assignments/{assignment_id}/result")
async def submit_result(request: Request, assignment_id: Id, body: Result, principal: TheEngineer) -> Response:
    """Hand in result, hours and parts. The ticket then waits for the customer's judgement."""
    async with begin(request, principal) as conn:

        async def act() -> JSONResponse:
            ticket = await offers.submit_result(
                conn,
                assignment_id=assignment_id,
                actor=actor_of(principal),
                result=body.result,
                hours=body.hours,
                cause=body.cause,
                parts=[part.model_dump() for part in body.parts],
                now=edge_of(request).now(),
            )
            return answer_ticket(ticket)

        return await answer_once(request, principal, conn, act)


@router.post("/tickets/{ticket_id}/acceptance")
async def accept_result(request: Request, ticket_id: Id, body: Acceptance, principal: TheJudge) -> Response:
    """Accept the result and close the ticket. The customer judges; the office only where there is no customer."""
    async with begin(request, principal) as conn:

        async def act() -> JSONResponse:
            await read_ticket(conn, ticket_id=TicketId(ticket_id), **scope_of(principal))
            ticket = await offers.accept_result(
                conn,
                ticket_id=TicketId(ticket_id),
                actor=actor_of(principal),
                satisfaction=body.satisfaction,
                now=edge_of(request).now(),
            )
            return answer_ticket(ticket)

        return await answer_once(request, principal, conn, act)


@router.post("/tickets/{ticket_id}/rejection")
async def reject_result(request: Request, ticket_id: Id, body: Refusal, principal: TheJudge) -> Response:
    """Send the result back for rework, with the reason."""
    async with begin(request, principal) as conn:

        async def act() -> JSONResponse:
            await read_ticket(conn, ticket_id=TicketId(ticket_id), **scope_of(principal))
            ticket = await offers.reject_result(
                conn,
                ticket_id=TicketId(ticket_id),
                actor=actor_of(principal),
                reason=body.reason,
                now=edge_of(request).now(),
                policy=await store.read_policy(conn),
            )
            return answer_ticket(ticket)

        return await answer_once(request, principal, conn, act)


@router.post("/tickets/{ticket_id}/offers", status_code=HTTPStatus.CREATED)
async def offer_ticket(request: Request, ticket_id: Id, body: Choice, principal: TheSupervisor) -> Response:
    """Dispatch a ticket now, or reassign it to an engineer of choice. Certificates are never set aside."""
    async with begin(request, principal) as conn:

        async def act() -> JSONResponse:
            policy, now = await store.read_policy(conn), edge_of(request).now()
            outcome: offers.Offered | offers.Nobody
            if body.engineer_id is None:
                outcome = await offers.dispatch_ticket(
                    conn, ticket_id=TicketId(ticket_id), now=now, policy=policy, actor=actor_of(principal)
                )
            else:
                outcome = await offers.assign_to(
                    conn,
                    ticket_id=TicketId(ticket_id),
                    engineer_id=EngineerId(body.engineer_id),
                    actor=actor_of(principal),
                    reason=body.reason or "supervisor's choice",
                    waive=body.waive,
                    now=now,
                    policy=policy,
                )
            if isinstance(outcome, offers.Offered):
                made = {"assignment_id": outcome.assignment_id, "engineer_id": outcome.engineer_id}
                return JSONResponse(made, HTTPStatus.CREATED)
            last = await store.fetch_one(conn, "read_last_decision", {"ticket_id": ticket_id})
            body_out = {"assignment_id": None, "relaxations": last["record"]["relaxations"] if last else []}
            return JSONResponse(jsonable_encoder(body_out), HTTPStatus.OK)

        return await answer_once(request, principal, conn, act)


@router.get("/tickets/{ticket_id}/dispatch-decisions")
async def list_decisions(request: Request, ticket_id: Id, principal: TheOffice) -> list[DecisionOut]:
    """Explain who was chosen and why, newest first."""
    async with begin(request, principal) as conn:
        await read_ticket(conn, ticket_id=TicketId(ticket_id), **scope_of(principal))
        rows = await store.fetch_all(conn, "read_decisions", {"ticket_id": ticket_id})
    return [DecisionOut.model_validate(row) for row in rows]


@router.get("/engineers")
async def list_engineers(request: Request, principal: TheOffice) -> list[dict[str, Any]]:
    """List the engineers with their load, certificates and shifts."""
    async with begin(request, principal) as conn:
        policy = await store.read_policy(conn)
        engineers = await store.read_engineers(conn, now=edge_of(request).now(), policy=policy)
    listed: list[dict[str, Any]] = jsonable_encoder(engineers)
    return listed
