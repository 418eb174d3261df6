"""What is known to have failed, and how findings compare with it: found or missed, delay, lead, false tickets.

onset           raised            failure
  |<--- delay --->|<---- lead ---->|
[ episode ....................................... )      findings outside every episode are false
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from anomaly.finding import Finding
from fettle.errors import FettleError
from fettle.model import FaultFamily, FindingKind

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_US = 86_400_000_000


class BadTruthFile(FettleError):
    """Truth file {file}: {problem}. Expected what `fettle simulate --truth` writes: {{"episodes": [{{"machine": "P-101", "family": "bearing", "onset": "2026-03-02T06:00:00Z", "end": …, "failure": …}}]}}."""


@dataclass(frozen=True, slots=True)
class Episode:
    """One fault of one machine, the half-open span [onset_us, end_us).

    `failure_us` is when the machine failed or passed a limit; None where neither happened. `family` is None where it is
    not known. An episode whose onset is not known begins with the period, and has no delay.
    """

    machine: str
    site: str | None
    family: FaultFamily | None
    onset_us: int
    end_us: int
    failure_us: int | None = None
    signals: tuple[str, ...] = ()
    name: str = ""
    is_onset_known: bool = True


@dataclass(frozen=True, slots=True)
class Truth:
    """Episodes, and what the file says of the machines' name plates."""

    episodes: tuple[Episode, ...] = ()
    plates: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def parse_instant_us(text: str) -> int:
    """Return an ISO 8601 instant; UTC where it names no zone.

    Raises:
        ValueError: it is none.

    >>> parse_instant_us("1970-01-01T00:00:01")
    1000000
    """
    at = datetime.fromisoformat(text)
    return ((at if at.tzinfo else at.replace(tzinfo=UTC)) - _EPOCH) // timedelta(microseconds=1)


def read_truth(path: Path) -> Truth:
    """Read a truth file.

    Raises:
        BadTruthFile: it is not there, no JSON, or an entry lacks what is needed.
    """
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BadTruthFile(file=path, problem=f"it cannot be read ({error})") from error
    if not isinstance(body, dict) or not isinstance(body.get("episodes"), list):
        raise BadTruthFile(file=path, problem="it has no list `episodes`")
    episodes = tuple(_read_episode(path, number, e) for number, e in enumerate(body["episodes"], start=1))
    plates = {
        str(m["machine"]): {k: m[k] for k in ("class", "rated_current_a", "line") if m.get(k) is not None}
        for m in body.get("machines", [])
        if isinstance(m, dict) and m.get("machine")
    }
    return Truth(episodes, plates)


def _read_episode(path: Path, number: int, e: Any) -> Episode:
    def instant(name: str, *, needed: bool) -> int | None:
        value = e.get(name)
        if value is None and not needed:
            return None
        try:
            return parse_instant_us(str(value))
        except ValueError as error:
            raise BadTruthFile(
                file=path,
                problem=f"episode {number}: `{name}` is {value!r}, not an instant such as 2026-03-02T06:00:00Z",
            ) from error

    if not isinstance(e, dict) or not e.get("machine"):
        raise BadTruthFile(file=path, problem=f"episode {number}: `machine` is missing; give the equipment number")
    family = e.get("family")
    if family is not None and family not in set(FaultFamily):
        known = ", ".join(FaultFamily)
        raise BadTruthFile(file=path, problem=f"episode {number}: `family` is {family!r}, expected one of {known}")
    onset_us, failure_us, limit_us = (instant(n, needed=n == "onset") for n in ("onset", "failure", "limit"))
    end_us = instant("end", needed=False)
    assert onset_us is not None
    ends = [t for t in (failure_us, limit_us) if t is not None]
    return Episode(
        machine=str(e["machine"]),
        site=e.get("site"),
        family=None if family is None else FaultFamily(family),
        onset_us=onset_us,
        end_us=2**62 if end_us is None else end_us,
        failure_us=min(ends, default=None),
        signals=tuple(e.get("signals", ())),
        name=str(e.get("fault", family or "")),
    )


# -- judging ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ticket:
    """A finding as a backtest shows it; `site` tells machines of one number apart."""

    machine: str
    site: str | None
    sensors: tuple[str, ...]  # by name, the one that went first first
    finding: Finding


@dataclass(frozen=True, slots=True)
class Outcome:
    """An episode and the first finding in it, None where it was missed."""

    episode: Episode
    ticket: Ticket | None
    is_family_right: bool
    repeats: int

    @property
    def delay_us(self) -> float:
        if self.ticket is None:
            return math.inf
        return self.ticket.finding.raised_us - self.episode.onset_us if self.episode.is_onset_known else math.nan

    @property
    def lead_us(self) -> float | None:
        """Time from raising to failure; None without a failure, minus infinity where it was missed."""
        if self.episode.failure_us is None:
            return None
        return -math.inf if self.ticket is None else self.episode.failure_us - self.ticket.finding.raised_us


