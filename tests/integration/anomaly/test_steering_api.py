"""People steer detection over HTTP: what they may, within their tenant, and what a closed ticket says of its finding."""

import argparse
import asyncio
from datetime import datetime, timedelta

import psycopg
import pytest
from psycopg.types.json import Jsonb

from anomaly import routes
from anomaly.api import Change, EngineConfig, FindingEvent, Watch, finding_key
from anomaly.finding import Finding
from anomaly.store import store_findings
from dispatch import routes as dispatch_routes
from fettle.commands import shelve
from fettle.db import transaction
from fettle.http import Part
from fettle.model import FaultFamily, FindingKind, MachineId, SensorId, Severity
from fettle.settings import Settings
from fettle.wiring import list_closings, ticket_opener
from workorders import routes as ticket_routes

PARTS = [
    Part(routes.router, routes.PROBLEMS),
    Part(ticket_routes.router, ticket_routes.PROBLEMS),
    Part(dispatch_routes.router, dispatch_routes.PROBLEMS),
]


def add_sensor(url, tenant_id, machine_id):
    with psycopg.connect(url) as conn:
        conn.execute("SELECT set_config('fettle.tenant', %s, true)", (str(tenant_id),))
        return conn.execute(
            """INSERT INTO sensor (tenant_id, machine_id, name, kind, unit)
               VALUES (%s, %s, 'vibration', 'vibration_velocity', 'mm/s') RETURNING id""",
            (tenant_id, machine_id),
        ).fetchone()[0]


@pytest.fixture
async def shop(plain_database, company, office):
    """A company, its API, and a function that lets its press raise a finding of some family."""
    acme = await company("acme")
    web = await office(acme, PARTS)
    sensor = await asyncio.to_thread(add_sensor, plain_database.url, acme.tenant_id, acme.ids["press"])
    acme.url, acme.sensor = plain_database.url, sensor

    async def raise_finding(number, family=FaultFamily.BEARING, *, cleared=False):
        us = round(web.clock.at.timestamp() * 1e6) + number
        finding = Finding(
            key=finding_key(machine_id=acme.ids["press"], family=family, onset_us=number),
            machine_id=MachineId(acme.ids["press"]), fault_family=family, kind=FindingKind.MACHINE, severity=Severity.LOW,
            onset_us=us - 1000, raised_us=us, cleared_us=us + 1 if cleared else None, detector="residual", block="SD",
            model_version="x.1", tier=2, mode="running", score=1.4, p_value=None, threshold=1.0, set_rate=0.01,
            sensor_ids=(SensorId(sensor),),
            evidence={"machine": "P-101", "contributions": [{"sensor_id": sensor, "sensor": "vibration", "feature": "residual", "contribution": 1.4}]},
        )  # fmt: skip
        change = Change.CLEARED if cleared else Change.RAISED
        async with transaction(acme.workers, tenant_id=acme.tenant_id) as conn:
            await store_findings(
                conn, [FindingEvent(change, finding, us)], tenant_of={acme.ids["press"]: acme.tenant_id}
            )
            row = await (await conn.execute("SELECT id FROM finding WHERE key = %s", (finding.key,))).fetchone()
        return row[0]

    acme.raise_finding = raise_finding
    return acme, web


async def loop_of(acme, web):
    pool = acme.workers
    loop = Watch(
        pool, shard="0/1", config=EngineConfig(), on_event=ticket_opener(pool), closings=list_closings,
        now_us=lambda: round(web.clock.at.timestamp() * 1e6), heed_every_s=0.0,
    )  # fmt: skip
    await loop.open()
    return loop


def until(web, **span):
    return (web.clock.at + timedelta(**span)).isoformat()


