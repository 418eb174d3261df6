"""The number of processes changes in the middle of a stream: every finding once, as one process finds them."""

import asyncio

import numpy as np
import psycopg
import pytest

from anomaly.api import BadShard, Engine, EngineConfig, LostShard, keep_config, load_fleet, watch
from fettle.db import transaction

MACHINES = 4
FAULTS = {0: 100, 1: 106, 2: 112, 3: 118}  # machine -> hour from which it vibrates twice as much


def stream(plant):
    """Return the batches of 130 hours, in each a fault or more after hour 100."""
    out = []
    for hour in range(130):
        levels = {k: 2.0 for k, since in FAULTS.items() if hour >= since}
        out += plant.hours(hour, hour + 1, levels=levels)
    return out


async def one_process(plant, pool, batches):
    """Return the findings that one engine makes of the whole stream."""
    fleet = await load_fleet(pool)
    engine = Engine(EngineConfig())
    engine.register(fleet.machines, fleet.sensors)
    events = [e for number, batch in enumerate(batches) for e in engine.fold(batch, 1_700_000_000_000_000 + number)]
    return sorted({(e.finding.key, e.finding.onset_us, e.finding.raised_us) for e in events})


def stored(plant):
    rows = plant.query("SELECT key, onset_at, raised_at, revision, held FROM finding ORDER BY key")
    us = lambda at: round(at.timestamp() * 1e6)  # noqa: E731 - short and local
    return sorted((key, us(onset), us(raised)) for key, onset, raised, _, _ in rows)


async def run(plant, pool, recorder, shards, **options):
    """Let the processes of some shards take turns until nothing waits, then stop them."""
    loops = [plant.watch(pool, recorder, shard=shard, save_every_s=0.0, **options) for shard in shards]
    for loop in loops:
        await loop.open()
    while sum([await loop.step() for loop in loops]):
        pass
    for loop in loops:
        await loop.save()
        await loop.announce()
    return loops


async def until(is_so):
    while not is_so():  # noqa: ASYNC110 - another process changes it
        await asyncio.sleep(0.05)


async def test_one_two_one_processes_find_what_one_finds(plant_of):
    plant = plant_of(MACHINES)
    recorder = plant.recorder()
    batches = stream(plant)
    async with plant.pool(size=6) as pool:
        expected = await one_process(plant, pool, batches)
        assert len({key.split("-")[0] for key, _, _ in expected}) == MACHINES
        for first, last, shards in ((0, 103, ("0/1",)), (103, 115, ("0/2", "1/2")), (115, 120, ("0/1",)), (120, 130, ("0/3", "1/3", "2/3"))):  # fmt: skip
            plant.store(batches[first:last])
            await run(plant, pool, recorder, shards)
            states = [name for (name,) in plant.query("SELECT shard FROM detector_state ORDER BY shard")]
            assert states == list(shards)
    assert stored(plant) == expected
    assert sorted(recorder.raised()) == ["P-1", "P-2", "P-3", "P-4"]
    told = [(a.event.finding.key, a.revision) for a in recorder.heard]
    assert len(told) == len(set(told))


async def test_states_that_stand_at_different_places_are_brought_together(plain_plant_of):
    plant = plain_plant_of(MACHINES)
    recorder = plant.recorder()
    batches = stream(plant)
    async with plant.pool(size=6) as pool:
        expected = await one_process(plant, pool, batches)
        plant.store(batches[:100])
        ahead, behind = await run(plant, pool, recorder, ("0/2", "1/2"))
        plant.store(batches[100:117])
        while await ahead.step():
            pass
        await ahead.save()  # the other one was killed before it came to these batches
        assert behind.counts.batches == 100
        plant.store(batches[117:])
        await run(plant, pool, recorder, ("0/1",))
    assert stored(plant) == expected
    assert sorted(recorder.raised()) == ["P-1", "P-2", "P-3", "P-4"]


async def test_a_process_of_the_old_number_that_still_runs_loses_its_shard(plain_plant_of):
    plant = plain_plant_of(2)
    recorder = plant.recorder()
    batches = stream(plant)
    async with plant.pool(size=6) as pool:
        plant.store(batches[:20])
        (old,) = await run(plant, pool, recorder, ("0/1",))
        await run(plant, pool, recorder, ("0/2", "1/2"))
        plant.store(batches[20:30])
        with pytest.raises(LostShard):
            await old.step()


