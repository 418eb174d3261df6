"""Messages become rows, in every form and under every policy, and the accounts balance."""

import asyncio
import json

import numpy as np
import pytest

from fettle import clock, embedded
from fettle.wire import READING_DTYPE
from ingest.api import bulk_writer
from ingest.store import LeaseTaken

TOPIC = "fettle/default/s1/m1/vibration"


async def test_readings_reach_the_table_and_the_ledger(database, mosquitto, collecting, publish, reading, rows):
    messages = [(f"fettle/default/s1/m{i % 7}/vibration", reading(i, n=i)) for i in range(3000)]
    async with collecting(database, mosquitto) as running:
        await publish(mosquitto, messages)
        await running.settle(3000)
        assert running.collector.counters.readings.done == 3000
    assert rows(database, "SELECT count(*), sum(value) FROM reading") == [(3000, sum(range(3000)))]
    ledger = rows(database, "SELECT number, messages, stored, payload FROM batch ORDER BY number")
    assert [row[0] for row in ledger] == list(range(1, len(ledger) + 1))
    assert sum(row[1] for row in ledger) == sum(row[2] for row in ledger) == 3000
    arrays = [np.frombuffer(row[3], dtype=READING_DTYPE) for row in ledger]
    for array in arrays:
        assert np.array_equal(array, np.sort(array, order=["sensor_id", "ts"]))
    assert np.concatenate(arrays)["value"].sum() == sum(range(3000))


async def test_unknown_places_are_registered_with_the_kind_of_their_unit(
    plain_database, mosquitto, collecting, publish, reading, rows
):
    async with collecting(plain_database, mosquitto) as running:
        await publish(mosquitto, [("fettle/default/s1/m1/bearing", reading(1, unit="Cel")), ("fettle/default/s1/m1", b'{"ts": 1, "x": 2}')])  # fmt: skip
        await running.settle(2)
    found = rows(plain_database, "SELECT p.code, m.number, m.is_registered_by_topic, s.name, s.kind, s.unit FROM sensor s JOIN machine m ON m.id = s.machine_id JOIN site p ON p.id = m.site_id ORDER BY s.name")  # fmt: skip
    assert found[0] == ("s1", "m1", True, "bearing", "temperature", "°C")


