"""Turn a page into Grafana's dashboard JSON: classic schema 41, which Grafana 11 to 13 load.

One dashboard per page and language, `uid` and `uid`-zh. Every query goes to one data source uid, so that the same JSON
serves every organisation, each with a login of its own tenant behind that uid.
"""

import json
from typing import Any

from dashboards import palette
from dashboards.macros import to_grafana
from dashboards.spec import Annotation, Column, Page, Panel, Variable
from fettle.words import Language, Words

DATA_SOURCE_UID = "fettle-timescale"
DATA_SOURCE = {"type": "grafana-postgresql-datasource", "uid": DATA_SOURCE_UID}
SCHEMA_VERSION = 41
BOARD_URL = "http://localhost:8000"

Json = dict[str, Any]


def uid_of(page: Page, language: Language) -> str:
    return page.uid if language == "en" else f"{page.uid}-zh"


def render(page: Page, language: Language, *, board_url: str = BOARD_URL) -> Json:
    """Return the dashboard of a page; `board_url` is where its links to tickets lead."""
    other: Language = "zh" if language == "en" else "en"
    return {
        "uid": uid_of(page, language),
        "title": f"Fettle: {page.title.say(language, {})}" if language == "en" else f"Fettle：{page.title.zh}",
        "description": page.description.say(language, {}),
        "tags": ["fettle", language],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": False,
        "timezone": "browser",
        "graphTooltip": 1,
        "refresh": page.refresh,
        "time": {"from": page.range_from, "to": "now"},
        "timepicker": {"refresh_intervals": ["10s", "30s", "1m", "5m", "15m"]},
        "weekStart": "",
        "fiscalYearStartMonth": 0,
        "liveNow": False,
        "links": [
            _link("中文" if other == "zh" else "English", f"/d/{uid_of(page, other)}", keep=True),
            _link(Words("Built-in board", "内置看板").say(language, {}), "${board}/board", keep=False),
        ],
        "templating": {"list": [_constant("board", board_url), *(_variable(one, language) for one in page.variables)]},
        "annotations": {"list": [_BUILT_IN, *(_annotation(one, page, language) for one in page.annotations)]},
        "panels": [_panel(one, page, language) for one in page.panels],
    }


def text_of(dashboard: Json) -> str:
    """Return the JSON as it is committed: sorted keys, two blanks, one newline at the end."""
    return json.dumps(dashboard, ensure_ascii=False, indent=2, sort_keys=True) + "\n"


_BUILT_IN: Json = {
    "builtIn": 1,
    "datasource": {"type": "grafana", "uid": "-- Grafana --"},
    "enable": True,
    "hide": True,
    "iconColor": "rgba(0, 211, 255, 1)",
    "name": "Annotations & Alerts",
    "type": "dashboard",
}


def _link(title: str, url: str, *, keep: bool) -> Json:
    return {
        "type": "link",
        "title": title,
        "url": url,
        "icon": "external link",
        "asDropdown": False,
        "includeVars": keep,
        "keepTime": keep,
        "tags": [],
        "targetBlank": False,
        "tooltip": "",
    }


def _constant(name: str, value: str) -> Json:
    return {"name": name, "type": "constant", "query": value, "hide": 2, "skipUrlSync": True}


def kinds_of(page: Page) -> dict[str, Any]:
    """Return name -> kind of a page's variables."""
    return {one.name: one.kind for one in page.variables}


def _variable(variable: Variable, language: Language) -> Json:
    sql = _clean(to_grafana(variable.sql, {}))
    return {
        "name": variable.name,
        "label": variable.title.say(language, {}),
        "type": "query",
        "datasource": DATA_SOURCE,
        "query": sql,
        "definition": sql,
        "refresh": 1,
        "multi": variable.kind == "multi",
        "includeAll": variable.kind == "multi",
        "options": [],
        "current": {},
        "sort": 0,
        "hide": 0,
        "regex": "",
        "skipUrlSync": False,
    }


def _clean(sql: str) -> str:
    return sql.strip()


def _target(sql: str, page: Page, *, form: str, ref: str = "A") -> Json:
    return {
        "refId": ref,
        "datasource": DATA_SOURCE,
        "editorMode": "code",
        "format": form,
        "rawQuery": True,
        "rawSql": _clean(to_grafana(sql, kinds_of(page))),
    }


def _annotation(annotation: Annotation, page: Page, language: Language) -> Json:
    return {
        "name": annotation.name.say(language, {}),
        "datasource": DATA_SOURCE,
        "enable": True,
        "hide": False,
        "iconColor": palette.colour(annotation.colour),
        "target": _target(annotation.sql, page, form="table", ref="Anno"),
    }


