"""Which version of MQTT is spoken with a broker that does not answer at once: a busy one keeps its MQTT 5."""

import asyncio
from contextlib import asynccontextmanager, suppress

import mqtt5
import pytest

from ingest import session
from ingest.packets import Connect, Version
from ingest.session import Address, Silent, connect_any

V3_CONNACK = b"\x20\x02\x00\x00"
ASK = Connect(client_id="collector")


@asynccontextmanager
async def server(*behaviours):
    """Serve one connection after the other; each answers CONNECT, or is silent."""
    asked, left, serving = [], list(behaviours), []

    async def serve(reader, writer):
        serving.append(asyncio.current_task())
        head = await reader.readexactly(2)
        body = await reader.readexactly(head[1])
        version = Version.V5 if body[6] == 5 else Version.V3
        client_id = body.partition(b"collector")[2][:6]
        asked.append((version, b"-probe" in client_id))
        if left.pop(0) == "answers":
            writer.write(mqtt5.ConnAckPacket().write() if version is Version.V5 else V3_CONNACK)
        with suppress(ConnectionError):
            await reader.read()
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        yield Address(host="127.0.0.1", port=port), asked
        await asyncio.gather(*serving)


@pytest.fixture(autouse=True)
def _short_patience(monkeypatch):
    monkeypatch.setattr(session, "_CONNACK_S", 0.2)
    monkeypatch.setattr(session, "_BUSY_CONNACK_S", 0.3)
    monkeypatch.setattr(session, "_GOODBYE_S", 0.1)


async def test_a_busy_broker_keeps_its_mqtt_5():
    async with server("silent", "answers", "answers") as (address, asked):
        link = await connect_any(address, ASK, on_frames=lambda *_: None)
        assert link.version is Version.V5
        assert asked == [(Version.V5, False), (Version.V3, True), (Version.V5, False)]
        await link.close()


async def test_a_broker_that_is_silent_to_mqtt_5_alone_is_spoken_to_in_3_1_1():
    async with server("silent", "answers", "silent", "answers") as (address, asked):
        link = await connect_any(address, ASK, on_frames=lambda *_: None)
        assert link.version is Version.V3
        assert asked[-1] == (Version.V3, False)
        await link.close()


async def test_a_broker_that_is_silent_to_everything_is_tried_again_later():
    async with server("silent", "silent") as (address, asked):
        with pytest.raises(Silent, match="does not answer CONNECT"):
            await connect_any(address, ASK, on_frames=lambda *_: None)
        assert len(asked) == 2


async def test_a_broker_that_has_spoken_mqtt_5_is_waited_for():
    async with server("silent") as (address, asked):
        with pytest.raises(Silent):
            await connect_any(address, ASK, on_frames=lambda *_: None, knows_v5=True)
        assert asked == [(Version.V5, False)]
