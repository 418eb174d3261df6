"""Offer jobs and follow them: accepted, refused, expired, checked in, finished, judged. Callers hold the transaction.

Locks are taken in one order everywhere: the ticket, then engineers by id, then certificates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import orjson
from psycopg import errors
from psycopg.types.json import Jsonb

from dispatch import explain, store
from dispatch.assign import decide
from dispatch.model import WAIVABLE, AssignmentStatus, Candidate, Decision, Policy
from fettle.db import AsyncConn
from fettle.errors import FettleError
from fettle.model import EngineerId, Role, TicketId, TicketState
from fettle.words import Words
from workorders import api as workorders
from workorders.api import DISPATCH, Actor, DispatchHold, Resolution, Ticket

_TRIES = 5  # decisions against engineers whose last place somebody else took meanwhile
_TAKEN = {"engineer_cap_check", "assignment_certificate_check"}


class NoSuchAssignment(FettleError):
    """There is no assignment {assignment_id}, or it is not yours."""


class OfferGone(FettleError):
    """The assignment is {status}; this takes one that is {needed}."""


class CertificateLapsed(FettleError):
    """A certificate that the job takes is not valid for the time of the job; it goes to somebody else."""


class NotEligible(FettleError):
    """{name} may not be assigned: {why}."""


class NothingToDispatch(FettleError):
    """Dispatch has nothing to choose for a ticket that is {state}. It takes one that waits; a job that somebody has is moved by naming the engineer who gets it."""


@dataclass(frozen=True, slots=True)
class Offered:
    assignment_id: int
    engineer_id: EngineerId


@dataclass(frozen=True, slots=True)
class Nobody:
    """No engineer may go; the ticket waits, with the reason."""

    next_try_at: datetime | None


async def dispatch_ticket(
    conn: AsyncConn, *, ticket_id: TicketId, now: datetime, policy: Policy, actor: Actor = DISPATCH
) -> Offered | Nobody:
    """Offer a waiting ticket to the engineer who is best placed, or hold it with what would have to change.

    Raises:
        NothingToDispatch: it does not wait: somebody has it, or it is over.
    """
    ticket = await workorders.lock_ticket(conn, ticket_id=ticket_id)
    if ticket.state not in {TicketState.SUBMITTED, TicketState.PENDING_CONFIRMATION}:
        raise NothingToDispatch(state=ticket.state.value)
    return await _offer_best(conn, ticket, now=now, policy=policy, actor=actor)


async def _offer_best(
    conn: AsyncConn, ticket: Ticket, *, now: datetime, policy: Policy, actor: Actor, freed: Sequence[int] = ()
) -> Offered | Nobody:
    """Decide, and offer; again if somebody else took the chosen engineer's last place in between."""
    job = await store.read_job(conn, ticket_id=ticket.id)
    codes = [r.certificate_code for r in job.requirements]
    for _ in range(_TRIES):
        engineers = await store.read_engineers(conn, now=now, policy=policy, codes=codes)
        decision = decide(job, engineers, now=now, policy=policy)
        if decision.chosen is None:
            return await _hold(conn, ticket, decision, now=now, policy=policy, actor=actor)
        offered = await _offer(
            conn, ticket, decision, decision.chosen, now=now, policy=policy, actor=actor, outcome="offered", freed=freed
        )
        if offered is not None:
            return offered
    return await _hold(conn, ticket, decision, now=now, policy=policy, actor=actor, is_crowded=True)


