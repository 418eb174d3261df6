"""Each button the board offers is a call the API takes, as the one to whom it is offered."""

import pytest

from dashboards.api import PART
from dispatch import routes as dispatch_routes
from fettle.db import DatabaseRole, open_pool
from fettle.http import Part, create_app
from workorders import routes as workorders_routes

FILLED = {"reason": "a good reason", "result": "bearing replaced", "hours": 1.5, "cause": "", "satisfaction": 5}
POTENTIAL = "WO-20261122-0003"


@pytest.fixture
async def office(plain_plant, visiting):
    pool = open_pool(plain_plant.url, role=DatabaseRole.API, name="actions-test", size=4)
    parts = [
        PART,
        Part(workorders_routes.router, workorders_routes.PROBLEMS),
        Part(dispatch_routes.router, dispatch_routes.PROBLEMS),
    ]
    async with pool:
        yield visiting(create_app(pool, parts=parts))


async def press(office, login, number, key, *, choose=None):
    """Press a button as the page does, and return the ticket as it is then."""
    async with office.logged_in(login) as client:
        ticket = (await client.get(f"/board/data/ticket/{number}")).json()
        (action,) = [one for one in ticket["actions"] if one["key"] == key]
        body = {
            **action["body"],
            **{
                f["name"]: choose if f["kind"] == "choice" and choose else FILLED.get(f["name"])
                for f in action["fields"]
            },
        }
        headers = {"If-Match": f'"{ticket["version"]}"'} if action["needs_version"] else {}
        answer = await client.post(action["path"], json=body, headers=headers)
        assert answer.status_code < 300, answer.text
        return (await client.get(f"/board/data/ticket/{number}")).json()


async def test_a_job_goes_from_start_to_acceptance_by_buttons_alone(office):
    assert (await press(office, "wang", POTENTIAL, "check_in"))["state"] == "in_progress"
    assert (await press(office, "wang", POTENTIAL, "hand_in"))["state"] == "pending_acceptance"
    assert (await press(office, "hengda", POTENTIAL, "send_back"))["state"] in {"in_progress", "dispatched"}
    ticket = await press(office, "wang", POTENTIAL, "hand_in")
    assert ticket["state"] == "pending_acceptance"
    closed = await press(office, "hengda", POTENTIAL, "accept_result")
    assert (closed["state"], closed["resolution_code"], closed["actions"]) == ("closed", "accepted", [])


async def test_the_office_confirms_dispatches_and_closes(office):
    number = "WO-20261122-0004"
    assert (await press(office, "anna", number, "confirm"))["state"] == "pending_confirmation"
    ticket = await press(office, "anna", number, "dispatch")
    assert ticket["state"] == "dispatched"
    assert ticket["assignments"][0]["status"] == "offered"
    engineer = {"王伟": "wang", "Lena Brandt": "lena"}[ticket["assignments"][0]["engineer"]]
    assert (await press(office, engineer, number, "accept"))["assignments"][0]["status"] == "accepted"
    closed = await press(office, "anna", number, "close", choose="cancelled")
    assert (closed["state"], closed["resolution_code"]) == ("closed", "cancelled")


async def test_an_engineer_declines_and_the_next_one_is_asked(office):
    number = "WO-20261122-0004"
    await press(office, "anna", number, "confirm")
    ticket = await press(office, "anna", number, "dispatch")
    engineer = {"王伟": "wang", "Lena Brandt": "lena"}[ticket["assignments"][0]["engineer"]]
    after = await press(office, engineer, number, "refuse")
    assert [one["status"] for one in after["assignments"]] == ["offered", "rejected"]
    assert after["actions"] == []


async def test_who_may_file_by_the_board_is_who_may_file_by_the_api(office):
    report = {
        "equipment_number": "P-102",
        "fault_description": "leaks",
        "contact_phone": "+49 421 555 0",
        "region": "x",
        "channel": "board",
    }
    for login in ("anna", "hengda", "lena"):
        async with office.logged_in(login) as client:
            assert (await client.get("/board/data/overview")).json()["me"]["may_file"] is True
            assert (await client.post("/api/v1/tickets", json=report)).status_code == 201
