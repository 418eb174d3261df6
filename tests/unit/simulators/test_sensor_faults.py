"""Every way a sensor fails, against the same sensor that does not."""

from dataclasses import replace

import numpy as np
import pytest

from simulators.api import Fleet, load_scenario
from simulators.disturbances import SENSOR_FAULT_KINDS, SensorFault

HOUR = 3_600_000_000
DAY = 24 * HOUR
START = load_scenario("quiet-day").start_us
ONSET, END = START + 6 * HOUR, START + 18 * HOUR


def both(kind, signal="temperature", **more):
    scenario = load_scenario("quiet-day")
    fault = SensorFault(
        site="north",
        machine="P-101",
        signal=signal,
        kind=kind,
        onset_us=ONSET,
        end_us=END,
        size=more.pop("size", float("nan")),
        rate_per_h=more.pop("rate_per_h", 6.0),
        fahrenheit=more.pop("fahrenheit", False),
    )
    out = []
    for faults in ((), (fault,)):
        fleet = Fleet(replace(scenario, sensor_faults=faults), machines=1)
        out.append({s.signal: s for s in fleet.generate(START, START + DAY)})
    healthy, faulty = out
    for other in {"temperature", "vibration", "current"} - {signal}:
        np.testing.assert_array_equal(healthy[other].values, faulty[other].values)
    return healthy[signal], faulty[signal]


def inside(series):
    return (series.times >= ONSET) & (series.times < END)


def test_every_kind_is_tested_here():
    tested = {name.removeprefix("test_").split("__")[0] for name in globals() if name.startswith("test_")}
    assert set(SENSOR_FAULT_KINDS) <= tested


def test_stuck():
    healthy, faulty = both("stuck")
    now = inside(healthy)
    assert set(faulty.values[now]) == {healthy.values[~now & (healthy.times < ONSET)][-1]}
    np.testing.assert_array_equal(faulty.values[~now], healthy.values[~now])


def test_drift():
    healthy, faulty = both("drift", size=4.0)
    expected = np.where(inside(healthy), 4.0 * (healthy.times - ONSET) / DAY, 0)
    np.testing.assert_allclose(faulty.values - healthy.values, expected, atol=1e-9)


def test_offset():
    healthy, faulty = both("offset", size=-3.0)
    np.testing.assert_allclose(faulty.values - healthy.values, np.where(inside(healthy), -3.0, 0), atol=1e-9)


def test_offset__of_usual_size_is_well_above_the_noise():
    healthy, faulty = both("offset", "vibration")
    assert np.median((faulty.values - healthy.values)[inside(healthy)]) > 8 * 0.06 * np.median(healthy.values)


def test_spike():
    healthy, faulty = both("spike", size=25.0, rate_per_h=5.0)
    hit = faulty.values != healthy.values
    assert not hit[~inside(healthy)].any()
    assert 30 <= hit.sum() <= 90  # 12 hours at 5 an hour
    assert set(np.round(np.abs(faulty.values - healthy.values)[hit], 9)) == {25.0}


def test_dropout():
    healthy, faulty = both("dropout")
    np.testing.assert_array_equal(faulty.times, healthy.times[~inside(healthy)])
    np.testing.assert_array_equal(faulty.values, healthy.values[~inside(healthy)])


@pytest.mark.parametrize("signal", ["temperature", "vibration", "current"])
def test_noise_up__scatters_five_times_as_much(signal):
    healthy, faulty = both("noise_up", signal)
    now = inside(healthy)
    steps = [np.median(np.abs(np.diff(s.values[now]))) for s in (healthy, faulty)]
    assert 2.5 < steps[1] / steps[0] < 7
    assert np.median(faulty.values[now]) == pytest.approx(np.median(healthy.values[now]), rel=0.05)


@pytest.mark.parametrize("signal", ["temperature", "vibration"])
def test_noise_down__dies_away(signal):
    healthy, faulty = both("noise_down", signal)
    now = inside(healthy)
    mad = [np.median(np.abs(np.diff(s.values[now]))) for s in (healthy, faulty)]
    assert mad[1] < 0.4 * mad[0]


def test_noise_up():
    healthy, faulty = both("noise_up", "current", size=20.0)
    np.testing.assert_array_equal(faulty.values[~inside(healthy)], healthy.values[~inside(healthy)])


test_noise_down = test_noise_down__dies_away


def test_unit_change():
    healthy, faulty = both("unit_change")
    now = inside(healthy)
    np.testing.assert_allclose(faulty.values[now], 1000 * healthy.values[now])


def test_unit_change__to_fahrenheit():
    healthy, faulty = both("unit_change", fahrenheit=True)
    now = inside(healthy)
    np.testing.assert_allclose(faulty.values[now], 1.8 * healthy.values[now] + 32)


def test_clock_skew():
    healthy, faulty = both("clock_skew", size=-90.0)
    np.testing.assert_array_equal(faulty.times - healthy.times, np.where(inside(healthy), -90_000_000, 0))
    np.testing.assert_array_equal(faulty.values, healthy.values)


def test_missing_samples_are_a_share_and_the_rest_is_untouched():
    scenario = load_scenario("nuisance")
    quiet = replace(scenario, disturbances=())
    span = scenario.start_us + 16 * DAY, scenario.start_us + 18 * DAY
    machine = Fleet(quiet).machine("P-102")
    healthy, thinned = (
        next(f.generate(*span, machines=(machine,), signals=("vibration",))) for f in (Fleet(quiet), Fleet(scenario))
    )
    kept = np.isin(healthy.times, thinned.times)
    assert 0.03 < 1 - kept.mean() < 0.07
    np.testing.assert_array_equal(healthy.values[kept], thinned.values)
