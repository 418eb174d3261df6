"""The writer: takes one batch at a time and does not let go of it before it is stored.

Whatever the database answers, a batch ends in exactly one way: committed, with every reading stored, known already, or
refused with its message kept in `rejected_message`. Until then nothing of it is acknowledged. `ingest.sqlstate` says
what each error calls for; this module does it.
"""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal, TypeVar

import numpy as np
import psycopg

from fettle import logs
from fettle.clock import monotonic_s
from fettle.db import NoDatabase
from fettle.errors import FettleError
from ingest.batch import Batch, Refusal, Sealed, Wanted, encode_copy, seal
from ingest.catalogue import (
    UNIT_MISMATCH,
    Catalogue,
    Refused,
    RegistrationPolicy,
    Sensor,
    is_other_quantity,
    say_mismatch,
)
from ingest.decode import ClockPolicy
from ingest.poison import find_row
from ingest.sqlstate import Action, classify
from ingest.store import LeaseLost, LeaseTaken, Messages, Outcome, Store

log = logs.get("ingest")
T = TypeVar("T")

_CLEAN_BATCHES = 8  # so many batches without a conflict, and the straight way is tried again
_RETRIES_BEFORE_HALVING = 5
_RETRIES_BEFORE_HALT = 10
_MOST_POISON_SHARE = 0.2  # of a batch: more is no poison but a fault of the whole
_MOST_POISON_BATCHES = 20  # running


class State(StrEnum):
    """How the writer is doing."""

    STARTING = "starting"
    WRITING = "writing"
    HOLDING = "holding"  # the database is away or full: everything is kept, retried with back-off
    HALTED = "halted"  # every row would fail: kept, retried slowly, a person is needed


