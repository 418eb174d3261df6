"""How long a backtest of a year takes: 100 machines, 3 sensors, a reading a minute, from a Parquet file to a report.

The file is made first (seeded, not timed): load steps of two hours, rests, thermal lag, daily ambient; every tenth machine
gets a fault. Then `fettle backtest` runs over it in a process of its own, on one core where `--core` names it. Timed is the
whole process: start-up, reading, detection, judging and the report.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import track

DAY_S = 86_400
START_S = 1_767_225_600  # 2026-01-01
SENSORS = ("temperature [°C]", "vibration [mm/s]", "current [A]")


class Plant:
    """Machines whose temperature remembers the load; one day at a time, so that memory stays small."""

    def __init__(self, machines: int, seed: int, days: int) -> None:
        self.random = np.random.default_rng(seed)
        self.machines, self.days = machines, days
        self.heat = np.zeros(machines)
        self.base = self.random.uniform(0.8, 1.8, machines)
        self.current = self.random.uniform(15, 40, machines)
        self.phase = self.random.uniform(0, 2 * np.pi, machines)
        self.onset = np.where(np.arange(machines) % 10 == 0, self.random.uniform(0.3, 0.9, machines) * days, np.inf)

    def day(self, day: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return temperature, vibration and current as (minute, machine)."""
        n, m, r = DAY_S // 60, self.machines, self.random
        load = np.repeat(r.choice([0.4, 0.7, 1.0], (n // 120, m)), 120, axis=0)
        on = np.repeat(r.random((n // 480, m)) >= 0.08, 480, axis=0)
        drive = 35 * load**1.5 * on
        keep = np.exp(-1 / 45)
        heat = np.empty((n, m))
        level = self.heat
        for i in range(n):
            level = keep * level + (1 - keep) * drive[i]
            heat[i] = level
        self.heat = level
        minutes = np.arange(n)[:, None] / n
        ambient = 22 + 5 * np.sin(2 * np.pi * minutes + self.phase)
        worn = np.clip(0.12 * (day + minutes - self.onset), 0, 1.8)
        vibration = (self.base * (0.3 + 0.7 * load) * on + 0.05) * np.exp(r.normal(0, 0.08, (n, m)) + worn)
        current = np.where(on, self.current * (0.35 + 0.65 * load), 0.05) * r.normal(1, 0.02, (n, m))
        return ambient + heat + r.normal(0, 0.3, (n, m)), vibration, current


def write(path: Path, *, machines: int, days: int, seed: int, console: Console) -> None:
    """Write the year as a wide Parquet file in the order of time."""
    plant = Plant(machines, seed, days)
    names = pa.array([f"M-{k:03}" for k in range(machines)])
    schema = pa.schema(
        [("time", pa.timestamp("us", tz="UTC")), ("machine", pa.dictionary(pa.int32(), pa.string()))]
        + [(name, pa.float64()) for name in SENSORS]
    )
    n = DAY_S // 60
    with pq.ParquetWriter(path, schema, compression="zstd", compression_level=1) as out:
        for day in track(range(days), description="writing", console=console, disable=not sys.stderr.isatty()):
            at = (START_S + day * DAY_S + 60 * np.arange(n)) * 1_000_000
            columns = [
                pa.array(np.repeat(at, machines), pa.timestamp("us", tz="UTC")),
                pa.DictionaryArray.from_arrays(np.tile(np.arange(machines, dtype=np.int32), n), names),
                *(pa.array(x.ravel()) for x in plant.day(day)),
            ]
            out.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))


def run(argv: list[str]) -> dict[str, object]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks backtest_year", description=__doc__)
    parser.add_argument("--machines", type=int, default=100)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--core", type=int, help="run on this processor alone (taskset)")
    parser.add_argument("--folder", type=Path, help="keep the file and the report here (default: a temporary folder)")
    args = parser.parse_args(argv)
    console = Console(stderr=True)
    print(__doc__)
    print(f"python {platform.python_version()}, numpy {np.__version__}, pyarrow {pa.__version__}, {os.cpu_count()} cores, seed {args.seed}, load {os.getloadavg()[0]:.1f}\n")  # fmt: skip
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        file = folder / f"year-{args.machines}-{args.days}-{args.seed}.parquet"
        if not file.exists():
            write(file, machines=args.machines, days=args.days, seed=args.seed, console=console)
        report, result = folder / "year.html", folder / "year.json"
        command = [str(Path(sys.executable).with_name("fettle")), "backtest", str(file), "--baseline", "14d", "--report", str(report), "--out", str(result)]  # fmt: skip
        if args.core is not None:
            command = ["taskset", "-c", str(args.core), *command]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        began = time.perf_counter()
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        wall_s = time.perf_counter() - began
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        samples = args.machines * args.days * DAY_S // 60 * len(SENSORS)
        findings = len(json.loads(result.read_text(encoding="utf-8"))["tickets"])
        size = file.stat().st_size
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(done.stdout[-1500:])
    rate = samples / wall_s
    peak_mb = after.ru_maxrss / 1024
    print(f"{samples:,} samples ({size / 1e6:,.0f} MB) in {wall_s:.1f} s, {cpu_s:.1f} s of processor: {rate:,.0f} a second, goal 530,000; {findings} findings; most memory {peak_mb:,.0f} MB")  # fmt: skip
    return {
        "benchmark": "backtest_year",
        "machines": args.machines,
        "days": args.days,
        "samples": samples,
        "wall_s": round(wall_s, 1),
        "cpu_s": round(cpu_s, 1),
        "samples_per_s": round(rate),
        "goal_samples_per_s": 530_000,
        "peak_mb": round(peak_mb),
        "findings": findings,
        "seed": args.seed,
    }
