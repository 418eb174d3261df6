"""What a healthy channel should read, given load, thermal history and time of day (ISO 13374 block DM).

    expected = 1, L, L^2, EWMA(L), EWMA(L^2), sin and cos of the day  .  coefficients
    residual = measured - expected          (logarithms for vibration: it scales)

L is the machine's load (current, else power, else speed) over its own 90th percentile. The fit is trimmed: rows that a
fault, a sensor or a strange day put far off do not count (least trimmed squares, Rousseeuw 1984).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from anomaly.columns import BoolArray, FloatArray, IntArray

LAG_TAUS_S = np.array([900.0, 2700.0, 8100.0])
"""Thermal memory: the true time constant of a machine lies between these, and so does their ridge mixture."""

FEATURES = 3 + 2 * len(LAG_TAUS_S) + 2
LOAD_FEATURES = np.array([1, 2])
LAG_FEATURES = np.arange(3, 3 + 2 * len(LAG_TAUS_S))
DAY_FEATURES = np.array([FEATURES - 2, FEATURES - 1])
DAY_US = 86_400_000_000

_KEEP = 0.65
_STARTS = 3
_CONCENTRATIONS = 10
_Q_KEEP_TO_SIGMA = 0.9346  # 65 % of a normal distribution lie within this many sigma


@dataclass(frozen=True, slots=True)
class Fit:
    """Coefficients over `FEATURES` and how well they fit.

    `sigma` is the robust standard deviation of the residuals, `inliers` the rows within three of it.
    """

    coefficients: FloatArray
    sigma: float
    inliers: BoolArray


def features(load: FloatArray, lag: FloatArray, at_us: IntArray) -> FloatArray:
    """Return the design matrix, one row per instant: `lag` holds EWMA(L) then EWMA(L^2) for each time constant."""
    rows = np.empty((len(load), FEATURES))
    rows[:, 0] = 1.0
    rows[:, 1] = load
    rows[:, 2] = load * load
    rows[:, LAG_FEATURES] = lag
    angle = (at_us % DAY_US) * (2 * np.pi / DAY_US)
    rows[:, -2] = np.sin(angle)
    rows[:, -1] = np.cos(angle)
    return rows


def step_lag(lag: FloatArray, load: FloatArray, dt_s: FloatArray) -> FloatArray:
    """Return the thermal memory after `dt_s` at `load`; a row that is not finite starts at the load itself."""
    drive = np.concatenate(
        [
            np.repeat(load[:, None], len(LAG_TAUS_S), axis=1),
            np.repeat((load * load)[:, None], len(LAG_TAUS_S), axis=1),
        ],
        axis=1,
    )
    weight = 1.0 - np.exp(-np.maximum(dt_s, 0.0)[:, None] / np.tile(LAG_TAUS_S, 2))
    moved = lag + weight * (drive - lag)
    return np.where(np.isfinite(lag), moved, drive)


def _ridge(x: FloatArray, y: FloatArray, penalty: float) -> FloatArray:
    gram = x.T @ x
    gram[np.diag_indices_from(gram)] += penalty * len(y)
    gram[0, 0] -= penalty * len(y)  # the constant is not shrunk
    return np.asarray(np.linalg.solve(gram + 1e-12 * np.eye(len(gram)), x.T @ y), dtype=np.float64)


def fit_trimmed(
    x: FloatArray, y: FloatArray, use: npt.NDArray[np.integer[Any]], *, seed: int = 0, penalty: float = 1e-3
) -> Fit:
    """Fit y on the columns `use` of x so that up to 35 % bad rows do not steer the result.

    Ten concentration steps from several starts keep the 65 % smallest residuals; one last fit takes every row within
    three robust standard deviations. `use` must contain column 0, the constant.
    """
    n = len(y)
    z = x[:, use]
    centre, spread = z.mean(axis=0), z.std(axis=0)
    centre[0], spread[0] = 0.0, 1.0
    flat = spread < 1e-9
    spread[flat] = 1.0
    z = (z - centre) / spread
    z[:, flat] = 0.0
    keep = max(int(np.ceil(_KEEP * n)), min(n, len(use) + 2))
    random = np.random.default_rng(seed)
    best: tuple[float, FloatArray] | None = None
    for start in range(_STARTS):
        rows = np.arange(n) if start == 0 else random.choice(n, size=min(n, max(2 * len(use), 10)), replace=False)
        for _ in range(_CONCENTRATIONS):
            beta = _ridge(z[rows], y[rows], penalty)
            size = np.abs(y - z @ beta)
            kept = np.argpartition(size, keep - 1)[:keep]
            if len(kept) == len(rows) and np.array_equal(np.sort(kept), np.sort(rows)):
                break
            rows = kept
        cost = float(np.sum(np.sort(size)[:keep] ** 2))
        if best is None or cost < best[0]:
            best = (cost, beta)
    assert best is not None
    size = np.abs(y - z @ best[1])
    sigma = float(np.quantile(size, _KEEP)) / _Q_KEEP_TO_SIGMA
    inliers = size <= 3.0 * sigma + 1e-12
    beta = _ridge(z[inliers], y[inliers], penalty)
    residual = y - z @ beta
    sigma = float(np.quantile(np.abs(residual), _KEEP)) / _Q_KEEP_TO_SIGMA
    full = np.zeros(x.shape[1])
    full[use] = beta / spread
    full[use[flat]] = 0.0
    full[0] = beta[0] - float(np.sum((beta * centre / spread)[1:]))
    return Fit(full, sigma, np.abs(residual) <= 3.0 * sigma + 1e-12)


def smoothing(
    dt_s: FloatArray, *, step_s: FloatArray | float, tau_s: FloatArray | float, reseed_gap_s: FloatArray | float
) -> tuple[FloatArray, BoolArray]:
    """Return the EWMA weight of a residual that comes `dt_s` after the one before, and whether to start anew.

    After a gap the level starts at zero again, with the weight of one step: a pause is no evidence.
    """
    anew = dt_s > reseed_gap_s
    return 1.0 - np.exp(-np.where(anew, step_s, dt_s) / tau_s), anew


def smooth(residual: FloatArray, at_us: IntArray, *, step_s: float, tau_s: float, reseed_gap_s: float) -> FloatArray:
    """Return the EWMA of residuals along time exactly as the engine runs it; NaN leaves it as it was.

    `residual` is (time, channel).
    """
    level = np.zeros(residual.shape[1])
    out = np.full_like(residual, np.nan)
    last = np.full(residual.shape[1], np.iinfo(np.int64).min // 4)
    for i in range(len(residual)):
        valid = np.isfinite(residual[i])
        weight, anew = smoothing((at_us[i] - last) / 1e6, step_s=step_s, tau_s=tau_s, reseed_gap_s=reseed_gap_s)
        start = np.where(anew, 0.0, level)
        level = np.where(valid, start + weight * (np.where(valid, residual[i], 0.0) - start), level)
        last = np.where(valid, at_us[i], last)
        out[i] = np.where(valid, level, np.nan)
    return out


def robust_spread(values: FloatArray) -> float:
    """Return a standard deviation about zero in which values beyond four robust sigma count as four."""
    values = values[np.isfinite(values)]
    if len(values) < 3:
        return float("inf")
    scale = 1.4826 * float(np.median(np.abs(values)))
    clipped = np.minimum(np.abs(values), 4.0 * scale) if scale > 0 else np.abs(values)
    return float(np.sqrt(np.mean(clipped**2)))
