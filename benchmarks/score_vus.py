"""Score quality without a threshold: VUS-PR and ROC-AUC.

VUS-PR after TheDatumOrg/TSB-AD (`TSB_AD/evaluation/basic_metrics.py`): the area under a precision–recall curve whose
labels have soft borders of growing width, averaged over the widths.
"""

import numpy as np
from numpy.typing import NDArray

from benchmarks.score_skab import segments

Floats = NDArray[np.float64]
Bits = NDArray[np.bool_]


def roc_auc(faulty: Bits, score: Floats) -> float:
    """Return the probability that a faulty row scores above a normal one, ties counting half."""
    from scipy.stats import rankdata

    positives, count = int(faulty.sum()), len(faulty)
    if not 0 < positives < count:
        raise ValueError("ROC-AUC needs rows of both kinds")
    ranks = rankdata(score)
    return float((ranks[faulty].sum() - positives * (positives + 1) / 2) / (positives * (count - positives)))


def vus_pr(faulty: Bits, score: Floats, *, window: int = 60, thresholds: int = 100) -> float:
    """Return the mean over border widths 0 … window of the range-aware average precision."""
    count = len(score)
    true_segments = segments(faulty)
    descending = np.sort(score)[::-1]
    cuts = descending[np.linspace(0, count - 1, thresholds).astype(int)]
    predictions = score[None, :] >= cuts[:, None]
    predicted = predictions.sum(axis=1)
    positives = int(faulty.sum())
    precisions = np.zeros(window + 1)
    for width in range(window + 1):
        half = width // 2
        soft = np.zeros(count)
        for first, last in true_segments:
            for distance in range(1, half + 1):
                amount = np.sqrt(1 - distance / width)
                if first - distance >= 0:
                    soft[first - distance] += amount
                if last + distance < count:
                    soft[last + distance] += amount
        soft = np.minimum(soft, 1.0)
        soft[faulty] = 1.0
        labels = np.where(faulty[None, :], 1.0, soft[None, :] * predictions)
        hits = (labels * predictions).sum(axis=1)
        recall = np.minimum(1.0, hits / ((positives + labels.sum(axis=1)) / 2))
        extended = _extend(true_segments, half, count)
        found = np.array([[row[first : last + 1].any() for first, last in extended] for row in predictions])
        recall *= found.mean(axis=1)
        precision = hits / predicted
        precisions[width] = float((np.diff(recall, prepend=0.0) * precision).sum())
    return float(precisions.mean())


def _extend(ranges: list[tuple[int, int]], half: int, count: int) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for first, last in ranges:
        begin, end = max(first - half, 0), min(last + half, count - 1)
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], end)
        else:
            merged.append((begin, end))
    return merged
