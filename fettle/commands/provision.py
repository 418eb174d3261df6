"""`fettle provision`: the tenant's read-only login, and through it Grafana's data source and dashboards."""

import argparse
from typing import Any

from psycopg import conninfo
from rich.console import Console

from dashboards.api import Source, apply, ensure_login
from fettle.commands.migrate import database_url
from fettle.db import DatabaseRole, connect_sync
from fettle.settings import Settings


def add(verbs: Any) -> None:
    parser: argparse.ArgumentParser = verbs.add_parser(
        "provision", help="make the tenant's read-only database login; set up Grafana where FETTLE_GRAFANA_URL is set"
    )
    parser.add_argument("--new-password", action="store_true", help="make up a new password for a login that exists")
    parser.add_argument(
        "--board-url", default=None, help="where Grafana's links to tickets lead: the address of this product's API"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, settings: Settings) -> int:
    console = Console()
    url = database_url(settings)
    given = settings.grafana_db_password.get_secret_value() if settings.grafana_db_password else None
    with connect_sync(url, role=DatabaseRole.OWNER, name="fettle-provision") as conn:
        login = ensure_login(conn, tenant=settings.tenant, password=given, renew=args.new_password)
    what = "made" if login.is_new else "password renewed" if login.password else "left as it is"
    console.print(
        f"Login {login.name} of tenant {settings.tenant}: {what}. It reads schema report of this tenant alone."
    )
    if login.is_generated:
        console.print(f"  password (shown once): {login.password}", highlight=False, soft_wrap=True)
    if settings.grafana_url is None:
        console.print("Grafana: FETTLE_GRAFANA_URL is not set, nothing to do. Its files are in dashboards/grafana/.")
        return 0
    parts = conninfo.conninfo_to_dict(url)
    source = Source(
        host=settings.grafana_db_host or f"{parts.get('host') or 'localhost'}:{parts.get('port') or 5432}",
        database=str(parts.get("dbname") or "fettle"),
        user=login.name,
        password=login.password,
        sslmode=_sslmode(str(parts.get("sslmode") or "")),
    )
    written = apply(
        url=settings.grafana_url,
        token=settings.grafana_token.get_secret_value() if settings.grafana_token else None,
        source=source,
        board_url=(args.board_url or f"http://{settings.api_host}:{settings.api_port or 8000}").rstrip("/"),
        report=lambda name: console.print(f"  wrote {name}"),
    )
    console.print(f"Grafana at {settings.grafana_url}: {written} written." if written else "Grafana is up to date.")
    return 0


def _sslmode(given: str) -> str:
    """Return the mode Grafana knows: it has no `prefer` and no `allow`."""
    return given if given in {"require", "verify-ca", "verify-full"} else "disable"
