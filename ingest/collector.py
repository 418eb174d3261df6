"""The collector: joins the connection to the broker, the intake and the writer thread.

One batch is on its way to the database while the next one fills. A batch leaves when the writer is free and it is
worth a transaction: large enough, or old enough. One that is as full as the broker's window allows is sealed and waits in
line, so that the database is never kept waiting for our arithmetic. Its acknowledgements go out in
one write when its transaction has been committed, in the order in which its messages came, and only on the connection
they came on; messages of a connection that is gone come again, and meet the unique key.
"""

import asyncio
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from fettle import logs
from fettle.clock import monotonic_s, now_us
from fettle.errors import FettleError
from ingest.batch import Batch
from ingest.counters import Counters
from ingest.desk import Desk, Reports
from ingest.frames import Frames, acknowledge
from ingest.intake import Intake
from ingest.options import CollectorOptions
from ingest.packets import Connect, ConnectRefused, Version, Will, WrongVersion
from ingest.preflight import DROPPED
from ingest.session import BadCertificate, Link, NotTrusted, TakenOver, connect, connect_any
from ingest.store import Outcome
from ingest.topics import Table
from ingest.writer import Writer

log = logs.get("ingest")

STATUS_ROOT = "fettle-collector"  # outside the topics that are subscribed to
_WORTH_ROWS = 64  # enough for a transaction of its own, once
_SHORT_LINGER_S = 0.008  # has passed: a commit costs as much as some hundred rows
_LINGER_S = 0.05  # as long as fewer may wait for company
_MOST_ROWS = 10_000  # waiting while the writer is busy; beyond, reading stops
_MOST_BYTES = 16 << 20
_DRAIN_S = 2.5  # and the rest of a stop, together less than the five seconds after which supervisors kill
# For the writer thread to end; one that a stalled database holds is left behind: it dies with the process.
_LEAVE_S = 0.8
# The writer needs Python only briefly, some ten times a batch, and the database idles while it waits.
_SWITCH_S = 0.0001
_REST_S = 0.002  # between reads, where
_BUSY_S = 0.01  # the one before was no longer ago, and
_GOOD_READ_BYTES = 16 << 10  # it brought less: a broker writes every message by itself
_STABLE_S = 5.0  # a connection that lasted so long begins the count of attempts anew
_FLAPPING = 5


class SubscriptionRefused(FettleError):
    """The broker does not grant {topic!r} at QoS 1 ({why}). Allow it in the broker's access list, or change FETTLE_COLLECTOR_TOPICS."""


