"""Run dispatch: wake when a ticket changes, and look anyway every few seconds, so that a lost wake-up costs seconds only.

Any number of these loops may run: a ticket that one works on is invisible to the others, and the database has the last
word on caps, certificates and one live offer for each ticket.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import psycopg

from dispatch import offers, store
from dispatch.model import Policy
from dispatch.policy import BadPolicy
from fettle import clock, logs
from fettle.db import AsyncConn, DatabaseRole, Pool, connect, transaction
from fettle.model import TenantId, TicketId

log = logs.get("dispatch")
_SET_ASIDE = timedelta(minutes=10)


@dataclass
class Tally:
    """What one round did for one tenant."""

    offered: int = 0
    held: int = 0
    expired: int = 0
    withdrawn: int = 0
    accepted: int = 0
    failed: int = 0

    def __bool__(self) -> bool:
        return any((self.offered, self.held, self.expired, self.withdrawn, self.accepted, self.failed))


async def run_round(
    pool: Pool,
    *,
    tenant_id: TenantId,
    now: Callable[[], datetime],
    set_aside: dict[TicketId, datetime] | None = None,
) -> Tally:
    """Do all that waits for one tenant: expired offers, lapsed certificates, waiting tickets. A transaction each.

    A ticket that cannot be dispatched for an error in it, not in the database, is named in the log, noted in `set_aside`
    with the time until which it is left alone, and does not stop the others.
    """
    tally = Tally()
    set_aside = {} if set_aside is None else set_aside
    async with transaction(pool, tenant_id=tenant_id) as conn:
        policy = await store.read_policy(conn)
    tally.expired = await _repeat(pool, tenant_id, lambda conn: offers.expire_one(conn, now=now(), policy=policy))
    tally.withdrawn = await _repeat(
        pool, tenant_id, lambda conn: offers.withdraw_lapsed_one(conn, now=now(), policy=policy)
    )
    tally.accepted = await _repeat(pool, tenant_id, lambda conn: offers.auto_accept_one(conn, now=now(), policy=policy))
    passed_over = [ticket_id for ticket_id, until in set_aside.items() if now() < until]
    while True:
        ticket_id = None
        try:
            async with transaction(pool, tenant_id=tenant_id) as conn:
                ticket_id = await _claim(conn, now=now(), policy=policy, passed_over=passed_over)
                if ticket_id is None:
                    return tally
                outcome = await offers.dispatch_ticket(conn, ticket_id=ticket_id, now=now(), policy=policy)
        except psycopg.OperationalError:
            raise
        except Exception:  # the loop's last line of defence: one ticket must not stop the others
            if ticket_id is None:
                raise
            log.exception("ticket.set_aside", tenant_id=tenant_id, ticket_id=ticket_id, minutes=10)
            set_aside[ticket_id] = now() + _SET_ASIDE
            passed_over.append(ticket_id)
            tally.failed += 1
            continue
        set_aside.pop(ticket_id, None)
        passed_over.append(ticket_id)
        if isinstance(outcome, offers.Offered):
            tally.offered += 1
        else:
            tally.held += 1


async def _claim(conn: AsyncConn, *, now: datetime, policy: Policy, passed_over: list[TicketId]) -> TicketId | None:
    row = await store.fetch_one(
        conn,
        "claim_ticket",
        {"now": now, "types": [kind.value for kind in policy.auto_types], "passed_over": passed_over},
    )
    return None if row is None else TicketId(row["id"])


async def _repeat(pool: Pool, tenant_id: TenantId, step: Callable[[AsyncConn], Awaitable[bool]]) -> int:
    """Take steps, a transaction each, until there is nothing left to do."""
    done = 0
    while True:
        async with transaction(pool, tenant_id=tenant_id) as conn:
            if not await step(conn):
                return done
        done += 1


async def run_all(
    pool: Pool, *, now: Callable[[], datetime], set_aside: dict[TicketId, datetime] | None = None
) -> dict[TenantId, Tally]:
    """Run one round for every tenant. A tenant whose policy is wrong is named in the log and left out."""
    async with pool.connection() as conn:
        tenants = [TenantId(row[0]) for row in await (await conn.execute(store.queries.list_tenants)).fetchall()]
    done: dict[TenantId, Tally] = {}
    for tenant_id in tenants:
        try:
            tally = await run_round(pool, tenant_id=tenant_id, now=now, set_aside=set_aside)
        except BadPolicy as error:
            log.warning("policy.wrong", tenant_id=tenant_id, why=str(error))
            continue
        done[tenant_id] = tally
        if tally:
            log.info("round.done", tenant_id=tenant_id, **vars(tally))
    return done


async def work(
    url: str,
    pool: Pool,
    *,
    stop: asyncio.Event,
    poll_s: float = 2.0,
    now: Callable[[], datetime] = clock.now,
) -> None:
    """Dispatch until `stop` is set.

    Args:
        url: the database, for the connection that listens.
        pool: connections under `DatabaseRole.WORKER`.
        stop: ends the loop after the round that is running.
        poll_s: how long at most to wait for a wake-up.
        now: tells the time.
    """
    woken = asyncio.Event()
    set_aside: dict[TicketId, datetime] = {}
    async with await connect(url, role=DatabaseRole.WORKER, name="dispatch-listen") as listener:
        await listener.execute("LISTEN fettle_ticket")

        async def listen() -> None:
            async for _ in listener.notifies():
                woken.set()

        listening = asyncio.create_task(listen(), name="dispatch-listen")
        stopping = asyncio.create_task(stop.wait(), name="dispatch-stop")
        try:
            while not stop.is_set():
                woken.clear()
                await run_all(pool, now=now, set_aside=set_aside)
                waking = asyncio.create_task(woken.wait(), name="dispatch-wake")
                await asyncio.wait({waking, stopping, listening}, timeout=poll_s, return_when=asyncio.FIRST_COMPLETED)
                waking.cancel()
                if listening.done():
                    listening.result()  # a broken connection ends the verb; its supervisor starts it again
        finally:
            for task in (listening, stopping):
                task.cancel()
            await asyncio.gather(listening, stopping, return_exceptions=True)
