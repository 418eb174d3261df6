"""How close the realised rate of false tickets comes to the set one, on healthy machines whose noise has a memory.

Protocol: machines of three signals that follow no load, one sample an hour, each an AR(1) process of its own (normal, one
third of the machines each with a coefficient of .5, .9 and .99 from hour to hour), a third of a year and then the two thirds
that count. One engine for each set rate, in the shipped configuration otherwise. Nothing is ever wrong with these machines.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.signal import lfilter

from anomaly.api import Change, Engine, EngineConfig, MachineMeta, SensorMeta
from benchmarks.fleet_judge import DAY_US, poisson_interval
from fettle.model import MachineId, Quality, SensorId, SignalKind
from fettle.wire import READING_DTYPE

HOUR_US = 3_600_000_000
START_US = 1_767_225_600_000_000
MEMORIES = (0.5, 0.9, 0.99)
RATES = (0.1, 0.01, 0.001)
SIGNALS = (SignalKind.TEMPERATURE, SignalKind.VIBRATION_VELOCITY, SignalKind.PRESSURE)


@dataclass(frozen=True)
class Realised:
    """False tickets by the coefficient of the noise, over so many machine-days each."""

    set_rate: float
    tickets: dict[float, int]
    days_each: float

    @property
    def rate(self) -> float:
        return sum(self.tickets.values()) / (self.days_each * len(self.tickets))

    def interval(self) -> tuple[float, float]:
        return poisson_interval(sum(self.tickets.values()), self.days_each * len(self.tickets))


def realise(
    config: EngineConfig, set_rate: float, *, seed: int, each: int, days: int, on_day: Callable[[], object]
) -> Realised:
    """Let healthy machines run, `each` of every coefficient, and count their tickets after a third of the days."""
    rng = np.random.default_rng((seed, 13))
    machines = each * len(MEMORIES)
    memory = np.repeat(MEMORIES, each)
    engine = Engine(replace(config, false_tickets_per_machine_day=set_rate))
    engine.register(
        [MachineMeta(MachineId(m + 1), f"A-{m + 1}") for m in range(machines)],
        [
            SensorMeta(SensorId(m * len(SIGNALS) + k + 1), MachineId(m + 1), kind.value, kind)
            for m in range(machines)
            for k, kind in enumerate(SIGNALS)
        ],
    )
    tickets = dict.fromkeys(MEMORIES, 0)
    state = rng.standard_normal((machines, len(SIGNALS)))
    batch = np.zeros((24, machines, len(SIGNALS)), READING_DTYPE)
    batch["sensor_id"] = np.arange(1, machines * len(SIGNALS) + 1).reshape(machines, len(SIGNALS))
    batch["quality"] = Quality.GOOD
    for day in range(days):
        noise = np.empty((24, machines, len(SIGNALS)))
        fresh = rng.standard_normal(noise.shape)
        for k, phi in enumerate(MEMORIES):
            mine = slice(k * each, (k + 1) * each)
            scaled = np.sqrt(1.0 - phi * phi) * fresh[:, mine]
            noise[:, mine], _ = lfilter([1.0], [1.0, -phi], scaled, axis=0, zi=phi * state[None, mine])
        state = noise[-1]
        at_us = START_US + day * DAY_US + HOUR_US * np.arange(24)
        batch["ts"] = at_us[:, None, None]
        batch["value"][..., 0] = 60.0 + noise[..., 0]
        batch["value"][..., 1] = 1.2 * np.exp(0.06 * noise[..., 1])
        batch["value"][..., 2] = 5.0 + 0.05 * noise[..., 2]
        rows = batch.reshape(-1)
        for event in engine.fold(rows, int(at_us[-1]) + 1):
            if event.change is Change.RAISED and day >= days // 3:
                tickets[float(memory[int(event.finding.machine_id) - 1])] += 1
        on_day()
    return Realised(set_rate, tickets, each * (days - days // 3))
