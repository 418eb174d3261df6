"""Part 2 of the storage benchmark: two ways to keep the order in which readings arrived, against not keeping it."""

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psycopg
from psycopg import sql

from fettle.db import SyncConn
from fettle.wire import READING_DTYPE, ReadingArray
from ingest.batch import encode_copy, to_pg_time

BATCH = 10_000
SENSORS = 1000
VARIANTS = ("key", "ledger", "column")
_START_US = 1_793_577_600_000_000  # 2 November 2026
_ROW = np.dtype(
    [
        ("fields", ">i2"), ("w0", ">i4"), ("sensor_id", ">i4"), ("w1", ">i4"), ("batch", ">i4"), ("w2", ">i4"), ("quality", ">i2"),
        ("w3", ">i4"), ("flags", ">i2"), ("w4", ">i4"), ("ts", ">i8"), ("w5", ">i4"), ("value", ">f8"),
    ]
)  # fmt: skip
_HEAD = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
_COLUMNS = {
    "key": "sensor_id, quality, flags, ts, value",
    "ledger": "sensor_id, quality, flags, ts, value",
    "column": "sensor_id, batch, quality, flags, ts, value",
}


@dataclass
class Cost:
    """What one variant cost, one figure a round."""

    rows_per_s: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)  # of the backend, a row
    wal_bytes: list[float] = field(default_factory=list)
    disk_bytes: list[float] = field(default_factory=list)
    replay_rows_per_s: list[float] = field(default_factory=list)
    catch_up_ms: list[float] = field(default_factory=list)  # the newest ten batches

    def medians(self) -> dict[str, float]:
        return {name: statistics.median(values) for name, values in vars(self).items() if values}


