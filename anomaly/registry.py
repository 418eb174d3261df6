"""The registry in the database: versions of what was learned, configurations, and which of them are in force.

    fit ─▶ model_version (immutable)       detector_order(activate) ─▶ engine, in the transaction of its state
    file ─▶ detector_config (immutable) ─▶ shadow ─▶ detector_promotion ─▶ all shards

A version belongs to one machine; a configuration to the whole installation.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from typing import Any

from psycopg.rows import class_row, dict_row
from psycopg.types.json import Jsonb

from anomaly.config import EngineConfig
from anomaly.outcomes import give_order
from anomaly.store import to_instant
from anomaly.versions import ModelVersion, read
from fettle import clock
from fettle.db import AsyncConn, Pool, load_queries, transaction
from fettle.errors import FettleError

_STRUCTURE = ("history_steps",)  # the size of what is stored: no two configurations may differ in it


class NoSuchVersion(FettleError):
    """Machine {machine} has no model version {version}. `fettle model list` shows those it has."""


class NoEarlierVersion(FettleError):
    """Machine {machine} has no version before {version}: there is nothing to go back to."""


class OrderRefused(FettleError):
    """Order {order} was not carried out: {why}. The machine keeps the model it had."""


class NoSuchConfig(FettleError):
    """There is no configuration {name!r}. `fettle model configs` shows those that are kept."""


class ConfigTaken(FettleError):
    """There is a configuration {name!r} already, with other values. A configuration never changes: choose another name."""


class StructureChanged(FettleError):
    """Configuration {name!r} changes {field}, which decides how learned state is stored. Leave it out."""


@dataclass(frozen=True, slots=True)
class Order:
    """What detection is told to do with the model of a machine; `newest` is the number of its newest version."""

    id: int
    machine_id: int
    kind: str
    version: str
    reason: str
    ordered_by: str
    newest: int


@dataclass(frozen=True, slots=True)
class KeptConfig:
    """A configuration as it was registered: the fields in which it differs from the shipped one."""

    id: int
    name: str
    digest: str
    body: dict[str, Any]
    created_by: str
    created_at: datetime


async def list_orders(conn: AsyncConn, *, tenant_id: int) -> list[Order]:
    async with conn.cursor(row_factory=class_row(Order)) as cursor:
        await cursor.execute(load_queries("anomaly").list_orders, {"tenant_id": tenant_id})
        return await cursor.fetchall()


async def register(conn: AsyncConn, version: ModelVersion, *, tenant_id: int, now: datetime) -> None:
    """Keep a version for good; one of that name is never replaced."""
    begin, end = (None, None) if version.trained_us is None else (to_instant(us) for us in version.trained_us)
    await conn.execute(
        load_queries("anomaly").add_version,
        {
            "tenant_id": tenant_id,
            "machine_id": version.machine_id,
            "version": version.version,
            "number": version.number,
            "sha256": version.sha256,
            "trained_from": begin,
            "trained_until": end,
            "config_digest": version.config_digest,
            "code_version": version.code_version,
            "feature_schema": Jsonb(version.feature_schema),
            "metrics": Jsonb(version.metrics),
            "arrays": version.arrays,
            "now": now,
        },
    )


async def list_versions(conn: AsyncConn, *, tenant_id: int, machine_id: int) -> list[dict[str, Any]]:
    """Return the versions of a machine's model, newest first, without their arrays."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(load_queries("anomaly").list_versions, {"tenant_id": tenant_id, "machine_id": machine_id})
        return await cursor.fetchall()


async def find_version(conn: AsyncConn, *, tenant_id: int, machine_id: int, version: str) -> dict[str, Any] | None:
    """Return a version with its arrays, checked; None if there is none of that name.

    Raises:
        ForeignModel: the stored bytes are not what was registered.
    """
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            load_queries("anomaly").find_version,
            {"tenant_id": tenant_id, "machine_id": machine_id, "version": version},
        )
        found = await cursor.fetchone()
    if found is not None:
        found["arrays"] = bytes(found["arrays"])
        read(found["arrays"], sha256=found["sha256"])
    return found


