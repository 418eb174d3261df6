"""One SQL text, two languages of placeholders: Grafana's variables and macros, and psycopg's parameters.

    panel SQL ──to_grafana──▶ '$machine'::int, $__timeFrom()   ──interpolate, expand──▶ what Grafana sends to PostgreSQL
        └───────expand──────▶ %(machine)s, '2026-11-21T…'       ──psycopg──▶ the same rows on the board

`interpolate` and `expand` do what Grafana 12.2 does (browser, then server), so that every query of a dashboard can be
run in a test without one. The rules that are odd are Grafana's: arguments cannot hold parentheses, macros are expanded
inside comments, and `$__timeGroup(…)` followed by a comma gains an alias.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from fettle.errors import FettleError

VariableKind = Literal["text", "integer", "multi"]
Value = str | int | float | None | Sequence[str]

_MACRO = re.compile(r"\$([_a-zA-Z0-9]+)\(([^)]*)\)")
_VARIABLE = re.compile(r"\$(\w+)|\[\[(\w+)(?::(\w+))?\]\]|\$\{(\w+)(?:\.([^:}]+))?(?::([^}]+))?\}")
_HOUSE = re.compile(r"%(?:(%)|\((\w+)\)s)")
_UNITS_S = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "M": 2592000, "y": 31536000}
_S, _MIN, _H, _D = 1000, 60_000, 3_600_000, 86_400_000
_STEPS_MS = (
    # a raw interval below the first takes the second; Grafana's rounding
    (10, 1), (15, 10), (35, 20), (75, 50), (150, 100), (350, 200), (750, 500),
    (1500, _S), (3500, 2 * _S), (7500, 5 * _S), (12500, 10 * _S), (17500, 15 * _S), (25000, 20 * _S), (45000, 30 * _S),
    (1.5 * _MIN, _MIN), (3.5 * _MIN, 2 * _MIN), (7.5 * _MIN, 5 * _MIN), (12.5 * _MIN, 10 * _MIN), (17.5 * _MIN, 15 * _MIN),
    (25 * _MIN, 20 * _MIN), (45 * _MIN, 30 * _MIN),
    (1.5 * _H, _H), (2.5 * _H, 2 * _H), (4.5 * _H, 3 * _H), (9 * _H, 6 * _H), (24 * _H, 12 * _H),
    (7 * _D, _D), (21 * _D, 7 * _D), (42 * _D, 30 * _D),
)  # fmt: skip


class UnknownMacro(FettleError):
    """unknown macro "{name}"; known are the $__time… and $__unixEpoch… macros of Grafana's PostgreSQL data source."""


class WrongMacroArguments(FettleError):
    """macro ${name} cannot take ({arguments}): {why}."""


class ForbiddenFormat(FettleError):
    """variable {name} is written with :{form}, which does not quote for PostgreSQL. Write '${name}' or ARRAY[${name}]."""


@dataclass(frozen=True, slots=True)
class Variable:
    """The value of a template variable as the browser holds it; `is_multi` also where All is offered."""

    value: Value
    is_multi: bool = False
    all_value: str | None = None
    is_all: bool = False


def interval_of(
    from_at: datetime, to_at: datetime, *, points: int, minimum: timedelta = timedelta(milliseconds=1)
) -> timedelta:
    """Return `$__interval`: the range over the number of points, rounded to Grafana's steps.

    >>> day = timedelta(days=1)
    >>> interval_of(datetime(2026, 11, 21), datetime(2026, 11, 22), points=1000)
    datetime.timedelta(seconds=60)
    """
    raw_ms = (to_at - from_at) / timedelta(milliseconds=1) / points
    step_ms = next((step for bound, step in _STEPS_MS if raw_ms < bound), 365 * _D)
    return max(timedelta(milliseconds=step_ms), minimum)


def interval_text(interval: timedelta) -> str:
    """Write an interval as Grafana does: one whole number of the largest unit it reaches.

    >>> interval_text(timedelta(days=7)), interval_text(timedelta(seconds=90))
    ('7d', '1m')
    """
    total_ms = round(interval / timedelta(milliseconds=1))
    for unit, size_ms in (("y", 365 * _D), ("d", _D), ("h", _H), ("m", _MIN), ("s", _S)):
        if total_ms >= size_ms:
            return f"{total_ms // size_ms}{unit}"
    return f"{total_ms}ms"


def interpolate(sql: str, variables: Mapping[str, Variable]) -> str:
    """Replace template variables as the browser does, before a query is sent. Undefined names stay.

    Raises:
        ForbiddenFormat: `:singlequote`, which escapes for another database.
    """

    def replace(match: re.Match[str]) -> str:
        name = match[1] or match[2] or match[4]
        form = match[3] or match[6]
        if name not in variables:
            return match[0]
        if form == "singlequote":
            raise ForbiddenFormat(name=name, form=form)
        return _written(variables[name], form)

    return _VARIABLE.sub(replace, sql)


