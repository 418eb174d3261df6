"""Backtests: a stored period or a file through the engine of the live loop, under one configuration or two.

history ─▶ stretches, cut where a machine falls silent ─▶ Engine.fold, Engine.advance ─▶ tickets
"""

import difflib
import time
import tomllib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from anomaly.columns import NEVER, FloatArray
from anomaly.config import EngineConfig
from anomaly.engine import STATE_VERSION, Engine
from anomaly.finding import Change, Finding, FindingEvent, MachineMeta
from anomaly.history import History, Stretch
from anomaly.limits import Limits
from anomaly.opinions import Opinion, TooFewRows, second_opinions
from anomaly.traces import Traces
from anomaly.truth import Ticket
from fettle.errors import FettleError
from fettle.model import FindingKind
from fettle.wire import ReadingArray

_MOST_CUTS = 200
_OPINION_STEP_US = 600_000_000
_POLL_US = 2_000_000  # how often the live loop looks at the clock


class BadConfigFile(FettleError):
    """Configuration {file}: {problem}."""


def read_config(path: Path, *, base: EngineConfig) -> EngineConfig:
    """Return `base` with the fields that a TOML file names.

    Raises:
        BadConfigFile: no TOML, an unknown field, or a value of the wrong kind, each with its remedy.
    """
    try:
        body = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadConfigFile(
            file=path, problem=f"it cannot be read ({error}); expected lines such as multiplier = 6.0"
        ) from error
    known = {f.name: getattr(base, f.name) for f in fields(base)}
    return replace(base, **{name: _field(path, name, value, known) for name, value in body.items()})


def _field(path: Path, name: str, value: Any, known: dict[str, Any]) -> Any:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"the fields are {', '.join(sorted(known))}"
        raise BadConfigFile(file=path, problem=f"there is no field {name!r}; {hint}")
    now = known[name]
    if isinstance(now, tuple):
        is_right = isinstance(value, list) and value and all(_is_number(v) and v > 0 for v in value)
        if not is_right:
            raise BadConfigFile(file=path, problem=f"{name} = {value!r}: expected a list of numbers above 0")
        return tuple(float(v) for v in value)
    if isinstance(now, bool):
        if not isinstance(value, bool):
            raise BadConfigFile(file=path, problem=f"{name} = {value!r}: expected true or false")
        return value
    if not _is_number(value) or value < 0 or (isinstance(now, int) and value != int(value)):
        kind = "a whole number" if isinstance(now, int) else "a number"
        raise BadConfigFile(file=path, problem=f"{name} = {value!r}: expected {kind}, 0 or more; it is {now!r} now")
    return int(value) if isinstance(now, int) else float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


@dataclass
class Run:
    """What one configuration said of the period."""

    label: str
    version: str
    config: EngineConfig | None  # None where it was stored earlier
    events: list[FindingEvent] = field(default_factory=list)
    tickets: list[Ticket] = field(default_factory=list)
    seconds: float = 0.0  # of processor time in the engine


@dataclass
class Backtest:
    """Runs over one period, and what it held."""

    history: History
    runs: list[Run]
    samples: int
    unknown_samples: int
    late_samples: int
    seconds: float
    traces: Traces | None


def version_of(config: EngineConfig) -> str:
    """Return what a model version of this program and configuration begins with."""
    return f"{STATE_VERSION}/{config.digest()}"


