"""The simulators' everyday client: paho-mqtt, a second implementation of the protocol beside the collector's own.

paho brings CONNECT, frames, acknowledgements, keep-alive and TLS. Its loop is driven from the thread that publishes, so that
a lost connection is an error where a message is handed over and not a log line of another thread. A connection is made
once: who holds it makes the next one and knows what to send again.

    publish() -> paho writes a frame; pump() -> paho reads PUBACKs  ->  acknowledged counts them
"""

import select
import socket
import ssl
from collections import OrderedDict, deque
from collections.abc import Callable
from functools import lru_cache

import paho.mqtt
from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

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

_FAILURE = 0x80
_KEEP_ALIVE_TIMEOUT = 0x8D


class PahoPublisher(Publisher):
    """A connection through paho-mqtt.

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
        self._on_message = on_message
        self._timeout_s = timeout_s
        self._unacknowledged: OrderedDict[int, Message] = OrderedDict()
        self._refused: deque[PublishRefused] = deque()
        self._window = WINDOW
        self._packet_limit = 0
        self._answer: tuple[int, Properties | None] | None = None  # CONNACK
        self._granted: list[int] = []  # SUBACK
        self._lost = ""
        self.name = f"paho {paho.mqtt.__version__}"
        self.version = version
        self.sent = 0
        self.acknowledged = 0
        self._client = self._make(client_id, will)
        try:
            self._connect(keep_alive_s)
        except BaseException:
            self._drop()
            raise

    # -- connection

    def _make(self, client_id: str, will: Message | None) -> mqtt.Client:
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=MQTTProtocolVersion.MQTTv5 if self.version == 5 else MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
        )
        client.max_inflight_messages_set(0)  # the window is kept here, as wide as the broker allows
        client.connect_timeout = self._timeout_s
        if self._address.username is not None:
            client.username_pw_set(self._address.username, self._address.password)
        if will is not None:
            client.will_set(will.topic, will.payload, will.qos, will.retain)
        client.on_socket_open = _send_at_once
        client.on_connect = self._connected
        client.on_disconnect = self._disconnected
        client.on_subscribe = self._subscribed
        client.on_publish = self._published
        client.on_message = self._received
        return client

    def _connect(self, keep_alive_s: int) -> None:
        a = self._address
        try:
            if a.tls:
                context = tls_context(a)
                context.sslsocket_class = _ClosedOnFailure
                self._client.tls_set_context(context)
        except OSError as error:
            raise no_tls(a, error) from error
        try:
            self._client.connect(a.host, a.port, keepalive=keep_alive_s)
        except OSError as error:
            if isinstance(error, ssl.SSLError) or (a.tls and isinstance(error, ConnectionResetError)):
                raise no_tls(a, error) from error
            raise BrokerUnreachable(host=a.host, port=a.port, why=reason_of(error)) from error
        deadline = clock.monotonic_s() + self._timeout_s
        while self._answer is None:
            if clock.monotonic_s() > deadline:
                raise BrokerRefused(host=a.host, port=a.port, why=f"no CONNACK within {self._timeout_s:g} s")
            self._turn(0.2)
            if self._answer is None:
                self._check()
        self._accept(*self._answer)

    def _accept(self, code: int, granted: Properties | None) -> None:
        a = self._address
        if code:
            raise BrokerRefused(host=a.host, port=a.port, why=CONNECT_REASONS.get(code, f"reason code 0x{code:02x}"))
        self._window = min(WINDOW, getattr(granted, "ReceiveMaximum", WINDOW))
        self._packet_limit = getattr(granted, "MaximumPacketSize", 0)
        if getattr(granted, "MaximumQoS", 2) == 0:
            why = "it takes QoS 0 only, so nothing would be acknowledged"
            raise BrokerRefused(host=a.host, port=a.port, why=why)

    def close(self) -> None:
        try:
            deadline = clock.monotonic_s() + 2.0
            while self._client.want_write() and clock.monotonic_s() < deadline:
                self.pump(0.1)
            self._client.disconnect()
            while self._client.socket() is not None and clock.monotonic_s() < deadline:
                self._turn(0.1)
        except FettleError:
            pass
        finally:
            self._drop()

    def _drop(self) -> None:
        """Close the socket if paho has not; whatever it says about that is of no more use."""
        self._client.on_disconnect = None
        left = self._client.socket()
        if left is not None:
            left.close()

    # -- what paho reports, from within pump() and publish()

    def _connected(
        self, _client: mqtt.Client, _data: object, _flags: object, code: ReasonCode, granted: Properties | None
    ) -> None:
        self._answer = (code.value, granted)

    def _disconnected(
        self, _client: mqtt.Client, _data: object, flags: mqtt.DisconnectFlags, code: ReasonCode, _more: object
    ) -> None:
        if flags.is_disconnect_packet_from_server:
            self._lost = f"the broker sent DISCONNECT 0x{code.value:02x}, {str(code).lower()}"
        elif code.value == _KEEP_ALIVE_TIMEOUT:
            self._lost = "it does not answer"
        else:
            self._lost = "the broker closed it"

    def _subscribed(
        self, _client: mqtt.Client, _data: object, _ident: int, codes: list[ReasonCode], _more: object
    ) -> None:
        self._granted = [code.value for code in codes]

    def _published(self, _client: mqtt.Client, _data: object, ident: int, code: ReasonCode, _more: object) -> None:
        message = self._unacknowledged.pop(ident, None)
        if message is None:
            return  # QoS 0: written, which nobody acknowledges
        self.acknowledged += 1
        if code.value >= _FAILURE:
            self._refused.append(PublishRefused(topic=message.topic, reason=code.value))

    def _received(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        if self._on_message is not None:
            self._on_message(message.topic, bytes(message.payload))

    # -- publishing

    @property
    def in_flight(self) -> int:
        return len(self._unacknowledged)

    @property
    def unwritten(self) -> int:
        return int(self._client.want_write())

    def unacknowledged(self) -> list[Message]:
        return list(self._unacknowledged.values())

    def publish(self, message: Message) -> None:
        topic, payload, qos, retain, content_type = message
        if self._packet_limit:
            size = len(topic.encode()) + len(payload) + len(content_type) + 13  # head, lengths, number, property
            if size > self._packet_limit:
                raise MessageTooLarge(topic=topic, size=size, limit=self._packet_limit)
        while self._client.want_write() or (qos and len(self._unacknowledged) >= self._window):
            self.pump(1.0)
        properties = _content_type(content_type) if content_type and self.version == 5 else None
        done = self._client.publish(topic, payload, qos, retain, properties)
        while done.rc == MQTTErrorCode.MQTT_ERR_QUEUE_SIZE:  # 65,535 later the number is still taken
            self.pump(1.0)
            done = self._client.publish(topic, payload, qos, retain, properties)
        if done.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            self._check()
            raise self.gone(mqtt.error_string(done.rc))
        if qos:
            self._unacknowledged[done.mid] = message
        self.sent += 1

    def subscribe(self, topic_filter: str, *, qos: int = 1) -> None:
        self._granted = []
        self._client.subscribe(topic_filter, qos)
        deadline = clock.monotonic_s() + self._timeout_s
        while not self._granted and clock.monotonic_s() < deadline:
            self.pump(0.2)
        if not self._granted or self._granted[0] >= _FAILURE:
            why = f"no subscription to {topic_filter}" + (f" (code 0x{self._granted[0]:02x})" if self._granted else "")
            raise BrokerRefused(host=self._address.host, port=self._address.port, why=why)

    # -- socket

    def pump(self, wait_s: float) -> None:
        self._turn(wait_s)
        self._check()

    def _turn(self, wait_s: float) -> None:
        sock = self._client.socket()
        if sock is None:
            return
        if isinstance(sock, ssl.SSLSocket) and sock.pending():
            wait_s = 0.0  # select does not see what TLS has read already
        readable, writable, _ = select.select([sock], [sock] if self._client.want_write() else [], [], wait_s)
        if readable or wait_s == 0.0:
            self._client.loop_read()
        if writable:
            self._client.loop_write()
        self._client.loop_misc()

    def _check(self) -> None:
        if self._refused:
            raise self._refused.popleft()
        if self._lost or self._client.socket() is None:
            raise self.gone(self._lost or "it is closed")


class _ClosedOnFailure(ssl.SSLSocket):
    """A TLS socket that does not outlive a failed handshake; paho leaves it to the garbage collector."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except OSError:
            self.close()
            raise


def _send_at_once(_client: mqtt.Client, _data: object, sock: object) -> None:
    if isinstance(sock, socket.socket):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


@lru_cache(16)
def _content_type(value: str) -> Properties:
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho's own gap
    properties.ContentType = value
    return properties
