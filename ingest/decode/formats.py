"""The formats by name: which codec reads them and which fields they offer to naming templates."""

from ingest.decode import availability, ditto, gateways, line, opcua, plain, raw, senml
from ingest.decode.model import Codec

CODECS: dict[str, Codec] = {
    "availability": availability.decode,
    "ditto": ditto.decode,
    "json": plain.decode,
    "line": line.decode,
    "opcua": opcua.decode,
    "senml": senml.decode,
    "tasmota": gateways.decode_tasmota,
    "waveform": raw.decode,
    "zigbee2mqtt": gateways.decode_zigbee,
}

FORMATS: dict[str, frozenset[str]] = {
    # format -> fields beside the topic's captures that a template may name; `tag_*` stands for any name that starts so
    "ignore": frozenset(),
    "json": frozenset({"key"}),
    "waveform": frozenset({"key"}),
    "availability": frozenset(),
    "tasmota": frozenset({"key"}),
    "zigbee2mqtt": frozenset({"key"}),
    "sparkplug": frozenset({"group", "edge", "device", "metric"}),
    "senml": frozenset({"key"}),
    "line": frozenset({"key", "measurement", "field", "tags", "tag_*"}),
    "opcua": frozenset({"key", "publisher", "group", "writer", "dataset"}),
    "ditto": frozenset({"key", "namespace", "thing"}),
}

CONTENT_TYPES: dict[str, str] = {
    "application/senml+json": "senml",
    "application/senml+cbor": "senml",
    "application/vnd.eclipse.ditto+json": "ditto",
}
