"""Committed dashboards are what the pages give, twice the same, and keep the rules of the lint."""

import copy
import json

import pytest
import yaml

from dashboards.grafana.files import FOLDER, files
from dashboards.grafana.lint import lint
from dashboards.grafana.render import DATA_SOURCE_UID, render, text_of, uid_of
from dashboards.macros import names_in
from dashboards.pages import PAGES
from dashboards.spec import LANGUAGES

UIDS = frozenset(uid_of(page, language) for page in PAGES for language in LANGUAGES)
EVERY = [(page, language) for page in PAGES for language in LANGUAGES]


@pytest.mark.parametrize("name", files())
def test_committed_file_is_what_the_pages_give(name):
    assert (FOLDER / name).read_text(encoding="utf-8") == files()[name], "run python -m dashboards.grafana.files"


def test_no_file_is_left_over():
    committed = {str(path.relative_to(FOLDER)) for kind in ("json", "yaml") for path in FOLDER.rglob(f"*.{kind}")}
    assert committed == set(files())


def test_rendering_twice_gives_the_same_text():
    for page, language in EVERY:
        assert text_of(render(page, language)) == text_of(render(page, language))


def test_uids_titles_and_contents_are_all_different():
    rendered = [render(page, language) for page, language in EVERY]
    assert len({one["uid"] for one in rendered}) == len(rendered)
    assert len({one["title"] for one in rendered}) == len(rendered)
    assert len({json.dumps(one["panels"], sort_keys=True) for one in rendered}) == len(rendered)


@pytest.mark.parametrize(("page", "language"), EVERY, ids=lambda value: getattr(value, "uid", value))
def test_dashboard_keeps_the_rules(page, language):
    assert lint(render(page, language), uids=UIDS) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.uid)
def test_every_placeholder_is_a_variable_of_the_page(page):
    known = {variable.name for variable in page.variables}
    for panel in page.panels:
        assert names_in(panel.sql) <= known, panel.key
        assert panel.is_steady == ("$__" not in panel.sql), panel.key


def broken(change):
    dashboard = copy.deepcopy(render(PAGES[0], "en"))
    change(dashboard)
    return lint(dashboard, uids=UIDS)


def first_sql(text):
    return lambda d: d["panels"][0]["targets"][0].update(rawSql=text)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.update(uid="fleet"), "uid must begin with fettle-"),
        (lambda d: d.update(uid="fettle-" + "x" * 34), "uid must begin"),
        (lambda d: d.update(editable=True), "must not be editable"),
        (lambda d: d.update(id=7), "must not carry id"),
        (lambda d: d.update(refresh="5s"), "refresh must be 10s"),
        (lambda d: d.update(schemaVersion=36), "schemaVersion"),
        (lambda d: d.update(timezone="utc"), "timezone"),
        (lambda d: d["panels"][1].update(id=d["panels"][0]["id"]), "is used twice"),
        (lambda d: d["panels"][1]["gridPos"].update(x=20), "leaves the 24 columns"),
        (lambda d: d["panels"][1]["gridPos"].update(x=0), "overlap"),
        (lambda d: d["links"][0].update(url="/d/nowhere"), "leads to no dashboard"),
        (lambda d: d["templating"]["list"][1].update(name="tenant"), "no isolation"),
        (lambda d: d["panels"][0].update(description=""), "lacks a description"),
        (lambda d: d["panels"][0].update(targets=[]), "has no query"),
        (lambda d: d["panels"][0]["datasource"].update(uid="other"), DATA_SOURCE_UID),
        (lambda d: d["panels"][0]["fieldConfig"]["defaults"].update(unit="mm/s"), "write suffix:mm/s"),
        (lambda d: d["panels"][0]["fieldConfig"]["defaults"].update(unit="suffix: h"), "is unknown"),
        (lambda d: d["panels"][0]["fieldConfig"]["defaults"].pop("thresholds"), "red from 80 up"),
        (lambda d: d["panels"][3]["options"].pop("legend"), "no legend"),
        (first_sql("SELECT well, low, medium, high FROM report.fleet_health WHERE x = '$nope'"), "$nope is not defined"),
        (first_sql("SELECT well, low, medium, high FROM report.fleet_health WHERE x = $machine"), "outside quotes"),
        (first_sql("SELECT well, low, medium, high FROM report.fleet_health WHERE x = '${machine:raw}'"), "does not quote"),
        (first_sql("SELECT * FROM report.x -- well low medium high"), "SELECT *"),
        (first_sql("SELECT well, low, medium, high FROM ticket"), "reads ticket, which is not in report"),
        (first_sql("SELECT well, low, medium, high FROM report.reading"), "without a time range"),
        (first_sql("SELECT $__timeGroup(at,'5m') well, low, medium, high FROM report.x"), "without Alias"),
        (first_sql("SELECT well, low, medium, high FROM report.x WHERE $__timeFilter(coalesce(a,b))"), "parenthesis"),
        (first_sql("SELECT well, low, medium, high FROM report.x WHERE a > $__from"), "only the browser"),
        (first_sql("SELECT other FROM report.x"), "which is no column"),
        (lambda d: d["annotations"]["list"][1]["target"].update(rawSql='SELECT a AS "time", b AS timeend FROM report.t'), "lacks AS text"),
        (lambda d: d["panels"][3]["targets"][0].update(rawSql="SELECT 1 AS value"), "needs columns"),
    ],
)  # fmt: skip
def test_lint_names_what_is_wrong(change, says):
    assert any(says in problem for problem in broken(change)), broken(change)


def test_provisioning_files_say_what_grafana_needs():
    source = yaml.safe_load(files()["provisioning/datasources/fettle.yaml"])
    (one,) = source["datasources"]
    assert one["uid"] == DATA_SOURCE_UID
    assert one["jsonData"]["database"] == "fettle"  # newer versions refuse to run without
    assert one["editable"] is False
    assert one["secureJsonData"]["password"].startswith("$")
    assert "/" not in one["url"]
    (provider,) = yaml.safe_load(files()["provisioning/dashboards/fettle.yaml"])["providers"]
    assert provider["allowUiUpdates"] is False
    assert provider["options"]["foldersFromFilesStructure"] is True
    assert not {"folder", "folderUid"} & provider.keys()


def test_links_lead_to_the_address_given():
    dashboard = render(PAGES[0], "en", board_url="https://fettle.example.org")
    (board,) = [one for one in dashboard["templating"]["list"] if one["type"] == "constant"]
    assert board["query"] == "https://fettle.example.org"
