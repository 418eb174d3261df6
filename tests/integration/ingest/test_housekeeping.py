"""Rollups say what the readings say, retention keeps what the settings keep, and both are done by whoever comes first."""

from datetime import datetime, timedelta, timezone

import numpy as np
import psycopg
import pytest

from fettle import clock
from fettle.db import DatabaseRole, connect_sync
from fettle.wire import READING_DTYPE
from ingest.api import bulk_writer
from ingest.housekeeping import apply_policies, clean_up, roll_up_all
from ingest.rollup import roll_up

ROLLED = """
    SELECT sensor_id, bucket, n, round(total::numeric, 6), low, high, round(sum_of_squares::numeric, 6)
    FROM {table} ORDER BY 1, 2
"""
TRUE = """
    SELECT sensor_id, date_bin('{width}', ts, timestamptz '2000-01-01'), count(value)::int, round(sum(value)::numeric, 6), min(value),
        max(value), round(sum(value * value)::numeric, 6)
    FROM reading GROUP BY 1, 2 ORDER BY 1, 2
"""
TABLES = {"reading_1m": "1 minute", "reading_1h": "1 hour", "reading_1d": "1 day"}


@pytest.fixture
def store(settings_for):
    """Store values of a few sensors; `at` in seconds before now."""

    def write(database, at_s, values, *, name="history"):
        with bulk_writer(settings_for(), url=database.url, name=name) as writer:
            ids = writer.sensors("default", [("s1", f"m{i}", "v", "A") for i in range(3)])
            rows = np.zeros(len(at_s), dtype=READING_DTYPE)
            rows["sensor_id"] = np.resize(ids, len(at_s))
            rows["ts"] = clock.now_us() // 60_000_000 * 60_000_000 - (np.asarray(at_s) * 1e6).astype(np.int64)
            rows["value"] = values
            writer.store(rows)

    return write


def _agree(database, rows):
    for table, width in TABLES.items():
        assert rows(database, ROLLED.format(table=table)) == rows(database, TRUE.format(width=width)), table


def test_rollups_say_what_the_readings_say(database, store, rows):
    rng = np.random.default_rng(1)
    values = rng.normal(size=4000)
    values[::97] = np.nan
    store(database, np.arange(4000) * 37.0, values)
    roll_up_all(database.url)
    _agree(database, rows)


def test_late_and_repeated_readings_reach_the_rollups_once(database, store, rows):
    store(database, np.arange(600) * 60.0, np.arange(600.0))
    roll_up_all(database.url)
    late = np.arange(300) * 120.0 + 7
    store(database, late, np.full(300, 5.0), name="other")
    store(database, late, np.full(300, 5.0), name="third")  # stored already: changes nothing
    roll_up_all(database.url)
    _agree(database, rows)


def test_a_batch_without_its_payload_is_rolled_up_from_its_span(plain_database, store, rows):
    store(plain_database, np.arange(500) * 61.0, np.arange(500.0))
    with psycopg.connect(plain_database.url) as conn:
        conn.execute("UPDATE batch SET payload = NULL")
    assert roll_up_all(plain_database.url) > 0
    _agree(plain_database, rows)


def test_a_rollup_that_is_interrupted_is_done_again(plain_database, store, rows):
    store(plain_database, np.arange(500) * 61.0, np.arange(500.0))
    with connect_sync(plain_database.url, role=DatabaseRole.WORKER, name="test") as conn:
        with pytest.raises(ZeroDivisionError), conn.transaction():
            roll_up(conn)
            _ = 1 / 0
        assert conn.execute("SELECT count(*) FROM reading_1m").fetchone() == (0,)
    roll_up_all(plain_database.url)
    _agree(plain_database, rows)


def test_only_one_process_rolls_up_at_a_time(plain_database, store):
    store(plain_database, [0.0], [1.0])
    with (
        connect_sync(plain_database.url, role=DatabaseRole.WORKER, name="one") as one,
        connect_sync(plain_database.url, role=DatabaseRole.WORKER, name="two") as two,
        one.transaction(),
    ):
        assert roll_up(one) == 1
        assert roll_up(two) is None


def test_old_batches_partitions_and_messages_go_and_the_rest_stays(plain_database, store, settings_for, rows):
    now = datetime.now(timezone.utc)  # noqa: UP017, TID251 -- the edge of the test
    day_s = 86_400.0
    store(plain_database, [200 * day_s, 3 * day_s, 1.0], [1.0, 2.0, 3.0])
    store(plain_database, [0.0], [4.0])
    roll_up_all(plain_database.url)
    with psycopg.connect(plain_database.url) as conn:
        conn.execute("UPDATE batch SET committed_at = now() - interval '3 days'")
        conn.execute("INSERT INTO rejected_message (received_at, topic, payload, reason) VALUES (now() - interval '31 days', 't', 'p', 'r'), (now(), 't', 'p', 'r')")  # fmt: skip
    cleaned = clean_up(settings_for(reading_days=100), url=plain_database.url, now=now)
    assert (cleaned.batches, cleaned.rejected, cleaned.partitions) == (1, 1, 1)
    assert rows(plain_database, "SELECT value FROM reading ORDER BY 1") == [(2.0,), (3.0,), (4.0,)]
    assert rows(plain_database, "SELECT number FROM batch") == [(2,)], "the newest row of a collector stays"
    assert rows(plain_database, "SELECT sum(n) FROM reading_1d") == [(4,)], "rollups outlive the readings"
    ahead = rows(plain_database, "SELECT count(*) FROM pg_inherits WHERE inhparent = 'reading'::regclass")[0][0]
    assert ahead >= 3
    assert clean_up(settings_for(reading_days=100), url=plain_database.url, now=now + timedelta(seconds=1)).batches == 0


def test_policies_follow_the_settings(database, settings_for, rows):
    if database.storage != "timescale":
        pytest.skip("plain PostgreSQL has no policies; clean_up does their work")
    assert len(apply_policies(settings_for(), url=database.url)) == 7, "everything but retention of readings"
    assert apply_policies(settings_for(), url=database.url) == []
    changed = apply_policies(settings_for(reading_days=90, compress_after_days=3), url=database.url)
    assert changed == [
        "policy_compression on reading", "policy_retention on reading", *(f"policy_refresh_continuous_aggregate on {t}" for t in TABLES),
    ]  # fmt: skip
    jobs = dict(rows(database, "SELECT proc_name, config FROM timescaledb_information.jobs WHERE hypertable_name = 'reading'"))  # fmt: skip
    assert jobs["policy_compression"]["compress_after"] == "3 days"
    assert jobs["policy_retention"]["drop_after"] == "90 days"
    assert "policy_retention on reading" in apply_policies(settings_for(compress_after_days=3), url=database.url)
