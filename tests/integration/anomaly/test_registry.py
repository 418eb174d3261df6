"""Versions that never change, a configuration in shadow, promotion and rolling back: against a real PostgreSQL."""

import argparse
import asyncio
import hashlib
import io
import pickle
import time

import numpy as np
import psycopg
import pytest

from anomaly.api import (
    ConfigTaken,
    EngineConfig,
    NoSuchVersion,
    OrderRefused,
    StructureChanged,
    activate,
    compare_shadow,
    find_version,
    keep_config,
    list_versions,
    previous_version,
    promote,
    to_instant,
    wait_for_order,
    watch,
)
from fettle.commands import model as model_verb
from fettle.db import transaction
from fettle.settings import Settings

BASE = EngineConfig()
SENSITIVE = EngineConfig(multiplier=4.0)


async def learned(plant, pool, recorder, *, hours=60, **options):
    plant.store(plant.hours(0, hours), at_once=6)
    loop = plant.watch(pool, recorder, save_every_s=0.0, **options)
    await loop.open()
    await plant.drain(loop)
    return loop


async def versions(pool, plant, machine=0):
    async with transaction(pool, tenant_id=plant.tenant) as conn:
        return await list_versions(conn, tenant_id=plant.tenant, machine_id=plant.machines[machine])


async def order(pool, plant, version, *, machine=0):
    async with transaction(pool, tenant_id=plant.tenant) as conn:
        return await activate(
            conn, tenant_id=plant.tenant, machine_id=plant.machines[machine], number="P-1", version=version, reason="try",
            by="sue", now=to_instant(plant.clock_us),
        )  # fmt: skip


async def keep(pool, plant, config=SENSITIVE, name="sensitive"):
    async with transaction(pool, tenant_id=None) as conn:
        return await keep_config(conn, name=name, config=config, base=BASE, by="sue", now=to_instant(plant.clock_us))


async def test_every_fit_is_registered_and_findings_name_theirs(plant_of):
    plant = plant_of()
    recorder = plant.recorder()
    async with plant.pool() as pool:
        loop = await learned(plant, pool, recorder)
        plant.store(plant.hours(60, 64, levels={0: 3.0}))
        await plant.drain(loop)
        found = await versions(pool, plant)
        assert [v["number"] for v in found] == sorted((v["number"] for v in found), reverse=True)
        assert len(found) == int(loop.engine.machines.version[0]) > 5
        newest = found[0]
        assert newest["trained_from"] < newest["trained_until"]
        assert newest["metrics"]["tier"] == 1
        assert newest["config_digest"] == BASE.digest()
        named = plant.query("SELECT DISTINCT model_version FROM finding WHERE kind = 'machine'")
        assert named == [(newest["version"],)]
        assert newest["findings"] == 1
        async with transaction(pool, tenant_id=plant.tenant) as conn:
            whole = await find_version(
                conn, tenant_id=plant.tenant, machine_id=plant.machines[0], version=newest["version"]
            )
    assert hashlib.sha256(whole["arrays"]).hexdigest() == newest["sha256"]
    with np.load(io.BytesIO(whole["arrays"]), allow_pickle=False) as file:
        assert set(file.files) == set(whole["feature_schema"])


async def test_a_version_cannot_be_changed_or_removed(plain_plant_of):
    plant = plain_plant_of()
    async with plant.pool() as pool:
        await learned(plant, pool, plant.recorder())
    for statement in ("UPDATE model_version SET sha256 = 'x'", "DELETE FROM model_version", "TRUNCATE model_version"):
        with pytest.raises(psycopg.errors.IntegrityConstraintViolation):
            plant.query(statement)


async def test_rolling_back_and_forth_takes_the_next_step_and_survives_a_restart(plain_plant_of):
    plant = plain_plant_of(2)
    recorder = plant.recorder()
    async with plant.pool() as pool:
        loop = await learned(plant, pool, recorder)
        newest, before = (await versions(pool, plant))[:2]
        assert int(loop.engine.machines.newest[0]) == newest["number"]
        async with transaction(pool, tenant_id=plant.tenant) as conn:
            assert await previous_version(conn, tenant_id=plant.tenant, machine_id=plant.machines[0], number="P-1") == before["version"]  # fmt: skip
        await order(pool, plant, before["version"])
        await loop.step()
        assert loop.engine.model_version(0) == before["version"]
        again = plant.watch(pool, recorder)
        await again.open()
        assert again.engine.model_version(0) == before["version"]
        assert again.engine.machines.is_learning.tolist() == [False, True]  # it stays with it; the other one goes on
        assert int(again.engine.machines.newest[0]) == newest["number"]  # the next fit takes no name that is given
        await order(pool, plant, newest["version"])
        await again.step()
        assert again.engine.model_version(0) == newest["version"]
        with pytest.raises(NoSuchVersion):
            await order(pool, plant, "no.1")
    done = plant.query(
        "SELECT kind, actor, detail ->> 'version' FROM detection_event WHERE kind = 'activated' ORDER BY id"
    )
    assert done == [("activated", "sue", before["version"]), ("activated", "sue", newest["version"])]


