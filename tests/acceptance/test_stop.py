"""However it ends, nothing is left behind, and the next start works."""

import signal
import subprocess
import sys
import time

import httpx
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def _start(fettle, verb):
    with (fettle.folder / "output.log").open("ab") as sink:
        return subprocess.Popen(
            [sys.executable, "-m", "fettle.cli", verb],
            cwd=fettle.folder, env=fettle.environment, stdout=sink, stderr=sink, stdin=subprocess.DEVNULL,
        )  # fmt: skip


def _wait_until_it_says(text, child, fettle, seconds=90):
    deadline = time.monotonic() + seconds
    while text not in fettle.output():
        assert child.poll() is None, fettle.output()
        assert time.monotonic() < deadline, fettle.output()
        time.sleep(0.05)


def test_ctrl_c_stops_the_demo_at_any_step_and_the_next_run_goes_on(fettle):
    for step in ("starting PostgreSQL", "bringing the schema", "making the company", "Broker:"):  # the last: history
        (fettle.folder / "output.log").unlink(missing_ok=True)
        child = _start(fettle, "demo")
        _wait_until_it_says(step, child, fettle)
        child.send_signal(signal.SIGINT)
        assert child.wait(30) == 0, fettle.output()
        assert "sensors are live" not in fettle.output(), f"Ctrl-C while {step} was not heard"
        assert fettle.processes() == []
    with fettle.running("demo"), fettle.api("supervisor", "fettle-demo") as api:
        assert api.get("/api/v1/machines/P-101").status_code == 200
    assert fettle.processes() == []


def test_a_killed_supervisor_takes_everything_with_it_and_a_second_one_is_refused(fettle):
    child = _start(fettle, "up")
    _wait_until_it_says("Board and API", child, fettle)
    refused = fettle.run("up", check=False)
    assert refused.returncode == 1
    assert f"already running on {fettle.data} (process {child.pid}, http://" in refused.stderr
    child.kill()
    child.wait(5)
    deadline = time.monotonic() + 30
    while fettle.processes():
        assert time.monotonic() < deadline, fettle.processes()
        time.sleep(0.1)
    with fettle.running("up"):
        assert httpx.get(f"{fettle.api_url}/api/v1/health", timeout=5).status_code == 200
    assert fettle.processes() == []


def test_the_demo_keeps_out_of_an_installation_that_is_in_use(fettle):
    with fettle.running("up"):
        made = subprocess.run(
            [sys.executable, "-m", "fettle.cli", "account", "--login", "me", "--role", "admin", "--password-stdin"],
            cwd=fettle.folder, env=fettle.environment, input="long enough\n", capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
    for arguments in (["demo"], ["demo", "--fresh"]):
        refused = fettle.run(*arguments, check=False)
        assert refused.returncode == 1
        assert "FETTLE_DATA_DIR" in refused.stderr
        assert "that no demonstration made" in refused.stderr
    assert (fettle.data / "postgres" / "PG_VERSION").exists()
    assert fettle.processes() == []
