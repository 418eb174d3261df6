"""How fast the collector takes messages, against the fastest that the database and the broker allow.

Part 1, the collector alone: a synthetic broker in a process of its own feeds QoS 1 messages of about 60 bytes of JSON; the
baselines are binary COPY of the same rows, as numpy arrays in batches of 10,000, into a table without an index and into
the keyed table `reading` itself, sorted by the key. Baseline and subject alternate; the ratio of each round is taken, and
the median reported. A checkpoint precedes each run. CPU is that of the collector's process, both of its threads.

Part 2, behind a real Mosquitto: a publisher in a process of its own, and one subscriber at a time: our own reader that
acknowledges at once and keeps nothing, paho-mqtt with acknowledgements by hand, a loop over aiomqtt 2, the collector.

Part 3, latency: from the scheduled moment of a message to the COMMIT of its batch (by the database's clock) behind
Mosquitto at half of the rate of part 2; and at saturation, from writing a frame to its PUBACK, fed by the synthetic broker.

Part 4, memory after many messages, and a storm: the same messages again, every one a duplicate.

Part 5, TimescaleDB where installed: bytes before and after compression of a simulated plant.
"""

import argparse
import gc
import itertools
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psycopg

from benchmarks.corpus import versions
from benchmarks.subjects import percentile, publishing, running
from benchmarks.synthetic_broker import Plant, in_process
from fettle import clock, embedded
from fettle.migrate import migrate
from fettle.settings import Settings
from fettle.wire import READING_DTYPE, ReadingArray
from ingest.api import bulk_writer
from ingest.batch import encode_copy

SENSORS = 1000
BATCH = 10_000
_names = itertools.count(1)


def _collector() -> dict[str, Any]:
    """Return the settings of one more collector; each has a name, and so a session and a ledger, of its own."""
    return {
        "collector_name": f"bench-{next(_names)}",
        "collector_receive_maximum": 20_000,
        "collector_future_skew_s": 1e6,
    }


@dataclass
class Table:
    """Results, printed as they come."""

    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, value: float, unit: str) -> float:
        self.values.setdefault(name, []).append(value)
        print(f"{name:60}{value:>14,.2f} {unit}", flush=True)
        return value

    def median(self, name: str) -> float:
        return statistics.median(self.values[name])


def first_ms(messages: int) -> int:
    """Return a first time stamp such that the last one lies in the past."""
    return clock.now_us() // 1000 - (messages // SENSORS + 1) * 100 - 60_000


