"""Level and volatility of several channels together: MEWMA distance (ISO 13374 block SD).

One distance for a machine: how far the smoothed levels and the smoothed volatilities of its channels lie from their
baseline, in units of the baseline's own covariance (Ledoit-Wolf). It is a fold, so a block, its halves and its single
samples give the same scores:

    samples ──▶ z ──▶ level EWMA(z), volatility ln EWMA(|Δz|) ──▶ D² = (f − m)ᵀ Σ⁻¹ (f − m) ──▶ score, contributions
                 └──▶ of a channel with inertia: level EWMA(Δz) only

**Inertia.** Averaging assumes that neighbouring samples bring independent noise. A channel that remembers its past for
as long as the detector averages (a temperature, a tank level) breaks this: its level over a short baseline says where
it happened to be. Two rules find such channels, neither by name. The *unit*: heat is slow by physics, so a temperature
is left to the models that know load and ambient until the baseline lasts ten thermal time constants. The *data*: a
channel whose autocorrelation on the baseline is long (`memory`) and smooth (`neighbour_correlation`) takes part through
its rate of change; over a baseline that is long against its memory its level counts again.

Lowry, Woodall, Champ, Rigdon, "A multivariate exponentially weighted moving average control chart", Technometrics
34 (1992); Ledoit, Wolf, "A well-conditioned estimator for large-dimensional covariance matrices" (2004).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter
from sklearn.covariance import LedoitWolf

from fettle.errors import FettleError

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

CLIP = 50.0
CONSTANT = 1e-9
RESEED_AFTER = 10.0


class BaselineTooShort(FettleError):
    """A baseline of {rows} complete rows cannot teach this detector; give it at least {needed}."""


class WrongChannels(FettleError):
    """The rows have {given} channels but the model was taught {expected}; pass the same channels in the same order."""


class Inertia(Enum):
    """Kind of a channel, as far as its unit tells."""

    THERMAL = "thermal"  # a temperature: heat remembers longer than minutes of data can show
    FAST = "fast"  # vibration, current, voltage, pressure, flow, speed
    UNKNOWN = "unknown"  # let the data decide


@dataclass(frozen=True, slots=True)
class Smoothing:
    """How long the detector averages.

    Attributes:
        weight: λ, the weight of the newest sample of an equally spaced signal.
        time_constant_s: τ, used instead of λ where instants are given: λ = 1 − exp(−dt/τ).
        floor: added to the mean absolute difference before its logarithm, in baseline standard deviations.
        memory_factor: a channel has inertia where its memory is at least this many averaging windows (1/λ samples).
        memory_share: and neighbouring samples correlate at least this much: memory, not noise, makes up the channel.
        level_factor: and its level counts again over a baseline of at least this many memories.
        thermal_baseline_s: a temperature takes part only over a baseline this long: ten time constants of 45 minutes.
    """

    weight: float = 0.05
    time_constant_s: float = 19.5
    floor: float = 0.01
    memory_factor: float = 1.0
    memory_share: float = 0.75
    level_factor: float = 30.0
    thermal_baseline_s: float = 27_000.0

    @property
    def warm_up(self) -> int:
        """Samples until the recursions have forgotten their start: 2/λ."""
        return round(2 / self.weight)

    @property
    def period_s(self) -> float:
        """Step between equally spaced samples that λ and τ agree on."""
        return -self.time_constant_s * math.log(1 - self.weight)


PROVISIONAL = Smoothing(memory_factor=0.0, memory_share=-1.0, level_factor=math.inf)
"""For a baseline that vouches for no level, such as the first minutes of a run: every channel by its rate of change.

