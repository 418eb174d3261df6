"""Evidence in words and rows: what a detector saw, as an engineer reads it, in English or Chinese.

Takes the evidence JSON of a ticket (`docs/explanation/detection.md` names its keys) and computes nothing new. A key that
is absent is left out of the page, never guessed. What rules, checks and zones are called is detection's own wording.
"""

from collections.abc import Mapping
from typing import Any

from anomaly.api import wording
from dashboards import words
from fettle.words import Language, Words

_LEAST_SHARE = 0.01
_UP = Words("above", "高于")
_DOWN = Words("below", "低于")


def body_of(evidence: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the evidence proper, whether it was stored alone or within its finding."""
    inner = evidence.get("evidence")
    return inner if isinstance(inner, Mapping) else evidence


number = wording.number


def _has(entry: Mapping[str, Any], *names: str) -> bool:
    return all(isinstance(entry.get(name), int | float) for name in names)


def _said(table: Mapping[str, Words], value: object, language: Language) -> str:
    return wording.say(table, value, language)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def place(kind: str, name: str) -> str:
    """Return what a sensor's name says beyond its quantity: where it sits.

    >>> place("vibration_velocity", "vibration_de"), place("temperature", "temperature"), place("current", "motor_l1")
    ('DE', '', 'motor l1')
    """
    rest = name.replace("-", "_")
    for known in (kind, kind.partition("_")[0], "temp"):
        if rest.lower() == known:
            return ""
        if rest.lower().startswith(f"{known}_"):
            rest = rest[len(known) + 1 :]
    rest = rest.replace("_", " ")
    return rest.upper() if len(rest) <= 3 else rest


def quantity(entry: Mapping[str, Any], language: Language) -> str:
    """Return the physical quantity of a contribution, and where its sensor sits."""
    kind = str(entry.get("kind") or "other")
    said, where = _said(words.KIND, kind, language), place(kind, str(entry.get("sensor") or ""))
    if not where:
        return said
    return f"{said} {where}" if language == "en" else f"{said}（{where}）"


def _band(entry: Mapping[str, Any]) -> str:
    joiner = "\u2060"  # keeps both ends on one line
    return f"{number(entry['low'])}{joiner}–{joiner}{number(entry['high'])}" if _has(entry, "low", "high") else ""


def headline(evidence: Mapping[str, Any], language: Language) -> str:
    """Return one line: the quantity that went first, its value and what was expected; empty where nothing is known."""
    body = body_of(evidence)
    rows = body.get("contributions") or []
    first = rows[0] if rows else body.get("first_out")
    if not isinstance(first, Mapping):
        return ""
    what, unit = quantity(first, language), f" {first.get('unit') or ''}".rstrip()
    if not _has(first, "measured"):
        feature = _said(wording.FEATURES, first.get("feature", ""), language)
        return f"{what}: {feature}" if language == "en" else f"{what}：{feature}"
    text = f"{what} {number(first['measured'])}{unit}"
    if _has(first, "expected"):
        expected = number(first["expected"])
        text += f", expected {expected}" if language == "en" else f"，预期 {expected}"
        if _has(first, "low", "high"):
            text += f" ({_band(first)})" if language == "en" else f"（{_band(first)}）"
    elif _has(first, "limit"):
        limit = f"{number(first['limit'])}{unit}"
        text += f", limit {limit}" if language == "en" else f"，限值 {limit}"
    elif first.get("feature"):
        feature = _said(wording.FEATURES, first["feature"], language)
        text += f": {feature}" if language == "en" else f"：{feature}"
    return text


def rows(evidence: Mapping[str, Any], language: Language) -> list[dict[str, Any]]:
    """Return the contributions in their stored order, each with what was measured and expected in words.

    The first is always there; others that add less than a hundredth of the score say nothing and are left out.
    """
    found = [entry for entry in body_of(evidence).get("contributions") or [] if isinstance(entry, Mapping)]
    total = sum(max(float(entry.get("contribution") or 0.0), 0.0) for entry in found)
    result = []
    for entry in found:
        unit = str(entry.get("unit") or "")
        deviation = ""
        if _has(entry, "measured", "expected"):
            delta = entry["measured"] - entry["expected"]
            side = _UP if delta >= 0 else _DOWN
            deviation = f"{side.say(language, {})} {number(abs(delta))} {unit}".strip()
            if language == "zh":
                deviation = f"{side.zh}预期 {number(abs(delta))} {unit}".strip()
        result.append(
            {
                "sensor_id": entry.get("sensor_id"),
                "what": quantity(entry, language),
                "kind": entry.get("kind", "other"),
                "unit": unit,
                "measured": _cell(entry, "measured"),
                "expected": _cell(entry, "expected"),
                "band": _band(entry),
                "limit": _cell(entry, "limit"),
                "deviation": deviation,
                "why": _said(wording.FEATURES, entry.get("feature", ""), language),
                "source": str(entry.get("source") or ""),
                "share": round(max(float(entry.get("contribution") or 0.0), 0.0) / total, 4) if total else 0.0,
                "onset_ms": entry["onset_us"] // 1000 if isinstance(entry.get("onset_us"), int) else None,
            }
        )
    return [row for place_, row in enumerate(result) if place_ == 0 or row["share"] >= _LEAST_SHARE]


def _cell(entry: Mapping[str, Any], name: str) -> str:
    return number(entry[name]) if _has(entry, name) else ""


def zone(evidence: Mapping[str, Any], language: Language) -> dict[str, str] | None:
    """Return the vibration severity zone with the table it was read from, or None where no vibration velocity exists."""
    body = body_of(evidence)
    letter = str(body.get("zone") or "")
    if letter not in wording.ZONES:
        return None
    said = _said(wording.ZONES, letter, language)
    return {
        "letter": letter,
        "words": f"Zone {letter}: {said}" if language == "en" else f"{letter} 区：{said}",
        "table": str(body.get("zone_table") or ""),
        "source": str(body.get("zone_source") or ""),
    }


def checks(evidence: Mapping[str, Any], language: Language) -> list[str]:
    """Return what the engineer should look at first."""
    return [_sentence(_said(wording.CHECKS, check, language)) for check in body_of(evidence).get("checks") or []]


def beside(evidence: Mapping[str, Any], language: Language) -> list[dict[str, str]]:
    """Return what stands beside the contributions, name and text: health, time to limit, precision, waveform, opinions."""
    body = body_of(evidence)
    if "health" not in body:  # evidence from before these were told
        return []
    return [{"name": _sentence(name), "text": _sentence(text)} for name, text in wording.beside(body, language)]


def window_ms(evidence: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the half-open interval the evidence is about, in milliseconds, or None."""
    window = body_of(evidence).get("window_us")
    if not isinstance(window, list) or len(window) != 2:
        return None
    return int(window[0]) // 1000, int(window[1]) // 1000


def limits(evidence: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the limits and expected ranges that the evidence names, to be drawn on the traces."""
    drawn = []
    for entry in body_of(evidence).get("contributions") or []:
        if not isinstance(entry, Mapping) or entry.get("feature") in wording.OTHER_UNIT:
            continue
        line = {name: entry[name] for name in ("limit", "low", "high", "expected") if _has(entry, name)}
        if line:
            drawn.append({"sensor_id": entry.get("sensor_id"), "source": str(entry.get("source") or ""), **line})
    return drawn


def confidence(finding: Mapping[str, Any], language: Language) -> str:
    """Say what the p-value means, since it is no probability of a fault."""
    p_value = finding.get("p_value")
    if not isinstance(p_value, int | float) or p_value <= 0:
        return ""
    odds = round(1 / p_value)
    if language == "zh":
        return f"健康设备出现同等偏差的机会约为 1/{odds:,}"
    return f"A healthy machine deviates this much about once in {odds:,}"
