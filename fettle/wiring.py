"""Joins the packages by passing functions: the one place that knows all of them.

collect   readings -> ledger of batches          (ingest alone)
detect    ledger -> findings -> ticket_opener    (anomaly, then workorders)
work      tickets -> dispatch                    (dispatch, which knows workorders)
serve     the web edge over every package's routes
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from fastapi import FastAPI

from anomaly import routes as anomaly_routes
from anomaly.api import Announcement, Change, Closing, is_member
from dashboards import api as dashboards
from dispatch import routes as dispatch_routes
from fettle import clock
from fettle.company import WEEKDAYS, Company, Engineer, Machine, make_password
from fettle.db import AsyncConn, DatabaseRole, Pool, open_pool, transaction
from fettle.errors import FettleError
from fettle.http import Part, create_app
from fettle.model import (
    CustomerId,
    EngineerId,
    FindingOutcome,
    Rejection,
    Repair,
    Role,
    SiteId,
    TenantId,
)
from fettle.settings import Settings
from ingest.routes import readings_part
from workorders import api as workorders
from workorders import routes as workorders_routes


class NoSuchTenant(FettleError):
    """There is no tenant {slug}. Set FETTLE_TENANT to one that exists, or run `fettle migrate` to make it."""


class NoFinding(FettleError):
    """Ticket {number} has no finding: detection did not open it. Name a potential-fault ticket."""


def ticket_opener(pool: Pool) -> Callable[[Announcement], Awaitable[None]]:
    """Return what detection calls with each change of a finding: it opens a ticket or appends to it."""

    async def hand_on(announcement: Announcement) -> None:
        finding = announcement.event.finding
        if is_member(finding):  # the ticket of the incident's headline names its machines
            return
        reported = workorders.ReportedFinding(
            key=finding.key,
            revision=announcement.revision,
            machine_id=finding.machine_id,
            fault_family=finding.fault_family,
            kind=finding.kind,
            severity=finding.severity,
            onset_at=_instant(finding.onset_us),
            at=_instant(announcement.event.at_us),
            detector=finding.detector,
            score=finding.score,
            threshold=finding.threshold,
            evidence=finding.evidence,
            finding_id=announcement.finding_id,
        )
        tenant_id = TenantId(announcement.tenant_id)
        async with transaction(pool, tenant_id=tenant_id) as conn:
            if announcement.event.change is Change.CLEARED:
                await workorders.note_cleared(conn, finding=reported, now=clock.now())
            else:
                await workorders.open_potential_fault(conn, tenant_id=tenant_id, finding=reported, now=clock.now())

    return hand_on


_ASSUMED = {  # what the closing of a ticket says of its finding where nobody says it in so many words
    "accepted": FindingOutcome.CONFIRMED,
    "auto_accepted": FindingOutcome.CONFIRMED,
    "false_alarm": FindingOutcome.REJECTED,
    "rejected": FindingOutcome.REJECTED,
    "duplicate": FindingOutcome.REJECTED,
}


async def list_closings(conn: AsyncConn, since: datetime | None, most: int) -> list[Closing]:
    """Return what potential-fault tickets closed since an instant say of their findings, and nobody noted yet, oldest first.

    A closing that says nothing of the finding in so many words counts only where nobody has said anything of it before.
    What was handed in as the result counts as a repair, with parts as a replacement.
    """
    cursor = await conn.execute(
        """
        SELECT t.number, e.finding_id, t.resolution_code, t.closed_at, v.actor, v.reason, v.detail, w.parts
        FROM ticket AS t
        JOIN LATERAL (
            SELECT finding_id
            FROM ticket_evidence
            WHERE tenant_id = t.tenant_id AND ticket_id = t.id AND finding_id IS NOT NULL
            ORDER BY id
            LIMIT 1
        ) AS e ON true
        JOIN LATERAL (
            SELECT actor, reason, detail
            FROM ticket_event
            WHERE tenant_id = t.tenant_id AND ticket_id = t.id AND to_state = 'closed'
            ORDER BY id DESC
            LIMIT 1
        ) AS v ON true
        LEFT JOIN LATERAL (
            SELECT sum(jsonb_array_length(parts)) AS parts
            FROM work_report
            WHERE tenant_id = t.tenant_id AND ticket_id = t.id
        ) AS w ON true
        WHERE t.type = 'potential_fault' AND t.state = 'closed' AND t.closed_at >= coalesce(%(since)s, '-infinity'::timestamptz)
            AND NOT EXISTS (
                SELECT FROM finding_outcome AS o
                WHERE o.tenant_id = t.tenant_id AND o.finding_id = e.finding_id
                    AND (o.ticket = t.number OR coalesce(v.detail ->> 'outcome', '') = '')
            )
            AND EXISTS (SELECT FROM finding AS f WHERE f.tenant_id = t.tenant_id AND f.id = e.finding_id)
        ORDER BY t.closed_at, t.id
        LIMIT %(most)s
        """,
        {"since": since, "most": most},
    )
    return [_closing(*row) for row in await cursor.fetchall()]


def _closing(
    number: str,
    finding_id: int,
    resolution: str,
    closed_at: datetime,
    actor: str,
    reason: str,
    detail: dict[str, str],
    parts: int | None,
) -> Closing:
    said = detail.get("outcome")
    outcome = FindingOutcome(said) if said else _ASSUMED.get(resolution, FindingOutcome.UNKNOWN)
    why = detail.get("outcome_reason") or ("duplicate" if resolution == "duplicate" else None)
    repair = Repair.NONE
    if outcome is FindingOutcome.CONFIRMED:
        done = Repair.NONE if parts is None else Repair.REPLACED if parts else Repair.REPAIRED
        repair = Repair(detail.get("repair") or done)
    return Closing(
        ticket=number,
        finding_id=finding_id,
        outcome=outcome,
        reason=Rejection(why) if why and outcome is FindingOutcome.REJECTED else None,
        repair=repair,
        note=reason,
        closed_by=actor,
        closed_at=closed_at,
        is_assumed=not said,
    )


def _instant(us: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)


async def find_tenant(pool: Pool, slug: str) -> TenantId:
    """Return the id of a tenant.

    Raises:
        NoSuchTenant: there is none of that slug.
    """
    async with pool.connection() as conn:
        row = await (await conn.execute("SELECT id FROM tenant WHERE slug = %(slug)s", {"slug": slug})).fetchone()
    if row is None:
        raise NoSuchTenant(slug=slug)
    return TenantId(int(row[0]))


async def find_ticket_finding(conn: AsyncConn, *, number: str) -> str | None:
    """Return the key of the finding that last gave evidence to a ticket of the transaction's tenant.

    Raises:
        NoFinding: the ticket has none: a person filed it.
    """
    cursor = await conn.execute(
        """
        SELECT e.finding_key
        FROM report.ticket AS t
        LEFT JOIN report.ticket_evidence AS e ON e.ticket_id = t.ticket_id
        WHERE t.number = upper(%(number)s)
        ORDER BY e.evidence_id DESC NULLS LAST
        LIMIT 1
        """,
        {"number": number},
    )
    row = await cursor.fetchone()
    if row is None:
        return None
    if row[0] is None:
        raise NoFinding(number=number)
    return str(row[0])


@dataclass
class LoadedCompany:
    """What a company file brought, and passwords that were made because it gave none."""

    sites: int = 0
    machines: int = 0
    customers: int = 0
    engineers: int = 0
    accounts: int = 0
    new_passwords: dict[str, str] = field(default_factory=dict)


async def load_company(url: str, *, tenant: str, company: Company, password: str | None = None) -> LoadedCompany:
    """Bring a tenant up to a company file, all of it or nothing.

    Args:
        url: the database.
        tenant: slug of an existing tenant.
        company: a checked file.
        password: for accounts that the file gives none; made up for each where absent.

    Raises:
        NoSuchTenant: there is none of that slug.
    """
    done = LoadedCompany()
    async with (
        open_pool(url, role=DatabaseRole.WORKER, name="fettle-company", size=1) as workers,
        open_pool(url, role=DatabaseRole.API, name="fettle-company", size=1) as pool,
    ):
        tenant_id = await find_tenant(workers, tenant)
        async with transaction(pool, tenant_id=tenant_id) as conn:
            customers = {}
            for customer in company.customers:
                customers[customer.code] = await workorders.create_customer(
                    conn, code=customer.code, name=customer.name, phone=customer.phone, region=customer.region
                )
                done.customers += 1
            for site in company.sites:
                site_id = await workorders.create_site(
                    conn,
                    code=site.code,
                    name=site.name or site.code,
                    region=site.region,
                    latitude=site.latitude,
                    longitude=site.longitude,
                    time_zone=site.time_zone,
                )
                done.sites += 1
                for machine in site.machines:
                    await _load_machine(conn, machine, site_id, None, customers)
                    done.machines += 1
                for line in site.lines:
                    line_id = await workorders.create_line(
                        conn, site_id=site_id, code=line.code, name=line.name or line.code
                    )
                    for machine in line.machines:
                        await _load_machine(conn, machine, site_id, line_id, customers)
                        done.machines += 1
            engineers = {}
            for engineer in company.engineers:
                engineers[engineer.code] = await _load_engineer(conn, engineer)
                done.engineers += 1
            for account in company.accounts:
                chosen = account.password or password
                account_id = await workorders.create_account(
                    conn,
                    login=account.login,
                    role=account.role,
                    display_name=account.name or account.login,
                    password=chosen,
                    language=account.language,
                    engineer_id=engineers.get(account.engineer),
                    customer_id=customers.get(account.customer),
                )
                done.accounts += 1
                if chosen is None and await _is_locked(conn, account_id):
                    chosen = done.new_passwords[account.login] = make_password()
                    await workorders.create_account(
                        conn,
                        login=account.login,
                        role=account.role,
                        display_name=account.name or account.login,
                        password=chosen,
                        language=account.language,
                        engineer_id=engineers.get(account.engineer),
                        customer_id=customers.get(account.customer),
                    )
    return done


async def make_account(
    url: str,
    *,
    tenant: str,
    login: str,
    role: Role,
    password: str,
    name: str = "",
    language: str | None = None,
    engineer: str = "",
    customer: str = "",
) -> None:
    """Make an account, or give it a new password and what else is named; what is left out stays as it is.

    Raises:
        NoSuchTenant: there is none of that slug.
        LoginTaken, WrongRepresentation: see `workorders.seed`.
    """
    async with (
        open_pool(url, role=DatabaseRole.WORKER, name="fettle-account", size=1) as workers,
        open_pool(url, role=DatabaseRole.API, name="fettle-account", size=1) as pool,
    ):
        tenant_id = await find_tenant(workers, tenant)
        async with transaction(pool, tenant_id=tenant_id) as conn:
            engineer_id, customer_id = await workorders.find_represented(
                conn, login=login, role=role, engineer=engineer, customer=customer
            )
            await workorders.create_account(
                conn,
                login=login,
                role=role,
                display_name=name or login,
                password=password,
                language=language,
                engineer_id=engineer_id,
                customer_id=customer_id,
            )


async def _is_locked(conn: AsyncConn, account_id: int) -> bool:
    """Say whether an account has never had a password."""
    row = await (
        await conn.execute(
            "SELECT password_hash LIKE 'scrypt$2$%%' FROM account WHERE id = %(account_id)s", {"account_id": account_id}
        )
    ).fetchone()
    return row is not None and bool(row[0])


async def _load_machine(
    conn: AsyncConn, machine: Machine, site_id: SiteId, line_id: int | None, customers: dict[str, CustomerId]
) -> None:
    await workorders.create_machine(
        conn,
        site_id=site_id,
        line_id=line_id,
        customer_id=customers.get(machine.customer),
        number=machine.number,
        name=machine.name or machine.number,
        machine_class=machine.machine_class,
        iso_class=machine.iso_class,
        rated_current_a=machine.rated_current_a,
        required_certificate=machine.required_certificate,
        required_level=machine.required_level,
    )


async def _load_engineer(conn: AsyncConn, engineer: Engineer) -> EngineerId:
    engineer_id = await workorders.create_engineer(
        conn,
        code=engineer.code,
        name=engineer.name,
        phone=engineer.phone,
        latitude=engineer.latitude,
        longitude=engineer.longitude,
        time_zone=engineer.time_zone,
        job_cap=engineer.job_cap,
    )
    zone = ZoneInfo(engineer.time_zone)
    for certificate in engineer.certificates:
        await workorders.add_certificate(
            conn,
            engineer_id=engineer_id,
            code=certificate.code,
            level=certificate.level,
            valid_from=_midnight(certificate.valid_from, zone),
            valid_until=_midnight(certificate.valid_to + timedelta(days=1), zone),
            review_due_at=None if certificate.review_due is None else _midnight(certificate.review_due, zone),
        )
    for shift in engineer.shifts:
        for day in shift.days:
            await workorders.add_shift(
                conn,
                engineer_id=engineer_id,
                weekday=WEEKDAYS.index(day) + 1,
                starts_at=shift.starts,
                hours=shift.hours,
            )
    return engineer_id


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, time(0), tzinfo=zone)


@asynccontextmanager
async def web_application(settings: Settings, *, url: str) -> AsyncIterator[FastAPI]:
    """Yield the application of every package's routes, its pool open."""
    with readings_part(settings, url=url) as readings:
        async with open_pool(url, role=DatabaseRole.API, name="fettle-serve", size=10) as pool:
            yield create_app(
                pool,
                parts=[
                    readings,
                    Part(workorders_routes.router, workorders_routes.PROBLEMS),
                    Part(anomaly_routes.router, anomaly_routes.PROBLEMS),
                    Part(dispatch_routes.router, dispatch_routes.PROBLEMS),
                    dashboards.PART,
                ],
                session=timedelta(hours=settings.session_hours),
            )
