"""What the engine finds, what it leaves alone, and what a finding carries."""

import json

import numpy as np
import pytest

from anomaly.api import EngineConfig, MachineMeta, SensorMeta
from anomaly.state import Tier
from fettle.model import FaultFamily, FindingKind, MachineId, SensorId, Severity, SignalKind

CONTRACT = {
    "machine", "at_us", "contributions", "first_out", "window_us", "zone", "zone_table", "zone_source", "family_now",
    "checks", "mode", "tier", "time_to_limit",
}  # fmt: skip


def grow(machine, *, row, from_day, by, until_day=None):
    """Multiply a signal by a factor that grows exponentially to `by` at the end."""
    first = machine.day(from_day)
    n = machine.values.shape[1] - first
    machine.values[row, first:] *= np.exp(np.linspace(0.0, np.log(by), n))
    return machine


NAMES = ("Bearing 1", "zzz", "温度")
MYSTERY = (("mystery", SignalKind.OTHER, ""),)
OF_LOAD = ("load_scale", "load_low", "load_high", "lag_low", "lag_high", "knows_off")
PHASES = tuple((f"current {k}", SignalKind.CURRENT, "A") for k in range(3))


def stories(plant):
    """Return machines of 26 to 30 days, sampled each half hour, that tell one story each."""
    told = {}
    for seed in range(3):
        told[f"healthy {seed}"] = plant.machine(days=30, period_s=1800, seed=seed)
    told["bearing"] = grow(plant.machine(days=26, period_s=1800), row=1, from_day=20, by=3.0)
    for name in NAMES:
        signals = tuple((f"{name}{k}", kind, unit) for k, (_, kind, unit) in enumerate(plant.SIGNALS))
        told[name] = (told["bearing"], signals)

    told["imbalance"] = plant.machine(days=24, period_s=1800)
    told["imbalance"].values[1, told["imbalance"].day(20) :] *= 1.6

    told["cooling"] = plant.machine(days=30, period_s=1800)
    warm(told["cooling"], from_day=20, per_day=0.1)

    told["overload"] = plant.machine(days=30, period_s=1800)
    first = told["overload"].day(20)
    told["overload"].values[2, first:] *= np.linspace(1.0, 1.3, told["overload"].values.shape[1] - first)

    told["several"] = grow(plant.machine(days=30, period_s=1800), row=1, from_day=20, by=4.0)
    first = told["several"].day(23)
    told["several"].values[0, first:] += np.linspace(0, 40, told["several"].values.shape[1] - first)

    told["paused"] = plant.machine(days=30, period_s=1800, seed=4)
    told["paused"].values[:, told["paused"].day(18) : told["paused"].day(21)] = np.nan

    told["bad rows"] = plant.machine(days=28, period_s=1800)
    n = told["bad rows"].day(14)
    told["bad rows"].values[0, :n][np.random.default_rng(5).random(n) < 0.3] += 6.0
    warm(told["bad rows"], from_day=20, per_day=0.15)

    values = 5.0 + np.random.default_rng(2).normal(0, 0.05, 48 * 26)
    values[48 * 20 :] += 1.5
    told["mystery"] = (plant.Machine(values[None, :], 1800.0), MYSTERY)

    told["unbalanced"] = phases(plant, lambda v, first: np.multiply(v[1, first:], 1.15, out=v[1, first:]))
    for lost in (0, 2):
        told[f"phase {lost} lost"] = phases(plant, lose(lost))
    return told


def warm(machine, *, from_day, per_day):
    """Let cooling be lost: the heat of a machine grows by so much a day."""
    first = machine.day(from_day)
    days = np.arange(machine.values.shape[1] - first) * machine.period_s / 86400
    machine.values[0, first:] += np.clip(machine.values[0, first:] - 24, 0, None) * per_day * days


