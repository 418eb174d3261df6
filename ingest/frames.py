"""Cut PUBLISH packets out of a byte stream, many at a time. No socket, no clock.

The one hot loop of the MQTT side. All other packets are rare and belong to `ingest.packets`.
"""

from dataclasses import dataclass, field

from fettle.errors import FettleError

PUBACK = b"\x40\x02"
_CONTENT_TYPE = 3
# MQTT 5.0, table 2-4: properties that may stand in a PUBLISH, with the width of their value; 0 is a string or binary
_WIDTHS = {0x01: 1, 0x02: 4, 0x03: 0, 0x08: 0, 0x09: 0, 0x0B: -1, 0x23: 2, 0x26: -2}


class BadFrame(FettleError):
    """The broker sent bytes that are not MQTT: {why}."""


@dataclass(slots=True)
class Frames:
    """PUBLISH packets in the order they came, as parallel lists."""

    topics: list[bytes] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)
    packet_ids: list[bytes] = field(default_factory=list)  # two bytes each; none for QoS 0
    retained: set[int] = field(default_factory=set)  # which of them the broker had stored
    content_types: dict[int, str] = field(default_factory=dict)
    ticks: list[int] = field(
        default_factory=list
    )  # of messages that are read again: the moments they had, in microseconds
    redelivered: int = 0

    def __len__(self) -> int:
        return len(self.topics)


def cut_publishes(data: bytes, at: int, *, is_v5: bool, into: Frames) -> int:
    """Append the PUBLISH packets of `data[at:]` to `into`; return where the first other or incomplete packet begins.

    Raises:
        BadFrame: a length or flag contradicts the standard; the connection must be dropped.
    """
    topics, payloads, packet_ids = into.topics, into.payloads, into.packet_ids
    end = len(data)
    last = end - 1
    while at < last:
        first = data[at]
        if first & 0xF0 != 0x30:
            return at
        length = data[at + 1]
        body = at + 2
        if length > 127:
            length, body = _long_length(data, at + 1)
            if body < 0:
                return at
        stop = body + length
        if stop > end:
            return at
        name = body + 2
        k = name + (data[body] << 8) + data[body + 1] if length >= 2 else stop + 1
        topic = data[name:k]
        if first & 6:
            if first & 4:
                raise BadFrame(why="a PUBLISH of QoS 2 or 3 on a subscription of QoS 1")
            packet_id = data[k : k + 2]
            k += 2
        else:
            packet_id = b""
        if is_v5:
            if k >= stop:
                raise BadFrame(why=f"a PUBLISH of {length} bytes is too short for what it announces")
            width = data[k]
            k += 1
            if width:
                k = _properties(data, k - 1, stop, into)
        if k > stop:
            raise BadFrame(why=f"a PUBLISH of {length} bytes is too short for what it announces")
        if first & 9:
            if first & 1:
                into.retained.add(len(topics))
            if first & 8:
                into.redelivered += 1
        if packet_id:
            packet_ids.append(packet_id)
        topics.append(topic)
        payloads.append(data[k:stop])
        at = stop
    return at


def _long_length(data: bytes, at: int) -> tuple[int, int]:
    """Read a remaining length of more than one byte; return (length, where it ends), or (0, -1) while incomplete."""
    length = 0
    for i in range(4):
        if at + i >= len(data):
            return 0, -1
        byte = data[at + i]
        length |= (byte & 127) << (7 * i)
        if byte < 128:
            return length, at + i + 1
    raise BadFrame(why="a remaining length of more than four bytes")


def frame_length(data: bytes, at: int) -> int:
    """Return the length of the whole packet that begins at `at`, or 0 while its header is incomplete."""
    if at + 2 > len(data):
        return 0
    length, body = _long_length(data, at + 1)
    return 0 if body < 0 else body - at + length


def _properties(data: bytes, at: int, stop: int, into: Frames) -> int:
    """Read the property block that begins at `at`, keep the content type, return where the block ends."""
    length, k = _long_length(data[:stop], at)
    end = k + length
    if k < 0 or end > stop:
        raise BadFrame(why="properties longer than their packet")
    while k < end:
        name = data[k]
        width = _WIDTHS.get(name)
        if width is None:
            raise BadFrame(why=f"property {name:#04x} in a PUBLISH")
        k += 1
        if width > 0:
            k += width
        elif width == -1:
            k = _long_length(data[:end], k)[1]
            if k < 0:
                raise BadFrame(why="a subscription identifier that does not end")
        else:
            for _ in range(1 if width == 0 else 2):
                if k + 2 > end:
                    raise BadFrame(why="a property that does not end")
                text = k + 2
                k = text + (data[k] << 8) + data[k + 1]
                if name == _CONTENT_TYPE and k <= end:
                    into.content_types[len(into.topics)] = data[text:k].decode("utf-8", "replace")
    if k != end:
        raise BadFrame(why="a property that does not end")
    return end


def acknowledge(packet_ids: list[bytes]) -> bytes:
    """Return the PUBACK packets of these ids, in their order, to be sent with one write."""
    return PUBACK + PUBACK.join(packet_ids) if packet_ids else b""
