"""Readings that come over HTTP: checked as a whole, then stored by a writer of their own in a thread of its own.

The writer holds a collector's lease like any other. Several API processes on one database take the first free one of a
few names, so that the number of collectors in the ledger does not grow with every start.
"""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import orjson

from fettle.clock import monotonic_s, now_us
from fettle.errors import FettleError
from fettle.model import Flag, Quality
from fettle.words import FieldProblem, InvalidFields, Words
from ingest.batch import Batch, TextReading, Wanted
from ingest.decode import BadPayload, read_instant
from ingest.decode.model import check_name, check_unit
from ingest.intake import UNKNOWN
from ingest.store import LeaseTaken, Outcome
from ingest.writer import Stopped, Writer, WriterOptions

MOST_READINGS = 10_000
_MOST_PROBLEMS = 20
_NAMES = 8
_PATIENCE_S = 5.0
_KEYS = {"site", "machine", "sensor", "ts", "value", "unit"}
_QUALITIES = {"good": Quality.GOOD, "bad": Quality.BAD, "stale": Quality.STALE}


class StorageUnavailable(FettleError):
    """Readings cannot be stored now ({why}). Send the same request again later; what was stored is recognised."""


@dataclass(frozen=True, slots=True)
class Posted:
    """One reading of a request, checked."""

    path: tuple[str, str, str]
    ts_us: int | None
    value: float | None
    text: str | None
    unit: str | None
    quality: int


def read_request(body: bytes) -> list[Posted]:
    """Read the body of a request: {"readings": [{"site", "machine", "sensor", "value", "ts"?, "unit"?, "quality"?}, …]}.

    Raises:
        InvalidFields: nothing is stored; the first twenty problems by field.
    """
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _invalid("body", "json_invalid", f"The body is not JSON: {error}.", "请求体不是有效的 JSON。") from None
    items = parsed.get("readings") if isinstance(parsed, dict) else None
    if not isinstance(items, list) or not items:
        raise _invalid("readings", "missing", "readings must be a list with at least one reading.", "readings 必须是至少包含一条读数的列表。")  # fmt: skip
    if len(items) > MOST_READINGS:
        raise _invalid("readings", "too-many", f"{len(items)} readings in one request; send at most {MOST_READINGS}.", f"一次请求包含 {len(items)} 条读数；最多 {MOST_READINGS} 条。")  # fmt: skip
    problems: list[FieldProblem] = []
    posted = []
    for i, item in enumerate(items):
        try:
            posted.append(_read_item(item))
        except _BadField as bad:
            problems.append(
                FieldProblem(f"readings[{i}].{bad.field}" if bad.field else f"readings[{i}]", bad.code, bad.words)
            )
            if len(problems) >= _MOST_PROBLEMS:
                break
    if problems:
        raise InvalidFields(problems)
    return posted


class _BadField(Exception):
    def __init__(self, field: str, code: str, en: str, zh: str) -> None:
        super().__init__(en)
        self.field, self.code = field, code
        self.words = Words(_literal(en), _literal(zh))


