"""Feedback in the database: outcomes of findings, records of rules, and the conclusions that detection draws.

people, closed tickets ─▶ finding_outcome ─▶ learn: alarm_lift, detector_order (reset) ─▶ engine
                                          └▶ rules: precision, demotion
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import class_row, dict_row

from anomaly import feedback, store
from anomaly.feedback import MISSED, Outcome, RuleRecord
from anomaly.finding import Finding
from anomaly.inhibitions import note
from anomaly.steering import Lift
from fettle import logs
from fettle.db import AsyncConn, load_queries
from fettle.model import FaultFamily, FindingOutcome, Rejection, Repair

log = logs.get("detect")


@dataclass(frozen=True, slots=True)
class Closing:
    """What the closing of a ticket says of the finding that opened it.

    `is_assumed` marks what only follows from how the ticket was closed; it does not replace what a person said of the
    finding itself.
    """

    ticket: str
    finding_id: int
    outcome: FindingOutcome
    reason: Rejection | None
    repair: Repair
    note: str
    closed_by: str
    closed_at: datetime
    is_assumed: bool


Closings = Callable[[AsyncConn, datetime | None, int], Awaitable[Sequence[Closing]]]
"""Returns, for the tenant of a transaction, what tickets closed since an instant say and detection has not heard yet.

The oldest come first, at most so many as the number says.
"""


async def record_outcome(
    conn: AsyncConn,
    *,
    tenant_id: int,
    machine_id: int,
    outcome: FindingOutcome | None,
    by: str,
    at: datetime,
    finding_id: int | None,
    fault_family: FaultFamily,
    detector: str = "",
    reason: Rejection | None = None,
    repair: Repair = Repair.NONE,
    text: str = "",
    ticket: str = "",
    is_assumed: bool = False,
    failed_at: datetime | None = None,
) -> int | None:
    """Record what became of a finding, or a failure that was missed (no outcome, no finding); None if this ticket said so before.

    `at` is when it was said; `failed_at` is when a machine failed unforeseen.
    """
    values = {
        "tenant_id": tenant_id,
        "machine_id": machine_id,
        "finding_id": finding_id,
        "fault_family": fault_family.value,
        "detector": detector,
        "outcome": outcome.value if outcome else MISSED,
        "reason": reason.value if reason else "",
        "action": repair.value,
        "note": text.strip(),
        "ticket": ticket,
        "decided_by": by,
        "decided_at": at,
        "is_assumed": is_assumed,
    }
    row = await (await conn.execute(load_queries("anomaly").add_outcome, values)).fetchone()
    if row is None:
        return None
    said = ("finding_id", "fault_family", "detector", "outcome", "reason", "action", "ticket")
    detail = {name: values[name] for name in said} | ({"failed_at": failed_at.isoformat()} if failed_at else {})
    await note(conn, tenant_id=tenant_id, machine_id=machine_id, at=at, actor=by, kind="outcome", reason=text.strip(), detail=detail)  # fmt: skip
    return int(row[0])


async def hear_closings(conn: AsyncConn, closings: Iterable[Closing], *, tenant_id: int) -> int:
    """Record what closed tickets say of their findings; return how many outcomes are new."""
    heard = 0
    queries = load_queries("anomaly")
    for closing in closings:
        finding = await store.find_finding_by_id(conn, tenant_id=tenant_id, id=closing.finding_id)
        if finding is None:
            continue
        if closing.is_assumed:
            parameters = {"tenant_id": tenant_id, "finding_id": closing.finding_id}
            if await (await conn.execute(queries.has_outcome, parameters)).fetchone():
                continue
        made = await record_outcome(
            conn,
            tenant_id=tenant_id,
            machine_id=int(finding.machine_id),
            outcome=closing.outcome,
            by=closing.closed_by,
            at=closing.closed_at,
            finding_id=closing.finding_id,
            fault_family=finding.fault_family,
            detector=finding.detector,
            reason=closing.reason,
            repair=closing.repair,
            text=closing.note,
            ticket=closing.ticket,
            is_assumed=closing.is_assumed,
        )
        heard += made is not None
    return heard


async def list_rules(conn: AsyncConn, *, tenant_id: int, now: datetime) -> list[RuleRecord]:
    """Return how often each rule of a tenant was right, of what was decided of late."""
    async with conn.cursor(row_factory=class_row(RuleRecord)) as cursor:
        await cursor.execute(
            load_queries("anomaly").list_rules, {"tenant_id": tenant_id, "since": now - feedback.REMEMBERED}
        )
        return await cursor.fetchall()


async def newest(conn: AsyncConn, *, tenant_id: int) -> int:
    """Return the number of the newest outcome, 0 where there is none."""
    row = await (await conn.execute(load_queries("anomaly").find_newest_outcome, {"tenant_id": tenant_id})).fetchone()
    return int(row[0]) if row else 0


async def list_past(conn: AsyncConn, *, tenant_id: int, now: datetime) -> list[dict[str, Any]]:
    """Return what became of earlier findings, newest first."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            load_queries("anomaly").list_past_outcomes, {"tenant_id": tenant_id, "since": now - feedback.REMEMBERED}
        )
        return await cursor.fetchall()


