"""The writer thread's work: batches to the database, or, while it is away and the settings say so, to the spool.

hold     a batch waits for the database as long as it takes; the broker keeps what follows
spool    after a few seconds the batch's messages go to disk and are acknowledged; when the database is back they are
replayed, oldest first, one batch between two live ones
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue

import psycopg

from fettle import logs
from fettle.clock import monotonic_s
from fettle.db import DatabaseRole, NoDatabase, connect_sync
from ingest.batch import Batch
from ingest.intake import Intake
from ingest.spool import Spool, Spooled, SpoolFull, as_frames
from ingest.store import Outcome
from ingest.writer import State, Stopped, Writer

log = logs.get("ingest")

Job = Batch | Callable[[], None] | None
_PATIENCE_S = 2.0  # so long a batch waits for the database before it is spooled
_PROBE_EVERY_S = 2.0
_REPLAY_AT_ONCE = 10_000
_REPLAY_TOGETHER = 500  # like a read of so many: one that has another form makes those beside it be read one by one
_FOREVER = float("inf")


@dataclass(frozen=True, slots=True)
class Reports:
    """What the desk tells its owner, from its own thread."""

    ready: Callable[[], None]
    stored: Callable[[Batch, Outcome], None]
    spooled: Callable[[Batch], None]
    inherited: Callable[[int], None]  # messages that an earlier process spooled
    replayed: Callable[[Batch, int, Outcome, bool], None]  # its readings; whether they were inherited


class Desk:
    """Works off jobs until it is given None. `run` is the thread's main function."""

    def __init__(
        self,
        url: str,
        writer: Writer,
        *,
        stopping: threading.Event,
        reports: Reports,
        open_spool: Callable[[], Spool] | None = None,
        replay_intake: Intake | None = None,
    ) -> None:
        self.jobs: SimpleQueue[Job] = SimpleQueue()
        self.spool: Spool | None = None
        self.is_away = False
        self._url = url
        self._writer = writer
        self._stopping = stopping
        self._reports = reports
        self._open_spool = open_spool
        self._replay_intake = replay_intake
        self._patience_s = _FOREVER
        self._is_back = threading.Event()
        self._inherited = 0
        self._errands: list[Callable[[], None]] = []

    def wait(self, seconds: float) -> bool:
        """Sleep as the writer asks; True where it must let go of its batch."""
        if self._stopping.wait(min(seconds, self._patience_s)):
            return True
        status = self._writer.status
        return (
            status.state in {State.HOLDING, State.HALTED} and monotonic_s() - status.since_s >= self._patience_s
        ) or self._patience_s <= 0

    def run(self) -> None:
        """Work until told to stop.

        Raises:
            LeaseTaken: another process holds the collector's lease.
            LeaseLost: another process took it.
            SpoolInUse: another process has the spool open.
        """
        try:
            self._open()
            self._reports.ready()
            while (job := self._next()) is not None:
                if isinstance(job, Batch):
                    self._take(job)
                else:
                    self._do(job)
        except Stopped:
            if not self._stopping.is_set():
                raise
        finally:
            self._writer.close()
            if self.spool is not None:
                self.spool.close()

    def _open(self) -> None:
        if self._open_spool is None:
            self._writer.open()
            return
        self.spool = self._open_spool()
        self._inherited = self.spool.messages
        if self._inherited:
            self._reports.inherited(self._inherited)
            self._writer.expect_conflicts()
        self._patience_s = _PATIENCE_S
        self._reach_database()

    def _next(self) -> Job:
        """Return the next job; between jobs, replay."""
        while True:
            if self.spool is None:
                return self.jobs.get()
            if self.is_away and self._is_back.is_set():
                self._reach_database()
            can_replay = not self.is_away and self.spool.messages > 0
            try:
                return self.jobs.get(timeout=0 if can_replay else 0.2 if self.is_away else 5.0)
            except Empty:
                if can_replay:
                    self._replay()

    def _do(self, errand: Callable[[], None]) -> None:
        """Run a small errand at the database, or remember it until the database is back."""
        if self.is_away:
            self._errands.append(errand)
            return
        try:
            errand()
        except Stopped:
            if self._stopping.is_set() or self.spool is None:
                raise
            self._errands.append(errand)
            self._leave_database()

    def _take(self, batch: Batch) -> None:
        spool = self.spool
        if not self.is_away:
            try:
                outcome = self._writer.persist(batch)
            except Stopped:
                if spool is None or self._stopping.is_set():
                    raise
                self._leave_database()
            else:
                self._reports.stored(batch, outcome)
                if spool is not None and spool.messages:
                    self._replay()
                return
        assert spool is not None
        try:
            spool.append(_as_messages(batch))
        except SpoolFull as error:
            log.error("spool.full", why=str(error))  # noqa: TRY400 -- foreseen; the message says it all
            self._hold(batch)
        else:
            self._reports.spooled(batch)

    def _hold(self, batch: Batch) -> None:
        """The spool takes no more: keep the batch as without one, until the database is back."""
        self._patience_s = _FOREVER
        try:
            outcome = self._writer.persist(batch)
        finally:
            self._patience_s = _PATIENCE_S
        self.is_away = False
        self._reports.stored(batch, outcome)

    def _leave_database(self) -> None:
        log.warning("spool.begins", why=self._writer.status.reason)
        self.is_away = True
        self._writer.close()
        self._writer.expect_conflicts()  # the batch that was under way may have been committed
        self._is_back.clear()
        threading.Thread(target=self._probe, name="fettle-probe", daemon=True).start()

    def _reach_database(self) -> None:
        """Connect, if the database lets us at once."""
        self._patience_s = 0.0
        try:
            self._writer.open()
        except Stopped:
            if self._stopping.is_set():
                raise
            self._leave_database()
        else:
            if self.is_away:
                log.info("spool.replays", messages=self.spool.messages if self.spool else 0)
            self.is_away = False
            self._patience_s = _PATIENCE_S
            errands, self._errands = self._errands, []
            for errand in errands:
                self._do(errand)
        finally:
            self._patience_s = _PATIENCE_S

    def _probe(self) -> None:
        """Find out when the database answers, without keeping the writer waiting for its time-outs."""
        while not self._stopping.wait(_PROBE_EVERY_S):
            try:
                with connect_sync(self._url, role=DatabaseRole.WORKER, name="fettle-probe") as conn:
                    if conn.execute("SHOW transaction_read_only").fetchone() == ("off",):
                        self._is_back.set()
                        return
            except (NoDatabase, psycopg.Error):
                continue

    def _replay(self) -> None:
        """Store the oldest messages of the spool."""
        assert self.spool is not None
        assert self._replay_intake is not None
        most = min(_REPLAY_AT_ONCE, self._inherited or _REPLAY_AT_ONCE)
        messages, position = self.spool.read(most=most)
        intake = self._replay_intake
        for start in range(0, len(messages), _REPLAY_TOGETHER):
            some = messages[start : start + _REPLAY_TOGETHER]
            intake.take(as_frames(some), max(message.received_us for message in some))
        batch = intake.take_batch()
        readings = batch.readings  # before it is persisted, which moves some of them about
        try:
            outcome = self._writer.persist(batch)
        except Stopped:
            if self._stopping.is_set():
                raise
            self._leave_database()
            return
        self.spool.settle(position, len(messages))
        was_inherited = self._inherited > 0
        if was_inherited:
            self._inherited -= len(messages)
        self._reports.replayed(batch, readings, outcome, was_inherited)


def _as_messages(batch: Batch) -> list[Spooled]:
    return [
        Spooled(
            topic, payload, batch.ticks.get(i, batch.received_us), i in batch.retained, batch.content_types.get(i, "")
        )
        for i, (topic, payload) in enumerate(zip(batch.topics, batch.payloads, strict=True))
    ]
