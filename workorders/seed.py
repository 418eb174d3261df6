"""Make, or bring up to date, what a tenant has: sites, machines, customers, engineers, accounts. Every call can be repeated."""

from collections.abc import Mapping, Sequence
from datetime import datetime, time
from typing import Any

from psycopg import errors

from fettle.db import AsyncConn
from fettle.errors import FettleError
from fettle.model import CustomerId, EngineerId, MachineId, Role, SiteId, UserId
from fettle.passwords import LOCKED, hash_password, verify_password
from workorders import store


class LoginTaken(FettleError):
    """The login name {login} belongs to another company's account. Choose another."""


class CapBelowLoad(FettleError):
    """Engineer {code} has more than {job_cap} jobs now. Give a job_cap of at least that many, or move jobs to others first."""


class WrongRepresentation(FettleError):
    """Account {login}, role {role}: {why}."""


async def _put(conn: AsyncConn, name: str, values: Mapping[str, Any]) -> int:
    row = await store.fetch_one(conn, name, values)
    assert row is not None
    return int(row["id"])


async def create_site(
    conn: AsyncConn,
    *,
    code: str,
    name: str,
    region: str = "",
    latitude: float | None = None,
    longitude: float | None = None,
    time_zone: str = "UTC",
) -> SiteId:
    values = {"code": code, "name": name, "region": region}
    place = {"latitude": latitude, "longitude": longitude, "time_zone": time_zone}
    return SiteId(await _put(conn, "put_site", {**values, **place}))


async def create_line(conn: AsyncConn, *, site_id: SiteId, code: str, name: str) -> int:
    return await _put(conn, "put_line", {"site_id": site_id, "code": code, "name": name})


async def create_customer(conn: AsyncConn, *, code: str, name: str, phone: str = "", region: str = "") -> CustomerId:
    values = {"code": code, "name": name, "phone": phone, "region": region}
    return CustomerId(await _put(conn, "put_customer", values))


async def create_machine(
    conn: AsyncConn,
    *,
    site_id: SiteId,
    number: str,
    name: str,
    machine_class: str = "",
    iso_class: str = "",
    rated_current_a: float | None = None,
    line_id: int | None = None,
    customer_id: CustomerId | None = None,
    required_certificate: str = "",
    required_level: int = 0,
) -> MachineId:
    values = {
        "site_id": site_id,
        "line_id": line_id,
        "customer_id": customer_id,
        "number": number,
        "name": name,
        "machine_class": machine_class,
        "iso_class": iso_class,
        "rated_current_a": rated_current_a,
        "required_certificate": required_certificate,
        "required_level": required_level,
    }
    return MachineId(await _put(conn, "put_machine", values))


async def create_engineer(
    conn: AsyncConn,
    *,
    code: str,
    name: str,
    latitude: float,
    longitude: float,
    phone: str = "",
    time_zone: str = "UTC",
    job_cap: int = 3,
    regions: Sequence[str] = (),
) -> EngineerId:
    """Make an engineer; without regions he or she serves all of them.

    Raises:
        CapBelowLoad: an existing one has more jobs than the new cap allows.
    """
    values = {
        "code": code,
        "name": name,
        "phone": phone,
        "latitude": latitude,
        "longitude": longitude,
        "time_zone": time_zone,
        "job_cap": job_cap,
        "regions": list(regions),
    }
    try:
        async with conn.transaction():
            return EngineerId(await _put(conn, "put_engineer", values))
    except errors.CheckViolation as error:
        if error.diag.constraint_name != "engineer_cap_check":
            raise
        raise CapBelowLoad(code=code, job_cap=job_cap) from error


