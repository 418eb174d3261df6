"""Scenarios: plants, their machines, and what happens to them, read from TOML.

A scenario may include others; their sites, faults and disturbances come first, single values of the including file win.
Instants are durations after the start ("6d12h") or absolute date-times.
"""

import math
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from fettle.errors import FettleError
from fettle.wire import BadTopicLevel, check_level
from simulators.disturbances import (
    DEFAULT_DISTURBANCE_SIZE,
    DISTURBANCE_KINDS,
    SENSOR_FAULT_KINDS,
    Disturbance,
    SensorFault,
    Where,
)
from simulators.faults import GROWTH_LAWS, Fault, FaultKind, builtin_fault_kinds, read_fault_kinds
from simulators.machine import MachineClass, builtin_classes, read_class, read_classes
from simulators.physics import Climate
from simulators.production import CALENDARS
from simulators.signals import DEFAULT_SIGNALS, SIGNAL_UNITS
from simulators.toml_table import ScenarioWrong, Table, load_toml

SCENARIOS = Path(__file__).with_name("scenarios")
DEFAULT_START_US = 1_772_409_600_000_000  # 2026-03-02T00:00:00Z, a Monday


class ScenarioUnknown(ScenarioWrong):
    """There is no scenario {name!r}; choose one of {names}, or give the path of a TOML file."""


class SignalUnknown(FettleError):
    """There is no signal {signal!r}; choose from {names}."""


class PeriodWrong(FettleError):
    """A period of {period_s} s does not fit: it must be whole milliseconds and divide 15 minutes (below 10 s) or a day."""


@dataclass(frozen=True, kw_only=True)
class MachineSpec:
    """A machine of a scenario before a fleet gives it its random spread."""

    number: str
    title: str
    title_zh: str
    kind: MachineClass


@dataclass(frozen=True, kw_only=True)
class Line:
    name: str
    title: str
    title_zh: str
    machines: tuple[MachineSpec, ...]


@dataclass(frozen=True, kw_only=True)
class Plant:
    name: str
    title: str
    title_zh: str
    utc_offset_h: float
    climate: Climate
    lines: tuple[Line, ...]

    @property
    def machines(self) -> tuple[MachineSpec, ...]:
        return tuple(m for line in self.lines for m in line.machines)


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """What a fleet is made from. `model` is "physics", or "reference" for the plain equations that detectors are compared on."""

    name: str
    title: str
    title_zh: str
    description: str
    model: str
    tenant: str
    seed: int
    start_us: int
    duration_us: int
    period_us: int
    signals: tuple[str, ...]
    plants: tuple[Plant, ...]
    faults: tuple[Fault, ...]
    sensor_faults: tuple[SensorFault, ...]
    disturbances: tuple[Disturbance, ...]

    @property
    def end_us(self) -> int:
        return self.start_us + self.duration_us

    def started_at(self, start_us: int) -> "Scenario":
        """Return the same scenario moved so that it starts at another instant; all that happens moves with it."""
        by = start_us - self.start_us

        def later(t: int | None) -> int | None:
            return None if t is None else t + by

        return replace(
            self,
            start_us=start_us,
            faults=tuple(
                replace(f, onset_us=f.onset_us + by, failure_us=f.failure_us + by, end_us=later(f.end_us))
                for f in self.faults
            ),
            sensor_faults=tuple(
                replace(f, onset_us=f.onset_us + by, end_us=later(f.end_us)) for f in self.sensor_faults
            ),
            disturbances=tuple(replace(d, start_us=d.start_us + by, end_us=d.end_us + by) for d in self.disturbances),
        )

    def with_signals(self, signals: tuple[str, ...]) -> "Scenario":
        """Return the same scenario with other signals.

        Raises:
            SignalUnknown: one of them does not exist.
        """
        for signal in signals:
            if signal not in SIGNAL_UNITS:
                raise SignalUnknown(signal=signal, names=", ".join(SIGNAL_UNITS))
        return replace(self, signals=signals)

    def with_period(self, period_s: float) -> "Scenario":
        """Return the same scenario sampled at another period.

        Raises:
            PeriodWrong: it does not divide a block of samples.
        """
        if not period_fits(period_s):
            raise PeriodWrong(period_s=period_s)
        return replace(self, period_us=round(period_s * 1e6))


def scenario_names() -> tuple[str, ...]:
    """Return the names of the scenarios that come with Fettle."""
    return tuple(sorted(p.stem for p in SCENARIOS.glob("*.toml")))


def load_scenario(name_or_path: str | Path) -> Scenario:
    """Return a scenario by the name of one that comes with Fettle, or from a file.

    Raises:
        ScenarioUnknown: neither a known name nor an existing file.
        ScenarioWrong: the file is wrong; the message names file, key and what is allowed.
    """
    path = _find(name_or_path)
    reader = _Reader()
    reader.read(path, ())
    return reader.finish()


