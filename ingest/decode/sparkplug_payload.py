"""The Sparkplug B 3.0 payload: its protobuf messages, its datatypes, and how each is read and written.

The messages are described here field by field (specification, chapter 6) and built when the module is imported, so no
compiler and no generated file is needed.
"""

import base64
import math
import zlib
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
import orjson
from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

from ingest.decode.model import BadPayload, Reason

_PACKAGE = "fettle.sparkplug"
_KINDS = {
    "uint32": descriptor_pb2.FieldDescriptorProto.TYPE_UINT32,
    "uint64": descriptor_pb2.FieldDescriptorProto.TYPE_UINT64,
    "float": descriptor_pb2.FieldDescriptorProto.TYPE_FLOAT,
    "double": descriptor_pb2.FieldDescriptorProto.TYPE_DOUBLE,
    "bool": descriptor_pb2.FieldDescriptorProto.TYPE_BOOL,
    "string": descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
    "bytes": descriptor_pb2.FieldDescriptorProto.TYPE_BYTES,
}
_MESSAGES = {
    # message -> fields as (number, name, type); `*` repeats, `|value` belongs to the choice of values
    "PropertyValue": (
        "1 type uint32",
        "2 is_null bool",
        "3 int_value uint32 |value",
        "4 long_value uint64 |value",
        "5 float_value float |value",
        "6 double_value double |value",
        "7 boolean_value bool |value",
        "8 string_value string |value",
        "9 propertyset_value PropertySet |value",
        "10 propertysets_value PropertySetList |value",
    ),
    "PropertySet": ("1 keys string *", "2 values PropertyValue *"),
    "PropertySetList": ("1 propertyset PropertySet *",),
    "DataSetValue": (
        "1 int_value uint32 |value",
        "2 long_value uint64 |value",
        "3 float_value float |value",
        "4 double_value double |value",
        "5 boolean_value bool |value",
        "6 string_value string |value",
    ),
    "Row": ("1 elements DataSetValue *",),
    "DataSet": ("1 num_of_columns uint64", "2 columns string *", "3 types uint32 *", "4 rows Row *"),
    "Template": ("1 version string", "2 metrics Metric *", "4 template_ref string", "5 is_definition bool"),
    "Metric": (
        "1 name string",
        "2 alias uint64",
        "3 timestamp uint64",
        "4 datatype uint32",
        "5 is_historical bool",
        "6 is_transient bool",
        "7 is_null bool",
        "9 properties PropertySet",
        "10 int_value uint32 |value",
        "11 long_value uint64 |value",
        "12 float_value float |value",
        "13 double_value double |value",
        "14 boolean_value bool |value",
        "15 string_value string |value",
        "16 bytes_value bytes |value",
        "17 dataset_value DataSet |value",
        "18 template_value Template |value",
    ),
    "Payload": ("1 timestamp uint64", "2 metrics Metric *", "3 seq uint64", "4 uuid string", "5 body bytes"),
}


def _build() -> dict[str, Any]:
    """Build the message classes in a pool of their own."""
    file = descriptor_pb2.FileDescriptorProto(name="fettle_sparkplug.proto", package=_PACKAGE, syntax="proto2")
    for name, lines in _MESSAGES.items():
        described = file.message_type.add(name=name)
        if any("|" in line for line in lines):
            described.oneof_decl.add(name="value")
        for line in lines:
            number, field_name, kind, *marks = line.split()
            field = described.field.add(name=field_name, number=int(number))
            field.label = field.LABEL_REPEATED if "*" in marks else field.LABEL_OPTIONAL
            if kind in _KINDS:
                field.type = _KINDS[kind]
            else:
                field.type = field.TYPE_MESSAGE
                field.type_name = f".{_PACKAGE}.{kind}"
            if "|value" in marks:
                field.oneof_index = 0
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in _MESSAGES
    }


_CLASSES = _build()
Payload: Any = _CLASSES["Payload"]

COMPRESSED = "SPBV1.0_COMPRESSED"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class DataType(IntEnum):
    """Sparkplug's datatypes by number."""

    INT8 = 1
    INT16 = 2
    INT32 = 3
    INT64 = 4
    UINT8 = 5
    UINT16 = 6
    UINT32 = 7
    UINT64 = 8
    FLOAT = 9
    DOUBLE = 10
    BOOLEAN = 11
    STRING = 12
    DATETIME = 13
    TEXT = 14
    UUID = 15
    DATASET = 16
    BYTES = 17
    FILE = 18
    TEMPLATE = 19
    INT8_ARRAY = 22
    INT16_ARRAY = 23
    INT32_ARRAY = 24
    INT64_ARRAY = 25
    UINT8_ARRAY = 26
    UINT16_ARRAY = 27
    UINT32_ARRAY = 28
    UINT64_ARRAY = 29
    FLOAT_ARRAY = 30
    DOUBLE_ARRAY = 31
    BOOLEAN_ARRAY = 32
    STRING_ARRAY = 33
    DATETIME_ARRAY = 34


