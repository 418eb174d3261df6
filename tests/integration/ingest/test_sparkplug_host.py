"""The Sparkplug host: births, aliases over a restart, rebirth requests, and a STATE that says whether it can store."""

import asyncio
import json
import threading
from contextlib import asynccontextmanager

import paho.mqtt.client as mqtt
import pytest

from fettle import clock
from ingest.api import make_sparkplug
from ingest.decode.sparkplug_payload import DataType, OutMetric, encode, parse


class Edge:
    """An edge node with one device, and an eye on what the host says."""

    def __init__(self, broker):
        self.states, self.commands = [], []
        self._seq = 0
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        self.client.on_message = self._hear
        subscribed = threading.Event()
        self.client.on_subscribe = lambda *_: subscribed.set()
        self.client.connect(broker.host, broker.port)
        self.client.loop_start()
        self.client.subscribe([("spBv1.0/STATE/plant", 1), ("spBv1.0/g/NCMD/#", 0)])
        assert subscribed.wait(5)

    def _hear(self, client, userdata, message):
        if "/STATE/" in message.topic:
            self.states.append(json.loads(message.payload))
        else:
            self.commands.append(parse(message.payload, max_bytes=1 << 20).metrics[0].name)

    def send(self, kind, metrics, *, device="", skip=0):
        self._seq = 0 if kind == "NBIRTH" else (self._seq + 1 + skip) % 256
        body = encode(ts_ms=clock.now_us() // 1000, metrics=metrics, seq=self._seq)
        self.client.publish(f"spBv1.0/g/{kind}/edge" + (f"/{device}" if device else ""), body, qos=0).wait_for_publish(
            5
        )

    def be_born(self, value=20.5):
        self.send("NBIRTH", [OutMetric("bdSeq", DataType.UINT64, 0), OutMetric("temp", DataType.DOUBLE, value, alias=1, properties={"engUnit": "Cel"})])  # fmt: skip

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def edge(mosquitto):
    one = Edge(mosquitto)
    yield one
    one.close()


@pytest.fixture
def hosting(settings_for, mosquitto):
    @asynccontextmanager
    async def run(url):
        settings = settings_for(collector_sparkplug_host="plant")
        stop = asyncio.Event()
        host = make_sparkplug(settings, url=url, host=mosquitto.host, port=mosquitto.port)
        task = asyncio.create_task(host.run(stop))
        ready = asyncio.create_task(host.is_connected.wait())
        await asyncio.wait({ready, task}, timeout=20, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
        yield host
        stop.set()
        await asyncio.wait_for(task, 20)
        host.counters.check()

    return run


async def _until(condition, *, seconds=20.0):
    deadline = clock.monotonic_s() + seconds
    while not condition():
        assert clock.monotonic_s() < deadline, "it did not happen in time"
        await asyncio.sleep(0.02)


async def test_births_and_data_are_stored_and_aliases_survive_a_restart(database, hosting, edge, rows):
    async with hosting(database.url) as host:
        edge.be_born(20.5)
        await asyncio.sleep(0.01)  # time stamps are milliseconds
        edge.send("NDATA", [OutMetric(None, DataType.DOUBLE, 21.5, alias=1)])
        await _until(lambda: host.counters.readings.done == 2)
        await _until(lambda: rows(database, "SELECT count(*) FROM sparkplug_node") == [(1,)])
    async with hosting(database.url) as host:
        edge.send("NDATA", [OutMetric(None, DataType.DOUBLE, 22.5, alias=1)])
        await _until(lambda: host.counters.readings.done == 1)
        await _until(lambda: "Node Control/Rebirth" in edge.commands)
    found = rows(database, "SELECT s.name, s.unit, r.value FROM reading r JOIN sensor s ON s.id = r.sensor_id ORDER BY r.ts")  # fmt: skip
    assert found == [("temp", "°C", 20.5), ("temp", "°C", 21.5), ("temp", "°C", 22.5)]


async def test_a_gap_is_followed_by_one_request_for_a_rebirth(plain_database, hosting, edge):
    async with hosting(plain_database.url) as host:
        edge.be_born()
        await asyncio.sleep(0.01)  # time stamps are milliseconds
        edge.send("NDATA", [OutMetric(None, DataType.DOUBLE, 1.0, alias=1)], skip=3)
        await _until(lambda: edge.commands)
        await asyncio.sleep(1)
        assert edge.commands == ["Node Control/Rebirth"]
        assert host.host.counters.gaps == 1
        assert host.counters.readings.done == 2, "what arrives meanwhile is stored"


async def test_the_host_is_online_exactly_while_it_can_store(plain_database, proxied, hosting, edge, rows):
    proxy, through = proxied(plain_database)
    async with hosting(through.url) as host:
        await _until(lambda: edge.states and edge.states[-1]["online"])
        edge.be_born()
        await _until(lambda: host.counters.readings.done == 1)
        proxy.hold_commits.clear()
        edge.send("NDATA", [OutMetric(None, DataType.DOUBLE, 1.0, alias=1)])
        await _until(lambda: host.counters.messages.in_flight == 1)  # before the host leaves: QoS 0 is not sent again
        proxy.is_down = True
        proxy.cut()
        proxy.hold_commits.set()
        await _until(lambda: not edge.states[-1]["online"])
        assert host.counters.messages.in_flight == 1
        await asyncio.sleep(0.5)
        assert not edge.states[-1]["online"], "it must not come back while it cannot store"
        proxy.is_down = False
        await _until(lambda: edge.states[-1]["online"])
        await _until(lambda: host.counters.readings.done == 2)
        stamps = [state["timestamp"] for state in edge.states]
        assert stamps == sorted(stamps)
    await _until(lambda: not edge.states[-1]["online"])
    assert rows(plain_database, "SELECT value FROM reading ORDER BY ts") == [(20.5,), (1.0,)]


async def test_a_false_death_is_contradicted_at_once(plain_database, hosting, edge):
    async with hosting(plain_database.url):
        await _until(lambda: edge.states and edge.states[-1]["online"])
        edge.client.publish("spBv1.0/STATE/plant", b'{"online": false, "timestamp": 1}', qos=1, retain=True)
        await _until(lambda: {"online": False, "timestamp": 1} in edge.states and edge.states[-1]["online"])
