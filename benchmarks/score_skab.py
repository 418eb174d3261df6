"""Score a SKAB run by the published protocol: outlier task, changepoint task, tickets.

Protocol: waico/SKAB, notebooks and evaluation package. Outlier counts are pooled over files, without point adjustment;
the changepoint task scores the first alarm in a window of 60 s after each change as NAB does. Tickets are our addition:
open after 10 s of alarm, clear after 60 s without.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Instants = NDArray[np.int64]
Bits = NDArray[np.bool_]

SECOND = 1_000_000
WINDOW_US = 60 * SECOND
PROFILES = {"standard": (1.0, -0.11, -1.0), "low_fp": (1.0, -0.22, -1.0), "low_fn": (1.0, -0.11, -2.0)}
"""Profile name → worth of a true positive, a false positive, a missed window."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """The test rows of one file: instants (µs), faulty rows, changepoints."""

    name: str
    at: Instants
    faulty: Bits
    changes: Bits


@dataclass(frozen=True, slots=True)
class Outliers:
    """Pooled counts of the outlier task."""

    true: int
    false: int
    missed: int
    quiet: int

    @property
    def f1(self) -> float:
        return self.true / (self.true + (self.false + self.missed) / 2) if self.true else 0.0

    @property
    def far_pct(self) -> float:
        return 100 * self.false / max(self.false + self.quiet, 1)

    @property
    def mar_pct(self) -> float:
        return 100 * self.missed / max(self.missed + self.true, 1)

    def __add__(self, other: "Outliers") -> "Outliers":
        return Outliers(
            self.true + other.true,
            self.false + other.false,
            self.missed + other.missed,
            self.quiet + other.quiet,
        )


NO_OUTLIERS = Outliers(0, 0, 0, 0)


def outliers(faulty: Bits, alarm: Bits) -> Outliers:
    """Count one file's rows; one verdict per row, none left out."""
    if faulty.shape != alarm.shape:
        raise ValueError(f"{len(alarm)} verdicts for {len(faulty)} rows: every test row needs exactly one")
    return Outliers(
        true=int((faulty & alarm).sum()),
        false=int((~faulty & alarm).sum()),
        missed=int((faulty & ~alarm).sum()),
        quiet=int((~faulty & ~alarm).sum()),
    )


def pooled(files: Sequence[Labelled], alarms: Sequence[Bits]) -> Outliers:
    """Sum the counts of all files."""
    return sum((outliers(file.faulty, alarm) for file, alarm in zip(files, alarms, strict=True)), NO_OUTLIERS)


@dataclass(frozen=True, slots=True)
class Changepoints:
    """Scores of the changepoint task, 0 for silence and 100 for perfection."""

    standard: float
    low_fp: float
    low_fn: float
    missed: int
    false: int


def worth(left: int, right: int, alarm: int, profile: tuple[float, float, float]) -> float:
    """Return the value of the first alarm in a window: a tanh from Atp at its left end to Afp at its right."""
    true_worth, false_worth, _ = profile
    position = min(999, int(1000 * (alarm - left) / max(right - left, 1)))
    x = -np.pi / 2 + np.pi * position / 999
    half = (true_worth - false_worth) / 2
    return float(-half * np.tanh(x) / np.tanh(np.pi / 2) + half + false_worth)


def changepoints(files: Sequence[Labelled], alarms: Sequence[Bits]) -> Changepoints:
    """Score changes of the verdict against the true changes over all files."""
    totals = dict.fromkeys(PROFILES, 0.0)
    windows_in_all = missed = false = 0
    for file, alarm in zip(files, alarms, strict=True):
        switched = np.diff(alarm.astype(np.int8), prepend=0) != 0
        rung = file.at[switched]
        windows = change_windows(file.at[file.changes])
        windows_in_all += len(windows)
        inside = np.zeros(len(rung), dtype=bool)
        for left, right in windows:
            here = (rung >= left) & (rung <= right)  # an instant shared by two windows counts in both
            inside |= here
            missed += not here.any()
            for name, profile in PROFILES.items():
                totals[name] += worth(left, right, int(rung[here][0]), profile) if here.any() else profile[2]
        false += int((~inside).sum())
        for name, profile in PROFILES.items():
            totals[name] += float((~inside).sum()) * profile[1]
    scores = {
        name: 100 * (totals[name] - windows_in_all * miss) / max(windows_in_all * (true_worth - miss), 1e-12)
        for name, (true_worth, _, miss) in PROFILES.items()
    }
    return Changepoints(**scores, missed=missed, false=false)


