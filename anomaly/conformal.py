"""Novelty of one signal, judged against its own past by rank: online conformal scores (ISO 13374 block SD).

Nothing is fitted and nothing is assumed about the distribution. Each sample is looked at in several views; a view asks
how far the sample lies from its nearest neighbours among everything seen before, or from its hour of the day. The rank
of that distance among all earlier distances is a p-value, −log₁₀ p its surprise, and the surprises are summed:

    sample ─┬─▶ value          distance to the nearest past values ──┐
            ├─▶ shape of 5     distance to the nearest past shapes   ├─▶ rank ─▶ −log₁₀ p ─▶ sum ─▶ record gate
            ├─▶ mean of 20, 60 distance to the nearest past means    │
            └─▶ time of day    z against its half hour ──────────────┘

The sum is a score, not a p-value: views depend on each other and samples on their past; calibrate it before a verdict.
The record gate lets a score count only if it beats everything in the last `hold` samples, so that one excursion speaks
once and again only when it grows worse.

Laxhammar, Falkman, "Conformal prediction for distribution-independent anomaly detection in streaming vessel data"
(2010); Burnaev, Ishimtsev, "Conformalized density- and distance-based anomaly detection in time-series data" (2016).
"""

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from math import fsum, inf, log10, sqrt
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Instants = NDArray[np.int64]
Mask = NDArray[np.bool_]

DAY_US = 86_400_000_000
GLOBAL_WEIGHT = 0.002
"""Weight of the newest sample in the signal's overall mean and variance, after as many samples as its inverse."""


