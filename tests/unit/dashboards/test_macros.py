"""The macro engine does what Grafana's PostgreSQL data source does; vectors from its documented and odd behaviour."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboards.macros import (
    ForbiddenFormat,
    UnknownMacro,
    Variable,
    WrongMacroArguments,
    expand,
    interpolate,
    interval_of,
    interval_text,
    names_in,
    rfc3339,
    to_grafana,
)

FROM = datetime(2026, 11, 21, tzinfo=UTC)
TO = datetime(2026, 11, 22, tzinfo=UTC)


def run(sql, *, timescale=False, from_at=FROM, to_at=TO, interval=timedelta(minutes=1)):
    return expand(sql, from_at=from_at, to_at=to_at, interval=interval, timescale=timescale)


@pytest.mark.parametrize("timescale", [True, False])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$__timeFilter(at)", "at BETWEEN '2026-11-21T00:00:00Z' AND '2026-11-22T00:00:00Z'"),
        ("$__time(at)", 'at AS "time"'),
        ("$__timeEpoch(at)", 'extract(epoch from at) as "time"'),
        ("$__timeFrom()", "'2026-11-21T00:00:00Z'"),
        ("$__timeTo()", "'2026-11-22T00:00:00Z'"),
        ("$__unixEpochFilter(t)", "t >= 1795219200 AND t <= 1795305600"),
        ("$__unixEpochGroup(t,'1d')", "floor((t)/86400)*86400"),
        ("$__unixEpochGroupAlias(t,'1d')", 'floor((t)/86400)*86400 AS "time"'),
        ("$__unixEpochNanoFilter(t)", "t >= 1795219200000000000 AND t <= 1795305600000000000"),
        ("$__unixEpochNanoFrom()", "1795219200000000000"),
        ("$__unixEpochFrom() $__unixEpochTo()", "1795219200 1795305600"),
        ("$__interval_ms $__interval", "60000 1m"),
        ("-- $__timeFrom() in a comment", "-- '2026-11-21T00:00:00Z' in a comment"),
        ("$undefined and ${other}", "$undefined and ${other}"),
    ],
)
def test_macro_expands(text, expected, timescale):
    assert run(text, timescale=timescale) == expected


@pytest.mark.parametrize(
    ("text", "timescale", "expected"),
    [
        ("$__timeGroup(at , '5m')", False, "floor(extract(epoch from at)/300)*300"),
        ("$__timeGroup(at,'5m'), v", False, 'floor(extract(epoch from at)/300)*300 AS "time", v'),
        ("$__timeGroup(at,'500ms')", False, "floor(extract(epoch from at)/0.5)*0.5"),
        ("$__timeGroup(at,5m,NULL)", True, "time_bucket('300.000s',at)"),
        ("$__timeGroupAlias(at,$__interval)", True, "time_bucket('60.000s',at) AS \"time\""),
    ],
)
def test_time_group_follows_the_storage_flag(text, timescale, expected):
    assert run(text, timescale=timescale) == expected


def test_a_group_repeated_after_a_comma_gains_the_alias_everywhere():
    grouped = run("SELECT $__timeGroup(at,'5m'), avg(v) FROM x GROUP BY $__timeGroup(at,'5m')")
    assert grouped.count('AS "time"') == 2  # why the pages never use it


def test_arguments_end_at_the_first_parenthesis():
    assert run("$__timeFilter(coalesce(a,b))").startswith("coalesce(a BETWEEN ")


def test_an_instant_keeps_its_fraction_without_trailing_zeros():
    assert run("$__timeFrom()", from_at=FROM + timedelta(milliseconds=120)) == "'2026-11-21T00:00:00.12Z'"


@pytest.mark.parametrize("text", ["$__nope(1)", "$count(x)"])
def test_unknown_macro_is_an_error(text):
    with pytest.raises(UnknownMacro, match="unknown macro"):
        run(text)


@pytest.mark.parametrize(
    "text",
    [
        "$__timeGroup(at)",
        "$__timeGroup(at,'5m',x)",
        "$__timeGroup(at,'5 apples')",
        "$__timeGroup(at,'0m')",
        "$__timeFilter()",
    ],
)
def test_wrong_arguments_name_the_macro(text):
    with pytest.raises(WrongMacroArguments, match=r"\$?__time"):
        run(text)


@pytest.mark.parametrize(
    ("text", "variable", "expected"),
    [
        ("name = '$m'", Variable("O'Neil"), "name = 'O''Neil'"),
        ("IN ($m)", Variable(["a", "b"], is_multi=True), "IN ('a','b')"),
        ("IN ($m)", Variable("a", is_multi=True), "IN ('a')"),
        ("IN ($m)", Variable([], is_multi=True), "IN ()"),
        ("ARRAY[$m]::text[]", Variable([], is_multi=True), "ARRAY[]::text[]"),
        ("id = $m", Variable(7), "id = 7"),
        ("${m} [[m]] ${m.text}", Variable("x"), "x x x"),
        ("${m:sqlstring}", Variable("O'N"), "'O''N'"),
        ("${m:raw} ${m:csv}", Variable(["a", "b"]), "a,b a,b"),
        ("'$m'", Variable(None), "''"),
        ("IN ($m)", Variable(["a"], is_multi=True, is_all=True, all_value="'%'"), "IN ('%')"),
    ],
)
def test_variable_is_written_as_the_browser_writes_it(text, variable, expected):
    assert interpolate(text, {"m": variable}) == expected


def test_singlequote_format_is_refused():
    with pytest.raises(ForbiddenFormat, match="m"):
        interpolate("${m:singlequote}", {"m": Variable("a")})


@given(st.text().filter(lambda text: "\0" not in text))
def test_no_value_leaves_its_quotes(value):
    written = interpolate("'$m'", {"m": Variable(value)})
    assert (written[0], written[-1]) == ("'", "'")
    assert written[1:-1].replace("''", "").count("'") == 0


@pytest.mark.parametrize(
    ("hours", "points", "expected"),
    [
        (1, 1000, "5s"),
        (6, 1000, "20s"),
        (24, 1000, "1m"),
        (24 * 30, 1000, "30m"),
        (24 * 365, 1000, "6h"),
        (24 * 365 * 20, 100, "365d"),
    ],
)
def test_interval_is_rounded_to_grafanas_steps(hours, points, expected):
    found = interval_text(interval_of(TO - timedelta(hours=hours), TO, points=points))
    assert found == {"365d": "1y"}.get(expected, expected)


def test_a_minimum_interval_wins():
    assert interval_of(FROM, TO, points=10_000, minimum=timedelta(seconds=30)) == timedelta(seconds=30)


def test_house_placeholders_become_variables_by_kind():
    sql = "a = %(a)s AND b = %(b)s AND c = ANY(%(c)s) AND d LIKE 'x%%'"
    kinds = {"a": "text", "b": "integer", "c": "multi"}
    assert to_grafana(sql, kinds) == "a = '$a' AND b = '$b'::bigint AND c = ANY(ARRAY[$c]::text[]) AND d LIKE 'x%'"
    assert names_in(sql) == {"a", "b", "c"}


def test_an_undeclared_placeholder_is_an_error():
    with pytest.raises(KeyError, match="z"):
        to_grafana("%(z)s", {})


def test_instants_are_written_in_utc():
    assert rfc3339(datetime.fromisoformat("2026-11-21T08:00:00+08:00")) == "2026-11-21T00:00:00Z"
