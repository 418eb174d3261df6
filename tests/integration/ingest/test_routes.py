"""Readings over HTTP: stored once however often they are sent, refused as a whole with a remedy per field."""

import secrets
from datetime import timedelta

import httpx
import pytest

from fettle import clock
from fettle.db import DatabaseRole, connect_sync, open_pool
from fettle.http import create_app
from fettle.passwords import hash_token
from ingest.routes import readings_part


def _log_in(url, role):
    token = secrets.token_urlsafe(16)
    with connect_sync(url, role=DatabaseRole.OWNER, name="test") as conn, conn.transaction():
        (tenant,) = conn.execute("SELECT id FROM tenant WHERE slug = 'default'").fetchone()
        conn.execute("SELECT set_config('fettle.tenant', %s, true)", (str(tenant),))
        (account,) = conn.execute(
            "INSERT INTO account (tenant_id, login, password_hash, role, display_name) VALUES (%s, %s, 'x', %s, 'x') RETURNING id",
            (tenant, role, role),
        ).fetchone()
        conn.execute(
            "INSERT INTO login_session (token_hash, tenant_id, account_id, expires_at) VALUES (%s, %s, %s, %s)",
            (hash_token(token), tenant, account, clock.now() + timedelta(hours=1)),
        )
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
async def post(database, settings_for):
    headers = _log_in(database.url, "machine_account")
    with readings_part(settings_for(), url=database.url) as part:
        async with open_pool(database.url, role=DatabaseRole.API, name="test") as pool:
            app = create_app(pool, parts=[part])
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers) as client:

                async def send(readings, **more):
                    return await client.post("/api/v1/readings", json={"readings": readings}, **more)

                yield send


async def test_a_request_may_be_repeated(database, post, rows):
    at = int(clock.now_us() // 1000)
    readings = [
        {"site": "s1", "machine": "m1", "sensor": "vibration", "ts": at + i, "value": i / 2, "unit": "mm/s"}
        for i in range(100)
    ] + [{"site": "s1", "machine": "m1", "sensor": "mode", "ts": at, "value": "AUTO"}]
    first, second = await post(readings), await post(readings)
    assert first.status_code == second.status_code == 200
    assert first.json() == {"received": 101, "stored": 101, "duplicates": 0, "collisions": 0, "rejected": 0, "ignored": 0}  # fmt: skip
    assert second.json() == {"received": 101, "stored": 0, "duplicates": 101, "collisions": 0, "rejected": 0, "ignored": 0}  # fmt: skip
    assert rows(database, "SELECT count(*) FROM reading") == [(100,)]
    assert rows(database, "SELECT c.name, sum(stored)::int FROM batch b JOIN collector c ON c.id = b.collector_id GROUP BY 1") == [("fettle-collect-1-http-1", 101)]  # fmt: skip


async def test_wrong_fields_are_named_and_nothing_is_stored(database, post, rows):
    answer = await post(
        [
            {"site": "s1", "machine": "m1", "sensor": "v", "value": 1},
            {"site": "s1", "machine": "", "sensor": "v", "value": 1},
            {"site": "s1", "machine": "m1", "sensor": "v", "value": [1]},
            {"site": "s1", "machine": "m1", "sensor": "v", "ts": "yesterday", "value": 1, "{x}": 2},
        ],
        headers={"Accept-Language": "zh"},
    )
    assert answer.status_code == 422
    assert [e["field"] for e in answer.json()["errors"]] == ["readings[1].machine", "readings[2].value", "readings[3].{x}"]  # fmt: skip
    assert "必须" in answer.json()["errors"][1]["remedy"]
    assert rows(database, "SELECT count(*) FROM batch") == [(0,)]


async def test_while_the_database_refuses_the_answer_says_when_to_try_again(plain_database, settings_for):
    headers = _log_in(plain_database.url, "admin")
    with readings_part(settings_for(), url=plain_database.url + "&user=nobody_of_that_name") as part:
        async with open_pool(plain_database.url, role=DatabaseRole.API, name="test") as pool:
            app = create_app(pool, parts=[part])
            async with httpx.AsyncClient(
                transport=httpx.ASGITransport(app), base_url="http://test", headers=headers
            ) as client:
                body = {"readings": [{"site": "s", "machine": "m", "sensor": "v", "value": 1}]}
                answer = await client.post("/api/v1/readings", json=body)
    assert answer.status_code == 503
    assert answer.json()["code"] == "storage-unavailable"


async def test_readings_of_another_quantity_are_refused_and_their_request_is_kept_once(database, post, rows):
    place = {"site": "s1", "machine": "m1", "sensor": "pressure"}
    at = int(clock.now_us() // 1000)
    await post([place | {"ts": at, "value": 1, "unit": "bar"}])
    answer = await post([place | {"ts": at + i, "value": 20, "unit": "Cel"} for i in range(1, 51)])
    assert (answer.json()["stored"], answer.json()["rejected"]) == (0, 50)
    assert rows(database, "SELECT reason, count(*), max(detail) FROM rejected_message GROUP BY 1") == [
        ("unit_mismatch", 1, "s1/m1/pressure is in bar, the message says Cel; and 49 more")
    ]
