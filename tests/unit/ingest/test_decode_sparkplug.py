"""Sparkplug B as a host application: vectors built byte by byte, and the state machine under loss and reordering."""

import gzip
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fettle.model import Flag, Quality
from ingest.decode import BadPayload, Decoded, Liveness, Reason
from ingest.decode.sparkplug import Host
from ingest.decode.sparkplug_payload import (
    COMPRESSED,
    DataType,
    OutMetric,
    Payload,
    encode,
    read_array,
    read_dataset,
    read_integer,
    read_strings,
)
from ingest.decode.sparkplug_state import HostState, read_state
from ingest.topics import Table, load_table, parse_rules

NOW = 1_795_219_200_000_000
MS = NOW // 1000
SECOND = 1_000_000
TABLE = load_table(tenant="acme")


class Plant:
    """One host and the messages of its edge nodes."""

    def __init__(self, table: Table = TABLE, **options) -> None:
        self.table = table
        self.host = Host(**options)

    def send(self, kind: str, payload: bytes, *, edge: str = "E", device: str = "", now: int = NOW) -> Decoded:
        topic = f"spBv1.0/G/{kind}/{edge}" + (f"/{device}" if device else "")
        return self.host.receive(self.table.route(topic).context, topic, payload, now)

    def nbirth(self, *metrics: OutMetric, seq: int = 0, bd_seq: int = 0, **more) -> Decoded:
        return self.send("NBIRTH", message(OutMetric("bdSeq", DataType.INT64, bd_seq), *metrics, seq=seq), **more)

    def ndata(self, *metrics: OutMetric, seq: int = 1, **more) -> Decoded:
        return self.send("NDATA", message(*metrics, seq=seq), **more)

    def ndeath(self, bd_seq: int = 0, **more) -> Decoded:
        return self.send("NDEATH", message(OutMetric("bdSeq", DataType.INT64, bd_seq), seq=None), **more)


def message(*metrics: OutMetric, seq: int | None, ts_ms: int = MS) -> bytes:
    return encode(ts_ms=ts_ms, metrics=metrics, seq=seq)


def temp(value=21.5, *, alias: int | None = None, name: str | None = "temp", **more) -> OutMetric:
    return OutMetric(name, DataType.DOUBLE, value, alias=alias, **more)


def rows(out: Decoded):
    assert out.rejected == []
    return [(s.path[2], s.ts_us, s.text if s.text is not None else s.value, s.quality) for s in out.samples]


# bytes by the field numbers of chapter 6, independent of our encoder


def varint(n: int) -> bytes:
    out = b""
    while True:
        n, low = n >> 7, n & 0x7F
        out += bytes([low | (0x80 if n else 0)])
        if not n:
            return out


def whole(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value)


def block(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def metric(name: str, datatype: int, value: bytes) -> bytes:
    return block(2, block(1, name.encode()) + whole(3, MS) + whole(4, datatype) + value)


@pytest.mark.parametrize(
    ("datatype", "value", "stored"),
    [
        (1, whole(10, 0xFFFFFFFF), -1.0),
        (1, whole(10, 0xE9), -23.0),
        (2, whole(10, 0xFFFF8AD0), -30000.0),
        (3, whole(10, 2**32 - 5), -5.0),
        (3, whole(10, 0), 0.0),
        (4, whole(11, 2**64 - 7), -7.0),
        (5, whole(10, 250), 250.0),
        (6, whole(10, 52360), 52360.0),
        (7, whole(10, 2**32 - 1), 4294967295.0),
        (8, whole(11, 2**53), 2.0**53),
        (9, varint(12 << 3 | 5) + struct.pack("<f", 0.5), 0.5),
        (10, varint(13 << 3 | 1) + struct.pack("<d", 0.1), 0.1),
        (10, varint(13 << 3 | 1) + struct.pack("<d", 0.0), 0.0),
        (11, whole(14, 1), 1.0),
        (11, whole(14, 0), 0.0),
        (12, block(15, b"run"), "run"),
        (13, whole(11, MS), "2026-11-21T00:00:00.000Z"),
        (14, block(15, "läuft".encode()), "läuft"),
        (15, block(15, b"0a1b"), "0a1b"),
        (17, block(16, b"\x00\x01"), "AAE="),
    ],
)
@pytest.mark.parametrize("kind", ["NBIRTH", "NDATA"])
def test_every_scalar_datatype(datatype, value, stored, kind):
    plant = Plant()
    sent = whole(1, MS) + metric("m", datatype, value) + whole(3, 0)
    if kind == "NDATA":
        plant.send("NBIRTH", sent)
        sent = whole(1, MS) + block(2, block(1, b"m") + whole(3, MS) + value) + whole(3, 1)
    assert rows(plant.send(kind, sent)) == [("m", NOW, stored, Quality.GOOD)]


@given(st.sampled_from([DataType.INT8, DataType.INT16, DataType.INT32, DataType.INT64]), st.data())
def test_twos_complement_at_any_width(datatype, data):
    bits = {1: 8, 2: 16, 3: 32, 4: 64}[datatype]
    value = data.draw(st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1))
    for carried in {bits, 32 if bits < 64 else 64}:  # cut to its width, or extended to the field's
        assert read_integer(value & (2**carried - 1), datatype) == value


