"""Raw waveforms behind a declared header."""

import struct

import numpy as np
import pytest

from ingest.decode import BadPayload, Limits, Reason
from ingest.decode.model import CodecOptions, Context
from ingest.decode.naming import Naming, Template
from ingest.decode.raw import BadHeader, Header, decode

NOW = 1_795_219_200_000_000
NAMING = Naming(Template("s"), Template("m"), Template("acc.{key}"))
LAYOUT = {
    "dtype": "<i2",
    "fs_hz": "rate",
    "scale": 0.5,
    "header": [["t0", "<u8"], ["skip", 2], ["rate", ">u4"]],
    "t0": "t0",
    "unit": "m/s2",
    "channels": ["x", "y"],
}


def read(payload: bytes, raw=LAYOUT, **options):
    context = Context(tenant="t", captures={}, naming=NAMING, options=CodecOptions(raw=raw, **options))
    return decode(context, payload, NOW)


def test_a_header_and_interleaved_channels():
    payload = struct.pack("<Q2s", NOW // 1000, b"??") + struct.pack(">I", 25600) + struct.pack("<4h", 1, -2, 3, -4)
    x, y = read(payload).waveforms
    assert x == (("s", "m", "acc.x"), NOW, 25600.0, "m/s2", 2, "<i2", 0.5, struct.pack("<2h", 1, 3), 0)
    assert y == (("s", "m", "acc.y"), NOW, 25600.0, "m/s2", 2, "<i2", 0.5, struct.pack("<2h", -2, -4), 0)


@pytest.mark.parametrize("dtype", ["<i2", ">i2", "<i4", ">i4", "<f4", ">f4", "<f8", ">f8", "i1"])
def test_samples_are_stored_little_endian(dtype):
    values = np.array([1, -2, 3], dtype)
    (burst,) = read(values.tobytes(), {"dtype": dtype, "fs_hz": 1000}).waveforms
    assert (burst.t0_us, burst.fs_hz, burst.n) == (None, 1000.0, 3)
    assert burst.dtype[0] == "<"
    np.testing.assert_array_equal(np.frombuffer(burst.data, burst.dtype), values)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", Reason.BAD_STRUCTURE),
        (b"x" * 14, Reason.BAD_STRUCTURE),
        (b"\0" * 17, Reason.BAD_STRUCTURE),
        (b"\0" * 18, Reason.BAD_VALUE),
    ],
)
def test_payloads_that_do_not_fit_the_layout(payload, reason):
    with pytest.raises(BadPayload) as caught:
        read(payload)
    assert caught.value.reason is reason


def test_limits():
    with pytest.raises(BadPayload, match="max_waveform"):
        read(b"\0" * 8, {"dtype": "<i2", "fs_hz": 1}, limits=Limits(max_waveform=3))


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"dtype": "<i3"}, "dtype"),
        ({"dtype": None}, "dtype"),
        ({"fs_hz": "speed"}, "fs_hz"),
        ({"fs_hz": 0}, "fs_hz"),
        ({"scale": True}, "scale"),
        ({"header": "t0"}, "header"),
        ({"header": [["t0", "<x8"]]}, "header"),
        ({"header": [["skip", -1]]}, "header"),
        ({"header": [["t0", "<u8"], ["t0", "<u8"]]}, "header"),
        ({"t0": "when"}, "t0"),
        ({"unit": 7}, "unit"),
        ({"channels": []}, "channels"),
        ({"channels": ["x", "x"]}, "channels"),
        ({"colour": 1}, "colour"),
    ],
)
def test_a_wrong_declaration_names_its_key(change, key):
    with pytest.raises(BadHeader) as caught:
        Header.from_options({**LAYOUT, **change})
    assert caught.value.data["key"] == key
