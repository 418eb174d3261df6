"""Late, doubled and reordered: every reading still arrives, and exactly as often as it should."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from simulators.api import Fleet, deliveries, load_scenario
from simulators.disturbances import Disturbance, Where

MINUTE = 60_000_000
HOUR = 60 * MINUTE


def fleet_with(*disturbances):
    scenario = load_scenario("quiet-day")
    start = scenario.start_us
    made = tuple(
        Disturbance(
            kind=kind,
            where=Where(machine=machine),
            start_us=start + a * MINUTE,
            end_us=start + b * MINUTE,
            size=size,
            delay_s=delay_s,
        )
        for kind, machine, a, b, size, delay_s in disturbances
    )
    return Fleet(replace(scenario, disturbances=made), machines=3), start


def rows_of(array):
    return sorted(
        zip(
            array["machine"].tolist(),
            array["signal"].tolist(),
            array["ts"].tolist(),
            array["value"].tolist(),
            strict=True,
        )
    )


def test_without_disturbance_everything_arrives_at_once():
    fleet, start = fleet_with()
    got = deliveries(fleet, start, start + HOUR)
    assert got.size == 3 * 3 * 60
    np.testing.assert_array_equal(got["deliver_us"], got["ts"])
    assert (np.diff(got["deliver_us"]) >= 0).all()


def test_an_outage_holds_back_and_loses_nothing():
    fleet, start = fleet_with(("network_outage", "P-102", 10, 40, 1.0, 0.0))
    plain, _ = fleet_with()
    during = deliveries(fleet, start + 10 * MINUTE, start + 40 * MINUTE)
    assert set(during["machine"].tolist()) == {0, 2}
    whole = deliveries(fleet, start, start + HOUR)
    assert rows_of(whole) == rows_of(deliveries(plain, start, start + HOUR))
    late = whole[whole["deliver_us"] != whole["ts"]]
    assert set(late["deliver_us"].tolist()) == {start + 40 * MINUTE}
    assert late.size == 30 * 3


def test_duplicates_are_the_share_and_equal_their_first():
    fleet, start = fleet_with(("duplicates", None, 0, 2000, 0.3, 0.0))
    got = deliveries(fleet, start, start + 24 * HOUR)
    keys, counts = np.unique(got[["machine", "signal", "ts", "value"]], return_counts=True)
    assert set(counts.tolist()) == {1, 2}
    assert 0.27 < (counts == 2).mean() < 0.33
    assert keys.size >= 3 * 3 * 1439  # one of the last may still be on its way


def test_reordering_delays_and_changes_the_order():
    fleet, start = fleet_with(("reordering", None, 0, 2000, 0.2, 600.0))
    plain, _ = fleet_with()
    got = deliveries(fleet, start, start + 25 * HOUR)
    delay = got["deliver_us"] - got["ts"]
    assert delay.min() == 0
    assert 0.17 < (delay > 0).mean() < 0.23
    assert delay.max() < 600_000_000
    one = got[(got["machine"] == 0) & (got["signal"] == 0)]["ts"]
    assert (np.diff(one) < 0).any()
    span = start, start + 24 * HOUR
    assert [r for r in rows_of(got) if span[0] <= r[2] < span[1]] == rows_of(deliveries(plain, *span))


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(1, 299), min_size=1, max_size=6, unique=True))
def test_chunks_cover_every_delivery_once(cuts):
    fleet, start = fleet_with(
        ("network_outage", "P-101", 30, 120, 1.0, 0.0),
        ("network_outage", "P-102", 100, 101, 1.0, 0.0),
        ("duplicates", None, 0, 300, 0.2, 0.0),
        ("reordering", "P-103", 20, 200, 0.5, 900.0),
    )
    whole = deliveries(fleet, start, start + 300 * MINUTE)
    edges = [0, *sorted(cuts), 300]
    parts = [deliveries(fleet, start + a * MINUTE, start + b * MINUTE) for a, b in pairwise(edges)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_missing_values_are_not_delivered():
    scenario = load_scenario("reference-fleet")
    fleet = Fleet(scenario, machines=1)
    assert deliveries(fleet, scenario.start_us - HOUR, scenario.start_us).size == 0