@pytest.mark.parametrize(
    ("datatype", "data", "values"),
    [  # packed little-endian, as the rule of chapter 6 says
        (DataType.INT8_ARRAY, "e97b", [-23, 123]),
        (DataType.INT16_ARRAY, "d08a3075", [-30000, 30000]),
        (DataType.INT32_ARRAY, "fffffffffaafcb12", [-1, 315338746]),
        (DataType.UINT8_ARRAY, "17fa", [23, 250]),
        (DataType.UINT16_ARRAY, "1e0088cc", [30, 52360]),
        (DataType.UINT32_ARRAY, "3400000049fb55c4", [52, 3293969225]),
        (DataType.UINT64_ARRAY, "3400000000000000d99e02d1b27637e4", [52, 16444743074749521625]),
        (DataType.FLOAT_ARRAY, struct.pack("<2f", 1.23, 89.341).hex(), [1.23, 89.341]),
        (DataType.DOUBLE_ARRAY, struct.pack("<2d", 12.354213, 1022.9123213).hex(), [12.354213, 1022.9123213]),
        (DataType.BOOLEAN_ARRAY, "0c00000034d0", [0, 0, 1, 1, 0, 1, 0, 0, 1, 1, 0, 1]),
        (DataType.DATETIME_ARRAY, "c7d0907524010000b8bab89781010000", [1256102875335, 1656107875000]),
    ],
)
def test_arrays_are_little_endian(datatype, data, values):
    np.testing.assert_allclose(read_array(bytes.fromhex(data), datatype), values, rtol=1e-7)


def test_string_arrays_and_wrong_arrays():
    assert read_strings(b"ABC\0hello\0") == ["ABC", "hello"]
    assert read_strings(b"") == []
    for call in (
        lambda: read_strings(b"ABC"),
        lambda: read_strings(b"\xff\0"),
        lambda: read_array(b"abc", DataType.INT16_ARRAY),
        lambda: read_array(b"a", DataType.BOOLEAN_ARRAY),
        lambda: read_array(b"\x09\0\0\0\xff", DataType.BOOLEAN_ARRAY),
    ):
        with pytest.raises(BadPayload):
            call()


def test_arrays_with_a_rate_become_waveforms_and_others_text():
    plant = Plant()
    data = np.array([0.5, -0.25], "<f4").tobytes()
    out = plant.nbirth(
        OutMetric("acc", DataType.FLOAT_ARRAY, data, alias=1, properties={"fs_hz": 25600.0, "engUnit": "g"}),
        OutMetric("counts", DataType.INT16_ARRAY, struct.pack("<2h", -1, 2)),
        OutMetric("labels", DataType.STRING_ARRAY, b"a\0b\0"),
    )
    (burst,) = out.waveforms
    assert burst[:8] == (("G", "E", "acc"), NOW, 25600.0, "g", 2, "<f4", 1.0, data)
    assert [s.text for s in out.samples] == ["[-1,2]", '["a","b"]']
    (burst,) = plant.ndata(OutMetric(None, DataType.FLOAT_ARRAY, data, alias=1)).waveforms
    assert (burst.path[2], burst.fs_hz) == ("acc", 25600.0)


