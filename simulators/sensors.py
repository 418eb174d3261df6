"""Faults of sensors, applied to what a healthy sensor would have read."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simulators.disturbances import SensorFault
from simulators.machine import Machine, generator, stable_key

Floats = npt.NDArray[np.float64]
Instants = npt.NDArray[np.int64]

_SPIKES, _MISSING = 9, 10  # streams of random numbers
_DAY_US = 86_400_000_000


@dataclass(frozen=True)
class Column:
    """One signal of one machine over a block: when samples were taken, the time stamps they carry, their values."""

    taken_us: Instants
    stamped_us: Instants
    values: Floats


def usual_size(kind: str, signal: str, machine: Machine) -> float:
    """Return the size of a sensor fault where the scenario gives none, in the unit of the kind."""
    scale = {
        "temperature": 8.0,
        "ambient": 8.0,
        "vibration": 1.2 * machine.vibration_mm_s,
        "vibration_acceleration": 1.2 * machine.acceleration_g,
        "current": 0.25 * machine.rated_current_a,
        "current_l1": 0.25 * machine.rated_current_a,
        "current_l2": 0.25 * machine.rated_current_a,
        "current_l3": 0.25 * machine.rated_current_a,
        "speed": 0.2 * machine.rated_speed_rpm,
        "power": 0.25 * machine.rated_power_kw,
        "pressure": 0.3 * machine.kind.pressure_bar,
        "flow": 0.3 * machine.kind.flow_m3_h,
    }.get(signal, 1.0)
    return {
        "drift": scale / 10,
        "offset": scale,
        "spike": 5 * scale,
        "noise_up": 5.0,
        "noise_down": 0.1,
        "unit_change": 1000.0,
        "clock_skew": 120.0,
    }.get(kind, 0.0)


def _size(fault: SensorFault, machine: Machine) -> float:
    return usual_size(fault.kind, fault.signal, machine) if math.isnan(fault.size) else fault.size


def _active(fault: SensorFault, t_us: Instants) -> npt.NDArray[np.bool_]:
    inside = t_us >= fault.onset_us
    return inside if fault.end_us is None else inside & (t_us < fault.end_us)


def noise_factors(faults: tuple[SensorFault, ...], machine: Machine, t_us: Instants) -> dict[str, Floats]:
    """Return the factor of the scatter of each signal whose sensor is noisy or deadened somewhere in the block."""
    factors: dict[str, Floats] = {}
    for fault in faults:
        if fault.kind in {"noise_up", "noise_down"} and fault.overlaps(int(t_us[0]), int(t_us[-1]) + 1):
            factor = np.where(_active(fault, t_us), _size(fault, machine), 1.0)
            factors[fault.signal] = factors[fault.signal] * factor if fault.signal in factors else factor
    return factors


def apply_sensor_faults(
    column: Column,
    faults: tuple[SensorFault, ...],
    *,
    machine: Machine,
    signal: str,
    seed: int,
    block: int,
    value_at: Callable[[int, str], float],
) -> Column:
    """Return what a faulty sensor delivers; `value_at(instant, signal)` is the last healthy value before an instant."""
    taken, stamped, values = column.taken_us, column.stamped_us, column.values
    keep: npt.NDArray[np.bool_] | None = None
    for fault in faults:
        if fault.signal != signal or not taken.size or not fault.overlaps(int(taken[0]), int(taken[-1]) + 1):
            continue
        active, size = _active(fault, taken), _size(fault, machine)
        if not active.any():
            continue
        match fault.kind:
            case "stuck":
                values = np.where(active, value_at(fault.onset_us, signal), values)
            case "drift":
                values = values + np.where(active, size * (taken - fault.onset_us) / _DAY_US, 0.0)
            case "offset":
                values = values + np.where(active, size, 0.0)
            case "spike":
                rng = generator(seed, machine.key, _SPIKES, block, stable_key(signal))
                u = rng.random((2, taken.size))
                hit = active & (u[0] < fault.rate_per_h * machine.period_us / 3.6e9)
                both_ways = signal in {"temperature", "ambient"}  # the others cannot be negative
                values = values + np.where(hit, np.where(both_ways & (u[1] < 0.5), -size, size), 0.0)
            case "unit_change":
                other = values * 1.8 + 32 if fault.fahrenheit else values * size
                values = np.where(active, other, values)
            case "clock_skew":
                stamped = stamped + np.where(active, round(size * 1e6), 0)
            case "dropout":
                keep = ~active if keep is None else keep & ~active
            case "noise_up" | "noise_down":
                pass  # acts on the scatter while the block is drawn
            case _:
                raise AssertionError(fault.kind)
    if keep is None:
        return Column(taken, stamped, values)
    return Column(taken[keep], stamped[keep], values[keep])


def drop_missing(
    column: Column, *, share: float, start_us: int, end_us: int, machine: Machine, signal: str, seed: int, block: int
) -> Column:
    """Return the column without a random share of the samples of a span."""
    u = generator(seed, machine.key, _MISSING, block, stable_key(signal)).random(column.taken_us.size)
    keep = (u >= share) | (column.taken_us < start_us) | (column.taken_us >= end_us)
    return Column(column.taken_us[keep], column.stamped_us[keep], column.values[keep])
