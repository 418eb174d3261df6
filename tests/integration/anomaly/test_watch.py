"""The loop against a real PostgreSQL: ledger in, findings and announcements out, once each, whatever dies."""

import asyncio

import numpy as np
import psycopg
import pytest

from anomaly.api import Announcement, Change, Engine, EngineConfig, LostShard, Watch, watch
from fettle.db import DatabaseRole, open_pool
from fettle.model import Quality
from fettle.wire import READING_DTYPE

pytestmark = pytest.mark.usefixtures("plain_database")
HOUR = 3_600_000_000
START = 1_790_000_000_000_000


def plant(url):
    """Make one machine with a vibration sensor and one with a temperature; return their sensors."""
    with psycopg.connect(url) as conn:
        tenant = conn.execute("SELECT min(id) FROM tenant").fetchone()[0]
        conn.execute("SELECT set_config('fettle.tenant', %s, true)", (str(tenant),))
        site = conn.execute(
            "INSERT INTO site (tenant_id, code, name) VALUES (%s, 's1', 'S1') RETURNING id", (tenant,)
        ).fetchone()[0]
        sensors = []
        for number, name, kind, unit in (
            ("P-1", "vibration", "vibration_velocity", "mm/s"),
            ("P-2", "temperature", "temperature", "°C"),
        ):
            machine = conn.execute(
                "INSERT INTO machine (tenant_id, site_id, number, name) VALUES (%s, %s, %s, %s) RETURNING id",
                (tenant, site, number, number),
            ).fetchone()[0]
            sensors.append(
                conn.execute(
                    "INSERT INTO sensor (tenant_id, machine_id, name, kind, unit) VALUES (%s, %s, %s, %s, %s) RETURNING id",
                    (tenant, machine, name, kind, unit),
                ).fetchone()[0]
            )
        conn.execute("INSERT INTO collector (name) VALUES ('c1')")
    return sensors


def store_batches(url, batches, *, first=1):
    with psycopg.connect(url) as conn:
        collector = conn.execute("SELECT id FROM collector WHERE name = 'c1'").fetchone()[0]
        for number, batch in enumerate(batches, start=first):
            conn.execute(
                "INSERT INTO batch (collector_id, number, stored, payload) VALUES (%s, %s, %s, %s)",
                (collector, number, len(batch), batch.tobytes()),
            )


def readings(sensors, *, hours, seed=3, fault_from=None, step_s=600):
    """Return one batch per hour: vibration about 2 mm/s, doubled from `fault_from` hours on; temperature about 40."""
    random = np.random.default_rng(seed)
    batches = []
    per_hour = 3600 // step_s
    for hour in range(hours):
        batch = np.zeros(2 * per_hour, dtype=READING_DTYPE)
        ts = START + hour * HOUR + np.arange(per_hour) * step_s * 1_000_000
        batch["quality"] = Quality.GOOD
        batch["sensor_id"] = np.repeat(sensors, per_hour)
        batch["ts"] = np.tile(ts, 2)
        level = 2.0 if fault_from is None or hour < fault_from else 4.0
        batch["value"][:per_hour] = level * np.exp(random.normal(0, 0.03, per_hour))
        batch["value"][per_hour:] = 40 + random.normal(0, 0.3, per_hour)
        batches.append(batch)
    return batches


class Recorder:
    def __init__(self, fail_first=0):
        self.heard: list[Announcement] = []
        self.fail_first = fail_first

    async def __call__(self, announcement):
        if self.fail_first:
            self.fail_first -= 1
            raise ConnectionError("the ticket desk is away")
        self.heard.append(announcement)


def findings(url):
    with psycopg.connect(url) as conn:
        tenant = conn.execute("SELECT min(id) FROM tenant").fetchone()[0]
        conn.execute("SELECT set_config('fettle.tenant', %s, true)", (str(tenant),))
        return conn.execute(
            "SELECT key, change, revision, announced_revision, raised_at FROM finding ORDER BY id"
        ).fetchall()


def loop_on(pool, recorder, **options):
    return Watch(
        pool, shard="0/1", config=EngineConfig(), on_event=recorder, now_us=lambda: START + 400 * HOUR, **options
    )


def pool_on(url):
    return open_pool(url, role=DatabaseRole.WORKER, name="test", size=2)


async def drain(loop):
    while await loop.step():
        pass


async def test_a_doubled_vibration_becomes_one_stored_and_announced_finding(plain_database):
    sensors = plant(plain_database.url)
    store_batches(plain_database.url, readings(sensors, hours=120, fault_from=100))
    recorder = Recorder()
    async with pool_on(plain_database.url) as pool:
        loop = loop_on(pool, recorder)
        await loop.open()
        await drain(loop)
    machine = [a for a in recorder.heard if a.event.finding.kind == "machine"]
    assert machine[0].event.change is Change.RAISED
    assert sum(a.event.change is Change.RAISED for a in machine) == 1
    assert machine[0].event.finding.evidence["machine"] == "P-1"
    onset_hours = (machine[0].event.finding.onset_us - START) / HOUR
    assert 100 <= onset_hours <= 101
    rows = findings(plain_database.url)
    assert all(revision == announced for _, _, revision, announced, _ in rows)


