"""Reading fault reports: one entry for each field that is missing or wrong."""

import re
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fettle.model import Priority, TicketType
from fettle.words import InvalidFields
from workorders.intake import REQUIRED, read_report

GOOD = {
    "equipment_number": "P-101",
    "fault_description": "Oil under the ram",
    "contact_phone": "+86 138 0013 8000",
    "region": "East",
}


def problems(given):
    with pytest.raises(InvalidFields) as refused:
        read_report(given)
    return refused.value.fields


@pytest.mark.parametrize("absent", [*[(name,) for name in REQUIRED], REQUIRED, REQUIRED[1:3]])
@pytest.mark.parametrize("empty", [None, "", "   ", "\u3000", "\x00"])
def test_each_missing_field_is_named_once(absent, empty):
    found = problems({**GOOD, **dict.fromkeys(absent, empty)})
    assert [(p.field, p.code) for p in found] == [(name, "missing") for name in absent]
    for problem in found:
        assert re.search(r"[\u4e00-\u9fff]", problem.words.zh)
        assert problem.words.en.endswith(".")


def test_an_unknown_field_is_told_together_with_what_is_missing():
    found = problems({"contact_phone": "12345", "region": "East", "equipmentNumber": "P-101", "fault_description": "?"})
    assert [(p.field, p.code) for p in found] == [
        ("equipment_number", "missing"),
        ("equipmentNumber", "extra-forbidden"),
    ]


def test_nothing_at_all_names_all_four():
    assert [p.field for p in problems({})] == list(REQUIRED)


@pytest.mark.parametrize(
    ("change", "field", "code"),
    [
        ({"contact_phone": "1234"}, "contact_phone", "bad-phone"),
        ({"contact_phone": "call me"}, "contact_phone", "bad-phone"),
        ({"contact_phone": "1" * 21}, "contact_phone", "bad-phone"),
        ({"contact_phone": 13800138000}, "contact_phone", "not-text"),
        ({"region": ["East"]}, "region", "not-text"),
        ({"equipment_number": "x" * 129}, "equipment_number", "too-long"),
        ({"fault_description": "x" * 4001}, "fault_description", "too-long"),
        ({"type": "potential_fault"}, "type", "bad-choice"),
        ({"type": "party"}, "type", "bad-choice"),
        ({"priority": "emergency"}, "priority", "bad-choice"),
        ({"priority": 3}, "priority", "bad-choice"),
        ({"channel": "detector"}, "channel", "bad-choice"),
    ],
)
def test_each_wrong_field_is_named_with_its_code(change, field, code):
    assert [(p.field, p.code) for p in problems({**GOOD, **change})] == [(field, code)]


def test_full_width_input_is_made_narrow_but_the_description_stays_as_written():
    report = read_report(
        {
            **GOOD,
            "equipment_number": " Ｐ－１０１ ",
            "contact_phone": "０２１５５５０１０１",
            "fault_description": "温度：９０℃！",
        }
    )
    assert report.equipment_number == "P-101"
    assert report.contact_phone == "0215550101"
    assert report.fault_description == "温度：９０℃！"


def test_an_emergency_stop_is_an_emergency_whatever_the_priority_says():
    report = read_report({**GOOD, "type": "emergency_stop", "priority": "low"})
    assert (report.type, report.priority) == (TicketType.EMERGENCY_STOP, Priority.EMERGENCY)


@given(
    st.dictionaries(
        st.sampled_from([*REQUIRED, "type", "priority", "channel"]),
        st.none() | st.text() | st.integers() | st.lists(st.text()),
    )
)
def test_any_input_gives_a_report_or_names_fields(given_values):
    with suppress(InvalidFields):
        report = read_report(given_values)
        assert all(getattr(report, name).strip() for name in REQUIRED)
        return
    assert problems(given_values)
