"""The fast readers say exactly what the codec says, or nothing."""

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ingest.decode import BadPayload, decode_signals, decode_value, decode_values, parse_together
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
@example({"ts": 1795219200000, "q": 0})
@example({"ts": 1795219200000, "units": None, "a": 0})
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


pieces = st.sampled_from(
    [
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b"\n",
        b'"',
        b":",
        b"1",
        b'"ts":1795219200000',
        b'"value":1.5',
        b"},\n{",
        b"],\n[",
        b"\\",
    ]
)
torn = st.lists(pieces, max_size=6).map(b"".join)
flat = st.dictionaries(keys, leaves, max_size=4).map(orjson.dumps)


@given(st.lists(flat | torn | objects.map(orjson.dumps), min_size=1, max_size=6))
@example([b'{"a":1},{"b":2}', b'{"ts":1', b'"v":2}'])
@example([b'{"a":1},\n{"b":2}', b'{"u":"x', b'y"}'])
@example([b'{"a":1},\n{"b":2}', b"5", b'{"c":1}'])
@example([b'{"a":[1', b"2]}", b'{"b":1}'])
def test_what_is_parsed_together_is_what_each_says_alone(payloads):
    bodies = parse_together(payloads)
    if bodies is not None:
        assert bodies == [orjson.loads(payload) for payload in payloads]


@given(st.lists(flat, min_size=1, max_size=6))
def test_flat_objects_are_parsed_together(payloads):
    if not any(b"{" in payload[1:] for payload in payloads):
        assert parse_together(payloads) is not None


numbers = st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | st.none() | st.booleans()
one_value = st.builds(
    lambda ts, value, more: {"ts": ts, "value": value, **more},
    stamps | st.integers(0, 10**16) | st.floats(0, 1e15) | st.none(),
    numbers,
    st.dictionaries(st.sampled_from(["unit", "quality", "n"]), st.sampled_from(["A", "mm/s", "", 7, None]), max_size=2),
)


@given(st.lists(one_value, min_size=1, max_size=5), st.sampled_from([None, "A", "mm/s"]))
@example(
    [{"ts": 1_795_219_200_000, "value": 1, "unit": "A"}, {"ts": 1_795_219_200_000, "value": 1.5, "unit": "A"}], "A"
)
@example([{"ts": 1_795_219_200_000, "value": 1.5, "n": "A"}], None)
def test_values_read_together_are_what_each_says_alone(bodies, unit):
    got = decode_values(bodies, [unit] * len(bodies))
    alone = [decode_value(orjson.dumps(body)) for body in bodies]
    if got is not None:
        assert alone == [(ts, value, unit, 192, 0) for ts, value in zip(*got, strict=True)]
        assert {type(value) for value in got[1]} == {float}
    elif len({len(body) for body in bodies}) == 1:
        assert any(one is None or one[2] != unit for one in alone), "nothing kept it from reading them together"
