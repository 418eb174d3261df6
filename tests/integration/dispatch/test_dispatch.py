"""From a waiting ticket to a closed one, on a real database."""

import asyncio
from datetime import UTC, datetime, time, timedelta

import psycopg
import pytest

from dashboards import api as dashboards
from dispatch import api, loop, offers, routes
from dispatch import store as dispatch_store
from fettle.db import DatabaseRole, connect, connect_sync
from fettle.http import Part
from fettle.model import FaultFamily, Role, Severity, TicketState
from workorders import api as workorders
from workorders import routes as ticket_routes
from workorders.seed import CapBelowLoad, create_engineer

NOON = datetime(2026, 6, 3, 12, 0, tzinfo=UTC)  # a Wednesday, as in the fixtures
PARTS = [Part(ticket_routes.router, ticket_routes.PROBLEMS), Part(routes.router, routes.PROBLEMS)]


def fixed(at):
    return lambda: at


async def _assignments(acme, ticket_id=None):
    async with acme.worker() as conn:
        cursor = await conn.execute(
            "SELECT engineer_id, status FROM assignment WHERE %(id)s::bigint IS NULL OR ticket_id = %(id)s ORDER BY id",
            {"id": ticket_id},
        )
        return await cursor.fetchall()


async def _ticket(acme, ticket_id):
    async with acme.worker() as conn:
        return await workorders.read_ticket(conn, ticket_id=ticket_id)


async def _round(acme, at):
    return await api.run_round(acme.workers, tenant_id=acme.tenant_id, now=fixed(at))


async def test_a_finding_reaches_the_nearest_engineer_and_is_closed_by_the_customer(company, office):
    acme = await company("acme")
    near = await acme.hire("near", latitude=31.31, longitude=120.61)
    await acme.hire("far", latitude=30.6, longitude=114.3)
    web = await office(acme, PARTS)
    opened = await acme.find_fault()
    tally = await _round(acme, web.clock())
    assert (tally.offered, tally.held) == (1, 0)
    engineer, customer, supervisor = [await web.log_in(f"acme.{who}") for who in ("near", "customer_rep", "supervisor")]
    (offer,) = (await web.client.get("/api/v1/offers", headers=engineer)).json()
    assert offer["ticket_id"] == opened.ticket_id
    assert offer["reason"]["en"][0].startswith("Near scores 0.")
    assert offer["reason"]["zh"][0].startswith("Near 得分 0.")
    place = f"/api/v1/assignments/{offer['assignment_id']}"
    early = await web.client.post(f"{place}/check-in", headers=engineer)
    assert (early.status_code, early.json()["code"]) == (409, "offer-gone")
    assert (await web.client.post(f"{place}/acceptance", headers=engineer)).json()["state"] == "dispatched"
    assert (await web.client.post(f"{place}/check-in", headers=engineer)).json()["state"] == "in_progress"
    result = {
        "result": "cleaned the filter",
        "hours": 1.5,
        "cause": "dust",
        "parts": [{"number": "F-1", "quantity": 1}],
    }
    assert (await web.client.post(f"{place}/result", json=result, headers=engineer)).json()[
        "state"
    ] == "pending_acceptance"
    ticket = f"/api/v1/tickets/{opened.ticket_id}"
    by_office = await web.client.post(f"{ticket}/acceptance", json={}, headers=supervisor)
    assert (by_office.status_code, by_office.json()["code"]) == (409, "not-ready")
    sent_back = await web.client.post(f"{ticket}/rejection", json={"reason": "still hot"}, headers=customer)
    assert (sent_back.json()["state"], sent_back.json()["rework_count"]) == ("in_progress", 1)
    (again,) = (await web.client.get("/api/v1/offers", headers=engineer)).json()
    place = f"/api/v1/assignments/{again['assignment_id']}"
    web.clock.advance(hours=1)
    assert (await web.client.post(f"{place}/result", json=result, headers=engineer)).status_code == 200
    closed = await web.client.post(f"{ticket}/acceptance", json={"satisfaction": 5}, headers=customer)
    assert (closed.json()["state"], closed.json()["satisfaction"], closed.json()["resolution_code"]) == (
        "closed",
        5,
        "accepted",
    )
    events = (await web.client.get(ticket, headers=supervisor)).json()["events"]
    assert [e["to_state"] for e in events if e["kind"] == "transition"] == [
        "pending_confirmation", "dispatched", "in_progress", "pending_acceptance", "in_progress", "pending_acceptance", "closed",
    ]  # fmt: skip
    assert await _assignments(acme) == [(near, "finished"), (near, "finished")]
    async with acme.worker() as conn:
        assert await (await conn.execute("SELECT sum(active_jobs) FROM engineer")).fetchone() == (0,)


