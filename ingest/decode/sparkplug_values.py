"""Edge nodes, their devices and metrics, and how the value of a Sparkplug metric becomes a reading."""

import base64
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

from fettle.model import Flag, Quality
from ingest.decode.model import BadPayload, Context, Decoded, Path, Reason, Sample, WaveformBurst, text_sample
from ingest.decode.plain import EXACT, pack_waveform
from ingest.decode.sparkplug_payload import (
    ARRAYS,
    FLOATS,
    SIGNED_BITS,
    TEXTS,
    UNSIGNED_BITS,
    DataType,
    read_array,
    read_dataset,
    read_datetime,
    read_integer,
    read_properties,
    read_scalar,
    read_strings,
)

NodeKey = tuple[str, str, str]
"""Tenant, group, edge node."""

DATATYPES = frozenset(DataType)
INTEGERS = frozenset({*SIGNED_BITS, *UNSIGNED_BITS})
NUMBERS = frozenset({*FLOATS, *INTEGERS, DataType.BOOLEAN})
DOUBLE, FLOAT, SIGNED, UNSIGNED = 1, 2, 3, 4
FIELD_OF = {DOUBLE: "double_value", FLOAT: "float_value", SIGNED: "int_value", UNSIGNED: "int_value"}
LARGEST = float(np.finfo(np.float64).max)
END_US = 253_402_300_800_000_000  # the year 10000
_KIND_OF: dict[int, int] = {
    # datatypes whose value needs no more than its field; the narrow signed ones may come cut to their width
    DataType.DOUBLE: DOUBLE,
    DataType.FLOAT: FLOAT,
    DataType.INT32: SIGNED,
    DataType.UINT8: UNSIGNED,
    DataType.UINT16: UNSIGNED,
    DataType.UINT32: UNSIGNED,
}

_NUMERIC = frozenset({"int_value", "long_value", "float_value", "double_value", "boolean_value"})
_CARRIERS: dict[int, frozenset[str]] = {
    # the fields in which a datatype's value is accepted; whatever is not named here travels as bytes
    **dict.fromkeys(NUMBERS, _NUMERIC),
    **dict.fromkeys(TEXTS, frozenset({"string_value"})),
    DataType.DATETIME: frozenset({"long_value", "int_value"}),
    DataType.DATASET: frozenset({"dataset_value"}),
    DataType.TEMPLATE: frozenset({"template_value"}),
    DataType.BYTES: frozenset({"bytes_value"}),
}


@dataclass(slots=True)
class Metric:
    """What a birth said about one metric."""

    name: str
    alias: int | None
    datatype: int
    unit: str | None = None
    fs_hz: float | None = None
    path: Path | None = None  # built when first used
    kind: int = field(init=False)

    def __post_init__(self) -> None:
        self.kind = _KIND_OF.get(self.datatype, 0)


@dataclass(slots=True)
class Device:
    """The metrics of an edge node itself (its id is empty) or of one of its devices."""

    by_name: dict[str, Metric] = field(default_factory=dict)
    by_alias: dict[int, Metric] = field(default_factory=dict)
    is_online: bool = False

    def add(self, metric: Metric) -> None:
        self.by_name[metric.name] = metric
        if metric.alias is not None:
            self.by_alias[metric.alias] = metric


@dataclass(slots=True)
class Node:
    """One edge node."""

    key: NodeKey
    context: Context
    devices: dict[str, Device] = field(default_factory=dict)
    bd_seq: int | None = None
    is_online: bool = False
    expected_seq: int | None = None  # None: take the next one as it comes
    early: set[int] = field(default_factory=set)  # sequence numbers seen ahead of the expected one
    gap_since_us: int | None = None
    rebirth_wanted: bool = False
    asked_us: int | None = None
    wait_us: int = 0  # before it is asked again; doubles


def path_of(node: Node, device: str, metric: Metric) -> Path:
    """Return the names of a metric, built at its first use.

    Raises:
        BadPayload: they cannot be stored.
    """
    if metric.path is None:
        limit = node.context.options.limits.max_key
        if len(metric.name) > limit:
            raise BadPayload(Reason.BAD_NAME, f"a metric name of {len(metric.name)} characters; max_key is {limit}")
        metric.unit = node.context.unit(metric.name, metric.unit)
        metric.path = node.context.build_path(_fields(node, device, metric.name))
    return metric.path


def place_of(node: Node, device: str) -> tuple[str, str]:
    """Return the site and machine of an edge node or one of its devices.

    Raises:
        BadPayload: they cannot be stored.
    """
    return node.context.build_path(_fields(node, device, "status"))[:2]


def _fields(node: Node, device: str, metric: str) -> dict[str, str]:
    return {"group": node.key[1], "edge": node.key[2], "device": device, "metric": metric, "key": metric}


def store(
    node: Node,
    device: str,
    metric: Metric,
    sent: Any,
    payload_ms: int,
    out: Decoded,
    properties: dict[str, float | int | bool | str] | None,
) -> None:
    if sent.is_transient:
        out.ignored += 1
        return
    try:
        path = path_of(node, device, metric)
        if properties is None:
            properties = read_properties(sent)
        ts_ms = sent.timestamp or payload_ms
        ts_us: int | None = ts_ms * 1000 if 0 < ts_ms * 1000 < END_US else None
        quality = _quality(properties.get("quality"))
        flags = Flag.HISTORICAL if sent.is_historical else 0
        _store_value(node, device, metric, path, sent, ts_us, quality, flags, out)
    except BadPayload as bad:
        out.reject(bad.reason, f"{metric.name[:100]}: {bad.detail}")


