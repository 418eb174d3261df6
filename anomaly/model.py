"""What a healthy channel should read, given load, thermal history and time of day (ISO 13374 block DM).

    expected = 1, L, L^2, EWMA(L), EWMA(L^2), sin and cos of the day  .  coefficients
    residual = measured - expected          (logarithms for vibration: it scales)

L is the machine's load (current, else power, else speed) over its own 90th percentile. The fit is robust: rows that a
fault, a sensor or a strange day put far off pull no harder than others. Trimming them away instead (least trimmed
squares) was tried and lost: it also drops the rare modes, standing still and warming up, and then alarms in them.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from anomaly.columns import NEVER, BoolArray, FloatArray, IntArray

LAG_TAUS_S = np.array([900.0, 2700.0, 8100.0])
"""Thermal memory: the true time constant of a machine lies between these, and so does their ridge mixture."""

FEATURES = 3 + 2 * len(LAG_TAUS_S) + 2
LOAD_FEATURES = np.array([1, 2])
LAG_FEATURES = np.arange(3, 3 + 2 * len(LAG_TAUS_S))
DAY_FEATURES = np.array([FEATURES - 2, FEATURES - 1])
DAY_US = 86_400_000_000
LONGEST_S = 1e9

RIDGE = 1e-4
_HUBER = 1.345
_KEEP = 0.5
_Q_KEEP_TO_SIGMA = 0.6745  # half of a normal distribution lies within this many sigma


@dataclass(frozen=True, slots=True)
class Fit:
    """Coefficients over `FEATURES` and how well they fit.

    `sigma` is the robust standard deviation of the residuals.
    """

    coefficients: FloatArray
    sigma: float


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


def _ridge(weighted: FloatArray, y: FloatArray, z: FloatArray, penalty: float) -> FloatArray:
    gram = weighted.T @ z
    gram[np.diag_indices_from(gram)] += penalty
    gram[0, 0] -= penalty  # the constant is not shrunk
    return np.asarray(np.linalg.solve(gram + 1e-12 * np.eye(len(gram)), weighted.T @ y), dtype=np.float64)


def fit_robust(
    x: FloatArray, y: FloatArray, use: npt.NDArray[np.integer[Any]], *, penalty: float = RIDGE, rounds: int = 30
) -> Fit:
    """Fit y on the columns `use` of x so that bad rows pull with bounded force (Huber 1981, k = 1.345).

    `use` must contain column 0, the constant. Columns are standardised and shrunk by a ridge of `penalty` per row.
    """
    z = x[:, use]
    centre, spread = z.mean(axis=0), z.std(axis=0)
    centre[0], spread[0] = 0.0, 1.0
    flat = spread < 1e-9
    spread[flat] = 1.0
    z = (z - centre) / spread
    z[:, flat] = 0.0
    z[:, 0] = 1.0
    weight = np.ones(len(y))
    beta = np.zeros(z.shape[1])
    sigma = 0.0
    for _ in range(rounds):
        moved = _ridge(z * weight[:, None], y, z, penalty * float(weight.sum()))
        residual = y - z @ moved
        sigma = float(np.quantile(np.abs(residual), _KEEP)) / _Q_KEEP_TO_SIGMA
        settled = np.max(np.abs(moved - beta)) < 1e-4 * max(sigma, 1e-12)
        beta = moved
        if settled or sigma <= 0:
            break
        weight = np.minimum(1.0, _HUBER * sigma / np.maximum(np.abs(residual), 1e-300))
    full = np.zeros(x.shape[1])
    full[use] = beta / spread
    full[use[flat]] = 0.0
    full[0] = beta[0] - float(np.sum((beta * centre / spread)[1:]))
    return Fit(full, sigma)


def smoothing(
    dt_s: FloatArray, *, step_s: FloatArray | float, tau_s: FloatArray | float, reseed_gap_s: FloatArray | float
) -> tuple[FloatArray, BoolArray]:
    """Return the EWMA weight of a residual that comes `dt_s` after the one before, and whether to start anew.

    After a gap the level starts at zero again, with the weight of one step: a pause is no evidence.
    """
    anew = dt_s > reseed_gap_s
    return 1.0 - np.exp(-np.where(anew, step_s, dt_s) / tau_s), anew


def smooth(residual: FloatArray, at_us: IntArray, *, step_s: float, tau_s: float, reseed_gap_s: float) -> FloatArray:
    """Return the EWMA of one channel's residuals along time exactly as the engine runs it; NaN leaves it as it was."""
    out = np.full_like(residual, np.nan)
    rows = np.flatnonzero(np.isfinite(residual))
    if len(rows) == 0:
        return out
    dt_s = np.minimum(np.diff(at_us[rows], prepend=NEVER) / 1e6, LONGEST_S)
    weight, anew = smoothing(dt_s, step_s=step_s, tau_s=tau_s, reseed_gap_s=reseed_gap_s)
    level = 0.0
    levels = []
    for value, share, is_new in zip(residual[rows].tolist(), weight.tolist(), anew.tolist(), strict=True):
        if is_new:
            level = 0.0
        level += share * (value - level)
        levels.append(level)
    out[rows] = levels
    return out


def robust_spread(values: FloatArray) -> float:
    """Return a standard deviation about zero in which values beyond four robust sigma count as four."""
    values = values[np.isfinite(values)]
    if len(values) < 3:
        return float("inf")
    scale = 1.4826 * float(np.median(np.abs(values)))
    clipped = np.minimum(np.abs(values), 4.0 * scale) if scale > 0 else np.abs(values)
    return float(np.sqrt(np.mean(clipped**2)))
