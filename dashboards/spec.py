"""Panels as data: what is shown, from which query, in which words. Rendered twice, for Grafana and on the board.

A panel's SQL reads `report.*` only. `%(name)s` names a variable of the page; Grafana's macros give the time range. Both
renderers read the same text (`dashboards.macros`).
"""

from dataclasses import dataclass
from typing import Literal

from dashboards.macros import VariableKind
from fettle.words import Language, Words

Viz = Literal["stat", "table", "timeseries", "bargauge", "gauge", "barchart"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")


@dataclass(frozen=True, slots=True)
class Variable:
    """A choice at the top of a page; `sql` returns `__text` and `__value`, each text once."""

    name: str
    title: Words
    kind: VariableKind
    sql: str


@dataclass(frozen=True, slots=True)
class Threshold:
    """From `at` upwards this colour; None is the base."""

    at: float | None
    colour: str


@dataclass(frozen=True, slots=True)
class Mapping:
    """How one value of a state column is written and coloured."""

    value: str
    words: Words
    colour: str


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table or a field of a stat: its heading, unit, width, states and link."""

    name: str
    words: Words
    unit: str = ""
    width: int = 0
    is_hidden: bool = False
    mappings: tuple[Mapping, ...] = ()
    colour: str = ""
    links_to: Literal["", "machine", "ticket"] = ""


@dataclass(frozen=True, slots=True)
class Grid:
    """Place in the 24 columns of a page."""

    x: int
    y: int
    w: int
    h: int


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel. `id` is stable: links and annotations hang on it. `may_be_empty`: no rows is an ordinary answer."""

    id: int
    key: str
    title: Words
    description: Words
    viz: Viz
    sql: str
    grid: Grid
    unit: str = ""
    columns: tuple[Column, ...] = ()
    thresholds: tuple[Threshold, ...] = ()
    no_value: Words | None = None
    may_be_empty: bool = False
    colour: str = ""
    draws: Literal["line", "bars"] = "line"
    is_steady: bool = False  # does not depend on the time range


@dataclass(frozen=True, slots=True)
class Annotation:
    """Regions marked on every time axis: `time`, `timeend`, `text`, `tags`. One colour a query."""

    name: Words
    colour: str
    sql: str


@dataclass(frozen=True, slots=True)
class Page:
    """One dashboard."""

    uid: str
    title: Words
    description: Words
    variables: tuple[Variable, ...]
    panels: tuple[Panel, ...]
    annotations: tuple[Annotation, ...] = ()
    refresh: str = "30s"
    range_from: str = "now-24h"

    def panel(self, key: str) -> Panel:
        return next(panel for panel in self.panels if panel.key == key)