def test_a_rule_may_declare_the_rate_and_the_byte_order():
    text = (
        '[[rule]]\ntopic = "spBv1.0/#"\nformat = "sparkplug"\nsite = "{group}"\nmachine = "{edge}"\nsensor = "{metric}"\n'
        'raw = { fs_hz = 1000, byte_order = "big" }'
    )
    plant = Plant(Table(parse_rules(text, file="user.toml")[0], tenant="t"))
    (burst,) = plant.nbirth(OutMetric("acc", DataType.FLOAT_ARRAY, struct.pack(">2f", 0.5, 2.0))).waveforms
    assert (burst.fs_hz, np.frombuffer(burst.data, burst.dtype).tolist()) == (1000.0, [0.5, 2.0])


# births, aliases, names


def test_a_birth_stores_its_values_and_data_need_only_the_alias():
    plant = Plant()
    out = plant.nbirth(
        temp(alias=7, properties={"engUnit": "Cel"}), OutMetric("Node Control/Rebirth", DataType.BOOLEAN, False)
    )
    assert rows(out) == [("temp", NOW, 21.5, Quality.GOOD)]
    assert (out.samples[0].unit, out.liveness) == ("Cel", [Liveness(("G", "E"), True, NOW, "birth")])
    assert out.ignored == 2
    out = plant.ndata(temp(22.5, name=None, alias=7, ts_ms=MS + 1))
    assert rows(out) == [("temp", NOW + 1000, 22.5, Quality.GOOD)]
    assert out.samples[0].unit == "Cel"
    assert plant.host.due(NOW + 60 * SECOND) == []


def test_alias_zero_is_an_alias_and_none_is_not():
    plant = Plant()
    plant.nbirth(temp(alias=0))
    assert rows(plant.ndata(temp(1.0, name=None, alias=0), seq=1)) == [("temp", NOW, 1.0, 192)]
    out = plant.ndata(temp(1.0, name=None), seq=2)
    assert ([r.reason for r in out.rejected], out.samples) == ([Reason.UNKNOWN_ALIAS], [])


def test_devices_have_names_of_their_own():
    plant = Plant()
    plant.nbirth()
    out = plant.send("DBIRTH", message(temp(alias=1), seq=1), device="D")
    assert [s.path for s in out.samples] == [("G", "E/D", "temp")]
    assert out.liveness == [Liveness(("G", "E/D"), True, NOW, "birth")]
    assert [s.path for s in plant.send("DDATA", message(temp(5.0, name=None, alias=1), seq=2), device="D").samples] == [
        ("G", "E/D", "temp")
    ]
    assert plant.host.due(NOW) == []


def test_a_rebirth_replaces_the_aliases():
    plant = Plant()
    plant.nbirth(temp(alias=1), OutMetric("rpm", DataType.INT32, 100, alias=2))
    plant.nbirth(temp(alias=2), OutMetric("rpm", DataType.INT32, 100, alias=1))
    out = plant.ndata(temp(5.0, name=None, alias=2), OutMetric(None, DataType.INT32, -9, alias=1))
    assert [(r[0], r[2]) for r in rows(out)] == [("temp", 5.0), ("rpm", -9.0)]


