"""Every named query of every package can be prepared against the migrated database."""

import re
from importlib import resources

import psycopg
import pytest

from fettle.db import DatabaseRole, connect_sync, load_queries

PACKAGES = [
    p
    for p in ("ingest", "anomaly", "workorders", "dispatch", "dashboards")
    if resources.files(p).joinpath("queries.sql").is_file()
]


def test_packages_have_queries():
    assert len(PACKAGES) >= 3


@pytest.mark.parametrize("package", PACKAGES)
def test_queries_prepare(database, package):
    broken = {}
    with connect_sync(database.url, role=DatabaseRole.OWNER, name="test") as conn:
        for name, text in load_queries(package).items():
            if f"storage: {'plain' if database.storage == 'timescale' else 'timescale'}" in text:
                continue  # the query says that it is for the other storage
            parameters: list[str] = []

            def number(match: re.Match[str], parameters=parameters) -> str:
                if match[1] not in parameters:
                    parameters.append(match[1])
                return f"${parameters.index(match[1]) + 1}"

            numbered = re.sub(r"%\((\w+)\)s", number, text).replace("%%", "%")
            try:
                conn.execute(f"PREPARE checked AS {numbered}".encode())
                conn.execute("DEALLOCATE checked")
            except psycopg.Error as error:
                broken[name] = str(error)
    assert broken == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_queries_say_what_they_are_for(package):
    assert [name for name, text in load_queries(package).items() if not text.startswith("-- ")] == []
