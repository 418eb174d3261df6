"""The database away for minutes under load, or several collectors with one of them killed: nothing lost, nothing twice.

Outage: a publisher sends numbered readings at QoS 1 through Mosquitto to `fettle collect`; PostgreSQL is stopped for
`--minutes` and started again, while the publisher goes on. In mode `hold` the broker keeps the queue, in mode `spool` the
collector's disk does. Reported are the collector's peak memory, how long after the database's return the backlog is less
than one second of traffic, as a share of the outage, and what the fault benchmark's checker finds at the end: every
acknowledged reading exactly once, under its own sensor and time, and nothing that was never sent.

Scale-out, `--collectors N`: N collectors share the subscription for `--minutes`; nothing is stopped, and with `--kill-one`
one of them is killed (-9) after a third of the time and started again after another third, as a supervisor would, if a slow one.
Reported are deadlocks, as the database counts them, and the checker's findings.
"""

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psycopg
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from benchmarks.corpus import versions
from benchmarks.fault_check import Excuses, Verdict, check, count_stored, read_stored
from benchmarks.fault_plant import CollectorProcess, Mosquitto, Postgres, Publisher
from fettle import clock, embedded
from fettle.migrate import migrate

_WARM_UP_S = 10.0
_COOL_DOWN_S = 10.0


@dataclass
class Plant:
    """What is running."""

    database: Postgres
    broker: Mosquitto
    collectors: list[CollectorProcess]
    publisher: Publisher
    bar: Progress
    peak_mb: float = 0.0
    broker_mb: float = 0.0
    deadlocks: int = 0

    @property
    def owed(self) -> int:
        return len(self.publisher.obligations.acknowledged_at)

    def watch(self, what: str, seconds: float, *, until: Callable[[], bool] = lambda: False) -> float:
        """Go on for so long, or until the condition holds; return how long it was."""
        began = time.perf_counter()
        task = self.bar.add_task(what, total=seconds)
        while (passed := time.perf_counter() - began) < seconds and not until():
            self.peak_mb = max(self.peak_mb, *(collector.peak_mb() for collector in self.collectors))
            self.broker_mb = max(self.broker_mb, self.broker.peak_mb())
            self.bar.update(task, completed=passed, description=f"{what}: {self.owed:,} acknowledged")
            time.sleep(0.25)
        self.bar.update(task, completed=seconds)
        return time.perf_counter() - began

    def is_caught_up(self, most: float) -> bool:
        stored = count_stored(self.database.url)
        return stored >= 0 and self.owed - stored <= most


def run(argv: list[str]) -> dict[str, object]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks outage", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="the outage; with --collectors, the whole run")
    parser.add_argument("--rate", type=float, default=5000.0, help="messages a second")
    parser.add_argument("--mode", choices=("hold", "spool"), default="hold")
    parser.add_argument("--storage", choices=("plain", "timescale"), default="plain")
    parser.add_argument("--collectors", type=int, default=0, metavar="N", help="scale-out instead of an outage")
    parser.add_argument("--kill-one", action="store_true", help="of the collectors, under way")
    parser.add_argument("--keep", type=Path, help="keep data and logs in this folder")
    args = parser.parse_args(argv)
    if args.minutes <= 0 or args.rate <= 0 or args.collectors < 0:
        parser.error("--minutes and --rate must be above zero, and --collectors not below it")
    if embedded.mosquitto_program() is None:
        raise SystemExit("the outage benchmark needs Mosquitto (Debian package: mosquitto)")
    print(__doc__)
    print(
        f"python {platform.python_version()}, {versions('psycopg', 'numpy', 'mqtt5')}, {os.cpu_count()} cores, "
        f"load {os.getloadavg()[0]:.1f}, {args.rate:g} messages a second, storage {args.storage}, {args.mode}\n"
    )
    with tempfile.TemporaryDirectory(prefix="fettle-outage-") as temporary:
        folder = args.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        return _run(args, folder)