def test_null_transient_historical_and_quality():
    plant = Plant()
    plant.nbirth(temp(alias=1))
    out = plant.ndata(
        temp(None, name=None, alias=1, ts_ms=MS + 1),
        temp(1.0, name=None, alias=1, is_transient=True),
        temp(2.0, name=None, alias=1, ts_ms=MS + 2, is_historical=True),
        temp(3.0, name=None, alias=1, ts_ms=MS + 3, properties={"Quality": 500}),
        temp(4.0, name=None, alias=1, ts_ms=MS + 4, properties={"Quality": 0}),
        temp(5.0, name=None, alias=1, ts_ms=MS + 5, properties={"Quality": 216}),
        temp(float("nan"), name=None, alias=1, ts_ms=MS + 6),
    )
    assert [(r[2], r[3]) for r in rows(out)] == [(None, 0), (2.0, 192), (3.0, 500), (4.0, 0), (5.0, 192), (None, 0)]
    assert [s.flags for s in out.samples] == [0, Flag.HISTORICAL, 0, 0, 0, 0]
    assert out.ignored == 1


def test_the_payloads_time_stands_in_for_the_metrics():
    plant = Plant()
    plant.nbirth(temp(alias=1))
    sent = Payload(timestamp=MS + 9, seq=1)
    sent.metrics.add(alias=1, double_value=2.0)
    assert plant.send("NDATA", sent.SerializeToString()).samples[0].ts_us == NOW + 9000
    sent = Payload(seq=2)
    sent.metrics.add(alias=1, double_value=2.0)
    assert plant.send("NDATA", sent.SerializeToString()).samples[0].ts_us is None


def test_large_integers_are_flagged():
    out = Plant().nbirth(OutMetric("n", DataType.UINT64, 2**53 + 1))
    assert (out.samples[0].value, out.samples[0].flags) == (2.0**53, Flag.INEXACT)


def test_data_sets_and_templates():
    sent = Payload(timestamp=MS, seq=0)
    table = sent.metrics.add(name="table", datatype=DataType.DATASET, timestamp=MS).dataset_value
    table.num_of_columns = 2
    table.columns.extend(["a", "b"])
    table.types.extend([DataType.INT8, DataType.STRING])
    row = table.rows.add()
    row.elements.add(int_value=0xFF)
    row.elements.add(string_value="x")
    assert read_dataset(table) == '{"columns":["a","b"],"rows":[[-1,"x"]]}'
    motor = sent.metrics.add(name="motor", datatype=DataType.TEMPLATE, timestamp=MS).template_value
    motor.metrics.add(name="rpm", datatype=DataType.INT32, int_value=1480, timestamp=MS)
    definition = sent.metrics.add(name="Motor", datatype=DataType.TEMPLATE, timestamp=MS).template_value
    definition.is_definition = True
    plant = Plant()
    out = plant.send("NBIRTH", sent.SerializeToString())
    assert [(r[0], r[2]) for r in rows(out)] == [
        ("table", '{"columns":["a","b"],"rows":[[-1,"x"]]}'),
        ("motor/rpm", 1480.0),
    ]
    assert out.ignored == 1
    changed = Payload(timestamp=MS, seq=1)
    changed.metrics.add(name="motor", timestamp=MS + 1).template_value.metrics.add(name="rpm", int_value=1500)
    assert rows(plant.send("NDATA", changed.SerializeToString())) == [("motor/rpm", NOW + 1000, 1500.0, 192)]


@pytest.mark.parametrize(
    "datatype",
    [DataType.STRING, DataType.DATETIME, DataType.DATASET, DataType.TEMPLATE, DataType.BYTES, DataType.FLOAT_ARRAY],
)
def test_a_value_in_the_wrong_field_is_refused(datatype):
    sent = Payload(timestamp=MS, seq=0)
    sent.metrics.add(name="m", datatype=datatype, boolean_value=True)
    out = Plant().send("NBIRTH", sent.SerializeToString())
    assert ([r.reason for r in out.rejected], out.samples) == ([Reason.BAD_VALUE], [])


def test_an_empty_template_is_ignored():
    sent = Payload(timestamp=MS, seq=0)
    sent.metrics.add(name="m", datatype=DataType.TEMPLATE).template_value.SetInParent()
    assert Plant().send("NBIRTH", sent.SerializeToString()).ignored == 1


def test_a_unit_that_cannot_be_stored_is_refused_every_time():
    plant = Plant()
    assert len(plant.nbirth(temp(alias=1, properties={"engUnit": "x" * 100})).rejected) == 1
    assert len(plant.ndata(temp(name=None, alias=1)).rejected) == 1


