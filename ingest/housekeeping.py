"""What has to be done now and then so that the database stays small and fast: rollups, retention, partitions, policies.

Every collector runs it; advisory locks see to it that one does the work. On TimescaleDB most of it is the extension's own
jobs, which are brought in line with the settings when a collector starts.
"""

import asyncio
import functools
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from fettle import clock, logs
from fettle.db import DatabaseRole, NoDatabase, SyncConn, connect_sync, load_queries
from fettle.settings import Settings
from ingest.rollup import LOCK_SPACE, roll_up

log = logs.get("ingest")
queries = load_queries("ingest")
_CLEANING_LOCK, _POLICY_LOCK = 2, 3
_ROLL_UP_EVERY_S = 5.0
_CLEAN_EVERY_S = 600.0
_GRACE_S = 2.0
_AT_ONCE = 5000
_PARTITIONS_AHEAD = timedelta(days=15)
_MOST_REJECTED_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What a cleaning removed."""

    batches: int = 0
    rejected: int = 0
    texts: int = 0
    waveforms: int = 0
    rollups: int = 0
    partitions: int = 0


def storage_of(conn: SyncConn) -> str:
    """Return where readings live: plain or timescale."""
    row = conn.execute("SELECT relkind FROM pg_class WHERE oid = 'public.reading'::regclass").fetchone()
    return "plain" if row == ("p",) else "timescale"


async def keep_house(settings: Settings, *, url: str, stop: asyncio.Event) -> None:
    """Do all house-keeping until `stop` is set; a database that is away is tried again.

    Work that a stalled database holds at that moment is left behind, in a thread that dies with the process: its
    transaction is undone, and done again next time.
    """
    next_cleaning_s = 0.0
    while not stop.is_set():
        try:
            if clock.monotonic_s() >= next_cleaning_s:
                await _do(functools.partial(clean_up, settings, url=url, now=clock.now()), stop)
                next_cleaning_s = clock.monotonic_s() + _CLEAN_EVERY_S
            await _do(functools.partial(roll_up_all, url, stopped=stop.is_set), stop)
        except (NoDatabase, psycopg.Error) as error:
            log.warning("housekeeping.postponed", why=str(error).strip())
        try:
            await asyncio.wait_for(stop.wait(), _ROLL_UP_EVERY_S)
        except TimeoutError:
            continue


async def _do(work: Callable[[], object], stop: asyncio.Event) -> None:
    """Run a piece of work in a thread, until it is done or, after `stop`, has had a moment to end."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def settle(error: Exception | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def run() -> None:
        problem: Exception | None = None
        try:
            work()
        except Exception as error:
            problem = error
        with suppress(RuntimeError):  # the loop has ended: nobody waits
            loop.call_soon_threadsafe(settle, problem)

    threading.Thread(target=run, name="fettle-housekeeping", daemon=True).start()
    stopped = loop.create_task(stop.wait(), name="stop")
    try:
        either: set[asyncio.Future[Any]] = {done, stopped}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not done.done():
            await asyncio.wait({done}, timeout=_GRACE_S)
        if done.done():
            await done
        else:
            log.warning("housekeeping.left_behind")
            done.cancel()
    finally:
        stopped.cancel()


def roll_up_all(url: str, *, stopped: Callable[[], bool] = lambda: False) -> int:
    """Bring the rollups of plain PostgreSQL up to date; return how many batches were taken in."""
    with connect_sync(url, role=DatabaseRole.WORKER, name="fettle-rollup") as conn:
        return _roll_up_all(conn, stopped) if storage_of(conn) == "plain" else 0


def _roll_up_all(conn: SyncConn, stopped: Callable[[], bool]) -> int:
    total = 0
    while not stopped() and (done := roll_up(conn)):
        total += done
    return total


