"""Plain JSON: every accepted shape, and what is refused with which reason."""

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fettle.model import Flag, Quality
from fettle.wire import encode_reading, encode_signals
from ingest.decode import BadPayload, CodecOptions, Context, Decoded, Limits, Reason, Sample
from ingest.decode.naming import Naming, Template
from ingest.decode.plain import decode, decode_body

NOW = 1_795_219_200_000_000
TS = 1_795_219_200_000


def context(sensor: str = "temp", **options) -> Context:
    naming = Naming(Template("{site}"), Template("{machine}"), Template("{sensor}.{key}"))
    captures = {"site": "munich", "machine": "press-4", **({"sensor": sensor} if sensor else {})}
    return Context(tenant="acme", captures=captures, naming=naming, options=CodecOptions(**options))


def read(payload: bytes, *, sensor: str = "temp", **options) -> Decoded:
    return decode(context(sensor, **options), payload, NOW)


def one(payload: bytes, **options) -> Sample:
    out = read(payload, **options)
    assert (len(out.samples), out.rejected, out.waveforms, out.liveness) == (1, [], [], [])
    return out.samples[0]


def by_sensor(payload: bytes, **options) -> dict[str, Sample]:
    out = read(payload, sensor="", **options)
    assert out.rejected == []
    return {sample.path[2]: sample for sample in out.samples}


def refused(payload: bytes, **options) -> Reason:
    with pytest.raises(BadPayload) as caught:
        read(payload, **options)
    return caught.value.reason


@pytest.mark.parametrize(
    ("payload", "value", "text"),
    [
        (b"23.4", 23.4, None),
        (b" -7 ", -7.0, None),
        (b"1e3", 1000.0, None),
        (b"true", 1.0, None),
        (b"false", 0.0, None),
        (b"ON", None, "ON"),
        (b"closed by operator", None, "closed by operator"),
        (b'"running"', None, "running"),
        ("运行".encode(), None, "运行"),
    ],
)
def test_a_bare_scalar_is_a_reading_without_a_time(payload, value, text):
    assert one(payload) == Sample(("munich", "press-4", "temp"), None, value, None, Quality.GOOD, 0, text)


@pytest.mark.parametrize("payload", [b'"NaN"', b"NaN", b"-Infinity", b'"inf"', b"nan", b"null"])
def test_what_is_no_number_becomes_a_null_reading_of_bad_quality(payload):
    assert one(payload) == Sample(("munich", "press-4", "temp"), None, None, None, Quality.BAD, 0)


@pytest.mark.parametrize("value_key", ["value", "v", "val"])
@pytest.mark.parametrize("time_key", ["ts", "time", "timestamp", "timestamp_ms", "t"])
def test_an_object_with_time_and_value(time_key, value_key):
    sample = one(f'{{"{time_key}": {TS}, "{value_key}": 2.31, "unit": "mm/s"}}'.encode())
    assert sample == Sample(("munich", "press-4", "temp"), NOW, 2.31, "mm/s", Quality.GOOD, 0)


def test_what_the_simulators_send_comes_back():
    assert one(encode_reading(ts_us=NOW + 1234, value=1.25, unit="g"))[1:4] == (NOW + 1234, 1.25, "g")
    assert one(encode_reading(ts_us=NOW, value=None))[1:5] == (NOW, None, None, Quality.BAD)
    got = by_sensor(encode_signals(ts_us=NOW, values={"a": 1.5, "b": None}, units={"a": "A"}))
    assert (got["a"].value, got["a"].unit, got["a"].ts_us) == (1.5, "A", NOW)
    assert (got["b"].value, got["b"].quality) == (None, Quality.BAD)


@pytest.mark.parametrize(
    ("sent", "quality"),
    [(0, 0), (192, 192), (500, 500), ('"good"', 192), ('"BAD"', 0), ('"stale"', 500), ("true", 192), ("false", 0)],
)
def test_quality(sent, quality):
    assert one(f'{{"value": 1, "quality": {sent}}}'.encode()).quality == quality


def test_a_quality_nobody_knows_is_refused():
    assert refused(b'{"value": 1, "quality": 77}') is Reason.BAD_QUALITY


def test_a_flat_object_is_one_reading_per_key():
    payload = f'{{"ts": {TS}, "vibration": 2.3, "motor": {{"current": 12, "on": true}}, "mode": "auto"}}'
    got = by_sensor(payload.encode())
    assert {name: (s.value, s.text, s.ts_us) for name, s in got.items()} == {
        "vibration": (2.3, None, NOW),
        "motor.current": (12.0, None, NOW),
        "motor.on": (1.0, None, NOW),
        "mode": (None, "auto", NOW),
    }


