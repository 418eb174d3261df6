"""OPC UA PubSub JSON: headers present and missing, both generations of Variant and DataValue."""

import orjson
import pytest

from fettle.model import Flag, Quality
from ingest.decode import BadPayload, Reason
from ingest.topics import load_table

NOW = 1_795_219_200_000_000
STAMP = "2026-11-21T00:00:00Z"
TABLE = load_table(tenant="default")


def read(body, topic: str = "opcua/json/data/plant/line-1/press"):
    return TABLE.route(topic).decode(orjson.dumps(body), NOW)


def rows(out):
    assert out.rejected == []
    return {s.path[2]: (s.ts_us, s.text if s.text is not None else s.value, s.quality) for s in out.samples}


def dataset(payload, **header):
    return {"DataSetWriterId": 1, "SequenceNumber": 7, "Timestamp": STAMP, "Payload": payload, **header}


def network(*messages, **header):
    return {"MessageId": "a", "MessageType": "ua-data", "PublisherId": "plant", "Messages": list(messages), **header}


def test_a_full_network_message():
    out = read(network(dataset({"temp": 21.5, "on": True, "name": "x"})))
    assert rows(out) == {"temp": (NOW, 21.5, 192), "on": (NOW, 1.0, 192), "name": (NOW, "x", 192)}
    assert out.samples[0].path == ("plant", "line-1/press", "temp")


@pytest.mark.parametrize(
    "body",
    [
        network(dataset({"temp": 21.5})),
        [dataset({"temp": 21.5})],
        dataset({"temp": 21.5}),
        network({"Timestamp": STAMP, "Payload": {"temp": 21.5}}),
        {"temp": {"Value": 21.5, "SourceTimestamp": STAMP}},
    ],
)
def test_headers_may_be_missing(body):
    assert rows(read(body)) == {"temp": (NOW, 21.5, 192)}


def test_a_bare_payload_has_no_time():
    assert rows(read({"temp": 21.5})) == {"temp": (None, 21.5, 192)}


@pytest.mark.parametrize(
    "field",
    [
        {"Type": 11, "Body": 21.5},
        {"Value": {"Type": 11, "Body": 21.5}},
        {"Value": {"Type": 11, "Body": 21.5}, "SourceTimestamp": STAMP},
        {"Value": 21.5, "Status": {"Code": 0}},
        {"UaType": 11, "Value": 21.5},
        {"UaType": 11, "Value": 21.5, "SourceTimestamp": STAMP, "SourcePicoseconds": 10, "ServerTimestamp": STAMP},
    ],
)
def test_both_generations_of_variant_and_data_value(field):
    assert rows(read(network(dataset({"temp": field})))) == {"temp": (NOW, 21.5, 192)}


@pytest.mark.parametrize(
    ("status", "quality"),
    [
        (None, Quality.GOOD),
        (0, Quality.GOOD),
        (0x40000000, Quality.STALE),
        (0x80000000, Quality.BAD),
        ({"Code": 0x80340000, "Symbol": "BadNotReadable"}, Quality.BAD),
        ({"Symbol": "Good"}, Quality.GOOD),
        ("UncertainLastUsableValue", Quality.STALE),
    ],
)
def test_the_severity_of_a_status_code(status, quality):
    assert rows(read(network(dataset({"t": {"Value": 1, "Status": status}})))) == {"t": (NOW, 1.0, quality)}


def test_the_worse_of_message_and_field_counts():
    assert rows(read(network(dataset({"t": 1}, Status=0x80000000)))) == {"t": (NOW, 1.0, Quality.BAD)}


def test_the_source_time_comes_before_the_message_time():
    out = read(network(dataset({"t": {"Value": 1, "SourceTimestamp": "2026-11-21T00:00:01.1234567Z"}})))
    assert rows(out)["t"][0] == NOW + 1_123_456
    out = read(network(dataset({"t": {"Value": 1, "SourceTimestamp": "0001-01-01T00:00:00Z"}})))
    assert rows(out)["t"][0] == NOW


