"""The checker of the fault benchmark sees what is wrong with a record; one that is right passes."""

import time

import numpy as np
import pytest

from benchmarks.fault_check import STORED_DTYPE, Excuses, check
from benchmarks.fault_plant import Obligations

SENSORS, START_MS = 5, 1_795_219_200_000


def _promise(messages, *, sent=None):
    at = time.perf_counter()
    acknowledged = {n: at + n for n in range(messages)}
    return Obligations(SENSORS, START_MS, acknowledged_at=acknowledged, sent=messages if sent is None else sent)


def _record(numbers):
    numbers = np.asarray(numbers, dtype=np.int64)
    stored = np.zeros(len(numbers), dtype=STORED_DTYPE)
    stored["sensor"], stored["ts_ms"], stored["value"] = numbers % SENSORS, START_MS + numbers // SENSORS, numbers
    return stored


def test_a_sound_record_is_clean_in_any_order():
    verdict = check(_promise(100), _record(np.random.default_rng(1).permutation(100)), Excuses())
    assert verdict.is_clean
    assert (verdict.acknowledged, verdict.stored) == (100, 100)


def test_what_was_stored_and_never_acknowledged_may_be_there():
    assert check(_promise(90, sent=100), _record(range(100)), Excuses()).is_clean


def test_a_dropped_row_is_missing():
    verdict = check(_promise(100), _record([n for n in range(100) if n not in {17, 99}]), Excuses())
    assert verdict.missing == [17, 99]
    assert not verdict.is_clean


def test_everything_may_be_missing():
    assert check(_promise(3), _record([]), Excuses()).missing == [0, 1, 2]


def test_doubled_rows_are_counted():
    verdict = check(_promise(100), _record([*range(100), 7, 7, 8]), Excuses())
    assert verdict.duplicates == 3
    assert not verdict.is_clean


@pytest.mark.parametrize("value", [100.0, -1.0, 3.5, float("nan"), float("inf")])
def test_a_value_that_was_never_sent_is_a_phantom(value):
    stored = _record(range(101))
    stored["value"][100] = value
    verdict = check(_promise(100), stored, Excuses())
    assert verdict.phantoms == 1
    assert not verdict.is_clean


@pytest.mark.parametrize("column", ["sensor", "ts_ms"])
def test_a_row_in_the_wrong_place_is_altered(column):
    stored = _record(range(100))
    stored[column][42] += 1
    verdict = check(_promise(100), stored, Excuses())
    assert verdict.altered == 1
    assert not verdict.is_clean


def test_only_what_the_broker_acknowledged_just_before_its_death_is_excused():
    promise = _promise(10)
    excuses = Excuses([(promise.acknowledged_at[4], promise.acknowledged_at[6])])
    verdict = check(promise, _record([0, 1, 2, 5, 7, 8, 9]), excuses)
    assert verdict.missing == [3]
    assert (verdict.lost_by_broker, verdict.excused) == (2, 3)
