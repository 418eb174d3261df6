"""A reading depends on seed, machine and instant alone."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulators.api import Fleet, load_scenario, write_readings, write_truth

HOUR = 3_600_000_000
DAY = 24 * HOUR


def by_key(fleet, start, end, **more):
    return {s.key: s for s in fleet.generate(start, end, **more)}


def joined(*parts):
    return {
        key: (np.concatenate([p[key].times for p in parts]), np.concatenate([p[key].values for p in parts]))
        for key in parts[0]
    }


@settings(max_examples=15, deadline=None)
@given(
    a=st.integers(-2 * DAY, 2 * DAY),
    first=st.integers(0, 2 * DAY),
    second=st.integers(0, 2 * DAY),
    name=st.sampled_from(["bearing-wear", "sensor-faults", "nuisance", "reference-fleet", "month-of-production"]),
)
def test_two_halves_are_the_whole(a, first, second, name):
    scenario = load_scenario(name)
    middle = scenario.start_us + 15 * DAY  # where things happen
    start, cut, end = middle + a, middle + a + first, middle + a + first + second
    whole = by_key(Fleet(scenario, machines=12), start, end)
    other = Fleet(scenario, machines=12)
    right = by_key(other, cut, end)  # the later half first: order must not matter
    left = by_key(other, start, cut)
    for key, (times, values) in joined(left, right).items():
        np.testing.assert_array_equal(times, whole[key].times)
        np.testing.assert_array_equal(values, whole[key].values)


@pytest.mark.parametrize("period_s", [0.1, 1.0, 10.0, 60.0, 3600.0])
def test_every_period_joins_at_midnight(period_s):
    scenario = load_scenario("quiet-day").with_period(period_s)
    midnight = scenario.start_us + DAY
    reach = max(round(20 * period_s * 1e6), 60_000_000)
    whole = by_key(Fleet(scenario, machines=3), midnight - reach, midnight + reach)
    fleet = Fleet(scenario, machines=3)
    parts = by_key(fleet, midnight - reach, midnight), by_key(fleet, midnight, midnight + reach)
    for key, (times, values) in joined(*parts).items():
        np.testing.assert_array_equal(times, whole[key].times)
        np.testing.assert_array_equal(values, whole[key].values)
        assert set(np.diff(times).tolist()) == {round(period_s * 1e6)}


def test_temperature_has_no_step_where_days_join():
    scenario = load_scenario("quiet-day").with_period(60.0)
    fleet = Fleet(scenario)
    for machine in fleet.machines:
        for day in range(3):
            plan, following = (fleet.day_plan(machine, scenario.start_us // DAY + day + k) for k in (0, 1))
            assert plan.temperature_c[-1] == pytest.approx(following.temperature_c[0], abs=0.01)
            assert plan.wander[-1] == following.wander[0] == 0.0


def test_asking_for_other_signals_changes_no_value():
    scenario = load_scenario("quiet-day")
    start = scenario.start_us
    few = by_key(Fleet(scenario, machines=4), start, start + HOUR, signals=("vibration",))
    many = by_key(Fleet(scenario, machines=4), start, start + HOUR, signals=("speed", "vibration", "good", "power"))
    for key, series in few.items():
        np.testing.assert_array_equal(series.values, many[key].values)


def test_more_machines_change_none_of_the_first():
    scenario = load_scenario("quiet-day")
    start = scenario.start_us
    few, many = (by_key(Fleet(scenario, machines=n), start, start + HOUR) for n in (5, 40))
    assert len(many) == 120
    for key, series in few.items():
        np.testing.assert_array_equal(series.values, many[key].values)


def test_another_seed_is_another_plant():
    scenario = load_scenario("quiet-day")
    start = scenario.start_us
    one, two = (by_key(Fleet(scenario, seed=seed), start, start + DAY) for seed in (1, 2))
    for key, series in one.items():
        assert series.values.size == two[key].values.size == 1440
        assert not np.array_equal(series.values, two[key].values)


def test_a_moved_start_moves_the_faults_and_not_the_noise():
    scenario = load_scenario("bearing-wear")
    plain = Fleet(scenario)
    moved = Fleet(scenario, start_us=scenario.start_us + 3 * DAY)
    pump = plain.machine("P-102")
    (fault,), (later,) = plain.faults_of(pump), moved.faults_of(moved.machine("P-102"))
    assert (later.onset_us - fault.onset_us, later.failure_us - fault.failure_us) == (3 * DAY, 3 * DAY)
    before = scenario.start_us + 2 * DAY
    one, two = (by_key(f, before, before + HOUR) for f in (plain, moved))
    for key, series in one.items():
        np.testing.assert_array_equal(series.values, two[key].values)


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_the_same_seed_gives_the_same_bytes(tmp_path: Path, ending):
    def digests(folder):
        folder.mkdir()
        scenario = load_scenario("month-of-production")
        fleet = Fleet(scenario, machines=3)
        start = scenario.start_us
        write_readings(fleet, start, start + 30 * HOUR, folder / f"readings.{ending}")
        write_truth(fleet, start, start + 30 * HOUR, folder / "truth.json")
        return [hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())]

    assert digests(tmp_path / "a") == digests(tmp_path / "b")


def test_bytes_do_not_change_between_releases():
    """A changed digest means that every published figure on simulated data has to be measured again."""
    scenario = load_scenario("quiet-day")
    digest = hashlib.sha256()
    for series in Fleet(scenario, machines=12).generate(scenario.start_us, scenario.start_us + 6 * HOUR):
        digest.update(series.times.tobytes())
        digest.update(np.round(series.values, 6).tobytes())
    assert digest.hexdigest()[:16] == "18ee546a95fb31bd"
