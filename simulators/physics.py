"""From what a machine does to what its sensors see: load, current, heat, vibration.

A day of a machine is planned on a grid of minutes (load, rise of temperature, factors of faults); blocks of samples are then
drawn from the plan with noise of their own. Both depend on seed, machine and instant alone, so any stretch can be generated
by itself, and generating [a, b) and [b, c) gives the bytes of [a, c).

- Motor current: magnetising and active part in quadrature, I = In·sqrt(i0² + (1 - i0²)·load²); inrush decays after a start.
- Temperature: first order, dT/dt = (R·losses - rise)/tau, losses = idle share + rest · (I/In)²; slower while standing still.
- Vibration: RMS components add as squares (1x, 2x, mesh, broadband, looseness, bearing), velocity grows with load and speed.
"""

from collections import OrderedDict
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from simulators.disturbances import Disturbance
from simulators.faults import Condition, Fault, condition
from simulators.machine import Machine, MachineClass, generator, stable_key
from simulators.production import DAY_S, DAY_US, Spans, State, day_spans

MINUTES = 1440
_PLAN, SAMPLE_STREAM, _WEATHER = 6, 7, 8  # streams of random numbers

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Climate:
    """Outdoor temperature of a site: yearly mean, half ranges of season and day, spread of the weather."""

    mean_c: float = 16.0
    season_c: float = 9.0
    day_c: float = 4.0
    weather_c: float = 2.0
    southern: bool = False


def outdoor_c(climate: Climate, utc_offset_h: float, rng: np.random.Generator, t_s: npt.NDArray[np.int64]) -> Floats:
    """Return the outdoor temperature at each second since 1970; coldest in mid January, warmest at 15:00 local."""
    local = (t_s + int(utc_offset_h * 3600)).astype(np.float64)
    year = (local / DAY_S - 14.0) / 365.2425 + (0.5 if climate.southern else 0.0)
    out = climate.mean_c - climate.season_c * np.cos(2 * np.pi * year)
    out += climate.day_c * np.cos(2 * np.pi * (local % DAY_S - 15 * 3600) / DAY_S)
    u = rng.random((2, 5))
    for period_d, phase in zip(1.3 * 1.8 ** (np.arange(5) + u[0]), u[1], strict=True):
        out += climate.weather_c * 0.63 * np.sin(2 * np.pi * (local / DAY_S / period_d + phase))
    return np.asarray(out)


@dataclass(frozen=True)
class DayPlan:
    """A UTC day of a machine on the grid of minutes; arrays have 1441 points, the last one being the next midnight."""

    day: int
    spans: Spans
    on: npt.NDArray[np.bool_]  # per span
    level: Floats  # load per span, before wander
    wander: Floats
    slow_vibration: Floats
    temperature_c: Floats
    ambient_c: Floats
    faults: tuple[Fault, ...]
    state: Condition | None  # summed effects of the faults, where any touches the day
    speed: Floats | None  # factor of planned speed changes
    rise_end_k: float


class Physics:
    """The physics of one fleet: plans and blocks by machine, kept while they are likely to be asked for again."""

    def __init__(self, *, seed: int, climates: dict[str, Climate], kept_plans: int) -> None:
        self._seed = seed
        self._climates = climates
        self._outdoor: OrderedDict[tuple[str, int], Floats] = OrderedDict()
        self._plans: OrderedDict[tuple[int, int], DayPlan] = OrderedDict()
        self._kept = kept_plans

    def plan(
        self, machine: Machine, day: int, faults: tuple[Fault, ...], disturbances: tuple[Disturbance, ...]
    ) -> DayPlan:
        """Return the plan of a machine's day; the rise it starts with comes from the day before."""
        key = (machine.key, day)
        found = self._plans.get(key)
        if found is None:
            before = self._plans.get((machine.key, day - 1))
            rise = before.rise_end_k if before else self._make(machine, day - 1, faults, disturbances, 0.0).rise_end_k
            # rise_end_k is the answer to one day's losses alone, whatever came before it: a day is 12 time constants or
            # more, and so the plan does not depend on where generation began
            found = self._make(machine, day, faults, disturbances, rise)
            self._plans[key] = found
            while len(self._plans) > self._kept:
                self._plans.popitem(last=False)
        return found

    def _outdoor_day(self, machine: Machine, day: int) -> Floats:
        key = (machine.site, day)
        found = self._outdoor.get(key)
        if found is None:
            t_s = day * DAY_S + 60 * np.arange(MINUTES + 1)
            rng = generator(self._seed, stable_key(machine.site), _WEATHER)
            found = outdoor_c(self._climates[machine.site], machine.utc_offset_h, rng, t_s)
            self._outdoor[key] = found
            while len(self._outdoor) > 64:
                self._outdoor.popitem(last=False)
        return found

    def _make(
        self,
        machine: Machine,
        day: int,
        faults: tuple[Fault, ...],
        disturbances: tuple[Disturbance, ...],
        rise_k: float,
    ) -> DayPlan:
        kind = machine.kind
        day_us = day * DAY_US
        present = tuple(d for d in disturbances if d.overlaps(day_us - DAY_US, day_us + DAY_US))
        spans = day_spans(machine, self._seed, day, faults, present)
        minute_us = day_us + 60_000_000 * np.arange(MINUTES + 1)
        faulty = condition(faults, minute_us) if faults else None

        # a working motor is on; idle turns without work; the rest stands still
        on = (spans.state == State.RUNNING) | (spans.state == State.IDLE)
        levels = np.array(kind.load_levels)[np.minimum(spans.product, len(kind.load_levels) - 1)]
        # a habit of running hotter than the others does not make a healthy machine exceed its rating
        habitual = np.minimum(levels + machine.load_bias, np.maximum(levels, 0.95))
        level = np.where(spans.state == State.RUNNING, habitual, 0.05) * on

        rng = generator(self._seed, machine.key, _PLAN, day)
        z = rng.standard_normal((2, MINUTES + 1))
        wander, slow = _pinned_wander(z, 30.0)
        wander *= kind.load_wander
        slow *= 0.02
        for d in present:
            if d.kind == "load_step":
                wander = np.where(_inside(minute_us, d), d.size - 1 + d.size * wander, wander)
        if faulty is not None:
            wander = (1 + wander) * (1 + faulty.load) - 1
        speed = None
        for d in present:
            if d.kind == "speed_change" and d.overlaps(day_us, day_us + DAY_US):
                speed = np.where(_inside(minute_us, d), d.size, 1.0 if speed is None else speed)

        # share of each minute that the motor is on, and its load
        edges = np.append(spans.start_s, DAY_S)
        on_s = np.concatenate(([0.0], np.cumsum(np.diff(edges) * on)))
        marks = 60.0 * np.arange(MINUTES + 1)
        on_share = np.diff(np.interp(marks, edges, on_s)) / 60.0
        bounds = np.append(np.searchsorted(marks[:-1], spans.start_s, side="left"), MINUTES)
        load = np.repeat(level, np.diff(bounds)) * (1 + wander[:-1])
        i0 = kind.no_load_share
        current2 = i0 * i0 + (1 - i0 * i0) * load * load
        if faulty is not None:
            current2 = current2 * (1 + faulty.current[:-1]) ** 2
        drive = machine.rise_k * (kind.idle_loss_share + (1 - kind.idle_loss_share) * current2) * on_share
        if faulty is not None:
            drive = drive * (1 + faulty.cooling[:-1]) + faulty.heat_k[:-1] * on_share * np.minimum(load, 1.2)
        own = _first_order(drive, on_share > 0.5, kind.tau_min, kind.tau_off_min, 0.0)
        rise = own if rise_k == 0.0 else _first_order(drive, on_share > 0.5, kind.tau_min, kind.tau_off_min, rise_k)

        ambient = 21.0 + kind.hall_coupling * (self._outdoor_day(machine, day) - 16.0) + machine.hall_offset_c
        return DayPlan(
            day=day,
            spans=spans,
            on=on,
            level=level,
            wander=wander,
            slow_vibration=slow,
            temperature_c=ambient + rise,
            ambient_c=ambient,
            faults=faults,
            state=faulty,
            speed=speed,
            rise_end_k=float(own[-1]),
        )


