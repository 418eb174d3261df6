"""The life cycle against the customer's table, and the database's list of pairs."""

import re
from importlib import resources
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fettle.model import Role, TicketState
from workorders.lifecycle import (
    TRANSITIONS,
    Facts,
    IllegalTransition,
    NotReady,
    NotYourMove,
    followers,
    judge,
    resolutions,
)
from workorders.model import Resolution

# Rows: from; columns: to; both in the order of the states. x is allowed.
TABLE = """
. x x . . x
x . x . . x
. x . x . x
. . x . x x
. . . x . x
. . . . . .
"""
STATES = list(TicketState)
ALLOWED = {
    (STATES[row], STATES[column])
    for row, line in enumerate(TABLE.split("\n")[1:-1])
    for column, mark in enumerate(line.split())
    if mark == "x"
}
MACHINE, ENGINEER, SUPERVISOR, TAKER, CUSTOMER = (
    {Role.MACHINE_ACCOUNT}, {Role.ENGINEER}, {Role.SUPERVISOR}, {Role.ORDER_TAKER}, {Role.CUSTOMER_REP},
)  # fmt: skip
OFFICE = SUPERVISOR | TAKER
WHO = {
    "submitted pending_confirmation": OFFICE | MACHINE,
    "submitted dispatched": MACHINE,
    "submitted closed": OFFICE | CUSTOMER,
    "pending_confirmation submitted": OFFICE,
    "pending_confirmation dispatched": SUPERVISOR | MACHINE,
    "pending_confirmation closed": OFFICE,
    "dispatched pending_confirmation": SUPERVISOR | MACHINE,
    "dispatched in_progress": ENGINEER,
    "dispatched closed": SUPERVISOR,
    "in_progress dispatched": SUPERVISOR,
    "in_progress pending_acceptance": ENGINEER,
    "in_progress closed": SUPERVISOR,
    "pending_acceptance in_progress": CUSTOMER | OFFICE,
    "pending_acceptance closed": CUSTOMER | OFFICE | MACHINE,
}


def best_facts(from_state, to_state, role):
    """Facts under which nothing stands in the way."""
    resolution = None
    if to_state is TicketState.CLOSED:
        resolution = {
            TicketState.SUBMITTED: Resolution.CANCELLED,
            TicketState.PENDING_CONFIRMATION: Resolution.FALSE_ALARM,
            TicketState.PENDING_ACCEPTANCE: Resolution.AUTO_ACCEPTED if role is Role.MACHINE_ACCOUNT else Resolution.ACCEPTED,
        }.get(from_state, Resolution.CANCELLED)  # fmt: skip
    return Facts(
        is_complete=True,
        is_emergency=True,
        is_machine_made=True,
        has_live_offer=(from_state, to_state) != (TicketState.DISPATCHED, TicketState.PENDING_CONFIRMATION),
        is_assignee=True,
        has_started=(from_state, to_state) != (TicketState.IN_PROGRESS, TicketState.DISPATCHED),
        has_result=True,
        has_customer=role is Role.CUSTOMER_REP,
        is_own_customer=role is Role.CUSTOMER_REP,
        reason="because",
        resolution=resolution,
    )


def outcome(from_state, to_state, role, facts):
    try:
        judge(from_state, to_state, role=role, facts=facts)
    except (IllegalTransition, NotYourMove, NotReady) as refusal:
        return type(refusal).__name__
    return "allowed"


@pytest.mark.parametrize("from_state", STATES)
@pytest.mark.parametrize("to_state", STATES)
@pytest.mark.parametrize("role", list(Role))
def test_every_pair_and_role_is_as_the_table_says(from_state, to_state, role):
    expected = "IllegalTransition"
    if (from_state, to_state) in ALLOWED:
        expected = "allowed" if role in WHO[f"{from_state.value} {to_state.value}"] else "NotYourMove"
    assert outcome(from_state, to_state, role, best_facts(from_state, to_state, role)) == expected


def test_there_are_fourteen_pairs_and_the_database_has_the_same():
    text = resources.files("fettle.sql").joinpath("migrations/0001_business.sql").read_text(encoding="utf-8")
    block = text[text.index("INSERT INTO ticket_transition") :].split(";")[0]
    pairs = {(TicketState(a), TicketState(b)) for a, b in re.findall(r"\('(\w+)', '(\w+)'\)", block)}
    assert len(ALLOWED) == 14
    assert pairs == ALLOWED == set(TRANSITIONS)


def test_an_illegal_move_names_what_may_follow():
    with pytest.raises(IllegalTransition) as refused:
        judge(TicketState.SUBMITTED, TicketState.IN_PROGRESS, role=Role.SUPERVISOR, facts=Facts())
    assert refused.value.data["allowed_states"] == ["pending_confirmation", "dispatched", "closed"]
    with pytest.raises(IllegalTransition) as refused:
        judge(TicketState.CLOSED, TicketState.SUBMITTED, role=Role.SUPERVISOR, facts=Facts())
    assert refused.value.data["allowed_states"] == []


