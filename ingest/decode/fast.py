"""The commonest payloads without an object in between, alone and many at a time.

All functions answer None for anything but the plain form with default options; the caller then takes the route's
codec, which also finds the words for what is wrong. So None is never an error, and a tuple says exactly what the codec
of plain JSON would have said.
"""

from collections.abc import Sequence
from typing import Any

import orjson

from fettle.model import Quality
from ingest.decode.model import MAX_UNIT

_loads = orjson.loads
_GOOD = Quality.GOOD
_EXACT = 2**53
_MOST_SIGNALS = 1000
_OTHER_SHAPES = frozenset({"value", "v", "val", "values", "quality", "q"})  # `q` may be a flow


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


def parse_together(payloads: Sequence[bytes]) -> list[dict[str, Any]] | None:
    """Parse many payloads with one call, or answer None where one of them is no flat object on a line of its own.

    None of them holds a line feed, each begins and ends with a brace and opens no other: so no text, list or object can
    reach over the line feeds between them, and object `i` is exactly what payload `i` says.
    """
    n = len(payloads)
    joined = b",\n".join(payloads)
    if (
        not joined.startswith(b"{")
        or not joined.endswith(b"}")
        or joined.count(b"{") != n
        or joined.count(b"\n") != n - 1
        or joined.count(b"},\n{") != n - 1
    ):
        return None
    try:
        bodies: list[dict[str, Any]] = _loads(b"[" + joined + b"]")
    except ValueError:
        return None
    return bodies


def decode_values(
    bodies: Sequence[dict[str, Any]], units: Sequence[str | None]
) -> tuple[list[int], list[float]] | None:
    """Read what `decode_value` would read from each of `bodies`: (ts_us, values).

    Args:
        bodies: as parsed.
        units: the unit that each is expected to carry, as once read by `decode_value`; any other one answers None.
    """
    try:
        ts = [body["ts"] for body in bodies]
        values = [body["value"] for body in bodies]
        widths = set(map(len, bodies))
        if widths == {3}:
            if [body["unit"] for body in bodies] != units:
                return None
        elif widths != {2} or any(unit is not None for unit in units):
            return None
    except KeyError:
        return None
    if set(map(type, ts)) != {int} or not (min(ts) >= 100_000_000_000 and max(ts) < 100_000_000_000_000):
        return None
    if set(map(type, values)) != {float}:
        for i, value in enumerate(values):
            if type(value) is not float:
                if type(value) is not int or not -_EXACT <= value <= _EXACT:
                    return None
                values[i] = float(value)
    return [stamp * 1000 for stamp in ts], values


def decode_signals(payload: bytes) -> tuple[int, tuple[str, ...], list[float], dict[str, Any] | None] | None:
    """Decode `{"ts": <ms>, <signal>: <number>, …[, "units": {…}]}` into (ts_us, signals, values, units).

    The order is the sender's, so the tuple of signals is a key under which a collector can keep the sensor ids. Nulls,
    booleans, texts and nested objects among the values are left to the codec. `units` is as sent, unchecked.
    """
    try:
        body = _loads(payload)
        ts = body.pop("ts")
        units = body.pop("units", {})
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
    if not 0 < len(values) <= _MOST_SIGNALS or not _OTHER_SHAPES.isdisjoint(signals) or type(units) is not dict:
        return None
    return ts * 1000, signals, values, units or None
