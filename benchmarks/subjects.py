"""The processes that the ingestion benchmark compares: our collector, and bare subscribers that store nothing.

Each runs in a process of its own, tells when it listens, and answers how many messages it has done, what CPU time it has
used and how much memory it holds. And a publisher that feeds a real broker for next to nothing.
"""

import asyncio
import multiprocessing
import multiprocessing.connection
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mqtt5
import numpy as np

from benchmarks.synthetic_broker import Source
from fettle.settings import Settings
from ingest.api import make_collector
from ingest.frames import Frames, acknowledge
from ingest.packets import Connect, Version
from ingest.session import Address, Link, connect


@dataclass(frozen=True)
class Usage:
    """What a subject has done and used."""

    done: int
    cpu_s: float
    peak_mb: float


Pipe = multiprocessing.connection.Connection


def _usage(done: int) -> Usage:
    status = Path("/proc/self/status").read_text()
    peak = int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
    return Usage(done, time.process_time(), peak / 1024)


async def _answer(pipe: Pipe, count: Callable[[], int]) -> None:
    """Answer questions until told to stop."""
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    loop.add_reader(pipe.fileno(), asked.set)
    while True:
        await asked.wait()
        asked.clear()
        while pipe.poll():
            if pipe.recv() == "stop":
                loop.remove_reader(pipe.fileno())
                return
            pipe.send(_usage(count()))


def _run_collector(pipe: Pipe, port: int, url: str, more: dict[str, Any]) -> None:
    async def main() -> None:
        settings = Settings(_env_file=None, **more)
        collector = make_collector(settings, url=url, host="127.0.0.1", port=port)
        stop = asyncio.Event()
        task = asyncio.create_task(collector.run(stop))
        await asyncio.wait({asyncio.create_task(collector.is_connected.wait()), task}, return_when="FIRST_COMPLETED")
        pipe.send("ready")
        await _answer(pipe, lambda: collector.counters.messages.done)
        stop.set()
        (await task).check()

    asyncio.run(main())


def _run_bare(pipe: Pipe, port: int) -> None:
    """Our own reader, acknowledging at once and keeping nothing."""

    async def main() -> None:
        done = 0

        def take(link: Link, frames: Frames, nbytes: int) -> None:  # noqa: ARG001
            nonlocal done
            link.send(acknowledge(frames.packet_ids))
            done += len(frames)

        ask = Connect(client_id="bare", is_clean=True, receive_maximum=20_000)
        link = await connect(Address(host="127.0.0.1", port=port), ask, version=Version.V5, on_frames=take)
        await link.subscribe(["fettle/#"])
        pipe.send("ready")
        await _answer(pipe, lambda: done)
        await link.close()

    asyncio.run(main())


def _run_paho(pipe: Pipe, port: int) -> None:
    """paho-mqtt, MQTT 5, acknowledging by hand in its callback."""
    import paho.mqtt.client as mqtt
    from paho.mqtt.enums import CallbackAPIVersion
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    done = 0

    def on_message(client: mqtt.Client, userdata: object, message: mqtt.MQTTMessage) -> None:  # noqa: ARG001
        nonlocal done
        client.ack(message.mid, message.qos)
        done += 1

    client = mqtt.Client(CallbackAPIVersion.VERSION2, "paho", protocol=mqtt.MQTTv5, manual_ack=True)
    client.on_message = on_message
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.ReceiveMaximum = 20_000
    client.connect("127.0.0.1", port, properties=properties)
    client.subscribe("fettle/#", qos=1)
    client.loop_start()
    time.sleep(0.5)
    pipe.send("ready")
    asyncio.run(_answer(pipe, lambda: done))
    client.disconnect()
    client.loop_stop()


