"""What goes wrong without the machine being at fault: sensor faults and disturbances, as values of a scenario."""

from dataclasses import dataclass
from fnmatch import fnmatchcase

SENSOR_FAULT_KINDS = {
    "stuck": "the value freezes",
    "drift": "size per day is added, growing",
    "offset": "size is added",
    "spike": "size is added to single samples (temperatures: or subtracted), rate_per_h of them",
    "dropout": "no samples",
    "noise_up": "scatter times size (5)",
    "noise_down": "scatter times size (0.1)",
    "unit_change": 'value times size (1000), or to = "fahrenheit"',
    "clock_skew": "time stamps are ahead by size seconds (negative: behind)",
}

DISTURBANCE_KINDS = {
    "load_step": "load times size for a while",
    "product_change": "another product is made for a while",
    "speed_change": "speed times size for a while (planned)",
    "planned_stop": "the machine is stopped on purpose",
    "power_dip": "all machines of a site stop and restart one after another",
    "network_outage": "readings of the span are delivered late, when it ends",
    "duplicates": "a share (size) of the messages is delivered twice",
    "reordering": "a share (size) of the messages is delivered up to delay later",
    "missing": "a share (size) of the samples is never taken",
}

DEFAULT_DISTURBANCE_SIZE = {
    "load_step": 1.25,
    "product_change": 1.0,
    "speed_change": 0.85,
    "duplicates": 0.05,
    "reordering": 0.1,
    "missing": 0.05,
}

DELIVERY_KINDS = frozenset({"network_outage", "duplicates", "reordering"})


@dataclass(frozen=True, kw_only=True)
class Where:
    """Which machines something concerns; None matches every one, a machine may be a pattern as "P-*"."""

    site: str | None = None
    line: str | None = None
    machine: str | None = None

    def covers(self, *, site: str, line: str, machine: str) -> bool:
        return (
            (self.site is None or self.site == site)
            and (self.line is None or self.line == line)
            and (self.machine is None or fnmatchcase(machine, self.machine))
        )


@dataclass(frozen=True, kw_only=True)
class SensorFault:
    """A fault of a sensor, not of its machine. `size` NaN stands for the usual size of the kind and signal."""

    site: str
    machine: str
    signal: str
    kind: str
    onset_us: int
    end_us: int | None
    size: float
    rate_per_h: float
    fahrenheit: bool

    def overlaps(self, start_us: int, end_us: int) -> bool:
        return self.onset_us < end_us and (self.end_us is None or self.end_us > start_us)


@dataclass(frozen=True, kw_only=True)
class Disturbance:
    kind: str
    where: Where
    start_us: int
    end_us: int
    size: float
    delay_s: float

    def overlaps(self, start_us: int, end_us: int) -> bool:
        return self.start_us < end_us and self.end_us > start_us
