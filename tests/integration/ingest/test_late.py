"""Readings that come late, into partitions and chunks long closed and compressed, are stored and reach the rollups."""

import numpy as np
import psycopg
import pytest

from fettle import clock
from fettle.model import Flag
from fettle.wire import READING_DTYPE
from ingest.api import bulk_writer, roll_up_all

DAY_US = 86_400_000_000
N = 5000


@pytest.fixture
def history(settings_for):
    """Store readings of five sensors, thirty days old; `shift_us` moves their times, `value` is theirs."""
    start = clock.now_us() // DAY_US * DAY_US - 30 * DAY_US

    def store(database, *, shift_us=0, value=1.0, keep="first"):
        settings = settings_for(collector_duplicate_policy=keep)
        with bulk_writer(settings, url=database.url, name="late") as writer:
            ids = writer.sensors("default", [("s1", f"m{i}", "v", "A") for i in range(5)])
            rows = np.zeros(N, dtype=READING_DTYPE)
            rows["sensor_id"], rows["quality"], rows["value"] = np.resize(ids, N), 192, value
            rows["ts"] = start + np.arange(N) // 5 * 10_000_000 + shift_us
            writer.store(rows)
            return writer.stored, writer.duplicates, writer.collisions

    return store


def _compress(database, *, limit):
    """Compress every chunk, and let a transaction decompress next to nothing."""
    if database.storage != "timescale":
        return
    name = psycopg.conninfo.conninfo_to_dict(database.url)["dbname"]
    with psycopg.connect(database.url, autocommit=True) as conn:
        conn.execute("SELECT compress_chunk(c) FROM show_chunks('reading') AS c")
        conn.execute(f"ALTER DATABASE {name} SET timescaledb.max_tuples_decompressed_per_dml_transaction = {limit}")


def _refresh(database):
    if database.storage == "timescale":
        with psycopg.connect(database.url, autocommit=True) as conn:
            for view in ("reading_1m", "reading_1h", "reading_1d"):
                conn.execute(f"CALL refresh_continuous_aggregate('{view}', NULL, NULL)")
    else:
        roll_up_all(database.url)


def test_new_keys_among_compressed_ones_are_stored_and_rolled_up(database, history, rows):
    assert history(database) == (N, 0, 0)
    _refresh(database)
    _compress(database, limit=10)
    assert history(database, shift_us=1_000_000) == (N, 0, 0)
    _refresh(database)
    assert rows(database, "SELECT count(*) FROM reading") == [(2 * N,)]
    assert rows(database, "SELECT sum(n)::int FROM reading_1d") == [(2 * N,)]


def test_duplicates_of_compressed_readings_are_recognised(database, history, rows):
    history(database)
    _compress(database, limit=10)
    assert history(database) == (0, N, 0)
    assert history(database, value=2.0) == (0, 0, N)
    assert rows(database, "SELECT count(*), min(value), max(value) FROM reading") == [(N, 1.0, 1.0)]


def test_corrections_of_compressed_readings_go_beyond_the_limit_of_one_transaction(database, history, rows):
    history(database)
    _compress(database, limit=10)
    assert history(database, value=2.0, keep="last") == (0, 0, N)
    assert rows(database, "SELECT count(*), min(value), max(value) FROM reading") == [(N, 2.0, 2.0)]


async def test_late_messages_are_flagged_and_counted(database, mosquitto, collecting, publish, reading, rows):
    async with collecting(database, mosquitto) as running:
        await publish(mosquitto, [("fettle/default/s1/m1/v", reading(i, ago_s=i * 3600)) for i in range(5)])
        await running.settle(5)
        assert running.collector.counters.late == 4
    assert rows(database, f"SELECT count(*) FROM reading WHERE flags & {int(Flag.LATE)} <> 0") == [(4,)]