class Stopped(FettleError):
    """The writer was told to stop before the batch was stored; its messages stay unacknowledged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterOptions:
    """How the writer behaves."""

    clock: ClockPolicy = field(default_factory=ClockPolicy)
    registration: RegistrationPolicy = field(default_factory=RegistrationPolicy)
    keep: Literal["first", "last"] = "first"
    backoff_s: float = 0.05
    longest_backoff_s: float = 5.0
    halted_backoff_s: float = 10.0


@dataclass(slots=True)
class WriterStatus:
    """What the writer says about itself; written by its thread, read by others."""

    state: State = State.STARTING
    reason: str = ""
    since_s: float = 0.0
    conflict_path: bool = False
    retries: Counter[str] = field(default_factory=Counter)


class Writer:
    """Stores batches one after the other. Every method blocks and belongs to one thread, `stop` excepted."""

    def __init__(
        self,
        url: str,
        *,
        name: str,
        options: WriterOptions,
        wait: Callable[[float], bool],
        catalogue: Catalogue | None = None,
    ) -> None:
        """Prepare to write.

        Args:
            url: the database.
            name: of the collector, whose lease is taken.
            options: policies.
            wait: sleeps for some seconds, or returns True at once when it is time to stop.
            catalogue: shared with an `Intake`; made if absent.
        """
        self.options = options
        self.catalogue = Catalogue(options.registration) if catalogue is None else catalogue
        self.status = WriterStatus()
        self.store = Store(url, name=name, keep=options.keep)
        self._wait = wait
        self._clean = _CLEAN_BATCHES
        self._poisoned_batches = 0

    def expect_conflicts(self) -> None:
        """Take the conflict path for the next batches: a session was resumed, or the spool is replayed."""
        self._clean = 0

    def open(self) -> None:
        """Connect and take the lease, waiting for the database as long as it takes.

        Raises:
            Stopped: told to stop first.
            LeaseTaken: the collector's name is in use.
            LeaseLost: another process took over.
        """
        attempt = 0
        while True:
            try:
                self.store.open()
            except (LeaseTaken, LeaseLost):
                raise
            except (NoDatabase, psycopg.Error) as error:
                self._hold(_state_of(error), attempt, why=str(error).strip())
                attempt += 1
            else:
                self._set_state(State.WRITING)
                return

    def close(self) -> None:
        self.store.close()

    def prepare(self, batch: Batch) -> None:
        """Do ahead what can be done without the database. May be called from another thread than the writer's."""
        if batch.wanted or any(text.wanted for text in batch.texts) or any(wave.wanted for wave in batch.waveforms):
            return
        self._seal(batch)
        if batch.sealed is not None and len(batch.sealed.rows) and not self.takes_conflict_path:
            batch.sealed.encoded = encode_copy(batch.sealed.rows)

    def _seal(self, batch: Batch) -> None:
        batch.sealed = seal(batch, policy=self.options.clock, keep_last=self.store.keep_last)

    def persist(self, batch: Batch) -> Outcome:
        """Store a batch, however long it takes.

        Raises:
            Stopped: told to stop; nothing of the batch may be acknowledged.
            LeaseLost: another process took over; the same.
        """
        sealed = self.resolve_and_seal(batch) if batch.sealed is None else batch.sealed
        messages = Messages(batch.topics, batch.payloads, batch.retained, batch.ticks)
        return self.persist_sealed(sealed, messages, received_us=batch.received_us)

    def resolve_and_seal(self, batch: Batch) -> Sealed:
        """Find the sensors of a batch, registering those that may be, and turn it into arrays."""
        self._resolve(batch)
        self._seal(batch)
        assert batch.sealed is not None
        return batch.sealed

    def persist_sealed(self, sealed: Sealed, messages: Messages, *, received_us: int) -> Outcome:
        """Store what is sealed; raises as `persist` does."""
        if sealed.is_suspect:
            self.expect_conflicts()
        try:
            outcome = _Attempt(self, sealed, messages, received_us).run()
        except _Unwieldy:
            first, second = (self.persist_sealed(half, messages, received_us=received_us) for half in halves(sealed))
            return first.plus(second)
        if outcome.took_conflict_path:
            had_conflict = outcome.duplicates + outcome.collisions > sealed.duplicates + sealed.collisions
            self._clean = 0 if had_conflict else self._clean + 1
        self.status.conflict_path = self.takes_conflict_path
        self._set_state(State.WRITING)
        return outcome

    @property
    def takes_conflict_path(self) -> bool:
        return self._clean < _CLEAN_BATCHES

    def _resolve(self, batch: Batch) -> None:
        """Give every row of the batch its sensor; rows whose sensor is refused become refusals."""
        wanted = list(batch.wanted.values())
        wanted += [text.wanted for text in batch.texts if text.wanted is not None]
        wanted += [wave.wanted for wave in batch.waveforms if wave.wanted is not None]
        if not wanted:
            return
        found = self.retrying(lambda: self.catalogue.resolve(self.store.conn, wanted, now_s=monotonic_s()))
        apply_sensors(batch, found)

    def retrying(self, action: Callable[[], T]) -> T:
        """Run a statement of its own until it succeeds, through any outage."""
        attempt = 0
        while True:
            try:
                return action()
            except psycopg.Error as error:
                self.recover(error, attempt)
                attempt += 1

    def ask(self) -> None:
        """Find out whether the database still answers; for those who write seldom."""
        self.store.conn.execute("SELECT 1")
        self._set_state(State.WRITING)

    def recover(self, error: psycopg.Error, attempt: int) -> None:
        """Wait as an error demands, and reconnect where the connection is gone."""
        self._hold(_state_of(error), attempt, why=str(error).strip())
        self._reconnect(attempt)

    def halt(self, error: psycopg.Error, attempt: int) -> None:
        """Wait as for an error that every row would meet."""
        self._hold("XX000", attempt, why=str(error).strip())
        self._reconnect(attempt)

    def _reconnect(self, attempt: int) -> None:
        if self.store.is_usable:
            try:
                self.store.rollback()
            except psycopg.Error:
                pass
            else:
                return
        while True:
            try:
                self.store.open()
            except (LeaseTaken, LeaseLost):
                raise
            except (NoDatabase, psycopg.Error) as error:
                attempt += 1
                self._hold(_state_of(error), attempt, why=str(error).strip())
            else:
                self.expect_conflicts()
                return

    def _hold(self, sqlstate: str | None, attempt: int, *, why: str) -> None:
        action = classify(sqlstate)
        self.status.retries[sqlstate or "connection"] += 1
        halted = action is Action.HALT or (action is Action.UNKNOWN and attempt >= _RETRIES_BEFORE_HALT)
        self._set_state(State.HALTED if halted else State.HOLDING, why)
        if halted:
            pause = self.options.halted_backoff_s
        else:
            pause = min(self.options.backoff_s * 2 ** min(attempt, 12), self.options.longest_backoff_s)
        if self._wait(pause * random.uniform(0.7, 1.3)):
            raise Stopped

    def _set_state(self, state: State, why: str = "") -> None:
        status = self.status
        if state is not status.state:
            if state is State.WRITING:
                if status.state is not State.STARTING:
                    log.info("writer.resumed", after_s=round(monotonic_s() - status.since_s, 1))
            elif state is State.HALTED:
                log.error("writer.halted", why=why)
            else:
                log.warning("writer.holding", why=why)
            status.since_s = monotonic_s()
        status.state, status.reason = state, why

    def count_poisoned(self, *, was_poisoned: bool) -> None:
        self._poisoned_batches = self._poisoned_batches + 1 if was_poisoned else 0

    def looks_systemic(self, share: float) -> bool:
        """Whether the database refuses so many rows that it cannot be the rows."""
        return share > _MOST_POISON_SHARE or self._poisoned_batches >= _MOST_POISON_BATCHES


