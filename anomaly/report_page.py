"""The page a backtest leaves behind: one HTML file, Chinese and English, with the plots drawn into it.

Everything is in the file: no script, font or picture comes from elsewhere. Both languages are written; an attribute of
the root element shows one of them.
"""

import html
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from importlib import resources
from typing import Any

from anomaly import wording
from anomaly.backtest import Backtest, Run
from anomaly.comparison import Comparison, compare
from anomaly.finding import Change
from anomaly.plots import STYLE, Band, Panel, Plot, to_svg
from anomaly.truth import Episode, Judgement, Outcome, Ticket
from fettle.words import Language, Words

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_US = 86_400_000_000
_MOST_PLOTS = 80
_MOST_LANES = 60
_LANGUAGES: tuple[Language, ...] = ("en", "zh")


def both(say: Callable[[Language], str] | Words | str) -> str:
    """Return a text in both languages as HTML, of which the page shows one."""
    if isinstance(say, Words):
        texts = [say.en, say.zh]
    elif isinstance(say, str):
        texts = [say, say]
    else:
        texts = [say(language) for language in _LANGUAGES]
    if texts[0] == texts[1]:
        return html.escape(texts[0])
    return "".join(
        f'<span lang="{language}">{html.escape(text)}</span>' for language, text in zip(_LANGUAGES, texts, strict=True)
    )


def _both(en: str, zh: str) -> str:
    return both(Words(en, zh))


def _span(us: float) -> str:
    return both(lambda language: wording.duration(us, language))


def _say(table: Mapping[str, Words], key: object) -> str:
    return both(lambda language: wording.say(table, key, language))


def _measured(contribution: Mapping[str, Any]) -> str:
    return both(lambda language: wording.measured(contribution, language))


def _at(us: int, form: str = "%Y-%m-%d %H:%M") -> str:
    return (_EPOCH + timedelta(microseconds=us)).strftime(form)


def report_page(done: Backtest, judgements: Sequence[Judgement], *, is_known: bool) -> str:
    """Return the page as HTML. `judgements` has one entry for each run; `is_known` says whether what failed is known."""
    history = done.history
    parts = [_header(done), _cards(done, judgements, is_known=is_known)]
    if len(done.runs) == 2:
        pair = (judgements[0], judgements[1]) if is_known else None
        parts.append(_verdict(done.runs, compare(done.runs[0].tickets, done.runs[1].tickets, pair), judgements))
    episodes = [o.episode for o in judgements[0].outcomes] if is_known else []
    parts.append(_lanes(done, episodes))
    for place, run in enumerate(done.runs):
        parts.append(_table(run, judgements[place] if is_known else None, plots=place == 0 and done.traces is not None))
    if is_known:
        parts.append(_missed(done.runs, judgements))
    if done.traces is not None:
        parts.append(_details(done, judgements[0] if is_known else None, episodes))
    parts.append(_notes(is_known=is_known))
    style = resources.files("anomaly").joinpath("report_page.css").read_text(encoding="utf-8")
    script = resources.files("anomaly").joinpath("report_page.js").read_text(encoding="utf-8")
    title = f"Fettle backtest · {html.escape(history.name.rsplit('/', 1)[-1])}"
    return (
        '<!doctype html><html lang="en" data-language="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{title}</title><style>{style}{STYLE}</style></head><body>"
        + "".join(parts)
        + f"<script>{script}</script></body></html>\n"
    )


def _header(done: Backtest) -> str:
    history = done.history
    days = (history.end_us - history.start_us) / _DAY_US
    name = html.escape(history.name.rsplit("/", 1)[-1])
    facts = [
        _both(f"{_at(history.start_us)} to {_at(history.end_us)} UTC", f"{_at(history.start_us)} 至 {_at(history.end_us)} UTC"),
        _both(f"{days:.1f} days", f"{days:.1f} 天"),
        _both(f"{len(history.machines)} machines, {len(history.sensors)} sensors", f"{len(history.machines)} 台设备，{len(history.sensors)} 个传感器"),
        _both(f"{done.samples:,} readings", f"{done.samples:,} 条读数"),
    ]  # fmt: skip
    return (
        f'<header><div><p class="kicker">Fettle · {_both("backtest", "回测")}</p><h1>{name}</h1>'
        f'<p class="facts">{"".join(f"<span>{f}</span>" for f in facts)}</p></div>'
        '<div class="switch" role="group" aria-label="Language / 语言">'
        '<button type="button" data-to="en" lang="en-">English</button><button type="button" data-to="zh">中文</button></div></header>'
    ).replace(' lang="en-"', "")


