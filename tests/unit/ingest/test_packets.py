"""Both versions of the protocol say the same things."""

import mqtt5
import pytest

from ingest import packets
from ingest.frames import BadFrame
from ingest.packets import (
    Connect,
    Connected,
    ConnectRefused,
    Disconnected,
    Pong,
    Subscribed,
    Version,
    Will,
    WrongVersion,
)


def test_connect_of_version_5_asks_for_a_lasting_session():
    data = packets.encode_connect(Version.V5, Connect(client_id="c", username="u", password=b"p", receive_maximum=77, will=Will(topic="w", payload=b"x")))  # fmt: skip
    read, _ = mqtt5.read(memoryview(data))
    assert (read.client_id, read.clean_start, read.session_expiry_interval, read.receive_max) == ("c", False, 0xFFFFFFFF, 77)  # fmt: skip
    assert (read.username, read.password, read.will.topic, read.will.retain) == ("u", b"p", "w", True)


def test_a_clean_session_ends_with_its_connection():
    read, _ = mqtt5.read(memoryview(packets.encode_connect(Version.V5, Connect(client_id="c", is_clean=True))))
    assert (read.clean_start, read.session_expiry_interval) == (True, 0)


def test_connect_of_version_3_1_1_is_laid_out_as_the_standard_says():
    ask = Connect(client_id="ab", username="u", password=b"pw", keep_alive_s=30, will=Will(topic="w", payload=b"x"))
    data = packets.encode_connect(Version.V3, ask)
    assert data == (
        b"\x10\x1b" + b"\x00\x04MQTT\x04" + bytes([0x80 | 0x40 | 0x20 | 0x08 | 0x04]) + b"\x00\x1e"
        b"\x00\x02ab" b"\x00\x01w" b"\x00\x01x" b"\x00\x01u" b"\x00\x02pw"
    )  # fmt: skip


def test_subscriptions_are_of_qos_1_and_do_not_replay_retained_messages():
    read, _ = mqtt5.read(memoryview(packets.encode_subscribe(Version.V5, 3, ["a/#", "b"])))
    assert [(f.pattern, int(f.max_qos), int(f.retain_handling)) for f in read.topic_filters] == [("a/#", 1, 1), ("b", 1, 1)]  # fmt: skip
    assert packets.encode_subscribe(Version.V3, 3, ["a/#"]) == b"\x82\x08\x00\x03\x00\x03a/#\x01"


def test_messages_of_ours_read_the_same_elsewhere():
    data = packets.encode_publish(Version.V5, "t/x", b"payload", packet_id=9, is_retained=True)
    read, _ = mqtt5.read(memoryview(data))
    assert (read.topic, read.payload, read.packet_id, int(read.qos), read.retain) == ("t/x", b"payload", 9, 1, True)
    assert packets.encode_publish(Version.V3, "t", b"x") == b"\x30\x04\x00\x01tx"
    long = packets.encode_publish(Version.V3, "t", bytes(1000), packet_id=1)
    assert packets.decode.__name__ == "decode"
    assert long[1:3] == bytes([1005 & 127 | 128, 1005 >> 7])


@pytest.mark.parametrize(
    ("version", "data", "expected"),
    [
        (Version.V5, mqtt5.ConnAckPacket(session_present=True, server_keep_alive=9).write(), Connected(version=Version.V5, session_present=True, keep_alive_s=9)),
        (Version.V3, b"\x20\x02\x01\x00", Connected(version=Version.V3, session_present=True)),
        (Version.V5, mqtt5.SubAckPacket(1, [mqtt5.SubAckReasonCode.NOT_AUTHORIZED]).write(), Subscribed((135,))),
        (Version.V3, b"\x90\x04\x00\x01\x01\x80", Subscribed((1, 128))),
        (Version.V5, b"\xd0\x00", Pong.PONG),
        (Version.V3, b"\xd0\x00", Pong.PONG),
        (Version.V3, b"\x40\x02\x00\x07", packets.Acknowledged(7, 0)),
        (Version.V5, b"\x40\x03\x00\x07\x87", packets.Acknowledged(7, 0x87)),
        (Version.V5, b"\xe0\x01\x8e", Disconnected(0x8E, "session taken over")),
    ],
)  # fmt: skip
def test_what_a_broker_says(version, data, expected):
    assert packets.decode(version, data + b"\xff", 0) == (expected, len(data))
    for cut in range(len(data)):
        assert packets.decode(version, data[:cut], 0) == (None, 0)


@pytest.mark.parametrize(
    ("version", "data", "error", "words"),
    [
        (Version.V5, b"\x20\x02\x00\x01", WrongVersion, "does not speak MQTT 5"),
        (Version.V5, b"\x20\x03\x00\x84\x00", WrongVersion, "unsupported protocol version"),
        (Version.V3, b"\x20\x02\x00\x05", ConnectRefused, "FETTLE_BROKER_USERNAME"),
        (Version.V5, b"\x20\x03\x00\x87\x00", ConnectRefused, "FETTLE_BROKER_PASSWORD"),
        (Version.V5, b"\x20\x03\x00\x85\x00", ConnectRefused, "FETTLE_COLLECTOR_NAME"),
        (Version.V3, b"\x50\x02\x00\x01", BadFrame, "type 5"),
        (Version.V5, b"\x10\x02\x00\x01", BadFrame, "type 1"),
    ],
)
def test_refusals_name_their_remedy(version, data, error, words):
    with pytest.raises(error, match=words):
        packets.decode(version, data, 0)


def test_an_overloaded_broker_is_tried_again_and_a_wrong_password_is_not():
    for code, may_pass in ((0x88, True), (0x97, True), (0x86, False), (0x87, False)):
        with pytest.raises(ConnectRefused) as caught:
            packets.decode(Version.V5, bytes([0x20, 3, 0, code, 0]), 0)
        assert caught.value.may_pass is may_pass
