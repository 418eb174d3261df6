"""A stored finding in words, over the command line and the API, within the tenant's own walls; and backtests of the database."""

import argparse
import asyncio
import itertools
import json
from datetime import UTC, datetime, timedelta

import numpy as np
import psycopg
import pytest

from anomaly import routes
from anomaly.api import (
    BadPlotFile,
    EngineConfig,
    NoSuchFinding,
    NoSuchMachine,
    NothingStored,
    Watch,
    backtest,
    load_fleet,
    open_stored,
)
from fettle.commands import backtest as backtest_verb
from fettle.commands import explain as explain_verb
from fettle.db import DatabaseRole, open_pool
from fettle.http import Part
from fettle.model import Flag, Quality, Role
from fettle.settings import Settings
from fettle.wire import READING_DTYPE
from fettle.wiring import NoFinding, ticket_opener

HOUR = 3_600_000_000
NOON = datetime(2026, 6, 3, 12, 0, tzinfo=UTC)
END = int(NOON.timestamp()) * 1_000_000
HOURS = 110
START = END - HOURS * HOUR
STEP_S = 600


def add_sensor(url, machine_id, tenant_id, name="vibration", kind="vibration_velocity", unit="mm/s"):
    with psycopg.connect(url) as conn:
        conn.execute("SELECT set_config('fettle.tenant', %s, true)", (str(tenant_id),))
        return conn.execute(
            "INSERT INTO sensor (tenant_id, machine_id, name, kind, unit) VALUES (%s, %s, %s, %s, %s) RETURNING id",
            (tenant_id, machine_id, name, kind, unit),
        ).fetchone()[0]


def hourly_batches(sensor_id, *, fault_from=100):
    random = np.random.default_rng(5)
    per_hour = 3600 // STEP_S
    batches = []
    for hour in range(HOURS):
        batch = np.zeros(per_hour, dtype=READING_DTYPE)
        batch["sensor_id"], batch["quality"] = sensor_id, Quality.GOOD
        batch["ts"] = START + hour * HOUR + np.arange(per_hour) * STEP_S * 1_000_000
        batch["value"] = (2.0 if hour < fault_from else 4.5) * np.exp(random.normal(0, 0.03, per_hour))
        batches.append(batch)
    return batches


def store(url, batches):
    """Store batches as a collector does: in the ledger and as readings."""
    with psycopg.connect(url) as conn:
        collector = conn.execute("INSERT INTO collector (name) VALUES ('c1') RETURNING id").fetchone()[0]
        first, last = (datetime.fromtimestamp(b / 1e6, UTC) for b in (START, END))
        conn.execute("SELECT ensure_reading_partitions(%s, %s)", (first, last))
        with conn.cursor().copy("COPY reading (sensor_id, quality, flags, ts, value) FROM STDIN") as copy:
            for batch in batches:
                for row in batch:
                    at = datetime.fromtimestamp(int(row["ts"]) / 1e6, UTC)
                    copy.write_row(
                        (int(row["sensor_id"]), int(row["quality"]), int(row["flags"]), at, float(row["value"]))
                    )
        for number, batch in enumerate(batches, start=1):
            conn.execute(
                "INSERT INTO batch (collector_id, number, stored, payload) VALUES (%s, %s, %s, %s)",
                (collector, number, len(batch), batch.tobytes()),
            )


async def detect(url):
    async with open_pool(url, role=DatabaseRole.WORKER, name="test", size=3) as pool:
        loop = Watch(pool, shard="0/1", config=EngineConfig(), on_event=ticket_opener(pool), now_us=lambda: END)
        await loop.open()
        while await loop.step():
            pass


@pytest.fixture
async def plant(plain_database, company):
    """A tenant whose press vibrates twice as much for the last ten hours, with the ticket that opened."""
    acme = await company("acme")
    sensor = await asyncio.to_thread(add_sensor, plain_database.url, acme.ids["press"], acme.tenant_id)
    await asyncio.to_thread(store, plain_database.url, hourly_batches(sensor))
    await detect(plain_database.url)
    async with acme.api() as conn:
        row = await (await conn.execute("SELECT id, key FROM finding WHERE kind = 'machine'")).fetchone()
        ticket = await (await conn.execute("SELECT number FROM ticket WHERE machine_id IS NOT NULL")).fetchone()
    acme.ids["finding"], acme.key, acme.ticket, acme.sensor = row[0], row[1], ticket[0], sensor
    return acme


def settings(url, tenant):
    return Settings(database_url=url, tenant=tenant)


def explained(plant, url, name, *more):
    parser = argparse.ArgumentParser()
    explain_verb.add(parser.add_subparsers())
    args = parser.parse_args(["explain", str(name), *more])
    return asyncio.to_thread(args.run, args, settings(url, "acme"))