async def test_only_a_certificate_holder_gets_the_job(company):
    acme = await company("acme")
    await acme.hire("near", certificates={"vibration": 1})
    await acme.hire("low", certificates={"electrician": 0})
    await acme.hire("old", certificates={"electrician": 2}, valid_until=None)
    holder = await acme.hire("far", latitude=30.6, longitude=114.3, certificates={"electrician": 1})
    async with acme.api() as conn:  # withdrawn this very noon
        await conn.execute(
            "UPDATE certificate SET valid_during = tstzrange(lower(valid_during), '2026-06-03 12:30+00') WHERE engineer_id = %s",
            (acme.ids["old"],),
        )
    opened = await acme.find_fault(family=FaultFamily.ELECTRICAL_UNBALANCE)
    await _round(acme, NOON)
    assert await _assignments(acme, opened.ticket_id) == [(holder, "offered")]
    async with acme.worker() as conn:
        decision = await dispatch_store.fetch_one(conn, "read_last_decision", {"ticket_id": opened.ticket_id})
    why = {c["code"]: c.get("excluded_by") for c in decision["record"]["candidates"]}
    assert why == {
        "near": ["certificate_missing"],
        "low": ["certificate_level"],
        "old": ["certificate_expired"],
        "far": None,
    }


async def test_no_program_gets_past_a_certificate(company):
    acme = await company("acme")
    engineer = await acme.hire("near")
    opened = await acme.find_fault(family=FaultFamily.BEARING)
    with pytest.raises(psycopg.errors.CheckViolation) as refused:
        async with acme.worker() as conn:
            await conn.execute(
                "INSERT INTO assignment (tenant_id, ticket_id, engineer_id, offered_at, planned_during, reason) VALUES (%s, %s, %s, now(), '[2026-06-03 12:00+00,2026-06-03 13:00+00)', '{}')",
                (acme.tenant_id, opened.ticket_id, engineer),
            )
    assert refused.value.diag.constraint_name == "assignment_certificate_check"


async def test_a_supervisor_sets_aside_shifts_but_no_certificate(company, office):
    acme = await company("acme")
    asleep = await acme.hire("asleep", certificates={"vibration": 1}, shifts=((1, time(8), 1.0),), time_zone="UTC")
    await acme.hire("awake")
    opened = await acme.find_fault(family=FaultFamily.BEARING)
    web = await office(acme, PARTS)
    supervisor = {**await web.log_in("acme.supervisor"), "Accept-Language": "zh"}
    place = f"/api/v1/tickets/{opened.ticket_id}/offers"
    barred = await web.client.post(
        place, json={"engineer_id": acme.ids["awake"], "waive": True, "reason": "he is near"}, headers=supervisor
    )
    assert (barred.status_code, barred.json()["code"]) == (409, "not-eligible")
    assert barred.json()["detail"] == "不能指派 Awake：未持有证书 vibration 1。"
    given = await web.client.post(
        place, json={"engineer_id": asleep, "waive": True, "reason": "urgent"}, headers=supervisor
    )
    assert given.status_code == 201
    assert await _assignments(acme) == [(asleep, "offered")]