def _written(variable: Variable, form: str | None) -> str:
    if variable.is_all and variable.all_value is not None:
        return variable.all_value
    value = variable.value
    if value is None:
        return ""
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, str):
        if form in {"raw", "csv"}:
            return value
        return _quoted(value) if variable.is_multi or form == "sqlstring" else value.replace("'", "''")
    return ",".join(value if form in {"raw", "csv"} else map(_quoted, value))


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def expand(sql: str, *, from_at: datetime, to_at: datetime, interval: timedelta, timescale: bool) -> str:
    """Replace the globals and the macros as the data source does, in one pass over the text.

    Raises:
        UnknownMacro: `$name(` of a name that is none.
        WrongMacroArguments: too few arguments, an interval or a fill that cannot be read.
    """
    text = sql.replace("$__interval_ms", str(int(interval / timedelta(milliseconds=1))))
    text = text.replace("$__interval", interval_text(interval))
    text = text.replace("$__unixEpochFrom()", str(_seconds(from_at))).replace("$__unixEpochTo()", str(_seconds(to_at)))

    def replace(match: re.Match[str]) -> str:
        name, arguments = match[1], [argument.strip(" ") for argument in match[2].split(",")]
        if name == "__timeGroup":
            end = text.index(match[0]) + len(match[0])  # Grafana looks at the first occurrence of the same text
            if text[end : end + 1] == ",":
                name = "__timeGroupAlias"
        return _evaluate(name, arguments, from_at, to_at, timescale=timescale)

    return _MACRO.sub(replace, text)


def _evaluate(name: str, arguments: list[str], from_at: datetime, to_at: datetime, *, timescale: bool) -> str:
    column = arguments[0]
    if name.endswith("Alias") and name in {"__timeGroupAlias", "__unixEpochGroupAlias"}:
        return _evaluate(name.removesuffix("Alias"), arguments, from_at, to_at, timescale=timescale) + ' AS "time"'
    if (
        name not in {"__timeFrom", "__timeTo", "__unixEpochNanoFrom", "__unixEpochNanoTo"}
        and name in _KNOWN
        and not column
    ):
        raise WrongMacroArguments(name=name, arguments=", ".join(arguments), why="it needs a column")
    match name:
        case "__time":
            return f'{column} AS "time"'
        case "__timeEpoch":
            return f'extract(epoch from {column}) as "time"'
        case "__timeFilter":
            return f"{column} BETWEEN {_quoted(rfc3339(from_at))} AND {_quoted(rfc3339(to_at))}"
        case "__timeFrom":
            return _quoted(rfc3339(from_at))
        case "__timeTo":
            return _quoted(rfc3339(to_at))
        case "__timeGroup":
            size_s = _group_size_s(name, arguments)
            if timescale:
                return f"time_bucket('{size_s:.3f}s',{column})"
            return f"floor(extract(epoch from {column})/{size_s:.15g})*{size_s:.15g}"
        case "__unixEpochGroup":
            size_s = _group_size_s(name, arguments)
            return f"floor(({column})/{size_s:.15g})*{size_s:.15g}"
        case "__unixEpochFilter":
            return f"{column} >= {_seconds(from_at)} AND {column} <= {_seconds(to_at)}"
        case "__unixEpochNanoFilter":
            return f"{column} >= {_nanoseconds(from_at)} AND {column} <= {_nanoseconds(to_at)}"
        case "__unixEpochNanoFrom":
            return str(_nanoseconds(from_at))
        case "__unixEpochNanoTo":
            return str(_nanoseconds(to_at))
        case _:
            raise UnknownMacro(name=name)


_KNOWN = {
    "__time", "__timeEpoch", "__timeFilter", "__timeFrom", "__timeTo", "__timeGroup", "__timeGroupAlias", "__unixEpochGroup",
    "__unixEpochGroupAlias", "__unixEpochFilter", "__unixEpochNanoFilter", "__unixEpochNanoFrom", "__unixEpochNanoTo",
}  # fmt: skip


def _group_size_s(name: str, arguments: list[str]) -> float:
    said = ", ".join(arguments)
    if len(arguments) < 2:
        raise WrongMacroArguments(name=name, arguments=said, why="it needs a column and an interval")
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w|M|y)", arguments[1].strip("'"))
    if match is None or float(match[1]) == 0:
        raise WrongMacroArguments(name=name, arguments=said, why=f"{arguments[1]} is no interval such as '5m'")
    if len(arguments) > 2 and arguments[2] not in {"NULL", "previous"}:
        try:
            float(arguments[2])
        except ValueError:
            raise WrongMacroArguments(
                name=name, arguments=said, why=f"{arguments[2]} fills nothing; write NULL, previous or a number"
            ) from None
    return float(match[1]) * _UNITS_S[match[2]]


def rfc3339(at: datetime) -> str:
    """Write an instant in UTC with Z, the fraction without trailing zeros.

    >>> rfc3339(datetime(2026, 11, 21, 0, 0, 0, 120000, tzinfo=UTC))
    '2026-11-21T00:00:00.12Z'
    """
    whole = at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f".{at.microsecond:06d}".rstrip("0").rstrip(".")
    return f"{whole}{fraction}Z"


def _nanoseconds(at: datetime) -> int:
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000


def _seconds(at: datetime) -> int:
    return _nanoseconds(at) // 1_000_000_000


def to_grafana(sql: str, kinds: Mapping[str, VariableKind]) -> str:
    """Rewrite `%(name)s` as the Grafana variable of its kind, and `%%` as `%`.

    >>> to_grafana("machine_id = %(machine)s AND name LIKE 'P%%'", {"machine": "integer"})
    "machine_id = '$machine'::bigint AND name LIKE 'P%'"

    Raises:
        KeyError: the text names a variable that is not declared.
    """

    def replace(match: re.Match[str]) -> str:
        if match[1]:
            return "%"
        match kinds[match[2]]:
            case "text":
                return f"'${match[2]}'"
            case "integer":
                return f"'${match[2]}'::bigint"
            case "multi":
                return f"ARRAY[${match[2]}]::text[]"

    return _HOUSE.sub(replace, sql)


def names_in(sql: str) -> frozenset[str]:
    """Return the names of the `%(name)s` in a text."""
    return frozenset(match[2] for match in _HOUSE.finditer(sql) if match[2])