def _run(args: argparse.Namespace, folder: Path) -> dict[str, object]:
    database = Postgres(folder / "postgres", embedded.free_port(), timescale=args.storage == "timescale")
    broker = Mosquitto(folder / "broker", embedded.free_port())
    collectors = [_collector(args, folder, database, broker, n) for n in range(args.collectors or 1)]
    minutes = args.minutes * 60
    publisher = Publisher(broker.port, rate=args.rate, start_ms=clock.now_us() // 1000 - 3_600_000)
    database.start()
    broker.start()
    columns = (*Progress.get_default_columns()[:2], TimeElapsedColumn(), TextColumn(""))
    try:
        migrate(database.url, storage=args.storage, tenant="default")
        for collector in collectors:
            collector.start()
            _listen(collector)
        with Progress(*columns, console=Console(stderr=True)) as bar:
            plant = Plant(database, broker, collectors, publisher, bar)
            publisher.start()
            figures = _scale_out(args, plant, minutes) if args.collectors else _outage(args, plant, minutes)
            verdict = _settle(plant)
        stop_s = max(collector.stop() for collector in collectors)
    finally:
        for collector in collectors:
            collector.stop()
        broker.stop()
        database.stop()
    figures |= {
        "acknowledged": verdict.acknowledged,
        "stored": verdict.stored,
        "missing": len(verdict.missing),
        "duplicates": verdict.duplicates,
        "phantoms": verdict.phantoms,
        "altered": verdict.altered,
        "collector_peak_mb": round(plant.peak_mb, 1),
        "broker_peak_mb": round(plant.broker_mb, 1),
        "stop_s": round(stop_s, 2),
    }
    for name, value in figures.items():
        print(f"{name.replace('_', ' '):32}{value!s:>14}")
    return figures


def _collector(
    args: argparse.Namespace, folder: Path, database: Postgres, broker: Mosquitto, n: int
) -> CollectorProcess:
    own = folder / f"collector{n}"
    own.mkdir(exist_ok=True)
    settings = {"FETTLE_COLLECTOR_NAME": f"collector-{n}", "FETTLE_COLLECTOR_SPOOL": args.mode}
    if args.collectors:
        settings["FETTLE_COLLECTOR_SHARED_GROUP"] = "everyone"
    return CollectorProcess(own, database.url, broker.port, **settings)


def _listen(collector: CollectorProcess) -> None:
    """Wait until a collector is subscribed."""
    deadline = time.perf_counter() + 60
    while "broker.subscribed" not in collector.log_tail(50):
        if not collector.is_running or time.perf_counter() > deadline:
            raise SystemExit(f"a collector did not start; its log ends with:\n{collector.log_tail()}")
        time.sleep(0.05)


def _outage(args: argparse.Namespace, plant: Plant, seconds: float) -> dict[str, object]:
    publisher = plant.publisher
    plant.watch("all is well", _WARM_UP_S)
    before = publisher.obligations.sent
    plant.database.stop()
    away_s = plant.watch("database away", seconds)
    backlog = plant.owed - before
    plant.database.start()
    caught_up_s = plant.watch("catching up", 2 * seconds + 60, until=lambda: plant.is_caught_up(args.rate))
    if not plant.is_caught_up(2 * args.rate):
        print(f"not caught up after {caught_up_s:.0f} s")
    plant.watch("all is well again", _COOL_DOWN_S)
    return {
        "mode": args.mode,
        "outage_s": round(away_s, 1),
        "published_a_second": round(publisher.obligations.sent / publisher.runs_for_s),
        "backlog": backlog,
        "catch_up_s": round(caught_up_s, 1),
        "catch_up_share": round(caught_up_s / away_s, 3),
    }


def _scale_out(args: argparse.Namespace, plant: Plant, seconds: float) -> dict[str, object]:
    if args.kill_one:
        victim = plant.collectors[-1]
        plant.watch("all are well", seconds / 3)
        victim.kill()
        plant.watch("one is dead", seconds / 3)
        victim.start()
        plant.watch("it is back", seconds / 3)
    else:
        plant.watch("all are well", seconds)
    return {
        "collectors": len(plant.collectors),
        "killed": int(args.kill_one),
        "published_a_second": round(plant.publisher.obligations.sent / plant.publisher.runs_for_s),
        "deadlocks": _deadlocks(plant),
    }


def _deadlocks(plant: Plant) -> int:
    with psycopg.connect(plant.database.url) as conn:
        row = conn.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()").fetchone()
    logged = sum(collector.log_tail(1_000_000).count("40P01") for collector in plant.collectors)
    return max(int(row[0]) if row else 0, logged)


def _settle(plant: Plant) -> Verdict:
    """Let everything arrive, and check it."""
    publisher = plant.publisher
    publisher.finish.set()
    publisher.join(60)
    if publisher.is_alive():
        raise SystemExit("the broker did not acknowledge what was published")
    last = -1

    def is_still() -> bool:
        nonlocal last
        stored = count_stored(plant.database.url)
        is_the_same, last = stored == last, stored
        time.sleep(2)
        return stored >= plant.owed or is_the_same

    plant.watch("settling", 600, until=is_still)
    return check(publisher.obligations, read_stored(plant.database.url), Excuses())
