"""How fast a year of one machine is drawn, what keeping the order of arrival costs, and how well readings compress.

Part 1, rollups: one machine, three sensors, one simulated year, loaded in bulk, rolled up by the product's own means
(`ingest.rollup` on plain PostgreSQL; refreshed continuous aggregates and compressed chunks on TimescaleDB, refreshed as far
as their policies would). A panel, one signal in at most 1500 points, is asked of the views `report.reading_1m`, `_1h` and `_1d`
as the tenant's own login, over ranges that end at random moments, with SQL in literals as Grafana sends it; timed at the
client with all rows fetched. The worst range decides. Beside it: the same panel from raw readings, and `report.trace`, by which
board and Grafana draw all three signals at once.
With one reading a second a year is 95 million rows: `--full`. By default the sampling period is longer, the span is not:
the rollups, which the panels read, are as large as those of the full year; only raw readings are fewer.

Part 2, order of arrival: batches of 10,000 into the keyed table alone; with the batch's bytes in a ledger; with a batch
column on every row, found by BRIN. One commit a batch, variants alternate, medians over rounds.

Part 3, compression: bytes before (with the key's index) and after TimescaleDB's columnstore, on a simulated plant.
"""

import argparse
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import LiteralString

import numpy as np
import psycopg
from psycopg import conninfo, sql
from rich.console import Console
from rich.progress import Progress

from benchmarks import arrival_order
from benchmarks.corpus import versions
from dashboards.api import ensure_login
from fettle import embedded
from fettle.db import DatabaseRole, SyncConn, connect_sync
from fettle.migrate import migrate
from fettle.settings import Settings
from fettle.wire import ReadingArray
from ingest.api import bulk_writer
from ingest.batch import encode_copy
from ingest.rollup import buckets, compute
from ingest.store import as_datetime
from simulators import api as simulators

DAY_US = 86_400_000_000
WEEK_US = 7 * DAY_US
WEEKS = 52
SENSORS = 3
FULL_PERIOD_S = 1
POINTS = 1500
_MINUTE_US = 60_000_000
_CHUNK = 50_000

RANGES = {"1 day": 1, "7 days": 7, "30 days": 30, "90 days": 90, "1 year": 364}
_PANEL: LiteralString = """
SELECT date_bin({step}::interval, r.at, timestamptz '2000-01-03 00:00+00') AS "time", s.name AS metric,
    sum(r.mean * r.n) / sum(r.n) AS value, min(r.low) AS low, max(r.high) AS high
FROM {view} AS r
JOIN report.sensor AS s ON s.sensor_id = r.sensor_id
WHERE r.sensor_id = {sensor} AND r.at >= {from_at} AND r.at < {to_at} AND r.n > 0
GROUP BY 1, 2
ORDER BY 1, 2
"""
_RAW_PANEL: LiteralString = """
SELECT date_bin({step}::interval, r.at, timestamptz '2000-01-03 00:00+00') AS "time", s.name AS metric,
    avg(r.value) AS value, min(r.value) AS low, max(r.value) AS high
FROM report.reading AS r
JOIN report.sensor AS s ON s.sensor_id = r.sensor_id
WHERE r.sensor_id = {sensor} AND r.at >= {from_at} AND r.at < {to_at}
GROUP BY 1, 2
ORDER BY 1, 2
"""
_TRACE: LiteralString = "SELECT at, name, mean, low, high FROM report.trace({machine}, {from_at}, {to_at}, {points})"


@dataclass(frozen=True)
class Question:
    """What a panel asks."""

    machine: int
    sensor: int
    from_at: datetime
    to_at: datetime
    step: timedelta
    points: int = POINTS

    def literals(self) -> dict[str, sql.Literal]:
        return {key: sql.Literal(value) for key, value in vars(self).items()}


def _p95(milliseconds: list[float]) -> float:
    return float(np.quantile(milliseconds, 0.95))


@dataclass
class Panels:
    """What the panels of one storage took, in milliseconds by range."""

    rows: int = 0
    views: dict[str, list[float]] = field(default_factory=dict)
    trace: dict[str, list[float]] = field(default_factory=dict)
    raw: dict[str, float] = field(default_factory=dict)
    points: dict[str, int] = field(default_factory=dict)
    disk_bytes: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)

    @staticmethod
    def worst(times: dict[str, list[float]]) -> float:
        return max(_p95(found) for found in times.values())


