"""A managed PostgreSQL gives out no superuser: everything must work for an owner that may log in and make roles, no more."""

from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

import httpx
import psycopg
import pytest

from dashboards.api import ensure_login
from fettle import embedded
from fettle.company import read_company
from fettle.db import DatabaseRole, connect, connect_sync
from fettle.migrate import MissingPrivilege, migrate
from fettle.model import Role
from fettle.settings import Settings
from fettle.wiring import load_company, web_application

NOW = datetime(2026, 6, 3, 12, 0, tzinfo=UTC)
PASSWORD = "a long enough password"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of its own, since roles belong to the cluster and must not be there yet."""
    folder = tmp_path_factory.mktemp("cluster")
    with embedded.postgres(folder / "postgres", options={"fsync": "off", "full_page_writes": "off"}) as url:
        yield url


@pytest.fixture(scope="module")
def managed(cluster: str) -> str:
    """A migrated database of an owner that may make roles, as cloud providers give it."""
    with psycopg.connect(cluster, autocommit=True) as conn:
        conn.execute("CREATE ROLE plant_owner LOGIN CREATEROLE")
        conn.execute("CREATE DATABASE plant OWNER plant_owner")
    url = _as(cluster, "plant_owner", "plant")
    assert "0001_business" in migrate(url, tenant="acme").applied
    return url


def _as(url: str, login: str, database: str) -> str:
    return url.replace("//postgres@", f"//{login}@").replace("/fettle?", f"/{database}?")


def test_the_owner_can_migrate_again(managed: str) -> None:
    assert migrate(managed, tenant="acme").applied == ()


async def test_a_company_loads_and_its_people_log_in_and_file(managed: str) -> None:
    company = read_company(Path(str(resources.files("fettle").joinpath("demo_company.toml"))))
    loaded = await load_company(managed, tenant="acme", company=company, password=PASSWORD)
    assert (loaded.sites, loaded.engineers) == (len(company.sites), len(company.engineers))
    async with web_application(Settings(), url=managed) as app:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://fettle") as client:
            login = next(account.login for account in company.accounts if account.role is Role.SUPERVISOR)
            answer = await client.post("/api/v1/login", json={"login": login, "password": PASSWORD})
            assert answer.status_code == 200, answer.text
            token = {"Authorization": f"Bearer {answer.json()['token']}"}
            client.cookies.clear()
            for path in ("/api/v1/me", "/api/v1/tickets", "/board/data/overview"):
                answer = await client.get(path, headers=token)
                assert answer.status_code == 200, answer.text
            fault = {
                "equipment_number": "?",
                "fault_description": "It hums.",
                "contact_phone": "12345",
                "region": "East",
            }
            answer = await client.post("/api/v1/tickets", headers=token, json=fault)
            assert answer.status_code == 201, answer.text


async def test_workers_write_readings_under_their_role(managed: str) -> None:
    conn = await connect(managed, role=DatabaseRole.WORKER, name="test")
    async with conn:
        await conn.execute("SELECT ensure_reading_partitions(%s, %s)", (NOW, NOW))
        await conn.execute("INSERT INTO reading VALUES (1, 192, 0, %s, 1.5) ON CONFLICT DO NOTHING", (NOW,))
        assert await (await conn.execute("SELECT count(*) FROM reading")).fetchone() == (1,)


def test_a_tenant_gets_a_login_of_its_own_and_a_new_password(managed: str) -> None:
    with connect_sync(managed, role=DatabaseRole.OWNER, name="test") as conn:
        first = ensure_login(conn, tenant="acme", password=None)
        renewed = ensure_login(conn, tenant="acme", password=None, renew=True)
    assert (first.is_new, renewed.is_new) == (True, False)
    with psycopg.connect(_as(managed.replace("//plant_owner@", "//postgres@"), first.name, "plant")) as tenant:
        assert tenant.execute("SELECT slug FROM report.tenant").fetchall() == [("acme",)]


def test_the_owner_of_another_database_is_told_which_roles_it_lacks(cluster: str, managed: str) -> None:
    """The roles are there, made by somebody else: a second owner may not act as them until it is let."""
    with psycopg.connect(cluster, autocommit=True) as conn:
        conn.execute("CREATE ROLE second_owner LOGIN")
        conn.execute("CREATE DATABASE second OWNER second_owner")
    url = _as(cluster, "second_owner", "second")
    with pytest.raises(MissingPrivilege, match="GRANT fettle_api, fettle_worker, fettle_tenant TO second_owner"):
        migrate(url)
    with psycopg.connect(cluster, autocommit=True) as conn:
        conn.execute("GRANT fettle_api, fettle_worker, fettle_tenant TO second_owner")
    assert "0001_business" in migrate(url).applied