It is quiet while a machine settles and sees steps only; limits and sensor checks must stand beside it.
"""


@dataclass(frozen=True, slots=True)
class Model:
    """What a baseline taught; immutable, all arrays, no pickle.

    Attributes:
        mean, scale: (c,) of each channel; scale 0 marks a channel left out: constant, or a temperature over too short a
            baseline.
        change_scale: (c,) standard deviation of the change between neighbours of a channel with inertia, else 0.
        centre, precision: m (f,) and Σ⁻¹ (f, f) over the features.
        channel: (f,) index of the channel behind each feature; the level features come first.
        levels: number of level features.
        usual, high: median and 99.5 % quantile of the score on the baseline.
        weight, floor, time_constant_s: as in `Smoothing`.
    """

    mean: Floats
    scale: Floats
    change_scale: Floats
    centre: Floats
    precision: Floats
    channel: NDArray[np.int64]
    levels: int
    usual: float
    high: float
    weight: float
    floor: float
    time_constant_s: float

    @property
    def inert(self) -> Mask:
        """(c,) True where a channel is judged by its rate of change."""
        return self.change_scale > 0

    def severity(self, score: Floats) -> Floats:
        """Express scores on the scale of the baseline: 0 its median, 1 its 99.5 % quantile."""
        return np.asarray((score - self.usual) / max(self.high - self.usual, 1e-12))

    def dump(self) -> dict[str, NDArray[Any]]:
        """Return every field as an array, for `numpy.savez`."""
        return {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def restore(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Rebuild the model from `dump`; scores are bit-identical."""
        values: dict[str, Any] = {field.name: arrays[field.name] for field in fields(cls)}
        for name in ("usual", "high", "weight", "floor", "time_constant_s"):
            values[name] = float(values[name])
        values["levels"] = int(values["levels"])
        return cls(**values)


