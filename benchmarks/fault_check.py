"""The checker of the fault and outage benchmarks: what was promised to the publisher against what the database holds."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import psycopg

from benchmarks.fault_plant import Obligations

STORED_DTYPE = np.dtype([("sensor", "<i4"), ("ts_ms", "<i8"), ("value", "<f8")])
_ROW = np.dtype([("n", ">i2"), ("w0", ">i4"), ("sensor", ">i4"), ("w1", ">i4"), ("ts_ms", ">i8"), ("w2", ">i4"), ("value", ">f8")])  # fmt: skip
_HEAD = 19  # bytes before the first row of a binary COPY
_TAIL = 2


@dataclass
class Verdict:
    """What the checker found."""

    acknowledged: int
    stored: int
    missing: list[int]  # acknowledged, and not stored
    duplicates: int  # stored more than once
    phantoms: int  # stored, and never sent
    altered: int  # stored under another sensor or time than they were sent with
    lost_by_broker: int
    excused: int

    @property
    def is_clean(self) -> bool:
        return not (self.missing or self.duplicates or self.phantoms or self.altered)


@dataclass
class Excuses:
    """Spans of time in which the broker acknowledged what it then lost with its memory."""

    spans: list[tuple[float, float]] = field(default_factory=list)

    def cover(self, at: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        """Return which of the moments lie in a span."""
        covered = np.zeros(len(at), dtype=bool)
        for start, end in self.spans:
            covered |= (at >= start) & (at <= end)
        return covered


def check(obligations: Obligations, stored: npt.NDArray[np.void], excuses: Excuses) -> Verdict:
    """Compare what was promised with what is stored, of `STORED_DTYPE`."""
    promised = np.fromiter(obligations.acknowledged_at.keys(), dtype=np.int64)
    at = np.fromiter(obligations.acknowledged_at.values(), dtype=np.float64)
    values = stored["value"]
    with np.errstate(invalid="ignore"):
        was_sent = (values >= 0) & (values < obligations.sent) & (values == np.floor(values))
    numbers = values[was_sent].astype(np.int64)
    sensors, ts_ms = obligations.places(numbers)
    is_altered = (stored["sensor"][was_sent] != sensors) | (stored["ts_ms"][was_sent] != ts_ms)
    times = np.bincount(numbers, minlength=max(obligations.sent, 1))
    gone = times[promised] == 0
    excused = excuses.cover(at)
    return Verdict(
        acknowledged=len(promised),
        stored=len(stored),
        missing=sorted(promised[gone & ~excused].tolist()),
        duplicates=int(np.maximum(times - 1, 0).sum()),
        phantoms=int(np.count_nonzero(~was_sent)),
        altered=int(np.count_nonzero(is_altered)),
        lost_by_broker=int(np.count_nonzero(gone & excused)),
        excused=int(np.count_nonzero(excused)),
    )


def read_stored(url: str) -> npt.NDArray[np.void]:
    """Return all readings of the publisher's machines, as `STORED_DTYPE`."""
    query = """
        COPY (
            SELECT substr(m.number, 2)::int, (extract(epoch FROM r.ts) * 1000)::bigint, coalesce(r.value, 'NaN')
            FROM reading AS r
            JOIN sensor AS s ON s.id = r.sensor_id
            JOIN machine AS m ON m.id = s.machine_id
        ) TO STDOUT (FORMAT BINARY)
    """
    with psycopg.connect(url) as conn, conn.cursor().copy(query) as copy:
        data = b"".join(copy)
    rows = np.frombuffer(data[_HEAD:-_TAIL], dtype=_ROW)
    stored = np.empty(len(rows), dtype=STORED_DTYPE)
    for name in STORED_DTYPE.names or ():
        stored[name] = rows[name]
    return stored


def count_stored(url: str) -> int:
    """Return how many readings the ledger says are stored, or -1 while the database is away."""
    try:
        with psycopg.connect(url, connect_timeout=2) as conn:
            row = conn.execute("SELECT coalesce(sum(stored), 0) FROM batch").fetchone()
            return int(row[0]) if row else 0
    except psycopg.Error:
        return -1
