"""The board's data over HTTP: who sees what, bounded answers, errors that help, headers that hold."""

import pytest

from fettle import clock

POTENTIAL = "WO-20261122-0003"


def ms(hours_ago=0.0):
    return clock.now_us() // 1000 - int(hours_ago * 3_600_000)


async def machine_id(client, number):
    body = (await client.get("/board/data/overview")).json()
    return next(one["id"] for one in body["machines"] if one["number"] == number)


async def test_overview_shows_the_fleet_with_its_worst_first_tickets(visitor):
    async with visitor.logged_in("anna") as client:
        answer = await client.get("/board/data/overview?lang=en")
    assert answer.status_code == 200
    body = answer.json()
    assert body["me"] == {"name": "Anna Supervisor", "role": "supervisor", "language": "en", "may_file": True}
    health = {one["number"]: one["health"] for one in body["machines"]}
    assert len(health) == 14
    assert (health["P-101"], health["F-110"], health["K-301"], health["F-320"], health["P-102"]) == (
        "high",
        "medium",
        "low",
        "silent",
        "well",
    )
    assert [one["severity"] for one in body["tickets"]] == ["high", "medium", "low", "low"]
    first = body["tickets"][0]
    assert (first["number"], first["engineer"], first["machine"]) == (POTENTIAL, "王伟", "Feed pump 1")
    assert first["headline"].replace("\u2060", "") == "Vibration DE 6.42 mm/s, expected 1.94 (1.50–2.60)"
    assert "Rival" not in answer.text
    assert "WO-RIVAL" not in answer.text


async def test_the_trace_of_a_machine_has_its_sensors_and_tickets(visitor):
    async with visitor.logged_in("anna") as client:
        machine = await machine_id(client, "P-101")
        answer = await client.get(f"/board/data/trace?machine={machine}&from={ms(24)}&to={ms()}")
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert {(one["kind"], one["label"]) for one in body["sensors"]} == {
        ("vibration_velocity", "DE"), ("vibration_velocity", "NDE"), ("temperature", ""), ("current", ""),
    }  # fmt: skip
    for one in body["sensors"]:
        assert 500 < len(one["at"]) <= 1201
        assert len(one["at"]) == len(one["mean"]) == len(one["low"]) == len(one["high"])
        assert one["at"] == sorted(one["at"])
        assert all(low <= mean <= high for low, mean, high in zip(one["low"], one["mean"], one["high"], strict=True))
    vibration = next(one for one in body["sensors"] if one["label"] == "DE")
    assert vibration["mean"][-1] > 2.5 * vibration["mean"][0]
    (ticket,) = [one for one in body["tickets"] if one["number"] == POTENTIAL]
    assert ticket["to_ms"] is None
    assert abs(ticket["from_ms"] - ms(6)) < 120_000
    assert {7.1} == {one["limit"] for one in ticket["limits"] if "limit" in one}


async def test_points_can_be_fewer_for_a_small_screen(plain_visitor):
    async with plain_visitor.logged_in("anna") as client:
        machine = await machine_id(client, "P-101")
        body = (await client.get(f"/board/data/trace?machine={machine}&from={ms(24)}&to={ms()}&points=200")).json()
    assert all(100 < len(one["at"]) <= 201 for one in body["sensors"])


@pytest.mark.parametrize(
    ("query", "status", "names"),
    [
        ("machine=1&from=2000&to=1000", 422, "1000"),
        ("machine=1&from=0&to=99999999999", 422, "400"),
        ("machine=99999&from=1000&to=2000", 404, "99999"),
        ("machine=x&from=1&to=2", 422, "machine"),
        ("machine=1&from=1&to=2&points=100000", 422, "points"),
        ("machine=1&to=2", 422, "from"),
        ("machine=1&from=1&to=2&lang=fr", 422, "lang"),
    ],
)
async def test_a_wrong_range_says_what_is_wrong(plain_visitor, query, status, names):
    async with plain_visitor.logged_in("anna") as client:
        for language in ("en", "zh"):
            answer = await client.get(f"/board/data/trace?{query}", headers={"Accept-Language": language})
            assert answer.status_code == status
            assert answer.headers["content-type"].startswith("application/problem+json")
            assert names in answer.text


async def test_a_ticket_is_told_in_both_languages(visitor):
    async with visitor.logged_in("anna") as client:
        english = (await client.get(f"/board/data/ticket/{POTENTIAL}?lang=en")).json()
        chinese = (await client.get(f"/board/data/ticket/{POTENTIAL}?lang=zh")).json()
    assert english["evidence"]["zone"]["letter"] == "C"
    assert english["evidence"]["checks"][1] == "Check the grease"
    assert chinese["evidence"]["checks"][1] == "检查润滑脂"
    assert "12 km" in english["assignments"][0]["reason"][0]
    assert "12 公里" in chinese["assignments"][0]["reason"][0]
    assert [one["to_state"] for one in english["events"]] == [None, "dispatched", None]
    assert english["closed_ms"] is None
    assert english["site"] == "Suzhou Works"


