"""A batch: the messages that one transaction stores and one write acknowledges.

While it fills it is a set of parallel lists, cheap to append to. `seal` turns it into arrays: judged against the clock,
sorted by (sensor, time), without repetitions. Every message and every reading of a batch ends in exactly one state.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fettle.model import Quality
from fettle.wire import READING_DTYPE, ReadingArray
from ingest.decode import ClockPolicy, Path, Reason, WaveformBurst, judge_batch

Owners = npt.NDArray[np.int32]

# time stamps of PostgreSQL's binary format begin in 2000
_EPOCH_2000_US = 946_684_800_000_000
_COPY_HEAD = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
_COPY_TAIL = b"\xff\xff"
_COPY_ROW = np.dtype(
    [
        ("fields", ">i2"),
        ("w0", ">i4"), ("sensor_id", ">i4"),
        ("w1", ">i4"), ("quality", ">i2"),
        ("w2", ">i4"), ("flags", ">i2"),
        ("w3", ">i4"), ("ts", ">i8"),
        ("w4", ">i4"), ("value", ">f8"),
    ]
)  # fmt: skip


class Wanted(NamedTuple):
    """A sensor that a message names and the catalogue in memory does not know, or knows without its unit."""

    tenant: str
    path: Path
    unit: str | None


class TextReading(NamedTuple):
    message: int
    sensor_id: int
    wanted: Wanted | None
    ts_us: int
    quality: int
    flags: int
    value: str


class Waveform(NamedTuple):
    message: int
    sensor_id: int
    wanted: Wanted | None
    t0_us: int
    burst: WaveformBurst


class SignOfLife(NamedTuple):
    tenant: str
    source: str
    is_online: bool
    at_us: int
    detail: str = ""


class Refusal(NamedTuple):
    """Readings of one message that cannot be stored; `readings` 0 means the message as a whole."""

    message: int
    tenant: str | None
    reason: str
    detail: str
    readings: int


@dataclass(slots=True)
class Batch:
    """What has arrived and is not yet on its way to the database."""

    topics: list[bytes] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)
    packet_ids: list[bytes] = field(default_factory=list)
    retained: set[int] = field(default_factory=set)
    content_types: dict[int, str] = field(default_factory=dict)
    # readings, as columns; `owners` is the index of the message
    sensor_ids: list[int] = field(default_factory=list)
    ts: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)
    odd: dict[int, tuple[int, int]] = field(default_factory=dict)  # row -> quality and flags that are not (GOOD, 0)
    wanted: dict[int, Wanted] = field(default_factory=dict)  # row -> the sensor still to be resolved
    texts: list[TextReading] = field(default_factory=list)
    waveforms: list[Waveform] = field(default_factory=list)
    life: list[SignOfLife] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    ignored_messages: int = 0
    ignored_readings: int = 0
    system_messages: int = 0  # what the broker says of itself: acknowledged, not accounted for
    size_bytes: int = 0
    source: object = None  # the connection its acknowledgements belong to
    received_us: int = 0  # of the last message
    # message -> its own moment, which stands in for a time stamp: of all but those read the short way, which have one
    ticks: dict[int, int] = field(default_factory=dict)
    first_at_s: float = 0.0  # monotonic, of the first message
    counted_readings: int = 0  # as counted when it was handed over
    sealed: "Sealed | None" = None  # made ahead, where all sensors were known
    is_suspect: bool = False  # likely to collide: redelivered, or replayed from the spool

    def __len__(self) -> int:
        return len(self.topics)

    @property
    def messages(self) -> int:
        return len(self.topics) - self.system_messages

    @property
    def readings(self) -> int:
        """Readings decoded so far, refused and ignored ones included."""
        refused = sum(refusal.readings for refusal in self.refusals)
        return len(self.ts) + len(self.texts) + len(self.waveforms) + refused + self.ignored_readings


@dataclass(slots=True)
class Sealed:
    """A batch as arrays, ready to be stored."""

    messages: int
    rows: ReadingArray  # sorted by (sensor, ts), unique
    owners: Owners  # message of each row
    texts: list[TextReading]
    waveforms: list[Waveform]
    life: list[SignOfLife]
    refusals: list[Refusal]
    duplicates: int
    collisions: int
    ignored_messages: int
    ignored_readings: int
    is_suspect: bool
    encoded: bytes | None = None  # the rows as COPY wants them, made ahead

    @property
    def readings(self) -> int:
        refused = sum(refusal.readings for refusal in self.refusals)
        return (
            len(self.rows) + len(self.texts) + len(self.waveforms) + refused
            + self.duplicates + self.collisions + self.ignored_readings
        )  # fmt: skip


def seal(batch: Batch, *, policy: ClockPolicy, keep_last: bool = False) -> Sealed:
    """Turn a batch whose sensors are all resolved into arrays.

    Rows outside the clock policy become refusals; of rows with the same sensor and time the first (or last) stays, the
    others count as duplicates where the value is the same and as collisions where it is not.
    """
    rows = as_rows(batch)
    owners = np.array(batch.owners, dtype=np.int32)
    refusals = list(batch.refusals)
    if len(rows):
        # A time that is clamped becomes a key, and must be the same where the message is read again.
        now = _moments(batch)[owners] if policy.future == "clamp" else batch.received_us
        future, beyond = judge_batch(rows, now=now, policy=policy)
        refused = future | beyond
        if refused.any():
            for mask, reason in ((future, Reason.FUTURE), (beyond, Reason.BEYOND_RETENTION)):
                refusals += _refuse(rows, owners, mask, reason)
            rows, owners = rows[~refused], owners[~refused]
    rows, owners, duplicates, collisions = sort_unique(rows, owners, keep_last=keep_last)
    return Sealed(
        messages=batch.messages, rows=rows, owners=owners, texts=batch.texts, waveforms=batch.waveforms, life=batch.life,
        refusals=refusals, duplicates=duplicates, collisions=collisions, ignored_messages=batch.ignored_messages,
        ignored_readings=batch.ignored_readings, is_suspect=batch.is_suspect,
    )  # fmt: skip


def _moments(batch: Batch) -> npt.NDArray[np.int64]:
    """Return when each message came."""
    moments = np.full(len(batch.topics), batch.received_us, dtype=np.int64)
    moments[list(batch.ticks)] = list(batch.ticks.values())
    return moments


def as_rows(batch: Batch) -> ReadingArray:
    rows = np.empty(len(batch.ts), dtype=READING_DTYPE)
    rows["sensor_id"] = batch.sensor_ids
    rows["ts"] = batch.ts
    rows["value"] = batch.values
    rows["quality"] = Quality.GOOD
    rows["flags"] = 0
    for row, (quality, flags) in batch.odd.items():
        rows["quality"][row] = quality
        rows["flags"][row] = flags
    return rows


def _refuse(rows: ReadingArray, owners: Owners, mask: npt.NDArray[np.bool_], reason: Reason) -> list[Refusal]:
    at = np.flatnonzero(mask)
    messages, first, counts = np.unique(owners[at], return_index=True, return_counts=True)
    return [
        Refusal(int(m), None, reason.value, f"time stamp {np.datetime64(int(rows['ts'][at[i]]), 'us')}Z", int(n))
        for m, i, n in zip(messages, first, counts, strict=True)
    ]


def sort_unique(
    rows: ReadingArray, owners: Owners, *, keep_last: bool = False
) -> tuple[ReadingArray, Owners, int, int]:
    """Sort by (sensor, ts) and keep one row of each; return rows, owners, duplicates, collisions."""
    n = len(rows)
    if n < 2:
        return rows, owners, 0, 0
    order = np.lexsort((rows["ts"], rows["sensor_id"]))  # stable: equal keys stay in order of arrival
    rows, owners = rows[order], owners[order]
    same = (rows["sensor_id"][1:] == rows["sensor_id"][:-1]) & (rows["ts"][1:] == rows["ts"][:-1])
    repeated = int(np.count_nonzero(same))
    if not repeated:
        return rows, owners, 0, 0
    differs = same & ~_equal(rows["value"][1:], rows["value"][:-1])
    collisions = int(np.count_nonzero(differs))
    keep = np.concatenate((~same, [True])) if keep_last else np.concatenate(([True], ~same))
    return rows[keep], owners[keep], repeated - collisions, collisions


def _equal(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Compare as PostgreSQL's IS NOT DISTINCT FROM does: NaN, our NULL, equals itself."""
    same: npt.NDArray[np.bool_] = (a == b) | (np.isnan(a) & np.isnan(b))
    return same


