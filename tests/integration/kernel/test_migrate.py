"""Migrations: repeatable, guarded by their hashes, and the same schema however a database got there."""

import dataclasses

import psycopg
import pytest

from fettle import migrate as module
from fettle.db import DatabaseRole, connect_sync
from fettle.migrate import ChangedMigration, NoTimescale, UnknownMigration, migrate, pending, read_migrations


def test_migrating_again_applies_nothing(database):
    assert migrate(database.url).applied == ()


def test_a_changed_migration_is_refused(plain_database, monkeypatch):
    changed = tuple(
        dataclasses.replace(m, text=m.text + "\n-- changed") if m.name.startswith("0002") else m
        for m in read_migrations()
    )
    monkeypatch.setattr(module, "read_migrations", lambda: changed)
    with pytest.raises(ChangedMigration, match="0002_telemetry was changed"):
        migrate(plain_database.url)


def test_a_database_from_the_future_is_refused(plain_database):
    with connect_sync(plain_database.url, role=DatabaseRole.OWNER, name="test") as conn:
        conn.execute("INSERT INTO schema_migration (name, sha256) VALUES ('9999_future', 'x')")
    with pytest.raises(UnknownMigration, match="9999_future"):
        migrate(plain_database.url)


def test_timescale_can_be_demanded(plain_database):
    with psycopg.connect(plain_database.url, autocommit=True) as conn:
        conn.execute("DROP SCHEMA public CASCADE")
        conn.execute("DROP SCHEMA report CASCADE")
        conn.execute("CREATE SCHEMA public")
    with pytest.raises(NoTimescale, match="no TimescaleDB"):
        migrate(plain_database.url, storage="timescale")


def test_fresh_equals_upgraded(database, monkeypatch):
    """A database migrated one file at a time ends with the same schema as one migrated in one go."""
    fresh = _shape(database.url)
    with psycopg.connect(database.url, autocommit=True) as conn:
        conn.execute("DROP SCHEMA report CASCADE")
        if database.storage == "timescale":
            conn.execute("DROP EXTENSION timescaledb CASCADE")
    with psycopg.connect(database.url, autocommit=True) as conn:
        conn.execute("DROP SCHEMA public CASCADE")
        conn.execute("CREATE SCHEMA public")
    every = read_migrations()
    monkeypatch.setattr(module, "_rebuild_report", lambda conn: None)
    for upto in sorted({m.name for m in every}):
        monkeypatch.setattr(module, "read_migrations", lambda upto=upto: tuple(m for m in every if m.name <= upto))
        migrate(database.url, storage=database.storage)
    monkeypatch.undo()
    assert migrate(database.url, storage=database.storage).storage == database.storage
    with connect_sync(database.url, role=DatabaseRole.OWNER, name="test") as conn:
        assert pending(conn) == ()
    assert _shape(database.url) == fresh


def _shape(url: str) -> list[tuple[object, ...]]:
    with connect_sync(url, role=DatabaseRole.OWNER, name="test") as conn:
        return [
            *conn.execute(
                """SELECT table_schema, table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns
                   WHERE table_schema IN ('public', 'report') ORDER BY 1, 2, ordinal_position"""
            ).fetchall(),
            *conn.execute(
                "SELECT schemaname, tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1, 2, 3"
            ).fetchall(),
            *conn.execute(
                "SELECT tablename, policyname, cmd, qual FROM pg_policies WHERE schemaname = 'public' ORDER BY 1, 2"
            ).fetchall(),
            *conn.execute(
                """SELECT table_name, grantee, privilege_type FROM information_schema.role_table_grants
                   WHERE table_schema IN ('public', 'report') AND grantee LIKE 'fettle%' ORDER BY 1, 2, 3"""
            ).fetchall(),
        ]