def _cards(done: Backtest, judgements: Sequence[Judgement], *, is_known: bool) -> str:
    out = []
    for run, judgement in zip(done.runs, judgements, strict=True):
        low, high = judgement.false_interval()
        rate = f"{judgement.false_rate:.4f}"
        interval = f"95 %: {low:.4f} – {high:.4f}"
        cards = []
        if is_known:
            leads = judgement.leads()
            cards = [
                (_both("found", "发现"), f"{judgement.found}<small> / {len(judgement.outcomes)}</small>", _both("episodes", "故障")),
                (_both("median delay", "延迟中位数"), _span(judgement.median_delay_us()), _both("after onset, missed ones as infinite", "起始之后；漏报按无穷计")),
            ]  # fmt: skip
            if leads[1]:
                cards.append(
                    (_both("median lead", "提前量中位数"), _span(judgement.median_lead_us()), _both(f"{leads[0]} of {leads[1]} failures announced", f"{leads[1]} 次失效中预告 {leads[0]} 次"))
                )  # fmt: skip
            cards.append((_both("false findings", "误报"), str(len(judgement.false_tickets)), _both(f"in {judgement.healthy_days:,.0f} healthy machine-days", f"{judgement.healthy_days:,.0f} 个健康设备日内")))  # fmt: skip
            cards.append((_both("per machine-day", "每设备日误报"), rate, interval))
        else:
            cards = [
                (_both("findings", "发现"), str(len(run.tickets)), _both(f"on {len({(t.site, t.machine) for t in run.tickets})} machines", f"涉及 {len({(t.site, t.machine) for t in run.tickets})} 台设备")),
                (_both("per machine-day", "每设备日"), rate, interval),
            ]  # fmt: skip
        body = "".join(
            f'<div class="card"><dt>{name}</dt><dd>{value}</dd><p>{more}</p></div>' for name, value, more in cards
        )
        out.append(
            f'<section><h2>{html.escape(run.label)} <small>{html.escape(run.version)}</small></h2><dl class="cards">{body}</dl></section>'
        )
    return "".join(out)


def _verdict(runs: Sequence[Run], result: Comparison, judgements: Sequence[Judgement]) -> str:
    first, second = (r.label for r in runs)
    counts = _both(
        f"{len(result.both)} findings by both, {len(result.only_first)} by {first} alone, {len(result.only_second)} by {second} alone.",
        f"两者共有 {len(result.both)} 项，仅 {first} {len(result.only_first)} 项，仅 {second} {len(result.only_second)} 项。",
    )
    if result.may_replace is None:
        return f'<section class="verdict"><p>{counts}</p></section>'
    false = [len(j.false_tickets) for j in judgements]
    if result.may_replace:
        said = _both(
            f"{second} may replace {first}: no episode is lost, {false[1]} false findings instead of {false[0]}.",
            f"{second} 可以替代 {first}：没有丢失故障，误报 {false[1]} 次（原 {false[0]} 次）。",
        )
    else:
        lost = ", ".join(result.lost) or "–"
        said = _both(
            f"{second} may not replace {first}: {len(result.lost)} episodes lost ({lost}), {false[1]} false findings instead of {false[0]}.",
            f"{second} 不可替代 {first}：丢失 {len(result.lost)} 个故障（{lost}），误报 {false[1]} 次（原 {false[0]} 次）。",
        )
    name = "good" if result.may_replace else "bad"
    return f'<section class="verdict {name}"><p><strong>{said}</strong></p><p>{counts}</p></section>'


