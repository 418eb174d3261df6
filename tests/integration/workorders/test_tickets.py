"""Tickets through the API, on a real database."""

import asyncio

import pytest

from fettle.http import Part
from fettle.model import FaultFamily, Role, Severity, TicketState
from workorders import api, routes
from workorders.model import Appended, NoOpenTicket, Opened

PARTS = [Part(routes.router, routes.PROBLEMS)]
REPORT = {
    "equipment_number": "P-101",
    "fault_description": "Oil under the ram",
    "contact_phone": "+86 138 0013 8000",
    "region": "East",
}


async def test_filing_fills_in_machine_and_customer(company, office):
    acme = await company("acme")
    web = await office(acme, PARTS)
    taker = await web.log_in("acme.order_taker")
    filed = await web.client.post("/api/v1/tickets", json=REPORT, headers=taker)
    assert filed.status_code == 201
    ticket = filed.json()
    assert ticket["machine_id"] == acme.ids["press"]
    assert ticket["customer_id"] == acme.ids["taihu"]
    assert ticket["state"] == "submitted"
    assert ticket["number"] == "T-000001"
    read = await web.client.get(filed.headers["Location"], headers=taker)
    assert read.headers["ETag"] == filed.headers["ETag"] == '"1"'
    assert [event["kind"] for event in read.json()["events"]] == ["filed"]


async def test_an_unknown_equipment_number_is_kept_and_flagged(company, office):
    web = await office(await company("acme"), PARTS)
    taker = await web.log_in("acme.order_taker")
    filed = await web.client.post("/api/v1/tickets", json={**REPORT, "equipment_number": "X-9"}, headers=taker)
    assert filed.status_code == 201
    assert filed.json()["machine_is_known"] is False
    assert filed.json()["equipment_number"] == "X-9"
    confirmed = await web.client.post(
        f"{filed.headers['Location']}/transitions",
        json={"to": "pending_confirmation"},
        headers={**taker, "If-Match": '"1"'},
    )
    assert confirmed.status_code == 409
    assert confirmed.json()["code"] == "not-ready"


async def test_whoever_finds_out_says_which_machine_it_is(company, office):
    acme = await company("acme")
    web = await office(acme, PARTS)
    taker = await web.log_in("acme.order_taker")
    filed = await web.client.post("/api/v1/tickets", json={**REPORT, "equipment_number": "P101?"}, headers=taker)
    place, seen = f"{filed.headers['Location']}/machine", {**taker, "If-Match": '"1"'}
    wrong = await web.client.post(place, json={"equipment_number": "X-9"}, headers=seen)
    assert (wrong.status_code, wrong.json()["code"]) == (404, "no-such-machine")
    unseen = await web.client.post(place, json={"equipment_number": "P-101"}, headers={**taker, "If-Match": '"7"'})
    assert (unseen.status_code, unseen.json()["code"]) == (412, "stale-version")
    known = await web.client.post(place, json={"equipment_number": "hv-1"}, headers=seen)
    assert known.status_code == 200, known.text
    assert known.json()["machine_is_known"] is True
    assert (known.json()["equipment_number"], known.json()["machine_id"]) == ("HV-1", acme.ids["cabinet"])
    read = (await web.client.get(filed.headers["Location"], headers=taker)).json()
    assert read["requirements"] == [{"certificate_code": "hv_electrician", "level": 2}]
    assert [event["kind"] for event in read["events"]] == ["filed", "note"]
    again = await web.client.post(place, json={"equipment_number": "P-101"}, headers={**taker, "If-Match": '"2"'})
    assert (again.status_code, again.json()["code"]) == (409, "machine-settled")
    confirmed = await web.client.post(
        f"{filed.headers['Location']}/transitions",
        json={"to": "pending_confirmation"},
        headers={**taker, "If-Match": '"2"'},
    )
    assert confirmed.status_code == 200