def backtest(
    history: History,
    configs: Sequence[tuple[str, EngineConfig]],
    *,
    limits: Limits | None = None,
    traces: Traces | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Backtest:
    """Run a period through one engine for each (label, configuration), reading it once.

    `on_progress` is told (event time reached, readings so far). A machine that falls silent is noticed when it would have
    been live, counted from its last reading in event time.
    """
    engines = []
    runs = []
    for label, config in configs:
        engine = Engine(config, limits=limits)
        engine.register(history.machines, history.sensors)
        engines.append(engine)
        runs.append(Run(label, version_of(config), config))
    began = time.process_time()
    samples = 0
    last_us = history.start_us
    watcher = Silence(history)
    for stretch in history.stretches():
        samples += len(stretch.readings)
        if traces is not None:
            traces.add(stretch.readings)
        parts = watcher.cut(stretch, engines[0])
        for engine, run in zip(engines, runs, strict=True):
            start = time.process_time()
            for until_us, readings in parts:
                if len(readings):
                    run.events.extend(engine.fold(readings, int(readings["ts"].max()) + 1))
                run.events.extend(engine.advance(until_us))
            run.seconds += time.process_time() - start
        last_us = stretch.end_us
        if on_progress:
            on_progress(last_us, samples)
    for run in runs:
        run.tickets = tickets_of(run.events, history)
    return Backtest(
        history=history,
        runs=runs,
        samples=samples,
        unknown_samples=engines[0].unknown_samples,
        late_samples=int(engines[0].sensors.late.sum()),
        seconds=time.process_time() - began,
        traces=traces,
    )


class Silence:
    """Cuts stretches at a machine's last reading before it falls silent, and at the moment that is noticed.

    Live, the loop looks at the clock whenever no batch waits; here the cuts stand in for that.
    """

    def __init__(self, history: History) -> None:
        self._place = {int(m.machine_id): i for i, m in enumerate(history.machines)}
        self._reached_us = history.start_us - 1
        top = max((int(s.sensor_id) for s in history.sensors), default=0)
        self._machine_of = np.zeros(top + 1, dtype=np.int32)
        for sensor in history.sensors:
            self._machine_of[int(sensor.sensor_id)] = self._place[int(sensor.machine_id)]

    def cut(self, stretch: Stretch, engine: Engine) -> list[tuple[int, ReadingArray]]:
        """Return (time reached, readings up to it) in order."""
        readings = stretch.readings
        cuts = [at for at in self._cuts(stretch, engine) if self._reached_us < at < stretch.end_us]
        before_us, self._reached_us = self._reached_us, stretch.end_us
        if not cuts:
            return [(stretch.end_us, readings)]
        if len(cuts) > _MOST_CUTS:  # machines that send seldom: often enough is enough
            step = (stretch.end_us - before_us) // _MOST_CUTS + 1
            cuts = sorted({before_us + step * ((at - before_us) // step + 1) for at in cuts})
        readings = readings[np.argsort(readings["ts"], kind="stable")]
        return list(
            zip([*cuts, stretch.end_us], np.split(readings, np.searchsorted(readings["ts"], cuts)), strict=True)
        )

    def _cuts(self, stretch: Stretch, engine: Engine) -> list[int]:
        order = np.argsort([self._place[i] for i in engine.machines.machine_id.tolist()])
        seen = engine.machines.seen_us[order]
        period = np.full(engine.machines.n, np.inf)
        np.minimum.at(period, engine.sensors.machine, np.nan_to_num(engine.sensors.period_us, nan=np.inf))
        config: Any = engine.config
        periods, least_s = getattr(config, "lost_periods", 3.0), getattr(config, "lost_s", 30.0)
        allowed = np.maximum(periods * period, least_s * 1e6)[order]
        ts = stretch.readings["ts"]
        machine = self._machine_of[stretch.readings["sensor_id"]]
        is_sorted = bool((ts[1:] >= ts[:-1]).all())
        order = np.argsort(machine, kind="stable") if is_sorted else np.lexsort((ts, machine))
        machine, ts = machine[order], ts[order]
        is_first = np.r_[True, machine[1:] != machine[:-1]]
        before = np.where(is_first, seen[machine], np.r_[ts[0], ts[:-1]])
        last = np.append(np.flatnonzero(is_first)[1:], len(ts)) - 1
        newest = seen.copy()
        newest[machine[last]] = np.maximum(ts[last], newest[machine[last]])
        cuts: set[int] = set()
        for at in np.flatnonzero((before > NEVER) & (ts - before > allowed[machine])).tolist():
            cuts.update((int(before[at]) + 1, int(before[at] + allowed[machine[at]]) + _POLL_US))
        quiet = (newest > NEVER) & np.isfinite(allowed) & (stretch.end_us - newest > allowed)
        for m in np.flatnonzero(quiet).tolist():
            cuts.update((int(newest[m]) + 1, int(newest[m] + allowed[m]) + _POLL_US))
        return sorted(cuts)


def with_opinions(done: Backtest, *, on_progress: Callable[[int, int], None] | None = None) -> None:
    """Ask for second opinions on every fault of a machine that the first run raised, from the traces of the backtest.

    `on_progress` is told (findings asked about, all of them). A finding with too few readings around it stays without.
    """
    assert done.traces is not None, "second opinions look at traces"
    run = done.runs[0]
    tickets = []
    for place, ticket in enumerate(run.tickets):
        finding = ticket.finding
        if finding.kind is FindingKind.MACHINE:
            with suppress(TooFewRows):
                said = [o.as_dict() for o in _opinions(done, done.traces, finding)]
                finding = finding.changed(evidence={**finding.evidence, "second_opinions": said})
        tickets.append(replace(ticket, finding=finding))
        if on_progress:
            on_progress(place + 1, len(run.tickets))
    run.tickets = tickets


def _opinions(done: Backtest, traces: Traces, finding: Finding) -> list[Opinion]:
    sensors = [int(s.sensor_id) for s in done.history.sensors if s.machine_id == finding.machine_id]
    onset, day_us = finding.onset_us, 86_400_000_000
    until = max(finding.raised_us, onset + day_us // 12)
    baseline = _means(traces, sensors, max(onset - 15 * day_us, done.history.start_us), onset - day_us)
    window = _means(traces, sensors, onset, min(until, done.history.end_us))
    first = sensors.index(int(finding.sensor_ids[0])) if finding.sensor_ids else 0
    return second_opinions(baseline, window, first=first)


def _means(traces: Traces, sensors: Sequence[int], start_us: int, end_us: int) -> FloatArray:
    """Return (steps of ten minutes, sensors): the middle between lowest and highest value, NaN where there is none."""
    steps = max(-(-(end_us - start_us) // _OPINION_STEP_US), 0)
    out = np.full((steps, len(sensors)), np.nan)
    if steps == 0:
        return out
    pieces = max((end_us - start_us) // traces.step_us, 1)
    for column, sensor in enumerate(sensors):
        ts, low, high = traces.of(sensor, start_us=start_us, end_us=end_us, points=pieces)
        step = np.clip((ts - start_us) // _OPINION_STEP_US, 0, steps - 1)
        count = np.bincount(step, minlength=steps)
        total = np.bincount(step, weights=(low.astype(np.float64) + high) / 2, minlength=steps)
        with np.errstate(invalid="ignore"):
            out[:, column] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return out


def tickets_of(events: Sequence[FindingEvent], history: History) -> list[Ticket]:
    """Return the findings as they were at their last change, in the order they were raised."""
    machine_of: dict[int, MachineMeta] = {int(m.machine_id): m for m in history.machines}
    name_of = {int(s.sensor_id): s.name for s in history.sensors}
    newest: dict[str, Finding] = {}
    first: dict[str, tuple[str, ...]] = {}
    for event in events:
        newest[event.finding.key] = event.finding
        if event.change is Change.RAISED:
            first.setdefault(event.finding.key, tuple(name_of[int(s)] for s in event.finding.sensor_ids))
    return sorted(
        (
            Ticket(
                machine_of[int(f.machine_id)].number,
                machine_of[int(f.machine_id)].site,
                first.get(key) or tuple(name_of[int(s)] for s in f.sensor_ids),
                f,
            )
            for key, f in newest.items()
        ),
        key=lambda t: (t.finding.raised_us, t.machine, t.finding.key),
    )
