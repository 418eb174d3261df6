"""Cuts a batch into ticks: runs in time order that hold each sensor at most once, so that one array operation is one update.

batch   a1 b1 a2 b2 b3        (letters: sensors, digits: time)
ticks   [a1 b1] [a2 b2] [b3]
"""

from collections.abc import Iterator

import numpy as np

from anomaly.columns import FloatArray, IntArray


def cut(rows: IntArray, ts: IntArray) -> tuple[IntArray, list[tuple[int, int]]]:
    """Return an order of the samples and the half-open ranges of it that are ticks, each sorted by sensor.

    `rows` are sensor rows, `ts` event times. Ticks follow each other in time; of samples that agree in sensor and time the
    first given comes first. Whether the batch came sorted does not matter.
    """
    n = len(rows)
    if n == 0:
        return np.zeros(0, dtype=np.int64), []
    order = np.lexsort((rows, ts))
    sorted_rows = rows[order]
    # for each sample the position of the same sensor's sample before it
    by_sensor = np.argsort(sorted_rows, kind="stable")
    same = sorted_rows[by_sensor][1:] == sorted_rows[by_sensor][:-1]
    before = np.full(n, -1, dtype=np.int64)
    before[by_sensor[1:][same]] = by_sensor[:-1][same]
    ranges = list(_ranges(np.maximum.accumulate(before), n))
    tick = np.repeat(np.arange(len(ranges)), [end - start for start, end in ranges])
    return order[by_sensor[np.argsort(tick[by_sensor], kind="stable")]], ranges


def _ranges(latest: IntArray, n: int) -> Iterator[tuple[int, int]]:
    start = 0
    while start < n:
        end = int(np.searchsorted(latest, start, side="left"))
        yield start, end
        start = end


def group_median(values: FloatArray, group: IntArray, groups: int) -> FloatArray:
    """Return the median of each group, ignoring NaN; NaN where a group has no value."""
    order = np.lexsort((values, group))  # NaN sorts last within its group
    counts = np.bincount(group, minlength=groups)
    valid = np.bincount(group, weights=np.isfinite(values), minlength=groups).astype(np.int64)
    starts = np.cumsum(counts) - counts
    has = valid > 0
    low = np.where(has, starts + (valid - 1) // 2, 0)
    high = np.where(has, starts + valid // 2, 0)
    ranked = values[order] if len(values) else np.zeros(1)
    return np.where(has, (ranked[low] + ranked[high]) / 2, np.nan)