async def test_a_ticket_its_finding_and_its_key_are_explained_alike(plant, plain_database, capsys):
    said = []
    for name in (plant.ticket, plant.ids["finding"], plant.key, plant.ticket.lower()):
        assert await explained(plant, plain_database.url, name) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] == said[2] == said[3]
    words = said[0]
    assert "imbalance" in words.splitlines()[0]
    for expected in ("vibration", "expected", "█", "zone table", "set rate", "Check first", "▁", "▲ raised", "mm/s"):
        assert expected in words, expected
    assert await explained(plant, plain_database.url, plant.ticket, "--language", "zh") == 0
    words = capsys.readouterr().out
    for expected in ("严重程度", "预期", "建议先查", "设定误报率", "▲ 报出"):
        assert expected in words, expected


async def test_the_plot_is_drawn_from_stored_readings(plant, plain_database, tmp_path, capsys):
    for ending, head in ((".svg", b"<svg"), (".png", b"\x89PNG")):
        path = tmp_path / f"plot{ending}"
        assert await explained(plant, plain_database.url, plant.key, "--plot", str(path)) == 0
        assert path.read_bytes().startswith(head)
    drawing = (tmp_path / "plot.svg").read_text()
    assert "vibration [mm/s]" in drawing
    assert 'class="trace"' in drawing
    assert 'class="band"' in drawing
    capsys.readouterr()


async def test_json_holds_the_finding_and_its_words(plant, plain_database, capsys):
    assert await explained(plant, plain_database.url, plant.key, "--json") == 0
    body = json.loads(capsys.readouterr().out)
    assert body["key"] == plant.key
    assert body["explanation"]["contributions"][0]["sensor"] == "vibration"
    assert sum(c["share"] for c in body["explanation"]["contributions"]) == pytest.approx(1.0)


async def test_what_cannot_be_explained_is_named_with_its_remedy(plant, plain_database, tmp_path):
    with pytest.raises(NoSuchFinding, match=r"'T-999999'.*T-000001"):
        await explained(plant, plain_database.url, "T-999999")
    with pytest.raises(BadPlotFile, match=r"\.svg or \.png"):
        await explained(plant, plain_database.url, plant.key, "--plot", str(tmp_path / "x.gif"))
    with pytest.raises(BadPlotFile):
        await explained(plant, plain_database.url, plant.key, "--plot", str(tmp_path / "none" / "x.svg"))
    async with plant.api() as conn:
        number = await file_by_hand(conn, plant)
    with pytest.raises(NoFinding, match=number):
        await explained(plant, plain_database.url, number)


async def file_by_hand(conn, plant):
    from workorders import intake, tickets
    from workorders.model import Actor

    report = intake.read_report(
        {
            "equipment_number": "P-101",
            "fault_description": "noise",
            "contact_phone": "13800000000",
            "region": "East",
        }
    )
    actor = Actor("acme.order_taker", Role.ORDER_TAKER, None, None)
    return (await tickets.file_ticket(conn, report=report, actor=actor, now=NOON)).number


async def test_the_api_shows_a_finding_and_its_plot(plant, office):
    web = await office(plant, [Part(routes.router, routes.PROBLEMS)])
    taker = await web.log_in("acme.order_taker")
    answer = await web.client.get(f"/api/v1/findings/{plant.ids['finding']}", headers=taker)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["key"] == plant.key
    assert body["raised_at"].endswith("+00:00")
    assert body["explanation"]["checks"]
    assert (await web.client.get(f"/api/v1/findings/{plant.key}", headers=taker)).json() == body
    in_chinese = await web.client.get(f"/api/v1/findings/{plant.key}?language=zh", headers=taker)
    assert "严重程度" in in_chinese.json()["explanation"]["headline"]
    plot = await web.client.get(body["plot"], headers=taker)
    assert plot.status_code == 200
    assert plot.headers["content-type"].startswith("image/svg+xml")
    assert 'class="trace"' in plot.text
    assert (await web.client.get(f"/api/v1/findings/{plant.key}?language=fr", headers=taker)).status_code == 422


