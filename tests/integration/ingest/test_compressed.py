"""Readings that come after their chunk was compressed are stored like any other, and reach the rollups."""

from datetime import timedelta

import numpy as np
import psycopg
import pytest

from fettle import clock
from fettle.wire import READING_DTYPE
from ingest.api import bulk_writer
from ingest.housekeeping import apply_policies

AGO_S = 40 * 86_400
SENSORS, PERIOD_MS, COUNT = 4, 10_000, 500
TRUE = """
    SELECT sensor_id, date_bin('{width}', ts, timestamptz '2000-01-01'), count(value)::int, round(sum(value)::numeric, 6)
    FROM reading GROUP BY 1, 2 ORDER BY 1, 2
"""
ROLLUPS = {"reading_1m": "1 minute", "reading_1h": "1 hour", "reading_1d": "1 day"}


@pytest.fixture
def compressed(database, settings_for):
    """A database whose chunk of forty days ago is compressed, with the policies of the settings."""
    if database.storage != "timescale":
        pytest.skip("plain PostgreSQL compresses nothing")

    def prepare(**more):
        settings = settings_for(**more)
        with bulk_writer(settings, url=database.url, name="history") as writer:
            ids = writer.sensors("default", [("s1", f"m{i}", "v", "mm/s") for i in range(SENSORS)])
            rows = np.zeros(SENSORS * COUNT, dtype=READING_DTYPE)
            rows["sensor_id"], rows["quality"] = np.repeat(ids, COUNT), 192
            start = (clock.now_us() // 1_000_000 - AGO_S) // 3600 * 3600 * 1_000_000
            rows["ts"] = start + np.tile(np.arange(COUNT), SENSORS) * PERIOD_MS * 1000
            rows["value"] = np.tile(np.arange(COUNT), SENSORS)
            writer.store(rows)
        apply_policies(settings, url=database.url)
        with psycopg.connect(database.url, autocommit=True) as conn:
            for name in ROLLUPS:
                conn.execute("CALL refresh_continuous_aggregate(%s, NULL, NULL)", (name,))
            conn.execute(
                "SELECT alter_job(job_id, scheduled => false) FROM timescaledb_information.jobs WHERE job_id >= 1000"
            )
            made = conn.execute("SELECT compress_chunk(c) FROM show_chunks('reading') AS c").fetchall()
            assert made
        return database, start // 1000

    return prepare


def _message(machine, at_ms, value):
    return f"fettle/default/s1/m{machine}/v", b'{"ts":%d,"value":%.1f,"unit":"mm/s"}' % (at_ms, value)


def _refresh(database):
    """Run the jobs that refresh the rollups, as the scheduler would, from the smallest bucket to the largest."""
    with psycopg.connect(database.url, autocommit=True) as conn:
        for name in ROLLUPS:
            (job,) = conn.execute(
                """SELECT j.job_id FROM timescaledb_information.jobs AS j JOIN timescaledb_information.continuous_aggregates AS a
                   ON j.hypertable_name IN (a.view_name, a.materialization_hypertable_name)
                   WHERE a.view_name = %s AND j.proc_name = 'policy_refresh_continuous_aggregate'""",
                (name,),
            ).fetchone()
            conn.execute("CALL run_job(%s)", (job,))


async def test_late_readings_of_a_compressed_chunk_are_stored_and_rolled_up(
    compressed, mosquitto, collecting, publish, rows
):
    database, start_ms = compressed()
    between = [_message(i % SENSORS, start_ms + i * 97 + 1, 9000.0) for i in range(800)]
    again = [_message(m, start_ms + n * PERIOD_MS, float(n)) for m in range(SENSORS) for n in range(0, COUNT, 5)]
    other = [_message(0, start_ms + n * PERIOD_MS, -1.0) for n in range(1, 41)]
    before = rows(database, "SELECT count(*), sum(value) FROM reading")[0]
    async with collecting(database, mosquitto) as running:
        for messages, total in ((between, 800), (again, 1200), (other, 1240)):
            await publish(mosquitto, messages)
            await running.settle(total, seconds=60)
        counted = running.collector.counters.readings
        assert (counted.done, counted.duplicates, counted.collisions) == (800, 400, 40)
        assert not running.collector.writer.status.retries
    assert rows(database, "SELECT count(*), sum(value) FROM reading") == [(before[0] + 800, before[1] + 800 * 9000.0)]
    assert rows(database, "SELECT bool_or(is_compressed) FROM timescaledb_information.chunks WHERE hypertable_name = 'reading'") == [(True,)]  # fmt: skip
    _refresh(database)
    for name, width in ROLLUPS.items():
        materialised = f"SELECT sensor_id, bucket, n, round(total::numeric, 6) FROM {name} ORDER BY 1, 2"
        assert rows(database, materialised) == rows(database, TRUE.format(width=width)), name


async def test_late_corrections_beyond_the_decompression_limit_are_stored(
    compressed, mosquitto, collecting, publish, rows
):
    """Policy `last` has to decompress; the extension's limit is met, lifted for this connection, and nothing is refused."""
    database, start_ms = compressed(collector_duplicate_policy="last")
    with psycopg.connect(database.url, autocommit=True) as conn:
        name = conn.execute("SELECT current_database()").fetchone()[0]
        conn.execute(f"ALTER DATABASE {name} SET timescaledb.max_tuples_decompressed_per_dml_transaction = 10")
    with psycopg.connect(database.url) as conn, pytest.raises(psycopg.errors.ConfigurationLimitExceeded):
        conn.execute("UPDATE reading SET value = -5 WHERE ts < now() - interval '30 days'")
    corrections = [_message(m, start_ms + n * PERIOD_MS, -5.0) for m in range(SENSORS) for n in range(0, COUNT, 10)]
    async with collecting(database, mosquitto, collector_duplicate_policy="last") as running:
        await publish(mosquitto, corrections)
        await running.settle(len(corrections), seconds=60)
        assert running.collector.counters.readings.collisions == len(corrections)
        assert not running.collector.writer.status.retries, "the limit is not an outage"
    assert rows(database, "SELECT count(*) FROM reading WHERE value = -5") == [(len(corrections),)]
    assert rows(database, "SELECT count(*) FROM reading") == [(SENSORS * COUNT,)]
    assert rows(database, "SELECT count(*) FROM rejected_message") == [(0,)]
    _refresh(database)
    for table, width in ROLLUPS.items():
        found = rows(database, f"SELECT sensor_id, bucket, n, round(total::numeric, 6) FROM {table} ORDER BY 1, 2")
        assert found == rows(database, TRUE.format(width=width)), table


async def test_readings_beyond_retention_are_kept_aside(compressed, mosquitto, collecting, publish, rows):
    database, start_ms = compressed(reading_days=41)
    too_late = start_ms - int(timedelta(days=3).total_seconds()) * 1000
    async with collecting(database, mosquitto, reading_days=41) as running:
        await publish(mosquitto, [_message(0, too_late, 1.0), _message(0, start_ms + 5, 2.0)])
        await running.settle(2)
    assert rows(database, "SELECT reason FROM rejected_message") == [("beyond_retention",)]
    assert rows(database, "SELECT count(*) FROM reading WHERE value = 2.0 AND ts = %s::timestamptz", clock_text(start_ms + 5)) == [(1,)]  # fmt: skip


def clock_text(ms):
    return str(np.datetime64(ms, "ms")) + "Z"


def test_a_month_of_late_minutes_is_rolled_up_in_few_transactions(compressed, settings_for, rows):
    """TimescaleDB's own default is a transaction for each ten minutes of the window."""
    database, start_ms = compressed()
    with bulk_writer(settings_for(), url=database.url, name="late") as writer:
        late = np.zeros(30 * 24, dtype=READING_DTYPE)
        late["sensor_id"], late["quality"], late["value"] = 1, 192, 3.0
        late["ts"] = (start_ms + 7 + np.arange(len(late)) * 3_600_000) * 1000
        writer.store(late)
    before = rows(database, "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")[0][0]
    _refresh(database)
    taken = rows(database, "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")[0][0] - before
    assert taken < 1000, "there are 4320 times ten minutes in the span"
    for table, width in ROLLUPS.items():
        found = rows(database, f"SELECT sensor_id, bucket, n, round(total::numeric, 6) FROM {table} ORDER BY 1, 2")
        assert found == rows(database, TRUE.format(width=width)), table
