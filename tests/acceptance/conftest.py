"""The program as its users run it: the real command line in child processes, HTTP, a browser."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[2]


class Fettle:
    """One installation in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("FETTLE_")}
        self.environment |= {"FETTLE_DATA_DIR": str(self.data), "COLUMNS": "200", "NO_COLOR": "1"}

    def run(self, *arguments: str, timeout: float = 120, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "fettle.cli", *arguments],
            cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip
        if check:
            assert done.returncode == 0, f"fettle {' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
        return done

    @contextmanager
    def running(self, *arguments: str, ready_s: float = 90) -> Iterator["Fettle"]:
        """`fettle up` or `fettle demo` in the background, until its API answers; stopped with SIGTERM afterwards."""
        with (self.folder / "output.log").open("ab") as sink:
            child = subprocess.Popen(
                [sys.executable, "-m", "fettle.cli", *arguments],
                cwd=self.folder, env=self.environment, stdout=sink, stderr=sink, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        try:
            deadline = time.monotonic() + ready_s
            while True:
                assert child.poll() is None, f"it ended:\n{self.output()}"
                assert time.monotonic() < deadline, f"not ready after {ready_s} s:\n{self.output()}"
                try:
                    self.api_url = json.loads((self.data / "running.json").read_text())["api_url"]
                    if httpx.get(f"{self.api_url}/api/v1/health", timeout=2).status_code == 200:
                        break
                except (FileNotFoundError, ValueError, httpx.TransportError):
                    pass
                time.sleep(0.2)
            yield self
        finally:
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(30)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
                pytest.fail(f"it did not stop within 30 s of SIGTERM:\n{self.output()}")

    def output(self) -> str:
        """The end of what it printed and of every log."""
        logs = [self.folder / "output.log", *sorted(self.data.glob("*.log"))]
        return "\n".join(
            f"== {path.name}\n{path.read_text(errors='replace')[-1500:]}" for path in logs if path.exists()
        )

    @contextmanager
    def api(self, login: str, password: str) -> Iterator[httpx.Client]:
        with httpx.Client(base_url=self.api_url, timeout=10) as client:
            token = client.post("/api/v1/login", json={"login": login, "password": password})
            assert token.status_code == 200, token.text
            client.headers["Authorization"] = f"Bearer {token.json()['token']}"
            yield client

    def processes(self) -> list[str]:
        """Command lines of living processes that were started from this installation's data folder or environment."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    environment = (entry / "environ").read_bytes().decode(errors="replace")
                except OSError:
                    continue
                if str(self.data) in command or f"FETTLE_DATA_DIR={self.data}" in environment:
                    found.append(command)
        return found


@pytest.fixture
def fettle() -> Iterator[Fettle]:
    # not below pytest's own folder: that is closed to the user PostgreSQL runs as when the tests run as root
    with tempfile.TemporaryDirectory(prefix="fettle-acceptance-") as folder:
        yield Fettle(Path(folder))
