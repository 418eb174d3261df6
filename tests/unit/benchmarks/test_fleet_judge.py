"""The judge of the fleet benchmark: what counts as found, false and repeated, and the static limit beside it."""

import math

import numpy as np
import pytest

from benchmarks.fleet_judge import (
    DAY_US,
    RULE_OF,
    Case,
    Raised,
    Result,
    ThreeSigma,
    always,
    extra_tickets,
    is_class_right,
    is_kind_right,
    judge,
    poisson_interval,
)
from simulators.disturbances import SENSOR_FAULT_KINDS


def case(machine: int = 1, onset: float = 5, end: float = 10) -> Case:
    return Case(
        machine, "plant", "bearing", is_sensor=False, signals=("vibration",), onset_us=at(onset), end_us=at(end)
    )


def at(days: float) -> int:
    return round(days * DAY_US)


def test_first_ticket_finds_the_episode_and_later_ones_repeat() -> None:
    verdict = judge([Raised(1, at(8)), Raised(1, at(6))], [case()], [1], 0, at(20))
    assert verdict.results[0].delay_days == 1
    assert len(verdict.results[0].tickets) == 2
    assert verdict.false == ()


def test_ticket_open_at_onset_is_false_and_finds_nothing() -> None:
    verdict = judge([Raised(1, at(4.9))], [case()], [1], 0, at(20))
    assert math.isinf(verdict.results[0].delay_days)
    assert len(verdict.false) == 1


def test_end_of_episode_is_outside_of_it() -> None:
    assert len(judge([Raised(1, at(10))], [case()], [1], 0, at(20)).false) == 1


def test_fault_of_another_machine_excuses_nothing() -> None:
    assert len(judge([Raised(2, at(6))], [case(machine=1)], [1, 2], 0, at(20)).false) == 1


def test_healthy_days_leave_out_baseline_and_episodes() -> None:
    verdict = judge([Raised(2, at(1))], [case(onset=5, end=10)], [1, 2], at(4), at(20))
    assert verdict.healthy_days == 16 + 11
    assert verdict.false == ()


def test_ticket_each_midnight_is_false_once_a_machine_day() -> None:
    assert judge(always([1, 2], 0, at(20)), [], [1, 2], at(4), at(20)).rate == 1.0


@pytest.mark.parametrize(("events", "low", "high"), [(0, 0.0, 3.689), (10, 4.795, 18.39)])
def test_poisson_interval_is_the_published_one(events: int, low: float, high: float) -> None:
    assert poisson_interval(events, 1.0) == pytest.approx((low, high), rel=1e-3)


def test_static_limit_needs_ten_minutes_and_merges_within_twelve_hours() -> None:
    static = ThreeSigma(np.array([7]), 0, at(1))
    minutes = np.arange(1440, dtype=np.int64)
    healthy = np.where(minutes % 2, 1.0, -1.0)
    sensor = np.zeros(1440, np.int64)
    static.add_day(0, sensor, minutes * 60_000_000, healthy)
    day = healthy.copy()
    day[100:109] = 9.0  # nine minutes: too short
    day[200:210] = 9.0
    day[500:520] = 9.0  # five hours later: the same ticket
    day[1300:1320] = 9.0  # thirteen hours later: another
    static.add_day(at(1), sensor, at(1) + minutes * 60_000_000, day)
    assert [(t.machine, (t.at_us - at(1)) // 60_000_000) for t in static.tickets] == [(7, 209), (7, 1309)]


def test_static_limit_counts_on_over_midnight() -> None:
    static = ThreeSigma(np.array([7]), 0, at(1))
    minutes = np.arange(1440, dtype=np.int64)
    healthy = np.where(minutes % 2, 1.0, -1.0)
    sensor = np.zeros(1440, np.int64)
    evening, morning = healthy.copy(), healthy.copy()
    evening[1435:], morning[:5] = 9.0, 9.0
    for day, values in enumerate((healthy, evening, morning)):
        static.add_day(at(day), sensor, at(day) + minutes * 60_000_000, values)
    assert [t.at_us - at(2) for t in static.tickets] == [4 * 60_000_000]


@pytest.mark.parametrize(
    ("fault", "is_sensor", "ticket", "expected"),
    [
        ("stuck", True, Raised(1, 0, is_sensor=True, detector="stuck"), (True, True)),
        ("stuck", True, Raised(1, 0, is_sensor=True, detector="offset"), (True, False)),
        ("stuck", True, Raised(1, 0, is_sensor=False, detector="stuck"), (False, False)),
        ("bearing", False, Raised(1, 0, is_sensor=False, detector="deviation"), (True, True)),
    ],
)
def test_a_sensor_fault_is_classified_by_the_rule_that_names_it(
    fault: str, is_sensor: bool, ticket: Raised, expected: tuple[bool, bool]
) -> None:
    result = Result(Case(1, "plant", fault, is_sensor, ("t",), 0, 1), (ticket,))
    assert (is_kind_right(result), is_class_right(result)) == expected


def test_every_sensor_fault_of_the_simulator_has_its_rule() -> None:
    assert set(RULE_OF) == set(SENSOR_FAULT_KINDS)


def test_a_plant_with_fewer_tickets_hides_no_extra_ones_of_another() -> None:
    assert extra_tickets({"a": 1, "b": 5, "c": 2}, {"a": 4, "b": 3}) == 4
