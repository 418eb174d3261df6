"""The web routes of findings: the list, one as JSON with its evidence in words, its plot, and what became of it."""

from collections.abc import Mapping
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import JSONResponse
from psycopg.rows import dict_row
from pydantic import BaseModel, Field

from anomaly import decision_routes, outcomes, wording
from anomaly.decision_routes import AskedSite, Expert, OutcomeIn, RuleOut
from anomaly.explanation import NoSuchFinding, draw, explain
from anomaly.feedback import RuleRecord
from anomaly.finding import Finding
from anomaly.plots import to_svg
from anomaly.store import find_finding, find_machine, is_in_scope, to_instant
from fettle.db import AsyncConn, load_queries
from fettle.http import Principal, answer_once, begin, edge_of, require
from fettle.model import Role
from fettle.problems import ProblemKind
from fettle.words import Language, Words

router = APIRouter(prefix="/api/v1", tags=["findings"])

PROBLEMS: Mapping[type[Exception], ProblemKind] = {
    **decision_routes.PROBLEMS,
    NoSuchFinding: ProblemKind(404, "no-such-finding", Words("No such finding", "没有此发现"), "没有 {name}，或您无权查看；请给出发现的编号或键。"),
}  # fmt: skip

READERS = (
    Role.CUSTOMER_REP,
    Role.ORDER_TAKER,
    Role.SUPERVISOR,
    Role.ENGINEER,
    Role.FINANCE,
    Role.ADMIN,
    Role.HQ_VIEWER,
)
Reader = Annotated[Principal, Depends(require(*READERS))]
FindingPath = Annotated[str, Path(max_length=200, description="The finding's number or key")]
AskedLanguage = Annotated[Language | None, Query(description="en or zh; without it that of the account")]


class FindingOut(BaseModel):
    """A finding with its evidence as stored, and in words."""

    id: int
    key: str
    machine_id: int
    equipment_number: str
    fault_family: str
    kind: str
    severity: str
    onset_at: str
    raised_at: str
    cleared_at: str | None
    detector: str
    block: str = Field(description="Processing block of ISO 13374")
    model_version: str
    tier: int
    mode: str
    score: float
    threshold: float
    p_value: float | None = Field(description="How often a healthy machine scores as high; no probability of a fault")
    set_rate: float = Field(description="False findings per machine-day that calibration aims at")
    sensor_ids: list[int]
    evidence: dict[str, Any]
    explanation: dict[str, Any] = Field(description="headline, facts, contributions and checks in words")
    plot: str = Field(description="Address of the plot")
    is_announced: bool = Field(description="Whether a ticket was made of it, or added to")
    held: str = Field(description="Why its last change was not announced: inhibited, watch, or empty")
    held_by: int | None = Field(description="The inhibition that holds or held it")
    rule: RuleOut = Field(description="Measured precision of the rule that raised it, of late")


class FindingLine(BaseModel):
    """A finding in a list."""

    id: int
    key: str
    machine_id: int
    number: str = Field(description="Equipment number")
    fault_family: str
    kind: str
    severity: str
    onset_at: datetime
    raised_at: datetime
    cleared_at: datetime | None
    detector: str
    model_version: str
    score: float
    held: str
    held_by: int | None
    is_announced: bool


class FindingPage(BaseModel):
    """Findings, newest first. `next` goes into `before` for the following page; null on the last one."""

    findings: list[FindingLine]
    next: int | None