async def test_refused_and_expired_offers_go_on_and_end_with_the_supervisor(company, office):
    acme = await company("acme")
    ids = [await acme.hire(f"e{n}", latitude=31.3 + n / 10) for n in range(4)]
    opened = await acme.find_fault(severity=Severity.HIGH)
    await _round(acme, NOON)
    web = await office(acme, PARTS)
    first = await web.log_in("acme.e0")
    (offer,) = (await web.client.get("/api/v1/offers", headers=first)).json()
    place = f"/api/v1/assignments/{offer['assignment_id']}/rejection"
    silent = await web.client.post(place, json={}, headers=first)
    assert silent.json()["errors"][0]["field"] == "reason"
    assert (await web.client.post(place, json={"reason": "no van"}, headers=first)).status_code == 200
    assert await _assignments(acme) == [(ids[0], "rejected"), (ids[1], "offered")]
    assert (await _ticket(acme, opened.ticket_id)).state is TicketState.DISPATCHED
    assert (await _round(acme, NOON + timedelta(minutes=14))).expired == 0
    assert (await _round(acme, NOON + timedelta(minutes=15))).expired == 1
    assert (await _assignments(acme))[-1] == (ids[2], "offered")
    await _round(acme, NOON + timedelta(minutes=31))
    ticket = await _ticket(acme, opened.ticket_id)
    assert (ticket.state, ticket.dispatch_hold) == (TicketState.PENDING_CONFIRMATION, "offers_failed")
    for minutes in (32, 600):  # it waits for the supervisor, however long
        assert not await _round(acme, NOON + timedelta(minutes=minutes))
    supervisor = await web.log_in("acme.supervisor")
    web.clock.advance(hours=11)
    again = await web.client.post(f"/api/v1/tickets/{opened.ticket_id}/offers", json={}, headers=supervisor)
    assert (again.status_code, again.json()["engineer_id"]) == (201, ids[3])


async def test_nobody_eligible_is_said_once_with_what_would_have_to_change(company):
    acme = await company("acme")
    await acme.hire("chen", certificates={"vibration": 1}, valid_until=NOON - timedelta(days=30))
    opened = await acme.find_fault(family=FaultFamily.BEARING)
    for minutes in (0, 1, 20, 40):
        await _round(acme, NOON + timedelta(minutes=minutes))
    ticket = await _ticket(acme, opened.ticket_id)
    assert (ticket.state, ticket.dispatch_hold) == (TicketState.PENDING_CONFIRMATION, "nobody_eligible")
    async with acme.worker() as conn:
        decisions = await dispatch_store.fetch_all(conn, "read_decisions", {"ticket_id": opened.ticket_id})
        notes = await (await conn.execute("SELECT reason FROM ticket_event WHERE kind = 'note'")).fetchall()
    assert len(decisions) == 1
    assert decisions[0]["record"]["relaxations"][0]["en"] == "Chen: vibration expires on 2026-05-04"
    assert notes == [("Nobody is eligible. Nearest: Chen: vibration expires on 2026-05-04.",)]
    async with acme.api() as conn:
        await workorders.add_certificate(
            conn,
            engineer_id=acme.ids["chen"],
            code="vibration",
            valid_from=NOON - timedelta(days=1),
            valid_until=NOON + timedelta(days=365),
        )
    assert (await _round(acme, NOON + timedelta(hours=1))).offered == 1


async def test_a_certificate_withdrawn_after_the_offer_takes_the_job_away(company, office):
    acme = await company("acme")
    first = await acme.hire("first", certificates={"vibration": 1})
    second = await acme.hire("second", latitude=31.5, certificates={"vibration": 1})
    await acme.find_fault(family=FaultFamily.BEARING)
    await _round(acme, NOON)
    web = await office(acme, PARTS)
    engineer = await web.log_in("acme.first")
    (offer,) = (await web.client.get("/api/v1/offers", headers=engineer)).json()
    async with acme.api() as conn:
        await conn.execute(
            "UPDATE certificate SET valid_during = tstzrange(lower(valid_during), '2026-06-03 12:00+00') WHERE engineer_id = %s",
            (first,),
        )
    refused = await web.client.post(f"/api/v1/assignments/{offer['assignment_id']}/acceptance", headers=engineer)
    assert (refused.status_code, refused.json()["code"]) == (409, "certificate-lapsed")
    assert (await _round(acme, NOON)).withdrawn == 1
    assert await _assignments(acme) == [(first, "withdrawn"), (second, "offered")]


