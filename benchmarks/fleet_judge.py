"""What tickets of a simulated fleet are worth: found, missed, false, repeated, in machine-days.

A ticket belongs to the episode of its machine it is raised in. One that was open when the fault began finds nothing; one
raised outside every episode is false; a second one in an episode is a repeat, neither true nor false.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

DAY_US = 86_400_000_000
RULE_OF = {
    "stuck": "stuck",
    "drift": "drift",
    "offset": "offset",
    "spike": "spike",
    "dropout": "silent",
    "noise_up": "noise",
    "noise_down": "noise",
    "unit_change": "unit",
    "clock_skew": "skew",
}
"""The rule that names each fault of a sensor; a fault that is not here has none of its own."""


@dataclass(frozen=True)
class Case:
    """An episode: what failed on which machine, [onset_us, end_us), and the signals that show it, the clearest first."""

    machine: int
    plant: str
    fault: str
    is_sensor: bool
    signals: tuple[str, ...]
    onset_us: int
    end_us: int
    limit_us: int | None = None  # failure, or a limit passed, whichever is first
    growth_days: float = 0.0  # from onset to failure


@dataclass(frozen=True)
class Raised:
    """A ticket when it was raised: the signal that contributes most, and the kind of thing it blames."""

    machine: int
    at_us: int
    is_sensor: bool = False
    top_signal: str = ""
    severity: str = ""
    family: str = ""
    detector: str = ""


@dataclass(frozen=True)
class Result:
    """An episode with the tickets raised in it."""

    case: Case
    tickets: tuple[Raised, ...]

    @property
    def delay_days(self) -> float:
        return (self.tickets[0].at_us - self.case.onset_us) / DAY_US if self.tickets else math.inf

    @property
    def lead_days(self) -> float:
        limit_us = self.case.limit_us
        return (limit_us - self.tickets[0].at_us) / DAY_US if self.tickets and limit_us is not None else -math.inf


@dataclass(frozen=True)
class Verdict:
    results: tuple[Result, ...]
    false: tuple[Raised, ...]
    healthy_days: float

    @property
    def rate(self) -> float:
        return len(self.false) / self.healthy_days if self.healthy_days else math.nan

    @property
    def found(self) -> list[Result]:
        return [r for r in self.results if r.tickets]


def judge(
    tickets: Iterable[Raised], cases: Sequence[Case], machines: Iterable[int], start_us: int, end_us: int
) -> Verdict:
    """Compare tickets with episodes; false tickets and machine-days count from `start_us`, episodes from their onset."""
    of_machine: dict[int, list[Case]] = defaultdict(list)
    for case in cases:
        of_machine[case.machine].append(case)
    within: dict[Case, list[Raised]] = {case: [] for case in cases}
    false = []
    for ticket in sorted(tickets, key=lambda t: t.at_us):
        mine = [c for c in of_machine[ticket.machine] if c.onset_us <= ticket.at_us < c.end_us]
        if mine:
            within[mine[0]].append(ticket)
        elif start_us <= ticket.at_us < end_us:
            false.append(ticket)
    days = 0.0
    for machine in machines:
        sick = sum(max(min(c.end_us, end_us) - max(c.onset_us, start_us), 0) for c in of_machine[machine])
        days += max(end_us - start_us - sick, 0) / DAY_US
    return Verdict(tuple(Result(c, tuple(t)) for c, t in within.items()), tuple(false), days)


def joined(verdicts: Iterable[Verdict]) -> Verdict:
    """Return several verdicts as one."""
    each = list(verdicts)
    return Verdict(
        tuple(r for v in each for r in v.results),
        tuple(t for v in each for t in v.false),
        sum(v.healthy_days for v in each),
    )


def poisson_interval(events: int, days: float) -> tuple[float, float]:
    """Return the exact 95 % interval of a rate, NaN where nothing was watched.

    >>> [round(x, 4) for x in poisson_interval(0, 1000.0)]
    [0.0, 0.0037]
    """
    if days <= 0:
        return math.nan, math.nan
    low = float(stats.chi2.ppf(0.025, 2 * events)) / (2 * days) if events else 0.0
    return low, float(stats.chi2.ppf(0.975, 2 * events + 2)) / (2 * days)


def is_kind_right(result: Result) -> bool:
    """Say whether the first ticket blames what failed, machine or sensor."""
    return bool(result.tickets[0].is_sensor == result.case.is_sensor)


def is_class_right(result: Result) -> bool:
    """Say whether the first ticket blames what failed, and of a sensor by the rule that names its fault."""
    rule = RULE_OF.get(result.case.fault) if result.case.is_sensor else None
    return is_kind_right(result) and rule in {None, result.tickets[0].detector}


def extra_tickets(disturbed: Mapping[str, int], calm: Mapping[str, int]) -> int:
    """Return by how many tickets plants exceed themselves undisturbed: one with fewer makes up for no other."""
    return sum(max(n - calm.get(name, 0), 0) for name, n in disturbed.items())


def share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


class ThreeSigma:
    """The baseline of a static limit: 3 sigma of days 0 to 14, ten minutes on, merged within twelve hours."""

    def __init__(self, machine_of: npt.NDArray[np.int64], start_us: int, judged_us: int) -> None:
        sensors = len(machine_of)
        self._machine_of = machine_of
        self._start_us, self._judged_us = start_us, judged_us
        self._count, self._total, self._squares = np.zeros(sensors), np.zeros(sensors), np.zeros(sensors)
        self._run = np.zeros(sensors, np.int64)
        self._active: dict[int, int] = {}
        self.tickets: list[Raised] = []

    def add_day(self, day_us: int, sensor: npt.NDArray[np.int64], ts: npt.NDArray[np.int64], x: npt.NDArray[np.float64]) -> None:  # fmt: skip
        """Take the readings of one day, in any order; those with stamps of another day count nowhere."""
        here = (ts >= day_us) & (ts < day_us + DAY_US)
        values = np.full((1440, len(self._machine_of)), np.nan)
        values[(ts[here] - day_us) // 60_000_000, sensor[here]] = x[here]
        if day_us < self._judged_us:
            self._count += np.isfinite(values).sum(axis=0)
            self._total += np.nansum(values, axis=0)
            self._squares += np.nansum(values * values, axis=0)
            return
        mean = self._total / np.maximum(self._count, 1)
        sigma = np.sqrt(np.maximum(self._squares / np.maximum(self._count, 1) - mean * mean, 0))
        over = np.abs(values - mean) > 3 * sigma
        minute = np.arange(1440)[:, None]
        last_quiet = np.maximum.accumulate(np.where(over, -1, minute), axis=0)
        run = np.where(over, np.where(last_quiet < 0, self._run + minute + 1, minute - last_quiet), 0)
        self._run = run[-1]
        for sensor_row in np.flatnonzero((run >= 10).any(axis=0)).tolist():
            self._mark(day_us, sensor_row, np.flatnonzero(run[:, sensor_row] >= 10))

    def _mark(self, day_us: int, sensor: int, minutes: npt.NDArray[np.int64]) -> None:
        machine = int(self._machine_of[sensor])
        for minute in minutes.tolist():
            at_us = day_us + minute * 60_000_000
            if at_us - self._active.get(machine, -(2**62)) > DAY_US // 2:
                self.tickets.append(Raised(machine, at_us))
            self._active[machine] = max(at_us, self._active.get(machine, at_us))


def always(machines: Iterable[int], start_us: int, end_us: int) -> list[Raised]:
    """Return the tickets of one that raises one on every machine each midnight: an open one would find nothing."""
    return [Raised(m, at_us) for m in machines for at_us in range(start_us, end_us, DAY_US)]
