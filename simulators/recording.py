"""Read a recording (CSV) completely and strictly before anything is published.

Every mistake names line and column and what was expected. Times may be ISO 8601, epoch numbers, the dotted form
2004.02.12.10.32.39 that bearing rigs write, or anything `strptime` reads.
"""

import csv
import io
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fettle.errors import FettleError
from fettle.wire import BadTopicLevel, check_level
from simulators.toml_table import EPOCH

_SEPARATORS = (",", ";", "\t", "|")
_MISSING = frozenset({"", "nan", "null", "none", "na", "n/a", "-"})
_INDEX = re.compile(r"(unnamed(:\s*\d+)?|index)?", re.IGNORECASE)
_DOTTED = re.compile(r"\d{4}\.\d{2}\.\d{2}\.\d{2}\.\d{2}\.\d{2}")
_FORMATS = (
    "%Y/%m/%d %H:%M:%S",
    "%Y/%m/%d %H:%M",
    "%d.%m.%Y %H:%M:%S",
    "%d.%m.%Y %H:%M",
    "%Y.%m.%d %H:%M:%S",
    "%Y%m%d%H%M%S",
)

ReadTime = Callable[[str], int]


class RecordingUnreadable(FettleError):
    """{file}: {problem}. Nothing was published."""


class RecordingWrong(FettleError):
    """{file}, line {line}, column {column!r}: {value!r} is not {expected}. Nothing was published."""


class ColumnUnknown(FettleError):
    """{file} has no column {column!r}; its columns are {columns}. Nothing was published."""


class TimeFormatUnclear(FettleError):
    """{file}, line {line}, column {column!r}: {value!r} is no time that is understood by itself; give --time-format, for example "%d/%m/%Y %H:%M:%S". Nothing was published."""


@dataclass(frozen=True)
class Recording:
    """A checked recording.

    Attributes:
        lines: line of the file of each row, for messages.
        times: microseconds since 1970.
        columns: values by column; NaN where a cell is empty.
        labels: texts by label column, one per row; they say which machine or site a row belongs to.
        backwards: rows whose time lies before the row above.
    """

    file: str
    lines: npt.NDArray[np.int64]
    times: npt.NDArray[np.int64]
    columns: Mapping[str, npt.NDArray[np.float64]]
    labels: Mapping[str, list[str]]
    ignored: tuple[str, ...]
    backwards: int

    @property
    def readings(self) -> int:
        return int(sum(np.isfinite(v).sum() for v in self.columns.values()))


