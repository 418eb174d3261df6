"""Eclipse Ditto envelopes."""

import orjson
import pytest

from ingest.decode import BadPayload
from ingest.topics import load_table

NOW = 1_795_219_200_000_000
TABLE = load_table(tenant="default")


def read(topic="org/press-4/things/twin/events/modified", path="/", value=None, **more):
    body = orjson.dumps({"topic": topic, "path": path, "value": value, **more})
    return TABLE.route("ditto/events").decode(body, NOW)


def rows(out):
    assert out.rejected == []
    return {s.path: (s.ts_us, s.text if s.text is not None else s.value) for s in out.samples}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("/features/motor/properties/temp", 21.5),
        ("/features/motor/properties", {"temp": 21.5}),
        ("/features/motor", {"properties": {"temp": 21.5}}),
        ("/features", {"motor": {"properties": {"temp": 21.5}}}),
        ("/", {"attributes": {"a": 1}, "features": {"motor": {"properties": {"temp": 21.5}}}}),
    ],
)
def test_a_property_at_any_level_of_the_path(path, value):
    out = read(path=path, value=value, timestamp="2026-11-21T00:00:00Z")
    assert rows(out) == {("org", "press-4", "motor.temp"): (NOW, 21.5)}


def test_nested_properties_and_json_pointers():
    out = read(path="/features/m/properties/a~1b", value={"c": 1, "d": "x"})
    assert rows(out) == {("org", "press-4", "m.a/b.c"): (None, 1.0), ("org", "press-4", "m.a/b.d"): (None, "x")}


@pytest.mark.parametrize(
    "topic",
    [
        "org/press-4/things/twin/events/deleted",
        "org/press-4/things/twin/errors/x",
        "org/press-4/things/live/events/modified",
        "org/p/policies/commands/modify",
    ],
)
def test_everything_else_is_ignored(topic):
    out = read(topic, "/features/m/properties/t", 1)
    assert (out.samples, out.ignored) == ([], 1)


def test_attributes_are_no_readings():
    out = read(path="/attributes/location", value="hall")
    assert (out.samples, out.ignored) == ([], 1)


@pytest.mark.parametrize("payload", [b"{}", b"[]", b'{"topic":"a/b","path":"/"}', b'{"topic":1,"path":"/"}', b"x"])
def test_what_is_no_envelope_is_refused(payload):
    with pytest.raises(BadPayload):
        TABLE.route("ditto/events").decode(payload, NOW)


def test_a_path_deeper_than_the_limit_is_refused():
    with pytest.raises(BadPayload, match="deep"):
        read(path="/features/m/properties/" + "a/" * 50, value=1)