SIGNED_BITS = {DataType.INT8: 8, DataType.INT16: 16, DataType.INT32: 32, DataType.INT64: 64}
UNSIGNED_BITS = {DataType.UINT8: 8, DataType.UINT16: 16, DataType.UINT32: 32, DataType.UINT64: 64}
FLOATS = frozenset({DataType.FLOAT, DataType.DOUBLE})
TEXTS = frozenset({DataType.STRING, DataType.TEXT, DataType.UUID})
ARRAYS = {
    DataType.INT8_ARRAY: "<i1",
    DataType.INT16_ARRAY: "<i2",
    DataType.INT32_ARRAY: "<i4",
    DataType.INT64_ARRAY: "<i8",
    DataType.UINT8_ARRAY: "<u1",
    DataType.UINT16_ARRAY: "<u2",
    DataType.UINT32_ARRAY: "<u4",
    DataType.UINT64_ARRAY: "<u8",
    DataType.FLOAT_ARRAY: "<f4",
    DataType.DOUBLE_ARRAY: "<f8",
    DataType.DATETIME_ARRAY: "<u8",
}


def parse(payload: bytes, *, max_bytes: int) -> Any:
    """Parse a payload; one that Tahu compressed is unpacked, up to `max_bytes`.

    Raises:
        BadPayload: not a Sparkplug B payload.
    """
    try:
        body = Payload.FromString(payload)
        if body.uuid != COMPRESSED or not body.body:
            return body
        unzip = zlib.decompressobj(wbits=47)  # zlib or gzip, told by the header
        inner = Payload.FromString(unzip.decompress(body.body, max_bytes))
        if unzip.unconsumed_tail:
            raise BadPayload(Reason.TOO_LARGE, f"more than max_bytes {max_bytes} when unpacked")
    except (message.DecodeError, zlib.error) as error:
        raise BadPayload(Reason.BAD_SYNTAX, f"not a Sparkplug B payload: {error}") from None
    if not inner.HasField("seq") and body.HasField("seq"):
        inner.seq = body.seq
    return inner


def read_integer(raw: int, datatype: int) -> int:
    """Read an unsigned field as what the datatype says: two's complement for the signed ones.

    >>> read_integer(0xFFFFFFFF, DataType.INT8), read_integer(200, DataType.UINT8)
    (-1, 200)
    """
    bits = SIGNED_BITS.get(DataType(datatype))
    if bits is None:
        return raw
    raw &= (1 << bits) - 1
    return raw - (1 << bits) if raw >> (bits - 1) else raw


def read_array(data: bytes, datatype: int, *, big_endian: bool = False) -> "np.ndarray[tuple[int], np.dtype[Any]]":
    """Read a packed numeric or boolean array.

    Booleans are a 4-byte count and bits from the high end.

    Raises:
        BadPayload: the bytes are no whole number of elements.
    """
    if datatype == DataType.BOOLEAN_ARRAY:
        if len(data) < 4:
            raise BadPayload(Reason.BAD_STRUCTURE, f"a boolean array of {len(data)} bytes lacks its count")
        count = int.from_bytes(data[:4], "big" if big_endian else "little")
        if count > (len(data) - 4) * 8:
            raise BadPayload(Reason.BAD_STRUCTURE, f"{count} booleans in {len(data) - 4} bytes")
        return np.unpackbits(np.frombuffer(data, np.uint8, offset=4), count=count)
    dtype = np.dtype(ARRAYS[DataType(datatype)])
    if big_endian:
        dtype = dtype.newbyteorder(">")
    if len(data) % dtype.itemsize:
        raise BadPayload(Reason.BAD_STRUCTURE, f"{len(data)} bytes are no whole number of {dtype.itemsize}")
    return np.frombuffer(data, dtype)


def read_strings(data: bytes) -> list[str]:
    """Read an array of NUL-terminated texts.

    Raises:
        BadPayload: the last one does not end, or one is not UTF-8.
    """
    if not data:
        return []
    if data[-1]:
        raise BadPayload(Reason.BAD_STRUCTURE, "the last text of a string array has no NUL")
    try:
        return [part.decode() for part in data[:-1].split(b"\0")]
    except UnicodeDecodeError as error:
        raise BadPayload(Reason.BAD_SYNTAX, f"a string array that is not UTF-8: {error}") from None


