"""Publishing to real brokers with both clients, read back by a connection of paho's."""

import re
import shutil
import socket
import subprocess
import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import orjson
import paho.mqtt.client as paho
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from fettle import clock, embedded
from fettle.wire import encode_reading
from simulators.api import (
    FORMATS,
    BrokerAddress,
    BrokerUnreachable,
    Bursts,
    Fleet,
    deliveries,
    load_scenario,
    publish_live,
)
from simulators.broker import BrokerGone, BrokerRefused, Message, MessageTooLarge, PublishRefused
from simulators.clients import ClientChoice, open_publisher

MINUTE = 60_000_000


@pytest.fixture(params=["paho", "batch"])
def client(request):
    """Each of the two clients: they keep the same promises."""
    return ClientChoice(request.param)


@pytest.fixture(params=["mosquitto", "amqtt"])
def broker(request):
    """Each of two brokers that have nothing in common; amqtt speaks 3.1.1 alone."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def amqtt(tmp_path):
    with embedded.broker(tmp_path / "amqtt", pure_python=True) as running:
        yield running


def address(broker, **more):
    return BrokerAddress(host=broker.host, port=broker.port, **more)


@contextmanager
def listener(broker, topic="#", qos=1, client_id=""):
    """Collect what the broker hands out; ready when the block begins. With a client id the session is kept."""
    got, ready = [], threading.Event()
    v5 = broker.kind != "amqtt"
    client = paho.Client(
        paho.CallbackAPIVersion.VERSION2,
        client_id=client_id or f"test-{time.monotonic_ns()}",
        protocol=paho.MQTTv5 if v5 else paho.MQTTv311,
    )
    expiry = Properties(PacketTypes.CONNECT)
    expiry.SessionExpiryInterval = 300 if client_id else 0
    client.on_message = lambda _c, _u, m: got.append((m.topic, m.payload, m.qos, getattr(m, "properties", None)))
    client.on_subscribe = lambda *_: ready.set()
    if v5:
        client.connect(broker.host, broker.port, clean_start=not client_id, properties=expiry)
    else:
        client.connect(broker.host, broker.port)
    client.subscribe(topic, qos=qos)
    client.loop_start()
    try:
        assert ready.wait(10)
        yield got
    finally:
        client.disconnect()
        client.loop_stop()


def wait_for(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    assert condition()


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_arrives_whole(mosquitto, client, name):
    scenario = load_scenario("quiet-day")
    fleet = Fleet(scenario, machines=3)
    start = scenario.start_us
    with listener(mosquitto) as got:
        status = publish_live(
            fleet,
            address=address(mosquitto),
            start_us=start,
            end_us=start + 10 * MINUTE,
            speed=0,
            payload_format=name,
            client=client,
        )
        wait_for(lambda: len(got) >= status.messages)
    assert status.version == 5
    assert status.readings == deliveries(fleet, start, start + 10 * MINUTE).size == 3 * 3 * 10
    assert len(got) == status.messages
    assert status.warnings == []
    if name != "sparkplug":
        assert status.acknowledged == status.messages
        assert {qos for _, _, qos, _ in got} == {1}
    else:
        kinds = [topic.split("/")[2] for topic, *_ in got]
        assert kinds[:4] == ["NBIRTH", "DBIRTH", "DBIRTH", "DBIRTH"]
        assert kinds[-1] == "NDEATH"
    if name.startswith("senml"):
        assert {p.ContentType for *_, p in got} == {"application/senml+" + ("cbor" if "cbor" in name else "json")}


def test_paced_publishing_keeps_time(mosquitto, client):
    scenario = load_scenario("quiet-day").with_period(1.0)
    fleet = Fleet(scenario, machines=2)
    start = scenario.start_us
    with listener(mosquitto) as got:
        began = time.monotonic()
        status = publish_live(
            fleet,
            address=address(mosquitto),
            start_us=start,
            end_us=start + 20_000_000,
            speed=10.0,
            may_lead=True,
            client=client,
        )
        took = time.monotonic() - began
        wait_for(lambda: len(got) >= 120)
    assert 1.8 < took < 6
    assert status.worst_lag_s < 2
    stamps = [orjson.loads(payload)["ts"] for _, payload, *_ in got]
    assert stamps == sorted(stamps)


def test_time_stamps_never_run_ahead_of_the_clock(mosquitto):
    scenario = load_scenario("quiet-day").with_period(1.0)
    fleet = Fleet(scenario, machines=2)
    stop = threading.Event()
    threading.Timer(2.0, stop.set).start()
    with listener(mosquitto) as got:
        publish_live(fleet, address=address(mosquitto), start_us=clock.now_us() - 60_000_000, speed=60.0, stop=stop)
        wait_for(lambda: len(got) > 300)
        newest = max(orjson.loads(payload)["ts"] for _, payload, *_ in got)
    assert newest <= clock.now_us() / 1000


def test_waveforms_are_sent_beside_the_readings(mosquitto, client):
    scenario = load_scenario("quiet-day")
    fleet = Fleet(scenario, machines=2)
    start = scenario.start_us
    with listener(mosquitto, "fettle/+/+/+/waveform") as got:
        publish_live(
            fleet,
            address=address(mosquitto),
            start_us=start,
            end_us=start + 20 * MINUTE,
            speed=0,
            bursts=Bursts(every_s=300, duration_s=0.5, fs_hz=12_800),
            client=client,
        )
        wait_for(lambda: len(got) == 2 * 4)
    assert {len(orjson.loads(payload)["values"]) for _, payload, *_ in got} == {6400}


def test_a_rebirth_is_answered(broker, client):
    scenario = load_scenario("quiet-day").with_period(1.0)
    fleet = Fleet(scenario, machines=1)
    stop = threading.Event()
    host = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="host")
    with listener(broker, "spBv1.0/#") as got:
        run = threading.Thread(
            target=publish_live,
            kwargs={
                "fleet": fleet,
                "address": address(broker),
                "start_us": clock.now_us(),
                "payload_format": "sparkplug",
                "stop": stop,
                "client": client,
            },
        )
        run.start()
        try:
            wait_for(lambda: any("NBIRTH" in topic for topic, *_ in got))
            host.connect(broker.host, broker.port)
            host.loop_start()
            host.publish("spBv1.0/default/NCMD/sim-quiet-day", b"\x12\x18\n\x14Node Control/Rebirthp\x01")
            wait_for(lambda: sum("NBIRTH" in topic for topic, *_ in got) == 2)
        finally:
            stop.set()
            run.join(10)
            host.disconnect()
            host.loop_stop()
    assert not run.is_alive()


def test_who_dies_without_a_word_leaves_its_will(broker, client):
    will = Message("spBv1.0/g/NDEATH/n", b"gone", qos=1)
    with listener(broker, "spBv1.0/#") as got:
        publisher = open_publisher(client, address(broker), client_id="x", will=will)
        kill(publisher)
        wait_for(lambda: got)
        with open_publisher(client, address(broker), client_id="y", will=will):
            pass
        time.sleep(0.3)
    assert [(topic, payload) for topic, payload, *_ in got] == [("spBv1.0/g/NDEATH/n", b"gone")]


def kill(publisher):
    """Cut the connection as a dead process does: no DISCONNECT."""
    held = getattr(publisher, "_socket", None) or publisher._client.socket()
    held.shutdown(socket.SHUT_RDWR)
    publisher.close()


def test_mqtt_3_1_1_is_fallen_back_to(amqtt, client):
    scenario = load_scenario("quiet-day")
    start, told = scenario.start_us, []
    status = publish_live(
        Fleet(scenario, machines=1),
        address=address(amqtt),
        start_us=start,
        end_us=start + 5 * MINUTE,
        speed=0,
        client=client,
        on_connected=told.append,
    )
    assert status.version == 4
    assert status.acknowledged == status.messages == 15
    assert any("3.1.1" in w for w in status.warnings)
    assert told == [status.client]
    assert re.fullmatch(r"(paho 2\.[\d.]+|batch publisher), MQTT 3\.1\.1", status.client)


@pytest.mark.parametrize(("speed", "who"), [(0, "batch publisher"), (1.0, "paho")])
def test_who_publishes_is_chosen_by_what_there_is_to_do(mosquitto, speed, who):
    scenario = load_scenario("quiet-day").with_period(1.0)
    start = clock.now_us()
    status = publish_live(
        Fleet(scenario, machines=1), address=address(mosquitto), start_us=start, end_us=start + 1_000_000, speed=speed
    )
    assert status.client.startswith(who)
    assert status.acknowledged == status.messages == 3


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_a_version_can_be_asked_for(mosquitto, client, version):
    with open_publisher(client, address(mosquitto, version=version), client_id="v") as publisher:
        publisher.publish(Message("t", b"x"))
        publisher.flush()
        assert (publisher.version, publisher.acknowledged, publisher.in_flight) == (5 if version == "5" else 4, 1, 0)


def test_a_broker_restart_loses_nothing(tmp_path, client):
    """The listener has a session that outlives the broker, so whatever was acknowledged must reach it."""
    if embedded.mosquitto_program() is None:
        pytest.skip("mosquitto is not installed (Debian package: mosquitto)")
    port = embedded.free_port()
    fleet = Fleet(load_scenario("quiet-day").with_period(0.1), machines=4)
    start = clock.now_us()
    result = []

    def run():
        result.append(
            publish_live(
                fleet, address=BrokerAddress(port=port), start_us=start, end_us=start + 5_000_000, client=client
            )
        )

    with embedded.broker(tmp_path / "broker", port=port) as broker, listener(broker, client_id="keeper") as first:
        thread = threading.Thread(target=run)
        thread.start()
        wait_for(lambda: len(first) > 100)
    time.sleep(0.5)
    rows = deliveries(fleet, start, start + 5_000_000)
    expected = {
        (f"fettle/default/north/{fleet.machines[m].number}/{fleet.scenario.signals[s]}", ts / 1000)
        for m, s, ts in zip(rows["machine"].tolist(), rows["signal"].tolist(), rows["ts"].tolist(), strict=True)
    }
    with embedded.broker(tmp_path / "broker", port=port) as broker, listener(broker, client_id="keeper") as second:
        thread.join(30)
        assert not thread.is_alive()
        wait_for(lambda: {(t, orjson.loads(p)["ts"]) for t, p, *_ in first + second} == expected)
    (status,) = result
    assert status.reconnects >= 1
    assert status.readings == len(expected) == rows.size


def test_a_broker_that_refuses_for_a_while_is_come_back_to(tmp_path, client):
    program = embedded.mosquitto_program()
    if program is None:
        pytest.skip("mosquitto is not installed (Debian package: mosquitto)")
    port, stop, result = embedded.free_port(), threading.Event(), []
    strict = tmp_path / "strict.conf"
    strict.write_text(f"listener {port} 127.0.0.1\nallow_anonymous false\n")
    fleet = Fleet(load_scenario("quiet-day").with_period(0.1), machines=1)

    def run():
        result.append(
            publish_live(
                fleet, address=BrokerAddress(port=port), start_us=clock.now_us(), stop=stop, client=client,
                on_status=lambda s: warnings.extend(w for w in s.warnings if w not in warnings),
            )
        )  # fmt: skip

    warnings = []
    thread = threading.Thread(target=run, daemon=True)
    with embedded.broker(tmp_path / "broker", port=port) as broker, listener(broker) as got:
        thread.start()
        wait_for(lambda: got)
    with subprocess.Popen([program, "-c", strict], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        wait_for(lambda: any("refused the connection: not authorised" in w for w in warnings), 20)
        child.terminate()
    with embedded.broker(tmp_path / "broker", port=port) as broker, listener(broker) as got:
        wait_for(lambda: got, 20)
        stop.set()
        thread.join(20)
    (status,) = result
    assert status.reconnects == 1
    assert status.acknowledged >= status.messages  # what was on its way was sent twice


def test_a_password_is_needed_and_told(tmp_path, client):
    program = embedded.mosquitto_program()
    if program is None:
        pytest.skip("mosquitto is not installed (Debian package: mosquitto)")
    port = embedded.free_port()
    passwords, rules, conf = tmp_path / "passwords", tmp_path / "acl", tmp_path / "m.conf"
    if subprocess.run(
        ["mosquitto_passwd", "-c", "-b", passwords, "sim", "secret"], capture_output=True, check=False
    ).returncode:
        pytest.skip("mosquitto_passwd does not work here")
    rules.write_text("user sim\ntopic write fettle/#\n")
    user = "user root\n"
    conf.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {passwords}\nacl_file {rules}\n{user}"
    )
    with subprocess.Popen([program, "-c", conf], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        try:
            where = {"host": "127.0.0.1", "port": port}

            def up():
                try:
                    open_publisher(
                        client, BrokerAddress(**where, username="sim", password="secret"), client_id="x"
                    ).close()
                except BrokerUnreachable:
                    return False
                return True

            wait_for(up)
            with pytest.raises(BrokerRefused, match=r"FETTLE_BROKER_PASSWORD|wrong user name"):
                open_publisher(client, BrokerAddress(**where), client_id="x")
            with pytest.raises(BrokerRefused, match=r"wrong user name or password|not authorised"):
                open_publisher(client, BrokerAddress(**where, username="sim", password="guess"), client_id="x")
            with open_publisher(
                client, BrokerAddress(**where, username="sim", password="secret"), client_id="x"
            ) as publisher:
                publisher.publish(Message("fettle/a/b/c", b"1"))
                publisher.flush()
                publisher.publish(Message("forbidden", b"1"))
                with pytest.raises(PublishRefused, match="forbidden"):
                    publisher.flush()
        finally:
            child.terminate()


def test_tls_verifies_the_broker_and_shows_its_certificate(tmp_path, client):
    program, openssl = embedded.mosquitto_program(), shutil.which("openssl")
    if program is None or openssl is None:
        pytest.skip("mosquitto or openssl is not installed")

    def make(*arguments):
        subprocess.run([openssl, *arguments], cwd=tmp_path, capture_output=True, check=True)

    for name in ("ca", "stranger"):
        make(
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.crt", "-days", "2",
            "-subj", f"/CN={name}", "-addext", "keyUsage=critical,keyCertSign,cRLSign",
        )  # fmt: skip
    (tmp_path / "names").write_text(
        "subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth,clientAuth\n"
    )
    for name in ("server", "device"):
        make(
            "req",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            f"{name}.key",
            "-out",
            f"{name}.csr",
            "-subj",
            f"/CN={name}",
        )
        make(
            "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-out", f"{name}.crt",
            "-days", "2", "-extfile", "names",
        )  # fmt: skip
    port = embedded.free_port()
    conf = tmp_path / "m.conf"
    conf.write_text(
        f"listener {port} 127.0.0.1\ncafile {tmp_path}/ca.crt\ncertfile {tmp_path}/server.crt\nkeyfile {tmp_path}/server.key\n"
        "require_certificate true\nallow_anonymous true\nuser root\n"
    )
    good = BrokerAddress(
        port=port, tls_ca=tmp_path / "ca.crt", tls_cert=tmp_path / "device.crt", tls_key=tmp_path / "device.key"
    )
    with subprocess.Popen([program, "-c", conf], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        try:
            wait_for(lambda: is_listening(port))
            with open_publisher(client, good, client_id="x") as publisher:
                for _ in range(3000):
                    publisher.publish(Message("t", b"x" * 100))
                publisher.flush()
                assert publisher.acknowledged == 3000
            with pytest.raises(BrokerRefused, match="FETTLE_BROKER_TLS_CA"):
                open_publisher(client, replace(good, tls_ca=tmp_path / "stranger.crt"), client_id="x")
            with pytest.raises((BrokerUnreachable, BrokerRefused, BrokerGone)):
                open_publisher(client, replace(good, tls_cert=None, tls_key=None), client_id="x")
        finally:
            child.terminate()


def is_listening(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_nobody_there_is_told_how_to_start_one(client):
    port = embedded.free_port()
    with pytest.raises(BrokerUnreachable, match=f"127.0.0.1:{port}.*FETTLE_BROKER_HOST"):
        open_publisher(client, BrokerAddress(port=port), client_id="x")


def test_a_message_above_the_limit_is_refused_before_it_breaks_the_connection(mosquitto, client):
    with open_publisher(client, address(mosquitto), client_id="x") as publisher:
        publisher._packet_limit = 1000
        with pytest.raises(MessageTooLarge, match="at most 1000"):
            publisher.publish(Message("t", b"x" * 1000))
        publisher.publish(Message("t", b"x" * 900))
        publisher.flush()
        assert publisher.acknowledged == 1


def test_the_broker_going_away_says_how_far_it_came(tmp_path, client):
    if embedded.mosquitto_program() is None:
        pytest.skip("mosquitto is not installed (Debian package: mosquitto)")
    with embedded.broker(tmp_path / "broker") as broker:
        publisher = open_publisher(client, address(broker), client_id="x")
        publisher.publish(Message("t", b"1"))
        publisher.flush()
    with pytest.raises(BrokerGone, match="after 1 acknowledged"):
        for i in range(100_000):
            publisher.publish(Message("t", encode_reading(ts_us=i, value=1.0)))
            publisher.pump(0)
    publisher.close()


def test_many_small_and_few_large_messages_keep_their_order(mosquitto, client):
    with listener(mosquitto) as got:
        with open_publisher(client, address(mosquitto), client_id="x") as publisher:
            for i in range(5000):
                publisher.publish(Message("t", b"%d" % i + (b"x" * 200_000 if i % 1000 == 0 else b"")))
            publisher.flush()
        wait_for(lambda: len(got) == 5000, 30)
    assert [int(p.split(b"x")[0]) for _, p, *_ in got] == list(range(5000))