def change_windows(changes: Instants) -> list[tuple[int, int]]:
    """Open 60 s after each change; where two overlap the later starts where the earlier ends."""
    windows: list[tuple[int, int]] = []
    for change in np.sort(changes):
        left = max(int(change), windows[-1][1]) if windows else int(change)
        windows.append((left, int(change) + WINDOW_US))
    return windows


@dataclass(frozen=True, slots=True)
class Ticket:
    """An opened ticket: instants (µs) of the excursion's first row, of opening, and of clearing (None while open)."""

    onset_at: int
    opened_at: int
    cleared_at: int | None


def tickets(at: Instants, alarm: Bits, *, on_us: int = 10 * SECOND, off_us: int = 60 * SECOND) -> list[Ticket]:
    """Fold row verdicts into tickets, in event time."""
    found: list[Ticket] = []
    onset: int | None = None
    opened: int | None = None
    last_alarm = 0
    for instant, rings in zip(at.tolist(), alarm.tolist(), strict=True):
        if rings:
            onset = instant if onset is None else onset
            last_alarm = instant
            if opened is None and instant - onset >= on_us:
                opened = instant
        elif opened is None:
            onset = None
        elif instant - last_alarm >= off_us:
            assert onset is not None
            found.append(Ticket(onset, opened, instant))
            onset = opened = None
    if opened is not None and onset is not None:
        found.append(Ticket(onset, opened, None))
    return found


@dataclass(frozen=True, slots=True)
class TicketCount:
    """Tickets over all files against the faulty segments."""

    events: int
    found: int
    delays_s: tuple[float, ...]
    false: int
    normal_h: float

    @property
    def found_share(self) -> float:
        return self.found / self.events if self.events else 0.0

    @property
    def median_delay_s(self) -> float | None:
        """Median over all events, a missed one counting as endless; None where that median is endless."""
        delays = sorted([*self.delays_s, *[np.inf] * (self.events - self.found)])
        middle = float(np.median(delays)) if delays else np.inf
        return middle if np.isfinite(middle) else None

    @property
    def false_per_h(self) -> float:
        return self.false / self.normal_h if self.normal_h else 0.0


def segments(faulty: Bits) -> list[tuple[int, int]]:
    """Return the row ranges [first, last] of each faulty stretch."""
    edges = np.diff(np.concatenate([[0], faulty.astype(np.int8), [0]]))
    return list(zip(np.nonzero(edges == 1)[0].tolist(), (np.nonzero(edges == -1)[0] - 1).tolist(), strict=True))


def count_tickets(files: Sequence[Labelled], alarms: Sequence[Bits]) -> TicketCount:
    """Count events found by a ticket that opens inside them, and tickets that open on normal rows.

    A ticket already open at onset is false and finds nothing. Normal time is the number of normal rows, one second each.
    """
    events = found = false = normal = 0
    delays: list[float] = []
    for file, alarm in zip(files, alarms, strict=True):
        opened = [ticket.opened_at for ticket in tickets(file.at, alarm)]
        normal += int((~file.faulty).sum())
        rows = np.searchsorted(file.at, opened)
        false += int((~file.faulty[rows]).sum())
        for first, last in segments(file.faulty):
            events += 1
            inside = [instant for instant in opened if file.at[first] <= instant <= file.at[last]]
            if inside:
                found += 1
                delays.append((inside[0] - int(file.at[first])) / SECOND)
    return TicketCount(events, found, tuple(delays), false, normal / 3600)