async def test_a_shelved_machine_makes_no_ticket_until_it_is_over(shop):
    acme, web = shop
    boss = await web.log_in("acme.supervisor")
    wish = {"kind": "shelved", "ends_at": until(web, hours=8), "reason": "known, part is ordered"}
    made = await web.client.post("/api/v1/machines/P-101/inhibitions", json=wish, headers=boss)
    assert made.status_code == 201, made.text
    assert made.json()["is_in_force"]
    number = await acme.raise_finding(1)
    loop = await loop_of(acme, web)
    await loop.step()
    found = (await web.client.get(f"/api/v1/findings/{number}", headers=boss)).json()
    assert (found["held"], found["held_by"], found["is_announced"]) == ("inhibited", made.json()["id"], False)
    words = (await web.client.get(f"/api/v1/findings/{number}?language=zh", headers=boss)).json()["explanation"][
        "facts"
    ]
    assert words[-1] == ["工单", "已抑制：有人设置了该设备暂不生成工单"]
    listed = (await web.client.get("/api/v1/findings?held=inhibited&open=true", headers=boss)).json()["findings"]
    assert [row["id"] for row in listed] == [number]
    assert (await web.client.get("/api/v1/tickets", headers=boss)).json()["tickets"] == []
    ended = await web.client.delete(f"/api/v1/inhibitions/{made.json()['id']}", headers=boss)
    assert (ended.status_code, ended.json()["ended_by"]) == (200, "acme.supervisor")
    web.clock.advance(seconds=1)
    await loop.step()
    (ticket,) = (await web.client.get("/api/v1/tickets", headers=boss)).json()["tickets"]
    assert ticket["fault_family"] == "bearing"
    found = (await web.client.get(f"/api/v1/findings/{number}", headers=boss)).json()
    assert (found["held"], found["is_announced"]) == ("", True)
    history = (await web.client.get("/api/v1/machines/P-101/detection-events", headers=boss)).json()
    assert [row["kind"] for row in history] == ["released", "inhibition_ended", "held", "inhibited"]
    again = await web.client.delete(f"/api/v1/inhibitions/{made.json()['id']}", headers=boss)
    assert (again.status_code, again.json()["code"]) == (404, "no-such-inhibition")


async def test_what_an_inhibition_needs_is_named_in_both_languages(shop):
    _, web = shop
    boss = await web.log_in("acme.supervisor")
    good = {"kind": "shelved", "ends_at": until(web, hours=8), "reason": "r"}
    for change, field in (
        ({"ends_at": until(web, days=8)}, "ends_at"),
        ({"ends_at": until(web, hours=-1)}, "ends_at"),
        ({"reason": "  "}, "reason"),
        ({"starts_at": until(web, days=-2)}, "starts_at"),
    ):
        for language, word in (("en", None), ("zh", "。")):
            answer = await web.client.post(
                "/api/v1/machines/P-101/inhibitions", json=good | change, headers={**boss, "Accept-Language": language}
            )
            assert answer.status_code == 422, change
            (problem, *_) = [e for e in answer.json()["errors"] if e["field"] == field]
            assert word is None or problem["remedy"].endswith(word)
    for number, body, code in (
        ("P-101", good | {"sensor": "nose"}, "no-such-sensor"),
        ("P-999", good, "no-such-machine"),
        ("P-101", {"kind": "shelved", "reason": "r"}, "invalid-fields"),
        ("P-101", good | {"kind": "asleep"}, "invalid-fields"),
    ):
        answer = await web.client.post(f"/api/v1/machines/{number}/inhibitions", json=body, headers=boss)
        assert answer.json()["code"] == code
    key = {**boss, "Idempotency-Key": "once"}
    twice = [await web.client.post("/api/v1/machines/P-101/inhibitions", json=good, headers=key) for _ in range(2)]
    assert twice[0].json() == twice[1].json()
    listed = (await web.client.get("/api/v1/machines/P-101/inhibitions", headers=boss)).json()
    assert len(listed) == 1


async def test_an_engineer_steers_the_machines_of_own_jobs_and_does_not_suppress(shop):
    acme, web = shop
    await acme.hire("joe")
    joe, boss = await web.log_in("acme.joe"), await web.log_in("acme.supervisor")
    wish = {"kind": "maintenance", "ends_at": until(web, hours=8), "reason": "new bearing"}
    answer = await web.client.post("/api/v1/machines/P-101/inhibitions", json=wish, headers=joe)
    assert (answer.status_code, answer.json()["code"]) == (404, "no-such-machine")
    number = await acme.raise_finding(1)
    assert (await web.client.post(f"/api/v1/findings/{number}/outcomes", json={"outcome": "confirmed"}, headers=joe)).status_code == 404  # fmt: skip
    loop = await loop_of(acme, web)
    await loop.step()
    (ticket,) = (await web.client.get("/api/v1/tickets", headers=boss)).json()["tickets"]
    async with acme.api() as conn:  # the job is his
        await conn.execute(
            """INSERT INTO certificate (tenant_id, engineer_id, code, level, valid_during)
               SELECT tenant_id, %s, certificate_code, level, '[2020-01-01,)' FROM ticket_requirement WHERE ticket_id = %s""",
            (acme.ids["joe"], ticket["id"]),
        )
        await conn.execute(
            """INSERT INTO assignment (tenant_id, ticket_id, engineer_id, offered_at, planned_during, reason)
               VALUES (%s, %s, %s, %s, tstzrange(%s, %s), '{}')""",
            (acme.tenant_id, ticket["id"], acme.ids["joe"], web.clock.at, web.clock.at, web.clock.at + timedelta(hours=2)),
        )  # fmt: skip
    assert (await web.client.post("/api/v1/machines/P-101/inhibitions", json=wish, headers=joe)).status_code == 201
    answer = await web.client.post(
        "/api/v1/machines/P-101/inhibitions", json=wish | {"kind": "suppressed"}, headers=joe
    )
    assert answer.json()["errors"][0]["field"] == "kind"
    assert (await web.client.post(f"/api/v1/findings/{number}/outcomes", json={"outcome": "unknown"}, headers=joe)).status_code == 201  # fmt: skip


