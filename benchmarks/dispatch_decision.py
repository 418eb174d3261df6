"""How long one dispatch decision takes: claim, read the engineers, judge, score, write decision, offer and events.

Baseline: the same ticket given to the nearest engineer by one SQL statement, without rules or explanation.
"""

import argparse
import asyncio
import platform
import random
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import psycopg

from dispatch.api import Policy, dispatch_ticket
from fettle import clock, embedded
from fettle.db import DatabaseRole, connect_sync, open_pool, transaction
from fettle.migrate import migrate
from fettle.model import Role, TenantId, TicketId, TicketState
from workorders import api as workorders

BASELINE = """
    SELECT e.id FROM engineer AS e
    WHERE e.tenant_id = %(tenant_id)s AND e.is_active AND e.active_jobs < e.job_cap
    ORDER BY (e.latitude - 31.3) ^ 2 + (e.longitude - 120.6) ^ 2
    LIMIT 1
"""


def run(argv: list[str]) -> dict[str, object]:
    """Measure decisions on a database of its own and return milliseconds."""
    parser = argparse.ArgumentParser(prog="benchmarks dispatch_decision", description=__doc__)
    parser.add_argument("--engineers", type=int, default=1000)
    parser.add_argument("--tickets", type=int, default=200)
    parser.add_argument("--type", choices=("repair", "emergency_stop"), default="repair")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder, embedded.postgres(Path(folder) / "pg") as url:
        migrate(url, storage="plain", tenant="bench")
        decided, nearest, cpu_ms = asyncio.run(_measure(url, args))
    result: dict[str, object] = {
        "benchmark": "dispatch_decision",
        "engineers": args.engineers,
        "tickets": args.tickets,
        "type": args.type,
        "seed": args.seed,
        "python": platform.python_version(),
        "psycopg": psycopg.__version__,
        "decision_ms_p50": round(float(np.percentile(decided, 50)), 2),
        "decision_ms_p95": round(float(np.percentile(decided, 95)), 2),
        "client_cpu_ms_mean": round(cpu_ms, 2),
        "nearest_ms_p50": round(float(np.percentile(nearest, 50)), 2),
        "ratio_p50": round(float(np.percentile(decided, 50) / np.percentile(nearest, 50)), 1),
    }
    print(
        "Protocol: one tenant on embedded PostgreSQL, fsync on; each engineer has 5 shifts of 9 h and two certificates"
    )
    print("at random; each ticket asks for one; a decision is one transaction with its commit.")
    for key, value in result.items():
        print(f"{key:20} {value}")
    return result


async def _measure(url: str, args: argparse.Namespace) -> tuple[list[float], list[float], float]:
    rng = random.Random(args.seed)
    now = clock.now()
    with connect_sync(url, role=DatabaseRole.OWNER, name="bench") as conn:
        (tenant,) = conn.execute("SELECT id FROM tenant").fetchone() or (0,)
    tenant_id = TenantId(int(tenant))
    async with (
        open_pool(url, role=DatabaseRole.API, name="bench") as pool,
        transaction(pool, tenant_id=tenant_id) as conn_api,
    ):
        site = await workorders.create_site(conn_api, code="s", name="s", region="East", latitude=31.3, longitude=120.6)
        for code in ("electrician", "vibration", "hydraulics"):
            await workorders.create_machine(
                conn_api, site_id=site, number=code, name=code, required_certificate=code, required_level=1
            )
        for number in range(args.engineers):
            engineer_id = await workorders.create_engineer(
                conn_api, code=f"e{number}", name=f"E{number}", latitude=rng.uniform(30, 32),
                longitude=rng.uniform(119, 122), job_cap=5,
            )  # fmt: skip
            for code in rng.sample(("electrician", "vibration", "hydraulics"), 2):
                await workorders.add_certificate(
                    conn_api, engineer_id=engineer_id, code=code, level=rng.randint(1, 3),
                    valid_from=now - timedelta(days=300), valid_until=now + timedelta(days=rng.randint(-30, 900)),
                )  # fmt: skip
            for weekday in range(1, 6):
                await workorders.add_shift(
                    conn_api, engineer_id=engineer_id, weekday=weekday, starts_at=now.time().replace(hour=8),
                    hours=9,
                )  # fmt: skip
        tickets: list[TicketId] = []
        for _ in range(args.tickets):
            report = workorders.read_report(
                {
                    "equipment_number": rng.choice(("electrician", "vibration", "hydraulics")),
                    "fault_description": "it stopped",
                    "contact_phone": "12345",
                    "region": "East",
                    "type": args.type,
                }
            )
            filed = await workorders.file_ticket(conn_api, report=report, actor=workorders.DETECTION, now=now)
            if args.type == "repair":
                await workorders.transition(
                    conn_api, ticket_id=filed.id, to=TicketState.PENDING_CONFIRMATION, now=now,
                    actor=workorders.Actor("bench", Role.ORDER_TAKER),
                )  # fmt: skip
            tickets.append(filed.id)
    decided: list[float] = []
    nearest: list[float] = []
    cpu_s = time.process_time()
    async with open_pool(url, role=DatabaseRole.WORKER, name="bench") as pool:
        for ticket_id in tickets:
            begun = time.perf_counter()
            async with transaction(pool, tenant_id=tenant_id) as conn_work:
                await dispatch_ticket(conn_work, ticket_id=ticket_id, now=now, policy=Policy())
            decided.append(1000 * (time.perf_counter() - begun))
            begun = time.perf_counter()
            async with transaction(pool, tenant_id=tenant_id) as conn_work:
                await (await conn_work.execute(BASELINE, {"tenant_id": tenant_id})).fetchone()
            nearest.append(1000 * (time.perf_counter() - begun))
    return decided, nearest, 1000 * (time.process_time() - cpu_s) / len(tickets)
