"""Machine classes and single machines: the parameters that physics turns into readings.

Classes live in `classes.toml`; a scenario changes any parameter for a class or for single machines. Every machine draws
its individual spread (vibration level, cooling, load habit) from its own random numbers, so two pumps differ as two
real pumps do.
"""

import hashlib
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from simulators.toml_table import Table, load_toml

CLASSES_FILE = Path(__file__).with_name("classes.toml")
LINE_VOLTAGE_V = 400.0


def _p(default: float, low: float = 0.0, high: float = 1e9) -> Any:
    return field(default=default, metadata={"low": low, "high": high})


@dataclass(frozen=True, kw_only=True)
class MachineClass:
    """Parameters of one class of machine; the unit is in the name, a share is a number from 0 to 1."""

    name: str
    title: str
    title_zh: str
    # drive
    rated_power_kw: float = _p(15.0, 0.01, 50_000)
    rated_speed_rpm: float = _p(1480.0, 1, 60_000)
    rated_current_a: float = _p(0.0)  # 0: from power at 400 V, 90 % efficiency, power factor .86
    no_load_share: float = _p(0.35, 0, 0.9)
    standby_a: float = _p(0.05)
    slip: float = _p(0.015, 0, 0.2)
    inverter: float = _p(0.0, 0, 1)  # 1: variable speed, no inrush; speed follows load down to 60 %
    inrush: float = _p(6.5, 1, 12)  # times rated current, direct on line
    inrush_s: float = _p(2.5, 0, 60)
    # temperature
    rise_k: float = _p(38.0, 0, 300)
    idle_loss_share: float = _p(0.25, 0, 1)
    tau_min: float = _p(45.0, 0.5, 1440)
    tau_off_min: float = _p(90.0, 0.5, 2880)
    hall_coupling: float = _p(0.5, 0, 1)  # how much of the weather reaches the machine
    # vibration: velocity RMS at full load and the power shares of its components
    vibration_mm_s: float = _p(1.3, 0.01, 100)
    vibration_load_share: float = _p(0.5, 0, 1)
    imbalance_share: float = _p(0.35, 0, 1)
    misalignment_share: float = _p(0.12, 0, 1)
    mesh_share: float = _p(0.15, 0, 1)  # gear mesh, blades or vanes
    vibration_floor_mm_s: float = _p(0.05)
    acceleration_g: float = _p(0.12, 0.001, 100)  # broadband, at full load
    iso_alarm_mm_s: float = _p(4.5, 0.1, 100)
    iso_trip_mm_s: float = _p(7.1, 0.1, 100)
    temperature_limit_c: float = _p(95.0, 0, 500)
    # geometry
    bearing_balls: float = _p(9, 3, 60)
    bearing_ball_mm: float = _p(7.94, 0.5, 500)
    bearing_pitch_mm: float = _p(39.04, 1, 3000)
    bearing_angle_deg: float = _p(0.0, 0, 60)
    mesh_teeth: float = _p(6, 1, 400)
    resonance_hz: float = _p(3300.0, 100, 12_000)
    # load
    load_levels: tuple[float, ...] = (0.55, 0.75, 0.9)  # one per product
    load_wander: float = _p(0.03, 0, 0.5)  # slow
    load_jitter: float = _p(0.02, 0, 0.5)  # from sample to sample
    # production
    calendar: str = "continuous"
    ideal_cycle_s: float = _p(20.0, 0.05, 86_400)
    speed_share: float = _p(0.93, 0.1, 1)  # actual over ideal speed
    scrap_share: float = _p(0.015, 0, 1)
    order_h: float = _p(8.0, 0.5, 24)
    setup_min: float = _p(15.0, 0, 600)
    idle_per_day: float = _p(2.0, 0, 48)
    idle_min: float = _p(8.0, 0.5, 300)
    breakdowns_per_1000_h: float = _p(1.0, 0, 500)
    repair_h: float = _p(1.5, 0.1, 24)
    # process, for machines that move a fluid
    pressure_bar: float = _p(0.0)
    flow_m3_h: float = _p(0.0)
    # sensors
    temperature_noise_k: float = _p(0.25)
    vibration_noise: float = _p(0.06, 0, 1)
    current_noise: float = _p(0.012, 0, 1)
    temperature_step_c: float = _p(0.1)
    vibration_step_mm_s: float = _p(0.01)
    current_step_a: float = _p(0.01)
    spread: float = _p(1.0, 0, 3)  # scales the differences between machines of the class

    @property
    def current_a(self) -> float:
        """Rated current, from the name plate or from the rated power."""
        if self.rated_current_a > 0:
            return self.rated_current_a
        return round(self.rated_power_kw * 1000 / (3**0.5 * LINE_VOLTAGE_V * 0.9 * 0.86), 1)


