import numpy as np
import pytest
from scipy import stats

from anomaly import prognosis

HOUR_US = 3_600_000_000


def hourly(days):
    return np.arange(int(days * 24)) * HOUR_US


def test_a_straight_rise_gives_an_interval_around_the_truth():
    covered = 0
    for seed in range(20):
        at = hourly(10)
        days = at / prognosis.DAY_US
        values = 2 + 0.1 * days + np.random.default_rng(seed).normal(size=len(at)) * 0.1
        span = prognosis.time_to_limit(at, values, 5.0)
        assert span is not None
        assert span.low <= span.middle <= span.high
        covered += span.low <= (5 - 2) / 0.1 - days[-1] <= span.high
    assert covered >= 17


def test_exponential_growth_is_prolonged_as_such():
    at = hourly(14)
    days = at / prognosis.DAY_US
    values = 0.5 * np.exp(0.2 * days) * np.exp(np.random.default_rng(1).normal(size=len(at)) * 0.05)
    limit = 0.5 * np.exp(0.2 * 20)
    span = prognosis.time_to_limit(at, values, limit)
    assert span is not None
    assert span.logarithmic
    assert span.middle == pytest.approx(6, abs=1)


def test_a_flat_feature_has_no_estimate():
    given = 0
    for seed in range(40):
        values = 2 + np.random.default_rng(seed).normal(size=240) * 0.1
        given += prognosis.time_to_limit(hourly(10), values, 5.0) is not None
    assert given <= 2


def test_a_falling_feature_or_none_at_all_has_no_estimate():
    at = hourly(10)
    assert prognosis.time_to_limit(at, 5 - at / prognosis.DAY_US * 0.1, 9.0) is None
    assert prognosis.time_to_limit(at, np.full(len(at), np.nan), 9.0) is None
    assert prognosis.time_to_limit(at[:20], np.arange(20.0), 9.0) is None


def test_a_limit_passed_is_no_time_left():
    at = hourly(10)
    span = prognosis.time_to_limit(at, 2 + at / prognosis.DAY_US, 5.0)
    assert span is not None
    assert span.middle == 0
    assert span.low == 0


def test_past_episodes_widen_and_never_narrow():
    at = hourly(10)
    values = 2 + 0.1 * at / prognosis.DAY_US + np.random.default_rng(2).normal(size=len(at)) * 0.1
    plain = prognosis.time_to_limit(at, values, 5.0)
    wide = prognosis.time_to_limit(at, values, 5.0, past_ratios=np.array([0.5, 1.0, 2.0]))
    narrow = prognosis.time_to_limit(at, values, 5.0, past_ratios=np.array([1.0, 1.0, 1.0]))
    assert wide.low < plain.low
    assert wide.high > plain.high
    assert narrow == plain


def test_the_newest_stretch_decides_after_a_bend():
    at = hourly(30)
    days = at / prognosis.DAY_US
    values = np.where(days < 24, 2.0, 2 + 0.5 * (days - 24)) + np.random.default_rng(3).normal(size=len(at)) * 0.05
    span = prognosis.time_to_limit(at, values, 8.0)
    assert span is not None
    assert span.window_days <= 7
    assert span.middle == pytest.approx((8 - 2) / 0.5 - (days[-1] - 24), rel=0.1)


def test_the_same_arguments_give_the_same_interval():
    at = hourly(10)
    values = 2 + 0.1 * at / prognosis.DAY_US + np.random.default_rng(4).normal(size=len(at)) * 0.1
    assert prognosis.time_to_limit(at, values, 5.0) == prognosis.time_to_limit(at, values, 5.0)


def test_mann_kendall_agrees_with_kendalls_tau():
    for seed in range(5):
        values = np.random.default_rng(seed).normal(size=80) + np.arange(80) * 0.01
        expected = stats.kendalltau(np.arange(80), values, alternative="greater", method="asymptotic").pvalue
        assert prognosis.mann_kendall(values) == pytest.approx(expected, rel=0.1)
    assert prognosis.mann_kendall(np.ones(30)) == 1


def test_theil_sen_agrees_with_scipy():
    rng = np.random.default_rng(5)
    days, values = np.sort(rng.random(50)), rng.normal(size=50)
    slope, level = prognosis.theil_sen(days, values)
    assert slope == pytest.approx(stats.theilslopes(values, days).slope)
    assert level == pytest.approx(stats.trim_mean(values - slope * days, 0.2))


def test_health_index_is_about_one_while_healthy_and_goes_on_from_its_level():
    rng = np.random.default_rng(6)
    rows = rng.normal(size=(4000, 6)) * 3 + 10
    health = prognosis.learn_health(rows[:1000])
    index, _ = prognosis.health_index(health, rows)
    assert np.sqrt(np.mean(index[100:] ** 2)) == pytest.approx(1, abs=0.1)
    first, level = prognosis.health_index(health, rows[:777])
    second, _ = prognosis.health_index(health, rows[777:], level)
    np.testing.assert_allclose(np.concatenate([first, second]), index, rtol=0, atol=1e-12)


def test_raised_needs_rows_in_a_row():
    index = np.array([1, 4, 4, 1, 4, 4, 4, 4])
    assert prognosis.raised_at(index, above=3, lasting=3) == 6
    assert prognosis.raised_at(index, above=3, lasting=5) is None