async def test_a_finding_is_nobody_elses(plant, company, office):
    """A customer sees it on its own machine; an engineer without its job, other tenants and programs do not."""
    await plant.hire("ann")
    rival = await company("rival")
    paths = (f"/api/v1/findings/{plant.ids['finding']}", f"/api/v1/findings/{plant.key}/plot.svg")
    for made, login, status in (
        (plant, "acme.customer_rep", 200),
        (plant, "acme.ann", 404),
        (plant, "acme.machine_account", 403),
        (rival, "rival.order_taker", 404),
    ):
        web = await office(made, [Part(routes.router, routes.PROBLEMS)])
        headers = await web.log_in(login)
        for path in paths:
            answer = await web.client.get(path, headers=headers)
            assert answer.status_code == status, (login, path, answer.text)
    async with plant.api() as conn:
        await conn.execute("UPDATE machine SET customer_id = NULL WHERE id = %s", (plant.ids["press"],))
    web = await office(plant, [Part(routes.router, routes.PROBLEMS)])
    headers = await web.log_in("acme.customer_rep")
    assert (await web.client.get(paths[0], headers=headers)).status_code == 404
    assert (await web.client.get(paths[0])).status_code == 401
    missing = await web.client.get("/api/v1/findings/999999", headers=await web.log_in("acme.order_taker"))
    assert missing.json()["code"] == "no-such-finding"


# -- backtests of the database ----------------------------------------------------------------------------------------


async def history_of(url, **options):
    async with open_pool(url, role=DatabaseRole.WORKER, name="test", size=1) as pool:
        fleet = await load_fleet(pool)
    return await asyncio.to_thread(open_stored, url, machines=fleet.machines, sensors=fleet.sensors, **options)


async def test_a_backtest_of_the_database_finds_what_detection_found_live(plant, plain_database):
    history = await history_of(plain_database.url)
    done = await asyncio.to_thread(backtest, history, [("now", EngineConfig())])
    (ticket,) = [t for t in done.runs[0].tickets if t.finding.kind == "machine"]
    async with plant.api() as conn:
        cursor = await conn.execute("SELECT key, onset_at, raised_at FROM finding WHERE kind = 'machine'")
        (live,) = await cursor.fetchall()
    at = datetime(1970, 1, 1, tzinfo=UTC)
    assert (
        ticket.finding.key,
        at + timedelta(microseconds=ticket.finding.onset_us),
        at + timedelta(microseconds=ticket.finding.raised_us),
    ) == live
    assert done.samples == HOURS * 3600 // STEP_S


async def test_stored_readings_come_back_whole_in_stretches_in_order(plant, plain_database):
    def spoil():
        with psycopg.connect(plain_database.url) as conn:
            conn.execute("UPDATE reading SET value = NULL, flags = %s WHERE ts = (SELECT min(ts) FROM reading)", (Flag.HISTORICAL | Flag.LATE,))  # fmt: skip

    await asyncio.to_thread(spoil)
    history = await history_of(plain_database.url, numbers=["P-101"])
    stretches = await asyncio.to_thread(lambda: list(history.stretches()))
    found = np.concatenate([s.readings for s in stretches])
    expected = np.concatenate(hourly_batches(plant.sensor))
    assert np.array_equal(found["ts"], expected["ts"])
    assert np.array_equal(found["value"][1:], expected["value"][1:])
    assert np.isnan(found["value"][0])
    assert found["flags"][0] == Flag.LATE
    assert all(s.start_us <= int(s.readings["ts"].min()) and int(s.readings["ts"].max()) < s.end_us for s in stretches)
    assert all(a.end_us <= b.start_us for a, b in itertools.pairwise(stretches))


async def test_bounds_and_machines_choose_what_is_read(plant, plain_database):
    history = await history_of(plain_database.url, start_us=START + HOUR, end_us=START + 3 * HOUR)
    readings = np.concatenate([s.readings for s in await asyncio.to_thread(lambda: list(history.stretches()))])
    assert (readings["ts"].min(), len(readings)) == (START + HOUR, 2 * 3600 // STEP_S)
    with pytest.raises(NoSuchMachine, match="X-9"):
        await history_of(plain_database.url, numbers=["X-9"])
    with pytest.raises(NothingStored, match="--from"):
        await history_of(plain_database.url, end_us=START - HOUR)


async def test_the_verb_prints_the_findings_of_the_database(plant, plain_database, tmp_path, capsys):
    parser = argparse.ArgumentParser()
    backtest_verb.add(parser.add_subparsers())
    failure = (NOON - timedelta(hours=1)).isoformat()
    args = parser.parse_args(
        ["backtest", "--machine", "P-101", "--failure-at", failure, "--report", str(tmp_path / "r.html")]
    )
    assert await asyncio.to_thread(args.run, args, settings(plain_database.url, "acme")) == 0
    said = capsys.readouterr().out
    assert "│ P-101" in said
    assert "1 of 1" in said
    assert "8 h" in said  # the fault began ten hours before the end, the failure came an hour before it
    assert 'class="trace"' in (tmp_path / "r.html").read_text(encoding="utf-8")
