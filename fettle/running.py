"""Where a running `fettle up` or `fettle demo` keeps its embedded parts, for the other verbs on the same machine.

The supervisor writes `running.json` into the data folder; a verb whose settings name no database or broker takes them from
there while the supervisor lives.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import SecretStr

from fettle.settings import Settings


@dataclass(frozen=True)
class Running:
    """Addresses of a running supervisor's parts."""

    pid: int
    database_url: str
    broker_host: str
    broker_port: int
    api_url: str


def _path(settings: Settings) -> Path:
    return settings.data_dir / "running.json"


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
        running = Running(**json.loads(_path(settings).read_text(encoding="utf-8")))
        os.kill(running.pid, 0)
    except (FileNotFoundError, ProcessLookupError, PermissionError, ValueError, TypeError):
        return None
    return running


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