class _Unwieldy(Exception):
    """The batch failed so often in the company of others that halves may get through."""


class _Attempt:
    """The tries at storing one batch."""

    def __init__(self, writer: Writer, sealed: Sealed, messages: Messages, received_us: int) -> None:
        self.writer = writer
        self.store = writer.store
        self.original = sealed
        self.sealed = sealed
        self.messages = messages
        self.received_us = received_us
        self.conflict_path = writer.takes_conflict_path
        self.poisoned = 0
        self.reloaded = False
        self.is_committing = False

    def run(self) -> Outcome:
        attempt = 0
        while True:
            number = self.store.number + 1
            try:
                outcome = self._try_once()
            except psycopg.Error as error:
                settled = self._settle(error, attempt, number)
                if settled is None:
                    attempt += 1
                    continue
                outcome = settled
            self.writer.count_poisoned(was_poisoned=self.poisoned > 0)
            return replace(outcome, took_conflict_path=self.conflict_path)

    def _try_once(self) -> Outcome:
        store = self.store
        self.is_committing = False
        if not store.is_open:
            self.writer.open()
        store.ensure_partitions(self.sealed.rows)
        store.begin()
        try:
            outcome = store.write(
                self.sealed,
                conflict_path=self.conflict_path,
                messages=self.messages,
                received_us=self.received_us,
                tenants=self.writer.catalogue.tenants,
            )
        except LeaseLost:
            store.rollback()
            raise
        self.is_committing = True
        store.commit()
        store.advance(outcome)
        return outcome

    def _settle(self, error: psycopg.Error, attempt: int, number: int) -> Outcome | None:
        """Do what the error calls for; return the outcome if the batch turns out to be committed after all."""
        if not self.store.is_usable or classify(_state_of(error)) is Action.RECONNECT:
            return self._reconnect(error, attempt, number)
        self.store.rollback()
        action = classify(error.sqlstate, constraint=error.diag.constraint_name)
        if isinstance(error, psycopg.DataError) and error.sqlstate is None:
            action = Action.POISON  # refused by the driver before it was sent
        match action:
            case Action.CONFLICT if not self.conflict_path:
                self.conflict_path = True
            case Action.POISON:
                self._refuse_one(error, attempt)
            case Action.RELOAD if self.reloaded:
                self._refuse_one(error, attempt)
            case Action.RELOAD:
                self.reloaded = True
            case Action.LATE if attempt < _RETRIES_BEFORE_HALT:
                self.store.lift_decompression_limit()
            case Action.PARTITION if not attempt:
                self.store.forget_partitions()
            case Action.RETRY if attempt >= _RETRIES_BEFORE_HALVING and len(self.sealed.rows) > 1:
                raise _Unwieldy
            case _:
                self.store.forget_partitions()
                self.writer.recover(error, attempt)
        return None

    def _reconnect(self, error: psycopg.Error, attempt: int, number: int) -> Outcome | None:
        was_committing = self.is_committing
        self.store.close()
        self.writer.recover(error, attempt)
        self.conflict_path = True
        if not was_committing:
            return None
        # The answer is exact: the number is ours alone, and taking the lease waited for the old transaction to end.
        found = self.store.find_outcome(number, self.sealed)
        log.info("batch.commit_settled", number=number, was_committed=found is not None)
        return found

    def _refuse_one(self, error: psycopg.Error, attempt: int) -> None:
        """Take the row, word or burst at fault out of the batch; halt where it is not one of them, or too many are."""
        self.poisoned += 1
        of = max(len(self.original.rows) + len(self.original.texts) + len(self.original.waveforms), 10)
        culprit = None if self.writer.looks_systemic(self.poisoned / of) else self._find_culprit(error)
        if culprit is None:
            self.sealed, self.poisoned = self.original, 0  # once it is mended, every row gets its chance
            self.writer.halt(error, attempt)
            return
        part, at = culprit
        detail = (error.diag.message_primary or str(error)).strip()
        message = int(self.sealed.owners[at]) if part == "rows" else getattr(self.sealed, part)[at].message
        refusal = Refusal(message, None, "refused_by_database", f"{error.sqlstate}: {detail}", 1)
        log.warning("reading.refused_by_database", sqlstate=error.sqlstate, why=detail)
        self.sealed = replace(without(self.sealed, part, at), refusals=[*self.sealed.refusals, refusal])

    def _find_culprit(self, error: psycopg.Error) -> tuple[str, int] | None:
        at = find_row(error)
        if at is not None and at < len(self.sealed.rows):
            return "rows", at
        for part in ("rows", "texts", "waveforms"):
            low, high = 0, len(getattr(self.sealed, part))
            if not high or not self._fails(part, low, high):
                continue
            while high - low > 1:
                middle = (low + high) // 2
                if self._fails(part, low, middle):
                    high = middle
                else:
                    low = middle
            return part, low
        return None

    def _fails(self, part: str, low: int, high: int) -> bool:
        """Whether the database refuses a slice of the batch, tried in a transaction that is rolled back."""
        self.store.begin()
        try:
            self.store.try_part(self.sealed, part, low, high)
        except psycopg.Error as error:
            if classify(error.sqlstate, constraint=error.diag.constraint_name) not in {Action.POISON, Action.RELOAD}:
                raise
            return True
        else:
            return False
        finally:
            self.store.rollback()