def test_a_compressed_payload():
    inner = message(temp(), seq=0)
    sent = Payload(uuid=COMPRESSED, body=gzip.compress(inner), seq=0)
    assert rows(Plant().send("NBIRTH", sent.SerializeToString())) == [("temp", NOW, 21.5, 192)]
    bomb = Payload(uuid=COMPRESSED, body=gzip.compress(b"\0" * 20_000_000), seq=0)
    with pytest.raises(BadPayload):
        Plant().send("NBIRTH", bomb.SerializeToString())


# deaths


def test_a_node_death_makes_everything_stale_at_our_time():
    plant = Plant()
    plant.nbirth(temp(alias=1), OutMetric("mode", DataType.STRING, "auto"), bd_seq=3)
    plant.send("DBIRTH", message(temp(name="rpm"), seq=1), device="D")
    out = plant.ndeath(bd_seq=3, now=NOW + SECOND)
    assert [(s.path, s.ts_us, s.value, s.quality) for s in out.samples] == [
        (("G", "E/D", "rpm"), NOW + SECOND, None, Quality.STALE),
        (("G", "E", "temp"), NOW + SECOND, None, Quality.STALE),
    ]
    assert [(event.path, event.is_online) for event in out.liveness] == [(("G", "E/D"), False), (("G", "E"), False)]
    assert plant.ndeath(bd_seq=3).samples == []


def test_the_death_of_an_earlier_connection_is_ignored():
    plant = Plant()
    plant.nbirth(temp(), bd_seq=4)
    out = plant.ndeath(bd_seq=3)
    assert (out.samples, out.liveness, out.ignored) == ([], [], 1)


def test_a_device_death_leaves_the_node_alone():
    plant = Plant()
    plant.nbirth(temp(alias=1))
    plant.send("DBIRTH", message(temp(name="rpm"), seq=1), device="D")
    out = plant.send("DDEATH", message(seq=2), device="D")
    assert [(s.path[2], s.quality) for s in out.samples] == [("rpm", Quality.STALE)]
    assert rows(plant.ndata(temp(1.0, name=None, alias=1), seq=3)) == [("temp", NOW, 1.0, 192)]
    assert plant.host.due(NOW + 60 * SECOND) == []


# sequence numbers and rebirths


def asked(plant: Plant, now: int) -> list[str]:
    return [command.topic for command in plant.host.due(now)]


def test_the_request_is_the_command_of_the_standard():
    plant = Plant()
    plant.ndata(temp(name=None, alias=1))
    (command,) = plant.host.due(NOW)
    sent = Payload.FromString(command.payload)
    assert command.topic == "spBv1.0/G/NCMD/E"
    assert [(m.name, m.datatype, m.boolean_value, m.timestamp) for m in sent.metrics] == [
        ("Node Control/Rebirth", DataType.BOOLEAN, True, MS)
    ]
    assert not sent.HasField("seq")


def test_the_sequence_wraps():
    plant = Plant()
    plant.nbirth(temp(alias=1), seq=250)
    for step in range(1, 20):
        plant.ndata(temp(alias=1, name=None), seq=(250 + step) % 256)
    assert asked(plant, NOW + 60 * SECOND) == []


def test_a_gap_that_closes_in_time_is_none():
    plant = Plant()
    plant.nbirth(temp(alias=1))
    for seq in (2, 4, 3):
        assert len(plant.ndata(temp(alias=1, name=None), seq=seq).samples) == 1  # stored although out of order
    assert asked(plant, NOW + SECOND) == []
    plant.ndata(temp(alias=1, name=None), seq=1, now=NOW + SECOND)
    assert asked(plant, NOW + 60 * SECOND) == []
    assert plant.host.counters.gaps == 0


