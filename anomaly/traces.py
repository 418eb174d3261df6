"""Lowest and highest value of every sensor in equal pieces of a period: what plots are drawn from, in bounded memory."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from anomaly.finding import SensorMeta
from fettle.wire import ReadingArray

_MOST_PIECES = 12_000_000  # of all sensors together, 8 B each
_SHORTEST_US = 1_000_000


class Traces:
    """Collects the readings of a period as they pass by.

    >>> traces = Traces([], start_us=0, end_us=3_600_000_000)
    >>> traces.step_us
    1000000
    """

    def __init__(self, sensors: Sequence[SensorMeta], *, start_us: int, end_us: int) -> None:
        self.start_us = start_us
        pieces = max(_MOST_PIECES // max(len(sensors), 1), 100)
        self.step_us = max(-(-(end_us - start_us) // pieces), _SHORTEST_US)
        self.pieces = -(-(end_us - start_us) // self.step_us)
        top = max((int(s.sensor_id) for s in sensors), default=0)
        self._row = np.full(top + 1, -1, dtype=np.int64)
        self._row[[int(s.sensor_id) for s in sensors]] = np.arange(len(sensors))
        self._low = np.full(len(sensors) * self.pieces, np.inf, dtype=np.float32)
        self._high = np.full(len(sensors) * self.pieces, -np.inf, dtype=np.float32)

    def add(self, readings: ReadingArray) -> None:
        value = readings["value"]
        cell = self._row[readings["sensor_id"]] * self.pieces + (readings["ts"] - self.start_us) // self.step_us
        is_there = np.isfinite(value)
        if not is_there.all():
            cell, value = cell[is_there], value[is_there]
        value = value.astype(np.float32)
        np.minimum.at(self._low, cell, value)
        np.maximum.at(self._high, cell, value)

    def of(
        self, sensor_id: int, *, start_us: int, end_us: int, points: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Return (middle of the piece, lowest, highest) within a period, at most about `points` of them."""
        first = max((start_us - self.start_us) // self.step_us, 0)
        last = min(-(-(end_us - self.start_us) // self.step_us), self.pieces)
        if last <= first:
            empty = np.zeros(0, dtype=np.float32)
            return np.zeros(0, dtype=np.int64), empty, empty
        at = int(self._row[sensor_id]) * self.pieces
        low, high = self._low[at + first : at + last], self._high[at + first : at + last]
        group = max(-(-(last - first) // points), 1)
        starts = np.arange(0, last - first, group)
        low, high = np.minimum.reduceat(low, starts), np.maximum.reduceat(high, starts)
        middle = self.start_us + (first + starts) * self.step_us + group * self.step_us // 2
        is_there = np.isfinite(low)
        return middle[is_there], low[is_there], high[is_there]
