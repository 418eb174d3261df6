"""What a machine is asked to do: shifts, orders, set-ups, stops, breakdowns; and what it makes.

A day (UTC) of a machine is a list of spans with one state and one product each. Orders run through midnight because
every machine has its own production day; stops that began the day before are carried over. Nothing depends on where
generation began.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from simulators.disturbances import Disturbance
from simulators.faults import Fault
from simulators.machine import Machine, generator

DAY_S = 86_400
DAY_US = DAY_S * 1_000_000

_ORDERS, _STOPS, _DIPS, _PIECES = 2, 3, 4, 5  # streams of random numbers


class State(IntEnum):
    """State of a machine; the number is what signal `state` carries."""

    PLANNED_STOP = 0
    IDLE = 1  # switched on, no work
    SETUP = 2
    BREAKDOWN = 3
    RUNNING = 4


# local working hours by weekday (Monday is 0) and breaks, in hours
_ALL_DAY = ((0.0, 24.0),)
CALENDARS: dict[str, tuple[tuple[tuple[tuple[float, float], ...], ...], tuple[tuple[float, float], ...]]] = {
    "continuous": ((_ALL_DAY,) * 7, ()),
    "three-shift": ((_ALL_DAY,) * 6 + ((),), ((2.0, 2.5), (10.0, 10.5), (18.0, 18.5))),
    "two-shift": ((((6.0, 22.0),),) * 5 + ((), ()), ((10.0, 10.5), (18.0, 18.5))),
    "day-shift": ((((8.0, 17.0),),) * 5 + ((), ()), ((12.0, 13.0),)),
}


@dataclass(frozen=True)
class Spans:
    """Consecutive spans of one UTC day: start second within the day, state, product. The first starts at 0."""

    start_s: npt.NDArray[np.int64]
    state: npt.NDArray[np.int8]
    product: npt.NDArray[np.int8]


def closed_spans(calendar: str, utc_offset_h: float, day: int) -> list[tuple[int, int]]:
    """Return the spans of a UTC day, in seconds within it, outside working hours or in a break."""
    weekly, breaks = CALENDARS[calendar]
    if calendar == "continuous":
        return []
    offset_s = int(utc_offset_h * 3600)
    closed = []
    for local_day in (day - 1, day, day + 1):
        base = (local_day - day) * DAY_S - offset_s
        if base + DAY_S <= 0 or base >= DAY_S:
            continue
        open_hours = weekly[(local_day + 3) % 7]  # 1970-01-01 was a Thursday
        at = 0.0
        for start_h, end_h in open_hours:
            closed.append((base + int(at * 3600), base + int(start_h * 3600)))
            at = end_h
        closed.append((base + int(at * 3600), base + DAY_S))
        if open_hours:
            closed.extend((base + int(a * 3600), base + int(b * 3600)) for a, b in breaks)
    return [(max(a, 0), min(b, DAY_S)) for a, b in closed if b > max(a, 0) and a < DAY_S]


def _orders(machine: Machine, seed: int, day: int) -> list[tuple[int, int, int]]:
    """Return (start s, set-up s, product) of the orders of a production day, relative to the start of its UTC day."""
    kind = machine.kind
    rng = generator(seed, machine.key, _ORDERS, day)
    u = rng.random((3, 48)).tolist()
    at, product, out = float(machine.key % DAY_S), 0, []
    end = at + DAY_S
    products = len(kind.load_levels)
    for i in range(48):
        product = int(u[0][i] * products) if i == 0 else (product + 1 + int(u[0][i] * (products - 1))) % products
        out.append((int(at), int(kind.setup_min * 60 * (0.7 + 0.6 * u[1][i])), product))
        at += kind.order_h * 3600 * (0.6 + 0.8 * u[2][i])
        if at >= end:
            break
    return out


def _stops(machine: Machine, seed: int, day: int) -> list[tuple[int, int, State]]:
    """Return (start s, end s, state) of idle times and random breakdowns that begin on a day."""
    kind = machine.kind
    rng = generator(seed, machine.key, _STOPS, day)
    idle, broken = rng.poisson((kind.idle_per_day, kind.breakdowns_per_1000_h * 0.024)).tolist()
    out = []
    if idle:
        start, length = rng.random(idle) * DAY_S, np.minimum(rng.exponential(kind.idle_min * 60, idle) + 30, 7200)
        out += [(int(a), int(a + b), State.IDLE) for a, b in zip(start.tolist(), length.tolist(), strict=True)]
    if broken:
        start, length = rng.random(broken) * DAY_S, kind.repair_h * 3600 * rng.lognormal(-0.125, 0.5, broken)
        out += [
            (int(a), int(a + min(b, 72_000)), State.BREAKDOWN)
            for a, b in zip(start.tolist(), length.tolist(), strict=True)
        ]
    return out


def day_spans(
    machine: Machine, seed: int, day: int, faults: tuple[Fault, ...], disturbances: tuple[Disturbance, ...]
) -> Spans:
    """Return what a machine does on a UTC day (days since 1970)."""
    kind = machine.kind
    state = np.full(DAY_S, State.RUNNING, np.int8)
    product = np.zeros(DAY_S, np.int8)
    day_us = day * DAY_US

    def paint(start: int, end: int, value: int) -> None:
        if start < DAY_S and end > 0:
            state[max(start, 0) : end] = value

    for back in (1, 0):
        orders = _orders(machine, seed, day - back)
        for start, setup, made in orders:
            a = start - back * DAY_S
            if a < DAY_S:
                product[max(a, 0) :] = made
            if setup and len(kind.load_levels) > 1:
                paint(a, a + setup, State.SETUP)
    for wanted in (State.IDLE, State.BREAKDOWN):
        for back in (1, 0):
            for start, end, what in _stops(machine, seed, day - back):
                if what is wanted:
                    paint(start - back * DAY_S, end - back * DAY_S, what)
    for fault in faults:
        if fault.breaks_down and fault.fails and fault.overlaps(day_us, day_us + DAY_US):
            end = day_us + DAY_US if fault.end_us is None else fault.end_us
            paint((fault.failure_us - day_us) // 1_000_000, (end - day_us) // 1_000_000, State.BREAKDOWN)
    for start, end in closed_spans(kind.calendar, machine.utc_offset_h, day):
        paint(start, end, State.PLANNED_STOP)
    for d in disturbances:
        a, b = (d.start_us - day_us) // 1_000_000, -((day_us - d.end_us) // 1_000_000)
        if d.kind == "planned_stop":
            paint(a, b, State.PLANNED_STOP)
        elif d.kind == "power_dip":
            # drives restart one after another, so that the supply survives it
            restart = 20 + int(generator(seed, machine.key, _DIPS, d.start_us // 1_000_000).random() * 160)
            dip = slice(max(a, 0), max(b + restart, 0))
            state[dip][state[dip] != State.PLANNED_STOP] = State.BREAKDOWN
        elif d.kind == "product_change" and a < DAY_S and b > 0:
            product[max(a, 0) : b] = (product[max(a, 0) : b] + 1) % len(kind.load_levels)

    change = np.flatnonzero((state[1:] != state[:-1]) | (product[1:] != product[:-1])) + 1
    start_s = np.concatenate(([0], change)).astype(np.int64)
    return Spans(start_s, state[start_s], product[start_s])


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """A machine in one state, making one product, over a half-open period; with the pieces it made."""

    site: str
    line: str
    machine: str
    state: State
    product: int
    start_us: int
    end_us: int
    good: int
    scrap: int
    ideal_cycle_s: float


def piece_seconds(
    machine: Machine, seed: int, day: int, spans: Spans
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Return the second of the day at which each piece is finished, and whether it is good."""
    kind = machine.kind
    rng = generator(seed, machine.key, _PIECES, day)
    ends = np.append(spans.start_s[1:], DAY_S)
    running = np.where(spans.state == State.RUNNING, ends - spans.start_s, 0)
    done = np.concatenate(([0], np.cumsum(running)))
    cycle = kind.ideal_cycle_s / (kind.speed_share * (0.97 + 0.06 * rng.random()))
    finished = np.arange(1, int(done[-1] / cycle) + 1) * cycle
    span = np.clip(np.searchsorted(done, finished, side="left") - 1, 0, spans.start_s.size - 1)
    return spans.start_s[span] + (finished - done[span]), rng.random(finished.size) >= kind.scrap_share