async def test_new_processes_wait_until_the_old_one_has_stopped(plain_plant_of):
    plant = plain_plant_of(2)
    recorder = plant.recorder()
    batches = stream(plant)
    plant.store(batches[:60])
    stops = [asyncio.Event() for _ in range(3)]

    def start(shard, stop):
        return asyncio.create_task(
            watch(plant.url, shard=shard, config=EngineConfig(), on_event=recorder, stop=stop, poll_s=0.1)
        )

    old = start("0/1", stops[0])
    async with asyncio.timeout(60):
        await until(lambda: plant.query("SELECT count(*) FROM detector_state") == [(1,)])
        new = [start("0/2", stops[1]), start("1/2", stops[2])]
        await asyncio.sleep(1.0)
        assert plant.query("SELECT shard FROM detector_state") == [("0/1",)]
        stops[0].set()
        counts = await old
        assert counts.batches == 60
        await until(lambda: plant.query("SELECT count(*) FROM detector_state WHERE shard IN ('0/2', '1/2')") == [(2,)])
        plant.store(batches[60:110])
        await until(lambda: len(recorder.raised()) == 2 or any(task.done() for task in new))
        for stop in stops[1:]:
            stop.set()
        done = await asyncio.gather(*new)
    assert [c.batches for c in done] == [50, 50]
    assert sorted(recorder.raised()) == ["P-1", "P-2"]


async def test_who_waits_can_be_told_to_stop(plain_plant_of):
    plant = plain_plant_of(1)
    recorder = plant.recorder()
    async with plant.pool() as pool:
        plant.store(plant.hours(0, 3))
        await run(plant, pool, recorder, ("0/1",))
    stop = asyncio.Event()
    with psycopg.connect(plant.url, autocommit=True) as holder:
        holder.execute("SELECT pg_advisory_lock(hashtextextended('fettle.detect 0/1', 0))")
        task = asyncio.create_task(watch(plant.url, shard="0/2", config=EngineConfig(), on_event=recorder, stop=stop))
        await asyncio.sleep(0.8)
        assert not task.done()
        stop.set()
        async with asyncio.timeout(5):
            counts = await task
    assert counts.batches == 0
    assert plant.query("SELECT shard FROM detector_state") == [("0/1",)]


@pytest.mark.parametrize("shard", ["", "1", "2/2", "a/b", "-1/2", "0/0", "1/2/3"])
async def test_a_shard_that_cannot_be_is_refused(plain_plant_of, shard):
    plant = plain_plant_of(1)
    async with plant.pool() as pool:
        with pytest.raises(BadShard, match="k/n"):
            plant.watch(pool, plant.recorder(), shard=shard)


async def test_late_machines_join_the_process_that_owns_them(plain_plant_of):
    plant = plain_plant_of(3)
    recorder = plant.recorder()
    async with plant.pool(size=4) as pool:
        loops = await run(plant, pool, recorder, ("0/2", "1/2"))
        plant.store(plant.hours(0, 4))
        for loop in loops:
            while await loop.step():
                pass
    owned = [loop.engine.machines.machine_id.tolist() for loop in loops]
    assert sorted(np.concatenate(owned).tolist()) == plant.machines
    assert all(machine % 2 == k for k, machines in enumerate(owned) for machine in machines)


async def test_a_rebuild_forgets_its_own_state_and_takes_over_no_other(plain_plant_of):
    plant = plain_plant_of(2)
    async with plant.pool(size=4) as pool:
        plant.store(plant.hours(0, 30), at_once=6)
        (live,) = await run(plant, pool, plant.recorder(), ["0/1"])
        async with transaction(pool, tenant_id=None) as conn:
            kept = await keep_config(
                conn, name="s", config=EngineConfig(multiplier=4.0), base=EngineConfig(), by="sue", now=plant.instant(0)
            )
        (shadow,) = await run(plant, pool, plant.recorder(), ["0/1"], shadow=kept)
        assert shadow.engine.machines.learned_us.min() == live.engine.machines.learned_us.min() > 0
        shadow = plant.watch(pool, plant.recorder(), shard="0/1", shadow=kept)
        half = plant.watch(pool, plant.recorder(), shard="0/2")
        for loop in (shadow, half):
            await loop.open(rebuild=True)
            assert (loop.engine.machines.learned_us == 0).all()
        assert shards(plant) == ["0/1", "0/2", f"shadow {kept.id}:0/1"]  # the live state is left alone
        again = plant.watch(pool, plant.recorder(), shard="0/1")
        await again.open()
        assert (again.engine.machines.learned_us > 0).all()


def shards(plant):
    return [name for (name,) in plant.query("SELECT shard FROM detector_state ORDER BY shard")]
