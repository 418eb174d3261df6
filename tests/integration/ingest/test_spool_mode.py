"""With the spool on, messages are acknowledged while the database is away, and all of them are stored in the end."""

import asyncio

from benchmarks.synthetic_broker import Plant, SyntheticBroker
from fettle import clock


async def _until(condition, *, seconds=30.0):
    deadline = clock.monotonic_s() + seconds
    while not condition():
        assert clock.monotonic_s() < deadline, "it did not happen in time"
        await asyncio.sleep(0.02)


def _broker(messages, rate):
    broker = SyntheticBroker(Plant(messages, sensors=20, start_ms=clock.now_us() // 1000 - 3_600_000), rate=rate)
    broker.host = "127.0.0.1"
    broker.start()
    return broker


async def test_an_outage_goes_to_disk_and_comes_back(database, proxied, collecting, rows):
    proxy, through = proxied(database)
    broker = _broker(24_000, 3000)
    async with collecting(through, broker, collector_spool="spool", collector_receive_maximum=500) as running:
        await running.until(lambda c: c.batches > 2)
        proxy.is_down = True
        proxy.cut()
        await running.until(lambda c: c.messages.spooled > 2000)
        running.collector.counters.check()
        assert broker.tally.acknowledged > running.collector.counters.messages.done + 1000
        proxy.is_down = False
        await _until(broker.finished.is_set)
        await running.until(lambda c: c.messages.done == 24_000)
        account = running.collector.counters.readings
        assert (account.done + account.duplicates, account.spooled) == (24_000, 0)
    broker.stop()
    assert broker.tally.errors == []
    assert rows(database, "SELECT count(*) FROM reading") == [(24_000,)]


async def test_what_one_process_spooled_the_next_one_stores(plain_database, proxied, collecting, rows):
    proxy, through = proxied(plain_database)
    broker = _broker(6000, None)
    proxy.is_down = True
    async with collecting(through, broker, collector_spool="spool", collector_receive_maximum=500) as running:
        await _until(broker.finished.is_set)
        assert running.collector.counters.messages.spooled == 6000
    assert rows(plain_database, "SELECT count(*) FROM reading") == [(0,)]
    proxy.is_down = False
    broker.stop()
    silent = _broker(0, None)
    async with collecting(through, silent, collector_spool="spool") as running:
        await running.until(lambda c: c.messages.done == 6000)
        running.collector.counters.check()
    silent.stop()
    assert rows(plain_database, "SELECT count(*) FROM reading") == [(6000,)]


async def test_a_commit_whose_answer_was_lost_and_the_spool_store_nothing_twice(
    plain_database, mosquitto, proxied, collecting, publish, rows
):
    """The messages have no time stamp: the moment they came is part of their key."""
    proxy, through = proxied(plain_database)
    topic = "fettle/default/s1/m1/x"
    async with collecting(through, mosquitto, collector_spool="spool") as running:
        await publish(mosquitto, [(topic, b"0")])  # registers the sensor
        await running.settle(1)
        proxy.cut_after_commit = 1
        proxy.is_down = True
        several = ([(topic, b"%d" % n) for n in range(start, start + 5)] for start in range(1, 21, 5))
        await asyncio.gather(
            *(publish(mosquitto, some) for some in several)
        )  # so that they are read one after the other
        await running.until(lambda c: c.messages.spooled > 0)
        assert proxy.cut_after_commit == 0, "the fault must have struck"
        assert rows(plain_database, "SELECT count(*) FROM reading")[0][0] > 1, "the batch was committed"
        proxy.is_down = False
        await running.until(lambda c: c.messages.done == 21)
        assert running.collector.counters.readings.duplicates > 0
    assert rows(plain_database, "SELECT value FROM reading ORDER BY value") == [(float(n),) for n in range(21)]


async def test_a_full_disk_degrades_to_holding(plain_database, proxied, collecting, rows, monkeypatch):
    from ingest import options as module
    from ingest.spool import Spool

    monkeypatch.setattr(module, "Spool", lambda folder, *, max_bytes: Spool(folder, max_bytes=300_000))
    proxy, through = proxied(plain_database)
    broker = _broker(20_000, None)
    proxy.is_down = True
    async with collecting(through, broker, collector_spool="spool", collector_receive_maximum=500) as running:
        await running.until(lambda c: c.messages.spooled > 1000)
        await asyncio.sleep(1)
        held = broker.tally.acknowledged
        await asyncio.sleep(1)
        assert broker.tally.acknowledged == held < 20_000
        proxy.is_down = False
        await _until(broker.finished.is_set)
        await running.until(lambda c: c.messages.done == 20_000)
    broker.stop()
    assert broker.tally.errors == []
    assert rows(plain_database, "SELECT count(*) FROM reading") == [(20_000,)]