async def activate(
    conn: AsyncConn, *, tenant_id: int, machine_id: int, number: str, version: str, reason: str, by: str, now: datetime
) -> int:
    """Order that a version of a machine's model be put in force; return the number of the order.

    Raises:
        NoSuchVersion: the machine has none of that name.
        ForeignModel: its stored bytes are not what was registered.
    """
    if await find_version(conn, tenant_id=tenant_id, machine_id=machine_id, version=version) is None:
        raise NoSuchVersion(machine=number, version=version)
    return await give_order(
        conn,
        tenant_id=tenant_id,
        machine_id=machine_id,
        kind="activate",
        version=version,
        reason=reason,
        by=by,
        now=now,
    )


async def previous_version(conn: AsyncConn, *, tenant_id: int, machine_id: int, number: str) -> str:
    """Return the version that was in force before the present one: the one before it by training, or before a promotion.

    Raises:
        NoEarlierVersion: there is none.
    """
    known = await list_versions(conn, tenant_id=tenant_id, machine_id=machine_id)
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            load_queries("anomaly").list_activations, {"tenant_id": tenant_id, "machine_id": machine_id}
        )
        done = await cursor.fetchall()
    trail = _trail(known, [row for row in done if row["kind"] == "activate"])
    if len(trail) < 2:
        raise NoEarlierVersion(machine=number, version=trail[0] if trail else "(none)")
    return trail[1]


def _trail(known: Sequence[Mapping[str, Any]], activations: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the versions a machine can go back through, the present one first, given both newest first.

    Versions of one number are one fit under the names of several configurations: only the first of them counts.
    """
    at = 0
    names = [str(row["version"]) for row in known]
    if activations and known and known[0]["created_at"] <= activations[0]["done_at"]:
        present = str(activations[0]["version"])
        at = names.index(present) if present in names else 0
    first_of: dict[int, str] = {}
    for row in known[at:]:
        first_of.setdefault(int(row["number"]), str(row["version"]))
    return list(first_of.values())


# -- configurations --------------------------------------------------------------------------------------------------


def differing(config: EngineConfig, base: EngineConfig) -> dict[str, Any]:
    """Return the fields of a configuration that differ from another's, as JSON values."""
    theirs = asdict(base)
    return {name: value for name, value in asdict(config).items() if value != theirs[name]}


def apply_config(base: EngineConfig, body: Mapping[str, Any]) -> EngineConfig:
    """Return `base` with the fields of a kept configuration; a field that this program no longer has is left out."""
    known = {f.name for f in fields(base)}
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in body.items() if name in known
    }
    return replace(base, **given)


async def keep_config(
    conn: AsyncConn, *, name: str, config: EngineConfig, base: EngineConfig, by: str, now: datetime
) -> KeptConfig:
    """Keep a configuration under a name, for good; the same one under the same name is found again.

    Raises:
        ConfigTaken: the name stands for other values.
        StructureChanged: it changes how learned state is stored.
    """
    body = differing(config, base)
    for field in _STRUCTURE:
        if field in body:
            raise StructureChanged(name=name, field=field)
    await conn.execute(
        load_queries("anomaly").add_config,
        {"name": name, "digest": config.digest(), "body": Jsonb(body), "created_by": by, "now": now},
    )
    kept = await find_config(conn, name=name)
    if kept.digest != config.digest():
        raise ConfigTaken(name=name)
    return kept


async def find_config(conn: AsyncConn, *, name: str) -> KeptConfig:
    """Return a configuration by its name.

    Raises:
        NoSuchConfig: there is none.
    """
    async with conn.cursor(row_factory=class_row(KeptConfig)) as cursor:
        await cursor.execute(load_queries("anomaly").find_config, {"name": name})
        found = await cursor.fetchone()
    if found is None:
        raise NoSuchConfig(name=name)
    return found