async def test_a_restart_after_every_batch_changes_nothing(plain_database):
    sensors = plant(plain_database.url)
    batches = readings(sensors, hours=112, fault_from=100)
    store_batches(plain_database.url, batches)
    engine = Engine(EngineConfig())
    recorder = Recorder()
    async with pool_on(plain_database.url) as pool:
        restarts = 0
        while True:
            loop = loop_on(pool, recorder, batches_at_once=1 if restarts > 98 else 98, save_every_s=0.0)
            await loop.open()
            restarts += 98 if restarts == 0 else 1
            if not await loop.step():
                break
        fresh = loop_on(pool, recorder)
        await fresh._load_fleet()
        engine.register(fresh._fleet.machines, fresh._fleet.sensors)
    expected = [event for batch in batches for event in engine.fold(batch, START)]
    raised = [e.finding for e in expected if e.change is Change.RAISED]
    heard = [
        a.event.finding for a in recorder.heard if a.event.change is Change.RAISED and a.event.finding.kind == "machine"
    ]
    assert [(f.key, f.onset_us, f.raised_us) for f in heard] == [(f.key, f.onset_us, f.raised_us) for f in raised]
    assert len(raised) == 1


async def test_what_could_not_be_handed_on_is_handed_on_after_a_restart(plain_database):
    sensors = plant(plain_database.url)
    store_batches(plain_database.url, readings(sensors, hours=112, fault_from=100))
    deaf = Recorder(fail_first=1)
    async with pool_on(plain_database.url) as pool:
        loop = loop_on(pool, deaf)
        await loop.open()
        with pytest.raises(ConnectionError):
            await drain(loop)
        hearing = Recorder()
        again = loop_on(pool, hearing)
        await again.open()
        await again.announce()
    assert deaf.heard == []
    assert hearing.heard[0].event.change is Change.RAISED
    assert all(row[2] == row[3] for row in findings(plain_database.url))


async def test_learning_again_from_the_ledger_stores_no_finding_twice(plain_database):
    from anomaly.api import forget_state

    sensors = plant(plain_database.url)
    store_batches(plain_database.url, readings(sensors, hours=112, fault_from=100))
    recorder = Recorder()
    async with pool_on(plain_database.url) as pool:
        loop = loop_on(pool, recorder)
        await loop.open()
        await drain(loop)
        first = findings(plain_database.url)
        told = len(recorder.heard)
        await forget_state(pool, shard="0/1")
        again = loop_on(pool, recorder)
        await again.open()
        await drain(again)
    assert first
    assert findings(plain_database.url) == first
    assert len(recorder.heard) == told


async def test_a_second_process_cannot_overwrite_the_first(plain_database):
    sensors = plant(plain_database.url)
    batches = readings(sensors, hours=10)
    store_batches(plain_database.url, batches[:5])
    async with pool_on(plain_database.url) as pool:
        first, second = loop_on(pool, Recorder(), save_every_s=0.0), loop_on(pool, Recorder(), save_every_s=0.0)
        await first.open()
        await second.open()
        await first.step()
        with pytest.raises(LostShard):
            await second.step()


async def test_a_machine_that_breaks_the_fold_is_set_aside_and_the_others_go_on(plain_database, monkeypatch):
    sensors = plant(plain_database.url)
    store_batches(plain_database.url, readings(sensors, hours=112, fault_from=100))
    whole = Engine._tick

    def fragile(self, rows, ts, *rest):
        if (self.sensors.sensor_id[rows] == sensors[1]).any() and ts.max() > START + 50 * HOUR:
            raise ZeroDivisionError("a defect")
        return whole(self, rows, ts, *rest)

    monkeypatch.setattr(Engine, "_tick", fragile)
    recorder = Recorder()
    async with pool_on(plain_database.url) as pool:
        loop = loop_on(pool, recorder, batches_at_once=16, save_every_s=0.0)
        await loop.open()
        await drain(loop)
    assert len(loop.counts.quarantined) == 1
    assert loop.counts.failures == 1
    assert any(a.event.finding.evidence["machine"] == "P-1" for a in recorder.heard)


async def test_the_whole_loop_wakes_for_a_batch_and_stops_when_told(plain_database):
    sensors = plant(plain_database.url)
    recorder = Recorder()
    stop = asyncio.Event()
    task = asyncio.create_task(
        watch(plain_database.url, shard="0/1", config=EngineConfig(), on_event=recorder, stop=stop, poll_s=0.2)
    )
    store_batches(plain_database.url, readings(sensors, hours=112, fault_from=100))
    async with asyncio.timeout(60):
        while not any(a.event.finding.kind == "machine" for a in recorder.heard):
            assert not task.done()
            await asyncio.sleep(0.05)
    stop.set()
    counts = await task
    assert counts.batches == 112
    assert counts.samples == 112 * 12
