"""SenML: the examples of RFC 8428 and its rules."""

import cbor2
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.decode import BadPayload, Decoded, Limits, Reason
from ingest.decode.model import CodecOptions, Context
from ingest.decode.naming import Naming, Template
from ingest.decode.senml import decode

NOW = 1_795_219_200_000_000
NAMING = Naming(Template("site"), Template("machine"), Template("{key}"))
LABELS = {
    "bver": -1, "bn": -2, "bt": -3, "bu": -4, "bv": -5, "bs": -6,
    "n": 0, "u": 1, "v": 2, "vs": 3, "vb": 4, "s": 5, "t": 6, "ut": 7, "vd": 8,
}  # fmt: skip


def read(records, *, limits: Limits | None = None) -> Decoded:
    payload = records if isinstance(records, bytes) else orjson.dumps(records)
    options = CodecOptions(limits=limits or Limits())
    return decode(Context(tenant="t", captures={}, naming=NAMING, options=options), payload, NOW)


def rows(out: Decoded):
    assert out.rejected == []
    return [(s.path[2], s.ts_us, s.text if s.text is not None else s.value, s.unit) for s in out.samples]


def refused(records) -> Reason:
    with pytest.raises(BadPayload) as caught:
        read(records)
    return caught.value.reason


def test_single_data_point():  # RFC 8428, 5.1.1
    assert rows(read([{"n": "urn:dev:ow:10e2073a01080063", "u": "Cel", "v": 23.1}])) == [
        ("urn:dev:ow:10e2073a01080063", None, 23.1, "Cel")
    ]


MULTIPLE = [  # 5.1.3
    {
        "bn": "urn:dev:ow:10e2073a01080063",
        "bt": 1.276020076001e09,
        "bu": "A",
        "bver": 5,
        "n": "voltage",
        "u": "V",
        "v": 120.1,
    },
    {"n": "current", "t": -5, "v": 1.2},
    {"n": "current", "t": -4, "v": 1.3},
]
BASE = "urn:dev:ow:10e2073a01080063"


def test_base_fields_hold_until_replaced():
    at = 1_276_020_076_001_000
    assert rows(read(MULTIPLE)) == [
        (f"{BASE}voltage", at, 120.1, "V"),
        (f"{BASE}current", at - 5_000_000, 1.2, "A"),
        (f"{BASE}current", at - 4_000_000, 1.3, "A"),
    ]


def test_multiple_data_types():  # 5.1.5
    out = read(
        [
            {"bn": "urn:dev:ow:10e2073a01080063:", "n": "temp", "u": "Cel", "v": 23.1},
            {"n": "label", "vs": "Machine Room"},
            {"n": "open", "vb": False},
            {"n": "nfc-reader", "vd": "aGkgCg"},
        ]
    )
    assert [row[2] for row in rows(out)] == [23.1, "Machine Room", 0.0, "aGkgCg"]


def test_the_cbor_example_of_the_standard():  # section 6
    example = bytes.fromhex(
        "87a721781b75726e3a6465763a6f773a3130653230373361303130383030363a22fb41d303a15b00106223614120050067766f6c"
        "7461676501615602fb405e066666666666a3006763757272656e74062402fb3ff3333333333333a3006763757272656e74062302"
        "fb3ff4cccccccccccda3006763757272656e74062202fb3ff6666666666666a3006763757272656e74062102f93e00a300676375"
        "7272656e74062002fb3ff999999999999aa3006763757272656e74060002fb3ffb333333333333"
    )
    got = rows(read(example))
    at = 1_276_020_076_001_000
    base = "urn:dev:ow:10e2073a0108006:"
    assert got[0] == (f"{base}voltage", at, 120.1, "V")
    assert got[1:] == [
        (f"{base}current", at + step * 1_000_000, value, "A")
        for step, value in zip(range(-5, 1), (1.2, 1.3, 1.4, 1.5, 1.6, 1.7), strict=True)
    ]


def test_cbor_says_what_json_says():
    packed = cbor2.dumps([{LABELS[k]: v for k, v in record.items()} for record in MULTIPLE])
    assert read(packed) == read(MULTIPLE)


def test_cbor_data_become_base64_text():
    assert rows(read(cbor2.dumps([{0: "nfc", 8: b"hi \n"}])))[0][2] == "aGkgCg"


def test_times_below_2_to_the_28_are_relative_to_now():
    assert rows(read([{"n": "a", "v": 1, "t": -5}]))[0][1] == NOW - 5_000_000
    assert rows(read([{"n": "a", "v": 1, "t": 2**28 - 1}]))[0][1] == NOW + (2**28 - 1) * 1_000_000
    assert rows(read([{"n": "a", "v": 1, "t": 2**28}]))[0][1] == 2**28 * 1_000_000
    assert rows(read([{"bt": 1795219200, "n": "a", "v": 1, "t": 0.5}]))[0][1] == NOW + 500_000


