"""Plots of readings as SVG: one panel a sensor, what was measured, what was expected, when a finding was open.

A trace is the range between lowest and highest value of each piece of time; colours are CSS classes with a value of their
own, so that a page may repaint them.
"""

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt

from anomaly.wording import number

Numbers = npt.NDArray[np.float64] | npt.NDArray[np.float32]
Scale = Callable[[float], float]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LEFT, _RIGHT, _TOP, _GAP, _BOTTOM = 52, 12, 20, 26, 22
_STEPS_S = (
    60,
    300,
    600,
    1800,
    3600,
    7200,
    14400,
    21600,
    43200,
    86400,
    172800,
    259200,
    432000,
    604800,
    1209600,
    2592000,
    7776000,
)

STYLE = (
    ".fp text{font:11px system-ui,'Noto Sans CJK SC',sans-serif;fill:var(--plot-ink,#5b6763)}"
    ".fp .name{font-weight:600;fill:var(--plot-name,#1d2623)}"
    ".fp .grid{stroke:var(--plot-grid,#dfe5e1);stroke-width:1}"
    ".fp .trace{fill:var(--plot-trace,#3566b8);stroke:var(--plot-trace,#3566b8);stroke-width:1;stroke-linejoin:round}"
    ".fp .warm{fill:var(--plot-warm,#b3541e);stroke:var(--plot-warm,#b3541e)}"
    ".fp .violet{fill:var(--plot-violet,#6d4fb3);stroke:var(--plot-violet,#6d4fb3)}"
    ".fp .band{fill:var(--plot-band,#2c8262);opacity:.22}"
    ".fp .limit{stroke:var(--plot-limit,#8a3b12);stroke-dasharray:5 3;stroke-width:1.2}"
    ".fp .open{fill:var(--plot-open,#c2332f);opacity:.13}"
    ".fp .true{fill:var(--plot-true,#b06000);opacity:.75}"
    ".fp .mark{stroke:var(--plot-mark,#c2332f);stroke-width:1.5}"
    ".fp .fail{stroke:var(--plot-name,#1d2623);stroke-width:1.5;stroke-dasharray:2 3}"
)
"""Rules for the classes; `--plot-…` properties of a page override the colours."""


@dataclass(frozen=True, slots=True)
class Band:
    """A range that was expected, over [start_us, end_us)."""

    start_us: int
    end_us: int
    low: float
    high: float


@dataclass(frozen=True)
class Panel:
    """One sensor: `ts`, `low` and `high` of equal length, in time order."""

    name: str
    unit: str
    kind: str
    ts: npt.NDArray[np.int64]
    low: Numbers
    high: Numbers
    bands: Sequence[Band] = ()
    limit: float | None = None


@dataclass(frozen=True)
class Plot:
    """Panels over one period; `open_spans` is when findings were open, `true_spans` when a fault was there.

    `marks` are instants of raising, `failures` of failing.
    """

    start_us: int
    end_us: int
    panels: Sequence[Panel]
    open_spans: Sequence[tuple[int, int]] = ()
    true_spans: Sequence[tuple[int, int]] = ()
    marks: Sequence[int] = ()
    failures: Sequence[int] = ()
    gap_us: int = field(default=0)  # pieces further apart are not joined; 0: found from the traces


