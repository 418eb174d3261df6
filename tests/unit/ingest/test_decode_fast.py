"""The fast readers say exactly what the codec says, or nothing."""

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ingest.decode import BadPayload, decode_signals, decode_value
from ingest.topics import load_table

NOW = 1_795_219_200_000_000
TABLE = load_table(tenant="default")
VALUE = TABLE.route("fettle/acme/munich/press-4/temp")
MACHINE = TABLE.route("fettle/acme/munich/press-4")

keys = st.sampled_from(
    [
        "ts",
        "value",
        "unit",
        "v",
        "val",
        "values",
        "quality",
        "q",
        "t0",
        "dt",
        "fs",
        "units",
        "temp",
        "a",
        "time",
        "name",
        "u",
    ]
)
leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["mm/s", "good", "", "x" * 70, "a\0b", "2026-01-01T00:00:00Z"])
)
values = leaves | st.lists(leaves, max_size=3) | st.dictionaries(keys, leaves, max_size=3)
stamps = st.integers(1_700_000_000_000, 1_800_000_000_000)
objects = st.dictionaries(keys, values, max_size=6) | st.builds(
    lambda body, ts: {**body, "ts": ts}, st.dictionaries(keys, values, max_size=5), stamps
)


def test_the_shipped_routes_of_our_own_topics_are_plain():
    assert VALUE.is_plain
    assert MACHINE.is_plain
    assert not TABLE.route("zigbee2mqtt/lamp").is_plain


def test_a_value():
    assert decode_value(b'{"ts":1795219200000,"value":2.314,"unit":"mm/s"}') == (NOW, 2.314, "mm/s", 192, 0)
    assert decode_value(b'{"value":2,"ts":1795219200000}') == (NOW, 2.0, None, 192, 0)


def test_signals_in_the_senders_order():
    assert decode_signals(b'{"b":1.5,"ts":1795219200000,"a":2,"units":{"a":"A"}}') == (
        NOW,
        ("b", "a"),
        [1.5, 2.0],
        {"a": "A"},
    )


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"23.4",
        b"ON",
        b"[1]",
        b"null",
        b'"ts"',
        b"{",
        b"\xff",
        b'{"ts":1795219200000}',
        b'{"ts":"2026-01-01T00:00:00Z","value":1.5}',
        b'{"ts":1795219200000,"value":null}',
        b'{"ts":1795219200000,"value":true}',
        b'{"ts":1795219200000,"value":9007199254740993}',
        b'{"ts":1795219200000,"value":1.5,"quality":0}',
        b'{"ts":1795219200000,"value":1.5,"unit":7}',
        b'{"ts":true,"value":1.5}',
    ],
)
def test_anything_else_is_left_to_the_codec(payload):
    assert decode_value(payload) is None
    if b"quality" not in payload:
        assert decode_signals(payload) is None


@given(objects)
@example({"ts": 1795219200000, "value": 1.5, "unit": "g"})
@example({"ts": 1795219200000, "value": -0.0})
def test_a_fast_value_equals_the_codecs(body):
    payload = orjson.dumps(body)
    fast = decode_value(payload)
    if fast is None:
        return
    (sample,) = VALUE.decode(payload, NOW).samples
    assert fast == (sample.ts_us, sample.value, sample.unit, sample.quality, sample.flags)


@given(objects)
@example({"ts": 1795219200000, "a": 1.5, "temp": 2, "units": {"a": "g"}})
@example({"ts": 1795219200000, "q": 1.5, "t": 3.0})
def test_fast_signals_equal_the_codecs(body):
    payload = orjson.dumps(body)
    fast = decode_signals(payload)
    if fast is None:
        return
    ts_us, names, numbers, units = fast
    try:
        out = MACHINE.decode(payload, NOW)
    except BadPayload as bad:
        pytest.fail(f"the codec refuses what the fast reader takes: {bad}")
    rejected = len(out.rejected)
    assert len(out.samples) + rejected == len(names)
    by_name = {sample.path[2]: sample for sample in out.samples}
    for name, number in zip(names, numbers, strict=True):
        try:
            path = MACHINE.context.path(name)
            unit = MACHINE.context.unit(
                name, (units or {}).get(name) if isinstance((units or {}).get(name), str) else None
            )
        except BadPayload:
            rejected -= 1
            continue
        sample = by_name[path[2]]
        assert (sample.ts_us, sample.value, sample.unit, sample.quality, sample.flags) == (ts_us, number, unit, 192, 0)
    assert rejected == 0
