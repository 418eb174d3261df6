"""The life cycle of a ticket: which state may follow which, who may move it, and what must be true first.

    submitted -> pending_confirmation -> dispatched -> in_progress -> pending_acceptance -> closed

Fourteen of the thirty-six pairs are allowed; the database holds the same list in `ticket_transition`. What a guard needs
to know comes in as `Facts`: this module asks nobody.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import assert_never

from fettle.errors import FettleError
from fettle.model import Role, TicketState
from fettle.words import Words
from workorders.model import Resolution

S = TicketState
_OFFICE = frozenset({Role.ORDER_TAKER, Role.SUPERVISOR})
_SUPERVISOR = frozenset({Role.SUPERVISOR})
_ENGINEER = frozenset({Role.ENGINEER})
_MACHINE = frozenset({Role.MACHINE_ACCOUNT})
_CUSTOMER = frozenset({Role.CUSTOMER_REP})

# Who may move a ticket from one state to another. A pair that is not here is never allowed. An administrator manages
# accounts and rules, and moves no tickets.
TRANSITIONS: Mapping[tuple[TicketState, TicketState], frozenset[Role]] = {
    (S.SUBMITTED, S.PENDING_CONFIRMATION): _OFFICE | _MACHINE,
    (S.SUBMITTED, S.DISPATCHED): _MACHINE,
    (S.SUBMITTED, S.CLOSED): _OFFICE | _CUSTOMER,
    (S.PENDING_CONFIRMATION, S.SUBMITTED): _OFFICE,
    (S.PENDING_CONFIRMATION, S.DISPATCHED): _SUPERVISOR | _MACHINE,
    (S.PENDING_CONFIRMATION, S.CLOSED): _OFFICE,
    (S.DISPATCHED, S.PENDING_CONFIRMATION): _SUPERVISOR | _MACHINE,
    (S.DISPATCHED, S.IN_PROGRESS): _ENGINEER,
    (S.DISPATCHED, S.CLOSED): _SUPERVISOR,
    (S.IN_PROGRESS, S.DISPATCHED): _SUPERVISOR,
    (S.IN_PROGRESS, S.PENDING_ACCEPTANCE): _ENGINEER,
    (S.IN_PROGRESS, S.CLOSED): _SUPERVISOR,
    (S.PENDING_ACCEPTANCE, S.IN_PROGRESS): _CUSTOMER | _OFFICE,
    (S.PENDING_ACCEPTANCE, S.CLOSED): _CUSTOMER | _OFFICE | _MACHINE,
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What is true of a ticket at the moment somebody wants to move it."""

    is_complete: bool = False  # the required fields are there and the machine is known
    is_emergency: bool = False
    is_machine_made: bool = False  # filed by detection
    has_live_offer: bool = False  # an assignment is offered, accepted or started
    is_assignee: bool = False  # the actor is the engineer of the live assignment, or of the last one
    has_started: bool = False  # the engineer of the live assignment accepted and checked in
    has_result: bool = False  # result, parts and hours are handed in
    has_customer: bool = False
    is_own_customer: bool = False  # the actor represents the ticket's customer
    reason: str = ""
    resolution: Resolution | None = None


class IllegalTransition(FettleError):
    """A ticket that is {from_state} cannot become {to_state}; it can become: {allowed}."""


class NotYourMove(FettleError):
    """The role {role} may not move a ticket from {from_state} to {to_state}; that takes: {takes}."""


class NotReady(FettleError):
    """The ticket cannot become {to_state} yet: {why}."""


def followers(state: TicketState) -> tuple[TicketState, ...]:
    """Return the states that may follow `state`, in the order of a ticket's life.

    >>> [str(s) for s in followers(TicketState.PENDING_ACCEPTANCE)]
    ['in_progress', 'closed']
    """
    return tuple(to for to in TicketState if (state, to) in TRANSITIONS)


def resolutions(state: TicketState) -> frozenset[Resolution]:
    """Return the reasons for which a ticket in `state` may be closed."""
    match state:
        case S.SUBMITTED:
            return frozenset({Resolution.CANCELLED, Resolution.DUPLICATE})
        case S.PENDING_CONFIRMATION:
            return frozenset({Resolution.REJECTED, Resolution.DUPLICATE, Resolution.FALSE_ALARM, Resolution.CANCELLED})
        case S.DISPATCHED | S.IN_PROGRESS:
            return frozenset({Resolution.CANCELLED})
        case S.PENDING_ACCEPTANCE:
            return frozenset({Resolution.ACCEPTED, Resolution.AUTO_ACCEPTED})
        case S.CLOSED:
            return frozenset()
        case _:
            assert_never(state)


def judge(from_state: TicketState, to_state: TicketState, *, role: Role, facts: Facts) -> None:
    """Say nothing if `role` may move the ticket now.

    Raises:
        IllegalTransition: the pair is not part of the life cycle.
        NotYourMove: it is, for other roles.
        NotReady: something must happen first.
    """
    roles = TRANSITIONS.get((from_state, to_state))
    if roles is None:
        allowed = [state.value for state in followers(from_state)]
        raise IllegalTransition(
            from_state=from_state.value,
            to_state=to_state.value,
            allowed=", ".join(allowed) or "nothing, it is closed for good",
            allowed_states=allowed,
        )
    if role not in roles:
        takes = ", ".join(sorted(roles))
        raise NotYourMove(role=role.value, from_state=from_state.value, to_state=to_state.value, takes=takes)
    why = _obstacle(from_state, to_state, role, facts)
    if why is not None:
        allowed = [state.value for state in followers(from_state)]
        raise NotReady(to_state=to_state.value, why=why.en, why_zh=why.zh, allowed_states=allowed)


