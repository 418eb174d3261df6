"""Findings in words, English and Chinese: families, rules, modes, checks, and what the numbers beside them mean."""

import math
from collections.abc import Mapping
from typing import Any

from fettle.model import FaultFamily, FindingKind, Severity
from fettle.words import Language, Words

FAMILIES: Mapping[str, Words] = {
    FaultFamily.BEARING: Words("bearing damage", "轴承损伤"),
    FaultFamily.IMBALANCE: Words("imbalance, misalignment or looseness", "不平衡、不对中或松动"),
    FaultFamily.OVERHEATING: Words("overheating, cooling loss", "过热或散热不良"),
    FaultFamily.OVERLOAD: Words("overload", "过载"),
    FaultFamily.NO_LOAD: Words("loss of load, dry run", "失载或空转"),
    FaultFamily.ELECTRICAL_UNBALANCE: Words("electrical unbalance", "三相不平衡"),
    FaultFamily.SENSOR_FAULT: Words("sensor fault", "传感器故障"),
    FaultFamily.UNKNOWN_DEVIATION: Words("deviation from healthy behaviour", "偏离健康状态"),
}
SEVERITIES: Mapping[str, Words] = {
    Severity.LOW: Words("low", "低"),
    Severity.MEDIUM: Words("medium", "中"),
    Severity.HIGH: Words("high", "高"),
}
KINDS: Mapping[str, Words] = {
    FindingKind.MACHINE: Words("machine", "设备"),
    FindingKind.SENSOR: Words("sensor", "传感器"),
}
FEATURES: Mapping[str, Words] = {
    "residual": Words("away from what its load explains", "偏离负载所能解释的水平"),
    "siblings": Words("away from its sibling sensors", "偏离同组传感器"),
    "excess": Words("out of its usual range for too long", "长时间超出常态范围"),
    "limit": Words("over its limit", "超过限值"),
    "offset": Words("shifted at once", "读数突然偏移"),
    "spike": Words("spikes that no machine makes", "出现非设备产生的尖峰"),
    "unit": Words("as if in another unit", "疑似单位错误"),
    "noise": Words("noisier or quieter than it was", "噪声异常"),
    "stuck": Words("stuck at one value", "读数停滞"),
    "invalid": Words("not a believable value", "读数不可信"),
    "silent": Words("silent", "无数据"),
}
MODES: Mapping[str, Words] = {
    "unknown": Words("unknown", "未知"),
    "off": Words("standing still", "停机"),
    "switching": Words("starting or stopping", "启停过程中"),
    "running": Words("running", "运行"),
}
TIERS: Mapping[str, Words] = {
    "0": Words("limits only, nothing learned yet", "仅限值，尚未学习"),
    "1": Words("provisional model, still learning", "临时模型，仍在学习"),
    "2": Words("the machine's own model", "设备自身模型"),
}
BLOCKS: Mapping[str, Words] = {
    "DM": Words("data manipulation", "数据处理"),
    "SD": Words("state detection", "状态检测"),
    "HA": Words("health assessment", "健康评估"),
    "PA": Words("prognostic assessment", "预测评估"),
}
CHECKS: Mapping[str, Words] = {
    "envelope_spectrum": Words("take an envelope spectrum of the bearing", "对轴承做包络谱分析"),
    "grease": Words("check the grease", "检查润滑脂"),
    "replace_bearing": Words("plan to replace the bearing", "计划更换轴承"),
    "fasteners": Words("check fasteners and foundation", "检查紧固件与地脚"),
    "coupling": Words("check the coupling", "检查联轴器"),
    "balance": Words("balance the rotor", "转子做动平衡"),
    "fan": Words("check the cooling fan", "检查冷却风扇"),
    "filter": Words("clean the filter", "清洁滤网"),
    "coolant": Words("check the coolant", "检查冷却液"),
    "temperature_sensor": Words("check the temperature sensor itself", "检查温度传感器本身"),
    "process": Words("check the process load", "检查工艺负载"),
    "jam": Words("look for a jam", "检查是否卡滞"),
    "brake": Words("check the brake", "检查制动器"),
    "suction": Words("check the suction side", "检查吸入侧"),
    "supply": Words("measure the supply voltages", "测量供电电压"),
    "terminals": Words("tighten the terminals", "紧固接线端子"),
    "windings": Words("measure the windings", "测量绕组"),
    "wiring": Words("check the sensor's wiring", "检查传感器接线"),
    "mounting": Words("check the sensor's mounting", "检查传感器安装"),
    "configuration": Words("check the sensor's configuration", "检查传感器配置"),
    "top_contributions": Words("start with the sensors listed first", "从排在最前的传感器查起"),
}
ZONES: Mapping[str, Words] = {
    "A": Words("as new", "新机水平"),
    "B": Words("fit for long-term running", "可长期运行"),
    "C": Words("not for long-term running", "不宜长期运行"),
    "D": Words("severe enough to cause damage", "可能造成损坏"),
}


