"""The signals a machine may report, their units, and those beyond temperature, vibration and current."""

import numpy as np
import numpy.typing as npt

from simulators.faults import Condition
from simulators.machine import Machine, generator
from simulators.physics import DayPlan, Grid, quantise
from simulators.production import piece_seconds
from simulators.vibration import acceleration_g

SIGNAL_UNITS = {
    "temperature": "°C",
    "vibration": "mm/s",
    "current": "A",
    "vibration_acceleration": "g",
    "current_l1": "A",
    "current_l2": "A",
    "current_l3": "A",
    "speed": "1/min",
    "power": "kW",
    "pressure": "bar",
    "flow": "m³/h",
    "ambient": "°C",
    "state": "state",
    "good": "count",
    "scrap": "count",
}
DEFAULT_SIGNALS = ("temperature", "vibration", "current")

_EXTRA_STREAM = {name: 16 + i for i, name in enumerate(SIGNAL_UNITS)}
_PHASES = ("current_l1", "current_l2", "current_l3")

Floats = npt.NDArray[np.float64]


def extra_signals(
    machine: Machine,
    seed: int,
    plan: DayPlan,
    grid: Grid,
    block: int,
    wanted: frozenset[str],
    *,
    on: npt.NDArray[np.bool_],
    load: Floats,
    share: Floats,
    ratio: Floats,
    faulty: Condition | None,
    noise: dict[str, Floats],
) -> dict[str, Floats]:
    """Return the wanted signals; each draws from its own random numbers, so asking for one changes no other."""
    kind = machine.kind
    n = grid.t_us.size
    out: dict[str, Floats] = {}

    def normal(signal: str) -> Floats:
        z = generator(seed, machine.key, _EXTRA_STREAM[signal], block).standard_normal(n)
        return z * noise[signal] if signal in noise else z

    def reduced(value: Floats, by: Floats | None) -> Floats:
        return value if by is None else value * np.maximum(1 - by, 0.0)

    for signal in sorted(wanted):
        if signal == "vibration_acceleration":
            value = acceleration_g(machine, load, machine.rated_speed_rpm / 60 * ratio, faulty)
            out[signal] = quantise(np.where(on, value, 0.004) * np.exp(kind.vibration_noise * normal(signal)), 0.001)
        elif signal in _PHASES:
            value = (
                kind.current_a
                * share
                * (1 + kind.current_noise * normal(signal))
                * (1 + _own_unbalance(machine, signal))
            )
            if faulty is not None:
                u, lost = faulty.unbalance, faulty.phase_loss
                # deviations from the mean are u, -u/2, -u/2; a lost L3 leaves its current to the other two
                value = value * (1 + u if signal == "current_l1" else 1 - u / 2)
                value = value * (1 - lost if signal == "current_l3" else 1 + 0.15 * lost)
            value = np.where(on, value, kind.standby_a)
            out[signal] = quantise(np.maximum(value, 0.0), kind.current_step_a)
        elif signal == "speed":
            out[signal] = quantise(np.where(on, kind.rated_speed_rpm * ratio + 0.5 * normal(signal), 0.0), 1.0)
        elif signal == "power":
            mechanical = kind.rated_power_kw * np.maximum(load, 0.0) / 0.9 + 0.06 * kind.rated_power_kw
            out[signal] = quantise(np.where(on, mechanical * (1 + 0.01 * normal(signal)), 0.02), 0.01)
        elif signal == "pressure":
            value = kind.pressure_bar * (0.75 + 0.25 * load) * (1 + 0.01 * normal(signal))
            out[signal] = quantise(np.where(on, reduced(value, faulty.pressure if faulty else None), 0.0), 0.01)
        elif signal == "flow":
            value = kind.flow_m3_h * load * (1 + 0.015 * normal(signal))
            out[signal] = quantise(np.where(on, reduced(value, faulty.flow if faulty else None), 0.0), 0.1)
        elif signal == "ambient":
            out[signal] = quantise(grid.at(plan.ambient_c) + 0.1 * normal(signal), 0.1)
        elif signal == "state":
            bounds = np.append(np.searchsorted(grid.offset_us, plan.spans.start_s * 1_000_000, side="left"), n)
            out[signal] = np.repeat(plan.spans.state, np.diff(bounds)).astype(np.float64)
        elif signal in {"good", "scrap"}:
            at, good = piece_seconds(machine, seed, plan.day, plan.spans)
            at = at[good] if signal == "good" else at[~good]
            # pieces finished since the sample before; the first sample of a day takes those since midnight, and the
            # last one those until the next, so that every piece is counted once
            edges = grid.offset_us / 1e6
            period_s = machine.period_us / 1e6
            low, high = edges - period_s, edges
            if grid.offset_us[0] < machine.period_us:
                low[0] = -1.0
            if grid.offset_us[-1] + machine.period_us >= 86_400_000_000:
                high[-1] = 86_400.0
            out[signal] = (np.searchsorted(at, high, side="right") - np.searchsorted(at, low, side="right")).astype(
                np.float64
            )
        else:
            raise AssertionError(signal)
    return out


def _own_unbalance(machine: Machine, signal: str) -> float:
    """Return the small deviation of a phase that every healthy motor has, within 1.5 %."""
    u = generator(3, machine.key).random(3)
    u -= u.mean()
    return float(0.02 * u[_PHASES.index(signal)])
