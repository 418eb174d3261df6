"""A publisher for many small MQTT messages: MQTT 5 or 3.1.1, QoS 0 and 1, one thread, one socket.

A client library spends 160 µs on a QoS 1 publish where this spends 5, and a device fleet in one process needs the
difference. It keeps to what a publisher needs: CONNECT with will, PUBLISH in batches inside the broker's receive maximum,
PUBACK accounting, keep-alive, and a subscription for the commands that Sparkplug sends to its devices.

    publish() appends frames  ->  pump() writes and reads what the socket takes  ->  acknowledged counts PUBACKs

Specification: https://docs.oasis-open.org/mqtt/mqtt/v5.0/os/mqtt-v5.0-os.html
"""

import select
import socket
import ssl
import struct
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from fettle import clock
from fettle.errors import FettleError
from fettle.settings import Settings

_CONNACK, _PUBLISH, _PUBACK, _SUBACK, _PINGRESP, _DISCONNECT = 2, 3, 4, 9, 13, 14
_WINDOW = 2000
_HIGH_WATER = 1 << 18
_RECEIVE_MAXIMUM, _MAXIMUM_QOS, _MAXIMUM_PACKET, _SERVER_KEEP_ALIVE = 0x21, 0x24, 0x27, 0x13
# length of MQTT 5 property values: 1, 2, 4 bytes; the rest carry their own length
_ONE, _TWO, _FOUR = {0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2A}, {0x13, 0x21, 0x22, 0x23}, {0x02, 0x11, 0x18, 0x27}


class BrokerUnreachable(FettleError):
    """No MQTT broker answers at {host}:{port} ({why}). Start one, or set FETTLE_BROKER_HOST and FETTLE_BROKER_PORT."""


class BrokerRefused(FettleError):
    """The broker at {host}:{port} refused the connection: {why}."""


class BrokerGone(FettleError):
    """The connection to the broker broke after {acknowledged} acknowledged messages ({why}); {unacknowledged} were on the way."""


class PublishRefused(FettleError):
    """The broker refused a message on topic {topic}: reason code 0x{reason:02x}. Check its access rules."""


class MessageTooLarge(FettleError):
    """A message on topic {topic} has {size} bytes; the broker takes at most {limit}."""


