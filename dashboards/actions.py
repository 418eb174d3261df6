"""What a person may do with a ticket from the board: calls of the API, offered where they make sense.

The API decides; this only spares people buttons that are sure to be refused.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from fettle.model import Role, TicketState

_OFFICE = {Role.ORDER_TAKER, Role.SUPERVISOR}
_LIVE = {"offered", "accepted", "started"}


@dataclass(frozen=True, slots=True)
class Field:
    """One thing to fill in; `label` and the options are keys of the words."""

    name: str
    label: str
    kind: Literal["text", "number", "choice"]
    is_required: bool = True
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Action:
    """A button: POST `path` with `body` and the fields; `needs_version` sends If-Match."""

    key: str
    path: str
    body: dict[str, Any] = field(default_factory=dict)
    fields: tuple[Field, ...] = ()
    is_main: bool = False
    needs_version: bool = False


_REASON = Field("reason", "field.reason", "text")
_CLOSING = {
    TicketState.SUBMITTED: ("cancelled",),
    TicketState.PENDING_CONFIRMATION: ("false_alarm", "rejected", "cancelled"),
    TicketState.DISPATCHED: ("cancelled",),
    TicketState.IN_PROGRESS: ("cancelled",),
}


def actions_for(
    *,
    role: Role,
    engineer_id: int | None,
    ticket_id: int,
    state: TicketState,
    has_customer: bool,
    has_machine: bool,
    assignments: Sequence[tuple[int, int, str]],
) -> list[dict[str, Any]]:
    """Return the actions for a caller, the most likely first, as JSON-able values.

    `assignments` are (id, engineer, status), newest first.
    """
    live = next(((a, e, s) for a, e, s in assignments if s in _LIVE), None)
    found: list[Action] = []
    if role is Role.ENGINEER and live is not None and live[1] == engineer_id:
        found = _of_engineer(live[0], live[2])
    elif state is TicketState.PENDING_ACCEPTANCE:
        if role is Role.CUSTOMER_REP or (role in _OFFICE and not has_customer):
            found = _of_judge(ticket_id)
    elif role in _OFFICE:
        found = _of_office(ticket_id, state, role, has_live=live is not None, has_machine=has_machine)
    elif role is Role.CUSTOMER_REP and state is TicketState.SUBMITTED:
        found = [_close(ticket_id, ("cancelled",))]
    return [asdict(action) for action in found]


def _of_engineer(assignment_id: int, status: str) -> list[Action]:
    base = f"/api/v1/assignments/{assignment_id}"
    refuse = Action("refuse", f"{base}/rejection", fields=(_REASON,))
    match status:
        case "offered":
            return [Action("accept", f"{base}/acceptance", is_main=True), refuse]
        case "accepted":
            return [Action("check_in", f"{base}/check-in", is_main=True), refuse]
        case _:
            fields = (
                Field("result", "field.result", "text"),
                Field("hours", "field.hours", "number"),
                Field("cause", "field.cause", "text", is_required=False),
            )
            return [Action("hand_in", f"{base}/result", fields=fields, is_main=True)]


def _of_judge(ticket_id: int) -> list[Action]:
    satisfaction = Field(
        "satisfaction", "field.satisfaction", "choice", is_required=False, options=("", "5", "4", "3", "2", "1")
    )
    return [
        Action("accept_result", f"/api/v1/tickets/{ticket_id}/acceptance", fields=(satisfaction,), is_main=True),
        Action("send_back", f"/api/v1/tickets/{ticket_id}/rejection", fields=(_REASON,)),
    ]


def _of_office(ticket_id: int, state: TicketState, role: Role, *, has_live: bool, has_machine: bool) -> list[Action]:
    found = []
    if not has_machine and state is not TicketState.CLOSED:
        number = Field("equipment_number", "field.equipment_number", "text")
        path = f"/api/v1/tickets/{ticket_id}/machine"
        found.append(Action("identify", path, fields=(number,), is_main=True, needs_version=True))
    elif state is TicketState.SUBMITTED:
        found.append(_move("confirm", ticket_id, "pending_confirmation"))
    if state is TicketState.PENDING_CONFIRMATION and role is Role.SUPERVISOR and not has_live:
        found.append(Action("dispatch", f"/api/v1/tickets/{ticket_id}/offers", is_main=True))
    if state is TicketState.DISPATCHED and role is Role.SUPERVISOR:
        found.append(_move("take_back", ticket_id, "pending_confirmation", fields=(_REASON,)))
    early = state in {TicketState.SUBMITTED, TicketState.PENDING_CONFIRMATION}
    if state in _CLOSING and (role is Role.SUPERVISOR or early):
        found.append(_close(ticket_id, _CLOSING[state]))
    return found


def _move(key: str, ticket_id: int, to: str, *, fields: tuple[Field, ...] = ()) -> Action:
    path = f"/api/v1/tickets/{ticket_id}/transitions"
    return Action(key, path, body={"to": to}, fields=fields, is_main=True, needs_version=True)


def _close(ticket_id: int, options: tuple[str, ...]) -> Action:
    why = Field("resolution", "field.resolution", "choice", options=options)
    return Action(
        "close",
        f"/api/v1/tickets/{ticket_id}/transitions",
        body={"to": "closed"},
        fields=(why, _REASON),
        needs_version=True,
    )