def clean_up(settings: Settings, *, url: str, now: datetime) -> Cleaned:
    """Remove what is older than the settings keep, and make partitions for the coming weeks."""
    with connect_sync(url, role=DatabaseRole.WORKER, name="fettle-cleaning") as conn:
        storage = storage_of(conn)
        with conn.transaction():
            if conn.execute(queries.try_lock, {"space": LOCK_SPACE, "number": _CLEANING_LOCK}).fetchone() != (True,):
                return Cleaned()
            conn.execute(queries.ensure_partitions, {"from_ts": now, "to_ts": now + _PARTITIONS_AHEAD})
        readings_before = now - timedelta(days=settings.reading_days) if settings.reading_days else None
        rollups_before = now - timedelta(days=settings.rollup_days)
        rollups = 0
        if storage == "plain":
            _roll_up_all(conn, lambda: False)  # before the ledger forgets
            for query in (queries.drop_old_minutes, queries.drop_old_hours, queries.drop_old_days):
                rollups += conn.execute(query, {"before": rollups_before}).rowcount
        batches = _in_steps(conn, queries.drop_old_batches, {"before": now - timedelta(hours=settings.ledger_hours)})
        rejected = _in_steps(conn, queries.drop_old_rejected, {"before": now - timedelta(days=settings.rejected_days)})
        rejected += _shrink_rejected(conn)
        texts = waveforms = partitions = 0
        if readings_before is not None:
            texts = conn.execute(queries.drop_old_texts, {"before": readings_before}).rowcount
            waveforms = conn.execute(queries.drop_old_waveforms, {"before": readings_before}).rowcount
    if readings_before is not None and storage == "plain":
        partitions = drop_old_partitions(url, before=readings_before)
    if storage == "timescale":
        apply_policies(settings, url=url)
    cleaned = Cleaned(batches, rejected, texts, waveforms, rollups, partitions)
    log.info("housekeeping.cleaned", batches=batches, rejected=rejected, partitions=partitions)
    return cleaned


def _in_steps(conn: SyncConn, query: LiteralString, values: dict[str, Any]) -> int:
    """Delete in small transactions, so that no lock and no vacuum grows large."""
    total = 0
    while True:
        done = conn.execute(query, values | {"most": _AT_ONCE}).rowcount
        total += done
        if done < _AT_ONCE:
            return total


def _shrink_rejected(conn: SyncConn) -> int:
    """Keep rejected messages below a size on disk: the oldest go first, and it is said aloud."""
    row = conn.execute(queries.measure_rejected).fetchone()
    if row is None or row[0] < _MOST_REJECTED_BYTES:
        return 0
    log.error("rejected_messages.too_large", bytes=row[0], limit=_MOST_REJECTED_BYTES, remedy="Something sends what cannot be stored: see table rejected_message.")  # fmt: skip
    return conn.execute(queries.drop_oldest_rejected, {"most": 10 * _AT_ONCE}).rowcount


def drop_old_partitions(url: str, *, before: datetime) -> int:
    """Drop weekly partitions that end before `before`; readers and writers of the others are not kept waiting."""
    dropped = 0
    with connect_sync(url, role=DatabaseRole.OWNER, name="fettle-retention", options={"lock_timeout": "5s"}) as conn:
        found = conn.execute(
            """
            SELECT c.relname, to_timestamp(substring(c.relname FROM 9), 'YYYYMMDD') + interval '7 days', i.inhdetachpending
            FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
            WHERE i.inhparent = 'public.reading'::regclass AND c.relname ~ '^reading_[0-9]{8}$'
            """
        ).fetchall()
        for name, end, is_detaching in found:
            if end > before:
                continue
            partition = sql.Identifier(name)
            how = sql.SQL("FINALIZE" if is_detaching else "CONCURRENTLY")
            conn.execute(sql.SQL("ALTER TABLE public.reading DETACH PARTITION {} {}").format(partition, how))
            conn.execute(sql.SQL("DROP TABLE {}").format(partition))
            log.info("partition.dropped", name=name)
            dropped += 1
    return dropped


@dataclass(frozen=True, slots=True)
class Policy:
    """One job of TimescaleDB: what it must be, and how it is made and removed."""

    job: str
    relation: str
    config: dict[str, str | None] | None  # None: there must be no such job
    remove: LiteralString
    add: LiteralString


