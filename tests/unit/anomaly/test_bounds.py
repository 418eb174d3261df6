"""Limits that one sample cannot show: change against the baseline, rates of change, the nameplate's unbalance."""

import numpy as np
import pytest

from anomaly import limits
from anomaly.api import Engine, MachineMeta, SensorMeta
from fettle.model import FaultFamily, MachineId, Quality, SensorId, Severity, SignalKind
from fettle.wire import READING_DTYPE

MINUTE = 60_000_000


def one_sensor(kind, unit, *, iso_class=None):
    engine = Engine()
    engine.register(
        [MachineMeta(MachineId(1), "M-1", iso_class=iso_class)],
        [SensorMeta(SensorId(1), MachineId(1), "s", kind, unit)],
    )
    return engine


def fold(plant, engine, x, *, first=0, period_us=MINUTE):
    rows = np.zeros(len(x), dtype=READING_DTYPE)
    rows["sensor_id"], rows["quality"], rows["value"] = 1, Quality.GOOD, x
    rows["ts"] = plant.START_US + (first + np.arange(len(x))) * period_us
    return engine.fold(rows, int(rows["ts"][-1]) + 1_000_000)


def heads(events, detector):
    return [f for f in (e.finding for e in events if e.change == "raised") if f.detector == detector]


@pytest.mark.parametrize("period_s", [10, 60, 600])
def test_the_slope_of_a_ramp_is_exact_at_any_sampling(plant, period_s):
    engine = one_sensor(SignalKind.TEMPERATURE, "°C")
    n = 6 * 3600 // period_s
    fold(plant, engine, 20 + 0.5 * np.arange(n) * period_s / 60, period_us=period_s * 1_000_000)
    assert engine.assessment.bounds.rows.slope[0] == pytest.approx(0.5, rel=1e-3)


def test_a_temperature_that_runs_away_is_found_in_minutes_with_rate_limit_and_source(plant):
    engine = one_sensor(SignalKind.TEMPERATURE, "°C")
    calm = 20 + np.random.default_rng(1).normal(0, 0.1, 15)
    assert fold(plant, engine, calm) == []
    ramp = 20 + 8.0 * np.arange(1, 11)
    events = fold(plant, engine, ramp, first=15)
    found = heads(events, "rate")
    assert len(found) == 1
    head = found[0].evidence["contributions"][0]
    assert found[0].fault_family is FaultFamily.OVERHEATING
    assert found[0].tier == 0
    assert (head["unit"], head["limit"]) == ("°C/min", 5.0)
    assert head["measured"] > 5.0
    assert head["source"]


def test_a_cold_start_of_a_motor_is_no_runaway(plant):
    engine = one_sensor(SignalKind.TEMPERATURE, "°C")
    minutes = np.arange(120)
    assert (
        fold(plant, engine, 20 + 60 * (1 - np.exp(-minutes / 20)) + np.random.default_rng(2).normal(0, 0.2, 120)) == []
    )


def test_a_slow_signal_at_its_rate_limit_is_one_finding_that_clears(plant):
    engine = one_sensor(SignalKind.TEMPERATURE, "°C")
    level = np.concatenate([np.full(15, 10.0), 10 + 7.5 * np.arange(12), np.full(120, 95.0)])
    events = fold(plant, engine, level + np.random.default_rng(3).normal(0, 0.05, len(level)))
    assert [f.detector for f in (e.finding for e in events if e.change == "raised")] == ["rate"]
    alarm = int(engine.assessment.bounds.rows.rate_alarm[0])
    assert engine.alarms.raised_at[alarm] > plant.START_US
    assert not engine.alarms.active[alarm]


@pytest.fixture(scope="module")
def risen(plant):
    """A velocity of 1.2 mm/s for three days, then 2.1: inside zone B of class II, more than a quarter of B/C away."""
    engine = one_sensor(SignalKind.VIBRATION_VELOCITY, "mm/s", iso_class="10816-1-II")
    random = np.random.default_rng(4)
    n = 3 * 144
    healthy = 1.2 * np.exp(random.normal(0, 0.03, n))
    worse = 2.1 * np.exp(random.normal(0, 0.03, 60))
    events = fold(plant, engine, np.concatenate([healthy, worse]), period_us=10 * MINUTE)
    return engine, events


def test_a_change_beyond_a_quarter_of_the_limit_is_on_the_finding_with_table_and_zone(risen):
    last = risen[1][-1].finding
    assert last.evidence["zone"] == "B"
    parts = {p["feature"]: p for c in last.evidence["contributions"] for p in c["features"]}
    assert parts["change"]["source"].startswith("25 % of the B/C limit 2.8 mm/s")
    assert "class II" in parts["change"]["source"]
    assert parts["change"]["expected"] == pytest.approx(1.2, rel=0.1)
    assert parts["change"]["high"] - parts["change"]["expected"] == pytest.approx(0.7, rel=1e-6)
    assert "assumed" not in last.evidence["zone_table"]


def test_a_change_inside_zone_b_is_not_severe(risen):
    assert all(e.finding.severity is not Severity.HIGH for e in risen[1])


@pytest.mark.parametrize(("iso_class", "expected"), [("10816-1-II", 1), (None, 0)])
def test_a_machine_that_starts_beyond_its_own_class_is_found_untaught_an_assumed_class_waits(
    plant, iso_class, expected
):
    engine = one_sensor(SignalKind.VIBRATION_VELOCITY, "mm/s", iso_class=iso_class)
    events = fold(plant, engine, 4.2 * np.exp(np.random.default_rng(5).normal(0, 0.02, 25)))
    assert len(heads(events, "change")) == expected


def test_a_healthy_level_just_below_the_bound_stays_silent(plant):
    engine = one_sensor(SignalKind.VIBRATION_VELOCITY, "mm/s", iso_class="10816-1-II")
    events = fold(plant, engine, 3.3 * np.exp(np.random.default_rng(6).normal(0, 0.02, 300)))
    assert heads(events, "change") == []


def test_rates_and_unbalance_are_data_with_a_source():
    shipped = limits.shipped_limits()
    assert shipped.rate(SensorMeta(SensorId(1), MachineId(1), "t", SignalKind.TEMPERATURE, "°C"))[0] == 5.0
    assert shipped.rate(SensorMeta(SensorId(1), MachineId(1), "p", SignalKind.PRESSURE, "bar")) == (float("inf"), "")
    share, source = shipped.phase_unbalance
    assert share == 0.10
    assert "NEMA" in source


def test_a_plants_own_unbalance_is_what_its_engine_goes_by():
    body = limits.shipped_limits().body
    mine = limits.Limits({**body, "limits": {**body["limits"], "unbalance": {"of_mean": 0.05, "source": "ours"}}})
    assert Engine(limits=mine).config.phase_unbalance == 0.05
    assert Engine(limits=mine).config.digest() != Engine().config.digest()


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [("per_minute = 5.0", "per_minute = 0", "rate of"), ("of_mean = 0.10", "of_mean = 10", "limits.unbalance")],
)
def test_a_nonsense_rate_or_unbalance_is_refused(old, new, says):
    from importlib import resources

    text = resources.files("anomaly").joinpath("limits.toml").read_text(encoding="utf-8")
    with pytest.raises(limits.BadLimitsFile, match=says):
        limits.read_limits(text.replace(old, new), path="mine.toml")
