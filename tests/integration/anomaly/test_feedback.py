"""Outcomes of findings change what detection does next: levels, demotion, baselines; against a real PostgreSQL."""

import asyncio
from datetime import timedelta

import pytest

from anomaly.api import EngineConfig, list_lifts, list_rules, record_outcome, to_instant, watch
from fettle.db import transaction
from fettle.model import FaultFamily, FindingOutcome, Rejection, Repair

HOUR = 3_600_000_000
LEARNED = 345


async def judge(pool, plant, outcome, *, finding_id=None, **more):
    """Record an outcome of the newest finding."""
    if finding_id is None:
        ((finding_id,),) = plant.query("SELECT max(id) FROM finding WHERE kind = 'machine'")
    ((machine_id, family, detector),) = plant.query(
        "SELECT machine_id, fault_family, detector FROM finding WHERE id = %s", finding_id
    )
    async with transaction(pool, tenant_id=plant.tenant) as conn:
        return await record_outcome(
            conn, tenant_id=plant.tenant, machine_id=machine_id, outcome=outcome, by="sue", at=to_instant(plant.clock_us),
            finding_id=finding_id, fault_family=FaultFamily(family), detector=detector, **more,
        )  # fmt: skip


async def lifts(pool, plant, *, later=timedelta()):
    async with transaction(pool, tenant_id=plant.tenant) as conn:
        return await list_lifts(conn, tenant_id=plant.tenant, now=to_instant(plant.clock_us) + later)


async def learned(plant, pool, recorder):
    plant.store(plant.hours(0, LEARNED), at_once=24)  # the baseline is accepted after fourteen days
    loop = plant.watch(pool, recorder)
    await loop.open()
    await plant.drain(loop)
    return loop


async def excursion(plant, loop, hour, level, *, lasts=8, rest=40):
    """Let machine 0 vibrate at a level for some hours, then rest until its finding has cleared; return the hour after."""
    plant.store(plant.hours(hour, hour + lasts, levels={0: level}), at_once=4)
    await plant.drain(loop)
    plant.store(plant.hours(hour + lasts, hour + lasts + rest), at_once=20)
    await plant.drain(loop)
    return hour + lasts + rest


async def test_a_rejection_lifts_that_level_for_ninety_days_and_a_confirmation_brings_it_back(plant_of):
    plant = plant_of()
    recorder = plant.recorder()
    async with plant.pool() as pool:
        loop = await learned(plant, pool, recorder)
        hour = await excursion(plant, loop, LEARNED, 1.15)
        assert recorder.raised() == ["P-1"]
        await judge(pool, plant, FindingOutcome.REJECTED, reason=Rejection.TOLERATED)
        await loop.heed()
        found = await lifts(pool, plant)
        assert sorted((x["sensor_id"], x["feature"]) for x in found) == [
            (plant.sensors[0], "change"),
            (plant.sensors[0], "residual"),
        ]
        assert 1 < found[0]["factor"] <= 2
        assert found[0]["expires_at"] - found[0]["created_at"] == timedelta(days=90)
        assert await lifts(pool, plant, later=timedelta(days=90, hours=1)) == []
        hour = await excursion(plant, loop, hour, 1.15)
        assert recorder.raised() == ["P-1"]  # the same again: no ticket
        hour = await excursion(plant, loop, hour, 1.8)
        assert recorder.raised() == ["P-1", "P-1"]  # worse: a ticket
        await judge(pool, plant, FindingOutcome.CONFIRMED)
        await loop.heed()
        assert await lifts(pool, plant) == []
        assert (loop.engine.channels.lift == 1).all()
        await excursion(plant, loop, hour, 1.15)
        assert recorder.raised() == ["P-1"] * 3
    kinds = [kind for (kind,) in plant.query("SELECT kind FROM detection_event ORDER BY id")]
    assert kinds == ["outcome", "level_raised", "level_raised", "outcome", "level_restored"]


