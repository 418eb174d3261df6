"""Tasmota and Zigbee2MQTT, with their availability topics, through the shipped rules."""

import pytest

from ingest.decode import BadPayload, CodecOptions, Liveness, Reason
from ingest.topics import Table, load_table, parse_rules

NOW = 1_795_219_200_000_000
TABLE = load_table(tenant="default")


def read(topic: str, payload: bytes):
    return TABLE.route(topic).decode(payload, NOW)


def rows(out):
    assert out.rejected == []
    return {s.path: (s.ts_us, s.text if s.text is not None else s.value, s.unit) for s in out.samples}


def test_tasmota():
    out = read(
        "tele/hall/plug/SENSOR",
        b'{"Time":"2026-01-05T10:00:00","DS18B20":{"Id":"01","Temperature":20.6},'
        b'"ENERGY":{"TotalStartTime":"2025-01-01T00:00:00","Total":3.2,"Power":[12,0],"Factor":0.9},"TempUnit":"C"}',
    )
    at = 1_767_607_200_000_000
    assert rows(out) == {
        ("tasmota", "hall/plug", "DS18B20.Temperature"): (at, 20.6, "C"),
        ("tasmota", "hall/plug", "ENERGY.Total"): (at, 3.2, "kWh"),
        ("tasmota", "hall/plug", "ENERGY.Power.1"): (at, 12.0, "W"),
        ("tasmota", "hall/plug", "ENERGY.Power.2"): (at, 0.0, "W"),
        ("tasmota", "hall/plug", "ENERGY.Factor"): (at, 0.9, None),
    }
    assert out.ignored == 2


def test_tasmota_time_is_local_to_the_rule():
    rules, _ = parse_rules(
        '[[rule]]\ntopic = "tele/{machine}/SENSOR"\nformat = "tasmota"\nsite = "s"\nsensor = "{key}"\ntime_zone = "Asia/Shanghai"',
        file="user.toml",
    )
    route = Table(rules, tenant="t").route("tele/a/SENSOR")
    (sample,) = route.decode(b'{"Time":"2026-11-21T08:00:00","A":{"Temperature":1}}', NOW).samples
    assert sample.ts_us == NOW
    (sample,) = route.decode(b'{"Time":"2026-11-21T08:00:00+08:00","A":{"Temperature":1}}', NOW).samples
    assert sample.ts_us == NOW


def test_tasmota_fahrenheit():
    out = read("tele/a/SENSOR", b'{"A":{"Temperature":70.1},"TempUnit":"F"}')
    assert [s.unit for s in out.samples] == ["F"]


@pytest.mark.parametrize(
    ("topic", "payload", "is_online", "path"),
    [
        ("tele/hall/plug/LWT", b"Online", True, ("tasmota", "hall/plug")),
        ("tele/hall/plug/LWT", b"Offline", False, ("tasmota", "hall/plug")),
        ("zigbee2mqtt/hall/lamp/availability", b'{"state":"online"}', True, ("zigbee2mqtt", "hall/lamp")),
        ("zigbee2mqtt/lamp/availability", b"offline", False, ("zigbee2mqtt", "lamp")),
    ],
)
def test_availability_feeds_liveness_and_never_readings(topic, payload, is_online, path):
    out = read(topic, payload)
    assert (out.liveness, out.samples) == ([Liveness(path, is_online, None)], [])


def test_an_availability_that_says_neither_is_refused():
    with pytest.raises(BadPayload) as caught:
        read("tele/hall/LWT", b"maybe")
    assert caught.value.reason is Reason.BAD_VALUE


def test_zigbee2mqtt():
    out = read(
        "zigbee2mqtt/hall/lamp",
        b'{"temperature":21.3,"state":"ON","occupancy":false,"update":{"state":"idle"},"color":{"x":0.4},"last_seen":1795219200000}',
    )
    assert rows(out) == {
        ("zigbee2mqtt", "hall/lamp", "temperature"): (NOW, 21.3, "°C"),
        ("zigbee2mqtt", "hall/lamp", "state"): (NOW, "ON", None),
        ("zigbee2mqtt", "hall/lamp", "occupancy"): (NOW, 0.0, None),
        ("zigbee2mqtt", "hall/lamp", "color.x"): (NOW, 0.4, None),
    }


def test_zigbee2mqtt_without_last_seen_has_no_time():
    assert read("zigbee2mqtt/lamp", b'{"temperature":21.3}').samples[0].ts_us is None


@pytest.mark.parametrize(
    "topic",
    [
        "zigbee2mqtt/bridge/state",
        "zigbee2mqtt/bridge/devices",
        "zigbee2mqtt/hall/lamp/set",
        "zigbee2mqtt/lamp/get",
        "tele/plug/STATE",
        "tele/plug/RESULT",
    ],
)
def test_control_topics_are_ignored(topic):
    out = read(topic, b'{"temperature": 1}')
    assert (out.samples, out.ignored) == ([], 1)


@pytest.mark.parametrize("topic", ["cmnd/plug/POWER", "stat/plug/RESULT", "homeassistant/sensor/x/config"])
def test_command_topics_have_no_rule(topic):
    assert TABLE.route(topic) is None


def test_a_cleared_retained_state_is_ignored():
    assert read("zigbee2mqtt/lamp", b"").ignored == 1


@pytest.mark.parametrize("payload", [b"ON", b"[]", b"{", b"7"])
def test_what_is_no_object_is_refused(payload):
    for topic in ("zigbee2mqtt/lamp", "tele/plug/SENSOR"):
        with pytest.raises(BadPayload):
            read(topic, payload)


def test_the_units_of_the_rule_come_first():
    rules, _ = parse_rules(
        '[[rule]]\ntopic = "z/{machine}"\nformat = "zigbee2mqtt"\nsite = "s"\nunits = { voltage = "V" }',
        file="user.toml",
    )
    route = Table(rules, tenant="t").route("z/a")
    assert route.context.options == CodecOptions(units={"voltage": "V"})
    assert route.decode(b'{"voltage": 230}', NOW).samples[0].unit == "V"
