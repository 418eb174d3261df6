"""Rules a dashboard must keep; each caught a real fault somewhere. A problem names its panel.

Grafana itself draws a wrong dashboard without a word: a unit it does not know becomes a suffix, a state without mapping is
green, an annotation without `text` is not drawn at all.
"""

import re
from collections import Counter
from typing import Any

from dashboards.grafana.render import DATA_SOURCE_UID, SCHEMA_VERSION

Json = dict[str, Any]

UNITS = frozenset(
    {
        "none", "short", "percent", "percentunit", "s", "ms", "celsius", "amp", "volt", "watt", "kwatt", "hertz", "rotrpm",
        "pressurebar", "kwatth", "dtdurations", "currencyEUR", "currencyUSD", "dateTimeAsLocal", "dateTimeFromNow",
        "dateTimeAsIso", "bytes", "string",
    }
)  # fmt: skip
"""Ids of Grafana's units that the pages may use. A unit outside must be `suffix:…` or `prefix:…`."""

_BROWSER_ONLY = re.compile(r"\$__(?:from|to|timezone)\b|\$\{__(?:user|org|from|to)")
_RELATION = re.compile(r"\b(?:FROM|JOIN)\s+(?:LATERAL\s+)?([a-z_]+(?:\.[a-z_0-9]+)?)", re.IGNORECASE)
_RANGE = ("$__timeFilter", "$__timeFrom", "$__unixEpochFilter")
_TIMED = ("report.reading", "report.trace")


def lint(dashboard: Json, *, uids: frozenset[str]) -> list[str]:
    """Return what is wrong with a dashboard; `uids` are those of all dashboards, for the links."""
    problems = [f"dashboard: {text}" for text in _dashboard(dashboard, uids)]
    names = {one["name"] for one in dashboard["templating"]["list"]}
    for panel in dashboard["panels"]:
        problems += [f"panel {panel['id']} {panel.get('title', '')!r}: {text}" for text in _panel(panel, names)]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            problems += [f"variable {variable['name']}: {text}" for text in _sql(variable["query"], names)]
    for annotation in dashboard["annotations"]["list"]:
        if "target" in annotation:
            sql = annotation["target"]["rawSql"]
            problems += [f"annotation {annotation['name']!r}: {text}" for text in _sql(sql, names)]
            missing = [word for word in ('AS "time"', "AS timeend", "AS text") if word not in sql]
            problems += [f"annotation {annotation['name']!r}: lacks {word}" for word in missing]
    return problems


def _dashboard(dashboard: Json, uids: frozenset[str]) -> list[str]:
    found = []
    if not re.fullmatch(r"fettle-[A-Za-z0-9_-]{1,33}", dashboard.get("uid", "")):
        found.append("uid must begin with fettle- and have at most 40 letters, digits, - and _")
    if dashboard.get("schemaVersion") != SCHEMA_VERSION:
        found.append(f"schemaVersion must be {SCHEMA_VERSION}")
    if dashboard.get("editable") is not False:
        found.append("must not be editable")
    found += [f"must not carry {key}" for key in ("id", "__inputs", "dashboard") if key in dashboard]
    if dashboard.get("timezone") != "browser" or dashboard.get("graphTooltip") != 1:
        found.append("timezone must be browser, graphTooltip 1")
    match = re.fullmatch(r"(\d+)([smh])", dashboard.get("refresh", ""))
    if match is None or (match[2] == "s" and int(match[1]) < 10):
        found.append("refresh must be 10s or slower")
    if len(dashboard["panels"]) > 20:
        found.append("more than 20 panels")
    repeated = [number for number, n in Counter(p["id"] for p in dashboard["panels"]).items() if n > 1]
    found += [f"panel id {number} is used twice" for number in repeated]
    found += _overlaps(dashboard["panels"])
    for link in dashboard["links"]:
        if link["url"].startswith("/d/") and link["url"].removeprefix("/d/").split("?")[0] not in uids:
            found.append(f"link {link['title']!r} leads to no dashboard")
    if any(variable["name"] == "tenant" for variable in dashboard["templating"]["list"]):
        found.append("a variable is no isolation: the tenant follows from the login")
    return found