def _inside(minute_us: npt.NDArray[np.int64], d: Disturbance) -> npt.NDArray[np.bool_]:
    """Tell which minute marks a disturbance holds at; a minute late, since values in between are interpolated."""
    late_us = minute_us - 60_000_000
    return (late_us >= d.start_us) & (late_us < d.end_us)


def _pinned_wander(z: Floats, tau_min: float) -> Floats:
    """Return unit AR(1) noise on the minutes that is 0 at both ends, so that days join without a step."""
    from scipy import signal  # loaded where it is needed: it is slow to start

    phi = float(np.exp(-1.0 / tau_min))
    x = signal.lfilter([np.sqrt(1 - phi * phi)], [1.0, -phi], z, axis=-1)
    fade = int(4 * tau_min)
    ramp = np.linspace(0.0, 1.0, fade)
    x[:, :fade] *= ramp
    x[:, -fade:] *= ramp[::-1]
    return np.asarray(x)


def _first_order(drive: Floats, on: npt.NDArray[np.bool_], tau_min: float, tau_off_min: float, start: float) -> Floats:
    """Return the lagged drive at the minute marks (one more than `drive`), with one time constant on and one off."""
    from scipy import signal  # loaded where it is needed: it is slow to start

    out = np.empty(drive.size + 1)
    out[0] = start
    edges = [0, *(np.flatnonzero(on[1:] != on[:-1]) + 1).tolist(), drive.size]
    level = start
    for a, b in pairwise(edges):
        keep = float(np.exp(-1.0 / (tau_min if on[a] else tau_off_min)))
        part, _ = signal.lfilter([1 - keep], [1.0, -keep], drive[a:b], zi=[keep * level])
        out[a + 1 : b + 1] = part
        level = float(part[-1])
    return out


class Grid:
    """Where samples of a block lie between the minute marks of its day."""

    def __init__(self, t_us: npt.NDArray[np.int64], day: int) -> None:
        self.t_us = t_us
        self.offset_us = t_us - day * DAY_US
        self.index, rest = np.divmod(self.offset_us, 60_000_000)
        self.exact = not rest.any()
        self.share = rest / 60_000_000

    def at(self, minutes: Floats) -> Floats:
        """Return minute values interpolated to the samples."""
        low = minutes[self.index]
        return low if self.exact else low + self.share * (minutes[self.index + 1] - low)


def speed_ratio(kind: MachineClass, load: Floats) -> Floats:
    """Return speed over rated speed: an inverter follows the load, a motor on the line slips with it."""
    return np.minimum(0.6 + 0.4 * load, 1.0) if kind.inverter > 0.5 else 1 + kind.slip * (1 - load)


def quantise(value: Floats, step: float) -> Floats:
    """Round to the resolution of a sensor; 0 leaves the value as it is."""
    if step <= 0:
        return value
    per_unit = 1 / step
    if abs(per_unit - round(per_unit)) < 1e-9:
        return np.rint(value * round(per_unit)) / round(per_unit)
    return np.rint(value / step) * step
