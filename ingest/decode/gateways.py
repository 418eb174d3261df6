"""Tasmota and Zigbee2MQTT: nested objects of signals, flattened with dots."""

import re
from collections.abc import Mapping
from typing import Any

from fettle.model import Quality
from ingest.decode.instant import read_instant
from ingest.decode.model import BadPayload, Context, Decoded, Reason, load_json
from ingest.decode.plain import add_value, check_records

# keys that describe a device and change with every release; never signals
_ZIGBEE_CHATTER = frozenset({"update", "update_available", "color_options", "device", "elapsed", "last_seen"})
_ZIGBEE_UNITS = {
    # https://www.zigbee2mqtt.io/guide/usage/exposes.html names the units of the generic exposes
    "temperature": "°C",
    "device_temperature": "°C",
    "local_temperature": "°C",
    "humidity": "%RH",
    "soil_moisture": "%",
    "pressure": "hPa",
    "battery": "%",
    "voltage": "mV",
    "linkquality": "lqi",
    "illuminance": "lx",
    "power": "W",
    "current": "A",
    "energy": "kWh",
}
_TASMOTA_UNITS = {
    "Temperature": ("TempUnit", "C"),
    "DewPoint": ("TempUnit", "C"),
    "Pressure": ("PressureUnit", "hPa"),
    "SeaPressure": ("PressureUnit", "hPa"),
    "Speed": ("SpeedUnit", None),
}
_TASMOTA_FIXED = {
    "Humidity": "%RH",
    "Illuminance": "lx",
    "Power": "W",
    "ApparentPower": "VA",
    "ReactivePower": "var",
    "Voltage": "V",
    "Current": "A",
    "Total": "kWh",
    "Yesterday": "kWh",
    "Today": "kWh",
    "Frequency": "Hz",
}
_TASMOTA_TEXTS = frozenset({"TotalStartTime", "Id"})
_UNIT_KEY = re.compile(r"[A-Za-z]{1,16}Unit")


def decode_tasmota(context: Context, payload: bytes, received_us: int) -> Decoded:  # noqa: ARG001
    """Decode `tele/…/SENSOR`. `Time` is local to the device, so the rule's time zone matters.

    Raises:
        BadPayload: no object, a wrong `Time`, or nothing in it to store.
    """
    body = _load_object(context, payload)
    options = context.options
    stamp = body.get("Time")
    ts_us = None if stamp is None else read_instant(stamp, unit=options.time_unit, zone=options.time_zone)
    unit_words = {key: value for key, value in body.items() if _UNIT_KEY.fullmatch(key) and isinstance(value, str)}

    def unit_of(key: str) -> str | None:
        last = key.rpartition(".")[2]
        if last in _TASMOTA_UNITS:
            word, default = _TASMOTA_UNITS[last]
            return unit_words.get(word, default)
        return _TASMOTA_FIXED.get(last)

    out = Decoded()
    _flatten(
        context,
        {k: v for k, v in body.items() if k != "Time" and k not in unit_words},
        "",
        ts_us,
        unit_of,
        out,
        ignored=options.ignore_keys | _TASMOTA_TEXTS,
    )
    return _finish(context, out)


def decode_zigbee(context: Context, payload: bytes, received_us: int) -> Decoded:  # noqa: ARG001
    """Decode the state of a Zigbee2MQTT device. Its only time stamp is `last_seen`, and only where that is switched on.

    Raises:
        BadPayload: no object, or nothing in it to store.
    """
    if not payload.strip():
        return Decoded(ignored=1)  # a retained state was cleared
    body = _load_object(context, payload)
    options = context.options
    ts_us = None
    if body.get("last_seen") is not None:
        ts_us = read_instant(body["last_seen"], unit=options.time_unit, zone=options.time_zone)
    out = Decoded()
    ignored = options.ignore_keys | _ZIGBEE_CHATTER
    _flatten(context, body, "", ts_us, lambda key: _ZIGBEE_UNITS.get(key.rpartition(".")[2]), out, ignored=ignored)
    return _finish(context, out)


def _load_object(context: Context, payload: bytes) -> dict[str, Any]:
    body = load_json(payload, context.options.limits)
    if not isinstance(body, dict):
        raise BadPayload(Reason.BAD_STRUCTURE, "an object is meant")
    return body


def _flatten(
    context: Context,
    body: Mapping[str, Any],
    prefix: str,
    ts_us: int | None,
    unit_of: "Any",
    out: Decoded,
    *,
    ignored: frozenset[str],
) -> None:
    for name, value in body.items():
        if name in ignored:
            out.ignored += 1
            continue
        key = f"{prefix}.{name}" if prefix else name
        if isinstance(value, dict):
            _flatten(context, value, key, ts_us, unit_of, out, ignored=ignored)
            continue
        unit = context.unit(key, None) or unit_of(key)
        # both gateways write null for "no value yet"
        try:
            if isinstance(value, list) and all(isinstance(v, int | float | None) for v in value):
                for number, item in enumerate(value, start=1):
                    add_value(context, out, f"{key}.{number}", item, ts_us=ts_us, unit=unit, quality=Quality.GOOD)
            else:
                add_value(context, out, key, value, ts_us=ts_us, unit=unit)
        except BadPayload as bad:
            out.reject(bad.reason, f"{key[:100]}: {bad.detail}")


def _finish(context: Context, out: Decoded) -> Decoded:
    check_records(out, context.options.limits.max_records)
    if not (out.samples or out.rejected):
        out.ignored += 1
    return out
