"""SenML (RFC 8428), in JSON and in CBOR: records that share base fields.

A name is `bn + n`, a value `bv + v`, a time `bt + t`; a time below 2**28 is relative to the receive time. A sum is stored
under the name with `.sum` behind it.
"""

import base64
import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import cbor2

from fettle.model import Flag, Quality
from ingest.decode.instant import read_instant
from ingest.decode.model import (
    BadPayload,
    Context,
    Decoded,
    Limits,
    Reason,
    Sample,
    check_size,
    load_json,
    text_sample,
)
from ingest.decode.plain import EXACT, add_value

VERSION = 10
_RELATIVE = 2**28
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9\-:./_]*")
_LABELS = {
    -1: "bver",
    -2: "bn",
    -3: "bt",
    -4: "bu",
    -5: "bv",
    -6: "bs",
    0: "n",
    1: "u",
    2: "v",
    3: "vs",
    4: "vb",
    5: "s",
    6: "t",
    7: "ut",
    8: "vd",
}
_COMMON = frozenset({"n", "u", "v", "t"})
_LARGEST = sys.float_info.max
_END_S = 10_000_000_000  # beyond it, and before its negative, the long way says what is wrong
_GOOD = Quality.GOOD
_VALUES = ("v", "vb", "vs", "vd")
_OWN = frozenset({"n", "u", "t", "ut", "s", *_VALUES})


@dataclass(slots=True)
class _Base:
    """The base fields in force."""

    name: str = ""
    time: float | int = 0
    unit: str | None = None
    value: float | int | None = None
    sum: float | int | None = None
    version: int | None = None


def decode(context: Context, payload: bytes, received_us: int) -> Decoded:
    """Decode a SenML pack; CBOR is told from JSON by its first byte.

    Raises:
        BadPayload: neither, or the pack must be refused as a whole: unknown key ending in `_`, mixed or newer version.
    """
    limits = context.options.limits
    is_cbor = bool(payload) and 0x80 <= payload[0] <= 0x9F
    body = _load_cbor(payload, limits) if is_cbor else load_json(payload, limits)
    if not isinstance(body, list):
        raise BadPayload(Reason.BAD_STRUCTURE, "SenML is an array of records")
    if len(body) > limits.max_records:
        raise BadPayload(Reason.TOO_MANY, f"{len(body)} records; max_records is {limits.max_records}")
    out = Decoded()
    base = _Base()
    for raw in body:
        if not isinstance(raw, dict):
            raise BadPayload(Reason.BAD_STRUCTURE, f"record {raw!r:.60} is no map")
        record = _read_labels(raw) if is_cbor else raw
        if record.keys() <= _COMMON and _decode_common(context, base, record, received_us, out):
            continue
        _take_base(base, record)
        if _OWN.isdisjoint(record):
            continue  # the record only sets bases
        try:
            _decode_record(context, base, record, received_us, out)
        except BadPayload as bad:
            out.reject(bad.reason, f"{record.get('n', '')!s:.60}: {bad.detail}")
    if not (out.samples or out.rejected):
        out.ignored += 1
    return out


def _load_cbor(payload: bytes, limits: Limits) -> object:
    check_size(payload, limits)
    try:
        body: object = cbor2.loads(payload, max_depth=limits.max_depth)
    except (cbor2.CBORDecodeError, ValueError, TypeError, OverflowError, ArithmeticError) as error:
        raise BadPayload(Reason.BAD_SYNTAX, f"not CBOR: {error}") from None
    return body


def _read_labels(raw: Mapping[object, Any]) -> dict[str, Any]:
    try:
        record: dict[str, Any] = {_LABELS[key]: value for key, value in raw.items() if type(key) is int}
        if len(record) == len(raw):
            return record
    except KeyError:
        pass
    record = {}
    for key, value in raw.items():
        name = key if isinstance(key, str) else _LABELS.get(key) if type(key) is int else None
        if name is not None:  # RFC 8428, 4.4: what is not known is ignored
            record[name] = value
    return record


def _decode_common(context: Context, base: _Base, record: Mapping[str, Any], received_us: int, out: Decoded) -> bool:
    """Decode name, unit, float and time of a name seen before; False leaves the record to `_decode_record`."""
    value = record.get("v")
    name = record.get("n", "")
    unit = record.get("u", base.unit)
    time = record.get("t", 0)
    if (
        type(value) is not float
        or type(name) is not str
        or (unit is not None and type(unit) is not str)
        or (type(time) is not float and type(time) is not int)
        or base.value is not None
        or base.version is None  # the first record always takes the long way
    ):
        return False
    named = context.memo.get((base.name + name, unit))
    if named is None or not -_LARGEST <= value <= _LARGEST or not -_END_S < time + base.time < _END_S:
        return False
    time = time + base.time
    ts_us: int | None
    if time == 0:
        ts_us = None
    elif time < _RELATIVE:
        ts_us = received_us + round(time * 1e6)
    else:
        ts_us = round(time * 1e6) if isinstance(time, float) else time * 1_000_000
    out.samples.append(Sample(named[0], ts_us, value, named[1], _GOOD, 0))
    return True


