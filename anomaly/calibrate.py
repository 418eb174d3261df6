r"""Layer 6: from a score to the rate at which healthy machines reach it, and back to the alarm level for a set rate.

Samples follow each other closely, so they say little about how often a level is *newly* reached. What counts is excursions:

    score   __/\___/~~~~\____/\_        peaks over a low level u, one per excursion (declustered)
    level u ‐‐‐‐‐‐‐‐‐‐‐‐‐‐‐‐‐‐‐‐‐

    rate(k) = peaks per channel-day * P(peak >= k | peak >= u)

with the empirical share where there are peaks enough, and a generalised Pareto tail beyond (Coles 2001, peaks over threshold;
fitted by probability-weighted moments, Hosking and Wallis 1987). An excursion counts when it has ended by itself: those that
raised a ticket and passed are among them, a fault that stays is not. Peaks are pooled over all machines by what they measure.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from anomaly.columns import AnyArray, FloatArray, IntArray

LOW_LEVEL = 1.0  # sigma; excursions are counted above this
END_SHARE = 0.6  # and end below this share of it
_LEAST_SHAPE, _MOST_SHAPE = -0.25, 0.25
_TAIL_SHARE = 0.10
_TAIL_LEAST = 40
_FEW = 20
_FEW_SCALE = 0.75  # sigma


@dataclass(frozen=True, slots=True)
class Tail:
    """A generalised Pareto tail: P(S > s) = share * (1 + shape (s - start)/scale)^(-1/shape) for s >= start."""

    start: float
    share: float
    shape: float
    scale: float

    def survival(self, s: float) -> float:
        """Return the share of values beyond s."""
        excess = max(s - self.start, 0.0) / self.scale
        if abs(self.shape) < 1e-9:
            return float(self.share * np.exp(-excess))
        return float(self.share * max(1.0 + self.shape * excess, 0.0) ** (-1.0 / self.shape))

    def level(self, share: float) -> float:
        """Return the value that a share of all values exceeds; the inverse of `survival`."""
        if share >= self.share:
            return self.start
        if abs(self.shape) < 1e-9:
            return float(self.start + self.scale * np.log(self.share / share))
        return float(self.start + self.scale / self.shape * ((self.share / share) ** self.shape - 1.0))


def fit_tail(values: FloatArray) -> Tail:
    """Fit a generalised Pareto tail to the excesses over the 90th percentile, or over less if that leaves under 40.

    Shape clipped to [-0.25, 0.25]: maxima of normal noise end a little shorter than the exponential, and a tail much heavier
    than it comes from faults among the peaks. Needs at least eight values.

    >>> round(fit_tail(np.random.default_rng(0).exponential(1.0, 5000)).scale, 1)
    1.0
    """
    ordered = np.sort(values)
    n = len(ordered)
    k = int(min(n - 1, max(np.ceil(_TAIL_SHARE * n), min(_TAIL_LEAST, n // 2))))
    start = float(ordered[n - k - 1])
    excess = ordered[n - k :] - start
    rank = (np.arange(k, 0, -1) - 0.65) / k  # 1 - F, plotting position
    a0 = float(excess.mean())
    a1 = float(np.mean(rank * excess))
    if a0 <= 0 or a0 - 2 * a1 <= 0:
        return Tail(start, k / n, 0.0, max(a0, 1e-12))
    shape = 2.0 - a0 / (a0 - 2.0 * a1)
    shape = float(np.clip(shape, _LEAST_SHAPE, _MOST_SHAPE))
    return Tail(start, k / n, shape, a0 * (1.0 - shape))


def rank_p(calibration: FloatArray, score: float) -> float:
    """Return the conformal p-value of a score among exchangeable calibration scores."""
    return float((1 + np.count_nonzero(calibration >= score)) / (len(calibration) + 1))


def tail_p(calibration: FloatArray, score: float) -> tuple[float, bool]:
    """Return the p-value of a score by rank or, beyond the sample, by its tail; and whether it is extrapolated."""
    tail = fit_tail(calibration)
    if score <= tail.start:
        return rank_p(calibration, score), False
    return tail.survival(score), bool(score > calibration.max())


def block_maxima(scores: FloatArray, block: int) -> FloatArray:
    """Return the largest score of each whole block; a block without a score is left out."""
    whole = len(scores) // block * block
    blocks = np.where(np.isfinite(scores[:whole]), scores[:whole], -np.inf).reshape(-1, block).max(axis=1)
    return np.asarray(blocks[np.isfinite(blocks)])


def decorrelation(scores: FloatArray) -> int:
    """Return the first lag at which the autocorrelation of the scores falls below 1/e."""
    x = scores[np.isfinite(scores)] - np.nanmean(scores)
    n = len(x)
    spectrum = np.abs(np.fft.rfft(x, 2 * n)) ** 2
    correlation = np.fft.irfft(spectrum)[:n]
    if correlation[0] <= 0:
        return 1
    below = np.flatnonzero(correlation / correlation[0] < np.exp(-1))
    return int(below[0]) if len(below) else n


class PeakPool:
    """Ended excursions of healthy channels by group, and how many channel-days they were watched."""

    def __init__(
        self,
        groups: int,
        *,
        capacity: int = 2048,
        least_days: float,
        trust_days: float,
        default: float,
        lowest: float,
        highest: float,
    ) -> None:
        self._peaks = np.zeros((groups, capacity))
        self._count = np.zeros(groups, dtype=np.int64)
        self._days = np.zeros(groups)
        self._low = np.zeros(groups)
        self._fitted_days = np.zeros(groups)
        self._tails: list[Tail | None] = [None] * groups
        self._least_days = least_days
        self._trust_days = trust_days
        self._default = default
        self._bounds = (lowest, highest)

    @property
    def days(self) -> float:
        """How many channel-days were watched, over all groups."""
        return float(self._days.sum())

    def watch(self, group: IntArray, days: FloatArray, low_peaks: IntArray) -> None:
        """Add time that healthy channels of each group were watched, and how many low peaks were not kept one by one."""
        self._days += np.bincount(group, weights=days, minlength=len(self._days))
        self._low += np.bincount(group, weights=low_peaks, minlength=len(self._days))

    def push(self, group: IntArray, peaks: FloatArray) -> None:
        """Add the peaks of excursions that ended; the oldest make room."""
        capacity = self._peaks.shape[1]
        peaks = np.minimum(
            peaks, self._bounds[1]
        )  # how far beyond every alarm level a peak is says nothing about chance
        for g, peak in zip(group.tolist(), peaks.tolist(), strict=True):
            self._peaks[g, self._count[g] % capacity] = peak
            self._count[g] += 1

    def _tail(self, group: int) -> Tail | None:
        if self._days[group] < self._least_days:
            return None
        if self._tails[group] is None or self._days[group] > 1.05 * self._fitted_days[group]:
            known = self._peaks[group, : min(self._count[group], self._peaks.shape[1])]
            self._fitted_days[group] = self._days[group]
            # a few peaks tell their rate, not their tail
            self._tails[group] = fit_tail(known) if len(known) >= _FEW else Tail(LOW_LEVEL, 1.0, 0.0, _FEW_SCALE)
        return self._tails[group]

    def _per_day(self, group: int) -> float:
        """Return how often per channel-day a peak was seen, two more where there were so few that chance decides."""
        count = float(self._count[group])
        return (count if count >= _FEW else count + 2.0) / float(self._days[group])

    def rate(self, group: int, level: float) -> float | None:
        """Return how often per channel-day a healthy channel newly reaches a level; None while too little was seen."""
        tail = self._tail(group)
        if tail is None:
            return None
        known = self._peaks[group, : min(self._count[group], self._peaks.shape[1])]
        share = float(np.mean(known >= level)) if level <= tail.start and len(known) else tail.survival(level)
        return float(self._per_day(group) * share)

    def level(self, group: int, rate: float) -> float:
        """Return the alarm level that healthy channels reach at a rate per channel-day; a default while too little was seen."""
        lowest, highest = self._bounds
        tail = self._tail(group)
        if tail is None:
            return self._default
        # few peaks in the tail: aim lower by what they leave open
        doubt = 1.0 + 1.0 / np.sqrt(max(tail.share * min(self._count[group], self._peaks.shape[1]), 1.0))
        share = rate / doubt / self._per_day(group)
        shown = float(np.clip(tail.level(share), lowest, highest))
        trust = 1.0 - (self._trust_days / (self._days[group] + self._trust_days)) ** 2
        return float(self._default + trust * (shown - self._default))

    def dump(self) -> dict[str, AnyArray]:
        return {
            "pool.peaks": self._peaks,
            "pool.count": self._count,
            "pool.days": self._days,
            "pool.low": self._low,
            "pool.fitted_days": self._fitted_days,
            "pool.tails": np.array(
                [[np.nan] * 4 if t is None else [t.start, t.share, t.shape, t.scale] for t in self._tails]
            ),
        }

    def load(self, arrays: dict[str, Any]) -> None:
        self._peaks = arrays["pool.peaks"].copy()
        self._count = arrays["pool.count"].copy()
        self._days = arrays["pool.days"].copy()
        self._low = arrays["pool.low"].copy()
        self._fitted_days = arrays["pool.fitted_days"].copy()
        self._tails = [None if np.isnan(row[0]) else Tail(*(float(v) for v in row)) for row in arrays["pool.tails"]]
