"""Every MQTT packet but PUBLISH, in the two versions of the protocol that brokers speak.

MQTT 5 goes through the `mqtt5` codec. MQTT 3.1.1 (for brokers that speak nothing newer) is small enough to be written
out here. What both say is given to the rest of the collector in the same words.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import mqtt5

from fettle.errors import FettleError
from ingest.frames import BadFrame, frame_length

PINGREQ = b"\xc0\x00"
NEVER_EXPIRES = 0xFFFFFFFF
_OVERLOADED = {0x88, 0x89, 0x97, 0x9F, 203}

_RETURN_CODES_3 = {
    1: "the broker does not speak this version of MQTT",
    2: "the client id is refused",
    3: "the broker is unavailable",
    4: "wrong user name or password",
    5: "not authorised",
}


class Version(Enum):
    """Version of the protocol of one connection."""

    V5 = "5"
    V3 = "3.1.1"


class ConnectRefused(FettleError):
    """The broker refused the connection ({why}): {remedy}."""

    may_pass = False  # whether waiting helps


class WrongVersion(ConnectRefused):
    """The broker does not speak MQTT {version} ({why})."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Will:
    """What the broker publishes for us when we vanish."""

    topic: str
    payload: bytes
    is_retained: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Connect:
    """What we ask of the broker."""

    client_id: str
    username: str | None = None
    password: bytes | None = None
    keep_alive_s: int = 30
    is_clean: bool = False
    session_expiry_s: int = NEVER_EXPIRES
    receive_maximum: int = 10_000
    max_packet_bytes: int = 4 << 20
    will: Will | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Connected:
    """What the broker granted."""

    version: Version
    session_present: bool
    keep_alive_s: int | None = None  # it insists on another one
    session_expiry_s: int | None = None  # it insists on another one
    max_qos: int = 2
    max_packet_bytes: int | None = None
    has_shared_subscriptions: bool = True
    has_wildcards: bool = True
    has_retain: bool = True


@dataclass(frozen=True, slots=True)
class Subscribed:
    """Codes of a SUBACK: the QoS granted per filter, 128 and more are refusals."""

    codes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The broker says goodbye (MQTT 5 only)."""

    code: int
    reason: str


class Pong(Enum):
    """The broker lives."""

    PONG = 0


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The broker has a message that we published."""

    packet_id: int
    code: int


Incoming = Connected | Subscribed | Disconnected | Pong | Acknowledged


def encode_connect(version: Version, ask: Connect) -> bytes:
    if version is Version.V5:
        will = None
        if ask.will is not None:
            will = mqtt5.Will(
                ask.will.topic,
                payload=ask.will.payload,
                qos=mqtt5.QoS.AT_LEAST_ONCE,
                retain=ask.will.is_retained,
            )
        packet: bytes = mqtt5.ConnectPacket(
            ask.client_id,
            username=ask.username,
            password=ask.password,
            clean_start=ask.is_clean,
            keep_alive=ask.keep_alive_s,
            session_expiry_interval=0 if ask.is_clean else ask.session_expiry_s,
            receive_max=ask.receive_maximum,
            max_packet_size=ask.max_packet_bytes,
            will=will,
        ).write()
        return packet
    flags = (0x02 if ask.is_clean else 0) | (0x80 if ask.username else 0) | (0x40 if ask.password is not None else 0)
    fields = [_text(ask.client_id.encode())]
    if ask.will is not None:
        flags |= 0x04 | 0x08 | (0x20 if ask.will.is_retained else 0)
        fields += [_text(ask.will.topic.encode()), _text(ask.will.payload)]
    if ask.username:
        fields.append(_text(ask.username.encode()))
    if ask.password is not None:
        fields.append(_text(ask.password))
    head = _text(b"MQTT") + bytes((4, flags)) + ask.keep_alive_s.to_bytes(2, "big")
    return _packet(0x10, head + b"".join(fields))


def encode_subscribe(version: Version, packet_id: int, filters: Sequence[str]) -> bytes:
    """Ask for `filters` at QoS 1; retained messages only where the subscription is new."""
    if version is Version.V5:
        packet: bytes = mqtt5.SubscribePacket(
            packet_id,
            [
                mqtt5.TopicFilter(
                    pattern,
                    max_qos=mqtt5.QoS.AT_LEAST_ONCE,
                    retain_as_published=False,
                    retain_handling=mqtt5.RetainHandling.SEND_IF_SUBSCRIPTION_NOT_EXISTS,
                )
                for pattern in filters
            ],
        ).write()
        return packet
    body = b"".join(_text(pattern.encode()) + b"\x01" for pattern in filters)
    return _packet(0x82, packet_id.to_bytes(2, "big") + body)


