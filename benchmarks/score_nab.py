"""Score detections as the Numenta Anomaly Benchmark does, from its description; proven against figures of its stored results.

numenta/NAB: `nab/scorer.py`, `nab/sweeper.py`. A detection inside a labelled window earns more the earlier it comes, one
outside costs more the farther it lies behind the last window; one threshold serves all files and is chosen per profile.
"""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

PROBATION_SHARE = 0.15
PROBATION_MOST = 750


@dataclass(frozen=True, slots=True)
class Series:
    """One file: instants (µs), values, labelled windows as row numbers [left, right], both in."""

    name: str
    at: Rows
    values: Floats
    windows: tuple[tuple[int, int], ...]

    @property
    def probation(self) -> int:
        """Rows at the start that are never scored: 15 % of the file, at most 750."""
        return min(int(PROBATION_SHARE * len(self.values)), PROBATION_MOST)


@dataclass(frozen=True, slots=True)
class Profile:
    """Weights of a true positive, a false positive and a missed window."""

    tp: float
    fp: float
    fn: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of one profile at its best threshold."""

    score: float
    threshold: float
    found: int
    windows: int
    false_rows: int


def sigmoid(x: Floats | float) -> Floats:
    """Return 2/(1 + e^{5x}) − 1."""
    return np.asarray(2.0 / (1.0 + np.exp(5.0 * np.asarray(x, dtype=np.float64))) - 1.0)


def worth(series: Series) -> tuple[Floats, Rows]:
    """Return each row's value before weights, and the number of the window it lies in, −1 outside."""
    count = len(series.values)
    values, window_of = np.full(count, -1.0), np.full(count, -1, dtype=np.int64)
    rows = np.arange(count)
    for left, right in series.windows:
        after = rows > right
        x = (rows[after] - right) / max(right - left, 1)
        values[after] = np.where(x > 3, -1.0, sigmoid(np.minimum(x, 4.0)))
    for number, (left, right) in enumerate(series.windows):
        inside = slice(left, right + 1)
        values[inside] = sigmoid(-(right - rows[inside] + 1) / (right - left + 1)) / sigmoid(-1.0)
        window_of[inside] = number
    return values, window_of


def sweep(corpus: Sequence[Series], scores: Sequence[Floats], profile: Profile) -> Outcome:
    """Find the one threshold over all files that maximises the total, and the score there, 0 for silence."""
    value_parts, window_parts, score_parts = [], [], []
    windows = 0
    for series, score in zip(corpus, scores, strict=True):
        if len(score) != len(series.values):
            raise ValueError(f"{series.name}: {len(score)} scores for {len(series.values)} rows")
        values, window_of = worth(series)
        scored = slice(series.probation, None)
        value_parts.append(values[scored])
        window_parts.append(np.where(window_of[scored] >= 0, window_of[scored] + windows, -1))
        score_parts.append(np.asarray(score, dtype=np.float64)[scored])
        windows += len(series.windows)
    values, window_of, score = (np.concatenate(part) for part in (value_parts, window_parts, score_parts))
    order = np.argsort(-score, kind="stable")
    values, window_of, score = values[order], window_of[order], score[order]

    gains = np.where(window_of < 0, values * profile.fp, 0.0)
    best_in = np.full(windows, -profile.fn)
    first_hit = np.zeros(len(values), dtype=np.int64)
    hit = np.zeros(windows, dtype=bool)
    for row in np.nonzero(window_of >= 0)[0]:
        window, value = window_of[row], values[row] * profile.tp
        if not hit[window] or value > best_in[window]:
            gains[row] = value - best_in[window]
            best_in[window] = value
        first_hit[row] = not hit[window]
        hit[window] = True
    totals = -profile.fn * windows + np.cumsum(gains)
    ends = np.append(score[1:] != score[:-1], True) if len(score) else np.zeros(0, dtype=bool)
    null = -profile.fn * windows
    best_total, threshold, found, false = null, np.inf, 0, 0
    if ends.any():
        best = int(np.nonzero(ends)[0][np.argmax(totals[ends])])
        if totals[best] > null:
            best_total, threshold = float(totals[best]), float(score[best])
            found, false = int(first_hit[: best + 1].sum()), int((window_of[: best + 1] < 0).sum())
    return Outcome(_normalised(best_total, windows, profile), threshold, found, windows, false)


