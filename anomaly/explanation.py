"""A finding in words and pictures: what, where, since when, from which sensors, against which expectation, by which model.

finding ─▶ explain (words, as JSON) ─▶ terminal, API        finding + readings ─▶ draw ─▶ SVG, PNG, sparklines
"""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from anomaly import wording
from anomaly.finding import Finding
from anomaly.plots import Band, Panel, Plot, to_svg
from anomaly.store import to_instant, to_us
from fettle.db import AsyncConn, load_queries
from fettle.errors import FettleError
from fettle.words import Language

_POINTS = 600
_LIMITS = {"limit", "change", "rate", "siblings", "zone"}
_DAY_US = 86_400_000_000


class NoSuchFinding(FettleError):
    """There is no finding {name!r}. Give its number, its key, or the number of a ticket it opened, such as T-000001."""


class BadPlotFile(FettleError):
    """--plot {path}: a plot is written to .svg or .png, in a folder that exists."""


def explain(finding: Finding, language: Language, *, now: datetime) -> dict[str, Any]:
    """Return a finding in words, ready for JSON: `headline`, `facts` as (name, text), `contributions`, `checks`.

    Contributions keep their order, by first onset, then by size; `share` is their part of the score.
    """
    is_zh = language == "zh"
    evidence = finding.evidence
    machine = str(evidence.get("machine", finding.machine_id))
    family = wording.say(wording.FAMILIES, finding.fault_family.value, language)
    severity = wording.say(wording.SEVERITIES, finding.severity.value, language)
    now_us = to_us(now)
    lasted = wording.duration((finding.cleared_us or now_us) - finding.onset_us, language)
    headline = f"{machine}：{family}（严重程度：{severity}）" if is_zh else f"{machine}: {family}, severity {severity}"
    facts = [
        _fact(language, "since", "起始", f"{_instant(finding.onset_us)} UTC ({lasted})"),
        _fact(language, "raised", "报出", f"{_instant(finding.raised_us)} UTC"),
        _fact(language, "cleared", "解除", _cleared(finding, language)),
        _fact(language, "mode", "工况", wording.say(wording.MODES, finding.mode, language)),
    ]
    zone = evidence.get("zone")
    if zone:
        words = wording.say(wording.ZONES, zone, language)
        facts.append(_fact(language, "vibration zone", "振动区域", f"{zone}: {words}" if not is_zh else f"{zone} 区：{words}"))  # fmt: skip
        facts.append(_fact(language, "zone table", "区域依据", str(evidence.get("zone_table") or "")))
        if evidence.get("zone_source"):
            facts.append(_fact(language, "source", "出处", str(evidence["zone_source"])))
    facts += wording.beside(evidence, language)
    facts += [
        _fact(
            language,
            "detector",
            "检测方法",
            f"{finding.detector}: {wording.say(wording.FEATURES, finding.detector, language)}",
        ),
        _fact(
            language,
            "ISO 13374 block",
            "ISO 13374 模块",
            f"{finding.block}, {wording.say(wording.BLOCKS, finding.block, language)}",
        ),
        _fact(language, "model", "模型版本", finding.model_version),
        _fact(language, "tier", "等级", f"{finding.tier}: {wording.say(wording.TIERS, finding.tier, language)}"),
        _fact(language, "score", "评分", _score(finding, language)),
        _fact(language, "p-value", "p 值", wording.p_value(finding.p_value, language)),
        _fact(language, "set rate", "设定误报率", _rate(finding.set_rate, language)),
    ]
    return {
        "key": finding.key,
        "headline": headline,
        "facts": facts,
        "contributions": contributions(finding, language),
        "checks": [wording.say(wording.CHECKS, check, language) for check in evidence.get("checks") or []],
    }


def _fact(language: Language, en: str, zh: str, text: str) -> tuple[str, str]:
    return (zh if language == "zh" else en), text


def _instant(us: int) -> str:
    return f"{to_instant(us):%Y-%m-%d %H:%M}"


def _cleared(finding: Finding, language: Language) -> str:
    if finding.cleared_us is not None:
        return f"{_instant(finding.cleared_us)} UTC"
    return "尚未解除" if language == "zh" else "still open"