async def test_a_customer_and_an_engineer_meet_only_the_machines_that_are_theirs(shop):
    acme, web = shop
    await acme.hire("joe")
    joe, rep, boss = [await web.log_in(f"acme.{name}") for name in ("joe", "customer_rep", "supervisor")]
    number = await acme.raise_finding(1)
    async with acme.worker() as conn:
        note = {"role": "headline", "reason": "together", "place": "north", "findings": 2, "machines": ["P-101", "X-9"], "machine_count": 2}  # fmt: skip
        await conn.execute(
            "UPDATE finding SET evidence = evidence || %s WHERE id = %s",
            (Jsonb({"incident": note, "machines": ["P-101", "X-9"]}), number),
        )
    seen = [(await web.client.get(f"/api/v1/findings/{number}", headers=who)).text for who in (rep, boss)]
    assert ["X-9" in text for text in seen] == [False, True]
    told = [await web.client.get("/api/v1/findings", params={"machine": m}, headers=joe) for m in ("P-101", "P-999")]
    assert [(a.status_code, a.json()["code"]) for a in told] == [(404, "no-such-machine")] * 2
    asked = await web.client.get("/api/v1/findings", params={"machine": "P-101", "site": "nowhere"}, headers=boss)
    assert asked.status_code == 404
    for path in ("rules", "configurations/x/comparison"):
        assert (await web.client.get(f"/api/v1/detection/{path}", headers=joe)).status_code == 403


async def test_tenants_never_meet(shop, company, office):
    acme, web = shop
    boss = await web.log_in("acme.supervisor")
    wish = {"kind": "shelved", "ends_at": until(web, hours=8), "reason": "r"}
    made = (await web.client.post("/api/v1/machines/P-101/inhibitions", json=wish, headers=boss)).json()
    number = await acme.raise_finding(1)
    await company("rival")
    theirs = await web.log_in("rival.supervisor")
    for method, path, body in (
        ("DELETE", f"/api/v1/inhibitions/{made['id']}", None),
        ("GET", f"/api/v1/findings/{number}", None),
        ("POST", f"/api/v1/findings/{number}/outcomes", {"outcome": "confirmed"}),
    ):
        answer = await web.client.request(method, path, json=body, headers=theirs)
        assert answer.status_code == 404, path
    for path in ("/api/v1/findings", "/api/v1/machines/P-101/inhibitions", "/api/v1/machines/P-101/detection-events", "/api/v1/detection/rules"):  # fmt: skip
        body = (await web.client.get(path, headers=theirs)).json()
        assert body in ([], {"findings": [], "next": None}, {"rules": [], "lifts": []}), path


async def close(web, boss, ticket, **more):
    version = (await web.client.get(f"/api/v1/tickets/{ticket['id']}", headers=boss)).headers["ETag"]
    return await web.client.post(
        f"/api/v1/tickets/{ticket['id']}/transitions",
        json={"to": "closed", "reason": "seen", **more},
        headers={**boss, "If-Match": version},
    )


