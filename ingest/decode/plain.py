"""Plain JSON: a scalar, an object with time and value, a flat object of signals, arrays of those, a burst of samples."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import orjson

from fettle.model import Flag, Quality
from ingest.decode.instant import read_instant
from ingest.decode.model import (
    BadPayload,
    CodecOptions,
    Context,
    Decoded,
    Path,
    Reason,
    Sample,
    WaveformBurst,
    load_json,
    text_sample,
)

EXACT = 2**53
NOT_NUMBERS = frozenset({"nan", "+nan", "-nan", "inf", "+inf", "-inf", "infinity", "+infinity", "-infinity"})
_QUALITY_WORDS = {
    "good": Quality.GOOD,
    "ok": Quality.GOOD,
    "bad": Quality.BAD,
    "error": Quality.BAD,
    "stale": Quality.STALE,
    "uncertain": Quality.STALE,
}


def decode(context: Context, payload: bytes, received_us: int) -> Decoded:  # noqa: ARG001  (one signature for all codecs)
    """Decode plain JSON, or a bare word such as `ON`.

    Raises:
        BadPayload: nothing in it can be stored.
    """
    out = Decoded()
    try:
        body = load_json(payload, context.options.limits)
    except BadPayload as bad:
        if bad.reason is not Reason.BAD_SYNTAX:
            raise
        body = _bare_word(payload, bad)
    if type(body) is dict and len(body) <= 3 and _decode_known_shape(context, body, out):
        return out
    decode_body(context, body, out)
    return out


class _Shape(NamedTuple):
    """Which keys of a value object hold what."""

    time_key: str
    is_ms: bool
    time_unit: str
    value_key: str
    unit_key: str | None


def _decode_known_shape(context: Context, body: Mapping[str, Any], out: Decoded) -> bool:
    """Decode time, value and perhaps unit without looking for them again; False leaves it to `decode_body`."""
    keys = tuple(body)
    shape = context.memo.get(keys)
    if shape is None:
        shape = _shape_of(keys, context.options)
        context.remember(keys, shape or False)
    if not shape:
        return False
    time_key, is_ms, time_unit, value_key, unit_key = shape
    value = body[value_key]
    if type(value) is not float:
        return False
    stamp = body[time_key]
    if is_ms and type(stamp) is int and 100_000_000_000 <= stamp < 100_000_000_000_000:
        ts_us = stamp * 1000
    elif stamp is None:
        return False
    else:
        ts_us = read_instant(stamp, unit=time_unit, zone=context.options.time_zone)
    unit = None
    if unit_key is not None:
        unit = body[unit_key]
        if not isinstance(unit, str):
            return False
    path = context.path("")
    out.samples.append(Sample(path, ts_us, value, context.unit("", unit), Quality.GOOD, 0))
    return True


def _shape_of(keys: tuple[str, ...], options: CodecOptions) -> _Shape | None:
    """Return the shape of a value object, or None where what a key means depends on its value."""
    found: list[str | None] = []
    left = [key for key in keys if key not in options.ignore_keys]
    for wanted in (options.time_keys, options.value_keys, options.unit_keys):
        named = [key for key in left if key in wanted]
        if len(named) > 1:
            return None
        found.append(named[0] if named else None)
        left = [key for key in left if key not in wanted]
    time_key, value_key, unit_key = found
    if left or len(keys) > sum(key is not None for key in found) or time_key in {None, "t"} or value_key is None:
        return None
    assert time_key is not None
    unit = _time_unit(time_key, options)
    return _Shape(time_key, unit in {"auto", "ms"}, unit, value_key, unit_key)


def _bare_word(payload: bytes, bad: BadPayload) -> str:
    """Take `ON`, `closed` or `nan` for a text without its quotes; anything that looks like broken JSON is refused."""
    try:
        word = payload.decode().strip()
    except UnicodeDecodeError:
        raise BadPayload(Reason.BAD_SYNTAX, "neither JSON nor UTF-8 text") from None
    if not word or len(word) > 64 or word[0] in '{["' or not word.isprintable():
        raise bad
    return word


def decode_body(context: Context, body: object, out: Decoded) -> None:
    """Decode parsed JSON of any of the accepted shapes into `out`."""
    if isinstance(body, list):
        _decode_array(context, body, out)
    elif isinstance(body, dict):
        decode_object(context, body, out)
    else:
        add_value(context, out, "", body, ts_us=None)


def _decode_array(context: Context, body: list[object], out: Decoded) -> None:
    limits = context.options.limits
    if len(body) > limits.max_records:
        raise BadPayload(Reason.TOO_MANY, f"{len(body)} records; max_records is {limits.max_records}")
    if not body:
        out.ignored += 1
        return
    if len(body) > 1 and not any(isinstance(item, dict) for item in body):
        raise BadPayload(
            Reason.BAD_STRUCTURE, 'an array of bare values has no times; send {"t0": …, "dt": …, "values": […]}'
        )
    for item in body:
        if isinstance(item, list):
            out.reject(Reason.BAD_STRUCTURE, "an array within an array")
            continue
        try:
            if isinstance(item, dict):
                decode_object(context, item, out)
            else:
                add_value(context, out, "", item, ts_us=None)
        except BadPayload as bad:
            out.reject(bad.reason, bad.detail)
    check_records(out, limits.max_records)


def check_records(out: Decoded, limit: int) -> None:
    if len(out.samples) + len(out.waveforms) + len(out.rejected) > limit:
        raise BadPayload(Reason.TOO_MANY, f"more than max_records {limit} readings in one message")


def decode_object(context: Context, body: Mapping[str, Any], out: Decoded) -> None:
    """Decode one object: a burst, a value with its time, or signals by name."""
    options = context.options
    if "values" in body and ("dt" in body or "fs" in body):
        decode_burst(context, body, out)
        return
    value_key = None
    for key in options.value_keys:
        if key in body:
            value_key = key
            break
    time_key = _time_key(body, options)
    ts_us = None
    if time_key is not None and body[time_key] is not None:
        ts_us = read_instant(body[time_key], unit=_time_unit(time_key, options), zone=options.time_zone)
    if value_key is not None and _is_value_object(body, value_key, time_key, options):
        _decode_value_object(context, body, value_key, "", ts_us, out)
        return
    units = body.get("units")
    units = units if isinstance(units, dict) else None
    quality = _common_quality(body, options)
    before = len(out.samples) + len(out.rejected) + out.ignored
    for key, value in body.items():
        if key == time_key or (key == "units" and units is not None) or (quality is not None and key == quality[0]):
            continue
        # `value` beside signals of other names stays the sensor's own value, so that a device which adds a key once
        # does not split its series
        name = "" if key == "value" and "sensor" in context.captures else key
        _decode_member(
            context, name, value, ts_us, units, Quality.GOOD if quality is None else quality[1], options, out
        )
    if len(out.samples) + len(out.rejected) + out.ignored == before:
        raise BadPayload(Reason.BAD_STRUCTURE, "an object without a value")
    check_records(out, options.limits.max_records)


def _time_key(body: Mapping[str, Any], options: CodecOptions) -> str | None:
    for key in options.time_keys:
        if key in body:
            # `t` is also what small devices call the temperature
            if key == "t" and not _looks_like_instant(body[key]):
                continue
            return key
    return None


def _looks_like_instant(value: object) -> bool:
    return (isinstance(value, int | float) and abs(value) >= 1e8) or (isinstance(value, str) and len(value) >= 9)


def _time_unit(time_key: str, options: CodecOptions) -> str:
    return "ms" if time_key == "timestamp_ms" and options.time_unit == "auto" else options.time_unit


def _is_value_object(body: Mapping[str, Any], value_key: str, time_key: str | None, options: CodecOptions) -> bool:
    """Whether all keys but the value are about the value."""
    for key in body:
        if (
            key in (value_key, time_key)
            or key in options.ignore_keys
            or key in options.unit_keys
            or key in options.quality_keys
            or (key in options.name_keys and isinstance(body[key], str))
        ):
            continue
        return False
    return True


def _decode_value_object(
    context: Context, body: Mapping[str, Any], value_key: str, key: str, ts_us: int | None, out: Decoded
) -> None:
    options = context.options
    unit = next((body[k] for k in options.unit_keys if isinstance(body.get(k), str)), None)
    quality = _common_quality(body, options)
    name = next((body[k] for k in options.name_keys if isinstance(body.get(k), str)), "")
    key = f"{key}.{name}" if key and name else key or name
    add_value(
        context,
        out,
        key,
        body[value_key],
        ts_us=ts_us,
        unit=unit,
        quality=Quality.GOOD if quality is None else quality[1],
    )


def _common_quality(body: Mapping[str, Any], options: CodecOptions) -> tuple[str, int] | None:
    for key in options.quality_keys:
        if key in body and body[key] is not None:
            # `q` alone is also a flow; only the full word is refused when it makes no sense
            try:
                return key, read_quality(body[key])
            except BadPayload:
                if len(key) > 1:
                    raise
    return None


def read_quality(value: object) -> int:
    """Read a quality: 0, 192 or 500, a word, or a boolean (true is good).

    Raises:
        BadPayload: it is none of these.
    """
    if isinstance(value, bool):
        return Quality.GOOD if value else Quality.BAD
    if isinstance(value, int) and value in {Quality.BAD, Quality.GOOD, Quality.STALE}:
        return value
    if isinstance(value, str):
        found = _QUALITY_WORDS.get(value.strip().lower())
        if found is not None:
            return found
    raise BadPayload(Reason.BAD_QUALITY, f"quality {value!r:.60} is none of 0, 192, 500, good, bad, stale, uncertain")


def _decode_member(
    context: Context,
    key: str,
    value: object,
    ts_us: int | None,
    units: Mapping[str, Any] | None,
    quality: int,
    options: CodecOptions,
    out: Decoded,
) -> None:
    if key in options.ignore_keys:
        out.ignored += 1
        return
    try:
        if isinstance(value, dict):
            _decode_nested(context, key, value, ts_us, units, quality, options, out)
            return
        unit = units.get(key) if units else None
        add_value(context, out, key, value, ts_us=ts_us, unit=unit if isinstance(unit, str) else None, quality=quality)
    except BadPayload as bad:
        out.reject(bad.reason, f"{key[:100]}: {bad.detail}")


def _decode_nested(
    context: Context,
    key: str,
    value: Mapping[str, Any],
    ts_us: int | None,
    units: Mapping[str, Any] | None,
    quality: int,
    options: CodecOptions,
    out: Decoded,
) -> None:
    value_key = next((k for k in options.value_keys if k in value), None)
    time_key = _time_key(value, options)
    if value_key is not None and _is_value_object(value, value_key, time_key, options):
        if time_key is not None and value[time_key] is not None:
            ts_us = read_instant(value[time_key], unit=_time_unit(time_key, options), zone=options.time_zone)
        _decode_value_object(context, value, value_key, key, ts_us, out)
        return
    if not value:
        out.ignored += 1
    for inner, member in value.items():
        _decode_member(context, f"{key}.{inner}" if key else inner, member, ts_us, units, quality, options, out)


def add_value(
    context: Context,
    out: Decoded,
    key: str,
    value: object,
    *,
    ts_us: int | None,
    unit: str | None = None,
    quality: int = Quality.GOOD,
    flags: int = 0,
    path: Path | None = None,
) -> None:
    """Append one JSON value to `out` under `key`, whatever its type.

    Numbers and booleans become readings, null and the words for what is no number become null readings of bad quality,
    texts and arrays become text readings.

    Raises:
        BadPayload: its name or its text cannot be stored.
    """
    options = context.options
    if path is None:
        path = context.path(key)
    unit = context.unit(key, unit)
    number: float | None
    if isinstance(value, str):
        number = read_word(value, options)
        if number is None:
            out.samples.append(
                text_sample(context, path, ts_us, value, flags=flags)._replace(quality=quality)
                if value.strip().lower() not in NOT_NUMBERS
                else Sample(path, ts_us, None, unit, Quality.BAD, flags)
            )
            return
        value = number
    if value is None:
        out.samples.append(Sample(path, ts_us, None, unit, Quality.BAD, flags))
    elif isinstance(value, bool):
        out.samples.append(Sample(path, ts_us, float(value), unit, quality, flags))
    elif isinstance(value, int):
        if not -EXACT <= value <= EXACT:
            if options.large_integers == "text":
                out.samples.append(text_sample(context, path, ts_us, str(value), flags=flags)._replace(quality=quality))
                return
            flags |= Flag.INEXACT
        out.samples.append(Sample(path, ts_us, float(value), unit, quality, flags))
    elif isinstance(value, float):
        if math.isfinite(value):
            out.samples.append(Sample(path, ts_us, value, unit, quality, flags))
        else:
            out.samples.append(Sample(path, ts_us, None, unit, Quality.BAD, flags))
    else:
        text = orjson.dumps(value).decode()
        out.samples.append(text_sample(context, path, ts_us, text, flags=flags)._replace(quality=quality))


def read_word(value: str, options: CodecOptions) -> float | None:
    """Return the number a text stands for under the rule's `words` and `numeric_strings`, or None."""
    if options.words:
        found = options.words.get(value)
        if found is not None:
            return found
    if options.numeric_strings:
        try:
            number = float(value)
        except ValueError:
            return None
        return number if math.isfinite(number) else None
    return None