@pytest.mark.parametrize(
    ("language", "remedy"),
    [
        ("en", "The region is missing. Give the service region in which the machine stands."),
        ("zh-CN", "缺少所属区域。请填写设备所在的服务区域。"),
    ],
)
async def test_what_is_missing_is_named_with_its_remedy(company, office, language, remedy):
    web = await office(await company("acme"), PARTS)
    taker = {**await web.log_in("acme.order_taker"), "Accept-Language": language}
    answer = await web.client.post(
        "/api/v1/tickets", json={"equipment_number": "P-101", "contact_phone": "12"}, headers=taker
    )
    assert answer.status_code == 422
    assert answer.headers["Content-Type"] == "application/problem+json"
    body = answer.json()
    assert body["code"] == "invalid-fields"
    assert {(e["field"], e["code"]) for e in body["errors"]} == {
        ("fault_description", "missing"), ("region", "missing"), ("contact_phone", "bad-phone"),
    }  # fmt: skip
    assert next(e["remedy"] for e in body["errors"] if e["field"] == "region") == remedy
    assert (await web.client.get("/api/v1/tickets", headers=taker)).json()["tickets"] == []


async def test_what_the_framework_finds_wrong_reads_alike(company, office):
    web = await office(await company("acme"), PARTS)
    taker = {**await web.log_in("acme.order_taker"), "Accept-Language": "zh"}
    answer = await web.client.post("/api/v1/tickets", json={**REPORT, "colour": "red"}, headers=taker)
    assert answer.status_code == 422
    assert answer.json()["errors"] == [
        {"field": "colour", "code": "extra-forbidden", "remedy": "不认识 colour，请删除或检查拼写。"}
    ]


async def test_moving_takes_the_version_then_the_life_cycle(company, office):
    web = await office(await company("acme"), PARTS)
    taker = await web.log_in("acme.order_taker")
    place = (await web.client.post("/api/v1/tickets", json=REPORT, headers=taker)).headers["Location"] + "/transitions"
    statuses = []
    for to, version in [
        ("in_progress", None),
        ("in_progress", '"7"'),
        ("in_progress", "3"),
        ("in_progress", '"1"'),
        ("pending_confirmation", '"1"'),
    ]:
        answer = await web.client.post(
            place, json={"to": to}, headers=taker | ({"If-Match": version} if version else {})
        )
        statuses.append((answer.status_code, answer.json().get("code")))
        if answer.status_code == 409:
            assert answer.json()["allowed"] == ["pending_confirmation", "dispatched", "closed"]
    assert statuses == [
        (428, "version-missing"),
        (412, "stale-version"),
        (400, "version-unreadable"),
        (409, "illegal-transition"),
        (200, None),
    ]


async def test_of_two_who_move_a_ticket_at_once_one_is_refused(company, office):
    web = await office(await company("acme"), PARTS)
    taker = await web.log_in("acme.order_taker")
    for _ in range(5):
        place = (await web.client.post("/api/v1/tickets", json=REPORT, headers=taker)).headers["Location"]
        body = {"to": "closed", "reason": "twice", "resolution": "cancelled"}
        answers = await asyncio.gather(
            *(
                web.client.post(f"{place}/transitions", json=body, headers={**taker, "If-Match": '"1"'})
                for _ in range(4)
            )
        )
        assert sorted(a.status_code for a in answers) == [200, 412, 412, 412]
        events = (await web.client.get(place, headers=taker)).json()["events"]
        assert [e["to_state"] for e in events if e["kind"] == "transition"] == ["closed"]


async def test_a_request_sent_twice_files_once(company, office):
    web = await office(await company("acme"), PARTS)
    taker = {**await web.log_in("acme.order_taker"), "Idempotency-Key": "abc"}
    answers = await asyncio.gather(*(web.client.post("/api/v1/tickets", json=REPORT, headers=taker) for _ in range(6)))
    assert {a.status_code for a in answers} == {201}
    assert len({a.json()["id"] for a in answers}) == 1
    assert {a.headers["ETag"] for a in answers} == {'"1"'}
    assert sum("Idempotency-Replayed" in a.headers for a in answers) == 5
    other = await web.client.post("/api/v1/tickets", json={**REPORT, "region": "West"}, headers=taker)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency-key-reused")


