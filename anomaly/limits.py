"""Limits that need no training: vibration severity zones, absolute limits, believable ranges (ISO 13374 block SD).

The figures live in `limits.toml`, each with its source, so that a plant can replace them by its own.
"""

import functools
import tomllib
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from anomaly.diagnosis import Bearing
from anomaly.envelope import Geometry
from anomaly.finding import MachineMeta, SensorMeta
from fettle.errors import FettleError
from fettle.model import SignalKind


class UnknownIsoClass(FettleError):
    """Machine {number} names vibration class {iso_class!r}, which limits.toml does not hold; known: {known}."""


class BadLimitsFile(FettleError):
    """Limits file {path} cannot be used: {why}."""


@dataclass(frozen=True, slots=True)
class ZoneTable:
    """One row of a vibration severity table: broadband velocity RMS, 10 to 1000 Hz, mm/s, at A/B, B/C and C/D."""

    name: str
    title: str
    ab: float
    bc: float
    cd: float
    source: str
    is_assumed: bool

    def zone(self, rms_mm_s: float) -> str:
        """Return the zone of a velocity.

        >>> ZoneTable("x", "x", 1.12, 2.8, 7.1, "", is_assumed=False).zone(3.0)
        'C'
        """
        return "A" if rms_mm_s < self.ab else "B" if rms_mm_s < self.bc else "C" if rms_mm_s < self.cd else "D"


@dataclass(frozen=True)
class Limits:
    """The content of a limits file."""

    body: dict[str, Any]

    def zones(self, machine: MachineMeta) -> ZoneTable:
        """Return the severity row of a machine; the default row is marked as assumed.

        Raises:
            UnknownIsoClass: the machine names a row the file does not hold.
        """
        rows = self.body["vibration"]["rows"]
        name = machine.iso_class or self.body["vibration"]["default"]
        if name not in rows:
            raise UnknownIsoClass(number=machine.number, iso_class=name, known=", ".join(sorted(rows)))
        row = rows[name]
        ab, bc, cd = (float(v) for v in row["zones_mm_s"])
        return ZoneTable(name, row["title"], ab, bc, cd, row["source"], is_assumed=not machine.iso_class)

    def believable(self, sensor: SensorMeta) -> tuple[float, float]:
        """Return the range outside which a value of this unit is a sensor fault."""
        row = self.body["range"].get(sensor.unit)
        return (float(row["low"]), float(row["high"])) if row else (-float("inf"), float("inf"))

    def rate(self, sensor: SensorMeta) -> tuple[float, str]:
        """Return the most that a sensor may move in a minute and where that comes from; infinite if there is none."""
        row = self.body.get("rate", {}).get(sensor.unit)
        return (float(row["per_minute"]), str(row["source"])) if row else (float("inf"), "")

    def bearing(self, machine: MachineMeta) -> Bearing | None:
        """Return the bearing of a machine, by its number or else, as an assumption, by its class; None if unknown."""
        body = self.body.get("bearing", {})
        own = body.get("of_machine", {}).get(machine.number)
        name = own or body.get("of_class", {}).get(machine.machine_class or "")
        if name is None:
            return None
        row = body["rows"][name]
        if "bpfo" in row:
            bpfo, bpfi, bsf, ftf = (float(row[key]) for key in ("bpfo", "bpfi", "bsf", "ftf"))
            return Bearing(name, Geometry(bpfo, bpfi, bsf, ftf, source=row["source"]), is_assumed=own is None)
        geometry = Geometry.of(
            elements=int(row["elements"]),
            element_diameter=float(row["element_diameter_mm"]),
            pitch_diameter=float(row["pitch_diameter_mm"]),
            contact_angle_deg=float(row.get("contact_angle_deg", 0.0)),
        )
        return Bearing(name, replace(geometry, source=row["source"]), is_assumed=own is None)

    @property
    def phase_unbalance(self) -> tuple[float, str] | None:
        """Return the share of the phases' mean by which one may be off, and its source; None where the file has none."""
        row = self.body["limits"].get("unbalance")
        return (float(row["of_mean"]), str(row["source"])) if row else None

    def alarm(self, sensor: SensorMeta, machine: MachineMeta) -> tuple[float, str]:
        """Return the absolute alarm limit of a sensor and where it comes from; infinite if there is none."""
        own = machine.limits.get(sensor.kind.value)
        if own is not None:
            return float(own), f"setting of machine {machine.number}"
        rules = self.body["limits"]
        if sensor.kind is SignalKind.VIBRATION_VELOCITY:
            table = self.zones(machine)
            return table.cd, f"zone C/D, {table.title}" + (" (assumed)" if table.is_assumed else "")
        if sensor.kind is SignalKind.TEMPERATURE:
            celsius = float(rules["temperature"]["alarm"])
            value = {"°F": celsius * 1.8 + 32.0, "K": celsius + 273.15}.get(sensor.unit, celsius)
            return value, str(rules["temperature"]["source"])
        if sensor.kind is SignalKind.CURRENT and machine.rated_current_a:
            return machine.rated_current_a * float(rules["current"]["of_rated"]), str(rules["current"]["source"])
        return float("inf"), ""


def read_limits(text: str, *, path: str) -> Limits:
    """Parse a limits file.

    Raises:
        BadLimitsFile: it is no TOML, or lacks what every finding needs.
    """
    try:
        body = tomllib.loads(text)
        limits = Limits(body)
        for name in body["vibration"]["rows"]:
            table = limits.zones(MachineMeta(machine_id=0, number="", iso_class=name))  # type: ignore[arg-type]
            if not 0 < table.ab < table.bc < table.cd:
                raise BadLimitsFile(path=path, why=f"zones_mm_s of {name} must rise")
        _ = body["vibration"]["rows"][body["vibration"]["default"]]
        for section in ("limits", "range"):
            _ = body[section]
        for unit, row in body.get("rate", {}).items():
            if not float(row["per_minute"]) > 0 or not row["source"]:
                raise BadLimitsFile(path=path, why=f"rate of {unit}: per_minute must be above 0 and have a source")
        bearings = body.get("bearing", {})
        for name in {*bearings.get("of_machine", {}).values(), *bearings.get("of_class", {}).values()}:
            if name not in bearings.get("rows", {}):
                raise BadLimitsFile(path=path, why=f"bearing {name!r} is used but has no [bearing.rows.{name}]")
        for name in bearings.get("rows", {}):
            probe = Limits({**body, "bearing": {**bearings, "of_machine": {"": name}}})
            if not bearings["rows"][name]["source"] or probe.bearing(MachineMeta(machine_id=0, number="")) is None:  # type: ignore[arg-type]
                raise BadLimitsFile(path=path, why=f"bearing row {name} needs a source")
        if limits.phase_unbalance is not None and not 0 < limits.phase_unbalance[0] < 1:
            raise BadLimitsFile(path=path, why="limits.unbalance: of_mean must lie between 0 and 1, as in 0.10")
    except (tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
        raise BadLimitsFile(path=path, why=f"{type(error).__name__}: {error}") from error
    return limits


def load_limits(path: Path) -> Limits:
    """Read a plant's own limits file."""
    return read_limits(path.read_text(encoding="utf-8"), path=str(path))


@functools.cache
def shipped_limits() -> Limits:
    """Return the limits that come with Fettle."""
    return read_limits(
        resources.files("anomaly").joinpath("limits.toml").read_text(encoding="utf-8"), path="limits.toml"
    )