def read_class(table: Table, name: str, base: MachineClass | None = None) -> MachineClass:
    """Return a class from its table; keys that are absent keep the value of `base` or the built-in one."""
    from simulators.production import CALENDARS

    values: dict[str, Any] = {"name": name}
    for f in fields(MachineClass):
        if f.name == "name" or (f.name not in table.data and base is not None):
            table.asked.add(f.name)
            continue
        if f.name in {"title", "title_zh"}:
            values[f.name] = table.text(f.name, name)
        elif f.name == "calendar":
            values[f.name] = table.text(f.name, "continuous", allowed=tuple(CALENDARS))
        elif f.name == "load_levels":
            levels = table.numbers(f.name, f.default if isinstance(f.default, tuple) else ())
            if not levels or not all(0.05 <= v <= 1.5 for v in levels):
                raise table.wrong(f.name, "must be a list of loads from 0.05 to 1.5, one per product")
            values[f.name] = levels
        else:
            assert f.default is not MISSING
            values[f.name] = table.number(f.name, f.default, low=f.metadata["low"], high=f.metadata["high"])
    table.asked.discard("name")
    table.done()
    return MachineClass(**values) if base is None else replace(base, **values)


def read_classes(path: Path) -> dict[str, MachineClass]:
    """Return the classes of a file, by name.

    Raises:
        ScenarioWrong: the file cannot be read, or holds a key or value that is not allowed.
    """
    root = Table(str(path), "", load_toml(path))
    return {name: read_class(root.table(name), name) for name in root.data}


@cache
def builtin_classes() -> dict[str, MachineClass]:
    return read_classes(CLASSES_FILE)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """One machine: where it stands, what it is, and what sets it apart from its class.

    Attributes:
        number: asset number, unique within its site; the machine level of MQTT topics.
        key: 64-bit number from site and asset number; with the seed it determines all randomness of this machine.
    """

    tenant: str
    site: str
    line: str
    number: str
    title: str
    title_zh: str
    kind: MachineClass
    utc_offset_h: float
    period_us: int
    phase_us: int
    key: int
    vibration_mm_s: float
    rise_k: float
    hall_offset_c: float
    load_bias: float
    acceleration_g: float

    @property
    def class_name(self) -> str:
        return self.kind.name

    @property
    def rated_current_a(self) -> float:
        return self.kind.current_a

    @property
    def rated_power_kw(self) -> float:
        return self.kind.rated_power_kw

    @property
    def rated_speed_rpm(self) -> float:
        return self.kind.rated_speed_rpm


def stable_key(*parts: object) -> int:
    """Return a 63-bit number that is the same in every process and on every platform."""
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(seed: int, key: int, *stream: int) -> np.random.Generator:
    """Return the generator of one stream; equal arguments give equal numbers."""
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence((seed, key, *stream))))


def make_machine(
    *,
    seed: int,
    tenant: str,
    site: str,
    line: str,
    number: str,
    title: str,
    title_zh: str,
    kind: MachineClass,
    utc_offset_h: float,
    period_us: int,
) -> Machine:
    """Draw the individual spread of a machine from its own random numbers."""
    key = stable_key(site, number)
    z = generator(seed, key, 0).standard_normal(6) * kind.spread
    u = generator(seed, key, 1).random()
    return Machine(
        tenant=tenant,
        site=site,
        line=line,
        number=number,
        title=title,
        title_zh=title_zh,
        kind=kind,
        utc_offset_h=utc_offset_h,
        period_us=period_us,
        # devices do not sample in step; whole milliseconds survive every payload format
        phase_us=int(u * period_us) // 1000 * 1000,
        key=key,
        vibration_mm_s=kind.vibration_mm_s * float(np.exp(0.2 * np.clip(z[0], -2, 2))),
        rise_k=kind.rise_k * float(np.exp(0.08 * np.clip(z[1], -2, 2))),
        hall_offset_c=1.5 * float(np.clip(z[2], -2, 2)),
        load_bias=0.04 * float(np.clip(z[3], -2, 2)),
        acceleration_g=kind.acceleration_g * float(np.exp(0.2 * np.clip(z[4], -2, 2))),
    )
