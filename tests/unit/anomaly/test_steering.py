"""Alarm levels that people raised, and baselines that start anew."""

import numpy as np
import pytest

from anomaly.api import Change, Engine, EngineConfig
from anomaly.state import Rule, Tier
from anomaly.steering import Lift, peaks, reset, set_lifts
from fettle.model import FaultFamily

VIBRATION = 2  # sensor ids of machine 1
TEMPERATURE = 1


def step(plant, *, days=18.0, at=15.0, factor=1.35, seed=3, until=None):
    """Return readings of a machine whose vibration is `factor` times as high from a day on."""
    machine = plant.machine(days=days, period_s=3600, seed=seed)
    last = machine.day(until) if until else None
    machine.values[1, machine.day(at) : last] *= factor
    return plant.readings([machine])


def of_machine(events):
    return [e for e in events if e.finding.kind == "machine"]


def test_a_lift_above_the_peak_silences_that_level_and_no_higher_one(plant):
    plain = plant.engine_for(1)
    events = plant.fold_in_batches(plain, step(plant))
    assert next(e.change for e in of_machine(events)) is Change.RAISED
    peak = peaks(plain, VIBRATION, "residual")
    assert peak > 1
    for factor, raised in ((1.35, 0), (2.2, 1)):
        lifted = plant.engine_for(1)
        set_lifts(lifted, [Lift(VIBRATION, "residual", 1.1 * peak)])
        events = plant.fold_in_batches(lifted, step(plant, factor=factor))
        assert sum(e.change is Change.RAISED for e in of_machine(events)) == raised


def test_a_lift_leaves_other_sensors_and_rules_as_they_are(plant):
    engine = plant.engine_for(2)
    set_lifts(engine, [Lift(VIBRATION, "residual", 1.8), Lift(TEMPERATURE, "limit", 9.0), Lift(99, "residual", 2.0)])
    lifted = engine.channels.lift != 1
    assert engine.sensors.sensor_id[engine.channels.sensor[lifted]].tolist() == [VIBRATION]
    assert engine.sensors.limit_lift.tolist() == [1.5, 1, 1, 1, 1, 1]  # a limit is lifted by half at most
    assert not engine.alarms.is_muted.any()
    set_lifts(engine, [])
    assert (engine.channels.lift == 1).all()
    assert (engine.sensors.limit_lift == 1).all()


def test_lifts_of_one_rule_do_not_add_up(plant):
    engine = plant.engine_for(1)
    set_lifts(engine, [Lift(VIBRATION, "residual", 1.8), Lift(VIBRATION, "residual", 1.2)])
    assert engine.channels.lift.max() == pytest.approx(1.8)


def test_a_stopped_rule_of_a_sensor_is_silent_and_is_heard_again_while_it_stands(plant):
    machine = plant.machine(days=18, period_s=3600, seed=3)
    machine.values[0, machine.day(15) :] = machine.values[0, machine.day(15)]  # the temperature is stuck
    rows = plant.readings([machine])
    plain = plant.fold_in_batches(plant.engine_for(1), rows)
    assert [e.finding.detector for e in plain if e.change is Change.RAISED] == ["stuck"]
    engine = plant.engine_for(1)
    set_lifts(engine, [Lift(TEMPERATURE, "stuck", 1.0, is_stopped=True)])
    assert plant.fold_in_batches(engine, rows) == []
    (heard,) = set_lifts(engine, [])
    assert (heard.change, heard.finding.detector) == (Change.RAISED, "stuck")


