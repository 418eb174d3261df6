"""The two commonest payloads without an object in between.

Both functions answer None for anything but the plain form with default options; the caller then takes the route's
codec, which also finds the words for what is wrong. So None is never an error, and a tuple says exactly what the codec
of plain JSON would have said.
"""

from typing import Any

import orjson

from fettle.model import Quality
from ingest.decode.model import MAX_UNIT

_loads = orjson.loads
_GOOD = Quality.GOOD
_EXACT = 2**53
_MOST_SIGNALS = 1000
_OTHER_SHAPES = frozenset({"value", "v", "val", "values", "quality"})


def decode_value(payload: bytes) -> tuple[int, float, str | None, int, int] | None:
    """Decode `{"ts": <ms>, "value": <number>[, "unit": <text>]}` into (ts_us, value, unit, quality, flags).

    `ts` must be an integer of milliseconds, which is what `fettle.wire` sends.
    """
    try:
        body = _loads(payload)
        ts = body["ts"]
        value = body["value"]
        if type(value) is not float:
            if type(value) is not int or not -_EXACT <= value <= _EXACT:
                return None
            value = float(value)
        if type(ts) is int and 100_000_000_000 <= ts < 100_000_000_000_000:
            if len(body) == 3:
                unit = body["unit"]
                if type(unit) is str and 0 < len(unit) <= MAX_UNIT and unit.isprintable():
                    return ts * 1000, value, unit, _GOOD, 0
            elif len(body) == 2:
                return ts * 1000, value, None, _GOOD, 0
    except (KeyError, TypeError, ValueError, IndexError):  # orjson.JSONDecodeError is a ValueError
        return None
    return None


def decode_signals(payload: bytes) -> tuple[int, tuple[str, ...], list[float], dict[str, Any] | None] | None:
    """Decode `{"ts": <ms>, <signal>: <number>, …[, "units": {…}]}` into (ts_us, signals, values, units).

    The order is the sender's, so the tuple of signals is a key under which a collector can keep the sensor ids. Nulls,
    booleans, texts and nested objects among the values are left to the codec. `units` is as sent, unchecked.
    """
    try:
        body = _loads(payload)
        ts = body.pop("ts")
        units = body.pop("units", None)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        return None
    if type(ts) is not int or not 100_000_000_000 <= ts < 100_000_000_000_000:
        return None
    values = [*body.values()]
    for i, value in enumerate(values):
        if type(value) is not float:
            if type(value) is not int or not -_EXACT <= value <= _EXACT:
                return None
            values[i] = float(value)
    signals = tuple(body)
    if (
        not 0 < len(values) <= _MOST_SIGNALS
        or not _OTHER_SHAPES.isdisjoint(signals)
        or (units is not None and type(units) is not dict)
    ):
        return None
    return ts * 1000, signals, values, units
