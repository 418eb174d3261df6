"""Every text exists in both languages, and every text a page asks for exists."""

import re
from pathlib import Path

import pytest

import dashboards
from dashboards import words
from fettle.model import FaultFamily, Severity, SignalKind, TicketState, TicketType
from workorders.model import Channel, DispatchHold, Resolution

STATIC = Path(dashboards.__file__).parent / "static"


def test_both_languages_have_the_same_keys_and_no_empty_text():
    english, chinese = words.table("en"), words.table("zh")
    assert english.keys() == chinese.keys()
    assert all(english.values())
    assert all(chinese.values())


def test_placeholders_agree():
    english, chinese = words.table("en"), words.table("zh")
    for key, text in english.items():
        assert set(re.findall(r"\{\w+\}", text)) == set(re.findall(r"\{\w+\}", chinese[key])), key


@pytest.mark.parametrize(
    ("group", "values"),
    [
        ("state", TicketState),
        ("type", TicketType),
        ("family", FaultFamily),
        ("kind", SignalKind),
        ("severity", Severity),
        ("channel", Channel),
        ("resolution", Resolution),
        ("hold", [h for h in DispatchHold if h]),
    ],
)
def test_every_value_of_the_model_has_words(group, values):
    table = words.table("en")
    assert [value for value in values if f"{group}.{value}" not in table] == []


def test_every_key_the_pages_use_exists():
    table = words.table("en")
    used = set()
    for file in STATIC.iterdir():
        text = file.read_text(encoding="utf-8")
        used |= set(re.findall(r'say\("([a-z_.]+)"', text))
        used |= set(re.findall(r'data-(?:words|label|placeholder)="([a-z_.]+)"', text))
    assert len(used) > 40
    assert used - table.keys() == set()


def test_every_group_the_pages_build_keys_from_exists():
    groups = set()
    for file in STATIC.glob("*.js"):
        groups |= set(re.findall(r"say\(`([a-z]+)\.\$\{", file.read_text(encoding="utf-8")))
    known = {key.partition(".")[0] for key in words.table("en")}
    assert groups - known == set()
    assert len(groups) > 8


def test_the_chinese_is_chinese():
    same = {key for key, text in words.table("zh").items() if not re.search(r"[\u4e00-\u9fff]", text)}
    assert same == {"other_language"}