def read_datetime(ms: int) -> str:
    """Write milliseconds since 1970 as ISO 8601.

    Raises:
        BadPayload: beyond the year 9999.
    """
    try:
        return (_EPOCH + timedelta(milliseconds=ms)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except OverflowError:
        raise BadPayload(Reason.BAD_VALUE, f"date {ms} lies beyond the year 9999") from None


def read_scalar(metric: Any, datatype: int) -> float | int | bool | str | bytes | None:
    """Return the value of a metric or property by what the sender set, read as `datatype`; None if nothing is set."""
    which = metric.WhichOneof("value")
    if which is None:
        return None
    value: Any = getattr(metric, which)
    if which in {"int_value", "long_value"}:
        if datatype == DataType.DATETIME:
            return read_datetime(value)
        if datatype == DataType.BOOLEAN:
            return bool(value)
        return read_integer(value, datatype) if datatype in SIGNED_BITS else int(value)
    if which in {"float_value", "double_value", "boolean_value", "string_value", "bytes_value"}:
        return value  # type: ignore[no-any-return]
    return None


def read_dataset(dataset: Any) -> str:
    """Write a data set as JSON: `{"columns": […], "rows": [[…], …]}`."""
    types = list(dataset.types)
    rows = [
        [
            _plain(read_scalar(cell, types[i] if i < len(types) and _is_known(types[i]) else 0))
            for i, cell in enumerate(row.elements)
        ]
        for row in dataset.rows
    ]
    return orjson.dumps({"columns": list(dataset.columns), "rows": rows}).decode()


def _is_known(datatype: int) -> bool:
    return datatype in DataType.__members__.values()


def _plain(value: float | str | bytes | None) -> float | str | None:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def read_properties(metric: Any) -> dict[str, float | int | bool | str]:
    """Return the scalar properties of a metric under their names in lower case."""
    if not metric.HasField("properties"):
        return {}
    found: dict[str, float | int | bool | str] = {}
    for key, value in zip(metric.properties.keys, metric.properties.values, strict=False):
        if value.is_null:
            continue
        scalar = read_scalar(value, value.type if value.type in SIGNED_BITS else 0)
        if scalar is not None and not isinstance(scalar, bytes):
            found[key.lower()] = scalar
    return found


class OutMetric(NamedTuple):
    """One metric to send."""

    name: str | None
    datatype: DataType
    value: float | int | bool | str | bytes | None
    alias: int | None = None
    ts_ms: int | None = None
    is_historical: bool = False
    is_transient: bool = False
    properties: dict[str, float | int | str | bool] | None = None


def encode(*, ts_ms: int, metrics: Iterable[OutMetric], seq: int | None) -> bytes:
    """Encode a payload; metrics without a time of their own take the payload's."""
    payload = Payload(timestamp=ts_ms)
    if seq is not None:
        payload.seq = seq
    add = payload.metrics.add
    for name, datatype, value, alias, own_ms, is_historical, is_transient, properties in metrics:
        metric = add(timestamp=ts_ms if own_ms is None else own_ms)
        if name is not None:
            metric.name = name
            metric.datatype = datatype
        if alias is not None:
            metric.alias = alias
        if is_historical:
            metric.is_historical = True
        if is_transient:
            metric.is_transient = True
        _set(metric, datatype, value)
        if properties:
            _set_properties(metric, properties)
    return bytes(payload.SerializeToString())


def _set(metric: Any, datatype: DataType, value: Any) -> None:
    if value is None:
        metric.is_null = True
    elif datatype == DataType.DOUBLE:
        metric.double_value = value
    elif datatype == DataType.FLOAT:
        metric.float_value = value
    elif datatype == DataType.BOOLEAN:
        metric.boolean_value = value
    elif datatype in {DataType.INT64, DataType.UINT64, DataType.DATETIME}:
        metric.long_value = value & 0xFFFF_FFFF_FFFF_FFFF
    elif datatype <= DataType.UINT32:
        metric.int_value = value & 0xFFFF_FFFF
    elif datatype in TEXTS:
        metric.string_value = value
    else:
        metric.bytes_value = value


def _set_properties(metric: Any, properties: dict[str, float | int | str | bool]) -> None:
    for key, value in properties.items():
        metric.properties.keys.append(key)
        out = metric.properties.values.add()
        if isinstance(value, bool):
            out.type, out.boolean_value = DataType.BOOLEAN, value
        elif isinstance(value, int):
            out.type, out.int_value = DataType.INT32, value & 0xFFFF_FFFF
        elif isinstance(value, float):
            out.type, out.double_value = DataType.DOUBLE, value
        else:
            out.type, out.string_value = DataType.STRING, value
