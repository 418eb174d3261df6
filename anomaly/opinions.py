"""Second opinions on a finding: scikit-learn models that look at the machine's stored readings, a batch at a time.

baseline rows ─▶ fit on two thirds, calibrate on the rest ─┐
window rows   ─▶ score in one call ────────────────────────┴▶ percentile among healthy scores ─▶ agrees or does not

They see rows, not time, and never open a ticket: they add a line to the evidence of one that is open. Isolation forest and
principal components look at all sensors together; gradient boosting asks whether the first sensor still follows the others.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fettle.errors import FettleError

Floats = NDArray[np.float64]
Scorer = Callable[[Floats], Floats]

AGREES_AT = 99.0
LEAST_BASELINE = 150
LEAST_WINDOW = 3
_MOST_ROWS = 4000
_KEPT_VARIANCE = 0.9


class TooFewRows(FettleError):
    """A second opinion needs {needed} complete rows of {what}, there are {rows}: wait for more readings."""


@dataclass(frozen=True, slots=True)
class Opinion:
    """What one model says: where the window lies among healthy scores, 0 to 100, and whether that is far enough."""

    model: str
    percentile: float
    rows: int
    baseline_rows: int

    @property
    def agrees(self) -> bool:
        return self.percentile >= AGREES_AT

    def as_dict(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "agrees": self.agrees,
            "percentile": round(self.percentile, 2),
            "rows": self.rows,
            "baseline_rows": self.baseline_rows,
        }


def second_opinions(baseline: Floats, window: Floats, *, first: int = 0, seed: int = 0) -> list[Opinion]:
    """Return what each model says of the window rows, given healthy ones; higher percentiles are worse.

    Args:
        baseline: (n, c) healthy rows in order of time, NaN where missing.
        window: (m, c) the rows in question, the same channels.
        first: the channel that leads the finding.
        seed: of the forest and the boosting; the same arguments give the same opinions.

    Raises:
        TooFewRows: too few complete rows to judge by.
    """
    baseline, window, first = _complete(baseline, window, first)
    fitted, held = _split(baseline)
    centre, spread = fitted.mean(axis=0), fitted.std(axis=0)
    moving = spread > 1e-9
    if not moving.any():
        raise TooFewRows(what="signals that move", rows=0, needed=1)
    first = int(moving[:first].sum()) if moving[first] else -1
    fitted, held, window = ((rows[:, moving] - centre[moving]) / spread[moving] for rows in (fitted, held, window))
    said = []
    for name, learn in _MODELS.items():
        if name == "gradient_boosting" and (first < 0 or fitted.shape[1] < 2):
            continue
        scorer = learn(fitted, first, seed)
        healthy, here = scorer(held), scorer(window)
        worst = float(np.quantile(here, 0.75))  # an onset is weak at first
        percentile = 100.0 * float(np.mean(healthy < worst)) if len(healthy) else 0.0
        said.append(Opinion(name, percentile, len(window), len(baseline)))
    return said


def _complete(baseline: Floats, window: Floats, first: int) -> tuple[Floats, Floats, int]:
    """Leave out channels that are mostly missing, then rows that are not complete."""
    if not len(baseline):
        raise TooFewRows(what="the baseline", rows=0, needed=LEAST_BASELINE)
    known = np.isfinite(baseline).mean(axis=0) >= 0.5
    known &= np.isfinite(window).any(axis=0) if len(window) else known
    first = int(known[:first].sum()) if first < len(known) and known[first] else 0
    baseline, window = baseline[:, known], window[:, known]
    baseline, window = (rows[np.isfinite(rows).all(axis=1)] for rows in (baseline, window))
    for rows, what, needed in ((baseline, "baseline", LEAST_BASELINE), (window, "window", LEAST_WINDOW)):
        if len(rows) < needed or rows.shape[1] == 0:
            raise TooFewRows(what=f"the {what}", rows=len(rows), needed=needed)
    if len(baseline) > _MOST_ROWS:
        baseline = baseline[np.linspace(0, len(baseline) - 1, _MOST_ROWS).astype(np.int64)]
    return baseline, window, first


def _split(rows: Floats) -> tuple[Floats, Floats]:
    """Return the rows to fit on and those to calibrate on: every third block of a fiftieth, so that both see all of the time."""
    block = np.arange(len(rows)) * 50 // len(rows)
    held = block % 3 == 2
    return rows[~held], rows[held]


def _isolation_forest(rows: Floats, _first: int, seed: int) -> Scorer:
    from sklearn.ensemble import IsolationForest

    forest = IsolationForest(n_estimators=100, random_state=seed).fit(rows)
    return lambda batch: np.asarray(-forest.score_samples(batch), dtype=np.float64)


def _pca(rows: Floats, _first: int, _seed: int) -> Scorer:
    """Distance within the plane of the components and from it, each over its own 99th percentile (T² and SPE)."""
    values, vectors = np.linalg.eigh(np.cov(rows, rowvar=False).reshape(rows.shape[1], rows.shape[1]))
    values, vectors = np.maximum(values[::-1], 1e-12), vectors[:, ::-1]
    kept = min(int(np.searchsorted(np.cumsum(values) / values.sum(), _KEPT_VARIANCE)) + 1, len(values))

    def parts(batch: Floats) -> tuple[Floats, Floats]:
        scores = batch @ vectors[:, :kept]
        rest = batch - scores @ vectors[:, :kept].T
        return (scores**2 / values[:kept]).sum(axis=1), (rest**2).sum(axis=1)

    units = [max(float(np.quantile(part, 0.99)), 1e-9) for part in parts(rows)]

    def score(batch: Floats) -> Floats:
        within, off = parts(batch)
        return np.asarray(within / units[0] + off / units[1])

    return score


def _gradient_boosting(rows: Floats, first: int, seed: int) -> Scorer:
    from sklearn.ensemble import HistGradientBoostingRegressor

    others = np.delete(np.arange(rows.shape[1]), first)
    model = HistGradientBoostingRegressor(max_iter=60, max_leaf_nodes=15, learning_rate=0.1, random_state=seed)
    model.fit(rows[:, others], rows[:, first])
    return lambda batch: np.abs(batch[:, first] - model.predict(batch[:, others]))


_MODELS: dict[str, Callable[[Floats, int, int], Scorer]] = {
    "isolation_forest": _isolation_forest,
    "pca": _pca,
    "gradient_boosting": _gradient_boosting,
}