def _rows(messages: int, *, first_sensor: int) -> Iterator[ReadingArray]:
    """Yield the readings of a plant in batches, sorted by the key as the collector sorts them."""
    start = first_ms(messages)
    rng = np.random.default_rng(1)
    for begin in range(0, messages, BATCH):
        index = np.arange(begin, min(begin + BATCH, messages))
        rows = np.zeros(len(index), dtype=READING_DTYPE)
        rows["sensor_id"] = index % SENSORS + first_sensor
        rows["quality"] = 192
        rows["ts"] = (start + index // SENSORS * 100) * 1000
        rows["value"] = rng.random(len(index))
        yield rows[np.lexsort((rows["ts"], rows["sensor_id"]))]


def copy_rows(url: str, table: str, messages: int, *, first_sensor: int) -> float:
    """Return rows per second of a plain COPY, a transaction per batch."""
    batches = list(_rows(messages, first_sensor=first_sensor))
    with psycopg.connect(url) as conn:
        conn.execute("CHECKPOINT")
        if table == "reading":
            conn.execute("SELECT ensure_reading_partitions(now() - interval '2 days', now() + interval '1 day')")
        conn.commit()
        began = time.perf_counter()
        for rows in batches:
            with conn.cursor().copy(
                f"COPY {table} (sensor_id, quality, flags, ts, value) FROM STDIN (FORMAT BINARY)"
            ) as copy:
                copy.write(encode_copy(rows))
            conn.commit()
        return messages / (time.perf_counter() - began)


def _executemany(url: str, messages: int) -> float:
    rows = next(_rows(messages, first_sensor=5_000_000))
    values = [(int(r["sensor_id"]), 192, 0, np.datetime64(int(r["ts"]), "us").item(), float(r["value"])) for r in rows]
    with psycopg.connect(url) as conn:
        began = time.perf_counter()
        conn.cursor().executemany("INSERT INTO reading (sensor_id, quality, flags, ts, value) VALUES (%s, %s, %s, %s, %s)", values)  # fmt: skip
        conn.commit()
        return len(values) / (time.perf_counter() - began)


def _expect(url: str, collector: dict[str, Any], *, stored: int = 0, duplicates: int = 0) -> None:
    """End the benchmark unless the ledger says so: a collector that refuses everything acknowledges it as well."""
    with psycopg.connect(url) as conn:
        row = conn.execute("SELECT coalesce(sum(stored), 0)::bigint, coalesce(sum(duplicates), 0)::bigint FROM batch JOIN collector AS c ON c.id = collector_id WHERE name = %s", (collector["collector_name"],)).fetchone()  # fmt: skip
    if row != (stored, duplicates):
        raise SystemExit(f"the ledger says (stored, duplicates) = {row}; {(stored, duplicates)} was to be expected")


def _feed(
    url: str, plant: Plant, table: Table, name: str, *, is_storm: bool = False
) -> tuple[float, float, list[float], float]:
    """Feed a collector in bulk; return messages a second, CPU µs a message, delays, peak memory in MB.

    `is_storm`: every message is stored already.
    """
    own = _collector()
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("CHECKPOINT")
    with (
        in_process(plant, starts_paused=True) as broker,
        running("collector", broker.port, url, own) as subject,
    ):
        before = subject.usage()
        began = time.perf_counter()
        broker.go()
        broker.wait(600)
        rate = plant.messages / (time.perf_counter() - began)
        after = subject.usage()
        tally = broker.tally()
    if tally.errors:
        raise SystemExit(f"the broker complains: {tally.errors}")
    _expect(url, own, **{"duplicates" if is_storm else "stored": plant.messages})
    table.add(f"{name}: messages a second", rate, "/s")
    cpu = table.add(f"{name}: CPU of the collector", (after.cpu_s - before.cpu_s) / plant.messages * 1e6, "µs/message")
    return rate, cpu, tally.delays_s, after.peak_mb


@contextmanager
def database(folder: Path, storage: str) -> Iterator[str]:
    timescale = storage == "timescale"
    options = {"shared_buffers": "512MB", "max_wal_size": "8GB", "checkpoint_timeout": "30min", "autovacuum": "off"}
    if timescale:
        options |= {"shared_preload_libraries": "timescaledb", "timescaledb.telemetry_level": "off"}
    binaries = embedded.timescale_binaries() if timescale else None
    with embedded.postgres(folder / storage, binaries=binaries, options=options) as url:
        migrate(url, storage="timescale" if timescale else "plain", tenant="default")
        with psycopg.connect(url) as conn:
            conn.execute(
                "CREATE TABLE unindexed (sensor_id int, quality smallint, flags smallint, ts timestamptz, value float8)"
            )
            row = conn.execute("SHOW server_version").fetchone()
        print(f"PostgreSQL {row[0] if row else '?'}, storage {storage}, fsync on")
        yield url


def _alone(url: str, table: Table, *, messages: int, rounds: int) -> None:
    print(f"\nPart 1: the collector alone, {messages:,} messages a round")
    for n in range(rounds):
        unindexed = table.add("COPY, no index", copy_rows(url, "unindexed", messages, first_sensor=1), "rows/s")
        with psycopg.connect(url) as conn:
            conn.execute("TRUNCATE unindexed")
        keyed = table.add("COPY into reading, sorted", copy_rows(url, "reading", messages, first_sensor=1_000_000 * (n + 1)), "rows/s")  # fmt: skip
        plant = Plant(messages, sensors=SENSORS, start_ms=first_ms(messages) - 86_400_000 * (n + 1))
        rate, cpu, delays, _ = _feed(url, plant, table, "collector")
        table.values.setdefault("cpu", []).append(cpu)
        table.values.setdefault("delays", []).extend(delays)
        table.add("   ratio to COPY, no index", rate / unindexed, "x")
        table.add("   ratio to COPY into reading", rate / keyed, "x")
        storm, _, _, _ = _feed(url, plant, table, "collector, the same again", is_storm=True)
        table.add("   ratio of the storm to the clean rate", storm / rate, "x")
        gc.collect()
    table.add("executemany into reading", _executemany(url, 10_000), "rows/s")


def _behind_mosquitto(url: str, folder: Path, table: Table, *, messages: int, rounds: int) -> float:
    print(f"\nPart 2: behind Mosquitto, {messages:,} messages a run")
    offset = 0
    for _ in range(rounds):
        for name in ("bare", "collector", "paho", "aiomqtt"):
            n = messages if name in {"bare", "collector"} else messages // (2 if name == "paho" else 4)
            offset += 1
            plant = Plant(n, sensors=200, start_ms=first_ms(n) - 86_400_000 * (20 + offset))
            own = _collector()
            arguments = (url, own) if name == "collector" else ()
            with (
                embedded.broker(folder / f"broker{offset}") as broker,
                running(name, broker.port, *arguments) as subject,
                publishing(plant, broker.port) as go,
            ):
                cpu = subject.usage().cpu_s
                began = time.perf_counter()
                go()
                subject.wait(n, timeout_s=300)
                rate = n / (time.perf_counter() - began)
                cpu = subject.usage().cpu_s - cpu
            if name == "collector":
                _expect(url, own, stored=n)
            table.add(f"{name} behind Mosquitto", rate, "/s")
            table.add(f"{name} behind Mosquitto, CPU", cpu / n * 1e6, "µs/message")
    return table.median("collector behind Mosquitto")


def _latency(url: str, folder: Path, table: Table, *, rate: float, seconds: float) -> None:
    print(f"\nPart 3: latency behind Mosquitto at {rate:,.0f} messages a second")
    sensors = max(
        round(rate / 1000), 1
    )  # each sends once a millisecond, so that a time stamp says when its message was due
    rate = sensors * 1000.0
    messages = int(rate * seconds)
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("CHECKPOINT")
    own = _collector()
    with embedded.broker(folder / "latency") as broker, running("collector", broker.port, url, own) as subject:
        start_ms = clock.now_us() // 1000 + 3000
        plant = Plant(messages, sensors=sensors, start_ms=start_ms, period_ms=1)
        with publishing(plant, broker.port, rate=rate, window=20_000) as go:
            time.sleep(max(start_ms / 1000 - clock.now_us() / 1e6, 0))
            go()
            subject.wait(messages, timeout_s=seconds * 5 + 60)
    _expect(url, own, stored=messages)
    delays: list[float] = []
    with psycopg.connect(url) as conn:
        for at, payload in conn.execute("SELECT extract(epoch FROM committed_at), payload FROM batch JOIN collector AS c ON c.id = collector_id WHERE name = %s", (own["collector_name"],)):  # fmt: skip
            ts = np.frombuffer(payload, dtype=READING_DTYPE)["ts"] / 1e6
            delays += (float(at) - ts[ts > start_ms / 1000 - 1]).tolist()
    table.add("p50 from due to committed, half load", percentile(delays, 0.5) * 1000, "ms")
    table.add("p99 from due to committed, half load", percentile(delays, 0.99) * 1000, "ms")


def _compression(folder: Path, table: Table, *, days: int) -> float:
    if embedded.timescale_binaries() is None:
        print("\nPart 5 needs a PostgreSQL with TimescaleDB: left out")
        return float("nan")
    from simulators import api as simulators

    print(f"\nPart 5: compression of {days} days of a simulated plant")
    scenario = simulators.load_scenario("quiet-day").with_period(10.0)
    start = clock.now_us() // 86_400_000_000 * 86_400_000_000 - (days + 30) * 86_400_000_000
    fleet = simulators.Fleet(scenario, machines=12, start_us=start)
    with database(folder, "timescale") as url:
        with bulk_writer(Settings(_env_file=None), url=url, name="bench") as writer:
            for series in fleet.generate(start, start + days * 86_400_000_000):
                (sensor,) = writer.sensors(
                    "default", [(series.machine.site, series.machine.number, series.signal, series.unit)]
                )
                rows = np.zeros(len(series.times), dtype=READING_DTYPE)
                rows["sensor_id"], rows["quality"] = sensor, 192
                rows["ts"], rows["value"] = series.times, series.values
                writer.store(rows)
            table.add("readings", writer.stored, "")
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute("SELECT compress_chunk(c) FROM show_chunks('reading') AS c")
            row = conn.execute("SELECT sum(before_compression_total_bytes), sum(after_compression_total_bytes) FROM hypertable_columnstore_stats('reading')").fetchone()  # fmt: skip
    assert row is not None
    table.add("before, heap and key", float(row[0]) / 1e6, "MB")
    table.add("after", float(row[1]) / 1e6, "MB")
    return float(row[0]) / float(row[1])


def run(argv: list[str]) -> dict[str, object]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks ingest", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small numbers: does it run at all")
    parser.add_argument("--storage", choices=("plain", "timescale"), default="plain")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args(argv)
    quick: bool = args.quick
    rounds = 1 if quick else args.rounds
    messages = 60_000 if quick else 600_000
    print(__doc__)
    print(
        f"python {platform.python_version()}, {versions('psycopg', 'numpy', 'orjson', 'mqtt5', 'paho-mqtt', 'aiomqtt')}, "
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, seed 1"
    )
    table = Table()
    with tempfile.TemporaryDirectory(prefix="fettle-bench-") as temporary:
        folder = Path(temporary)
        with database(folder, args.storage) as url:
            _alone(url, table, messages=messages, rounds=rounds)
            saturated = _behind_mosquitto(url, folder, table, messages=20_000 if quick else 100_000, rounds=rounds)
            _latency(url, folder, table, rate=saturated / 2, seconds=3 if quick else 15)
            many = 200_000 if quick else 5_000_000
            print(f"\nPart 4: memory, {many:,} messages")
            plant = Plant(many, sensors=SENSORS, start_ms=first_ms(many) - 86_400_000 * 200)
            _, _, _, peak = _feed(url, plant, table, "long run")
            table.add("peak memory", peak, "MB")
        compression = _compression(folder, table, days=2 if quick else 7)
    ratio: Callable[[str], float] = lambda other: (  # noqa: E731
        table.median("collector behind Mosquitto") / table.median(f"{other} behind Mosquitto")
    )
    return {
        "ratio_vs_copy_unindexed": round(table.median("   ratio to COPY, no index"), 3),
        "ratio_vs_copy_keyed": round(table.median("   ratio to COPY into reading"), 3),
        "ratio_vs_bare_subscriber": round(ratio("bare"), 3),
        "ratio_vs_paho_manual_ack": round(ratio("paho"), 2),
        "ratio_vs_aiomqtt": round(ratio("aiomqtt"), 2),
        "duplicate_storm_ratio": round(table.median("   ratio of the storm to the clean rate"), 3),
        "cpu_us_per_message_bulk": round(table.median("cpu"), 2),
        "p99_ms_half_load": round(table.median("p99 from due to committed, half load"), 1),
        "p99_ms_saturated": round(percentile(table.values["delays"], 0.99) * 1000, 1),
        "rss_mb": round(peak, 1),
        "compression_ratio": round(compression, 2),
    }
