"""What people found out about findings, and what follows from it (pure rules; the reference's section on feedback).

confirmed            counts for the rule's precision; levels that were raised there come back; after a repair learn anew
rejected, why        counts against it; the level of that rule on that machine rises just above the peak, bounded, for a time
five in a row        the level rises above all of them: the pattern stops, and what goes well beyond it still counts
duplicate, unknown   decide nothing

A rule is a fault family, a detector and a class of machines. Below 30 % of at least ten decided findings it only watches:
findings are stored and listed, and make no ticket.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from anomaly.bounds import LIMIT_MOST
from anomaly.finding import Finding
from anomaly.steering import LEVEL_RULES, Lift
from fettle.model import FindingOutcome, Rejection, Repair

REMEMBERED = timedelta(days=180)
"""Older outcomes count no more: a rule that was demoted gets another chance."""

LIFTED = timedelta(days=90)
FRESH = timedelta(days=7)
"""A repair that is told of later than this starts no new baseline: most of it would be from before."""

LIFT_MOST = 2.0
STOPPED_MOST = 20.0
STOP_AFTER = 5
WATCH_BELOW, WATCH_FROM = 0.30, 10
_MARGIN, _STOP_MARGIN, _LIMIT_ONCE = 1.1, 1.25, 1.25
_Z95 = 1.959963984540054


MISSED = "missed"
"""The outcome of a failure that detection did not see coming; all others are of `FindingOutcome`."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One row of `finding_outcome`: what a person, or the closing of a ticket, said of a finding."""

    id: int
    machine_id: int
    finding_id: int | None
    fault_family: str
    detector: str
    machine_class: str
    outcome: str
    reason: str
    action: str
    ticket: str
    decided_by: str
    decided_at: datetime
    is_assumed: bool = False

    @property
    def is_rejection(self) -> bool:
        return self.outcome == FindingOutcome.REJECTED and self.reason != Rejection.DUPLICATE

    @property
    def calls_for_reset(self) -> bool:
        return self.outcome == FindingOutcome.CONFIRMED and self.action in {Repair.REPAIRED, Repair.REPLACED}


@dataclass(frozen=True, slots=True)
class RuleRecord:
    """How often a rule was right on a class of machines, of late."""

    fault_family: str
    detector: str
    machine_class: str
    confirmed: int = 0
    rejected: int = 0
    undecided: int = 0
    missed: int = 0

    @property
    def n(self) -> int:
        """Decided findings."""
        return self.confirmed + self.rejected

    @property
    def precision(self) -> float | None:
        return self.confirmed / self.n if self.n else None

    @property
    def interval(self) -> tuple[float, float] | None:
        return wilson(self.confirmed, self.n) if self.n else None

    @property
    def is_watch(self) -> bool:
        """Whether the rule was wrong so often that it makes no tickets."""
        return self.n >= WATCH_FROM and self.confirmed / self.n < WATCH_BELOW

    def as_dict(self) -> dict[str, Any] | None:
        """Return the measured precision for the evidence of a finding; None while nothing is decided."""
        interval = self.interval
        if interval is None:
            return None
        return {"value": self.precision, "low": interval[0], "high": interval[1], "n": self.n}


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a proportion (Wilson 1927).

    >>> tuple(round(x, 3) for x in wilson(8, 10))
    (0.49, 0.943)
    """
    share, z2 = successes / n, _Z95**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def carriers(finding: Finding) -> list[Mapping[str, Any]]:
    """Return the evidence that raised a finding: what stood above its alarm level, else what leads."""
    rows = [c for c in finding.evidence.get("contributions") or [] if isinstance(c, Mapping)]
    sensors = {int(s) for s in finding.sensor_ids}
    active = [c for c in rows if int(c.get("sensor_id") or 0) in sensors and float(c.get("contribution") or 0.0) >= 1.0]
    return active or rows[:1]


def lifts_after(
    finding: Finding,
    *,
    rejections: int,
    peaks: Mapping[tuple[int, str], float],
    before: Sequence[Lift],
) -> list[Lift]:
    """Return the lifts that a rejection leads to, the `rejections`-th of its pattern in a row.

    Args:
        finding: what was rejected.
        rejections: how often this pattern was rejected in a row, this time included.
        peaks: (sensor, feature) -> highest score of the excursion, in alarm levels without lift.
        before: the lifts in force.
    """
    is_stopped = rejections >= STOP_AFTER
    margin, most = (_STOP_MARGIN, STOPPED_MOST) if is_stopped else (_MARGIN, LIFT_MOST)

    def known(sensor_id: int, feature: str) -> float:
        return max((x.factor for x in before if (x.sensor_id, x.feature) == (sensor_id, feature)), default=1.0)

    def was_stopped(sensor_id: int, feature: str) -> bool:
        return any(x.is_stopped for x in before if (x.sensor_id, x.feature) == (sensor_id, feature))

    lifts: dict[tuple[int, str], Lift] = {}

    def lift(sensor_id: int, feature: str, factor: float) -> None:
        factor = max(factor, known(sensor_id, feature), 1.0)
        lifts[sensor_id, feature] = Lift(sensor_id, feature, factor, is_stopped or was_stopped(sensor_id, feature))

    for carrier in carriers(finding):
        sensor_id, feature = int(carrier["sensor_id"]), str(carrier["feature"])
        score = float(carrier.get("contribution") or 0.0)
        if feature in LEVEL_RULES:
            peak = max(peaks.get((sensor_id, feature), 0.0), score * known(sensor_id, feature))
            factor = min(margin * peak, most)
            lift(sensor_id, feature, factor)
            if feature == "residual":  # the other rule that sees the same level
                lift(sensor_id, "change", factor)
        elif feature == "limit":
            lift(sensor_id, feature, LIMIT_MOST if is_stopped else min(_MARGIN * score, _LIMIT_ONCE))
        elif is_stopped:
            lift(sensor_id, feature, 1.0)  # it has no level: it falls silent
    return list(lifts.values())


def pattern_of(detector: str) -> list[str]:
    """Return the detectors whose rejections count together: those that see the same."""
    return list(LEVEL_RULES) if detector in LEVEL_RULES else [detector]