async def test_a_tenant_cannot_find_another_tenants_ticket(company, office):
    acme, rival = await company("acme"), await company("rival")
    web = await office(acme, PARTS)
    ours, theirs = await web.log_in("acme.order_taker"), await web.log_in("rival.admin")
    place = (await web.client.post("/api/v1/tickets", json=REPORT, headers=ours)).headers["Location"]
    absent = await web.client.get(f"{place}99", headers=theirs)
    hidden = await web.client.get(place, headers=theirs)
    assert hidden.status_code == absent.status_code == 404
    assert {**hidden.json(), "instance": "", "detail": ""} == {**absent.json(), "instance": "", "detail": ""}
    assert (await web.client.get("/api/v1/tickets", headers=theirs)).json()["tickets"] == []
    assert rival.tenant_id != acme.tenant_id


async def test_customers_and_engineers_see_what_is_theirs(company, office):
    acme = await company("acme")
    await acme.hire("chen")
    web = await office(acme, PARTS)
    taker, customer, engineer = [await web.log_in(f"acme.{who}") for who in ("order_taker", "customer_rep", "chen")]
    await web.client.post("/api/v1/tickets", json=REPORT, headers=taker)
    other = await web.client.post("/api/v1/tickets", json={**REPORT, "equipment_number": "HV-1"}, headers=taker)
    seen = (await web.client.get("/api/v1/tickets", headers=customer)).json()["tickets"]
    assert [t["equipment_number"] for t in seen] == ["P-101"]
    assert (await web.client.get(other.headers["Location"], headers=customer)).status_code == 404
    assert (await web.client.get("/api/v1/tickets", headers=engineer)).json()["tickets"] == []
    assert (await web.client.get("/api/v1/machines/HV-1", headers=customer)).status_code == 404
    assert (await web.client.get("/api/v1/machines/p-101", headers=customer)).json()["customer_name"] == "Taihu"