def _run_aiomqtt(pipe: Pipe, port: int) -> None:
    """aiomqtt 2, whose acknowledgements are not ours to give: a loop over its messages."""
    import aiomqtt

    async def main() -> None:
        done = 0
        async with aiomqtt.Client(
            "127.0.0.1", port, identifier="aiomqtt", protocol=aiomqtt.ProtocolVersion.V5
        ) as client:
            await client.subscribe("fettle/#", qos=1)
            pipe.send("ready")

            async def read() -> None:
                nonlocal done
                async for _ in client.messages:
                    done += 1

            reading = asyncio.create_task(read())
            await _answer(pipe, lambda: done)
            reading.cancel()

    asyncio.run(main())


SUBJECTS: dict[str, Callable[..., None]] = {
    "collector": _run_collector,
    "bare": _run_bare,
    "paho": _run_paho,
    "aiomqtt": _run_aiomqtt,
}


@dataclass
class Subject:
    """A running subject."""

    pipe: Pipe

    def usage(self) -> Usage:
        self.pipe.send("usage")
        answer = self.pipe.recv()
        assert isinstance(answer, Usage)
        return answer

    def wait(self, messages: int, *, timeout_s: float) -> None:
        """Return when so many messages are done.

        Raises:
            TimeoutError: they are not in time.
        """
        deadline = time.perf_counter() + timeout_s
        while (done := self.usage().done) < messages:
            if time.perf_counter() > deadline:
                raise TimeoutError(f"{done} of {messages} messages within {timeout_s:g} s")
            time.sleep(0.02)


@contextmanager
def running(name: str, port: int, *more: Any) -> Iterator[Subject]:
    """Start a subject on a broker, and wait until it listens."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=SUBJECTS[name], args=(theirs, port, *more), daemon=True)
    child.start()
    theirs.close()
    try:
        if not ours.poll(30) or ours.recv() != "ready":
            raise SystemExit(f"{name} did not start")
        yield Subject(ours)
    finally:
        with suppress(OSError):
            ours.send("stop")
        child.join(15)
        if child.is_alive():
            child.kill()


def _publish(source: Source, port: int, rate: float | None, window: int, pipe: Pipe) -> None:
    """Publish all messages of a source at QoS 1, so many unacknowledged at most."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(mqtt5.ConnectPacket(f"blaster-{os.getpid()}", clean_start=True).write())
        sock.recv(1024)
        pipe.send("ready")
        pipe.recv()
        began = time.perf_counter()
        sent = acknowledged = 0
        rest = b""
        sock.setblocking(False)
        outgoing = memoryview(b"")
        while acknowledged < source.messages:
            if not outgoing and sent < source.messages:
                room = min(window - (sent - acknowledged), source.messages - sent, 500)
                if rate is not None:
                    room = min(room, int((time.perf_counter() - began) * rate) - sent)
                if room > 0:
                    outgoing = memoryview(source.frames(sent, sent + room, is_redelivery=False))
                    sent += room
            if outgoing:
                with suppress(BlockingIOError):
                    outgoing = outgoing[sock.send(outgoing) :]
            try:
                data = rest + sock.recv(1 << 16)
            except BlockingIOError:
                time.sleep(0.0005)
                continue
            # a PUBACK is four bytes, or more where the broker adds a reason
            at = 0
            while len(data) - at >= 2 and len(data) - at >= data[at + 1] + 2:
                at += data[at + 1] + 2
                acknowledged += 1
            rest = data[at:]
        pipe.send("done")


@contextmanager
def publishing(
    source: Source, port: int, *, rate: float | None = None, window: int = 2000
) -> Iterator[Callable[[], None]]:
    """Prepare a publisher; calling what is yielded starts it."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=_publish, args=(source, port, rate, window, theirs), daemon=True)
    child.start()
    if not ours.poll(30):
        raise SystemExit("the publisher did not start")
    ours.recv()
    try:
        yield lambda: ours.send("go")
    finally:
        child.join(5)
        if child.is_alive():
            child.kill()


def percentile(values: "deque[float] | list[float]", share: float) -> float:
    return float(np.quantile(np.asarray(values), share))
