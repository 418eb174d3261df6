"""Everything of one machine in one go: database, broker, and the verbs as child processes.

with start_stack(settings, report=print) as stack:   # database and broker answer, schema is up to date
    stack.start_verbs()                              # collect, detect, work, serve
    stack.watch(stop)
"""

import os
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal

from fettle import clock, embedded, running
from fettle.errors import FettleError
from fettle.migrate import Migrated, migrate
from fettle.settings import Settings
from fettle.supervisor import Supervisor

VERBS = ("serve", "collect", "detect", "work")


class AlreadyRunning(FettleError):
    """Fettle is already running on {folder} (process {pid}, {url}). Stop it first, or give another FETTLE_DATA_DIR."""


class PortTaken(FettleError):
    """Port {port} of {host} is in use. Stop what listens there, or set FETTLE_API_PORT to another; 0 takes a free one."""


class NotServing(FettleError):
    """The API did not answer at {url} within {seconds} s; its log is {log}."""


@dataclass
class Stack:
    """Running parts and how to reach them."""

    settings: Settings
    running: running.Running
    broker_kind: Literal["mosquitto", "amqtt", "given"]
    migrated: Migrated
    children: Supervisor

    @property
    def environment(self) -> dict[str, str]:
        """Settings for child processes."""
        return {
            "FETTLE_DATABASE_URL": self.running.database_url,
            "FETTLE_BROKER_HOST": self.running.broker_host,
            "FETTLE_BROKER_PORT": str(self.running.broker_port),
            "FETTLE_API_HOST": self.settings.api_host,
            "FETTLE_API_PORT": self.running.api_url.rpartition(":")[2],
            "FETTLE_DATA_DIR": str(self.settings.data_dir.resolve()),
            "FETTLE_TENANT": self.settings.tenant,
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),  # small matrices: threads only cost
        }

    def log_path(self, name: str) -> str:
        return str(self.settings.data_dir.resolve() / f"{name}.log")

    def start_verb(self, name: str, arguments: Sequence[str] | None = None, *, may_end: bool = False) -> None:
        """Start one verb; its output goes to a file of its name in the data folder."""
        self.children.start(name, arguments or [name], self.environment, may_end=may_end, log_path=self.log_path(name))

    def start_verbs(self, names: Sequence[str] = VERBS) -> None:
        for name in names:
            self.start_verb(name)

    def wait_until_serving(self, *, seconds: float = 60) -> None:
        """Return when the API answers.

        Raises:
            NotServing: it does not in time.
        """
        deadline = clock.monotonic_s() + seconds
        while clock.monotonic_s() < deadline:
            try:
                with urllib.request.urlopen(f"{self.running.api_url}/api/v1/health", timeout=2):  # noqa: S310 -- our own address
                    return
            except (urllib.error.URLError, OSError):
                self.children.check()
                time.sleep(0.1)
        raise NotServing(url=self.running.api_url, seconds=seconds, log=self.log_path("serve"))

    def watch(self, stop: threading.Event) -> None:
        self.children.watch(stop)


@contextmanager
def start_stack(settings: Settings, *, report: Callable[[str], None] = lambda _: None) -> Iterator[Stack]:
    """Start the embedded parts that the settings do not replace, migrate, and announce the addresses.

    Raises:
        AlreadyRunning: another one runs on the same data folder.
    """
    other = running.find(settings)
    if other is not None:
        raise AlreadyRunning(folder=settings.data_dir, pid=other.pid, url=other.api_url)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    with ExitStack() as parts:
        if settings.database_url is None:
            report("starting PostgreSQL")
            url = parts.enter_context(embedded.postgres(settings.data_dir / "postgres"))
        else:
            url = settings.database_url.get_secret_value()
        if settings.broker_host is None:
            report("starting the broker")
            broker = parts.enter_context(embedded.broker(settings.data_dir / "broker", port=settings.broker_port))
        else:
            port = settings.broker_port or (8883 if settings.broker_tls_ca else 1883)
            broker = embedded.Broker(settings.broker_host, port, "given")
        report("bringing the schema up to date")
        migrated = migrate(url, storage=settings.storage, tenant=settings.tenant)
        api_url = (
            f"http://{'127.0.0.1' if settings.api_host == '0.0.0.0' else settings.api_host}:{_choose_port(settings)}"  # noqa: S104 -- compared, not bound
        )
        announced = running.Running(os.getpid(), url, broker.host, broker.port, api_url)
        running.announce(settings, announced)
        parts.callback(running.withdraw, settings)
        children = parts.enter_context(Supervisor())
        yield Stack(settings, announced, broker.kind, migrated, children)


def _choose_port(settings: Settings) -> int:
    """Return the port that was given, or the default where it is free, or any free one.

    Raises:
        PortTaken: the one that was given is in use.
    """
    is_given = "api_port" in settings.model_fields_set
    if settings.api_port and _is_free(settings.api_host, settings.api_port):
        return settings.api_port
    if settings.api_port and is_given:
        raise PortTaken(port=settings.api_port, host=settings.api_host)
    return embedded.free_port()


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True