def without(sealed: Sealed, part: str, at: int) -> Sealed:
    """Return the batch without one of its rows, words or bursts."""
    if part == "rows":
        keep = np.arange(len(sealed.rows)) != at
        return replace(sealed, rows=sealed.rows[keep], owners=sealed.owners[keep], encoded=None)
    if part == "texts":
        return replace(sealed, texts=[*sealed.texts[:at], *sealed.texts[at + 1 :]])
    return replace(sealed, waveforms=[*sealed.waveforms[:at], *sealed.waveforms[at + 1 :]])


def halves(sealed: Sealed) -> tuple[Sealed, Sealed]:
    """Split a batch; all but the second half of the rows stays with the first."""
    middle = len(sealed.rows) // 2
    first = replace(sealed, rows=sealed.rows[:middle], owners=sealed.owners[:middle], encoded=None)
    second = replace(
        sealed, messages=0, rows=sealed.rows[middle:], owners=sealed.owners[middle:], texts=[], waveforms=[], life=[],
        refusals=[], duplicates=0, collisions=0, ignored_messages=0, ignored_readings=0, encoded=None,
    )  # fmt: skip
    return first, second


def _state_of(error: Exception) -> str | None:
    """Return the SQLSTATE; a connection that could not be made keeps that of its cause, such as a wrong password."""
    cause = error.__cause__ if isinstance(error, NoDatabase) else error
    return cause.sqlstate if isinstance(cause, psycopg.Error) else None


def apply_sensors(batch: Batch, found: dict[Wanted, Sensor | Refused]) -> None:
    """Put resolved sensors into a batch; what is refused, disabled or of another quantity leaves it, counted."""
    dropped: set[int] = set()
    waveforms, without_burst = [], set()
    for wave in batch.waveforms:
        sensor_id = _id_for(batch, wave.message, wave.wanted, found)
        if sensor_id is not None:
            waveforms.append(wave._replace(sensor_id=wave.sensor_id or sensor_id, wanted=None))
        elif wave.wanted is not None:
            without_burst.add((wave.message, wave.wanted.tenant, wave.wanted.path))
    batch.waveforms = waveforms
    for row, want in batch.wanted.items():
        site, machine, sensor = want.path
        if (
            without_burst
            and (batch.owners[row], want.tenant, (site, machine, sensor.rpartition(".")[0])) in without_burst
        ):
            batch.ignored_readings += 1  # what the burst would have said
            dropped.add(row)
            continue
        sensor_id = _id_for(batch, batch.owners[row], want, found)
        if sensor_id is None:
            dropped.add(row)
        else:
            batch.sensor_ids[row] = sensor_id
    batch.wanted.clear()
    if dropped:
        kept = [row for row in range(len(batch.ts)) if row not in dropped]
        batch.odd = {new: batch.odd[row] for new, row in enumerate(kept) if row in batch.odd}
        batch.values = [batch.values[row] for row in kept]
        for column in (batch.sensor_ids, batch.ts, batch.owners):
            column[:] = [column[row] for row in kept]
    batch.texts = [item._replace(sensor_id=item.sensor_id or found_id, wanted=None)
                   for item in batch.texts if (found_id := _id_for(batch, item.message, item.wanted, found)) is not None]  # fmt: skip


def _id_for(batch: Batch, message: int, want: Wanted | None, found: dict[Wanted, Sensor | Refused]) -> int | None:
    if want is None:
        return 0
    sensor = found[want]
    if isinstance(sensor, Refused):
        batch.refusals.append(Refusal(message, want.tenant, sensor.reason, sensor.detail, 1))
        return None
    if not sensor.is_enabled:
        batch.ignored_readings += 1
        return None
    if want.unit and is_other_quantity(sensor, want.unit):
        detail = say_mismatch(sensor, want.path, want.unit)
        batch.refusals.append(Refusal(message, want.tenant, UNIT_MISMATCH, detail, 1))
        return None
    return sensor.id