class Trap:
    def __reduce__(self):
        return (time.sleep, (60,))


async def test_a_pickle_among_the_versions_is_refused_and_nothing_changes(plain_plant_of):
    plant = plain_plant_of()
    recorder = plant.recorder()
    async with plant.pool() as pool:
        loop = await learned(plant, pool, recorder)
        before = loop.engine.model_version(0)
        for number, body in enumerate((pickle.dumps(Trap()), _object_array())):
            plant.query(
                """INSERT INTO model_version SELECT tenant_id, machine_id, %s, 0, %s, NULL, NULL, config_digest, code_version,
                   feature_schema, metrics, %s, created_at FROM model_version LIMIT 1 RETURNING version""",
                f"evil.{number}", hashlib.sha256(body).hexdigest(), body,
            )  # fmt: skip
            with pytest.raises(Exception, match="no model version that can be used here"):
                await order(pool, plant, f"evil.{number}")
            plant.query(  # ordered past the check
                """INSERT INTO detector_order (tenant_id, machine_id, kind, version, reason, ordered_by, ordered_at)
                   VALUES (%s, %s, 'activate', %s, 'r', 'eve', now()) RETURNING id""",
                plant.tenant, plant.machines[0], f"evil.{number}",
            )  # fmt: skip
            async with asyncio.timeout(20):
                await loop.step()
        assert loop.engine.model_version(0) == before
        ((refused,),) = plant.query("SELECT max(id) FROM detector_order")
        with pytest.raises(OrderRefused, match="not carried out"):
            await wait_for_order(pool, tenant_id=plant.tenant, order=refused, seconds=1.0)
        async with transaction(pool, tenant_id=plant.tenant) as conn:  # it is no step of the way back
            previous = await previous_version(conn, tenant_id=plant.tenant, machine_id=plant.machines[0], number="P-1")
    assert plant.query("SELECT count(*) FROM detector_order WHERE done_at IS NULL") == [(0,)]
    assert previous not in {"evil.0", "evil.1", before}
    assert plant.query("SELECT count(*) FROM detection_event WHERE kind = 'refused'") == [(2,)]


def _object_array():
    out = io.BytesIO()
    np.savez(out, machine_id=np.array([1]), evil=np.array([Trap()], dtype=object))
    return out.getvalue()


async def test_a_rebuild_gives_no_name_twice(plain_plant_of):
    from anomaly.api import forget_state

    plant = plain_plant_of()
    async with plant.pool() as pool:
        await learned(plant, pool, plant.recorder())
        first = {v["version"]: v["sha256"] for v in await versions(pool, plant)}
        await forget_state(pool, shard="0/1")
        again = plant.watch(pool, plant.recorder())
        await again.open()
        await plant.drain(again)
        both = {v["version"]: v["sha256"] for v in await versions(pool, plant)}
    assert first.items() <= both.items()
    assert len(both) == 2 * len(first)


