"""Rollups on plain PostgreSQL: minutes, hours and days per sensor, brought up to date from the ledger of batches.

A batch and its readings commit together, so what lies beyond the position in the ledger is exactly what the rollups
lack, however late its readings are. The buckets it touches are computed again from what lies below them, never added to:
neither a crash nor a repetition can count a reading twice. Position and buckets commit together.

    batch (payload) ─▶ minutes touched ─▶ reading_1m ─▶ hours touched ─▶ reading_1h ─▶ days touched ─▶ reading_1d
"""

import numpy as np
import numpy.typing as npt

from fettle.db import SyncConn, load_queries
from fettle.wire import READING_DTYPE
from ingest.store import as_datetime

queries = load_queries("ingest")
LOCK_SPACE = 0x0FE77D  # advisory locks of house-keeping
_LOCK = 1
_MINUTE_US = 60_000_000
_HOUR_US = 60 * _MINUTE_US
_DAY_US = 24 * _HOUR_US
_BATCHES_AT_ONCE = 1000  # of each collector, small ones together: each minute they touch is computed once
_ROWS_AT_ONCE = 300_000
_BUCKETS_AT_ONCE = 50_000

Buckets = npt.NDArray[np.int64]  # two columns: sensor id, start in microseconds; unique, sorted


def roll_up(conn: SyncConn) -> int | None:
    """Bring the rollups up to date with the next batches of every collector, in one transaction.

    Returns:
        How many batches were taken in, 0 when none were left; None where another process is at it.
    """
    with conn.transaction():
        if conn.execute(queries.try_lock, {"space": LOCK_SPACE, "number": _LOCK}).fetchone() != (True,):
            return None
        batches = conn.execute(
            queries.next_unrolled_batches, {"most": _BATCHES_AT_ONCE, "most_rows": _ROWS_AT_ONCE}
        ).fetchall()
        if not batches:
            return 0
        positions: dict[int, int] = {}
        found: list[Buckets] = []
        for collector_id, number, payload, stored, first, last in batches:
            positions[collector_id] = number
            if payload:
                rows = np.frombuffer(payload, dtype=READING_DTYPE)
                found.append(buckets(rows["sensor_id"].astype(np.int64), rows["ts"], _MINUTE_US))
            elif stored and first is not None:  # its payload is gone: every minute of its span
                span = conn.execute(queries.find_span_minutes, {"first_ts": first, "last_ts": last}).fetchall()
                found.append(np.array(span, dtype=np.int64).reshape(-1, 2))
        if found:
            compute(conn, np.unique(np.concatenate(found), axis=0))
        conn.execute(
            queries.move_rollup_position,
            {"collector_ids": list(positions), "numbers": list(positions.values())},
        )
        return len(batches)


def compute(conn: SyncConn, minutes: Buckets) -> None:
    """Compute these minutes again from the readings, then the hours and days they lie in."""
    hours = buckets(minutes[:, 0], minutes[:, 1], _HOUR_US)
    days = buckets(hours[:, 0], hours[:, 1], _DAY_US)
    for start in range(0, len(minutes), _BUCKETS_AT_ONCE):
        some = minutes[start : start + _BUCKETS_AT_ONCE]
        # the outer bounds let the planner leave out partitions
        bounds = {"first_ts": as_datetime(some[:, 1].min()), "last_ts": as_datetime(some[:, 1].max() + _MINUTE_US)}
        conn.execute(queries.roll_minutes, _columns(some) | bounds)
    for start in range(0, len(hours), _BUCKETS_AT_ONCE):
        conn.execute(queries.roll_hours, _columns(hours[start : start + _BUCKETS_AT_ONCE]))
    for start in range(0, len(days), _BUCKETS_AT_ONCE):
        conn.execute(queries.roll_days, _columns(days[start : start + _BUCKETS_AT_ONCE]))


def buckets(sensor_ids: npt.NDArray[np.int64], ts_us: npt.NDArray[np.int64], width_us: int) -> Buckets:
    """Return the distinct (sensor, bucket) pairs of readings, sorted.

    >>> buckets(np.array([7, 7, 3]), np.array([61_000_000, 119_000_000, 5]), 60_000_000).tolist()
    [[3, 0], [7, 60000000]]
    """
    found: Buckets = np.unique(np.stack((sensor_ids, ts_us // width_us * width_us), axis=1), axis=0)
    return found


def _columns(pairs: Buckets) -> dict[str, object]:
    return {
        "sensor_ids": pairs[:, 0].tolist(),
        "buckets": [as_datetime(at) for at in pairs[:, 1].tolist()],
    }
