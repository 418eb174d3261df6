import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly import conformal

MINUTE = 60_000_000
SMALL = conformal.Views(start=20, means=(5, 12), shapes=60, capacity=200)


def signal(rows=400, seed=0):
    rng = np.random.default_rng(seed)
    return np.round(np.sin(np.arange(rows) / 20) + rng.normal(size=rows) * 0.2, 2), np.arange(rows) * 30 * MINUTE


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 399), max_size=5))
def test_blocks_of_any_size_score_alike_through_dumps(cuts):
    values, at = signal()
    whole = conformal.Novelty(SMALL).fold(values, at)
    detector, parts = conformal.Novelty(SMALL), []
    for rows in np.split(np.arange(400), sorted(set(cuts))):
        parts.append(detector.fold(values[rows], at[rows]).parts)
        file = io.BytesIO()
        np.savez(file, **detector.dump())
        file.seek(0)
        with np.load(file, allow_pickle=False) as arrays:
            detector = conformal.Novelty.restore(dict(arrays), SMALL)
    assert (np.concatenate(parts) == whole.parts).all()
    assert (whole.parts.sum(axis=1) == whole.score).all()


def test_the_value_view_is_the_rank_of_the_distance_to_the_fifth_neighbour():
    values, at = signal(150)
    views = conformal.Views(start=20)
    surprise = conformal.Novelty(views).fold(values, at).parts[:, 0]
    distances = [
        float(np.sort(np.abs(values[:row] - values[row]))[views.neighbours - 1]) if row >= views.start else 0.0
        for row in range(150)
    ]
    for row in range(1, 150):
        past = np.array(distances[:row])
        expected = np.log10((row + 1) / (1 + (past >= distances[row]).sum()))
        if distances[row] > past.max() > 0:
            expected += views.record_bonus * min(views.record_decades, np.log10(distances[row] / past.max()))
        assert surprise[row] == pytest.approx(expected, abs=1e-12)


def test_scoring_changes_nothing():
    values, at = signal(100)
    detector = conformal.Novelty(SMALL)
    detector.fold(values, at)
    before = detector.dump()
    first = detector.score(9.0, int(at[-1]) + MINUTE)
    assert (detector.score(9.0, int(at[-1]) + MINUTE) == first).all()
    after = detector.dump()
    assert all((before[name] == after[name]).all() for name in before)


def test_fold_is_score_then_learn():
    values, at = signal(120)
    folded = conformal.Novelty(SMALL).fold(values, at)
    detector = conformal.Novelty(SMALL)
    for row in range(120):
        assert (detector.score(values[row], int(at[row])) == folded.parts[row]).all()
        detector.learn(values[row], int(at[row]))


def test_a_missing_sample_scores_zero_and_leaves_the_rest_as_they_are():
    values, at = signal(200)
    holed = np.insert(values, 100, np.nan)
    instants = np.insert(at, 100, at[100])
    scored = conformal.Novelty(SMALL).fold(holed, instants)
    assert scored.score[100] == 0
    assert (np.delete(scored.score, 100) == conformal.Novelty(SMALL).fold(values, at).score).all()


def test_an_unlearned_sample_teaches_nothing():
    values, at = signal(200)
    spiked = np.insert(values, 100, 50.0)
    instants = np.insert(at, 100, at[100])
    scored = conformal.Novelty(SMALL).fold(spiked, instants, learned=np.arange(201) != 100)
    assert scored.score[100] > 5
    assert (np.delete(scored.score, 100) == conformal.Novelty(SMALL).fold(values, at).score).all()


def test_a_missing_daily_peak_is_seen_by_the_time_of_day_and_not_by_the_value():
    rows = 48 * 20
    at = np.arange(rows) * 30 * MINUTE
    of_day = np.arange(rows) % 48
    values = np.where((of_day > 20) & (of_day < 44), 5.0, 1.0) + np.random.default_rng(1).normal(size=rows) * 0.1
    values[48 * 18 + 21 : 48 * 18 + 44] = 1.0
    parts = conformal.Novelty().fold(values, at).parts[48 * 18 + 25]
    assert parts[-1] > 1.5 > parts[0]


def test_memory_is_bounded():
    values, at = signal(900)
    detector = conformal.Novelty(SMALL)
    detector.fold(values, at)
    sizes = {name: len(np.atleast_1d(array)) for name, array in detector.dump().items()}
    assert max(sizes.values()) <= SMALL.capacity
    assert sizes["shapes"] <= 2 * SMALL.shapes


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 5), max_size=60), st.integers(1, 12), st.integers(0, 60))
def test_the_gate_passes_only_records_of_the_last_samples(scores, hold, cut):
    scores = np.array(scores, dtype=float)
    expected = [
        s if row == 0 or s > scores[max(0, row - hold) : row].max(initial=-1) else 0 for row, s in enumerate(scores)
    ]
    gate = conformal.RecordGate(hold)
    first = gate.fold(scores[:cut])
    again = conformal.RecordGate.restore(gate.dump())
    assert np.concatenate([first, again.fold(scores[cut:])]).tolist() == expected