def test_a_gap_that_stays_asks_for_a_rebirth_once():
    plant = Plant()
    plant.nbirth(temp(alias=1))
    plant.ndata(temp(alias=1, name=None), seq=2)
    assert asked(plant, NOW + 2 * SECOND - 1) == []
    assert asked(plant, NOW + 2 * SECOND) == ["spBv1.0/G/NCMD/E"]
    plant.ndata(temp(alias=1, name=None), seq=3, now=NOW + 3 * SECOND)
    assert asked(plant, NOW + 4 * SECOND) == []
    assert plant.host.counters.gaps == 1


def test_requests_are_repeated_ever_more_slowly_and_end_with_the_birth():
    plant = Plant()
    plant.ndata(temp(alias=1, name=None))
    times = [t for t in range(0, 200, 1) if asked(plant, NOW + t * SECOND)]
    assert times == [0, 10, 30, 70, 150]
    plant.nbirth(temp(alias=1))
    assert asked(plant, NOW + 10_000 * SECOND) == []


def test_a_node_that_never_says_all_is_not_asked_without_end():
    plant = Plant()
    times = []
    for t in range(300):
        plant.nbirth(now=NOW + t * SECOND)
        plant.ndata(temp(alias=9, name=None), now=NOW + t * SECOND)
        if asked(plant, NOW + t * SECOND):
            times.append(t)
    assert times == [0, 10, 30, 70, 150]


def test_many_nodes_are_not_asked_at_once():
    plant = Plant()
    for i in range(120):
        plant.ndata(temp(alias=1, name=None), edge=f"E{i}")
    batches = [len(asked(plant, NOW + t)) for t in range(4)]
    assert batches == [50, 50, 20, 0]


def test_data_before_the_birth():
    plant = Plant()
    out = plant.ndata(temp(name=None, alias=1), temp(2.0), OutMetric("n", DataType.INT32, -1))
    assert [(s.path[2], s.value) for s in out.samples] == [("temp", 2.0), ("n", -1.0)]  # they say everything themselves
    assert [r.reason for r in out.rejected] == [Reason.BEFORE_BIRTH]
    assert asked(plant, NOW) == ["spBv1.0/G/NCMD/E"]


def test_an_unknown_alias_is_never_stored_under_a_made_up_name():
    plant = Plant()
    plant.nbirth(temp(alias=1))
    out = plant.ndata(temp(name=None, alias=1), temp(name=None, alias=2))
    assert ([s.path[2] for s in out.samples], [r.reason for r in out.rejected]) == (["temp"], [Reason.UNKNOWN_ALIAS])
    assert asked(plant, NOW) == ["spBv1.0/G/NCMD/E"]


def test_an_integer_without_its_datatype_is_not_guessed():
    plant = Plant()
    plant.nbirth()
    sent = Payload(timestamp=MS, seq=1)
    sent.metrics.add(name="n", int_value=0xFFFFFFFF)
    out = plant.send("NDATA", sent.SerializeToString())
    assert ([r.reason for r in out.rejected], out.samples) == ([Reason.UNKNOWN_METRIC], [])


def test_a_malformed_payload_asks_for_a_rebirth():
    plant = Plant()
    plant.nbirth(temp(alias=1))
    with pytest.raises(BadPayload) as caught:
        plant.send("NDATA", b"\xff\xff")
    assert caught.value.reason is Reason.BAD_SYNTAX
    assert asked(plant, NOW) == ["spBv1.0/G/NCMD/E"]


@pytest.mark.parametrize(
    "topic",
    [
        "spBv1.0/G",
        "spBv1.0/G/XDATA/E",
        "spBv1.0/G/NDATA/E/D",
        "spBv1.0/G/DDATA/E",
        "spBv1.0/G/DDATA/E/D/X",
        "spBv1.0/G/NDATA/",
    ],
)
def test_wrong_topics_are_refused(topic):
    with pytest.raises(BadPayload):
        Host().receive(TABLE.route(topic).context, topic, message(temp(), seq=0), NOW)


@pytest.mark.parametrize("topic", ["spBv1.0/STATE/host", "spBv1.0/G/NCMD/E", "spBv1.0/G/DCMD/E/D"])
def test_commands_and_states_are_ignored(topic):
    assert Host().receive(TABLE.route(topic).context, topic, b"{}", NOW) == Decoded(ignored=1)


