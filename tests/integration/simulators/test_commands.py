"""`fettle simulate` and `fettle replay` as somebody types them."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import orjson
import paho.mqtt.client as paho
import pytest

from fettle import clock, embedded
from fettle.cli import main
from simulators.api import Fleet, load_scenario


@contextmanager
def listening(broker):
    got, ready = [], threading.Event()
    client = paho.Client(
        paho.CallbackAPIVersion.VERSION2, client_id=f"test-{time.monotonic_ns()}", protocol=paho.MQTTv5
    )
    client.on_message = lambda _c, _u, m: got.append((m.topic, orjson.loads(m.payload)))
    client.on_subscribe = lambda *_: ready.set()
    client.connect(broker.host, broker.port)
    client.subscribe("#", qos=1)
    client.loop_start()
    try:
        assert ready.wait(10)
        yield got
    finally:
        client.disconnect()
        client.loop_stop()


@pytest.fixture
def fettle(tmp_path):
    """Run the command line in an empty folder; the broker comes as an argument."""

    def run(*arguments, broker=None, port=None, background=False):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("FETTLE_")} | {"OMP_NUM_THREADS": "1"}
        if broker or port:
            environment |= {"FETTLE_BROKER_HOST": "127.0.0.1", "FETTLE_BROKER_PORT": str(port or broker.port)}
        command = [sys.executable, "-m", "fettle.cli", *map(str, arguments)]
        if background:
            return subprocess.Popen(
                command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    return run


@pytest.fixture
def nobody_listens(monkeypatch, tmp_path):
    """Name a broker that is not there; for what is refused before or instead of publishing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FETTLE_BROKER_HOST", "127.0.0.1")
    monkeypatch.setenv("FETTLE_BROKER_PORT", str(embedded.free_port()))


def recording(tmp_path, rows, *, step_s=1.0, bad_line=None):
    start = 1_767_607_200
    lines = [",when,speed,note temp"]
    for i in range(rows):
        value = "fast" if i + 2 == bad_line else f"{i / 10:.1f}"
        lines.append(f"{i},{start + i * step_s:.3f},{value},{20 + i % 7}")
    path = tmp_path / "recording.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_replay_sends_everything_and_says_so(fettle, mosquitto, tmp_path):
    path = recording(tmp_path, 200)
    with listening(mosquitto) as got:
        done = fettle(
            "replay", path, "--time-column", "when", "--machine", "R-1", "--site", "lab", "--tenant", "acme", "--speed", 0,
            "--unit", "speed=1/min", "--rename", "note temp=temperature", "--unit", "note temp=°C", broker=mosquitto,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        end = time.monotonic() + 10
        while len(got) < 400 and time.monotonic() < end:
            time.sleep(0.02)
    assert "sent 400 readings, 400 acknowledged" in done.stdout
    assert len(got) == 400
    assert {topic for topic, _ in got} == {"fettle/acme/lab/R-1/speed", "fettle/acme/lab/R-1/temperature"}
    speeds = [body for topic, body in got if topic.endswith("speed")]
    assert speeds[3] == {"ts": 1_767_607_203_000, "value": 0.3, "unit": "1/min"}
    assert {body["unit"] for topic, body in got if topic.endswith("temperature")} == {"°C"}


def test_replay_shifted_ends_now(fettle, mosquitto, tmp_path):
    path = recording(tmp_path, 50, step_s=60)
    with listening(mosquitto) as got:
        before = clock.now_us() / 1000
        done = fettle(
            "replay", path, "--time-column", "when", "--machine", "R", "--speed", 0, "--shift-to-now", broker=mosquitto
        )
        assert done.returncode == 0, done.stderr
        after = clock.now_us() / 1000
        end = time.monotonic() + 10
        while len(got) < 100 and time.monotonic() < end:
            time.sleep(0.02)
    stamps = [body["ts"] for _, body in got]
    assert before <= max(stamps) <= after
    assert max(stamps) - min(stamps) == pytest.approx(49 * 60_000, abs=1)


def test_a_wide_file_of_a_simulated_plant_is_replayed_machine_by_machine(fettle, mosquitto):
    assert (
        fettle(
            "simulate", "quiet-day", "--machines", 3, "--for", "20min", "--out", "x.csv", "--layout", "wide"
        ).returncode
        == 0
    )
    with listening(mosquitto) as got:
        done = fettle(
            "replay", "x.csv", "--time-column", "time", "--machine-column", "machine", "--site-column", "site", "--speed", 0,
            "--unit", "current=A", broker=mosquitto,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        end = time.monotonic() + 10
        while len(got) < 180 and time.monotonic() < end:
            time.sleep(0.02)
    scenario = load_scenario("quiet-day")
    expected = {
        (f"fettle/default/north/{s.machine.number}/{s.signal}", ts / 1000): value
        for s in Fleet(scenario, machines=3).generate(scenario.start_us, scenario.start_us + 1_200_000_000)
        for ts, value in zip(s.times.tolist(), s.values.tolist(), strict=True)
    }
    assert {(topic, body["ts"]): body["value"] for topic, body in got} == expected


def test_a_wrong_line_near_the_end_publishes_nothing(fettle, mosquitto, tmp_path):
    path = recording(tmp_path, 500, bad_line=490)
    with listening(mosquitto) as got:
        done = fettle("replay", path, "--time-column", "when", "--machine", "R", "--speed", 0, broker=mosquitto)
        time.sleep(0.5)
    assert done.returncode == 1
    assert got == []
    assert "line 490, column 'speed': 'fast' is not a number or an empty cell" in done.stderr
    assert "Nothing was published" in done.stderr


def test_replay_paces_itself(fettle, mosquitto, tmp_path):
    path = recording(tmp_path, 40)
    began = time.monotonic()
    done = fettle("replay", path, "--time-column", "when", "--machine", "R", "--speed", 20, broker=mosquitto)
    assert done.returncode == 0, done.stderr
    took = float(re.search(r"in ([\d.]+) s", done.stdout)[1])
    assert took >= 39 / 20
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("client", ["paho", "batch"])
def test_a_broker_that_goes_away_ends_it_and_says_how_to_go_on(fettle, tmp_path, client):
    if embedded.mosquitto_program() is None:
        pytest.skip("mosquitto is not installed (Debian package: mosquitto)")
    path = recording(tmp_path, 4000)
    port = embedded.free_port()
    with embedded.broker(tmp_path / "broker", port=port) as broker, listening(broker) as first:
        child = fettle(
            "replay", path, "--time-column", "when", "--machine", "R", "--speed", 1000, "--client", client,
            port=port, background=True,
        )  # fmt: skip
        end = time.monotonic() + 20
        while len(first) < 500 and time.monotonic() < end:
            time.sleep(0.01)
    out, err = child.communicate(timeout=30)
    assert child.returncode == 1, out
    found = re.search(
        r"after (\d+) of 8000 readings were acknowledged: all of .* up to line (\d+) has arrived.*--from-line (\d+)",
        err,
    )
    assert found, err
    acknowledged, line, following = map(int, found.groups())
    assert acknowledged >= 2 * (line - 1)
    assert following == line + 1
    with embedded.broker(tmp_path / "broker", port=port) as broker, listening(broker) as second:
        done = fettle(
            "replay", path, "--time-column", "when", "--machine", "R", "--speed", 0, "--from-line", following, port=port
        )
        assert done.returncode == 0, done.stderr
        end = time.monotonic() + 10
        while len(second) < 2 * (4001 - line) and time.monotonic() < end:
            time.sleep(0.02)
    stamps = {(topic, body["ts"]) for topic, body in second}
    assert len(stamps) == 2 * (4001 - line)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--time-column", "nope", "--machine", "R"), 1, "no column 'nope'"),
        (("--time-column", "when", "--machine", "a/b"), 1, "cannot be a topic level"),
        (("--time-column", "when", "--machine", "R", "--speed", "-1"), 2, "must be a number, 0 or more"),
        (("--time-column", "when", "--machine", "R", "--unit", "nope=A"), 2, "one of the columns speed"),
        (("--time-column", "when", "--machine", "R"), 1, "No MQTT broker answers"),
    ],
)
def test_what_replay_refuses(nobody_listens, capsys, tmp_path, arguments, code, says):
    assert main(["replay", str(recording(tmp_path, 3)), *arguments]) == code
    assert says in capsys.readouterr().err


