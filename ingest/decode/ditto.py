"""Eclipse Ditto: the modify commands and modified events of a digital twin's features.

`{"topic": "ns/thing/things/twin/events/modified", "path": "/features/motor/properties/temp", "value": 21.5}`
"""

from collections.abc import Mapping
from typing import Any

from ingest.decode.instant import read_instant
from ingest.decode.model import BadPayload, Context, Decoded, Limits, Reason, load_json
from ingest.decode.plain import add_value, check_records

_STORED = frozenset(
    {("commands", "modify"), ("commands", "merge"), ("events", "modified"), ("events", "created"), ("events", "merged")}
)


def decode(context: Context, payload: bytes, received_us: int) -> Decoded:  # noqa: ARG001
    """Decode one Ditto envelope. Other commands, events, errors and the live channel are ignored.

    Raises:
        BadPayload: no Ditto envelope.
    """
    body = load_json(payload, context.options.limits)
    if not isinstance(body, dict) or not isinstance(body.get("topic"), str) or not isinstance(body.get("path"), str):
        raise BadPayload(Reason.BAD_STRUCTURE, "a Ditto envelope has the texts topic and path")
    levels = body["topic"].split("/")
    if len(levels) != 6 or levels[2] != "things":
        if len(levels) >= 3 and levels[2] == "policies":
            return Decoded(ignored=1)
        raise BadPayload(Reason.BAD_STRUCTURE, f"topic {body['topic'][:60]!r}; namespace/name/things/twin/… is meant")
    namespace, thing, _, channel, criterion, action = levels
    if channel != "twin" or (criterion, action) not in _STORED or "value" not in body:
        return Decoded(ignored=1)
    stamp = body.get("timestamp")
    ts_us = None if stamp is None else read_instant(stamp, zone=context.options.time_zone)
    out = Decoded()
    for key, value in _properties(body["path"], body["value"], context.options.limits):
        try:
            path = context.path(key, namespace=namespace, thing=thing)
            add_value(context, out, key, value, ts_us=ts_us, path=path)
        except BadPayload as bad:
            out.reject(bad.reason, f"{key[:100]}: {bad.detail}")
    check_records(out, context.options.limits.max_records)
    if not (out.samples or out.rejected):
        out.ignored += 1
    return out


def _properties(path: str, value: object, limits: Limits) -> list[tuple[str, object]]:
    """Return the feature properties among what was set at `path`, as `feature.property`."""
    levels = (
        [level.replace("~1", "/").replace("~0", "~") for level in path.strip("/").split("/")] if path != "/" else []
    )
    for level in reversed(levels):
        value = {level: value}
    features = value.get("features") if isinstance(value, dict) else None
    found: list[tuple[str, object]] = []
    for feature, content in features.items() if isinstance(features, dict) else ():
        properties = content.get("properties") if isinstance(content, dict) else None
        if isinstance(properties, dict):
            _leaves(feature, properties, found, limits.max_depth)
    return found


def _leaves(prefix: str, body: Mapping[str, Any], found: list[tuple[str, object]], depth: int) -> None:
    for name, value in body.items():
        if isinstance(value, dict):
            if depth == 0:
                raise BadPayload(Reason.TOO_DEEP, "the path and its value are nested too deep")
            _leaves(f"{prefix}.{name}", value, found, depth - 1)
        else:
            found.append((f"{prefix}.{name}", value))
