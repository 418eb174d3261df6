"""Several collectors share a subscription: real processes, one of them killed under load, and every message accounted for."""

import time

import psycopg
import pytest

from benchmarks.fault_plant import CollectorProcess, Publisher
from fettle import clock

RATE = 2000.0


@pytest.fixture
def members(database, mosquitto, tmp_path):
    """Start collectors of one group, as the command line does."""
    started = []

    def start(count):
        for number in range(count):
            folder = tmp_path / f"member{number}"
            folder.mkdir()
            member = CollectorProcess(
                folder, database.url, mosquitto.port,
                FETTLE_COLLECTOR_NAME=f"member-{number}", FETTLE_COLLECTOR_SHARED_GROUP="everyone",
            )  # fmt: skip
            member.start()
            started.append(member)
        _until(lambda: all("broker.subscribed" in member.log_tail(50) for member in started), started)
        return started

    yield start
    for member in started:
        member.stop()


def _until(condition, members, *, seconds=40.0):
    deadline = time.monotonic() + seconds
    while not condition():
        logs = "\n--\n".join(member.log_tail(5) for member in members)
        assert time.monotonic() < deadline, f"it did not happen in time; the logs end with\n{logs}"
        time.sleep(0.05)


def _stored(database):
    """Readings stored so far, by collector."""
    with psycopg.connect(database.url) as conn:
        return dict(conn.execute("SELECT c.name, sum(b.stored)::int FROM batch b JOIN collector c ON c.id = b.collector_id GROUP BY 1").fetchall())  # fmt: skip


@pytest.mark.slow
def test_a_group_loses_nothing_when_a_member_is_killed_and_never_deadlocks(database, mosquitto, members, rows):
    group = members(2)
    publisher = Publisher(mosquitto.port, rate=RATE, start_ms=clock.now_us() // 1000 - 3_600_000)
    publisher.start()
    _until(lambda: len(_stored(database)) == 2, group)
    group[1].kill()
    at_death = _stored(database)
    _until(lambda: _stored(database)["member-0"] > at_death["member-0"] + RATE / 2, group)
    assert group[0].is_running
    group[1].start()
    _until(lambda: _stored(database)["member-1"] > at_death["member-1"], group)
    publisher.finish.set()
    publisher.join(30)
    promised = publisher.obligations.acknowledged_at
    assert not publisher.is_alive()
    assert len(promised) > RATE

    def count():
        return rows(database, "SELECT count(*) FROM reading")[0][0]

    _until(lambda: count() >= len(promised), group)
    values = [value for (value,) in rows(database, "SELECT value FROM reading")]
    assert len(values) == len(set(values)), "stored twice"
    assert not set(promised) - set(values), "lost"
    assert set(values) <= set(range(publisher.obligations.sent)), "never sent"
    assert rows(database, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == [(0,)]
    assert not any("40P01" in member.log_tail(500) or "writer.halted" in member.log_tail(500) for member in group)
    ledger = rows(database, "SELECT sum(stored)::int, sum(messages)::int - sum(duplicates)::int FROM batch")[0]
    assert ledger == (len(values), len(values))


@pytest.mark.slow
def test_members_with_one_name_do_not_fight(plain_database, mosquitto, tmp_path):
    """The second process under a name ends by itself and says why; the first goes on."""
    database = plain_database
    folder = tmp_path / "twin"
    folder.mkdir()
    first = CollectorProcess(tmp_path, database.url, mosquitto.port, FETTLE_COLLECTOR_SHARED_GROUP="everyone")
    twin = CollectorProcess(folder, database.url, mosquitto.port, FETTLE_COLLECTOR_SHARED_GROUP="everyone")
    try:
        first.start()
        _until(lambda: "broker.subscribed" in first.log_tail(50), [first])
        twin.start()
        _until(lambda: not twin.is_running, [twin])
        assert "already running elsewhere" in twin.log_tail()
        assert "FETTLE_COLLECTOR_NAME" in twin.log_tail()
        assert first.is_running
    finally:
        twin.stop()
        first.stop()
