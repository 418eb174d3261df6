"""Buttons are offered to those who may press them, and to nobody else."""

import pytest

from dashboards.actions import actions_for
from dashboards.words import table
from fettle.model import Role, TicketState

MINE = 7


def keys(role, state, *, assignments=(), engineer_id=None, has_customer=True, has_machine=True):
    found = actions_for(
        role=role,
        engineer_id=engineer_id,
        ticket_id=3,
        state=TicketState(state),
        has_customer=has_customer,
        has_machine=has_machine,
        assignments=assignments,
    )
    return [one["key"] for one in found]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("offered", ["accept", "refuse"]),
        ("accepted", ["check_in", "refuse"]),
        ("started", ["hand_in"]),
        ("finished", []),
        ("rejected", []),
    ],
)
def test_an_engineer_acts_on_his_own_live_assignment(status, expected):
    assignments = [(11, MINE, status)]
    assert keys(Role.ENGINEER, "dispatched", assignments=assignments, engineer_id=MINE) == expected
    assert keys(Role.ENGINEER, "dispatched", assignments=assignments, engineer_id=8) == []


def test_a_former_assignee_has_no_button():
    assert (
        keys(Role.ENGINEER, "dispatched", assignments=[(12, 8, "offered"), (11, MINE, "rejected")], engineer_id=MINE)
        == []
    )


@pytest.mark.parametrize(
    ("role", "state", "expected"),
    [
        (Role.SUPERVISOR, "submitted", ["confirm", "close"]),
        (Role.SUPERVISOR, "pending_confirmation", ["dispatch", "close"]),
        (Role.SUPERVISOR, "dispatched", ["take_back", "close"]),
        (Role.SUPERVISOR, "in_progress", ["close"]),
        (Role.ORDER_TAKER, "submitted", ["confirm", "close"]),
        (Role.ORDER_TAKER, "pending_confirmation", ["close"]),
        (Role.ORDER_TAKER, "dispatched", []),
        (Role.CUSTOMER_REP, "submitted", ["close"]),
        (Role.CUSTOMER_REP, "dispatched", []),
        (Role.CUSTOMER_REP, "pending_acceptance", ["accept_result", "send_back"]),
        (Role.SUPERVISOR, "pending_acceptance", []),
        (Role.HQ_VIEWER, "submitted", []),
        (Role.FINANCE, "pending_acceptance", []),
        (Role.SUPERVISOR, "closed", []),
        (Role.CUSTOMER_REP, "closed", []),
    ],
)
def test_buttons_follow_role_and_state(role, state, expected):
    assert keys(role, state) == expected


def test_the_office_judges_where_there_is_no_customer():
    assert keys(Role.SUPERVISOR, "pending_acceptance", has_customer=False) == ["accept_result", "send_back"]


def test_a_ticket_with_a_live_offer_is_not_dispatched_again():
    assert "dispatch" not in keys(Role.SUPERVISOR, "pending_confirmation", assignments=[(1, 2, "offered")])


def test_every_button_and_field_has_words():
    words = table("zh")
    for role in Role:
        for state in TicketState:
            for status in ("offered", "accepted", "started"):
                for one in actions_for(
                    role=role,
                    engineer_id=1,
                    ticket_id=1,
                    state=state,
                    has_customer=True,
                    has_machine=state != "submitted",
                    assignments=[(1, 1, status)],
                ):
                    assert f"action.{one['key']}" in words
                    assert all(field["label"] in words for field in one["fields"])


@pytest.mark.parametrize("role", [Role.ORDER_TAKER, Role.SUPERVISOR])
def test_the_office_says_first_which_machine_a_ticket_is_about(role):
    assert keys(role, "submitted", has_machine=False) == ["identify", "close"]
    assert "identify" not in keys(role, "closed", has_machine=False)
    assert keys(Role.CUSTOMER_REP, "submitted", has_machine=False) == ["close"]
