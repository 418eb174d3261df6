"""Every finding carries its evidence: one plant in which each machine gets another fault, and what the findings say."""

import json
import math

import numpy as np
import pytest

from anomaly.api import Engine, MachineMeta, SensorMeta, explain, to_instant
from fettle.model import FaultFamily, MachineId, Quality, SensorId, SignalKind
from fettle.wire import READING_DTYPE

CONTRACT = {
    "machine", "at_us", "contributions", "first_out", "window_us", "zone", "zone_table", "zone_source", "family_now", "checks",
    "mode", "tier", "health", "time_to_limit", "precision", "similar", "incident", "waveform", "second_opinions",
}  # fmt: skip
PART = {"sensor_id", "sensor", "kind", "unit", "feature", "direction", "onset_us", "contribution", "measured", "expected", "low", "high", "limit", "source", "features"}  # fmt: skip
PERIOD_S = 3600.0
DAYS, FAULT = 22, 17


def bearing(v, first):
    v[1, first:] *= np.exp(np.linspace(0, 1.4, v.shape[1] - first))


def imbalance(v, first):
    v[1, first:] *= 1.7


def overheating(v, first):
    hot = np.clip(v[0, first:] - 24, 0, None)
    v[0, first:] += hot * np.linspace(0, 1.0, len(hot))


def overload(v, first):
    v[2, first:] *= 1.5


def no_load(v, first):
    v[2, first:] = np.where(v[2, first:] > 1, 6.0, v[2, first:])


def stuck(v, first):
    v[0, first:] = v[0, first]


def unknown(v, first):
    v[3, first:] *= 1.5


def unbalance(v, first):
    v[1, first:] *= 1.2


CASES = {
    FaultFamily.BEARING: (bearing, 1),
    FaultFamily.IMBALANCE: (imbalance, 1),
    FaultFamily.OVERHEATING: (overheating, 0),
    FaultFamily.OVERLOAD: (overload, 2),
    FaultFamily.NO_LOAD: (no_load, 2),
    FaultFamily.SENSOR_FAULT: (stuck, 0),
    FaultFamily.UNKNOWN_DEVIATION: (unknown, 3),
    FaultFamily.ELECTRICAL_UNBALANCE: (unbalance, 1),
}


def _values(plant, case, seed):
    healthy = plant.machine(days=DAYS, period_s=PERIOD_S, seed=seed)
    values = healthy.values
    random = np.random.default_rng(seed)
    if case is FaultFamily.ELECTRICAL_UNBALANCE:
        values = values[2] * np.exp(random.normal(0, 0.01, (3, values.shape[1])))
    if case is FaultFamily.UNKNOWN_DEVIATION:
        values = np.concatenate([values, 4.0 + random.normal(0, 0.05, (1, values.shape[1]))])
    CASES[case][0](values, healthy.day(FAULT))
    return values


@pytest.fixture(scope="module")
def story(plant):
    """The events of a plant in which each machine gets the fault of one family, and the engine that raised them."""
    engine = Engine()
    machines, sensors, parts = [], [], []
    for number, case in enumerate(CASES, start=1):
        machines.append(MachineMeta(MachineId(number), case.value, iso_class="10816-1-II"))
        signals = plant.SIGNALS
        if case is FaultFamily.ELECTRICAL_UNBALANCE:
            signals = [(f"phase {k}", SignalKind.CURRENT, "A") for k in range(3)]
        if case is FaultFamily.UNKNOWN_DEVIATION:
            signals = [*signals, ("pressure", SignalKind.PRESSURE, "bar")]
        for (name, kind, unit), x in zip(signals, _values(plant, case, number), strict=True):
            sensors.append(SensorMeta(SensorId(len(sensors) + 1), MachineId(number), name, kind, unit))
            part = np.zeros(len(x), dtype=READING_DTYPE)
            part["sensor_id"], part["quality"], part["value"] = len(sensors), Quality.GOOD, x
            part["ts"] = plant.START_US + (np.arange(len(x)) * PERIOD_S * 1e6).astype(np.int64)
            parts.append(part)
    engine.register(machines, sensors)
    rows = np.concatenate(parts)
    return plant.fold_in_batches(engine, rows[np.argsort(rows["ts"], kind="stable")], batch_s=86400.0), engine


@pytest.fixture(scope="module")
def findings(plant, story):
    """The first finding after the fault of each machine, by the machine's number."""
    found = {}
    for f in plant.raised(story[0]):
        if plant.days(f.raised_us) > FAULT:
            found.setdefault(f.evidence["machine"], f)
    return found


