"""What tickets filed by programs say."""

from datetime import UTC, datetime

import pytest

from fettle.model import FaultFamily, FindingKind, MachineId, Severity
from workorders.model import ReportedFinding
from workorders.potential import default_requirements
from workorders.wording import CHECKS, FAMILIES, SEVERITIES, describe_clearing, describe_finding

AT = datetime(2026, 6, 3, 12, 0, tzinfo=UTC)


def finding(**change):
    values = {
        "key": "k", "revision": 1, "machine_id": MachineId(1), "fault_family": FaultFamily.BEARING,
        "kind": FindingKind.MACHINE, "severity": Severity.HIGH, "onset_at": AT, "at": AT, "detector": "residual",
        "score": 4.25, "threshold": 3.0,
    }  # fmt: skip
    return ReportedFinding(**{**values, **change})


def test_evidence_is_told_in_both_languages():
    sign = {"sensor": "spindle_vibration", "measured": 7.412, "expected": 2.1, "unit": "mm/s"}
    words = describe_finding(
        finding(evidence={"contributions": [sign], "zone": "C", "zone_table": "ISO 20816-3 group 2"}),
        equipment_number="P-101",
    )
    assert words.en == (
        "Potential fault on P-101: bearing damage (severity high), since 2026-06-03 12:00 UTC. Seen in: spindle_vibration 7.41 mm/s "
        "(expected 2.1). Vibration severity zone C (ISO 20816-3 group 2). Suggested check: take an envelope spectrum, check the grease, "
        "plan the replacement."
    )
    assert words.zh == (
        "P-101 潜在故障：轴承损伤（严重程度：高），起始于 2026-06-03 12:00 UTC。表现为：spindle_vibration 7.41 mm/s（预期 2.1）。"
        "振动烈度区域 C（ISO 20816-3 group 2）。建议检查：做包络谱分析，检查润滑脂，安排更换。"
    )


@pytest.mark.parametrize(
    "evidence", [{}, {"contributions": None}, {"contributions": {"a": 1}}, {"contributions": ["x"]}]
)
def test_without_contributions_the_score_speaks(evidence):
    assert "Score 4.25 / 3 (residual)." in describe_finding(finding(evidence=evidence), equipment_number="P").en


@pytest.mark.parametrize(
    ("sign", "told"),
    [
        ({"sensor": "a", "measured": None}, "Seen in: a."),
        ({"sensor": "a", "measured": 3.0, "expected": None, "unit": None}, "Seen in: a 3."),
    ],
)
def test_signs_may_lack_numbers(sign, told):
    assert told in describe_finding(finding(evidence={"contributions": [sign]}), equipment_number="P").en


@pytest.mark.parametrize("family", list(FaultFamily))
def test_every_family_has_words_a_check_and_a_row_of_requirements(family):
    assert FAMILIES[family].zh
    assert CHECKS[family].en
    assert all(isinstance(level, int) and level >= 1 for level in default_requirements()[family].values())
    assert FAMILIES[family].zh in describe_clearing(finding(fault_family=family)).zh


def test_every_severity_has_words():
    assert set(SEVERITIES) == set(Severity)