def _take_base(base: _Base, record: Mapping[str, Any]) -> None:
    for key in record:
        if key[-1:] == "_":
            raise BadPayload(Reason.UNSUPPORTED, f"key {key[:60]!r}: a record with it must be understood in full")
    if "bver" in record:
        version = record["bver"]
        if type(version) is not int or version < 1 or version > VERSION:
            raise BadPayload(Reason.UNSUPPORTED, f"SenML version {version!r:.20}; up to {VERSION} is read")
        if base.version is not None and version != base.version:
            raise BadPayload(Reason.BAD_STRUCTURE, f"mixed SenML versions {base.version} and {version}")
        base.version = version
    elif base.version is None:
        base.version = VERSION
    if "bn" in record:
        base.name = _text(record, "bn")
    if "bu" in record:
        base.unit = _text(record, "bu")
    if "bt" in record:
        base.time = _number(record, "bt")
    if "bv" in record:
        base.value = _number(record, "bv")
    if "bs" in record:
        base.sum = _number(record, "bs")


def _text(record: Mapping[str, Any], key: str) -> str:
    value = record[key]
    if not isinstance(value, str):
        raise BadPayload(Reason.BAD_STRUCTURE, f"{key} is {value!r:.60}, not a text")
    return value


def _number(record: Mapping[str, Any], key: str) -> float | int:
    value = record[key]
    if isinstance(value, Decimal) and value.is_finite() and -400 < value.adjusted() < 300:
        return float(value)
    if (type(value) is int and -(2**64) < value < 2**64) or (type(value) is float and math.isfinite(value)):
        return value
    raise BadPayload(Reason.BAD_VALUE, f"{key} is {value!r:.60}, not a number")


def _decode_record(context: Context, base: _Base, record: Mapping[str, Any], received_us: int, out: Decoded) -> None:
    name = base.name + (_text(record, "n") if "n" in record else "")
    if not _NAME.fullmatch(name):
        raise BadPayload(
            Reason.BAD_NAME, f"{name[:60]!r}: letters, digits and -:./_ after a first letter or digit, never empty"
        )
    present = [key for key in _VALUES if key in record]
    if len(present) > 1:
        raise BadPayload(Reason.BAD_STRUCTURE, f"more than one value: {', '.join(present)}")
    if not present and "s" not in record:
        raise BadPayload(Reason.BAD_STRUCTURE, "neither a value nor a sum")
    ts_us = _time(base, record, received_us, context)
    unit = _text(record, "u") if "u" in record else base.unit
    if "s" in record:
        total = _number(record, "s")
        total = total + base.sum if base.sum is not None else total
        add_value(context, out, f"{name}.sum", total, ts_us=ts_us, unit=unit)
    if not present:
        return
    key = present[0]
    if key == "v":
        number = _number(record, "v")
        number = number + base.value if base.value is not None else number
        flags = Flag.INEXACT if type(number) is int and not -EXACT <= number <= EXACT else 0
        value = float(number)
        if not math.isfinite(value):
            raise BadPayload(Reason.BAD_VALUE, f"bv + v is {value!r}")
        path, written_unit = context.path(name), context.unit(name, unit)
        context.remember((name, unit), (path, written_unit))
        out.samples.append(Sample(path, ts_us, value, written_unit, Quality.GOOD, flags))
    elif key == "vb":
        if not isinstance(record["vb"], bool):
            raise BadPayload(Reason.BAD_VALUE, f"vb is {record['vb']!r:.60}, not a boolean")
        out.samples.append(
            Sample(context.path(name), ts_us, float(record["vb"]), context.unit(name, unit), Quality.GOOD, 0)
        )
    else:
        data = record[key]
        if key == "vd" and isinstance(data, bytes):
            data = base64.urlsafe_b64encode(data).rstrip(b"=").decode()
        if not isinstance(data, str):
            raise BadPayload(Reason.BAD_VALUE, f"{key} is {data!r:.60}, not a text")
        out.samples.append(text_sample(context, context.path(name), ts_us, data))


def _time(base: _Base, record: Mapping[str, Any], received_us: int, context: Context) -> int | None:
    time = base.time
    if "t" in record:
        time = time + _number(record, "t")
    if time == 0:
        return None
    if time < _RELATIVE:
        time_us = received_us + round(time * 1e6)
        return read_instant(time_us, unit="us", zone=context.options.time_zone)
    return read_instant(time, unit="s")
