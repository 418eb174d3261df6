"""One connection to the broker: bytes in, PUBLISH frames and packets out. No knowledge of what messages mean.

    link = await connect(loop, address, ask, on_frames=…)      # CONNECT sent, CONNACK read
    codes = await link.subscribe(["fettle/#"])
    link.send(acknowledge(packet_ids))
    await link.lost                                             # why the connection ended

The receive path is a reader of our own over `asyncio.BufferedProtocol`: all complete PUBLISH packets of a wake-up are
cut out in one loop and handed over as one object.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fettle import logs
from fettle.clock import monotonic_s
from fettle.errors import FettleError
from fettle.settings import Settings
from ingest import packets
from ingest.frames import BadFrame, Frames, cut_publishes, frame_length
from ingest.packets import Connect, Connected, ConnectRefused, Disconnected, Subscribed, Version, WrongVersion

log = logs.get("ingest")

_FIRST_BUFFER = 256 * 1024
_ANSWER_S = 10.0
_CONNACK_S = 3.0
_BUSY_CONNACK_S = 20.0  # from a broker that is known to speak our version
_GOODBYE_S = 0.8  # for the broker to close the connection after our DISCONNECT
_SESSION_TAKEN_OVER = 0x8E


class NoBroker(FettleError):
    """The broker at {where} does not answer ({why}). Check FETTLE_BROKER_HOST and FETTLE_BROKER_PORT."""


class Silent(NoBroker):
    """The broker at {where} took the connection and does not answer CONNECT. It may be busy, or not speak this version of MQTT."""


class NotTrusted(FettleError):
    """The broker at {where} is not trusted ({why}). Check FETTLE_BROKER_TLS_CA, and that the certificate names the host."""


class BadCertificate(FettleError):
    """{setting}: {path} cannot be used ({why})."""


class CertificateRefused(NotTrusted):
    """The broker at {where} does not accept us ({why}). It asks for a client certificate: check FETTLE_BROKER_TLS_CERT and FETTLE_BROKER_TLS_KEY."""


class TakenOver(FettleError):
    """Another client connected to the broker as {client_id}. Each collector needs a FETTLE_COLLECTOR_NAME of its own."""


class ConnectionEnded(FettleError):
    """The connection to the broker ended: {why}."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where the broker is, and how to be let in."""

    host: str
    port: int
    username: str | None = None
    password: bytes | None = field(default=None, repr=False)
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None

    @classmethod
    def from_settings(cls, settings: Settings, *, host: str | None = None, port: int | None = None) -> "Address":
        uses_tls = settings.broker_tls_ca is not None or settings.broker_tls_cert is not None
        chosen = port or settings.broker_port or (8883 if uses_tls else 1883)
        password = settings.broker_password
        return cls(
            host=host or settings.broker_host or "127.0.0.1",
            port=chosen,
            username=settings.broker_username,
            password=None if password is None else password.get_secret_value().encode(),
            tls_ca=settings.broker_tls_ca,
            tls_cert=settings.broker_tls_cert,
            tls_key=settings.broker_tls_key,
        )

    @property
    def where(self) -> str:
        return f"{self.host}:{self.port}"

    def tls(self) -> ssl.SSLContext | None:
        """Read the certificates anew, so that a reconnect takes rotated ones; None without TLS.

        Raises:
            BadCertificate: a file is missing or is none.
        """
        if self.tls_ca is None and self.tls_cert is None:
            return None
        try:
            context = ssl.create_default_context(cafile=None if self.tls_ca is None else str(self.tls_ca))
        except (OSError, ssl.SSLError) as error:
            raise BadCertificate(setting="FETTLE_BROKER_TLS_CA", path=self.tls_ca, why=error) from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.tls_cert is not None:
            try:
                context.load_cert_chain(self.tls_cert, self.tls_key)
            except (OSError, ssl.SSLError) as error:
                raise BadCertificate(setting="FETTLE_BROKER_TLS_CERT", path=self.tls_cert, why=error) from error
        return context