def _store_value(
    node: Node,
    device: str,
    metric: Metric,
    path: Path,
    sent: Any,
    ts_us: int | None,
    quality: int,
    flags: int,
    out: Decoded,
) -> None:
    datatype, context = metric.datatype, node.context
    if sent.is_null or sent.WhichOneof("value") is None:
        none = Quality.STALE if quality == Quality.STALE else Quality.BAD
        out.samples.append(Sample(path, ts_us, None, metric.unit, none, flags))
        return
    which = sent.WhichOneof("value")
    if which not in _CARRIERS.get(datatype, _CARRIERS[DataType.BYTES]):
        raise BadPayload(Reason.BAD_VALUE, f"datatype {DataType(datatype).name}, but sent as {which}")
    if datatype in NUMBERS:
        number: Any = read_scalar(sent, datatype)
        if isinstance(number, int) and not -EXACT <= number <= EXACT:
            if context.options.large_integers == "text":
                out.samples.append(
                    text_sample(context, path, ts_us, str(number), flags=flags)._replace(quality=quality)
                )
                return
            flags |= Flag.INEXACT
        value = float(number)
        if not -LARGEST <= value <= LARGEST:
            out.samples.append(Sample(path, ts_us, None, metric.unit, Quality.BAD, flags))
            return
        out.samples.append(Sample(path, ts_us, value, metric.unit, quality, flags))
    elif datatype in ARRAYS or datatype in {DataType.BOOLEAN_ARRAY, DataType.STRING_ARRAY}:
        _store_array(context, metric, path, sent.bytes_value, ts_us, quality, flags, out)
    elif datatype == DataType.TEMPLATE:
        _store_template(node, device, metric, sent, ts_us, out)
    elif datatype == DataType.FILE:
        out.ignored += 1
    else:
        out.samples.append(
            text_sample(context, path, ts_us, _text(sent, datatype), flags=flags)._replace(quality=quality)
        )


def _store_array(
    context: Context,
    metric: Metric,
    path: Path,
    data: bytes,
    ts_us: int | None,
    quality: int,
    flags: int,
    out: Decoded,
) -> None:
    """Store a numeric array with a sampling rate as a waveform, any other as text."""
    raw = context.options.raw
    if metric.datatype == DataType.STRING_ARRAY:
        text = orjson.dumps(read_strings(data)).decode()
        out.samples.append(text_sample(context, path, ts_us, text, flags=flags)._replace(quality=quality))
        return
    numbers = read_array(data, metric.datatype, big_endian=raw.get("byte_order") == "big")
    if len(numbers) > context.options.limits.max_waveform:
        raise BadPayload(
            Reason.TOO_MANY, f"{len(numbers)} samples; max_waveform is {context.options.limits.max_waveform}"
        )
    rate = metric.fs_hz or raw.get("fs_hz")
    if isinstance(rate, int | float) and rate > 0 and metric.datatype != DataType.DATETIME_ARRAY and len(numbers):
        out.waveforms.append(_waveform(path, numbers, ts_us, float(rate), metric.unit, flags))
        return
    values = [None if isinstance(v, float) and not np.isfinite(v) else v for v in numbers.tolist()]
    text = orjson.dumps(values).decode()
    out.samples.append(text_sample(context, path, ts_us, text, flags=flags)._replace(quality=quality))


def _store_template(node: Node, device: str, metric: Metric, sent: Any, ts_us: int | None, out: Decoded) -> None:
    """Store the members of a template instance as `instance/member`; definitions carry no readings."""
    template = sent.template_value
    if template.is_definition or not template.metrics:
        out.ignored += 1
        return
    known = node.devices[device].by_name
    for member in template.metrics:
        name = f"{metric.name}/{member.name}"
        inner = known.get(name)
        if member.datatype in DATATYPES and member.name:
            inner = Metric(name, None, member.datatype)
            known[name] = inner
        if inner is None:
            out.reject(Reason.UNKNOWN_METRIC, f"{name[:100]}: no birth gave its datatype")
            node.rebirth_wanted = True
            continue
        store(node, device, inner, member, 0 if ts_us is None else ts_us // 1000, out, None)


def _quality(code: object) -> int:
    """Map the `Quality` property; beyond Sparkplug's three codes by the ranges of OPC: 64 to 127 uncertain, from 192 good."""
    if code is None:
        return Quality.GOOD
    if not isinstance(code, int) or isinstance(code, bool):
        return Quality.BAD
    if code in {Quality.BAD, Quality.GOOD, Quality.STALE}:
        return code
    if 192 < code < 256:
        return Quality.GOOD
    return Quality.STALE if 64 <= code < 128 or 500 < code < 600 else Quality.BAD


def _text(sent: Any, datatype: int) -> str:
    if datatype in TEXTS:
        return str(sent.string_value)
    if datatype == DataType.DATETIME:
        return read_datetime(read_integer(sent.long_value or sent.int_value, DataType.UINT64))
    if datatype == DataType.DATASET:
        return read_dataset(sent.dataset_value)
    return base64.b64encode(sent.bytes_value).decode()


def _waveform(
    path: Path,
    numbers: "np.ndarray[tuple[int], np.dtype[Any]]",
    ts_us: int | None,
    fs_hz: float,
    unit: str | None,
    flags: int,
) -> WaveformBurst:
    stored = {"<i1": "<i2", "|i1": "<i2", "|u1": "<i2", "<u2": "<i4", "<i2": "<i2", "<i4": "<i4"}.get(numbers.dtype.str)
    if stored is None:
        return pack_waveform(path, numbers.astype(np.float64), t0_us=ts_us, fs_hz=fs_hz, unit=unit, flags=flags)
    return WaveformBurst(path, ts_us, fs_hz, unit, len(numbers), stored, 1.0, numbers.astype(stored).tobytes(), flags)
