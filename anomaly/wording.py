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
    "drift": Words("drifting whatever the load", "漂移，与负载无关"),
    "limit": Words("over its limit", "超过限值"),
    "change": Words("too far from its baseline, or its zone calls for action", "偏离基线过多，或所处区域需处置"),
    "rate": Words("changes faster than it may", "变化速率超限"),
    "skew": Words("its device's clock is wrong", "设备时钟有误"),
    "offset": Words("shifted at once", "读数突然偏移"),
    "spike": Words("spikes that no machine makes", "出现非设备产生的尖峰"),
    "unit": Words("as if in another unit", "疑似单位错误"),
    "noise": Words("noisier or quieter than it was", "噪声异常"),
    "stuck": Words("stuck at one value", "读数停滞"),
    "invalid": Words("not a believable value", "读数不可信"),
    "silent": Words("silent", "无数据"),
    "shape": Words("the signal's shape changed", "信号形态改变"),
}
OTHER_UNIT = frozenset({"rate", "skew"})
"""Features whose numbers are not in the unit of their sensor: they are not drawn on its trace."""

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
HELD: Mapping[str, Words] = {
    "": Words("told", "已通知"),
    "inhibited": Words(
        "held back: a person keeps this machine from making tickets", "已抑制：有人设置了该设备暂不生成工单"
    ),
    "watch": Words("watched only: this rule was wrong too often to make tickets", "仅观察：该规则误报过多，不生成工单"),
}
ZONES: Mapping[str, Words] = {
    "A": Words("as new", "新机水平"),
    "B": Words("fit for long-term running", "可长期运行"),
    "C": Words("not for long-term running", "不宜长期运行"),
    "D": Words("severe enough to cause damage", "可能造成损坏"),
}