async def _offer(
    conn: AsyncConn,
    ticket: Ticket,
    decision: Decision,
    chosen: Candidate,
    *,
    now: datetime,
    policy: Policy,
    actor: Actor,
    outcome: str,
    reason: str = "",
    freed: Sequence[int] = (),
) -> Offered | None:
    """Write decision, assignment and state. None if cap or certificate refuse the engineer after all."""
    words = explain.tell_choice(decision) if decision.chosen is chosen else _tell_manual(chosen, reason)
    engineer_id = chosen.engineer.id
    summary = {
        "en": words.en.split("\n"),
        "zh": words.zh.split("\n"),
        "terms": {k: round(v, 4) for k, v in chosen.terms.items()},
        "score": chosen.score,
        "margin": decision.margin if decision.chosen is chosen else None,
        "by": actor.name,
    }
    try:
        async with conn.transaction():
            await conn.execute(store.queries.lock_engineers, {"ids": sorted({engineer_id, *freed})})
            record = {**explain.record_of(decision, policy), "given_to": engineer_id, "reason": reason}
            kept = await store.fetch_one(
                conn,
                "add_decision",
                {
                    "ticket_id": ticket.id,
                    "at": now,
                    "actor": actor.name,
                    "outcome": outcome,
                    "engineer_id": engineer_id,
                    "record": Jsonb(record, dumps=orjson.dumps),
                },
            )
            assert kept is not None
            row = await store.fetch_one(
                conn,
                "add_assignment",
                {
                    "ticket_id": ticket.id,
                    "engineer_id": engineer_id,
                    "status": AssignmentStatus.OFFERED.value,
                    "now": now,
                    "expires_at": now + policy.offer_length(decision.job),
                    "accepted_at": None,
                    "started_at": None,
                    "starts_at": chosen.plan.starts_at,
                    "ends_at": chosen.plan.ends_at,
                    "decision_id": kept["id"],
                    "reason": Jsonb({**summary, "decision_id": kept["id"]}),
                },
            )
            assert row is not None
    except errors.CheckViolation as violation:
        if violation.diag.constraint_name in _TAKEN:
            return None
        raise
    detail = {"assignment_id": row["id"], "engineer_id": engineer_id, "engineer": chosen.engineer.name}
    await workorders.add_event(
        conn, ticket_id=ticket.id, at=now, actor=actor.name, kind="assignment", reason=words.en,
        detail={**detail, "status": "offered", "reason_zh": words.zh},
    )  # fmt: skip
    if ticket.state is TicketState.DISPATCHED:
        await conn.execute(store.queries.touch_ticket, {"ticket_id": ticket.id, "now": now})
    else:
        await workorders.transition(
            conn,
            ticket_id=ticket.id,
            to=TicketState.DISPATCHED,
            actor=actor,
            now=now,
            reason=reason or words.en.split("\n")[0],
            detail=detail,
        )
    return Offered(row["id"], engineer_id)


def _tell_manual(chosen: Candidate, reason: str) -> Words:
    waived = Words("; ".join(x.words.en for x in chosen.excluded_by), "；".join(x.words.zh for x in chosen.excluded_by))
    en = f"{chosen.engineer.name} by the supervisor's choice: {reason}."
    zh = f"主管指派 {chosen.engineer.name}：{reason}。"
    if waived.en:
        en, zh = f"{en}\nSet aside: {waived.en}.", f"{zh}\n已豁免：{waived.zh}。"
    return Words(en, zh)


async def _hold(
    conn: AsyncConn,
    ticket: Ticket,
    decision: Decision,
    *,
    now: datetime,
    policy: Policy,
    actor: Actor,
    is_crowded: bool = False,
) -> Nobody:
    """Let a ticket wait, with the reason; say it again only when the reason changes."""
    after = now + timedelta(minutes=policy.retry_minutes)
    chance = explain.next_chance(decision)
    if is_crowded:
        after = now + timedelta(seconds=10)
    elif chance is not None:
        after = min(after, max(chance, now + timedelta(seconds=10)))
    last = await store.fetch_one(conn, "read_last_decision", {"ticket_id": ticket.id})
    is_news = not is_crowded and not explain.same_outcome(last["record"] if last else None, decision)
    words = explain.tell_nobody(decision)
    if is_news:
        await store.fetch_one(
            conn,
            "add_decision",
            {
                "ticket_id": ticket.id,
                "at": now,
                "actor": actor.name,
                "outcome": "nobody_eligible",
                "engineer_id": None,
                "record": Jsonb(explain.record_of(decision, policy), dumps=orjson.dumps),
            },
        )
    hold = DispatchHold.NOBODY_ELIGIBLE
    if ticket.state is TicketState.DISPATCHED:
        await workorders.transition(
            conn, ticket_id=ticket.id, to=TicketState.PENDING_CONFIRMATION, actor=DISPATCH, now=now, reason=words.en,
            dispatch_hold=hold, dispatch_after=after, detail={"reason_zh": words.zh},
        )  # fmt: skip
    else:
        await conn.execute(store.queries.hold_ticket, {"ticket_id": ticket.id, "hold": hold.value, "after": after})
        if is_news:
            await workorders.add_event(
                conn, ticket_id=ticket.id, at=now, actor=actor.name, kind="note", reason=words.en,
                detail={"reason_zh": words.zh, "dispatch_hold": hold.value},
            )  # fmt: skip
    return Nobody(after)