def _panel(panel: Panel, page: Page, language: Language) -> Json:
    defaults: Json = {
        "unit": panel.unit or "none",
        "mappings": [],
        "thresholds": {"mode": "absolute", "steps": [{"color": _named(t.colour), "value": t.at} for t in panel.thresholds]},
        "color": {"mode": "thresholds"},
        "custom": {},
    }  # fmt: skip
    if panel.no_value is not None:
        defaults["noValue"] = panel.no_value.say(language, {})
    options, custom, colour = _options(panel)
    defaults["custom"] = custom
    if colour:
        defaults["color"] = colour
    return {
        "id": panel.id,
        "type": panel.viz,
        "title": panel.title.say(language, {}),
        "description": panel.description.say(language, {}),
        "datasource": DATA_SOURCE,
        "gridPos": {"x": panel.grid.x, "y": panel.grid.y, "w": panel.grid.w, "h": panel.grid.h},
        "targets": [_target(panel.sql, page, form="time_series" if panel.viz == "timeseries" else "table")],
        "fieldConfig": {
            "defaults": defaults,
            "overrides": [
                o for column in panel.columns if (o := _override(column, panel, page, language))["properties"]
            ],
        },
        "options": options,
        **({"maxDataPoints": 1200} if panel.viz == "timeseries" else {}),
    }


_TOOLTIP = {"mode": "multi", "sort": "none", "hideZeros": False}
_LEGEND = {"showLegend": True, "displayMode": "list", "placement": "bottom", "calcs": ["lastNotNull"]}


def _options(panel: Panel) -> tuple[Json, Json, Json | None]:
    """Return options, custom field settings and the colour mode of a kind of panel."""
    match panel.viz:
        case "stat":
            return (
                {
                    "colorMode": "value",
                    "graphMode": "none",
                    "justifyMode": "auto",
                    "orientation": "auto",
                    "textMode": "value_and_name",
                    "wideLayout": True,
                    "showPercentChange": False,
                    "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
                },
                {},
                None,
            )
        case "timeseries":
            custom = {
                "drawStyle": panel.draws,
                "lineWidth": 1,
                "fillOpacity": 60 if panel.draws == "bars" else 0,
                "showPoints": "never",
                "spanNulls": False,
                "lineInterpolation": "linear",
                "axisPlacement": "auto",
                "axisBorderShow": False,
            }
            shade = palette.SERIES.get(panel.colour, palette.SERIES["other"])[1]
            return {"legend": _LEGEND, "tooltip": _TOOLTIP}, custom, {"mode": "shades", "fixedColor": shade}
        case "table":
            return {"showHeader": True, "cellHeight": "sm"}, {"align": "auto", "filterable": False}, None
        case "barchart":
            name = next(column.name for column in panel.columns)
            options = {
                "orientation": "horizontal",
                "xField": name,
                "showValue": "always",
                "stacking": "none",
                "barWidth": 0.7,
                "groupWidth": 0.7,
                "xTickLabelRotation": 0,
                "legend": {**_LEGEND, "showLegend": False},
                "tooltip": {"mode": "single", "sort": "none", "hideZeros": False},
            }
            shade = palette.colour(panel.colour or "low")
            return options, {"fillOpacity": 70, "lineWidth": 0}, {"mode": "fixed", "fixedColor": shade}
        case "bargauge" | "gauge":
            options = {
                "orientation": "horizontal",
                "displayMode": "basic",
                "showThresholdLabels": False,
                "showThresholdMarkers": True,
                "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": panel.viz == "bargauge"},
            }
            if panel.viz == "gauge":
                del options["displayMode"]
            return options, {}, None


def _override(column: Column, panel: Panel, page: Page, language: Language) -> Json:
    properties: list[Json] = [{"id": "displayName", "value": column.words.say(language, {})}]
    if column.unit:
        properties.append({"id": "unit", "value": column.unit})
    if column.width:
        properties.append({"id": "custom.width", "value": column.width})
    if column.is_hidden:
        properties.append({"id": "custom.hidden", "value": True})
    if column.colour:
        properties.append({"id": "color", "value": {"mode": "fixed", "fixedColor": palette.colour(column.colour)}})
    if column.mappings:
        options = {
            one.value: {"text": one.words.say(language, {}), "color": _named(one.colour), "index": index}
            for index, one in enumerate(column.mappings)
        }
        properties.append({"id": "mappings", "value": [{"type": "value", "options": options}]})
        if panel.viz == "table":
            properties.append({"id": "custom.cellOptions", "value": {"type": "color-text"}})
    if column.links_to == "machine":
        url = f"/d/{uid_of(page, language)}?var-machine=${{__data.fields.machine_id}}&${{__url_time_range}}"
        properties.append({"id": "links", "value": [{"title": "${__value.text}", "url": url, "targetBlank": False}]})
    if column.links_to == "ticket":
        url = "${board}/board?ticket=${__value.raw}"
        properties.append({"id": "links", "value": [{"title": "${__value.text}", "url": url, "targetBlank": True}]})
    return {"matcher": {"id": "byName", "options": column.name}, "properties": properties}


def _named(colour: str) -> str:
    """Return a colour of the palette by its meaning, or a name of Grafana's own theme as it is."""
    return palette.colour(colour) if colour in palette.HEALTH else colour
