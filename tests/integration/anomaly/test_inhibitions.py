"""No ticket while a person says so, and one as soon as that is over: against a real PostgreSQL."""

from datetime import timedelta

import psycopg
import pytest

from anomaly.api import InhibitionKind, NoSuchInhibition, add_inhibition, end_inhibition
from fettle.db import transaction
from fettle.model import FaultFamily
from fettle.words import InvalidFields

KIND = InhibitionKind
HOUR = 3_600_000_000


async def inhibit(pool, plant, *, machine=0, hours=(100, 110), kind=KIND.MAINTENANCE, now=None, **scope):
    async with transaction(pool, tenant_id=plant.tenant) as conn:
        return await add_inhibition(
            conn, tenant_id=plant.tenant, machine_id=plant.machines[machine], kind=kind, starts_at=plant.instant(hours[0]),
            ends_at=plant.instant(hours[1]), reason="new bearing", by="sue", now=now or plant.instant(hours[0]), **scope,
        )  # fmt: skip


async def learned(plant, pool, recorder, **options):
    """Return a loop that knows a hundred healthy hours."""
    plant.store(plant.hours(0, 100))
    loop = plant.watch(pool, recorder, **options)
    await loop.open()
    await plant.drain(loop)
    assert recorder.told() == []
    return loop


def held(plant):
    return plant.query("SELECT held, announced_change, change, cleared_at IS NULL FROM finding WHERE kind = 'machine'")


async def test_a_finding_is_stored_while_inhibited_and_handed_on_when_it_ends(plant_of):
    plant = plant_of()
    recorder = plant.recorder()
    async with plant.pool() as pool:
        loop = await learned(plant, pool, recorder)
        made = await inhibit(pool, plant)
        plant.store(plant.hours(100, 106, levels={0: 2.0}))
        await plant.drain(loop)
        assert recorder.told() == []
        ((why, told, _, is_open),) = held(plant)
        assert (why, told, is_open) == ("inhibited", "", True)
        assert plant.query("SELECT evidence -> 'contributions' -> 0 ->> 'sensor' FROM finding") == [("vibration",)]
        plant.store(plant.hours(106, 112, levels={0: 2.0}))  # past its end
        await plant.drain(loop)
        assert recorder.raised() == ["P-1"]
        assert held(plant)[0][0] == ""
    history = plant.query("SELECT kind, actor, reason, (detail ->> 'inhibition')::int FROM detection_event ORDER BY id")
    assert history == [
        ("inhibited", "sue", "new bearing", None),
        ("held", "fettle-detect", "new bearing", made.id),
        ("released", "fettle-detect", "", None),
    ]


async def test_ending_it_early_hands_on_at_once(plant_of):
    plant = plant_of()
    recorder = plant.recorder()
    async with plant.pool() as pool:
        loop = await learned(plant, pool, recorder)
        made = await inhibit(pool, plant)
        plant.store(plant.hours(100, 104, levels={0: 2.0}))
        await plant.drain(loop)
        async with transaction(pool, tenant_id=plant.tenant) as conn:
            ended = await end_inhibition(conn, tenant_id=plant.tenant, id=made.id, by="joe", now=plant.instant(104))
        assert (ended.ended_by, ended.until) == ("joe", plant.instant(104))
        plant.clock_us += HOUR
        await loop.step()
        assert recorder.raised() == ["P-1"]
        with pytest.raises(NoSuchInhibition):
            async with transaction(pool, tenant_id=plant.tenant) as conn:
                await end_inhibition(conn, tenant_id=plant.tenant, id=made.id, by="joe", now=plant.instant(105))


async def test_what_comes_and_goes_while_inhibited_is_never_handed_on_even_if_told_of_late(plant_of):
    plant = plant_of()
    recorder = plant.recorder()
    async with plant.pool() as pool:
        loop = await learned(plant, pool, recorder)
        await inhibit(pool, plant, hours=(100, 130))
        plant.store(plant.hours(100, 103, levels={0: 2.0}))
        plant.store(plant.hours(103, 140))
        plant.clock_us += 50 * HOUR  # the process comes to it long after the inhibition
        await plant.drain(loop)
        ((why, told, change, is_open),) = held(plant)
        assert (why, told, change, is_open) == ("inhibited", "", "cleared", False)
        again = plant.watch(pool, recorder)
        await again.open()
        await again.announce()
    assert recorder.told() == []
    assert plant.query("SELECT count(*) FROM detection_event WHERE kind = 'held'") == [(1,)]