def say(table: Mapping[str, Words], key: object, language: Language) -> str:
    """Return the words of a key; a key that has none is shown as it is."""
    words = table.get(str(key))
    return words.say(language, {}) if words else str(key).replace("_", " ")


def number(value: float) -> str:
    """Write a measured value with two to four significant digits and no exponent.

    >>> [number(v) for v in (0.00123, 0.05, 7.25, 63.21, 1480.4)]
    ['0.0012', '0.050', '7.25', '63.2', '1480']
    """
    size = abs(value)
    places = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 0.1 or value == 0 else 3 if size >= 0.01 else 4
    return f"{value:.{places}f}"


def duration(us: float, language: Language) -> str:
    """Write a duration in its two largest units.

    >>> duration(93_600_000_000, "en"), duration(float("inf"), "zh")
    ('1 d 2 h', '未发现')
    """
    if math.isinf(us):
        return ("missed", "未发现")[language == "zh"] if us > 0 else "–"
    if math.isnan(us):
        return "–"
    minutes, sign = round(abs(us) / 60e6), "−" if us < 0 else ""
    if minutes == 0:
        return sign + f"{abs(us) / 1e6:.0f} " + ("s", "秒")[language == "zh"]
    days, rest = divmod(minutes, 1440)
    hours, minutes = divmod(rest, 60)
    units = [(days, "d", "天"), (hours, "h", "小时"), (minutes, "min", "分钟")]
    while units[0][0] == 0:
        units = units[1:]
    return sign + " ".join(f"{n} {zh if language == 'zh' else en}" for n, en, zh in units[:2] if n)


def measured(entry: Mapping[str, Any], language: Language) -> str:
    """Return what was measured, beside what was expected or allowed."""
    unit = f" {entry.get('unit') or ''}".rstrip()
    value = entry.get("measured")
    if value is None:
        return ""
    text = f"{number(value)}{unit}"
    low, high, expected, limit = (entry.get(name) for name in ("low", "high", "expected", "limit"))
    if expected is not None:
        band = f" ({number(low)}–{number(high)})" if low is not None and high is not None else ""
        text += f", expected {number(expected)}{band}" if language == "en" else f"，预期 {number(expected)}{band}"
    if limit is not None:
        text += f", limit {number(limit)}{unit}" if language == "en" else f"，限值 {number(limit)}{unit}"
    return text


def p_value(value: float | None, language: Language) -> str:
    """Say what a p-value means: it is no probability of a fault."""
    if value is None or value <= 0:
        return Words("not calibrated yet", "尚未校准").say(language, {})
    odds = f"{round(1 / value):,}"
    if language == "zh":
        return f"{value:.2g}：健康设备在一个时段内出现同等偏差的机会约为 1/{odds}；这不是故障概率"
    return (
        f"{value:.2g}: a healthy machine scores as high in about one block of time in {odds}; no probability of a fault"
    )