def _find(name_or_path: str | Path, beside: Path | None = None) -> Path:
    text = str(name_or_path)
    builtin = SCENARIOS / f"{text}.toml"
    if "/" not in text and "\\" not in text and builtin.is_file():
        return builtin
    path = Path(text)
    if beside is not None and not path.is_absolute():
        path = beside / path
    if path.is_file():
        return path
    raise ScenarioUnknown(name=text, names=", ".join(scenario_names()))


class _Reader:
    """Collects a scenario and what it includes."""

    def __init__(self) -> None:
        self.classes: dict[str, MachineClass] = dict(builtin_classes())
        self.fault_kinds: dict[str, FaultKind] = dict(builtin_fault_kinds())
        self.plants: list[Plant] = []
        self.later: list[tuple[str, Table]] = []
        self.single: dict[str, object] = {}

    def read(self, path: Path, outer: tuple[Path, ...]) -> None:
        top = Table(str(path), "", load_toml(path))
        if path in outer:
            raise top.wrong("include", f"goes in a circle through {path.name}")
        for name in top.texts("include"):
            try:
                included = _find(name, path.parent)
            except ScenarioUnknown as error:
                raise top.wrong("include", str(error)) from error
            self.read(included, (*outer, path))
        self._read_single(top, path)
        if classes := top.text("classes", "") if "classes" in top.data else "":
            self.classes |= read_classes(path.parent / classes)
        if kinds := top.text("faults_file", "") if "faults_file" in top.data else "":
            self.fault_kinds |= read_fault_kinds(path.parent / kinds)
        table = top.table("class")
        for name in table.data:
            base = self.classes.get(name)
            self.classes[name] = read_class(table.table(name), name, base)
        for site in top.tables("site"):
            self._read_site(site)
        for part in ("fault", "sensor_fault", "disturbance"):
            self.later.extend((part, t) for t in top.tables(part))
        top.done()

    def _read_single(self, top: Table, path: Path) -> None:
        keep = self.single
        keep["name"] = top.text("name", path.stem)
        keep["title"] = top.text("title", str(keep["name"]))
        keep["title_zh"] = top.text("title_zh", str(keep["title"]))
        keep["description"] = top.text("description", str(keep["title"]))
        keep["file"] = str(path)
        keep["model"] = top.text("model", str(keep.get("model", "physics")), allowed=("physics", "reference"))
        keep["tenant"] = _level(top, "tenant", str(keep.get("tenant", "default")))
        keep["seed"] = top.integer("seed", _int(keep.get("seed", 1)))
        start = top.moment_us("start")
        if start is not None or "start_us" not in keep:
            keep["start_us"] = DEFAULT_START_US if start is None else start
        keep["duration_s"] = top.duration_s("duration", _float(keep.get("duration_s", 86_400.0)), low=1.0)
        keep["period_s"] = top.duration_s("period", _float(keep.get("period_s", 60.0)), low=0.001)
        if not period_fits(_float(keep["period_s"])):
            raise top.wrong(
                "period",
                f"{keep['period_s']:g} s must be whole milliseconds and divide 15 minutes (below 10 s) or a day",
            )
        before = keep.get("signals", DEFAULT_SIGNALS)
        assert isinstance(before, tuple)
        keep["signals"] = top.texts("signals", before, allowed=tuple(SIGNAL_UNITS))

    def _read_site(self, t: Table) -> None:
        name = _level(t, "name")
        climate = t.table("climate")
        weather = Climate(
            mean_c=climate.number("mean_c", 16.0, low=-30, high=45),
            season_c=climate.number("season_c", 9.0, low=0, high=40),
            day_c=climate.number("day_c", 4.0, low=0, high=25),
            weather_c=climate.number("weather_c", 2.0, low=0, high=15),
            southern=climate.flag("southern", False),
        )
        climate.done()
        lines: list[Line] = []
        numbers: set[str] = set()
        for line in t.tables("line"):
            machines: list[MachineSpec] = []
            line_name = _level(line, "name")
            for m in line.tables("machine"):
                machines.extend(
                    self._read_machines(
                        m,
                        numbers,
                        line.text("calendar", "", allowed=("", *CALENDARS)) if "calendar" in line.data else "",
                    )
                )
            title = line.text("title", line_name)
            lines.append(
                Line(name=line_name, title=title, title_zh=line.text("title_zh", title), machines=tuple(machines))
            )
            if not machines:
                raise line.wrong("machine", f"is missing: at least one [[site.line.machine]] in line {line_name!r}")
            line.done()
        if not lines:
            raise t.wrong("line", "is missing: at least one [[site.line]]")
        if any(p.name == name for p in self.plants):
            raise t.wrong("name", f"{name!r} is a site already")
        title = t.text("title", name)
        offset = t.number("utc_offset_h", 0.0, low=-12, high=14)
        plant = Plant(
            name=name,
            title=title,
            title_zh=t.text("title_zh", title),
            utc_offset_h=offset,
            climate=weather,
            lines=tuple(lines),
        )
        t.done()
        self.plants.append(plant)

    def _read_machines(self, m: Table, numbers: set[str], calendar: str) -> list[MachineSpec]:
        kind = self.classes[m.text("class", allowed=tuple(self.classes))]
        count = m.integer("count", 1, low=1, high=100_000)
        first = m.integer("first", 1)
        pattern = m.text("number")
        if count > 1 and "{n}" not in pattern:
            raise m.wrong("number", f'{pattern!r} must contain "{{n}}" where count is above 1')
        title = m.text("title", f"{kind.title} {{n}}")
        title_zh = m.text("title_zh", f"{kind.title_zh} {{n}}")
        if "calendar" in m.data or calendar:
            kind = replace(kind, calendar=m.text("calendar", calendar or kind.calendar, allowed=tuple(CALENDARS)))
        if "with" in m.data:
            kind = read_class(m.table("with"), kind.name, kind)
        width = len(str(first + count - 1))
        out = []
        for i in range(count):
            n = str(first + i).zfill(width)
            number = pattern.replace("{n}", n)
            try:
                check_level("machine", number)
            except BadTopicLevel as error:
                raise m.wrong("number", str(error)) from error
            if number in numbers:
                raise m.wrong("number", f"{number!r} is used twice in this site")
            numbers.add(number)
            out.append(
                MachineSpec(
                    number=number,
                    title=title.replace("{n}", str(i + 1)),
                    title_zh=title_zh.replace("{n}", str(i + 1)),
                    kind=kind,
                )
            )
        m.done()
        return out

    def finish(self) -> Scenario:
        keep = self.single
        if not self.plants:
            raise ScenarioWrong(
                file=keep["file"],
                key="site",
                problem='is missing: write [[site]] tables, or include a scenario that has them, as include = ["quiet-day"]',
            )
        start_us = _int(keep["start_us"])
        faults: list[Fault] = []
        sensor_faults: list[SensorFault] = []
        disturbances: list[Disturbance] = []
        signals = keep["signals"]
        assert isinstance(signals, tuple)
        for part, t in self.later:
            if part == "fault":
                faults.extend(self._fault(t, start_us))
            elif part == "sensor_fault":
                sensor_faults.extend(self._sensor_fault(t, start_us, signals))
            else:
                disturbances.append(self._disturbance(t, start_us))
            t.done()
        return Scenario(
            name=str(keep["name"]),
            title=str(keep["title"]),
            title_zh=str(keep["title_zh"]),
            description=str(keep["description"]),
            model=str(keep["model"]),
            tenant=str(keep["tenant"]),
            seed=_int(keep["seed"]),
            start_us=start_us,
            duration_us=round(_float(keep["duration_s"]) * 1e6),
            period_us=round(_float(keep["period_s"]) * 1e6),
            signals=signals,
            plants=tuple(self.plants),
            faults=tuple(faults),
            sensor_faults=tuple(sensor_faults),
            disturbances=tuple(disturbances),
        )

    def _machines(self, t: Table) -> list[tuple[str, MachineSpec]]:
        """Return the (site, machine) pairs that `machine` (a number, or a pattern as "P-*") and `site` name."""
        wanted = t.text("machine")
        site = t.text("site", allowed=[p.name for p in self.plants]) if "site" in t.data else None
        here = [(p.name, m) for p in self.plants if site in {None, p.name} for m in p.machines]
        found = [(name, m) for name, m in here if fnmatchcase(m.number, wanted)]
        if not found:
            more = f" and {len(here) - 12} more" if len(here) > 12 else ""
            raise t.wrong("machine", f"{wanted!r} is not one of {', '.join(m.number for _, m in here[:12])}{more}")
        if len({name for name, _ in found}) > 1 and not set("*?") & set(wanted):
            sites = ", ".join(name for name, _ in found)
            raise t.wrong("machine", f"{wanted!r} stands in several sites; add site = one of {sites}")
        return found

    def _fault(self, t: Table, start_us: int) -> list[Fault]:
        kind = self.fault_kinds[t.text("kind", allowed=tuple(self.fault_kinds))]
        onset = _instant(t, "onset", start_us)
        assert onset is not None
        failure = onset + round(t.duration_s("to_failure", kind.to_failure_s, low=1.0) * 1e6)
        end = _instant(t, "end", start_us, optional=True)
        if end is not None and end <= onset:
            raise t.wrong("end", "must be after onset")
        if end is None and "repair_after" in t.data:
            end = failure + round(t.duration_s("repair_after") * 1e6)
        growth = t.text("growth", kind.growth, allowed=GROWTH_LAWS)
        peak, scale = t.number("peak", 1.0, low=0, high=1), t.number("scale", 1.0, low=0, high=100)
        breaks_down = t.flag("breaks_down", False)
        faults = []
        for site, machine in self._machines(t):
            if kind.classes and machine.kind.name not in kind.classes:
                raise t.wrong(
                    "kind",
                    f"{kind.name!r} happens only to {', '.join(kind.classes)}; {machine.number} is a {machine.kind.name}",
                )
            faults.append(
                Fault(
                    site=site,
                    machine=machine.number,
                    kind=kind,
                    onset_us=onset,
                    failure_us=failure,
                    end_us=end,
                    growth=growth,
                    peak=peak,
                    scale=scale,
                    breaks_down=breaks_down,
                )
            )
        return faults

    def _sensor_fault(self, t: Table, start_us: int, signals: tuple[str, ...]) -> list[SensorFault]:
        signal = t.text("signal", allowed=(*signals, "*"))
        kind = t.text("kind", allowed=tuple(SENSOR_FAULT_KINDS))
        onset = _instant(t, "onset", start_us)
        assert onset is not None
        end = _instant(t, "end", start_us, optional=True)
        if end is not None and end <= onset:
            raise t.wrong("end", "must be after onset")
        size = t.number("size", math.nan) if "size" in t.data else math.nan
        rate = t.number("rate_per_h", 6.0, low=0.001, high=1e6)
        fahrenheit = t.text("to", "x", allowed=("x", "fahrenheit")) == "fahrenheit"
        chosen = signals if signal == "*" else (signal,)
        return [
            SensorFault(
                site=site,
                machine=machine.number,
                signal=name,
                kind=kind,
                onset_us=onset,
                end_us=end,
                size=size,
                rate_per_h=rate,
                fahrenheit=fahrenheit,
            )
            for site, machine in self._machines(t)
            for name in chosen
        ]

    def _disturbance(self, t: Table, start_us: int) -> Disturbance:
        kind = t.text("kind", allowed=tuple(DISTURBANCE_KINDS))
        site = t.text("site", allowed=[p.name for p in self.plants]) if "site" in t.data else None
        plants = [p for p in self.plants if site in {None, p.name}]
        line = t.text("line", allowed=[n.name for p in plants for n in p.lines]) if "line" in t.data else None
        machine = t.text("machine") if "machine" in t.data else None
        if machine:
            self._machines(t)
        t.asked |= {"site", "line", "machine"}
        at = _instant(t, "at", start_us)
        assert at is not None
        default = DEFAULT_DISTURBANCE_SIZE.get(kind, 1.0)
        high = 1.0 if kind in {"duplicates", "reordering", "missing"} else 10.0
        return Disturbance(
            kind=kind,
            where=Where(site=site, line=line, machine=machine),
            start_us=at,
            end_us=at + round(t.duration_s("duration", 20.0 if kind == "power_dip" else 3600.0, low=0.001) * 1e6),
            size=t.number("size", default, low=0.0, high=high),
            delay_s=t.duration_s("delay", 30.0),
        )


def period_fits(period_s: float) -> bool:
    """Tell whether blocks of 15 minutes (below 10 s) or of a day hold a whole number of periods."""
    period_us = round(period_s * 1e6)
    block_us = 900_000_000 if period_us < 10_000_000 else 86_400_000_000
    return period_us >= 1000 and period_us % 1000 == 0 and block_us % period_us == 0


def _instant(t: Table, name: str, start_us: int, *, optional: bool = False) -> int | None:
    if name not in t.data and optional:
        t.asked.add(name)
        return None
    value = t.data.get(name)
    if isinstance(value, str) and value[:1].isdigit() and "-" in value:
        return t.moment_us(name)
    if value is not None and not isinstance(value, (str, int, float)):
        return t.moment_us(name)
    return start_us + round(t.duration_s(name, low=-1e12) * 1e6)


def _level(t: Table, name: str, default: str | None = None) -> str:
    value = t.text(name, default)
    try:
        return check_level(name, value)
    except BadTopicLevel as error:
        raise t.wrong(name, str(error)) from error


def _int(value: object) -> int:
    assert isinstance(value, int)
    return value


def _float(value: object) -> float:
    assert isinstance(value, (int, float))
    return float(value)
