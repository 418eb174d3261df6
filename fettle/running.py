"""Where a running `fettle up` or `fettle demo` keeps its embedded parts, for the other verbs on the same machine.

The supervisor holds a lock on the data folder and writes `running.json` into it; a verb whose settings name no database or
broker takes them from there while the lock is held. The kernel lets go of the lock when the supervisor dies, however it dies.
"""

import fcntl
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Literal

from pydantic import SecretStr

from fettle.errors import FettleError
from fettle.settings import Settings


class AlreadyRunning(FettleError):
    """Fettle is already running on {folder} ({who}). Stop it first, or give another FETTLE_DATA_DIR."""


class FolderRefused(FettleError):
    """The data folder {folder} cannot be used ({why}). Correct it, or give another FETTLE_DATA_DIR."""


@dataclass(frozen=True)
class Running:
    """Addresses of a running supervisor's parts."""

    pid: int
    database_url: str
    broker_host: str
    broker_port: int
    broker_kind: Literal["mosquitto", "amqtt", "given"]
    api_url: str


def _path(settings: Settings) -> Path:
    return settings.data_dir / "running.json"


@contextmanager
def hold(settings: Settings) -> Iterator[None]:
    """Keep every other supervisor off the data folder.

    Raises:
        AlreadyRunning: another one holds it.
        FolderRefused: it cannot be made or written.
    """
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        lock = (settings.data_dir / "lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise FolderRefused(folder=settings.data_dir, why=error.strerror) from error
    with lock:
        for _ in range(5):  # a verb that looks whether we run holds it for a moment
            if _take(lock, fcntl.LOCK_EX):
                break
            time.sleep(0.02)
        else:
            other = find(settings)
            who = "it is starting" if other is None else f"process {other.pid}, {other.api_url}"
            raise AlreadyRunning(folder=settings.data_dir, who=who)
        withdraw(settings)  # what a supervisor left that was killed
        yield


def _take(lock: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def announce(settings: Settings, running: Running) -> None:
    """Write the addresses, readable by this user alone."""
    path = _path(settings)
    path.touch(mode=0o600)
    path.write_text(json.dumps(asdict(running)), encoding="utf-8")


def withdraw(settings: Settings) -> None:
    _path(settings).unlink(missing_ok=True)


def find(settings: Settings) -> Running | None:
    """Return the addresses, or None where no supervisor lives."""
    try:
        with (settings.data_dir / "lock").open(encoding="utf-8") as lock:
            if _take(lock, fcntl.LOCK_SH):
                return None
        return Running(**json.loads(_path(settings).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # no folder, not ours to read, or nothing announced yet
        return None


def join(settings: Settings) -> Settings:
    """Return the settings with the database and broker of a running supervisor where they name none."""
    if settings.database_url is not None and settings.broker_host is not None:
        return settings
    running = find(settings)
    if running is None:
        return settings
    found: dict[str, object] = {}
    if settings.database_url is None:
        found["database_url"] = SecretStr(running.database_url)
    if settings.broker_host is None:
        found |= {"broker_host": running.broker_host, "broker_port": running.broker_port}
    return settings.model_copy(update=found)