def read_recording(
    path: Path,
    *,
    time_column: str,
    columns: Sequence[str] = (),
    without: Sequence[str] = (),
    label_columns: Sequence[str] = (),
    separator: str | None = None,
    time_format: str | None = None,
    utc_offset_h: float = 0.0,
    decimal: str = ".",
    progress: Callable[[int, int], None] | None = None,
) -> Recording:
    """Return the recording, or refuse it as a whole.

    Args:
        path: the file; UTF-8 with or without byte order mark, or UTF-16 with one.
        time_column: header of the time stamps.
        columns: only these; by default every column but the time and unnamed index columns.
        without: columns to leave out.
        label_columns: columns of text that become levels of the topic: machine, site.
        separator: between columns; by default the likeliest in the header.
        time_format: for `strptime`; "epoch_s", "epoch_ms", "epoch_us"; by default the form is found from the first row.
        utc_offset_h: zone of times that carry none.
        decimal: "." or ",".
        progress: told (bytes read, bytes in all) now and then.

    Raises:
        RecordingUnreadable: no such file, not UTF-8, no header, no rows.
        ColumnUnknown, RecordingWrong, TimeFormatUnclear: what is wrong and where.
    """
    text = _read_text(path)
    header_line = text[: text.find("\n") if "\n" in text else len(text)]
    chosen = separator or _find_separator(header_line)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=chosen, strict=True)
    rows = _rows(path, reader)
    try:
        header = [name.strip() for name in next(rows)[1]]
    except StopIteration:
        raise RecordingUnreadable(file=path, problem="is empty; expected a header line and rows") from None
    wanted, ignored = _choose(path, header, time_column, columns, (*without, *label_columns))
    ignored = tuple(name for name in ignored if name not in label_columns)
    label_positions = [(name, header.index(name)) for name in label_columns]
    labels: dict[str, list[str]] = {name: [] for name in label_columns}
    at_time = header.index(time_column)
    positions = [(name, header.index(name)) for name in wanted]
    read_time: ReadTime | None = None
    lines: list[int] = []
    times: list[int] = []
    values: list[list[float]] = [[] for _ in wanted]
    total = len(text)
    for line, row in rows:
        if len(row) != len(header):
            if not any(cell.strip() for cell in row):
                continue
            raise RecordingUnreadable(
                file=path,
                problem=f"line {line} has {len(row)} columns where the header has {len(header)} (separator {chosen!r})",
            )
        cell = row[at_time].strip()
        if read_time is None:
            read_time = _time_reader(path, line, time_column, cell, time_format, utc_offset_h)
        try:
            times.append(read_time(cell))
        except (ValueError, OverflowError):
            expected = (
                f"a time of the form of line {lines[0]}"
                if lines and not time_format
                else f"a time of the form {time_format}"
            )
            raise RecordingWrong(file=path, line=line, column=time_column, value=cell, expected=expected) from None
        lines.append(line)
        for name, position in label_positions:
            labels[name].append(_read_label(path, line, name, row[position]))
        for out, (name, position) in zip(values, positions, strict=True):
            out.append(_read_number(path, line, name, row[position], decimal))
        if progress and len(lines) % 5000 == 0:
            progress(min(len(lines) * max(total // 100_000, 1), total), total)
    if not times:
        raise RecordingUnreadable(file=path, problem="has a header and no rows")
    moments = np.array(times, np.int64)
    return Recording(
        file=str(path),
        lines=np.array(lines, np.int64),
        times=moments,
        columns={name: np.array(v) for name, v in zip(wanted, values, strict=True)},
        labels=labels,
        ignored=ignored,
        backwards=int(np.sum(np.diff(moments) < 0)),
    )


def _read_text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise RecordingUnreadable(file=path, problem=f"cannot be read ({error.strerror})") from error
    encoding = "utf-16" if raw[:2] in {b"\xff\xfe", b"\xfe\xff"} else "utf-8-sig"
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise RecordingUnreadable(
            file=path,
            problem=f"line {line} is not UTF-8 text (byte 0x{raw[error.start]:02x}); save the file as UTF-8",
        ) from error


def _rows(path: Path, reader: "csv._reader") -> Iterator[tuple[int, list[str]]]:  # type: ignore[name-defined]
    while True:
        start = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise RecordingUnreadable(file=path, problem=f"line {start} cannot be read as CSV: {error}") from error
        if row:
            yield start, row


def _find_separator(header: str) -> str:
    return max(_SEPARATORS, key=header.count)


def _choose(
    path: Path, header: list[str], time_column: str, columns: Sequence[str], without: Sequence[str]
) -> tuple[list[str], tuple[str, ...]]:
    for name in (time_column, *columns, *without):
        if name not in header:
            raise ColumnUnknown(file=path, column=name, columns=", ".join(repr(h) for h in header))
    twice = sorted({h for h in header if header.count(h) > 1})
    if twice:
        raise RecordingUnreadable(file=path, problem=f"has the column {twice[0]!r} twice")
    if columns:
        wanted = [c for c in columns if c != time_column]
    else:
        wanted = [h for h in header if h != time_column and not _INDEX.fullmatch(h) and h not in without]
    if not wanted:
        raise RecordingUnreadable(file=path, problem="has no column of values besides the time")
    ignored = tuple(h or "(unnamed)" for h in header if h not in wanted and h != time_column)
    return wanted, ignored


def _read_number(path: Path, line: int, name: str, cell: str, decimal: str) -> float:
    try:
        value = float(cell if decimal == "." else cell.replace(".", "").replace(",", "."))
    except ValueError:
        stripped = cell.strip()
        if stripped.lower() in _MISSING:
            return math.nan
        if stripped.lower() in {"true", "false"}:
            return float(stripped.lower() == "true")
        hint = "a number or an empty cell"
        if decimal == "." and re.fullmatch(r"[-+]?\d+,\d+", stripped):
            hint += " (a decimal comma needs --decimal ,)"
        elif not re.search(r"\d", stripped):
            hint += f" (leave the column out with --without {name!r})"
        raise RecordingWrong(file=path, line=line, column=name, value=stripped, expected=hint) from None
    if math.isinf(value) or "_" in cell:
        raise RecordingWrong(
            file=path, line=line, column=name, value=cell.strip(), expected="a finite number or an empty cell"
        )
    return value


def _read_label(path: Path, line: int, name: str, cell: str) -> str:
    try:
        return check_level(name, cell.strip())
    except BadTopicLevel:
        expected = "a name without '/', '+' and '#', at most 128 characters long"
        raise RecordingWrong(file=path, line=line, column=name, value=cell.strip(), expected=expected) from None


def _time_reader(path: Path, line: int, column: str, cell: str, form: str | None, utc_offset_h: float) -> ReadTime:
    zone = UTC if not utc_offset_h else timezone(timedelta(hours=utc_offset_h))

    def micros(at: datetime) -> int:
        return ((at if at.tzinfo else at.replace(tzinfo=zone)) - EPOCH) // timedelta(microseconds=1)

    if form is not None and form.startswith("epoch"):
        scale = {"epoch_s": 1e6, "epoch_ms": 1e3, "epoch_us": 1.0, "epoch_ns": 1e-3}.get(form, 0.0)
        if not scale:
            raise RecordingUnreadable(
                file=path, problem=f"--time-format {form} is none of epoch_s, epoch_ms, epoch_us, epoch_ns"
            )
        return _epoch(scale)
    if form is not None:
        return lambda text: micros(datetime.strptime(text, form))  # noqa: DTZ007 -- the zone is added
    if re.fullmatch(r"\d{8,19}(\.\d+)?", cell) and not re.fullmatch(r"(19|20)\d{12}", cell):
        size = float(cell)
        return _epoch(1e6 if size < 1e11 else 1e3 if size < 1e14 else 1.0 if size < 1e17 else 1e-3)
    if _DOTTED.fullmatch(cell):
        return lambda text: micros(datetime.strptime(text, "%Y.%m.%d.%H.%M.%S"))  # noqa: DTZ007
    try:
        datetime.fromisoformat(cell)
    except ValueError:
        pass
    else:
        return lambda text: micros(datetime.fromisoformat(text))
    for known in _FORMATS:
        try:
            datetime.strptime(cell, known)  # noqa: DTZ007
        except ValueError:
            continue
        return lambda text: micros(datetime.strptime(text, known))  # noqa: DTZ007
    raise TimeFormatUnclear(file=path, line=line, column=column, value=cell)


def _epoch(scale: float) -> ReadTime:
    return lambda text: round(float(text) * scale)


def check_sensor_names(file: str, names: Mapping[str, str]) -> None:
    """Refuse sensor names that cannot be a topic level.

    Raises:
        RecordingUnreadable: with the remedy.
    """
    for column, name in names.items():
        try:
            check_level("sensor", name)
        except BadTopicLevel as error:
            raise RecordingUnreadable(
                file=file,
                problem=f"column {column!r}: {error} Rename it with --rename {column!r}=NAME",
            ) from error
