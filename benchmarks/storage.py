"""What reading storage costs: recording arrival order, and answering a dashboard from the rollups.

Part 1 compares two ways to record in which order readings arrived, which detection replays: a batch number on every
reading, found again through a BRIN index, and the batch's own bytes in its ledger row. Both store the same batches into
the keyed table; shown are rows per second, write-ahead log and table bytes per reading, and the time to read one batch
back. The runs alternate.

Part 2 fills both back-ends with a simulated plant, brings the rollups up to date, and asks what a dashboard asks, as the
role and through the views that a dashboard uses: a day of one machine by the minute, a month by the hour, everything by
the day. Reported is the 95th percentile over random machines and days, and the plan of the slowest kind.
"""

import argparse
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import psycopg

from benchmarks.corpus import versions
from fettle import clock, embedded
from fettle.db import DatabaseRole, SyncConn, connect_sync
from fettle.migrate import migrate
from fettle.settings import Settings
from fettle.wire import READING_DTYPE, ReadingArray
from ingest.api import bulk_writer, roll_up_all
from ingest.batch import encode_copy

DAY_US = 86_400_000_000


@contextmanager
def _server(folder: Path, *, timescale: bool) -> Iterator[str]:
    options = {"shared_buffers": "512MB", "max_wal_size": "8GB", "checkpoint_timeout": "30min"}
    if timescale:
        options |= {"shared_preload_libraries": "timescaledb", "timescaledb.telemetry_level": "off"}
    binaries = embedded.timescale_binaries() if timescale else None
    with embedded.postgres(folder, binaries=binaries, options=options) as url:
        yield url


# Part 1

_KEYED = "sensor_id int NOT NULL, quality smallint NOT NULL, flags smallint NOT NULL,"
_MAKE = {
    "batch column": f"CREATE TABLE subject ({_KEYED} batch int NOT NULL, ts timestamptz NOT NULL, value float8, PRIMARY KEY (sensor_id, ts)); CREATE INDEX ON subject USING brin (batch) WITH (pages_per_range = 16)",
    "bytes in the ledger": f"CREATE TABLE subject ({_KEYED} ts timestamptz NOT NULL, value float8, PRIMARY KEY (sensor_id, ts))",
}
_BATCH_ROW = np.dtype(
    [
        ("fields", ">i2"), ("w0", ">i4"), ("sensor_id", ">i4"), ("w1", ">i4"), ("quality", ">i2"), ("w2", ">i4"), ("flags", ">i2"),
        ("w3", ">i4"), ("batch", ">i4"), ("w4", ">i4"), ("ts", ">i8"), ("w5", ">i4"), ("value", ">f8"),
    ]
)  # fmt: skip


def _with_batch(rows: ReadingArray, number: int) -> bytes:
    out = np.zeros(len(rows), dtype=_BATCH_ROW)
    out["fields"] = 6
    for width, value in (("w0", 4), ("w1", 2), ("w2", 2), ("w3", 4), ("w4", 8), ("w5", 8)):
        out[width] = value
    for name in ("sensor_id", "quality", "flags", "value"):
        out[name] = rows[name]
    out["ts"] = rows["ts"] - 946_684_800_000_000
    out["batch"] = number
    return b"PGCOPY\n\xff\r\n\x00" + bytes(8) + out.tobytes() + b"\xff\xff"


def _batches(count: int, size: int) -> list[ReadingArray]:
    rng = np.random.default_rng(1)
    start = clock.now_us() - DAY_US
    found = []
    for number in range(count):
        index = np.arange(number * size, (number + 1) * size)
        rows = np.zeros(size, dtype=READING_DTYPE)
        rows["sensor_id"], rows["quality"], rows["ts"] = index % 1000 + 1, 192, start + index // 1000 * 100_000
        rows["value"] = rng.random(size)
        found.append(rows[np.lexsort((rows["ts"], rows["sensor_id"]))])
    return found