def test_checking_a_file_needs_no_broker(fettle, tmp_path):
    done = fettle("replay", recording(tmp_path, 3), "--time-column", "when", "--machine", "R", "--check")
    assert (done.returncode, "3 rows, 6 readings in 2 columns, all well formed" in done.stdout) == (0, True), (
        done.stderr
    )


def test_simulate_lists_its_scenarios(fettle):
    done = fettle("simulate")
    assert done.returncode == 0
    assert "bearing-wear" in done.stdout
    assert "demo" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "who"),
    [
        ((), r"paho 2\.[\d.]+, MQTT 5"),
        (("--client", "batch"), "batch publisher, MQTT 5, because it was asked for"),
        (("--rate", "6"), "batch publisher, MQTT 5, because load is to be limited by the broker, not by the client"),
        (("--rate", "6", "--client", "paho"), r"paho 2\.[\d.]+, MQTT 5, because it was asked for"),
        (("--speed", "0"), "batch publisher, MQTT 5, because messages go out as fast as the broker takes them"),
        (("--speed", "0", "--client", "paho"), r"paho 2\.[\d.]+, MQTT 5, because it was asked for"),
    ],
)
def test_the_first_line_says_who_publishes(fettle, mosquitto, arguments, who):
    done = fettle(
        "simulate", "quiet-day", "--period", "1s", "--machines", 2, "--for", "3s", *arguments, broker=mosquitto
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(f"client: {who}", done.stderr.splitlines()[0])
    sent, acknowledged = re.search(r"sent (\d+) messages .* (\d+) acknowledged", done.stdout).groups()
    assert int(sent) == int(acknowledged) == 18


@pytest.mark.parametrize(
    ("arguments", "who"),
    [
        (("--speed", 20), "paho 2"),
        (("--speed", 0), "batch publisher, MQTT 5, because messages go out as fast as the broker takes them"),
        (("--speed", 0, "--client", "paho"), "paho 2"),
    ],
)
def test_replay_says_who_publishes(fettle, mosquitto, tmp_path, arguments, who):
    path = recording(tmp_path, 30)
    done = fettle("replay", path, "--time-column", "when", "--machine", "R", *arguments, broker=mosquitto)
    assert done.returncode == 0, done.stderr
    assert f"client: {who}" in done.stderr
    assert "sent 60 readings, 60 acknowledged" in done.stdout


def test_simulate_publishes_and_writes_the_truth(fettle, mosquitto, tmp_path):
    with listening(mosquitto) as got:
        done = fettle("simulate", "bearing-wear", "--machines", 2, "--speed", 0, "--for", "30min", broker=mosquitto)
        assert done.returncode == 0, done.stderr
        end = time.monotonic() + 10
        while len(got) < 240 and time.monotonic() < end:
            time.sleep(0.02)
    assert "sent 240 messages with 240 readings, 240 acknowledged" in done.stdout
    assert len(got) == 240
    report = json.loads((tmp_path / ".fettle" / "bearing-wear.truth.json").read_text(encoding="utf-8"))
    assert [m["machine"] for m in report["machines"]] == ["P-101", "P-102"]


def test_simulate_stops_in_good_order(fettle, mosquitto):
    child = fettle("simulate", "quiet-day", "--period", "1s", broker=mosquitto, background=True)
    with listening(mosquitto) as got:
        end = time.monotonic() + 20
        while len(got) < 30 and time.monotonic() < end:
            time.sleep(0.05)
        child.send_signal(signal.SIGTERM)
        out, err = child.communicate(timeout=20)
    assert child.returncode == 0, err
    sent, acknowledged = re.search(r"sent (\d+) messages .* (\d+) acknowledged", out).groups()
    assert int(sent) == int(acknowledged) >= 30


def test_simulate_goes_on_where_it_began(fettle, mosquitto):
    began_us = clock.now_us() - 3 * 86_400_000_000
    began = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=began_us)
    child = fettle(
        "simulate", "quiet-day", "--period", "1s", "--began", began.isoformat(), broker=mosquitto, background=True
    )
    with listening(mosquitto) as got:
        end = time.monotonic() + 30
        while time.monotonic() < end and (
            not got or got[-1][1]["ts"] < clock.now_us() / 1000 - 3000 or len(got) < 2000
        ):
            time.sleep(0.05)
        child.send_signal(signal.SIGTERM)
        _, err = child.communicate(timeout=20)
    assert child.returncode == 0, err
    scenario = load_scenario("quiet-day").with_period(1.0)
    fleet = Fleet(scenario, start_us=began_us)
    newest = max(body["ts"] for _, body in got)
    assert newest <= clock.now_us() / 1000
    truth = {
        (f"fettle/default/north/{s.machine.number}/{s.signal}", ts / 1000): value
        for s in fleet.generate(round(newest * 1000) - 60_000_000, round(newest * 1000) + 1)
        for ts, value in zip(s.times.tolist(), s.values.tolist(), strict=True)
    }
    live = {(topic, body["ts"]): body["value"] for topic, body in got}
    assert {key: live.get(key) for key in truth} == truth