@router.get("/findings")
async def list_findings(
    request: Request,
    principal: Reader,
    machine: Annotated[str | None, Query(max_length=128, description="Equipment number")] = None,
    site: AskedSite = None,
    held: Annotated[
        Literal["inhibited", "watch"] | None, Query(description="Only those that are not announced")
    ] = None,
    open: Annotated[bool, Query(description="Only those that are still raised")] = False,  # noqa: A002 - the parameter's name
    before: Annotated[int | None, Query(ge=1, le=2**63 - 1, description="`next` of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> FindingPage:
    """List findings, those without a ticket too, newest first."""
    async with begin(request, principal) as conn:
        found = None
        if machine is not None:
            found = await find_machine(
                conn, tenant_id=principal.tenant_id, number=machine, site=site, **_scope(principal)
            )
        async with conn.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(
                load_queries("anomaly").list_findings,
                {
                    **_scope(principal),
                    "tenant_id": principal.tenant_id,
                    "machine_id": found.id if found else None,
                    "held": held,
                    "is_open": open,
                    "before": before,
                    "limit": limit + 1,
                },
            )
            rows = await cursor.fetchall()
    following = rows[limit - 1]["id"] if len(rows) > limit else None
    return FindingPage.model_validate({"findings": rows[:limit], "next": following})


@router.get("/findings/{finding}")
async def read_finding(
    request: Request, finding: FindingPath, principal: Reader, language: AskedLanguage = None
) -> FindingOut:
    """Read a finding with its evidence in words."""
    now = edge_of(request).now()
    async with begin(request, principal) as conn:
        number, found = await _find(conn, principal, finding)
        parameters = {"tenant_id": principal.tenant_id, "id": number}
        handling = await (await conn.execute(load_queries("anomaly").find_handling, parameters)).fetchone()
        assert handling is not None
        rule = await _rule(conn, principal, found, handling[3], now)
    if principal.role is Role.CUSTOMER_REP:
        found = _without_others(found)
    if rule.n:
        found = found.changed(evidence={**found.evidence, "precision": rule.as_dict()})
    body = found.as_dict()
    for name in ("onset", "raised", "cleared"):
        us = body.pop(f"{name}_us")
        body[f"{name}_at"] = None if us is None else to_instant(us).isoformat()
    return FindingOut.model_validate(
        {
            **body,
            "id": number,
            "equipment_number": str(found.evidence.get("machine", "")),
            "explanation": _explained(found, language or principal.language, held=handling[0], now=now),
            "plot": f"/api/v1/findings/{number}/plot.svg",
            "held": handling[0],
            "held_by": handling[1],
            "is_announced": handling[2],
            "rule": decision_routes.show_rule(rule),
        }
    )


@router.post("/findings/{finding}/outcomes", status_code=HTTPStatus.CREATED)
async def add_outcome(request: Request, finding: FindingPath, body: OutcomeIn, principal: Expert) -> Response:
    """Say what became of a finding: confirmed, rejected with the reason, or unknown. The last word counts."""
    async with begin(request, principal) as conn:

        async def act() -> JSONResponse:
            number, found = await _find(conn, principal, finding)
            return await decision_routes.record(request, principal, conn, finding_id=number, finding=found, body=body)

        return await answer_once(request, principal, conn, act)


@router.get("/findings/{finding}/plot.svg", response_class=Response)
async def read_plot(request: Request, finding: FindingPath, principal: Reader) -> Response:
    """Draw a finding: its sensors, what was expected of them, and when it was open."""
    now = edge_of(request).now()
    async with begin(request, principal) as conn:
        _, found = await _find(conn, principal, finding)
        plot = await draw(conn, found, now=now)
    title = f"{found.evidence.get('machine', '')}: {found.fault_family.value}"
    return Response(
        to_svg(plot, title=title), media_type="image/svg+xml", headers={"Cache-Control": "private, no-store"}
    )


async def _find(conn: AsyncConn, principal: Principal, name: str) -> tuple[int, Finding]:
    """Return a finding that the caller may see: a customer on its own machines, an engineer on those of his or her jobs.

    Raises:
        NoSuchFinding: there is none, or it is not the caller's to see.
    """
    found = await find_finding(conn, tenant_id=principal.tenant_id, name=name)
    if found is not None and principal.role in {Role.CUSTOMER_REP, Role.ENGINEER}:
        is_theirs = await is_in_scope(conn, machine_id=int(found[1].machine_id), **_scope(principal))
        found = found if is_theirs else None
    if found is None:
        raise NoSuchFinding(name=name)
    return found


def _explained(finding: Finding, language: Language, *, held: str, now: datetime) -> dict[str, Any]:
    """Return a finding in words, with why it made no ticket."""
    words = explain(finding, language, now=now)
    if held:
        words["facts"].append(("ticket" if language == "en" else "工单", wording.say(wording.HELD, held, language)))
    return words


_OF_OTHERS = {"machines", "headline", "headline_machine_id", "headline_machine"}


def _without_others(finding: Finding) -> Finding:
    """Return a finding that names no other machine: it may be another customer's."""
    evidence = {name: value for name, value in finding.evidence.items() if name != "machines"}
    if isinstance(incident := evidence.get("incident"), Mapping):
        evidence["incident"] = {name: value for name, value in incident.items() if name not in _OF_OTHERS}
    return finding.changed(evidence=evidence)


def _scope(principal: Principal) -> dict[str, int | None]:
    """Return whose machines a caller may see; nobody's id where an account lacks its own."""
    is_customer, is_engineer = principal.role is Role.CUSTOMER_REP, principal.role is Role.ENGINEER
    return {
        "customer_id": (principal.customer_id or 0) if is_customer else None,
        "engineer_id": (principal.engineer_id or 0) if is_engineer else None,
    }


async def _rule(
    conn: AsyncConn, principal: Principal, finding: Finding, machine_class: str, now: datetime
) -> RuleRecord:
    """Return how often the rule that raised a finding was right on machines of that class."""
    wanted = (finding.fault_family.value, finding.detector, machine_class)
    records = await outcomes.list_rules(conn, tenant_id=principal.tenant_id, now=now)
    known = {(r.fault_family, r.detector, r.machine_class): r for r in records}
    return known.get(wanted, RuleRecord(*wanted))


router.routes.extend(decision_routes.router.routes)