def _store(conn: SyncConn, way: str, batches: list[ReadingArray]) -> dict[str, float]:
    conn.execute("DROP TABLE IF EXISTS subject, ledger")
    for statement in _MAKE[way].split(";"):
        conn.execute(statement)
    conn.execute("CREATE TABLE ledger (number int PRIMARY KEY, stored int, payload bytea)")
    conn.execute("ALTER TABLE ledger ALTER COLUMN payload SET STORAGE EXTERNAL")
    conn.execute("CHECKPOINT")
    rows = sum(len(batch) for batch in batches)
    (before,) = conn.execute("SELECT pg_current_wal_lsn()").fetchone() or (None,)
    began = time.perf_counter()
    for number, batch in enumerate(batches):
        with conn.transaction():
            if way == "batch column":
                with conn.cursor().copy("COPY subject FROM STDIN (FORMAT BINARY)") as copy:
                    copy.write(_with_batch(batch, number))
                payload = None
            else:
                with conn.cursor().copy("COPY subject FROM STDIN (FORMAT BINARY)") as copy:
                    copy.write(encode_copy(batch))
                payload = batch.tobytes()
            conn.execute("INSERT INTO ledger VALUES (%s, %s, %s)", (number, len(batch), payload))
    seconds = time.perf_counter() - began
    row = conn.execute("SELECT pg_current_wal_lsn() - %s::pg_lsn, pg_total_relation_size('subject'), pg_total_relation_size('ledger')", (before,)).fetchone()  # fmt: skip
    assert row is not None
    conn.execute("VACUUM subject")  # summarises the BRIN index, as autovacuum would
    query = (
        "SELECT sensor_id, quality, flags, ts, value FROM subject WHERE batch = %s ORDER BY sensor_id, ts"
        if way == "batch column"
        else "SELECT payload FROM ledger WHERE number = %s"
    )
    times = []
    for number in random.Random(1).choices(range(len(batches)), k=20):
        t = time.perf_counter()
        conn.execute(query, (number,), binary=True).fetchall()
        times.append(time.perf_counter() - t)
    return {
        "rows/s": rows / seconds,
        "WAL bytes a reading": float(row[0]) / rows,
        "table bytes a reading": float(row[1]) / rows,
        "ledger bytes a reading": float(row[2]) / rows,
        "ms to read a batch": statistics.median(times) * 1000,
    }