def test_limits():
    with pytest.raises(BadPayload, match="edge nodes"):
        plant = Plant(max_nodes=1)
        plant.nbirth(edge="A")
        plant.nbirth(edge="B")
    out = Plant().nbirth(temp(name="x" * 300), temp(name="a\0b"), temp())
    assert ([s.path[2] for s in out.samples], len(out.rejected)) == (["temp"], 2)


# restarts


def test_the_aliases_survive_a_restart():
    plant = Plant()
    plant.nbirth(temp(alias=1, properties={"engUnit": "Cel"}), OutMetric("n", DataType.INT8, 1, alias=2))
    plant.send("DBIRTH", message(temp(name="rpm", alias=3), seq=1), device="D")
    kept = plant.host.take_changed()
    assert list(kept) == [("acme", "G", "E")]
    assert plant.host.take_changed() == {}
    again = Plant()
    for key, exported in kept.items():
        again.host.restore(TABLE.route("spBv1.0/G/NDATA/E").context, key, exported)
    out = again.ndata(temp(5.0, name=None, alias=1), OutMetric(None, DataType.INT8, -1, alias=2), seq=77)
    assert [(s.path, s.value, s.unit) for s in out.samples] == [
        (("G", "E", "temp"), 5.0, "Cel"),
        (("G", "E", "n"), -1.0, None),
    ]
    assert again.send("DDATA", message(temp(name=None, alias=3), seq=78), device="D").rejected == []
    assert asked(again, NOW) == ["spBv1.0/G/NCMD/E"]  # it may have been born differently while nobody listened
    assert again.ndeath(bd_seq=9).liveness != []


@pytest.mark.parametrize(
    "exported",
    [
        b"",
        b"[]",
        b'{"version": 2}',
        b'{"version": 1, "devices": {"": [[1]]}}',
        b'{"version": 1, "devices": {"": [["a", 1, 99, null, null]]}}',
    ],
)
def test_a_broken_alias_map_is_refused(exported):
    with pytest.raises(BadPayload):
        Host().restore(TABLE.route("spBv1.0/G/NDATA/E").context, ("acme", "G", "E"), exported)


# any order, any bytes


@settings(max_examples=60)
@given(st.integers(1, 40), st.data())
def test_whatever_is_lost_or_late_no_value_is_stored_under_a_wrong_name(messages, data):
    plant = Plant()
    births = {}  # what each alias means now
    now = NOW
    for _ in range(messages):
        now += data.draw(st.integers(0, 3 * SECOND))
        if data.draw(st.integers(0, 4)) == 0 or not births:
            names = data.draw(st.permutations(["a", "b", "c"]))
            births = dict(enumerate(names))
            plant.nbirth(*(temp(float(ord(n)), name=n, alias=i) for i, n in births.items()), now=now)
        else:
            alias = data.draw(st.integers(0, 4))
            seq = data.draw(st.integers(0, 255))
            value = float(ord(births[alias])) if alias in births else 1.0
            out = plant.ndata(temp(value, name=None, alias=alias), seq=seq, now=now)
            assert len(out.samples) + len(out.rejected) == 1
            assert [chr(int(s.value)) for s in out.samples] == [s.path[2] for s in out.samples]
        plant.host.due(now)


@given(st.permutations(range(1, 9)))
def test_any_order_within_the_reorder_time_needs_no_rebirth(order):
    plant = Plant()
    plant.nbirth(temp(alias=1))
    for seq in order:
        assert len(plant.ndata(temp(name=None, alias=1), seq=seq).samples) == 1
    plant.ndata(temp(name=None, alias=1), seq=9)
    assert asked(plant, NOW + 60 * SECOND) == []


@settings(max_examples=40)
@given(st.sets(st.integers(1, 20), min_size=1, max_size=5))
def test_any_loss_is_noticed(lost):
    plant = Plant()
    plant.nbirth(temp(alias=1))
    for seq in range(1, 22):
        if seq not in lost:
            plant.ndata(temp(name=None, alias=1), seq=seq)
    assert asked(plant, NOW + 2 * SECOND) == ["spBv1.0/G/NCMD/E"]