@contextmanager
def server(folder: Path, storage: str) -> Iterator[str]:
    """Run a PostgreSQL with its defaults of durability, migrated for one storage."""
    options = {"max_wal_size": "8GB", "checkpoint_timeout": "15min", "shared_buffers": "512MB"}
    binaries = None
    if storage == "timescale":
        binaries = embedded.timescale_binaries()
        options |= {"shared_preload_libraries": "timescaledb", "timescaledb.telemetry_level": "off"}
    with embedded.postgres(folder / storage, binaries=binaries, options=options) as url:
        assert migrate(url, storage="plain" if storage == "plain" else "timescale", tenant="default").storage == storage
        yield url


def run(argv: list[str]) -> dict[str, object]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks machine_year", description=__doc__)
    parser.add_argument("--rows", type=int, default=6_000_000, help="readings of the machine's year")
    parser.add_argument("--full", action="store_true", help="one reading a second: 95 million; takes 25 GB of disk")
    parser.add_argument("--repeats", type=int, default=40, help="panels asked of each range")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of the order of arrival")
    parser.add_argument("--batches", type=int, default=30, help="batches of 10,000 a round")
    parser.add_argument("--machines", type=int, default=12, help="machines of the plant to compress, for a week")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--storage", choices=("both", "plain", "timescale"), default="both")
    parser.add_argument("--parts", default="123", help="which parts to run")
    parser.add_argument("--folder", type=Path, help="for the data of both servers, instead of a temporary one")
    parser.add_argument("--quick", action="store_true", help="does it run at all: tiny sizes")
    args = parser.parse_args(argv)
    if args.quick:
        args.rows, args.repeats, args.rounds, args.batches, args.machines = 20_000, 2, 1, 2, 2
    storages = [name for name in ("plain", "timescale") if args.storage in {"both", name}]
    if "timescale" in storages and embedded.timescale_binaries() is None:
        print("TimescaleDB is not installed (no timescaledb.control under /usr/share/postgresql): its half is left out")
        storages.remove("timescale")
    print(__doc__)
    print(
        f"python {platform.python_version()}, {versions('psycopg', 'numpy')}, {os.cpu_count()} cores, "
        f"load {os.getloadavg()[0]:.1f}, seed {args.seed}"
    )
    result: dict[str, object] = {}
    panels: dict[str, Panels] = {}
    for storage in storages:
        with (
            tempfile.TemporaryDirectory(prefix="fettle-year-", dir=args.folder) as folder,
            server(Path(folder), storage) as url,
        ):
            _say_version(url, storage)
            if "1" in args.parts:
                panels[storage] = measure_panels(url, storage, args)
            if "2" in args.parts:
                result |= _arrival(url, storage, args)
            if "3" in args.parts and storage == "timescale":
                result |= _compression(url, args)
    for storage, found in panels.items():
        result[f"p95_ms_rollup_{storage}"] = round(Panels.worst(found.views), 1)
        result[f"p95_ms_trace_{storage}"] = round(Panels.worst(found.trace), 1)
        result["rows"] = found.rows
    if panels:
        result["p95_ms_rollup"] = max(round(Panels.worst(found.views), 1) for found in panels.values())
    for key in ("ledger_write_ratio", "batch_column_write_ratio"):
        found_ratios = [value for name, value in result.items() if name.startswith(f"{key}_") and isinstance(value, float)]  # fmt: skip
        if found_ratios:
            result[key] = min(found_ratios)
    return result


def _say_version(url: str, storage: str) -> None:
    with psycopg.connect(url) as conn:
        found = conn.execute("SELECT current_setting('server_version'), (SELECT extversion FROM pg_extension WHERE extname = 'timescaledb')").fetchone()  # fmt: skip
    assert found is not None
    print(f"\n== {storage}: PostgreSQL {found[0]}{f', TimescaleDB {found[1]}' if found[1] else ''}")


# part 1


