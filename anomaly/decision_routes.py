"""The web routes by which people steer detection: inhibitions, outcomes, missed failures, new baselines; rules and models to read."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.encoders import jsonable_encoder
from fastapi.responses import JSONResponse
from psycopg.rows import dict_row
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from anomaly import inhibitions, outcomes, registry, store
from anomaly.feedback import RuleRecord
from anomaly.inhibitions import Inhibition, InhibitionKind, NoSuchInhibition
from anomaly.store import FoundMachine, SeveralMachines, UnknownMachine, UnknownSensor
from fettle.db import AsyncConn, load_queries
from fettle.http import Principal, answer_once, begin, edge_of, require
from fettle.model import FaultFamily, FindingOutcome, Rejection, Repair, Role
from fettle.problems import ProblemKind
from fettle.words import FieldProblem, InvalidFields, Words

router = APIRouter(prefix="/api/v1", tags=["detection"])

PROBLEMS: Mapping[type[Exception], ProblemKind] = {
    NoSuchInhibition: ProblemKind(404, "no-such-inhibition", Words("No such inhibition", "没有此抑制"), "没有生效中的抑制 {id}，或您无权查看。"),
    UnknownMachine: ProblemKind(404, "no-such-machine", Words("No such machine", "设备不存在"), "没有设备编号为 {number} 的设备，或您无权查看。"),
    UnknownSensor: ProblemKind(422, "no-such-sensor", Words("No such sensor", "传感器不存在"), "设备 {number} 没有名为 {name} 的传感器。"),
    SeveralMachines: ProblemKind(409, "several-machines", Words("Several machines have this number", "多台设备使用此编号"), "多个站点都有设备 {number}（{sites}）：请用 site 指明站点。"),
    registry.NoSuchConfig: ProblemKind(404, "no-such-configuration", Words("No such configuration", "没有此配置"), "没有名为 {name} 的配置。"),
}  # fmt: skip

INSIDERS = (Role.ORDER_TAKER, Role.SUPERVISOR, Role.ENGINEER, Role.FINANCE, Role.ADMIN, Role.HQ_VIEWER)
OVERSEERS = tuple(role for role in INSIDERS if role is not Role.ENGINEER)
"""Who sees all machines of the tenant; an engineer sees those of his or her jobs."""
Overseer = Annotated[Principal, Depends(require(*OVERSEERS))]
Insider = Annotated[Principal, Depends(require(*INSIDERS))]
Expert = Annotated[Principal, Depends(require(Role.SUPERVISOR, Role.ENGINEER))]
Witness = Annotated[Principal, Depends(require(Role.ORDER_TAKER, Role.SUPERVISOR, Role.ENGINEER))]
Supervisor = Annotated[Principal, Depends(require(Role.SUPERVISOR))]

NumberPath = Annotated[str, Path(max_length=128, description="Equipment number")]
InhibitionPath = Annotated[int, Path(ge=1, le=2**63 - 1, description="The inhibition's number")]
AskedSite = Annotated[
    str | None, Query(max_length=64, description="Code of the site, where several have a machine of that number")
]

_SUPERVISORS_KIND = Words(
    "An engineer may shelve and announce maintenance; suppressed and out_of_service take a supervisor.",
    "工程师可以使用 shelved 和 maintenance；suppressed 和 out_of_service 须由派工主管设置。",
)
_BAD_REASON = Words(
    "Give reason (process_change, sensor, tolerated or duplicate) with outcome=rejected, and only then.",
    "仅当 outcome=rejected 时填写 reason，且须为 process_change、sensor、tolerated 或 duplicate。",
)
_BAD_REPAIR = Words("repair goes with outcome=confirmed.", "repair 仅与 outcome=confirmed 同时填写。")
_COMPARED = timedelta(days=90)
_OLDEST_FAILURE = timedelta(days=366)
_TOO_OLD = Words("The failure lies more than a year back: it says nothing of what detection does now.", "故障发生在一年以前，不再反映当前的检测情况。")  # fmt: skip
_IN_FUTURE = Words("The failure cannot lie in the future.", "故障时间不能在将来。")


class InhibitionIn(BaseModel):
    """A wish to keep a machine, one of its sensors or one fault family from making tickets."""

    model_config = ConfigDict(extra="forbid")

    kind: InhibitionKind = Field(
        description="shelved (7 days at most), maintenance (30), suppressed (90), out_of_service (366)"
    )
    ends_at: AwareDatetime
    reason: str = Field(min_length=1, max_length=2000)
    starts_at: AwareDatetime | None = Field(None, description="Without it: now")
    sensor: str | None = Field(None, max_length=128, description="Name of the sensor; without it all of them")
    fault_family: FaultFamily | None = Field(None, description="Without it all of them")


class InhibitionOut(BaseModel):
    """An inhibition, in force, planned or over."""

    id: int
    machine: str
    sensor_id: int | None
    fault_family: str
    kind: str
    starts_at: datetime
    ends_at: datetime
    reason: str
    created_by: str
    created_at: datetime
    ended_at: datetime | None
    ended_by: str
    is_in_force: bool


class OutcomeIn(BaseModel):
    """What became of a finding."""

    model_config = ConfigDict(extra="forbid")

    outcome: FindingOutcome
    reason: Rejection | None = Field(None, description="Why it was no fault; with outcome=rejected")
    repair: Repair = Field(
        Repair.NONE, description="repaired or replaced: the baseline starts anew; with outcome=confirmed"
    )
    note: str = Field("", max_length=2000)


class MissedIn(BaseModel):
    """A failure that detection did not see coming."""

    model_config = ConfigDict(extra="forbid")

    fault_family: FaultFamily
    failed_at: AwareDatetime
    note: str = Field(min_length=1, max_length=2000)
    ticket: str = Field("", max_length=64, description="Number of the ticket about it")


class ResetIn(BaseModel):
    """A wish to learn a machine anew."""

    model_config = ConfigDict(extra="forbid")

    reason: str = Field(min_length=1, max_length=2000)


class RuleOut(BaseModel):
    """How often a rule was right on a class of machines, in the last 180 days."""

    fault_family: str
    detector: str
    machine_class: str
    confirmed: int
    rejected: int
    undecided: int = Field(description="Unknown, or a duplicate")
    missed: int = Field(description="Failures of that family without a finding")
    n: int = Field(description="Decided findings")
    precision: float | None
    low: float | None = Field(description="Of the 95 % interval (Wilson)")
    high: float | None
    is_watch: bool = Field(description="Wrong so often that its findings make no tickets")


class LiftOut(BaseModel):
    """An alarm level that a rejection raised."""

    machine_id: int
    sensor_id: int
    feature: str
    factor: float
    is_stopped: bool
    created_at: datetime
    expires_at: datetime


class RulesOut(BaseModel):
    """Rules with their measured precision, and the alarm levels that rejections raised."""

    rules: list[RuleOut]
    lifts: list[LiftOut]


@router.post("/machines/{number}/inhibitions", status_code=HTTPStatus.CREATED, response_model=InhibitionOut)
async def add_inhibition(
    request: Request, number: NumberPath, body: InhibitionIn, principal: Expert, site: AskedSite = None
) -> Response:
    """Keep a machine from making tickets until an end that must be given. Findings are stored all the same; one that is still raised at the end is announced then."""
    if principal.role is Role.ENGINEER and body.kind not in {InhibitionKind.SHELVED, InhibitionKind.MAINTENANCE}:
        raise InvalidFields([FieldProblem("kind", "not-yours", _SUPERVISORS_KIND)])
    now = edge_of(request).now()
    async with begin(request, principal) as conn:

        async def act() -> JSONResponse:
            machine = await _machine(conn, principal, number, site)
            made = await inhibitions.add_inhibition(
                conn,
                tenant_id=principal.tenant_id,
                machine_id=machine.id,
                kind=body.kind,
                starts_at=body.starts_at,
                ends_at=body.ends_at,
                reason=body.reason,
                by=principal.login,
                now=now,
                sensor_id=await store.find_sensor(
                    conn, tenant_id=principal.tenant_id, machine=machine, name=body.sensor
                )
                if body.sensor
                else None,
                fault_family=body.fault_family,
            )
            return JSONResponse(_show(made, machine.number, now), HTTPStatus.CREATED)

        return await answer_once(request, principal, conn, act)


@router.get("/machines/{number}/inhibitions")
async def list_inhibitions(
    request: Request,
    number: NumberPath,
    principal: Insider,
    site: AskedSite = None,
    all: bool = False,  # noqa: A002 - the parameter's name
) -> list[InhibitionOut]:
    """List what keeps a machine from making tickets, now and planned; with `all` also what is over."""
    now = edge_of(request).now()
    async with begin(request, principal) as conn:
        machine = await _machine(conn, principal, number, site)
        found = await inhibitions.list_inhibitions(
            conn,
            tenant_id=principal.tenant_id,
            machine_ids=[machine.id],
            since=datetime.fromtimestamp(0, now.tzinfo) if all else now,
        )
    shown = [i for i in found if all or i.until > now]
    return [InhibitionOut.model_validate(_show(i, machine.number, now)) for i in shown]


@router.delete("/inhibitions/{inhibition_id}", response_model=InhibitionOut)
async def end_inhibition(request: Request, inhibition_id: InhibitionPath, principal: Expert) -> Response:
    """End an inhibition now. Findings that are still raised are announced."""
    now = edge_of(request).now()
    async with begin(request, principal) as conn:

        async def act() -> JSONResponse:
            known = await inhibitions.find_inhibition(conn, tenant_id=principal.tenant_id, id=inhibition_id)
            if not await _may_see(conn, principal, known.machine_id):
                raise NoSuchInhibition(id=inhibition_id)
            if principal.role is Role.ENGINEER and known.kind not in {
                InhibitionKind.SHELVED,
                InhibitionKind.MAINTENANCE,
            }:
                raise InvalidFields([FieldProblem("kind", "not-yours", _SUPERVISORS_KIND)])
            ended = await inhibitions.end_inhibition(
                conn, tenant_id=principal.tenant_id, id=inhibition_id, by=principal.login, now=now
            )
            number = await _number(conn, ended.machine_id)
            return JSONResponse(_show(ended, number, now))

        return await answer_once(request, principal, conn, act)


@router.post("/machines/{number}/missed-failures", status_code=HTTPStatus.CREATED)
async def add_missed_failure(
    request: Request, number: NumberPath, body: MissedIn, principal: Witness, site: AskedSite = None
) -> Response:
    """Label a failure of a machine that no finding announced."""
    now = edge_of(request).now()
    if body.failed_at > now:
        raise InvalidFields([FieldProblem("failed_at", "in-future", _IN_FUTURE)])
    if body.failed_at < now - _OLDEST_FAILURE:
        raise InvalidFields([FieldProblem("failed_at", "too-old", _TOO_OLD)])
    async with begin(request, principal) as conn:

        async def act() -> JSONResponse:
            machine = await _machine(conn, principal, number, site)
            made = await outcomes.record_outcome(
                conn,
                tenant_id=principal.tenant_id,
                machine_id=machine.id,
                outcome=None,
                by=principal.login,
                at=now,
                failed_at=body.failed_at,
                finding_id=None,
                fault_family=body.fault_family,
                text=body.note,
                ticket=body.ticket,
            )
            return JSONResponse({"id": made}, HTTPStatus.CREATED)

        return await answer_once(request, principal, conn, act)


@router.post("/machines/{number}/baseline-resets", status_code=HTTPStatus.ACCEPTED)
async def reset_baseline(
    request: Request, number: NumberPath, body: ResetIn, principal: Supervisor, site: AskedSite = None
) -> Response:
    """Learn a machine anew, as after a repair. Limits stay in force; open findings of the machine are cleared."""
    now = edge_of(request).now()
    async with begin(request, principal) as conn:

        async def act() -> JSONResponse:
            machine = await _machine(conn, principal, number, site)
            order = await outcomes.give_order(
                conn, tenant_id=principal.tenant_id, machine_id=machine.id, kind="reset", reason=body.reason, by=principal.login, now=now
            )  # fmt: skip
            return JSONResponse({"order": order}, HTTPStatus.ACCEPTED)

        return await answer_once(request, principal, conn, act)


@router.get("/machines/{number}/models")
async def list_models(
    request: Request, number: NumberPath, principal: Insider, site: AskedSite = None
) -> list[dict[str, Any]]:
    """List the versions of what was learned of a machine, newest first: interval, metrics, SHA-256, findings."""
    async with begin(request, principal) as conn:
        machine = await _machine(conn, principal, number, site)
        found = await registry.list_versions(conn, tenant_id=principal.tenant_id, machine_id=machine.id)
    listed: list[dict[str, Any]] = jsonable_encoder(found)
    return listed


@router.get("/machines/{number}/detection-events")
async def list_events(
    request: Request,
    number: NumberPath,
    principal: Insider,
    site: AskedSite = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> list[dict[str, Any]]:
    """Tell who did what to detection on a machine, and what detection held back, newest first. Nobody can change it."""
    async with begin(request, principal) as conn:
        machine = await _machine(conn, principal, number, site)
        async with conn.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(
                load_queries("anomaly").list_detection_events,
                {"tenant_id": principal.tenant_id, "machine_id": machine.id, "limit": limit},
            )
            found = await cursor.fetchall()
    listed: list[dict[str, Any]] = jsonable_encoder(found)
    return listed


@router.get("/detection/rules")
async def list_rules(request: Request, principal: Overseer) -> RulesOut:
    """List how often each rule was right, and the alarm levels that rejections raised."""
    now = edge_of(request).now()
    async with begin(request, principal) as conn:
        records = await outcomes.list_rules(conn, tenant_id=principal.tenant_id, now=now)
        lifts = await outcomes.list_lifts(conn, tenant_id=principal.tenant_id, now=now)
    return RulesOut.model_validate({"rules": [show_rule(record) for record in records], "lifts": lifts})


@router.get("/detection/configurations")
async def list_configurations(request: Request, principal: Insider) -> dict[str, Any]:
    """List the kept configurations, newest first, and which were put in force."""
    async with begin(request, principal) as conn:
        body = {
            "configurations": await registry.list_configs(conn),
            "promotions": await registry.list_promotions(conn),
        }
    listed: dict[str, Any] = jsonable_encoder(body)
    return listed


@router.get("/detection/configurations/{name}/comparison")
async def compare(
    request: Request,
    name: Annotated[str, Path(max_length=63, description="Name of a kept configuration")],
    principal: Overseer,
    since: Annotated[
        AwareDatetime | None, Query(description="Without it: since it was kept; at most 90 days back")
    ] = None,
) -> dict[str, Any]:
    """Compare what the live configuration found with what one in shadow found on the same readings."""
    async with begin(request, principal) as conn:
        config = await registry.find_config(conn, name=name)
        start = max(since or config.created_at, edge_of(request).now() - _COMPARED)
        body = await registry.compare_shadow(conn, tenant_id=principal.tenant_id, config=config, since=start)
    listed: dict[str, Any] = jsonable_encoder(body)
    return listed


async def record(
    request: Request, principal: Principal, conn: AsyncConn, *, finding_id: int, finding: Any, body: OutcomeIn
) -> JSONResponse:
    """Record what became of a finding that the caller may see.

    Raises:
        InvalidFields: a reason without rejection or the reverse; a repair of what was no fault.
    """
    problems = []
    if (body.outcome is FindingOutcome.REJECTED) != (body.reason is not None):
        problems.append(FieldProblem("reason", "missing" if body.reason is None else "not-wanted", _BAD_REASON))
    if body.repair is not Repair.NONE and body.outcome is not FindingOutcome.CONFIRMED:
        problems.append(FieldProblem("repair", "not-wanted", _BAD_REPAIR))
    if problems:
        raise InvalidFields(problems)
    made = await outcomes.record_outcome(
        conn,
        tenant_id=principal.tenant_id,
        machine_id=int(finding.machine_id),
        outcome=body.outcome,
        by=principal.login,
        at=edge_of(request).now(),
        finding_id=finding_id,
        fault_family=finding.fault_family,
        detector=finding.detector,
        reason=body.reason,
        repair=body.repair,
        text=body.note,
    )
    return JSONResponse({"id": made}, HTTPStatus.CREATED)


def show_rule(record: RuleRecord) -> dict[str, Any]:
    low, high = record.interval or (None, None)
    return {
        **{name: getattr(record, name) for name in RuleOut.model_fields if name not in {"low", "high"}},
        "low": low,
        "high": high,
    }


def _show(inhibition: Inhibition, number: str, now: datetime) -> dict[str, Any]:
    fields = {name: getattr(inhibition, name) for name in InhibitionOut.model_fields if hasattr(inhibition, name)}
    shown: dict[str, Any] = jsonable_encoder({**fields, "machine": number, "is_in_force": inhibition.covers(now)})
    return shown


async def _machine(conn: AsyncConn, principal: Principal, number: str, site: str | None) -> FoundMachine:
    """Return a machine that the caller may see: an engineer those of his or her jobs.

    Raises:
        UnknownMachine, SeveralMachines: see `store.find_machine`.
    """
    engineer_id = (principal.engineer_id or 0) if principal.role is Role.ENGINEER else None
    return await store.find_machine(
        conn, tenant_id=principal.tenant_id, number=number, site=site, engineer_id=engineer_id
    )


async def _may_see(conn: AsyncConn, principal: Principal, machine_id: int) -> bool:
    if principal.role is not Role.ENGINEER:
        return True
    return await store.is_in_scope(
        conn, machine_id=machine_id, customer_id=None, engineer_id=principal.engineer_id or 0
    )


async def _number(conn: AsyncConn, machine_id: int) -> str:
    row = await (await conn.execute(load_queries("anomaly").find_machine_number, {"machine_id": machine_id})).fetchone()
    return str(row[0]) if row else str(machine_id)