async def test_pages_follow_each_other_without_gap_or_repeat(company, office):
    web = await office(await company("acme"), PARTS)
    taker = await web.log_in("acme.order_taker")
    filed = [(await web.client.post("/api/v1/tickets", json=REPORT, headers=taker)).json()["id"] for _ in range(7)]
    seen, cursor = [], None
    while True:
        page = (
            await web.client.get(
                "/api/v1/tickets", params={"limit": 3} | ({"cursor": cursor} if cursor else {}), headers=taker
            )
        ).json()
        seen += [t["id"] for t in page["tickets"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert seen == sorted(filed, reverse=True)
    assert (await web.client.get("/api/v1/tickets", params={"cursor": "%%"}, headers=taker)).status_code == 422


async def test_a_finding_opens_one_ticket_and_later_evidence_is_appended(company):
    acme = await company("acme")
    opened = await acme.find_fault(severity=Severity.LOW)
    assert isinstance(opened, Opened)
    again = await acme.find_fault(severity=Severity.LOW)
    worse = await acme.find_fault(severity=Severity.HIGH, revision=2)
    assert again == Appended(opened.ticket_id, opened.number, is_news=False, severity_rose=False)
    assert worse == Appended(opened.ticket_id, opened.number, is_news=True, severity_rose=True)
    other = await acme.find_fault(family=FaultFamily.OVERLOAD, key="f2")
    assert isinstance(other, Opened)
    async with acme.worker() as conn:
        ticket = await api.read_ticket(conn, ticket_id=opened.ticket_id)
    assert ticket.state is TicketState.PENDING_CONFIRMATION
    assert (ticket.severity, ticket.priority) == ("high", "high")
    assert "motor_temperature 92 °C (expected 61)" in ticket.fault_description
    assert "潜在故障" in ticket.fault_description_zh


async def test_sixteen_at_once_open_one_ticket(company):
    acme = await company("acme")
    results = await asyncio.gather(*(acme.find_fault(key=f"f{n % 4}", revision=1 + n // 4) for n in range(16)))
    assert sum(isinstance(r, Opened) for r in results) == 1
    assert len({r.ticket_id for r in results}) == 1
    async with acme.worker() as conn:
        rows = await (await conn.execute("SELECT count(*) FROM ticket_evidence")).fetchone()
        counted = await (await conn.execute("SELECT tickets_filed FROM tenant")).fetchall()
    assert rows == (16,)
    assert (1,) in counted  # no number was lost to those who came second


async def test_a_finding_told_again_after_its_ticket_was_closed_opens_no_other(company, office):
    acme = await company("acme")
    opened = await acme.find_fault()
    web = await office(acme, PARTS)
    taker = await web.log_in("acme.order_taker")
    place = f"/api/v1/tickets/{opened.ticket_id}"
    version = (await web.client.get(place, headers=taker)).headers["ETag"]
    closed = await web.client.post(
        f"{place}/transitions",
        json={"to": "closed", "reason": "the fan was off on purpose", "resolution": "false_alarm"},
        headers={**taker, "If-Match": version},
    )
    assert closed.json()["state"] == "closed"
    assert isinstance(await acme.find_fault(), Appended)
    assert isinstance(await acme.find_fault(revision=2), Appended)
    assert isinstance(await acme.find_fault(key="another onset"), Opened)


async def test_a_cleared_finding_proposes_to_close_and_closes_nothing(company):
    acme = await company("acme")
    assert isinstance(await acme.clear_fault(), NoOpenTicket)
    opened = await acme.find_fault()
    noted = await acme.clear_fault(revision=2)
    assert noted == Appended(opened.ticket_id, opened.number, is_news=True, severity_rose=False)
    assert (await acme.clear_fault(revision=2)).is_news is False
    async with acme.worker() as conn:
        assert (await api.read_ticket(conn, ticket_id=opened.ticket_id)).is_open
        notes = await (
            await conn.execute("SELECT detail->>'proposes' FROM ticket_event WHERE kind = 'note'")
        ).fetchall()
    assert notes == [("close",)]


async def test_a_duplicate_names_the_ticket_it_repeats_and_nothing_else_does(company, office):
    acme = await company("acme")
    web = await office(acme, PARTS)
    taker = await web.log_in("acme.order_taker")
    first, second = [(await web.client.post("/api/v1/tickets", json=REPORT, headers=taker)).json() for _ in range(2)]
    place = f"/api/v1/tickets/{second['id']}/transitions"
    headers = {**taker, "If-Match": '"1"'}
    for wrong in (
        {"resolution": "duplicate"},
        {"resolution": "duplicate", "duplicate_of": second["id"]},
        {"resolution": "cancelled", "duplicate_of": first["id"]},
        {"resolution": "duplicate", "duplicate_of": 2**70},
    ):
        answer = await web.client.post(place, json={"to": "closed", "reason": "twice", **wrong}, headers=headers)
        assert answer.status_code == 422, wrong
        assert answer.json()["errors"][0]["field"] == "duplicate_of"
    gone = {"to": "closed", "reason": "twice", "resolution": "duplicate", "duplicate_of": 999}
    assert (await web.client.post(place, json=gone, headers=headers)).status_code == 404
    right = await web.client.post(place, json={**gone, "duplicate_of": first["id"]}, headers=headers)
    assert (right.status_code, right.json()["duplicate_of"]) == (200, first["id"])


async def test_a_new_password_leaves_an_account_whom_it_stands_for(company):
    """`fettle account` knows login, role and password, no engineer."""
    acme = await company("acme")
    await acme.hire("near")
    async with acme.api() as conn:
        for role, expected in ((Role.ENGINEER, acme.ids["near"]), (Role.SUPERVISOR, None)):
            await api.create_account(
                conn, login="acme.near", role=role, display_name="acme.near", password=f"a new password of {role}"
            )
            row = await (
                await conn.execute("SELECT engineer_id, display_name FROM account WHERE login = 'acme.near'")
            ).fetchone()
            assert row == (expected, "near")