async def test_two_loops_at_once_offer_each_ticket_once_and_keep_the_cap(company):
    acme = await company("acme")
    for n in range(3):
        await acme.hire(f"e{n}", job_cap=4, latitude=31.3 + n / 100)
    opened = [
        await acme.find_fault(key=f"k{n}", family=family, machine=machine)
        for n, (family, machine) in enumerate(
            (f, m)
            for f in (
                FaultFamily.OVERHEATING,
                FaultFamily.OVERLOAD,
                FaultFamily.NO_LOAD,
                FaultFamily.SENSOR_FAULT,
                FaultFamily.UNKNOWN_DEVIATION,
            )
            for m in ("press",)
        )
    ]
    async with acme.api() as conn:
        for n in range(10):
            report = workorders.read_report(
                {
                    "equipment_number": "P-101",
                    "fault_description": f"stop {n}",
                    "contact_phone": "12345",
                    "region": "East",
                    "type": "emergency_stop",
                }
            )
            await workorders.file_ticket(conn, report=report, actor=workorders.DETECTION, now=NOON)
    assert len(opened) == 5
    tallies = await asyncio.gather(*(_round(acme, NOON) for _ in range(6)))
    assert sum(t.offered for t in tallies) == 12  # three engineers with four jobs each
    async with acme.worker() as conn:
        live = await (
            await conn.execute("SELECT engineer_id, count(*) FROM assignment WHERE status = 'offered' GROUP BY 1")
        ).fetchall()
        twice = await (await conn.execute("SELECT ticket_id FROM assignment GROUP BY 1 HAVING count(*) > 1")).fetchall()
        kinds = await (
            await conn.execute("SELECT type, count(*) FROM ticket WHERE state = 'dispatched' GROUP BY 1 ORDER BY 1")
        ).fetchall()
    assert sorted(n for _, n in live) == [4, 4, 4]
    assert twice == []
    assert sum(n for _, n in kinds) == 12


async def test_the_loop_wakes_on_a_new_ticket(company, plain_database):
    acme = await company("acme")
    await acme.hire("chen")
    stop = asyncio.Event()
    listening = (
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dispatch-listen' AND query LIKE 'LISTEN%'"
    )
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        group.create_task(loop.work(plain_database.url, acme.workers, stop=stop, poll_s=60, now=fixed(NOON)))
        async with await connect(plain_database.url, role=DatabaseRole.OWNER, name="test") as owner:
            await _until(lambda: _is_true(owner, listening))
        await acme.find_fault()
        await _until(lambda: _assignments(acme))
        stop.set()


async def _until(ask):
    while not await ask():  # noqa: ASYNC110 - the database tells nobody
        await asyncio.sleep(0.02)


async def _is_true(conn, query):
    return (await (await conn.execute(query)).fetchone()) != (0,)


async def test_an_engineer_cannot_touch_anothers_offer(company, office):
    acme, rival = await company("acme"), await company("rival")
    await acme.hire("chen")
    await acme.hire("zhou", latitude=31.9)
    await rival.hire("spy")
    await acme.find_fault()
    await _round(acme, NOON)
    web = await office(acme, PARTS)
    chen = await web.log_in("acme.chen")
    (offer,) = (await web.client.get("/api/v1/offers", headers=chen)).json()
    for who in ("acme.zhou", "rival.spy"):
        other = await web.log_in(who)
        answer = await web.client.post(f"/api/v1/assignments/{offer['assignment_id']}/acceptance", headers=other)
        assert (answer.status_code, answer.json()["code"]) == (404, "no-such-assignment")
        assert (await web.client.get("/api/v1/offers", headers=other)).json() == []


async def test_cancelling_a_dispatched_ticket_frees_the_engineer(company, office):
    acme = await company("acme")
    engineer = await acme.hire("chen")
    opened = await acme.find_fault()
    await _round(acme, NOON)
    web = await office(acme, PARTS)
    supervisor = await web.log_in("acme.supervisor")
    place = f"/api/v1/tickets/{opened.ticket_id}"
    version = (await web.client.get(place, headers=supervisor)).headers["ETag"]
    body = {"to": "closed", "resolution": "cancelled", "reason": "machine sold"}
    assert (
        await web.client.post(f"{place}/transitions", json=body, headers={**supervisor, "If-Match": version})
    ).status_code == 200
    assert await _assignments(acme) == [(engineer, "withdrawn")]
    async with acme.worker() as conn:
        assert await (await conn.execute("SELECT active_jobs FROM engineer")).fetchone() == (0,)