_CUSTOMER_JUDGES = Words("the customer has to judge the result", "须由客户验收")
_NOT_YOUR_TICKET = Words("only the customer whose ticket it is may do this", "仅工单所属客户可以操作")
_NO_REASON = Words("give the reason", "请填写原因")
_NO_OFFER = Words("no engineer has an offer; offer it to one first", "尚未派给任何工程师，请先派单")
_HAS_OFFER = Words("an engineer still has the offer", "仍有工程师持有该派单")
_INCOMPLETE = Words("the equipment number is unknown; find out which machine it is", "设备编号未知，请先确认设备")
_PEOPLE_CONFIRM = Words("a person confirms what a person filed", "人工提交的工单须由人工确认")
_NO_EMERGENCY = Words("only an emergency may skip the confirmation", "只有紧急停机可以跳过确认")
_NOT_ASSIGNEE = Words("only the engineer to whom it is assigned may do this", "仅被派工程师可以操作")
_NOT_STARTED = Words("accept the offer and check in at the machine first", "请先接单并到场签到")
_NO_RESULT = Words("hand in result, hours and parts first", "请先提交处理结果、工时和配件")
_CUSTOMER_CLOSES = Words("a customer may cancel a ticket or accept its result", "客户只能撤销工单或确认验收")
_PROGRAM_CLOSES = Words(
    "people accept a result; only the program accepts by itself, after the time set for it",
    "验收由人确认；到期后仅系统可自动验收",
)


def _obstacle(from_state: TicketState, to_state: TicketState, role: Role, facts: Facts) -> Words | None:
    """Return what stands in the way of an allowed pair."""
    if to_state is S.CLOSED:
        return _obstacle_to_closing(from_state, role, facts)
    if role is Role.CUSTOMER_REP and not facts.is_own_customer:
        return _NOT_YOUR_TICKET
    checks: tuple[tuple[bool, Words], ...] = ()
    match from_state, to_state:
        case S.SUBMITTED, S.PENDING_CONFIRMATION:
            checks = (
                (role is not Role.MACHINE_ACCOUNT or facts.is_machine_made, _PEOPLE_CONFIRM),
                (facts.is_complete or facts.is_emergency, _INCOMPLETE),
            )
        case S.SUBMITTED, S.DISPATCHED:
            checks = ((facts.is_emergency, _NO_EMERGENCY), (facts.has_live_offer, _NO_OFFER))
        case S.PENDING_CONFIRMATION, S.DISPATCHED:
            checks = ((facts.has_live_offer, _NO_OFFER),)
        case S.DISPATCHED, S.PENDING_CONFIRMATION:
            checks = ((not facts.has_live_offer, _HAS_OFFER),)
        case S.DISPATCHED, S.IN_PROGRESS:
            checks = ((facts.is_assignee, _NOT_ASSIGNEE), (facts.has_started, _NOT_STARTED))
        case S.IN_PROGRESS, S.DISPATCHED:
            is_offered_anew = facts.has_live_offer and not facts.has_started
            checks = ((bool(facts.reason), _NO_REASON), (is_offered_anew, _NO_OFFER))
        case S.IN_PROGRESS, S.PENDING_ACCEPTANCE:
            checks = ((facts.is_assignee, _NOT_ASSIGNEE), (facts.has_result, _NO_RESULT))
        case S.PENDING_ACCEPTANCE, S.IN_PROGRESS:
            is_judge = role is Role.CUSTOMER_REP or not facts.has_customer
            checks = ((is_judge, _CUSTOMER_JUDGES), (bool(facts.reason), _NO_REASON))
        case S.PENDING_CONFIRMATION, S.SUBMITTED:
            checks = ((bool(facts.reason), _NO_REASON),)
    return next((words for holds, words in checks if not holds), None)


def _obstacle_to_closing(from_state: TicketState, role: Role, facts: Facts) -> Words | None:
    possible = resolutions(from_state)
    if facts.resolution not in possible:
        names = ", ".join(sorted(possible))
        return Words(f"give the resolution, one of: {names}", f"请给出关闭原因，须为以下之一：{names}")
    if role is Role.CUSTOMER_REP and not facts.is_own_customer:
        return _NOT_YOUR_TICKET
    if role is Role.CUSTOMER_REP and facts.resolution not in {Resolution.CANCELLED, Resolution.ACCEPTED}:
        return _CUSTOMER_CLOSES
    if from_state is not S.PENDING_ACCEPTANCE:
        return None if facts.reason else _NO_REASON
    if (facts.resolution is Resolution.AUTO_ACCEPTED) != (role is Role.MACHINE_ACCOUNT):
        return _PROGRAM_CLOSES
    if role in _OFFICE and facts.has_customer:
        return _CUSTOMER_JUDGES
    return None