async def list_lifts(
    conn: AsyncConn, *, tenant_id: int, now: datetime, machine_id: int | None = None
) -> list[dict[str, Any]]:
    """Return the alarm levels that rejections raised and that are in force."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            load_queries("anomaly").list_lifts, {"tenant_id": tenant_id, "now": now, "machine_id": machine_id}
        )
        return await cursor.fetchall()


def as_lift(row: Mapping[str, Any]) -> Lift:
    return Lift(row["sensor_id"], row["feature"], row["factor"], row["is_stopped"])


async def learn(
    conn: AsyncConn,
    *,
    tenant_id: int,
    machine_ids: Iterable[int],
    peak_of: Callable[[int, str], float],
    now: datetime,
) -> tuple[int, list[Exception]]:
    """Draw the conclusions from outcomes of some machines that nobody has drawn yet; return from how many, and what failed.

    Levels and orders are written in the caller's transaction, together with the note that the outcome is learned. An outcome
    that fails leaves nothing behind and waits.
    """
    queries = load_queries("anomaly")
    mine = set(machine_ids)
    async with conn.cursor(row_factory=class_row(Outcome)) as cursor:
        await cursor.execute(queries.list_unlearned_outcomes, {"tenant_id": tenant_id})
        waiting = [outcome for outcome in await cursor.fetchall() if outcome.machine_id in mine]
    learned, failures = 0, []
    for outcome in waiting:
        try:
            async with conn.transaction():  # a savepoint: what cannot be learned keeps nobody from learning the rest
                marked = await conn.execute(
                    queries.mark_learned, {"tenant_id": tenant_id, "id": outcome.id, "now": now}
                )
                if marked.rowcount == 1:
                    await _conclude(conn, tenant_id, outcome, peak_of=peak_of, now=now)
                    learned += 1
        except psycopg.OperationalError:
            raise
        except Exception as error:  # the caller hears of it once the others are learned
            log.exception("detect.outcome_failed", outcome=outcome.id)
            failures.append(error)
    return learned, failures


async def _conclude(
    conn: AsyncConn, tenant_id: int, outcome: Outcome, *, peak_of: Callable[[int, str], float], now: datetime
) -> None:
    """Draw the conclusions from one outcome."""
    if outcome.finding_id is None:
        return
    finding = await store.find_finding_by_id(conn, tenant_id=tenant_id, id=outcome.finding_id)
    if finding is None:
        return
    if outcome.is_rejection and outcome.decided_at + feedback.LIFTED > now:
        await _lift(conn, tenant_id, outcome, finding, peak_of=peak_of, now=now)
    elif outcome.outcome == FindingOutcome.CONFIRMED:
        await _restore(conn, tenant_id, outcome, finding, now=now)
    if outcome.calls_for_reset and outcome.decided_at + feedback.FRESH > now:
        await _start_anew(conn, tenant_id, outcome, now=now)


async def _start_anew(conn: AsyncConn, tenant_id: int, outcome: Outcome, *, now: datetime) -> None:
    """Order a new baseline after a repair that a person told of; else propose it.

    With a fault of another family open, a new baseline would learn that fault as what is usual.
    """
    why = f"{outcome.action}: {outcome.fault_family}" + (f", {outcome.ticket}" if outcome.ticket else "")
    parameters = {"tenant_id": tenant_id, "machine_id": outcome.machine_id, "fault_family": outcome.fault_family}
    others = await (await conn.execute(load_queries("anomaly").list_open_families, parameters)).fetchall()
    if not (others or outcome.is_assumed):
        await give_order(
            conn, tenant_id=tenant_id, machine_id=outcome.machine_id, kind="reset", reason=why, by=outcome.decided_by, now=now
        )  # fmt: skip
        return
    detail = {
        "kind": "reset",
        "outcome": outcome.id,
        "is_assumed": outcome.is_assumed,
        "open": [{"finding": number, "fault_family": family} for number, family in others],
    }
    await note(conn, tenant_id=tenant_id, machine_id=outcome.machine_id, at=now, actor="fettle-detect", kind="proposed", reason=why, detail=detail)  # fmt: skip


async def _lift(
    conn: AsyncConn,
    tenant_id: int,
    outcome: Outcome,
    finding: Finding,
    *,
    peak_of: Callable[[int, str], float],
    now: datetime,
) -> None:
    queries = load_queries("anomaly")
    parameters = {
        "tenant_id": tenant_id,
        "machine_id": outcome.machine_id,
        "fault_family": outcome.fault_family,
        "detectors": feedback.pattern_of(outcome.detector),
        "id": outcome.id,
        "since": now - feedback.REMEMBERED,
    }
    counted = await (await conn.execute(queries.count_rejections, parameters)).fetchone()
    before = [
        as_lift(row) for row in await list_lifts(conn, tenant_id=tenant_id, now=now, machine_id=outcome.machine_id)
    ]
    carriers = [(int(c["sensor_id"]), str(c["feature"])) for c in feedback.carriers(finding)]
    lifts = feedback.lifts_after(
        finding,
        rejections=int(counted[0]) if counted else 1,
        peaks={carrier: peak_of(*carrier) for carrier in carriers},
        before=before,
    )
    for lift in lifts:
        values = {
            "sensor_id": lift.sensor_id,
            "feature": lift.feature,
            "factor": lift.factor,
            "is_stopped": lift.is_stopped,
        }
        expires_at = min(now, outcome.decided_at) + feedback.LIFTED
        await conn.execute(
            queries.add_lift,
            {
                **values,
                "tenant_id": tenant_id,
                "machine_id": outcome.machine_id,
                "outcome_id": outcome.id,
                "now": now,
                "expires_at": expires_at,
            },
        )
        detail = {**values, "until": expires_at.isoformat(), "rejections": counted[0] if counted else 1}
        await note(conn, tenant_id=tenant_id, machine_id=outcome.machine_id, at=now, actor=outcome.decided_by, kind="level_raised", reason=outcome.reason, detail=detail)  # fmt: skip


async def _restore(conn: AsyncConn, tenant_id: int, outcome: Outcome, finding: Finding, *, now: datetime) -> None:
    """Take back the lifts on the sensors of a finding that was confirmed."""
    parameters = {"tenant_id": tenant_id, "sensor_ids": [int(s) for s in finding.sensor_ids], "now": now}
    rows = await (await conn.execute(load_queries("anomaly").end_lifts, parameters)).fetchall()
    if rows:
        detail = {"lifts": [{"sensor_id": sensor, "feature": feature} for sensor, feature in rows]}
        await note(conn, tenant_id=tenant_id, machine_id=outcome.machine_id, at=now, actor=outcome.decided_by, kind="level_restored", detail=detail)  # fmt: skip


async def give_order(
    conn: AsyncConn,
    *,
    tenant_id: int,
    machine_id: int,
    kind: str,
    reason: str,
    by: str,
    now: datetime,
    version: str = "",
) -> int:
    """Tell the process that watches a machine to reset its baseline, or to put a version of its model in force."""
    values = {"tenant_id": tenant_id, "machine_id": machine_id, "kind": kind, "version": version, "reason": reason, "ordered_by": by, "now": now}  # fmt: skip
    row = await (await conn.execute(load_queries("anomaly").add_order, values)).fetchone()
    assert row is not None
    detail = {"order": row[0], "kind": kind, **({"version": version} if version else {})}
    await note(conn, tenant_id=tenant_id, machine_id=machine_id, at=now, actor=by, kind="ordered", reason=reason, detail=detail)  # fmt: skip
    return int(row[0])
