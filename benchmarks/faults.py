"""Kill -9 the collector, the database and the broker at random under load, and account for every message.

A publisher sends numbered readings at QoS 1 and logs every PUBACK the broker gives it: from then on that reading must not
be lost, stored twice, or altered. At random moments a process is killed and started again. At the end every acknowledged
reading must be in the database exactly once, and nothing that was never sent.

The collector and the database are killed at any moment. Mosquitto keeps its queue in memory and writes it to disk
periodically, so what it acknowledged since its last write is lost by a kill whoever reads from it: before a kill it is
told to write, and what it acknowledges between that moment and its death is accounted for separately, as its own.
"""

import argparse
import os
import platform
import random
import tempfile
import time
from pathlib import Path

import psycopg
from rich.console import Console
from rich.progress import Progress

from benchmarks.corpus import versions
from benchmarks.fault_check import Excuses, Verdict, check, count_stored, read_stored
from benchmarks.fault_plant import CollectorProcess, Mosquitto, Postgres, Publisher
from fettle import clock, embedded
from fettle.migrate import migrate


def run(argv: list[str]) -> dict[str, object]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--rate", type=float, default=4000.0, help="messages a second")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--storage", choices=("plain", "timescale"), default="plain")
    parser.add_argument("--spool", action="store_true", help="run the collector with its spool")
    parser.add_argument("--only", choices=("collector", "database", "broker"), help="kill this alone")
    parser.add_argument("--quick", action="store_true", help="six kills: does it run at all")
    parser.add_argument("--keep", type=Path, help="keep data and logs in this folder")
    args = parser.parse_args(argv)
    kills = 6 if args.quick else args.kills
    if embedded.mosquitto_program() is None:
        raise SystemExit("the fault benchmark needs Mosquitto (Debian package: mosquitto)")
    rng = random.Random(args.seed)
    console = Console(stderr=True)
    print(__doc__)
    print(
        f"python {platform.python_version()}, {versions('psycopg', 'numpy', 'mqtt5')}, {os.cpu_count()} cores, "
        f"load {os.getloadavg()[0]:.1f}, seed {args.seed}, {args.rate:g} messages a second, storage {args.storage}, "
        f"{'spool' if args.spool else 'hold'}\n"
    )
    with tempfile.TemporaryDirectory(prefix="fettle-faults-") as temporary:
        folder = args.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        database = Postgres(folder / "postgres", embedded.free_port(), timescale=args.storage == "timescale")
        broker = Mosquitto(folder / "broker", embedded.free_port())
        settings = {"FETTLE_COLLECTOR_SPOOL": "spool"} if args.spool else {}
        collector = CollectorProcess(folder, database.url, broker.port, **settings)
        database.start()
        broker.start()
        try:
            migrate(database.url, storage=args.storage, tenant="default")
            verdict, counts = _torment(args, kills, rng, database, broker, collector, console)
        finally:
            collector.stop()
            broker.stop()
            database.stop()
    print(f"killed: {', '.join(f'{name} {n}' for name, n in counts.items())}")
    print(f"{'acknowledged to the publisher':48}{verdict.acknowledged:>10}")
    print(f"{'rows stored':48}{verdict.stored:>10}")
    print(f"{'missing':48}{len(verdict.missing):>10}   {verdict.missing[:10] or ''}")
    print(f"{'stored twice':48}{verdict.duplicates:>10}")
    print(f"{'never sent':48}{verdict.phantoms:>10}")
    print(f"{'under another sensor or time':48}{verdict.altered:>10}")
    print(
        f"{'acknowledged by Mosquitto before its death':48}{verdict.excused:>10}   of which it lost {verdict.lost_by_broker}"
    )
    return {
        "acknowledged": verdict.acknowledged,
        "stored": verdict.stored,
        "missing": len(verdict.missing),
        "duplicates": verdict.duplicates,
        "phantoms": verdict.phantoms,
        "altered": verdict.altered,
        "kills": sum(counts.values()),
    }


def _torment(
    args: argparse.Namespace,
    kills: int,
    rng: random.Random,
    database: Postgres,
    broker: Mosquitto,
    collector: CollectorProcess,
    console: Console,
) -> tuple[Verdict, dict[str, int]]:
    publisher = Publisher(broker.port, rate=args.rate, start_ms=clock.now_us() // 1000 - 3_600_000)
    excuses = Excuses()
    counts = {"collector": 0, "database": 0, "broker": 0}
    collector.start()
    _wait(lambda: "broker.subscribed" in collector.log_tail(50), 30, collector)
    publisher.start()
    with Progress(console=console) as bar:
        task = bar.add_task("killing", total=kills)
        for _ in range(kills):
            if rng.random() < 0.7:  # mostly once it works again, sometimes in the middle of its start
                before = count_stored(database.url)
                _wait(lambda before=before: count_stored(database.url) > before, 60, collector)
            time.sleep(rng.expovariate(1 / 0.3))
            victim = args.only or rng.choices(("collector", "database", "broker"), (0.7, 0.15, 0.15))[0]
            counts[victim] += 1
            if victim == "collector":
                collector.kill()
                time.sleep(rng.random() * 0.2)
                collector.start()
            elif victim == "database":
                database.kill()
                time.sleep(rng.random())
                database.start()
            else:
                saved_at = broker.save()
                time.sleep(rng.random() * 0.05)
                broker.kill()
                excuses.spans.append((saved_at, time.perf_counter()))
                time.sleep(rng.random() * 0.5)
                broker.start()
            if not collector.is_running:  # as a supervisor would
                collector.start()
            bar.advance(task)
    publisher.finish.set()
    publisher.join(60)
    if publisher.is_alive():
        raise SystemExit("the broker did not acknowledge what was published")
    _settle(database.url, publisher)
    print(f"the collector stopped within {collector.stop():.1f} s of being asked")
    stored = read_stored(database.url)
    with psycopg.connect(database.url) as conn:
        ledger = conn.execute("SELECT coalesce(sum(stored), 0)::bigint, coalesce(sum(duplicates), 0)::bigint FROM batch").fetchone()  # fmt: skip
        refused = conn.execute("SELECT count(*) FROM rejected_message").fetchone()
    assert ledger is not None
    assert refused is not None
    print(f"ledger: {ledger[0]} stored, {ledger[1]} recognised as redelivered; {refused[0]} messages refused")
    return check(publisher.obligations, stored, excuses), counts


def _wait(condition: object, seconds: float, collector: CollectorProcess) -> None:
    deadline = time.perf_counter() + seconds
    assert callable(condition)
    while not condition():
        if time.perf_counter() > deadline:
            raise SystemExit(
                f"no progress within {seconds:g} s; the collector's log ends with:\n{collector.log_tail()}"
            )
        if not collector.is_running:
            collector.start()
        time.sleep(0.05)


def _settle(url: str, publisher: Publisher) -> None:
    """Wait until everything has arrived, or nothing more does."""
    last, since = -2, time.perf_counter()
    while time.perf_counter() - since < 10:
        now = count_stored(url)
        if now >= len(publisher.obligations.acknowledged_at):
            time.sleep(1)
            return
        if now != last:
            last, since = now, time.perf_counter()
        time.sleep(0.2)
