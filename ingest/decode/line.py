r"""Influx line protocol: `measurement[,tag=value…] field=value[,field=value…] [timestamp]`, many lines a message.

A line without `\` and `"` takes a parser that only splits; the full one reads the rest. Templates may use `{measurement}`,
`{field}`, `{tags}` (sorted by key, `tag=value,…`), one tag as `{tag_<name>}`, and `{key}`, which is `tags/field`, or the
field alone where there are no tags.
"""

import re
import sys
from typing import cast

from fettle.model import Flag, Quality
from ingest.decode.instant import read_instant
from ingest.decode.model import BadPayload, Context, Decoded, Path, Reason, Sample, check_size, text_sample
from ingest.decode.plain import EXACT

_TRUE = frozenset({"t", "T", "true", "True", "TRUE"})
_FALSE = frozenset({"f", "F", "false", "False", "FALSE"})
_INTEGER = re.compile(r"-?[0-9]{1,20}[iu]")
_FLOAT = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_STAMP = re.compile(r"-?[0-9]{1,19}")
_NOT_WORD = re.compile(r"\W", re.ASCII)
_LAST = frozenset("0123456789.")
_LARGEST = sys.float_info.max
_GOOD = Quality.GOOD
_new = tuple.__new__  # half the cost of calling the named tuple
_FIELDS_KEPT = 1000

Fields = list[tuple[str, str]]
"""Pairs of field and raw value, as written."""


def decode(context: Context, payload: bytes, received_us: int) -> Decoded:  # noqa: ARG001
    """Decode line by line; a line that is wrong is rejected alone.

    Raises:
        BadPayload: not UTF-8, too large, too many readings, or not one line can be stored.
    """
    limits = context.options.limits
    check_size(payload, limits)
    try:
        text = payload.decode()
    except UnicodeDecodeError as error:
        raise BadPayload(Reason.BAD_SYNTAX, f"not UTF-8: {error}") from None
    out = Decoded()
    lines = text.split("\n") if '"' not in text else _split_lines(text)
    for number, line in enumerate(lines, start=1):
        stripped = line.strip(" \t\r")
        if not stripped or stripped[0] == "#":
            continue
        try:
            _decode_line(context, stripped, out)
        except BadPayload as bad:
            out.reject(bad.reason, f"line {number}: {bad.detail}")
        if len(out.samples) + len(out.rejected) > limits.max_records:
            raise BadPayload(Reason.TOO_MANY, f"more than max_records {limits.max_records} readings in one message")
    if not out.samples:
        if out.rejected:
            raise BadPayload(out.rejected[0].reason, out.rejected[0].detail)
        out.ignored += 1
    return out


def _split_lines(text: str) -> list[str]:
    """Split at line feeds outside quoted field values."""
    lines: list[str] = []
    start = 0
    quoted = False
    at = 0
    for found in re.finditer(r'\\.|["\n]', text, re.DOTALL):
        mark = found.group()
        at = found.start()
        if mark == '"':
            # a quote opens a text only where a value starts: right after `=`
            if quoted:
                quoted = False
            elif text[at - 1 : at] == "=":
                quoted = True
        elif mark == "\n" and not quoted:
            lines.append(text[start:at])
            start = at + 1
        elif mark == "\\\n" and not quoted:
            lines.append(text[start : at + 1])
            start = at + 2
    lines.append(text[start:])
    return lines


class _Series:
    """One measurement with its tags, and the fields seen with them."""

    __slots__ = ("fields", "measurement", "paths", "tags")

    def __init__(self, measurement: str, tags: list[tuple[str, str]]) -> None:
        self.measurement = measurement
        self.tags = ",".join(f"{k}={v}" for k, v in sorted(tags))
        self.fields = {f"tag_{_NOT_WORD.sub('_', key)}": value for key, value in tags}
        self.paths: dict[str, tuple[Path, str | None]] = {}

    def path(self, context: Context, field: str) -> tuple[Path, str | None]:
        limit = context.options.limits.max_key
        if len(field) > limit:
            raise BadPayload(Reason.BAD_NAME, f"a field name of {len(field)} characters; max_key is {limit}")
        key = f"{self.tags}/{field}" if self.tags else field
        fields = {**self.fields, "measurement": self.measurement, "tags": self.tags, "field": field, "key": key}
        found = context.build_path(fields), context.unit(field, None)
        if len(self.paths) < _FIELDS_KEPT:
            self.paths[field] = found
        return found


