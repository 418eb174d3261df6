"""One transaction per batch: readings, words, waveforms, refused messages, and the batch's row in the ledger.

The readings go in with one binary COPY, straight into the table. Only a batch that meets a key which exists, or is
likely to, takes the conflict path: `ON CONFLICT DO NOTHING` from arrays, which says what was new, and a look at the
values of the rest. The ledger row carries the collector's next number, and is written only while this process holds
the collector's lease; so it fences off a writer that was thought dead, and answers whether a COMMIT took effect.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import psycopg
from psycopg.adapt import Buffer, Dumper
from psycopg.pq import Format, TransactionStatus

from fettle.db import DatabaseRole, SyncConn, connect_sync, load_queries
from fettle.errors import FettleError
from fettle.model import Flag
from fettle.wire import ReadingArray
from ingest.batch import Refusal, Sealed, TextReading, encode_array, encode_copy, to_pg_time

queries = load_queries("ingest")
_LOCK_SPACE = 0x0FE77C  # advisory locks of collectors
_COPY = "COPY reading (sensor_id, quality, flags, ts, value) FROM STDIN (FORMAT BINARY)"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_WEEK_US = 7 * 86_400 * 1_000_000
_WEEKS_BEGIN_US = 946_857_600_000_000  # Monday 2000-01-03, where the partitions are aligned
_DETAIL = 1000


class LeaseTaken(FettleError):
    """Collector {name} is already running elsewhere. Stop the other one, or give this one another FETTLE_COLLECTOR_NAME."""


class LeaseLost(FettleError):
    """Collector {name} was taken over by another process; this one stops without acknowledging anything more."""


class ReadOnlyDatabase(psycopg.errors.ReadOnlySqlTransaction):
    """The server is a standby or is set read-only: connect to the writer."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a batch."""

    number: int
    stored: int
    duplicates: int
    collisions: int
    rejected: int  # readings
    rejected_messages: int
    ignored: int  # readings
    took_conflict_path: bool = False
    late: int = 0  # of those stored

    def plus(self, other: "Outcome") -> "Outcome":
        """Return the sum of two parts of one batch."""
        return Outcome(
            number=other.number,
            stored=self.stored + other.stored,
            duplicates=self.duplicates + other.duplicates,
            collisions=self.collisions + other.collisions,
            rejected=self.rejected + other.rejected,
            rejected_messages=self.rejected_messages + other.rejected_messages,
            ignored=self.ignored + other.ignored,
            took_conflict_path=self.took_conflict_path or other.took_conflict_path,
            late=self.late + other.late,
        )


class _Column:
    """A column of a structured array, sent as a binary array."""

    oid_of_element = 0
    oid = 0

    def __init__(self, values: npt.NDArray[Any]) -> None:
        self.values = values


class _Int4s(_Column):
    oid_of_element, oid = 23, 1007


class _Int2s(_Column):
    oid_of_element, oid = 21, 1005


class _Floats(_Column):
    oid_of_element, oid = 701, 1022


class _Times(_Column):
    oid_of_element, oid = 1184, 1185


class _ColumnDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: _Column) -> Buffer:
        return encode_array(obj.values, obj.oid_of_element)


def _dumper(oid_: int) -> type[_ColumnDumper]:
    class Dump(_ColumnDumper):
        oid = oid_

    return Dump


def as_datetime(ts_us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=int(ts_us))


