"""SIGTERM ends `fettle collect` within five seconds whatever state it is in, and nothing that was acknowledged is lost."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from benchmarks.fault_check import Excuses, check, read_stored
from benchmarks.fault_plant import CollectorProcess, Mosquitto, Postgres, Publisher
from fettle import clock, embedded
from fettle.migrate import migrate

pytestmark = [pytest.mark.slow]
LIMIT_S = 5.0


@pytest.fixture
def plant(tmp_path):
    """A database and a broker of the test's own, since it stops them, a publisher and a collector."""
    if embedded.mosquitto_program() is None:
        pytest.skip("Mosquitto is not installed")
    database = Postgres(tmp_path / "postgres", embedded.free_port(), timescale=False)
    broker = Mosquitto(tmp_path / "broker", embedded.free_port())
    database.start()
    broker.start()
    migrate(database.url, storage="plain", tenant="default")
    publisher = Publisher(broker.port, rate=1000.0, start_ms=clock.now_us() // 1000 - 3_600_000)

    def collector(**settings):
        return CollectorProcess(tmp_path, database.url, broker.port, **settings)

    started = []

    def start(**settings):
        one = collector(**settings)
        one.start()
        started.append(one)
        _until(lambda: "broker.subscribed" in one.log_tail(50), one)
        return one

    yield database, broker, publisher, start
    publisher.finish.set()
    for one in started:
        one.stop()
    broker.stop()
    database.stop()


def _until(condition, collector, *, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it did not happen in time; the log ends with\n{collector.log_tail()}"
        time.sleep(0.05)


def _signal_database(database, number):
    """To the server and all its children: a machine that swaps, or a disk that hangs."""
    leader = int((database.folder / "postmaster.pid").read_text().split()[0])
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            pid, parent = int(stat.parent.name), int(stat.read_text().rsplit(")", 1)[1].split()[1])
            if leader in {pid, parent}:
                os.kill(pid, number)


def _settle(database, publisher, start, **settings):
    """Start again, and compare what was promised with what is stored."""
    publisher.finish.set()
    publisher.join(20)
    assert not publisher.is_alive()
    again = start(**settings)
    _until(lambda: len(read_stored(database.url)) >= len(publisher.obligations.acknowledged_at), again)
    took_s = again.stop()
    verdict = check(publisher.obligations, read_stored(database.url), Excuses())
    assert verdict.is_clean, verdict
    assert verdict.acknowledged > 500
    return took_s


@pytest.mark.parametrize("mode", ["hold", "spool"])
@pytest.mark.parametrize("fault", ["none", "database stalled", "database gone"])
def test_it_stops_in_time_with_the_database_in_any_state(plant, mode, fault):
    database, _, publisher, start = plant
    collector = start(FETTLE_COLLECTOR_SPOOL=mode)
    publisher.start()
    _until(lambda: len(read_stored(database.url)) > 500, collector)
    if fault == "database stalled":
        _signal_database(database, signal.SIGSTOP)
    elif fault == "database gone":
        database.stop()
    time.sleep(1)  # with batches on their way
    took_s = collector.stop()
    assert took_s < LIMIT_S, collector.log_tail()
    if fault == "database stalled":
        _signal_database(database, signal.SIGCONT)
    elif fault == "database gone":
        database.start()
    assert _settle(database, publisher, start, FETTLE_COLLECTOR_SPOOL=mode) < LIMIT_S


@pytest.mark.parametrize("fault", ["broker gone", "broker stalled"])
def test_it_stops_in_time_with_the_broker_in_any_state(plant, fault):
    database, broker, publisher, start = plant
    collector = start(FETTLE_COLLECTOR_SPARKPLUG_HOST="plant")
    publisher.start()
    _until(lambda: len(read_stored(database.url)) > 500, collector)
    if fault == "broker gone":
        broker.stop()
    else:
        os.kill(broker.pid, signal.SIGSTOP)
    time.sleep(0.5)
    took_s = collector.stop()
    assert took_s < LIMIT_S, collector.log_tail()
    if fault == "broker gone":
        broker.start()
    else:
        os.kill(broker.pid, signal.SIGCONT)
    assert _settle(database, publisher, start, FETTLE_COLLECTOR_SPARKPLUG_HOST="plant") < LIMIT_S


def test_it_stops_in_time_before_it_has_ever_reached_the_database(plant):
    database, broker, _, _ = plant
    database.stop()
    collector = CollectorProcess(broker.folder, database.url, broker.port)
    collector.start()
    _until(lambda: "writer.holding" in collector.log_tail(50), collector)
    assert collector.stop() < LIMIT_S, collector.log_tail()
