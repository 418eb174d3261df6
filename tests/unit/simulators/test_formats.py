"""Payload formats, read back by what the specifications say and by the collector's own decoders."""

import math
import struct

import cbor2
import numpy as np
import orjson
import pytest

from fettle.wire import encode_reading, encode_signals
from ingest.decode.sparkplug import Host
from ingest.topics import load_table
from simulators.api import FORMATS, SIGNAL_UNITS, Fleet, deliveries, load_scenario
from simulators.formats import LineProtocol
from simulators.live import FormatUnknown, burst_message, instants, machines_for_rate, make_format
from simulators.sparkplug import encode_metric, encode_payload

MINUTE = 60_000_000


@pytest.fixture
def fleet():
    return Fleet(load_scenario("quiet-day"), machines=4)


@pytest.fixture
def due(fleet):
    start = fleet.scenario.start_us
    return list(instants(fleet, deliveries(fleet, start, start + 3 * MINUTE)))


def messages(name, fleet, due):
    form = make_format(name, fleet, tenant="acme", born_us=fleet.scenario.start_us)
    out = list(form.opening(fleet.scenario.start_us))
    for d in due:
        out += form.encode(fleet.machines[d.machine], d.ts_us, d.values)
    return [*out, *form.rest()]


def test_an_instant_is_one_machine_with_all_its_signals(fleet, due):
    assert len(due) == 4 * 3
    assert all(set(d.values) == {"temperature", "vibration", "current"} for d in due)


@pytest.mark.parametrize("name", FORMATS)
def test_the_collector_reads_back_every_value(name, fleet, due):
    """The two sides share no code: they were written from the specifications apart from each other."""
    table = load_table(tenant="acme")
    host = Host()
    units = {"°C": {"°C", "Cel"}}
    found = {}
    for message in messages(name, fleet, due):
        route = table.route(message.topic, content_type=message.content_type or None)
        assert route is not None, message.topic
        now = fleet.scenario.start_us + 10 * MINUTE
        if route.is_sparkplug:
            decoded = host.receive(route.context, message.topic, message.payload, now)
        else:
            decoded = route.decode(message.payload, now)
        assert decoded.rejected == []
        for s in decoded.samples:
            if s.value is None or "/" in s.path[2]:
                continue
            machine = next(m for m in fleet.machines if m.number in s.path[1])
            if s.unit is not None:
                assert s.unit in units.get(SIGNAL_UNITS[s.path[2]], {SIGNAL_UNITS[s.path[2]]})
            found[machine.number, s.path[2], s.ts_us] = s.value
    expected = {
        (fleet.machines[d.machine].number, signal, d.ts_us): value for d in due for signal, value in d.values.items()
    }
    assert found == expected


def test_fettle_json_is_the_wire_format(fleet, due):
    first = due[0]
    machine = fleet.machines[first.machine]
    got = messages("fettle", fleet, [first])
    assert [m.topic for m in got] == [f"fettle/acme/north/{machine.number}/{s}" for s in first.values]
    assert [m.payload for m in got] == [
        encode_reading(ts_us=first.ts_us, value=v, unit=SIGNAL_UNITS[s]) for s, v in first.values.items()
    ]
    (whole,) = messages("object", fleet, [first])
    assert whole.payload == encode_signals(
        ts_us=first.ts_us, values=first.values, units={s: SIGNAL_UNITS[s] for s in first.values}
    )


def test_an_array_collects_instants_and_leaves_none_behind(fleet, due):
    got = messages("array", fleet, due)
    assert len(got) == 4
    assert all(len(orjson.loads(m.payload)) == 3 for m in got)


def test_unified_namespace_payload_is_exactly_two_keys(fleet, due):
    for m in messages("uns", fleet, due[:2]):
        assert set(orjson.loads(m.payload)) == {"timestamp_ms", "value"}
        assert m.topic.startswith("umh/v1/acme/north/")
        assert m.topic.split("/")[6] == "_historian"


def test_senml_resolves_by_its_rules(fleet, due):
    (text,) = messages("senml", fleet, due[:1])
    (binary,) = messages("senml-cbor", fleet, due[:1])
    records = orjson.loads(text.payload)
    assert sum("bt" in r for r in records) == 1
    assert records[0]["bt"] == pytest.approx(due[0].ts_us / 1e6, abs=1e-6)
    assert records[0]["bt"] > 2**28  # absolute
    labels = {"bt": -3, "n": 0, "u": 1, "v": 2}
    assert cbor2.loads(binary.payload) == [{labels[k]: v for k, v in r.items()} for r in records]
    assert (text.content_type, binary.content_type) == ("application/senml+json", "application/senml+cbor")