def _overlaps(panels: list[Json]) -> list[str]:
    taken: dict[tuple[int, int], int] = {}
    found = []
    for panel in panels:
        grid = panel["gridPos"]
        if grid["x"] < 0 or grid["x"] + grid["w"] > 24:
            found.append(f"panel {panel['id']} leaves the 24 columns")
        cells = [
            (x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])
        ]
        found += [f"panels {n} and {panel['id']} overlap" for n in sorted({taken[c] for c in cells if c in taken})]
        taken |= {cell: int(panel["id"]) for cell in cells}
    return found


def _panel(panel: Json, names: set[str]) -> list[str]:
    found = [f"lacks a {key}" for key in ("title", "description") if not panel.get(key)]
    targets = panel.get("targets", [])
    if not targets:
        found.append("has no query")
    uids = {panel.get("datasource", {}).get("uid"), *(t.get("datasource", {}).get("uid") for t in targets)}
    if uids != {DATA_SOURCE_UID}:
        found.append(f"must name the data source {DATA_SOURCE_UID} on panel and target")
    defaults, overrides = panel["fieldConfig"]["defaults"], panel["fieldConfig"]["overrides"]
    units = [defaults.get("unit", ""), *(p["value"] for o in overrides for p in o["properties"] if p["id"] == "unit")]
    found += [f"unit {unit!r} is unknown; write suffix:{unit}" for unit in units if not _is_unit(unit)]
    if not defaults.get("thresholds", {}).get("steps"):
        found.append("has no thresholds of its own: Grafana's default is red from 80 up")
    if panel["type"] in {"timeseries", "barchart"} and not {"legend", "tooltip"} <= panel["options"].keys():
        found.append("sets no legend or tooltip")
    for target in targets:
        sql = target["rawSql"]
        found += _sql(sql, names)
        if panel["type"] == "timeseries" and not ('AS "time"' in sql and "AS metric" in sql):
            found.append('needs columns "time" and metric, or its series are called "value"')
        missing = [o["matcher"]["options"] for o in overrides if not re.search(rf"\b{o['matcher']['options']}\b", sql)]
        found += [f"override of {name!r}, which is no column" for name in missing]
    return found


def _is_unit(unit: str) -> bool:
    if unit.startswith(("suffix:", "prefix:")):
        return not unit.partition(":")[2].startswith(" ")
    return unit in UNITS


def _sql(sql: str, names: set[str]) -> list[str]:
    found = []
    used = {m[1] or m[2] for m in re.finditer(r"\$(?!__)(\w+)|\$\{(?!__)(\w+)", sql)}
    found += [f"${name} is not defined" for name in sorted(used - names)]
    if re.search(r":(?:raw|csv|singlequote)\b", sql):
        found.append("a variable format that does not quote")
    bare = re.findall(r"(?<!')(?<!\[)\$(?!__)(\w+)\b(?!')", sql)
    found += [f"${name} stands outside quotes" for name in bare]
    if re.search(r"SELECT\s+\*", sql, re.IGNORECASE):
        found.append("SELECT * instead of the columns")
    if re.search(r"\$__timeGroup\(", sql):
        found.append("$__timeGroup without Alias")
    if re.search(r"\$__\w+\([^)]*\(", sql):
        found.append("a macro's argument holds a parenthesis")
    if _BROWSER_ONLY.search(sql):
        found.append("a variable that only the browser knows")
    plain = re.sub(r"\bextract\s*\(\s*\w+\s+FROM\b", "extract(", sql, flags=re.IGNORECASE)
    outside = {name for name in _RELATION.findall(plain) if not name.startswith("report.")} - {"now", "unnest"}
    found += [f"reads {name}, which is not in report" for name in sorted(outside)]
    if any(name in sql for name in _TIMED) and not any(macro in sql for macro in _RANGE):
        found.append("reads readings without a time range")
    return found