def _decode_line(context: Context, line: str, out: Decoded) -> None:
    if "\\" in line or '"' in line:
        (measurement, tags), fields, stamp = _read_full(line)
        series = _Series(measurement, tags)
    else:
        written, fields, stamp = _read_split(line)
        known: _Series | None = context.memo.get(written)
        if known is None:
            known = _Series(*_read_series(written))
            context.remember(written, known)
        series = known
    ts_us = _instant(stamp, context.options.time_unit) if stamp else None
    is_ascii = line.isascii()
    paths, append = series.paths, out.samples.append
    for field, raw in fields:
        try:
            path, unit = paths.get(field) or series.path(context, field)
            # float() also takes `nan`, `1_000` and digits of other scripts, which the protocol does not
            if raw[-1] in _LAST and is_ascii and "_" not in raw:
                value = float(raw)
                if -_LARGEST <= value <= _LARGEST:
                    append(_new(Sample, (path, ts_us, value, unit, _GOOD, 0, None)))
                    continue
            elif raw[-1] == "i" and len(raw) <= 16 and is_ascii and raw[:-1].isdigit():
                append(_new(Sample, (path, ts_us, float(raw[:-1]), unit, _GOOD, 0, None)))
                continue
            append(_read_value(context, path, unit, raw, ts_us))
        except BadPayload as bad:
            out.reject(bad.reason, f"field {field[:60]!r}: {bad.detail}")
        except ValueError:
            out.reject(Reason.BAD_VALUE, f"field {field[:60]!r}: {raw[:60]!r} is no number, boolean or quoted text")


def _instant(stamp: str, unit: str) -> int:
    if not _STAMP.fullmatch(stamp):
        raise BadPayload(Reason.BAD_TIMESTAMP, f"{stamp[:60]!r} is no integer")
    return read_instant(int(stamp), unit="ns" if unit == "auto" else unit)


def _read_value(context: Context, path: Path, unit: str | None, raw: str, ts_us: int | None) -> Sample:
    last = raw[-1]
    flags = 0
    if raw[0] == '"':
        return text_sample(context, path, ts_us, raw[1:-1])
    if last in "iu" and _INTEGER.fullmatch(raw):
        whole = int(raw[:-1])
        if last == "u" and whole < 0:
            raise BadPayload(Reason.BAD_VALUE, f"{raw!r} is unsigned but negative")
        if not -(2**63) <= whole < 2**64:
            raise BadPayload(Reason.BAD_VALUE, f"{raw!r} exceeds 64 bits")
        if not -EXACT <= whole <= EXACT:
            if context.options.large_integers == "text":
                return text_sample(context, path, ts_us, str(whole))
            flags = Flag.INEXACT
        value = float(whole)
    elif raw in _TRUE:
        value = 1.0
    elif raw in _FALSE:
        value = 0.0
    elif _FLOAT.fullmatch(raw):
        raise BadPayload(Reason.BAD_VALUE, f"{raw[:60]!r} exceeds a double")
    else:
        raise BadPayload(Reason.BAD_VALUE, f"{raw[:60]!r} is no number, boolean or quoted text")
    return Sample(path, ts_us, value, unit, Quality.GOOD, flags)


def _read_split(line: str) -> tuple[str, Fields, str]:
    """Read a line without quotes and backslashes."""
    parts = line.split()
    if len(parts) == 2:
        series, written = parts
        stamp = ""
    elif len(parts) == 3:
        series, written, stamp = parts
    else:
        raise BadPayload(Reason.BAD_SYNTAX, f"{len(parts)} parts separated by spaces; 2 or 3 are meant")
    fields = [tuple(pair.split("=")) for pair in written.split(",")]
    for pair in fields:
        if len(pair) != 2 or not pair[0] or not pair[1]:
            raise BadPayload(Reason.BAD_SYNTAX, f"{'='.join(pair)[:60]!r} is no field=value")
    return series, cast("Fields", fields), stamp


