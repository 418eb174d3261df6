"""The loop behind `fettle detect`: committed batches from the ledger, through the engine, to stored findings.

    NOTIFY or poll -> decisions -> next batches -> fold -> one transaction: findings, state, positions, orders done, versions
                   -> hand on what is due -> mark handed on

A crash at any point replays from the last stored position and arrives at the same findings, which the database recognises.
Handing on happens after the commit and at least once: whoever receives an announcement recognises (finding key, revision).
A configuration in shadow folds the same batches in a process of its own; what it finds is kept apart and never handed on.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import numpy as np
import psycopg
import psycopg_pool

from anomaly import announcing, handover, registry, store
from anomaly.config import EngineConfig
from anomaly.decisions import Decisions
from anomaly.engine import STATE_VERSION, Engine
from anomaly.examination import Examiner
from anomaly.finding import FindingEvent
from anomaly.limits import Limits, shipped_limits
from anomaly.outcomes import Closings
from anomaly.registry import KeptConfig
from anomaly.store import Announcement, Batch, Fleet, to_instant
from fettle import clock, logs
from fettle.db import DatabaseRole, Pool, connect, open_pool, transaction
from fettle.wire import ReadingArray

log = logs.get("detect")
_BATCHES, _DECISIONS = "fettle_batch", "fettle_detection"


@dataclass(slots=True)
class WatchCounts:
    """What the loop has done since it started; for metrics and tests."""

    batches: int = 0
    samples: int = 0
    expired_batches: int = 0
    events: int = 0
    announced: int = 0
    failures: int = 0
    quarantined: set[int] = field(default_factory=set)


class Watch:
    """Detection of one shard of the fleet against one database."""

    def __init__(
        self,
        pool: Pool,
        *,
        shard: str,
        config: EngineConfig,
        on_event: Callable[[Announcement], Awaitable[None]],
        limits: Limits | None = None,
        closings: Closings | None = None,
        shadow: KeptConfig | None = None,
        now_us: Callable[[], int] = clock.now_us,
        batches_at_once: int = 64,
        save_every_s: float = 5.0,
        heed_every_s: float = 2.0,
    ) -> None:
        handover.read_shard(shard)
        self._pool = pool
        self._shard = shard
        self._shadow = shadow
        self._name = state_name(shard, shadow)
        self._base = config if shadow is None else registry.apply_config(config, shadow.body)
        self._config = self._base
        self._limits = limits
        self._on_event = on_event
        self._now_us = now_us
        self._most = batches_at_once
        self._save_every_s = save_every_s
        self._saved_s = -float("inf")
        self._heed_every_s = heed_every_s
        self._heeded_s = -float("inf")
        self._positions: dict[int, int] = {}
        self._stored: dict[int, int] | None = None
        self._fleet = Fleet([], [], {})
        self._known: np.ndarray[tuple[int], np.dtype[np.int64]] = np.zeros(0, dtype=np.int64)
        self._events: list[FindingEvent] = []
        self._decisions = Decisions(pool, closings=closings, is_shadow=shadow is not None)
        self._examiner = Examiner(pool, limits=limits or shipped_limits())
        self.counts = WatchCounts()
        self.engine = Engine(config, limits=limits)

    async def open(self, *, rebuild: bool = False) -> None:
        """Take up the stored state, or that of another number of processes, or start from the oldest batch of the ledger.

        With `rebuild` forget what is stored under this name, take nothing over, and start from the ledger.
        """
        await self._load_fleet()
        self._config = await self._config_in_force()
        if rebuild:
            await store.forget_state(self._pool, shard=self._name)
        found = await store.load_state(self._pool, shard=self._name)
        if found is None and not rebuild:
            await handover.take_over(
                self._pool,
                shard=self._shard,
                prefix=state_name("", self._shadow),
                fleet=self._fleet,
                config=self._config,
                limits=self._limits,
            )
            found = await store.load_state(self._pool, shard=self._name)
        mine = self._mine()
        self._stored = None if found is None else dict(found[0])
        if found is None and self._shadow is not None and not rebuild:  # it begins with what the live one knows
            found = await store.load_state(self._pool, shard=self._shard)
        if found is None:
            self.engine = Engine(self._config, limits=self._limits)
            self.engine.register(mine.machines, mine.sensors)
            await self._count_on()
            self._positions = {}
        else:
            self._positions, state = dict(found[0]), found[1]
            self.engine = self._load_engine(state)
        self.engine.set_aside(self.counts.quarantined)
        self._decisions.watch(self.engine, mine)
        self._events = []
        self._heeded_s = -float("inf")
        if rebuild:
            await self.save()  # so that nobody takes over an older state in its place
        log.info("detect.opened", shard=self._name, machines=len(mine.machines), sensors=len(mine.sensors))

    def _load_engine(self, state: bytes) -> Engine:
        mine = self._mine()
        return Engine.load(
            state, machines=mine.machines, sensors=mine.sensors, config=self._config, limits=self._limits
        )

    def _mine(self) -> Fleet:
        return self._fleet.part(self._shard)

    async def _load_fleet(self) -> None:
        self._fleet = await store.load_fleet(self._pool)
        self._known = np.sort(np.array([int(s.sensor_id) for s in self._fleet.sensors], dtype=np.int64))

    async def _config_in_force(self) -> EngineConfig:
        if self._shadow is not None:
            return self._base
        async with transaction(self._pool, tenant_id=None) as conn:
            return await registry.config_in_force(conn, self._base)

    async def _count_on(self) -> None:
        """Let the numbers of model versions go on after those that are registered: a name stands for one version for good."""
        newest = await store.newest_versions(self._pool, tenant_ids=self._fleet.tenant_of.values())
        for row, machine_id in enumerate(self.engine.machines.machine_id.tolist()):
            self.engine.machines.version[row] = self.engine.machines.newest[row] = newest.get(machine_id, 0)

    async def step(self) -> int:
        """Heed decisions, fold the batches that wait, store what came of it, hand it on; return how many batches there were."""
        if clock.monotonic_s() - self._heeded_s >= self._heed_every_s:
            await self.heed()
        self._events.extend(self._examiner.apply(self.engine))
        batches = await store.next_batches(self._pool, self._positions, most=self._most)
        for batch in batches:
            await self._take(batch)
        if not batches:
            self._events.extend(await asyncio.to_thread(self.engine.advance, self._now_us()))
        due = clock.monotonic_s() - self._saved_s >= self._save_every_s
        if self._events or self._decisions.is_pending or (due and self._positions != self._stored):
            await self.save()
        await self.announce()
        return len(batches)

    async def heed(self) -> None:
        """Take up what people decided: configuration, levels, resets, versions."""
        self._heeded_s = clock.monotonic_s()
        config = await self._config_in_force()
        if config != self._config:
            log.info("detect.config", was=self._config.digest(), now=config.digest())
            self._config = config
            state = await asyncio.to_thread(self.engine.dump)
            self.engine = self._load_engine(state)
            self.engine.set_aside(self.counts.quarantined)
            self._decisions.watch(self.engine, self._mine())
            await self._decisions.rename(self.engine)
        try:
            await self._decisions.heed(self.engine, now=to_instant(self._now_us()), into=self._events)
        except (psycopg.OperationalError, psycopg_pool.PoolTimeout):
            raise
        except Exception:  # a decision that cannot be heeded must not stop the detection of faults
            self.counts.failures += 1
            log.exception("detect.decisions_failed")

    def hurry(self) -> None:
        """Heed decisions with the next step: somebody has just made one."""
        self._heeded_s = -float("inf")

    async def _take(self, batch: Batch) -> None:
        self._positions[batch.collector_id] = batch.number
        self.counts.batches += 1
        if batch.readings is None:
            self.counts.expired_batches += 1
            log.warning("detect.batch_expired", collector=batch.collector_id, number=batch.number)
            return
        if self._has_unknown(batch.readings):
            await self._load_fleet()
            mine = self._mine()
            self.engine.register(mine.machines, mine.sensors)
            self._decisions.watch_more(mine)
        self.counts.samples += len(batch.readings)
        try:
            self._events.extend(await asyncio.to_thread(self.engine.fold, batch.readings, batch.committed_us))
        except Exception as error:  # the loop's last line of defence: one machine must not stop the others
            self.counts.failures += 1
            log.exception("detect.failed", collector=batch.collector_id, number=batch.number)
            await self._isolate(batch, error)

    def _has_unknown(self, readings: ReadingArray) -> bool:
        ids = np.unique(readings["sensor_id"]).astype(np.int64)
        at = np.minimum(np.searchsorted(self._known, ids), max(len(self._known) - 1, 0))
        return len(self._known) == 0 or bool((self._known[at] != ids).any())

    async def _isolate(self, batch: Batch, error: Exception) -> None:
        """Go back to the stored state and set aside the machines whose readings break the fold.

        Raises:
            Exception: the failure itself, when no single machine causes it.
        """
        readings = batch.readings
        assert readings is not None
        before = set(self.counts.quarantined)
        found = await store.load_state(self._pool, shard=self._name)
        mine = self._mine()
        machine_of = {int(s.sensor_id): int(s.machine_id) for s in mine.sensors}
        owner = np.array([machine_of.get(int(s), -1) for s in readings["sensor_id"]])
        for machine in sorted({int(m) for m in owner} - {-1}):
            trial = (
                Engine.load(
                    found[1], machines=mine.machines, sensors=mine.sensors, config=self._config, limits=self._limits
                )
                if found
                else Engine(self._config, limits=self._limits)
            )
            trial.register(mine.machines, mine.sensors)
            trial.set_aside(before)
            try:
                for earlier in await store.next_batches(self._pool, found[0] if found else {}, most=self._most):
                    rows = earlier.readings
                    if rows is None:
                        continue
                    theirs = np.array([machine_of.get(int(s), -1) == machine for s in rows["sensor_id"]], dtype=bool)
                    trial.fold(rows[theirs], earlier.committed_us)
                    if (earlier.collector_id, earlier.number) == (batch.collector_id, batch.number):
                        break
            except Exception:
                self.counts.quarantined.add(machine)
                log.exception("detect.machine_set_aside", machine=machine)
        if self.counts.quarantined == before:
            raise error
        await self.open()
        for earlier in await store.next_batches(self._pool, self._positions, most=self._most):
            if earlier.readings is not None:
                self._events.extend(await asyncio.to_thread(self.engine.fold, earlier.readings, earlier.committed_us))
            self._positions[earlier.collector_id] = earlier.number
            if (earlier.collector_id, earlier.number) == (batch.collector_id, batch.number):
                break

    async def examine(self) -> int:
        """Ask for second opinions on findings that have none; return how many. `step` stores what they say."""
        mine = {int(m.machine_id) for m in self._mine().machines}
        return await self._examiner.opine({self._fleet.tenant_of[machine_id] for machine_id in mine}, mine)

    async def keep_examining(self, every_s: float = 10.0) -> None:
        """Ask for second opinions for ever, beside the fold."""
        while self._shadow is None:
            try:
                await self.examine()
            except Exception:  # no opinion must stop detection
                log.exception("detect.opinions_failed")
            await asyncio.sleep(every_s)

    async def save(self) -> None:
        """Store findings, state and positions together."""
        if self._shadow is None:
            self._events = await self._examiner.look(self.engine, self._events, tenant_of=self._fleet.tenant_of)
        state = await asyncio.to_thread(self.engine.dump)
        now = to_instant(self._now_us())
        self._events = [self._decisions.annotate(event) for event in self._events]
        await store.save(
            self._pool,
            shard=self._name,
            derived_from=self._stored,
            positions=self._positions,
            state=state,
            code_version=f"{STATE_VERSION}/{self._config.digest()}",
            events=self._events,
            tenant_of=self._fleet.tenant_of,
            shadow=self._shadow.id if self._shadow else None,
            also=lambda conn: self._decisions.store(conn, now=now),
        )
        self._decisions.stored()
        for event in self._events:
            log.info(
                "detect.finding" if self._shadow is None else "detect.shadow_finding",
                change=event.change.value,
                key=event.finding.key,
                machine=event.finding.machine_id,
                severity=event.finding.severity.value,
            )
        self.counts.events += len(self._events)
        self._events = []
        self._stored = dict(self._positions)
        self._saved_s = clock.monotonic_s()

    async def announce(self) -> None:
        """Hand on every stored change that was not handed on yet, unless people decided otherwise."""
        if self._shadow is not None:
            return
        mine = {int(m.machine_id) for m in self._mine().machines}
        due = await announcing.take_due(
            self._pool,
            tenant_ids={self._fleet.tenant_of[machine_id] for machine_id in mine},
            machine_ids=mine,
            rules=self._decisions.rules,
            classes=self._decisions.classes,
            now=to_instant(self._now_us()),
        )
        for announcement in due:
            await self._on_event(announcement)
            await store.mark_announced(self._pool, announcement)
            self.counts.announced += 1


def state_name(shard: str, shadow: KeptConfig | None) -> str:
    """Return under which name the state of a shard is stored."""
    return shard if shadow is None else f"shadow {shadow.id}:{shard}"


@asynccontextmanager
async def _woken(
    url: str, poll_s: float, *, on_decision: Callable[[], None]
) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Give a coroutine that returns when a batch was committed or somebody decided something, or after `poll_s`."""
    bell = asyncio.Event()

    async def listen() -> None:
        async with await connect(url, role=DatabaseRole.WORKER, name="fettle detect listen") as conn:
            await conn.execute(f"LISTEN {_BATCHES}")
            await conn.execute(f"LISTEN {_DECISIONS}")
            on_decision()
            bell.set()
            async for heard in conn.notifies():
                if heard.channel == _DECISIONS:
                    on_decision()
                bell.set()

    async def wait() -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(poll_s):
                await bell.wait()
        bell.clear()

    task = asyncio.create_task(_keep_listening(listen), name="detect.listen")
    try:
        yield wait
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _keep_listening(listen: Callable[[], Awaitable[None]]) -> None:
    while True:  # the slow poll carries detection while the notification connection is away
        try:
            await listen()
        except Exception:
            log.exception("detect.listen_lost")
        await asyncio.sleep(5.0)