async def test_the_same_is_decided_after_a_crash_and_a_rebuild(plant_of):
    from anomaly.api import forget_state

    plant = plant_of()
    recorder = plant.recorder()
    async with plant.pool() as pool:
        loop = await learned(plant, pool, recorder)
        await inhibit(pool, plant, hours=(100, 104))
        plant.store(plant.hours(100, 112, levels={0: 2.0}))
        await plant.drain(loop)
        before = plant.query("SELECT key, revision, held, announced_change FROM finding ORDER BY id")
        told = list(recorder.told())
        await forget_state(pool, shard="0/1")
        again = plant.watch(pool, recorder)
        await again.open()
        await plant.drain(again)
    assert plant.query("SELECT key, revision, held, announced_change FROM finding ORDER BY id") == before
    assert recorder.told() == told
    assert recorder.raised() == ["P-1"]


async def test_a_cleared_finding_is_told_to_those_who_know_of_it_even_while_inhibited(plant_of):
    plant = plant_of()
    recorder = plant.recorder()
    async with plant.pool() as pool:
        loop = await learned(plant, pool, recorder)
        plant.store(plant.hours(100, 104, levels={0: 2.0}))
        await plant.drain(loop)
        await inhibit(pool, plant, hours=(104, 150))
        plant.store(plant.hours(104, 140))
        await plant.drain(loop)
    assert recorder.told()[-1] == ("P-1", "cleared")


@pytest.mark.parametrize(
    ("scope", "is_held"),
    [
        ({"machine": 0}, True),
        ({"machine": 1}, False),
        ({"fault_family": FaultFamily.OVERLOAD}, False),
        ({"fault_family": FaultFamily.IMBALANCE}, True),
        ({"sensor": 0}, True),
        ({"sensor": 1}, False),
    ],
    ids=str,
)
async def test_an_inhibition_holds_what_it_names_and_nothing_else(plain_plant_of, scope, is_held):
    plant = plain_plant_of(2)
    recorder = plant.recorder()
    async with plant.pool() as pool:
        loop = await learned(plant, pool, recorder)
        named = {k: v for k, v in scope.items() if k != "sensor"}
        if "sensor" in scope:
            named["sensor_id"] = plant.sensors[scope["sensor"]]
        await inhibit(pool, plant, **named)
        plant.store(plant.hours(100, 104, levels={0: 2.0}))
        await plant.drain(loop)
    assert plant.query("SELECT fault_family FROM finding") == [("imbalance",)]
    assert recorder.raised() == ([] if is_held else ["P-1"])


async def test_each_kind_has_its_longest_time_and_everything_its_reason(plain_plant_of):
    plant = plain_plant_of()
    async with plant.pool() as pool:
        for kind, days in (
            (KIND.SHELVED, 7),
            (KIND.MAINTENANCE, 30),
            (KIND.SUPPRESSED, 90),
            (KIND.OUT_OF_SERVICE, 366),
        ):
            await inhibit(pool, plant, kind=kind, hours=(0, 24 * days))
            with pytest.raises(InvalidFields) as error:
                await inhibit(pool, plant, kind=kind, hours=(0, 24 * days + 0.1))
            assert error.value.fields[0].code == "too-long"
        for hours, now, code in (((5, 5), 5, "over"), ((0, 2), 3, "over"), ((0, 40), 30, "too-early")):
            with pytest.raises(InvalidFields) as error:
                await inhibit(pool, plant, kind=KIND.MAINTENANCE, hours=hours, now=plant.instant(now))
            assert code in {f.code for f in error.value.fields}
    with pytest.raises(psycopg.errors.CheckViolation):  # the database holds the same table
        plant.query(
            """INSERT INTO inhibition (tenant_id, machine_id, kind, starts_at, ends_at, reason, created_by, created_at)
               VALUES (%s, %s, 'shelved', %s, %s, 'r', 'x', now())""",
            plant.tenant, plant.machines[0], plant.instant(0), plant.instant(0) + timedelta(days=7, seconds=1),
        )  # fmt: skip
    for statement in ("UPDATE detection_event SET actor = 'y'", "DELETE FROM detection_event"):
        with pytest.raises(psycopg.errors.IntegrityConstraintViolation):
            plant.query(statement)
