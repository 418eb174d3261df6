"""How fast readings become findings: the per-sample kernel, the whole fold with ticket logic, one tick, and memory.

Protocol: machines of three sensors (temperature, vibration, current) follow the plain equations of `simulators/reference.py`
at one sample a minute, drawn here for all machines at once. They learn a baseline of one day (shortened: the work per
sample after it does not depend on its length), then everything is timed after it, in CPU seconds of
the process, all its threads together. One machine
in 200 gets an imbalance, so that tickets are raised while the clock runs.

    kernel       the part of it that is spent on each sample alone: believable, stuck, spike, limit, sums of the step
    end to end   `Engine.fold` of batches: sort, kernel, steps, residuals, scores, alarms, findings
    tick         one `Engine.fold` of one sample of each sensor, wall time; four of ten close steps, of a quarter of the
                 machines each

The baseline is River's HalfSpaceTrees (10 trees of height 8), one value counted for each feature, at its better width.
"""

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable

import numpy as np
from rich.console import Console
from rich.progress import Progress
from river.anomaly import HalfSpaceTrees

from anomaly.api import Engine, EngineConfig, MachineMeta, SensorMeta
from anomaly.columns import AnyArray, Columns, IntArray
from anomaly.validity import Rows
from benchmarks.corpus import versions
from fettle.model import MachineId, Quality, SensorId, SignalKind
from fettle.wire import READING_DTYPE, ReadingArray

MINUTE_US = 60_000_000
START_US = 1_767_225_600_000_000  # 1 January 2026
KINDS = (SignalKind.TEMPERATURE, SignalKind.VIBRATION_VELOCITY, SignalKind.CURRENT)
CONFIG = EngineConfig(
    fine_hours=4.0, fit_hours=(24.0,), first_fit_steps=30, own_model_hours=24.0, own_model_steps=100, history_steps=400
)
WARM_UP_MINUTES = 25 * 60


class Plant:
    """All machines at once, minute by minute."""

    def __init__(self, machines: int, seed: int) -> None:
        self.machines = machines
        self._rng = np.random.default_rng(seed)
        self._amps = self._rng.uniform(15, 40, machines)
        self._heat = 35.0 * self._rng.uniform(0.8, 1.2, machines)
        self._mm_s = self._rng.uniform(0.8, 1.8, machines)
        self._load = self._rng.choice((0.4, 0.7, 1.0), machines)
        self._phase = self._rng.integers(0, 120, machines)
        self._rise = self._heat * self._load**1.5
        self.shaken = np.ones(machines)
        self.minute = 0

    def readings(self, minutes: int) -> ReadingArray:
        """Return the next minutes: in order of time, then sensor; sensor ids count from 1, three to a machine."""
        m, rng = self.machines, self._rng
        out = np.empty((minutes, m, 3), READING_DTYPE)
        out["sensor_id"] = np.arange(1, 3 * m + 1).reshape(m, 3)
        out["quality"], out["flags"] = Quality.GOOD, 0
        for i in range(minutes):
            turn = (self.minute + self._phase) % 120 == 0
            self._load = np.where(turn, rng.choice((0.4, 0.7, 1.0), m), self._load)
            self._rise += (self._heat * self._load**1.5 - self._rise) / 45.0
            day = 5.0 * np.sin(2 * np.pi * self.minute / 1440)
            noise = rng.standard_normal((4, m))
            out["value"][i, :, 0] = 22.0 + day + self._rise + 0.3 * noise[0]
            out["value"][i, :, 1] = self.shaken * self._mm_s * (0.3 + 0.7 * self._load) * np.exp(0.08 * noise[1]) + 0.05
            out["value"][i, :, 2] = self._amps * (0.35 + 0.65 * self._load) * (1 + 0.02 * noise[2]) + 0.1 * noise[3]
            out["ts"][i] = START_US + self.minute * MINUTE_US
            self.minute += 1
        return out.reshape(-1)


