"""Who watches which machine when the number of processes changes.

    before   0/1 ──────────────┐ stops            one process, one state
    after          0/2 waits ──┤ takes over ──▶   both states are written in the transaction that takes the old one away
                   1/2 waits ──┘ ──▶ finds its own

A state and the positions it was reached with belong together. States of several processes stand at different positions:
each is folded on to the farthest of them before they are put together, and what that raises is stored with the rest.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from psycopg.types.json import Jsonb

from anomaly import store
from anomaly.config import EngineConfig
from anomaly.engine import STATE_VERSION, Engine
from anomaly.finding import FindingEvent
from anomaly.limits import Limits
from anomaly.partition import assemble
from anomaly.store import Fleet, LostShard
from fettle import logs
from fettle.db import AsyncConn, Pool, load_queries, transaction
from fettle.errors import FettleError

log = logs.get("detect")


class BadShard(FettleError):
    """A shard is written k/n with k below n, such as 0/2 and 1/2 for two processes; it is {shard}."""


@dataclass(slots=True)
class _Donor:
    """A state that is taken over, and where it was stored."""

    name: str
    stored: dict[int, int]
    engine: Engine
    positions: dict[int, int]
    events: list[FindingEvent] = field(default_factory=list)


def read_shard(shard: str) -> tuple[int, int]:
    """Return k and n of 'k/n'.

    Raises:
        BadShard: it is written otherwise.
    """
    k, _, n = shard.partition("/")
    if not (k.isdecimal() and n.isdecimal() and int(k) < int(n)):
        raise BadShard(shard=shard)
    return int(k), int(n)


def lock_name(name: str) -> str:
    """Return what the process that watches a shard holds an advisory lock on."""
    return f"fettle.detect {name}"


async def take_over(
    pool: Pool,
    *,
    shard: str,
    prefix: str = "",
    fleet: Fleet,
    config: EngineConfig,
    limits: Limits | None = None,
    most: int = 64,
    poll_s: float = 0.5,
) -> bool:
    """Make the state of a shard from those of another number of processes; say whether there was anything to take.

    Waits until the processes that hold those states have stopped. Safe to call from all new processes at once: the first
    does it for all of them.

    Args:
        pool: connections under `DatabaseRole.WORKER`.
        shard: k/n, of this process.
        prefix: before the names of states: those of a configuration in shadow.
        fleet: all machines.
        config: of the engines.
        limits: likewise.
        most: batches to read at once.
        poll_s: how often to look whether the others have stopped.
    """
    _, n = read_shard(shard)
    queries = load_queries("anomaly")
    async with pool.connection() as lease:
        names = await _others(lease, prefix, shard, n)
        if names:
            log.info("detect.takes_over", shard=prefix + shard, waits_for=",".join(names))
        while names:
            held = [name for name in names if await _try_lock(lease, name)]
            try:
                if len(held) == len(names) and await _others(lease, prefix, shard, n) == names:
                    rows = await (await lease.execute(queries.list_states, {"prefix": prefix})).fetchall()
                    donors = [_open(row, fleet, config, limits) for row in rows if row[0] in names]
                    await _hand_over(pool, donors, prefix=prefix, n=n, most=most, tenant_of=fleet.tenant_of)
                    log.info("detect.took_over", shard=prefix + shard, from_shards=",".join(names))
                    return True
            finally:
                for name in held:
                    await lease.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", (lock_name(name),))
            if len(held) < len(names):
                await asyncio.sleep(poll_s)  # holding none: a process that starts again may have its own
            names = await _others(lease, prefix, shard, n)
    return False


async def _others(conn: AsyncConn, prefix: str, shard: str, n: int) -> list[str]:
    """Return the stored states of another number of processes; none if this shard has its own."""
    rows = await (await conn.execute(load_queries("anomaly").list_state_names, {"prefix": prefix})).fetchall()
    names = [str(row[0]) for row in rows]
    if prefix + shard in names:
        return []
    mine = [name.removeprefix(prefix) for name in names]
    return sorted(prefix + name for name in mine if ":" not in name and read_shard(name)[1] != n)


async def _try_lock(conn: AsyncConn, name: str) -> bool:
    cursor = await conn.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", (lock_name(name),))
    row = await cursor.fetchone()
    return row is not None and bool(row[0])


def _open(row: Sequence[object], fleet: Fleet, config: EngineConfig, limits: Limits | None) -> _Donor:
    name, positions, state = str(row[0]), row[1], row[2]
    assert isinstance(positions, dict)
    assert isinstance(state, bytes | memoryview)
    part = fleet.part(name.rpartition(":")[2])
    engine = Engine.load(bytes(state), machines=part.machines, sensors=part.sensors, config=config, limits=limits)
    at = {int(c): int(number) for c, number in positions.items()}
    return _Donor(name, at, engine, dict(at))


async def _hand_over(
    pool: Pool, donors: Sequence[_Donor], *, prefix: str, n: int, most: int, tenant_of: Mapping[int, int]
) -> None:
    """Bring all donors to one position, and store their machines as n states in their place.

    Raises:
        LostShard: one of the donors' states is no longer the one that was read.
    """
    target = {c: max(d.positions.get(c, 0) for d in donors) for d in donors for c in d.positions}
    for donor in donors:
        await _catch_up(pool, donor, target, most=most)
    engines = [donor.engine for donor in donors]
    ids = [int(i) for engine in engines for i in engine.machines.machine_id]
    parts = [await asyncio.to_thread(assemble, engines, [i for i in ids if i % n == k]) for k in range(n)]
    queries = load_queries("anomaly")
    async with transaction(pool, tenant_id=None) as conn:
        for donor in donors:
            stored = Jsonb({str(c): number for c, number in donor.stored.items()})
            gone = await conn.execute(queries.remove_state, {"shard": donor.name, "derived_from": stored})
            if gone.rowcount != 1:
                raise LostShard(shard=donor.name)
        for k, part in enumerate(parts):
            await conn.execute(
                queries.insert_state,
                {
                    "shard": f"{prefix}{k}/{n}",
                    "positions": Jsonb({str(c): number for c, number in target.items()}),
                    "state": part.dump(),
                    "code_version": f"{STATE_VERSION}/{part.config.digest()}",
                },
            )
        events = [event for donor in donors for event in donor.events]
        shadow = int(prefix.rstrip(":").rpartition(" ")[2]) if prefix else None
        await store.store_findings(conn, events, tenant_of=tenant_of, shadow=shadow)


async def _catch_up(pool: Pool, donor: _Donor, target: Mapping[int, int], *, most: int) -> None:
    """Fold the batches between a donor's positions and the target."""
    seen = -1
    while any(donor.positions.get(c, 0) < number for c, number in target.items()):
        batches = await store.next_batches(pool, donor.positions, most=most)
        wanted = [b for b in batches if b.number <= target.get(b.collector_id, 0)]
        for batch in wanted:
            if batch.readings is not None:
                donor.events.extend(await asyncio.to_thread(donor.engine.fold, batch.readings, batch.committed_us))
            donor.positions[batch.collector_id] = batch.number
        if wanted:
            continue
        if len(batches) == seen:
            log.warning("detect.ledger_gap", shard=donor.name)  # it no longer holds what lies between
            return
        seen, most = len(batches), 4 * most  # another collector's backlog stands before what is wanted
