"""A small company in a database of its own, and the web application over it.

`company` makes tenants; `office` serves the API without a socket and logs people in.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta

import httpx
import pytest

from fettle import http, passwords
from fettle.db import AsyncConn, DatabaseRole, Pool, connect_sync, open_pool, transaction
from fettle.model import FaultFamily, FindingKind, Role, Severity
from workorders import api as workorders

NOON = datetime(2026, 6, 3, 12, 0, tzinfo=UTC)  # a Wednesday
PASSWORD = "a long enough password"


@pytest.fixture(autouse=True)
def _cheap_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many accounts are made here; what a guess costs is tested with the passwords."""
    monkeypatch.setattr(passwords, "_P", 1)


@dataclass
class Clock:
    """A clock that tests set."""

    at: datetime = NOON

    def __call__(self) -> datetime:
        return self.at

    def advance(self, **span: float) -> None:
        self.at += timedelta(**span)


@dataclass
class Company:
    """One tenant with a site, two machines, a customer and an account of every role."""

    tenant_id: int
    pool: Pool
    workers: Pool
    prefix: str
    ids: dict[str, int] = field(default_factory=dict)

    @asynccontextmanager
    async def api(self) -> AsyncIterator[AsyncConn]:
        async with transaction(self.pool, tenant_id=self.tenant_id) as conn:
            yield conn

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[AsyncConn]:
        async with transaction(self.workers, tenant_id=self.tenant_id) as conn:
            yield conn

    async def hire(
        self,
        code: str,
        *,
        latitude: float = 31.3,
        longitude: float = 120.6,
        certificates: dict[str, int] | None = None,
        valid_until: datetime | None = NOON + timedelta(days=365),
        review_due_at: datetime | None = None,
        shifts: tuple[tuple[int, time, float], ...] = tuple((day, time(0), 24.0) for day in range(1, 8)),
        job_cap: int = 3,
        regions: tuple[str, ...] = (),
        time_zone: str = "Asia/Shanghai",
    ) -> int:
        async with self.api() as conn:
            engineer_id = await workorders.create_engineer(
                conn, code=code, name=code.title(), latitude=latitude, longitude=longitude, time_zone=time_zone,
                job_cap=job_cap, regions=regions,
            )  # fmt: skip
            for name, level in (certificates or {}).items():
                await workorders.add_certificate(
                    conn, engineer_id=engineer_id, code=name, level=level, valid_from=NOON - timedelta(days=365),
                    valid_until=valid_until, review_due_at=review_due_at,
                )  # fmt: skip
            for weekday, starts_at, hours in shifts:
                await workorders.add_shift(
                    conn, engineer_id=engineer_id, weekday=weekday, starts_at=starts_at, hours=hours
                )
            await workorders.create_account(
                conn, login=f"{self.prefix}.{code}", role=Role.ENGINEER, display_name=code, password=PASSWORD,
                engineer_id=engineer_id,
            )  # fmt: skip
        self.ids[code] = engineer_id
        return engineer_id

    async def find_fault(
        self,
        *,
        family: FaultFamily = FaultFamily.OVERHEATING,
        severity: Severity = Severity.MEDIUM,
        key: str = "f1",
        revision: int = 1,
        machine: str = "press",
        now: datetime = NOON,
    ) -> workorders.Opened | workorders.Appended:
        async with self.worker() as conn:
            return await workorders.open_potential_fault(
                conn, tenant_id=self.tenant_id, now=now,
                finding=finding(self.ids[machine], family=family, severity=severity, key=key, revision=revision, at=now),
            )  # fmt: skip

    async def clear_fault(
        self, *, key: str = "f1", revision: int = 2, machine: str = "press", now: datetime = NOON + timedelta(hours=1)
    ) -> workorders.Appended | workorders.NoOpenTicket:
        async with self.worker() as conn:
            reported = finding(self.ids[machine], key=key, revision=revision, at=now)
            return await workorders.note_cleared(conn, finding=reported, now=now)


def finding(
    machine_id: int,
    *,
    family: FaultFamily = FaultFamily.OVERHEATING,
    severity: Severity = Severity.MEDIUM,
    key: str = "f1",
    revision: int = 1,
    at: datetime = NOON,
) -> workorders.ReportedFinding:
    return workorders.ReportedFinding(
        key=key, revision=revision, machine_id=machine_id, fault_family=family, kind=FindingKind.MACHINE,
        severity=severity, onset_at=at - timedelta(minutes=10), at=at, detector="residual", score=4.2, threshold=3.0,
        evidence={"contributions": [{"sensor": "motor_temperature", "measured": 92.0, "expected": 61.0, "unit": "°C"}]},
    )  # fmt: skip


@pytest.fixture
async def company(plain_database) -> AsyncIterator[Callable[[str], object]]:
    """Return a function that makes a tenant."""
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(
            open_pool(plain_database.url, role=DatabaseRole.API, name="test-api", size=20)
        )
        workers = await stack.enter_async_context(
            open_pool(plain_database.url, role=DatabaseRole.WORKER, name="test-work", size=20)
        )

        async def make(slug: str = "acme") -> Company:
            with connect_sync(plain_database.url, role=DatabaseRole.OWNER, name="test") as owner:
                (tenant_id,) = owner.execute(
                    "INSERT INTO tenant (slug, name) VALUES (%s, %s) RETURNING id", (slug, slug)
                ).fetchone()
            made = Company(tenant_id, pool, workers, slug)
            async with made.api() as conn:
                site = await workorders.create_site(
                    conn, code="suzhou", name="Suzhou", region="East", latitude=31.3, longitude=120.62,
                    time_zone="Asia/Shanghai",
                )  # fmt: skip
                line = await workorders.create_line(conn, site_id=site, code="l1", name="Line 1")
                customer = await workorders.create_customer(conn, code="taihu", name="Taihu", phone="+86 512 5550101")
                made.ids["taihu"] = customer
                made.ids["press"] = await workorders.create_machine(
                    conn, site_id=site, line_id=line, customer_id=customer, number="P-101", name="Press"
                )
                made.ids["cabinet"] = await workorders.create_machine(
                    conn, site_id=site, number="HV-1", name="Cabinet", required_certificate="hv_electrician",
                    required_level=2,
                )  # fmt: skip
                for role in Role:
                    if role is not Role.ENGINEER:
                        made.ids[role.value] = await workorders.create_account(
                            conn, login=f"{slug}.{role.value}", role=role, display_name=role.value, password=PASSWORD,
                            customer_id=customer if role is Role.CUSTOMER_REP else None,
                        )  # fmt: skip
            return made

        yield make


@dataclass
class Office:
    """The web application, and people logged in to it."""

    client: httpx.AsyncClient
    clock: Clock

    async def log_in(self, login: str) -> dict[str, str]:
        answer = await self.client.post("/api/v1/login", json={"login": login, "password": PASSWORD})
        assert answer.status_code == 200, answer.text
        self.client.cookies.clear()
        return {"Authorization": f"Bearer {answer.json()['token']}"}


@pytest.fixture
async def office(company) -> AsyncIterator[Callable[..., object]]:
    """Return a function that serves the API of a company."""
    async with AsyncExitStack() as stack:

        async def serve(made: Company, parts: list[http.Part]) -> Office:
            clock = Clock()
            app = http.create_app(made.pool, parts=parts, now=clock)
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            client = await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url="http://fettle"))
            return Office(client, clock)

        yield serve
