"""What people decided, as one process of detection heeds it; and the versions its engine learns.

    heed   closings, outcomes ─▶ levels, orders ─▶ engine          before the next batches
    store  orders done, versions learned                           in the transaction of findings, state and positions

An order is done with the state that it led to, or not at all: after a crash it is carried out again.
"""

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import psycopg
import psycopg_pool

from anomaly import outcomes, registry, steering, versions
from anomaly.announcing import Rules
from anomaly.engine import Engine
from anomaly.finding import FindingEvent
from anomaly.inhibitions import note
from anomaly.outcomes import Closings
from anomaly.registry import Order
from anomaly.steering import Lift
from anomaly.store import Fleet
from anomaly.versions import ForeignModel, ModelVersion
from fettle import logs
from fettle.db import AsyncConn, Pool, load_queries, set_tenant, transaction

log = logs.get("detect")
_NOT_NOW = (psycopg.OperationalError, psycopg_pool.PoolTimeout)  # the database is away: nothing can be heeded
_CLOSINGS = 100  # to hear at once: after a long pause they are heard in portions
_SIMILAR = 5
_EXTRACTED = 100
_REMEMBER = timedelta(hours=1)
_OVERLAP = timedelta(hours=1)  # a ticket that was being closed when we last looked


class Decisions:
    """Decisions on the machines of one process."""

    def __init__(self, pool: Pool, *, closings: Closings | None = None, is_shadow: bool = False) -> None:
        self._pool = pool
        self._closings = closings
        self._is_shadow = is_shadow
        self._fleet = Fleet([], [], {})
        self._past: dict[int, list[dict[str, Any]]] = {}
        self._heard: dict[int, datetime] = {}
        self._remembered: dict[int, tuple[int, datetime]] = {}
        self._done: list[tuple[int, Order, str]] = []
        self._learned: list[ModelVersion] = []
        self._lifts: dict[int, list[Lift]] = {}
        self._in_force: tuple[int, list[Lift]] | None = None
        self.rules: dict[int, Rules] = {}
        self.classes: dict[int, str] = {}

    def watch(self, engine: Engine, fleet: Fleet) -> None:
        """Follow an engine and the machines that are its own."""
        self.watch_more(fleet)
        self._done.clear()
        self._learned.clear()
        engine.assessment.feedback = self.known
        engine.on_fit = None if self._is_shadow else lambda i: self._learned.append(versions.extract(engine, i))

    def watch_more(self, fleet: Fleet) -> None:
        """Note machines that joined."""
        self._fleet = fleet
        self._in_force = None  # new rows carry none yet
        self.classes = {int(m.machine_id): m.machine_class or "" for m in fleet.machines}

    async def rename(self, engine: Engine) -> None:
        """Register what the machines have learned under the names it has now, after a change of configuration."""

        def extract(machine_ids: list[int]) -> list[ModelVersion]:
            return [versions.extract(engine, i) for i in machine_ids if versions.name_of(engine, i)]

        ids = [int(m.machine_id) for m in self._fleet.machines]
        for k in range(0, len(ids), _EXTRACTED):  # milliseconds each: nothing else may wait for them
            self._learned.extend(await asyncio.to_thread(extract, ids[k : k + _EXTRACTED]))

    @property
    def is_pending(self) -> bool:
        """Whether there is something to store."""
        return bool(self._done or self._learned)

    def known(self, machine_id: int, detector: str, family: str) -> Mapping[str, Any]:
        """Return what feedback says of a rule on a machine, for the evidence of a finding."""
        tenant_id = self._fleet.tenant_of.get(machine_id, 0)
        record = self.rules.get(tenant_id, {}).get((family, detector, self.classes.get(machine_id, "")))
        similar = [
            {
                "ticket": row["ticket"],
                "outcome": row["outcome"],
                "reason": row["reason"],
                "at": row["decided_at"].isoformat(),
            }
            for row in self._past.get(tenant_id, [])
            if row["machine_id"] == machine_id and row["fault_family"] == family
        ]
        return {"precision": record.as_dict() if record else None, "similar": similar[:_SIMILAR]}

    def annotate(self, event: FindingEvent) -> FindingEvent:
        """Return a change of a finding with what feedback says of its rule in the evidence."""
        finding = event.finding
        if finding.evidence.get("precision") is not None:
            return event
        known = self.known(int(finding.machine_id), finding.detector, finding.fault_family.value)
        return FindingEvent(event.change, finding.changed(evidence={**finding.evidence, **known}), event.at_us)

    async def heed(self, engine: Engine, *, now: datetime, into: list[FindingEvent]) -> None:
        """Take up what people decided since the last time; the changes of findings it leads to go `into` a list at once.

        What fails for one tenant, or one order, keeps no other from being heeded.

        Raises:
            ExceptionGroup: what failed, after all else is done.
        """
        mine = {int(m.machine_id) for m in self._fleet.machines}
        done = {order.id for _, order, _ in self._done}
        failures: list[Exception] = []
        orders: list[tuple[int, Order, dict[str, Any] | None]] = []
        tenants = sorted({self._fleet.tenant_of[i] for i in mine})
        for tenant_id in tenants:
            try:
                if not self._is_shadow:
                    failures += await self._learn(engine, tenant_id, mine, now)
            except _NOT_NOW:
                raise
            except Exception as error:  # the other tenants' decisions count
                failures.append(error)
            try:
                orders += await self._read(tenant_id, mine, done, now)
            except _NOT_NOW:
                raise
            except Exception as error:  # likewise
                failures.append(error)
        if all(tenant_id in self._lifts for tenant_id in tenants):
            lifts = [lift for tenant_id in tenants for lift in self._lifts[tenant_id]]
            in_force = (engine.alarms.n, lifts)  # an alarm that is new is not muted yet
            if in_force != self._in_force:
                into.extend(steering.set_lifts(engine, lifts))
                self._in_force = in_force
        for tenant_id, order, found in orders:
            try:
                into.extend(self._carry_out(engine, tenant_id, order, found))
            except Exception as error:  # the other orders count
                failures.append(error)
        if failures:
            raise ExceptionGroup("decisions that could not be heeded", failures)

    async def _read(
        self, tenant_id: int, mine: set[int], done: set[int], now: datetime
    ) -> list[tuple[int, Order, dict[str, Any] | None]]:
        """Read the levels in force of a tenant and what became of its findings; return the orders that wait."""
        async with transaction(self._pool, tenant_id=tenant_id) as conn:
            waiting = [] if self._is_shadow else await registry.list_orders(conn, tenant_id=tenant_id)
            orders = [
                (tenant_id, order, await self._arrays(conn, tenant_id, order))
                for order in waiting
                if order.machine_id in mine and order.id not in done
            ]
            rows = await outcomes.list_lifts(conn, tenant_id=tenant_id, now=now)
            self._lifts[tenant_id] = [outcomes.as_lift(row) for row in rows]
            await self._remember(conn, tenant_id, now)
        return orders

    async def _remember(self, conn: AsyncConn, tenant_id: int, now: datetime) -> None:
        """Read what became of findings, if anything was said since the last time, or an hour has passed."""
        newest = await outcomes.newest(conn, tenant_id=tenant_id)
        known = self._remembered.get(tenant_id)
        if known is not None and known[0] == newest and now - known[1] < _REMEMBER:
            return
        records = await outcomes.list_rules(conn, tenant_id=tenant_id, now=now)
        self.rules[tenant_id] = {(r.fault_family, r.detector, r.machine_class): r for r in records}
        self._past[tenant_id] = await outcomes.list_past(conn, tenant_id=tenant_id, now=now)
        self._remembered[tenant_id] = (newest, now)

    async def _learn(self, engine: Engine, tenant_id: int, mine: set[int], now: datetime) -> list[Exception]:
        """Hear what closed tickets say and learn from outcomes; return what could not be learned."""
        is_all = True
        async with transaction(self._pool, tenant_id=tenant_id) as conn:
            if self._closings is not None:
                closings = await self._closings(conn, self._heard.get(tenant_id), _CLOSINGS)
                is_all = len(closings) < _CLOSINGS
                await outcomes.hear_closings(conn, closings, tenant_id=tenant_id)
            _, failures = await outcomes.learn(
                conn,
                tenant_id=tenant_id,
                machine_ids=mine,
                peak_of=lambda sensor_id, feature: steering.peaks(engine, sensor_id, feature),
                now=now,
            )
        if is_all:
            self._heard[tenant_id] = now - _OVERLAP  # only once it is committed
        return failures

    async def _arrays(self, conn: AsyncConn, tenant_id: int, order: Order) -> dict[str, Any] | None:
        if order.kind != "activate":
            return None
        try:
            return await registry.find_version(
                conn, tenant_id=tenant_id, machine_id=order.machine_id, version=order.version
            )
        except ForeignModel as error:
            log.warning("detect.version_refused", machine=order.machine_id, version=order.version, why=str(error))
            return None

    def _carry_out(
        self, engine: Engine, tenant_id: int, order: Order, found: Mapping[str, Any] | None
    ) -> list[FindingEvent]:
        log.info("detect.order", kind=order.kind, machine=order.machine_id, version=order.version)
        refused = ""
        events: list[FindingEvent] = []
        if order.kind == "reset":
            events = steering.reset(engine, order.machine_id, after_version=order.newest)
        elif found is None:
            refused = "there is no such version, or its bytes are not those that were registered"
        else:
            try:
                versions.put(engine, found["arrays"], sha256=found["sha256"])
                if (name := versions.name_of(engine, order.machine_id)) != order.version:
                    log.info("detect.version_renamed", machine=order.machine_id, was=order.version, version=name)
                    self._learned.append(versions.extract(engine, order.machine_id))
            except ForeignModel as error:
                refused = str(error)
        if refused:
            log.warning("detect.order_refused", order=order.id, why=refused)
        self._done.append((tenant_id, order, refused))
        return events

    async def store(self, conn: AsyncConn, *, now: datetime) -> None:
        """Store what was done and learned, in the transaction of the state that it is part of."""
        for version in self._learned:
            tenant_id = self._fleet.tenant_of[version.machine_id]
            await set_tenant(conn, tenant_id=tenant_id)
            await registry.register(conn, version, tenant_id=tenant_id, now=now)
        for tenant_id, order, refused in self._done:
            await set_tenant(conn, tenant_id=tenant_id)
            await conn.execute(
                load_queries("anomaly").finish_order,
                {"tenant_id": tenant_id, "id": order.id, "now": now, "refusal": refused},
            )
            await note(
                conn,
                tenant_id=tenant_id,
                machine_id=order.machine_id,
                at=now,
                actor=order.ordered_by,
                kind="refused" if refused else "reset" if order.kind == "reset" else "activated",
                reason=order.reason,
                detail={"order": order.id, "version": order.version, **({"refused": refused} if refused else {})},
            )

    def stored(self) -> None:
        """Forget what the last transaction has stored."""
        self._done.clear()
        self._learned.clear()