def measure_panels(url: str, storage: str, args: argparse.Namespace) -> Panels:
    """Load a year, roll it up, and ask for panels."""
    found = Panels()
    wanted = WEEKS * 7 * 86_400 * SENSORS
    period_s = FULL_PERIOD_S if args.full else max(FULL_PERIOD_S, wanted / args.rows)
    scenario = simulators.load_scenario("quiet-day")
    fleet = simulators.Fleet(scenario, seed=args.seed, machines=1, period_us=_even_period(period_s))
    start_us = _year_start_us()
    machine_id, ids = _register(url, fleet)
    began = time.perf_counter()
    found.rows = _load(url, storage, fleet, start_us, ids)
    found.seconds["load, roll up, compress"] = time.perf_counter() - began
    end_us = start_us + WEEKS * WEEK_US
    with connect_sync(url, role=DatabaseRole.OWNER, name="bench") as owner:
        owner.execute("VACUUM (ANALYZE)")
        found.disk_bytes = _reading_bytes(owner, storage)
        ensure_login(owner, tenant="default", password="a password of the benchmark")
        tenant = owner.execute("SELECT id FROM tenant WHERE slug = 'default'").fetchone()
        assert tenant is not None
    print(
        f"\npart 1: {found.rows:,} readings, one each {fleet.period_us / 1e6:g} s ({found.rows / wanted:.0%} of the full year's "
        f"{wanted:,}); loaded, rolled up{' and compressed' if storage == 'timescale' else ''} in "
        f"{found.seconds['load, roll up, compress']:.0f} s; raw readings on disk {found.disk_bytes / found.rows:.1f} bytes each"
    )
    sensors = list(ids.values())
    as_tenant = conninfo.make_conninfo(url, user=f"fettle_tenant_{tenant[0]}")
    with psycopg.connect(as_tenant, autocommit=True, prepare_threshold=None, cursor_factory=psycopg.ClientCursor) as conn:  # fmt: skip
        for name, days in RANGES.items():
            _measure_range(conn, found, name, days, machine_id=machine_id, sensors=sensors, end_us=end_us, args=args)
        _explain(conn, sensors[0], end_us)
    return found


def _year_start_us() -> int:
    return simulators.load_scenario("quiet-day").start_us // WEEK_US * WEEK_US


def _even_period(seconds: float) -> int:
    """Return a period in microseconds of which a quarter of an hour holds a whole number."""
    per_block = max(1, int(900 / seconds))
    while 900_000_000 % per_block:
        per_block -= 1
    return 900_000_000 // per_block


def _register(url: str, fleet: simulators.Fleet) -> tuple[int, dict[simulators.SensorKey, int]]:
    keys = [(m.site, m.number, signal) for m in fleet.machines for signal in fleet.scenario.signals]
    with bulk_writer(Settings(_env_file=None), url=url, name="bench") as writer:
        places = [(*key, simulators.SIGNAL_UNITS[key[2]]) for key in keys]
        ids = dict(zip(keys, writer.sensors("default", places), strict=True))
    with psycopg.connect(url) as conn:
        row = conn.execute("SELECT machine_id FROM sensor WHERE id = %s", (next(iter(ids.values())),)).fetchone()
    assert row is not None
    return int(row[0]), ids


def _load(url: str, storage: str, fleet: simulators.Fleet, start_us: int, ids: dict[simulators.SensorKey, int]) -> int:
    """Write the year week by week, roll each up and, on TimescaleDB, compress all but the newest."""
    total = 0
    with (
        connect_sync(url, role=DatabaseRole.OWNER, name="bench") as conn,
        Progress(console=Console(stderr=True)) as bar,
    ):
        for week in bar.track(range(WEEKS), description=f"a year of readings, {storage}"):
            first, last = start_us + week * WEEK_US, start_us + (week + 1) * WEEK_US
            rows = fleet.readings(first, last, ids)
            conn.execute("SELECT ensure_reading_partitions(%s, %s)", (as_datetime(first), as_datetime(last - 1)))
            _copy(conn, rows)
            total += len(rows)
            if storage == "plain":
                with conn.transaction():
                    compute(conn, buckets(rows["sensor_id"].astype("i8"), rows["ts"], _MINUTE_US))
            else:
                _refresh(conn, "reading_1m", as_datetime(first), as_datetime(last if week < WEEKS - 1 else last - _MINUTE_US))  # fmt: skip
        if storage == "timescale":
            end = as_datetime(start_us + WEEKS * WEEK_US)
            _refresh(conn, "reading_1h", None, end - timedelta(hours=1))
            _refresh(conn, "reading_1d", None, end - timedelta(days=1))
            compress(conn)
    return total