async def test_a_result_nobody_judges_is_accepted_by_itself(company):
    acme = await company("acme")
    engineer_id = await acme.hire("chen")
    opened = await acme.find_fault()
    await _round(acme, NOON)
    chen = workorders.Actor("acme.chen", Role.ENGINEER, engineer_id)
    async with acme.api() as conn:
        (row,) = await dispatch_store.fetch_all(conn, "list_offers", {"engineer_id": engineer_id})
        job = row["assignment_id"]
        await offers.accept_offer(conn, assignment_id=job, actor=chen, now=NOON)
        await offers.check_in(conn, assignment_id=job, actor=chen, now=NOON, policy=api.Policy())
        await offers.submit_result(
            conn, assignment_id=job, actor=chen, result="done", hours=1, cause="", parts=[], now=NOON
        )
    assert (await _round(acme, NOON + timedelta(days=6))).accepted == 0
    assert (await _round(acme, NOON + timedelta(days=7))).accepted == 1
    assert (await _ticket(acme, opened.ticket_id)).resolution_code == "auto_accepted"


async def test_a_job_that_somebody_has_is_moved_by_name_and_the_history_says_from_whom(company, office):
    acme = await company("acme")
    first, second = await acme.hire("first"), await acme.hire("second", latitude=32.5)
    opened = await acme.find_fault()
    await _round(acme, NOON)
    web = await office(acme, PARTS)
    supervisor = await web.log_in("acme.supervisor")
    place = f"/api/v1/tickets/{opened.ticket_id}/offers"
    unnamed = await web.client.post(place, json={}, headers=supervisor)
    assert (unnamed.status_code, unnamed.json()["code"]) == (409, "nothing-to-dispatch")
    given = await web.client.post(place, json={"engineer_id": second, "reason": "knows the press"}, headers=supervisor)
    assert given.status_code == 201, given.text
    assert await _assignments(acme) == [(first, "withdrawn"), (second, "offered")]
    events = (await web.client.get(f"/api/v1/tickets/{opened.ticket_id}", headers=supervisor)).json()["events"]
    told = [(e["detail"]["engineer_id"], e["detail"]["status"]) for e in events if e["kind"] == "assignment"]
    assert told == [(first, "offered"), (first, "withdrawn"), (second, "offered")]


async def _work_until_judged(acme, web, opened):
    await _round(acme, NOON)
    engineer = await web.log_in("acme.only")
    (offer,) = (await web.client.get("/api/v1/offers", headers=engineer)).json()
    place = f"/api/v1/assignments/{offer['assignment_id']}"
    assert (await web.client.post(f"{place}/acceptance", headers=engineer)).status_code == 200
    assert (await web.client.post(f"{place}/check-in", headers=engineer)).status_code == 200
    return engineer, place


async def test_a_job_under_way_is_not_taken_back_without_an_offer_to_another(company, office):
    acme = await company("acme")
    await acme.hire("only")
    opened = await acme.find_fault()
    web = await office(acme, PARTS)
    await _work_until_judged(acme, web, opened)
    supervisor = await web.log_in("acme.supervisor")
    place = f"/api/v1/tickets/{opened.ticket_id}"
    version = (await web.client.get(place, headers=supervisor)).headers["ETag"]
    moved = await web.client.post(
        f"{place}/transitions", json={"to": "dispatched", "reason": "x"}, headers={**supervisor, "If-Match": version}
    )
    assert (moved.status_code, moved.json()["code"]) == (409, "not-ready")


async def test_a_result_is_sent_back_to_an_engineer_and_never_to_nobody(company, office):
    acme = await company("acme")
    await acme.hire("only")
    opened = await acme.find_fault()
    web = await office(acme, PARTS)
    engineer, place = await _work_until_judged(acme, web, opened)
    done = await web.client.post(f"{place}/result", json={"result": "cleaned", "hours": 1}, headers=engineer)
    assert done.status_code == 200, done.text
    customer = await web.log_in("acme.customer_rep")
    moved = await web.client.post(
        f"/api/v1/tickets/{opened.ticket_id}/transitions",
        json={"to": "in_progress", "reason": "still hot"},
        headers={**customer, "If-Match": done.headers["ETag"]},
    )
    assert (moved.status_code, moved.json()["code"]) == (409, "not-ready")
    assert "/rejection" in moved.json()["detail"]
    back = await web.client.post(
        f"/api/v1/tickets/{opened.ticket_id}/rejection", json={"reason": "still hot"}, headers=customer
    )
    assert back.status_code == 200
    assert (await _assignments(acme))[-1] == (acme.ids["only"], "started")