def phases(plant, change):
    machine = plant.machine(days=20, period_s=1800)
    values = machine.values[2] * np.exp(np.random.default_rng(1).normal(0, 0.01, (3, machine.values.shape[1])))
    change(values, machine.day(16))
    return plant.Machine(values, 1800.0), PHASES


def lose(phase):
    def change(values, first):
        values[:, first:] *= 1.5
        values[phase, first:] = 0.02

    return change


@pytest.fixture(scope="module")
def watched(plant):
    """The engine that watched all stories together."""
    return plant.watch(stories(plant))


@pytest.fixture(scope="module")
def events_of(watched):
    return watched[1]


@pytest.fixture(scope="module")
def findings_of(plant, events_of):
    return {name: plant.raised(events) for name, events in events_of.items()}


@pytest.mark.parametrize("name", ["healthy 0", "healthy 1", "healthy 2", "paused"])
def test_healthy_machines_with_load_changes_nights_and_pauses_raise_nothing(watched, name):
    engine, events_of = watched
    assert events_of[name] == []
    assert engine.machines.tier[list(events_of).index(name)] == 2


@pytest.mark.parametrize("name", ["bearing", *NAMES])
def test_a_growing_vibration_is_one_bearing_finding_with_the_sensor_first_whatever_the_names(plant, findings_of, name):
    findings = findings_of[name]
    assert [f.fault_family for f in findings] == [FaultFamily.BEARING]
    assert findings[0].evidence["first_out"]["kind"] == SignalKind.VIBRATION_VELOCITY
    assert findings[0].evidence["first_out"]["sensor_id"] == int(findings[0].sensor_ids[0])
    assert 20 <= plant.days(findings[0].onset_us) <= plant.days(findings[0].raised_us) <= 23


def test_a_vibration_that_steps_up_is_imbalance_within_hours(plant, findings_of):
    assert [f.fault_family for f in findings_of["imbalance"]] == [FaultFamily.IMBALANCE]
    assert plant.days(findings_of["imbalance"][0].raised_us) < 20.5


def test_lost_cooling_is_overheating_and_puts_the_sensor_on_the_list(findings_of):
    assert [f.fault_family for f in findings_of["cooling"]] == [FaultFamily.OVERHEATING]
    assert "temperature_sensor" in findings_of["cooling"][0].evidence["checks"]


def test_more_current_than_the_baseline_ever_saw_is_overload_and_stays_one_finding(findings_of):
    assert [f.fault_family for f in findings_of["overload"]] == [FaultFamily.OVERLOAD]


def test_one_fault_on_several_sensors_is_one_finding_ranked_by_first_onset(events_of, findings_of):
    assert len(findings_of["several"]) == 1
    last = events_of["several"][-1].finding
    assert last.key == findings_of["several"][0].key
    assert last.evidence["first_out"]["sensor"] == "vibration"
    kinds = {c["sensor"] for c in last.evidence["contributions"] if c["sensor_id"] in {int(s) for s in last.sensor_ids}}
    assert kinds == {"temperature", "vibration"}


def test_a_finding_carries_its_contract_and_its_contributions_sum_to_its_score(plant, findings_of):
    finding = findings_of["bearing"][0]
    assert finding.evidence.keys() >= CONTRACT
    assert json.loads(json.dumps(finding.as_dict())) == finding.as_dict()
    assert finding.from_dict(finding.as_dict()) == finding
    total = sum(c["contribution"] for c in finding.evidence["contributions"])
    assert total == pytest.approx(finding.score, abs=1e-9)
    head = finding.evidence["contributions"][0]
    assert head["low"] <= head["expected"] <= head["high"] < head["measured"]
    assert finding.evidence["zone"] in "ABCD"
    assert "class II" in finding.evidence["zone_table"]
    assert finding.evidence["zone_source"]
    assert finding.block == "SD"
    assert (finding.tier, finding.kind, finding.severity) == (2, FindingKind.MACHINE, Severity.LOW)
    assert finding.model_version.startswith(EngineConfig().digest())
    start, end = finding.evidence["window_us"]
    assert end - start > plant.DAY_US