def _score(finding: Finding, language: Language) -> str:
    score, threshold = wording.number(finding.score), wording.number(finding.threshold)
    if language == "zh":
        return f"{score}（各项之和；单项达到 {threshold} 即报警）"
    return f"{score} (the sum of the contributions; one of {threshold} raises an alarm)"


def _rate(rate: float, language: Language) -> str:
    days = f"{1 / rate:,.0f}" if rate > 0 else "∞"
    if language == "zh":
        return f"每设备日 {rate:g} 次，即每台设备约 {days} 天一次误报"
    return f"{rate:g} false findings per machine-day: about one in {days} days of a machine"


def contributions(finding: Finding, language: Language) -> list[dict[str, Any]]:
    """Return the evidence row by row, in words, with each one's share of the score."""
    found = [c for c in finding.evidence.get("contributions") or [] if isinstance(c, Mapping)]
    total = sum(max(float(c.get("contribution") or 0.0), 0.0) for c in found)
    return [
        {
            "sensor_id": c.get("sensor_id"),
            "sensor": str(c.get("sensor") or ""),
            "kind": str(c.get("kind") or ""),
            "unit": str(c.get("unit") or ""),
            "contribution": float(c.get("contribution") or 0.0),
            "share": max(float(c.get("contribution") or 0.0), 0.0) / total if total else 0.0,
            "why": _why(c, language),
            "measured": wording.measured(c, language),
            "since": _instant(int(c["onset_us"])) + " UTC" if c.get("onset_us") else "",
            "source": _source(c),
        }
        for c in found
    ]


def _source(entry: Mapping[str, Any]) -> str:
    """Return where the limit comes from that a sensor passed; nothing where it merely has one."""
    parts = [p for p in entry.get("features") or [entry] if isinstance(p, Mapping) and p.get("is_active", True)]
    passed = [p for p in parts if p.get("feature") in _LIMITS and p.get("source")]
    return str(passed[0]["source"]) if passed else ""


def _why(entry: Mapping[str, Any], language: Language) -> str:
    """Say every feature of a sensor that speaks, the strongest first."""
    parts = [p for p in entry.get("features") or [] if isinstance(p, Mapping) and p.get("is_active")]
    named = dict.fromkeys(str(p.get("feature", "")) for p in parts) or {str(entry.get("feature", "")): None}
    return (", " if language == "en" else "，").join(wording.say(wording.FEATURES, name, language) for name in named)


# -- plots -----------------------------------------------------------------------------------------------------------


