"""A device whose clock is wrong is a sensor fault; late data is not."""

import numpy as np
import pytest

from fettle.model import FindingKind, Flag, Quality
from fettle.wire import READING_DTYPE

MINUTE = 60_000_000


def minutes(plant, engine, *, first, last, skew_us=0, received=None, flags=0):
    """Fold a minute at a time: one reading of each sensor of machine 1, time stamps ahead by `skew_us`."""
    events = []
    random = np.random.default_rng(first)
    for k in range(first, last):
        now = plant.START_US + k * MINUTE
        rows = np.zeros(3, dtype=READING_DTYPE)
        rows["sensor_id"], rows["quality"], rows["flags"] = [1, 2, 3], Quality.GOOD, flags
        rows["ts"] = now + skew_us
        rows["value"] = [40.0, 1.2, 20.0] * np.exp(random.normal(0, 0.01, 3))
        events += engine.fold(rows, (received(k) if received else now) + 400_000)
    return [e for e in events if e.finding.kind is FindingKind.SENSOR]


@pytest.mark.parametrize("skew_s", [-600, -180, 180])
def test_a_clock_that_was_set_wrong_is_one_sensor_finding_that_says_by_how_much(plant, skew_s):
    engine = plant.engine_for()
    assert minutes(plant, engine, first=0, last=60) == []
    events = minutes(plant, engine, first=60, last=130, skew_us=skew_s * 1_000_000)
    assert [(e.change, e.finding.detector) for e in events] == [("raised", "skew")]
    head = events[0].finding.evidence["contributions"][0]
    assert head["measured"] == pytest.approx(-skew_s, abs=5)
    assert head["expected"] == pytest.approx(0.4, abs=1)
    assert head["unit"] == "s"
    back = minutes(plant, engine, first=140, last=170)
    assert [e.change for e in back] == ["cleared"]


def test_times_of_the_future_that_were_clamped_are_a_wrong_clock_too(plant):
    engine = plant.engine_for()
    minutes(plant, engine, first=0, last=60)
    events = minutes(plant, engine, first=60, last=110, flags=Flag.CLAMPED)
    assert [e.finding.detector for e in events] == ["skew"]


def test_a_skew_of_less_than_two_periods_says_nothing(plant):
    engine = plant.engine_for()
    minutes(plant, engine, first=0, last=60)
    assert minutes(plant, engine, first=60, last=200, skew_us=-90 * 1_000_000) == []


def test_a_backlog_that_drains_after_an_outage_is_no_wrong_clock(plant):
    engine = plant.engine_for()
    minutes(plant, engine, first=0, last=60)
    # two hours held back come within a minute
    arrived = plant.START_US + 180 * MINUTE
    assert minutes(plant, engine, first=60, last=180, received=lambda k: arrived + (k - 60) * 500_000) == []
    assert minutes(plant, engine, first=181, last=240) == []


def test_a_link_that_is_always_slow_is_usual(plant):
    engine = plant.engine_for()
    slow = lambda k: plant.START_US + k * MINUTE + 20 * MINUTE  # noqa: E731 -- twenty minutes late, always
    assert minutes(plant, engine, first=0, last=150, received=slow) == []


def test_history_and_batches_without_a_time_of_receipt_are_not_judged(plant):
    engine = plant.engine_for()
    minutes(plant, engine, first=0, last=60)
    assert minutes(plant, engine, first=60, last=130, skew_us=-600_000_000, flags=Flag.HISTORICAL) == []
    engine = plant.engine_for()
    assert minutes(plant, engine, first=0, last=130, received=lambda _: -400_000) == []