def test_simulate_drives_a_rate_and_reports_it(fettle, mosquitto):
    done = fettle("simulate", "quiet-day", "--period", "1s", "--rate", 300, "--for", "3s", broker=mosquitto)
    assert done.returncode == 0, done.stderr
    assert re.search(r"asked for 300 messages/s, achieved \d+/s; (kept up|did NOT keep up)", done.stdout)


def test_simulate_writes_a_file(fettle, tmp_path):
    done = fettle("simulate", "sensor-faults", "--machines", 2, "--for", "1d", "--out", "x.parquet")
    assert done.returncode == 0, done.stderr
    assert "wrote 8640 readings of 2 machines to x.parquet, the truth to x.truth.json" in done.stdout
    assert (tmp_path / "x.parquet").stat().st_size > 10_000
    assert json.loads((tmp_path / "x.truth.json").read_text(encoding="utf-8"))["scenario"] == "sensor-faults"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("nope",), 1, "There is no scenario 'nope'; choose one of"),
        (("quiet-day", "--format", "xml"), 1, "choose one of fettle, object"),
        (("quiet-day", "--machines", "0"), 2, "--machines 0: expected 1 to 100000"),
        (("quiet-day", "--period", "7s"), 1, "does not fit"),
        (("quiet-day", "--signals", "heat"), 1, "no signal 'heat'"),
        (("quiet-day", "--for", "soon"), 1, "is not a duration"),
        (("quiet-day", "--start", "soon"), 2, "expected an instant"),
        (("quiet-day", "--began", "soon"), 2, "--began soon: expected an instant"),
        (("quiet-day", "--out", "x.xlsx"), 1, ".parquet or .csv"),
        (("quiet-day",), 1, "No MQTT broker answers"),
    ],
)
def test_what_simulate_refuses(nobody_listens, capsys, arguments, code, says):
    assert main(["simulate", *arguments]) == code
    assert says in capsys.readouterr().err