async def test_a_configuration_in_shadow_finds_for_itself_and_tells_nobody(plant_of):
    plant = plant_of()
    recorder, nobody = plant.recorder(), plant.recorder()
    async with plant.pool(size=5) as pool:
        live = await learned(plant, pool, recorder, hours=100)
        kept = await keep(pool, plant)
        shadow = plant.watch(pool, nobody, shadow=kept, save_every_s=0.0)
        await shadow.open()
        assert (
            shadow.engine.machines.learned_us[0] == live.engine.machines.learned_us[0]
        )  # it begins with what is known
        plant.store(plant.hours(100, 106, levels={0: 1.08}))  # too little for the live one
        plant.store(plant.hours(106, 160))
        plant.store(plant.hours(160, 166, levels={0: 2.5}))
        await plant.drain(live)
        await plant.drain(shadow)
        assert recorder.raised() == ["P-1"]
        assert nobody.heard == []
        async with transaction(pool, tenant_id=plant.tenant) as conn:
            found = await compare_shadow(conn, tenant_id=plant.tenant, config=kept, since=plant.instant(90))
        assert (found["live"], found["shadow"], found["both"]) == (1, 2, 1)
        assert found["only_live"] == []
        assert [row["number"] for row in found["only_shadow"]] == ["P-1"]
        again = plant.watch(pool, nobody, shadow=kept)
        await again.open()
        assert again.engine.config == SENSITIVE
        assert await again.step() == 0
    assert plant.query("SELECT shard FROM detector_state ORDER BY shard") == [("0/1",), (f"shadow {kept.id}:0/1",)]
    assert {name for (name,) in plant.query("SELECT DISTINCT model_version FROM shadow_finding")} <= {
        f"{SENSITIVE.digest()}.{n}" for n in range(30)
    }


async def test_promoting_a_configuration_and_taking_it_back_reaches_the_running_loop(plain_plant_of):
    plant = plain_plant_of()
    async with plant.pool() as pool:
        loop = await learned(plant, pool, plant.recorder())
        learned_us = int(loop.engine.machines.learned_us[0])
        kept = await keep(pool, plant)
        for config_id, expected in ((kept.id, SENSITIVE), (None, BASE)):
            plant.clock_us += 1_000_000
            async with transaction(pool, tenant_id=None) as conn:
                await promote(conn, config_id=config_id, reason="r", by="sue", now=to_instant(plant.clock_us))
            await loop.step()
            assert loop.engine.config == expected
            assert int(loop.engine.machines.learned_us[0]) == learned_us
            assert (await versions(pool, plant))[0]["config_digest"] == expected.digest() or config_id is None
            numbers = {v["version"]: v["number"] for v in await versions(pool, plant)}
            async with transaction(pool, tenant_id=plant.tenant) as conn:
                before = await previous_version(
                    conn, tenant_id=plant.tenant, machine_id=plant.machines[0], number="P-1"
                )
            assert numbers[before] < max(numbers.values())  # another fit, not the same under another name
        again = plant.watch(pool, plant.recorder())
        await again.open()
        assert again.engine.config == BASE


async def test_a_kept_configuration_never_changes(plain_plant_of):
    plant = plain_plant_of()
    async with plant.pool() as pool:
        first = await keep(pool, plant)
        assert (await keep(pool, plant)).id == first.id
        with pytest.raises(ConfigTaken):
            await keep(pool, plant, EngineConfig(multiplier=5.0))
        with pytest.raises(StructureChanged, match="history_steps"):
            await keep(pool, plant, EngineConfig(history_steps=100), name="other")
    with pytest.raises(psycopg.errors.IntegrityConstraintViolation):
        plant.query("UPDATE detector_config SET body = '{}' RETURNING id")


def command(plant, *words):
    parser = argparse.ArgumentParser()
    model_verb.add(parser.add_subparsers())
    args = parser.parse_args(["model", *words])
    return asyncio.to_thread(args.run, args, Settings(database_url=plant.url, tenant="default"))


async def test_a_roll_back_on_the_command_line_takes_less_than_a_second(plain_plant_of, capsys):
    plant = plain_plant_of()
    async with plant.pool() as pool:
        await learned(plant, pool, plant.recorder())
        _, before = (await versions(pool, plant))[:2]
    stop = asyncio.Event()
    task = asyncio.create_task(
        watch(plant.url, shard="0/1", config=BASE, on_event=plant.recorder(), stop=stop, poll_s=5.0)
    )
    while not plant.query(  # noqa: ASYNC110 - the server tells
        "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'LISTEN fettle_detection%%'"
    ):
        await asyncio.sleep(0.05)  # until it listens
    await asyncio.sleep(0.5)
    assert await command(plant, "rollback", "P-1", "--reason", "too nervous") == 0
    said = capsys.readouterr().out
    assert f"P-1 is back at version {before['version']}" in said
    took = float(said.rsplit(", ", 1)[1].split(" s")[0])
    assert took < 1.0, said
    assert await command(plant, "list", "P-1") == 0
    assert before["version"] in capsys.readouterr().out
    assert await command(plant, "show", "P-1", before["version"]) == 0
    assert before["sha256"] in capsys.readouterr().out
    stop.set()
    await task