@dataclass(frozen=True, kw_only=True)
class BrokerAddress:
    """Where a broker listens and how to log in. `version` is "5", "3.1.1" or "auto": 5 with a fall-back."""

    host: str = "127.0.0.1"
    port: int = 1883
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    version: str = "auto"

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the broker of the settings; the loopback address where they name none."""
        tls = settings.broker_tls_ca is not None or settings.broker_tls_cert is not None
        return cls(
            host=settings.broker_host or "127.0.0.1",
            port=settings.broker_port or (8883 if tls else 1883),
            username=settings.broker_username,
            password=settings.broker_password.get_secret_value() if settings.broker_password else None,
            tls_ca=settings.broker_tls_ca,
            tls_cert=settings.broker_tls_cert,
            tls_key=settings.broker_tls_key,
            version=settings.broker_mqtt_version,
        )

    @property
    def tls(self) -> bool:
        return self.tls_ca is not None or self.tls_cert is not None


class Message(NamedTuple):
    """One message to publish."""

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False
    content_type: str = ""


class Publisher:
    """A connection to a broker. Use as a context manager; leaving it disconnects in good order.

    Attributes:
        version: 5 or 4 (3.1.1), what the broker speaks.
        sent: messages handed over since the connection began.
        acknowledged: QoS 1 messages the broker has taken over.

    Raises:
        BrokerUnreachable, BrokerRefused: while connecting.
    """

    def __init__(
        self,
        address: BrokerAddress,
        *,
        client_id: str,
        will: Message | None = None,
        on_message: Callable[[str, bytes], None] | None = None,
        keep_alive_s: int = 30,
        timeout_s: float = 10.0,
    ) -> None:
        self._address = address
        self._client_id = client_id
        self._will = will
        self._on_message = on_message
        self._timeout_s = timeout_s
        self._out = bytearray()
        self._in = bytearray()
        self._unacknowledged: OrderedDict[int, Message] = OrderedDict()
        self._next_id = 1
        self._keep_alive_s = keep_alive_s
        self._window = _WINDOW
        self._packet_limit = 0
        self._answer: list[bytes] = []  # CONNACK
        self._granted: list[int] = []  # SUBACK
        self._pinged_at: float | None = None
        self.sent = 0
        self.acknowledged = 0
        self.fell_back = False
        versions = {"5": (5,), "3.1.1": (4,), "auto": (5, 4)}[address.version]
        for version in versions:
            self.version = version
            try:
                self._connect()
                break
            except (BrokerRefused, BrokerGone):
                if version == versions[-1]:
                    raise
                self.fell_back = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- connection

    def _connect(self) -> None:
        self._open()
        try:
            self._introduce()
        except BaseException:
            self._socket.close()
            raise

    def _open(self) -> None:
        a = self._address
        try:
            plain = socket.create_connection((a.host, a.port), timeout=self._timeout_s)
        except OSError as error:
            raise BrokerUnreachable(host=a.host, port=a.port, why=_reason(error)) from error
        self._socket: socket.socket = plain
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            if a.tls:
                self._socket = _secure(plain, a)
        except OSError as error:
            plain.close()
            why = f"no TLS connection ({_reason(error)}); check FETTLE_BROKER_TLS_CA, FETTLE_BROKER_TLS_CERT and FETTLE_BROKER_TLS_KEY"
            raise BrokerRefused(host=a.host, port=a.port, why=why) from error

    def _introduce(self) -> None:
        self._out.clear()
        self._in.clear()
        self._out += self._connect_packet()
        self._socket.setblocking(False)
        self._written_at = self._read_at = clock.monotonic_s()
        self._answer.clear()
        deadline = clock.monotonic_s() + self._timeout_s
        while not self._answer:
            if clock.monotonic_s() > deadline:
                why = f"no CONNACK within {self._timeout_s:g} s"
                raise BrokerRefused(host=self._address.host, port=self._address.port, why=why)
            self.pump(0.2)
        self._accept(self._answer[0])

    def _connect_packet(self) -> bytes:
        a, v5 = self._address, self.version == 5
        flags = 0x02
        body = _text(self._client_id)
        if self._will:
            flags |= 0x04 | self._will.qos << 3 | self._will.retain << 5
            body += (b"\x00" if v5 else b"") + _text(self._will.topic) + _data(self._will.payload)
        if a.username is not None:
            flags |= 0x80
            body += _text(a.username)
        if a.password is not None:
            flags |= 0x40
            body += _text(a.password)
        head = (
            _text("MQTT")
            + bytes((self.version, flags))
            + struct.pack(">H", self._keep_alive_s)
            + (b"\x00" if v5 else b"")
        )
        return b"\x10" + _varint(len(head) + len(body)) + head + body

    def _accept(self, body: bytes) -> None:
        code = body[1]
        if code:
            why = _CONNECT_REASONS.get(code, f"reason code 0x{code:02x}")
            raise BrokerRefused(host=self._address.host, port=self._address.port, why=why)
        if self.version == 5:
            granted = _properties(body[2:])
            self._window = min(_WINDOW, granted.get(_RECEIVE_MAXIMUM, 65_535))
            self._packet_limit = granted.get(_MAXIMUM_PACKET, 0)
            self._keep_alive_s = granted.get(_SERVER_KEEP_ALIVE, self._keep_alive_s)
            if granted.get(_MAXIMUM_QOS, 2) == 0:
                raise BrokerRefused(
                    host=self._address.host,
                    port=self._address.port,
                    why="it takes QoS 0 only, so nothing would be acknowledged",
                )

    def close(self) -> None:
        """Write out what is left and disconnect; a broken connection is closed without complaint."""
        try:
            self._out += b"\xe0\x00"
            deadline = clock.monotonic_s() + 2.0
            while self._out and clock.monotonic_s() < deadline:
                self.pump(0.1)
        except FettleError:
            pass
        finally:
            self._socket.close()

    # -- publishing

    @property
    def in_flight(self) -> int:
        """Messages published and not yet acknowledged."""
        return len(self._unacknowledged)

    def unacknowledged(self) -> list[Message]:
        """Return the messages on the way, oldest first."""
        return list(self._unacknowledged.values())

    def publish(self, message: Message) -> None:
        """Queue one message; waits while the broker's window is full.

        Raises:
            BrokerGone: the connection broke.
            MessageTooLarge: the broker announced a smaller limit.
        """
        topic, payload, qos, retain, content_type = message
        name = topic.encode()
        size = 2 + len(name) + len(payload) + (2 if qos else 0)
        extra = b""
        if self.version == 5:
            extra = b"\x00" if not content_type else _varint(3 + len(content_type)) + b"\x03" + _text(content_type)
            size += len(extra)
        if self._packet_limit and size + 5 > self._packet_limit:
            raise MessageTooLarge(topic=topic, size=size, limit=self._packet_limit)
        head = bytes((0x30 | qos << 1 | retain,)) + _varint(size) + struct.pack(">H", len(name)) + name
        if qos:
            while len(self._unacknowledged) >= self._window:
                self.pump(1.0)
            ident = self._next_id
            while ident in self._unacknowledged:
                ident = ident % 65_535 + 1
            self._next_id = ident % 65_535 + 1
            self._unacknowledged[ident] = message
            head += struct.pack(">H", ident)
        self._out += head
        if extra:
            self._out += extra
        self._out += payload
        self.sent += 1
        if len(self._out) > _HIGH_WATER:
            self.pump(0.0)
            while len(self._out) > 4 * _HIGH_WATER:
                self.pump(1.0)

    def flush(self, timeout_s: float = 30.0) -> None:
        """Wait until everything is written and acknowledged.

        Raises:
            BrokerGone: the connection broke, or the broker stays silent for `timeout_s`.
        """
        last = clock.monotonic_s()
        before = (len(self._out), len(self._unacknowledged))
        while self._out or self._unacknowledged:
            self.pump(0.2)
            now = (len(self._out), len(self._unacknowledged))
            if now != before:
                before, last = now, clock.monotonic_s()
            elif clock.monotonic_s() - last > timeout_s:
                raise self._gone(f"no acknowledgement for {timeout_s:g} s")

    def subscribe(self, topic_filter: str, *, qos: int = 1) -> None:
        """Subscribe and wait for the answer.

        Raises:
            BrokerRefused: the broker does not grant the subscription.
        """
        self._granted.clear()
        body = b"\x00\x01" + (b"\x00" if self.version == 5 else b"") + _text(topic_filter) + bytes((qos,))
        self._out += b"\x82" + _varint(len(body)) + body
        deadline = clock.monotonic_s() + self._timeout_s
        while not self._granted and clock.monotonic_s() < deadline:
            self.pump(0.2)
        if not self._granted or self._granted[0] >= 0x80:
            why = f"no subscription to {topic_filter}" + (f" (code 0x{self._granted[0]:02x})" if self._granted else "")
            raise BrokerRefused(host=self._address.host, port=self._address.port, why=why)

    # -- socket

    def pump(self, wait_s: float) -> None:
        """Write and read what the socket takes; wait at most `wait_s` for something to do.

        Raises:
            BrokerGone: the connection broke.
            PublishRefused: the broker refused a message.
        """
        now = clock.monotonic_s()
        if now - self._written_at > self._keep_alive_s / 2 and not self._out:
            self._out += b"\xc0\x00"
            self._pinged_at = self._pinged_at or now
        if self._pinged_at is not None and now - max(self._pinged_at, self._read_at) > self._keep_alive_s:
            raise self._gone("it does not answer")
        buffered = isinstance(self._socket, ssl.SSLSocket) and self._socket.pending() > 0
        if not buffered:
            readable, writable, _ = select.select([self._socket], [self._socket] if self._out else [], [], wait_s)
        else:
            readable, writable = [self._socket], [self._socket] if self._out else []
        try:
            if readable:
                self._read()
            if writable and self._out:
                done = self._socket.send(memoryview(self._out)[: 1 << 18])
                del self._out[:done]
                self._written_at = now
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except OSError as error:
            raise self._gone(_reason(error)) from error

    def _read(self) -> None:
        data = self._socket.recv(1 << 16)
        if not data:
            raise self._gone("the broker closed it")
        self._read_at = clock.monotonic_s()
        self._in += data
        buffer, at, end = self._in, 0, len(self._in)
        unacknowledged = self._unacknowledged
        while end - at >= 2:
            size, used = buffer[at + 1], 2
            if size & 0x80:
                decoded = _read_varint(buffer, at + 1)
                if decoded is None:
                    break
                size, used = decoded[0], decoded[1] + 1
            stop = at + used + size
            if stop > end:
                break
            kind = buffer[at] >> 4
            if kind == _PUBACK:
                ident = buffer[at + used] << 8 | buffer[at + used + 1]
                message = unacknowledged.pop(ident, None)
                if message is not None:
                    self.acknowledged += 1
                    if size > 2 and buffer[at + used + 2] >= 0x80:
                        reason = buffer[at + used + 2]
                        del buffer[:stop]
                        raise PublishRefused(topic=message.topic, reason=reason)
            else:
                self._handle(buffer[at], bytes(buffer[at + used : stop]))
            at = stop
        if at:
            del buffer[:at]

    def _handle(self, first: int, body: bytes) -> None:
        kind = first >> 4
        if kind == _CONNACK:
            self._answer.append(body)
        elif kind == _SUBACK:
            self._granted.append(body[-1])
        elif kind == _PINGRESP:
            self._pinged_at = None
        elif kind == _PUBLISH:
            length = struct.unpack_from(">H", body)[0]
            topic, at = body[2 : 2 + length].decode(errors="replace"), 2 + length
            if first & 0x06:
                self._out += b"\x40\x02" + body[at : at + 2]
                at += 2
            if self.version == 5:
                decoded = _read_varint(bytearray(body), at)
                at += decoded[0] + decoded[1] if decoded else 0
            if self._on_message:
                self._on_message(topic, body[at:])
        elif kind == _DISCONNECT:
            raise self._gone(f"the broker sent DISCONNECT 0x{body[0] if body else 0:02x}")

    def _gone(self, why: str) -> BrokerGone:
        return BrokerGone(acknowledged=self.acknowledged, unacknowledged=len(self._unacknowledged), why=why)


_CONNECT_REASONS = {
    1: "it does not speak this MQTT version",
    0x84: "it does not speak this MQTT version",
    2: "client id refused",
    0x85: "client id refused",
    3: "server unavailable",
    0x88: "server unavailable",
    4: "wrong user name or password",
    0x86: "wrong user name or password",
    5: "not authorised: set FETTLE_BROKER_USERNAME and FETTLE_BROKER_PASSWORD",
    0x87: "not authorised: set FETTLE_BROKER_USERNAME and FETTLE_BROKER_PASSWORD",
}


def _secure(plain: socket.socket, a: BrokerAddress) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=str(a.tls_ca) if a.tls_ca else None)
    if a.tls_cert:
        context.load_cert_chain(str(a.tls_cert), str(a.tls_key) if a.tls_key else None)
    return context.wrap_socket(plain, server_hostname=a.host)


def _reason(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__


def _varint(value: int) -> bytes:
    if value < 128:
        return bytes((value,))
    out = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        out.append(low | (0x80 if value else 0))
        if not value:
            return bytes(out)


def _read_varint(buffer: bytearray, at: int) -> tuple[int, int] | None:
    """Return (value, bytes used), or None where it is cut off."""
    value = 0
    for used in range(4):
        if at + used >= len(buffer):
            return None
        byte = buffer[at + used]
        value |= (byte & 0x7F) << 7 * used
        if byte < 128:
            return value, used + 1
    return None


def _data(value: bytes) -> bytes:
    return struct.pack(">H", len(value)) + value


def _text(value: str) -> bytes:
    return _data(value.encode())


def _properties(data: bytes) -> dict[int, int]:
    """Return the numeric properties of an MQTT 5 packet."""
    decoded = _read_varint(bytearray(data), 0)
    out: dict[int, int] = {}
    if decoded is None:
        return out
    at, end = decoded[1], decoded[1] + decoded[0]
    while at < end:
        key = data[at]
        at += 1
        if key in _ONE | _TWO | _FOUR:
            size = 1 if key in _ONE else 2 if key in _TWO else 4
            out[key] = int.from_bytes(data[at : at + size], "big")
            at += size
        else:
            pairs = 2 if key == 0x26 else 1
            for _ in range(pairs):
                at += 2 + int.from_bytes(data[at : at + 2], "big")
    return out
