"""Time stamps: read them from what devices send, and judge them against the clock.

Instants are integers of microseconds since 1970-01-01T00:00:00Z. The present is always an argument.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from functools import lru_cache
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from fettle.model import Flag
from fettle.wire import ReadingArray
from ingest.decode.model import BadPayload, Reason

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_END_US = 253_402_300_800_000_000  # the year 10000
_UNITS = {"s": 1_000_000, "ms": 1000, "us": 1}
_DIGITS = re.compile(r"[+-]?\d{9,20}(\.\d{1,9})?")


def read_instant(stamp: object, *, unit: str = "auto", zone: str = "UTC") -> int:
    """Read a numeric or ISO 8601 time stamp.

    With unit `auto` a number's unit follows from its magnitude: below 1e11 seconds, below 1e14 milliseconds, below 1e17
    microseconds, else nanoseconds. Nanoseconds are truncated. A text without a zone is in `zone`.

    >>> read_instant(1795219200), read_instant("2026-11-21T00:00:00+00:00"), read_instant(1795219200000)
    (1795219200000000, 1795219200000000, 1795219200000000)

    Raises:
        BadPayload: neither a number nor ISO 8601, or outside the years 1 to 9999.
    """
    if type(stamp) is int:
        return _in_range(_scale(stamp, unit), stamp)
    if type(stamp) is float:
        return _in_range(_scale_float(stamp, unit), stamp)
    if isinstance(stamp, str):
        return _read_text(stamp.strip(), unit, zone)
    raise BadPayload(Reason.BAD_TIMESTAMP, f"{stamp!r:.80} is neither a number nor an ISO 8601 text")


def _unit_of(magnitude: float) -> str:
    if magnitude < 1e11:
        return "s"
    if magnitude < 1e14:
        return "ms"
    return "us" if magnitude < 1e17 else "ns"


def _scale(stamp: int, unit: str) -> int:
    if unit == "auto":
        unit = _unit_of(abs(stamp))
    return stamp // 1000 if unit == "ns" else stamp * _UNITS[unit]


def _scale_float(stamp: float, unit: str) -> int:
    if not abs(stamp) < 1e20:  # also NaN
        raise BadPayload(Reason.BAD_TIMESTAMP, f"{stamp!r} is not an instant")
    if unit == "auto":
        unit = _unit_of(abs(stamp))
    return int(stamp // 1000) if unit == "ns" else round(stamp * _UNITS[unit])


def _in_range(ts_us: int, stamp: object) -> int:
    if -62_135_596_800_000_000 <= ts_us < _END_US:
        return ts_us
    raise BadPayload(Reason.BAD_TIMESTAMP, f"{stamp!r:.80} lies outside the years 1 to 9999")


def _read_text(stamp: str, unit: str, zone: str) -> int:
    if len(stamp) > 64:
        raise BadPayload(Reason.BAD_TIMESTAMP, f"a time stamp of {len(stamp)} characters")
    if _DIGITS.fullmatch(stamp):
        return read_instant(float(stamp) if "." in stamp else int(stamp), unit=unit)
    try:
        if stamp[-1:] == "z":
            stamp = stamp[:-1] + "Z"
        at = datetime.fromisoformat(stamp)
        if at.tzinfo is None:
            at = at.replace(tzinfo=zone_of(zone))
        since = at - _EPOCH
    except (ValueError, OverflowError):
        raise BadPayload(Reason.BAD_TIMESTAMP, f"{stamp!r} is not ISO 8601, e.g. 2026-01-05T10:00:00Z") from None
    return _in_range((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds, stamp)


@lru_cache(maxsize=64)
def zone_of(name: str) -> ZoneInfo:
    return ZoneInfo(name)


class Verdict(Enum):
    """What the clock policy decides about one reading."""

    STORE = "store"
    FUTURE = "future"
    BEYOND_RETENTION = "beyond_retention"


class Judged(NamedTuple):
    verdict: Verdict
    ts_us: int
    flags: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockPolicy:
    """How far a reading's time may lie from the clock."""

    future_us: int = 10 * 60 * 1_000_000  # ahead of the clock: tolerated
    future: Literal["reject", "clamp"] = "reject"  # beyond that: dead letter, or set to the receive time and flagged
    retention_us: int = 400 * 86_400 * 1_000_000  # older readings are refused, the partition they need is gone
    late_us: int = 10 * 60 * 1_000_000  # older readings are stored with Flag.LATE


def judge(ts_us: int | None, flags: int, *, now: int, policy: ClockPolicy) -> Judged:
    """Apply the clock policy to one reading; `now` is the receive time in microseconds.

    A reading without a time stamp takes `now` and `Flag.RECEIVE_TIME`.
    """
    if ts_us is None:
        return Judged(Verdict.STORE, now, flags | Flag.RECEIVE_TIME)
    if ts_us > now + policy.future_us:
        if policy.future == "clamp":
            return Judged(Verdict.STORE, now, flags | Flag.CLAMPED)
        return Judged(Verdict.FUTURE, ts_us, flags)
    if ts_us < now - policy.retention_us:
        return Judged(Verdict.BEYOND_RETENTION, ts_us, flags)
    if ts_us < now - policy.late_us:
        return Judged(Verdict.STORE, ts_us, flags | Flag.LATE)
    return Judged(Verdict.STORE, ts_us, flags)


def judge_batch(
    readings: ReadingArray, *, now: int | npt.NDArray[np.int64], policy: ClockPolicy
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Apply the clock policy to a batch in place; return the masks (future, beyond retention) of readings to refuse.

    `now` is one receive time, or one per reading. The refused rows are left as they were.
    """
    ts = readings["ts"]
    future = ts > now + policy.future_us
    beyond = ts < now - policy.retention_us
    late = (ts < now - policy.late_us) & ~beyond
    if late.any():
        readings["flags"][late] |= Flag.LATE
    if policy.future == "clamp" and future.any():
        readings["flags"][future] |= Flag.CLAMPED
        readings["ts"][future] = np.broadcast_to(np.asarray(now), ts.shape)[future]
        future = np.zeros_like(future)
    return future, beyond
