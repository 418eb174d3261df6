"""Bring a database to this version's schema.

Numbered files in `fettle/sql/migrations`, forward only, one transaction each, under an advisory lock, with a ledger of
SHA-256. A file `NNNN_name.plain.sql` or `.timescale.sql` is applied on that storage only; which storage a database has
is decided once, at its first migration. `fettle/sql/report` is rebuilt every time, and so are the retention policies.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from typing import Literal, cast

import psycopg

from fettle.db import DatabaseRole, SyncConn, connect_sync
from fettle.errors import FettleError

Storage = Literal["plain", "timescale"]

_LOCK = 0x0FE771E  # advisory lock of all migrations
_OLDEST_TIMESCALE = (2, 18, 1)


class ChangedMigration(FettleError):
    """Migration {name} was changed after it was applied to this database. Restore the file; put the change into a new migration."""


class UnknownMigration(FettleError):
    """The database has migration {name}, which this version does not know: it was migrated by a newer Fettle. Install that version."""


class UnsafeTimescale(FettleError):
    """TimescaleDB {version} can lose rows (INSERT … ON CONFLICT stops early on compressed chunks before 2.18.1). Upgrade the extension, or set FETTLE_STORAGE=plain."""


class NoTimescale(FettleError):
    """FETTLE_STORAGE=timescale, but {why}. Install TimescaleDB's full build, or set FETTLE_STORAGE=plain."""


class MissingPrivilege(FettleError):
    """{login} may not migrate this database: {why}. It must own the database and may make roles (CREATEROLE); where the roles are there already, an administrator runs: GRANT fettle_api, fettle_worker, fettle_tenant TO {login} WITH ADMIN OPTION."""


@dataclass(frozen=True)
class Migration:
    """One numbered file."""

    name: str
    storage: Storage | None
    text: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


@dataclass(frozen=True)
class Migrated:
    """What a run of `migrate` found and did."""

    storage: Storage
    storage_reason: str
    applied: tuple[str, ...]


def read_migrations() -> tuple[Migration, ...]:
    """Return all migrations in order."""
    files = sorted(resources.files("fettle.sql").joinpath("migrations").iterdir(), key=lambda entry: entry.name)
    return tuple(
        Migration(match[1], cast("Storage | None", match[2]), file.read_text(encoding="utf-8"))
        for file in files
        if (match := re.fullmatch(r"(\d{4}_[a-z0-9_]+)(?:\.(plain|timescale))?\.sql", file.name))
    )


def pending(conn: SyncConn) -> tuple[str, ...]:
    """Return the names of migrations that the database lacks."""
    if conn.execute("SELECT to_regclass('public.schema_migration')").fetchone() == (None,):
        return tuple(dict.fromkeys(migration.name for migration in read_migrations()))
    applied = {name for (name,) in conn.execute("SELECT name FROM public.schema_migration")}
    return tuple(dict.fromkeys(m.name for m in read_migrations() if m.name not in applied))


def probe_storage(conn: SyncConn, *, wanted: Literal["auto", "plain", "timescale"]) -> tuple[Storage, str]:
    """Decide where readings will live, with the reason in words.

    Raises:
        NoTimescale: `wanted` is timescale and the server lacks it.
        UnsafeTimescale: the version is known to lose rows.
    """
    if wanted == "plain":
        return "plain", "FETTLE_STORAGE=plain"
    row = conn.execute("SELECT default_version FROM pg_available_extensions WHERE name = 'timescaledb'").fetchone()
    why = ""
    if row is None:
        why = "the server has no TimescaleDB"
    elif "timescaledb" not in str(conn.execute("SHOW shared_preload_libraries").fetchone()):
        why = "TimescaleDB is installed but not in shared_preload_libraries"
    else:
        licence = conn.execute("SELECT current_setting('timescaledb.license', true)").fetchone()
        version = tuple(int(part) for part in re.findall(r"\d+", str(row[0]))[:3])
        if version < _OLDEST_TIMESCALE:
            raise UnsafeTimescale(version=row[0])
        if licence == ("apache",):
            why = "the server has TimescaleDB's Apache build, without compression and continuous aggregates"
    if why and wanted == "timescale":
        raise NoTimescale(why=why)
    return ("plain", why) if why else ("timescale", f"TimescaleDB {row[0] if row else ''}")