def _lanes(done: Backtest, episodes: Sequence[Episode]) -> str:
    history = done.history
    span = history.end_us - history.start_us

    def bar(name: str, low: int, high: int, title: str) -> str:
        left = max((low - history.start_us) / span, 0.0) * 100
        width = max((min(high, history.end_us) - history.start_us) / span * 100 - left, 0.25)
        return f'<i class="{name}" style="left:{left:.2f}%;width:{width:.2f}%" title="{html.escape(title)}"></i>'

    busy: dict[tuple[str | None, str], list[str]] = {}
    sites = {m.number: m.site for m in history.machines}
    for e in episodes:
        key = (e.site if e.site is not None else sites.get(e.machine), e.machine)
        text = f"{e.name} {_at(max(e.onset_us, history.start_us))}"
        busy.setdefault(key, []).append(bar("true", e.onset_us, e.end_us, text))
        if e.failure_us is not None:
            busy[key].append(bar("fail", e.failure_us, e.failure_us, f"failure {_at(e.failure_us)}"))
    for place, run in enumerate(done.runs):
        for t in run.tickets:
            f = t.finding
            text = f"{run.label}: {f.fault_family.value}, {_at(f.raised_us)}, {f.severity.value}"
            until = history.end_us if f.cleared_us is None else f.cleared_us
            busy.setdefault((t.site, t.machine), []).append(
                bar(f"run{place} {f.severity.value}", f.raised_us, until, text)
            )
    if not busy:
        return ""
    order = [(m.site, m.number) for m in history.machines if (m.site, m.number) in busy]
    rows = "".join(
        f'<div class="lane runs{len(done.runs)}"><b>{html.escape(number)}</b><div>{"".join(busy[site, number])}</div></div>'
        for site, number in order[:_MOST_LANES]
    )
    more = ""
    if len(order) > _MOST_LANES:
        rest = len(order) - _MOST_LANES
        more = f"<p>{_both(f'and {rest} more machines', f'另有 {rest} 台设备')}</p>"
    axis = "".join(f"<span>{_at(history.start_us + span * k // 4, '%m-%d')}</span>" for k in range(5))
    legend = f'<p class="key"><i class="run0 medium"></i>{_both("finding open", "发现未关闭")}'
    if len(done.runs) == 2:
        legend = (
            f'<p class="key"><i class="run0 medium"></i>{html.escape(done.runs[0].label)}'
            f'<i class="run1 medium"></i>{html.escape(done.runs[1].label)}'
        )
    if episodes:
        legend += f'<i class="true"></i>{_both("fault, as known", "已知故障")}'
    title = _both("Machines with findings or faults", "有发现或故障的设备")
    return f'<section><h2>{title}</h2>{legend}</p><div class="lanes">{rows}<div class="axis"><b></b><div>{axis}</div></div></div>{more}</section>'


def _judged(ticket: Ticket, judgement: Judgement | None) -> str:
    if judgement is None:
        return ""
    if any(t.finding.key == ticket.finding.key for t in judgement.false_tickets):
        return f'<span class="chip false">{_both("false", "误报")}</span>'
    for o in judgement.outcomes:
        if o.ticket is not None and o.ticket.finding.key == ticket.finding.key:
            return f'<span class="chip true">{_both("found", "发现")}</span> {_when(o)}'
    return f'<span class="chip">{_both("repeat", "重复")}</span>'


def _when(o: Outcome) -> str:
    def say(language: Language) -> str:
        said = [o.episode.name] if o.episode.name else []
        if o.episode.is_onset_known:
            text = wording.duration(o.delay_us, language)
            said.append(f"after {text}" if language == "en" else f"延迟 {text}")
        if o.lead_us is not None:
            text = wording.duration(o.lead_us, language)
            said.append(f"{text} ahead" if language == "en" else f"提前 {text}")
        return ", ".join(said) if language == "en" else "，".join(said)

    return both(say)


def _anchor(ticket: Ticket) -> str:
    return "f-" + html.escape(ticket.finding.key)