@dataclass(frozen=True, slots=True)
class Judgement:
    """Findings against what is known; `healthy_days` are machine-days outside of episodes."""

    outcomes: tuple[Outcome, ...]
    false_tickets: tuple[Ticket, ...]
    healthy_days: float

    @property
    def found(self) -> int:
        return sum(o.ticket is not None for o in self.outcomes)

    @property
    def false_rate(self) -> float:
        return len(self.false_tickets) / self.healthy_days if self.healthy_days > 0 else math.nan

    def false_interval(self) -> tuple[float, float]:
        """Return the exact 95 % interval of the rate (Poisson; Garwood 1936)."""
        from scipy import stats  # loaded where it is needed: it is slow to start

        k, days = len(self.false_tickets), self.healthy_days
        if days <= 0:
            return math.nan, math.nan
        low = stats.chi2.ppf(0.025, 2 * k) / (2 * days) if k else 0.0
        return float(low), float(stats.chi2.ppf(0.975, 2 * k + 2) / (2 * days))

    def median_delay_us(self) -> float:
        """Return the median over all episodes of known onset, missed ones as infinite; NaN where there is none."""
        return _median([o.delay_us for o in self.outcomes if o.episode.is_onset_known])

    def median_lead_us(self) -> float:
        return _median([o.lead_us for o in self.outcomes if o.lead_us is not None])

    def leads(self) -> tuple[int, int]:
        """Return how many failures were announced before they came, of how many."""
        leads = [o.lead_us for o in self.outcomes if o.lead_us is not None]
        return sum(lead > 0 for lead in leads), len(leads)


def _median(values: Sequence[float]) -> float:
    ranked = sorted(values)
    if not ranked:
        return math.nan
    low, high = ranked[(len(ranked) - 1) // 2], ranked[len(ranked) // 2]
    return low if low == high else (low + high) / 2


def judge(
    tickets: Iterable[Ticket],
    episodes: Iterable[Episode],
    *,
    machines: Iterable[tuple[str | None, str]],
    start_us: int,
    end_us: int,
) -> Judgement:
    """Compare findings with episodes over [start_us, end_us) of some machines, given as (site, number).

    A finding belongs to the episode of its machine it was raised in; the first of an episode finds it, further ones are
    repeats, and one raised outside every episode is false. One raised before the period counts nowhere.
    """
    mine: dict[tuple[str | None, str], list[Episode]] = {key: [] for key in machines}
    numbers = {number: site for site, number in mine}
    for episode in episodes:
        key = (episode.site, episode.machine)
        if key not in mine and episode.machine in numbers:
            key = (numbers[episode.machine], episode.machine)
        if key in mine and episode.onset_us < end_us and episode.end_us > start_us:
            mine[key].append(episode)
    taken: dict[int, list[Ticket]] = {}
    false = []
    for ticket in sorted(tickets, key=lambda t: t.finding.raised_us):
        raised_us = ticket.finding.raised_us
        if not start_us <= raised_us < end_us:
            continue
        theirs = [e for e in mine.get((ticket.site, ticket.machine), []) if e.onset_us <= raised_us < e.end_us]
        if not theirs:
            false.append(ticket)
            continue
        fitting = [e for e in theirs if _is_kind_right(e, ticket)] or theirs
        taken.setdefault(id(fitting[0]), []).append(ticket)
    outcomes = []
    sick_us = 0
    for found in mine.values():
        sick_us += _covered([(max(e.onset_us, start_us), min(e.end_us, end_us)) for e in found])
        for episode in found:
            tickets_in = taken.get(id(episode), [])
            outcomes.append(
                Outcome(
                    episode,
                    tickets_in[0] if tickets_in else None,
                    any(episode.family in {None, t.finding.fault_family} for t in tickets_in),
                    max(len(tickets_in) - 1, 0),
                )
            )
    healthy_us = len(mine) * (end_us - start_us) - sick_us
    return Judgement(tuple(outcomes), tuple(false), healthy_us / _DAY_US)


def _is_kind_right(episode: Episode, ticket: Ticket) -> bool:
    is_sensor = ticket.finding.kind is FindingKind.SENSOR
    return episode.family is None or (episode.family is FaultFamily.SENSOR_FAULT) == is_sensor


def _covered(spans: list[tuple[int, int]]) -> int:
    total, until = 0, -(2**62)
    for low, high in sorted(spans):
        total += max(high - max(low, until), 0)
        until = max(until, high)
    return total
