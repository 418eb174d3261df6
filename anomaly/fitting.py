"""Learns a machine's baseline: one robust model per channel, and how much its smoothed residual moves when healthy."""

import numpy as np

from anomaly.columns import BoolArray, FloatArray, IntArray
from anomaly.config import (
    EXCESS_PRIOR,
    KINDS,
    LOADS,
    PRIORS,
    RELATIVE_PRIOR,
    SIBLING_PRIOR,
    UNSCORED,
    VIBRATION,
    EngineConfig,
    Prior,
)
from anomaly.model import (
    DAY_FEATURES,
    DAY_US,
    LAG_FEATURES,
    LAG_TAUS_S,
    LOAD_FEATURES,
    features,
    fit_robust,
    robust_spread,
    smooth,
)
from anomaly.state import Channels, Machines, Sensors, View
from fettle.model import SignalKind

_KNOWN_STEPS = 6
_ROWS_A_FEATURE = 8
_LEAST_LOAD_RANGE = 0.10  # of the 90th percentile
_BEYOND = 0.25  # of the range of the baseline
_LAG_SETTLE_US = int(2 * LAG_TAUS_S.max() * 1e6)


def fit_machine(
    config: EngineConfig,
    machines: Machines,
    sensors: Sensors,
    channels: Channels,
    *,
    machine: int,
    sensor_rows: IntArray,
    channel_rows: IntArray,
    at: IntArray,
    lag: FloatArray,
    means: FloatArray,
) -> None:
    """Fit every channel of a machine on its training rows and write the models into the tables.

    `means` is (time, sensor) in the order of `sensor_rows`, `lag` the thermal memory of the raw load. A channel whose
    present model stands on a longer baseline keeps it, and with it the load of its machine the scale and range it was made for.
    """
    where = {int(row): i for i, row in enumerate(sensor_rows)}
    load_row = int(machines.load_row[machine])
    running = np.ones(len(at), dtype=bool)
    load = np.zeros(len(at))
    steady = running
    learned = int(machines.learned_us[machine])
    keeps = bool(stands_longer(channels, channel_rows, learned).any()) and machines.load_scale[machine] > 0
    if load_row >= 0:
        raw = means[:, where[load_row]]
        scale = float(np.nanpercentile(np.abs(raw), 90)) if np.isfinite(raw).any() else np.nan
        scale = float(machines.load_scale[machine]) if keeps else scale
        if not scale > 0:
            return
        load = raw / scale
        running = load > config.running_on_share
        settled = np.isfinite(load) & ((load > config.running_on_share) | (load < config.running_off_share))
        steady = settled & (running == np.roll(running, 1)) & (running == np.roll(running, -1))
        if not keeps:
            _set_load(
                config, machines, sensors, machine=machine, scale=scale, load=load, running=running, steady=steady
            )
            _set_lag(machines, machine=machine, at=at, lag=lag)
        lag = lag / np.repeat([scale, scale * scale], len(LAG_TAUS_S))
    design = features(np.nan_to_num(load), np.nan_to_num(lag), at)
    # hours of baseline and what its steps are worth: both must grow for doubt to shrink
    covered = learned / 3.6e9
    hours = float(np.sqrt(covered * min(covered, machines.learned_steps[machine] * config.coarse_step_s / 3600.0)))
    siblings = sibling_medians(sensors, sensor_rows, means)
    for c in channel_rows[~stands_longer(channels, channel_rows, learned)]:
        j = where[int(channels.sensor[c])]
        kind = KINDS[int(sensors.kind[sensor_rows[j]])]
        x = means[:, j]
        step_s = max(float(machines.step_us[machine]), _finite(sensors.period_us[sensor_rows[j]])) / 1e6
        if channels.view[c] in (View.EXCESS_HIGH, View.EXCESS_LOW):
            floor = float(machines.load_floor[machine]) if j == where[load_row] else -np.inf
            _fit_excess(config, channels, c, x=x, running=running & steady, learned=learned, hours=hours, floor=floor)
            continue
        channels.is_log[c] = kind in VIBRATION or (kind not in PRIORS and _is_ratio(x))
        y = to_scale(x, is_log=bool(channels.is_log[c]))
        if channels.view[c] == View.SIBLINGS:
            y = against_siblings(x, siblings[:, j], kind in VIBRATION)
        use_rows = np.isfinite(y)
        if load_row >= 0:
            use_rows &= np.isfinite(load)
        if channels.needs_running[c]:
            use_rows &= (running & steady) if load_row >= 0 else ~is_idle(x, config)
        columns = _columns(
            kind,
            view=View(int(channels.view[c])),
            has_load=load_row >= 0 and _varies(load[use_rows]),
            rows=int(use_rows.sum()),
            span_us=int(at[-1] - at[0]),
        )
        if (columns[1:] >= LAG_FEATURES[0]).any() and load_row >= 0:
            warm = at - at[0] >= min(_LAG_SETTLE_US, int(at[-1] - at[0]) // 4)
            use_rows &= warm
        if int(use_rows.sum()) < config.first_fit_steps // 2:
            continue
        fit = fit_robust(design[use_rows], y[use_rows], columns)
        residual = np.where(use_rows, y - design @ fit.coefficients, np.nan)
        tau_s = config.smooth_steps * step_s
        smoothed = smooth(residual, at, step_s=step_s, tau_s=tau_s, reseed_gap_s=config.reseed_taus * tau_s)
        spread = robust_spread(smoothed)
        prior = _prior(kind, View(int(channels.view[c])), is_log=bool(channels.is_log[c]))
        unit = (
            1.0 if channels.is_log[c] or kind in PRIORS else max(abs(float(np.nanmedian(x))), 3 * float(np.nanstd(x)))
        )
        if unit == 0.0:  # always zero: nothing tells how much is much
            continue
        doubt = unit * prior.doubt(hours)
        if channels.view[c] == View.LEVEL and kind not in PRIORS:
            spread = max(spread, _resolution(y[use_rows]))
        if channels.view[c] == View.SIBLINGS and kind not in VIBRATION:
            doubt, spread = 0.0, min(float(np.hypot(spread, doubt)), config.phase_unbalance / config.multiplier)
        channels.coefficients[c] = fit.coefficients
        channels.noise[c] = fit.sigma
        least, most = float(y[use_rows].min()), float(y[use_rows].max())
        margin = _BEYOND * (most - least) + 3.0 * fit.sigma
        channels.least[c], channels.most[c] = least - margin, most + margin
        channels.sigma[c] = np.hypot(max(spread, 1e-9), doubt)
        channels.fitted_us[c] = learned
        channels.shift[c] = 0.0
        channels.is_fitted[c] = True


def stands_longer(channels: Channels, channel_rows: IntArray, learned_us: int) -> BoolArray:
    """Say which channels have a model of a longer baseline than `learned_us`: a sensor that came later began learning anew."""
    return np.asarray(
        channels.is_fitted[channel_rows] & (channels.fitted_us[channel_rows] > learned_us), dtype=np.bool_
    )


def _set_load(
    config: EngineConfig,
    machines: Machines,
    sensors: Sensors,
    *,
    machine: int,
    scale: float,
    load: FloatArray,
    running: BoolArray,
    steady: BoolArray,
) -> None:
    machines.load_scale[machine] = scale
    sensors.rest_below[machines.load_row[machine]] = config.running_off_share * scale
    seen = load[running & steady]
    if len(seen):
        low, high = np.quantile(seen, [0.001, 0.999])
        margin = 0.10 * max(high - low, 0.1 * high)
        machines.load_low[machine], machines.load_high[machine] = low - margin, high * 1.02
    machines.knows_off[machine] = int(np.count_nonzero(steady & ~running)) >= _KNOWN_STEPS


def _set_lag(machines: Machines, *, machine: int, at: IntArray, lag: FloatArray) -> None:
    warm = (at - at[0] >= _LAG_SETTLE_US) & np.isfinite(lag).all(axis=1)
    if warm.any():
        margins = 0.05 * np.abs(lag[warm]).max(axis=0)
        machines.lag_low[machine] = lag[warm].min(axis=0) - margins
        machines.lag_high[machine] = lag[warm].max(axis=0) + margins


def _varies(load: FloatArray) -> bool:
    """Say whether a load took values so far apart that its effect can be told from its noise."""
    if len(load) == 0:
        return False
    low, high = np.quantile(load, [0.05, 0.95])
    return bool(high - low > _LEAST_LOAD_RANGE)


def _resolution(y: FloatArray) -> float:
    """Return the smallest step seen in a signal that is mostly one value, whose scatter tells nothing; else 0."""
    if np.median(np.abs(y - np.median(y))) > 0:
        return 0.0
    steps = np.diff(np.unique(y))
    return float(steps.min()) if len(steps) else 0.0


def _finite(value: float) -> float:
    return float(value) if np.isfinite(value) else 0.0


def _is_ratio(x: FloatArray) -> bool:
    """Say whether a signal lives on a ratio scale: always positive and never near zero."""
    x = x[np.isfinite(x)]
    return len(x) > 0 and float(x.min()) > 0.05 * float(np.median(x)) > 0


def to_scale(x: FloatArray, *, is_log: BoolArray | bool) -> FloatArray:
    """Return x, or its logarithm where `is_log`; NaN where there is none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.where(x > 0, np.log(np.where(x > 0, x, 1.0)), np.nan)
    return np.where(is_log, logs, x)


def is_idle(x: FloatArray, config: EngineConfig) -> BoolArray:
    """Say where a vibration is so far below its usual level that the machine must be standing."""
    usual = float(np.nanquantile(x, 0.75)) if np.isfinite(x).any() else 0.0
    return x < config.idle_vibration_share * usual


def sibling_medians(sensors: Sensors, sensor_rows: IntArray, means: FloatArray) -> FloatArray:
    """Return for each (time, sensor) the median over the machine's sensors of the same kind."""
    out = np.full_like(means, np.nan)
    kinds = sensors.kind[sensor_rows]
    for kind in np.unique(kinds):
        group = np.flatnonzero(kinds == kind)
        valid = np.isfinite(means[:, group]).any(axis=1)
        out[np.ix_(valid, group)] = np.nanmedian(means[np.ix_(valid, group)], axis=1)[:, None]
    return out


def against_siblings(x: FloatArray, median: FloatArray, is_log: BoolArray | bool) -> FloatArray:
    """Return how far x is from its siblings: the logarithm of the ratio, or the share of the median (phases may be zero)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(median > 0, x / median, np.nan)
    return np.where(is_log, to_scale(ratio, is_log=True), ratio - 1.0)


def _prior(kind: SignalKind, view: View, *, is_log: bool) -> Prior:
    if view is View.SIBLINGS:
        return SIBLING_PRIOR
    return PRIORS.get(kind, RELATIVE_PRIOR) if not is_log or kind in VIBRATION else RELATIVE_PRIOR


def _columns(kind: SignalKind, *, view: View, has_load: bool, rows: int, span_us: int) -> IntArray:
    """Return the regressors a channel may use: what physics suggests and the baseline is long enough for."""
    use = [np.array([0])]
    if view is View.LEVEL:
        if has_load:
            use.append(LOAD_FEATURES)
        if kind not in VIBRATION:
            if has_load and span_us >= DAY_US // 4 and rows >= _ROWS_A_FEATURE * (3 + len(LAG_FEATURES)):
                use.append(LAG_FEATURES)
            if span_us >= 3 * DAY_US and rows >= _ROWS_A_FEATURE * (len(LAG_FEATURES) + 5):
                use.append(DAY_FEATURES)
    return np.concatenate(use)


def _fit_excess(
    config: EngineConfig,
    channels: Channels,
    c: int,
    *,
    x: FloatArray,
    running: BoolArray,
    learned: int,
    hours: float,
    floor: float,
) -> None:
    rows = x[running & np.isfinite(x)]
    if len(rows) < config.first_fit_steps // 2:
        return
    high = channels.view[c] == View.EXCESS_HIGH
    edge = float(np.quantile(rows, 0.999)) if high else min(float(rows.min()), floor)
    if not edge > 0:
        return
    prior = EXCESS_PRIOR
    doubt = prior.doubt(hours)
    channels.edge[c] = edge
    unit = config.excess_unit
    if high:  # a load that scatters at its top needs more than that
        unit = max(unit, (edge - float(np.quantile(rows, 0.95))) / edge)
    channels.noise[c] = unit * edge
    # one alarm level is `excess_alarm` units of smoothed excess, more while the baseline is short
    channels.sigma[c] = (config.excess_alarm * unit + doubt) * edge / config.multiplier
    channels.fitted_us[c] = learned
    channels.is_fitted[c] = True


def channel_views(kind: SignalKind, *, is_load: bool, siblings: int) -> list[View]:
    """Return how a sensor is looked at, given its kind, whether it is its machine's load, and the sensors of its kind."""
    if kind in UNSCORED:
        return []
    phases = [View.SIBLINGS] if kind is SignalKind.CURRENT and siblings >= 3 else []
    if is_load:
        return [View.EXCESS_HIGH, View.EXCESS_LOW, *phases] if kind is not SignalKind.SPEED else []
    if phases:
        return phases
    if kind in LOADS and kind is not SignalKind.SPEED:
        return [View.LEVEL, View.EXCESS_HIGH]
    if kind in VIBRATION and siblings >= 2:
        return [View.LEVEL, View.SIBLINGS]
    return [View.LEVEL]
