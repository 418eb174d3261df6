import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from benchmarks import score_vus


def test_roc_auc_agrees_with_scikit_learn_ties_included():
    rng = np.random.default_rng(0)
    faulty, score = rng.random(500) < 0.3, np.round(rng.random(500), 1)
    assert score_vus.roc_auc(faulty, score) == pytest.approx(roc_auc_score(faulty, score))


def test_roc_auc_needs_both_kinds():
    with pytest.raises(ValueError, match="both kinds"):
        score_vus.roc_auc(np.zeros(5, bool), np.arange(5.0))


def test_a_good_score_beats_a_random_one_and_a_late_one_lies_between():
    rng = np.random.default_rng(1)
    faulty = np.zeros(1000, bool)
    faulty[400:600] = True
    noise = rng.random(1000) * 0.1
    good = score_vus.vus_pr(faulty, faulty + noise)
    late = score_vus.vus_pr(faulty, np.roll(faulty, 60) + noise)
    chance = score_vus.vus_pr(faulty, noise)
    assert good > 0.9 > late > chance
    assert chance < 0.4


def test_without_borders_it_is_the_average_precision_at_the_thresholds():
    rng = np.random.default_rng(2)
    faulty = np.zeros(200, bool)
    faulty[50:90] = True
    score = rng.permutation(200).astype(float) + 60 * faulty
    cuts = np.sort(score)[::-1][np.linspace(0, 199, 100).astype(int)]
    before = area = 0.0
    for cut in cuts:
        predicted = score >= cut
        recall = (predicted & faulty).sum() / 40
        area += (recall - before) * (predicted & faulty).sum() / predicted.sum()
        before = recall
    assert score_vus.vus_pr(faulty, score, window=0) == pytest.approx(area)
