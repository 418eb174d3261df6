"""A publisher for many small MQTT messages: MQTT 5 or 3.1.1, QoS 0 and 1, one thread, one socket.

A client library spends many times the CPU on a QoS 1 publish, and load from one process needs the difference; everyday
rates go through `simulators.paho_client`. It keeps to what a publisher needs: CONNECT with will, PUBLISH in batches inside
the broker's receive maximum, PUBACK accounting, keep-alive, and a subscription for the commands that Sparkplug sends to its
devices.

    publish() appends frames  ->  pump() writes and reads what the socket takes  ->  acknowledged counts PUBACKs

Specification: https://docs.oasis-open.org/mqtt/mqtt/v5.0/os/mqtt-v5.0-os.html
"""

import select
import socket
import ssl
import struct
from collections import OrderedDict
from collections.abc import Callable

from fettle import clock
from fettle.errors import FettleError
from simulators.broker import (
    CONNECT_REASONS,
    WINDOW,
    BrokerAddress,
    BrokerRefused,
    BrokerUnreachable,
    Message,
    MessageTooLarge,
    Publisher,
    PublishRefused,
    no_tls,
    reason_of,
    tls_context,
)

_CONNACK, _PUBLISH, _PUBACK, _SUBACK, _PINGRESP, _DISCONNECT = 2, 3, 4, 9, 13, 14
_HIGH_WATER = 1 << 18
_RECEIVE_MAXIMUM, _MAXIMUM_QOS, _MAXIMUM_PACKET, _SERVER_KEEP_ALIVE = 0x21, 0x24, 0x27, 0x13
# length of MQTT 5 property values: 1, 2, 4 bytes; the rest carry their own length
_ONE, _TWO, _FOUR = {0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2A}, {0x13, 0x21, 0x22, 0x23}, {0x02, 0x11, 0x18, 0x27}


class BatchPublisher(Publisher):
    """A connection that writes frames in batches and reads acknowledgements in bulk.

    Raises:
        BrokerUnreachable, BrokerRefused, BrokerGone: while connecting.
    """

    def __init__(
        self,
        address: BrokerAddress,
        *,
        client_id: str,
        version: int = 5,
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
        self._window = WINDOW
        self._packet_limit = 0
        self._answer: list[bytes] = []  # CONNACK
        self._granted: list[int] = []  # SUBACK
        self._pinged_at: float | None = None
        self.sent = 0
        self.acknowledged = 0
        self.name = "batch publisher"
        self.version = version
        self._open()
        try:
            self._introduce()
        except BaseException:
            self._socket.close()
            raise

    # -- connection

    def _open(self) -> None:
        a = self._address
        try:
            plain = socket.create_connection((a.host, a.port), timeout=self._timeout_s)
        except OSError as error:
            raise BrokerUnreachable(host=a.host, port=a.port, why=reason_of(error)) from error
        self._socket: socket.socket = plain
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            if a.tls:
                self._socket = tls_context(a).wrap_socket(plain, server_hostname=a.host)
        except OSError as error:
            plain.close()
            raise no_tls(a, error) from error

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
            why = CONNECT_REASONS.get(code, f"reason code 0x{code:02x}")
            raise BrokerRefused(host=self._address.host, port=self._address.port, why=why)
        if self.version == 5:
            granted = _properties(body[2:])
            self._window = min(WINDOW, granted.get(_RECEIVE_MAXIMUM, 65_535))
            self._packet_limit = granted.get(_MAXIMUM_PACKET, 0)
            self._keep_alive_s = granted.get(_SERVER_KEEP_ALIVE, self._keep_alive_s)
            if granted.get(_MAXIMUM_QOS, 2) == 0:
                raise BrokerRefused(
                    host=self._address.host,
                    port=self._address.port,
                    why="it takes QoS 0 only, so nothing would be acknowledged",
                )

    def close(self) -> None:
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
        return len(self._unacknowledged)

    @property
    def unwritten(self) -> int:
        return len(self._out)

    def unacknowledged(self) -> list[Message]:
        return list(self._unacknowledged.values())

    def publish(self, message: Message) -> None:
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

    def subscribe(self, topic_filter: str, *, qos: int = 1) -> None:
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
        now = clock.monotonic_s()
        if now - self._written_at > self._keep_alive_s / 2 and not self._out:
            self._out += b"\xc0\x00"
            self._pinged_at = self._pinged_at or now
        if self._pinged_at is not None and now - max(self._pinged_at, self._read_at) > self._keep_alive_s:
            raise self.gone("it does not answer")
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
            raise self.gone(reason_of(error)) from error

    def _read(self) -> None:
        data = self._socket.recv(1 << 16)
        if not data:
            raise self.gone("the broker closed it")
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
            raise self.gone(f"the broker sent DISCONNECT 0x{body[0] if body else 0:02x}")


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