async def test_a_cap_is_not_set_below_the_jobs_somebody_has(company):
    acme = await company("acme")
    await acme.hire("only")
    for n in range(2):
        await acme.find_fault(key=f"f{n}", family=(FaultFamily.OVERHEATING, FaultFamily.OVERLOAD)[n])
    await _round(acme, NOON)
    assert len(await _assignments(acme)) == 2
    with pytest.raises(CapBelowLoad, match="Engineer only has more than 1 jobs"):
        async with acme.api() as conn:
            await create_engineer(conn, code="only", name="Only", latitude=31.3, longitude=120.6, job_cap=1)


async def test_customers_are_not_told_how_engineers_were_weighed(company, office):
    acme = await company("acme")
    await acme.hire("near")
    await acme.hire("rival", latitude=31.5)
    opened = await acme.find_fault()
    await _round(acme, NOON)
    web = await office(acme, [*PARTS, dashboards.PART])
    engineer, customer, supervisor = [await web.log_in(f"acme.{who}") for who in ("near", "customer_rep", "supervisor")]
    (offer,) = (await web.client.get("/api/v1/offers", headers=engineer)).json()
    place = f"/api/v1/assignments/{offer['assignment_id']}/rejection"
    assert (await web.client.post(place, json={"reason": "no van"}, headers=engineer)).status_code == 200
    number = (await _ticket(acme, opened.ticket_id)).number
    for path in (f"/api/v1/tickets/{opened.ticket_id}", f"/board/data/ticket/{number}"):
        told = [(await web.client.get(path, headers=who)).text for who in (customer, supervisor)]
        for words in ("scores 0", "no van", "Next best"):
            assert words not in told[0], path
            assert words in told[1], path
        assert "Rival" in told[0]  # who comes, they are told


async def test_the_board_tells_the_history_in_the_readers_language(company, office):
    acme = await company("acme")
    await acme.hire("near")
    opened = await acme.find_fault()
    await _round(acme, NOON)
    web = await office(acme, [dashboards.PART])
    supervisor = await web.log_in("acme.supervisor")
    path = f"/board/data/ticket/{(await _ticket(acme, opened.ticket_id)).number}"
    for language, words in (("en", "Near scores 0."), ("zh", "Near 得分 0.")):
        body = (await web.client.get(path, params={"lang": language}, headers=supervisor)).json()
        (event,) = [event for event in body["events"] if event["kind"] == "assignment"]
        assert event["reason"].startswith(words)


async def test_a_ticket_that_cannot_be_dispatched_stops_no_other_and_is_tried_again_later(company, plain_database):
    acme = await company("acme")
    await acme.hire("near", certificates={"hv_electrician": 2})
    broken = await acme.find_fault(key="f1", severity=Severity.HIGH)
    sound = await acme.find_fault(key="f2", machine="cabinet")
    with connect_sync(plain_database.url, role=DatabaseRole.OWNER, name="test") as conn:
        conn.execute(
            "CREATE FUNCTION break_it() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE check_violation; END $$"
        )
        conn.execute(
            "CREATE TRIGGER break_it BEFORE INSERT ON dispatch_decision FOR EACH ROW"
            f" WHEN (NEW.ticket_id = {int(broken.ticket_id)}) EXECUTE FUNCTION break_it()"
        )
    set_aside = {}
    tally = await api.run_round(acme.workers, tenant_id=acme.tenant_id, now=fixed(NOON), set_aside=set_aside)
    assert (tally.offered, tally.failed, list(set_aside)) == (1, 1, [broken.ticket_id])
    assert len(await _assignments(acme, sound.ticket_id)) == 1
    soon = await api.run_round(acme.workers, tenant_id=acme.tenant_id, now=fixed(NOON), set_aside=set_aside)
    assert soon.failed == 0
    with connect_sync(plain_database.url, role=DatabaseRole.OWNER, name="test") as conn:
        conn.execute("DROP TRIGGER break_it ON dispatch_decision")
    later = fixed(NOON + timedelta(minutes=11))
    tally = await api.run_round(acme.workers, tenant_id=acme.tenant_id, now=later, set_aside=set_aside)
    assert (tally.offered, set_aside) == (1, {})
