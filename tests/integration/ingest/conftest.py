"""A collector in the test's own event loop, a publisher that waits for the broker's acknowledgements, and a proxy in
front of the database that delays, cuts and refuses.
"""

import asyncio
import socket
import threading
from collections.abc import Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace

import paho.mqtt.client as mqtt
import psycopg
import pytest

from fettle import clock
from fettle.settings import Settings
from ingest.api import Collector, Counters, make_collector


@dataclass
class Running:
    """A collector that listens, and what a test does with it."""

    collector: Collector
    stop: asyncio.Event
    task: asyncio.Task[Counters]

    async def until(self, condition, *, seconds=20.0, what="the condition"):
        """Wait until `condition(counters)` holds; fail where it does not, or the collector ends before."""
        deadline = clock.monotonic_s() + seconds
        while not condition(self.collector.counters):
            if self.task.done():
                await self.task
                raise AssertionError("the collector ended")
            assert clock.monotonic_s() < deadline, f"{what} did not come: {self.collector.counters}"
            await asyncio.sleep(0.01)

    async def settle(self, messages, *, seconds=20.0):
        """Wait until so many messages have come and none is in flight; the accounts must balance."""
        await self.until(
            lambda c: c.messages.received >= messages and not c.messages.in_flight, seconds=seconds,
            what=f"{messages} messages",
        )  # fmt: skip
        self.collector.counters.check()


def _publish(broker, messages: Sequence[tuple[str, bytes]], qos, retain):
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    client.max_inflight_messages_set(2000)
    client.connect(broker.host, broker.port)
    client.loop_start()
    sent = [client.publish(topic, payload, qos=qos, retain=retain) for topic, payload in messages]
    for info in sent:
        info.wait_for_publish(20)
    client.disconnect()
    client.loop_stop()


@pytest.fixture
def publish():
    """Publish (topic, payload) pairs and return when the broker has acknowledged all."""

    async def run(broker, messages, *, qos=1, retain=False):
        await asyncio.to_thread(_publish, broker, messages, qos, retain)

    return run


@pytest.fixture
def reading():
    """Encode one reading as Fettle's own devices do; `ago_s` is its age."""
    now_ms = clock.now_us() // 1000

    def encode(value, *, n=0, unit="mm/s", ago_s=0):
        return b'{"ts":%d,"value":%r,"unit":"%s"}' % (now_ms + n - ago_s * 1000, float(value), unit.encode())

    return encode


@pytest.fixture
def settings_for(tmp_path):
    def make(**more):
        return Settings(_env_file=None, data_dir=tmp_path / "data", **more)

    return make


@pytest.fixture
def collecting(settings_for):
    """Context manager: a collector on a database and a broker, stopped and its accounts checked at the end."""

    @asynccontextmanager
    async def run(database, broker, *, wait=True, **more):
        settings = settings_for(**more)
        stop = asyncio.Event()
        collector = make_collector(settings, url=database.url, host=broker.host, port=broker.port)
        task = asyncio.create_task(collector.run(stop))
        running = Running(collector, stop, task)
        try:
            if wait:
                ready = asyncio.create_task(collector.is_connected.wait())
                await asyncio.wait({ready, task}, timeout=20, return_when=asyncio.FIRST_COMPLETED)
                if task.done():
                    await task
                assert ready.done(), "the collector did not connect"
            yield running
        finally:
            stop.set()
            await asyncio.wait_for(asyncio.gather(task, return_exceptions=True), 20)
            collector.counters.check()

    return run


@pytest.fixture
def rows():
    """Run a query as the owner and return all rows."""

    def fetch(database, query, *args):
        with psycopg.connect(database.url) as conn:
            return conn.execute(query, args or None).fetchall()

    return fetch


class Proxy:
    """Stands between a client and PostgreSQL's socket. Faults are switched on by setting attributes."""

    def __init__(self, upstream):
        self.commits = 0
        self.hold_commits = threading.Event()
        self.hold_commits.set()  # set: let them pass
        self.cut_before_commit = 0  # so many COMMITs never reach the server
        self.cut_after_commit = 0  # so many COMMITs reach it, and their answer is lost
        self.is_down = False
        self._upstream = upstream
        self._closing = False
        self._pairs = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while not self._closing:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.is_down:
                client.close()
                continue
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._upstream)
            self._pairs.append((client, server))
            threading.Thread(target=self._pump, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client, False), daemon=True).start()

    def _pump(self, source, target, from_client):
        try:
            while data := source.recv(1 << 16):
                if from_client and b"COMMIT\0" in data:
                    self.commits += 1
                    self.hold_commits.wait()
                    if self.cut_before_commit:
                        self.cut_before_commit -= 1
                        break
                    if self.cut_after_commit:
                        self.cut_after_commit -= 1
                        source.shutdown(socket.SHUT_RDWR)  # first: the answer must not overtake
                        source.close()
                        target.sendall(data)
                        target.recv(1 << 16)  # its answer: the transaction is committed now
                        break
                target.sendall(data)
        except OSError:
            pass
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def cut(self):
        for pair in self._pairs:
            for end in pair:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
        self._pairs.clear()

    def close(self):
        self._closing = True
        self.hold_commits.set()
        self._listener.close()
        self.cut()


@pytest.fixture
def proxied():
    """Put a proxy in front of a database; returns (proxy, the database as seen through it)."""
    opened = []

    def make(database):
        folder = psycopg.conninfo.conninfo_to_dict(database.url)["host"]
        proxy = Proxy(f"{folder}/.s.PGSQL.5432")
        opened.append(proxy)
        url = psycopg.conninfo.make_conninfo(database.url, host="127.0.0.1", port=proxy.port)
        return proxy, replace(database, url=url)

    yield make
    for proxy in opened:
        proxy.close()
