"""The files Grafana reads at start: dashboards, and what provisions them and the data source.

python -m dashboards.grafana.files      writes them all into dashboards/grafana/
"""

from pathlib import Path

from dashboards.grafana.render import DATA_SOURCE_UID, render, text_of, uid_of
from dashboards.pages import PAGES
from dashboards.spec import LANGUAGES

FOLDER = Path(__file__).parent

_NOTE = "# Written by `python -m dashboards.grafana.files`.\n"

DATA_SOURCES = f"""{_NOTE}# The password and the host come from the environment of Grafana. The login is the tenant's own, read-only, and sees
# schema report alone (`fettle provision` makes it). TimescaleDB or not makes no difference: no panel groups by a macro.
apiVersion: 1
prune: true
datasources:
  - name: Fettle
    uid: {DATA_SOURCE_UID}
    orgId: 1
    type: grafana-postgresql-datasource
    access: proxy
    url: $FETTLE_GRAFANA_DB_HOST:5432
    user: $FETTLE_GRAFANA_DB_USER
    isDefault: true
    editable: false
    jsonData:
      database: fettle
      sslmode: disable
      timescaledb: false
      postgresVersion: 1500
      timeInterval: 1s
      maxOpenConns: 10
      maxIdleConns: 5
      connMaxLifetime: 14400
    secureJsonData:
      password: $FETTLE_GRAFANA_DB_PASSWORD
"""

PROVIDERS = f"""{_NOTE}apiVersion: 1
providers:
  - name: fettle
    orgId: 1
    type: file
    disableDeletion: true
    allowUiUpdates: false
    updateIntervalSeconds: 30
    options:
      path: /var/lib/grafana/dashboards
      foldersFromFilesStructure: true
"""


def files() -> dict[str, str]:
    """Return path below `dashboards/grafana` -> content of every generated file."""
    made = {
        "provisioning/datasources/fettle.yaml": DATA_SOURCES,
        "provisioning/dashboards/fettle.yaml": PROVIDERS,
    }
    for page in PAGES:
        for language in LANGUAGES:
            made[f"dashboards/Fettle/{uid_of(page, language)}.json"] = text_of(render(page, language))
    return made


def main() -> None:
    """Write every file; report what changed."""
    for name, text in files().items():
        path = FOLDER / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path.relative_to(FOLDER)}")


if __name__ == "__main__":
    main()