def batches(count: int, *, first: int, seed: int) -> Iterator[ReadingArray]:
    """Yield batches as a collector seals them: ten readings of each of a thousand sensors, sorted by the key."""
    rng = np.random.default_rng(seed)
    for number in range(first, first + count):
        rows = np.zeros(BATCH, dtype=READING_DTYPE)
        rows["sensor_id"] = np.repeat(np.arange(1, SENSORS + 1), BATCH // SENSORS)
        rows["quality"] = 192
        rows["ts"] = _START_US + number * 10_000_000 + np.tile(np.arange(10) * 1_000_000, SENSORS)
        rows["value"] = np.round(rng.normal(50, 5, BATCH), 2)
        yield rows


def prepare(conn: SyncConn, variant: str, *, storage: str) -> None:
    """Make empty tables for one variant, with the key and the index that the product's own have."""
    conn.execute("DROP SCHEMA IF EXISTS bench CASCADE")
    conn.execute("CREATE SCHEMA bench")
    column = "batch int NOT NULL, " if variant == "column" else ""
    conn.execute(
        sql.SQL("""CREATE TABLE bench.reading (sensor_id int NOT NULL, {}quality smallint NOT NULL, flags smallint NOT NULL,
                   ts timestamptz NOT NULL, value float8, PRIMARY KEY (sensor_id, ts))""").format(sql.SQL(column))
    )  # fmt: skip
    if storage == "timescale":
        conn.execute("SELECT create_hypertable('bench.reading', by_range('ts', interval '7 days'), create_default_indexes => false)")  # fmt: skip
    else:
        conn.execute("CREATE INDEX ON bench.reading USING brin (ts)")
    if variant == "column":
        conn.execute("CREATE INDEX reading_batch_idx ON bench.reading USING brin (batch) WITH (autosummarize = on)")
    if variant == "ledger":
        conn.execute("CREATE TABLE bench.batch (number bigint PRIMARY KEY, payload bytea)")
        conn.execute("ALTER TABLE bench.batch ALTER COLUMN payload SET STORAGE EXTERNAL")


def encode_with_batch(rows: ReadingArray, number: int) -> bytes:
    """Return the rows in PostgreSQL's binary COPY format, with their batch's number."""
    out = np.zeros(len(rows), dtype=_ROW)
    out["fields"] = 6
    for name, width in (("w0", 4), ("w1", 4), ("w2", 2), ("w3", 2), ("w4", 8), ("w5", 8)):
        out[name] = width
    out["batch"] = number
    out["ts"] = to_pg_time(rows["ts"])
    for name in ("sensor_id", "quality", "flags", "value"):
        out[name] = rows[name]
    return _HEAD + out.tobytes() + b"\xff\xff"


def run_round(conn: SyncConn, variant: str, cost: Cost, *, storage: str, count: int, seed: int) -> None:
    """Write `count` batches, each with a commit, and read them back in order of arrival."""
    prepare(conn, variant, storage=storage)
    conn.execute("CHECKPOINT")
    given = list(enumerate(batches(count, first=0, seed=seed)))
    encoded = [encode_with_batch(rows, n) if variant == "column" else encode_copy(rows) for n, rows in given]
    copy_into = sql.SQL("COPY bench.reading ({}) FROM STDIN (FORMAT BINARY)").format(sql.SQL(_COLUMNS[variant]))
    wal, cpu, began = _wal(conn), _cpu_s(conn), time.perf_counter()
    for (number, rows), data in zip(given, encoded, strict=True):
        with conn.transaction():
            with conn.cursor().copy(copy_into) as copy:
                copy.write(data)
            if variant == "ledger":
                conn.execute("INSERT INTO bench.batch VALUES (%s, %s)", (number, rows.tobytes()))
    seconds, total = time.perf_counter() - began, count * BATCH
    cost.rows_per_s.append(total / seconds)
    cost.cpu_us.append((_cpu_s(conn) - cpu) / total * 1e6)
    cost.wal_bytes.append((_wal(conn) - wal) / total)
    cost.disk_bytes.append(_disk(conn, storage) / total)
    if variant == "key":
        return
    conn.execute("VACUUM (ANALYZE) bench.reading")  # summarises the index
    began = time.perf_counter()
    assert _replay(conn, variant, 0, count) == total
    cost.replay_rows_per_s.append(total / (time.perf_counter() - began))
    began = time.perf_counter()
    newest = min(10, count)
    assert _replay(conn, variant, count - newest, count) == newest * BATCH
    cost.catch_up_ms.append((time.perf_counter() - began) * 1000)


def _replay(conn: SyncConn, variant: str, low: int, high: int) -> int:
    """Read batches [low, high) in order into arrays, ten at a time, as detection does; return how many readings."""
    total = 0
    for start in range(low, high, 10):
        values = {"low": start, "high": min(start + 10, high)}
        if variant == "ledger":
            found = conn.execute(
                "SELECT payload FROM bench.batch WHERE number >= %(low)s AND number < %(high)s ORDER BY number",
                values,
                binary=True,
            )
            total += sum(len(np.frombuffer(payload, dtype=READING_DTYPE)) for (payload,) in found)
            continue
        query = sql.SQL("""COPY (SELECT sensor_id, batch, quality, flags, ts, value FROM bench.reading
                           WHERE batch >= {} AND batch < {} ORDER BY batch, sensor_id, ts) TO STDOUT (FORMAT BINARY)""")  # fmt: skip
        with conn.cursor().copy(query.format(values["low"], values["high"])) as copy:
            data = b"".join(copy)
        rows = np.frombuffer(data[len(_HEAD) : -2], dtype=_ROW)
        out = np.zeros(len(rows), dtype=READING_DTYPE)
        for name in ("sensor_id", "quality", "flags", "value"):
            out[name] = rows[name]
        out["ts"] = rows["ts"].astype(np.int64) + 946_684_800_000_000
        total += len(out)
    return total


def _wal(conn: SyncConn) -> int:
    row = conn.execute("SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint").fetchone()
    assert row is not None
    return int(row[0])


def _cpu_s(conn: SyncConn) -> float:
    """Return the CPU time of the connection's server process (Linux)."""
    fields = Path(f"/proc/{conn.info.backend_pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


def _disk(conn: SyncConn, storage: str) -> int:
    size = "hypertable_size('bench.reading')" if storage == "timescale" else "pg_total_relation_size('bench.reading')"
    row = conn.execute(sql.SQL("SELECT {} + coalesce(pg_total_relation_size(to_regclass('bench.batch')), 0)").format(sql.SQL(size))).fetchone()  # fmt: skip
    assert row is not None
    return int(row[0])


def measure(url: str, *, storage: str, rounds: int, count: int, seed: int) -> dict[str, Cost]:
    """Run all variants alternately; return their costs."""
    costs = {variant: Cost() for variant in VARIANTS}
    with psycopg.connect(url, autocommit=True) as conn:
        for number in range(rounds):
            for shift in range(len(VARIANTS)):
                variant = VARIANTS[(number + shift) % len(VARIANTS)]
                run_round(conn, variant, costs[variant], storage=storage, count=count, seed=seed + number)
        conn.execute("DROP SCHEMA bench CASCADE")
    return costs


def ratio(costs: dict[str, Cost], variant: str) -> float:
    """Return the write rate of a variant by that of the key alone: the median over rounds."""
    pairs = zip(costs[variant].rows_per_s, costs["key"].rows_per_s, strict=True)
    return statistics.median(ours / plain for ours, plain in pairs)
