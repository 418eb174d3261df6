"""The parts of the fault benchmark: a publisher that remembers what was acknowledged, and processes that can be killed."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import mqtt5
import numpy as np
import numpy.typing as npt

from fettle import embedded

_WINDOW = 2000


@dataclass
class Obligations:
    """What the broker acknowledged to the publisher, with the time of it: from then on it must not be lost."""

    sensors: int
    start_ms: int
    acknowledged_at: dict[int, float] = field(default_factory=dict)  # message number -> perf_counter
    sent: int = 0

    def place(self, n: int) -> tuple[int, int]:
        """Return the sensor of message `n`, and its time stamp in milliseconds."""
        return n % self.sensors, self.start_ms + n // self.sensors

    def places(self, numbers: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the same of many messages."""
        return numbers % self.sensors, self.start_ms + numbers // self.sensors


class Publisher(threading.Thread):
    """Publishes numbered readings at QoS 1; a connection that breaks is made again, and what was not acknowledged resent.

    Message `n` is a reading of sensor `n % sensors` with value `n` and a time stamp of its own, so that every one of them
    can be told apart in the database.
    """

    def __init__(self, port: int, *, rate: float, sensors: int = 50, start_ms: int) -> None:
        super().__init__(name="publisher", daemon=True)
        self.obligations = Obligations(sensors, start_ms)
        self.finish = threading.Event()  # publish nothing new, but get everything acknowledged
        self.reconnects = 0
        self._port = port
        self._rate = rate
        self._waiting: deque[int] = deque()
        self._began = 0.0

    @property
    def runs_for_s(self) -> float:
        """Seconds since it began."""
        return time.perf_counter() - self._began

    def message(self, n: int) -> bytes:
        sensor, ts_ms = self.obligations.place(n)
        payload = b'{"ts":%d,"value":%d.0,"unit":"A"}' % (ts_ms, n)
        packet: bytes = mqtt5.PublishPacket(
            f"fettle/default/faults/m{sensor:03d}/current",
            payload,
            qos=mqtt5.QoS.AT_LEAST_ONCE,
            packet_id=n % 65_535 + 1,
        ).write()
        return packet

    def run(self) -> None:
        self._began = time.perf_counter()
        while not (self.finish.is_set() and not self._waiting):
            try:
                with socket.create_connection(("127.0.0.1", self._port), timeout=2) as sock:
                    self._serve(sock)
            except OSError:
                self.reconnects += 1
                time.sleep(0.05)

    def _serve(self, sock: socket.socket) -> None:
        sock.sendall(mqtt5.ConnectPacket("fault-publisher", clean_start=True, keep_alive=0).write())
        connack = sock.recv(1024)
        if not connack or connack[0] >> 4 != 2:
            raise OSError("no CONNACK")
        sock.settimeout(0.01)
        sock.sendall(b"".join(self.message(n) for n in self._waiting))
        incoming = b""
        while not (self.finish.is_set() and not self._waiting):
            due = int((time.perf_counter() - self._began) * self._rate) - self.obligations.sent
            room = min(due, _WINDOW - len(self._waiting), 200)
            if room > 0 and not self.finish.is_set():
                first = self.obligations.sent
                self._waiting.extend(range(first, first + room))
                self.obligations.sent += room
                sock.settimeout(2)
                sock.sendall(b"".join(self.message(n) for n in range(first, first + room)))
                sock.settimeout(0.01)
            try:
                data = sock.recv(1 << 16)
            except TimeoutError:
                continue
            if not data:
                raise OSError("the broker closed the connection")
            incoming = self._acknowledge(incoming + data)

    def _acknowledge(self, data: bytes) -> bytes:
        now = time.perf_counter()
        at = 0
        while len(data) - at >= 4:
            length = data[at + 1] + 2
            if len(data) - at < length:
                break
            if data[at] == 0x40:
                packet_id = data[at + 2] << 8 | data[at + 3]
                n = self._waiting[0]
                if n % 65_535 + 1 != packet_id:  # out of order: look for it
                    n = next(w for w in self._waiting if w % 65_535 + 1 == packet_id)
                    self._waiting.remove(n)
                else:
                    self._waiting.popleft()
                self.obligations.acknowledged_at[n] = now
            at += length
        return data[at:]


