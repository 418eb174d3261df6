"""A message is acknowledged after its commit, never before, and in order, whatever happens to the database."""

import asyncio
from dataclasses import dataclass

import psycopg
import pytest

from benchmarks.synthetic_broker import Listed, Plant, SyntheticBroker
from fettle import clock
from ingest.store import LeaseLost
from ingest.writer import State


@dataclass
class Address:
    host: str
    port: int


@pytest.fixture
def broker_of():
    """Start a synthetic broker on a source of messages; every acknowledgement must have been in order at the end."""
    started = []

    def start(source, **options):
        broker = SyntheticBroker(source, **options)
        broker.start()
        started.append(broker)
        broker.host = "127.0.0.1"
        return broker

    yield start
    for broker in started:
        broker.stop()
        assert broker.tally.errors == []
        assert broker.tally.acknowledged <= broker.tally.sent


def _plant(messages, **more):
    return Plant(messages, sensors=20, start_ms=clock.now_us() // 1000 - 3_600_000, **more)


async def _until(condition, *, seconds=20.0):
    deadline = clock.monotonic_s() + seconds
    while not condition():
        assert clock.monotonic_s() < deadline, "it did not happen in time"
        await asyncio.sleep(0.01)


async def test_nothing_is_acknowledged_while_the_commit_is_pending(
    plain_database, proxied, broker_of, collecting, rows
):
    proxy, database = proxied(plain_database)
    broker = broker_of(_plant(5000))
    proxy.hold_commits.clear()
    async with collecting(database, broker) as running:
        await running.until(lambda c: c.messages.received >= 1000)
        await _until(lambda: proxy.commits > 0)
        await asyncio.sleep(0.3)
        assert broker.tally.acknowledged == 0
        proxy.hold_commits.set()
        await running.settle(5000)
        await _until(broker.finished.is_set)
    assert rows(plain_database, "SELECT count(*) FROM reading") == [(5000,)]


@pytest.mark.parametrize("took_effect", [True, False])
async def test_a_commit_whose_answer_is_lost_is_looked_up_in_the_ledger(
    database, proxied, broker_of, collecting, rows, took_effect
):
    proxy, through = proxied(database)
    broker = broker_of(_plant(6000))
    async with collecting(through, broker, collector_receive_maximum=500) as running:
        await running.until(lambda c: c.batches > 2)
        if took_effect:
            proxy.cut_after_commit = 2
        else:
            proxy.cut_before_commit = 2
        await running.settle(6000)
        await _until(broker.finished.is_set)
        assert (proxy.cut_before_commit, proxy.cut_after_commit) == (0, 0), "the fault must have struck"
        account = running.collector.counters.readings
        assert (account.done, account.duplicates) == (6000, 0), "what was stored must not be recounted as duplicate"
        assert broker.tally.connections == 1, "the broker's connection has nothing to do with it"
    assert rows(database, "SELECT count(*) FROM reading") == [(6000,)]
    assert rows(database, "SELECT sum(stored), max(number) = count(*) FROM batch") == [(6000, True)]


async def test_an_outage_of_the_database_holds_everything_and_ends_by_itself(
    database, proxied, broker_of, collecting, rows
):
    proxy, through = proxied(database)
    broker = broker_of(_plant(20_000), rate=10_000)
    async with collecting(through, broker, collector_receive_maximum=1000) as running:
        await running.until(lambda c: c.batches > 2)
        proxy.is_down = True
        proxy.cut()
        await _until(lambda: running.collector.writer.status.state is State.HOLDING)
        await asyncio.sleep(0.5)
        held = broker.tally.acknowledged
        await asyncio.sleep(0.5)
        assert broker.tally.acknowledged == held
        assert running.collector.counters.messages.in_flight <= 1000
        proxy.is_down = False
        await running.settle(20_000, seconds=60)
        await _until(broker.finished.is_set)
        assert running.collector.writer.status.state is State.WRITING
    assert rows(database, "SELECT count(*) FROM reading") == [(20_000,)]


async def test_a_cut_connection_to_the_broker_costs_redeliveries_and_nothing_else(
    plain_database, broker_of, collecting, rows
):
    broker = broker_of(_plant(30_000), rate=15_000)
    async with collecting(plain_database, broker) as running:
        for _ in range(4):
            await asyncio.sleep(0.3)
            broker.cut()
        await _until(broker.finished.is_set, seconds=60)
        await running.until(lambda c: not c.messages.in_flight)
        account = running.collector.counters.readings
        assert account.done == 30_000
        assert running.collector.counters.reconnects >= 3
        assert running.collector.counters.sessions_lost == 0
    assert rows(plain_database, "SELECT count(*) FROM reading") == [(30_000,)]


async def test_a_session_that_the_broker_forgot_is_noticed(plain_database, broker_of, collecting, rows):
    broker = broker_of(_plant(4000), rate=4000, keeps_session=False)
    async with collecting(plain_database, broker) as running:
        await running.until(lambda c: c.batches > 2)
        broker.cut()
        await running.until(lambda c: c.sessions_lost == 1)
        await _until(broker.finished.is_set)
    assert rows(plain_database, "SELECT has_session, sessions_lost FROM collector") == [(True, 1)]


async def test_a_storm_of_duplicates_engages_the_conflict_path_and_leaves_it(database, broker_of, collecting, rows):
    broker = broker_of(_plant(8000, repeats=2))
    async with collecting(database, broker, collector_receive_maximum=400) as running:
        await running.settle(8000)
        account = running.collector.counters.readings
        assert (account.done, account.duplicates, account.collisions) == (4000, 4000, 0)
    assert rows(database, "SELECT count(*) FROM reading") == [(4000,)]


async def test_one_bad_row_costs_one_refusal(database, broker_of, collecting, rows):
    with psycopg.connect(database.url) as conn:
        conn.execute("ALTER TABLE reading ADD CONSTRAINT reading_value_check CHECK (value <> 666)")
    at = clock.now_us() // 1000
    pairs = [
        (f"fettle/default/s1/m{i % 10}/v", b'{"ts":%d,"value":%d.0,"unit":"A"}' % (at + i, 666 if i == 1234 else 1))
        for i in range(3000)
    ]
    broker = broker_of(Listed(pairs))
    async with collecting(database, broker) as running:
        await running.settle(3000)
        await _until(broker.finished.is_set)
        assert running.collector.counters.readings.rejected == 1
    assert rows(database, "SELECT count(*) FROM reading") == [(2999,)]
    assert rows(database, "SELECT reason, payload FROM rejected_message") == [("refused_by_database", pairs[1234][1])]


async def test_a_bad_row_is_found_by_halving_where_the_error_does_not_say(database, broker_of, collecting, rows):
    at = clock.now_us() // 1000
    pairs = [
        (f"fettle/default/s1/m{i % 10}/v", b'{"ts":%d,"value":%d.0,"unit":"A"}' % (at + i, 666 if i == 77 else 1))
        for i in range(1000)
    ]
    broker = broker_of(Listed([*pairs[:100][:50], *pairs]))  # duplicates first: the conflict path has no line numbers
    with psycopg.connect(database.url) as conn:
        conn.execute("ALTER TABLE reading ADD CONSTRAINT reading_value_check CHECK (value <> 666)")
    async with collecting(database, broker, collector_receive_maximum=50) as running:
        running.collector.writer.expect_conflicts()
        await running.settle(1050)
        await _until(broker.finished.is_set)
        account = running.collector.counters.readings
        assert (account.done, account.rejected, account.duplicates) == (999, 1, 50)
    assert rows(database, "SELECT count(*) FROM reading") == [(999,)]


async def test_a_fault_of_the_whole_halts_and_refuses_nothing(plain_database, broker_of, collecting, rows):
    with psycopg.connect(plain_database.url) as conn:
        conn.execute("ALTER TABLE reading ADD CONSTRAINT reading_value_check CHECK (value < 0)")
    broker = broker_of(_plant(500))
    async with collecting(plain_database, broker) as running:
        running.collector.writer.options = _patient(running.collector.writer.options)
        await _until(lambda: running.collector.writer.status.state is State.HALTED)
        assert broker.tally.acknowledged == 0
        with psycopg.connect(plain_database.url) as conn:
            conn.execute("ALTER TABLE reading DROP CONSTRAINT reading_value_check")
        await running.settle(500)
    assert rows(plain_database, "SELECT count(*) FROM reading") == [(500,)]
    assert rows(plain_database, "SELECT count(*) FROM rejected_message") == [(0,)]


def _patient(options):
    from dataclasses import replace

    return replace(options, halted_backoff_s=0.2)


async def test_a_privilege_that_is_taken_away_halts_until_it_is_given_back(plain_database, broker_of, collecting, rows):
    with psycopg.connect(plain_database.url) as conn:
        conn.execute("REVOKE INSERT ON reading FROM fettle_worker")
    broker = broker_of(_plant(300))
    async with collecting(plain_database, broker) as running:
        running.collector.writer.options = _patient(running.collector.writer.options)
        await _until(lambda: running.collector.writer.status.state is State.HALTED)
        assert "permission denied" in running.collector.writer.status.reason
        assert broker.tally.acknowledged == 0
        with psycopg.connect(plain_database.url) as conn:
            conn.execute("GRANT INSERT ON reading TO fettle_worker")
        await running.settle(300)
    assert rows(plain_database, "SELECT count(*) FROM reading") == [(300,)]


async def test_a_partition_that_somebody_dropped_is_made_again(plain_database, broker_of, collecting, rows):
    broker = broker_of(_plant(4000), rate=2000)
    async with collecting(plain_database, broker) as running:
        await running.until(lambda c: c.batches > 2)
        with psycopg.connect(plain_database.url) as conn:
            for (name,) in conn.execute("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'reading'::regclass").fetchall():  # fmt: skip
                conn.execute(f"DROP TABLE {name}")
        await running.settle(4000)
        assert running.collector.counters.readings.done == 4000
    assert 0 < rows(plain_database, "SELECT count(*) FROM reading")[0][0] < 4000


async def test_a_lock_on_the_table_delays_and_loses_nothing(plain_database, broker_of, collecting, rows):
    broker = broker_of(_plant(2000), rate=2000)
    async with collecting(plain_database, broker) as running:
        await running.until(lambda c: c.batches > 2)
        with psycopg.connect(plain_database.url) as conn:
            conn.execute("LOCK TABLE reading IN ACCESS EXCLUSIVE MODE")
            await asyncio.sleep(0.5)
        await running.settle(2000)
    assert rows(plain_database, "SELECT count(*) FROM reading") == [(2000,)]


async def test_a_collector_that_was_taken_over_stops_and_stores_nothing_more(
    plain_database, broker_of, collecting, rows
):
    broker = broker_of(_plant(100_000), rate=2000)
    async with collecting(plain_database, broker) as running:
        await running.until(lambda c: c.batches > 2)
        with psycopg.connect(plain_database.url) as conn:
            conn.execute("UPDATE collector SET lease_token = gen_random_uuid()")
        with pytest.raises(LeaseLost):
            await asyncio.wait_for(running.task, 10)
        stored = rows(plain_database, "SELECT count(*) FROM reading")[0][0]
        assert broker.tally.acknowledged <= stored


async def test_a_standby_is_not_written_to(plain_database, broker_of, collecting, rows):
    broker = broker_of(_plant(2000), rate=2000)
    async with collecting(plain_database, broker) as running:
        await running.until(lambda c: c.batches > 2)
        name = psycopg.conninfo.conninfo_to_dict(plain_database.url)["dbname"]
        with psycopg.connect(plain_database.url, autocommit=True) as conn:
            conn.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
            conn.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'fettle-collect%'")  # fmt: skip
        await _until(lambda: running.collector.writer.status.state is State.HOLDING)
        with psycopg.connect(plain_database.url, autocommit=True) as conn:
            conn.execute("SET default_transaction_read_only = off")
            conn.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
        await running.settle(2000, seconds=30)
    assert rows(plain_database, "SELECT count(*) FROM reading") == [(2000,)]


async def test_after_the_word_to_stop_nothing_more_is_taken(
    plain_database, proxied, broker_of, collecting, monkeypatch
):
    """What had come is stored and acknowledged; what had not stays with the broker."""
    proxy, through = proxied(plain_database)
    broker = broker_of(_plant(300_000), rate=15_000)
    async with collecting(through, broker) as running:
        collector = running.collector
        drain, taken = collector._drain, []

        async def watch():
            taken.append(collector.counters.messages.received)
            asyncio.get_running_loop().call_later(0.1, proxy.hold_commits.set)
            await drain()

        monkeypatch.setattr(collector, "_drain", watch)
        await running.until(lambda c: c.batches > 5)
        proxy.hold_commits.clear()
        await _until(lambda: collector._under_way and len(collector.intake.batch) > 200)
        running.stop.set()
        await running.task
        assert collector.counters.messages.received == taken[0]
        assert collector.counters.messages.done == taken[0]