async def list_configs(conn: AsyncConn) -> list[KeptConfig]:
    async with conn.cursor(row_factory=class_row(KeptConfig)) as cursor:
        await cursor.execute(load_queries("anomaly").list_configs)
        return await cursor.fetchall()


async def list_promotions(conn: AsyncConn, *, limit: int = 50) -> list[dict[str, Any]]:
    """Return which configurations were put in force, newest first; `name` is None for the shipped one."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(load_queries("anomaly").list_promotions, {"limit": limit})
        return await cursor.fetchall()


async def promote(conn: AsyncConn, *, config_id: int | None, reason: str, by: str, now: datetime) -> int:
    """Put a configuration in force on all shards; None is the shipped one."""
    values = {"config_id": config_id, "reason": reason, "promoted_by": by, "now": now}
    row = await (await conn.execute(load_queries("anomaly").add_promotion, values)).fetchone()
    assert row is not None
    return int(row[0])


async def config_in_force(conn: AsyncConn, base: EngineConfig) -> EngineConfig:
    """Return the configuration that was promoted last, over what the settings say."""
    last = await list_promotions(conn, limit=1)
    return apply_config(base, last[0]["body"] or {}) if last else base


async def compare_shadow(conn: AsyncConn, *, tenant_id: int, config: KeptConfig, since: datetime) -> dict[str, Any]:
    """Return what the live configuration and one in shadow found on a tenant's machines, raised at or after `since`.

    A live and a shadow finding are the same where machine and fault family agree and the times they stood overlap. Live ones
    that made no ticket (inhibited, watched) are counted apart.
    """
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            load_queries("anomaly").compare_shadow, {"tenant_id": tenant_id, "config_id": config.id, "since": since}
        )
        rows = await cursor.fetchall()
    live = [row for row in rows if row["is_live"] and not row["held"]]
    shadow = [row for row in rows if not row["is_live"]]
    both, only_live = _split(live, shadow)
    _, only_shadow = _split(shadow, live)
    return {
        "config": config.name,
        "digest": config.digest,
        "since": since,
        "live": len(live),
        "shadow": len(shadow),
        "both": len(both),
        "held": sum(bool(row["held"]) for row in rows),
        "only_live": [_line(row) for row in only_live],
        "only_shadow": [_line(row) for row in only_shadow],
    }


def _split(
    rows: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]
) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """Return the rows that stood at the same time as one of the others of their machine and family, and the rest."""
    alike: dict[tuple[int, str], list[Mapping[str, Any]]] = {}
    for other in others:
        alike.setdefault((other["machine_id"], other["fault_family"]), []).append(other)
    met: list[Mapping[str, Any]] = []
    alone: list[Mapping[str, Any]] = []
    for row in rows:
        near = alike.get((row["machine_id"], row["fault_family"]), [])
        (met if any(_overlap(row, other) for other in near) else alone).append(row)
    return met, alone


def _overlap(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    first, last = sorted((one, other), key=lambda row: row["onset_at"])
    return first["cleared_at"] is None or bool(last["onset_at"] <= first["cleared_at"])


def _line(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("number", "fault_family", "severity", "raised_at", "cleared_at")}


async def wait_for_order(pool: Pool, *, tenant_id: int, order: int, seconds: float) -> float | None:
    """Return how many seconds after it was given an order was carried out; None if it was not within `seconds`.

    Raises:
        OrderRefused: it never will be.
    """
    until = clock.monotonic_s() + seconds
    while True:
        async with transaction(pool, tenant_id=tenant_id) as conn:
            parameters = {"tenant_id": tenant_id, "id": order}
            row = await (await conn.execute(load_queries("anomaly").find_order, parameters)).fetchone()
        if row is not None and row[6]:
            raise OrderRefused(order=order, why=row[6])
        if row is not None and row[5] is not None:
            return float((row[5] - row[4]).total_seconds())
        if clock.monotonic_s() > until:
            return None
        await asyncio.sleep(0.05)
