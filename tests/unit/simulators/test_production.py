"""Shifts, states and counts: what OEE has to come to."""

from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulators.api import Fleet, State, load_scenario, oee_of, truth
from simulators.production import CALENDARS, DAY_S, closed_spans

HOUR = 3_600_000_000
DAY = 24 * HOUR


def open_hours(calendar, offset_h, day):
    closed = np.zeros(DAY_S, bool)
    for a, b in closed_spans(calendar, offset_h, day):
        assert 0 <= a < b <= DAY_S
        closed[a:b] = True
    return ~closed


@pytest.mark.parametrize(
    ("calendar", "weekday", "hours"),
    [
        ("continuous", "Wednesday", 24),
        ("continuous", "Sunday", 24),
        ("three-shift", "Monday", 22.5),
        ("three-shift", "Saturday", 22.5),
        ("three-shift", "Sunday", 0),
        ("two-shift", "Friday", 15),
        ("two-shift", "Saturday", 0),
        ("day-shift", "Tuesday", 8),
        ("day-shift", "Sunday", 0),
    ],
)
def test_working_hours(calendar, weekday, hours):
    monday = 20_514  # 2026-03-02
    assert datetime.fromtimestamp(monday * DAY_S, UTC).strftime("%A") == "Monday"
    day = monday + ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"].index(weekday)
    assert open_hours(calendar, 0, day).sum() == hours * 3600


@given(st.sampled_from(sorted(CALENDARS)), st.sampled_from([-9.5, -5, 0, 1, 5.75, 8, 13]), st.integers(20_000, 20_600))
def test_a_zone_only_moves_the_shifts(calendar, offset_h, day):
    shift = int(offset_h * 3600)
    utc = np.concatenate([open_hours(calendar, 0, day + k) for k in (-1, 0, 1)])
    local = open_hours(calendar, offset_h, day)
    np.testing.assert_array_equal(local, utc[DAY_S + shift : 2 * DAY_S + shift])


@settings(max_examples=20, deadline=None)
@given(start_h=st.floats(0, 400), hours=st.floats(0.2, 100), index=st.integers(0, 19))
def test_stretches_are_a_partition_of_time(start_h, hours, index):
    scenario = load_scenario("month-of-production")
    start = scenario.start_us + int(start_h * HOUR)
    end = start + int(hours * HOUR)
    fleet = Fleet(scenario)
    stretches = list(fleet.production(start, end, machines=(fleet.machines[index],)))
    assert stretches[0].start_us == start
    assert stretches[-1].end_us == end
    for a, b in pairwise(stretches):
        assert a.end_us == b.start_us
        assert a.state is not b.state or (a.state is State.RUNNING and a.product != b.product)
    assert all(s.good == s.scrap == 0 for s in stretches if s.state is not State.RUNNING and s.end_us - s.start_us > 0)


def test_counts_in_the_readings_are_the_counts_of_the_truth():
    scenario = load_scenario("month-of-production")
    fleet = Fleet(scenario)
    start, end = scenario.start_us, scenario.start_us + 6 * DAY
    for machine in fleet.machines[::5]:
        figures = oee_of(fleet.production(start, end, machines=(machine,)))
        counted = {
            s.signal: int(s.values.sum())
            for s in fleet.generate(start, end, machines=(machine,), signals=("good", "scrap"))
        }
        assert counted == {"good": figures.good, "scrap": figures.scrap}
        assert figures.good > 100


def test_state_in_the_readings_is_the_state_of_the_truth():
    scenario = load_scenario("month-of-production")
    fleet = Fleet(scenario)
    start, end = scenario.start_us, scenario.start_us + 2 * DAY
    for machine in fleet.machines[::4]:
        (series,) = fleet.generate(start, end, machines=(machine,), signals=("state",))
        stretches = list(fleet.production(start, end, machines=(machine,)))
        edges = np.array([s.start_us for s in stretches])
        expected = [int(stretches[i].state) for i in np.searchsorted(edges, series.times, side="right") - 1]
        np.testing.assert_array_equal(series.values, expected)


def test_oee_is_the_product_and_each_factor_follows_its_definition():
    scenario = load_scenario("month-of-production")
    fleet = Fleet(scenario)
    report = truth(fleet, scenario.start_us, scenario.start_us + 7 * DAY)
    for entry in report["machines"]:
        seconds = entry["seconds"]
        assert sum(seconds.values()) == 7 * 86_400
        planned = sum(seconds.values()) - seconds["planned_stop"]
        assert entry["availability"] == pytest.approx(seconds["running"] / planned, abs=1e-8)
        pieces = entry["good"] + entry["scrap"]
        assert entry["performance"] == pytest.approx(pieces * entry["ideal_cycle_s"] / seconds["running"], abs=1e-8)
        assert entry["quality"] == pytest.approx(entry["good"] / pieces, abs=1e-8)
        assert entry["oee"] == pytest.approx(entry["availability"] * entry["performance"] * entry["quality"], abs=1e-8)
        assert 0.5 < entry["oee"] < 1.0
        assert sum(row[4] for row in entry["stretches"]) == entry["good"]


def test_shifts_show_in_the_states():
    scenario = load_scenario("month-of-production")
    fleet = Fleet(scenario)
    machine = fleet.machine("M-201")  # two shifts, UTC+8: Saturday and Sunday off
    saturday = scenario.start_us + 5 * DAY
    (only,) = fleet.production(saturday, saturday + DAY, machines=(machine,))
    assert only.state is State.PLANNED_STOP


def test_a_power_dip_stops_a_site_and_its_machines_restart_one_after_another():
    scenario = load_scenario("power-dip")
    fleet = Fleet(scenario, machines=60)
    dip = scenario.start_us + 8 * DAY + 10 * HOUR
    ends = set()
    for machine in fleet.machines:
        stretches = list(fleet.production(dip - HOUR, dip + HOUR, machines=(machine,)))
        stop = next(s for s in stretches if s.state is State.BREAKDOWN and s.start_us == dip)
        assert 25 <= (stop.end_us - dip) / 1e6 <= 25 + 181
        ends.add(stop.end_us)
    assert len(ends) > 30


def test_a_product_change_moves_the_load():
    scenario = load_scenario("nuisance")
    fleet, plain = Fleet(scenario), Fleet(replace(scenario, disturbances=()))
    start = scenario.start_us + 23 * DAY
    changed, usual = (
        np.concatenate([np.full((s.end_us - s.start_us) // 60_000_000, s.product) for s in stretches])
        for stretches in (
            [
                s
                for s in f.production(start, start + 18 * HOUR, machines=(f.machine("M-401"),))
                if s.state is State.RUNNING
            ]
            for f in (fleet, plain)
        )
    )
    assert changed.size > 600
    assert set(((changed[:600] - usual[:600]) % 3).tolist()) == {1}


def test_fraction_of_scrap_and_speed_are_those_of_the_class():
    scenario = load_scenario("quiet-day")
    fleet = Fleet(scenario)
    for machine in fleet.machines:
        figures = oee_of(fleet.production(scenario.start_us, scenario.start_us + 28 * DAY, machines=(machine,)))
        assert 1 - figures.quality == pytest.approx(machine.kind.scrap_share, rel=0.2)
        assert figures.performance == pytest.approx(machine.kind.speed_share, rel=0.02)