def wanted_policies(settings: Settings, *, has_batches: bool = True) -> list[Policy]:
    """Return the jobs that the settings ask for.

    A refresh works through its window in transactions of so many buckets: ten by default, which takes minutes for a week of
    late minutes, most of it commits. `has_batches` says whether this TimescaleDB (2.20 and later) can be told otherwise.

    A refresh window reaches back almost as far as raw readings are kept, so that late readings reach the rollups;
    never further, since a refresh of what retention has dropped would empty the rollups. Only what changed is computed.
    """
    keep = f"{settings.reading_days} days" if settings.reading_days else None
    window = f"{max(settings.reading_days - 8, 4)} days" if settings.reading_days else None
    wanted = [
        Policy(
            "policy_compression",
            "reading",
            {"compress_after": f"{settings.compress_after_days} days"},
            "CALL remove_columnstore_policy('reading', if_exists => true)",
            "CALL add_columnstore_policy('reading', after => %(compress_after)s::interval)",
        ),
        _retention("reading", keep),
    ]
    every = (
        ("reading_1m", "1 minute", "1 minute", "720"),
        ("reading_1h", "1 hour", "10 minutes", "168"),
        ("reading_1d", "1 day", "1 hour", "70"),
    )
    for view, end, period, buckets in every:
        batches = {"buckets_per_batch": buckets} if has_batches else {}
        wanted += [
            Policy(
                "policy_refresh_continuous_aggregate",
                view,
                {"start_offset": window, "end_offset": end, "every": period, **batches},
                "SELECT remove_continuous_aggregate_policy(%(relation)s::text::regclass, if_exists => true)",
                """SELECT add_continuous_aggregate_policy(%(relation)s::text::regclass, start_offset => %(start_offset)s::interval,
                   end_offset => %(end_offset)s::interval, schedule_interval => %(every)s::interval)"""
                if not has_batches
                else """SELECT add_continuous_aggregate_policy(%(relation)s::text::regclass, start_offset => %(start_offset)s::interval,
                   end_offset => %(end_offset)s::interval, schedule_interval => %(every)s::interval,
                   buckets_per_batch => %(buckets_per_batch)s::int)""",
            ),
            _retention(view, f"{settings.rollup_days} days"),
        ]
    return wanted


def _retention(relation: str, keep: str | None) -> Policy:
    return Policy(
        "policy_retention",
        relation,
        None if keep is None else {"drop_after": keep},
        "SELECT remove_retention_policy(%(relation)s::text::regclass, if_exists => true)",
        "SELECT add_retention_policy(%(relation)s::text::regclass, drop_after => %(drop_after)s::interval)",
    )


def apply_policies(settings: Settings, *, url: str) -> list[str]:
    """Bring TimescaleDB's jobs in line with the settings; return what was changed. Needs the owner of the tables."""
    changed = []
    with connect_sync(
        url, role=DatabaseRole.OWNER, name="fettle-policies", options={"client_min_messages": "warning"}
    ) as conn:
        for policy in wanted_policies(settings, has_batches=_has_batches(conn)):
            if _is_in_force(conn, policy):
                continue
            with conn.transaction():
                if conn.execute(queries.try_lock, {"space": LOCK_SPACE, "number": _POLICY_LOCK}).fetchone() == (True,):
                    conn.execute(policy.remove, {"relation": policy.relation})
                    if policy.config is not None:
                        conn.execute(policy.add, policy.config | {"relation": policy.relation})
                    changed.append(f"{policy.job} on {policy.relation}")
    if changed:
        log.info("policies.changed", jobs=", ".join(changed))
    return changed


def _has_batches(conn: SyncConn) -> bool:
    """Whether a refresh policy can be told how many buckets a transaction takes."""
    return conn.execute(
        """SELECT EXISTS (SELECT FROM pg_proc WHERE proname = 'add_continuous_aggregate_policy'
           AND 'buckets_per_batch' = ANY (proargnames))"""
    ).fetchone() == (True,)


def _is_in_force(conn: SyncConn, policy: Policy) -> bool:
    """Whether a job of this kind runs on the relation with these offsets, or none where none is wanted."""
    row = conn.execute(
        """
        SELECT j.config, j.schedule_interval
        FROM timescaledb_information.jobs AS j
        LEFT JOIN timescaledb_information.continuous_aggregates AS a ON a.view_name = %(relation)s::text
        WHERE j.proc_name = %(job)s::text AND j.hypertable_name IN (%(relation)s::text, a.materialization_hypertable_name)
        """,
        {"job": policy.job, "relation": policy.relation},
    ).fetchone()
    if row is None or policy.config is None:
        return (row is None) == (policy.config is None)
    found, every = row
    for key, value in policy.config.items():
        is_there = str(every) if key == "every" else found.get(key)
        if key == "buckets_per_batch":
            if str(is_there) != value:
                return False
            continue
        same = conn.execute(
            "SELECT %(wanted)s::interval IS NOT DISTINCT FROM %(found)s::interval",
            {"wanted": value, "found": is_there},
        ).fetchone()
        if same != (True,):
            return False
    return True
