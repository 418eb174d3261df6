"""Everything of one machine in one go: database, broker, and the verbs as child processes.

with stop_on_signals() as stop, running.hold(settings), start_stack(settings, stop=stop) as stack:
    stack.start_verbs()      # database and broker answer, schema is up to date: collect, detect, work, serve
    stack.watch()
"""

import os
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from fettle import clock, embedded, running
from fettle.errors import FettleError
from fettle.migrate import Migrated, migrate
from fettle.settings import Settings
from fettle.supervisor import Supervisor

VERBS = ("serve", "collect", "detect", "work")


class Interrupted(FettleError):
    """Stopped before everything was up."""


class PortTaken(FettleError):
    """Port {port} of {host} is in use. Stop what listens there, or set FETTLE_API_PORT to another; 0 takes a free one."""


class NotServing(FettleError):
    """The API did not answer at {url} within {seconds} s; its log is {log}."""


@dataclass
class Stack:
    """Running parts and how to reach them."""

    settings: Settings
    running: running.Running
    migrated: Migrated
    children: Supervisor
    stop: threading.Event

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
            Interrupted: we are to stop.
            NotServing: it does not in time.
        """
        deadline = clock.monotonic_s() + seconds
        while clock.monotonic_s() < deadline:
            self.go_on()
            try:
                with urllib.request.urlopen(f"{self.running.api_url}/api/v1/health", timeout=2):  # noqa: S310 -- our own address
                    return
            except (urllib.error.URLError, OSError):
                self.children.check()
                self.stop.wait(0.1)
        raise NotServing(url=self.running.api_url, seconds=seconds, log=self.log_path("serve"))

    def go_on(self) -> None:
        """Return, unless we are to stop.

        Raises:
            Interrupted: we are to stop.
        """
        if self.stop.is_set():
            raise Interrupted

    def watch(self) -> None:
        self.children.watch(self.stop)


@contextmanager
def start_stack(
    settings: Settings, *, stop: threading.Event, report: Callable[[str], None] = lambda _: None
) -> Iterator[Stack]:
    """Start the embedded parts that the settings do not replace, migrate, and announce the addresses.

    The caller holds the data folder (`running.hold`).

    Raises:
        Interrupted: `stop` was set on the way.
        PortTaken: something listens on the port that the settings name.
    """

    def begin(step: str) -> None:
        if stop.is_set():
            raise Interrupted
        report(step)

    _choose_port(settings)  # a taken one is told before anything starts
    with ExitStack() as parts:
        if settings.database_url is None:
            begin("starting PostgreSQL")
            url = parts.enter_context(embedded.postgres(settings.data_dir / "postgres"))
        else:
            url = settings.database_url.get_secret_value()
        if settings.broker_host is None:
            begin("starting the broker")
            broker = parts.enter_context(embedded.broker(settings.data_dir / "broker", port=settings.broker_port))
        else:
            port = settings.broker_port or (8883 if settings.broker_tls_ca else 1883)
            broker = embedded.Broker(settings.broker_host, port, "given")
        begin("bringing the schema up to date")
        migrated = migrate(url, storage=settings.storage, tenant=settings.tenant)
        api_host = "127.0.0.1" if settings.api_host == "0.0.0.0" else settings.api_host  # noqa: S104 -- compared, not bound
        announced = running.Running(
            os.getpid(), url, broker.host, broker.port, broker.kind, f"http://{api_host}:{_choose_port(settings)}"
        )
        running.announce(settings, announced)
        parts.callback(running.withdraw, settings)
        children = parts.enter_context(Supervisor())
        stack = Stack(settings, announced, migrated, children, stop)
        stack.go_on()
        yield stack


def _choose_port(settings: Settings) -> int:
    """Return the port that was given, or the default where it is free, or any free one.

    Raises:
        PortTaken: the one that was given is in use.
    """
    is_given = "api_port" in settings.model_fields_set
    if settings.api_port and is_free(settings.api_host, settings.api_port):
        return settings.api_port
    if settings.api_port and is_given:
        raise PortTaken(port=settings.api_port, host=settings.api_host)
    return embedded.free_port()


def is_free(host: str, port: int) -> bool:
    """Tell whether we could listen there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True