async def test_a_unit_that_comes_later_is_entered_and_one_that_contradicts_is_refused(
    plain_database, mosquitto, collecting, publish, reading, rows
):
    async with collecting(plain_database, mosquitto) as running:
        await publish(mosquitto, [(TOPIC, json.dumps({"ts": clock.now_us() // 1000, "value": 1.0}).encode())])
        await running.settle(1)
        await publish(mosquitto, [(TOPIC, reading(2, n=1))])
        await running.settle(2)
        await publish(mosquitto, [(TOPIC, reading(70, n=2, unit="Cel")), (TOPIC, reading(3, n=3))])
        await running.settle(4)
        assert running.collector.counters.readings.rejected == 1
    assert rows(plain_database, "SELECT kind, unit FROM sensor") == [("vibration_velocity", "mm/s")]
    assert rows(plain_database, "SELECT value FROM reading ORDER BY value") == [(1.0,), (2.0,), (3.0,)]
    assert rows(plain_database, "SELECT reason FROM rejected_message") == [("unit_mismatch",)]


async def test_what_cannot_be_read_is_kept_with_its_reason_and_acknowledged(
    database, mosquitto, collecting, publish, reading, rows
):
    messages = [
        (TOPIC, b"{not json"),
        (TOPIC, b"\xff\xfe\x00"),
        ("fettle/nobody/s1/m1/vibration", reading(1)),
        ("fettle/too/many/levels/for/this/root", reading(1)),
        (TOPIC, reading(1, ago_s=-86_400)),  # from the future
        (TOPIC, reading(1, ago_s=500 * 86_400)),  # beyond retention
        (TOPIC, reading(5)),
    ]
    async with collecting(database, mosquitto, reading_days=400) as running:
        await publish(mosquitto, messages)
        await running.settle(len(messages))
    assert rows(database, "SELECT value FROM reading") == [(5.0,)]
    reasons = dict(rows(database, "SELECT reason, count(*) FROM rejected_message GROUP BY 1"))
    assert reasons == {
        "bad_syntax": 2, "unknown_tenant": 1, "no_rule": 1, "future": 1, "beyond_retention": 1,
    }  # fmt: skip
    kept = rows(database, "SELECT payload FROM rejected_message WHERE reason = 'bad_syntax'")
    assert {bytes(payload) for (payload,) in kept} == {b"{not json", b"\xff\xfe\x00"}


async def test_unknown_sensors_are_refused_where_the_policy_says_so(
    plain_database, mosquitto, collecting, publish, reading, rows
):
    async with collecting(plain_database, mosquitto, collector_unknown="reject") as running:
        await publish(mosquitto, [(TOPIC, reading(1))])
        await running.settle(1)
    assert rows(plain_database, "SELECT count(*) FROM sensor") == [(0,)]
    assert rows(plain_database, "SELECT reason, tenant_id IS NOT NULL FROM rejected_message") == [
        ("unknown_sensor", True)
    ]


async def test_topics_made_up_by_the_thousand_stop_at_the_cap(
    plain_database, mosquitto, collecting, publish, reading, rows
):
    async with collecting(plain_database, mosquitto, collector_max_sensors=10) as running:
        await publish(mosquitto, [(f"fettle/default/s1/m1/x{i}", reading(i)) for i in range(25)])
        await running.settle(25)
    assert rows(plain_database, "SELECT count(*) FROM sensor") == [(10,)]
    assert rows(plain_database, "SELECT count(*) FROM reading") == [(10,)]
    assert rows(plain_database, "SELECT reason, count(*) FROM rejected_message GROUP BY 1") == [
        ("too_many_sensors", 15)
    ]


@pytest.mark.parametrize(("policy", "kept"), [("first", 1.0), ("last", 2.0)])
async def test_same_time_other_value_is_a_collision_under_either_policy(
    database, mosquitto, collecting, publish, reading, rows, policy, kept
):
    async with collecting(database, mosquitto, collector_duplicate_policy=policy) as running:
        await publish(mosquitto, [(TOPIC, reading(1)), (TOPIC, reading(7, n=1))])
        await running.settle(2)
        await publish(mosquitto, [(TOPIC, reading(2)), (TOPIC, reading(7, n=1)), (TOPIC, reading(8, n=2))])
        await running.settle(5)
        account = running.collector.counters.readings
        assert (account.done, account.duplicates, account.collisions) == (3, 1, 1)
    assert rows(database, "SELECT value FROM reading ORDER BY ts") == [(kept,), (7.0,), (8.0,)]
    stored = rows(
        database, "SELECT sum(stored), sum(duplicates), sum(collisions), sum(length(payload)) / 24 FROM batch"
    )
    assert stored == [(3, 1, 1, 3)]


async def test_replaying_a_day_stores_nothing_and_says_so(database, mosquitto, collecting, publish, reading, rows):
    day = [(f"fettle/default/s1/m{i % 5}/vibration", reading(i % 11, n=i)) for i in range(2000)]
    async with collecting(database, mosquitto) as running:
        await publish(mosquitto, day)
        await running.settle(2000)
        await publish(mosquitto, day)
        await running.settle(4000)
        account = running.collector.counters.readings
        assert (account.done, account.duplicates, account.collisions) == (2000, 2000, 0)
        assert running.collector.writer.status.conflict_path
        for i in range(12):  # clean batches lead back to the straight way
            await publish(mosquitto, [(TOPIC, reading(1, n=10_000 + i))])
            await running.settle(4001 + i)
        assert not running.collector.writer.status.conflict_path
    assert rows(database, "SELECT count(*) FROM reading") == [(2012,)]


async def test_words_nulls_waveforms_and_lives_have_their_places(
    database, mosquitto, collecting, publish, reading, rows
):
    t = clock.now_us() // 1000
    wave = (np.sin(2 * np.pi * 50 * np.arange(1000) / 1000) * 2).round(6).tolist()
    messages = [
        ("fettle/default/s1/m1/mode", json.dumps({"ts": t, "value": "AUTO"}).encode()),
        ("fettle/default/s1/m1/level", json.dumps({"ts": t, "value": None}).encode()),
        ("fettle/default/s1/m1/acc", json.dumps({"t0": t, "fs": 1000, "values": wave, "unit": "m/s2"}).encode()),
        ("zigbee2mqtt/pump/availability", b'{"state":"online"}'),
    ]
    async with collecting(database, mosquitto, collector_topics=["fettle/#", "zigbee2mqtt/#"]) as running:
        await publish(mosquitto, messages)
        await running.settle(4)
    assert rows(database, "SELECT value FROM reading_text") == [("AUTO",)]
    assert rows(database, "SELECT value, quality FROM reading r JOIN sensor s ON s.id = r.sensor_id WHERE s.name = 'level'")[0][0] is None  # fmt: skip
    assert rows(database, "SELECT n, fs_hz FROM waveform") == [(1000, 1000.0)]
    features = dict(rows(database, "SELECT s.name, r.value FROM reading r JOIN sensor s ON s.id = r.sensor_id WHERE s.name LIKE 'acc.%'"))  # fmt: skip
    assert features["acc.rms"] == pytest.approx(2 / 2**0.5, rel=1e-3)
    assert features["acc.velocity_rms"] == pytest.approx(2 / 2**0.5 / (2 * np.pi * 50) * 1000, rel=0.02)
    assert rows(database, "SELECT source, is_online FROM liveness") == [("zigbee2mqtt/pump", True)]


async def test_retained_messages_count_only_with_a_time_of_their_own(
    plain_database, mosquitto, collecting, publish, reading, rows
):
    await publish(mosquitto, [("fettle/default/s1/m1/a", b"5.5"), ("fettle/default/s1/m1/b", reading(6))], retain=True)
    async with collecting(plain_database, mosquitto) as running:
        await running.settle(2)
        assert running.collector.counters.messages.ignored == 1
    assert rows(plain_database, "SELECT value FROM reading") == [(6.0,)]


async def test_messages_of_qos_0_and_2_are_stored_too(plain_database, mosquitto, collecting, publish, reading, rows):
    async with collecting(plain_database, mosquitto) as running:
        await publish(mosquitto, [(TOPIC, reading(1, n=1))], qos=0)
        await publish(mosquitto, [(TOPIC, reading(2, n=2))], qos=2)
        await running.settle(2)
    assert rows(plain_database, "SELECT value FROM reading ORDER BY ts") == [(1.0,), (2.0,)]


async def test_a_second_collector_of_the_same_name_does_not_start(plain_database, mosquitto, collecting):
    async with collecting(plain_database, mosquitto):
        with pytest.raises(LeaseTaken):
            async with collecting(plain_database, mosquitto):
                pass


async def test_a_broker_of_3_1_1_is_served(plain_database, tmp_path, collecting, publish, reading, rows):
    with embedded.broker(tmp_path / "amqtt", pure_python=True) as broker:
        async with collecting(plain_database, broker) as running:
            await publish(broker, [(f"fettle/default/s1/m{i % 3}/vibration", reading(i, n=i)) for i in range(300)])
            await running.settle(300)
    assert rows(plain_database, "SELECT count(*), sum(value) FROM reading") == [(300, sum(range(300)))]


async def test_nothing_comes_again_after_an_orderly_stop(plain_database, mosquitto, collecting, publish, reading, rows):
    async with collecting(plain_database, mosquitto) as running:
        sending = asyncio.create_task(publish(mosquitto, [(TOPIC, reading(i, n=i)) for i in range(5000)]))
        await running.until(lambda c: c.messages.received > 500)
        began = clock.monotonic_s()
        running.stop.set()
        await running.task
        assert clock.monotonic_s() - began < 5
        await sending
        first = running.collector.counters
    async with collecting(plain_database, mosquitto) as running:
        await running.settle(5000 - first.messages.done)
        second = running.collector.counters
    assert second.readings.duplicates == 0
    assert first.readings.done + second.readings.done == 5000
    assert rows(plain_database, "SELECT count(*) FROM reading") == [(5000,)]


def test_history_goes_through_the_same_ledger_and_only_once(database, settings_for, rows):
    settings = settings_for()
    at = np.arange(50_000, dtype=np.int64) * 1_000_000 + clock.now_us() - 100_000_000_000
    for expected in ((50_000, 0), (0, 50_000)):
        with bulk_writer(settings, url=database.url, name="history") as writer:
            ids = writer.sensors("default", [("s1", "m1", "vibration", "mm/s"), ("s1", "m1", "temperature", "Cel")])
            array = np.zeros(50_000, dtype=READING_DTYPE)
            array["sensor_id"], array["ts"], array["value"] = np.resize(ids, 50_000), at, 1.5
            writer.store(array)
            assert (writer.stored, writer.duplicates) == expected
    assert rows(database, "SELECT count(*) FROM reading") == [(50_000,)]
    assert rows(database, "SELECT sum(stored), sum(length(payload)) / 24 FROM batch") == [(50_000, 50_000)]
