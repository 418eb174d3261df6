"""Machine faults: what each does to a machine, how it grows, and when it ends.

Severity is 0 at onset and 1 at functional failure; effects are proportional to it (heat follows later for bearings).
Growth laws over x, the share of the way to failure: `step` 1, `linear` x, `quadratic` x², `exponential`
(e^5x - 1)/(e^5 - 1), the shape that bearing wear shows in run-to-failure tests.
"""

from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fettle.model import FaultFamily
from simulators.toml_table import Table, load_toml

FAULTS_FILE = Path(__file__).with_name("faults.toml")
GROWTH_LAWS = ("step", "linear", "quadratic", "exponential")
_STEEPNESS = 5.0

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Effects:
    """Sizes at severity 1; see the head of `faults.toml` for what each multiplies."""

    imbalance: float = 0.0
    misalignment: float = 0.0
    looseness: float = 0.0
    bearing: float = 0.0
    broadband: float = 0.0
    shock: float = 0.0
    heat_k: float = 0.0
    heat_power: float = 1.0
    cooling: float = 0.0
    load: float = 0.0
    current: float = 0.0
    unbalance: float = 0.0
    phase_loss: float = 0.0
    load_noise: float = 0.0
    flow: float = 0.0
    pressure: float = 0.0


@dataclass(frozen=True, kw_only=True)
class FaultKind:
    name: str
    title: str
    title_zh: str
    family: FaultFamily
    growth: str
    to_failure_s: float
    classes: tuple[str, ...]
    signals: tuple[str, ...]  # that show it, the clearest first
    race: str  # outer, inner, ball: where a worn bearing is hit
    effects: Effects


def read_fault_kinds(path: Path) -> dict[str, FaultKind]:
    """Return the fault kinds of a file, by name.

    Raises:
        ScenarioWrong: the file cannot be read, or holds a key or value that is not allowed.
    """
    root = Table(str(path), "", load_toml(path))
    kinds = {}
    for name in root.data:
        t = root.table(name)
        kinds[name] = FaultKind(
            name=name,
            title=t.text("title", name),
            title_zh=t.text("title_zh", name),
            family=FaultFamily(t.text("family", allowed=[f.value for f in FaultFamily])),
            growth=t.text("growth", allowed=GROWTH_LAWS),
            to_failure_s=t.duration_s("to_failure", low=1.0),
            classes=t.texts("classes"),
            signals=t.texts("signals"),
            race=t.text("race", allowed=("outer", "inner", "ball")) if "race" in t.data else "",
            effects=Effects(
                **{f.name: t.number(f.name, float(str(f.default)), low=-10, high=1000) for f in fields(Effects)}
            ),
        )
        t.asked.add("race")
        t.done()
    return kinds


@cache
def builtin_fault_kinds() -> dict[str, FaultKind]:
    return read_fault_kinds(FAULTS_FILE)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault of one machine.

    Attributes:
        failure_us: instant of severity 1 under the growth law; for a step the end of the machine's remaining life.
        end_us: instant of repair, or None while it stays.
        peak: severity never exceeds it; below 1 the machine never fails.
        scale: effects are multiplied by it.
        breaks_down: the machine stands still from failure until repair.
    """

    site: str
    machine: str
    kind: FaultKind
    onset_us: int
    failure_us: int
    end_us: int | None
    growth: str
    peak: float = 1.0
    scale: float = 1.0
    breaks_down: bool = False

    @property
    def fails(self) -> bool:
        return self.peak >= 1.0 and (self.end_us is None or self.failure_us < self.end_us)

    def overlaps(self, start_us: int, end_us: int) -> bool:
        return self.onset_us < end_us and (self.end_us is None or self.end_us > start_us)

    def severity(self, t_us: npt.NDArray[np.int64]) -> Floats:
        """Return the severity at each instant."""
        x = (t_us - self.onset_us) / max(self.failure_us - self.onset_us, 1)
        active = x >= 0
        if self.end_us is not None:
            active &= t_us < self.end_us
        x = np.clip(x, 0.0, 1.0)
        return np.where(active, np.minimum(_grow(self.growth, x), self.peak), 0.0)


def _grow(law: str, x: Floats) -> Floats:
    if law == "step":
        return np.ones_like(x)
    if law == "linear":
        return x
    if law == "quadratic":
        return x * x
    return np.asarray(np.expm1(_STEEPNESS * x) / np.expm1(_STEEPNESS))


@dataclass
class Condition:
    """Summed effects of all faults of a machine over a grid of instants; zeros while it is healthy."""

    imbalance: Floats
    misalignment: Floats
    looseness: Floats
    bearing: Floats
    broadband: Floats
    shock: Floats
    heat_k: Floats
    cooling: Floats
    load: Floats
    current: Floats
    unbalance: Floats
    phase_loss: Floats
    load_noise: Floats
    flow: Floats
    pressure: Floats


CONDITIONS = tuple(f.name for f in fields(Condition))


def condition(faults: tuple[Fault, ...], t_us: npt.NDArray[np.int64]) -> Condition | None:
    """Return the summed effects at each instant, or None where no fault touches the span of `t_us`."""
    live = [f for f in faults if f.overlaps(int(t_us[0]), int(t_us[-1]) + 1)]
    if not live:
        return None
    total = Condition(**{name: np.zeros(t_us.size) for name in CONDITIONS})
    for fault in live:
        severity = fault.severity(t_us)
        for name in CONDITIONS:
            size = getattr(fault.kind.effects, name) * fault.scale
            if size:
                shape = severity**fault.kind.effects.heat_power if name == "heat_k" else severity
                getattr(total, name).__iadd__(size * shape)
    return total
