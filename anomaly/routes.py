"""The web routes of findings: one finding as JSON with its evidence in words, and its plot."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel, Field

from anomaly.explanation import NoSuchFinding, draw, explain
from anomaly.finding import Finding
from anomaly.plots import to_svg
from anomaly.store import find_finding, to_instant
from fettle.db import AsyncConn, load_queries
from fettle.http import Principal, begin, edge_of, require
from fettle.model import Role
from fettle.problems import ProblemKind
from fettle.words import Language, Words

router = APIRouter(prefix="/api/v1", tags=["findings"])

PROBLEMS: Mapping[type[Exception], ProblemKind] = {
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


@router.get("/findings/{finding}")
async def read_finding(
    request: Request, finding: FindingPath, principal: Reader, language: AskedLanguage = None
) -> FindingOut:
    """Read a finding with its evidence in words."""
    now = edge_of(request).now()
    async with begin(request, principal) as conn:
        number, found = await _find(conn, principal, finding)
    body = found.as_dict()
    for name in ("onset", "raised", "cleared"):
        us = body.pop(f"{name}_us")
        body[f"{name}_at"] = None if us is None else to_instant(us).isoformat()
    return FindingOut.model_validate(
        {
            **body,
            "id": number,
            "equipment_number": str(found.evidence.get("machine", "")),
            "explanation": explain(found, language or principal.language, now=now),
            "plot": f"/api/v1/findings/{number}/plot.svg",
        }
    )


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
        is_customer = principal.role is Role.CUSTOMER_REP
        scope = {
            "machine_id": int(found[1].machine_id),
            "customer_id": principal.customer_id if is_customer else None,
            "engineer_id": None if is_customer else principal.engineer_id,
        }
        cursor = await conn.execute(load_queries("anomaly").find_machine_in_scope, scope)
        found = found if await cursor.fetchone() else None
    if found is None:
        raise NoSuchFinding(name=name)
    return found