async def assign_to(
    conn: AsyncConn,
    *,
    ticket_id: TicketId,
    engineer_id: EngineerId,
    actor: Actor,
    reason: str,
    waive: bool,
    now: datetime,
    policy: Policy,
) -> Offered:
    """Offer a ticket to the engineer whom a supervisor chose; a live offer or job is taken back with it.

    `waive` sets aside shift, region and an earlier refusal. Certificates, the cap and absences it never does.

    Raises:
        NotEligible: a rule that cannot be set aside, or was not, forbids it.
        store.NoSuchEngineer: the tenant has no such engineer.
        NothingToDispatch: the ticket is finished or closed.
    """
    ticket = await workorders.lock_ticket(conn, ticket_id=ticket_id)
    if ticket.state in {TicketState.PENDING_ACCEPTANCE, TicketState.CLOSED, TicketState.SUBMITTED}:
        raise NothingToDispatch(state=ticket.state.value)
    job = await store.read_job(conn, ticket_id=ticket_id)
    live = await store.fetch_one(conn, "read_live_assignment", {"ticket_id": ticket_id})
    freed = [] if live is None else [int(live["engineer_id"])]
    await conn.execute(store.queries.lock_engineers, {"ids": sorted({engineer_id, *freed})})
    if live is not None:
        await _change(conn, live, AssignmentStatus.WITHDRAWN, now=now, refusal=reason)
        await _note(conn, ticket, live, actor, now=now, status="withdrawn", reason=reason)
    engineers = await store.read_engineers(conn, now=now, policy=policy)
    decision = decide(job, engineers, now=now, policy=policy)
    chosen = next((c for c in decision.candidates if c.engineer.id == engineer_id), None)
    if chosen is None:
        raise store.NoSuchEngineer(engineer_id=engineer_id)
    barred = [x for x in chosen.excluded_by if not waive or x.code not in WAIVABLE]
    offered = None
    if not barred:
        offered = await _offer(
            conn, ticket, decision, chosen, now=now, policy=policy, actor=actor, outcome="reassigned", reason=reason
        )
    if offered is None:
        en = "; ".join(x.words.en for x in barred) or "somebody else took the last place"
        zh = "；".join(x.words.zh for x in barred) or "名额刚被占用"
        raise NotEligible(name=chosen.engineer.name, why=en, why_zh=zh)
    return offered


async def accept_offer(conn: AsyncConn, *, assignment_id: int, actor: Actor, now: datetime) -> Ticket:
    """Accept an offer. The certificates are looked at again.

    Raises:
        NoSuchAssignment: it is somebody else's.
        OfferGone: it expired, or was taken back.
        CertificateLapsed: a certificate is no longer valid.
    """
    ticket, row = await _own(conn, assignment_id, actor)
    if row["status"] != AssignmentStatus.OFFERED or row["expires_at"] <= now:
        status = AssignmentStatus.EXPIRED if row["status"] == AssignmentStatus.OFFERED else row["status"]
        raise OfferGone(status=status, needed="offered")
    length = row["ends_at"] - row["starts_at"]
    starts_at = max(row["starts_at"], now)
    await _change(conn, row, AssignmentStatus.ACCEPTED, now=now, starts_at=starts_at, ends_at=starts_at + length)
    return await _note(conn, ticket, row, actor, now=now, status="accepted")


async def reject_offer(
    conn: AsyncConn, *, assignment_id: int, actor: Actor, reason: str, now: datetime, policy: Policy
) -> Offered | Nobody:
    """Refuse an offer, or give an accepted job back before it begins; the next best is offered at once.

    Raises:
        NoSuchAssignment: it is somebody else's.
        OfferGone: it expired, was taken back, or has begun.
    """
    ticket, row = await _own(conn, assignment_id, actor)
    if row["status"] not in {AssignmentStatus.OFFERED, AssignmentStatus.ACCEPTED}:
        raise OfferGone(status=row["status"], needed="offered or accepted")
    return await _fail(conn, ticket, row, AssignmentStatus.REJECTED, actor=actor, reason=reason, now=now, policy=policy)


async def check_in(conn: AsyncConn, *, assignment_id: int, actor: Actor, now: datetime, policy: Policy) -> Ticket:
    """Begin the job at the machine: the ticket is in progress. The certificates are looked at again.

    Raises:
        NoSuchAssignment, OfferGone, CertificateLapsed: see `accept_offer`.
    """
    ticket, row = await _own(conn, assignment_id, actor)
    if row["status"] != AssignmentStatus.ACCEPTED:
        raise OfferGone(status=row["status"], needed="accepted")
    job = await store.read_job(conn, ticket_id=ticket.id)
    await _change(conn, row, AssignmentStatus.STARTED, now=now, starts_at=now, ends_at=now + policy.job_length(job))
    return await workorders.transition(
        conn, ticket_id=ticket.id, to=TicketState.IN_PROGRESS, actor=actor, now=now, reason="checked in",
        detail={"assignment_id": assignment_id, "reason_zh": "已到场签到"},
    )  # fmt: skip


