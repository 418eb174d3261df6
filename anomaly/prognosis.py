"""How healthy a machine is and how long until a feature reaches its limit (ISO 13374 block PA, ISO 13381-1).

A line is drawn robustly through the last days of the feature that drives a finding, or through its logarithm, whichever
it follows better, and prolonged to the limit. Where the feature does not rise for certain there is **no estimate**; where
there is one it is an interval, never a single number:

    feature ─▶ block means ─▶ Mann–Kendall: rising? ─no─▶ None
                                   └─yes─▶ Theil–Sen line ─▶ bootstrap of its residuals ─▶ 90 % interval to the limit

Sen, "Estimates of the regression coefficient based on Kendall's tau" (1968); Mann (1945), Kendall (1975).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

Floats = NDArray[np.float64]
Instants = NDArray[np.int64]

DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Span:
    """Time left until the limit, in days: 90 % interval and middle; `high` is infinite where the rise may stop.

    Attributes:
        low, middle, high: days from the newest sample.
        window_days: the stretch the line was drawn through.
        logarithmic: the line goes through the logarithm.
        p_value: of no rise at all (Mann–Kendall).
    """

    low: float
    middle: float
    high: float
    window_days: float
    logarithmic: bool
    p_value: float


@dataclass(frozen=True, slots=True)
class Extrapolation:
    """How a trend is drawn and trusted.

    Attributes:
        windows_days: stretches tried; the longest that a line fits about as well as the best one is taken.
        blocks: block means in a stretch.
        least_blocks: block means with data that a stretch needs.
        certain_at: p-value of Mann–Kendall below which a rise is believed.
        fits_within: a longer stretch may fit worse by this factor.
        resamples: of the bootstrap.
        longest_days: a middle beyond it is no estimate.
    """

    windows_days: tuple[float, ...] = (3.0, 5.0, 7.0, 10.0, 14.0, 21.0, 30.0)
    blocks: int = 60
    least_blocks: int = 12
    certain_at: float = 0.01
    fits_within: float = 1.1
    resamples: int = 200
    longest_days: float = 365.0


@dataclass(frozen=True, slots=True)
class _Line:
    days: Floats  # of the block means, 0 at the newest sample
    values: Floats
    slope: float
    level: float  # at day 0
    spread: float  # mean absolute residual, in the feature's own unit: a median would not see a bend at the end
    window_days: float
    logarithmic: bool

    @property
    def residuals(self) -> Floats:
        return self.values - self.level - self.slope * self.days

    def target(self, limit: float) -> float:
        return float(np.log(limit)) if self.logarithmic else limit

    def left(self, limit: float) -> float:
        return max((self.target(limit) - self.level) / self.slope, 0.0)


def time_to_limit(
    at: Instants,
    values: Floats,
    limit: float,
    *,
    how: Extrapolation | None = None,
    past_ratios: Floats | None = None,
    seed: int = 0,
) -> Span | None:
    """Estimate when a feature reaches its limit, or return None where it does not rise for certain.

    Args:
        at: (n,) instants in microseconds since 1970 UTC, ascending.
        values: (n,) the feature, higher is worse; NaN where missing.
        limit: the alarm limit, in the feature's unit.
        how: the parameters.
        past_ratios: true ÷ estimated time of earlier episodes, where there are any: their 5 % and 95 % quantiles widen
            the interval (split-conformal), and never narrow it.
        seed: of the bootstrap; the same arguments give the same interval.
    """
    how = how or Extrapolation()
    known = np.isfinite(values)
    at, values = at[known], values[known]
    if len(at) == 0:
        return None
    lines = _lines(at, values, how)
    if not lines or lines[0].slope <= 0:
        return None
    best = lines[0]
    p_value = mann_kendall(best.values)
    if p_value >= how.certain_at:
        return None
    middle = best.left(limit)
    if middle > how.longest_days:
        return None
    bounds = [_interval(line, limit, how, seed) for line in lines]
    low, high = min(bound[0] for bound in bounds), max(bound[1] for bound in bounds)
    if past_ratios is not None and len(past_ratios):
        low *= min(1.0, float(np.quantile(past_ratios, 0.05)))
        high *= max(1.0, float(np.quantile(past_ratios, 0.95)))
    return Span(min(low, middle), middle, max(high, middle), best.window_days, best.logarithmic, p_value)


def theil_sen(days: Floats, values: Floats) -> tuple[float, float]:
    """Return the slope, median over all pairs, and the level at day 0, mean of the middle 60 % of the points.

    >>> theil_sen(np.arange(5.0), np.array([1.0, 3.0, 5.0, 7.0, 99.0]))
    (2.0, 1.0)
    """
    first, second = np.triu_indices(len(days), 1)
    slope = float(np.median((values[second] - values[first]) / (days[second] - days[first])))
    return slope, float(_middle_mean(values - slope * days))


def _middle_mean(values: Floats) -> Floats:
    """Return the mean without the lowest and highest fifth along the last axis."""
    cut = values.shape[-1] // 5
    return np.asarray(np.sort(values, axis=-1)[..., cut : values.shape[-1] - cut].mean(axis=-1))


def mann_kendall(values: Floats) -> float:
    """Return the one-sided p-value of no rise, normal approximation with ties (Kendall 1975)."""
    count = len(values)
    first, second = np.triu_indices(count, 1)
    balance = float(np.sign(values[second] - values[first]).sum())
    _, ties = np.unique(values, return_counts=True)
    variance = (count * (count - 1) * (2 * count + 5) - (ties * (ties - 1) * (2 * ties + 5)).sum()) / 18
    if variance <= 0:
        return 1.0
    return float(norm.sf((balance - np.sign(balance)) / np.sqrt(variance)))


def _lines(at: Instants, values: Floats, how: Extrapolation) -> list[_Line]:
    """Return the line to go by, and after it the other kind where the data cannot tell the two apart."""
    pairs = []
    for window in how.windows_days:
        days, means = _block_means(at, values, window, how.blocks)
        if len(days) < how.least_blocks or -days[0] < window / 2:
            continue
        pair = [_line(days, means, window, logarithmic=False)]
        if (means > 0).all():
            pair.append(_line(days, means, window, logarithmic=True))
        pairs.append(sorted(pair, key=lambda line: line.spread))
    if not pairs:
        return []
    tightest = min(pair[0].spread for pair in pairs)
    chosen = [pair for pair in pairs if pair[0].spread <= how.fits_within * tightest][-1]
    return [line for line in chosen if line.spread <= how.fits_within * chosen[0].spread]


def _block_means(at: Instants, values: Floats, window_days: float, blocks: int) -> tuple[Floats, Floats]:
    days = (at - at[-1]) / DAY_US
    inside = days > -window_days
    days, values = days[inside], values[inside]
    block = np.minimum(((days + window_days) / window_days * blocks).astype(np.int64), blocks - 1)
    counts = np.bincount(block, minlength=blocks)
    filled = counts > 0
    counts = counts[filled]
    return (
        np.bincount(block, days, blocks)[filled] / counts,
        np.bincount(block, values, blocks)[filled] / counts,
    )


def _line(days: Floats, means: Floats, window_days: float, *, logarithmic: bool) -> _Line:
    values = np.log(means) if logarithmic else means
    slope, level = theil_sen(days, values)
    fitted = level + slope * days
    misfit = means - (np.exp(fitted) if logarithmic else fitted)
    return _Line(days, values, slope, level, float(np.mean(np.abs(misfit))), window_days, logarithmic)


def _interval(line: _Line, limit: float, how: Extrapolation, seed: int) -> tuple[float, float]:
    """Redraw the line through resampled residuals, widened for what they hide.

    Two degrees of freedom went into the line, and neighbours that resemble each other (lag-1 correlation r) are worth
    (1 − r)/(1 + r) independent ones.
    """
    rng = np.random.default_rng(seed)
    count, residuals = len(line.days), line.residuals - np.mean(line.residuals)
    alike = float((residuals[1:] * residuals[:-1]).sum() / max((residuals**2).sum(), 1e-300))
    alike = min(max(alike + (1 + 4 * alike) / count, 0.0), 0.95)  # a short series understates it (Kendall 1954)
    widened = residuals * np.sqrt(count / (count - 2) * (1 + alike) / (1 - alike))
    drawn = line.level + line.slope * line.days + rng.choice(widened, (how.resamples, count))
    first, second = np.triu_indices(count, 1)
    slopes = np.median((drawn[:, second] - drawn[:, first]) / (line.days[second] - line.days[first]), axis=1)
    levels = _middle_mean(drawn - slopes[:, None] * line.days)
    rising = slopes > 0
    left = np.where(rising, np.maximum(line.target(limit) - levels, 0.0) / np.where(rising, slopes, 1.0), np.inf)
    low, high = np.quantile(left, [0.05, 0.95], method="inverted_cdf")
    return float(low), float(high)


@dataclass(frozen=True, slots=True)
class Health:
    """Baseline of a health index over several channels.

    Attributes:
        mean, scale: (c,) of the channels on the baseline; scale 0 marks a constant one, which is left out.
        weight: λ of the smoothing.
    """

    mean: Floats
    scale: Floats
    weight: float

    @property
    def unit(self) -> float:
        """Standard deviation an EWMA of independent samples keeps."""
        return float(np.sqrt(self.weight / (2 - self.weight)))


def learn_health(baseline: Floats, *, weight: float = 0.1) -> Health:
    """Teach the index from (n, c) healthy rows."""
    scale = baseline.std(axis=0)
    return Health(baseline.mean(axis=0), np.where(scale > 1e-9, scale, 0.0), weight)


def health_index(health: Health, rows: Floats, level: Floats | None = None) -> tuple[Floats, Floats]:
    """Return (n,) deviations √(mean z²) of the smoothed channels, about 1 while healthy, and the level to go on from.

    Args:
        health: the baseline.
        rows: (n, c) in order of time.
        level: (c,) where the previous block ended; None at the start.
    """
    moving = health.scale > 0
    z = (rows[:, moving] - health.mean[moving]) / health.scale[moving]
    index, current = np.zeros(len(rows)), None if level is None else level.copy()
    for row, here in enumerate(z):
        current = here.copy() if current is None else health.weight * here + (1 - health.weight) * current
        index[row] = np.sqrt(np.mean(current**2)) / health.unit
    return index, np.zeros(int(moving.sum())) if current is None else current


def raised_at(index: Floats, *, above: float = 3.0, lasting: int = 5) -> int | None:
    """Return the row at which an index has been above a limit for so many rows in a row, or None."""
    run = 0
    for row, value in enumerate(index.tolist()):
        run = run + 1 if value > above else 0
        if run >= lasting:
            return row
    return None
