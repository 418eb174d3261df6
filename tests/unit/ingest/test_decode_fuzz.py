"""Whatever bytes arrive: a result that can be stored, or BadPayload."""

import json
import math

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.decode import BadPayload, Decoded
from ingest.topics import Table, load_table, parse_rules

NOW = 1_795_219_200_000_000
RAW = """
[[rule]]
topic = "raw/{machine}"
format = "waveform"
site = "s"
raw = { dtype = ">i2", fs_hz = "rate", header = [["t0", "<u8"], ["rate", "<f4"]], t0 = "t0" }
"""
SHIPPED = load_table(tenant="default")
TABLE = Table([*parse_rules(RAW, file="raw")[0], *SHIPPED.rules], tenant="default")
TOPICS = {
    "json value": "fettle/acme/munich/press-4/temp",
    "json machine": "fettle/acme/munich/press-4",
    "umh": "umh/v1/acme/munich/_raw/temp",
    "senml": "senml/munich/press-4",
    "line": "line/munich",
    "tasmota": "tele/plug/SENSOR",
    "availability": "tele/plug/LWT",
    "zigbee2mqtt": "zigbee2mqtt/hall/lamp",
    "opcua": "opcua/json/data/plant/line-1/press",
    "opcua status": "opcua/json/status/plant",
    "ditto": "ditto/events",
    "waveform": "raw/m",
}
ROUTES = {name: TABLE.route(topic) for name, topic in TOPICS.items()}
WORDS = {
    "json value": ["ts", "value", "unit", "quality", "t0", "dt", "fs", "values", "name", "t", "v", "q", "units"],
    "senml": ["bn", "bt", "bu", "bv", "bs", "bver", "n", "u", "v", "vs", "vb", "vd", "s", "t", "ut", "x_"],
    "tasmota": ["Time", "DS18B20", "Temperature", "TempUnit", "ENERGY", "Power", "Id"],
    "zigbee2mqtt": ["last_seen", "temperature", "update", "state", "action"],
    "opcua": [
        "MessageId", "MessageType", "PublisherId", "Messages", "DataSetWriterId", "Timestamp", "Status", "Payload", "Value",
        "Type", "Body", "UaType", "SourceTimestamp", "Code", "WriterGroupName", "IsCyclic",
    ],
    "ditto": ["topic", "path", "value", "timestamp", "features", "properties"],
}  # fmt: skip
TEXTS = [
    "2026-01-05T10:00:00", "NaN", "", "ua-data", "ua-status", "plant/press/things/twin/events/modified",
    "/features/m/properties/t", "a\0b", "\ud800", "online", "x" * 300, "18446744073709551615", "A", "é/ü",
]  # fmt: skip


def json_values(words):
    leaves = (
        st.none()
        | st.booleans()
        | st.integers(-(2**70), 2**70)
        | st.floats()
        | st.sampled_from([0, 1, 8, 10, 11, 13, 15, 1795219200, 1795219200000, *TEXTS])
        | st.text(max_size=4)
    )
    keys = st.sampled_from(words) | st.text(max_size=3)
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=5), max_leaves=12
    )


def storable(out: Decoded) -> None:
    """What the tables need: finite numbers or null, a time within PostgreSQL, names and texts without NUL."""
    for sample in out.samples:
        assert all(sample.path)
        assert not any("\0" in name for name in sample.path)
        assert sample.value is None or (type(sample.value) is float and math.isfinite(sample.value))
        assert sample.ts_us is None or -62_135_596_800_000_000 <= sample.ts_us < 253_402_300_800_000_000
        assert sample.quality in {0, 192, 500}
        assert sample.text is None or (
            sample.value is None and "\0" not in sample.text and sample.text.encode() is not None
        )
        assert sample.unit is None or (len(sample.unit) <= 64 and sample.unit.isprintable())
    for burst in out.waveforms:
        assert burst.n > 0
        assert burst.fs_hz > 0
        assert len(burst.data) == burst.n * int(burst.dtype[-1])
    # nothing vanishes: every message leaves a trace in one of the counts
    assert out.samples or out.waveforms or out.liveness or out.rejected or out.ignored


def check(name: str, payload: bytes) -> None:
    try:
        out = ROUTES[name].codec(ROUTES[name].context, payload, NOW)
    except BadPayload:
        return
    storable(out)


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("opcua", {"Status": [], "IsCyclic": None}),
        ("umh", {"dt": 1, "values": {}}),
    ],
)
def test_what_the_fuzzer_once_found(name, body):
    check(name, json.dumps(body).encode())


@pytest.mark.parametrize("vocabulary", WORDS)
@settings(max_examples=60)
@given(data=st.data())
def test_any_json(vocabulary, data):
    payload = json.dumps(data.draw(json_values(WORDS[vocabulary]))).encode("utf-8", "surrogatepass")
    for name in TOPICS:
        check(name, payload)


@given(payload=st.binary(max_size=60))
def test_any_bytes(payload):
    for name in TOPICS:
        check(name, payload)


@given(st.text(st.sampled_from('ab,= "\\\n#19.eitTuN-_é'), max_size=40))
def test_any_line(text):
    check("line", text.encode())


@given(st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=4) | st.binary(max_size=4)
    | st.decimals(allow_nan=True) | st.datetimes().map(lambda d: cbor2.CBORTag(0, d.isoformat())),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.integers(-7, 9) | st.text(max_size=2), inner, max_size=5),
    max_leaves=12,
))  # fmt: skip
def test_any_cbor(body):
    check("senml", cbor2.dumps([body] if isinstance(body, dict) else body))


@given(st.binary(max_size=40).map(lambda b: b"\x82" + b))
def test_any_bytes_as_cbor(payload):
    check("senml", payload)
