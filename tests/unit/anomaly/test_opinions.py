"""Second opinions agree on a fault, not on a healthy window, and say when they cannot tell."""

import numpy as np
import pytest

from anomaly.opinions import AGREES_AT, TooFewRows, second_opinions


def rows(n, seed, *, broken=0.0):
    """Load, temperature that follows it, vibration that follows it; `broken` is added to the temperature."""
    random = np.random.default_rng(seed)
    load = random.choice([0.4, 0.7, 1.0], n)
    return np.stack(
        [30 + 30 * load + random.normal(0, 0.5, n) + broken, 1 + load * 0.5 + random.normal(0, 0.03, n), 20 * load + random.normal(0, 0.2, n)],
        axis=1,
    )  # fmt: skip


@pytest.fixture(scope="module")
def baseline():
    return rows(450, 1)


def test_all_models_agree_on_a_temperature_that_left_its_load(baseline):
    said = {o.model: o for o in second_opinions(baseline, rows(30, 2, broken=12.0))}
    assert set(said) == {"isolation_forest", "pca", "gradient_boosting"}
    assert said["pca"].agrees
    assert said["gradient_boosting"].agrees
    assert all(0 <= o.percentile <= 100 for o in said.values())


def test_no_model_agrees_on_a_healthy_window(baseline):
    assert not any(o.agrees for o in second_opinions(baseline, rows(30, 3)))


def test_the_same_rows_give_the_same_opinions(baseline):
    window = rows(20, 4, broken=3.0)
    assert second_opinions(baseline, window) == second_opinions(baseline, window)


def test_one_channel_is_enough_for_two_models(baseline):
    said = second_opinions(baseline[:, :1], baseline[:10, :1] + 100)
    assert {o.model: o.agrees for o in said} == {"isolation_forest": True, "pca": True} or said[1].agrees
    assert "gradient_boosting" not in {o.model for o in said}


def test_rows_and_channels_that_are_missing_are_left_out(baseline):
    gaps = baseline.copy()
    gaps[::7, 1] = np.nan
    dead = np.full((len(gaps), 1), np.nan)
    window = np.concatenate([rows(12, 5, broken=12.0), np.full((12, 1), np.nan)], axis=1)
    said = second_opinions(np.concatenate([gaps, dead], axis=1), window)
    assert {o.baseline_rows for o in said} == {int(np.isfinite(gaps).all(axis=1).sum())}
    assert any(o.percentile >= AGREES_AT for o in said)


@pytest.mark.parametrize(("n", "m", "says"), [(60, 10, "the baseline"), (450, 2, "the window")])
def test_too_few_rows_are_said(n, m, says):
    with pytest.raises(TooFewRows, match=says):
        second_opinions(rows(n, 1), rows(m, 2))


def test_signals_that_never_move_are_no_ground_for_an_opinion():
    with pytest.raises(TooFewRows, match="signals that move"):
        second_opinions(np.ones((300, 2)), np.ones((10, 2)))
