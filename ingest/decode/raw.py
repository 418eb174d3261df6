"""Raw waveforms: samples as bytes behind a header whose layout the topic rule declares.

[rule.raw]
dtype = "<i2"             # of one sample: <i2 <i4 <f4 <f8 or with > for big-endian, also i1
fs_hz = 25600.0           # or field of the header: fs_hz = "rate"
scale = 0.0006            # value = scale * sample; or a header field
header = [["t0", "<u8"], ["rate", "<u4"], ["skip", 4]]   # fields in order; "skip" leaves bytes out
t0 = "t0"                 # header field with the time of the first sample, in the rule's time_unit
unit = "m/s2"
channels = ["x", "y", "z"]   # interleaved samples, one burst each
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fettle.errors import FettleError
from ingest.decode.instant import read_instant
from ingest.decode.model import BadPayload, Context, Decoded, Reason, WaveformBurst, check_size

_SAMPLE = ("<i2", "<i4", "<f4", "<f8", ">i2", ">i4", ">f4", ">f8", "i1")
_NUMBER = re.compile(r"[<>]?[iuf][1248]")
_KEYS = ("dtype", "fs_hz", "scale", "header", "t0", "unit", "channels")


class BadHeader(FettleError):
    """raw.{key}: {problem}; allowed: {allowed}."""


@dataclass(frozen=True, slots=True)
class Header:
    """The declared layout."""

    dtype: np.dtype[np.generic]
    layout: np.dtype[np.void]
    fs_hz: float | str
    scale: float | str
    t0: str | None
    unit: str | None
    channels: tuple[str, ...]

    @classmethod
    def from_options(cls, raw: Mapping[str, object]) -> "Header":
        """Check and compile the `raw` table of a rule.

        Raises:
            BadHeader: a key is missing, unknown or wrong.
        """
        for key in raw:
            if key not in _KEYS:
                raise BadHeader(key=key, problem="unknown", allowed=", ".join(_KEYS))
        dtype = raw.get("dtype")
        if dtype not in _SAMPLE:
            raise BadHeader(key="dtype", problem=repr(dtype), allowed=", ".join(_SAMPLE))
        layout = _layout(raw.get("header", []))
        names = layout.names or ()
        fs_hz = _number_or_field("fs_hz", raw.get("fs_hz"), names)
        scale = _number_or_field("scale", raw.get("scale", 1.0), names)
        t0 = raw.get("t0")
        if t0 is not None and t0 not in names:
            raise BadHeader(key="t0", problem=repr(t0), allowed="a field of header, or leave it out")
        unit = raw.get("unit")
        if unit is not None and not isinstance(unit, str):
            raise BadHeader(key="unit", problem=repr(unit), allowed="a text")
        channels = raw.get("channels", [""])
        if (
            not isinstance(channels, list)
            or not channels
            or not all(isinstance(c, str) for c in channels)
            or len(set(channels)) != len(channels)
        ):
            raise BadHeader(key="channels", problem=repr(channels), allowed="a list of different names")
        return cls(np.dtype(str(dtype)), layout, fs_hz, scale, None if t0 is None else str(t0), unit, tuple(channels))


def _layout(header: object) -> np.dtype[np.void]:
    allowed = 'a list of ["name", "<u8"] and ["skip", bytes]'
    if not isinstance(header, list):
        raise BadHeader(key="header", problem=repr(header), allowed=allowed)
    names: list[str] = []
    kinds: list[str] = []
    offsets: list[int] = []
    at = 0
    for entry in header:
        if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[0], str):
            raise BadHeader(key="header", problem=repr(entry), allowed=allowed)
        name, kind = entry
        if name == "skip":
            if isinstance(kind, bool) or not isinstance(kind, int) or not 0 < kind <= 65_536:
                raise BadHeader(key="header", problem=repr(entry), allowed=allowed)
            at += kind
            continue
        if not isinstance(kind, str) or not _NUMBER.fullmatch(kind) or kind.endswith("f1") or name in names:
            raise BadHeader(key="header", problem=repr(entry), allowed=allowed)
        names.append(name)
        kinds.append(kind)
        offsets.append(at)
        at += np.dtype(kind).itemsize
    return np.dtype({"names": names, "formats": kinds, "offsets": offsets, "itemsize": at})


def _number_or_field(key: str, value: object, names: tuple[str, ...]) -> float | str:
    if isinstance(value, str) and value in names:
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value != 0:
        return float(value)
    raise BadHeader(key=key, problem=repr(value), allowed="a number, or the name of a header field")


_headers: dict[int, tuple[Mapping[str, object], Header]] = {}


def _header(raw: Mapping[str, object]) -> Header:
    """Compile once per rule; the table is held so that its id stays its own."""
    kept = _headers.get(id(raw))
    if kept is None or kept[0] is not raw:
        kept = (raw, Header.from_options(raw))
        _headers[id(raw)] = kept
    return kept[1]


def decode(context: Context, payload: bytes, received_us: int) -> Decoded:  # noqa: ARG001
    """Cut the header off and pack each channel's samples.

    Raises:
        BadPayload: too short, not a whole number of samples, or a header field without sense.
    """
    options = context.options
    check_size(payload, options.limits)
    try:
        header = _header(options.raw)
    except BadHeader as error:
        raise BadPayload(Reason.BAD_STRUCTURE, f"the rule declares no raw waveform: {error}") from None
    start = header.layout.itemsize
    if len(payload) <= start:
        raise BadPayload(Reason.BAD_STRUCTURE, f"{len(payload)} bytes; the header alone has {start}")
    width = header.dtype.itemsize * len(header.channels)
    if (len(payload) - start) % width:
        raise BadPayload(
            Reason.BAD_STRUCTURE, f"{len(payload) - start} bytes of samples are no whole number of {width}"
        )
    read = np.frombuffer(payload, dtype=header.layout, count=1)[0] if start else None
    count = (len(payload) - start) // width
    if count > options.limits.max_waveform:
        raise BadPayload(Reason.TOO_MANY, f"{count} samples; max_waveform is {options.limits.max_waveform}")

    def number(what: str, of: float | str) -> float:
        value = float(read[of]) if isinstance(of, str) and read is not None else float(of)
        if not math.isfinite(value) or value == 0 or (what == "fs_hz" and not 0 < value < 1e12):
            raise BadPayload(Reason.BAD_VALUE, f"{what} is {value!r}")
        return value

    fs_hz = number("fs_hz", header.fs_hz)
    scale = number("scale", header.scale)
    t0_us = None
    if header.t0 is not None and read is not None:
        t0_us = read_instant(read[header.t0].item(), unit=options.time_unit, zone=options.time_zone)
    samples = np.frombuffer(payload, dtype=header.dtype, offset=start).reshape(count, len(header.channels))
    stored = "<i2" if header.dtype.kind == "i" and header.dtype.itemsize == 1 else header.dtype.newbyteorder("<").str
    out = Decoded()
    for i, channel in enumerate(header.channels):
        packed = np.ascontiguousarray(samples[:, i]).astype(stored)
        path = context.path(channel)
        unit = context.unit(channel, header.unit)
        out.waveforms.append(WaveformBurst(path, t0_us, fs_hz, unit, count, stored, scale, packed.tobytes()))
    return out
