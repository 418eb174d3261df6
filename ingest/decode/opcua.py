"""OPC UA PubSub in JSON (OPC 10000-14 §7.2.5, 10000-6 §5.4), both encodings: up to 1.04 and since 1.05.

The network header, the header of the data set message, or both may be missing. A field is raw JSON, a Variant or a
DataValue. Its severity is the top two bits of the status code: good, uncertain (stored as stale), bad.
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from fettle.model import Quality
from ingest.decode.availability import place
from ingest.decode.instant import read_instant
from ingest.decode.model import BadPayload, Context, Decoded, Liveness, Reason, load_json
from ingest.decode.plain import NOT_NUMBERS, add_value, check_records

_HEADER = frozenset(
    {"MessageId", "MessageType", "PublisherId", "DataSetClassId", "Messages", "WriterGroupName", "ReplyTo"}
)
_DATASET_HEADER = frozenset(
    {
        "DataSetWriterId",
        "DataSetWriterName",
        "PublisherId",
        "WriterGroupName",
        "SequenceNumber",
        "MetaDataVersion",
        "MinorVersion",
        "Timestamp",
        "Status",
        "MessageType",
        "Payload",
    }
)
_VALUE_KEYS = frozenset(
    {
        "Value",
        "UaType",
        "Type",
        "Body",
        "Dimensions",
        "Status",
        "StatusCode",
        "SourceTimestamp",
        "SourcePicoseconds",
        "ServerTimestamp",
        "ServerPicoseconds",
    }
)
_INTEGER_TYPES = frozenset({8, 9})  # Int64 and UInt64 travel as texts
_FLOAT_TYPES = frozenset({10, 11})


def decode(context: Context, payload: bytes, received_us: int) -> Decoded:  # noqa: ARG001
    """Decode a NetworkMessage, an array of DataSetMessages, one of them, or a bare payload.

    Raises:
        BadPayload: none of these.
    """
    body = load_json(payload, context.options.limits)
    out = Decoded()
    if isinstance(body, list):
        for message in body:
            _decode_dataset(context, message, {}, out)
    elif isinstance(body, dict):
        _decode_network(context, body, out)
    else:
        raise BadPayload(Reason.BAD_STRUCTURE, "an object or an array of objects is meant")
    check_records(out, context.options.limits.max_records)
    if not (out.samples or out.rejected or out.liveness):
        out.ignored += 1
    return out


def _decode_network(context: Context, body: Mapping[str, Any], out: Decoded) -> None:
    kind = body.get("MessageType")
    publisher = _label(body.get("PublisherId"))
    fields = {"publisher": publisher} if publisher else {}
    if isinstance(body.get("WriterGroupName"), str):
        fields["group"] = body["WriterGroupName"]
    if kind == "ua-status" or (kind is None and "IsCyclic" in body):
        status = body.get("Status")
        # PubSubState: 0 disabled, 1 paused, 2 operational, 3 error, 4 pre-operational
        is_online = status == 2 or status == "Operational"  # noqa: PLR1714  (a set would hash whatever was sent)
        out.liveness.append(Liveness(_place(context, fields), is_online, None, f"status {status!r:.40}"))
        return
    if (
        isinstance(kind, str)
        and kind.startswith("ua-")
        and kind not in {"ua-data", "ua-keyframe", "ua-deltaframe", "ua-event"}
    ):
        return  # metadata, keep-alive, discovery: nothing to store
    if "Messages" in body:
        messages = body["Messages"]
        for message in messages if isinstance(messages, list) else [messages]:
            _decode_dataset(context, message, fields, out)
        return
    _decode_dataset(context, body, fields, out)


def _place(context: Context, fields: Mapping[str, str]) -> tuple[str, str]:
    if not fields:
        return place(context)
    return context.build_path({**fields, "key": "status"})[:2]


def _label(value: object) -> str:
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""


def _decode_dataset(context: Context, message: object, fields: Mapping[str, str], out: Decoded) -> None:
    if not isinstance(message, dict):
        out.reject(Reason.BAD_STRUCTURE, f"data set message {message!r:.60} is no object")
        return
    if message.get("MessageType") == "ua-keepalive":
        return
    options = context.options
    payload = message.get("Payload")
    is_wrapped = isinstance(payload, dict) and message.keys() <= _DATASET_HEADER
    header: Mapping[str, Any] = message if is_wrapped else {}
    values: Mapping[str, Any] = payload if is_wrapped and isinstance(payload, dict) else message
    if not is_wrapped and not values.keys().isdisjoint({"MessageId", "DataSetWriterId", "MessageType"}):
        return  # a header without data, e.g. a keep-alive
    named = dict(fields)
    writer = _label(header.get("DataSetWriterName")) or _label(header.get("DataSetWriterId"))
    if writer:
        named["writer"] = writer
        named["dataset"] = writer
    for key in ("PublisherId", "WriterGroupName"):
        if _label(header.get(key)):
            named["publisher" if key == "PublisherId" else "group"] = _label(header[key])
    try:
        ts_us = _instant(context, header.get("Timestamp"))
        quality = _severity(header.get("Status"))
    except BadPayload as bad:
        for key in values:
            out.reject(bad.reason, f"{key[:100]}: {bad.detail}")
        return
    for key, field in values.items():
        if key in options.ignore_keys:
            out.ignored += 1
            continue
        try:
            _decode_field(context, key, field, ts_us, quality, named, out)
        except BadPayload as bad:
            out.reject(bad.reason, f"{key[:100]}: {bad.detail}")


def _decode_field(
    context: Context,
    key: str,
    field: object,
    ts_us: int | None,
    quality: int,
    named: Mapping[str, str],
    out: Decoded,
) -> None:
    """Unwrap DataValue and Variant of either generation, then store what is inside."""
    kind: object = None
    value = field
    if isinstance(field, dict) and field and field.keys() <= _VALUE_KEYS:
        value = field.get("Value", field.get("Body"))
        kind = field.get("UaType", field.get("Type"))
        stamp = field.get("SourceTimestamp", field.get("ServerTimestamp"))
        ts_us = _instant(context, stamp) or ts_us
        quality = min(quality, _severity(field.get("Status", field.get("StatusCode"))), key=_RANK.index)
        if isinstance(value, dict) and value.keys() <= {"Type", "Body", "UaType", "Value", "Dimensions"} and value:
            kind = value.get("UaType", value.get("Type"))
            value = value.get("Body", value.get("Value"))
    value = _typed(value, kind)
    path = context.path(key, **named)
    if isinstance(value, dict):
        _decode_structure(context, key, value, ts_us, quality, named, out)
        return
    add_value(context, out, key, value, ts_us=ts_us, quality=quality, path=path)


_RANK = (Quality.BAD, Quality.STALE, Quality.GOOD)  # the worst first


def _decode_structure(
    context: Context,
    prefix: str,
    value: Mapping[str, Any],
    ts_us: int | None,
    quality: int,
    named: Mapping[str, str],
    out: Decoded,
) -> None:
    for name, member in value.items():
        key = f"{prefix}.{name}"
        if isinstance(member, dict):
            _decode_structure(context, key, member, ts_us, quality, named, out)
        else:
            add_value(context, out, key, member, ts_us=ts_us, quality=quality, path=context.path(key, **named))


def _instant(context: Context, stamp: object) -> int | None:
    """Read a DateTime; its smallest value, the first of January of the year 1, means that there is none."""
    if stamp is None or (isinstance(stamp, str) and stamp.startswith("0001-01-01")):
        return None
    return read_instant(stamp, zone=context.options.time_zone)


def _typed(value: object, kind: object) -> object:
    """Read the texts that stand for numbers: 64-bit integers, and NaN and the infinities of floats."""
    if not isinstance(value, str):
        return value
    if kind in _INTEGER_TYPES:
        try:
            if len(value) <= 21:
                return int(value)
        except ValueError:
            pass
        raise BadPayload(Reason.BAD_VALUE, f"{value[:60]!r} is no 64-bit integer")
    if kind in _FLOAT_TYPES:
        if value.strip().lower() in NOT_NUMBERS:
            return value
        raise BadPayload(Reason.BAD_VALUE, f"{value[:60]!r} is no floating point number")
    if kind == 15:  # ByteString
        try:
            base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raise BadPayload(Reason.BAD_VALUE, "a byte string that is not base64") from None
    return value


def _severity(status: object) -> int:
    """Map a status code, as a number or as an object with `Code`, to a quality."""
    if isinstance(status, dict):
        status = status.get("Code", 0)
    if status is None:
        return Quality.GOOD
    if isinstance(status, str):
        word = status.lower()
        return (
            Quality.GOOD if word.startswith("good") else Quality.STALE if word.startswith("uncertain") else Quality.BAD
        )
    if type(status) is not int or not 0 <= status < 2**32:
        raise BadPayload(Reason.BAD_QUALITY, f"status code {status!r:.60}")
    return (Quality.GOOD, Quality.STALE, Quality.BAD, Quality.BAD)[status >> 30]