class Mosquitto:
    """A Mosquitto whose queue outlasts the subscriber, and which can be killed and started again on its own data."""

    def __init__(self, folder: Path, port: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.port = folder, port
        conf = folder / "mosquitto.conf"
        conf.write_text(
            f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {folder}/\n"
            "autosave_interval 30\nmax_queued_messages 0\nmax_inflight_messages 0\nset_tcp_nodelay true\n"
            + ("user root\n" if os.geteuid() == 0 else "")
        )
        self._conf = conf
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._child is not None
        return self._child.pid

    def start(self) -> None:
        program = embedded.mosquitto_program()
        assert program is not None
        with (self.folder / "mosquitto.log").open("ab") as log:
            self._child = subprocess.Popen([program, "-c", str(self._conf)], stdout=log, stderr=log)
        deadline = time.perf_counter() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                if time.perf_counter() > deadline:
                    raise
                time.sleep(0.02)
            else:
                return

    def save(self) -> float:
        """Have it write its database now; return the time before which everything it acknowledged is in it."""
        assert self._child is not None
        saved = self.folder / "mosquitto.db"
        before = saved.stat().st_mtime_ns if saved.exists() else 0
        asked = time.perf_counter()
        self._child.send_signal(signal.SIGUSR1)
        deadline = asked + 10
        while not saved.exists() or saved.stat().st_mtime_ns == before:
            if time.perf_counter() > deadline:
                raise TimeoutError("mosquitto did not write its database")
            time.sleep(0.002)
        return asked

    def peak_mb(self) -> float:
        """Return the most memory that the process has held."""
        return 0.0 if self._child is None else peak_mb(self._child.pid)

    def kill(self) -> None:
        assert self._child is not None
        self._child.kill()
        self._child.wait()

    def stop(self) -> None:
        if self._child is not None and self._child.poll() is None:
            self._child.terminate()
            self._child.wait(10)


class Postgres:
    """An embedded PostgreSQL on a fixed port, which can be killed with all its processes and started again."""

    def __init__(self, folder: Path, port: int, *, timescale: bool) -> None:
        self.folder, self.port = folder, port
        self.url = f"postgresql://postgres@127.0.0.1:{port}/fettle"
        self._binaries = embedded.timescale_binaries() if timescale else None
        self._options = {"shared_preload_libraries": "timescaledb"} if timescale else {}
        self._stack: ExitStack | None = None

    def start(self) -> None:
        for attempt in range(20):
            stack = ExitStack()
            try:
                stack.enter_context(
                    embedded.postgres(self.folder, binaries=self._binaries, options=self._options, port=self.port)
                )
            except embedded.ChildFailed:  # memory of the killed one is still in use
                stack.close()
                if attempt == 19:
                    raise
                time.sleep(0.2)
            else:
                self._stack = stack
                return

    def kill(self) -> None:
        pid = int((self.folder / "postmaster.pid").read_text().split()[0])
        os.killpg(pid, signal.SIGKILL)
        self.stop()

    def stop(self) -> None:
        if self._stack is not None:
            self._stack.close()
            self._stack = None


class CollectorProcess:
    """`fettle collect` as a process that can be killed."""

    def __init__(self, folder: Path, url: str, broker_port: int, **settings: str) -> None:
        self._log = folder / "collect.log"
        self._environment = {
            **os.environ,
            "FETTLE_DATABASE_URL": url,
            "FETTLE_BROKER_HOST": "127.0.0.1",
            "FETTLE_BROKER_PORT": str(broker_port),
            "FETTLE_DATA_DIR": str(folder / "data"),
            "FETTLE_COLLECTOR_NAME": "fault-collector",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            **settings,
        }
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        program = shutil.which("fettle", path=str(Path(sys.executable).parent))
        assert program is not None
        with self._log.open("ab") as log:
            self._child = subprocess.Popen([program, "collect"], stdout=log, stderr=log, env=self._environment)

    @property
    def is_running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def peak_mb(self) -> float:
        """Return the most memory that the process has held, or 0 where it has ended."""
        return 0.0 if self._child is None else peak_mb(self._child.pid)

    def kill(self) -> None:
        assert self._child is not None
        self._child.kill()
        self._child.wait()

    def stop(self) -> float:
        """Ask it to stop; return how long it took."""
        began = time.perf_counter()
        if self._child is not None and self._child.poll() is None:
            self._child.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._child.wait(15)
            if self._child.poll() is None:
                self._child.kill()
                self._child.wait()
        return time.perf_counter() - began

    def log_tail(self, lines: int = 20) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])


def peak_mb(pid: int) -> float:
    """Return the most memory that a process has held resident, or 0 where there is none."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0.0)
