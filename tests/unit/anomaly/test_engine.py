"""What the engine finds, what it leaves alone, and what a finding carries."""

import json

import numpy as np
import pytest

from anomaly.api import EngineConfig, MachineMeta, SensorMeta
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


@pytest.mark.parametrize("seed", range(3))
def test_a_healthy_machine_raises_nothing(plant, seed):
    engine = plant.engine_for()
    assert plant.feed(engine, [plant.machine(days=30, period_s=1800, seed=seed)]) == []
    assert engine.machines.tier[0] == 2


def test_a_growing_vibration_is_one_bearing_finding_with_the_sensor_first(plant):
    machine = grow(plant.machine(days=30, period_s=1800), row=1, from_day=20, by=3.0)
    findings = plant.raised(plant.feed(plant.engine_for(), [machine]))
    assert [f.fault_family for f in findings] == [FaultFamily.BEARING]
    assert findings[0].evidence["first_out"]["sensor"] == "vibration"
    assert 20 <= plant.days(findings[0].onset_us) <= plant.days(findings[0].raised_us) <= 23


def test_a_vibration_that_steps_up_is_imbalance_within_hours(plant):
    machine = plant.machine(days=24, period_s=1800)
    machine.values[1, machine.day(20) :] *= 1.6
    findings = plant.raised(plant.feed(plant.engine_for(), [machine]))
    assert [f.fault_family for f in findings] == [FaultFamily.IMBALANCE]
    assert plant.days(findings[0].raised_us) < 20.5


def test_lost_cooling_is_overheating_and_puts_the_sensor_on_the_list(plant):
    machine = plant.machine(days=30, period_s=1800)
    first = machine.day(20)
    days = np.arange(machine.values.shape[1] - first) * 1800 / 86400
    machine.values[0, first:] += np.clip(machine.values[0, first:] - 24, 0, None) * 0.1 * days
    findings = plant.raised(plant.feed(plant.engine_for(), [machine]))
    assert [f.fault_family for f in findings] == [FaultFamily.OVERHEATING]
    assert "temperature_sensor" in findings[0].evidence["checks"]


def test_more_current_than_the_baseline_ever_saw_is_overload_and_stays_one_finding(plant):
    machine = plant.machine(days=30, period_s=1800)
    first = machine.day(20)
    machine.values[2, first:] *= np.linspace(1.0, 1.3, machine.values.shape[1] - first)
    findings = plant.raised(plant.feed(plant.engine_for(), [machine]))
    assert [f.fault_family for f in findings] == [FaultFamily.OVERLOAD]


def test_one_fault_on_several_sensors_is_one_finding_ranked_by_first_onset(plant):
    machine = grow(plant.machine(days=30, period_s=1800), row=1, from_day=20, by=4.0)
    first = machine.day(23)
    machine.values[0, first:] += np.linspace(0, 40, machine.values.shape[1] - first)
    events = plant.feed(plant.engine_for(), [machine])
    findings = plant.raised(events)
    assert len(findings) == 1
    last = events[-1].finding
    assert last.key == findings[0].key
    assert last.evidence["first_out"]["sensor"] == "vibration"
    assert {int(s) for s in last.sensor_ids} == {1, 2}


def test_load_changes_nights_and_pauses_raise_nothing(plant):
    machine = plant.machine(days=30, period_s=1800, seed=4)
    first, last = machine.day(18), machine.day(21)
    machine.values[:, first:last] = np.nan  # no data at all for three days
    assert plant.feed(plant.engine_for(), [machine]) == []


def test_a_finding_carries_its_contract_and_its_contributions_sum_to_its_score(plant):
    machine = grow(plant.machine(days=26, period_s=1800), row=1, from_day=20, by=3.0)
    finding = plant.raised(plant.feed(plant.engine_for(), [machine]))[0]
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
    machine = plant.machine(days=0.5, period_s=60)
    n = machine.values.shape[1]
    machine.values[0] = 105.0 + 1.5 * np.sin(np.arange(n) / 4.0)
    events = plant.feed(engine, [machine])
    assert [e.change for e in events if e.finding.kind == "machine"] == ["raised"]


def test_a_signal_without_a_unit_is_watched_too(plant):
    signals = (("mystery", SignalKind.OTHER, ""),)
    random = np.random.default_rng(2)
    values = 5.0 + random.normal(0, 0.05, 48 * 26)
    values[48 * 20 :] += 1.5
    engine = plant.engine_for(signals=signals)
    findings = plant.raised(plant.feed(engine, [plant.Machine(values[None, :], 1800.0)]))
    assert [f.fault_family for f in findings] == [FaultFamily.UNKNOWN_DEVIATION]
    assert plant.days(findings[0].onset_us) >= 20


