"""Availability topics and last wills: `Online`, `offline`, `{"state": "online"}`, `true`. They never become readings."""

import orjson

from ingest.decode.model import BadPayload, Context, Decoded, Liveness, Reason, check_name, check_size

_ONLINE = frozenset({"online", "true", "1", "on", "connected", "alive", "ready"})
_OFFLINE = frozenset({"offline", "false", "0", "off", "disconnected", "dead", "lost", ""})


def decode(context: Context, payload: bytes, received_us: int) -> Decoded:  # noqa: ARG001
    """Read whether the topic's machine is there.

    Raises:
        BadPayload: the payload says neither.
    """
    check_size(payload, context.options.limits)
    return Decoded(liveness=[Liveness(place(context), read_state(payload), None)])


def place(context: Context) -> tuple[str, str]:
    """Return the site and machine that the topic names.

    Raises:
        BadPayload: one of them is empty.
    """
    site, machine, _ = context.naming.render(context.captures)
    return check_name("site", site), check_name("machine", machine)


def read_state(payload: bytes) -> bool:
    """Read a bare word or an object with `state`, `status`, `online` or `connected`.

    Raises:
        BadPayload: neither online nor offline.
    """
    try:
        body: object = orjson.loads(payload)
    except orjson.JSONDecodeError:
        body = payload.decode(errors="replace")
    if isinstance(body, dict):
        body = next((body[key] for key in ("state", "status", "online", "connected") if key in body), None)
    word = str(body).strip().lower()
    if word in _ONLINE:
        return True
    if word in _OFFLINE:
        return False
    raise BadPayload(Reason.BAD_VALUE, f"{payload[:60]!r} says neither online nor offline")
