import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly import mewma

SECOND = 1_000_000


def healthy(rows=600, channels=4, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, channels)) * [1, 10, 0.1, 3][:channels] + 5


@pytest.fixture(scope="module")
def model():
    return mewma.learn(healthy(400))


def scored(model, rows, **how):
    return mewma.score(model, mewma.start(model), rows, **how)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 299), max_size=6))
def test_blocks_of_any_size_score_alike(cuts):
    model = mewma.learn(healthy(400))
    rows = healthy(300, seed=1)
    whole = scored(model, rows)
    state, parts = mewma.start(model), []
    for block in np.split(rows, sorted(set(cuts))):
        part = mewma.score(model, state, block)
        state = part.state
        parts.append(part)
    np.testing.assert_allclose(np.concatenate([p.score for p in parts]), whole.score, rtol=0, atol=1e-9)
    np.testing.assert_allclose(np.concatenate([p.contributions for p in parts]), whole.contributions, rtol=0, atol=1e-9)


def test_sample_by_sample_equals_block_with_instants_and_missing_values(model):
    rows = healthy(200, seed=2)
    rows[50:60, 1] = np.nan
    at = np.cumsum(np.random.default_rng(3).integers(1, 3, 200)) * SECOND
    whole = scored(model, rows, at=at)
    state, scores = mewma.start(model), []
    for row in range(200):
        one = mewma.score(model, state, rows[row : row + 1], at=at[row : row + 1])
        state = one.state
        scores.append(one.score[0])
    np.testing.assert_allclose(scores, whole.score, rtol=0, atol=1e-9)


def test_even_instants_score_as_no_instants(model):
    even = mewma.learn(healthy(400), mewma.Smoothing(time_constant_s=-1 / np.log(1 - 0.05)))
    rows = healthy(200, seed=4)
    by_instant = mewma.score(even, mewma.start(even), rows, at=np.arange(200) * SECOND)
    np.testing.assert_allclose(by_instant.score, scored(even, rows).score, rtol=1e-9)


def test_contributions_sum_to_the_squared_score_and_name_the_shifted_channel(model):
    rows = healthy(200, seed=5)
    rows[100:, 2] += 0.5
    result = scored(model, rows)
    np.testing.assert_allclose(result.contributions.sum(axis=1), result.score**2, rtol=1e-9)
    assert result.contributions[-1].argmax() == 2
    assert model.severity(result.score)[-1] > 5 > model.severity(result.score)[:100].max()


def test_a_louder_channel_is_found_though_its_mean_stays(model):
    rows = healthy(300, seed=6)
    rows[150:, 0] = 5 + 4 * (rows[150:, 0] - 5)
    severity = model.severity(scored(model, rows).score)
    assert severity[250:].min() > 3 > severity[:150].max()


def test_dumped_model_and_state_go_on_bit_identically(model):
    rows = healthy(200, seed=7)
    first = scored(model, rows[:90])
    file = io.BytesIO()
    np.savez(
        file, **{f"m_{k}": v for k, v in model.dump().items()}, **{f"s_{k}": v for k, v in first.state.dump().items()}
    )
    file.seek(0)
    with np.load(file, allow_pickle=False) as arrays:
        again = mewma.Model.restore({k[2:]: arrays[k] for k in arrays if k.startswith("m_")})
        state = mewma.State.restore({k[2:]: arrays[k] for k in arrays if k.startswith("s_")})
    expected = mewma.score(model, first.state, rows[90:])
    assert (mewma.score(again, state, rows[90:]).score == expected.score).all()


def test_a_channel_with_inertia_is_judged_by_its_change():
    rng = np.random.default_rng(8)
    rows = healthy(1200, 3, seed=8)
    rows[:, 2] = np.cumsum(rng.normal(size=1200)) * 0.1
    model = mewma.learn(rows[:400])
    assert model.inert.tolist() == [False, False, True]
    drifted = rows[400:].copy()
    drifted[:, 2] += np.linspace(0, 30, 800)
    assert np.median(model.severity(scored(model, drifted).score)) < 5
    plain = mewma.learn(rows[:400], mewma.Smoothing(memory_factor=1e9))
    assert not plain.inert.any()
    assert np.median(plain.severity(mewma.score(plain, mewma.start(plain), drifted).score)) > 5


def test_a_long_baseline_vouches_for_the_level_of_a_slow_channel():
    x = np.random.default_rng(9).normal(size=(20_000, 2))
    for row in range(1, 20_000):
        x[row, 1] = 0.97 * x[row - 1, 1] + x[row, 1]
    assert mewma.learn(x[:400]).inert.tolist() == [False, True]
    assert mewma.learn(x).inert.tolist() == [False, False]


