"""Remaining life from the histories of machines of the same class that ran to failure (ISO 13374 block PA).

    histories ─▶ features per cycle ─▶ boosted trees ─▶ cycles left, at most `cap`
    other machines' errors ─▶ quantiles by the estimate ─▶ 90 % interval (conformal, machine by machine)

Every feature is causal and folds cycle by cycle. The trees are kept as plain arrays, so that a stored model can neither
run code nor depend on the library that grew it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingRegressor

from fettle.errors import FettleError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

WINDOW = 30
BEGINNING = 20
WEIGHTS = (0.1, 0.03)
CONSTANT = 1e-3
FOLDS = 5
TRUNCATIONS = 20
REACH = 1.2
FORESTS = 3
LEVELS = 5
COVERAGE = 0.9


class HistoriesTooFew(FettleError):
    """{count} histories are too few to learn remaining life and its error; give at least {needed} that ran to failure."""


class TreesUnreadable(FettleError):
    """The grown trees could not be turned into arrays (difference {difference:g}); this scikit-learn version is not supported."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Cycles left: 90 % interval and middle, per row asked; `high` is infinite where the estimate touches the cap."""

    low: Floats
    middle: Floats
    high: Floats


@dataclass(frozen=True, slots=True)
class FleetModel:
    """Trees and errors as arrays.

    Attributes:
        mean, scale: (c,) of the channels over all histories; scale 0 marks one that does not move.
        cap: a machine with more cycles left shows nothing yet; estimates end here.
        base: the forest's constant.
        roots: (trees,) row of each root below.
        feature, threshold, left, right, value: (nodes,) of all trees; feature −1 marks a leaf.
        edges: (LEVELS − 1,) borders between estimates; shortfall, excess: (LEVELS,) how far the truth lies below and
            above the estimate, in 95 % of the cases each.
    """

    mean: Floats
    scale: Floats
    cap: float
    base: float
    roots: Integers
    feature: Integers
    threshold: Floats
    left: Integers
    right: Integers
    value: Floats
    edges: Floats
    shortfall: Floats
    excess: Floats

    def dump(self) -> dict[str, NDArray[Any]]:
        """Return every field as an array, for `numpy.savez`."""
        return {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def restore(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Rebuild the model from `dump`."""
        values: dict[str, Any] = {field.name: arrays[field.name] for field in fields(cls)}
        return cls(**(values | {name: float(values[name]) for name in ("cap", "base")}))


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a machine stands: `recent` (≤ WINDOW − 1, c) newest rows, sums over the beginning, EWMAs, cycles seen."""

    recent: Floats
    begun: Floats
    smooth: Floats
    cycles: int


def fresh(model: FleetModel) -> Progress:
    """Return the state of a machine before its first cycle."""
    channels = int((model.scale > 0).sum())
    return Progress(np.zeros((0, channels)), np.zeros(channels), np.zeros((len(WEIGHTS), channels)), 0)


def advance(model: FleetModel, progress: Progress, rows: Floats) -> tuple[Floats, Progress]:
    """Fold (n, c) cycles in and return (n, features): mean of 30, EWMAs, change since the beginning, slope, age."""
    moving = model.scale > 0
    z = (np.atleast_2d(rows)[:, moving] - model.mean[moving]) / model.scale[moving]
    recent, begun, smooth, cycles = (
        list(progress.recent),
        progress.begun.copy(),
        progress.smooth.copy(),
        progress.cycles,
    )
    out = np.zeros((len(z), z.shape[1] * (3 + len(WEIGHTS)) + 1))
    for row, here in enumerate(z):
        recent = [*recent[-(WINDOW - 1) :], here]
        window = np.array(recent)
        average = window.mean(axis=0)
        if cycles < BEGINNING:
            begun = begun + here
        cycles += 1
        smooth = np.array(
            [here if cycles == 1 else w * here + (1 - w) * before for w, before in zip(WEIGHTS, smooth, strict=True)]
        )
        slope = np.zeros_like(here)
        if len(window) > 4:
            ramp = np.arange(len(window)) - (len(window) - 1) / 2
            slope = (ramp[:, None] * window).sum(axis=0) / (ramp**2).sum()
        changed = average - begun / min(cycles, BEGINNING)
        out[row] = np.concatenate([average, *smooth, changed, slope, [cycles]])
    kept = np.array(recent[-(WINDOW - 1) :]).reshape(-1, z.shape[1])
    return out, Progress(kept, begun, smooth, cycles)


def learn(histories: Sequence[Floats], *, cap: float = 125.0, seed: int = 0, trees: int = 200) -> FleetModel:
    """Teach remaining life from (nᵢ, c) histories whose last row is the last before failure.

    The error is measured on machines the trees have not seen: in `FOLDS` folds of machines, at `TRUNCATIONS` random
    cycles each among the last `REACH` caps before failure; the final trees see all. Cycles of early life, where every
    answer is "at least the cap" and right, would make the error look small to a machine for which it matters.

    Raises:
        HistoriesTooFew: fewer than 4 machines per fold.
        TreesUnreadable: the installed scikit-learn keeps its trees in another form.
    """
    if len(histories) < 4 * FOLDS:
        raise HistoriesTooFew(count=len(histories), needed=4 * FOLDS)
    together = np.vstack(histories)
    scale = together.std(axis=0)
    bare = _bare(together.mean(axis=0), np.where(scale > CONSTANT, scale, 0.0), cap)
    features = [advance(bare, fresh(bare), history)[0] for history in histories]
    targets = [np.minimum(np.arange(len(history))[::-1], cap).astype(np.float64) for history in histories]
    rng = np.random.default_rng(seed)
    estimates, truths, machines = [], [], []
    for fold in range(FOLDS):
        others = [k for k in range(len(histories)) if k % FOLDS != fold]
        partial = _grow(bare, [features[k] for k in others], [targets[k] for k in others], seed, trees)
        for k in range(fold, len(histories), FOLDS):
            first = max(0, len(targets[k]) - round(REACH * cap))
            rows = rng.integers(first, len(targets[k]), TRUNCATIONS)
            estimates.append(_walk(partial, features[k][rows]))
            truths.append(targets[k][rows])
            machines.append(np.full(TRUNCATIONS, k))
    model = _grow(bare, features, targets, seed, trees)
    return _with_errors(model, np.concatenate(estimates), np.concatenate(truths), np.concatenate(machines))


def cycles_left(model: FleetModel, features: Floats) -> Estimate:
    """Estimate the cycles left for (n, features) rows from `advance`."""
    middle = _walk(model, features)
    level = np.searchsorted(model.edges, middle, side="right")
    low = np.maximum(middle - model.shortfall[level], 0.0)
    high = middle + model.excess[level]
    return Estimate(low, middle, np.where(high >= model.cap, np.inf, high))


def _bare(mean: Floats, scale: Floats, cap: float) -> FleetModel:
    whole, number = np.zeros(0, dtype=np.int64), np.zeros(0)
    return FleetModel(mean, scale, cap, 0.0, whole, whole, number, whole, whole, number, number, number, number)


def _grow(bare: FleetModel, features: list[Floats], targets: list[Floats], seed: int, trees: int) -> FleetModel:
    """Grow `FORESTS` forests that differ in the features they draw, and average them as one."""
    x, y = np.vstack(features), np.concatenate(targets)
    forests = [
        HistGradientBoostingRegressor(
            max_iter=trees,
            learning_rate=0.05,
            max_leaf_nodes=8,
            min_samples_leaf=100,
            l2_regularization=10.0,
            max_features=0.5,
            early_stopping=False,
            random_state=seed + number,
        ).fit(x, y)
        for number in range(FORESTS)
    ]
    # no public form of these trees exists; the comparison below notices if it changes
    grown_trees = [tree.nodes for forest in forests for step in forest._predictors for tree in step]  # noqa: SLF001
    sizes = [len(nodes) for nodes in grown_trees]
    roots = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
    shift = np.repeat(roots, sizes)
    nodes = np.concatenate(grown_trees)
    leaf = nodes["is_leaf"].astype(bool)
    grown = {
        "base": float(np.mean([np.ravel(forest._baseline_prediction)[0] for forest in forests])),  # noqa: SLF001
        "roots": roots,
        "feature": np.where(leaf, -1, nodes["feature_idx"]).astype(np.int64),
        "threshold": nodes["num_threshold"].astype(np.float64),
        "left": nodes["left"].astype(np.int64) + shift,
        "right": nodes["right"].astype(np.int64) + shift,
        "value": nodes["value"].astype(np.float64) / FORESTS,
    }
    model = _replace(bare, **grown)
    sample = x[:: max(1, len(x) // 500)]
    expected = np.clip(np.mean([forest.predict(sample) for forest in forests], axis=0), 0, bare.cap)
    difference = float(np.abs(_walk(model, sample) - expected).max())
    if not difference < 1e-6:
        raise TreesUnreadable(difference=difference)
    return model


def _walk(model: FleetModel, features: Floats) -> Floats:
    """Add up the leaves the rows fall into, all rows and trees a level at a time."""
    at = np.broadcast_to(model.roots, (len(features), len(model.roots))).copy()
    rows = np.arange(len(features))[:, None]
    while True:
        feature = model.feature[at]
        inner = feature >= 0
        if not inner.any():
            break
        goes_left = features[rows, np.maximum(feature, 0)] <= model.threshold[at]
        at = np.where(inner, np.where(goes_left, model.left[at], model.right[at]), at)
    return np.asarray(np.clip(model.base + model.value[at].sum(axis=1), 0.0, model.cap))


def _with_errors(model: FleetModel, estimates: Floats, truths: Floats, machines: Integers) -> FleetModel:
    """Take quantiles of the error by the height of the estimate.

    Errors of one machine go together, so machines, not rows, count in the correction for a finite sample.
    """
    edges = np.quantile(estimates, np.linspace(0, 1, LEVELS + 1)[1:-1])
    level = np.searchsorted(edges, estimates, side="right")
    shortfall, excess = np.zeros(LEVELS), np.zeros(LEVELS)
    for index in range(LEVELS):
        over = (estimates - truths)[level == index]
        rank = min(1.0, (1 + COVERAGE) / 2 * (1 + 1 / len(np.unique(machines[level == index]))))
        shortfall[index] = max(float(np.quantile(over, rank)), 0.0)
        excess[index] = max(float(np.quantile(-over, rank)), 0.0)
    return _replace(model, edges=edges, shortfall=shortfall, excess=excess)


def _replace(model: FleetModel, **changes: Any) -> FleetModel:
    values = {field.name: getattr(model, field.name) for field in fields(model)}
    return FleetModel(**(values | changes))