KINDS = st.sampled_from(["NBIRTH", "NDATA", "NDEATH", "DBIRTH", "DDATA", "DDEATH"])


def storable(out: Decoded) -> None:
    for sample in out.samples:
        assert sample.value is None or np.isfinite(sample.value)
        assert sample.text is None or "\0" not in sample.text
        assert all(sample.path)
        assert sample.quality in {0, 192, 500}


@given(st.lists(st.tuples(KINDS, st.binary(max_size=60)), max_size=6))
def test_any_bytes(messages):
    plant = Plant()
    for kind, payload in messages:
        try:
            storable(plant.send(kind, payload, device="D" if kind[0] == "D" else ""))
        except BadPayload:
            continue


fields = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["", "temp", "bdSeq", "a\0", "x" * 250]),
        "alias": st.integers(0, 3),
        "timestamp": st.integers(0, 2**64 - 1),
        "datatype": st.integers(0, 40),
        "is_null": st.booleans(),
        "is_transient": st.booleans(),
        "is_historical": st.booleans(),
    },
)
contents = st.one_of(
    st.builds(lambda v: {"int_value": v}, st.integers(0, 2**32 - 1)),
    st.builds(lambda v: {"long_value": v}, st.integers(0, 2**64 - 1)),
    st.builds(lambda v: {"float_value": v}, st.floats(width=32)),
    st.builds(lambda v: {"double_value": v}, st.floats()),
    st.builds(lambda v: {"boolean_value": v}, st.booleans()),
    st.builds(lambda v: {"string_value": v}, st.text(max_size=4)),
    st.builds(lambda v: {"bytes_value": v}, st.binary(max_size=12)),
    st.just({}),
)


@settings(max_examples=50)
@given(st.lists(st.tuples(KINDS, st.integers(0, 300), st.lists(st.tuples(fields, contents), max_size=4)), max_size=6))
def test_any_metrics(messages):
    plant = Plant()
    for kind, seq, metrics in messages:
        sent = Payload(timestamp=MS, seq=seq)
        for described, content in metrics:
            sent.metrics.add(**described, **content)
        try:
            out = plant.send(kind, sent.SerializeToString(), device="D" if kind[0] == "D" else "")
        except BadPayload:
            continue
        storable(out)
        if kind not in {"NDEATH", "DDEATH"}:
            assert len(out.samples) + len(out.waveforms) + len(out.rejected) + out.ignored == len(metrics)
    plant.host.take_changed()
    plant.host.due(NOW + 60 * SECOND)


# the host's own state


def test_birth_and_will_carry_the_same_time_and_a_death_a_fresh_one():
    state = HostState("fettle", connect_us=NOW)
    assert state.will() == ("spBv1.0/STATE/fettle", b'{"online":false,"timestamp":%d}' % MS)
    assert state.birth() == ("spBv1.0/STATE/fettle", b'{"online":true,"timestamp":%d}' % MS)
    assert read_state(state.death(now_us=NOW).payload) == (False, MS + 1)


def test_a_host_contradicts_who_says_it_is_offline():
    state = HostState("fettle", connect_us=NOW)
    assert state.answer(state.topic, state.will().payload) == state.birth()
    assert state.answer(state.topic, b"") == state.birth()
    assert state.answer(state.topic, state.birth().payload) is None
    assert state.answer("spBv1.0/STATE/other", state.will().payload) is None
    state.death(now_us=NOW + SECOND)
    assert state.answer(state.topic, state.will().payload) is None


def test_state_payloads_of_both_generations():
    assert read_state(b"ONLINE") == (True, None)
    assert read_state(b"OFFLINE") == (False, None)
    for payload in (
        b"",
        b"[]",
        b'{"online": 1, "timestamp": 2}',
        b'{"online": true}',
        b'{"online": true, "timestamp": -1}',
    ):
        with pytest.raises(BadPayload):
            read_state(payload)