async def test_a_ticket_without_evidence_or_machine_is_shown_all_the_same(plain_visitor):
    async with plain_visitor.logged_in("anna") as client:
        body = (await client.get("/board/data/ticket/WO-20261122-0002")).json()
    assert body["evidence"] is None
    assert body["machine_id"] is None
    assert body["assignments"] == []


async def test_customers_see_their_machines_and_tickets_only(visitor):
    async with visitor.logged_in("anna") as anna:
        foreign = await machine_id(anna, "K-301")
    async with visitor.logged_in("hengda") as client:
        body = (await client.get("/board/data/overview")).json()
        assert {one["number"] for one in body["machines"]} == {"P-101", "P-102", "F-110", "P-201"}
        assert {one["number"] for one in body["tickets"]} == {POTENTIAL, "WO-20261122-0004"}
        assert (await client.get(f"/board/data/trace?machine={foreign}&from={ms(1)}&to={ms()}")).status_code == 404
        assert (await client.get("/board/data/ticket/WO-20261122-0005")).status_code == 404
        ticket = (await client.get(f"/board/data/ticket/{POTENTIAL}")).json()
    assert ticket["assignments"][0]["engineer"] == "王伟"
    assert ticket["assignments"][0]["reason"] == []  # it names other engineers


async def test_engineers_see_the_machines_of_their_jobs(plain_visitor):
    async with plain_visitor.logged_in("lena") as client:
        body = (await client.get("/board/data/overview")).json()
        assert [one["number"] for one in body["machines"]] == ["K-301"]
        assert [one["number"] for one in body["tickets"]] == ["WO-20261122-0005"]
        assert (await client.get(f"/board/data/ticket/{POTENTIAL}")).status_code == 404


async def test_another_tenant_sees_nothing_of_this_one(visitor):
    async with visitor.logged_in("spy") as client:
        body = (await client.get("/board/data/overview")).json()
        assert [one["name"] for one in body["machines"]] == ["Rival pump"]
        assert [one["number"] for one in body["tickets"]] == ["WO-RIVAL"]
        assert (await client.get(f"/board/data/ticket/{POTENTIAL}")).status_code == 404
        assert (await client.get(f"/board/data/trace?machine=1&from={ms(1)}&to={ms()}")).status_code == 404


async def test_programs_have_no_board(plain_visitor):
    async with plain_visitor.logged_in("robot") as client:
        for path in ("/board", "/board/data/overview", f"/board/data/ticket/{POTENTIAL}"):
            assert (await client.get(path)).status_code == 403


async def test_strangers_are_sent_to_the_door(plain_visitor):
    async with plain_visitor.stranger() as client:
        assert (await client.get("/")).headers["location"] == "/board"
        answer = await client.get("/board?machine=3&range=1h")
        assert answer.status_code == 303
        assert answer.headers["location"] == "/login?next=%2Fboard%3Fmachine%3D3%26range%3D1h"
        assert (await client.get("/board/data/overview")).status_code == 401
        assert (await client.get("/login")).status_code == 200


async def test_pages_carry_a_strict_policy_and_name_no_other_host(plain_visitor):
    async with plain_visitor.logged_in("li") as client:
        for path in ("/board", "/login"):
            answer = await client.get(path)
            policy = answer.headers["content-security-policy"]
            assert "default-src 'self'" in policy
            assert "unsafe" not in policy
            assert "frame-ancestors 'none'" in policy
            assert answer.headers["cache-control"] == "no-store"
            assert "://" not in answer.text
            assert " style=" not in answer.text
            assert " onclick=" not in answer.text
        assert '<html lang="zh">' in (await client.get("/board")).text


async def test_files_are_served_with_their_type_and_a_tag(plain_visitor):
    async with plain_visitor.stranger() as client:
        for name, kind in (
            ("board.js", "text/javascript"),
            ("palette.css", "text/css"),
            ("fettle.svg", "image/svg+xml"),
        ):
            answer = await client.get(f"/board/static/{name}")
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith(kind)
            assert answer.headers["x-content-type-options"] == "nosniff"
            again = await client.get(f"/board/static/{name}", headers={"If-None-Match": answer.headers["etag"]})
            assert again.status_code == 304
        for name in ("board.html", "..%2froutes.py", "nothing.js"):
            assert (await client.get(f"/board/static/{name}")).status_code == 404
        assert (await client.get("/board/words.json")).json()["zh"]["state.closed"] == "已关闭"
