"""Read a fault report: which fields it must have, and what to tell people about the ones that are wrong."""

import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from fettle.model import Priority, TicketType
from fettle.words import FieldProblem, InvalidFields, Words
from workorders.model import Channel, Report

REQUIRED = ("equipment_number", "fault_description", "contact_phone", "region")

_MISSING = {
    "equipment_number": Words(
        "The equipment number is missing. It is on the machine's name plate or its QR code.",
        "缺少设备编号。请查看设备铭牌或二维码。",
    ),
    "fault_description": Words(
        "The fault description is missing. Say what the machine does, or no longer does, and since when.",
        "缺少故障现象描述。请说明设备出现了什么现象、从何时开始。",
    ),
    "contact_phone": Words(
        "The contact phone is missing. Give a number at which somebody can be reached at the machine.",
        "缺少联系电话。请填写现场可以接通的电话号码。",
    ),
    "region": Words(
        "The region is missing. Give the service region in which the machine stands.",
        "缺少所属区域。请填写设备所在的服务区域。",
    ),
}  # fmt: skip
_KNOWN = {*REQUIRED, "type", "priority", "channel", "occurred_at", "work_center", "operation", "answers"}
_UNKNOWN = Words(
    "{field} is not known here. Leave it out, or check its spelling.", "不认识 {field}，请删除或检查拼写。"
)
_NOT_TEXT = Words("{field} must be text.", "{field} 必须是文本。")
_TOO_LONG = {
    "equipment_number": (128, Words("The equipment number is longer than 128 characters.", "设备编号超过 128 个字符。")),
    "fault_description": (4000, Words("The fault description is longer than 4000 characters. Shorten it.", "故障现象描述超过 4000 个字符，请缩短。")),
    "contact_phone": (40, Words("The contact phone is longer than 40 characters.", "联系电话超过 40 个字符。")),
    "region": (128, Words("The region is longer than 128 characters.", "所属区域超过 128 个字符。")),
}  # fmt: skip
_BAD_PHONE = Words(
    "The contact phone must have 5 to 20 digits, for example +86 138 0013 8000.",
    "联系电话应有 5 到 20 位数字，例如 +86 138 0013 8000。",
)
_BAD_TYPE = Words(
    "The type must be one of: repair, maintenance, emergency_stop, part_request, inspection.",
    "工单类型必须是以下之一：repair（设备报修）、maintenance（定期保养）、emergency_stop（紧急停机）、part_request（配件申领）、inspection（巡检）。",
)
_BAD_PRIORITY = Words("The priority must be one of: low, normal, high.", "优先级必须是以下之一：low、normal、high。")
_BAD_CHANNEL = Words(
    "The channel must be one of: api, board, phone, mail, chat.", "渠道必须是以下之一：api、board、phone、mail、chat。"
)
_Choice = TypeVar("_Choice", TicketType, Priority, Channel)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def read_report(given: Mapping[str, Any]) -> Report:
    """Check a report and bring its fields into shape: blanks trimmed, full-width digits made narrow.

    Raises:
        InvalidFields: with one entry for each field that is missing or wrong.
    """
    problems: list[FieldProblem] = []
    texts = {name: _read_text(given, name, problems) for name in REQUIRED}
    if texts["contact_phone"] and not 5 <= sum(c.isdigit() for c in texts["contact_phone"]) <= 20:
        problems.append(FieldProblem("contact_phone", "bad-phone", _BAD_PHONE))
    kind = _read_choice(given, "type", TicketType, TicketType.REPAIR, _BAD_TYPE, problems)
    if kind is TicketType.POTENTIAL_FAULT:
        problems.append(FieldProblem("type", "bad-choice", _BAD_TYPE))
    priority = _read_choice(given, "priority", Priority, Priority.NORMAL, _BAD_PRIORITY, problems)
    if priority is Priority.EMERGENCY and kind is not TicketType.EMERGENCY_STOP:
        problems.append(FieldProblem("priority", "bad-choice", _BAD_PRIORITY))
    channel = _read_choice(given, "channel", Channel, Channel.API, _BAD_CHANNEL, problems)
    if channel is Channel.DETECTOR:
        problems.append(FieldProblem("channel", "bad-choice", _BAD_CHANNEL))
    problems += [FieldProblem(name, "extra-forbidden", _UNKNOWN) for name in sorted(given.keys() - _KNOWN)]
    if problems:
        raise InvalidFields(problems)
    return Report(
        **texts,
        type=kind,
        priority=Priority.EMERGENCY if kind is TicketType.EMERGENCY_STOP else priority,
        channel=channel,
        occurred_at=given.get("occurred_at"),
        work_center=str(given.get("work_center") or "").strip()[:128],
        operation=str(given.get("operation") or "").strip()[:128],
        answers=dict(given.get("answers") or {}),
    )


def _read_text(given: Mapping[str, Any], name: str, problems: list[FieldProblem]) -> str:
    value = given.get(name)
    if value is None or value == "":
        problems.append(FieldProblem(name, "missing", _MISSING[name]))
        return ""
    if not isinstance(value, str):
        problems.append(FieldProblem(name, "not-text", _NOT_TEXT))
        return ""
    # NFKC turns full-width letters and digits, which Chinese input methods make, into the ones on name plates
    shape: Callable[[str], str] = (
        (lambda text: text) if name == "fault_description" else (lambda text: unicodedata.normalize("NFKC", text))
    )
    text = _CONTROL.sub("", shape(value)).strip()
    most, words = _TOO_LONG[name]
    if not text:
        problems.append(FieldProblem(name, "missing", _MISSING[name]))
    elif len(text) > most:
        problems.append(FieldProblem(name, "too-long", words))
    return text


def _read_choice(
    given: Mapping[str, Any],
    name: str,
    kinds: type[_Choice],
    default: _Choice,
    words: Words,
    problems: list[FieldProblem],
) -> _Choice:
    value = given.get(name)
    if value is None or value == "":
        return default
    try:
        return kinds(value)
    except ValueError:
        problems.append(FieldProblem(name, "bad-choice", words))
        return default