class Collector:
    """One process's collector. `run` is its life; `counters` and `status` can be read at any time."""

    def __init__(self, url: str, options: CollectorOptions, table: Table) -> None:
        self.options = options
        self.counters = Counters()
        self.is_connected = asyncio.Event()  # subscribed, and listening
        self._stopping = threading.Event()
        self.writer = Writer(url, name=options.name, options=options.writer, wait=self._wait)
        self.intake = self._make_intake(table)
        self.desk = Desk(
            url,
            self.writer,
            stopping=self._stopping,
            reports=Reports(
                ready=lambda: self._tell(self._set_ready),
                stored=lambda batch, outcome: self._tell(self._stored, batch, outcome),
                spooled=lambda batch: self._tell(self._spooled, batch),
                inherited=lambda messages: self._tell(self._inherit, messages),
                replayed=lambda *what: self._tell(self._replayed, *what),
            ),
            open_spool=options.open_spool if options.spool_folder is not None else None,
            replay_intake=Intake(table, self.writer.catalogue),
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._link: Link | None = None
        self._knows_v5 = False  # the broker does
        self._session_was_lost = False
        self._under_way: deque[Batch] = deque()  # handed to the writer, oldest first; at most two
        self._linger: asyncio.TimerHandle | None = None
        self._read_at_s = 0.0  # when messages came last
        self._is_draining = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._writer_ready: asyncio.Future[None] | None = None
        self._failed: asyncio.Future[None] | None = None
        self.broker_dropped: int | None = None  # as the broker says

    def _make_intake(self, table: Table) -> Intake:
        return Intake(table, self.writer.catalogue, on_broker=self._hear_broker)

    async def run(self, stop: asyncio.Event) -> Counters:
        """Collect until `stop` is set, then store and acknowledge what has arrived.

        Raises:
            LeaseTaken: another collector of this name is running.
            LeaseLost: another collector of this name took over.
            TakenOver: the same, noticed by the broker.
            ConnectRefused: the broker will not have us.
            SubscriptionRefused: the broker grants less than QoS 1.
        """
        self._loop = asyncio.get_running_loop()
        self._failed = self._loop.create_future()
        self._writer_ready = self._loop.create_future()
        switch_s = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH_S)
        thread = threading.Thread(target=self._write, name="fettle-writer", daemon=True)
        thread.start()
        stopped = asyncio.create_task(stop.wait(), name="stop")
        session = asyncio.create_task(self._stay_connected(), name="mqtt-session")
        first: set[asyncio.Future[Any]] = {stopped, session, self._failed}
        try:
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            if self._failed.done():
                await self._failed
            if session.done():
                await session
            await self._drain()
        finally:
            sys.setswitchinterval(switch_s)
            self._stopping.set()
            for task in (stopped, session):
                task.cancel()
            await asyncio.gather(stopped, session, return_exceptions=True)
            await self._disconnect()
            self.desk.jobs.put(None)
            await asyncio.to_thread(thread.join, _LEAVE_S)
            if thread.is_alive():
                log.warning(
                    "collector.left_writer_behind", why=self.writer.status.reason or "the database does not answer"
                )
            self._return_rest()
        return self.counters

    def oldest_unacked_s(self, now_s: float) -> float:
        """Return the age of the oldest message that is not acknowledged."""
        oldest = self._under_way[0] if self._under_way else self.intake.batch
        return now_s - oldest.first_at_s if oldest else 0.0

    def own_figures(self) -> list[tuple[str, str, float]]:
        """Return further figures of this kind of collector: name, what it says, value."""
        return []

    def _hear_broker(self, topic: bytes, payload: bytes) -> None:
        """Watch what the broker says of itself: messages that it dropped are lost to somebody, perhaps to us."""
        if topic != DROPPED.encode() or not payload.strip().isdigit():
            return
        dropped = int(payload)
        if self.broker_dropped is not None and dropped > self.broker_dropped:
            log.warning("broker.drops_messages", since_last=dropped - self.broker_dropped, remedy="In mosquitto.conf: max_queued_messages 0, and a larger max_queued_bytes.")  # fmt: skip
        self.broker_dropped = dropped

    # the connection

    async def _stay_connected(self) -> None:
        assert self._writer_ready is not None
        await self._writer_ready
        attempt = 0
        while True:
            await self._may_connect()
            try:
                link = await self._connect()
                await self._subscribe(link)
            except (WrongVersion, TakenOver):
                raise
            except FettleError as error:
                if not _may_pass(error):
                    raise
                log.warning("broker.unreachable", why=str(error))
                await self._disconnect()
            except TimeoutError:
                log.warning("broker.silent", where=self.options.address.where)
                await self._disconnect()
            else:
                since_s = monotonic_s()
                self.is_connected.set()
                why = await asyncio.shield(link.lost)
                self.is_connected.clear()
                self._forget(link)
                if isinstance(why, TakenOver):
                    raise why
                if monotonic_s() - since_s > _STABLE_S:
                    attempt = 0
                log.warning("broker.lost", why=str(why))
                if attempt >= _FLAPPING:  # not every broker says why it throws out the older of two
                    log.error("broker.flapping", client_id=self.options.name, remedy="Does another client use this client id? Give each collector a FETTLE_COLLECTOR_NAME of its own.")  # fmt: skip
                self.counters.reconnects += 1
            attempt += 1
            await asyncio.sleep(min(0.1 * 2 ** min(attempt, 10), 10.0))

    async def _connect(self) -> Link:
        """Connect; the version that a broker has once spoken is kept to."""
        options, ask = self.options, self._ask()
        if options.version != "auto":
            link = await connect(options.address, ask, version=Version(options.version), on_frames=self._take)
        else:
            link = await connect_any(options.address, ask, on_frames=self._take, knows_v5=self._knows_v5)
            if link.version is Version.V3:
                log.warning("broker.speaks_only_3_1_1", where=options.address.where, remedy="Mosquitto gives such a client 20 unacknowledged messages at a time; amqtt drops messages. Use a broker of MQTT 5 for anything but a demonstration.")  # fmt: skip
        self._knows_v5 = link.version is Version.V5
        self._link = link
        self._note_session(link)
        return link

    def _ask(self) -> Connect:
        options = self.options
        return Connect(
            client_id=options.name,
            username=options.address.username,
            password=options.address.password,
            keep_alive_s=options.keep_alive_s,
            receive_maximum=options.receive_maximum,
            will=Will(topic=f"{STATUS_ROOT}/{options.name}/status", payload=b'{"online":false}'),
        )

    def _note_session(self, link: Link) -> None:
        """Say so when the broker does not have the session that it should have."""
        assert link.granted is not None
        self._session_was_lost = self.writer.store.had_session and not link.granted.session_present
        if self._session_was_lost:
            self.counters.sessions_lost += 1
            log.error("broker.session_lost", client_id=self.options.name, remedy="Messages sent while we were away may be lost. Check the broker's persistence and session expiry.")  # fmt: skip

    async def _subscribe(self, link: Link) -> None:
        filters = self.options.filters()
        codes = await link.subscribe(filters)
        for topic, code in zip(filters, codes, strict=True):
            if code != 1:
                raise SubscriptionRefused(topic=topic, why="granted QoS 0" if code == 0 else f"reason {code:#04x}")
        log.info("broker.subscribed", where=self.options.address.where, version=link.version.value, topics=len(filters))
        await self._greet(link)

    async def _greet(self, link: Link) -> None:
        """Do what is to be done once the subscription stands."""
        if self._session_was_lost or not self.writer.store.had_session:
            lost, store = self._session_was_lost, self.writer.store
            self.desk.jobs.put(lambda: self.writer.retrying(lambda: store.remember_session(lost=lost)))
        await link.subscribe([DROPPED])
        if link.granted is not None and link.granted.has_retain:
            link.send_message(f"{STATUS_ROOT}/{self.options.name}/status", b'{"online":true}', is_retained=True)

    async def _may_connect(self) -> None:
        """Wait until it makes sense to connect."""

    def _forget(self, link: Link) -> None:
        """Part with a connection. What it delivered and nobody has stored yet comes again, unless it came with QoS 0."""
        if self._link is link:
            self._link = None
        self._part_batch_from(link)
        if self._linger is not None and not self.intake.batch:
            self._linger.cancel()
            self._linger = None

    def _part_batch_from(self, link: object) -> None:
        """Take back the messages of a connection that is gone; those of QoS 0 are stored, since nobody sends them again."""
        batch = self.intake.batch
        if not batch or batch.source is not link:
            return
        if len(batch.packet_ids) == len(batch):
            self._return(self.intake.take_batch())
        else:
            batch.packet_ids.clear()
            batch.source = None

    async def _disconnect(self) -> None:
        link = self._link
        if link is not None:
            if not link.lost.done():
                self._say_goodbye(link)
            await link.close()
            self._forget(link)

    def _say_goodbye(self, link: Link) -> None:
        """Say what the will would say if we vanished."""
        link.send_message(f"{STATUS_ROOT}/{self.options.name}/status", b'{"online":false}', is_retained=True)

    # messages

    def _take(self, link: Link, frames: Frames, nbytes: int) -> None:
        if link.lost.done():
            return
        if self._is_draining:  # a connection that was made meanwhile: its messages stay with the broker
            link.pause()
            return
        intake = self.intake
        # A resumed session may deliver in the same breath as it says yes, before `_open` has returned: the batch belongs
        # to the link that brought it, not to whichever is on record.
        if intake.batch and intake.batch.source is not link:
            self._part_batch_from(intake.batch.source)
        batch = intake.batch
        batch.source = link
        before = (batch.messages, batch.readings) if batch.topics else (0, 0)
        if not batch.topics:
            batch.first_at_s = monotonic_s()
        intake.take(frames, now_us())
        batch.size_bytes += nbytes
        self.counters.bytes_received += nbytes
        messages, readings = self.counters.messages, self.counters.readings
        added = batch.messages - before[0]
        messages.received += added
        messages.in_flight += added
        added = batch.readings - before[1]
        readings.received += added
        readings.in_flight += added
        self._flush_if_due()
        if self.intake.batch is batch and self._is_full(batch):  # nobody could take it
            link.pause()
        now_s = monotonic_s()
        if now_s - self._read_at_s < _BUSY_S and nbytes < _GOOD_READ_BYTES:
            link.rest(_REST_S)
        self._read_at_s = now_s

    def _is_full(self, batch: Batch) -> bool:
        return (
            len(batch.ts) >= _MOST_ROWS
            or batch.size_bytes >= _MOST_BYTES
            or self.counters.messages.in_flight >= self.options.receive_maximum  # more will not come
        )

    def _flush_if_due(self) -> None:
        """Hand the batch over if the writer is free and it is worth a transaction; or if it is full, to wait in line.

        So under load the next batch is sealed and encoded while the database works on the one before.
        """
        batch = self.intake.batch
        if not batch.topics or len(self._under_way) > 1:
            return
        if self._is_full(batch):
            self._flush()
            return
        if self._under_way:
            return
        age_s = monotonic_s() - batch.first_at_s
        is_small_window = self._link is not None and self._link.version is Version.V3  # and its size is unknown
        linger_s = _SHORT_LINGER_S if len(batch.ts) >= _WORTH_ROWS else _LINGER_S
        if age_s >= linger_s or is_small_window:
            self._flush()
        elif self._linger is None or self._linger.when() > monotonic_s() + linger_s - age_s + 0.001:
            assert self._loop is not None
            if self._linger is not None:
                self._linger.cancel()
            self._linger = self._loop.call_later(linger_s - age_s, self._linger_is_over)

    def _linger_is_over(self) -> None:
        self._linger = None
        self._flush_if_due()

    def _flush(self) -> None:
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        batch = self.intake.take_batch()
        batch.counted_readings = batch.readings
        self.writer.prepare(batch)
        self._under_way.append(batch)
        self._idle.clear()
        self.desk.jobs.put(batch)
        if isinstance(batch.source, Link) and not self._is_draining:
            batch.source.resume()

    def _stored(self, batch: Batch, outcome: Outcome) -> None:
        """Acknowledge a batch that is committed, and book it."""
        if not self._under_way:  # given up and returned: it will be found stored when it comes again
            return
        self._acknowledge(batch)
        self.counters.latency.add(monotonic_s() - batch.first_at_s)
        self.counters.messages.in_flight -= batch.messages
        self.counters.readings.in_flight -= batch.counted_readings
        self.counters.book(batch, outcome)
        self._finish(batch)

    def _spooled(self, batch: Batch) -> None:
        """Acknowledge a batch that is on the disk, and book it."""
        if not self._under_way:
            return
        self._acknowledge(batch)
        messages, readings = self.counters.messages, self.counters.readings
        messages.in_flight -= batch.messages
        messages.spooled += batch.messages
        readings.in_flight -= batch.counted_readings
        readings.spooled += batch.counted_readings
        self._finish(batch)

    def _inherit(self, messages: int) -> None:
        self.counters.messages.received += messages
        self.counters.messages.spooled += messages

    def _replayed(self, batch: Batch, readings: int, outcome: Outcome, was_inherited: bool) -> None:
        self.counters.messages.spooled -= batch.messages
        if was_inherited:
            self.counters.readings.received += readings  # an earlier process had counted them
        else:
            self.counters.readings.spooled -= readings
        self.counters.book(batch, outcome)

    def _acknowledge(self, batch: Batch) -> None:
        link = batch.source
        if isinstance(link, Link) and not link.lost.done():
            link.send(acknowledge(batch.packet_ids))

    def _finish(self, batch: Batch) -> None:
        done = self._under_way.popleft()
        assert done is batch
        if not self._under_way:
            self._idle.set()
        self._flush_if_due()

    def _return(self, batch: Batch, readings: int | None = None) -> None:
        n = batch.readings if readings is None else readings
        self.counters.messages.in_flight -= batch.messages
        self.counters.messages.returned += batch.messages
        self.counters.readings.in_flight -= n
        self.counters.readings.returned += n

    def _return_rest(self) -> None:
        while self._under_way:
            batch = self._under_way.popleft()
            self._return(batch, batch.counted_readings)
        if self.intake.batch:
            self._return(self.intake.take_batch())

    async def _drain(self) -> None:
        """Stop reading, store and acknowledge what has arrived, within the time a supervisor gives us."""
        self._is_draining = True
        if self._link is not None:
            self._link.pause()
        deadline = monotonic_s() + _DRAIN_S
        while self._under_way or self.intake.batch:
            if not self._under_way:
                self._flush()
            try:
                await asyncio.wait_for(self._idle.wait(), max(deadline - monotonic_s(), 0.01))
            except TimeoutError:
                log.warning("collector.stopped_undrained", messages=self.counters.messages.in_flight)
                return

    # the writer thread

    def _write(self) -> None:
        """Run the desk in the writer thread, and say why it ended if it was not told to."""
        try:
            self.desk.run()
        except FettleError as error:
            self._tell(self._fail, error)
        except Exception as error:
            log.exception("writer.failed")
            self._tell(self._fail, error)

    def _wait(self, seconds: float) -> bool:
        return self.desk.wait(seconds)

    def _tell(self, call: Callable[..., None], *args: object) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(call, *args)
        except RuntimeError:  # the loop has ended: nobody is left to acknowledge to
            log.debug("writer.loop_closed")

    def _set_ready(self) -> None:
        assert self._writer_ready is not None
        if not self._writer_ready.done():
            self._writer_ready.set_result(None)

    def _fail(self, error: Exception) -> None:
        assert self._failed is not None
        if not self._failed.done():
            self._failed.set_exception(error)


def _may_pass(error: FettleError) -> bool:
    """Whether waiting may help: an absent or busy broker, unlike a wrong password."""
    if isinstance(error, (NotTrusted, BadCertificate, SubscriptionRefused)):
        return False
    return not isinstance(error, ConnectRefused) or error.may_pass
