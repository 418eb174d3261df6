"""Batches reach the fold in the order in which they were committed, whichever collector wrote them."""

import psycopg

from anomaly.store import next_batches
from fettle.db import DatabaseRole, open_pool


async def test_a_long_queue_of_one_collector_comes_before_later_batches_of_another(plain_database):
    with psycopg.connect(plain_database.url, autocommit=True) as conn:
        conn.execute("INSERT INTO collector (name) VALUES ('history'), ('live')")
        for collector, first_minute, count in ((1, 0, 25), (2, 30, 3)):
            conn.execute(
                """INSERT INTO batch (collector_id, number, committed_at)
                   SELECT %s, n, timestamptz '2026-01-01' + make_interval(mins => %s + n) FROM generate_series(1, %s) AS n""",
                (collector, first_minute, count),
            )
    positions: dict[int, int] = {}
    order = []
    async with open_pool(plain_database.url, role=DatabaseRole.WORKER, name="test", size=1) as pool:
        while batches := await next_batches(pool, positions, most=10):
            for batch in batches:
                positions[batch.collector_id] = batch.number
                order.append((batch.collector_id, batch.number))
    assert order == [(1, n) for n in range(1, 26)] + [(2, n) for n in range(1, 4)]