def test_a_temperature_takes_part_only_over_a_baseline_of_hours():
    kinds = [mewma.Inertia.FAST, mewma.Inertia.THERMAL]
    short = mewma.learn(healthy(400, 2), inertia=kinds)
    assert (scored(short, healthy(100, 2, seed=16)).contributions[:, 1] == 0).all()
    long = mewma.learn(healthy(400, 2), at=np.arange(400) * 100 * SECOND, inertia=kinds)
    assert (scored(long, healthy(100, 2, seed=16)).contributions[:, 1] != 0).any()


def test_a_unit_known_to_be_fast_overrules_the_data():
    rows = healthy(400, 2, seed=17)
    rows[:, 1] = np.cumsum(rows[:, 1] - 5)
    assert mewma.learn(rows).inert.tolist() == [False, True]
    assert mewma.learn(rows, inertia=[mewma.Inertia.FAST] * 2).inert.tolist() == [False, False]


def test_a_kind_for_every_channel_is_demanded():
    with pytest.raises(mewma.WrongChannels, match="1 channels but the model was taught 4"):
        mewma.learn(healthy(400), inertia=[mewma.Inertia.FAST])


def test_a_provisional_model_sees_a_step_and_not_a_drift():
    rows = healthy(1000, seed=15)
    model = mewma.learn(rows[:400], mewma.PROVISIONAL)
    assert model.inert.all()
    drifted, stepped = rows[400:].copy(), rows[400:].copy()
    drifted[:, 0] += np.linspace(0, 20, 600)
    stepped[300:, 0] += 20
    assert model.severity(scored(model, drifted).score).max() < 5
    assert model.severity(scored(model, stepped).score)[300:].max() > 5


def test_memory_of_known_processes():
    rng = np.random.default_rng(10)
    x = np.zeros((20_000, 3))
    x[:, 0] = rng.normal(size=20_000)
    noise = rng.normal(size=20_000)
    for row in range(1, 20_000):
        x[row, 1] = 0.95 * x[row - 1, 1] + noise[row]
    assert mewma.neighbour_correlation(x[:, :2]) == pytest.approx([0, 0.95], abs=0.02)
    lags = mewma.memory(x)
    assert lags[0] == 1
    assert lags[1] == pytest.approx(1 / -np.log(0.95), rel=0.25)
    assert lags[2] == 0


def test_a_masked_channel_counts_as_its_conditional_mean(model):
    rows = healthy(120, seed=11)
    rows[60:, 1] += 500
    masked = scored(model, rows, masked=np.array([False, True, False, False]))
    assert (masked.contributions[:, 1] == 0).all()
    assert masked.observed == pytest.approx(0.75)
    assert model.severity(masked.score)[-1] < 3 < model.severity(scored(model, rows).score)[-1]
    covariance = np.linalg.inv(model.precision)
    kept = model.channel != 1
    away = np.zeros(len(kept))
    away[kept] = np.random.default_rng(12).normal(size=kept.sum())
    away[~kept] = covariance[np.ix_(~kept, kept)] @ np.linalg.solve(covariance[np.ix_(kept, kept)], away[kept])
    expected = away[kept] @ np.linalg.inv(covariance[np.ix_(kept, kept)]) @ away[kept]
    assert away @ model.precision @ away == pytest.approx(expected)


def test_a_channel_never_seen_leaves_the_others_their_verdict(model):
    rows = healthy(100, seed=13)
    rows[:, 3] = np.nan
    result = scored(model, rows)
    assert np.isfinite(result.score).all()
    assert (result.contributions[:, 3] == 0).all()


def test_a_long_gap_starts_anew(model):
    rows = healthy(101, seed=14)
    rows[:100, 0] += 50
    at = np.arange(101) * SECOND
    at[100] += 3600 * SECOND
    result = scored(model, rows, at=at)
    fresh = scored(model, rows[100:], at=at[100:])
    assert result.score[100] == pytest.approx(fresh.score[0])


def test_a_constant_channel_is_left_out():
    rows = healthy(400)
    rows[:, 1] = 7
    model = mewma.learn(rows)
    rows[300:, 1] = 9
    assert (scored(model, rows).contributions[:, 1] == 0).all()


def test_empty_block_changes_nothing(model):
    state = scored(model, healthy(50)).state
    empty = mewma.score(model, state, np.zeros((0, 4)))
    assert len(empty.score) == 0
    assert (empty.state.level == state.level).all()


@pytest.mark.parametrize("rows", [healthy(100), np.full((400, 2), 3.0), np.full((400, 2), np.nan)])
def test_a_baseline_that_teaches_nothing_is_refused(rows):
    with pytest.raises(mewma.BaselineTooShort, match="cannot teach"):
        mewma.learn(rows)


def test_other_channels_are_refused(model):
    with pytest.raises(mewma.WrongChannels, match="3 channels but the model was taught 4"):
        scored(model, np.zeros((5, 3)))
