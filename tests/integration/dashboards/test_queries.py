"""Every query of every page runs on a real database as a tenant's login, with the right frame, and leaks nothing."""

from datetime import timedelta

import psycopg
import pytest

from dashboards.grafana.login import ensure_login
from dashboards.grafana.render import kinds_of, render
from dashboards.macros import Variable, expand, interpolate, interval_of, to_grafana
from dashboards.pages import PAGES
from dashboards.spec import LANGUAGES
from fettle.clock import now
from fettle.db import DatabaseRole, connect_sync

SAFE = {"float4", "float8", "numeric", "int2", "int4", "int8", "bool", "text", "timestamptz", "varchar"}
SECRET = ("Rival", "WO-RIVAL", "secret")


RANGES = {"1h": timedelta(hours=1), "24h": timedelta(hours=24), "30d": timedelta(days=30)}


def login_url(database, tenant):
    with connect_sync(database.url, role=DatabaseRole.OWNER, name="test") as conn:
        login = ensure_login(conn, tenant=tenant, password="a long password", renew=False)
    return psycopg.conninfo.make_conninfo(database.url, user=login.name, password="a long password")


def queries(page):
    yield from ((f"panel {panel.key}", panel.sql) for panel in page.panels)
    yield from ((f"annotation {one.name.en}", one.sql) for one in page.annotations)


def values(conn, page, pick):
    """Values of all variables: the first option, the last, or one a user typed into the address."""
    chosen = {}
    for variable in page.variables:
        options = conn.execute(to_grafana(variable.sql, {})).fetchall()
        value = {"first": options[0][1], "last": options[-1][1], "typed": 2**31 - 1}[pick] if options else 0
        chosen[variable.name] = Variable(str(value), is_multi=variable.kind == "multi")
    return chosen


def run(conn, sql, page, *, from_at, to_at, timescale, chosen):
    text = interpolate(to_grafana(sql, kinds_of(page)), chosen)
    text = expand(
        text, from_at=from_at, to_at=to_at, interval=interval_of(from_at, to_at, points=1000), timescale=timescale
    )
    cursor = conn.execute(text.encode(), prepare=False)
    return [column.name for column in cursor.description], cursor


def type_names(conn, cursor):
    oids = [column.type_code for column in cursor.description]
    names = dict(
        conn.execute("SELECT oid::int, typname::text FROM pg_type WHERE oid::int = ANY(%s)", (oids,)).fetchall()
    )
    return [names[oid] for oid in oids]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.uid)
def test_every_query_runs_and_gives_the_right_frame(plant, page):
    url = login_url(plant, "default")
    with psycopg.connect(url, autocommit=True) as conn:
        for pick in ("first", "last", "typed"):
            chosen = values(conn, page, pick)
            for span in RANGES.values():
                for timescale in (True, False):
                    for name, sql in queries(page):
                        to_at = now()
                        columns, cursor = run(
                            conn, sql, page, from_at=to_at - span, to_at=to_at, timescale=timescale, chosen=chosen
                        )
                        assert len(columns) == len(set(columns)), name
                        rows = cursor.fetchall()
                        assert set(type_names(conn, cursor)) <= SAFE, (name, type_names(conn, cursor))
                        assert not any(secret in str(row) for row in rows for secret in SECRET), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.uid)
def test_every_panel_has_rows_on_a_plant_that_runs(plant, page):
    with psycopg.connect(login_url(plant, "default"), autocommit=True) as conn:
        machine = conn.execute("SELECT machine_id FROM machine WHERE number = 'P-101'").fetchone()[0]
        to_at = now()
        for name, sql in queries(page):
            if "annotation" in name and "high" not in name and "low" not in name:
                continue
            columns, cursor = run(conn, sql, page, from_at=to_at - timedelta(days=2), to_at=to_at, timescale=False,
                                  chosen={"machine": Variable(str(machine))})  # fmt: skip
            rows = cursor.fetchall()
            assert rows, name
            assert any(value is not None for value in rows[0]), name
            if "time" in columns:
                times = [row[columns.index("time")] for row in rows]
                assert times == sorted(times), name
                assert None not in times, name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.uid)
