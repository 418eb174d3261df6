"""What the collector asks of a broker, says about it, and survives with it: limits, restarts, figures."""

import asyncio
import os
import signal
import subprocess
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, replace

import mqtt5
import pytest

from fettle import clock, embedded
from ingest.api import metrics_page, preflight
from ingest.collector import SubscriptionRefused
from ingest.session import TakenOver

TOPIC = "fettle/default/s1/m1/vibration"


@dataclass
class Own:
    """A Mosquitto and its process."""

    host: str
    port: int
    child: "subprocess.Popen[bytes]"


@contextmanager
def _mosquitto(folder, lines, *, port=None):
    """Run a Mosquitto on a configuration of its own."""
    program = embedded.mosquitto_program()
    if program is None:
        pytest.skip("mosquitto is not installed (Debian package: mosquitto)")
    folder.mkdir(exist_ok=True)
    port = port or embedded.free_port()
    conf = folder / "mosquitto.conf"
    user = ["user root"] if os.geteuid() == 0 else []
    conf.write_text("\n".join([f"listener {port} 127.0.0.1", *lines, *user]) + "\n")
    child = subprocess.Popen([program, "-c", str(conf)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        embedded._wait_for_port(child, port, folder)
        yield Own("127.0.0.1", port, child)
    finally:
        child.terminate()
        child.wait(10)


async def _until(condition, *, seconds=20.0):
    deadline = clock.monotonic_s() + seconds
    while not condition():
        assert clock.monotonic_s() < deadline, "it did not happen in time"
        await asyncio.sleep(0.02)


# preflight


async def test_a_broker_with_its_defaults_is_found_wanting(tmp_path, settings_for):
    with _mosquitto(tmp_path / "b", ["allow_anonymous true", "persistent_client_expiration 1h"]) as broker:
        found = await preflight(settings_for(), host=broker.host, port=broker.port, probe=True)
    assert any(f.level == "error" and "kept 10" in f.text and "max_queued_messages" in f.remedy for f in found), found
    assert all(f.remedy for f in found if f.level != "ok")


async def test_the_embedded_broker_passes(mosquitto, settings_for):
    found = await preflight(settings_for(), host=mosquitto.host, port=mosquitto.port, probe=True)
    assert not [f for f in found if f.level == "error"], found
    assert any("keeps at least 1100" in f.text for f in found)


@pytest.mark.parametrize(("code", "words"), [("NOT_AUTHORIZED", "0x87"), ("GRANTED_QOS_AT_MOST_ONCE", "QoS 0")])
async def test_a_subscription_that_is_not_granted_in_full_is_an_error(
    settings_for, collecting, plain_database, code, words
):
    async def serve(reader, writer):
        await reader.read(1024)
        writer.write(mqtt5.ConnAckPacket().write())
        while (data := await reader.read(1024))[:1] == b"\x82":
            packet, _ = mqtt5.read(memoryview(data))
            codes = [getattr(mqtt5.SubAckReasonCode, code)] * len(packet.topic_filters)
            writer.write(mqtt5.SubAckPacket(packet.packet_id, codes).write())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    broker = embedded.Broker("127.0.0.1", server.sockets[0].getsockname()[1], "given")
    async with server:
        found = await preflight(settings_for(), host=broker.host, port=broker.port)
        assert any(f.level == "error" and "fettle/#" in f.text and words in f.text for f in found), found
        with pytest.raises(SubscriptionRefused, match=words):
            async with collecting(plain_database, broker):
                pass


async def test_no_broker_at_all_is_one_finding(settings_for):
    found = await preflight(settings_for(), host="127.0.0.1", port=embedded.free_port())
    assert [f.level for f in found] == ["error"]
    assert "FETTLE_BROKER_HOST" in found[0].text


# faults of the broker


async def test_a_broker_that_is_restarted_is_found_again(plain_database, tmp_path, collecting, publish, reading, rows):
    port = embedded.free_port()
    lines = ["allow_anonymous true", "persistence true", f"persistence_location {tmp_path}/b/", "max_queued_messages 0"]
    with _mosquitto(tmp_path / "b", lines, port=port) as broker:
        async with collecting(plain_database, broker) as running:
            await publish(broker, [(TOPIC, reading(i, n=i)) for i in range(100)])
            await running.settle(100)
            # the broker restarts while the collector lives
            broker.child.terminate()
            await running.until(lambda c: c.reconnects >= 1)
            with _mosquitto(tmp_path / "b", lines, port=port):
                await publish(broker, [(TOPIC, reading(i, n=i)) for i in range(100, 200)])
                await running.settle(200)
                assert running.collector.counters.sessions_lost == 0
                running.stop.set()
                await running.task
    assert rows(plain_database, "SELECT count(*) FROM reading") == [(200,)]


async def test_a_broker_that_hangs_is_noticed(plain_database, tmp_path, collecting, publish, reading, settings_for):
    """Half-open: the process is stopped, so the connection stays and nothing comes."""
    with _mosquitto(tmp_path / "b", ["allow_anonymous true", "max_queued_messages 0"]) as broker:
        async with collecting(plain_database, broker, wait=False) as running:
            running.collector.options = replace(running.collector.options, keep_alive_s=1)
            await asyncio.wait_for(running.collector.is_connected.wait(), 20)
            broker.child.send_signal(signal.SIGSTOP)
            try:
                await running.until(lambda c: c.reconnects >= 1, seconds=10)
            finally:
                broker.child.send_signal(signal.SIGCONT)
            await asyncio.wait_for(running.collector.is_connected.wait(), 30)
            await publish(broker, [(TOPIC, reading(1))])
            await running.settle(1)


# identity


async def test_a_client_that_was_thrown_out_by_a_namesake_stops(plain_database, collecting):
    """A broker that says so (0x8E): coming back at once would throw the other one out, and so on for ever."""
    connections = 0

    async def serve(reader, writer):
        nonlocal connections
        connections += 1
        await reader.read(1024)
        writer.write(mqtt5.ConnAckPacket().write())
        packet, _ = mqtt5.read(memoryview(await reader.read(1024)))
        codes = [mqtt5.SubAckReasonCode.GRANTED_QOS_AT_LEAST_ONCE]
        writer.write(mqtt5.SubAckPacket(packet.packet_id, codes).write())
        await asyncio.sleep(0.2)
        writer.write(b"\xe0\x01\x8e")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    broker = embedded.Broker("127.0.0.1", server.sockets[0].getsockname()[1], "given")
    async with server:
        async with collecting(plain_database, broker, wait=False) as running:
            with pytest.raises(TakenOver, match="FETTLE_COLLECTOR_NAME"):
                await asyncio.wait_for(running.task, 20)
            assert connections == 1


# figures


async def test_figures_say_what_happened(plain_database, mosquitto, collecting, publish, reading):
    async with collecting(plain_database, mosquitto) as running:
        await publish(mosquitto, [(TOPIC, reading(i, n=i)) for i in range(50)] + [(TOPIC, b"{"), ("fettle/x", b"1")])
        await running.settle(52)
        page = metrics_page(running.collector)
    figures = dict(line.rsplit(" ", 1) for line in page.splitlines() if not line.startswith("#"))
    assert figures['fettle_ingest_messages{outcome="done"}'] == "50"
    assert figures['fettle_ingest_messages{outcome="rejected"}'] == "2"
    assert figures['fettle_ingest_readings{outcome="done"}'] == "50"
    assert figures["fettle_ingest_unknown_topics_total"] == "1"
    assert figures["fettle_ingest_window_used"] == "0"
    assert figures['fettle_ingest_state{state="writing"}'] == "1"
    assert figures['fettle_ingest_receipt_to_commit_seconds_bucket{le="+Inf"}'] == figures["fettle_ingest_batches_total"]  # fmt: skip
    families = [line.split()[2] for line in page.splitlines() if line.startswith("# TYPE")]
    assert len(families) == len(set(families)) > 20


async def test_figures_are_served_on_a_port_of_their_own(plain_database, mosquitto, settings_for):
    from ingest.api import collect

    port = embedded.free_port()
    stop = asyncio.Event()
    task = asyncio.create_task(
        collect(settings_for(collector_metrics_port=port), url=plain_database.url, host=mosquitto.host, port=mosquitto.port, stop=stop)
    )  # fmt: skip

    def fetch():
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            return answer.read().decode()

    page = ""
    deadline = clock.monotonic_s() + 20
    while "fettle_ingest_connected 1" not in page:
        assert clock.monotonic_s() < deadline
        await asyncio.sleep(0.1)
        try:
            page = await asyncio.to_thread(fetch)
        except OSError:
            continue
    stop.set()
    (await asyncio.wait_for(task, 10)).check()