class Link(asyncio.BufferedProtocol):
    """One connection. Made by `connect`."""

    def __init__(self, version: Version, ask: Connect, on_frames: Callable[["Link", Frames, int], None]) -> None:
        self.version = version
        self.ask = ask
        self.granted: Connected | None = None
        loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[FettleError] = loop.create_future()
        self.bytes_received = 0
        self._on_frames = on_frames
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray(_FIRST_BUFFER)
        self._filled = 0
        self._connected: asyncio.Future[Connected] = loop.create_future()
        self._subscribed: asyncio.Future[Subscribed] | None = None
        self._published: dict[int, asyncio.Future[int]] = {}
        self._next_id = 0
        self._last_received_s = monotonic_s()
        self._is_paused = False
        self._rest: asyncio.TimerHandle | None = None
        self._is_leaving = False
        self._pinger: asyncio.Task[None] | None = None
        self._is_v5 = version is Version.V5

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000)
        transport.write(packets.encode_connect(self.version, self.ask))

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 -- asyncio's signature
        if self._filled == len(self._buffer):
            self._buffer.extend(bytes(len(self._buffer)))
        return memoryview(self._buffer)[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._last_received_s = monotonic_s()
        self.bytes_received += nbytes
        if self._is_leaving:
            return
        self._filled += nbytes
        data = bytes(memoryview(self._buffer)[: self._filled])
        try:
            used = self._read(data)
        except (BadFrame, ConnectRefused) as error:
            self._end(error)
            return
        rest = len(data) - used
        if rest:
            needed = frame_length(data, used)
            if needed > max(self.ask.max_packet_bytes, 1024):
                self._end(BadFrame(why=f"a packet of {needed} bytes where {self.ask.max_packet_bytes} were announced"))
                return
            if used:
                self._buffer[:rest] = data[used:]
        self._filled = rest

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if isinstance(exc, ssl.SSLError) and not self._connected.done():
            # with TLS 1.3 we have finished the handshake when the broker looks at our certificate
            peer = self._transport.get_extra_info("peername") if self._transport is not None else None
            where = "{}:{}".format(*peer[:2]) if peer else "its address"
            self._end(CertificateRefused(where=where, why=exc.reason or exc))
            return
        self._end(ConnectionEnded(why=str(exc) if exc else "the broker closed it"))

    def _read(self, data: bytes) -> int:
        at = 0
        while at < len(data):
            frames = Frames()
            start = at
            at = cut_publishes(data, at, is_v5=self._is_v5, into=frames)
            if frames.topics:
                self._on_frames(self, frames, at - start)
            if at >= len(data) or data[at] & 0xF0 == 0x30:
                return at
            packet, at = packets.decode(self.version, data, at)
            if packet is None:
                return at
            self._take(packet)
        return at

    def _take(self, packet: packets.Incoming) -> None:
        match packet:
            case Connected():
                self.granted = packet
                if not self._connected.done():
                    self._connected.set_result(packet)
            case Subscribed():
                if self._subscribed is not None and not self._subscribed.done():
                    self._subscribed.set_result(packet)
            case Disconnected(code=code, reason=reason):
                if code == _SESSION_TAKEN_OVER:
                    self._end(TakenOver(client_id=self.ask.client_id))
                else:
                    self._end(ConnectionEnded(why=f"the broker said: {reason} ({code:#04x})"))
            case packets.Acknowledged(packet_id=packet_id, code=code):
                waiting = self._published.pop(packet_id, None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(code)
            case packets.Pong():
                pass

    def _end(self, why: FettleError) -> None:
        if not self.lost.done():
            self.lost.set_result(why)
        for future in (self._connected, self._subscribed, *self._published.values()):
            if future is not None and not future.done():
                future.set_exception(why)
                future.exception()  # looked at by whoever still waits
        for waiting in (self._pinger, self._rest):
            if waiting is not None:
                waiting.cancel()
        if self._transport is not None:
            self._transport.abort()

    # the collector's side

    def send(self, data: bytes) -> None:
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    @property
    def is_paused(self) -> bool:
        return self._is_paused

    def pause(self) -> None:
        """Stop reading: the kernel's buffers fill, and the broker holds what does not fit."""
        if not self._is_paused and self._transport is not None and not self._transport.is_closing():
            self._wake()
            self._transport.pause_reading()
            self._is_paused = True

    def resume(self) -> None:
        if self._is_paused and self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
            self._last_received_s = monotonic_s()
            self._is_paused = False

    def rest(self, seconds: float) -> None:
        """Leave what arrives to the kernel for a moment, so that it is read together: a read costs as much as ten messages."""
        if self._is_paused or self._rest is not None or self._transport is None or self._transport.is_closing():
            return
        self._transport.pause_reading()
        self._rest = asyncio.get_running_loop().call_later(seconds, self._wake)

    def _wake(self) -> None:
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None
            if self._transport is not None and not self._transport.is_closing():
                self._transport.resume_reading()

    async def connected(self, patience_s: float) -> Connected:
        granted = await asyncio.wait_for(self._connected, patience_s)
        self._pinger = asyncio.get_running_loop().create_task(self._ping(), name="mqtt-ping")
        return granted

    async def subscribe(self, filters: Sequence[str]) -> tuple[int, ...]:
        """Subscribe at QoS 1 and return the broker's code for each filter."""
        self._subscribed = asyncio.get_running_loop().create_future()
        self.send(packets.encode_subscribe(self.version, self._take_id(), filters))
        return (await asyncio.wait_for(self._subscribed, _ANSWER_S)).codes

    async def publish(self, topic: str, payload: bytes, *, is_retained: bool = False) -> int:
        """Publish at QoS 1; return the broker's code once it has the message."""
        packet_id = self._take_id()
        waiting: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._published[packet_id] = waiting
        self.send(packets.encode_publish(self.version, topic, payload, packet_id=packet_id, is_retained=is_retained))
        try:
            return await asyncio.wait_for(waiting, _ANSWER_S)
        finally:
            self._published.pop(packet_id, None)

    def send_message(self, topic: str, payload: bytes, *, is_retained: bool = False, is_assured: bool = False) -> None:
        """Publish at QoS 0, or, where `is_assured`, at QoS 1 without waiting for the answer."""
        packet_id = self._take_id() if is_assured else 0
        self.send(packets.encode_publish(self.version, topic, payload, packet_id=packet_id, is_retained=is_retained))

    async def close(self) -> None:
        """Say goodbye, so that the broker neither publishes our will nor forgets the session, and wait for the end."""
        if self._pinger is not None:
            self._pinger.cancel()
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        # What we have not read is left to the broker, but it must be drawn off: closing on unread data resets the
        # connection, and a reset can overtake our last acknowledgements.
        self._is_leaving = True
        self._wake()
        self.resume()
        transport.write(packets.encode_disconnect(self.version))
        try:
            await asyncio.wait_for(asyncio.shield(self.lost), _GOODBYE_S)
        except TimeoutError:
            self._end(ConnectionEnded(why="closed by us"))

    def abort(self) -> None:
        """Drop the connection as a crash would."""
        self._end(ConnectionEnded(why="dropped by us"))

    def _take_id(self) -> int:
        self._next_id = self._next_id % 65_535 + 1
        return self._next_id

    async def _ping(self) -> None:
        """Keep the connection alive, and find out when it is dead although nobody said so."""
        granted = self.granted.keep_alive_s if self.granted else None
        period = granted or self.ask.keep_alive_s
        if not period:
            return
        while True:
            await asyncio.sleep(period / 3)
            self.send(packets.PINGREQ)
            # while we do not read, the answer waits behind data
            if not self._is_paused and monotonic_s() - self._last_received_s > period * 1.5:
                self._end(ConnectionEnded(why=f"no sign of life for {period * 1.5:g} s"))
                return


async def connect_any(
    address: Address, ask: Connect, *, on_frames: Callable[[Link, Frames, int], None], knows_v5: bool = False
) -> Link:
    """Connect with MQTT 5, or with 3.1.1 to a broker that speaks nothing else.

    Some brokers of 3.1.1 say nothing to MQTT 5, and so does a busy one for a while: only a broker that is silent twice, and
    answers 3.1.1 in between, is taken for the former. One that has spoken MQTT 5 before (`knows_v5`) is waited for.

    Raises:
        FettleError: as `connect`.
    """
    for has_asked in (False, True):
        try:
            patience_s = _BUSY_CONNACK_S if knows_v5 else _CONNACK_S
            return await connect(address, ask, version=Version.V5, on_frames=on_frames, patience_s=patience_s)
        except WrongVersion:
            break
        except Silent:
            if knows_v5:
                raise
            if not has_asked:
                probe = replace(ask, client_id=f"{ask.client_id}-probe", is_clean=True, will=None)
                link = await connect(address, probe, version=Version.V3, on_frames=lambda *_: None)
                await link.close()
    return await connect(address, ask, version=Version.V3, on_frames=on_frames)


async def connect(
    address: Address,
    ask: Connect,
    *,
    version: Version,
    on_frames: Callable[[Link, Frames, int], None],
    patience_s: float = _BUSY_CONNACK_S,
) -> Link:
    """Connect to the broker and return the link once the broker has agreed.

    Raises:
        NoBroker: nobody answers there.
        Silent: somebody took the connection, and does not answer in time.
        NotTrusted: the broker's certificate is not in order.
        ConnectRefused: the broker says no.
        WrongVersion: the broker does not speak this version.
    """
    loop = asyncio.get_running_loop()
    try:
        _, link = await asyncio.wait_for(
            loop.create_connection(
                lambda: Link(version, ask, on_frames), address.host, address.port, ssl=address.tls()
            ),
            _ANSWER_S,
        )
    except ssl.SSLError as error:
        raise NotTrusted(where=address.where, why=getattr(error, "verify_message", "") or error) from error
    except (OSError, TimeoutError) as error:
        raise NoBroker(where=address.where, why=str(error) or "no answer") from error
    try:
        await link.connected(patience_s)
    except ConnectionEnded as error:
        if version is Version.V5:  # some brokers of 3.1.1 close without a word
            raise WrongVersion(version=version.value, why=f"it ended the connection: {error.data['why']}") from error
        raise NoBroker(where=address.where, why=error.data["why"]) from error
    except TimeoutError as error:
        link.abort()
        raise Silent(where=address.where) from error
    except FettleError:
        link.abort()
        raise
    return link