def _compare_arrival(folder: Path, *, rows: int, rounds: int) -> None:
    print("\nPart 1: arrival order")
    with _server(folder / "arrival", timescale=False) as url, psycopg.connect(url, autocommit=True) as conn:
        for size in (500, 10_000):
            batches = _batches(rows // size, size)
            found: dict[str, list[dict[str, float]]] = {way: [] for way in _MAKE}
            for _ in range(rounds):
                for way in _MAKE:
                    found[way].append(_store(conn, way, batches))
            print(f"\n{rows:,} readings in batches of {size:,}, median of {rounds}")
            for name in found["batch column"][0]:
                a, b = (statistics.median(one[name] for one in found[way]) for way in _MAKE)
                print(
                    f"  {name:28}batch column {a:>14,.1f}    bytes in the ledger {b:>14,.1f}    ratio {b / a if a else float('nan'):.2f}"
                )


# Part 2

_QUESTIONS: dict[str, str] = {
    "a day of a machine by the minute": """
        SELECT at, sensor_id, mean, low, high FROM report.reading_1m
        WHERE machine_id = %(machine)s AND at >= %(from)s AND at < %(from)s + interval '1 day' ORDER BY sensor_id, at""",
    "a fortnight of a machine by the hour": """
        SELECT at, sensor_id, mean, low, high FROM report.reading_1h
        WHERE machine_id = %(machine)s AND at >= %(from)s - interval '14 days' AND at < %(from)s ORDER BY sensor_id, at""",
    "a fortnight of every machine by the day": """
        SELECT machine_id, at, avg(mean), min(low), max(high) FROM report.reading_1d
        WHERE at >= %(from)s - interval '14 days' AND at < %(from)s GROUP BY 1, 2 ORDER BY 1, 2""",
}  # fmt: skip


def _fill(url: str, *, days: int, machines: int) -> tuple[int, int]:
    from simulators import api as simulators

    start = clock.now_us() // DAY_US * DAY_US - (days + 1) * DAY_US
    fleet = simulators.Fleet(simulators.load_scenario("quiet-day").with_period(10.0), machines=machines, start_us=start)
    with bulk_writer(Settings(_env_file=None), url=url, name="bench") as writer:
        for series in fleet.generate(start, start + days * DAY_US):
            (sensor,) = writer.sensors(
                "default", [(series.machine.site, series.machine.number, series.signal, series.unit)]
            )
            rows = np.zeros(len(series.times), dtype=READING_DTYPE)
            rows["sensor_id"], rows["quality"] = sensor, 192
            rows["ts"], rows["value"] = series.times, series.values
            writer.store(rows)
        return writer.stored, start


def _ask(url: str, *, start: int, days: int, times: int) -> tuple[float, dict[str, float], str]:
    """Return the p95 over all questions, each one's own, and the plan of the slowest."""
    rng = random.Random(2)
    begin = datetime.fromtimestamp(start / 1e6, tz=UTC)  # with its zone: only then may a barrier view push it down
    taken: dict[str, list[float]] = {name: [] for name in _QUESTIONS}
    with connect_sync(url, role=DatabaseRole.WORKER, name="bench") as conn:
        (tenant,) = conn.execute("SELECT id FROM tenant").fetchone() or (0,)
    with connect_sync(url, role=DatabaseRole.API, name="bench") as conn, conn.transaction():
        conn.execute("SELECT set_config('fettle.tenant', %s, true)", (str(tenant),))
        machines = [m for (m,) in conn.execute("SELECT DISTINCT machine_id FROM report.sensor")]
        values = [{"machine": rng.choice(machines), "from": begin + timedelta(days=rng.randrange(days))} for _ in range(times)]  # fmt: skip
        for one in values:
            for name, question in _QUESTIONS.items():
                t = time.perf_counter()
                conn.execute(question, one).fetchall()
                taken[name].append(time.perf_counter() - t)
        p95 = {name: float(np.quantile(times_, 0.95)) * 1000 for name, times_ in taken.items()}
        slowest = max(p95, key=lambda name: p95[name])
        plan = conn.execute(f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) {_QUESTIONS[slowest]}", values[0]).fetchall()  # fmt: skip
    return max(p95.values()), p95, "\n".join(f"    {line}" for (line,) in plan[:25])


def _roll_timescale(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        for view in ("reading_1m", "reading_1h", "reading_1d"):
            conn.execute(f"CALL refresh_continuous_aggregate('{view}', NULL, NULL)")
        conn.execute("ANALYZE")


def _roll_plain(url: str) -> None:
    roll_up_all(url)
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("VACUUM ANALYZE")


def run(argv: list[str]) -> dict[str, object]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks storage", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small numbers: does it run at all")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args(argv)
    quick: bool = args.quick
    days, machines, times = (2, 4, 10) if quick else (14, 12, 60)
    print(__doc__)
    print(f"python {platform.python_version()}, {versions('psycopg', 'numpy')}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, seed 1")  # fmt: skip
    result: dict[str, object] = {}
    worst = 0.0
    with tempfile.TemporaryDirectory(prefix="fettle-storage-") as temporary:
        folder = Path(temporary)
        _compare_arrival(folder, rows=100_000 if quick else 1_000_000, rounds=1 if quick else args.rounds)
        backs: dict[str, Callable[[str], None]] = {"plain": _roll_plain, "timescale": _roll_timescale}
        for storage, roll in backs.items():
            if storage == "timescale" and embedded.timescale_binaries() is None:
                print("\nTimescaleDB is not installed: left out")
                continue
            print(f"\nPart 2: rollups, {storage}, {machines} machines, {days} days at 10 s")
            with _server(folder / storage, timescale=storage == "timescale") as url:
                migrate(url, storage="timescale" if storage == "timescale" else "plain", tenant="default")
                began = time.perf_counter()
                readings, start = _fill(url, days=days, machines=machines)
                filled = time.perf_counter()
                roll(url)
                rolled = time.perf_counter()
                print(f"  {readings:,} readings stored in {filled - began:.1f} s, rolled up in {rolled - filled:.1f} s")
                p95, each, plan = _ask(url, start=start, days=days, times=times)
            for name, value in each.items():
                print(f"  p95 {name:45}{value:>10.1f} ms")
            print(f"  plan of the slowest:\n{plan}")
            result[f"p95_ms_rollup_{storage}"] = round(p95, 1)
            worst = max(worst, p95)
    return {"p95_ms_rollup": round(worst, 1), **result}