def test_texts_that_stand_for_numbers():
    out = read(
        network(
            dataset(
                {
                    "i": {"UaType": 8, "Value": "-12"},
                    "u": {"Type": 9, "Body": "18446744073709551615"},
                    "n": {"UaType": 10, "Value": "NaN"},
                    "p": {"UaType": 11, "Value": "-Infinity"},
                    "s": {"UaType": 12, "Value": "12"},
                }
            )
        )
    )
    assert rows(out) == {
        "i": (NOW, -12.0, 192),
        "u": (NOW, 2.0**64, 192),
        "n": (NOW, None, 0),
        "p": (NOW, None, 0),
        "s": (NOW, "12", 192),
    }
    assert [s.flags for s in out.samples][1] == Flag.INEXACT


def test_a_value_that_is_missing_is_a_null_reading():
    out = read(network(dataset({"t": {"Status": {"Code": 0x80000000}, "SourceTimestamp": STAMP}})))
    assert rows(out) == {"t": (NOW, None, 0)}


def test_structures_are_flattened_and_arrays_are_text():
    out = read(network(dataset({"pos": {"x": 1.5, "y": {"z": 2}}, "a": {"UaType": 11, "Value": [1.5, 2.5]}})))
    assert rows(out) == {"pos.x": (NOW, 1.5, 192), "pos.y.z": (NOW, 2.0, 192), "a": (NOW, "[1.5,2.5]", 192)}


def test_the_azure_form():
    out = read({"temperature": {"SourceTimestamp": STAMP, "Value": 4558}}, "opcua/json/data/plant/line-1")
    assert out.samples[0].path == ("plant", "line-1", "temperature")
    assert rows(out) == {"temperature": (NOW, 4558.0, 192)}


def test_the_writer_of_the_message_names_the_machine_where_the_topic_does_not():
    out = read(network(dataset({"t": 1}, DataSetWriterName="press")), "opcua/json/data/plant/line-1")
    assert out.samples[0].path == ("plant", "line-1/press", "t")


@pytest.mark.parametrize(
    "body",
    [
        {"MessageId": "1", "MessageType": "ua-metadata", "PublisherId": "plant", "MetaData": {"Fields": []}},
        network({"MessageType": "ua-keepalive", "DataSetWriterId": 1}),
        {"MessageId": "1", "MessageType": "ua-connection", "PublisherId": "plant"},
    ],
)
def test_other_messages_are_accepted_and_not_stored(body):
    out = read(body)
    assert (out.samples, out.rejected, out.ignored) == ([], [], 1)


def test_status_is_liveness():
    body = {"MessageId": "1", "MessageType": "ua-status", "PublisherId": "plant", "Status": 2}
    (event,) = read(body, "opcua/json/status/plant").liveness
    assert (event.path, event.is_online) == (("plant", "plant"), True)
    (event,) = read({**body, "Status": 3}, "opcua/json/status/plant").liveness
    assert not event.is_online


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ({"UaType": 8, "Value": "twelve"}, Reason.BAD_VALUE),
        ({"UaType": 11, "Value": "hot"}, Reason.BAD_VALUE),
        ({"UaType": 15, "Value": "§"}, Reason.BAD_VALUE),
        ({"Value": 1, "SourceTimestamp": "later"}, Reason.BAD_TIMESTAMP),
        ({"Value": 1, "Status": -1}, Reason.BAD_QUALITY),
    ],
)
def test_a_wrong_field_costs_only_itself(field, reason):
    out = read(network(dataset({"bad": field, "good": 1})))
    assert ([s.path[2] for s in out.samples], [r.reason for r in out.rejected]) == (["good"], [reason])


def test_what_is_no_message_is_refused():
    with pytest.raises(BadPayload):
        read(7)
    assert [r.reason for r in read([1]).rejected] == [Reason.BAD_STRUCTURE]
