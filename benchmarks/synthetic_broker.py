"""A broker of one subscriber that does nothing but feed it: MQTT 5, QoS 1, as fast as the receive maximum allows.

It keeps a session as a broker must: what is not acknowledged when a connection ends is sent again, marked as duplicate,
on the next one. And it watches: acknowledgements must come in the order of the messages, each exactly once, and none may
be left over. Frames of a `Plant` are built with numpy, many at a time, and before the start where they are not too many, so
the broker costs next to nothing.

    broker = SyntheticBroker(Plant(messages=1_000_000)); broker.start()     # a thread; or `in_process(...)`
"""

import multiprocessing
import multiprocessing.connection
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import mqtt5
import numpy as np
import numpy.typing as npt

_IDS = 65_535
_DUP = 0x08
_MOST_ENCODED = 1_000_000  # messages kept encoded: a hundred bytes each


class Source(Protocol):
    """Where frames come from; message `i` has packet id `i % 65535 + 1`."""

    @property
    def messages(self) -> int: ...

    def frames(self, start: int, stop: int, *, is_redelivery: bool) -> bytes: ...


@dataclass(frozen=True)
class Plant:
    """Readings of many sensors in turn: {"ts":1795219200000,"value":123.456,"unit":"mm/s"}, about 60 bytes with slack."""

    messages: int
    sensors: int = 200
    start_ms: int = 1_795_219_200_000
    period_ms: int = 100
    repeats: int = 1  # each message so many times: a storm of duplicates

    def topic(self, sensor: int) -> str:
        return f"fettle/default/bench/m{sensor:05d}/vibration"

    def frames(self, start: int, stop: int, *, is_redelivery: bool) -> bytes:
        index = np.arange(start, stop, dtype=np.int64)
        one = self._template()
        block = np.tile(one, (len(index), 1))
        if is_redelivery:
            block[:, 0] |= _DUP
        number = index // self.repeats
        sensor, n = number % self.sensors, number // self.sensors
        where = bytes(one)
        _digits(block, where.index(b"m00000") + 1, sensor, 5)
        _digits(block, where.index(b'"ts":') + 5, self.start_ms + n * self.period_ms, 13)
        value = (number * 7919) % 1_000_000
        at = where.index(b'"value":') + 8
        _digits(block, at, value // 1000 + 1000, 4)  # no leading zero: JSON knows none
        _digits(block, at + 5, value % 1000, 3)
        ids = index % _IDS + 1
        at = 4 + len(self.topic(0)) if len(one) < 130 else 5 + len(self.topic(0))
        block[:, at] = ids >> 8
        block[:, at + 1] = ids & 255
        return block.tobytes()

    def _template(self) -> npt.NDArray[np.uint8]:
        payload = b'{"ts":0000000000000,"value":0000.000,"unit":"mm/s"}'
        frame = mqtt5.PublishPacket(self.topic(0), payload, qos=mqtt5.QoS.AT_LEAST_ONCE, packet_id=1).write()
        return np.frombuffer(frame, dtype=np.uint8)


def _digits(block: npt.NDArray[np.uint8], at: int, numbers: npt.NDArray[np.int64], width: int) -> None:
    rest = numbers.copy()
    for column in range(at + width - 1, at - 1, -1):
        block[:, column] = 48 + rest % 10
        rest //= 10


class Encoded:
    """Messages of a plant encoded beforehand, so that feeding them takes nothing from those who are fed."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self.messages = plant.messages
        self._data = b"".join(
            plant.frames(start, min(start + 65_536, plant.messages), is_redelivery=False)
            for start in range(0, plant.messages, 65_536)
        )
        self._size = len(self._data) // max(plant.messages, 1)  # all frames of a plant are equally long

    def frames(self, start: int, stop: int, *, is_redelivery: bool) -> bytes:
        if is_redelivery:
            return self._plant.frames(start, stop, is_redelivery=True)
        return self._data[start * self._size : stop * self._size]


@dataclass(frozen=True)
class Listed:
    """The messages of a list."""

    pairs: Sequence[tuple[str, bytes]]

    @property
    def messages(self) -> int:
        return len(self.pairs)

    def frames(self, start: int, stop: int, *, is_redelivery: bool) -> bytes:
        return b"".join(
            mqtt5.PublishPacket(
                topic, payload, qos=mqtt5.QoS.AT_LEAST_ONCE, packet_id=i % _IDS + 1, duplicate=is_redelivery
            ).write()
            for i, (topic, payload) in enumerate(self.pairs[start:stop], start)
        )


@dataclass
class Tally:
    """What the broker has seen."""

    sent: int = 0  # first deliveries
    redelivered: int = 0
    acknowledged: int = 0
    connections: int = 0
    errors: list[str] = field(default_factory=list)
    first_sent_s: float = 0.0
    last_acknowledged_s: float = 0.0
    delays_s: list[float] = field(default_factory=list)  # from writing a frame to its PUBACK, sampled
    waiting_s: list[float] = field(default_factory=list)  # sampled too: how long those without a PUBACK wait already


class SyntheticBroker(threading.Thread):
    """Serves one client at a time on a loopback port. Wait for `finished`, or look at `tally`."""

    def __init__(
        self,
        source: Source,
        *,
        rate: float | None = None,
        keeps_session: bool = True,
        on_connect: Callable[[mqtt5.ConnectPacket], None] = lambda _: None,
        most_unacknowledged: int = _IDS - 1,
        starts_paused: bool = False,
    ) -> None:
        super().__init__(name="synthetic-broker", daemon=True)
        self.tally = Tally()
        self.finished = threading.Event()
        self.subscribed = threading.Event()
        self._source = source
        self._rate = rate
        self._keeps_session = keeps_session
        self._on_connect = on_connect
        self._most = most_unacknowledged
        self._stopping = threading.Event()
        self.may_send = threading.Event()
        if not starts_paused:
            self.may_send.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.1)
        self.port = int(self._listener.getsockname()[1])
        self._client: socket.socket | None = None
        self._samples: dict[int, float] = {}

    def stop(self) -> None:
        self._stopping.set()
        self.join(10)
        self._listener.close()

    def look(self) -> Tally:
        """Return the tally, with the waits of this moment."""
        now = time.perf_counter()
        self.tally.waiting_s = [now - sent_s for sent_s in list(self._samples.values())]
        return self.tally

    def cut(self) -> None:
        """Break the connection as a cable would."""
        client = self._client
        if client is not None:
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def run(self) -> None:
        while not self._stopping.is_set():
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            self._client = client
            try:
                with client:
                    self._serve(client)
            except OSError:
                continue
            finally:
                self._client = None
                self.subscribed.clear()

    def _serve(self, client: socket.socket) -> None:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.setblocking(False)
        tally, total = self.tally, self._source.messages
        incoming, outgoing = b"", memoryview(b"")
        window, position, resend_until = 0, tally.acknowledged, tally.sent
        allowed_from, ready = 0.0, False
        with selectors.DefaultSelector() as selector:
            selector.register(client, selectors.EVENT_READ)
            wants_write = False
            while not self._stopping.is_set():
                if ready and not outgoing and position < total and self.may_send.is_set():
                    room = min(window - (position - tally.acknowledged), total - position, 4096)
                    if self._rate is not None:
                        due = int((time.perf_counter() - allowed_from) * self._rate)
                        room = min(room, due - position)
                    if room > 0:
                        is_again = position < resend_until
                        until = min(position + room, resend_until) if is_again else position + room
                        outgoing = memoryview(self._source.frames(position, until, is_redelivery=is_again))
                        if is_again:
                            tally.redelivered += until - position
                        else:
                            if not tally.sent:
                                tally.first_sent_s = time.perf_counter()
                            tally.sent = until
                            self._samples[until - 1] = time.perf_counter()
                        position = until
                if outgoing:
                    with suppress(BlockingIOError):
                        outgoing = outgoing[client.send(outgoing) :]
                if bool(outgoing) != wants_write:
                    wants_write = bool(outgoing)
                    selector.modify(client, selectors.EVENT_READ | (selectors.EVENT_WRITE if wants_write else 0))
                idle = not outgoing and (
                    position >= total
                    or position - tally.acknowledged >= window
                    or not ready
                    or not self.may_send.is_set()
                )
                pause = 0.05 if idle or wants_write else (0.0005 if self._rate else 0.0)
                for _, events in selector.select(pause):
                    if not events & selectors.EVENT_READ:
                        continue
                    data = client.recv(1 << 16)
                    if not data:
                        return
                    incoming += data
                while incoming:
                    if incoming[:1] == b"\x40":
                        whole = len(incoming) // 4 * 4
                        acks = np.frombuffer(incoming[:whole], dtype=np.uint8).reshape(-1, 4)
                        n = int(np.argmax(acks[:, 0] != 0x40)) if (acks[:, 0] != 0x40).any() else len(acks)
                        if not n:
                            break
                        self._acknowledged(acks[:n], position)
                        incoming = incoming[n * 4 :]
                        continue
                    try:
                        packet, used = mqtt5.read(memoryview(incoming))
                    except IndexError:
                        break
                    incoming = incoming[used:]
                    match packet:
                        case mqtt5.ConnectPacket():
                            self._on_connect(packet)
                            tally.connections += 1
                            present = self._keeps_session and tally.connections > 1
                            if not present:
                                position = tally.acknowledged
                            window = min(packet.receive_max, self._most)
                            connack = mqtt5.ConnAckPacket(session_present=present).write()
                            if present and position < resend_until:
                                # a resumed session begins at once, in the same segment if it may
                                until = min(position + window, position + 100, resend_until)
                                connack += self._source.frames(position, until, is_redelivery=True)
                                tally.redelivered += until - position
                                position = until
                            client.sendall(connack)
                            if present:
                                allowed_from, ready = time.perf_counter() - position / (self._rate or 1), True
                        case mqtt5.SubscribePacket():
                            codes = [mqtt5.SubAckReasonCode.GRANTED_QOS_AT_LEAST_ONCE] * len(packet.topic_filters)
                            client.sendall(mqtt5.SubAckPacket(packet.packet_id, codes).write())
                            if not ready:
                                allowed_from, ready = time.perf_counter() - position / (self._rate or 1), True
                            self.subscribed.set()
                        case mqtt5.PingReqPacket():
                            client.sendall(mqtt5.PingRespPacket().write())
                        case mqtt5.DisconnectPacket():
                            return
                        case _:
                            pass

    def _acknowledged(self, acks: npt.NDArray[np.uint8], position: int) -> None:
        tally = self.tally
        n = len(acks)
        ids = acks[:, 2].astype(np.int64) << 8 | acks[:, 3]
        expected = np.arange(tally.acknowledged, tally.acknowledged + n) % _IDS + 1
        if not np.array_equal(ids, expected) and len(tally.errors) < 20:
            at = int(np.argmax(ids != expected))
            tally.errors.append(f"PUBACK {int(ids[at])} where {int(expected[at])} was next")
        if tally.acknowledged + n > position and len(tally.errors) < 20:
            tally.errors.append(f"{tally.acknowledged + n - position} PUBACKs too many")
        now = time.perf_counter()
        for sampled in [s for s in self._samples if s < tally.acknowledged + n]:
            tally.delays_s.append(now - self._samples.pop(sampled))
        tally.acknowledged += n
        tally.last_acknowledged_s = now
        if tally.acknowledged >= self._source.messages:
            self.finished.set()


def _child(source: Source, options: dict[str, Any], pipe: multiprocessing.connection.Connection) -> None:
    if isinstance(source, Plant) and source.messages <= _MOST_ENCODED:
        source = Encoded(source)
    broker = SyntheticBroker(source, **options)
    broker.start()
    pipe.send(broker.port)
    while True:
        if pipe.poll(0.01):
            match pipe.recv():
                case "stop":
                    broker.stop()
                    return
                case "go":
                    broker.may_send.set()
                case "hold":
                    broker.may_send.clear()
                case _:
                    pipe.send(broker.look())
        if broker.finished.is_set() and not pipe.closed:
            broker.finished.clear()
            pipe.send("finished")


@dataclass
class Remote:
    """A synthetic broker in a process of its own, so that its CPU time is not the subject's."""

    port: int
    pipe: multiprocessing.connection.Connection
    _is_finished: bool = False

    def go(self) -> None:
        """Let a broker that started paused begin."""
        self.pipe.send("go")

    def hold(self) -> None:
        """Send no more messages until `go`."""
        self.pipe.send("hold")

    def wait(self, timeout_s: float) -> None:
        """Return when every message is acknowledged.

        Raises:
            TimeoutError: they are not in time.
        """
        if not self._is_finished:
            if not self.pipe.poll(timeout_s):
                raise TimeoutError(f"not everything was acknowledged within {timeout_s:g} s")
            self._is_finished = self.pipe.recv() == "finished"

    def tally(self) -> Tally:
        self.pipe.send("tally")
        while True:
            answer = self.pipe.recv()
            if isinstance(answer, Tally):
                return answer
            self._is_finished = True


@contextmanager
def in_process(source: Source, **options: Any) -> Iterator[Remote]:
    """Run a synthetic broker in a process of its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=_child, args=(source, options, theirs), daemon=True)
    child.start()
    try:
        yield Remote(int(ours.recv()), ours)
    finally:
        ours.send("stop")
        child.join(10)
        if child.is_alive():
            child.kill()
