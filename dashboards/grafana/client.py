"""Puts the data source and the dashboards into a running Grafana, through grafana-client. Applied twice, it writes once."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from dashboards.grafana.render import DATA_SOURCE_UID, render, uid_of
from dashboards.pages import PAGES
from dashboards.spec import LANGUAGES
from fettle.errors import FettleError

FOLDER_UID = "fettle"
Json = dict[str, Any]


class NeedsToken(FettleError):
    """Grafana at {url} wants a login: set FETTLE_GRAFANA_TOKEN to a service account token with the role Admin (Grafana: Administration, Service accounts)."""


class GrafanaRefused(FettleError):
    """Grafana at {url} refused {what} ({status}: {why}). The service account of FETTLE_GRAFANA_TOKEN needs the role Admin."""


class NoGrafana(FettleError):
    """Grafana at {url} does not answer ({why}). Check FETTLE_GRAFANA_URL."""


class NeedsPassword(FettleError):
    """The login {login} exists and its password is not known here, but Grafana's data source needs it: set FETTLE_GRAFANA_DB_PASSWORD, or run `fettle provision --new-password`."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where Grafana finds the database, as the tenant's login."""

    host: str
    database: str
    user: str
    password: str | None
    sslmode: str = "disable"


def data_source(source: Source) -> Json:
    """Return the data source as Grafana's API takes it."""
    return {
        "name": "Fettle",
        "uid": DATA_SOURCE_UID,
        "type": "grafana-postgresql-datasource",
        "access": "proxy",
        "url": source.host,
        "user": source.user,
        "isDefault": True,
        "jsonData": {
            "database": source.database,
            "sslmode": source.sslmode,
            "timescaledb": False,  # no panel groups by a macro, so both storages take the same queries
            "postgresVersion": 1500,
            "timeInterval": "1s",
            "maxOpenConns": 10,
            "maxIdleConns": 5,
            "connMaxLifetime": 14400,
        },
    }


@contextmanager
def _told(url: str, what: str) -> Iterator[None]:
    """Turn what grafana-client raises into errors that say what to set."""
    import niquests
    from grafana_client.client import GrafanaException, GrafanaUnauthorizedError

    try:
        yield
    except GrafanaUnauthorizedError as error:
        raise NeedsToken(url=url) from error
    except GrafanaException as error:
        raise GrafanaRefused(url=url, what=what, status=error.status_code, why=error.message) from error
    except niquests.RequestException as error:
        raise NoGrafana(url=url, why=str(error)) from error


def apply(
    *, url: str, token: str | None, source: Source, board_url: str, report: Callable[[str], None] = lambda _: None
) -> int:
    """Bring data source, folder and dashboards of one organisation up to date; return how many were written.

    Raises:
        NeedsToken: Grafana wants a login and none is set, or it is wrong.
        NeedsPassword: the data source is to be made and its password is not known.
        GrafanaRefused: the token may not do this.
        NoGrafana: nothing answers there.
    """
    from grafana_client.api import GrafanaApi
    from grafana_client.client import TokenAuth

    with _told(url, "the connection"):
        grafana = GrafanaApi.from_url(url=url, credential=TokenAuth(token) if token else None, timeout=20)
    try:
        written = _put_source(grafana, url, source, report) + _put_folder(grafana, url, report)
        for page in PAGES:
            for language in LANGUAGES:
                wanted = render(page, language, board_url=board_url)
                with _told(url, f"dashboard {uid_of(page, language)}"):
                    written += _put_dashboard(grafana, wanted, report)
    finally:
        grafana.client.s.close()
    return written


def _found(get: Callable[[], Json]) -> Json | None:
    """Return what Grafana has, or None where it answers 404."""
    from grafana_client.client import GrafanaClientError

    try:
        return get()
    except GrafanaClientError as error:
        if error.status_code == 404:
            return None
        raise


def _put_source(grafana: Any, url: str, source: Source, report: Callable[[str], None]) -> int:
    wanted = data_source(source)
    with _told(url, "the data source"):
        there = _found(lambda: grafana.datasource.get_datasource_by_uid(DATA_SOURCE_UID))
        same = there is not None and all(there.get(key) == value for key, value in wanted.items())
        if same and source.password is None:
            return 0
        if there is None and source.password is None:
            raise NeedsPassword(login=source.user)
        if source.password is not None:
            wanted["secureJsonData"] = {"password": source.password}
        if there is None:
            grafana.datasource.create_datasource(wanted)
        else:
            grafana.datasource.update_datasource_by_uid(DATA_SOURCE_UID, wanted)
    report(f"data source {DATA_SOURCE_UID}")
    return 1


def _put_folder(grafana: Any, url: str, report: Callable[[str], None]) -> int:
    with _told(url, "the folder"):
        if _found(lambda: grafana.folder.get_folder(FOLDER_UID)) is not None:
            return 0
        grafana.folder.create_folder("Fettle", uid=FOLDER_UID)
    report("folder Fettle")
    return 1


def _put_dashboard(grafana: Any, wanted: Json, report: Callable[[str], None]) -> int:
    there = _found(lambda: grafana.dashboard.get_dashboard(wanted["uid"]))
    if there is not None and _content(there["dashboard"]) == _content(wanted):
        return 0
    grafana.dashboard.update_dashboard(
        {"dashboard": {**wanted, "id": None}, "folderUid": FOLDER_UID, "overwrite": True, "message": "fettle provision"}
    )
    report(f"dashboard {wanted['uid']}")
    return 1


def _content(dashboard: Json) -> Json:
    """Return a dashboard without what Grafana numbers itself."""
    return {key: value for key, value in dashboard.items() if key not in {"id", "version"}}