def _table(run: Run, judgement: Judgement | None, *, plots: bool) -> str:
    heads = [("machine", "设备"), ("fault family", "故障类别"), ("onset", "起始"), ("raised", "报出"), ("first sensor", "首个传感器"), ("severity", "严重程度")]  # fmt: skip
    if judgement is not None:
        heads.append(("judged", "判定"))
    head = "".join(f"<th>{_both(en, zh)}</th>" for en, zh in heads)
    rows = []
    for place, t in enumerate(run.tickets):
        f = t.finding
        number = html.escape(t.machine)
        cells = [
            f'<a href="#{_anchor(t)}">{number}</a>' if plots and place < _MOST_PLOTS else number,
            _say(wording.FAMILIES, f.fault_family.value),
            _at(f.onset_us),
            _at(f.raised_us),
            html.escape(t.sensors[0] if t.sensors else ""),
            f'<span class="chip {f.severity.value}">{_say(wording.SEVERITIES, f.severity.value)}</span>',
        ]
        if judgement is not None:
            cells.append(_judged(t, judgement))
        names = [en for en, _ in heads]
        rows.append("<tr>" + "".join(f'<td data-name="{n}">{c}</td>' for n, c in zip(names, cells, strict=True)) + "</tr>")  # fmt: skip
    title = _both(f"{len(run.tickets)} findings, {run.label}", f"{run.label}：{len(run.tickets)} 项发现")
    if not rows:
        return f"<section><h2>{title}</h2></section>"
    return f'<section><h2>{title}</h2><table class="findings"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></section>'


def _missed(runs: Sequence[Run], judgements: Sequence[Judgement]) -> str:
    out = []
    for run, judgement in zip(runs, judgements, strict=True):
        missed = [o.episode for o in judgement.outcomes if o.ticket is None]
        if missed:
            rows = "".join(
                f"<li><b>{html.escape(e.machine)}</b> {html.escape(e.name)} <small>{_at(e.onset_us) if e.is_onset_known else ''}</small></li>"
                for e in missed
            )
            out.append(
                f'<section><h2>{_both(f"Missed, {run.label}", f"漏报（{run.label}）")}</h2><ul class="missed">{rows}</ul></section>'
            )
    return "".join(out)


def _details(done: Backtest, judgement: Judgement | None, episodes: Sequence[Episode]) -> str:
    run = done.runs[0]
    shown = run.tickets[:_MOST_PLOTS]
    if not shown:
        return ""
    out = [_detail(done, run, ticket, judgement, episodes) for ticket in shown]
    rest = len(run.tickets) - len(shown)
    more = (
        f"<p>{_both(f'{rest} further findings are in the table only.', f'其余 {rest} 项仅列于表中。')}</p>"
        if rest
        else ""
    )
    return f'<section><h2>{_both("Evidence", "证据")}</h2><div class="details">{"".join(out)}</div>{more}</section>'


