"""Access to PostgreSQL: connections under the right role, transactions for one tenant, named queries.

    pool = open_pool(url, role=Role.API)          # the caller enters it: async with
    async with transaction(pool, tenant_id=7) as conn:
        await conn.execute(queries.find_machine, {"number": "P-101"})

Requests and workers never run as the owner of the tables: `role` is set when a connection starts, and none of the
roles can bypass row-level security.
"""

import functools
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from enum import StrEnum
from importlib import resources
from typing import LiteralString, cast

import psycopg
from psycopg import AsyncConnection, Connection, conninfo
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool

from fettle.errors import FettleError

AsyncConn = AsyncConnection[TupleRow]
SyncConn = Connection[TupleRow]
Pool = AsyncConnectionPool[AsyncConn]


class DatabaseRole(StrEnum):
    """Who a connection acts as."""

    OWNER = "owner"  # the login itself: migrations only
    API = "fettle_api"  # requests of people and programs
    WORKER = "fettle_worker"  # collect, detect, work


class NoDatabase(FettleError):
    """The database at {where} does not answer ({why}). Check FETTLE_DATABASE_URL, or leave it empty to use the embedded one."""


class BadDatabaseUrl(FettleError):
    """FETTLE_DATABASE_URL is not an address of PostgreSQL. Write postgresql://user:password@host:5432/database; a special character in the password goes as %XX."""


class NoSuchQuery(FettleError):
    """{package}/queries.sql has no query named {name}."""


def _parse(url: str) -> Mapping[str, object]:
    try:
        return conninfo.conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        raise BadDatabaseUrl from None  # the cause quotes what may be a password


def describe(url: str) -> str:
    """Return where a URL points, without the password, for people and logs."""
    parts = _parse(url)
    return f"{parts.get('user', '')}@{parts.get('host', 'local')}:{parts.get('port', 5432)}/{parts.get('dbname', '')}"


def connection_string(url: str, *, role: DatabaseRole, name: str, options: Mapping[str, str] | None = None) -> str:
    """Return `url` with the role and time-outs of one kind of connection."""
    settings = {"timezone": "UTC", "idle_in_transaction_session_timeout": "60s", **(options or {})}
    if role is not DatabaseRole.OWNER:
        settings["role"] = role.value
    given = str(_parse(url).get("options") or "")
    flags = " ".join([given, *(f"-c {key}={value}" for key, value in settings.items())]).strip()
    return conninfo.make_conninfo(url, options=flags, application_name=name, connect_timeout=10)


async def connect(url: str, *, role: DatabaseRole, name: str, options: Mapping[str, str] | None = None) -> AsyncConn:
    """Open one autocommit connection, for LISTEN and for single statements.

    Raises:
        NoDatabase: the server cannot be reached or refuses the login.
    """
    try:
        return await AsyncConnection.connect(
            connection_string(url, role=role, name=name, options=options), autocommit=True
        )
    except psycopg.OperationalError as error:
        raise NoDatabase(where=describe(url), why=str(error).strip()) from error


def connect_sync(url: str, *, role: DatabaseRole, name: str, options: Mapping[str, str] | None = None) -> SyncConn:
    """Open one blocking autocommit connection: for migrations and for the collector's writer thread.

    Raises:
        NoDatabase: the server cannot be reached or refuses the login.
    """
    try:
        return psycopg.connect(connection_string(url, role=role, name=name, options=options), autocommit=True)
    except psycopg.OperationalError as error:
        raise NoDatabase(where=describe(url), why=str(error).strip()) from error


def open_pool(url: str, *, role: DatabaseRole, name: str, size: int = 8) -> Pool:
    """Return a pool that is not open yet; `async with` opens it and checks that the database answers."""
    return AsyncConnectionPool(
        connection_string(url, role=role, name=name, options={"statement_timeout": "30s"}),
        connection_class=AsyncConnection[TupleRow],
        kwargs={"autocommit": True},
        min_size=1,
        max_size=size,
        open=False,
        name=name,
        check=AsyncConnectionPool.check_connection,
    )


@asynccontextmanager
async def transaction(pool: Pool, *, tenant_id: int | None) -> AsyncIterator[AsyncConn]:
    """Run one transaction that sees the rows of `tenant_id`; with None it sees no tenant's rows."""
    async with pool.connection() as conn, conn.transaction():
        await set_tenant(conn, tenant_id=tenant_id)
        yield conn


async def set_tenant(conn: AsyncConn, *, tenant_id: int | None) -> None:
    """Name the tenant for the rest of the transaction."""
    await conn.execute("SELECT set_config('fettle.tenant', %s, true)", ("" if tenant_id is None else str(tenant_id),))


class Queries(Mapping[str, LiteralString]):
    """The named queries of a package's `queries.sql`, as attributes or items.

    The file holds blocks of a line `-- name: verb_noun`, one comment line that says what it is for, and the statement
    with `%(parameter)s` placeholders.
    """

    def __init__(self, package: str, text: str) -> None:
        self._package = package
        blocks = re.split(r"^-- name: *([a-z][a-z0-9_]*)\s*$", text, flags=re.MULTILINE)
        self._texts = {
            name: cast("LiteralString", body.strip()) for name, body in zip(blocks[1::2], blocks[2::2], strict=True)
        }

    def __getitem__(self, name: str) -> LiteralString:
        try:
            return self._texts[name]
        except KeyError:
            raise NoSuchQuery(package=self._package, name=name) from None

    def __getattr__(self, name: str) -> LiteralString:
        if name.startswith("_"):
            raise AttributeError(name)
        return self[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)


@functools.cache
def load_queries(package: str) -> Queries:
    """Read `queries.sql` of a package; once per process."""
    return Queries(package, resources.files(package).joinpath("queries.sql").read_text(encoding="utf-8"))