def decode_burst(context: Context, body: Mapping[str, Any], out: Decoded) -> None:
    """Decode `{"t0": …, "dt" | "fs": …, "values": […] | {channel: […]}}`.

    Raises:
        BadPayload: no positive rate, no samples, or samples that are not numbers.
    """
    options = context.options
    t0 = body.get("t0")
    if t0 is None:
        time_key = _time_key(body, options)
        t0 = body[time_key] if time_key is not None else None
    t0_us = None if t0 is None else read_instant(t0, unit=options.time_unit, zone=options.time_zone)
    rate = body.get("fs")
    step = body.get("dt")
    fs_hz = _positive("fs", rate) if rate is not None else 1.0 / _positive("dt", step)
    if not 0.0 < fs_hz < 1e12:
        raise BadPayload(Reason.BAD_VALUE, f"a sampling rate of {fs_hz!r} Hz")
    name = next((body[k] for k in options.name_keys if isinstance(body.get(k), str)), "")
    unit = next((body[k] for k in options.unit_keys if isinstance(body.get(k), str)), None)
    values = body["values"]
    if not values:
        raise BadPayload(Reason.BAD_STRUCTURE, "a burst without values")
    channels = values if isinstance(values, dict) else {"": values}
    for channel, samples in channels.items():
        key = f"{name}.{channel}" if name and channel else name or channel
        numbers = _numbers(samples, options)
        add_burst(context, out, context.path(key), numbers, t0_us=t0_us, fs_hz=fs_hz, unit=context.unit(key, unit))