def test_a_reset_clears_forgets_and_learns_again(plant):
    engine = plant.engine_for(2)
    machines = [plant.machine(days=40, period_s=3600, seed=seed) for seed in (3, 8)]
    changed = machines[0].day(16)
    machines[0].values[1, changed:] *= 1.8  # a new part runs rougher, for good
    rows = plant.readings(machines)
    cut = np.searchsorted(rows["ts"], rows["ts"][0] + 18 * plant.DAY_US)
    before = plant.fold_in_batches(engine, rows[:cut])
    assert not engine.machines.is_learning.any()
    assert sum(e.change is Change.RAISED for e in of_machine(before)) == 1
    other = engine.channels.coefficients[engine.channels.machine == 1].copy()
    events = reset(engine, 1, after_version=40)
    assert [e.change for e in events] == [Change.CLEARED]
    assert engine.machines.tier[0] == Tier.LIMITS
    assert not engine.channels.is_fitted[engine.channels.machine == 0].any()
    assert not engine.alarms.active.any()
    again = Engine.load(engine.dump(), machines=plant.metas(2)[0], sensors=plant.metas(2)[1], config=EngineConfig())
    after = [plant.fold_in_batches(e, rows[cut:]) for e in (engine, again)]
    assert [e.finding.key for e in after[0]] == [e.finding.key for e in after[1]]
    assert of_machine(after[0]) == []  # what it is now is what it is compared with
    assert not engine.machines.is_learning.any()
    assert engine.machines.tier[0] == engine.machines.tier[1] > Tier.LIMITS
    assert engine.machines.version[0] > 40
    np.testing.assert_array_equal(engine.channels.coefficients[engine.channels.machine == 1], other)


def test_a_fault_after_a_reset_is_found(plant):
    engine = plant.engine_for(1)
    machine = plant.machine(days=40, period_s=3600, seed=3)
    machine.values[1, machine.day(36) :] *= 2.0
    rows = plant.readings([machine])
    cut = np.searchsorted(rows["ts"], rows["ts"][0] + 17 * plant.DAY_US)
    plant.fold_in_batches(engine, rows[:cut])
    reset(engine, 1)
    events = of_machine(plant.fold_in_batches(engine, rows[cut:]))
    assert [e.finding.fault_family for e in events if e.change is Change.RAISED] in (
        [FaultFamily.IMBALANCE],
        [FaultFamily.BEARING],
    )


def hurt(machine, fault):
    """Let a machine of 34 days have one fault from day 20 on."""
    first = machine.day(20)
    days = np.arange(machine.values.shape[1] - first) * machine.period_s / 86400
    temperature, vibration, current = (row[first:] for row in machine.values)
    match fault:
        case "bearing":
            vibration *= 1 + 0.05 * (np.exp(np.minimum(0.35 * days, 5)) - 1)
        case "imbalance":
            vibration *= 3.0
        case "cooling":
            temperature += 1.2 * days * (current > 1)
        case "overload":
            current *= 1 + 0.03 * np.minimum(days, 10)
        case "stuck":
            temperature[:] = temperature[0]
        case "drift":
            temperature += 1.5 * days


@pytest.fixture(scope="module")
def stopped(plant):
    """The lifts after five rejections of a vibration step of 60 %, which silence the same step."""
    rejected = plant.machine(days=19, period_s=3600, seed=3)
    rejected.values[1, rejected.day(16) : rejected.day(17.5)] *= 1.6
    plain, engine = plant.engine_for(1), plant.engine_for(1)
    assert len(plant.raised(plant.feed(plain, [rejected]), "machine")) == 1
    factor = 1.25 * peaks(plain, VIBRATION, "residual")
    lifts = [Lift(VIBRATION, feature, factor, is_stopped=True) for feature in ("residual", "change")]
    set_lifts(engine, lifts)
    assert plant.raised(plant.feed(engine, [rejected]), "machine") == []
    return lifts


@pytest.mark.parametrize("fault", ["bearing", "imbalance", "cooling", "overload", "stuck", "drift"])
def test_a_pattern_that_was_stopped_hides_no_fault_of_its_machine(plant, stopped, fault):
    machine = plant.machine(days=34, period_s=3600, seed=3)
    hurt(machine, fault)
    engine = plant.engine_for(1)
    set_lifts(engine, stopped)
    found = plant.raised(plant.feed(engine, [machine]))
    assert [f for f in found if plant.days(f.raised_us) >= 20]


def test_a_reset_of_an_unknown_machine_changes_nothing(plant):
    engine = plant.engine_for(1)
    before = engine.dump()
    assert reset(engine, 77) == []
    assert engine.dump() == before


def test_the_rule_names_of_evidence_are_those_of_lifts():
    assert {"limit", "stuck", "change"} <= {rule.name.lower() for rule in Rule}
