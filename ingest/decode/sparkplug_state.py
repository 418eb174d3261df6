"""The host application's own STATE: when to say online, when offline, and what to answer.

Edge nodes configured for this host store and forward while it is offline, so "we cannot store" is said by a death with a
fresh time and a disconnect, never by staying connected: a connected host must contradict an offline STATE at once.
"""

import orjson

from ingest.decode.model import BadPayload, Reason
from ingest.decode.sparkplug import NAMESPACE, Command


class HostState:
    """One host connection's STATE messages; QoS 1, retained. Make a new one for each connection.

    The will and the birth carry the same time. Subscribe to `spBv1.0/#` and to `topic` before publishing the birth.
    """

    def __init__(self, host_id: str, *, connect_us: int) -> None:
        self.topic = f"{NAMESPACE}/STATE/{host_id}"
        self._connect_ms = connect_us // 1000
        self._is_leaving = False

    def will(self) -> Command:
        return Command(self.topic, _encode(is_online=False, ts_ms=self._connect_ms))

    def birth(self) -> Command:
        return Command(self.topic, _encode(is_online=True, ts_ms=self._connect_ms))

    def death(self, *, now_us: int) -> Command:
        """Build the death to publish before leaving on purpose; its time is fresh."""
        self._is_leaving = True
        return Command(self.topic, _encode(is_online=False, ts_ms=max(now_us // 1000, self._connect_ms + 1)))

    def answer(self, topic: str, payload: bytes) -> Command | None:
        """Return the birth to publish at once if someone, such as our own late will, says that we are offline."""
        if topic != self.topic or self._is_leaving:
            return None
        try:
            is_online, _ = read_state(payload)
        except BadPayload:
            return self.birth()
        return None if is_online else self.birth()


def _encode(*, is_online: bool, ts_ms: int) -> bytes:
    return orjson.dumps({"online": is_online, "timestamp": ts_ms})


def read_state(payload: bytes) -> tuple[bool, int | None]:
    """Read a STATE payload, of 3.0 (JSON) or 2.2 (`ONLINE`, `OFFLINE`), into (is online, time in milliseconds).

    Raises:
        BadPayload: neither.
    """
    if payload in {b"ONLINE", b"OFFLINE"}:
        return payload == b"ONLINE", None
    try:
        body = orjson.loads(payload)
    except orjson.JSONDecodeError:
        body = None
    if (
        not isinstance(body, dict)
        or not isinstance(body.get("online"), bool)
        or type(body.get("timestamp")) is not int
        or body["timestamp"] < 0
    ):
        raise BadPayload(Reason.BAD_STRUCTURE, f"STATE {payload[:60]!r}; online and timestamp are meant")
    return body["online"], body["timestamp"]