@pytest.mark.parametrize("case", list(CASES))
def test_every_family_is_named_and_carries_all_of_the_contract(plant, findings, case):
    f = findings[case.value]
    assert f.fault_family is case
    evidence = f.evidence
    assert evidence.keys() >= CONTRACT
    assert f.kind.value == ("sensor" if case is FaultFamily.SENSOR_FAULT else "machine")
    assert plant.days(f.onset_us) >= FAULT - 0.2
    assert f.onset_us <= f.raised_us
    assert f.cleared_us is None
    assert f.detector
    assert f.block in {"DM", "SD"}
    assert f.model_version
    assert f.tier == evidence["tier"] >= 1
    assert f.mode == evidence["mode"] != ""
    assert f.threshold > 0
    assert f.set_rate > 0
    assert evidence["checks"]
    assert 0.0 <= evidence["health"] <= 1.0
    start, end = evidence["window_us"]
    assert end - start >= plant.DAY_US
    assert start <= f.onset_us < end
    if case is not FaultFamily.ELECTRICAL_UNBALANCE:  # the one without vibration
        assert evidence["zone"] in "ABCD"
        assert "class II" in evidence["zone_table"]
        assert evidence["zone_source"]
    assert json.loads(json.dumps(f.as_dict(), allow_nan=False)) == f.as_dict()


@pytest.mark.parametrize("case", list(CASES))
def test_contributions_name_each_sensor_once_and_sum_to_the_score(findings, case):
    f = findings[case.value]
    parts = f.evidence["contributions"]
    assert all(part.keys() >= PART for part in parts)
    ids = [part["sensor_id"] for part in parts]
    assert len(ids) == len(set(ids))
    assert math.fsum(part["contribution"] for part in parts) == pytest.approx(f.score, abs=1e-9)
    for part in parts:
        assert math.fsum(p["contribution"] for p in part["features"]) == pytest.approx(part["contribution"], abs=1e-9)
    head = parts[0]
    assert head["kind"] == {0: "temperature", 1: "vibration_velocity", 2: "current", 3: "pressure"}[CASES[case][1]] or (
        case is FaultFamily.ELECTRICAL_UNBALANCE and head["sensor"] == "phase 1"
    )
    if case is not FaultFamily.SENSOR_FAULT:
        assert head["measured"] is not None
        assert head["expected"] is not None
        assert head["low"] is not None or head["high"] is not None


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("case", list(CASES))
def test_every_family_can_be_explained(findings, case, language):
    words = explain(findings[case.value], language, now=to_instant(findings[case.value].raised_us))
    facts = dict(words["facts"])
    assert facts["health index" if language == "en" else "健康指数"]
    assert facts["time to limit" if language == "en" else "距限值时间"]
    assert facts["measured precision" if language == "en" else "实测精度"]
    assert words["checks"]
    assert all(row["why"] for row in words["contributions"])


def test_a_growing_vibration_is_given_a_time_to_its_limit_while_it_is_raised(story):
    told = [e for e in story[0] if e.finding.evidence["machine"] == "bearing" and e.finding.evidence["time_to_limit"]]
    assert len(told) >= 2
    for event in told:
        left = event.finding.evidence["time_to_limit"]
        assert left["sensor"] == "vibration"
        assert left["limit"] == 7.1
        assert left["high_us"] is None or 0 <= left["low_us"] <= left["high_us"]
        assert "class II" in left["source"]


def test_what_stepped_and_stays_gets_no_estimate(story):
    steady = [e.finding for e in story[0] if e.finding.evidence["machine"] == "imbalance"]
    assert steady
    assert all(f.evidence["time_to_limit"] is None for f in steady)


def test_health_is_one_while_nothing_is_wrong_and_none_at_the_alarm_level(story):
    engine = story[1]
    by_number = {m.number: engine.assessment.health.index(k) for k, m in enumerate(engine.list_machines())}
    assert by_number["bearing"] == by_number["imbalance"] == 0.0
    assert by_number["sensor_fault"] > 0.5


def test_what_feedback_knows_of_a_rule_is_on_its_finding(plant):
    engine = plant.engine_for()
    asked = []

    def feedback(machine_id, detector, family):
        asked.append((machine_id, detector, family))
        return {"precision": {"value": 0.8, "low": 0.5, "high": 0.95, "n": 10}, "similar": [{"ticket": "T-000007"}]}

    engine.assessment.feedback = feedback
    machine = plant.machine(days=0.1, period_s=60)
    machine.values[0, 20:] = 130.0
    finding = plant.raised(plant.feed(engine, [machine]), "machine")[0]
    assert asked[0] == (1, finding.detector, finding.fault_family.value)
    assert finding.evidence["precision"]["n"] == 10
    facts = dict(explain(finding, "en", now=to_instant(finding.raised_us))["facts"])
    assert facts["measured precision"] == "80% confirmed (95 %: 50% – 95%, of 10 decided tickets)"
    assert facts["similar before"] == "T-000007"