def test_nested_value_objects_carry_their_own_time_and_unit():
    got = by_sensor(b'{"temp": {"value": 21.5, "unit": "Cel", "ts": 1795219201}, "rpm": {"v": 1480}}')
    assert got["temp"][1:4] == (NOW + 1_000_000, 21.5, "Cel")
    assert got["rpm"][1:4] == (None, 1480.0, None)


def test_structured_values_become_text():
    assert by_sensor(b'{"spectrum": [1, 2.5, null]}')["spectrum"].text == "[1,2.5,null]"


def test_small_devices_call_the_temperature_t():
    got = by_sensor(b'{"t": 21.5, "h": 40}')
    assert {k: v.value for k, v in got.items()} == {"t": 21.5, "h": 40.0}


def test_a_key_beside_the_value_does_not_split_the_series():
    out = read(f'{{"ts": {TS}, "value": 5, "battery": 90}}'.encode())
    assert [(s.path[2], s.value) for s in out.samples] == [("temp", 5.0), ("temp.battery", 90.0)]


def test_units_come_from_the_payload_then_from_the_rule():
    got = by_sensor(
        b'{"a": 1.0, "x": {"b": 2.0}, "c": 3.0, "units": {"a": "A"}}', units={"a": "mA", "b": "V", "*": "-"}
    )
    assert {k: v.unit for k, v in got.items()} == {"a": "A", "x.b": "V", "c": "-"}


def test_an_array_holds_any_of_the_objects():
    out = read(b'[{"ts": 1795219200, "value": 1}, {"ts": 1795219201, "value": 2}, {"a": 3}]')
    assert [(s.path[2], s.ts_us, s.value) for s in out.samples] == [
        ("temp", NOW, 1.0),
        ("temp", NOW + 1_000_000, 2.0),
        ("temp.a", None, 3.0),
    ]


def test_named_records_in_an_array():
    got = by_sensor(b'[{"sensor": "temp", "value": 1}, {"name": "rpm", "value": 2}]')
    assert {k: v.value for k, v in got.items()} == {"temp": 1.0, "rpm": 2.0}


def test_a_wrong_record_costs_only_itself():
    out = read(b'[{"value": 1, "ts": 1795219200}, {"value": 2, "ts": "yesterday"}, [3]]')
    assert [s.value for s in out.samples] == [1.0]
    assert [r.reason for r in out.rejected] == [Reason.BAD_TIMESTAMP, Reason.BAD_STRUCTURE]


def test_large_integers_are_flagged_or_kept_as_text():
    big = 2**53 + 1
    assert one(str(big).encode())[2:6] == (float(2**53), None, Quality.GOOD, Flag.INEXACT)
    assert one(str(big).encode(), large_integers="text").text == str(big)
    assert one(str(2**53).encode()).flags == 0


def test_the_last_of_two_equal_keys_wins():
    assert one(b'{"value": 1, "value": 2}').value == 2.0


def test_words_and_numeric_strings_by_rule():
    assert one(b"ON", words={"ON": 1.0, "OFF": 0.0}).value == 1.0
    assert one(b'{"value": "OFF"}', words={"ON": 1.0, "OFF": 0.0}).value == 0.0
    assert one(b'"23.5"', numeric_strings=True).value == 23.5
    assert one(b'"23.5"').text == "23.5"
    assert one(b'"nan"', numeric_strings=True)[2:5] == (None, None, Quality.BAD)


def test_ignored_keys_are_counted():
    out = read(b'{"a": 1, "seq": 12}', sensor="", ignore_keys=frozenset({"seq"}))
    assert ([s.path[2] for s in out.samples], out.ignored) == (["a"], 1)


def test_a_fast_burst_is_a_waveform():
    out = read(b'{"t0": 1795219200, "fs": 25600, "values": [0.5, -0.25, null], "unit": "g"}')
    assert out.samples == []
    (burst,) = out.waveforms
    assert burst[:8] == (("munich", "press-4", "temp"), NOW, 25600.0, "g", 3, "<f4", 1.0, burst.data)
    np.testing.assert_array_equal(np.frombuffer(burst.data, "<f4"), np.array([0.5, -0.25, np.nan], "<f4"))


def test_a_burst_keeps_doubles_that_need_it():
    (burst,) = read(b'{"t0": 1795219200, "dt": 0.001, "values": [0.1]}').waveforms
    assert burst.dtype == "<f8"
    assert np.frombuffer(burst.data, "<f8")[0] == 0.1


def test_a_slow_burst_is_single_readings():
    out = read(b'{"t0": 1795219200, "dt": 0.5, "values": [1, 2, null]}')
    assert [(s.ts_us, s.value, s.quality) for s in out.samples] == [
        (NOW, 1.0, 192),
        (NOW + 500_000, 2.0, 192),
        (NOW + 1_000_000, None, 0),
    ]