async def watch(
    url: str,
    *,
    shard: str,
    config: EngineConfig,
    on_event: Callable[[Announcement], Awaitable[None]],
    stop: asyncio.Event,
    limits: Limits | None = None,
    closings: Closings | None = None,
    shadow: str | None = None,
    rebuild: bool = False,
    poll_s: float = 2.0,
) -> WatchCounts:
    """Detect until `stop` is set; then store the state and return what was done.

    Waits for its turn if another process holds the shard, or machines of it under another number of processes. With
    `shadow`, the name of a kept configuration, nothing is handed on. With `rebuild` what is stored under that name is
    forgotten first, once nobody else holds it.

    Raises:
        LostShard: another process took the shard over.
        NoSuchConfig: there is no configuration of the name `shadow`.
    """
    async with (
        await connect(url, role=DatabaseRole.WORKER, name=f"fettle detect {shard}") as lease,
        open_pool(url, role=DatabaseRole.WORKER, name=f"detect-{shard}", size=3) as pool,
    ):
        kept = None
        if shadow is not None:
            async with transaction(pool, tenant_id=None) as conn:
                kept = await registry.find_config(conn, name=shadow)
        loop = Watch(pool, shard=shard, config=config, on_event=on_event, limits=limits, closings=closings, shadow=kept)
        name = handover.lock_name(state_name(shard, kept))
        async with _woken(url, poll_s, on_decision=loop.hurry) as wait:
            await lease.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", (name,))
            if not await _open_unless(stop, loop, rebuild=rebuild):
                return loop.counts
            await loop.heed()  # which rules only watch must be known before anything is handed on
            await loop.announce()
            opinions = asyncio.create_task(loop.keep_examining(), name="detect.opinions")
            while not stop.is_set():
                if await loop.step() == 0:
                    await wait()
            opinions.cancel()
            with suppress(asyncio.CancelledError):
                await opinions
            await loop.save()
            await loop.announce()
            return loop.counts


async def _open_unless(stop: asyncio.Event, loop: Watch, *, rebuild: bool) -> bool:
    """Open a loop, which may wait for others to stop; say whether it is open, or `stop` came first."""
    opening = asyncio.create_task(loop.open(rebuild=rebuild), name="detect.open")
    stopping = asyncio.create_task(stop.wait(), name="detect.stop")
    await asyncio.wait({opening, stopping}, return_when=asyncio.FIRST_COMPLETED)
    for task in (stopping, opening):
        if not task.done():
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
    if not opening.cancelled():
        opening.result()
    return not opening.cancelled()