def window(finding: Finding, *, now: datetime) -> tuple[int, int]:
    """Return the half-open period to draw: from a day before the onset to a day after clearing, or to the present.

    What is open for long is cut after a month: a plot shows how it came, not how long nobody looked.
    """
    until = finding.cleared_us + _DAY_US if finding.cleared_us is not None else to_us(now)
    until = min(max(until, finding.raised_us + _DAY_US // 4), finding.raised_us + 30 * _DAY_US)
    given = finding.evidence.get("window_us")
    begins = int(given[0]) if isinstance(given, list) and given else finding.onset_us - _DAY_US
    return min(begins, finding.onset_us - _DAY_US // 24), until


async def draw(conn: AsyncConn, finding: Finding, *, now: datetime) -> Plot:
    """Return the plot of a finding from the readings that the caller's tenant has stored; its own sensors come first."""
    start_us, end_us = window(finding, now=now)
    parameters = {
        "machine_id": int(finding.machine_id),
        "start": to_instant(start_us),
        "stop": to_instant(end_us),
        "points": _POINTS,
    }
    cursor = await conn.execute(load_queries("anomaly").read_trace, parameters)
    rows = await cursor.fetchall()
    by_sensor: dict[int, list[tuple[Any, ...]]] = {}
    for row in rows:
        by_sensor.setdefault(int(row[0]), []).append(row)
    cursor = await conn.execute(load_queries("anomaly").list_machine_sensors, parameters)
    order = {int(s): i for i, s in enumerate(finding.sensor_ids)}
    panels = []
    for sensor_id, name, kind, unit in sorted(await cursor.fetchall(), key=lambda s: (order.get(s[0], 99), s[1])):
        found = by_sensor.get(sensor_id, [])
        if not found and sensor_id not in order:
            continue
        ts = np.array([to_us(r[1]) for r in found], dtype=np.int64)
        low, high = (np.array([r[i] for r in found], dtype=np.float64) for i in (2, 3))
        bands, limit = _expected(finding, sensor_id, end_us)
        panels.append(Panel(name, unit, kind, ts, low, high, bands, limit))
    ends_us = end_us if finding.cleared_us is None else min(finding.cleared_us, end_us)
    return Plot(
        start_us,
        end_us,
        panels[:6],
        open_spans=[(finding.raised_us, ends_us)],
        marks=[finding.raised_us],
    )


def _expected(finding: Finding, sensor_id: int, end_us: int) -> tuple[list[Band], float | None]:
    bands, limit = [], None
    for c in finding.evidence.get("contributions") or []:
        if c.get("sensor_id") != sensor_id or c.get("feature") in wording.OTHER_UNIT:
            continue
        if c.get("low") is not None and c.get("high") is not None:
            ends_us = end_us if finding.cleared_us is None else min(finding.cleared_us, end_us)
            bands.append(Band(finding.onset_us, max(ends_us, finding.onset_us), float(c["low"]), float(c["high"])))
        limit = float(c["limit"]) if c.get("limit") is not None else limit
    return bands, limit


def check_plot_file(path: Path) -> None:
    """Refuse a file that no plot can be written to.

    Raises:
        BadPlotFile: another ending than .svg or .png, or no such folder.
    """
    if path.suffix not in {".svg", ".png"} or not path.absolute().parent.is_dir():
        raise BadPlotFile(path=path)


def write_plot(plot: Plot, path: Path, *, title: str) -> None:
    """Write a plot as .svg or .png.

    Raises:
        BadPlotFile: another ending, or no such folder.
    """
    check_plot_file(path)
    if path.suffix == ".svg":
        path.write_text(to_svg(plot, title=title), encoding="utf-8")
        return
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 0.6 + 1.7 * max(len(plot.panels), 1)), layout="constrained", dpi=110)
    axes = figure.subplots(max(len(plot.panels), 1), 1, sharex=True, squeeze=False)[:, 0]
    for axis, panel in zip(axes, plot.panels, strict=False):
        times = [to_instant(int(t)) for t in panel.ts]
        colour = {"temperature": "#b3541e", "current": "#6d4fb3"}.get(panel.kind, "#3566b8")
        axis.fill_between(times, panel.low, panel.high, color=colour, linewidth=0.8)
        for band in panel.bands:
            span = [to_instant(band.start_us), to_instant(band.end_us)]
            axis.fill_between(span, band.low, band.high, color="#2c8262", alpha=0.22, linewidth=0)
        if panel.limit is not None:
            axis.axhline(panel.limit, color="#8a3b12", linestyle="--", linewidth=1)
        for low, high in plot.open_spans:
            axis.axvspan(to_instant(low), to_instant(high), color="#c2332f", alpha=0.12, linewidth=0)
        for at in plot.marks:
            axis.axvline(to_instant(at), color="#c2332f", linewidth=1.2)
        axis.set_title(f"{panel.name} [{panel.unit}]" if panel.unit else panel.name, loc="left", fontsize=9)
        axis.grid(visible=True, color="#dfe5e1", linewidth=0.6)
        axis.tick_params(labelsize=8)
        axis.set_xlim(to_instant(plot.start_us), to_instant(plot.end_us))
    figure.savefig(path, metadata={"Title": title})


def series(panel: Panel, plot: Plot, *, pieces: int) -> list[float]:
    """Return the mean of a panel in equal pieces of the plot's period, NaN where nothing was measured."""
    edges = np.linspace(plot.start_us, plot.end_us, pieces + 1)
    place = np.clip(np.searchsorted(edges, panel.ts, side="right") - 1, 0, pieces - 1)
    count = np.bincount(place, minlength=pieces)
    total = np.bincount(place, weights=(panel.low + panel.high) / 2, minlength=pieces)
    with np.errstate(invalid="ignore"):
        mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return [float(v) for v in mean]