def test_the_rule_decides_what_a_burst_becomes():
    payload = b'{"t0": 1795219200, "dt": 0.5, "values": [1, 2]}'
    assert len(read(payload, burst="waveform").waveforms) == 1
    assert len(read(b'{"t0": 1795219200, "fs": 1000, "values": [1, 2]}', burst="readings").samples) == 2


def test_a_burst_of_several_channels():
    out = read(b'{"t0": 1795219200, "fs": 1000, "values": {"x": [1], "y": [2]}}', sensor="")
    assert [w.path[2] for w in out.waveforms] == ["x", "y"]


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", Reason.BAD_SYNTAX),
        (b'{"value": 1', Reason.BAD_SYNTAX),
        (b"\xff\xfe", Reason.BAD_SYNTAX),
        (b'{"value": NaN}', Reason.BAD_SYNTAX),
        (b"a\0b", Reason.BAD_SYNTAX),
        (b"{}", Reason.BAD_STRUCTURE),
        (b'{"ts": 1795219200}', Reason.BAD_STRUCTURE),
        (b"[1, 2]", Reason.BAD_STRUCTURE),
        (b'{"value": 1, "ts": true}', Reason.BAD_TIMESTAMP),
        (b'{"value": 1, "ts": "soon"}', Reason.BAD_TIMESTAMP),
        (b'{"value": 1, "ts": 1e300}', Reason.BAD_TIMESTAMP),
        (b'{"value": "a\\u0000b"}', Reason.BAD_VALUE),
        (b'{"value": 1, "unit": "a\\u0000b"}', Reason.BAD_VALUE),
        (b'{"t0": 1, "dt": 0, "values": [1]}', Reason.BAD_VALUE),
        (b'{"t0": 1, "fs": "fast", "values": [1]}', Reason.BAD_VALUE),
        (b'{"t0": 1, "fs": 1000, "values": []}', Reason.BAD_STRUCTURE),
        (b'{"t0": 1, "fs": 1000, "values": [true]}', Reason.BAD_VALUE),
        (b'{"dt": 1, "values": [1, 2]}', Reason.BAD_TIMESTAMP),
    ],
)
def test_what_cannot_be_stored_says_why(payload, reason):
    assert refused(payload) is reason


def test_limits():
    limits = Limits(max_bytes=60, max_depth=2, max_records=2, max_key=5, max_text=5, max_waveform=3)
    assert refused(b'{"a": "' + b"x" * 60 + b'"}', limits=limits) is Reason.TOO_LARGE
    assert refused(b'{"a": {"b": {"c": 1}}}', limits=limits) is Reason.TOO_DEEP
    assert refused(b'[{"a": 1}, {"a": 1}, {"a": 1}]', limits=limits) is Reason.TOO_MANY
    assert refused(b'{"a": 1, "b": 2, "c": 3}', limits=limits) is Reason.TOO_MANY
    assert refused(b'{"t0": 1, "fs": 1000, "values": [1, 2, 3, 4]}', limits=limits) is Reason.TOO_MANY
    assert refused(b'"longer"', limits=limits) is Reason.BAD_VALUE
    out = read(b'{"a": 1, "abcdef": 2}', limits=limits)
    assert ([s.path[2] for s in out.samples], [r.reason for r in out.rejected]) == (["temp.a"], [Reason.BAD_NAME])


def test_a_deep_bomb_is_refused_before_it_is_walked():
    assert refused(b"[" * 900 + b"]" * 900) is Reason.TOO_DEEP
    assert refused(b"[" * 100_000 + b"]" * 100_000) is Reason.BAD_SYNTAX


def test_names_that_the_catalogue_cannot_hold_are_refused():
    assert refused(b"1", sensor="a\nb") is Reason.BAD_NAME
    assert refused(b"1", sensor="x" * 201) is Reason.BAD_NAME
    out = read(b'{"a": 1, "b\\u0007": 2}', sensor="")
    assert (len(out.samples), [r.reason for r in out.rejected]) == (1, [Reason.BAD_NAME])


keys = st.sampled_from(["ts", "time", "timestamp_ms", "t", "value", "v", "unit", "u", "quality", "name", "seq", "a"])
leaves = st.sampled_from(
    [None, True, 1.5, 7, 2**60, "Cel", "x" * 70, "NaN", "2026-11-21T00:00:00Z", 1795219200, TS, -1e300]
)


@given(st.dictionaries(keys, leaves, max_size=3), st.sampled_from([frozenset(), frozenset({"seq"})]))
def test_the_shape_kept_from_before_changes_nothing(body, ignore_keys):
    def outcome(function):
        out = Decoded()
        try:
            found = function(out)
        except BadPayload as bad:
            return bad.reason
        return found or out

    one_context = context(ignore_keys=ignore_keys)
    want = outcome(lambda out: decode_body(context(ignore_keys=ignore_keys), body, out))
    for _ in range(2):
        assert outcome(lambda _: decode(one_context, orjson.dumps(body), NOW)) == want