async def test_a_lift_outlives_a_restart(plain_plant_of):
    plant = plain_plant_of()
    recorder = plant.recorder()
    async with plant.pool() as pool:
        loop = await learned(plant, pool, recorder)
        hour = await excursion(plant, loop, LEARNED, 1.15)
        await judge(pool, plant, FindingOutcome.REJECTED, reason=Rejection.TOLERATED)
        await loop.heed()
        again = plant.watch(pool, recorder)
        await again.open()
        await excursion(plant, again, hour, 1.15)
        assert (again.engine.channels.lift > 1).sum() == 1
    assert recorder.raised() == ["P-1"]


async def test_a_duplicate_lifts_nothing_and_decides_nothing(plain_plant_of):
    plant = plain_plant_of()
    recorder = plant.recorder()
    async with plant.pool() as pool:
        loop = await learned(plant, pool, recorder)
        await excursion(plant, loop, LEARNED, 1.15)
        await judge(pool, plant, FindingOutcome.REJECTED, reason=Rejection.DUPLICATE)
        await loop.heed()
        assert await lifts(pool, plant) == []
        async with transaction(pool, tenant_id=plant.tenant) as conn:
            (rule,) = await list_rules(conn, tenant_id=plant.tenant, now=to_instant(plant.clock_us))
        assert (rule.n, rule.undecided) == (0, 1)


async def test_five_rejections_stop_a_pattern_and_cost_no_other_fault(plain_plant_of):
    plant = plain_plant_of()
    recorder = plant.recorder()
    async with plant.pool() as pool:
        loop = await learned(plant, pool, recorder)
        hour, told = LEARNED, []
        for _ in range(5):
            before = len(recorder.raised())
            hour = await excursion(plant, loop, hour, 3.2, rest=60)
            told.append(len(recorder.raised()) - before)
            if told[-1]:
                await judge(pool, plant, FindingOutcome.REJECTED, reason=Rejection.PROCESS_CHANGE)
            await loop.heed()
        assert told == [1] * 5
        (last,) = [x for x in await lifts(pool, plant) if x["is_stopped"] and x["feature"] == "residual"]
        assert 2 < last["factor"] <= 20
        before = len(recorder.raised())
        for _ in range(10):
            hour = await excursion(plant, loop, hour, 3.2, rest=60)
        assert len(recorder.raised()) - before <= 1  # at least nine in ten fewer
        await excursion(plant, loop, hour, 9.0)
        assert len(recorder.raised()) > before  # what goes well beyond it still counts


async def test_a_rule_that_is_mostly_wrong_watches_and_makes_no_ticket(plain_plant_of):
    plant = plain_plant_of(2)
    recorder = plant.recorder()
    async with plant.pool() as pool:
        loop = await learned(plant, pool, recorder)
        await excursion(plant, loop, LEARNED, 1.5)
        assert recorder.raised() == ["P-1"]
        ((finding_id, family, detector),) = plant.query(
            "SELECT id, fault_family, detector FROM finding WHERE kind = 'machine'"
        )
        for k in range(12):  # of other findings of this rule on that class of machines
            plant.query(
                """WITH f AS (INSERT INTO finding (tenant_id, machine_id, key, fault_family, kind, severity, onset_at, raised_at,
                   detector, model_version, score, evidence) SELECT tenant_id, %s, %s, fault_family, kind, severity, onset_at, raised_at,
                   detector, model_version, score, evidence FROM finding WHERE id = %s RETURNING *)
                   INSERT INTO finding_outcome (tenant_id, machine_id, finding_id, fault_family, detector, machine_class, outcome, reason,
                   decided_by, decided_at, learned_at)
                   SELECT tenant_id, machine_id, id, fault_family, detector, 'pump', %s, %s, 'sue', %s, now() FROM f RETURNING id""",
                plant.machines[1], f"other-{k}", finding_id, "confirmed" if k < 3 else "rejected", "" if k < 3 else "tolerated",
                to_instant(plant.clock_us),
            )  # fmt: skip
        plant.query(
            "UPDATE finding SET announced_revision = revision, announced_change = 'raised' WHERE key LIKE 'other-%%' RETURNING id"
        )
        async with transaction(pool, tenant_id=plant.tenant) as conn:
            (rule,) = await list_rules(conn, tenant_id=plant.tenant, now=to_instant(plant.clock_us))
        assert (rule.fault_family, rule.detector, rule.machine_class, rule.n) == (family, detector, "pump", 12)
        assert rule.is_watch
        plant.store(plant.hours(LEARNED + 48, LEARNED + 56, levels={1: 1.5}))
        await plant.drain(loop)
        assert recorder.raised() == ["P-1"]
        watched = plant.query(
            "SELECT held, announced_change, evidence -> 'precision' ->> 'n' FROM finding WHERE machine_id = %s AND key NOT LIKE 'other-%%'",
            plant.machines[1],
        )
        assert watched == [("watch", "", "12")]
        plant.store(plant.hours(LEARNED + 56, LEARNED + 100, levels={1: 1.5}))  # more evidence of it
        await plant.drain(loop)
        assert recorder.raised() == ["P-1"]
    await no_ticket_after_a_restart(plant, finding_id)