@dataclass(frozen=True, slots=True)
class Views:
    """What the detector looks at; samples are assumed to come at about equal steps.

    Attributes:
        neighbours: k, how many nearest past samples make a neighbourhood; one alone would let a single earlier fault
            hide the next.
        start: samples before the first verdict of a view.
        capacity: samples remembered; older ones are forgotten.
        shape: samples in a shape.
        shapes: past shapes a shape is compared with, the newest ones.
        means: lengths of the running means, in samples.
        day_bins: parts of the day with a level of their own.
        day_weight: weight of the newest sample in such a part.
        record_bonus: surprise added per factor 10 by which a distance beats every earlier one, since ranks alone cannot
            tell a record from a much larger record.
        record_decades: most factors of 10 that count.
    """

    neighbours: int = 5
    start: int = 100
    capacity: int = 25_600
    shape: int = 5
    shapes: int = 3_000
    means: tuple[int, ...] = (20, 60)
    day_bins: int = 48
    day_weight: float = 0.05
    record_bonus: float = 2.0
    record_decades: float = 3.0

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the views, in the order of `Scored.parts`."""
        return ("value", "shape", *(f"mean of {length}" for length in self.means), "time of day")


@dataclass(frozen=True, slots=True)
class Scored:
    """Scores of a block of n samples.

    Attributes:
        score: (n,) sum of surprises, higher is worse; 0 where the sample is missing.
        parts: (n, views) the surprises; rows sum to `score`.
    """

    score: Floats
    parts: Floats


class _History:
    """The newest `capacity` numbers, in order of arrival and sorted."""

    __slots__ = ("arrived", "capacity", "ranked")

    def __init__(self, capacity: int, values: Floats | None = None) -> None:
        self.capacity = capacity
        self.arrived: deque[float] = deque([] if values is None else values.tolist())
        self.ranked: list[float] = sorted(self.arrived)

    def add(self, value: float) -> None:
        self.arrived.append(value)
        insort(self.ranked, value)
        if len(self.arrived) > self.capacity:
            del self.ranked[bisect_left(self.ranked, self.arrived.popleft())]

    def distance(self, value: float, neighbours: int) -> float:
        """Return the distance to the k-th nearest number."""
        at = bisect_left(self.ranked, value)
        near = sorted(abs(other - value) for other in self.ranked[max(0, at - neighbours) : at + neighbours])
        return near[min(neighbours, len(near)) - 1]

    def surprise(self, value: float, views: Views) -> float:
        """Return −log₁₀ of the rank p-value, with the bonus for a record."""
        count = len(self.ranked)
        beaten_by = count - bisect_left(self.ranked, value)
        surprise = log10((count + 1) / (1 + beaten_by))
        if count and value > self.ranked[-1] > 0:
            surprise += views.record_bonus * min(views.record_decades, log10(value / self.ranked[-1]))
        return surprise


class Novelty:
    """Judge one signal sample by sample; `fold` scores, then learns.

    >>> signal = np.sin(np.arange(600.0))
    >>> signal[500] = 3.0
    >>> scored = Novelty().fold(signal, np.arange(600) * 60_000_000)
    >>> int(scored.score[100:].argmax())
    400
    """

    def __init__(self, views: Views | None = None) -> None:
        self.views = views or Views()
        capacity = self.views.capacity
        self._values = _History(capacity)
        self._means = [_History(capacity) for _ in self.views.means]
        self._young: list[deque[float]] = [deque() for _ in self.views.means]
        self._ranks = [_History(capacity) for _ in self.views.names]
        self._recent: deque[float] = deque(maxlen=max(self.views.shape, *self.views.means))
        self._shapes = np.zeros((2 * self.views.shapes, self.views.shape))
        self._shape_count = 0
        self._young_shapes: deque[Floats] = deque()
        self._day_mean = np.full(self.views.day_bins, np.nan)
        self._day_variance = np.zeros(self.views.day_bins)
        self._mean, self._variance, self._seen = 0.0, 0.0, 0

    def score(self, value: float, at: int) -> Floats:
        """Return the surprise of each view for one sample at an instant (µs); changes nothing."""
        if not np.isfinite(value):
            return np.zeros(len(self.views.names))
        return self._surprises(self._distances(value, at))

    def learn(self, value: float, at: int) -> None:
        """Remember one sample; a missing one leaves everything as it is."""
        if np.isfinite(value):
            self._remember(value, at, self._distances(value, at))

    def fold(self, values: Floats, at: Instants, *, learned: Mask | None = None) -> Scored:
        """Score each sample against everything before it, then learn it, in order of time.

        Args:
            values: (n,) samples, NaN where missing.
            at: (n,) instants in microseconds since 1970 UTC.
            learned: (n,) False for samples that must not be remembered, such as those of a faulty sensor.
        """
        parts = np.zeros((len(values), len(self.views.names)))
        for row, (value, instant) in enumerate(zip(values.tolist(), at.tolist(), strict=True)):
            if not np.isfinite(value):
                continue
            distances = self._distances(value, instant)
            parts[row] = self._surprises(distances)
            if learned is None or learned[row]:
                self._remember(value, instant, distances)
        return Scored(parts.sum(axis=1), parts)

    def dump(self) -> dict[str, NDArray[Any]]:
        """Return the state as arrays, for `numpy.savez`; `restore` continues with bit-identical scores."""
        arrays: dict[str, NDArray[Any]] = {
            "values": np.array(self._values.arrived),
            "recent": np.array(self._recent),
            "shapes": self._shapes[: self._shape_count].copy(),
            "young_shapes": np.array(self._young_shapes).reshape(-1, self.views.shape),
            "day_mean": self._day_mean.copy(),
            "day_variance": self._day_variance.copy(),
            "overall": np.array([self._mean, self._variance, self._seen]),
        }
        for index, (history, young) in enumerate(zip(self._means, self._young, strict=True)):
            arrays[f"means_{index}"], arrays[f"young_{index}"] = np.array(history.arrived), np.array(young)
        for index, history in enumerate(self._ranks):
            arrays[f"ranks_{index}"] = np.array(history.arrived)
        return arrays

    @classmethod
    def restore(cls, arrays: Mapping[str, NDArray[Any]], views: Views | None = None) -> Self:
        """Rebuild the detector from `dump`, with the views it was made with."""
        self = cls(views)
        capacity = self.views.capacity
        self._values = _History(capacity, arrays["values"])
        self._means = [_History(capacity, arrays[f"means_{index}"]) for index in range(len(self._means))]
        self._young = [deque(arrays[f"young_{index}"].tolist()) for index in range(len(self._young))]
        self._ranks = [_History(capacity, arrays[f"ranks_{index}"]) for index in range(len(self._ranks))]
        self._recent.extend(arrays["recent"].tolist())
        self._shape_count = len(arrays["shapes"])
        self._shapes[: self._shape_count] = arrays["shapes"]
        self._young_shapes = deque(np.asarray(arrays["young_shapes"]))
        self._day_mean, self._day_variance = arrays["day_mean"].copy(), arrays["day_variance"].copy()
        self._mean, self._variance = float(arrays["overall"][0]), float(arrays["overall"][1])
        self._seen = int(arrays["overall"][2])
        return self

    def _distances(self, value: float, at: int) -> list[float]:
        views = self.views
        distances = [self._values.distance(value, views.neighbours) if self._seen >= views.start else 0.0]
        distances.append(self._shape_distance(value))
        for length, history in zip(views.means, self._means, strict=True):
            known = len(history.arrived) >= views.start
            distances.append(history.distance(self._mean_of(value, length), views.neighbours) if known else 0.0)
        distances.append(self._day_distance(value, at))
        return distances

    def _surprises(self, distances: list[float]) -> Floats:
        return np.array(
            [ranks.surprise(distance, self.views) for ranks, distance in zip(self._ranks, distances, strict=True)]
        )

    def _mean_of(self, value: float, length: int) -> float:
        """Return the mean of the newest samples with this one; fsum, so that equal samples give equal means."""
        count = min(length - 1, len(self._recent))
        newest = [self._recent[-1 - back] for back in range(count)]
        return fsum([value, *newest]) / (count + 1)

    def _shape_of(self, value: float) -> Floats | None:
        if len(self._recent) < self.views.shape - 1:
            return None
        return np.array([self._recent[back] for back in range(1 - self.views.shape, 0)] + [value])

    def _shape_distance(self, value: float) -> float:
        shape = self._shape_of(value)
        count = min(self._shape_count, self.views.shapes)
        if shape is None or count < self.views.start:
            return 0.0
        away = self._shapes[self._shape_count - count : self._shape_count] - shape
        squared = np.einsum("ij,ij->i", away, away)
        k = self.views.neighbours
        return float(np.sqrt(np.partition(squared, k - 1)[:k]).mean())

    def _day_distance(self, value: float, at: int) -> float:
        mean = self._day_mean[self._bin(at)]
        if self._seen < self.views.start or not np.isfinite(mean) or self._variance <= 0:
            return 0.0
        variance = self._day_variance[self._bin(at)] + 0.001 * self._variance
        return float(min(abs(value - mean) / sqrt(variance), 3 * abs(value - self._mean) / sqrt(self._variance)))

    def _bin(self, at: int) -> int:
        return at % DAY_US * self.views.day_bins // DAY_US

    def _remember(self, value: float, at: int, distances: list[float]) -> None:
        views = self.views
        for ranks, distance in zip(self._ranks, distances, strict=True):
            ranks.add(distance)
        self._values.add(value)
        for length, history, young in zip(views.means, self._means, self._young, strict=True):
            young.append(self._mean_of(value, length))
            if len(young) > length:  # a mean that shares samples with the present one is no witness
                history.add(young.popleft())
        shape = self._shape_of(value)
        if shape is not None:
            self._young_shapes.append(shape)
            if len(self._young_shapes) > views.shape:
                self._add_shape(self._young_shapes.popleft())
        self._learn_levels(value, self._bin(at))
        self._recent.append(value)
        self._seen += 1

    def _add_shape(self, shape: Floats) -> None:
        if self._shape_count == len(self._shapes):
            self._shapes[: self.views.shapes] = self._shapes[-self.views.shapes :]
            self._shape_count = self.views.shapes
        self._shapes[self._shape_count] = shape
        self._shape_count += 1

    def _learn_levels(self, value: float, part: int) -> None:
        if not self._seen:
            self._mean = value
        weight = max(GLOBAL_WEIGHT, 1 / (self._seen + 1))
        away = value - self._mean
        self._mean += weight * away
        self._variance = (1 - weight) * (self._variance + weight * away * away)
        if np.isnan(self._day_mean[part]):
            self._day_mean[part], self._day_variance[part] = value, self._variance
            return
        weight = self.views.day_weight
        away = value - self._day_mean[part]
        self._day_mean[part] += weight * away
        self._day_variance[part] = (1 - weight) * (self._day_variance[part] + weight * away * away)


class RecordGate:
    """Let a score count only if it exceeds every score of the last `hold` samples, else 0."""

    def __init__(self, hold: int) -> None:
        self.hold = hold
        self._falling: deque[tuple[int, float]] = deque()
        self._seen = 0

    def fold(self, scores: Floats) -> Floats:
        """Return the scores that count, in order of time."""
        out = np.zeros(len(scores))
        for row, score in enumerate(scores.tolist()):
            while self._falling and self._falling[0][0] < self._seen - self.hold:
                self._falling.popleft()
            highest = self._falling[0][1] if self._falling else -inf
            if score > highest:
                out[row] = score
            while self._falling and self._falling[-1][1] <= score:
                self._falling.pop()
            self._falling.append((self._seen, score))
            self._seen += 1
        return out

    def dump(self) -> dict[str, NDArray[Any]]:
        """Return the state as arrays."""
        return {
            "hold": np.array(self.hold),
            "seen": np.array(self._seen),
            "places": np.array([place for place, _ in self._falling], dtype=np.int64),
            "scores": np.array([score for _, score in self._falling]),
        }

    @classmethod
    def restore(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Rebuild the gate from `dump`."""
        self = cls(int(arrays["hold"]))
        self._seen = int(arrays["seen"])
        self._falling.extend(zip(arrays["places"].tolist(), arrays["scores"].tolist(), strict=True))
        return self
