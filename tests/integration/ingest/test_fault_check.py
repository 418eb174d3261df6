"""What the checker reads from a real database: a record that is broken on purpose is seen as broken."""

import psycopg
import pytest

from benchmarks.fault_check import Excuses, check, count_stored, read_stored
from benchmarks.fault_plant import Obligations
from fettle import clock

MESSAGES, SENSORS = 200, 4


@pytest.fixture
async def record(plain_database, mosquitto, collecting, publish):
    """Readings as the fault benchmark's publisher sends them, stored by a collector."""
    obligations = Obligations(SENSORS, clock.now_us() // 1000 - 3_600_000, sent=MESSAGES)
    messages = []
    for n in range(MESSAGES):
        sensor, ts_ms = obligations.place(n)
        messages.append(
            (f"fettle/default/faults/m{sensor:03d}/current", b'{"ts":%d,"value":%d.0,"unit":"A"}' % (ts_ms, n))
        )
        obligations.acknowledged_at[n] = float(n)
    async with collecting(plain_database, mosquitto) as running:
        await publish(mosquitto, messages)
        await running.settle(MESSAGES)
    return plain_database, obligations


async def test_the_record_is_read_as_it_was_sent(record):
    database, obligations = record
    assert count_stored(database.url) == MESSAGES
    assert check(obligations, read_stored(database.url), Excuses()).is_clean


@pytest.mark.parametrize(
    ("damage", "finding"),
    [
        ("DELETE FROM reading WHERE value = 17", {"missing": [17]}),
        ("INSERT INTO reading (sensor_id, quality, flags, ts, value) SELECT sensor_id, quality, flags, ts + interval '1 second', value FROM reading WHERE value = 17", {"duplicates": 1, "altered": 1}),
        ("INSERT INTO reading (sensor_id, quality, flags, ts, value) SELECT sensor_id, quality, flags, ts + interval '1 second', 5000 FROM reading WHERE value = 17", {"phantoms": 1}),
        ("UPDATE reading SET value = NULL WHERE value = 17", {"missing": [17], "phantoms": 1}),
        ("UPDATE reading SET ts = ts + interval '1 second' WHERE value = 17", {"altered": 1}),
    ],
    ids=["dropped", "doubled", "made up", "emptied", "moved"],
)  # fmt: skip
async def test_damage_is_seen(record, damage, finding):
    database, obligations = record
    with psycopg.connect(database.url) as conn:
        assert conn.execute(damage).rowcount == 1
    verdict = check(obligations, read_stored(database.url), Excuses())
    assert not verdict.is_clean
    found = {name: getattr(verdict, name) for name in ("missing", "duplicates", "phantoms", "altered")}
    assert found == {"missing": [], "duplicates": 0, "phantoms": 0, "altered": 0} | finding
