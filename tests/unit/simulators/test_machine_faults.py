"""Each fault shows where it should, grows as it says, and leaves the rest of the machine alone."""

from dataclasses import replace

import numpy as np
import pytest

from simulators.api import SIGNAL_UNITS, Fleet, load_scenario
from simulators.faults import Fault, builtin_fault_kinds

HOUR = 3_600_000_000
DAY = 24 * HOUR
KINDS = builtin_fault_kinds()
SIGNALS = (
    "temperature",
    "vibration",
    "current",
    "vibration_acceleration",
    "current_l1",
    "current_l2",
    "current_l3",
    "pressure",
    "flow",
)


def pair(kind_name, *, onset_d=1.0, to_failure_d=2.0, **more):
    """Return the same pump healthy and with a fault, four days each."""
    scenario = load_scenario("quiet-day").with_signals(SIGNALS)
    start = scenario.start_us
    kind = KINDS[kind_name]
    fault = Fault(
        site="north",
        machine="P-101",
        kind=kind,
        onset_us=start + round(onset_d * DAY),
        failure_us=start + round((onset_d + to_failure_d) * DAY),
        end_us=more.pop("end_us", None),
        growth=more.pop("growth", kind.growth),
        **more,
    )
    healthy, faulty = Fleet(scenario, machines=1), Fleet(replace(scenario, faults=(fault,)), machines=1)
    one, two = ({s.signal: s for s in f.generate(start, start + 4 * DAY)} for f in (healthy, faulty))
    return start, one, two, faulty


def ratio(one, two, signal, start, from_d, to_d):
    t = (one[signal].times - start) / DAY
    inside = (t >= from_d) & (t < to_d) & (one["current"].values > 5)
    return float(np.mean(two[signal].values[inside]) / np.mean(one[signal].values[inside]))


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_nothing_happens_before_onset(kind):
    start, one, two, _ = pair(kind)
    for signal in SIGNALS:
        before = one[signal].times < start + DAY
        np.testing.assert_array_equal(one[signal].values[before], two[signal].values[before])


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_clearest_signal_moves_and_the_named_ones_are_the_ones(kind):
    start, one, two, _ = pair(kind)
    moved = {s: abs(ratio(one, two, s, start, 3.0, 4.0) - 1) for s in ("temperature", "vibration", "current")}
    named = KINDS[kind].signals
    assert set(named) <= set(SIGNAL_UNITS)
    assert moved[named[0]] > 0.08
    for signal in set(moved) - set(named):
        assert moved[signal] < 0.05, signal


@pytest.mark.parametrize(
    ("kind", "signal", "low", "high"),
    [
        ("bearing_outer", "vibration", 3.5, 4.5),
        ("bearing_outer", "vibration_acceleration", 5.0, 7.0),
        ("imbalance", "vibration", 1.4, 1.8),
        ("looseness", "vibration", 1.8, 2.6),
        ("cooling_loss", "temperature", 1.3, 2.2),
        ("cooling_loss", "current", 1.0, 1.0),
        ("overload", "current", 1.25, 1.45),
        ("cavitation", "current", 0.7, 0.95),
        ("cavitation", "flow", 0.35, 0.6),
        ("current_unbalance", "current_l1", 1.2, 1.24),
        ("current_unbalance", "current_l2", 0.87, 0.91),
        ("phase_loss", "current_l3", 0.0, 0.01),
        ("phase_loss", "current_l1", 1.7, 1.95),
    ],
)
def test_size_at_failure(kind, signal, low, high):
    start, one, two, _ = pair(kind)
    assert low <= ratio(one, two, signal, start, 3.2, 4.0) <= high


def test_bearing_wear_grows_exponentially_and_heat_comes_late():
    start, one, two, _ = pair("bearing_outer")
    early, late = (ratio(one, two, "vibration", start, *span) - 1 for span in ((1.5, 2.0), (2.7, 3.0)))
    assert early < 0.1
    assert late > 10 * early
    heat = [ratio(one, two, "temperature", start, *span) - 1 for span in ((2.0, 2.3), (3.2, 4.0))]
    assert heat[0] < 0.03
    assert heat[1] > 0.2


@pytest.mark.parametrize(
    ("growth", "at_half"), [("step", 1.0), ("linear", 0.5), ("quadratic", 0.25), ("exponential", 0.0759)]
)
def test_growth_laws(growth, at_half):
    fault = Fault(
        site="s", machine="m", kind=KINDS["imbalance"], onset_us=0, failure_us=2 * DAY, end_us=5 * DAY, growth=growth
    )
    severity = fault.severity(np.array([-1, DAY, 2 * DAY, 4 * DAY, 5 * DAY]))
    np.testing.assert_allclose(severity, [0, at_half, 1, 1, 0], atol=1e-4)


def test_peak_holds_severity_below_failure():
    fault = Fault(
        site="s",
        machine="m",
        kind=KINDS["overload"],
        onset_us=0,
        failure_us=DAY,
        end_us=None,
        growth="linear",
        peak=0.4,
    )
    assert fault.severity(np.array([DAY // 2, DAY, 9 * DAY])).tolist() == [0.4, 0.4, 0.4]
    assert not fault.fails


def test_repair_brings_back_the_healthy_machine():
    scenario_start = load_scenario("quiet-day").start_us
    start, one, two, _ = pair("imbalance", end_us=scenario_start + 2 * DAY)
    after = one["vibration"].times >= start + 2 * DAY
    np.testing.assert_array_equal(one["vibration"].values[after], two["vibration"].values[after])


def test_a_failed_machine_stands_still_until_repair():
    scenario_start = load_scenario("quiet-day").start_us
    start, _, two, fleet = pair("bearing_inner", breaks_down=True, end_us=scenario_start + round(3.25 * DAY))
    t = (two["current"].times - start) / DAY
    standing = (t >= 3.0 + 0.01) & (t < 3.25 - 0.01)
    assert two["current"].values[standing].max() < 1.0
    states = {s.state.name for s in fleet.production(start + 3 * DAY, start + round(3.25 * DAY))}
    assert states == {"BREAKDOWN"}


def test_two_faults_add_up():
    scenario = load_scenario("quiet-day")
    start = scenario.start_us

    def fault(name):
        kind = KINDS[name]
        return Fault(
            site="north",
            machine="P-101",
            kind=kind,
            onset_us=start,
            failure_us=start + 1,
            end_us=None,
            growth=kind.growth,
        )

    def level(*names):
        fleet = Fleet(replace(scenario, faults=tuple(map(fault, names))), machines=1)
        (series,) = fleet.generate(start + HOUR, start + 10 * HOUR, signals=("vibration",))
        return float(np.median(series.values))

    healthy, one, two, both = level(), level("imbalance"), level("bearing_outer"), level("imbalance", "bearing_outer")
    assert both**2 - healthy**2 == pytest.approx((one**2 - healthy**2) + (two**2 - healthy**2), rel=0.1)
