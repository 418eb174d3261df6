"""PUBLISH packets are cut out of any stream, however it is chopped, exactly as other implementations read them."""

import contextlib

import mqtt5
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from ingest.frames import BadFrame, Frames, acknowledge, cut_publishes, frame_length

topics = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0+#"), min_size=1, max_size=40)
packets = st.builds(
    lambda topic, payload, qos, retain, dup, packet_id, content_type, user: mqtt5.PublishPacket(
        topic,
        payload,
        qos=mqtt5.QoS(qos),
        retain=retain,
        duplicate=dup and qos == 1,
        packet_id=packet_id if qos else None,
        content_type=content_type,
        user_properties=user,
        message_expiry_interval=len(payload) or None,
        subscription_ids=[len(topic)] if retain else None,
    ),
    topics,
    st.binary(max_size=300),
    st.integers(0, 1),
    st.booleans(),
    st.booleans(),
    st.integers(1, 65_535),
    st.none() | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20),
    st.lists(st.tuples(topics, topics), max_size=2),
)


def _expect(sent):
    return (
        [p.topic.encode() for p in sent],
        [p.payload for p in sent],
        [p.packet_id.to_bytes(2, "big") for p in sent if int(p.qos)],
        {i for i, p in enumerate(sent) if p.retain},
        {i: p.content_type for i, p in enumerate(sent) if p.content_type is not None},
        sum(p.duplicate for p in sent),
    )


def _got(frames):
    return (
        frames.topics,
        frames.payloads,
        frames.packet_ids,
        frames.retained,
        frames.content_types,
        frames.redelivered,
    )


@given(st.lists(packets, max_size=6), st.data())
def test_any_stream_in_any_pieces_gives_what_was_sent(sent, data):
    stream = b"".join(p.write() for p in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=5)))
    frames, rest = Frames(), b""
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        piece = rest + stream[start:stop]
        used = cut_publishes(piece, 0, is_v5=True, into=frames)
        rest = piece[used:]
    assert rest == b""
    assert _got(frames) == _expect(sent)


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_cut_or_refused_and_nothing_else(data, is_v5):
    frames = Frames()
    try:
        at = cut_publishes(data, 0, is_v5=is_v5, into=frames)
    except BadFrame:
        return
    assert 0 <= at <= len(data)
    assert len(frames.topics) == len(frames.payloads) >= len(frames.packet_ids)


@given(st.lists(packets, min_size=1, max_size=3), st.data())
def test_a_damaged_stream_is_cut_or_refused(sent, data):
    stream = bytearray(b"".join(p.write() for p in sent))
    for _ in range(data.draw(st.integers(1, 4))):
        stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BadFrame):
        cut_publishes(bytes(stream), 0, is_v5=True, into=Frames())


@given(topics, st.binary(max_size=200), st.integers(0, 1), st.integers(1, 65_535), st.booleans())
def test_packets_of_paho_read_the_same(topic, payload, qos, packet_id, is_v5):
    """Differential: what paho writes, as a broker forwards it."""
    name = topic.encode()
    body = len(name).to_bytes(2, "big") + name + (packet_id.to_bytes(2, "big") if qos else b"")
    if is_v5:
        properties = Properties(PacketTypes.PUBLISH)
        properties.ContentType = "application/json"
        body += properties.pack()
    body += payload
    length, head = len(body), bytearray([0x30 | qos << 1])
    while True:
        head.append(length % 128 | (128 if length > 127 else 0))
        length //= 128
        if not length:
            break
    packet = bytes(head) + body
    frames = Frames()
    assert cut_publishes(packet, 0, is_v5=is_v5, into=frames) == len(packet) == frame_length(packet, 0)
    assert (frames.topics, frames.payloads) == ([name], [payload])
    assert frames.content_types == ({0: "application/json"} if is_v5 else {})


def test_it_stops_at_other_packets():
    publish = mqtt5.PublishPacket("t", b"x", qos=mqtt5.QoS.AT_LEAST_ONCE, packet_id=7).write()
    frames = Frames()
    stream = publish + b"\xd0\x00" + publish
    assert cut_publishes(stream, 0, is_v5=True, into=frames) == len(publish)
    assert cut_publishes(stream, len(publish) + 2, is_v5=True, into=frames) == len(stream)
    assert len(frames) == 2


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x34\x05\x00\x01t\x00\x01", "QoS 2"),
        (b"\x30\x80\x80\x80\x80\x01", "four bytes"),
        (b"\x32\x03\x00\x09t", "too short"),
        (b"\x32\x04\x00\x01t\x00", "too short"),
        (b"\x30\x06\x00\x01t\x05\x01\x00", "longer than their packet"),
        (b"\x30\x06\x00\x01t\x02\x99\x00", "0x99"),
    ],
)
def test_what_no_broker_may_send_drops_the_connection(data, why):
    with pytest.raises(BadFrame, match=why):
        cut_publishes(data, 0, is_v5=True, into=Frames())


def test_acknowledgements_are_one_write_in_order():
    acks = acknowledge([b"\x00\x07", b"\x00\x05"])
    assert acks == mqtt5.PubAckPacket(7).write() + mqtt5.PubAckPacket(5).write()
    assert acknowledge([]) == b""