def total_at(corpus: Sequence[Series], scores: Sequence[Floats], profile: Profile, threshold: float) -> float:
    """Return the score at a given threshold: the slow, obvious rule that `sweep` must agree with."""
    return _normalised(
        sum(_total(series, score, profile, threshold) for series, score in zip(corpus, scores, strict=True)),
        sum(len(series.windows) for series in corpus),
        profile,
    )


def held_out(corpus: Sequence[Series], scores: Sequence[Floats], profile: Profile) -> float:
    """Return the score when every file is judged at the threshold that is best for all the others."""
    total = 0.0
    for left_out in range(len(corpus)):
        others = [index for index in range(len(corpus)) if index != left_out]
        threshold = sweep([corpus[i] for i in others], [scores[i] for i in others], profile).threshold
        total += _total(corpus[left_out], scores[left_out], profile, threshold)
    return _normalised(total, sum(len(series.windows) for series in corpus), profile)


def _total(series: Series, score: Floats, profile: Profile, threshold: float) -> float:
    values, window_of = worth(series)
    detected = np.asarray(score) >= threshold
    detected[: series.probation] = False
    total = float(values[detected & (window_of < 0)].sum()) * profile.fp
    for number in range(len(series.windows)):
        inside = detected & (window_of == number)
        total += float(values[inside].max()) * profile.tp if inside.any() else -profile.fn
    return total


def _normalised(total: float, windows: int, profile: Profile) -> float:
    null = -profile.fn * windows
    return 100 * (total - null) / max(profile.tp * windows - null, 1e-12)


def found_and_false_events(series: Series, score: Floats, threshold: float, *, join: int = 13) -> tuple[int, int]:
    """Count windows found, and false events: false rows fewer than `join` rows apart count once."""
    detected = np.asarray(score) >= threshold
    detected[: series.probation] = False
    _, window_of = worth(series)
    found = len(np.unique(window_of[detected & (window_of >= 0)]))
    false_rows = np.nonzero(detected & (window_of < 0))[0]
    return found, int(len(false_rows) > 0) + int((np.diff(false_rows) >= join).sum())


def read_corpus(folder: Path) -> tuple[list[Series], dict[str, Profile]]:
    """Read a folder in NAB's layout: data/**.csv, labels/combined_windows.json, config/profiles.json.

    Files without an entry among the labels are left out and named.
    """
    try:
        labels = json.loads((folder / "labels" / "combined_windows.json").read_text())
        costs = json.loads((folder / "config" / "profiles.json").read_text())
    except FileNotFoundError as missing:
        raise SystemExit(f"{missing.filename}: missing; give a folder in NAB's layout with --data DIR") from missing
    corpus = []
    for path in sorted((folder / "data").rglob("*.csv")):
        name = path.relative_to(folder / "data").as_posix()
        if name not in labels:
            print(f"left out, no labels: {name}")
            continue
        corpus.append(read_series(path, name, labels[name]))
    if not corpus:
        raise SystemExit(f"{folder}: no labelled CSV files under data/; give a folder in NAB's layout with --data DIR")
    names = {"standard": "standard", "reward_low_FP_rate": "low_fp", "reward_low_FN_rate": "low_fn"}
    profiles = {}
    for key, name in names.items():
        matrix = costs[key]["CostMatrix"]
        profiles[name] = Profile(tp=matrix["tpWeight"], fp=matrix["fpWeight"], fn=matrix["fnWeight"])
    return corpus, profiles


def read_series(path: Path, name: str, windows: Sequence[Sequence[str]]) -> Series:
    """Read one `timestamp,value` file and turn its windows into row numbers."""
    with path.open(newline="") as lines:
        table = [row for row in csv.reader(lines) if row][1:]
    at = np.array([_instant(row[0]) for row in table], dtype=np.int64)
    values = np.array([float(row[1]) for row in table])
    spans = []
    for begin, end in windows:
        inside = np.nonzero((at >= _instant(begin)) & (at <= _instant(end)))[0]
        if len(inside):
            spans.append((int(inside[0]), int(inside[-1])))
    return Series(name, at, values, tuple(spans))


def _instant(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1e6)