def test_line_protocol_escapes():
    from dataclasses import replace

    machine = replace(Fleet(load_scenario("quiet-day")).machines[0], number="P 1,a=b")
    (message,) = LineProtocol().encode(machine, 1_795_219_200_000_001, {"odd key=1": 2.5})
    assert message.payload == rb"P\ 1\,a=b odd\ key\=1=2.5 1795219200000001000"


def test_opc_ua_sequence_counts_per_machine(fleet, due):
    seen = {}
    for m in messages("opcua", fleet, due):
        body = orjson.loads(m.payload)
        seen.setdefault(m.topic, []).append(body["Messages"][0]["SequenceNumber"])
        field = body["Messages"][0]["Payload"]["temperature"]
        assert set(field) == {"UaType", "Value", "SourceTimestamp"}
        assert field["UaType"] == 11
    assert list(seen.values()) == [[1, 2, 3]] * 4


def test_sparkplug_metric_bytes_by_hand():
    """alias 5, time stamp 300, double 2.5: field 2 varint, field 3 varint, field 13 fixed 64."""
    assert encode_metric(ts_ms=300, value=2.5, alias=5) == b"\x10\x05\x18\xac\x02" + b"\x69" + struct.pack("<d", 2.5)
    assert encode_payload(ts_ms=1, metrics=[b"\x10\x05"], seq=7) == b"\x08\x01" + b"\x12\x02\x10\x05" + b"\x18\x07"
    assert encode_payload(ts_ms=1, metrics=[], seq=None) == b"\x08\x01"
    # a negative Int64 travels as two's complement
    assert encode_metric(ts_ms=0, value=-1, alias=1).endswith(b"\x58" + b"\xff" * 9 + b"\x01")


def test_sparkplug_sequence_wraps_and_restarts_at_a_birth(fleet, due):
    form = make_format("sparkplug", fleet, tenant="acme", born_us=0)
    sent = list(form.opening(0))
    while len(sent) < 300:
        d = due[len(sent) % len(due)]
        sent += form.encode(fleet.machines[d.machine], d.ts_us, d.values)
    seqs = [m.payload[-1] if m.payload[-2] == 0x18 else m.payload[-2] & 0x7F | m.payload[-1] << 7 for m in sent]
    assert seqs == [i % 256 for i in range(len(sent))]
    assert [m.topic.split("/")[2] for m in sent[:6]] == ["NBIRTH", "DBIRTH", "DBIRTH", "DBIRTH", "DBIRTH", "DDATA"]
    assert all(m.qos == 0 for m in sent)
    again = list(form.command("spBv1.0/acme/NCMD/sim-quiet-day", b"\x12\x16\n\x14Node Control/Rebirth", 5))
    assert again[0].topic.split("/")[2] == "NBIRTH"
    assert again[0].payload.endswith(b"\x18\x00")
    assert list(form.command("spBv1.0/acme/NCMD/other", b"Node Control/Rebirth", 5)) == []


def test_sparkplug_death_carries_the_number_of_its_birth(fleet):
    form = make_format("sparkplug", fleet, tenant="acme", born_us=123_456_789_000)
    birth = next(iter(form.opening(123_456_789_000)))
    assert form.will is not None
    bd_seq = b"X" + form.will.payload.split(b"X", 1)[1]  # field 11, the last of the one metric
    assert bd_seq in birth.payload
    assert form.will.topic == "spBv1.0/acme/NDEATH/sim-quiet-day"


def test_a_burst_is_one_json_message(fleet):
    wave = fleet.waveform(fleet.machines[0], fleet.scenario.start_us + 90 * MINUTE, fs_hz=6400.0, duration_s=0.5)
    message = burst_message(wave, tenant="acme")
    assert message.topic == "fettle/acme/north/P-101/waveform"
    route = load_table(tenant="acme").route(message.topic)
    assert route is not None
    (burst,) = route.decode(message.payload, 0).waveforms
    assert (burst.fs_hz, burst.n, burst.unit, burst.t0_us) == (6400.0, 3200, "g", wave.t0_us)
    stored = np.frombuffer(burst.data, burst.dtype) * burst.scale
    np.testing.assert_allclose(stored, wave.values, atol=1e-4)


def test_an_unknown_format_is_told_the_names(fleet):
    with pytest.raises(FormatUnknown, match="no payload format 'xml'; choose one of fettle, object"):
        make_format("xml", fleet, tenant="t", born_us=0)


@pytest.mark.parametrize(
    ("name", "machines"), [("fettle", 334), ("uns", 334), ("object", 1000), ("sparkplug", 1000), ("array", 10_000)]
)
def test_machines_for_a_rate(name, machines):
    assert machines_for_rate(1000, period_us=1_000_000, signals=3, payload_format=name) == machines
    assert math.isclose(machines_for_rate(0.001, period_us=1_000_000, signals=3, payload_format=name), 1)