async def submit_result(
    conn: AsyncConn,
    *,
    assignment_id: int,
    actor: Actor,
    result: str,
    hours: float,
    cause: str,
    parts: Sequence[Mapping[str, Any]],
    now: datetime,
) -> Ticket:
    """Hand in what was done: the ticket waits for the customer's judgement, the engineer is free.

    Raises:
        NoSuchAssignment, OfferGone: see `accept_offer`.
    """
    ticket, row = await _own(conn, assignment_id, actor)
    if row["status"] != AssignmentStatus.STARTED:
        raise OfferGone(status=row["status"], needed="started")
    await conn.execute(
        store.queries.add_work_report,
        {
            "ticket_id": ticket.id,
            "assignment_id": assignment_id,
            "at": now,
            "result": result,
            "cause": cause,
            "hours": hours,
            "parts": Jsonb([dict(part) for part in parts]),
        },
    )
    moved = await workorders.transition(
        conn, ticket_id=ticket.id, to=TicketState.PENDING_ACCEPTANCE, actor=actor, now=now, reason=result,
        detail={"assignment_id": assignment_id, "hours": hours, "cause": cause},
    )  # fmt: skip
    await _change(conn, row, AssignmentStatus.FINISHED, now=now)
    await conn.execute(store.queries.wake_waiting, {"now": now})
    return moved


async def accept_result(
    conn: AsyncConn, *, ticket_id: TicketId, actor: Actor, satisfaction: int | None, now: datetime
) -> Ticket:
    """Close a ticket whose result is good."""
    return await workorders.transition(
        conn, ticket_id=ticket_id, to=TicketState.CLOSED, actor=actor, now=now, resolution=Resolution.ACCEPTED,
        satisfaction=satisfaction,
    )  # fmt: skip


async def reject_result(
    conn: AsyncConn, *, ticket_id: TicketId, actor: Actor, reason: str, now: datetime, policy: Policy
) -> Ticket:
    """Send a result back: the same engineer goes on if cap and certificates allow, else the supervisor decides."""
    moved = await workorders.transition(
        conn, ticket_id=ticket_id, to=TicketState.IN_PROGRESS, actor=actor, now=now, reason=reason
    )
    last = await store.fetch_one(conn, "read_last_finished", {"ticket_id": ticket_id})
    job = await store.read_job(conn, ticket_id=ticket_id)
    if last is not None:
        try:
            async with conn.transaction():
                await store.fetch_one(
                    conn,
                    "add_assignment",
                    {
                        "ticket_id": ticket_id,
                        "engineer_id": last["engineer_id"],
                        "status": AssignmentStatus.STARTED.value,
                        "now": now,
                        "expires_at": None,
                        "accepted_at": now,
                        "started_at": now,
                        "starts_at": now,
                        "ends_at": now + policy.job_length(job),
                        "decision_id": None,
                        "reason": Jsonb({"en": ["The same engineer reworks the job."], "zh": ["由原工程师返工。"]}),
                    },
                )
        except errors.CheckViolation as violation:
            if violation.diag.constraint_name not in _TAKEN:
                raise
        else:
            return moved
    await conn.execute(
        store.queries.hold_ticket, {"ticket_id": ticket_id, "hold": DispatchHold.NOBODY_ELIGIBLE.value, "after": None}
    )
    await workorders.add_event(
        conn, ticket_id=ticket_id, at=now, actor=DISPATCH.name, kind="note",
        reason="The engineer cannot take the rework; the supervisor has to assign it.",
        detail={"reason_zh": "原工程师无法返工，须由主管重新指派。"},
    )  # fmt: skip
    return await workorders.read_ticket(conn, ticket_id=ticket_id)


async def expire_one(conn: AsyncConn, *, now: datetime, policy: Policy) -> bool:
    """Expire one offer whose time is over and offer the next; say whether there was one."""
    row = await store.fetch_one(conn, "find_expired_offer", {"now": now})
    if row is None:
        return False
    live = await store.fetch_one(conn, "read_live_assignment", {"ticket_id": row["ticket_id"]})
    if live is None or live["status"] != AssignmentStatus.OFFERED or live["expires_at"] > now:
        return True  # answered while we waited for the ticket
    ticket = await workorders.lock_ticket(conn, ticket_id=row["ticket_id"])
    await _fail(
        conn, ticket, live, AssignmentStatus.EXPIRED, actor=DISPATCH, reason="no answer in time", now=now, policy=policy
    )
    return True


