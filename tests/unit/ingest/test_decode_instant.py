"""Time stamps and the clock policy."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fettle.model import Flag
from fettle.wire import READING_DTYPE
from ingest.decode import BadPayload, ClockPolicy, Reason, Verdict, judge, judge_batch, read_instant

NOW = 1_795_219_200_000_000  # 2026-11-21T00:00:00Z
MINUTE = 60_000_000


@pytest.mark.parametrize(
    ("stamp", "ts_us"),
    [
        (1795219200, NOW),
        (1795219200.25, NOW + 250_000),
        (1795219200000, NOW),
        (1795219200000.5, NOW + 500),
        (1795219200000000, NOW),
        (1795219200000000999, NOW),  # nanoseconds are truncated
        ("1795219200000", NOW),
        ("1795219200.25", NOW + 250_000),
        ("2026-11-21T00:00:00Z", NOW),
        ("2026-11-21t00:00:00z", NOW),
        ("2026-11-21 01:00:00+01:00", NOW),
        ("2026-11-21T00:00:00.123456789Z", NOW + 123_456),
        ("2026-11-21T00:00:00", NOW),
        ("20261121T000000Z", NOW),
        ("2026-11-21", NOW),
    ],
)
def test_units_follow_from_the_magnitude(stamp, ts_us):
    assert read_instant(stamp) == ts_us


@pytest.mark.parametrize(("below", "unit_us"), [(10**11, 10**6), (10**14, 10**3), (10**17, 1)])
def test_the_limits_of_the_magnitudes(below, unit_us):
    assert read_instant(below - 1) == (below - 1) * unit_us
    assert read_instant(below) == (below * unit_us // 1000 if unit_us > 1 else below // 1000)


def test_a_rule_may_name_the_unit_and_the_zone():
    assert read_instant(1795219200, unit="ms") == 1_795_219_200_000
    assert read_instant("2026-11-21T08:00:00", zone="Asia/Shanghai") == NOW
    assert read_instant("2026-07-01T02:00:00", zone="Europe/Berlin") == read_instant("2026-07-01T00:00:00Z")


@pytest.mark.parametrize(
    "stamp",
    [None, True, [], {}, "", "now", "2026-13-01", "x" * 100, 1e30, float("nan"), float("inf"), "9999999999999999999"],
)
def test_what_is_no_time_is_refused(stamp):
    if stamp == "9999999999999999999":  # nanoseconds in the year 2286: far, but a time
        assert read_instant(stamp) == 9_999_999_999_999_999
        return
    with pytest.raises(BadPayload) as caught:
        read_instant(stamp)
    assert caught.value.reason is Reason.BAD_TIMESTAMP


@given(st.datetimes(datetime(1980, 1, 1), datetime(2200, 1, 1)), st.integers(-14 * 60, 14 * 60))
def test_iso_texts_round_trip(at, offset_min):
    aware = at.replace(tzinfo=UTC) - timedelta(minutes=offset_min)
    sign = "-" if offset_min < 0 else "+"
    text = f"{at.isoformat()}{sign}{abs(offset_min) // 60:02}:{abs(offset_min) % 60:02}"
    want = (aware - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert read_instant(text) == want


@given(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary()))
def test_any_input_is_a_time_or_refused(stamp):
    try:
        ts_us = read_instant(stamp)
    except BadPayload:
        return
    assert datetime(1, 1, 1, tzinfo=UTC) <= datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=ts_us)


POLICY = ClockPolicy(future_us=5 * MINUTE, retention_us=1000 * MINUTE, late_us=10 * MINUTE)
CLAMP = ClockPolicy(future_us=5 * MINUTE, retention_us=1000 * MINUTE, late_us=10 * MINUTE, future="clamp")


@pytest.mark.parametrize(
    ("offset", "verdict", "flags"),
    [
        (0, Verdict.STORE, 0),
        (5 * MINUTE, Verdict.STORE, 0),
        (5 * MINUTE + 1, Verdict.FUTURE, 0),
        (-10 * MINUTE, Verdict.STORE, 0),
        (-10 * MINUTE - 1, Verdict.STORE, Flag.LATE),
        (-1000 * MINUTE, Verdict.STORE, Flag.LATE),
        (-1000 * MINUTE - 1, Verdict.BEYOND_RETENTION, 0),
    ],
)
def test_the_clock_policy(offset, verdict, flags):
    judged = judge(NOW + offset, Flag.INEXACT, now=NOW, policy=POLICY)
    assert judged == (verdict, NOW + offset, Flag.INEXACT | flags)


def test_clamping_and_missing_times():
    assert judge(NOW + 6 * MINUTE, 0, now=NOW, policy=CLAMP) == (Verdict.STORE, NOW, Flag.CLAMPED)
    assert judge(None, 0, now=NOW, policy=POLICY) == (Verdict.STORE, NOW, Flag.RECEIVE_TIME)


@given(st.lists(st.integers(-2000 * MINUTE, 20 * MINUTE), max_size=20), st.sampled_from([POLICY, CLAMP]), st.booleans())
def test_a_batch_is_judged_as_its_readings_are(offsets, policy, has_own_times):
    readings = np.zeros(len(offsets), READING_DTYPE)
    readings["ts"] = NOW + np.array(offsets, np.int64)
    now = np.full(len(offsets), NOW, np.int64) + (np.arange(len(offsets)) if has_own_times else 0)
    future, beyond = judge_batch(readings, now=now if has_own_times else NOW, policy=policy)
    for i, offset in enumerate(offsets):
        want = judge(NOW + offset, 0, now=int(now[i]), policy=policy)
        assert (future[i], beyond[i]) == (want.verdict is Verdict.FUTURE, want.verdict is Verdict.BEYOND_RETENTION)
        assert (readings["ts"][i], readings["flags"][i]) == (want.ts_us, want.flags)
