"""Real servers for the tests: one PostgreSQL per storage and run, a template database each, a copy per test.

`database` runs a test on plain PostgreSQL and on TimescaleDB; the TimescaleDB half is skipped, with its reason, where
no local PostgreSQL has the extension. `plain_database` is the plain one alone, for what does not depend on storage.
`mosquitto` is a fresh broker per test; tests that need one are skipped where it is not installed.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, settings

from fettle import embedded
from fettle.migrate import migrate

for _library in ("OPENBLAS", "OMP"):  # the tests use the cores already
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")
# How long an example takes says how busy the machine is: the first text in a fresh clone builds tables for a second.
settings.register_profile("fettle", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("fettle")
DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what tests measured and told, whichever process they ran in."""
    told = [
        str(text)
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", "") == "call"
        for name, text in report.user_properties
        if name == "told"
    ]
    if told:
        terminalreporter.section("measured")
        for text in sorted(told):
            terminalreporter.line(text)


@dataclass(frozen=True)
class Database:
    """A migrated database of its own."""

    url: str
    storage: str


class _Server:
    """A running PostgreSQL with a migrated template."""

    def __init__(self, stack: ExitStack, storage: str, folder: Path) -> None:
        timescale = storage == "timescale"
        options = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "200"}
        if timescale:
            options |= {"shared_preload_libraries": "timescaledb", "timescaledb.telemetry_level": "off"}
        self.storage = storage
        self.url = stack.enter_context(
            embedded.postgres(
                folder / storage, binaries=embedded.timescale_binaries() if timescale else None, options=options
            )
        )
        self._made = 0
        migrated = migrate(self.url, tenant="default")
        assert migrated.storage == storage
        with psycopg.connect(self.url.replace("/fettle?", "/postgres?"), autocommit=True) as conn:
            conn.execute("ALTER DATABASE fettle RENAME TO template_fettle") if not timescale else None
            if timescale:  # its background worker holds a connection until the database refuses them
                conn.execute("ALTER DATABASE fettle ALLOW_CONNECTIONS false")
                conn.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'fettle'")
                conn.execute("ALTER DATABASE fettle RENAME TO template_fettle")

    def copy(self) -> Database:
        self._made += 1
        name = f"test_{self._made}"
        with psycopg.connect(self.url.replace("/fettle?", "/postgres?"), autocommit=True) as conn:
            conn.execute(f"CREATE DATABASE {name} TEMPLATE template_fettle")
        return Database(self.url.replace("/fettle?", f"/{name}?"), self.storage)

    def drop(self, database: Database) -> None:
        name = database.url.split("?")[0].rsplit("/", 1)[1]
        with psycopg.connect(self.url.replace("/fettle?", "/postgres?"), autocommit=True) as conn:
            conn.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def _servers() -> Iterator[dict[str, _Server]]:
    with ExitStack() as stack, tempfile.TemporaryDirectory(prefix="fettle-test-") as folder:
        started: dict[str, _Server] = {}

        class Servers(dict[str, _Server]):
            def __missing__(self, storage: str) -> _Server:
                self[storage] = started[storage] = _Server(stack, storage, Path(folder))
                return self[storage]

        yield Servers()


def _own_database(servers: dict[str, _Server], storage: str) -> Iterator[Database]:
    if storage == "timescale" and embedded.timescale_binaries() is None:
        pytest.skip("no local PostgreSQL has TimescaleDB (looked for timescaledb.control under /usr/share/postgresql)")
    server = servers[storage]
    database = server.copy()
    yield database
    server.drop(database)


@pytest.fixture(params=["plain", "timescale"])
def database(request: pytest.FixtureRequest, _servers: dict[str, _Server]) -> Iterator[Database]:
    yield from _own_database(_servers, request.param)


@pytest.fixture
def plain_database(_servers: dict[str, _Server]) -> Iterator[Database]:
    yield from _own_database(_servers, "plain")


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[embedded.Broker]:
    if embedded.mosquitto_program() is None:
        pytest.skip("mosquitto is not installed (Debian package: mosquitto)")
    with embedded.broker(tmp_path / "broker") as running:
        yield running


@pytest.fixture(scope="session")
def public_data() -> Path:
    """Folder of public data sets; tests that need one skip where it is absent."""
    if not DATA.is_dir():
        pytest.skip(f"no public data sets at {DATA}")
    return DATA