def plot_span(ticket: Ticket, *, start_us: int, end_us: int) -> tuple[int, int]:
    """Return the period a finding is drawn over: a third of it before the onset, at least a day, and what follows."""
    f = ticket.finding
    until = min(f.raised_us + 7 * _DAY_US, f.cleared_us or end_us)
    active = max(until - f.onset_us, 3_600_000_000)
    before = max(min(active, 3 * _DAY_US), _DAY_US)
    return max(f.onset_us - before, start_us), min(until + active // 6, end_us)


def _detail(done: Backtest, run: Run, ticket: Ticket, judgement: Judgement | None, episodes: Sequence[Episode]) -> str:
    f = ticket.finding
    history, traces = done.history, done.traces
    assert traces is not None
    start_us, end_us = plot_span(ticket, start_us=history.start_us, end_us=history.end_us)
    events = [e for e in run.events if e.finding.key == f.key]
    ends_us = f.cleared_us or history.end_us
    sensors = [s for s in history.sensors if s.machine_id == f.machine_id]
    sensors.sort(key=lambda s: f.sensor_ids.index(s.sensor_id) if s.sensor_id in f.sensor_ids else 99)
    panels = []
    for s in sensors[:4]:
        ts, low, high = traces.of(int(s.sensor_id), start_us=start_us, end_us=end_us, points=420)
        bands, limit = [], None
        for place, event in enumerate(e for e in events if e.change is not Change.CLEARED):
            later = [e.at_us for e in events if e.at_us > event.at_us]
            for c in event.finding.evidence.get("contributions", []):
                if c.get("sensor_id") != s.sensor_id:
                    continue
                if c.get("low") is not None and c.get("high") is not None:
                    begins = f.onset_us if place == 0 else event.at_us
                    bands.append(Band(begins, min([*later, ends_us, end_us]), c["low"], c["high"]))
                limit = c.get("limit") if c.get("limit") is not None else limit
        panels.append(Panel(s.name, s.unit, s.kind.value, ts, low, high, bands, limit))
    theirs = [e for e in episodes if e.machine == ticket.machine and e.site in {None, ticket.site}]
    plot = Plot(
        start_us,
        end_us,
        panels,
        open_spans=[(max(f.raised_us, start_us), min(ends_us, end_us))],
        true_spans=[
            (max(e.onset_us, start_us), min(e.end_us, end_us))
            for e in theirs
            if e.onset_us < end_us and e.end_us > start_us
        ],
        marks=[f.raised_us],
        failures=[e.failure_us for e in theirs if e.failure_us is not None and start_us <= e.failure_us <= end_us],
        gap_us=4 * traces.step_us,
    )
    svg = to_svg(plot, title=f"{ticket.machine}: {f.fault_family.value}", width=620, panel_height=84, standalone=False)
    listed = f.evidence.get("contributions", [])[:3]
    least = 0.02 * sum(max(c.get("contribution") or 0.0, 0.0) for c in listed)
    ranked = [c for place, c in enumerate(listed) if place == 0 or (c.get("contribution") or 0.0) >= least]
    shares = "".join(
        f"<li><b>{html.escape(str(c.get('sensor', '')))}</b> {_say(wording.FEATURES, c.get('feature', ''))}: {_measured(c)}</li>"
        for c in ranked
    )
    family = _say(wording.FAMILIES, f.fault_family.value)
    checks = f.evidence.get("checks") or []
    check = both(lambda g: (", " if g == "en" else "、").join(wording.say(wording.CHECKS, c, g) for c in checks))
    facts = both(
        lambda g: (
            f"{wording.say(wording.MODES, f.mode, g)} · "
            + (f"tier {f.tier}: " if g == "en" else f"第 {f.tier} 级：")
            + wording.say(wording.TIERS, f.tier, g)
            + f" · {f.detector} · {f.model_version}"
        )
    )
    score = "" if math.isnan(f.score) else f"{f.score:.2f}"
    return (
        f'<article id="{_anchor(ticket)}"><h3>{html.escape(ticket.machine)} · {family} '
        f'<span class="chip {f.severity.value}">{_say(wording.SEVERITIES, f.severity.value)}</span></h3>'
        f'<p class="facts">{_judged(ticket, judgement)}<span>{_both("score", "评分")} {score}</span><span>{facts}</span></p>'
        f'<figure>{svg}</figure><ul>{shares}</ul>{_beside(f.evidence)}<p class="check">{_both("Check first: ", "建议先查：")}{check}</p></article>'
    )


def _beside(evidence: Mapping[str, Any]) -> str:
    """Return health, outlook and opinions as rows; precision is for live findings, which people decide on."""
    if "health" not in evidence:
        return ""
    shown = {**evidence, "precision": None}
    rows = []
    for en, zh in zip(wording.beside(shown, "en"), wording.beside(shown, "zh"), strict=True):
        if en[0] != "measured precision":
            rows.append(f"<div><dt>{_both(en[0], zh[0])}</dt><dd>{_both(en[1], zh[1])}</dd></div>")
    return f'<dl class="beside">{"".join(rows)}</dl>'


def _notes(*, is_known: bool) -> str:
    notes = [
        _both(
            "Plots: the range of the readings in each piece of time; green is what was expected, red is while the finding was open, the upright line is when it was raised.",
            "曲线：各时段读数的范围；绿色为预期范围，红色为发现未关闭期间，竖线为报出时刻。",
        ),
        _both(
            "Times are event time in UTC. A finding carries the evidence of its last change.",
            "时间均为事件时间（UTC）。各项发现显示其最后一次变化时的证据。",
        ),
    ]
    if is_known:
        notes.append(
            _both(
                "A finding raised inside an episode of its machine finds it; further ones are repeats; one raised outside every episode is false. The interval of the rate is exact (Poisson).",
                "在该设备的故障期内报出即为发现，其后为重复；在所有故障期之外报出为误报。误报率区间为泊松精确区间。",
            )
        )
    return f"<footer>{''.join(f'<p>{n}</p>' for n in notes)}</footer>"
