"""Fixtures: small plants of readings, one load-following machine after another, seeded."""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest

from anomaly.api import Engine, EngineConfig, MachineMeta, SensorMeta
from fettle.model import MachineId, Quality, SensorId, SignalKind
from fettle.wire import READING_DTYPE

START_US = 1_790_000_400_000_000 // 86_400_000_000 * 86_400_000_000
DAY_US = 86_400_000_000
SIGNALS = (
    ("temperature", SignalKind.TEMPERATURE, "°C"),
    ("vibration", SignalKind.VIBRATION_VELOCITY, "mm/s"),
    ("current", SignalKind.CURRENT, "A"),
)


@dataclass
class Machine:
    """Values (signal, sample) of one machine, and the period between samples."""

    values: np.ndarray
    period_s: float

    def day(self, days: float) -> int:
        return int(days * 86400 / self.period_s)


def machine(*, days, period_s=600.0, seed=0):
    """Return a healthy machine whose load changes every two hours and which rests now and then."""
    random = np.random.default_rng(seed)
    n = int(days * 86400 / period_s)
    hours = np.arange(n) * period_s / 3600
    load = random.choice([0.4, 0.7, 1.0], int(hours[-1] / 2) + 2)[(hours / 2).astype(int)]
    on = (random.random(int(hours[-1] / 8) + 2) >= 0.1)[(hours / 8).astype(int)]
    drive = 35 * load**1.5 * on
    keep = np.exp(-period_s / 2700)
    heat = np.empty(n)
    level = 0.0
    for i, d in enumerate(drive):
        level = keep * level + (1 - keep) * d
        heat[i] = level
    temperature = 22 + 4 * np.sin(2 * np.pi * hours / 24) + heat + random.normal(0, 0.2, n)
    vibration = (1.2 * (0.3 + 0.7 * load) * on + 0.05) * np.exp(random.normal(0, 0.04, n))
    current = np.where(on, 20 * (0.35 + 0.65 * load), 0.05) * random.normal(1, 0.01, n)
    return Machine(np.stack([temperature, vibration, current]), period_s)


def engine_for(machines=1, *, config=None, signals=SIGNALS, site=None):
    """Return an engine that knows `machines` machines with the sensors of SIGNALS, ids 1, 2, 3, ..."""
    engine = Engine(config or EngineConfig())
    engine.register(*metas(machines, signals=signals, site=site))
    return engine


def metas(machines=1, *, signals=SIGNALS, site=None):
    machine_metas = [MachineMeta(MachineId(m), f"M-{m}", site=site) for m in range(1, machines + 1)]
    sensor_metas = [
        SensorMeta(SensorId(len(signals) * (m - 1) + k), MachineId(m), name, kind, unit)
        for m in range(1, machines + 1)
        for k, (name, kind, unit) in enumerate(signals, start=1)
    ]
    return machine_metas, sensor_metas


def readings(machines, *, first=0, last=None):
    """Return the samples [first, last) of machines as one array in time order; NaN values are left out."""
    parts = []
    sensor = 0
    for m in machines:
        for row in m.values:
            sensor += 1
            x = row[first:last]
            part = np.zeros(len(x), dtype=READING_DTYPE)
            part["sensor_id"] = sensor
            part["quality"] = Quality.GOOD
            part["ts"] = START_US + ((first + np.arange(len(x))) * m.period_s * 1e6).astype(np.int64)
            part["value"] = x
            parts.append(part[np.isfinite(x)])
    out = np.concatenate(parts)
    return out[np.argsort(out["ts"], kind="stable")]


def feed(engine, machines, *, first=0, last=None, batch_s=21600.0):
    """Fold the samples [first, last) of machines in batches of `batch_s`; return the events."""
    rows = readings(machines, first=first, last=last)
    return fold_in_batches(engine, rows, batch_s=batch_s)


def fold_in_batches(engine, rows, *, batch_s=21600.0):
    events = []
    bins = rows["ts"] // int(batch_s * 1e6)
    for b in np.unique(bins):
        events.extend(engine.fold(rows[bins == b], int(rows["ts"][bins == b].max())))
    return events


def watch(stories, *, config=None, batch_s=21600.0):
    """Fold the machines of `stories`, by name, in one engine: a step of many machines costs hardly more than of one.

    A story is a machine of SIGNALS, or a machine and its signals. Returns the engine and the events by name.
    """
    names = list(stories)
    told = [s if isinstance(s, tuple) else (s, SIGNALS) for s in stories.values()]
    engine = Engine(config or EngineConfig())
    machine_metas, sensor_metas = [], []
    for number, (name, (_, signals)) in enumerate(zip(names, told, strict=True), start=1):
        machine_metas.append(MachineMeta(MachineId(number), str(name)))
        for signal, kind, unit in signals:
            sensor_metas.append(SensorMeta(SensorId(len(sensor_metas) + 1), MachineId(number), signal, kind, unit))
    engine.register(machine_metas, sensor_metas)
    events = {name: [] for name in names}
    for event in fold_in_batches(engine, readings([m for m, _ in told]), batch_s=batch_s):
        events[names[int(event.finding.machine_id) - 1]].append(event)
    return engine, events


def raised(events, kind=None):
    return [e.finding for e in events if e.change == "raised" and (kind is None or e.finding.kind == kind)]


def days(us):
    return (us - START_US) / DAY_US


@pytest.fixture(scope="session")
def plant():
    """Builders of small plants: machine, engine_for, metas, readings, feed, fold_in_batches, watch, raised, days, SIGNALS."""
    names = (machine, engine_for, metas, readings, feed, fold_in_batches, watch, raised, days)
    return SimpleNamespace(
        **{f.__name__: f for f in names}, SIGNALS=SIGNALS, START_US=START_US, DAY_US=DAY_US, Machine=Machine
    )
