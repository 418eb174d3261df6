"""Two versions over the same period: what both said, what only one said, and whether the second may replace the first.

A run is stored as JSON, so that the same period can be compared with what an earlier version of the program said of it.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anomaly.backtest import Run
from anomaly.finding import Finding
from anomaly.history import History
from anomaly.truth import Judgement, Ticket
from fettle.errors import FettleError

_FORMAT = 1
_MOST_MORE_FALSE = 1.1


class BadResultFile(FettleError):
    """Stored result {file}: {problem}."""


def store_run(run: Run, history: History, path: Path) -> None:
    """Write a run as JSON; `load_run` is the inverse."""
    body = {
        "fettle_backtest": _FORMAT,
        **_frame(history),
        "label": run.label,
        "version": run.version,
        "tickets": [
            {"machine": t.machine, "site": t.site, "sensors": list(t.sensors), "finding": t.finding.as_dict()}
            for t in run.tickets
        ],
    }
    path.write_text(json.dumps(body, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _frame(history: History) -> dict[str, Any]:
    return {
        "start_us": history.start_us,
        "end_us": history.end_us,
        "machines": sorted([m.site or "", m.number] for m in history.machines),
    }


def load_run(path: Path, history: History) -> Run:
    """Read a stored run of the same machines over the same period.

    Raises:
        BadResultFile: it is none, or of another period or other machines.
    """
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        if body["fettle_backtest"] != _FORMAT:
            raise BadResultFile(file=path, problem=f"it has format {body['fettle_backtest']}, expected {_FORMAT}")
        tickets = [
            Ticket(t["machine"], t["site"], tuple(t["sensors"]), Finding.from_dict(t["finding"]))
            for t in body["tickets"]
        ]
        frame = {name: body[name] for name in _frame(history)}
        run = Run(f"{body['label']} ({path.name})", body["version"], None, tickets=tickets)
    except (OSError, ValueError, KeyError, TypeError) as error:
        problem = f"it cannot be read ({type(error).__name__}: {error}); expected what `fettle backtest --out` writes"
        raise BadResultFile(file=path, problem=problem) from error
    for name, value in _frame(history).items():
        if frame[name] != value:
            said = {"start_us": "begins at another time", "end_us": "ends at another time"}.get(
                name, "is of other machines"
            )
            raise BadResultFile(
                file=path,
                problem=f"it {said}; compare the same period: give both runs the same --from, --to and --machine",
            )
    return run


@dataclass(frozen=True, slots=True)
class Comparison:
    """Findings of two runs side by side; a pair is of one machine and kind, and open at the same time."""

    both: tuple[tuple[Ticket, Ticket], ...]
    only_first: tuple[Ticket, ...]
    only_second: tuple[Ticket, ...]
    lost: tuple[str, ...]  # episodes that the first found and the second missed
    may_replace: bool | None  # None where it is not known what failed


def compare(
    first: Sequence[Ticket],
    second: Sequence[Ticket],
    judgements: tuple[Judgement, Judgement] | None = None,
) -> Comparison:
    """Compare two runs. The second may replace the first if no episode is lost and false findings rise by 10 % at most."""
    both = []
    left = list(second)
    only_first = []
    for ticket in first:
        match = next((other for other in left if _overlap(ticket, other)), None)
        if match is None:
            only_first.append(ticket)
        else:
            left.remove(match)
            both.append((ticket, match))
    if judgements is None:
        return Comparison(tuple(both), tuple(only_first), tuple(left), (), None)
    before, after = judgements
    lost = tuple(
        f"{a.episode.machine} {a.episode.name}"
        for a, b in zip(before.outcomes, after.outcomes, strict=True)
        if a.ticket is not None and b.ticket is None
    )
    is_quiet = len(after.false_tickets) <= _MOST_MORE_FALSE * len(before.false_tickets)
    return Comparison(tuple(both), tuple(only_first), tuple(left), lost, not lost and is_quiet)


def _overlap(a: Ticket, b: Ticket) -> bool:
    if (a.site, a.machine, a.finding.kind) != (b.site, b.machine, b.finding.kind):
        return False
    ends = [math.inf if t.finding.cleared_us is None else t.finding.cleared_us for t in (a, b)]
    return a.finding.onset_us <= ends[1] and b.finding.onset_us <= ends[0]