GUARDS = [
    ("submitted", "pending_confirmation", Role.ORDER_TAKER, {"is_complete": False, "is_emergency": False}),
    ("submitted", "pending_confirmation", Role.MACHINE_ACCOUNT, {"is_machine_made": False}),
    ("submitted", "dispatched", Role.MACHINE_ACCOUNT, {"is_emergency": False}),
    ("submitted", "dispatched", Role.MACHINE_ACCOUNT, {"has_live_offer": False}),
    ("submitted", "closed", Role.CUSTOMER_REP, {"is_own_customer": False}),
    ("submitted", "closed", Role.CUSTOMER_REP, {"resolution": Resolution.DUPLICATE}),
    ("submitted", "closed", Role.ORDER_TAKER, {"resolution": None}),
    ("submitted", "closed", Role.ORDER_TAKER, {"reason": ""}),
    ("submitted", "closed", Role.ORDER_TAKER, {"resolution": Resolution.ACCEPTED}),
    ("pending_confirmation", "submitted", Role.ORDER_TAKER, {"reason": ""}),
    ("pending_confirmation", "dispatched", Role.MACHINE_ACCOUNT, {"has_live_offer": False}),
    ("dispatched", "pending_confirmation", Role.MACHINE_ACCOUNT, {"has_live_offer": True}),
    ("dispatched", "in_progress", Role.ENGINEER, {"is_assignee": False}),
    ("dispatched", "in_progress", Role.ENGINEER, {"has_started": False}),
    ("dispatched", "closed", Role.SUPERVISOR, {"reason": ""}),
    ("in_progress", "dispatched", Role.SUPERVISOR, {"reason": ""}),
    ("in_progress", "dispatched", Role.SUPERVISOR, {"has_live_offer": False}),
    ("in_progress", "dispatched", Role.SUPERVISOR, {"has_started": True}),
    ("in_progress", "pending_acceptance", Role.ENGINEER, {"is_assignee": False}),
    ("in_progress", "pending_acceptance", Role.ENGINEER, {"has_result": False}),
    ("in_progress", "closed", Role.SUPERVISOR, {"resolution": Resolution.ACCEPTED}),
    ("pending_acceptance", "in_progress", Role.CUSTOMER_REP, {"reason": ""}),
    ("pending_acceptance", "in_progress", Role.CUSTOMER_REP, {"is_own_customer": False}),
    ("pending_acceptance", "in_progress", Role.SUPERVISOR, {"has_customer": True}),
    ("pending_acceptance", "closed", Role.SUPERVISOR, {"has_customer": True}),
    ("pending_acceptance", "closed", Role.SUPERVISOR, {"resolution": Resolution.AUTO_ACCEPTED}),
    ("pending_acceptance", "closed", Role.MACHINE_ACCOUNT, {"resolution": Resolution.ACCEPTED}),
    ("pending_acceptance", "closed", Role.CUSTOMER_REP, {"is_own_customer": False}),
]


@pytest.mark.parametrize(("from_name", "to_name", "role", "change"), GUARDS)
def test_each_guard_alone_stops_the_move(from_name, to_name, role, change):
    from_state, to_state = TicketState(from_name), TicketState(to_name)
    facts = best_facts(from_state, to_state, role)
    assert outcome(from_state, to_state, role, facts) == "allowed"
    values = {name: getattr(facts, name) for name in Facts.__slots__} | change
    assert outcome(from_state, to_state, role, Facts(**values)) == "NotReady"


def test_an_incomplete_emergency_is_confirmed_all_the_same():
    facts = Facts(is_emergency=True, is_complete=False)
    judge(TicketState.SUBMITTED, TicketState.PENDING_CONFIRMATION, role=Role.ORDER_TAKER, facts=facts)


@given(
    st.sampled_from(STATES), st.sampled_from(STATES), st.sampled_from(list(Role)),
    st.builds(
        Facts, *[st.booleans()] * 9, reason=st.sampled_from(["", "x"]), resolution=st.none() | st.sampled_from(list(Resolution))
    ),
)  # fmt: skip
def test_whatever_the_facts_nothing_outside_the_table_passes(from_state, to_state, role, facts):
    if outcome(from_state, to_state, role, facts) == "allowed":
        assert (from_state, to_state) in ALLOWED
        assert role in WHO[f"{from_state.value} {to_state.value}"]
        if to_state is TicketState.CLOSED:
            assert facts.resolution in resolutions(from_state)
        if to_state is TicketState.DISPATCHED:
            assert facts.has_live_offer


def test_every_refusal_reads_in_both_languages():
    seen = set()
    for from_name, to_name, role, change in GUARDS:
        from_state, to_state = TicketState(from_name), TicketState(to_name)
        facts = best_facts(from_state, to_state, role)
        values = {name: getattr(facts, name) for name in Facts.__slots__} | change
        with pytest.raises(NotReady) as refused:
            judge(from_state, to_state, role=role, facts=Facts(**values))
        why, why_zh = refused.value.data["why"], refused.value.data["why_zh"]
        assert re.search(r"[\u4e00-\u9fff]", why_zh)
        assert not re.search(r"[\u4e00-\u9fff]", why)
        seen.add(why)
    assert len(seen) > 10


def test_followers_come_in_the_order_of_a_tickets_life():
    for state, to in product(STATES, STATES):
        assert (to in followers(state)) == ((state, to) in ALLOWED)
    assert followers(TicketState.CLOSED) == ()
