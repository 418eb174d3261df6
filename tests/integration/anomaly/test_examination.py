"""Stored waveforms name the race on a live finding, and second opinions join it, without ever stopping detection."""

import asyncio
import tomllib
from datetime import UTC, datetime

import numpy as np
import psycopg
import pytest

from anomaly.api import EngineConfig, Limits, Watch, shipped_limits
from anomaly.envelope import SKF_6205, Race
from fettle.db import DatabaseRole, open_pool
from fettle.model import Quality
from fettle.wire import READING_DTYPE
from fettle.wiring import ticket_opener

HOUR = 3_600_000_000
END = int(datetime(2026, 6, 3, 12, tzinfo=UTC).timestamp()) * 1_000_000
HOURS = 110
START = END - HOURS * HOUR
FAULT_FROM = 100
RATE, SHAFT = 12_800.0, 24.6
MINE = tomllib.loads('[of_machine]\n"P-101" = "6205"\n')


def limits():
    body = shipped_limits().body
    return Limits({**body, "bearing": {**body["bearing"], **MINE}})


def waveform(race=None, seed=0):
    random = np.random.default_rng(seed)
    t = np.arange(int(2 * RATE)) / RATE
    wave = 0.3 * np.sin(2 * np.pi * SHAFT * t) + 0.1 * random.standard_normal(len(t))
    if race:
        ring = np.exp(-np.arange(80) / 12) * np.sin(2 * np.pi * 3500 * np.arange(80) / RATE)
        at = np.cumsum(1 / SKF_6205.lines_hz(SHAFT)[race] * (1 + 0.003 * random.standard_normal(500))) * RATE
        train = np.zeros(len(t))
        train[at[at < len(t) - 1].astype(int)] = 1.0
        wave += np.convolve(train, ring)[: len(t)]
    return np.clip(wave / 0.001, -32767, 32767).astype("<i2")


def instant(us):
    return datetime.fromtimestamp(us / 1e6, UTC)


@pytest.fixture
async def plant(plain_database, company):
    """A press whose acceleration steps up for the last ten hours, with a waveform every ten hours."""
    acme = await company("acme")
    with psycopg.connect(plain_database.url) as conn:
        conn.execute("SELECT set_config('fettle.tenant', %s, true)", (str(acme.tenant_id),))
        sensor, rms = (
            conn.execute(
                "INSERT INTO sensor (tenant_id, machine_id, name, kind, unit) VALUES (%s, %s, %s, %s, 'g') RETURNING id",
                (acme.tenant_id, acme.ids["press"], name, "vibration_acceleration"),
            ).fetchone()[0]
            for name in ("vibration", "vibration.rms")
        )
        collector = conn.execute("INSERT INTO collector (name) VALUES ('c1') RETURNING id").fetchone()[0]
        conn.execute("SELECT ensure_reading_partitions(%s, %s)", (instant(START), instant(END)))
        random = np.random.default_rng(5)
        for hour in range(HOURS):
            batch = np.zeros(6, dtype=READING_DTYPE)
            batch["sensor_id"], batch["quality"] = rms, Quality.GOOD
            batch["ts"] = START + hour * HOUR + np.arange(6) * 600_000_000
            batch["value"] = (0.2 if hour < FAULT_FROM else 0.6) * np.exp(random.normal(0, 0.03, 6))
            conn.execute(
                "INSERT INTO batch (collector_id, number, stored, payload) VALUES (%s, %s, 6, %s)",
                (collector, hour + 1, batch.tobytes()),
            )
            with conn.cursor().copy("COPY reading (sensor_id, quality, flags, ts, value) FROM STDIN") as copy:
                for row in batch:
                    copy.write_row((rms, int(row["quality"]), 0, instant(int(row["ts"])), float(row["value"])))
    acme.sensor, acme.url = sensor, plain_database.url
    return acme


def store_waveforms(plant, *, race, data=None):
    with psycopg.connect(plant.url) as conn:
        for hour in range(0, HOURS, 10):
            wave = waveform(race if hour >= FAULT_FROM else None, seed=hour)
            conn.execute(
                "INSERT INTO waveform (sensor_id, t0, fs_hz, n, dtype, scale, data) VALUES (%s, %s, %s, %s, '<i2', 0.001, %s)",
                (plant.sensor, instant(START + hour * HOUR), RATE, len(wave), data or wave.tobytes()),
            )


async def detect(plant, *, opinions=False):
    async with open_pool(plant.url, role=DatabaseRole.WORKER, name="test", size=3) as pool:
        loop = Watch(
            pool, shard="0/1", config=EngineConfig(), on_event=ticket_opener(pool), limits=limits(), now_us=lambda: END
        )
        await loop.open()
        while await loop.step():
            pass
        asked = 0
        if opinions:
            asked = await loop.examine()
            assert await loop.examine() == 0
            await loop.step()
        return asked


async def found(plant):
    async with plant.api() as conn:
        cursor = await conn.execute("SELECT fault_family, evidence, revision FROM finding WHERE kind = 'machine'")
        rows = await cursor.fetchall()
        cursor = await conn.execute("SELECT fault_family FROM ticket WHERE machine_id IS NOT NULL")
        tickets = [row[0] for row in await cursor.fetchall()]
    assert len(rows) == 1
    return (*rows[0], tickets)


async def test_the_race_that_a_waveform_shows_is_on_the_finding_and_makes_it_a_bearing(plant):
    await asyncio.to_thread(store_waveforms, plant, race=Race.OUTER)
    await detect(plant)
    family, evidence, _, tickets = await found(plant)
    assert family == "bearing"
    assert evidence["waveform"]["race"] == "outer race"
    assert evidence["waveform"]["lines"][0]["strength"] >= 10
    assert evidence["waveform"]["compared_with"] == 4
    assert evidence["checks"][0] == "envelope_spectrum"
    assert tickets == ["bearing"]


async def test_a_healthy_waveform_leaves_the_family_to_the_signals(plant):
    await asyncio.to_thread(store_waveforms, plant, race=None)
    await detect(plant)
    family, evidence, _, tickets = await found(plant)
    assert family == "imbalance"
    assert evidence["waveform"]["race"] is None
    assert tickets == ["imbalance"]


@pytest.mark.parametrize("data", [b"\x00\x00" * 8, b"\x00"], ids=["too short", "torn"])
async def test_a_waveform_that_cannot_be_read_costs_no_finding(plant, data):
    await asyncio.to_thread(store_waveforms, plant, race=None, data=data)
    await detect(plant)
    family, evidence, _, tickets = await found(plant)
    assert evidence["waveform"] is None
    assert tickets == [family]


async def test_second_opinions_join_the_finding_and_its_ticket_once(plant):
    asked = await detect(plant, opinions=True)
    _, evidence, revision, _ = await found(plant)
    assert asked == 1
    assert {one["model"] for one in evidence["second_opinions"]} == {"isolation_forest", "pca"}
    assert all(one["agrees"] for one in evidence["second_opinions"])
    assert revision > 1
    async with plant.api() as conn:
        cursor = await conn.execute("SELECT evidence FROM ticket_evidence ORDER BY id DESC LIMIT 1")
        newest = (await cursor.fetchone())[0]
    body = newest.get("evidence", newest)
    assert body["second_opinions"] == evidence["second_opinions"]


async def test_a_restart_keeps_what_was_found_beside_the_fold(plant):
    await asyncio.to_thread(store_waveforms, plant, race=Race.INNER)
    await detect(plant, opinions=True)
    before = await found(plant)
    await detect(plant)
    assert await found(plant) == before
