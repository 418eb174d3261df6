"""The table of topic rules: patterns, names, options, and errors that say where and what."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fettle.wire import machine_topic, reading_topic
from ingest.decode import BadPayload, Limits, Reason
from ingest.decode.naming import BadTemplate, Template
from ingest.topics import BadTopicRule, BadTopicRules, Pattern, Table, covers, load_table, parse_rules

NOW = 1_795_219_200_000_000
TABLE = load_table(tenant="default")


def rule(text: str, **lines: str) -> str:
    base = {"topic": '"a/{machine}"', "format": '"json"', "site": '"s"', **lines}
    return "[[rule]]\n" + "\n".join(f"{k} = {v}" for k, v in base.items()) + "\n" + text


def route(topic: str, text: str):
    return Table(parse_rules(text, file="user.toml")[0], tenant="default").route(topic)


@pytest.mark.parametrize(
    ("pattern", "topic", "captures"),
    [
        ("a/b", "a/b", {}),
        ("a/{x}", "a/b", {"x": "b"}),
        ("a/{x}", "a/b/c", None),
        ("a/{x}", "a/", None),
        ("a/+/c", "a/b/c", {}),
        ("a/#", "a", {}),
        ("a/#", "a/b/c", {}),
        ("a/#", "ab", None),
        ("#", "anything/at/all", {}),
        ("a/{x#}", "a/b/c", {"x": "b/c"}),
        ("a/{x#}", "a", {"x": ""}),
        ("a/{x#}/z", "a/b/c/z", {"x": "b/c"}),
        ("a/{x#}/z", "a/z", {"x": ""}),
        ("{x#}/z", "b/c/z", {"x": "b/c"}),
        ("u/{loc#}/{c:_}/{v#}/{tag}", "u/e/s/_raw/m/t", {"loc": "e/s", "c": "_raw", "v": "m", "tag": "t"}),
        ("u/{loc#}/{c:_}/{v#}/{tag}", "u/e/_raw/_x/t", {"loc": "e", "c": "_raw", "v": "_x", "tag": "t"}),
        ("u/{loc#}/{c:_}/{v#}/{tag}", "u/e/raw/t", None),
        ("a.b/{x}", "aXb/c", None),
        ("a/{x}", "a/b\nc", {"x": "b\nc"}),
    ],
)
def test_patterns(pattern, topic, captures):
    assert Pattern(pattern).match(topic) == captures


@pytest.mark.parametrize(
    "pattern", ["a/#/b", "a//b", "", "a/{x}/{x}", "a/b+", "a/{1x}", "a/{x", "a/x}", "{a#}/{b#}/{c#}"]
)
def test_patterns_that_are_refused(pattern):
    with pytest.raises(ValueError, match=r"level|twice|many"):
        Pattern(pattern)


@pytest.mark.parametrize(
    ("pattern", "subscription"),
    [("a/{x}/b", "a/+/b"), ("a/{x#}/b", "a/#"), ("a/{c:_}", "a/+"), ("a/#", "a/#"), ("{x#}", "#")],
)
def test_the_subscription_covers_the_pattern(pattern, subscription):
    assert Pattern(pattern).subscription == subscription


@pytest.mark.parametrize(
    ("wide", "narrow", "is_covered"),
    [
        ("#", "a/b", True),
        ("a/#", "a", True),
        ("a/#", "a/+/c", True),
        ("a/+", "a/b", True),
        ("a/+", "a/#", False),
        ("a/b", "a/+", False),
        ("a/b", "a/b/c", False),
        ("a/b/c", "a/b", False),
        ("a/+/c", "a/b/c", True),
    ],
)
def test_covers(wide, narrow, is_covered):
    assert covers(wide, narrow) is is_covered


levels = st.lists(st.sampled_from(["a", "b", "+"]), min_size=1, max_size=3)


@given(levels, st.booleans(), levels, st.booleans(), st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=4))
def test_a_filter_that_covers_another_matches_all_its_topics(wide, wide_tail, narrow, narrow_tail, topic):
    def matches(levels, tail):
        return (len(topic) >= len(levels) if tail else len(topic) == len(levels)) and all(
            level in {"+", at} for level, at in zip(levels, topic, strict=False)
        )

    wide_filter, narrow_filter = "/".join([*wide, *["#"] * wide_tail]), "/".join([*narrow, *["#"] * narrow_tail])
    if covers(wide_filter, narrow_filter) and matches(narrow, narrow_tail):
        assert matches(wide, wide_tail)


def test_the_shipped_rules_name_what_topics_say():
    paths = {
        reading_topic(tenant="acme", site="munich", machine="press-4", sensor="temp"): ("munich", "press-4", "temp"),
        machine_topic(tenant="acme", site="munich", machine="press-4"): ("munich", "press-4", "value"),
        "umh/v1/acme/munich/hall/press-4/_raw/motor/temp": ("acme/munich/hall", "press-4", "motor/temp"),
        "umh/v1/acme/munich/_historian/temp": ("acme", "munich", "temp"),
        "umh/v1/acme/_raw/temp": ("acme", "acme", "temp"),
        "senml/munich/press-4": ("munich", "press-4", "value"),
    }
    assert {topic: TABLE.route(topic).context.path() for topic in paths} == paths


def test_the_tenant_comes_from_the_topic_else_from_the_setting():
    assert TABLE.route("fettle/acme/s/m/x").tenant == "acme"
    assert TABLE.route("umh/v1/acme/munich/_raw/temp").tenant == "default"
    assert route("a/m", rule("", tenant='"fixed"')).tenant == "fixed"


def test_umh_payloads():
    out = TABLE.route("umh/v1/acme/munich/press-4/_raw/temp").decode(
        b'{"timestamp_ms": 1795219200000, "value": 21.5}', NOW
    )
    assert [(s.path, s.ts_us, s.value) for s in out.samples] == [(("acme/munich", "press-4", "temp"), NOW, 21.5)]


def test_the_subscriptions_do_not_overlap():
    filters = TABLE.subscriptions()
    assert not [(a, b) for a in filters for b in filters if a != b and covers(a, b)]
    for topic in ("fettle/a/b/c", "fettle/a/b/c/d", "spBv1.0/g/NDATA/e", "umh/v1/a/_raw/t", "zigbee2mqtt/x", "line/s"):
        assert any(covers(f, topic) for f in filters), topic


def test_users_rules_come_first(tmp_path):
    file = tmp_path / "rules.toml"
    file.write_text(rule("", topic='"fettle/{tenant}/{site}/{machine}/{sensor}"', format='"senml"', site='"{site}"'))
    table = load_table(tenant="default", user_file=file)
    assert table.route("fettle/a/b/c/d").format == "senml"
    assert table.route("fettle/a/b/c").format == "json"


def test_the_content_type_overrides_the_format():
    topic = "fettle/a/b/c/d"
    assert TABLE.route(topic, content_type="application/senml+json").format == "senml"
    assert TABLE.route(topic, content_type="Application/SenML+CBOR; x=1").format == "senml"
    assert TABLE.route(topic, content_type="application/json").format == "json"
    assert TABLE.route("spBv1.0/g/NDATA/e", content_type="application/senml+json").format == "sparkplug"
    rules, types = parse_rules(rule('[content_types]\n"text/x-line" = "line"\n'), file="user.toml")
    assert Table(rules, tenant="t", content_types=types).route("a/m", content_type="text/x-line").format == "line"


def test_sparkplug_without_a_host_is_refused_and_not_dropped():
    with pytest.raises(BadPayload, match="FETTLE_COLLECTOR_SPARKPLUG_HOST"):
        TABLE.route("spBv1.0/g/NDATA/e").decode(b"", NOW)


def test_long_and_deep_topics_are_refused():
    for topic in ("fettle/" + "x" * 2000, "a/" * 40 + "b"):
        with pytest.raises(BadPayload) as caught:
            TABLE.route(topic)
        assert caught.value.reason is Reason.BAD_NAME


def test_options_reach_the_codec():
    text = rule(
        '[rule.units]\ntemp = "Cel"\n[rule.words]\nON = 1\n[rule.limits]\nmax_records = 7\n',
        time_zone='"Asia/Shanghai"',
        time_unit='"s"',
        ignore_keys='["seq"]',
        burst='"readings"',
        waveform_above_hz="50",
        numeric_strings="true",
    )
    options = route("a/m", text).context.options
    assert (options.time_zone, options.time_unit, options.burst) == ("Asia/Shanghai", "s", "readings")
    assert (options.ignore_keys, options.units, options.words) == ({"seq"}, {"temp": "Cel"}, {"ON": 1.0})
    assert (options.limits, options.waveform_above_hz, options.numeric_strings) == (Limits(max_records=7), 50.0, True)


@pytest.mark.parametrize(
    ("text", "key", "allowed"),
    [
        (rule("", topik='"x"'), "topik", "name, topic, format"),
        (rule("", format='"jsn"'), "format", "json"),
        (rule("", topic="7"), "topic", "{name#}"),
        (rule("", topic='"a/#/b"'), "topic", "{name#}"),
        (rule("", site='"{place}"'), "site", "{machine}"),
        (rule("", site='"{place"'), "site", "{field}"),
        (rule("", sensor='"{metric}"'), "sensor", "{key}"),
        (rule("", tenant='"{key}"'), "tenant", "{machine}"),
        (rule("", time_unit='"h"'), "time_unit", "auto, s, ms, us, ns"),
        (rule("", time_zone='"Mars/Base"'), "time_zone", "Europe/Berlin"),
        (rule("", burst='"maybe"'), "burst", "auto, readings, waveform"),
        (rule("", numeric_strings='"yes"'), "numeric_strings", "true, false"),
        (rule("", ignore_keys='"seq"'), "ignore_keys", "list of texts"),
        (rule("", waveform_above_hz="-1"), "waveform_above_hz", "number"),
        (rule("[rule.units]\ntemp = 7\n"), "units.temp", "texts"),
        (rule('[rule.words]\nON = "1"\n'), "words.ON", "number"),
        (rule("[rule.limits]\nmax_bites = 7\n"), "limits.max_bites", "max_bytes"),
        (rule("[rule.limits]\nmax_bytes = 0\n"), "limits.max_bytes", "positive"),
        (rule("", format='"waveform"'), "raw.dtype", "<i2"),
        (rule("", raw="{ fs_hz = 1 }"), "raw.fs_hz", "sparkplug"),
        (rule("", format='"sparkplug"', raw='{ byteorder = "big" }'), "raw.byteorder", "byte_order"),
        (rule("", format='"sparkplug"', raw="{ fs_hz = 0 }"), "raw.fs_hz", "positive"),
        (rule("", format='"sparkplug"', raw="{ byte_order = [1] }"), "raw.byte_order", "little"),
        ('[[rule]]\ntopic = "a"\nformat = "json"\n', "site", "{key}"),
        ('[[rule]]\nformat = "json"\n', "topic", "topic and format"),
    ],
)
def test_a_wrong_rule_is_named_with_file_number_key_and_allowed_values(text, key, allowed):
    good = rule("", name='"good"')
    with pytest.raises(BadTopicRule) as caught:
        parse_rules(good + text, file="user.toml")
    message = str(caught.value)
    assert message.startswith("user.toml, rule 2 (")
    assert f"key {key!r}" in message
    assert allowed in message.partition("allowed: ")[2]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("rule = 7", "[[rule]]"),
        ("[rule]\ntopic = 'a'", "[[rule]]"),
        ("x = 1", "'x'"),
        ("[[rule", "TOML"),
        ("[content_types]\na = 'b'", "'b'"),
    ],
)
def test_a_wrong_file_is_named(text, problem):
    with pytest.raises(BadTopicRules) as caught:
        parse_rules(text, file="user.toml")
    assert str(caught.value).startswith("user.toml: ")
    assert problem in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BadTopicRules, match=r"absent\.toml"):
        load_table(tenant="t", user_file=tmp_path / "absent.toml")


@pytest.mark.parametrize(
    ("template", "values", "rendered"),
    [
        ("{a}.{b}", {"a": "x", "b": "y"}, "x.y"),
        ("{a}.{b}", {"a": "", "b": "y"}, "y"),
        ("{a}.{b}", {"a": "x"}, "x"),
        ("{a}.{b}.{c}", {"a": "x", "c": "z"}, "x.z"),
        ("{a}/{b}/{c}", {"c": "z"}, "z"),
        ("plant-{a}", {"a": "x"}, "plant-x"),
        ("{p[0]}:{p[-1]}", {"p": "a/b/c"}, "a:c"),
        ("{p[1:]}", {"p": "a/b/c"}, "b/c"),
        ("{p[:-1]}", {"p": "a/b/c"}, "a/b"),
        ("{p[1:2]}", {"p": "a/b/c"}, "b"),
        ("{p[9]}", {"p": "a/b/c"}, ""),
        ("fixed", {}, "fixed"),
        ("{a|b}", {"a": "", "b": "y"}, "y"),
        ("{a|b}-{c}", {"a": "x", "b": "y", "c": "z"}, "x-z"),
        ("{a|b[0]}", {"b": "y/z"}, "y"),
        ("{a|b}.{c}", {"c": "z"}, "z"),
    ],
)
def test_templates(template, values, rendered):
    assert Template(template).render(values) == rendered


@pytest.mark.parametrize("template", ["{", "}", "{a", "{a[]}", "{a[x]}", "{a[-]}", "{a b}", "{{a}}", "{a|}"])
def test_templates_that_are_refused(template):
    with pytest.raises(BadTemplate):
        Template(template)