async def test_closing_a_ticket_says_what_became_of_its_finding(shop):
    acme, web = shop
    boss = await web.log_in("acme.supervisor")
    loop = await loop_of(acme, web)
    said = (
        ({"resolution": "false_alarm", "outcome": "rejected", "outcome_reason": "tolerated"}, ("rejected", "tolerated", "none")),
        ({"resolution": "false_alarm"}, ("rejected", "", "none")),
        ({"resolution": "cancelled"}, ("unknown", "", "none")),
        ({"resolution": "rejected", "outcome": "confirmed", "repair": "replaced"}, ("confirmed", "", "replaced")),
    )  # fmt: skip
    for number, (words, expected) in enumerate(said, start=1):
        finding_id = await acme.raise_finding(number)
        await loop.step()
        ticket = (await web.client.get("/api/v1/tickets", headers=boss)).json()["tickets"][0]
        closed = await close(web, boss, ticket, **words)
        assert closed.status_code == 200, closed.text
        await loop.step()
        async with acme.worker() as conn:
            rows = await (await conn.execute("SELECT outcome, reason, action, ticket, decided_by FROM finding_outcome WHERE finding_id = %s", (finding_id,))).fetchall()  # fmt: skip
        assert rows == [(*expected, ticket["number"], "acme.supervisor")]
        web.clock.advance(hours=1)
    rules = (await web.client.get("/api/v1/detection/rules", headers=boss)).json()
    (rule,) = rules["rules"]
    assert (rule["fault_family"], rule["detector"], rule["confirmed"], rule["rejected"], rule["undecided"]) == ("bearing", "residual", 1, 2, 1)  # fmt: skip
    assert 0 < rule["low"] < rule["precision"] < rule["high"] < 1
    assert not rule["is_watch"]
    shown = (await web.client.get(f"/api/v1/findings/{finding_id}", headers=boss)).json()
    assert shown["rule"]["n"] == 3
    assert any(fact[0] == "measured precision" and "3" in fact[1] for fact in shown["explanation"]["facts"])
    async with acme.worker() as conn:
        orders = await (await conn.execute("SELECT kind, done_at IS NOT NULL FROM detector_order")).fetchall()
    assert orders == [("reset", True)]


@pytest.mark.parametrize(
    "words",
    [
        {"resolution": "false_alarm", "outcome": "rejected"},
        {"resolution": "false_alarm", "outcome_reason": "tolerated"},
        {"resolution": "false_alarm", "outcome": "rejected", "outcome_reason": "bored"},
        {"resolution": "false_alarm", "outcome": "unknown", "repair": "repaired"},
        {"to": "dispatched", "outcome": "confirmed"},
    ],
    ids=str,
)
async def test_an_outcome_that_contradicts_itself_is_refused(shop, words):
    acme, web = shop
    boss = await web.log_in("acme.supervisor")
    await acme.raise_finding(1)
    await (await loop_of(acme, web)).step()
    ticket = (await web.client.get("/api/v1/tickets", headers=boss)).json()["tickets"][0]
    answer = await close(web, boss, ticket, **words)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-fields")


async def test_what_a_person_said_of_a_finding_outweighs_how_its_ticket_was_closed(shop):
    acme, web = shop
    boss = await web.log_in("acme.supervisor")
    number = await acme.raise_finding(1)
    loop = await loop_of(acme, web)
    await loop.step()
    answer = await web.client.post(f"/api/v1/findings/{number}/outcomes", json={"outcome": "confirmed"}, headers=boss)
    assert answer.status_code == 201
    ticket = (await web.client.get("/api/v1/tickets", headers=boss)).json()["tickets"][0]
    assert (await close(web, boss, ticket, resolution="cancelled")).status_code == 200
    await loop.step()
    (rule,) = (await web.client.get("/api/v1/detection/rules", headers=boss)).json()["rules"]
    assert (rule["confirmed"], rule["undecided"]) == (1, 0)
    async with transaction(acme.workers, tenant_id=acme.tenant_id) as conn:
        assert await list_closings(conn, None, 100) == []  # it is not asked for again and again


async def test_a_missed_failure_is_a_label_too(shop):
    _, web = shop
    taker = await web.log_in("acme.order_taker")
    missed = {
        "fault_family": "overheating",
        "failed_at": until(web, hours=-3),
        "note": "burnt winding",
        "ticket": "T-000009",
    }
    assert (await web.client.post("/api/v1/machines/P-101/missed-failures", json=missed, headers=taker)).status_code == 201  # fmt: skip
    for hours in (1, -24 * 400):
        late = missed | {"failed_at": until(web, hours=hours)}
        assert (await web.client.post("/api/v1/machines/P-101/missed-failures", json=late, headers=taker)).status_code == 422  # fmt: skip
    (event,) = (await web.client.get("/api/v1/machines/P-101/detection-events", headers=taker)).json()
    assert datetime.fromisoformat(event["at"]) == web.clock.at  # said now, of what was before
    assert datetime.fromisoformat(event["detail"]["failed_at"]) == web.clock.at - timedelta(hours=3)
    (rule,) = (await web.client.get("/api/v1/detection/rules", headers=taker)).json()["rules"]
    assert (rule["fault_family"], rule["missed"], rule["n"], rule["precision"]) == ("overheating", 1, 0, None)


