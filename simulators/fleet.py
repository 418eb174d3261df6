"""A fleet: the machines of a scenario, ready to give the readings of any stretch of time."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fettle.errors import FettleError
from fettle.model import Quality
from fettle.wire import READING_DTYPE, ReadingArray
from simulators.disturbances import DELIVERY_KINDS, Disturbance, SensorFault
from simulators.faults import Fault, condition
from simulators.machine import Machine, make_machine
from simulators.physics import DayPlan, Grid, Physics, speed_ratio
from simulators.production import DAY_US, Stretch, day_stretches, joined
from simulators.reference import reference_columns
from simulators.samples import block_signals
from simulators.scenario import MachineSpec, Scenario
from simulators.sensors import Column, apply_sensor_faults, drop_missing, noise_factors
from simulators.signals import SIGNAL_UNITS
from simulators.waveform import MAX_FS_HZ, Waveform, synthesise

Floats = npt.NDArray[np.float64]
Instants = npt.NDArray[np.int64]

SensorKey = tuple[str, str, str]
"""Site, machine number, signal."""


class WaveformTooFast(FettleError):
    """A waveform of {fs_hz} Hz cannot be made; choose a rate from 100 to 25600 Hz."""


@dataclass(frozen=True)
class Series:
    """Readings of one signal of one machine, in the order they were taken.

    Attributes:
        times: microseconds since 1970, as the device stamps them.
        values: in `unit`; the same length.
    """

    machine: Machine
    signal: str
    unit: str
    times: Instants
    values: Floats

    @property
    def key(self) -> SensorKey:
        return (self.machine.site, self.machine.number, self.signal)


@dataclass(frozen=True)
class _Fate:
    """What happens to one machine."""

    faults: tuple[Fault, ...]
    sensor_faults: tuple[SensorFault, ...]
    physical: tuple[Disturbance, ...]
    missing: tuple[Disturbance, ...]


class Fleet:
    """Machines of a scenario, every reading determined by seed, machine and instant.

    Generating [a, b) and then [b, c) gives the same bytes as [a, c), in any order and any process.

    Args:
        seed: instead of the scenario's.
        machines: as many as this: the first ones of the scenario, or, beyond its own, copies with numbers of their own.
        start_us: instant at which the scenario starts, instead of its own; faults and disturbances move with it. Pass
            the same one again to go on after a restart.
        period_us: sampling period instead of the scenario's.

    >>> from simulators.api import load_scenario
    >>> fleet = Fleet(load_scenario("quiet-day"), machines=1)
    >>> start = fleet.scenario.start_us
    >>> [(s.signal, s.unit, len(s.values)) for s in fleet.generate(start, start + 3_600_000_000)]
    [('temperature', '°C', 60), ('vibration', 'mm/s', 60), ('current', 'A', 60)]
    """

    def __init__(
        self,
        scenario: Scenario,
        *,
        seed: int | None = None,
        machines: int | None = None,
        start_us: int | None = None,
        period_us: int | None = None,
    ) -> None:
        self.scenario = scenario if start_us is None else scenario.started_at(start_us)
        self.seed = scenario.seed if seed is None else seed
        self.period_us = scenario.period_us if period_us is None else period_us
        self.block_us = 900_000_000 if self.period_us < 10_000_000 else DAY_US
        self.machines = tuple(self._make(machines))
        self._fates = {m.key: self._fate(m) for m in self.machines}
        self._physics = Physics(
            seed=self.seed,
            climates={p.name: p.climate for p in scenario.plants},
            kept_plans=max(64, 2 * len(self.machines)),
        )
        self._blocks: OrderedDict[tuple[int, int], dict[str, Column]] = OrderedDict()

    def _make(self, wanted: int | None) -> Iterator[Machine]:
        specs: list[tuple[str, float, str, MachineSpec]] = [
            (p.name, p.utc_offset_h, line.name, m)
            for p in self.scenario.plants
            for line in p.lines
            for m in line.machines
        ]
        total = len(specs) if wanted is None else wanted
        for i in range(total):
            site, offset, line, spec = specs[i % len(specs)]
            copy = i // len(specs)
            yield make_machine(
                seed=self.seed,
                tenant=self.scenario.tenant,
                site=site,
                line=line,
                number=f"{spec.number}-{copy + 1}" if copy else spec.number,
                title=spec.title,
                title_zh=spec.title_zh,
                kind=spec.kind,
                utc_offset_h=offset,
                period_us=self.period_us,
            )

    def _fate(self, m: Machine) -> _Fate:
        s = self.scenario
        here = [d for d in s.disturbances if d.where.covers(site=m.site, line=m.line, machine=m.number)]
        return _Fate(
            faults=tuple(f for f in s.faults if (f.site, f.machine) == (m.site, m.number)),
            sensor_faults=tuple(f for f in s.sensor_faults if (f.site, f.machine) == (m.site, m.number)),
            physical=tuple(d for d in here if d.kind not in DELIVERY_KINDS and d.kind != "missing"),
            missing=tuple(d for d in here if d.kind == "missing"),
        )

    def machine(self, number: str, *, site: str | None = None) -> Machine:
        """Return a machine by its number.

        Raises:
            KeyError: there is none, or several sites have one and `site` does not say which.
        """
        found = [m for m in self.machines if m.number == number and site in {None, m.site}]
        if len(found) != 1:
            raise KeyError(number)
        return found[0]

    def faults_of(self, machine: Machine) -> tuple[Fault, ...]:
        return self._fates[machine.key].faults

    def sensor_faults_of(self, machine: Machine) -> tuple[SensorFault, ...]:
        return self._fates[machine.key].sensor_faults

    def day_plan(self, machine: Machine, day: int) -> DayPlan:
        """Return the plan of a machine for a UTC day (days since 1970): spans of states, temperatures, faults by minute."""
        fate = self._fates[machine.key]
        return self._physics.plan(machine, day, fate.faults, fate.physical)

    def waveform(self, machine: Machine, at_us: int, *, fs_hz: float = 25_600.0, duration_s: float = 1.0) -> Waveform:
        """Return the raw acceleration of a machine from an instant on, consistent with its vibration signals there.

        Raises:
            WaveformTooFast: more than 25.6 kHz, or less than 100 Hz.
        """
        if not 100 <= fs_hz <= MAX_FS_HZ:
            raise WaveformTooFast(fs_hz=fs_hz)
        plan = self.day_plan(machine, at_us // DAY_US)
        second = at_us % DAY_US // 1_000_000
        span = int(np.searchsorted(plan.spans.start_s, second, side="right")) - 1
        load = float(plan.level[span] * (1 + plan.wander[second // 60]))
        speed = 1.0 if plan.speed is None else float(plan.speed[second // 60])
        ratio = float(speed_ratio(machine.kind, np.array([load]))[0]) * speed
        faults = self.faults_of(machine)
        return synthesise(
            machine,
            seed=self.seed,
            t0_us=at_us,
            fs_hz=fs_hz,
            duration_s=duration_s,
            load=load,
            shaft_hz=machine.rated_speed_rpm * ratio / 60 if plan.on[span] else 0.0,
            state=condition(faults, np.array([at_us], np.int64)) if faults else None,
            faults=faults,
        )

    def production(self, start_us: int, end_us: int, *, machines: Iterable[Machine] | None = None) -> Iterator[Stretch]:
        """Yield what machines did in [start, end), stretch by stretch, with the pieces they finished in it."""
        for machine in self.machines if machines is None else machines:
            yield from joined(
                stretch
                for day in range(start_us // DAY_US, -(-end_us // DAY_US))
                for stretch in day_stretches(
                    machine, self.seed, day, self.day_plan(machine, day).spans, start_us, end_us
                )
            )

    def generate(
        self,
        start_us: int,
        end_us: int,
        *,
        machines: Iterable[Machine] | None = None,
        signals: tuple[str, ...] | None = None,
    ) -> Iterator[Series]:
        """Yield the readings taken in [start, end), machine by machine, signal by signal, in the scenario's order.

        `signals` may be any of `simulators.signals.SIGNAL_UNITS`, instead of the scenario's.
        """
        wanted = self.scenario.signals if signals is None else signals
        for machine in self.machines if machines is None else machines:
            columns = self._columns(machine, start_us, end_us, wanted)
            for signal in wanted:
                parts = columns[signal]
                if len(parts) == 1:
                    times, values = parts[0].stamped_us, parts[0].values
                else:
                    times = np.concatenate([p.stamped_us for p in parts]) if parts else np.empty(0, np.int64)
                    values = np.concatenate([p.values for p in parts]) if parts else np.empty(0)
                yield Series(machine, signal, SIGNAL_UNITS[signal], times, values)

    def readings(self, start_us: int, end_us: int, sensor_ids: Mapping[SensorKey, int]) -> ReadingArray:
        """Return the readings of [start, end) as `READING_DTYPE`, sorted by (sensor, time), ready for one COPY.

        `sensor_ids` gives the sensor id by (site, machine number, signal); signals without one are left out.
        """
        series = [(sensor_ids[s.key], s) for s in self.generate(start_us, end_us) if s.key in sensor_ids]
        series.sort(key=lambda pair: pair[0])
        out = np.empty(sum(s.times.size for _, s in series), READING_DTYPE)
        out["quality"], out["flags"] = Quality.GOOD, 0
        at = 0
        for sensor_id, s in series:
            part = out[at : at + s.times.size]
            part["sensor_id"] = sensor_id
            order = np.argsort(s.times, kind="stable") if np.any(np.diff(s.times) < 0) else slice(None)
            part["ts"], part["value"] = s.times[order], s.values[order]
            at += s.times.size
        return out

    def _columns(
        self, machine: Machine, start_us: int, end_us: int, wanted: tuple[str, ...]
    ) -> dict[str, list[Column]]:
        out: dict[str, list[Column]] = {signal: [] for signal in wanted}
        if end_us <= start_us:
            return out
        period, phase = machine.period_us, machine.phase_us
        per_block = self.block_us // period
        first = -((phase - start_us) // period)  # ceil((start - phase) / period)
        last = -((phase - end_us) // period)  # one past the last
        for block in range(first // per_block, -(-last // per_block)):
            whole = first <= block * per_block and last >= (block + 1) * per_block
            columns = self._block(machine, block, wanted, keep=not whole)
            for signal in wanted:
                column = columns[signal]
                if not whole:
                    a, b = np.searchsorted(column.taken_us, (start_us, end_us))
                    column = Column(column.taken_us[a:b], column.stamped_us[a:b], column.values[a:b])
                out[signal].append(column)
        return out

    def _block(self, machine: Machine, block: int, wanted: tuple[str, ...], *, keep: bool) -> dict[str, Column]:
        key = (machine.key, block)
        found = self._blocks.get(key)
        if found is not None and all(signal in found for signal in wanted):
            return found
        columns = self._draw(machine, block, frozenset(wanted))
        if keep:
            self._blocks[key] = columns
            while len(self._blocks) > len(self.machines) + 8:
                self._blocks.popitem(last=False)
        return columns

    def _draw(
        self, machine: Machine, block: int, wanted: frozenset[str], *, healthy_sensors: bool = False
    ) -> dict[str, Column]:
        per_block = self.block_us // machine.period_us
        taken = (block * per_block + np.arange(per_block)) * machine.period_us + machine.phase_us
        fate = self._fates[machine.key]
        if self.scenario.model == "reference":
            values = reference_columns(machine, self.seed, self.scenario, fate.faults, taken)
        else:
            day = block * self.block_us // DAY_US
            plan = self._physics.plan(machine, day, fate.faults, fate.physical)
            noise = noise_factors(fate.sensor_faults, machine, taken) if fate.sensor_faults else {}
            values = block_signals(machine, self.seed, plan, Grid(taken, day), block, wanted, noise)
        columns = {signal: Column(taken, taken, values[signal]) for signal in wanted}
        if healthy_sensors:
            return columns
        if self.scenario.model == "reference":
            columns = {signal: _inside(column) for signal, column in columns.items()}
        if fate.sensor_faults:
            for signal, column in columns.items():
                columns[signal] = apply_sensor_faults(
                    column,
                    fate.sensor_faults,
                    machine=machine,
                    signal=signal,
                    seed=self.seed,
                    block=block,
                    value_at=lambda t_us, name: self._healthy_value(machine, t_us, name),
                )
        for d in fate.missing:
            if d.overlaps(int(taken[0]), int(taken[-1]) + 1):
                for signal, column in columns.items():
                    columns[signal] = drop_missing(
                        column,
                        share=d.size,
                        start_us=d.start_us,
                        end_us=d.end_us,
                        machine=machine,
                        signal=signal,
                        seed=self.seed,
                        block=block,
                    )
        return columns

    def _healthy_value(self, machine: Machine, t_us: int, signal: str) -> float:
        """Return the last value a healthy sensor reads before an instant."""
        sample = -((machine.phase_us - t_us) // machine.period_us) - 1
        per_block = self.block_us // machine.period_us
        column = self._draw(machine, sample // per_block, frozenset({signal}), healthy_sensors=True)[signal]
        return float(column.values[sample % per_block])


def _inside(column: Column) -> Column:
    """Return the column without the instants before the run and after its end."""
    there = np.isfinite(column.values)
    return column if there.all() else Column(column.taken_us[there], column.stamped_us[there], column.values[there])
