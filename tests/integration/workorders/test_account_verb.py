"""`fettle account` as people start it."""

import os
import subprocess
import sys

import pytest

from fettle.db import DatabaseRole, connect_sync


@pytest.fixture
def account(plain_database):
    environment = {**os.environ, "FETTLE_DATABASE_URL": plain_database.url, "FETTLE_TENANT": "acme"}

    def run(*options, password="long enough"):
        return subprocess.run(
            [sys.executable, "-m", "fettle.cli", "account", "--password-stdin", *options],
            env=environment, input=f"{password}\n", capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    return run


def _accounts(database):
    with connect_sync(database.url, role=DatabaseRole.OWNER, name="test") as conn:
        rows = conn.execute("SELECT login, role, language, engineer_id, customer_id FROM account").fetchall()
    return {row[0]: row[1:] for row in rows}


async def test_an_account_stands_for_the_engineer_or_customer_it_names(company, account, plain_database):
    acme = await company("acme")
    hired = await acme.hire("chen")
    made = account("--login", "c", "--role", "engineer", "--engineer", "chen", "--language", "zh")
    assert made.returncode == 0, made.stderr
    made = account("--login", "t", "--role", "customer_rep", "--customer", "taihu")
    assert made.returncode == 0, made.stderr
    renewed = account("--login", "c", "--role", "engineer", password="another password")
    assert renewed.returncode == 0, renewed.stderr
    known = _accounts(plain_database)
    assert known["c"] == ("engineer", "zh", hired, None)
    assert known["t"] == ("customer_rep", "en", None, acme.ids["taihu"])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--role", "engineer"), "it needs --engineer CODE"),
        (("--role", "engineer", "--engineer", "nobody"), "there is no engineer 'nobody'; load it with a company file"),
        (("--role", "finance", "--customer", "taihu"), "leave --customer out"),
    ],
)
async def test_an_account_that_would_stand_for_nobody_is_refused(company, account, plain_database, options, told):
    await company("acme")
    refused = account("--login", "x", *options)
    assert refused.returncode == 1
    assert told in refused.stderr
    assert "x" not in _accounts(plain_database)
