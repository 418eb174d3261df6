"""The short way through the intake says exactly what the long way says, and whatever comes, it is in the batch."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fettle.model import Flag, Quality
from ingest.batch import Wanted
from ingest.catalogue import Catalogue, RegistrationPolicy, Sensor
from ingest.decode import Decoded, WaveformBurst
from ingest.frames import Frames
from ingest.intake import Intake
from ingest.topics import load_table

NOW = 1_795_219_200_000_000
TABLE = load_table(tenant="default")


def _intake(**sensors):
    catalogue = Catalogue(RegistrationPolicy())
    for i, (name, unit) in enumerate(sensors.items(), 1):
        catalogue._sensors["default", ("s1", "m1", name)] = Sensor(i, "other", unit, is_enabled=True)
    return Intake(TABLE, catalogue)


def _take(intake, *messages, retained=()):
    frames = Frames(topics=[t.encode() for t, _ in messages], payloads=[p for _, p in messages], retained=set(retained))
    intake.take(frames, NOW)
    return intake.batch


def _rows(batch):
    return list(zip(batch.sensor_ids, batch.ts, batch.values, batch.owners, strict=True))


values = st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**53), 2**53))
bodies = st.one_of(
    st.fixed_dictionaries({"ts": st.integers(10**11, 10**13), "value": values}, optional={"unit": st.sampled_from(["A", "mm/s"])}),
    st.dictionaries(st.sampled_from(["ts", "v", "value", "a", "b", "unit", "quality"]), st.one_of(values, st.text(max_size=4), st.none(), st.booleans()), max_size=5),
).map(lambda body: json.dumps(body).encode())  # fmt: skip
topics = st.sampled_from(
    ["fettle/default/s1/m1/x", "fettle/default/s1/m1", "fettle/default/s1/m1/y", "fettle/odd", "a/b"]
)
messages = st.lists(st.tuples(topics, st.one_of(bodies, st.binary(max_size=30))), max_size=30)


@given(messages)
def test_a_warm_intake_says_what_a_cold_one_says(sent):
    """Each message alone through a fresh intake, which has learned nothing, against all of them through one."""
    sensors = {"x": "A", "a": "", "b": "", "v": "", "value": "", "y": ""}
    warm = _take(_intake(**sensors), *sent, *sent)
    cold = [_take(_intake(**sensors), message) for message in (*sent, *sent)]
    expected = [(i, ts, v, n) for n, batch in enumerate(cold) for i, ts, v, _ in _rows(batch)]
    times_of_receipt = {row for row, (_, flags) in warm.odd.items() if flags & Flag.RECEIVE_TIME}
    got = [row if i not in times_of_receipt else (row[0], NOW, *row[2:]) for i, row in enumerate(_rows(warm))]
    assert repr(got) == repr(expected)
    assert [(r.message, r.reason) for r in warm.refusals] == [
        (n, r.reason) for n, b in enumerate(cold) for r in b.refusals
    ]
    assert warm.readings == sum(b.readings for b in cold)
    assert warm.ignored_messages == sum(b.ignored_messages for b in cold)
    assert len(warm) == 2 * len(sent)


@given(st.lists(st.tuples(topics, bodies), min_size=8, max_size=40), st.integers(0, 39))
def test_many_at_once_say_what_they_say_one_by_one(sent, odd_one):
    """A read of many messages against as many reads of one, both with an intake that knows the topics."""
    sensors = {"x": "A", "a": "", "b": "", "v": "", "value": "", "y": ""}
    value = b'{"ts":1795219200000,"value":1.5,"unit":"A"}'
    sent = [("fettle/default/s1/m1/x", value if i != odd_one else payload) for i, (_, payload) in enumerate(sent)]
    together, alone = _intake(**sensors), _intake(**sensors)
    for intake in (together, alone):
        _take(intake, ("fettle/default/s1/m1/x", value))
    _take(together, *sent)
    for message in sent:
        _take(alone, message)
    a, b = together.batch, alone.batch
    assert [row[1:] for row in _rows(a) if row[1] != NOW] == [row[1:] for row in _rows(b) if row[1] != NOW]
    assert (a.readings, a.ignored_messages, len(a)) == (b.readings, b.ignored_messages, len(b))
    assert [(r.message, r.reason) for r in a.refusals] == [(r.message, r.reason) for r in b.refusals]


def test_many_at_once_take_the_short_way(monkeypatch):
    intake = _intake(x="A", y="A")
    topics = ["fettle/default/s1/m1/x", "fettle/default/s1/m1/y"]
    value = b'{"ts":1795219200000,"value":1.5,"unit":"A"}'
    _take(intake, *((topic, value) for topic in topics))
    monkeypatch.setattr("ingest.intake.decode_value", lambda _: 1 / 0)
    monkeypatch.setattr(intake, "_take_slowly", lambda *_: 1 / 0)
    batch = _take(
        intake, *((topics[n % 2], b'{"ts":%d,"value":%d,"unit":"A"}' % (1795219200000 + n, n)) for n in range(20))
    )
    assert _rows(batch)[2:] == [(n % 2 + 1, NOW + n * 1000, float(n), n + 2) for n in range(20)]


@given(messages)
def test_every_message_is_accounted_for(sent):
    batch = _take(_intake(x="A"), *sent)
    with_rows = set(batch.owners) | {t.message for t in batch.texts} | {w.message for w in batch.waveforms}
    refused = {r.message for r in batch.refusals}
    assert len(with_rows | refused) + batch.ignored_messages >= len(sent) - batch.ignored_readings
    assert all(w.tenant == "default" for w in batch.wanted.values())


def test_an_unknown_place_waits_for_the_writer():
    batch = _take(_intake(), ("fettle/default/s1/m1/x", b'{"ts":1795219200000,"value":1.5,"unit":"A"}'))
    assert batch.wanted == {0: Wanted("default", ("s1", "m1", "x"), "A")}
    assert _rows(batch) == [(0, NOW, 1.5, 0)]


def test_messages_without_a_time_in_one_breath_do_not_collide():
    batch = _take(_intake(x="A"), *[("fettle/default/s1/m1/x", b"1.5")] * 3)
    assert len(set(batch.ts)) == 3
    assert all(flags & Flag.RECEIVE_TIME for _, flags in batch.odd.values())


def test_null_is_a_reading_of_bad_or_given_quality():
    batch = _take(_intake(x="A"), ("fettle/default/s1/m1/x", b'{"ts":1795219200000,"value":null}'))
    assert repr(batch.values) == "[nan]"
    assert batch.readings == 1


def test_a_disabled_sensor_is_ignored():
    intake = _intake(x="A")
    intake._catalogue._sensors["default", ("s1", "m1", "x")] = Sensor(1, "other", "A", is_enabled=False)
    batch = _take(intake, ("fettle/default/s1/m1/x", b'{"ts":1795219200000,"value":1.0,"unit":"A"}'))
    assert (batch.ts, batch.ignored_readings) == ([], 1)


@pytest.mark.parametrize(("unit", "is_refused"), [("mA", False), ("A", False), ("Cel", True), ("furlong", False)])
def test_only_another_known_quantity_is_refused(unit, is_refused):
    body = json.dumps({"ts": 1795219200000, "value": 1.0, "unit": unit}).encode()
    batch = _take(_intake(x="A"), ("fettle/default/s1/m1/x", body))
    assert [r.reason for r in batch.refusals] == (["unit_mismatch"] if is_refused else [])


def test_a_fault_of_our_own_costs_one_message(monkeypatch):
    intake = _intake(x="A")
    monkeypatch.setattr(intake, "_decode", lambda *_: 1 / 0)
    batch = _take(intake, ("fettle/default/s1/m1/x", b"1"), ("fettle/default/s1/m1/x", b"2"))
    assert [r.reason for r in batch.refusals] == ["internal_error"] * 2


def test_a_stored_message_says_nothing_without_its_time():
    batch = _take(
        _intake(x="A", y="A"),
        ("fettle/default/s1/m1/x", b"7"),
        ("fettle/default/s1/m1/y", b'{"ts":1795219200000,"value":8.0}'),
        retained=[0, 1],
    )
    assert batch.values == [8.0]
    assert (batch.ignored_messages, batch.ignored_readings) == (1, 1)
    assert Quality.GOOD == 192


def test_a_stored_message_that_is_refused_is_still_known_as_stored():
    """Read again under a corrected rule, it must say nothing without its time, as if the rule had been there."""
    batch = _take(_intake(x="A"), ("nobody/knows", b"7"), ("fettle/default/s1/m1/x", b"{broken"), retained=[0, 1])
    assert [r.message for r in batch.refusals] == [0, 1]
    assert batch.retained == {0, 1}


def test_a_stored_burst_says_nothing_without_its_time():
    burst = WaveformBurst(("s1", "m1", "x"), None, 1000.0, "A", 32, "<f4", 1.0, bytes(128))
    for is_stale in (True, False):
        intake = _intake(x="A")
        intake.add(Decoded(waveforms=[burst]), 0, tenant="default", received_us=NOW, is_stale=is_stale)
        assert len(intake.batch.waveforms) == (not is_stale)
        assert intake.batch.ignored_readings == is_stale