@dataclass(frozen=True, slots=True)
class State:
    """Where the recursions stand after the last sample: (c,) each; NaN before a channel's first sample.

    Attributes:
        last: last standardised sample.
        level, volatility: the two EWMAs, before logarithm.
        at: instant of the last sample in microseconds since 1970 UTC, int64 minimum where unknown.
    """

    last: Floats
    level: Floats
    volatility: Floats
    at: int

    def dump(self) -> dict[str, NDArray[Any]]:
        """Return every field as an array."""
        return {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def restore(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Rebuild the state from `dump`."""
        values: dict[str, Any] = {field.name: arrays[field.name] for field in fields(cls)}
        values["at"] = int(values["at"])
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Scored:
    """Scores of a block of n rows.

    Attributes:
        score: (n,) distance D, higher is worse.
        contributions: (n, c) part of each channel in D²; rows sum to it, single parts may be negative.
        observed: (n,) share of the model's features that rest on present, unmasked channels.
        state: where the fold stands now.
    """

    score: Floats
    contributions: Floats
    observed: Floats
    state: State


NEVER = np.iinfo(np.int64).min


def memory(rows: Floats) -> NDArray[np.int64]:
    """Measure each channel's memory: the first lag, in samples, at which its autocorrelation falls below 1/e.

    `rows` is (n, c); a constant channel has memory 0, one that never falls below has n. NaN count as the mean.
    """
    count = len(rows)
    centred = np.nan_to_num(rows - np.nanmean(rows, axis=0))
    spectrum = np.fft.rfft(centred, 2 * count, axis=0)
    correlation = np.fft.irfft(np.abs(spectrum) ** 2, axis=0)[:count]
    power = correlation[0]
    below = correlation < power / np.e
    lags = np.where(below.any(axis=0), below.argmax(axis=0), count)
    return np.where(np.sqrt(power / count) > CONSTANT, lags, 0).astype(np.int64)


def neighbour_correlation(rows: Floats) -> Floats:
    """Measure each channel's correlation between neighbouring samples: near 1 where inertia smooths it, 0 for noise."""
    centred = rows - np.nanmean(rows, axis=0)
    product = centred[1:] * centred[:-1]
    pairs = np.maximum(np.isfinite(product).sum(axis=0), 1)
    power = np.maximum(np.nanmean(centred**2, axis=0), 1e-300)
    return np.asarray(np.nansum(product, axis=0) / pairs / power)


def learn(
    rows: Floats,
    smoothing: Smoothing | None = None,
    *,
    at: NDArray[np.int64] | None = None,
    inertia: Sequence[Inertia] | None = None,
) -> Model:
    """Teach a model from a baseline of (n, c) rows in order of time; NaN where a channel is missing.

    Args:
        rows: the healthy baseline.
        smoothing: how long to average.
        at: (n,) instants in microseconds since 1970 UTC; without them rows count as equally spaced.
        inertia: what is known of each channel's kind; without it the data decide for all.

    Raises:
        BaselineTooShort: fewer rows than 3 warm-ups, or no channel that moves.
    """
    smoothing = smoothing or Smoothing()
    rows = np.asarray(rows, dtype=np.float64)
    count, warm = len(rows), smoothing.warm_up
    present = np.isfinite(rows).sum(axis=0)
    if count < 3 * warm or not present.any():
        raise BaselineTooShort(rows=count, needed=3 * warm)
    seen = present >= 3 * warm
    mean, scale = np.zeros(rows.shape[1]), np.zeros(rows.shape[1])
    mean[seen], scale[seen] = np.nanmean(rows[:, seen], axis=0), np.nanstd(rows[:, seen], axis=0)
    scale[scale <= CONSTANT] = 0.0
    lasts_s = count * smoothing.period_s if at is None else (int(at[-1]) - int(at[0])) / 1e6
    kinds = np.array(inertia if inertia is not None else [Inertia.UNKNOWN] * len(scale), dtype=object)
    if len(kinds) != len(scale):
        raise WrongChannels(given=len(kinds), expected=len(scale))
    if lasts_s < smoothing.thermal_baseline_s:
        scale[kinds == Inertia.THERMAL] = 0.0
    moving = scale > 0
    if not moving.any():
        raise BaselineTooShort(rows=0, needed=3 * warm)

    change_scale = np.zeros_like(scale)
    lags, shares = np.zeros(len(scale), dtype=np.int64), np.zeros(len(scale))
    lags[moving], shares[moving] = memory(rows[:, moving]), neighbour_correlation(rows[:, moving])
    inert = (
        moving
        & (kinds == Inertia.UNKNOWN)
        & (lags >= smoothing.memory_factor / smoothing.weight)
        & (shares >= smoothing.memory_share)
        & (count < smoothing.level_factor * lags)
    )
    if inert.any():
        changes = np.diff(rows[:, inert], axis=0) / scale[inert]
        change_scale[inert] = np.maximum(np.nanstd(changes, axis=0), 1e-6)

    level_channels = np.nonzero(moving)[0]
    volatile_channels = np.nonzero(moving & ~inert)[0]
    unfitted = Model(
        mean=mean,
        scale=scale,
        change_scale=change_scale,
        centre=np.zeros(0),
        precision=np.zeros((0, 0)),
        channel=np.concatenate([level_channels, volatile_channels]),
        levels=len(level_channels),
        usual=0.0,
        high=1.0,
        weight=smoothing.weight,
        floor=smoothing.floor,
        time_constant_s=smoothing.time_constant_s,
    )
    features, _ = _features(unfitted, start(unfitted), rows, at)
    healthy = features[warm:]
    healthy = healthy[np.isfinite(healthy).all(axis=1)]
    if len(healthy) < 2 * warm:
        raise BaselineTooShort(rows=len(healthy), needed=2 * warm)
    spread = np.maximum(healthy.std(axis=0), 1e-12)
    fitted = LedoitWolf(store_precision=True).fit((healthy - healthy.mean(axis=0)) / spread)
    centre = healthy.mean(axis=0) + fitted.location_ * spread
    precision = np.asarray(fitted.precision_) / np.outer(spread, spread)
    model = _replace(unfitted, centre=centre, precision=(precision + precision.T) / 2)
    distances = np.sqrt(np.maximum(_distance(model, healthy)[0], 0.0))
    settled = distances[warm // 2 :]
    return _replace(model, usual=float(np.median(settled)), high=float(np.quantile(settled, 0.995)))


def start(model: Model) -> State:
    """Return the state before the first sample: the baseline's centre, so that a fresh start is no excursion."""
    blank = np.full(len(model.mean), np.nan)
    level, volatility = blank.copy(), blank.copy()
    if len(model.centre):
        level[model.channel[: model.levels]] = model.centre[: model.levels]
        spread = np.exp(model.centre[model.levels :]) - model.floor
        volatility[model.channel[model.levels :]] = np.maximum(spread, 0.0)
    return State(last=blank, level=level, volatility=volatility, at=NEVER)


def score(
    model: Model,
    state: State,
    rows: Floats,
    *,
    at: NDArray[np.int64] | None = None,
    masked: Mask | None = None,
) -> Scored:
    """Score (n, c) rows in order of time and move the fold on.

    Args:
        model: what the baseline taught.
        state: where the previous block ended; `start` before the first.
        rows: samples, NaN where missing: a missing sample leaves its channel's recursions as they are.
        at: (n,) instants in microseconds since 1970 UTC; a gap beyond 10 τ starts the recursions anew.
        masked: (c,) or (n, c), True for channels that must not count (a faulty sensor): the distance is then taken
            over the others, which equals putting in their conditional mean.

    Raises:
        WrongChannels: other channels than the model was taught.
    """
    rows = np.asarray(rows, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] != len(model.mean):
        raise WrongChannels(given=rows.shape[-1], expected=len(model.mean))
    features, state = _features(model, state, rows, at)
    usable = np.isfinite(features)
    if masked is not None:
        usable &= ~np.broadcast_to(masked, rows.shape)[:, model.channel]
    squared = np.zeros(len(rows))
    contributions = np.zeros(rows.shape)
    if usable.all():
        squared, parts = _distance(model, features)
        _by_channel(contributions, slice(None), model.channel, parts)
    elif len(rows):
        patterns, which = np.unique(usable, axis=0, return_inverse=True)
        covariance = np.linalg.inv(model.precision)
        for index, pattern in enumerate(patterns):
            if not pattern.any():
                continue
            chosen = np.nonzero(which.ravel() == index)[0]
            part_model = _replace(
                model,
                centre=model.centre[pattern],
                precision=np.linalg.inv(covariance[np.ix_(pattern, pattern)]),
                channel=model.channel[pattern],
            )
            squared[chosen], parts = _distance(part_model, features[np.ix_(chosen, pattern)])
            _by_channel(contributions, chosen, part_model.channel, parts)
    return Scored(
        score=np.sqrt(np.maximum(squared, 0.0)),
        contributions=contributions,
        observed=usable.mean(axis=1),
        state=state,
    )


def _replace(model: Model, **changes: Any) -> Model:
    values = {field.name: getattr(model, field.name) for field in fields(model)}
    return Model(**(values | changes))


def _by_channel(out: Floats, rows: Any, channel: NDArray[np.int64], parts: Floats) -> None:
    for feature, owner in enumerate(channel):
        out[rows, owner] += parts[:, feature]


def _distance(model: Model, features: Floats) -> tuple[Floats, Floats]:
    """Return D² and the part of each feature in it, (f − m)ⱼ · (Σ⁻¹(f − m))ⱼ, row by row alike for any block size."""
    away = features - model.centre
    pulled = np.zeros_like(away)
    for index in range(away.shape[1]):  # columns, not one matrix product: BLAS may sum differently by block size
        pulled += away[:, index : index + 1] * model.precision[index]
    parts = away * pulled
    return parts.sum(axis=1), parts


def _features(model: Model, state: State, rows: Floats, at: NDArray[np.int64] | None) -> tuple[Floats, State]:
    """Run the recursions over a block and return (n, f) features and the next state."""
    usable = model.scale > 0
    scale = np.where(usable, model.scale, 1.0)
    z = np.clip((rows - model.mean) / scale, -CLIP, CLIP)
    z[~np.isfinite(rows)] = np.nan
    z[:, ~usable] = np.nan
    if at is None and np.isfinite(z[:, usable]).all():
        level, volatility = _fold_equal(model, state, z)
    else:
        level, volatility = _fold_each(model, state, z, at)
    last = _carried(state.last, z)
    final = State(
        last=last,
        level=level[-1].copy() if len(z) else state.level,
        volatility=volatility[-1].copy() if len(z) else state.volatility,
        at=int(at[-1]) if at is not None and len(at) else state.at,
    )
    with np.errstate(invalid="ignore"):
        spread = np.log(volatility + model.floor)
    features = np.concatenate(
        [level[:, model.channel[: model.levels]], spread[:, model.channel[model.levels :]]], axis=1
    )
    seen = np.isfinite(state.last) | np.logical_or.accumulate(np.isfinite(z), axis=0)
    return np.where(seen[:, model.channel], features, np.nan), final


def _carried(last: Floats, z: Floats) -> Floats:
    """Return each channel's newest present value."""
    present = np.isfinite(z)
    newest = np.where(present.any(axis=0), len(z) - 1 - present[::-1].argmax(axis=0), 0) if len(z) else None
    if newest is None:
        return last
    return np.where(present.any(axis=0), z[newest, np.arange(z.shape[1])], last)


def _fold_equal(model: Model, state: State, z: Floats) -> tuple[Floats, Floats]:
    """Fold a block without gaps along time, all channels at once."""
    if not len(z):
        return z, z
    known = np.isfinite(state.last)
    change = np.diff(z, axis=0, prepend=np.where(known, state.last, z[0])[None])
    inert = model.inert
    driven, shaken = z.copy(), np.abs(change)
    driven[:, inert] = change[:, inert] / model.change_scale[inert]
    # a first sample says nothing of change: what rests on change stays where it is
    driven[0] = np.where(inert & ~known & np.isfinite(state.level), state.level, driven[0])
    shaken[0] = np.where(~known & np.isfinite(state.volatility), state.volatility, shaken[0])
    return _ewma(driven, state.level, model.weight), _ewma(shaken, state.volatility, model.weight)


def _ewma(values: Floats, before: Floats, weight: float) -> Floats:
    """Exponentially weighted mean down the rows, starting at the first value where there is no earlier one."""
    keep = 1.0 - weight
    begin = np.where(np.isfinite(before), before, values[0])
    filled = np.nan_to_num(values)
    return np.asarray(lfilter([weight], [1.0, -keep], filled, axis=0, zi=keep * np.nan_to_num(begin)[None])[0])


def _fold_each(model: Model, state: State, z: Floats, at: NDArray[np.int64] | None) -> tuple[Floats, Floats]:
    """Fold sample by sample: irregular instants and missing values."""
    level_out, volatility_out = np.empty_like(z), np.empty_like(z)
    last, level, volatility, then = state.last.copy(), state.level.copy(), state.volatility.copy(), state.at
    inert = model.inert
    change_scale = np.where(inert, model.change_scale, 1.0)
    weight = model.weight
    usual_s = -model.time_constant_s * math.log(1 - weight)  # the step between equally spaced samples
    for row in range(len(z)):
        if at is not None:
            elapsed_s = (int(at[row]) - then) / 1e6 if then != NEVER else usual_s
            then = int(at[row])
            if elapsed_s > RESEED_AFTER * model.time_constant_s:
                begun = start(model)
                last, level, volatility = begun.last, begun.level, begun.volatility
                elapsed_s = usual_s
            weight = 1.0 - np.exp(-elapsed_s / model.time_constant_s)
        here = z[row]
        present, known = np.isfinite(here), np.isfinite(last)
        change = np.where(known, here - last, 0.0)
        driven = np.where(inert, change / change_scale, here)
        moved = np.where(np.isfinite(level), weight * driven + (1 - weight) * level, driven)
        level = np.where(present & ~(inert & ~known & np.isfinite(level)), moved, level)
        shaken = np.where(np.isfinite(volatility), weight * np.abs(change) + (1 - weight) * volatility, np.abs(change))
        volatility = np.where(present & ~(~known & np.isfinite(volatility)), shaken, volatility)
        last = np.where(present, here, last)
        level_out[row], volatility_out[row] = level, volatility
    return level_out, volatility_out
