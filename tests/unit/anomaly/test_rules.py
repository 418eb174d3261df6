"""The small parts: policy, ticks, tables, limits, fits, calibration."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomaly import calibrate, limits, model, ticks
from anomaly.columns import NEVER, Columns, ForeignState, Groups, column
from anomaly.finding import MachineMeta, SensorMeta, finding_key
from anomaly.policy import advance_alarms
from anomaly.state import Alarms
from fettle.model import FaultFamily, SignalKind

# -- policy


@given(st.lists(st.sampled_from(["over", "between", "under"]), max_size=80), st.integers(1, 4), st.integers(1, 4))
def test_an_alarm_is_raised_once_and_cleared_only_after(levels, on, off):
    alarms = Alarms()
    rows = alarms.add(1)
    changes = []
    over_run = under_run = 0
    for i, level in enumerate(levels):
        raised, cleared = advance_alarms(
            alarms,
            rows,
            at_us=np.array([i]),
            is_over=np.array([level == "over"]),
            is_under=np.array([level == "under"]),
            on_count=on,
            off_count=off,
        )
        over_run = over_run + 1 if level == "over" else 0
        under_run = under_run + 1 if level == "under" else 0
        if len(raised):
            assert over_run >= on
            assert alarms.since[0] == i - over_run + 1
            changes.append("raised")
        if len(cleared):
            assert under_run >= off
            changes.append("cleared")
            assert alarms.since[0] == NEVER
    assert changes == [("raised", "cleared")[k % 2] for k in range(len(changes))]


def test_the_onset_is_the_first_sample_of_the_excursion():
    alarms = Alarms()
    rows = alarms.add(1)
    for i, over in enumerate([False, True, False, True, True, True]):
        raised, _ = advance_alarms(
            alarms,
            rows,
            at_us=np.array([i]),
            is_over=np.array([over]),
            is_under=np.array([not over]),
            on_count=3,
            off_count=1,
        )
    assert len(raised) == 1
    assert alarms.since[0] == 3


# -- ticks


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 20)), max_size=60))
def test_ticks_hold_each_sensor_once_and_keep_each_sensors_order(samples):
    rows = np.array([r for r, _ in samples], dtype=np.int64)
    ts = np.array([t for _, t in samples], dtype=np.int64)
    order, ranges = ticks.cut(rows, ts)
    assert sorted(order.tolist()) == list(range(len(samples)))
    assert [a for a, _ in ranges] == [0, *(b for _, b in ranges)][: len(ranges)]
    last = {}
    for start, end in ranges:
        tick = order[start:end]
        assert np.array_equal(np.unique(rows[tick]), rows[tick])
        for k in tick:
            assert last.get(rows[k], -1) <= ts[k]
            last[rows[k]] = ts[k]


def test_group_median_ignores_what_is_missing():
    values = np.array([1.0, 5.0, np.nan, 3.0, np.nan])
    out = ticks.group_median(values, np.array([0, 0, 0, 0, 1]), 3)
    assert out[0] == 3.0
    assert np.isnan(out[1:]).all()


# -- tables


class Pets(Columns):
    legs = column("i4", 4)
    weight = column("f8", float("nan"), (2,))


def test_tables_grow_with_defaults_and_come_back_the_same():
    pets = Pets()
    pets.add(3)
    pets.weight[1] = (2.0, 3.0)
    pets.add(40)
    assert pets.legs.tolist() == [4] * 43
    again = Pets()
    again.load("pet", pets.dump("pet"))
    assert np.array_equal(again.weight, pets.weight, equal_nan=True)


def test_a_column_of_another_type_is_refused():
    pets = Pets()
    pets.add(1)
    arrays = pets.dump("pet")
    arrays["pet.legs"] = arrays["pet.legs"].astype("f4")
    with pytest.raises(ForeignState, match=r"pet\.legs"):
        Pets().load("pet", arrays)


def test_groups_gather_rows_of_owners_in_the_order_asked():
    groups = Groups(np.array([1, 0, 1, 2]), 4)
    rows, position = groups.rows(np.array([2, 1]))
    assert rows.tolist() == [3, 0, 2]
    assert position.tolist() == [0, 1, 1]
    assert groups.of(3).tolist() == []


# -- limits


def test_zones_name_their_table_and_whether_it_is_assumed():
    table = limits.shipped_limits().zones(MachineMeta(1, "P", iso_class="20816-3-medium-rigid"))
    assert [table.zone(v) for v in (1.0, 2.0, 3.0, 5.0)] == list("ABCD")
    assert not table.is_assumed
    assert limits.shipped_limits().zones(MachineMeta(1, "P")).is_assumed


def test_every_row_of_the_shipped_table_has_a_source():
    for row in limits.shipped_limits().body["vibration"]["rows"].values():
        assert row["source"]


def test_an_unknown_class_says_which_are_known():
    with pytest.raises(limits.UnknownIsoClass, match="10816-1-II"):
        limits.shipped_limits().zones(MachineMeta(1, "P-7", iso_class="nonsense"))


@pytest.mark.parametrize("text", ["nonsense", "[vibration]\ndefault = 'x'", "[limits]\n"])
def test_a_bad_limits_file_is_named(text):
    with pytest.raises(limits.BadLimitsFile, match=r"mine\.toml"):
        limits.read_limits(text, path="mine.toml")


def test_the_limit_of_a_current_follows_the_nameplate():
    sensor = SensorMeta(1, 1, "x", SignalKind.CURRENT, "A")
    assert limits.shipped_limits().alarm(sensor, MachineMeta(1, "P", rated_current_a=10.0))[0] == pytest.approx(11.5)
    assert limits.shipped_limits().alarm(sensor, MachineMeta(1, "P"))[0] == float("inf")


def test_temperature_limits_follow_the_unit():
    alarm = limits.shipped_limits().alarm
    values = [
        alarm(SensorMeta(1, 1, "x", SignalKind.TEMPERATURE, u), MachineMeta(1, "P"))[0] for u in ("°C", "°F", "K")
    ]
    assert values == pytest.approx([105.0, 221.0, 378.15])


# -- models


def test_a_third_of_bad_rows_far_off_moves_the_fit_by_no_more_than_their_bounded_pull():
    random = np.random.default_rng(0)
    n = 900
    x = np.column_stack([np.ones(n), random.uniform(0, 1, n), random.normal(size=n)])
    y = 3.0 + 10.0 * x[:, 1] + random.normal(0, 0.5, n)
    y[random.random(n) < 0.3] += 15.0
    fit = model.fit_robust(x, y, np.array([0, 1, 2]))
    at = np.array([1.0, 0.5, 0.0])
    assert at @ fit.coefficients == pytest.approx(8.0, abs=1.3)  # least squares: 12.5
    assert fit.sigma < 2.5
    assert fit.coefficients[1] == pytest.approx(10.0, abs=1.0)


def test_a_rare_mode_is_kept_in_the_fit():
    random = np.random.default_rng(1)
    n = 600
    on = random.random(n) > 0.06
    load = np.where(on, random.uniform(0.4, 1.0, n), 0.0)
    x = np.column_stack([np.ones(n), load, load**2])
    y = 20 + 35 * load**1.5 + random.normal(0, 0.3, n)
    fit = model.fit_robust(x, y, np.array([0, 1, 2]))
    assert (x @ fit.coefficients)[~on].mean() == pytest.approx(20.0, abs=1.0)


def test_a_column_that_never_changes_gets_no_coefficient():
    x = np.column_stack([np.ones(50), np.full(50, 7.0)])
    fit = model.fit_robust(x, np.full(50, 2.0) + np.random.default_rng(0).normal(0, 0.1, 50), np.array([0, 1]))
    assert fit.coefficients[1] == 0.0
    assert fit.coefficients[0] == pytest.approx(2.0, abs=0.1)


def test_smoothing_starts_anew_after_a_gap_and_waits_through_missing_values():
    at = np.array([0, 1, 2, 100, 101]) * 60_000_000
    residual = np.array([1.0, np.nan, 1.0, 1.0, 1.0])
    out = model.smooth(residual, at, step_s=60.0, tau_s=120.0, reseed_gap_s=1200.0)
    one = 1 - np.exp(-0.5)
    assert np.isnan(out[1])
    assert out[0] == pytest.approx(one)
    assert out[2] == pytest.approx(one + (1 - np.exp(-1.0)) * (1 - one))
    assert out[3] == pytest.approx(one)


def test_a_slope_and_a_constant_have_their_lag():
    lag = np.full((1, 6), np.nan)
    load = np.array([0.5])
    lag = model.step_lag(lag, load, np.array([600.0]))
    assert lag[0].tolist() == [0.5] * 3 + [0.25] * 3
    for _ in range(500):
        lag = model.step_lag(lag, np.array([1.0]), np.array([600.0]))
    assert lag[0] == pytest.approx([1.0] * 6, abs=1e-6)


# -- calibration


@given(st.floats(0.0, 0.45), st.floats(0.5, 3.0), st.floats(1e-6, 0.1))
def test_a_tails_level_undoes_its_survival(shape, scale, share):
    tail = calibrate.Tail(start=1.0, share=0.1, shape=shape, scale=scale)
    assert tail.survival(tail.level(share)) == pytest.approx(share, rel=1e-6)


def test_a_heavy_tail_is_seen_as_heavy():
    random = np.random.default_rng(0)
    heavy = calibrate.fit_tail(random.pareto(3.0, 20_000))
    light = calibrate.fit_tail(random.exponential(1.0, 20_000))
    assert heavy.shape == pytest.approx(1 / 3, abs=0.1)
    assert light.shape < 0.06


def test_p_values_say_when_they_are_extrapolated():
    scores = np.random.default_rng(0).exponential(1.0, 1000)
    inside, is_extrapolated = calibrate.tail_p(scores, 1.0)
    assert inside == pytest.approx(np.exp(-1), abs=0.05)
    assert not is_extrapolated
    beyond, is_extrapolated = calibrate.tail_p(scores, 20.0)
    assert is_extrapolated
    assert 0 < beyond < 1e-5


@pytest.mark.parametrize("phi", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("rate", [1e-2, 1e-3, 1e-4])
def test_block_maxima_hold_a_set_rate_whatever_the_memory_of_the_noise(phi, rate):
    from scipy.signal import lfilter

    random = np.random.default_rng(int(phi * 100))
    x = np.abs(lfilter([np.sqrt(1 - phi**2)], [1, -phi], random.normal(size=3_000_000)))
    block = 3 * calibrate.decorrelation(x[:100_000])
    maxima = calibrate.block_maxima(x, block)
    known, fresh = maxima[: len(maxima) // 3], maxima[len(maxima) // 3 :]
    level = calibrate.fit_tail(known).level(rate)
    realised = max(np.mean(fresh >= level), 0.5 / len(fresh))
    tolerance = 2.0 + 3.0 / np.sqrt(max(rate * len(known), 1.0))
    assert 1 / tolerance <= realised / rate <= tolerance


def test_the_key_of_a_finding_depends_on_machine_family_and_onset_alone():
    one = finding_key(machine_id=1, family=FaultFamily.BEARING, onset_us=5)
    assert one == finding_key(machine_id=1, family=FaultFamily.BEARING, onset_us=5)
    others = {
        finding_key(machine_id=2, family=FaultFamily.BEARING, onset_us=5),
        finding_key(machine_id=1, family=FaultFamily.OVERLOAD, onset_us=5),
        finding_key(machine_id=1, family=FaultFamily.BEARING, onset_us=6),
    }
    assert one not in others
    assert len(others) == 3
