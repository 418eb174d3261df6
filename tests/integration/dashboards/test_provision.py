"""`fettle provision` against a real database, and against a server that answers as Grafana's API does."""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psycopg
import pytest

from dashboards.grafana.client import GrafanaRefused, NeedsPassword, NeedsToken, NoGrafana, Source, apply
from dashboards.grafana.login import NoSuchTenant, WeakPassword, ensure_login
from fettle.cli import main
from fettle.db import DatabaseRole, connect_sync

TOKEN = "glsa_right"
SOURCE = Source(host="db:5432", database="fettle", user="fettle_tenant_1", password="a long password")


class Grafana(ThreadingHTTPServer):
    """Keeps data sources, folders and dashboards as Grafana does; an endpoint it does not know fails the test."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.sources, self.folders, self.dashboards, self.writes, self.unknown = {}, {}, {}, [], []
        self.refuses = None
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, status, body):
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def handle_any(self):
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = json.loads(raw) if raw else None
        grafana = self.server
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer(401, {"message": "Unauthorized"})
        if grafana.refuses and grafana.refuses in self.path:
            return self.answer(403, {"message": "You'll need additional permissions"})
        if self.command != "GET":
            grafana.writes.append((self.command, self.path))
        uid = self.path.rsplit("/", 1)[1]
        match self.command, re.sub(r"/uid/.*", "/uid/:uid", re.sub(r"/folders/.+", "/folders/:uid", self.path)):
            case "GET", "/api/datasources/uid/:uid":
                return self.get(grafana.sources, uid)
            case "POST", "/api/datasources":
                grafana.sources[body["uid"]] = {k: v for k, v in body.items() if k != "secureJsonData"}
                return self.answer(200, {"datasource": body})
            case "PUT", "/api/datasources/uid/:uid":
                grafana.sources[uid] = {k: v for k, v in body.items() if k != "secureJsonData"}
                return self.answer(200, {"datasource": body})
            case "GET", "/api/folders/:uid":
                return self.get(grafana.folders, uid)
            case "POST", "/api/folders":
                grafana.folders[body["uid"]] = body
                return self.answer(200, body)
            case "GET", "/api/dashboards/uid/:uid":
                return self.get(grafana.dashboards, uid)
            case "POST", "/api/dashboards/db":
                dashboard = body["dashboard"]
                if dashboard["uid"] in grafana.dashboards and not body["overwrite"]:
                    return self.answer(412, {"message": "The dashboard has been changed by someone else"})
                stored = {**dashboard, "id": len(grafana.dashboards) + 1, "version": 5}
                grafana.dashboards[dashboard["uid"]] = {"dashboard": stored, "meta": {"folderUid": body["folderUid"]}}
                return self.answer(200, {"uid": dashboard["uid"], "status": "success"})
            case unknown:
                grafana.unknown.append(unknown)
                return self.answer(404, {"message": "Not found"})

    def get(self, things, uid):
        return self.answer(200, things[uid]) if uid in things else self.answer(404, {"message": "not found"})

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = handle_any  # noqa: N815 -- names that http.server calls


@pytest.fixture
def grafana():
    server = Grafana()
    yield server
    server.shutdown()
    server.server_close()
    assert server.unknown == []


def put(grafana, *, source=SOURCE, token=TOKEN):
    return apply(url=grafana.url, token=token, source=source, board_url="http://board.test")


def without_password():
    return Source(host=SOURCE.host, database=SOURCE.database, user=SOURCE.user, password=None)


def test_everything_is_made_and_the_second_time_nothing_is_written(grafana):
    assert put(grafana) == 2 + 2 * len({uid.removesuffix("-zh") for uid in grafana.dashboards})
    assert {"fettle-fleet", "fettle-fleet-zh"} <= set(grafana.dashboards)
    assert {one["meta"]["folderUid"] for one in grafana.dashboards.values()} == {"fettle"}
    assert grafana.sources["fettle-timescale"]["user"] == "fettle_tenant_1"
    before = len(grafana.writes)
    assert put(grafana, source=without_password()) == 0
    assert len(grafana.writes) == before


def test_a_dashboard_changed_by_hand_is_put_right(grafana):
    put(grafana)
    grafana.dashboards["fettle-fleet"]["dashboard"]["title"] = "mine"
    assert put(grafana, source=without_password()) == 1
    assert grafana.dashboards["fettle-fleet"]["dashboard"]["title"] != "mine"


def test_a_data_source_for_another_login_is_put_right(grafana):
    put(grafana)
    other = Source(host="db:5432", database="fettle", user="fettle_tenant_2", password=None)
    assert put(grafana, source=other) == 1
    assert grafana.sources["fettle-timescale"]["user"] == "fettle_tenant_2"


@pytest.mark.parametrize("token", [None, "wrong"])
def test_without_the_right_token_it_names_the_setting(grafana, token):
    with pytest.raises(NeedsToken, match="FETTLE_GRAFANA_TOKEN"):
        put(grafana, token=token)


def test_a_role_too_low_is_told(grafana):
    grafana.refuses = "/api/folders"
    with pytest.raises(GrafanaRefused, match=r"the folder.*403.*role Admin"):
        put(grafana)


def test_an_unknown_password_is_told(grafana):
    with pytest.raises(NeedsPassword, match="FETTLE_GRAFANA_DB_PASSWORD"):
        put(grafana, source=without_password())


def test_no_grafana_is_told():
    with pytest.raises(NoGrafana, match="FETTLE_GRAFANA_URL"):
        apply(url="http://127.0.0.1:9", token=TOKEN, source=SOURCE, board_url="http://board.test")


def test_the_login_is_read_only_and_bound_to_its_tenant(plain_database):
    with connect_sync(plain_database.url, role=DatabaseRole.OWNER, name="test") as conn:
        conn.execute("INSERT INTO tenant (slug, name) VALUES ('acme', 'Acme')")
        (tenant,) = conn.execute("SELECT id FROM tenant WHERE slug = 'acme'").fetchone()
        conn.execute(f"DROP ROLE IF EXISTS fettle_tenant_{tenant}")
        first = ensure_login(conn, tenant="acme", password=None)
        again = ensure_login(conn, tenant="acme", password=None)
        renewed = ensure_login(conn, tenant="acme", password=None, renew=True)
    assert (first.name, first.is_new, first.is_generated) == (f"fettle_tenant_{tenant}", True, True)
    assert (again.is_new, again.password) == (False, None)
    assert renewed.password not in {None, first.password}
    assert len(first.password) >= 24
    url = psycopg.conninfo.make_conninfo(plain_database.url, user=first.name)
    with psycopg.connect(url, autocommit=True) as conn:
        assert conn.execute("SELECT slug FROM report.tenant").fetchall() == [("acme",)]
        assert conn.execute("SHOW default_transaction_read_only").fetchone() == ("on",)
        assert conn.execute("SHOW statement_timeout").fetchone() == ("30s",)


def test_unknown_tenant_and_weak_password_are_told(plain_database):
    with connect_sync(plain_database.url, role=DatabaseRole.OWNER, name="test") as conn:
        with pytest.raises(NoSuchTenant, match="nobody"):
            ensure_login(conn, tenant="nobody", password=None)
        with pytest.raises(WeakPassword, match="12"):
            ensure_login(conn, tenant="default", password="short")


def test_the_verb_makes_the_login_and_says_what_it_did(plain_database, grafana, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FETTLE_DATABASE_URL", plain_database.url)
    monkeypatch.setenv("FETTLE_GRAFANA_DB_PASSWORD", "a long password")
    assert main(["provision"]) == 0
    said = capsys.readouterr().out
    assert "fettle_tenant_1" in said
    assert "FETTLE_GRAFANA_URL is not set" in said
    assert "a long password" not in said
    monkeypatch.setenv("FETTLE_GRAFANA_URL", grafana.url)
    assert main(["provision"]) == 1
    assert "FETTLE_GRAFANA_TOKEN" in capsys.readouterr().err
    monkeypatch.setenv("FETTLE_GRAFANA_TOKEN", TOKEN)
    assert main(["provision", "--board-url", "http://board.test"]) == 0
    assert "fettle-fleet-zh" in capsys.readouterr().out
    assert grafana.sources["fettle-timescale"]["jsonData"]["sslmode"] == "disable"