def encode_copy(rows: ReadingArray) -> bytes:
    """Encode rows in PostgreSQL's binary COPY format; a value of NaN becomes NULL."""
    out = np.empty(len(rows), dtype=_COPY_ROW)
    out["fields"] = 5
    out["w0"] = 4
    out["sensor_id"] = rows["sensor_id"]
    out["w1"] = 2
    out["quality"] = rows["quality"]
    out["w2"] = 2
    out["flags"] = rows["flags"]
    out["w3"] = 8
    out["ts"] = rows["ts"] - _EPOCH_2000_US
    out["w4"] = 8
    out["value"] = rows["value"]
    missing = np.isnan(rows["value"])
    if not missing.any():
        return _COPY_HEAD + out.tobytes() + _COPY_TAIL
    out["w4"][missing] = -1
    octets = out.view(np.uint8).reshape(len(out), _COPY_ROW.itemsize)
    kept = np.ones(octets.shape, dtype=bool)
    kept[missing, -8:] = False
    return _COPY_HEAD + octets[kept].tobytes() + _COPY_TAIL


def encode_array(values: npt.NDArray[np.generic], oid: int) -> bytes:
    """Encode a column as a one-dimensional array of PostgreSQL's binary format, without NULLs."""
    width = values.dtype.itemsize
    out = np.empty(len(values), dtype=[("width", ">i4"), ("value", values.dtype.newbyteorder(">"))])
    out["width"] = width
    out["value"] = values
    head = np.array([1, 0, oid, len(values), 1], dtype=">i4")
    return head.tobytes() + out.tobytes()


def to_pg_time(ts_us: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return ts_us - _EPOCH_2000_US