def _refresh(conn: SyncConn, name: str, start: datetime | None, end: datetime) -> None:
    """Refresh in one transaction: by default each ten buckets are one of their own, which takes minutes a year."""
    conn.execute(
        "CALL refresh_continuous_aggregate(%s, %s::timestamptz, %s::timestamptz, options => '{\"buckets_per_batch\": 0}')",
        (name, start, end),
    )


def _copy(conn: SyncConn, rows: ReadingArray) -> None:
    for start in range(0, len(rows), _CHUNK):
        with conn.cursor().copy("COPY reading (sensor_id, quality, flags, ts, value) FROM STDIN (FORMAT BINARY)") as copy:  # fmt: skip
            copy.write(encode_copy(rows[start : start + _CHUNK]))


def compress(conn: SyncConn) -> list[str]:
    """Compress the chunks of `reading` that are not; return their names."""
    found = conn.execute(
        """SELECT format('%I.%I', chunk_schema, chunk_name) FROM timescaledb_information.chunks
           WHERE hypertable_name = 'reading' AND NOT is_compressed ORDER BY range_start"""
    ).fetchall()
    for (chunk,) in found:
        conn.execute("CALL convert_to_columnstore(%s::text::regclass)", (chunk,))
    return [str(chunk) for (chunk,) in found]


def _reading_bytes(conn: SyncConn, storage: str) -> float:
    query: LiteralString = "SELECT hypertable_size('reading')" if storage == "timescale" else "SELECT sum(pg_total_relation_size(inhrelid)) FROM pg_inherits WHERE inhparent = 'reading'::regclass"  # fmt: skip
    row = conn.execute(query).fetchone()
    assert row is not None
    return float(row[0])


def _source(step: timedelta) -> str:
    """Return the view that a panel of this step is read from."""
    if step >= timedelta(days=1):
        return "reading_1d"
    return "reading_1h" if step >= timedelta(hours=1) else "reading_1m"


def _measure_range(
    conn: SyncConn,
    found: Panels,
    name: str,
    days: int,
    *,
    machine_id: int,
    sensors: list[int],
    end_us: int,
    args: argparse.Namespace,
) -> None:
    rng = random.Random(args.seed * 1000 + days)
    span = timedelta(days=days)
    found.views[name], found.trace[name] = [], []
    for turn in range(args.repeats):
        # half of the ranges end now, as most panels do, half of them somewhere in the year
        back_us = 0 if turn % 2 == 0 else rng.randrange(0, max((364 - days) * DAY_US, _MINUTE_US))
        question = _question(conn, machine_id, sensors[turn % SENSORS], as_datetime(end_us - back_us), span)
        view = sql.Identifier("report", _source(question.step))
        taken, count = _ask(conn, sql.SQL(_PANEL).format(view=view, **question.literals()))
        found.views[name].append(taken)
        found.points[name] = max(found.points.get(name, 0), count)
        found.trace[name].append(_ask(conn, sql.SQL(_TRACE).format(**question.literals()))[0])
    if days <= 30 or args.quick:
        question = _question(conn, machine_id, sensors[0], as_datetime(end_us), span)
        found.raw[name] = statistics.median(_ask(conn, sql.SQL(_RAW_PANEL).format(**question.literals()))[0] for _ in range(3))  # fmt: skip
    raw = f"{found.raw[name]:>10.1f} ms" if name in found.raw else "     not asked"
    print(
        f"  {name:8} {found.points[name]:>5} points from {_source(question.step)}: median {statistics.median(found.views[name]):>6.1f} ms, "
        f"p95 {_p95(found.views[name]):>6.1f} ms; report.trace p95 {_p95(found.trace[name]):>6.1f} ms; from raw readings {raw}"
    )


def _question(conn: SyncConn, machine_id: int, sensor_id: int, end: datetime, span: timedelta) -> Question:
    step = conn.execute(
        "SELECT report.trace_step(%(start)s, %(end)s, %(points)s)",
        {"start": end - span, "end": end, "points": POINTS},
    ).fetchone()
    assert step is not None
    return Question(machine_id, sensor_id, end - span, end, step[0])