@pytest.mark.parametrize("name", ["Bearing 1", "zzz", "温度"])
def test_names_steer_nothing(plant, name):
    machine = grow(plant.machine(days=26, period_s=1800), row=1, from_day=20, by=3.0)
    engine = plant.engine_for()
    machines, sensors = plant.metas()
    renamed = [SensorMeta(s.sensor_id, s.machine_id, f"{name}{s.sensor_id}", s.kind, s.unit) for s in sensors]
    engine.register(machines, renamed)
    findings = plant.raised(plant.feed(engine, [machine]))
    assert [(f.fault_family, int(f.sensor_ids[0])) for f in findings] == [(FaultFamily.BEARING, 2)]


def test_a_drift_too_slow_for_any_day_is_not_learned_away(plant):
    machine = plant.machine(days=80, period_s=3600)
    first = machine.day(20)
    n = machine.values.shape[1] - first
    machine.values[1, first:] += np.linspace(0, 2.8 - 1.12, n) * (machine.values[2, first:] > 1)
    assert plant.raised(plant.feed(plant.engine_for(), [machine]))


def test_a_baseline_with_a_third_bad_rows_does_not_hide_the_fault(plant):
    machine = plant.machine(days=28, period_s=1800)
    random = np.random.default_rng(5)
    n = machine.day(14)
    bad = random.random(n) < 0.3
    machine.values[0, :n][bad] += 6.0
    first = machine.day(20)
    days = np.arange(machine.values.shape[1] - first) * 1800 / 86400
    machine.values[0, first:] += np.clip(machine.values[0, first:] - 24, 0, None) * 0.15 * days
    found = [
        f for f in plant.raised(plant.feed(plant.engine_for(), [machine]), "machine") if plant.days(f.raised_us) > 20
    ]
    assert [f.fault_family for f in found] == [FaultFamily.OVERHEATING]


def test_history_is_learned_from_but_raises_nothing(plant):
    from fettle.model import Flag

    machine = grow(plant.machine(days=26, period_s=1800), row=1, from_day=20, by=3.0)
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
    machine = plant.machine(days=16, period_s=1800)
    plant.feed(engine, [machine])
    sigma = engine.channels.sigma.copy()
    engine.register([], [SensorMeta(SensorId(9), MachineId(1), "pressure", SignalKind.PRESSURE, "bar")])
    assert np.array_equal(engine.channels.sigma[: len(sigma)], sigma, equal_nan=True)
    assert bool(engine.machines.is_learning[0])
    longer = plant.machine(days=18, period_s=1800)
    plant.feed(engine, [longer], first=machine.values.shape[1])
    assert np.array_equal(engine.channels.sigma[: len(sigma)], sigma, equal_nan=True)


def test_a_whole_machine_that_falls_silent_is_one_sensor_finding_by_the_clock(plant):
    engine = plant.engine_for()
    machine = plant.machine(days=1, period_s=60)
    rows = plant.readings([machine])
    now = int(rows["ts"].max())
    plant.fold_in_batches(engine, rows)
    assert engine.advance(now + 300_000_000) == []
    events = engine.advance(now + 1_000_000_000)
    assert [(e.finding.kind, e.finding.detector) for e in events] == [("sensor", "silent")]
    assert engine.advance(now + 1_100_000_000) == []


def test_a_site_that_falls_silent_is_one_incident_that_names_its_machines(plant):
    engine = plant.engine_for(4, site="north")
    rows = plant.readings([plant.machine(days=0.5, period_s=60, seed=k) for k in range(4)])
    plant.fold_in_batches(engine, rows)
    events = engine.advance(int(rows["ts"].max()) + 1_000_000_000)
    assert [e.change for e in events] == ["raised"]
    assert events[0].finding.evidence["scope"] == "site"
    assert events[0].finding.evidence["machines"] == ["M-1", "M-2", "M-3", "M-4"]


def phases(plant, *, change):
    signals = tuple((f"current {k}", SignalKind.CURRENT, "A") for k in range(3))
    machine = plant.machine(days=20, period_s=1800)
    random = np.random.default_rng(1)
    values = machine.values[2] * np.exp(random.normal(0, 0.01, (3, machine.values.shape[1])))
    change(values, machine.day(16))
    return plant.raised(plant.feed(plant.engine_for(signals=signals), [plant.Machine(values, 1800.0)]))


def test_a_phase_that_parts_from_the_others_is_electrical_unbalance(plant):
    def part(values, first):
        values[1, first:] *= 1.15

    findings = phases(plant, change=part)
    assert [f.fault_family for f in findings] == [FaultFamily.ELECTRICAL_UNBALANCE]
    assert findings[0].evidence["first_out"]["sensor"] == "current 1"


@pytest.mark.parametrize("lost", [0, 2])
def test_a_lost_phase_is_found_even_if_it_is_the_one_that_tells_the_load(plant, lost):
    def lose(values, first):
        values[:, first:] *= 1.5
        values[lost, first:] = 0.02

    findings = phases(plant, change=lose)
    assert FaultFamily.ELECTRICAL_UNBALANCE in {f.fault_family for f in findings}
