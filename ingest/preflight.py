"""What the broker says of itself, and whether it can keep our promise: each finding names its remedy.

Brokers do not tell their queue limits, so `probe` measures them: messages for a subscriber that is away, and how many of
them are there when it is back.
"""

import asyncio
from dataclasses import dataclass, replace
from typing import Literal

from fettle.errors import FettleError
from ingest.frames import Frames, acknowledge
from ingest.packets import NEVER_EXPIRES, Connect, Connected, Version
from ingest.session import Address, Link, connect, connect_any

DROPPED = "$SYS/broker/publish/messages/dropped"
VERSION = "$SYS/broker/version"
_SYS_WAIT_S = 2.0
_QUIET_S = 2.0
_PROBE_MESSAGES = 1100
_PROBE_TOPIC = "fettle-probe"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line about the broker."""

    level: Literal["ok", "warning", "error"]
    text: str
    remedy: str = ""


async def preflight(
    address: Address, *, name: str, filters: list[str], receive_maximum: int, version: str = "auto", probe: bool = False
) -> list[Finding]:
    """Connect as the collector would, under another client id, and look at what the broker grants.

    Args:
        address: of the broker.
        name: of the collector; the check takes it with `-check` behind it.
        filters: what the collector subscribes to.
        receive_maximum: what the collector asks for.
        version: of MQTT, as the settings say.
        probe: also measure how many messages the broker keeps for an absent subscriber.
    """
    facts: dict[str, str] = {}

    def take(link: Link, frames: Frames, nbytes: int) -> None:  # noqa: ARG001 -- the link's signature
        for topic, payload in zip(frames.topics, frames.payloads, strict=True):
            if topic.startswith(b"$SYS/"):
                facts[topic.decode()] = payload.decode("utf-8", "replace")
        link.send(acknowledge(frames.packet_ids))

    # a session of its own, asked to last, so that what the broker says about lasting is said to this one
    ask = Connect(client_id=f"{name}-check", receive_maximum=receive_maximum)
    address = replace(address)
    try:
        link = await _connect(address, ask, version, take)
    except FettleError as error:
        return [Finding("error", str(error), "the collector cannot start until this is mended")]
    found: list[Finding] = []
    try:
        assert link.granted is not None
        found += judge(link.granted, shared=any(f.startswith("$share/") for f in filters))
        codes = await link.subscribe(filters)
        for topic, code in zip(filters, codes, strict=True):
            if code != 1:
                why = "only QoS 0" if code == 0 else f"refused with reason {code:#04x}"
                found.append(Finding("error", f"subscription {topic}: {why}", "let the broker's access list allow reading it at QoS 1"))  # fmt: skip
        await link.subscribe([VERSION, DROPPED])
        await asyncio.sleep(_SYS_WAIT_S)
    except (TimeoutError, FettleError) as error:
        found.append(Finding("error", f"the broker did not answer: {error}", "look into the broker's log"))
    finally:
        await link.close()
        await _forget_session(address, ask, link.version)
    found += judge_facts(facts)
    if probe:
        kept = await count_kept(address, name=f"{name}-probe", version=link.version)
        if kept < _PROBE_MESSAGES:
            found.append(Finding("error", f"of {_PROBE_MESSAGES} messages for an absent subscriber the broker kept {kept}", "in mosquitto.conf: max_queued_messages 0, and max_queued_bytes as large as an outage needs"))  # fmt: skip
        else:
            found.append(
                Finding("ok", f"the broker keeps at least {_PROBE_MESSAGES} messages for an absent subscriber")
            )
    return found


def judge(granted: Connected, *, shared: bool = False) -> list[Finding]:
    """Return what a CONNACK means for the promise."""
    found = []
    if granted.version is Version.V3:
        found.append(Finding("warning", "the broker speaks only MQTT 3.1.1", "expect some 20 messages in flight, and no promise on amqtt; use a broker of MQTT 5"))  # fmt: skip
    else:
        found.append(Finding("ok", "the broker speaks MQTT 5"))
    expiry = granted.session_expiry_s
    if expiry is not None and expiry != NEVER_EXPIRES:
        found.append(Finding("warning", f"the broker forgets a session after {expiry} s", "raise its limit (Mosquitto: persistent_client_expiration) above the longest outage planned for"))  # fmt: skip
    if granted.max_qos < 1:
        found.append(Finding("error", "the broker grants no QoS 1", "raise its maximum QoS (Mosquitto: max_qos 2)"))
    if granted.max_packet_bytes is not None and granted.max_packet_bytes < 1 << 20:
        found.append(Finding("warning", f"the broker takes packets of at most {granted.max_packet_bytes} bytes", "raise the limit (Mosquitto: max_packet_size) above the largest waveform"))  # fmt: skip
    if not granted.has_wildcards:
        found.append(Finding("error", "the broker allows no wildcards in subscriptions", "allow them, or list every topic in FETTLE_COLLECTOR_TOPICS"))  # fmt: skip
    if shared and not granted.has_shared_subscriptions:
        found.append(Finding("error", "the broker has no shared subscriptions", "unset FETTLE_COLLECTOR_SHARED_GROUP, and divide the topics among collectors"))  # fmt: skip
    if not granted.has_retain:
        found.append(Finding("warning", "the broker keeps no retained messages", "births and availability of devices reach only those who listen at the time"))  # fmt: skip
    return found


def judge_facts(facts: dict[str, str]) -> list[Finding]:
    """Return what the broker's own figures under $SYS mean."""
    found = []
    make = facts.get(VERSION)
    if make:
        found.append(Finding("ok", make))
    dropped = facts.get(DROPPED, "0").strip()
    if dropped.isdigit() and int(dropped):
        found.append(Finding("warning", f"the broker has dropped {dropped} messages since its start", "in mosquitto.conf: max_queued_messages 0, and max_queued_bytes as large as an outage needs"))  # fmt: skip
    if make and "mosquitto" in make:
        found.append(Finding("warning", "Mosquitto's defaults keep 1000 messages for a subscriber that is away, and write them to disk every 30 minutes", "set max_queued_messages 0, max_queued_bytes, persistence true and autosave_interval 30; `fettle check --probe` measures it"))  # fmt: skip
    return found


