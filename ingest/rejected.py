"""Messages that were refused: what there are, and another try once the reason is gone.

A refused message is kept as it came. After a topic rule was corrected, a sensor enabled, or the program updated, it can
be read again: what can be stored now is, through the same writer and ledger as everything else, and leaves the table.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, NamedTuple

from fettle.clock import now_us
from fettle.db import DatabaseRole, SyncConn, connect_sync, load_queries
from ingest.batch import Refusal
from ingest.frames import Frames
from ingest.intake import Intake
from ingest.store import Messages
from ingest.topics import Table
from ingest.writer import Writer

queries = load_queries("ingest")
_AT_ONCE = 1000
_SPARKPLUG = b"spBv1.0/"


class Rejected(NamedTuple):
    """One refused message."""

    id: int
    received_at: datetime
    topic: bytes
    payload: bytes
    reason: str
    detail: str
    is_retained: bool


class Pile(NamedTuple):
    """Refused messages of one reason."""

    reason: str
    messages: int
    first_at: datetime
    last_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which refused messages; all of them by default."""

    ids: Sequence[int] | None = None
    reason: str | None = None
    topic: str | None = None  # the beginning of it
    since: datetime | None = None

    def values(self) -> dict[str, object]:
        return {
            "ids": None if self.ids is None else list(self.ids),
            "reason": self.reason,
            "topic": None if self.topic is None else self.topic.encode(),
            "since": self.since,
        }


@dataclass(slots=True)
class Retried:
    """What a second try did."""

    messages: int = 0
    accepted: int = 0  # of them, now stored or known; they have left the table
    refused: int = 0  # again; they stay
    left_alone: int = 0  # Sparkplug: its messages mean nothing without those around them
    stored: int = 0  # readings
    duplicates: int = 0
    reasons: dict[str, int] = field(default_factory=dict)  # of those refused again


def count_rejected(url: str, choice: Choice) -> list[Pile]:
    """Return refused messages by reason, the largest pile first."""
    with connect_sync(url, role=DatabaseRole.WORKER, name="fettle-rejected") as conn:
        return [Pile(*row) for row in conn.execute(queries.count_rejected, choice.values())]


def list_rejected(url: str, choice: Choice, *, most: int) -> list[Rejected]:
    """Return the newest refused messages, newest first."""
    with connect_sync(url, role=DatabaseRole.WORKER, name="fettle-rejected") as conn:
        return [_rejected(row) for row in conn.execute(queries.list_rejected, choice.values() | {"most": most})]


def _rejected(row: tuple[Any, ...]) -> Rejected:
    found = Rejected(*row)
    return found._replace(topic=bytes(found.topic), payload=bytes(found.payload))


def retry_rejected(
    writer: Writer,
    table: Table,
    choice: Choice,
    *,
    is_trial: bool = False,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Retried:
    """Read refused messages again, oldest first, and store what can be stored now.

    Clocks are judged as of now: a time stamp that was too far ahead when it came may have become the past.

    Args:
        writer: opened.
        table: the topic rules of today.
        choice: which of them.
        is_trial: only find out what could be read; the sensors' own rules and the database are not asked.
        on_progress: is told how many more are done.
    """
    done = Retried()
    intake = Intake(table, writer.catalogue)
    for messages in _pages(writer.store.conn, choice):
        mine = [message for message in messages if not message.topic.startswith(_SPARKPLUG)]
        done.messages += len(messages)
        done.left_alone += len(messages) - len(mine)
        for message in mine:
            received_us = round(message.received_at.timestamp() * 1e6)
            intake.take(
                Frames(
                    topics=[message.topic],
                    payloads=[message.payload],
                    retained={0} if message.is_retained else set(),
                    ticks=[received_us],
                ),
                received_us,
            )
        refusals = _count_trial(intake) if is_trial else _store(writer, intake, mine, done)
        again = {refusal.message for refusal in refusals}
        for index in again:
            reason = next(refusal.reason for refusal in refusals if refusal.message == index)
            done.reasons[reason] = done.reasons.get(reason, 0) + 1
        done.refused += len(again)
        done.accepted += len(mine) - len(again)
        on_progress(len(messages))
    return done


def _pages(conn: SyncConn, choice: Choice) -> Iterator[list[Rejected]]:
    """Yield the messages that are there now, oldest first; not those refused meanwhile."""
    row = conn.execute(queries.last_rejected).fetchone()
    after, last = 0, int(row[0]) if row and row[0] is not None else 0
    while True:
        values = choice.values() | {"after": after, "last": last, "most": _AT_ONCE}
        found = [_rejected(one) for one in conn.execute(queries.read_rejected, values)]
        if not found:
            return
        after = found[-1].id
        yield found


def _count_trial(intake: Intake) -> list[Refusal]:
    return intake.take_batch().refusals


def _store(writer: Writer, intake: Intake, messages: Sequence[Rejected], done: Retried) -> list[Refusal]:
    """Store what can be, remove its messages from the table, and return why the others cannot."""
    batch = intake.take_batch()
    if not batch.topics:
        return []
    batch.received_us = now_us()
    batch.is_suspect = True  # parts of a message may have been stored when it came
    sealed = writer.resolve_and_seal(batch)
    kept = sealed.refusals  # their messages are in the table, and stay
    outcome = writer.persist_sealed(
        replace(sealed, refusals=[]),
        Messages(batch.topics, batch.payloads, batch.retained, batch.ticks),
        received_us=batch.received_us,
    )
    done.stored += outcome.stored
    done.duplicates += outcome.duplicates + outcome.collisions
    again = {refusal.message for refusal in kept}
    gone = [message.id for index, message in enumerate(messages) if index not in again]
    writer.retrying(lambda: writer.store.conn.execute(queries.delete_rejected, {"ids": gone}))
    return kept
