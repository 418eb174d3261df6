"""The only place that reads the clock. Rules take the time as an argument; edges ask here."""

import time
from datetime import UTC, datetime


def now() -> datetime:
    """Return the present instant, aware, in UTC."""
    return datetime.now(UTC)


def now_us() -> int:
    """Return microseconds since 1970-01-01T00:00:00Z."""
    return time.time_ns() // 1000


def monotonic_s() -> float:
    """Return seconds on a clock that never steps back; for measuring durations only."""
    return time.monotonic()
