"""The formats by name: which codec reads them and which fields they offer to naming templates."""

from ingest.decode import plain, raw
from ingest.decode.model import Codec

CODECS: dict[str, Codec] = {
    "json": plain.decode,
    "waveform": raw.decode,
}

FORMATS: dict[str, frozenset[str]] = {
    # format -> fields beside the topic's captures that a template may name
    "ignore": frozenset(),
    "json": frozenset({"key"}),
    "waveform": frozenset({"key"}),
    "availability": frozenset(),
    "tasmota": frozenset({"key"}),
    "zigbee2mqtt": frozenset({"key"}),
    "sparkplug": frozenset({"group", "edge", "device", "metric"}),
    "senml": frozenset({"key"}),
    "line": frozenset({"key", "measurement", "field", "tags"}),
    "opcua": frozenset({"key", "publisher", "group", "writer", "dataset"}),
    "ditto": frozenset({"key", "namespace", "thing"}),
}

CONTENT_TYPES: dict[str, str] = {
    "application/senml+json": "senml",
    "application/senml+cbor": "senml",
    "application/vnd.eclipse.ditto+json": "ditto",
}