def _read_series(series: str) -> tuple[str, list[tuple[str, str]]]:
    measurement, *pairs = series.split(",")
    if not measurement:
        raise BadPayload(Reason.BAD_SYNTAX, "no measurement")
    tags = []
    for pair in pairs:
        key, _, value = pair.partition("=")
        if not key or not value or "=" in value:
            raise BadPayload(Reason.BAD_SYNTAX, f"{pair[:60]!r} is no tag=value")
        tags.append((key, value))
    return measurement, tags


def _read_full(line: str) -> tuple[tuple[str, list[tuple[str, str]]], Fields, str]:
    """Read a line with escapes or quoted texts."""
    reader = _Reader(line)
    measurement = reader.take(", ", escapes=", ")
    if not measurement:
        raise BadPayload(Reason.BAD_SYNTAX, "no measurement")
    tags: list[tuple[str, str]] = []
    while reader.skip(","):
        key = reader.take("=, ", escapes=",= ")
        if not key or not reader.skip("="):
            raise BadPayload(Reason.BAD_SYNTAX, f"tag {key[:60]!r} has no value")
        value = reader.take("=, ", escapes=",= ")
        if not value or reader.peek() == "=":
            raise BadPayload(Reason.BAD_SYNTAX, f"the value of tag {key[:60]!r} is empty or holds a bare =")
        tags.append((key, value))
    if not reader.skip_spaces():
        raise BadPayload(Reason.BAD_SYNTAX, "no fields")
    fields: Fields = []
    while True:
        field = reader.take("=, ", escapes=",= ")
        if not field or not reader.skip("="):
            raise BadPayload(Reason.BAD_SYNTAX, f"field {field[:60]!r} has no value")
        raw = reader.take_quoted() if reader.peek() == '"' else reader.take(", ", escapes="")
        if not raw:
            raise BadPayload(Reason.BAD_SYNTAX, f"field {field[:60]!r} has no value")
        fields.append((field, raw))
        if not reader.skip(","):
            break
    reader.skip_spaces()
    return (measurement, tags), fields, reader.rest()


class _Reader:
    """Reads one line from left to right."""

    __slots__ = ("_at", "_line")

    def __init__(self, line: str) -> None:
        self._line = line
        self._at = 0

    def peek(self) -> str:
        return self._line[self._at : self._at + 1]

    def skip(self, mark: str) -> bool:
        if self.peek() != mark:
            return False
        self._at += 1
        return True

    def skip_spaces(self) -> bool:
        start = self._at
        while self.peek() == " ":
            self._at += 1
        return self._at > start

    def take(self, stops: str, *, escapes: str) -> str:
        """Read up to an unescaped stop; a backslash before anything else than `escapes` is literal."""
        out: list[str] = []
        line, at = self._line, self._at
        while at < len(line):
            mark = line[at]
            if mark == "\\" and at + 1 < len(line) and line[at + 1] in escapes:
                out.append(line[at + 1])
                at += 2
                continue
            if mark in stops:
                break
            out.append(mark)
            at += 1
        self._at = at
        return "".join(out)

    def take_quoted(self) -> str:
        """Read a quoted text, unescape it, and return it between quotes."""
        out: list[str] = []
        line, at = self._line, self._at + 1
        while at < len(line):
            mark = line[at]
            if mark == "\\" and line[at + 1 : at + 2] in {'"', "\\"}:
                out.append(line[at + 1])
                at += 2
                continue
            if mark == '"':
                self._at = at + 1
                if self.peek() not in {"", ",", " "}:
                    raise BadPayload(Reason.BAD_SYNTAX, f"{self.peek()!r} after a quoted text")
                return f'"{"".join(out)}"'
            out.append(mark)
            at += 1
        raise BadPayload(Reason.BAD_SYNTAX, "a quoted text without its end")

    def rest(self) -> str:
        return self._line[self._at :].strip(" ")