def test_an_empty_future_is_no_error(plant, page):
    with psycopg.connect(login_url(plant, "default"), autocommit=True) as conn:
        from_at = now() + timedelta(days=1)
        for name, sql in queries(page):
            chosen = values(conn, page, "first")
            columns, cursor = run(
                conn, sql, page, from_at=from_at, to_at=from_at + timedelta(hours=1), timescale=True, chosen=chosen
            )
            cursor.fetchall()
            assert columns, name


def test_an_open_ticket_is_a_region_up_to_now(plain_plant):
    page = PAGES[0]
    with psycopg.connect(login_url(plain_plant, "default"), autocommit=True) as conn:
        machine = conn.execute("SELECT machine_id FROM machine WHERE number = 'P-101'").fetchone()[0]
        to_at = now()
        _, cursor = run(conn, page.annotations[0].sql, page, from_at=to_at - timedelta(hours=24), to_at=to_at, timescale=False,
                        chosen={"machine": Variable(str(machine))})  # fmt: skip
        (region,) = cursor.fetchall()
    assert timedelta(hours=5.9) < region[1] - region[0] < timedelta(hours=6.1)
    assert region[2].startswith("WO-20261122-0003")
    assert region[3] == "bearing,high"


def test_a_value_with_a_quote_stays_a_value(plain_plant):
    page = PAGES[0]
    with psycopg.connect(login_url(plain_plant, "default"), autocommit=True) as conn:
        for attack in ("0'; DROP VIEW report.machine; --", "7' OR '1'='1", "ü"):
            with pytest.raises(psycopg.errors.InvalidTextRepresentation):
                run(conn, page.panel("vibration").sql, page, from_at=now() - timedelta(hours=1), to_at=now(), timescale=False,
                    chosen={"machine": Variable(attack)})  # fmt: skip


def test_a_tenants_login_reaches_nothing_else(plant):
    url = login_url(plant, "default")
    with psycopg.connect(url, autocommit=True) as conn:
        rival = 2
        for statement in (
            "SELECT * FROM public.reading",
            "SELECT * FROM public.ticket",
            "SELECT * FROM public.account",
            "SELECT * FROM public.find_account('spy')",
            "SET ROLE fettle_api",
            f"SET ROLE fettle_tenant_{rival}",
            "CREATE TABLE report.x (a int)",
            "CREATE TABLE public.x (a int)",
        ):
            with pytest.raises(
                (
                    psycopg.errors.InsufficientPrivilege,
                    psycopg.errors.ReadOnlySqlTransaction,
                    psycopg.errors.InvalidParameterValue,
                )
            ):
                conn.execute(statement)
        conn.execute("SELECT set_config('fettle.tenant', (SELECT 2)::text, false)")
        conn.execute("SET default_transaction_read_only = off")
        assert {t for (t,) in conn.execute("SELECT DISTINCT tenant_id FROM report.machine")} == {1}
        assert not conn.execute("SELECT 1 FROM report.reading WHERE value = 99").fetchall()
        assert not conn.execute(
            "SELECT most_common_vals FROM pg_stats WHERE schemaname = 'public' AND tablename IN ('ticket', 'machine')"
        ).fetchall()
    with psycopg.connect(login_url(plant, "rival"), autocommit=True) as conn:
        assert conn.execute("SELECT number FROM report.ticket").fetchall() == [("WO-RIVAL",)]
        assert conn.execute(
            "SELECT DISTINCT mean FROM report.trace(15, now() - interval '2 hours', now(), 100)"
        ).fetchall() == [(99.0,)]
        assert conn.execute(
            "SELECT count(*) FROM report.trace(1, now() - interval '2 hours', now(), 100)"
        ).fetchone() == (0,)


def test_a_dashboard_says_nothing_of_a_tenant():
    for page in PAGES:
        for language in LANGUAGES:
            assert "tenant" not in str(render(page, language)["templating"])