def _literal(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _invalid(field: str, code: str, en: str, zh: str) -> InvalidFields:
    return InvalidFields([FieldProblem(field, code, Words(_literal(en), _literal(zh)))])


def _read_item(item: Any) -> Posted:
    if not isinstance(item, dict):
        raise _BadField("", "not-an-object", "Each reading is an object with site, machine, sensor and value.", "每条读数必须是包含 site、machine、sensor 和 value 的对象。")  # fmt: skip
    for key in item:
        if key not in _KEYS and key != "quality":
            raise _BadField(str(key), "unknown", f"{key} is not known here; leave it out, or check its spelling.", f"不认识 {key}，请删除或检查拼写。")  # fmt: skip
    names = []
    for key in ("site", "machine", "sensor"):
        name = item.get(key)
        if not isinstance(name, str) or "/" in name:
            raise _BadField(key, "missing" if name is None else "wrong-type", f"{key} must be text without '/'.", f"{key} 必须是不含 “/” 的文本。")  # fmt: skip
        try:
            names.append(check_name(key, name))
        except BadPayload as bad:
            raise _BadField(key, "bad-name", f"{bad.detail}.", f"{key} 不能为空，最多 200 个字符，且不含控制字符。") from None  # fmt: skip
    ts_us = None
    if item.get("ts") is not None:
        try:
            ts_us = read_instant(item["ts"])
        except BadPayload as bad:
            raise _BadField("ts", "bad-time", f"{bad.detail}; send milliseconds since 1970, or ISO 8601.", "ts 必须是自 1970 年起的毫秒数或 ISO 8601 时间。") from None  # fmt: skip
    if "value" not in item:
        raise _BadField("value", "missing", "value is missing; null stands for a value that is not known.", "缺少 value；未知的值请填 null。")  # fmt: skip
    value = item["value"]
    text = None
    if isinstance(value, str):
        if len(value) > 4096 or "\0" in value:
            raise _BadField("value", "too-long", "A text has at most 4096 characters and no NUL.", "文本最多 4096 个字符，且不含空字符。")  # fmt: skip
        value, text = None, value
    elif value is not None and not isinstance(value, bool | int | float):
        raise _BadField("value", "wrong-type", "value must be a number, true, false, null, or text.", "value 必须是数字、true、false、null 或文本。")  # fmt: skip
    unit = item.get("unit")
    if unit is not None:
        try:
            unit = check_unit(unit) if isinstance(unit, str) else None
        except BadPayload:
            unit = None
        if unit is None:
            raise _BadField("unit", "bad-unit", "unit must be text of at most 32 printable characters, e.g. mm/s.", "unit 必须是最多 32 个可打印字符的文本，例如 mm/s。")  # fmt: skip
    quality = item.get("quality", "good")
    if quality not in _QUALITIES:
        raise _BadField("quality", "unknown", "quality must be good, bad or stale.", "quality 必须是 good、bad 或 stale。")  # fmt: skip
    path = (names[0], names[1], names[2])
    return Posted(path, ts_us, None if value is None else float(value), text, unit, _QUALITIES[quality])


def as_batch(posted: list[Posted], *, tenant: str, received_us: int, body: bytes) -> Batch:
    """Put the readings of one request into a batch; the request stands for the one message it came in."""
    batch = Batch(topics=[b"POST /api/v1/readings"], payloads=[body], received_us=received_us, is_suspect=True)
    for n, one in enumerate(posted):
        wanted = Wanted(tenant, one.path, one.unit)
        ts_us, flags = (one.ts_us, 0) if one.ts_us is not None else (received_us + n, int(Flag.RECEIVE_TIME))
        if one.text is not None:
            batch.texts.append(TextReading(0, UNKNOWN, wanted, ts_us, one.quality, flags, one.text))
            continue
        row = len(batch.ts)
        batch.wanted[row] = wanted
        if flags or one.quality != Quality.GOOD:
            batch.odd[row] = (one.quality, flags)
        batch.sensor_ids.append(UNKNOWN)
        batch.ts.append(ts_us)
        batch.values.append(float("nan") if one.value is None else one.value)
        batch.owners.append(0)
    return batch


class HttpIntake:
    """Stores what requests bring, one request after the other."""

    def __init__(self, url: str, *, name: str, options: WriterOptions) -> None:
        self._url = url
        self._name = name
        self._options = options
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fettle-readings")
        self._writer: Writer | None = None
        self._deadline_s = 0.0
        self._closing = threading.Event()

    async def store(self, posted: list[Posted], *, tenant_id: int, body: bytes) -> Outcome:
        """Store the readings of a request, or fail within seconds.

        Raises:
            StorageUnavailable: the database does not take them now.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._store, posted, tenant_id, body)

    def close(self) -> None:
        self._closing.set()
        self._thread.submit(self._close_writer)
        self._thread.shutdown(wait=True)

    def _store(self, posted: list[Posted], tenant_id: int, body: bytes) -> Outcome:
        self._deadline_s = monotonic_s() + _PATIENCE_S
        try:
            writer = self._open()
            slug = writer.retrying(lambda: writer.catalogue.slug(writer.store.conn, tenant_id))
            return writer.persist(as_batch(posted, tenant=slug, received_us=now_us(), body=body))
        except Stopped:
            why = self._writer.status.reason if self._writer else "the database does not answer"
            self._close_writer()
            raise StorageUnavailable(why=why) from None
        except FettleError as error:
            self._close_writer()
            raise StorageUnavailable(why=str(error)) from error

    def _open(self) -> Writer:
        if self._writer is not None:
            return self._writer
        for n in range(1, _NAMES + 1):
            writer = Writer(self._url, name=f"{self._name}-http-{n}", options=self._options, wait=self._wait)
            self._writer = writer
            try:
                writer.open()
            except LeaseTaken:
                self._writer = None
            else:
                return writer
        raise StorageUnavailable(why=f"{_NAMES} other processes store readings already")

    def _close_writer(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _wait(self, seconds: float) -> bool:
        return self._closing.is_set() or monotonic_s() > self._deadline_s or self._closing.wait(seconds)