def encode_publish(
    version: Version, topic: str, payload: bytes, *, packet_id: int = 0, is_retained: bool = False
) -> bytes:
    """Encode a message of ours: QoS 1 with a packet id, QoS 0 without."""
    body = _text(topic.encode())
    if packet_id:
        body += packet_id.to_bytes(2, "big")
    if version is Version.V5:
        body += b"\x00"
    return _packet(0x30 | (2 if packet_id else 0) | is_retained, body + payload)


def encode_disconnect(version: Version) -> bytes:
    """Say goodbye without a will; the session stays."""
    return b"\xe0\x00" if version is Version.V3 else bytes(mqtt5.DisconnectPacket().write())


def decode(version: Version, data: bytes, at: int) -> tuple[Incoming | None, int]:
    """Decode one whole packet that is no PUBLISH; return it and where it ends, or (None, at) while incomplete.

    Raises:
        BadFrame: not MQTT, or a packet that a broker must not send.
        ConnectRefused: a CONNACK that says no.
        WrongVersion: a CONNACK that says no because of the version.
    """
    length = frame_length(data, at)
    if not length or at + length > len(data):
        return None, at
    packet = data[at : at + length]
    try:
        found = _decode_3(packet) if version is Version.V3 else _decode_5(packet)
    except (ValueError, IndexError) as error:
        raise BadFrame(why=f"{error} in a packet of type {packet[0] >> 4}") from error
    return found, at + length


def _decode_3(packet: bytes) -> Incoming:
    kind = packet[0] >> 4
    body = packet[frame_length(packet, 0) - _remaining(packet) :]
    if kind == 2:
        if body[1]:
            why = _RETURN_CODES_3.get(body[1], f"return code {body[1]}")
            if body[1] == 1:
                raise WrongVersion(version="3.1.1", why=why)
            raise _refusal(why, body[1] + 200)
        return Connected(version=Version.V3, session_present=bool(body[0] & 1))
    if kind == 4:
        return Acknowledged(int.from_bytes(body[:2], "big"), 0)
    if kind == 9:
        return Subscribed(tuple(body[2:]))
    if kind == 13:
        return Pong.PONG
    raise BadFrame(why=f"a packet of type {kind} from a broker")


def _decode_5(packet: bytes) -> Incoming:
    if packet[0] >> 4 == 2 and 0 < packet[3] < 128:  # an older broker answers in its own language
        raise WrongVersion(version="5", why=_RETURN_CODES_3.get(packet[3], f"return code {packet[3]}"))
    found, _ = mqtt5.read(memoryview(packet))
    match found:
        case mqtt5.ConnAckPacket():
            code = int(found.reason_code)
            if code:
                why = found.reason_str or found.reason_code.name.lower().replace("_", " ")
                if code == 0x84:
                    raise WrongVersion(version="5", why=why)
                raise _refusal(why, code)
            return Connected(
                version=Version.V5,
                session_present=found.session_present,
                keep_alive_s=found.server_keep_alive,
                session_expiry_s=found.session_expiry_interval,
                max_qos=int(found.max_qos),
                max_packet_bytes=found.max_packet_size,
                has_shared_subscriptions=found.shared_subscription_available,
                has_wildcards=found.wildcard_subscription_available,
                has_retain=found.retain_available,
            )
        case mqtt5.SubAckPacket():
            return Subscribed(tuple(int(code) for code in found.reason_codes))
        case mqtt5.PubAckPacket():
            return Acknowledged(found.packet_id, int(found.reason_code))
        case mqtt5.PingRespPacket():
            return Pong.PONG
        case mqtt5.DisconnectPacket():
            name = found.reason_code.name.lower().replace("_", " ")
            return Disconnected(int(found.reason_code), found.reason_str or name)
        case _:
            raise BadFrame(why=f"a packet of type {packet[0] >> 4} from a broker")


def _refusal(why: str, code: int) -> ConnectRefused:
    refusal = ConnectRefused(why=why, remedy=_remedy(code))
    refusal.may_pass = code in _OVERLOADED
    return refusal


def _remedy(code: int) -> str:
    if code in {0x86, 0x87, 0x8C, 204, 205}:
        return "check FETTLE_BROKER_USERNAME and FETTLE_BROKER_PASSWORD, or the client certificate, and the broker's access list"
    if code in {0x85, 202}:
        return "choose another FETTLE_COLLECTOR_NAME"
    if code in _OVERLOADED:
        return "the broker is overloaded, and the collector tries again"
    return "the broker's log says more"


def _text(value: bytes) -> bytes:
    return len(value).to_bytes(2, "big") + value


def _remaining(packet: bytes) -> int:
    length = 0
    for i, byte in enumerate(packet[1:5]):
        length |= (byte & 127) << (7 * i)
        if byte < 128:
            break
    return length


def _packet(first: int, body: bytes) -> bytes:
    head = bytearray((first,))
    length = len(body)
    while True:
        length, byte = length >> 7, length & 127
        head.append(byte | (128 if length else 0))
        if not length:
            return bytes(head) + body
