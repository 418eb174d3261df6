"""A company as one TOML file: sites, lines, machines, customers, engineers, accounts.

Loading is idempotent: what is there is brought up to date, nothing is removed. A wrong file names the key and the remedy,
and changes nothing.
"""

import secrets
import tomllib
from collections.abc import Callable, Sequence
from datetime import date, time
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import available_timezones

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from fettle.errors import FettleError
from fettle.model import Role


class BadCompanyFile(FettleError):
    """{path} was not loaded, nothing was changed: {problems}."""


def _known_zone(name: str) -> str:
    if name not in available_timezones():
        raise ValueError(f"{name!r} is not an IANA time zone, such as Europe/Berlin or Asia/Shanghai")
    return name


Zone = Annotated[str, AfterValidator(_known_zone)]
Code = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^/+#\x00-\x1f]+$")]
Latitude = Annotated[float, Field(ge=-90, le=90)]
Longitude = Annotated[float, Field(ge=-180, le=180)]
Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEKDAYS: tuple[Weekday, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Machine(_Table):
    """One machine; `number` is what people quote and what topics carry."""

    number: Code
    name: str = ""
    machine_class: str = Field("", alias="class")
    customer: str = ""
    iso_class: str = ""
    rated_current_a: float | None = Field(None, gt=0)
    required_certificate: str = ""
    required_level: int = Field(0, ge=0)


class Line(_Table):
    code: Code
    name: str = ""
    machines: tuple[Machine, ...] = Field((), alias="machine")


class Site(_Table):
    """A plant."""

    code: Code
    name: str = ""
    region: str = ""
    latitude: Latitude | None = None
    longitude: Longitude | None = None
    time_zone: Zone = "UTC"
    lines: tuple[Line, ...] = Field((), alias="line")
    machines: tuple[Machine, ...] = Field((), alias="machine")


class Customer(_Table):
    code: Code
    name: str
    phone: str = ""
    region: str = ""


class Certificate(_Table):
    """Valid from the first to the last day, both included, in the engineer's time zone."""

    code: str
    level: int = Field(1, ge=0)
    valid_from: date
    valid_to: date
    review_due: date | None = None


class Shift(_Table):
    """The same hours on each of `days`; they may run past midnight."""

    days: tuple[Weekday, ...] = ("mon", "tue", "wed", "thu", "fri")
    starts: time = time(8, 0)
    hours: float = Field(8.0, gt=0, le=24)


class Engineer(_Table):
    code: Code
    name: str
    phone: str = ""
    latitude: Latitude
    longitude: Longitude
    time_zone: Zone = "UTC"
    job_cap: int = Field(3, ge=1)
    certificates: tuple[Certificate, ...] = Field((), alias="certificate")
    shifts: tuple[Shift, ...] = Field((), alias="shift")


class Account(_Table):
    """Somebody who logs in. Without a password one is made and shown once."""

    login: str = Field(min_length=1)
    name: str = ""
    role: Role
    language: Literal["en", "zh"] = "en"
    password: str | None = Field(None, min_length=8)
    engineer: str = ""
    customer: str = ""


class Company(_Table):
    """Everything a tenant starts with."""

    sites: tuple[Site, ...] = Field((), alias="site")
    customers: tuple[Customer, ...] = Field((), alias="customer")
    engineers: tuple[Engineer, ...] = Field((), alias="engineer")
    accounts: tuple[Account, ...] = Field((), alias="account")


def read_company(path: Path) -> Company:
    """Read and check a company file.

    Raises:
        BadCompanyFile: it cannot be read, is no TOML, or says something that cannot be.
    """
    try:
        body = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadCompanyFile(path=path, problems=f"it cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise BadCompanyFile(path=path, problems="it is not UTF-8 text; save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise BadCompanyFile(path=path, problems=f"it is not TOML: {error}") from error
    try:
        company = Company.model_validate(body)
    except ValidationError as error:
        problems = [
            f"{'.'.join(str(part) for part in p['loc'])}: "
            + ("no such key; leave it out, or check its spelling" if p["type"] == "extra_forbidden" else p["msg"])
            for p in error.errors()
        ]
        raise BadCompanyFile(path=path, problems="; ".join(problems)) from error
    problems = list(_contradictions(company))
    if problems:
        raise BadCompanyFile(path=path, problems="; ".join(problems))
    return company


def _contradictions(company: Company) -> list[str]:
    """Return references to what is not in the file, and certificates that end before they begin."""
    customers = {c.code for c in company.customers}
    engineers = {e.code for e in company.engineers}
    machines = [
        (f"site {s.code}, machine {m.number}", m)
        for s in company.sites
        for m in (*s.machines, *(m for li in s.lines for m in li.machines))
    ]
    found = [
        f"{where}: customer {m.customer!r} is not in this file"
        for where, m in machines
        if m.customer and m.customer not in customers
    ]
    found += [
        f"account {a.login}: engineer {a.engineer!r} is not in this file"
        for a in company.accounts
        if a.engineer and a.engineer not in engineers
    ]
    found += [
        f"account {a.login}: customer {a.customer!r} is not in this file"
        for a in company.accounts
        if a.customer and a.customer not in customers
    ]
    found += [
        f"account {a.login}: role engineer needs engineer = its code"
        for a in company.accounts
        if a.role is Role.ENGINEER and not a.engineer
    ]
    found += [
        f"engineer {e.code}, certificate {c.code}: valid_to is before valid_from"
        for e in company.engineers
        for c in e.certificates
        if c.valid_to < c.valid_from
    ]
    return found


def make_password(choose: Callable[[Sequence[str]], str] = secrets.choice) -> str:
    """Return a password of 16 letters and digits that are hard to mistake for each other."""
    return "".join(choose("abcdefghjkmnpqrstuvwxyz23456789") for _ in range(16))