def test_base_values_and_sums_add_up():
    out = read([{"bn": "m:", "bv": 10, "bs": 100, "n": "a", "v": 1, "s": 5}, {"n": "b", "s": 7}])
    assert [(r[0], r[2]) for r in rows(out)] == [("m:a.sum", 105.0), ("m:a", 11.0), ("m:b.sum", 107.0)]


def test_a_record_may_only_set_bases():
    assert rows(read([{"bn": "m:", "bu": "Cel"}, {"n": "a", "v": 1}])) == [("m:a", None, 1.0, "Cel")]
    assert read([{"bn": "m:"}]).ignored == 1


def test_unknown_keys_are_ignored_unless_they_must_be_understood():
    assert rows(read([{"n": "a", "v": 1, "foo": 2}])) == [("a", None, 1.0, None)]
    assert refused([{"n": "a", "v": 1, "foo_": 2}]) is Reason.UNSUPPORTED
    assert refused(cbor2.dumps([{0: "a", 2: 1, "foo_": 2}])) is Reason.UNSUPPORTED


def test_versions():
    assert refused([{"bver": 11, "n": "a", "v": 1}]) is Reason.UNSUPPORTED
    assert refused([{"bver": 5, "n": "a", "v": 1}, {"bver": 10, "n": "a", "v": 1}]) is Reason.BAD_STRUCTURE
    assert refused([{"n": "a", "v": 1}, {"bver": 5, "n": "a", "v": 1}]) is Reason.BAD_STRUCTURE


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"v": 1}, Reason.BAD_NAME),
        ({"n": "-a", "v": 1}, Reason.BAD_NAME),
        ({"n": "a b", "v": 1}, Reason.BAD_NAME),
        ({"n": "a"}, Reason.BAD_STRUCTURE),
        ({"n": "a", "v": 1, "vs": "x"}, Reason.BAD_STRUCTURE),
        ({"n": "a", "v": "1"}, Reason.BAD_VALUE),
        ({"n": "a", "v": True}, Reason.BAD_VALUE),
        ({"n": "a", "vb": 1}, Reason.BAD_VALUE),
        ({"n": "a", "vs": 1}, Reason.BAD_VALUE),
        ({"n": "a", "v": 1, "u": 7}, Reason.BAD_STRUCTURE),
        ({"n": "a", "v": 1, "t": "now"}, Reason.BAD_VALUE),
    ],
)
def test_a_wrong_record_costs_only_itself(record, reason):
    out = read([record, {"n": "b", "v": 2}])
    assert ([s.path[2] for s in out.samples], [r.reason for r in out.rejected]) == (["b"], [reason])


@pytest.mark.parametrize(
    "payload", [b"", b"{}", b"[1]", b"\x9f", b"\x81", b"\x81\x01", b'{"n":"a","v":1}', b"\xa1\x00\x61a"]
)
def test_what_is_no_pack_is_refused(payload):
    assert refused(payload) in {Reason.BAD_SYNTAX, Reason.BAD_STRUCTURE}


def test_limits():
    with pytest.raises(BadPayload, match="max_records is 1"):
        read([{"n": "a", "v": 1}, {"n": "a", "v": 1}], limits=Limits(max_records=1))
    with pytest.raises(BadPayload, match="depth"):
        read(b"\x81" * 20 + b"\x01")


numbers = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False, width=32)
records = st.fixed_dictionaries(
    {"n": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9:._/-]{0,9}", fullmatch=True)},
    optional={
        "u": st.sampled_from(["Cel", "A"]),
        "t": st.integers(-1000, 2_000_000_000),
        "bt": st.integers(0, 2_000_000_000),
    },
).flatmap(
    lambda r: st.builds(
        lambda v: {**r, **v}, st.one_of(numbers.map(lambda v: {"v": v}), st.booleans().map(lambda v: {"vb": v}))
    )
)


@settings(max_examples=40)
@given(st.lists(records, min_size=1, max_size=6))
def test_json_and_cbor_agree_on_any_pack(pack):
    as_cbor = cbor2.dumps([{LABELS[k]: v for k, v in record.items()} for record in pack])
    assert read(as_cbor) == read(pack)
    assert len(read(pack).samples) + len(read(pack).rejected) == len(pack)


@settings(max_examples=40)
@given(st.lists(records, min_size=1, max_size=6))
def test_a_pack_means_the_same_the_second_time(pack):
    context = Context(tenant="t", captures={}, naming=NAMING, options=CodecOptions())
    first = decode(context, orjson.dumps(pack), NOW)
    assert decode(context, orjson.dumps(pack), NOW) == first == read(pack)