RACES: Mapping[str, Words] = {
    "outer race": Words("outer race", "外圈"),
    "inner race": Words("inner race", "内圈"),
    "rolling element": Words("rolling element", "滚动体"),
    "cage": Words("cage", "保持架"),
}
OPINIONS: Mapping[str, Words] = {
    "isolation_forest": Words("isolation forest", "孤立森林"),
    "pca": Words("principal components", "主成分分析"),
    "gradient_boosting": Words("gradient boosting", "梯度提升"),
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


def health(value: float | None, language: Language) -> str:
    """Say a health index, and what its ends mean."""
    if value is None:
        return Words("not learned yet", "尚未学习").say(language, {})
    if language == "zh":
        return f"{value:.0%}（100 % 为正常，0 为报警水平）"
    return f"{value:.0%} (100 % is well, 0 is the alarm level)"


def time_to_limit(estimate: Any, language: Language) -> str:
    """Say the time left until a limit as an interval with what it is the limit of; empty where there is no estimate."""
    if not isinstance(estimate, Mapping):
        return ""
    low, high = (estimate.get(name) for name in ("low_us", "high_us"))
    if low is None:
        low, high = (None if estimate.get(n) is None else float(estimate[n]) * 3.6e9 for n in ("low_h", "high_h"))
    if low is None:
        return ""
    if high is None:
        text = f"more than {duration(low, language)}" if language == "en" else f"超过 {duration(low, language)}"
    else:
        text = f"{duration(low, language)} – {duration(high, language)}"
    if estimate.get("confidence"):
        text += f" ({estimate['confidence']:.0%})" if language == "en" else f"（{estimate['confidence']:.0%} 区间）"
    if estimate.get("limit") is not None:
        limit = f"{number(float(estimate['limit']))} {estimate.get('unit') or ''}".rstrip()
        sensor = str(estimate.get("sensor") or "")
        text += f" until {sensor} reaches {limit}" if language == "en" else f"，{sensor} 将达到 {limit}"
    return text


def precision(measured_precision: Any, language: Language) -> str:
    """Say how often findings of this rule were confirmed by people."""
    if not isinstance(measured_precision, Mapping) or measured_precision.get("value") is None:
        return Words("no decided tickets of this rule yet", "此规则尚无已判定的工单").say(language, {})
    value, n = float(measured_precision["value"]), int(measured_precision.get("n") or 0)
    low, high = (measured_precision.get(name) for name in ("low", "high"))
    span = "" if low is None or high is None else f"{float(low):.0%} – {float(high):.0%}"
    if language == "zh":
        return f"{value:.0%} 经确认（95 % 区间 {span}，{n} 个已判定工单）" if span else f"{value:.0%}（{n} 个）"
    return f"{value:.0%} confirmed (95 %: {span}, of {n} decided tickets)" if span else f"{value:.0%} (of {n})"


def waveform(found: Any, language: Language) -> str:
    """Say what the newest waveform shows: the race its impacts name, or that they name none."""
    if not isinstance(found, Mapping):
        return ""
    is_zh = language == "zh"
    lines = found.get("lines") or []
    if found.get("race"):
        race = say(RACES, found["race"], language)
        top = next((line for line in lines if line.get("race") == found["race"]), lines[0] if lines else {})
        where = f"{number(float(top['hz']))} Hz, {number(float(top['strength']))} ×" if top else ""
        text = f"{race}（包络谱线 {where} 本底）" if is_zh else f"{race}: envelope line at {where} the floor"
    elif found.get("has_risen"):
        text = (
            "轴承，部位不明：高频能量或峭度上升" if is_zh else "bearing, unspecified: high frequencies or kurtosis rose"
        )
    else:
        text = "未见轴承特征" if is_zh else "no sign of a bearing"
    if found.get("geometry_source"):
        source = str(found["geometry_source"])
        text += f"；轴承：{source}" if is_zh else f"; bearing: {source}"
    return text


def opinions(found: Any, language: Language) -> str:
    """Say how many second opinions agree with a finding, and how far out each sees it; empty where none was asked for.

    >>> opinions([{"model": "pca", "agrees": True, "percentile": 100.0}], "en")
    '1 of 1 agrees: principal components 100.0 (percentile of healthy readings; it agrees from 99 on)'
    """
    asked = [one for one in found or [] if isinstance(one, Mapping)]
    if not asked:
        return ""
    count = sum(bool(one.get("agrees")) for one in asked)
    each = [
        f"{say(OPINIONS, one.get('model', ''), language)} {float(one.get('percentile') or 0.0):.1f}" for one in asked
    ]
    if language == "zh":
        return f"{len(asked)} 个模型中 {count} 个一致：{'，'.join(each)}（健康读数的百分位，99 以上为一致）"
    verb = "agrees" if count == 1 else "agree"
    return f"{count} of {len(asked)} {verb}: {', '.join(each)} (percentile of healthy readings; it agrees from 99 on)"


def incident(note: Any, language: Language) -> str:
    """Say which incident a finding heads or belongs to; empty where it stands alone."""
    if not isinstance(note, Mapping):
        return ""
    is_zh, place = language == "zh", str(note.get("place") or "")
    if note.get("role") == "member":
        head = str(note.get("headline_machine") or note.get("headline") or "")
        if not head:  # another customer's machine was
            return f"属于 {place} 的同一事件" if is_zh else f"one of many at {place}"
        return f"属于 {place} 的同一事件，首出设备 {head}" if is_zh else f"one of many at {place}; {head} was first"
    count, machines = note.get("findings"), note.get("machine_count")
    if is_zh:
        return f"{place} 的 {count} 项发现（{machines} 台设备）合并为一个事件"
    return f"{count} findings on {machines} machines of {place}, as one incident"


def beside(evidence: Mapping[str, Any], language: Language) -> list[tuple[str, str]]:
    """Return (name, text) of all that stands beside the contributions: health, outlook, precision, waveform, opinions."""
    none = Words("no estimate", "无估计").say(language, {})
    rows = [
        (Words("health index", "健康指数"), health(evidence.get("health"), language)),
        (Words("time to limit", "距限值时间"), time_to_limit(evidence.get("time_to_limit"), language) or none),
        (Words("measured precision", "实测精度"), precision(evidence.get("precision"), language)),
        (Words("waveform", "波形"), waveform(evidence.get("waveform"), language)),
        (Words("second opinion", "第二意见"), opinions(evidence.get("second_opinions"), language)),
        (Words("incident", "事件"), incident(evidence.get("incident"), language)),
    ]  # fmt: skip
    similar = evidence.get("similar") or []
    if similar:
        names = ", ".join(
            str(s.get("ticket") or s.get("key") or "") if isinstance(s, Mapping) else str(s) for s in similar
        )
        rows.append((Words("similar before", "类似历史工单"), names))
    return [(name.say(language, {}), text) for name, text in rows if text]