async def test_the_command_line_shelves_lists_and_ends(shop, capsys):
    acme, _ = shop

    def command(*words, machine="P-101"):
        parser = argparse.ArgumentParser()
        shelve.add(parser.add_subparsers())
        args = parser.parse_args(["shelve", machine, *words])
        return asyncio.to_thread(args.run, args, Settings(database_url=acme.url, tenant="acme"))

    assert await command("--for", "8h", "--kind", "maintenance", "--reason", "new bearing") == 0
    said = capsys.readouterr().out
    assert said.startswith("P-101 makes no tickets until ")
    number = said.rsplit("number ", 1)[1].split(")")[0]
    assert await command() == 0
    assert "new bearing" in capsys.readouterr().out
    assert await command("--end", number) == 0
    assert await command() == 0
    assert "Nothing keeps P-101 from making tickets." in capsys.readouterr().out
    assert await command("--for", "8h", "--reason", "again") == 0
    other = str(int(number) + 1)
    with pytest.raises(shelve.NotOfMachine):
        await command("--end", other, machine="HV-1")
    assert await command("--end", other) == 0
    with pytest.raises(shelve.NoDuration):
        await command("--reason", "for ever")
    with pytest.raises(shelve.BadDuration):
        await command("--for", "soon", "--reason", "r")


async def test_a_supervisor_resets_a_baseline(shop):
    acme, web = shop
    boss = await web.log_in("acme.supervisor")
    loop = await loop_of(acme, web)
    answer = await web.client.post("/api/v1/machines/P-101/baseline-resets", json={"reason": "rebuilt"}, headers=boss)
    assert answer.status_code == 202
    await loop.step()
    history = (await web.client.get("/api/v1/machines/P-101/detection-events", headers=boss)).json()
    assert [(row["kind"], row["actor"]) for row in history] == [
        ("reset", "acme.supervisor"),
        ("ordered", "acme.supervisor"),
    ]
    assert (await web.client.get("/api/v1/machines/P-101/models", headers=boss)).json() == []


async def test_a_repair_that_only_the_customer_accepted_proposes_a_new_baseline(shop):
    acme, web = shop
    await acme.hire("joe")
    joe, boss, rep = [await web.log_in(f"acme.{name}") for name in ("joe", "supervisor", "customer_rep")]
    number = await acme.raise_finding(1)
    loop = await loop_of(acme, web)
    await loop.step()
    (ticket,) = (await web.client.get("/api/v1/tickets", headers=boss)).json()["tickets"]
    async with acme.api() as conn:
        await conn.execute(
            """INSERT INTO certificate (tenant_id, engineer_id, code, level, valid_during)
               SELECT tenant_id, %s, certificate_code, level, '[2020-01-01,)' FROM ticket_requirement WHERE ticket_id = %s""",
            (acme.ids["joe"], ticket["id"]),
        )
    offered = await web.client.post(
        f"/api/v1/tickets/{ticket['id']}/offers", json={"engineer_id": acme.ids["joe"]}, headers=boss
    )
    job = f"/api/v1/assignments/{offered.json()['assignment_id']}"
    done = {"result": "bearing changed", "hours": 2, "parts": [{"number": "6205", "quantity": 1}]}
    for path, body, who in (
        (f"{job}/acceptance", {}, joe),
        (f"{job}/check-in", {}, joe),
        (f"{job}/result", done, joe),
        (f"/api/v1/tickets/{ticket['id']}/acceptance", {"satisfaction": 5}, rep),
    ):
        answer = await web.client.post(path, json=body, headers=who)
        assert answer.status_code == 200, (path, answer.text)
    await loop.step()
    async with acme.worker() as conn:
        rows = await (await conn.execute("SELECT finding_id, outcome, action FROM finding_outcome")).fetchall()
        orders = await (await conn.execute("SELECT kind, reason, done_at IS NOT NULL FROM detector_order")).fetchall()
        proposed = await (await conn.execute("SELECT kind, reason FROM detection_event WHERE kind = 'proposed'")).fetchall()  # fmt: skip
    assert rows == [(number, "confirmed", "replaced")]
    assert orders == []  # nobody said of the finding that it was true
    assert proposed == [("proposed", f"replaced: bearing, {ticket['number']}")]