def test_an_absolute_limit_holds_from_the_first_minutes_and_is_severe(plant):
    engine = plant.engine_for()
    machine = plant.machine(days=0.2, period_s=60)
    machine.values[0, 20:] = 130.0
    findings = plant.raised(plant.feed(engine, [machine]), FindingKind.MACHINE)
    assert [(f.detector, f.tier, f.severity) for f in findings] == [("limit", 0, Severity.HIGH)]
    assert findings[0].evidence["contributions"][0]["limit"] == 105.0
    assert findings[0].evidence["contributions"][0]["source"]


def test_a_machines_own_limit_comes_before_the_shipped_one(plant):
    engine = plant.engine_for()
    _, sensors = plant.metas()
    engine.register([MachineMeta(MachineId(1), "M-1", limits={"temperature": 70.0})], sensors)
    machine = plant.machine(days=0.2, period_s=60)
    machine.values[0] = 75.0 + np.random.default_rng(1).normal(0, 0.2, machine.values.shape[1])
    assert plant.raised(plant.feed(engine, [machine]), FindingKind.MACHINE)[0].detector == "limit"


def test_a_signal_swinging_about_its_limit_is_one_finding(plant):
    engine = plant.engine_for()
    machine = plant.machine(days=0.25, period_s=60)
    n = machine.values.shape[1]
    machine.values[0] = 105.0 + 1.5 * np.sin(np.arange(n) / 4.0)
    events = plant.feed(engine, [machine])
    assert [e.change for e in events if e.finding.kind == "machine"] == ["raised"]


def test_a_signal_without_a_unit_is_watched_too(plant, findings_of):
    assert [f.fault_family for f in findings_of["mystery"]] == [FaultFamily.UNKNOWN_DEVIATION]
    assert plant.days(findings_of["mystery"][0].onset_us) >= 20


def test_a_drift_too_slow_for_any_day_is_not_learned_away(plant):
    machine = plant.machine(days=80, period_s=7200)
    first = machine.day(20)
    n = machine.values.shape[1] - first
    machine.values[1, first:] += np.linspace(0, 2.8 - 1.12, n) * (machine.values[2, first:] > 1)
    assert plant.raised(plant.feed(plant.engine_for(), [machine]))


def test_a_baseline_with_a_third_bad_rows_does_not_hide_the_fault(plant, findings_of):
    found = [f for f in findings_of["bad rows"] if f.kind == "machine" and plant.days(f.raised_us) > 20]
    assert [f.fault_family for f in found] == [FaultFamily.OVERHEATING]


def test_history_is_learned_from_but_raises_nothing(plant):
    from fettle.model import Flag

    machine = grow(plant.machine(days=16, period_s=1800), row=1, from_day=14.2, by=3.0)
    rows = plant.readings([machine])
    rows["flags"] = Flag.HISTORICAL
    engine = plant.engine_for()
    assert plant.fold_in_batches(engine, rows) == []
    assert engine.machines.tier[0] == 2


def test_samples_of_unknown_sensors_are_counted_not_believed(plant):
    engine = plant.engine_for()
    rows = plant.readings([plant.machine(days=1, period_s=1800)])
    rows["sensor_id"] += 100
    assert engine.fold(rows, 0) == []
    assert engine.unknown_samples == len(rows)


def test_a_sensor_that_comes_later_learns_for_itself_and_leaves_the_others_their_models(plant):
    engine = plant.engine_for()
    machine = plant.machine(days=14.5, period_s=1800)
    plant.feed(engine, [machine])
    sigma = engine.channels.sigma.copy()
    engine.register([], [SensorMeta(SensorId(9), MachineId(1), "pressure", SignalKind.PRESSURE, "bar")])
    assert np.array_equal(engine.channels.sigma[: len(sigma)], sigma, equal_nan=True)
    assert bool(engine.machines.is_learning[0])
    longer = plant.machine(days=16, period_s=1800)
    plant.feed(engine, [longer], first=machine.values.shape[1])
    assert np.array_equal(engine.channels.sigma[: len(sigma)], sigma, equal_nan=True)