def migrate(
    url: str,
    *,
    storage: Literal["auto", "plain", "timescale"] = "auto",
    tenant: str | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> Migrated:
    """Apply what is missing, rebuild the report views, and make the tenant `tenant` if there is none of that name.

    Args:
        url: the database, as the owner of its schema.
        storage: what `FETTLE_STORAGE` says; only the first migration of a database asks.
        tenant: slug of a tenant that must exist afterwards.
        report: is told the name of each migration as it is applied.

    Raises:
        ChangedMigration: an applied file has other contents now.
        UnknownMigration: the database is ahead of this version.
        MissingPrivilege: the login does not own the database, or may not act as Fettle's roles.
    """
    with connect_sync(
        url, role=DatabaseRole.OWNER, name="fettle-migrate", options={"client_min_messages": "warning"}
    ) as conn:
        conn.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
        try:
            kind, reason = _storage_of(conn, storage)
            applied = _apply(conn, kind, report)
            _rebuild_report(conn)
            if tenant:
                with conn.transaction():
                    conn.execute(
                        "INSERT INTO tenant (slug, name) VALUES (%s, %s) ON CONFLICT (slug) DO NOTHING",
                        (tenant, tenant),
                    )
            return Migrated(kind, reason, applied)
        except psycopg.errors.InsufficientPrivilege as error:
            raise MissingPrivilege(login=conn.info.user, why=str(error.diag.message_primary)) from error
        finally:
            conn.execute("SELECT pg_advisory_unlock(%s)", (_LOCK,))


def _storage_of(conn: SyncConn, wanted: Literal["auto", "plain", "timescale"]) -> tuple[Storage, str]:
    conn.execute(
        """
        CREATE TABLE IF NOT EXISTS public.schema_migration (
            name text CONSTRAINT schema_migration_pkey PRIMARY KEY,
            sha256 text NOT NULL,
            storage text,
            applied_at timestamptz NOT NULL DEFAULT now()
        )
        """
    )
    row = conn.execute("SELECT storage FROM public.schema_migration WHERE storage IS NOT NULL LIMIT 1").fetchone()
    if row is not None:
        return cast("Storage", row[0]), "chosen at the first migration of this database"
    return probe_storage(conn, wanted=wanted)


def _apply(conn: SyncConn, kind: Storage, report: Callable[[str], None]) -> tuple[str, ...]:
    ledger = {str(name): str(sha) for name, sha in conn.execute("SELECT name, sha256 FROM public.schema_migration")}
    mine = [m for m in read_migrations() if m.storage in {None, kind}]
    for name in ledger.keys() - {m.name for m in mine}:
        raise UnknownMigration(name=name)
    applied = []
    for migration in mine:
        if migration.name in ledger:
            if ledger[migration.name] != migration.sha256:
                raise ChangedMigration(name=migration.name)
            continue
        report(migration.name)
        with conn.transaction():
            conn.execute(migration.text.encode(), prepare=False)
            conn.execute(
                "INSERT INTO public.schema_migration (name, sha256, storage) VALUES (%s, %s, %s)",
                (migration.name, migration.sha256, migration.storage),
            )
        applied.append(migration.name)
    return tuple(applied)


def _rebuild_report(conn: SyncConn) -> None:
    """Drop and create every view and function of schema `report`, and grant them to whoever reads reports."""
    files = sorted(resources.files("fettle.sql").joinpath("report").iterdir(), key=lambda entry: entry.name)
    with conn.transaction():
        for (name,) in conn.execute("SELECT viewname FROM pg_views WHERE schemaname = 'report'").fetchall():
            conn.execute(psycopg.sql.SQL("DROP VIEW IF EXISTS report.{} CASCADE").format(psycopg.sql.Identifier(name)))
        for file in files:
            if file.name.endswith(".sql"):
                conn.execute(file.read_bytes(), prepare=False)
        conn.execute("GRANT SELECT ON ALL TABLES IN SCHEMA report TO fettle_api, fettle_worker, fettle_tenant")