async def withdraw_lapsed_one(conn: AsyncConn, *, now: datetime, policy: Policy) -> bool:
    """Take one job back from an engineer who lost a certificate for it; say whether there was one."""
    row = await store.fetch_one(conn, "find_lapsed_assignment", {})
    if row is None:
        return False
    live = await store.fetch_one(conn, "read_live_assignment", {"ticket_id": row["ticket_id"]})
    if live is None or live["id"] != row["id"] or live["status"] == AssignmentStatus.STARTED:
        return True
    ticket = await workorders.lock_ticket(conn, ticket_id=row["ticket_id"])
    await _change(conn, live, AssignmentStatus.WITHDRAWN, now=now, refusal="certificate lapsed")
    await _note(conn, ticket, live, DISPATCH, now=now, status="withdrawn", reason="a certificate lapsed")
    await _offer_best(conn, ticket, now=now, policy=policy, actor=DISPATCH, freed=[live["engineer_id"]])
    return True


async def auto_accept_one(conn: AsyncConn, *, now: datetime, policy: Policy) -> bool:
    """Close one ticket whose result nobody judged in time; say whether there was one."""
    before = now - timedelta(days=policy.accept_after_days)
    row = await store.fetch_one(conn, "find_unjudged_ticket", {"before": before})
    if row is None:
        return False
    await workorders.transition(
        conn, ticket_id=row["id"], to=TicketState.CLOSED, actor=DISPATCH, now=now, resolution=Resolution.AUTO_ACCEPTED,
        reason=f"not judged within {policy.accept_after_days:g} days",
    )  # fmt: skip
    return True


async def _own(conn: AsyncConn, assignment_id: int, actor: Actor) -> tuple[Ticket, store.Row]:
    """Lock the ticket of an assignment, then read the assignment; it must be the actor's."""
    row = await store.fetch_one(conn, "read_assignment", {"assignment_id": assignment_id})
    if row is None or row["engineer_id"] != actor.engineer_id or actor.role is not Role.ENGINEER:
        raise NoSuchAssignment(assignment_id=assignment_id)
    ticket = await workorders.lock_ticket(conn, ticket_id=row["ticket_id"])
    row = await store.fetch_one(conn, "read_assignment", {"assignment_id": assignment_id})
    assert row is not None
    return ticket, row


async def _change(
    conn: AsyncConn,
    row: store.Row,
    status: AssignmentStatus,
    *,
    now: datetime,
    refusal: str = "",
    starts_at: datetime | None = None,
    ends_at: datetime | None = None,
) -> None:
    try:
        async with conn.transaction():
            await conn.execute(
                store.queries.change_assignment,
                {
                    "assignment_id": row["id"],
                    "status": status.value,
                    "now": now,
                    "refusal": refusal,
                    "starts_at": starts_at,
                    "ends_at": ends_at,
                },
            )
    except errors.CheckViolation as violation:
        if violation.diag.constraint_name == "assignment_certificate_check":
            raise CertificateLapsed from violation
        raise


async def _fail(
    conn: AsyncConn,
    ticket: Ticket,
    row: store.Row,
    status: AssignmentStatus,
    *,
    actor: Actor,
    reason: str,
    now: datetime,
    policy: Policy,
) -> Offered | Nobody:
    """End an offer that came to nothing, then offer to the next; after too many, hand the ticket to the supervisor."""
    await _change(conn, row, status, now=now, refusal=reason)
    await _note(conn, ticket, row, actor, now=now, status=status.value, reason=reason)
    counted = await store.fetch_one(conn, "count_failure", {"ticket_id": ticket.id, "now": now})
    assert counted is not None
    if counted["failed_offers"] < policy.most_failures:
        return await _offer_best(conn, ticket, now=now, policy=policy, actor=DISPATCH, freed=[row["engineer_id"]])
    many = counted["failed_offers"]
    await workorders.transition(
        conn, ticket_id=ticket.id, to=TicketState.PENDING_CONFIRMATION, actor=DISPATCH, now=now,
        reason=f"{many} offers came to nothing; the supervisor has to decide",
        dispatch_hold=DispatchHold.OFFERS_FAILED, detail={"reason_zh": f"{many} 次派单未成，须由主管决定"},
    )  # fmt: skip
    return Nobody(None)


async def _note(
    conn: AsyncConn, ticket: Ticket, row: store.Row, actor: Actor, *, now: datetime, status: str, reason: str = ""
) -> Ticket:
    await workorders.add_event(
        conn, ticket_id=ticket.id, at=now, actor=actor.name, kind="assignment", reason=reason,
        detail={"assignment_id": row["id"], "engineer_id": row["engineer_id"], "status": status},
    )  # fmt: skip
    return ticket