async def add_certificate(
    conn: AsyncConn,
    *,
    engineer_id: EngineerId,
    code: str,
    valid_from: datetime,
    valid_until: datetime | None,
    level: int = 1,
    review_due_at: datetime | None = None,
) -> int:
    """Give an engineer a certificate, or renew the one of that code.

    `valid_until` is the end of the last valid day: half-open. None: it does not expire.
    """
    held = await store.fetch_one(conn, "find_certificate", {"engineer_id": engineer_id, "code": code})
    values = {
        "engineer_id": engineer_id,
        "code": code,
        "level": level,
        "valid_from": valid_from,
        "valid_until": valid_until,
        "review_due_at": review_due_at,
    }
    if held is None:
        return await _put(conn, "add_certificate", values)
    await conn.execute(store.queries.change_certificate, {**values, "certificate_id": held["id"]})
    return int(held["id"])


async def add_shift(conn: AsyncConn, *, engineer_id: EngineerId, weekday: int, starts_at: time, hours: float) -> int:
    """Give an engineer a weekly shift. `weekday` is ISO's, 1 for Monday, in the engineer's own time zone."""
    values = {"engineer_id": engineer_id, "weekday": weekday, "starts_at": starts_at, "hours": hours}
    return await _put(conn, "put_shift", values)


async def add_absence(
    conn: AsyncConn, *, engineer_id: EngineerId, begins_at: datetime, ends_at: datetime | None, reason: str = ""
) -> int:
    """Note that an engineer is away: on leave, ill."""
    values = {"engineer_id": engineer_id, "begins_at": begins_at, "ends_at": ends_at, "reason": reason}
    return await _put(conn, "put_absence", values)


async def create_account(
    conn: AsyncConn,
    *,
    login: str,
    role: Role,
    display_name: str,
    password: str | None = None,
    language: str | None = None,
    engineer_id: EngineerId | None = None,
    customer_id: CustomerId | None = None,
) -> UserId:
    """Make an account. Without a password a new one cannot log in, and an existing one keeps what it has.

    A new password ends every login of the account.

    Raises:
        LoginTaken: login names are unique over all tenants, and another has this one.
    """
    held = await store.fetch_one(conn, "read_password", {"login": login})
    if password is not None and held is not None and verify_password(password, held["password_hash"]):
        password = None  # it is the one there is: keep it, and the logins with it
    values = {
        "login": login,
        "password_hash": hash_password(password) if password else LOCKED,
        "has_password": password is not None,
        "role": role.value,
        "display_name": display_name,
        "language": language,
        "engineer_id": engineer_id,
        "customer_id": customer_id,
    }
    try:
        async with conn.transaction():
            account_id = UserId(await _put(conn, "put_account", values))
    except errors.InsufficientPrivilege as error:  # the row is there, under another tenant's policy
        raise LoginTaken(login=login) from error
    if password is not None:
        await conn.execute(store.queries.end_sessions, {"account_id": account_id})
    return account_id


async def find_represented(
    conn: AsyncConn, *, login: str, role: Role, engineer: str = "", customer: str = ""
) -> tuple[EngineerId | None, CustomerId | None]:
    """Return the engineer or the customer of a code, for the account that is to stand for it; empty codes mean neither.

    Raises:
        WrongRepresentation: there is none of that code, the role stands for nobody, or it has to and the account does not.
    """
    row = await store.fetch_one(
        conn, "find_represented", {"login": login, "role": role.value, "engineer": engineer, "customer": customer}
    )
    assert row is not None

    def refuse(why: str) -> WrongRepresentation:
        return WrongRepresentation(login=login, role=role.value, why=why)

    for takes, option, code, found in (
        (Role.ENGINEER, "engineer", engineer, row["engineer_id"]),
        (Role.CUSTOMER_REP, "customer", customer, row["customer_id"]),
    ):
        if code and role is not takes:
            raise refuse(f"only the role {takes.value} stands for one {option}; leave --{option} out")
        if code and found is None:
            raise refuse(f"there is no {option} {code!r}; load it with a company file first")
        if role is takes and not code and not row["is_known"]:
            raise refuse(f"it needs --{option} CODE, the {option} it stands for")
    return row["engineer_id"], row["customer_id"]