def day_stretches(machine: Machine, seed: int, day: int, spans: Spans, start_us: int, end_us: int) -> Iterator[Stretch]:
    """Yield the stretches of a UTC day that lie in [start, end), each with the pieces finished in it."""
    at, good = piece_seconds(machine, seed, day, spans)
    ends = np.append(spans.start_s[1:], DAY_S)
    day_us = day * DAY_US
    for a, b, state, product in zip(
        spans.start_s.tolist(), ends.tolist(), spans.state.tolist(), spans.product.tolist(), strict=True
    ):
        low, high = max(day_us + a * 1_000_000, start_us), min(day_us + b * 1_000_000, end_us)
        if low >= high:
            continue
        i, j = np.searchsorted(at, ((low - day_us) / 1e6, (high - day_us) / 1e6), side="right")
        made_good = int(good[i:j].sum())
        yield Stretch(
            site=machine.site,
            line=machine.line,
            machine=machine.number,
            state=State(state),
            product=product,
            start_us=low,
            end_us=high,
            good=made_good,
            scrap=int(j - i) - made_good,
            ideal_cycle_s=machine.kind.ideal_cycle_s,
        )


def joined(stretches: Iterable[Stretch]) -> Iterator[Stretch]:
    """Yield the stretches with those made one that only midnight divides, or a product that is not being made."""
    last: Stretch | None = None
    for s in stretches:
        if (
            last
            and (last.site, last.machine, last.state, last.end_us) == (s.site, s.machine, s.state, s.start_us)
            and (last.product == s.product or s.state is not State.RUNNING)
        ):
            last = replace(last, end_us=s.end_us, good=last.good + s.good, scrap=last.scrap + s.scrap)
        else:
            if last:
                yield last
            last = s
    if last:
        yield last


@dataclass(frozen=True, kw_only=True)
class Oee:
    """Production figures of ISO 22400 over a period; a ratio without a denominator is NaN.

    Attributes:
        availability: running time over the time not planned as a stop.
        performance: ideal cycle time of all pieces over the running time.
        quality: good pieces over all pieces.
    """

    planned_s: float
    running_s: float
    good: int
    scrap: int
    availability: float
    performance: float
    quality: float

    @property
    def oee(self) -> float:
        return self.availability * self.performance * self.quality


def oee_of(stretches: Iterable[Stretch]) -> Oee:
    """Return the figures of one machine's stretches."""
    planned = running = ideal = 0.0
    good = scrap = 0
    for s in stretches:
        seconds = (s.end_us - s.start_us) / 1e6
        planned += seconds * (s.state is not State.PLANNED_STOP)
        running += seconds * (s.state is State.RUNNING)
        ideal += (s.good + s.scrap) * s.ideal_cycle_s
        good, scrap = good + s.good, scrap + s.scrap
    nan = float("nan")
    return Oee(
        planned_s=planned,
        running_s=running,
        good=good,
        scrap=scrap,
        availability=running / planned if planned else nan,
        performance=ideal / running if running else nan,
        quality=good / (good + scrap) if good + scrap else nan,
    )