def run(argv: list[str]) -> dict[str, object]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks detect", description=__doc__)
    parser.add_argument("--sensors", type=int, default=10_000, help="three to a machine, rounded down")
    parser.add_argument("--minutes", type=int, default=600, help="of event time that are timed, each way")
    parser.add_argument("--batch-minutes", type=int, default=10, help="of event time in one batch")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="1,000 sensors, 120 minutes: does it run at all")
    args = parser.parse_args(argv)
    if args.quick:
        args.sensors, args.minutes = min(args.sensors, 1000), min(args.minutes, 120)
    print(__doc__)
    machines = max(args.sensors // 3, 1)
    sensors = 3 * machines
    print(
        f"python {platform.python_version()}, {versions('numpy', 'scipy', 'river')}, {os.cpu_count()} cores, "
        f"load {os.getloadavg()[0]:.1f}, seed {args.seed}, {machines} machines, {sensors} sensors, "
        f"configuration {CONFIG.digest()}\n"
    )
    plant = Plant(machines, args.seed)
    engine = _warm(plant)
    learned = float(np.mean(~engine.machines.is_learning))
    plant.shaken[::200] = 1.6

    fold, events = _fold(engine, plant, args.minutes, args.batch_minutes)
    kernel = _kernel(engine, plant, args.minutes, args.batch_minutes)
    ticks = _ticks(engine, plant, args.minutes)
    rivers = _river(args.seed, samples=1500 if args.quick else 6000)
    river = max(rivers.values())
    floor = _floor(plant)
    per_sensor, tables = _memory(engine)
    result: dict[str, object] = {
        "samples_per_s_kernel": round(kernel),
        "samples_per_s_end_to_end": round(fold),
        "ratio_vs_river_hst": round(fold / river, 1),
        "ratio_vs_river_hst_kernel": round(kernel / river, 1),
        "ratio_vs_river_hst_3_features": round(fold / rivers[3], 1),
        "bytes_per_sensor": round(per_sensor),
        "p99_ms_tick": round(float(np.percentile(ticks, 99)), 2),
        "p50_ms_tick": round(float(np.percentile(ticks, 50)), 2),
        "river_values_per_s": round(river),
        "finding_events": events,
        "sensors": sensors,
    }
    print(f"{'machines with their own model':48}{learned:>13.1%}")
    print(f"{'kernel':48}{kernel:>13,.0f} samples/s   goal 20,000,000 at 10,000 sensors")
    print(f"{'end to end, batches of ' + str(args.batch_minutes) + ' min':48}{fold:>13,.0f} samples/s   goal 2,000,000")
    print(f"{'finding events meanwhile':48}{events:>13,}")
    print(
        f"{'baseline: River HalfSpaceTrees':48}{river:>13,.0f} values/s    ratio {fold / river:.1f}, goal 20; "
        f"at 3 features {rivers[3]:,.0f}, ratio {fold / rivers[3]:.1f}"
    )
    print(f"{'baseline: never alarm (copy, sort, mean, std)':48}{floor:>13,.0f} samples/s")
    print(
        f"{'one tick of all sensors, median, 99 %, most':48}"
        f"{np.percentile(ticks, 50):>13.2f} ms, {np.percentile(ticks, 99):.2f} ms, {max(ticks):.2f} ms   goal 10 ms at 99 %"
    )
    print(f"{'state per sensor':48}{per_sensor:>13,.0f} B           goal 512: {tables}")
    return result


def _warm(plant: Plant) -> Engine:
    engine = Engine(CONFIG)
    machines = [MachineMeta(MachineId(m + 1), number=f"M-{m + 1}") for m in range(plant.machines)]
    sensors = [
        SensorMeta(SensorId(3 * m + k + 1), MachineId(m + 1), kind.value, kind)
        for m in range(plant.machines)
        for k, kind in enumerate(KINDS)
    ]
    engine.register(machines, sensors)
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("learning a baseline", total=WARM_UP_MINUTES)
        while plant.minute < WARM_UP_MINUTES:
            batch = plant.readings(20)
            engine.fold(batch, int(batch["ts"][-1]) + 1)
            bar.update(task, completed=plant.minute)
    return engine


class Stopwatch:
    """Calls the sample rules of an engine and adds up the CPU seconds and samples that went into them."""

    def __init__(self, tick: Callable[..., None]) -> None:
        self._tick = tick
        self.seconds = 0.0
        self.samples = 0

    def __call__(self, sel: Rows, rows: IntArray, *columns: AnyArray) -> None:
        began = time.process_time()
        self._tick(sel, rows, *columns)
        self.seconds += time.process_time() - began
        self.samples += len(rows)


def _kernel(engine: Engine, plant: Plant, minutes: int, batch_minutes: int) -> float:
    """Return samples a second of the sample rules within the fold."""
    watch = Stopwatch(engine.validity.tick)
    engine.validity.tick = watch  # type: ignore[method-assign,assignment]
    _fold(engine, plant, minutes, batch_minutes)
    del engine.validity.tick
    return watch.samples / watch.seconds


def _fold(engine: Engine, plant: Plant, minutes: int, batch_minutes: int) -> tuple[float, int]:
    samples = events = 0
    seconds = 0.0
    for _ in range(max(minutes // batch_minutes, 1)):
        batch = plant.readings(batch_minutes)
        began = time.process_time()
        events += len(engine.fold(batch, int(batch["ts"][-1]) + 1))
        seconds += time.process_time() - began
        samples += len(batch)
    return samples / seconds, events


def _ticks(engine: Engine, plant: Plant, minutes: int) -> list[float]:
    took = []
    for _ in range(minutes):
        batch = plant.readings(1)
        began = time.perf_counter()
        engine.fold(batch, int(batch["ts"][-1]) + 1)
        took.append((time.perf_counter() - began) * 1000)
    return took


def _river(seed: int, *, samples: int) -> dict[int, float]:
    """Return the values a second of River at 3 features, as these machines have, and at 8."""
    rates = {}
    for width in (len(KINDS), 8):
        values = np.random.default_rng(seed).random((samples, width))
        rows = [{f"f{k}": float(v) for k, v in enumerate(row)} for row in values]
        trees = HalfSpaceTrees(n_trees=10, height=8, window_size=250, seed=seed)
        for row in rows[: samples // 3]:
            trees.learn_one(row)  # type: ignore[no-untyped-call]
        timed = rows[samples // 3 :]
        began = time.process_time()
        for row in timed:
            trees.score_one(row)  # type: ignore[no-untyped-call]
            trees.learn_one(row)  # type: ignore[no-untyped-call]
        rates[width] = len(timed) * width / (time.process_time() - began)
    return rates


def _floor(plant: Plant) -> float:
    """Return the samples a second of a detector that never alarms: it sorts the batch and keeps each sensor's moments."""
    batch = plant.readings(10)
    count, total, squares = (np.zeros(3 * plant.machines + 1) for _ in range(3))
    began = time.process_time()
    for _ in range(5):
        part = batch[np.lexsort((batch["sensor_id"], batch["ts"]))]
        sensor, x = part["sensor_id"], part["value"]
        count += np.bincount(sensor, minlength=len(count))
        total += np.bincount(sensor, weights=x, minlength=len(count))
        squares += np.bincount(sensor, weights=x * x, minlength=len(count))
    return 5 * len(batch) / (time.process_time() - began)


def _memory(engine: Engine) -> tuple[float, str]:
    """Return the bytes of state a sensor once its machine has learned, and how they divide."""
    tables: dict[str, Columns] = {
        "sensors": engine.sensors,
        "channels": engine.channels,
        "alarms": engine.alarms,
        "machines": engine.machines,
    }
    each = {name: table.n * table.nbytes_per_row() / engine.sensors.n for name, table in tables.items()}
    return sum(each.values()), ", ".join(f"{name} {size:.0f}" for name, size in each.items())