def _ask(conn: SyncConn, query: sql.Composed) -> tuple[float, int]:
    began = time.perf_counter()
    rows = conn.execute(query).fetchall()
    return (time.perf_counter() - began) * 1000, len(rows)


def _explain(conn: SyncConn, sensor_id: int, end_us: int) -> None:
    question = _question(conn, 0, sensor_id, as_datetime(end_us), timedelta(days=30))
    view = sql.Identifier("report", _source(question.step))
    query = sql.SQL("EXPLAIN (ANALYZE, BUFFERS, TIMING OFF) ") + sql.SQL(_PANEL).format(
        view=view, **question.literals()
    )
    lines = [str(line) for (line,) in conn.execute(query)]
    print(f"\n  plan of 30 days from {_source(question.step)}:")
    shown = lines if len(lines) <= 40 else [*lines[:32], f"… {len(lines) - 36} lines …", *lines[-4:]]
    print("\n".join(f"    {line[:150]}" for line in shown))


# part 2


def _arrival(url: str, storage: str, args: argparse.Namespace) -> dict[str, object]:
    costs = arrival_order.measure(url, storage=storage, rounds=args.rounds, count=args.batches, seed=args.seed)
    key = costs["key"].medians()
    print(f"\npart 2: order of arrival, {args.rounds} rounds of {args.batches} batches of {arrival_order.BATCH:,}")
    print(f"  {'':22}{'rows/s':>10}{'CPU µs/row':>12}{'WAL B/row':>11}{'disk B/row':>12}{'replay rows/s':>15}{'10 newest ms':>14}")  # fmt: skip
    result: dict[str, object] = {}
    for variant, cost in costs.items():
        found = cost.medians()
        print(
            f"  {variant:22}{found['rows_per_s']:>10,.0f}{found['cpu_us']:>12.2f}{found['wal_bytes']:>11.1f}{found['disk_bytes']:>12.1f}"
            f"{found.get('replay_rows_per_s', 0):>15,.0f}{found.get('catch_up_ms', 0):>14.1f}"
        )
        if variant != "key":
            name = "ledger" if variant == "ledger" else "batch_column"
            result[f"{name}_write_ratio_{storage}"] = round(arrival_order.ratio(costs, variant), 3)
            result[f"{name}_wal_ratio_{storage}"] = round(found["wal_bytes"] / key["wal_bytes"], 3)
            result[f"{name}_cpu_ratio_{storage}"] = round(found["cpu_us"] / max(key["cpu_us"], 1e-9), 3)
            result[f"{name}_replay_rows_per_s_{storage}"] = round(found["replay_rows_per_s"])
    return result


# part 3


def _compression(url: str, args: argparse.Namespace) -> dict[str, object]:
    scenario = simulators.load_scenario("month-of-production")
    start_us = _year_start_us() + 2 * WEEKS * WEEK_US  # clear of the year of part 1
    fleet = simulators.Fleet(scenario, seed=args.seed, machines=args.machines, start_us=start_us, period_us=10_000_000)
    _, ids = _register(url, fleet)
    with connect_sync(url, role=DatabaseRole.OWNER, name="bench") as conn:
        rows = fleet.readings(start_us, start_us + (1 if args.quick else 7) * DAY_US, ids)
        rows = rows[rows["ts"].argsort(kind="stable")]  # as they arrive
        _copy(conn, rows)
        found = conn.execute(
            """SELECT sum(before_compression_total_bytes)::float8, sum(after_compression_total_bytes)::float8,
                   sum(before_compression_table_bytes)::float8
               FROM chunk_columnstore_stats('reading') WHERE format('%%I.%%I', chunk_schema, chunk_name) = ANY (%s)""",
            (compress(conn),),
        ).fetchone()
    assert found is not None
    before, after, table = found
    print(
        f"\npart 3: scenario {scenario.name}, {len(fleet.machines)} machines, {len(rows):,} readings each 10 s: {before / len(rows):.1f} bytes a "
        f"reading before ({table / len(rows):.1f} without index), {after / len(rows):.1f} after: {before / after:.1f} times smaller"
    )
    return {"compression_ratio": round(before / after, 2), "compressed_bytes_per_reading": round(after / len(rows), 2)}
