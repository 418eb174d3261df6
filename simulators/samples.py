"""From a planned day to samples: the values of one block of instants, with the noise of sensor and process."""

import numpy as np
import numpy.typing as npt

from simulators.faults import condition
from simulators.machine import Machine, generator
from simulators.physics import SAMPLE_STREAM, DayPlan, Grid, quantise, speed_ratio
from simulators.signals import extra_signals
from simulators.vibration import healthy_velocity, velocity_factor

Floats = npt.NDArray[np.float64]


def block_signals(
    machine: Machine,
    seed: int,
    plan: DayPlan,
    grid: Grid,
    block: int,
    wanted: frozenset[str],
    noise: dict[str, Floats],
) -> dict[str, Floats]:
    """Return the wanted signals of a block of samples that lies within one day.

    `noise` is the factor of the scatter by signal, for noisy or deadened sensors; absent is 1.
    """
    kind = machine.kind
    n = grid.t_us.size
    rng = generator(seed, machine.key, SAMPLE_STREAM, block)
    z = rng.standard_normal((4, n))
    spans = plan.spans
    bounds = np.append(np.searchsorted(grid.offset_us, spans.start_s * 1_000_000, side="left"), n)
    on = np.repeat(plan.on, np.diff(bounds))
    # at the samples themselves, so that a step is not smeared over the minute before its onset
    faulty = condition(plan.faults, grid.t_us) if plan.state is not None else None
    load = np.repeat(plan.level, np.diff(bounds)) * (1 + grid.at(plan.wander))
    jitter = kind.load_jitter if faulty is None else kind.load_jitter + faulty.load_noise
    load = np.maximum(load * (1 + jitter * z[0]), 0.0)
    i0 = kind.no_load_share
    share = np.sqrt(i0 * i0 + (1 - i0 * i0) * load * load)
    if faulty is not None:
        share = share * (1 + faulty.current)
    ratio = speed_ratio(kind, load)
    if plan.speed is not None:
        ratio = ratio * grid.at(plan.speed)
    out: dict[str, Floats] = {}

    def scatter(signal: str, row: Floats) -> Floats:
        return row * noise[signal] if signal in noise else row

    if "temperature" in wanted:
        value = grid.at(plan.temperature_c) + kind.temperature_noise_k * scatter("temperature", z[1])
        out["temperature"] = quantise(value, kind.temperature_step_c)
    if "vibration" in wanted:
        value = healthy_velocity(machine, load)
        if plan.speed is not None:
            value = value * grid.at(plan.speed) ** 1.5
        if faulty is not None:
            value = value * velocity_factor(machine, faulty)
        value = value * np.exp(kind.vibration_noise * scatter("vibration", z[2]) + grid.at(plan.slow_vibration))
        floor = kind.vibration_floor_mm_s
        value = np.where(on, value + floor, floor * (1 + 0.15 * scatter("vibration", z[2])))
        out["vibration"] = quantise(np.maximum(value, 0.0), kind.vibration_step_mm_s)
    if "current" in wanted:
        value = kind.current_a * share * (1 + kind.current_noise * scatter("current", z[3]))
        if faulty is not None:
            # the transformer sits on phase L1; a lost L3 and an unbalance both load it more
            value = value * (1 + faulty.unbalance)
        value = np.where(on, value, kind.standby_a * (1 + 0.05 * scatter("current", z[3])))
        if kind.inverter <= 0.5:
            _add_inrush(value, machine, plan, grid)
        out["current"] = quantise(np.maximum(value, 0.0), kind.current_step_a)
    extra = wanted - out.keys()
    if extra:
        out |= extra_signals(
            machine,
            seed,
            plan,
            grid,
            block,
            extra,
            on=on,
            load=load,
            share=share,
            ratio=ratio,
            faulty=faulty,
            noise=noise,
        )
    return out


def _add_inrush(value: Floats, machine: Machine, plan: DayPlan, grid: Grid) -> None:
    kind = machine.kind
    if kind.inrush_s <= 0:
        return
    starts = np.flatnonzero(plan.on[1:] & ~plan.on[:-1]) + 1
    for start_s in plan.spans.start_s[starts].tolist():
        a, b = np.searchsorted(grid.offset_us, (start_s * 1_000_000, int((start_s + 8 * kind.inrush_s) * 1_000_000)))
        if b > a:
            since_s = grid.offset_us[a:b] / 1e6 - start_s
            value[a:b] += kind.current_a * (kind.inrush - 1) * np.exp(-since_s / kind.inrush_s)
