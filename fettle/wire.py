"""What travels between processes: Fettle's own MQTT topics and payloads, and the array form of a batch.

Topics carry identity, payloads carry time, value and unit:

    fettle/{tenant}/{site}/{machine}/{sensor}   {"ts": 1795219200000, "value": 2.31, "unit": "mm/s"}
    fettle/{tenant}/{site}/{machine}            {"ts": 1795219200000, "vibration": 2.31, "units": {"vibration": "mm/s"}}

`ts` is milliseconds since 1970 (or ISO 8601). Any other format that `ingest` accepts is described there; this is what
simulators and replay send by default. Inside the program an instant is an int64 of microseconds since 1970, UTC.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import orjson

from fettle.errors import FettleError

TOPIC_ROOT = "fettle"

READING_DTYPE = np.dtype([("sensor_id", "<i4"), ("quality", "<i2"), ("flags", "<i2"), ("ts", "<i8"), ("value", "<f8")])
"""One reading, 24 bytes: the columns of table `reading`, `ts` in microseconds since 1970-01-01T00:00:00Z."""

ReadingArray = npt.NDArray[np.void]
"""A one-dimensional structured array of `READING_DTYPE`."""


class BadTopicLevel(FettleError):
    """{what} {level!r} cannot be a topic level: it must be 1 to 128 characters without '/', '+', '#', and no control characters."""


def check_level(what: str, level: str) -> str:
    """Return `level` if MQTT allows it as one topic level.

    Raises:
        BadTopicLevel: it is empty, too long, or holds a separator, wildcard or control character.
    """
    if not 1 <= len(level) <= 128 or any(c in "/+#" or ord(c) < 32 for c in level):
        raise BadTopicLevel(what=what, level=level)
    return level


def machine_topic(*, tenant: str, site: str, machine: str) -> str:
    levels = (check_level("tenant", tenant), check_level("site", site), check_level("machine", machine))
    return "/".join((TOPIC_ROOT, *levels))


def reading_topic(*, tenant: str, site: str, machine: str, sensor: str) -> str:
    return f"{machine_topic(tenant=tenant, site=site, machine=machine)}/{check_level('sensor', sensor)}"


def encode_reading(*, ts_us: int, value: float | None, unit: str | None = None) -> bytes:
    """Encode one reading as JSON; a value that is missing or not finite travels as null."""
    body: dict[str, object] = {"ts": ts_us / 1000 if ts_us % 1000 else ts_us // 1000, "value": value}
    if unit:
        body["unit"] = unit
    return orjson.dumps(body)


def encode_signals(*, ts_us: int, values: Mapping[str, float | None], units: Mapping[str, str] | None = None) -> bytes:
    """Encode the signals of one machine at one instant as one JSON object."""
    body: dict[str, object] = {"ts": ts_us / 1000 if ts_us % 1000 else ts_us // 1000, **values}
    if units:
        body["units"] = dict(units)
    return orjson.dumps(body)
