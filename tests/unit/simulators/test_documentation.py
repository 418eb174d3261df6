"""Whatever a scenario may say is in its reference page, and every picture of the gallery exists."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from simulators.api import FORMATS, LAYOUTS, SIGNAL_UNITS, scenario_names
from simulators.disturbances import DISTURBANCE_KINDS, SENSOR_FAULT_KINDS
from simulators.faults import GROWTH_LAWS, Effects, builtin_fault_kinds
from simulators.machine import MachineClass, builtin_classes
from simulators.physics import Climate
from simulators.production import CALENDARS

DOCS = Path(__file__).resolve().parents[3] / "docs"
REFERENCE = (DOCS / "reference/scenarios.md").read_text(encoding="utf-8")
HOW_TO = (DOCS / "how-to/simulate-a-plant.md").read_text(encoding="utf-8")
GALLERY = (DOCS / "explanation/fault-gallery.md").read_text(encoding="utf-8")

WORDS = {
    "scenario": scenario_names(),
    "signal": SIGNAL_UNITS,
    "class": builtin_classes(),
    "parameter": [f.name for f in fields(MachineClass) if f.name != "name"],
    "fault": builtin_fault_kinds(),
    "effect": [f.name for f in fields(Effects)],
    "sensor fault": SENSOR_FAULT_KINDS,
    "disturbance": DISTURBANCE_KINDS,
    "calendar": CALENDARS,
    "climate": [f.name for f in fields(Climate)],
}


@pytest.mark.parametrize("what", WORDS)
def test_every_word_is_explained(what):
    missing = [word for word in WORDS[what] if f"`{word}`" not in REFERENCE]
    assert missing == [], f"missing in docs/reference/scenarios.md: {what}"


def test_every_growth_law_format_and_layout_is_named():
    assert [word for word in GROWTH_LAWS if word not in REFERENCE] == []
    assert [word for word in (*FORMATS, *LAYOUTS) if f"`{word}`" not in HOW_TO] == []


def test_every_fault_and_class_has_its_picture():
    shown = set(re.findall(r"images/gallery/([\w-]+\.png)", GALLERY))
    assert shown == {p.name for p in (DOCS / "images/gallery").glob("*.png")}
    assert {f"fault-{k.replace('_', '-')}.png" for k in builtin_fault_kinds()} <= shown
    assert {f"class-{k.replace('_', '-')}.png" for k in builtin_classes()} <= shown


def test_the_example_scenario_of_the_how_to_is_right(tmp_path):
    from simulators.api import load_scenario

    (text,) = [block for block in re.findall(r"```toml\n(.*?)```", HOW_TO, re.DOTALL) if "include" in block]
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    assert load_scenario(path).title == "A pump runs dry"


def test_options_in_the_how_to_exist():
    from fettle.cli import build_parser

    known = set()
    for action in build_parser()._subparsers._group_actions[0].choices.items():
        if action[0] in {"simulate", "replay"}:
            known |= {option for a in action[1]._actions for option in a.option_strings}
    used = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", HOW_TO))
    assert used <= known
    assert {"--from-line", "--gallery"} <= known