async def no_ticket_after_a_restart(plant, finding_id):
    """A process that starts knows which rules only watch before it hands on the first finding."""
    plant.query("UPDATE finding_outcome SET decided_at = now() RETURNING id")
    plant.query(
        "UPDATE finding SET announced_revision = 0 WHERE machine_id = %s AND key NOT LIKE 'other-%%' RETURNING id",
        plant.machines[1],
    )
    plant.query(
        """INSERT INTO finding (tenant_id, machine_id, key, fault_family, kind, severity, onset_at, raised_at, detector, model_version,
           score, evidence) SELECT tenant_id, machine_id, 'due', 'overheating', kind, severity, onset_at, raised_at, detector,
           model_version, score, evidence FROM finding WHERE id = %s RETURNING id""",
        finding_id,
    )
    stop, heard = asyncio.Event(), []

    async def on_event(announcement):
        heard.append(announcement.event.finding)
        if heard[-1].key == "due":
            stop.set()

    await asyncio.wait_for(watch(plant.url, shard="0/1", config=EngineConfig(), on_event=on_event, stop=stop), 60)
    assert [f.key for f in heard if f.kind == "machine"] == ["due"]


@pytest.mark.parametrize("repair", [Repair.REPAIRED, Repair.REPLACED, Repair.NONE])
async def test_after_a_repair_the_baseline_starts_anew(plain_plant_of, repair):
    plant = plain_plant_of()
    recorder = plant.recorder()
    async with plant.pool() as pool:
        loop = await learned(plant, pool, recorder)
        plant.store(plant.hours(LEARNED, LEARNED + 6, levels={0: 2.0}))
        await plant.drain(loop)
        version = int(loop.engine.machines.version[0])
        await judge(pool, plant, FindingOutcome.CONFIRMED, repair=repair, ticket="T-000001")
        await loop.step()
        is_new = repair is not Repair.NONE
        assert (int(loop.engine.machines.tier[0]) == 0) is is_new
        assert (("P-1", "cleared") in recorder.told()) is is_new
        plant.store(
            plant.hours(LEARNED + 6, LEARNED + 60, levels={0: 1.7})
        )  # what it is after the repair is what counts
        await plant.drain(loop)
        assert recorder.raised() == ["P-1"]
        if is_new:
            assert int(loop.engine.machines.version[0]) > version
            ((done, reason),) = plant.query("SELECT done_at IS NOT NULL, reason FROM detector_order")
            assert (done, reason) == (True, f"{repair.value}: imbalance, T-000001")


async def test_a_repair_resets_nothing_while_another_fault_of_the_machine_is_open(plain_plant_of):
    plant = plain_plant_of()
    async with plant.pool() as pool:
        loop = await learned(plant, pool, plant.recorder())
        plant.store(plant.hours(LEARNED, LEARNED + 3, levels={0: 2.0}))
        await plant.drain(loop)
        plant.query(
            """INSERT INTO finding (tenant_id, machine_id, key, fault_family, kind, severity, onset_at, raised_at, detector, model_version,
               score, evidence) SELECT tenant_id, machine_id, 'other', 'bearing', kind, severity, onset_at, raised_at, detector,
               model_version, score, evidence FROM finding WHERE kind = 'machine' RETURNING id"""
        )
        ((number,),) = plant.query("SELECT id FROM finding WHERE fault_family = 'imbalance'")
        await judge(pool, plant, FindingOutcome.CONFIRMED, finding_id=number, repair=Repair.REPAIRED)
        await loop.step()
        assert loop.engine.machines.tier[0] > 0
    assert plant.query("SELECT count(*) FROM detector_order") == [(0,)]
    ((reason, family),) = plant.query(
        "SELECT reason, detail -> 'open' -> 0 ->> 'fault_family' FROM detection_event WHERE kind = 'proposed'"
    )
    assert (reason, family) == ("repaired: imbalance", "bearing")