async def _connect(address: Address, ask: Connect, version: str, take: object) -> Link:
    assert callable(take)
    if version != "auto":
        return await connect(address, ask, version=Version(version), on_frames=take)
    return await connect_any(address, ask, on_frames=take)


async def _forget_session(address: Address, ask: Connect, version: Version) -> None:
    """Connect once more with a clean start, so that the broker does not queue for the check."""
    try:
        link = await connect(address, replace(ask, is_clean=True), version=version, on_frames=lambda *_: None)
    except FettleError:
        return
    await link.close()


async def count_kept(address: Address, *, name: str, version: Version, messages: int = _PROBE_MESSAGES) -> int:
    """Publish to a session that is away, and return how many messages are there when it is back."""
    kept = 0

    def take(link: Link, frames: Frames, nbytes: int) -> None:  # noqa: ARG001 -- the link's signature
        nonlocal kept
        kept += len(frames)
        link.send(acknowledge(frames.packet_ids))

    ask, topic = Connect(client_id=name), f"{_PROBE_TOPIC}/{name}"
    await _forget_session(address, ask, version)
    away = await connect(address, ask, version=version, on_frames=take)
    await away.subscribe([topic])
    await away.close()
    sender = await connect(address, Connect(client_id=f"{name}-sender", is_clean=True), version=version, on_frames=take)
    for start in range(0, messages, 50):
        await asyncio.gather(*(sender.publish(topic, b"%d" % n) for n in range(start, min(start + 50, messages))))
    await sender.close()
    kept = 0
    back = await connect(address, ask, version=version, on_frames=take)
    before = -1
    while kept < messages and kept != before:
        before = kept
        await asyncio.sleep(_QUIET_S)
    await back.close()
    await _forget_session(address, ask, version)
    return kept