def to_svg(plot: Plot, *, title: str, width: int = 860, panel_height: int = 92, standalone: bool = True) -> str:
    """Return the drawing; `standalone` puts the style and the size into it."""
    n = max(len(plot.panels), 1)
    height = _TOP + n * panel_height + (n - 1) * _GAP + _BOTTOM
    head = f'<svg xmlns="http://www.w3.org/2000/svg" class="fp" viewBox="0 0 {width} {height}" role="img" aria-label="{html.escape(title)}"'
    out = [head + (f' width="{width}" height="{height}">' if standalone else ">")]
    if standalone:
        out.append(f"<style>{STYLE}</style><rect width='{width}' height='{height}' fill='#ffffff'/>")
    right = width - _RIGHT

    def x(us: float) -> float:
        share = (us - plot.start_us) / max(plot.end_us - plot.start_us, 1)
        return round(_LEFT + min(max(share, 0.0), 1.0) * (right - _LEFT), 1)

    ticks = _time_ticks(plot.start_us, plot.end_us, most=max(width // 120, 2))
    for i, panel in enumerate(plot.panels):
        top = _TOP + i * (panel_height + _GAP)
        out.extend(_panel(plot, panel, top, panel_height, right, x, [at for at, _ in ticks]))
    base = height - 7
    for at, label in ticks:
        out.append(f'<text x="{x(at)}" y="{base}" text-anchor="middle">{label}</text>')
    out.append("</svg>")
    return "".join(out)


def _panel(
    plot: Plot, panel: Panel, top: float, height: float, right: float, x: Scale, ticks: Sequence[int]
) -> list[str]:
    floor, ceiling = _range(panel)

    def y(value: float) -> float:
        share = (min(max(value, floor), ceiling) - floor) / (ceiling - floor)
        return round(top + (1 - share) * height, 1)

    def at(us: float) -> str:
        return f'x1="{x(us)}" x2="{x(us)}" y1="{top}" y2="{top + height}"'

    out = []
    for low, high in plot.true_spans:
        out.append(f'<rect class="true" x="{x(low)}" y="{top - 5}" width="{max(x(high) - x(low), 1):.1f}" height="4"/>')
    for low, high in plot.open_spans:
        out.append(
            f'<rect class="open" x="{x(low)}" y="{top}" width="{max(x(high) - x(low), 1):.1f}" height="{height}"/>'
        )
    out += [f'<line class="grid" {at(t)}/>' for t in ticks]
    for value in _value_ticks(floor, ceiling):
        out.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y(value)}" y2="{y(value)}"/>')
        out.append(f'<text x="{_LEFT - 6}" y="{y(value) + 4}" text-anchor="end">{_tidy(value)}</text>')
    for band in panel.bands:
        width = max(x(band.end_us) - x(band.start_us), 1)
        tall = max(y(band.low) - y(band.high), 1)
        out.append(
            f'<rect class="band" x="{x(band.start_us)}" y="{y(band.high)}" width="{width:.1f}" height="{tall:.1f}"/>'
        )
    colour = {"temperature": " warm", "current": " violet", "power": " violet"}.get(panel.kind, "")
    out += [f'<path class="trace{colour}" d="{path}"/>' for path in _trace(plot, panel, x, y)]
    if panel.limit is not None and floor <= panel.limit <= ceiling:
        out.append(f'<line class="limit" x1="{_LEFT}" x2="{right}" y1="{y(panel.limit)}" y2="{y(panel.limit)}"/>')
    out += [f'<line class="mark" {at(t)}/>' for t in plot.marks]
    out += [f'<line class="fail" {at(t)}/>' for t in plot.failures]
    unit = f" [{html.escape(panel.unit)}]" if panel.unit else ""
    out.append(f'<text class="name" x="{_LEFT}" y="{top - 8}">{html.escape(panel.name)}{unit}</text>')
    return out


def _trace(plot: Plot, panel: Panel, x: Scale, y: Scale) -> list[str]:
    """Return closed paths between the lowest and the highest values, one for each run without a hole."""
    if len(panel.ts) == 0:
        return []
    gaps = np.diff(panel.ts)
    allowed = plot.gap_us or (3.5 * float(np.median(gaps)) if len(gaps) else 0.0)
    paths = []
    for part in np.split(np.arange(len(panel.ts)), np.flatnonzero(gaps > allowed) + 1):
        upper = [f"{x(panel.ts[i])} {y(float(panel.high[i]))}" for i in part]
        lower = [f"{x(panel.ts[i])} {y(float(panel.low[i]))}" for i in part[::-1]]
        paths.append("M" + "L".join([*upper, *lower]) + "Z")
    return paths


def _range(panel: Panel) -> tuple[float, float]:
    low = [float(np.min(panel.low))] if len(panel.low) else []
    high = [float(np.max(panel.high))] if len(panel.high) else []
    low += [b.low for b in panel.bands]
    high += [b.high for b in panel.bands]
    if panel.limit is not None and high and panel.limit < 1.6 * max(high):
        high.append(panel.limit)
    floor, ceiling = min(low, default=0.0), max(high, default=1.0)
    if floor > 0 and floor < 0.5 * ceiling:
        floor = 0.0
    room = (ceiling - floor) * 0.06 or abs(ceiling) * 0.05 or 1.0
    return floor - (room if floor else 0.0), ceiling + room


def _value_ticks(low: float, high: float) -> list[float]:
    raw = (high - low) / 3
    size = 10.0 ** np.floor(np.log10(raw))
    step = next(float(size * m) for m in (1, 2, 5, 10) if size * m >= raw)
    return [float(v) for v in np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step]


def _tidy(value: float) -> str:
    return f"{value:g}" if abs(value) >= 1e-9 else "0"


def _time_ticks(start_us: int, end_us: int, *, most: int) -> list[tuple[int, str]]:
    span_s = (end_us - start_us) / 1e6
    step_s = next((s for s in _STEPS_S if span_s / s <= most), _STEPS_S[-1])
    step = step_s * 1_000_000
    form = "%H:%M" if step_s < 86_400 and span_s <= 86_400 else "%m-%d %H:%M" if step_s < 86_400 else "%m-%d"
    if span_s > 300 * 86_400:
        form = "%Y-%m-%d"
    ticks = []
    at = -(-start_us // step) * step
    while at <= end_us:
        ticks.append((at, (_EPOCH + timedelta(microseconds=at)).strftime(form)))
        at += step
    return ticks


def sparkline(values: Sequence[float], *, width: int = 60) -> str:
    """Return a line of blocks for a terminal; a dot where nothing was measured.

    >>> sparkline([1.0, 2.0, 3.0, float("nan")], width=4)
    '▁▄█·'
    """
    data = np.asarray(values, dtype=float)
    if len(data) == 0:
        return ""
    pieces = [
        float(np.nanmean(p)) if np.isfinite(p).any() else float("nan")
        for p in np.array_split(data, min(width, len(data)))
    ]
    known = [v for v in pieces if v == v]  # noqa: PLR0124 -- NaN differs from itself
    if not known:
        return "·" * len(pieces)
    low, high = min(known), max(known)
    blocks = "▁▂▃▄▅▆▇█"
    return "".join(
        "·" if v != v else blocks[min(int((v - low) / (high - low or 1.0) * 8), 7)] if high > low else "▄"  # noqa: PLR0124
        for v in pieces
    )


def span_in_words(panel: Panel) -> str:
    """Return the range a panel's readings span, in words."""
    if not len(panel.low):
        return ""
    return f"{number(float(np.min(panel.low)))}–{number(float(np.max(panel.high)))} {panel.unit}".rstrip()
