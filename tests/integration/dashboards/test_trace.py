"""A trace is bounded, right, and complete where rollups lag."""

from datetime import UTC, datetime, timedelta

import numpy as np
import psycopg
import pytest

from fettle.db import DatabaseRole, connect_sync

END = datetime(2026, 11, 20, tzinfo=UTC)
PERIOD_S = 30
DAYS = 3


@pytest.fixture
def sensor(database):
    """One machine with one sensor, three days of a ramp, and the tenant's connection."""
    with psycopg.connect(database.url, autocommit=True) as conn:
        conn.execute("SELECT set_config('fettle.tenant', '1', false)")
        conn.execute("INSERT INTO site (tenant_id, code, name) VALUES (1, 's', 's')")
        conn.execute("INSERT INTO machine (tenant_id, site_id, number, name) VALUES (1, 1, 'm', 'm')")
        conn.execute("INSERT INTO sensor (tenant_id, machine_id, name, kind) VALUES (1, 1, 'v', 'temperature')")
        conn.execute("SELECT ensure_reading_partitions(%s, %s)", (END - timedelta(days=DAYS), END))
        conn.execute(
            """INSERT INTO reading (sensor_id, quality, flags, ts, value)
               SELECT 1, 192, 0, t.ts, extract(epoch FROM t.ts - %(start)s)
               FROM generate_series(%(start)s, %(end)s - interval '1 s', %(period)s * interval '1 s') AS t (ts)""",
            {"start": END - timedelta(days=DAYS), "end": END, "period": PERIOD_S},
        )
    with connect_sync(database.url, role=DatabaseRole.API, name="test") as conn:
        conn.execute("SELECT set_config('fettle.tenant', '1', false)")
        yield conn, database


def trace(conn, span, points=1200, end=END):
    rows = conn.execute(
        "SELECT at, mean, low, high FROM report.trace(1, %s, %s, %s) ORDER BY at", (end - span, end, points)
    ).fetchall()
    return [(at, float(mean), float(low), float(high)) for at, mean, low, high in rows]


def roll(database, *, until):
    """Fill the rollups as the job does, up to `until`; later hours are left dirty."""
    if database.storage == "timescale":
        with psycopg.connect(database.url, autocommit=True) as conn:
            for name in ("reading_1m", "reading_1h"):
                conn.execute("CALL refresh_continuous_aggregate(%s, NULL, %s)", (name, until))
        return
    with psycopg.connect(database.url, autocommit=True) as conn:
        for table, width in (("reading_1m", "1 min"), ("reading_1h", "1 hour")):
            conn.execute(
                f"""INSERT INTO {table} (sensor_id, bucket, n, total, low, high, sum_of_squares)
                    SELECT sensor_id, date_bin('{width}', ts, '2000-01-03 00:00+00'), count(value), sum(value), min(value), max(value),
                        sum(value * value) FROM reading WHERE ts < %s GROUP BY 1, 2""",
                (until,),
            )
        conn.execute("INSERT INTO collector (name, last_number) VALUES ('c', 2)")
        conn.execute("INSERT INTO rollup_position SELECT id, 1 FROM collector")
        conn.execute(
            """INSERT INTO batch (collector_id, number, first_ts, last_ts)
               SELECT id, 1, %(start)s, %(until)s FROM collector UNION ALL SELECT id, 2, %(until)s, %(end)s FROM collector""",
            {"start": END - timedelta(days=DAYS), "until": until, "end": END},
        )


@pytest.mark.parametrize("hours", [1, 24, 72])
@pytest.mark.parametrize("rolled_h", [None, 0, 5])
def test_the_trace_is_the_average_of_the_readings(sensor, hours, rolled_h):
    """Rollups absent, complete, or five hours behind: the same trace."""
    conn, database = sensor
    if rolled_h is not None:
        roll(database, until=END - timedelta(hours=rolled_h))
    span = timedelta(hours=hours)
    points = 200
    rows = trace(conn, span, points)
    step = conn.execute("SELECT report.trace_step(%s, %s, %s)", (END - span, END, points)).fetchone()[0]
    size = step.total_seconds()
    seconds = np.arange(0, DAYS * 86400, PERIOD_S, dtype=float)
    epoch = (END - timedelta(days=DAYS) - datetime(2000, 1, 3, tzinfo=UTC)).total_seconds()
    bins = np.floor((seconds + epoch) / size)
    first = np.floor((epoch + DAYS * 86400 - span.total_seconds()) / size)
    wanted = [seconds[bins == one] for one in np.unique(bins[bins >= first])]
    assert len(rows) == len(wanted) <= points + 1
    np.testing.assert_allclose([row[1] for row in rows], [one.mean() for one in wanted])
    np.testing.assert_allclose([row[2] for row in rows], [one.min() for one in wanted])
    np.testing.assert_allclose([row[3] for row in rows], [one.max() for one in wanted])


def test_points_are_bounded_whatever_is_asked(sensor):
    conn, _ = sensor
    for hours in (1, 10, 100, 24 * 400):
        for points in (10, 500, 1200):
            assert len(trace(conn, timedelta(hours=hours), points)) <= points + 1


def test_without_a_tenant_there_is_no_trace(sensor):
    conn, _ = sensor
    conn.execute("SELECT set_config('fettle.tenant', '', false)")
    assert trace(conn, timedelta(hours=1)) == []


def test_a_short_trace_uses_the_key_and_not_the_whole_table(sensor):
    conn, _ = sensor
    plan = "\n".join(
        line for (line,) in conn.execute(
            "EXPLAIN SELECT at, value FROM report.reading WHERE sensor_id = 1 AND at >= %s AND at < %s", (END - timedelta(hours=1), END)
        )
    )  # fmt: skip
    assert "Seq Scan on reading" not in plan, plan
    assert "Seq Scan on _hyper" not in plan, plan


def test_the_newest_value_is_found_from_the_end_of_the_key(sensor):
    conn, _ = sensor
    plan = "\n".join(line for (line,) in conn.execute("EXPLAIN SELECT at FROM report.sensor_latest"))
    assert "Limit" in plan
    assert "Seq Scan on reading_" not in plan, plan


def test_where_no_rollup_lags_a_long_trace_reads_no_raw_readings(sensor):
    conn, database = sensor
    roll(database, until=END)
    if database.storage == "plain":
        with psycopg.connect(database.url) as owner:
            owner.execute("UPDATE rollup_position SET number = 2")

    def read():
        conn.execute("SELECT pg_stat_force_next_flush()")
        with psycopg.connect(database.url) as owner:
            return owner.execute(
                """SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::int FROM pg_stat_user_tables
                   WHERE relname ~ '^(reading_[0-9]{8}|_hyper_1_[0-9]+_chunk)$'"""
            ).fetchone()[0]

    before = read()
    for _ in range(8):  # the plans of a function are made for its parameters at first, and later for any
        assert trace(conn, timedelta(days=DAYS), 100)
    assert read() == before
