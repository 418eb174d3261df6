"""A seeded plant: `plant` on both storages, `plain_plant` where storage does not matter."""

from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import psycopg
import pytest

from dashboards.api import PART
from fettle.db import DatabaseRole, open_pool
from fettle.http import create_app
from fettle.passwords import hash_password

SEED = Path(__file__).with_name("plant.sql")
PASSWORD = "look around"


def _seed(database):
    with psycopg.connect(database.url, autocommit=True) as conn:
        conn.execute(SEED.read_text(encoding="utf-8").replace("HASH", hash_password(PASSWORD)), prepare=False)
        conn.execute("ANALYZE")
    return database


@pytest.fixture
def plant(database):
    return _seed(database)


@pytest.fixture
def plain_plant(plain_database):
    return _seed(plain_database)


class Visitor:
    """A client that logs in as whoever a test wants to be."""

    def __init__(self, app):
        self.app = app

    @asynccontextmanager
    async def logged_in(self, login):
        async with self.stranger() as client:
            answer = await client.post("/api/v1/login", json={"login": login, "password": PASSWORD})
            assert answer.status_code == 200, answer.text
            client.cookies.clear()
            client.headers["Authorization"] = f"Bearer {answer.json()['token']}"
            yield client

    def stranger(self):
        return httpx.AsyncClient(transport=httpx.ASGITransport(app=self.app), base_url="http://fettle.test")


async def _visitor(database):
    pool = open_pool(database.url, role=DatabaseRole.API, name="board-test", size=4)
    async with pool:
        yield Visitor(create_app(pool, parts=[PART]))


@pytest.fixture
async def visitor(plant):
    async for one in _visitor(plant):
        yield one


@pytest.fixture
async def plain_visitor(plain_plant):
    async for one in _visitor(plain_plant):
        yield one


@pytest.fixture
def visiting():
    """Make a visitor of an application that a test puts together."""
    return Visitor