async def test_an_order_that_was_not_stored_is_carried_out_again(plain_plant_of):
    plant = plain_plant_of()
    recorder = plant.recorder()
    async with plant.pool() as pool:
        loop = await learned(plant, pool, recorder)
        plant.store(plant.hours(LEARNED, LEARNED + 3, levels={0: 2.0}))
        await plant.drain(loop)
        await judge(pool, plant, FindingOutcome.CONFIRMED, repair=Repair.REPAIRED)
        await loop.heed()  # and dies before it stores anything
        assert loop.engine.machines.tier[0] == 0
        again = plant.watch(pool, recorder)
        await again.open()
        assert again.engine.machines.tier[0] > 0
        await again.step()
        assert again.engine.machines.tier[0] == 0
        assert recorder.told()[-1] == ("P-1", "cleared")
    assert plant.query("SELECT count(*) FILTER (WHERE kind = 'reset') FROM detection_event") == [(1,)]


async def test_old_outcomes_change_nothing_now(plain_plant_of):
    plant = plain_plant_of()
    recorder = plant.recorder()
    async with plant.pool() as pool:
        loop = await learned(plant, pool, recorder)
        await excursion(plant, loop, LEARNED, 1.5)
        ((finding_id,),) = plant.query("SELECT id FROM finding WHERE kind = 'machine'")
        await judge(pool, plant, FindingOutcome.REJECTED, finding_id=finding_id, reason=Rejection.TOLERATED)
        await judge(pool, plant, FindingOutcome.CONFIRMED, finding_id=finding_id, repair=Repair.REPLACED)
        plant.clock_us += 100 * 24 * HOUR
        await loop.heed()
        assert await lifts(pool, plant) == []
        assert plant.query("SELECT count(*) FROM detector_order") == [(0,)]
        assert plant.query("SELECT count(*) FROM finding_outcome WHERE learned_at IS NULL") == [(0,)]


async def test_a_decision_that_cannot_be_heeded_stops_no_detection(plain_plant_of, monkeypatch):
    from anomaly import outcomes

    async def broken(*_, **__):
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(outcomes, "learn", broken)
    plant = plain_plant_of()
    recorder = plant.recorder()
    async with plant.pool() as pool:
        loop = await learned(plant, pool, recorder)
        plant.store(plant.hours(LEARNED, LEARNED + 4, levels={0: 2.0}))
        await plant.drain(loop)
        assert recorder.raised() == ["P-1"]
        assert loop.counts.failures > 0


async def test_an_outcome_that_cannot_be_learned_keeps_no_other_from_being_learned(plain_plant_of, monkeypatch):
    from anomaly import feedback

    def broken(*_, **__):
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(feedback, "lifts_after", broken)
    plant = plain_plant_of()
    recorder = plant.recorder()
    async with plant.pool() as pool:
        loop = await learned(plant, pool, recorder)
        plant.store(plant.hours(LEARNED, LEARNED + 3, levels={0: 2.0}))
        await plant.drain(loop)
        await judge(pool, plant, FindingOutcome.REJECTED, reason=Rejection.TOLERATED)
        await judge(pool, plant, FindingOutcome.CONFIRMED, repair=Repair.REPAIRED)
        await loop.step()
        assert loop.counts.failures > 0
        assert recorder.told()[-1] == ("P-1", "cleared")  # the reset that the other led to
    learned_ones = plant.query("SELECT outcome, learned_at IS NOT NULL FROM finding_outcome ORDER BY id")
    assert learned_ones == [("rejected", False), ("confirmed", True)]