class Store:
    """The database as the writer sees it. Blocking, for one thread; raises what psycopg raises."""

    def __init__(
        self, url: str, *, name: str, keep: Literal["first", "last"] = "first", statement_timeout_s: float = 60.0
    ) -> None:
        self.name = name
        self.keep_last = keep == "last"
        self.token = uuid.uuid4()
        self.number = 0
        self.had_session = False
        self.is_open = False
        self._url = url
        self._timeout_s = statement_timeout_s
        self._conn: SyncConn | None = None
        self._collector_id = 0
        self._weeks: set[int] = set()

    @property
    def conn(self) -> SyncConn:
        if self._conn is None:
            raise psycopg.OperationalError("the store is not connected")
        return self._conn

    def open(self) -> None:
        """Connect, take the lease, learn the last number.

        Raises:
            LeaseTaken: another process holds the collector's lease.
            LeaseLost: another process has held it since we did.
            NoDatabase: the server does not answer.
        """
        self.close()
        conn = connect_sync(
            self._url,
            role=DatabaseRole.WORKER,
            name=f"fettle-collect {self.name}"[:63],
            options={
                "statement_timeout": f"{round(self._timeout_s * 1000)}ms",
                "lock_timeout": "10s",
                "tcp_keepalives_idle": "10",
                "tcp_keepalives_interval": "5",
                "tcp_keepalives_count": "3",
                "tcp_user_timeout": "30000",
            },
        )
        try:
            self._lease(conn)
        except BaseException:
            conn.close()
            raise
        for column in (_Int4s, _Int2s, _Floats, _Times):
            conn.adapters.register_dumper(column, _dumper(column.oid))
        self._conn = conn
        self._weeks.clear()
        self.is_open = True

    def _lease(self, conn: SyncConn) -> None:
        if conn.execute("SHOW transaction_read_only").fetchone() == ("on",):
            raise ReadOnlyDatabase("the server only reads")
        conn.execute(queries.know_collector, {"name": self.name})
        row = conn.execute(queries.find_collector, {"name": self.name}).fetchone()
        assert row is not None
        self._collector_id, holder = row
        locked = conn.execute(
            queries.lock_collector, {"space": _LOCK_SPACE, "collector_id": self._collector_id}
        ).fetchone()
        ours_before = self.number > 0 or holder == self.token
        if ours_before and holder != self.token:
            raise LeaseLost(name=self.name)
        if locked != (True,):
            if holder == self.token:  # our own last connection, which the server has not missed yet
                raise psycopg.errors.LockNotAvailable("our previous connection is still alive at the server")
            raise LeaseTaken(name=self.name)
        leased = conn.execute(
            queries.lease_collector, {"collector_id": self._collector_id, "token": self.token}
        ).fetchone()
        assert leased is not None
        self.number, self.had_session = leased

    def close(self) -> None:
        self.is_open = False
        if self._conn is not None:
            self._conn.close()
            self._conn = None

    def find_outcome(self, number: int, sealed: Sealed) -> Outcome | None:
        """Return what became of batch `number`, or None if it was never committed. Ask after `open`."""
        row = self.conn.execute(queries.find_batch, {"collector_id": self._collector_id, "number": number}).fetchone()
        if row is None:
            return None
        stored, duplicates, collisions, rejected = row
        return Outcome(
            number, stored, duplicates, collisions, rejected, rejected_messages(sealed.refusals),
            sealed.ignored_readings, sealed.is_suspect,
        )  # fmt: skip

    def remember_session(self, *, lost: bool) -> None:
        self.conn.execute(queries.remember_session, {"collector_id": self._collector_id, "lost": int(lost)})
        self.had_session = True

    def rollback(self) -> None:
        """End a transaction that failed; a connection that is gone stays gone."""
        conn = self._conn
        if conn is None or conn.closed:
            return
        if conn.info.transaction_status in {TransactionStatus.INTRANS, TransactionStatus.INERROR}:
            conn.execute("ROLLBACK")

    def ensure_partitions(self, rows: ReadingArray) -> None:
        """Make the weekly partitions of these rows, before they are needed."""
        if not len(rows):
            return
        ts = rows["ts"]
        first, last = (int(ts.min()) - _WEEKS_BEGIN_US) // _WEEK_US, (int(ts.max()) - _WEEKS_BEGIN_US) // _WEEK_US
        if first == last and first in self._weeks:
            return
        for week in np.unique((ts - _WEEKS_BEGIN_US) // _WEEK_US).tolist():
            if week not in self._weeks:
                at = as_datetime(_WEEKS_BEGIN_US + week * _WEEK_US)
                self.conn.execute(queries.ensure_partitions, {"from_ts": at, "to_ts": at})
                self._weeks.add(week)

    def forget_partitions(self) -> None:
        self._weeks.clear()

    @property
    def is_usable(self) -> bool:
        """Whether the connection lives, as far as one can tell without asking."""
        return self._conn is not None and not self._conn.closed and not self._conn.broken

    def lift_decompression_limit(self) -> None:
        """Let this connection touch as many compressed rows as it must; slow, so only once it is needed."""
        self.conn.execute("SET timescaledb.max_tuples_decompressed_per_dml_transaction = 0")

    def try_part(self, sealed: Sealed, part: str, low: int, high: int) -> None:
        """Write a slice of one part of a batch inside the open transaction, to see whether it can be written."""
        match part:
            case "rows":
                self._write_readings(sealed.rows[low:high], conflict_path=True)
            case "texts":
                self._write_texts(sealed.texts[low:high])
            case _:
                self._write_waveforms(replace(sealed, waveforms=sealed.waveforms[low:high]))

    def begin(self) -> None:
        self.conn.execute("BEGIN", prepare=False)

    def commit(self) -> None:
        self.conn.execute("COMMIT", prepare=False)

    def write(
        self,
        sealed: Sealed,
        *,
        conflict_path: bool,
        messages: "Messages",
        received_us: int,
        tenants: Mapping[str, int],
    ) -> Outcome:
        """Store one batch inside the open transaction. The caller commits, and then calls `advance`.

        Args:
            sealed: the batch.
            conflict_path: some keys may exist already.
            messages: the raw messages, for those that are refused.
            received_us: when they came, those that have no tick of their own.
            tenants: ids by slug, for those that are refused.

        Raises:
            LeaseLost: another process has taken the collector's lease.
        """
        stored, duplicates, collisions = self._write_readings(
            sealed.rows, conflict_path=conflict_path, encoded=sealed.encoded
        )
        texts = self._write_texts(sealed.texts)
        bursts, repeated = self._write_waveforms(sealed)
        for life in sealed.life:
            tenant_id = tenants.get(life.tenant)
            if tenant_id is not None:
                values = {"tenant_id": tenant_id, "source": life.source, "is_online": life.is_online, "at": as_datetime(life.at_us), "detail": _printable(life.detail)}  # fmt: skip
                self.conn.execute(queries.record_life, values)
        if sealed.refusals:
            self._write_refusals(sealed.refusals, messages, received_us, tenants)
        outcome = Outcome(
            number=self.number + 1,
            stored=len(stored) + texts[0] + bursts,
            duplicates=sealed.duplicates + duplicates + texts[1] + repeated,
            collisions=sealed.collisions + collisions + texts[2],
            rejected=sum(refusal.readings for refusal in sealed.refusals),
            rejected_messages=rejected_messages(sealed.refusals),
            ignored=sealed.ignored_readings,
            took_conflict_path=conflict_path,
            late=int(np.count_nonzero(stored["flags"] & Flag.LATE)),
        )
        self._write_ledger(outcome, stored, messages=sealed.messages)
        return outcome

    def advance(self, outcome: Outcome) -> None:
        self.number = outcome.number

    def _write_readings(
        self, rows: ReadingArray, *, conflict_path: bool, encoded: bytes | None = None
    ) -> tuple[ReadingArray, int, int]:
        if not len(rows):
            return rows, 0, 0
        if conflict_path:
            return self._write_new_readings(rows)
        with self.conn.cursor().copy(_COPY) as copy:
            copy.write(encode_copy(rows) if encoded is None else encoded)
        return rows, 0, 0

    def _write_new_readings(self, rows: ReadingArray) -> tuple[ReadingArray, int, int]:
        inserted = self.conn.execute(queries.insert_readings, _columns(rows), binary=True).fetchall()
        new = np.zeros(len(rows), dtype=bool)
        if len(inserted) == len(rows):
            return rows, 0, 0
        if inserted:
            keys = np.array(inserted, dtype=np.int64)
            new = _is_among(rows, keys)
        old = rows[~new]
        found = self.conn.execute(queries.count_collisions, _span(old) | _columns(old)).fetchall()
        if self.keep_last and found:
            changed = old[[i for (i,) in found]]
            self.conn.execute(queries.overwrite_readings, _span(changed) | _columns(changed))
        return rows[new], len(old) - len(found), len(found)

    def _write_texts(self, texts: list[TextReading]) -> tuple[int, int, int]:
        """Store words; return how many were new, the same, and other words under a key that exists."""
        if not texts:
            return 0, 0, 0
        unique: dict[tuple[int, int], TextReading] = {}
        same = other = 0
        for text in texts:
            first = unique.setdefault((text.sensor_id, text.ts_us), text)
            if first is not text:
                same, other = same + (first.value == text.value), other + (first.value != text.value)
        kept = list(unique.values())
        values = {
            "sensor_ids": [text.sensor_id for text in kept],
            "qualities": [text.quality for text in kept],
            "flags": [text.flags for text in kept],
            "ts": [as_datetime(text.ts_us) for text in kept],
            "values": [text.value for text in kept],
        }
        new = self.conn.execute(queries.insert_texts, values).rowcount
        if new < len(kept):
            row = self.conn.execute(queries.count_text_collisions, values).fetchone()
            differing = int(row[0]) if row else 0
            same, other = same + len(kept) - new - differing, other + differing
        return new, same, other

    def _write_waveforms(self, sealed: Sealed) -> tuple[int, int]:
        new = 0
        for wave in sealed.waveforms:
            burst = wave.burst
            values = {
                "sensor_id": wave.sensor_id, "t0": as_datetime(wave.t0_us), "fs_hz": burst.fs_hz, "n": burst.n,
                "dtype": burst.dtype, "scale": burst.scale, "data": burst.data,
            }  # fmt: skip
            new += self.conn.execute(queries.insert_waveform, values).rowcount
        return new, len(sealed.waveforms) - new

    def _write_refusals(
        self, refusals: list[Refusal], messages: "Messages", received_us: int, tenants: Mapping[str, int]
    ) -> None:
        refusals = merge_refusals(refusals)
        self.conn.execute(
            queries.reject_messages,
            {
                "collector_id": self._collector_id,
                "received_at": [as_datetime(messages.ticks.get(refusal.message, received_us)) for refusal in refusals],
                "tenant_ids": [tenants.get(refusal.tenant or "") for refusal in refusals],
                "topics": [messages.topics[refusal.message] for refusal in refusals],
                "payloads": [messages.payloads[refusal.message] for refusal in refusals],
                "reasons": [refusal.reason for refusal in refusals],
                "details": [_printable(refusal.detail) for refusal in refusals],
                "retained": [refusal.message in messages.retained for refusal in refusals],
            },
        )

    def _write_ledger(self, outcome: Outcome, stored: ReadingArray, *, messages: int) -> None:
        span = _span(stored) if len(stored) else {"first_ts": None, "last_ts": None}
        written = self.conn.execute(
            queries.write_batch,
            {
                "collector_id": self._collector_id,
                "token": self.token,
                "number": outcome.number,
                "messages": messages,
                "stored": outcome.stored,
                "duplicates": outcome.duplicates,
                "collisions": outcome.collisions,
                "rejected": outcome.rejected,
                "ignored": outcome.ignored,
                "payload": stored.tobytes(),
                **span,
            },
        ).rowcount
        if written != 1:
            raise LeaseLost(name=self.name)


@dataclass(slots=True)
class Messages:
    """The raw messages of a batch."""

    topics: list[bytes]
    payloads: list[bytes]
    retained: set[int]
    ticks: dict[int, int]  # when some of them came, in microseconds; of the others the batch knows


def _printable(text: str) -> str:
    """Make a text that PostgreSQL takes, whatever a payload put into it."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "␀")[:_DETAIL]


def rejected_messages(refusals: list[Refusal]) -> int:
    """Messages of which nothing at all could be stored."""
    return len({refusal.message for refusal in refusals if not refusal.readings})


def merge_refusals(refusals: list[Refusal]) -> list[Refusal]:
    """Return one refusal for each message and reason: the message is kept with each, and may be large."""
    merged: dict[tuple[int, str | None, str], list[Refusal]] = {}
    for refusal in refusals:
        merged.setdefault((refusal.message, refusal.tenant, refusal.reason), []).append(refusal)
    return [
        same[0] if len(same) == 1 else same[0]._replace(detail=f"{same[0].detail}; and {len(same) - 1} more", readings=sum(one.readings for one in same))
        for same in merged.values()
    ]  # fmt: skip


def _columns(rows: ReadingArray) -> dict[str, _Column]:
    return {
        "sensor_ids": _Int4s(rows["sensor_id"]),
        "qualities": _Int2s(rows["quality"]),
        "flags": _Int2s(rows["flags"]),
        "ts": _Times(to_pg_time(rows["ts"])),
        "values": _Floats(rows["value"]),
    }


def _span(rows: ReadingArray) -> dict[str, Any]:
    return {"first_ts": as_datetime(rows["ts"].min()), "last_ts": as_datetime(rows["ts"].max())}


def _is_among(rows: ReadingArray, keys: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Whether each row's (sensor, ts) stands in `keys`, an array of two columns; rows are sorted by them."""
    order = np.lexsort((keys[:, 1], keys[:, 0]))
    keys = keys[order]
    both = np.empty(len(rows) + len(keys), dtype=[("sensor_id", "<i8"), ("ts", "<i8")])
    both["sensor_id"] = np.concatenate((rows["sensor_id"], keys[:, 0]))
    both["ts"] = np.concatenate((rows["ts"], keys[:, 1]))
    by_key = np.lexsort((both["ts"], both["sensor_id"]))  # stable: a row stands before its key
    ahead, behind = by_key[:-1], by_key[1:]
    matches = (both["sensor_id"][ahead] == both["sensor_id"][behind]) & (both["ts"][ahead] == both["ts"][behind])
    found = np.zeros(len(rows), dtype=bool)
    found[ahead[matches]] = True
    return found
