"""What a ticket that a program files says, in English and Chinese."""

from collections.abc import Mapping
from typing import Any

from fettle.model import FaultFamily, Severity
from fettle.words import Words
from workorders.model import ReportedFinding

FAMILIES: Mapping[FaultFamily, Words] = {
    FaultFamily.BEARING: Words("bearing damage", "轴承损伤"),
    FaultFamily.IMBALANCE: Words("imbalance, misalignment or looseness", "不平衡、不对中或松动"),
    FaultFamily.OVERHEATING: Words("overheating, cooling loss", "过热或散热不良"),
    FaultFamily.OVERLOAD: Words("overload", "过载"),
    FaultFamily.NO_LOAD: Words("loss of load, dry run", "失载或空转"),
    FaultFamily.ELECTRICAL_UNBALANCE: Words("electrical unbalance", "三相不平衡"),
    FaultFamily.SENSOR_FAULT: Words("sensor fault", "传感器故障"),
    FaultFamily.UNKNOWN_DEVIATION: Words("deviation from healthy behaviour", "偏离健康状态"),
}
CHECKS: Mapping[FaultFamily, Words] = {
    FaultFamily.BEARING: Words("take an envelope spectrum, check the grease, plan the replacement", "做包络谱分析，检查润滑脂，安排更换"),
    FaultFamily.IMBALANCE: Words("check fasteners, coupling and balance", "检查紧固件、联轴器和动平衡"),
    FaultFamily.OVERHEATING: Words("check fan, filter and coolant", "检查风扇、过滤器和冷却液"),
    FaultFamily.OVERLOAD: Words("check the process, jams and the brake", "检查工艺负荷、卡滞和制动器"),
    FaultFamily.NO_LOAD: Words("check coupling and suction side", "检查联轴器和吸入侧"),
    FaultFamily.ELECTRICAL_UNBALANCE: Words("check supply, terminals and windings", "检查电源、接线端子和绕组"),
    FaultFamily.SENSOR_FAULT: Words("check wiring, mounting and configuration", "检查接线、安装和配置"),
    FaultFamily.UNKNOWN_DEVIATION: Words("look at the largest contributions first", "先查看贡献最大的信号"),
}  # fmt: skip
SEVERITIES: Mapping[Severity, Words] = {
    Severity.LOW: Words("low", "低"),
    Severity.MEDIUM: Words("medium", "中"),
    Severity.HIGH: Words("high", "高"),
}


def describe_finding(finding: ReportedFinding, *, equipment_number: str) -> Words:
    """Return the fault description of the ticket that `finding` opens.

    Names family, severity, onset, the three largest contributions with what is expected of them, the zone of the
    vibration severity table where there is one, and what to check first.
    """
    family, check, severity = FAMILIES[finding.fault_family], CHECKS[finding.fault_family], SEVERITIES[finding.severity]
    onset = finding.onset_at.strftime("%Y-%m-%d %H:%M UTC")
    signals, zone = _signals(finding.evidence), finding.evidence.get("zone")
    en = [f"Potential fault on {equipment_number}: {family.en} (severity {severity.en}), since {onset}."]
    zh = [f"{equipment_number} 潜在故障：{family.zh}（严重程度：{severity.zh}），起始于 {onset}。"]
    if signals.en:
        en.append(f"Seen in: {signals.en}.")
        zh.append(f"表现为：{signals.zh}。")
    else:
        limit = "" if finding.threshold is None else f" / {_number(finding.threshold)}"
        en.append(f"Score {_number(finding.score)}{limit} ({finding.detector}).")
        zh.append(f"评分 {_number(finding.score)}{limit}（{finding.detector}）。")
    if zone:
        table = finding.evidence.get("zone_table") or "ISO 20816"
        en.append(f"Vibration severity zone {zone} ({table}).")
        zh.append(f"振动烈度区域 {zone}（{table}）。")
    en.append(f"Suggested check: {check.en}.")
    zh.append(f"建议检查：{check.zh}。")
    return Words(" ".join(en), "".join(zh))


def describe_clearing(finding: ReportedFinding) -> Words:
    """Return the note that proposes to close a ticket whose finding has cleared."""
    at = finding.at.strftime("%Y-%m-%d %H:%M UTC")
    family = FAMILIES[finding.fault_family]
    return Words(
        f"The finding ({family.en}) cleared at {at}. If the machine is well, this ticket can be closed.",
        f"该异常（{family.zh}）已于 {at} 恢复。如设备状态正常，可关闭本工单。",
    )


def _number(value: float) -> str:
    return f"{value:.3g}"


def _signals(evidence: Mapping[str, Any]) -> Words:
    """Name the three largest entries of `evidence["contributions"]` with what was measured and expected."""
    contributions = evidence.get("contributions")
    signs = [sign for sign in contributions if isinstance(sign, Mapping)] if isinstance(contributions, list) else []
    en, zh = [], []
    for sign in signs[:3]:
        name, unit = str(sign.get("sensor", "")), str(sign.get("unit") or "")
        measured, expected = sign.get("measured"), sign.get("expected")
        if not isinstance(measured, int | float):
            en.append(name)
            zh.append(name)
        elif isinstance(expected, int | float):
            en.append(f"{name} {_number(measured)} {unit} (expected {_number(expected)})")
            zh.append(f"{name} {_number(measured)} {unit}（预期 {_number(expected)}）")
        else:
            en.append(f"{name} {_number(measured)} {unit}".rstrip())
            zh.append(f"{name} {_number(measured)} {unit}".rstrip())
    return Words(", ".join(en), "，".join(zh))