def _positive(what: str, value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e15:
        return float(value)
    raise BadPayload(Reason.BAD_VALUE, f"{what} is {value!r:.60}; it must be a positive number")


def _numbers(samples: object, options: CodecOptions) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    if not isinstance(samples, list) or not samples:
        raise BadPayload(Reason.BAD_STRUCTURE, "values must be an array of numbers, or an object of such arrays")
    if len(samples) > options.limits.max_waveform:
        raise BadPayload(Reason.TOO_MANY, f"{len(samples)} samples; max_waveform is {options.limits.max_waveform}")
    for sample in samples:
        if sample is not None and (not isinstance(sample, int | float) or isinstance(sample, bool)):
            raise BadPayload(Reason.BAD_VALUE, f"sample {sample!r:.60} is not a number")
    return np.array([math.nan if sample is None else sample for sample in samples], dtype=np.float64)


def add_burst(
    context: Context,
    out: Decoded,
    path: Path,
    samples: "np.ndarray[tuple[int], np.dtype[np.float64]]",
    *,
    t0_us: int | None,
    fs_hz: float,
    unit: str | None,
    flags: int = 0,
) -> None:
    """Append equally spaced samples to `out`, as a waveform or as single readings by the rule's `burst` option.

    Raises:
        BadPayload: as readings they have no time, or are too many.
    """
    options = context.options
    as_readings = options.burst == "readings" or (options.burst == "auto" and fs_hz <= options.waveform_above_hz)
    if not as_readings:
        out.waveforms.append(pack_waveform(path, samples, t0_us=t0_us, fs_hz=fs_hz, unit=unit, flags=flags))
        return
    if t0_us is None:
        raise BadPayload(Reason.BAD_TIMESTAMP, "a burst stored as single readings needs t0")
    if len(samples) > options.limits.max_records:
        raise BadPayload(Reason.TOO_MANY, f"{len(samples)} readings; max_records is {options.limits.max_records}")
    for i, sample in enumerate(samples.tolist()):
        ts_us = read_instant(t0_us + round(i * 1e6 / fs_hz), unit="us")
        if math.isfinite(sample):
            out.samples.append(Sample(path, ts_us, sample, unit, Quality.GOOD, flags))
        else:
            out.samples.append(Sample(path, ts_us, None, unit, Quality.BAD, flags))


def pack_waveform(
    path: Path,
    samples: "np.ndarray[tuple[int], np.dtype[np.float64]]",
    *,
    t0_us: int | None,
    fs_hz: float,
    unit: str | None,
    flags: int = 0,
) -> WaveformBurst:
    """Pack samples as float32 where that loses nothing, else as float64."""
    with np.errstate(over="ignore"):
        narrow = samples.astype("<f4")
    exact = bool(np.array_equal(narrow.astype(np.float64), samples, equal_nan=True))
    dtype, packed = ("<f4", narrow) if exact else ("<f8", samples.astype("<f8"))
    return WaveformBurst(path, t0_us, fs_hz, unit, len(samples), dtype, 1.0, packed.tobytes(), flags)