def test_a_whole_machine_that_falls_silent_is_one_sensor_finding_by_the_clock(plant):
    engine = plant.engine_for()
    machine = plant.machine(days=0.1, period_s=60)
    rows = plant.readings([machine])
    now = int(rows["ts"].max())
    plant.fold_in_batches(engine, rows)
    assert engine.advance(now + 300_000_000) == []
    events = engine.advance(now + 1_000_000_000)
    assert [(e.finding.kind, e.finding.detector) for e in events] == [("sensor", "silent")]
    assert engine.advance(now + 1_100_000_000) == []


def test_a_site_that_falls_silent_is_one_incident_that_names_its_machines(plant):
    engine = plant.engine_for(4, site="north")
    rows = plant.readings([plant.machine(days=0.1, period_s=60, seed=k) for k in range(4)])
    plant.fold_in_batches(engine, rows)
    events = engine.advance(int(rows["ts"].max()) + 1_000_000_000)
    assert [e.change for e in events] == ["raised"]
    assert events[0].finding.evidence["scope"] == "site"
    assert events[0].finding.evidence["machines"] == ["M-1", "M-2", "M-3", "M-4"]


def test_a_phase_that_parts_from_the_others_is_electrical_unbalance(findings_of):
    findings = findings_of["unbalanced"]
    assert [f.fault_family for f in findings] == [FaultFamily.ELECTRICAL_UNBALANCE]
    assert findings[0].evidence["first_out"]["sensor"] == "current 1"


@pytest.mark.parametrize("lost", [0, 2])
def test_a_lost_phase_is_found_even_if_it_is_the_one_that_tells_the_load(findings_of, lost):
    assert FaultFamily.ELECTRICAL_UNBALANCE in {f.fault_family for f in findings_of[f"phase {lost} lost"]}


def test_a_sensor_that_comes_later_leaves_the_model_of_its_machine_as_it_is(plant):
    """The machine idles while the new sensor is learned: the load keeps its scale, the model its tier."""
    told = plant.machine(days=11.6, period_s=1200, seed=4)
    first = told.day(11)
    told.values[1:, first:] = 0.05
    hours = np.arange(told.values.shape[1]) * told.period_s / 3600
    ambient = 22 + 4 * np.sin(2 * np.pi * hours / 24)
    told.values[0, first:] = (ambient + (told.values[0] - ambient)[first] * np.exp((hours[first] - hours) / 0.75))[
        first:
    ]
    engine = plant.engine_for()
    plant.feed(engine, [told], last=first)
    before = [getattr(engine.machines, name)[0].copy() for name in OF_LOAD]
    began, version = engine.machines.trained_from[0], engine.machines.version[0]
    assert engine.machines.tier[0] == Tier.OWN_MODEL

    engine.register([], [SensorMeta(SensorId(4), MachineId(1), "flow", SignalKind.FLOW, "m³/h")])
    random = np.random.default_rng(1)
    flow = random.normal(20, 0.3, told.values.shape[1])
    events = plant.feed(engine, [plant.Machine(np.vstack([told.values, flow]), told.period_s)], first=first)
    assert engine.machines.version[0] > version
    assert engine.channels.is_fitted[engine.channels.sensor == 3].all()
    for name, value in zip(OF_LOAD, before, strict=True):
        np.testing.assert_array_equal(getattr(engine.machines, name)[0], value, err_msg=name)
    assert engine.machines.tier[0] == Tier.OWN_MODEL
    assert engine.machines.trained_from[0] == began
    assert plant.raised(events) == []
