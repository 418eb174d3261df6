"""Readings from files: CSV and Parquet, long (one reading per row) or wide (one column per sensor).

Files are read in pieces, so their size does not matter; columns become numpy arrays without a Python object per row.
"""

import codecs
import csv
import gzip
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import numpy.typing as npt

from fettle.errors import FettleError
from fettle.model import Quality
from fettle.wire import READING_DTYPE, ReadingArray
from ingest.decode import BadPayload, read_instant

if TYPE_CHECKING:
    import pyarrow as pa

_LONG = {"machine", "sensor", "value"}
_BLOCK_BYTES = 4 << 20
_PROBLEMS_SHOWN = 5
_NULLS = ["", "NULL", "null"]
Mask = npt.NDArray[np.bool_]


class UnreadableFile(FettleError):
    """{file} cannot be read: {why}."""


class OtherEncoding(UnreadableFile):
    """{file}, line {line}, byte {at}: {found} is not {encoding}. Save the file as UTF-8, or say how it is written, for example with --encoding {example}."""


class MissingColumn(FettleError):
    """{file} has no column {column!r}; it has {there}. Name the column of time stamps with --time, or rename it."""


class MissingPlace(FettleError):
    """{file} does not say the {what} of its readings: add a column {what!r}, or give --{what}."""


class BadRow(FettleError):
    """{file}, row {row}, column {column!r}: {problem}. Correct the file, or leave such rows out with --skip-bad."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """How to read a file."""

    site: str | None = None
    machine: str | None = None
    time: str = "time"
    time_zone: str = "UTC"
    encoding: str = "utf-8"  # of a CSV file
    skip_bad: bool = False


@dataclass(slots=True)
class Imported:
    """What an import did."""

    rows: int = 0
    stored: int = 0
    duplicates: int = 0
    collisions: int = 0
    bad: int = 0
    problems: list[str] = field(default_factory=list)


class Sink(Protocol):
    """Where readings go: `ingest.api.BulkWriter`."""

    stored: int
    duplicates: int
    collisions: int

    def sensors(self, tenant: str, places: list[tuple[str, str, str, str]]) -> list[int]: ...

    def store(self, rows: ReadingArray) -> None: ...


def import_file(
    path: Path,
    columns: Columns,
    *,
    tenant: str,
    writer: Sink,
    on_progress: Callable[[float], None] = lambda _: None,
) -> Imported:
    """Store the readings of a file. A file that was imported before changes nothing.

    Args:
        path: ends in .csv, .tsv (both also .gz) or .parquet.
        columns: how to read it.
        tenant: slug of the owner.
        writer: where readings go.
        on_progress: is told the share that is done, 0 to 1.

    Raises:
        UnreadableFile: it is not there, or not of its kind.
        OtherEncoding: a byte of it cannot be read as text; what stood well before it is stored.
        MissingColumn: there is no column of time stamps.
        MissingPlace: neither the file nor the caller names site or machine.
        BadRow: a row cannot be read, and `columns.skip_bad` is off; what stood before it is stored.
    """
    try:
        ZoneInfo(columns.time_zone)
    except (ZoneInfoNotFoundError, ValueError):
        raise UnreadableFile(file=path, why=f"{columns.time_zone!r} is no time zone, e.g. Europe/Berlin") from None
    try:
        codecs.lookup(columns.encoding)
    except LookupError:
        why = f"{columns.encoding!r} is no encoding, e.g. utf-8, gb18030, cp1252 or utf-16"
        raise UnreadableFile(file=path, why=why) from None
    done = Imported()
    before = (writer.stored, writer.duplicates, writer.collisions)
    piece = _Piece(path, columns, tenant, writer, done)
    for table, share in _read(path, columns.encoding):
        piece.store(table)
        done.rows += table.num_rows
        done.stored, done.duplicates, done.collisions = (
            now - then for now, then in zip((writer.stored, writer.duplicates, writer.collisions), before, strict=True)
        )
        on_progress(share)
    return done


def _read(path: Path, encoding: str) -> Iterator[tuple["pa.RecordBatch", float]]:
    """Yield pieces of the file, every column of a CSV file as text, and the share that has been read."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    try:
        if path.suffix == ".parquet":
            file = pa.parquet.ParquetFile(path)
            done = 0
            for piece in file.iter_batches(batch_size=100_000):
                done += piece.num_rows
                yield piece, done / max(file.metadata.num_rows, 1)
            return
        kinds = {suffix for suffix in path.suffixes if suffix in {".csv", ".tsv"}}
        if not kinds:
            raise UnreadableFile(file=path, why="its name ends in none of .csv, .csv.gz, .tsv, .tsv.gz, .parquet")
        delimiter = "\t" if ".tsv" in kinds else ","
        size = path.stat().st_size
        is_utf8 = codecs.lookup(encoding).name == "utf-8"
        with (
            _open(path) as raw,
            io.TextIOWrapper(raw, encoding="utf-8-sig" if is_utf8 else encoding, newline="") as text,
        ):
            names = next(csv.reader(text, delimiter=delimiter), [])
        with path.open("rb") as raw:
            reader = pa.csv.open_csv(
                gzip.open(raw) if path.suffix == ".gz" else raw,  # noqa: SIM115 -- closed with the raw file
                read_options=pa.csv.ReadOptions(block_size=_BLOCK_BYTES, encoding="utf8" if is_utf8 else encoding),
                parse_options=pa.csv.ParseOptions(delimiter=delimiter),
                convert_options=pa.csv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=_NULLS
                ),
            )
            for piece in reader:
                yield piece, min(raw.tell() / max(size, 1), 1.0)
    except FileNotFoundError:
        raise UnreadableFile(file=path, why="there is no such file") from None
    except (OSError, UnicodeDecodeError, pa.ArrowInvalid) as error:
        wrong = None if path.suffix == ".parquet" else _find_wrong_byte(path, encoding)
        raise wrong or UnreadableFile(file=path, why=error) from error


def _open(path: Path) -> Any:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def _find_wrong_byte(path: Path, encoding: str) -> OtherEncoding | None:
    """Say where a file stops being text of this encoding."""
    decoder = codecs.getincrementaldecoder(encoding)()
    line, before = 1, 0
    try:
        with _open(path) as raw:
            start: bytes = raw.peek(4)[:4]
            while data := raw.read(1 << 16):
                held, _ = decoder.getstate()  # the beginning of a character that the last piece cut in two
                try:
                    line += decoder.decode(data).count("\n")
                except UnicodeDecodeError as error:
                    line += error.object[: error.start].decode(encoding, "ignore").count("\n")
                    at = before - len(held) + error.start
                    return _other_encoding(path, line, at, f"{error.object[error.start]:#04x}", encoding, start)
                before += len(data)
            decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return _other_encoding(path, line, before, "the end of the file", encoding, start)
    except OSError:
        return None
    return None


def _other_encoding(path: Path, line: int, at: int, found: str, encoding: str, start: bytes) -> OtherEncoding:
    looks_like_utf16 = start[:2] in {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE}
    example = "utf-16" if looks_like_utf16 else "gb18030 or cp1252"
    return OtherEncoding(file=path, line=line, at=at, found=found, encoding=encoding, example=example)


class _Piece:
    """Turns pieces of one file into readings."""

    def __init__(self, path: Path, columns: Columns, tenant: str, writer: Sink, done: Imported) -> None:
        self.path = path
        self.columns = columns
        self.tenant = tenant
        self.writer = writer
        self.done = done
        self._ids: dict[tuple[str, str, str, str], int] = {}

    def store(self, table: "pa.RecordBatch") -> None:
        names = table.schema.names
        if self.columns.time not in names:
            raise MissingColumn(file=self.path, column=self.columns.time, there=", ".join(map(repr, names)))
        times, is_good = self._times(table.column(self.columns.time))
        is_long = set(names) >= _LONG
        rows = self._long(table, times, is_good) if is_long else self._wide(table, times, is_good)
        self.writer.store(rows[np.argsort(rows["ts"], kind="stable")])

    def _bad(self, row: int, column: str, problem: str) -> None:
        number = self.done.rows + row + 2  # the header is row 1
        error = BadRow(file=self.path, row=number, column=column, problem=problem)
        if not self.columns.skip_bad:
            raise error
        self.done.bad += 1
        if len(self.done.problems) < _PROBLEMS_SHOWN:
            self.done.problems.append(f"row {number}, column {column!r}: {problem}")

    def _times(self, column: "pa.Array") -> tuple[npt.NDArray[np.int64], Mask]:
        fast = _times_at_once(column, self.columns.time_zone)
        if fast is not None:
            return fast, np.ones(len(fast), dtype=bool)
        times = np.zeros(len(column), dtype=np.int64)
        is_good = np.ones(len(column), dtype=bool)
        for row, stamp in enumerate(column.to_pylist()):
            try:
                times[row] = read_instant(stamp, zone=self.columns.time_zone)
            except BadPayload as error:
                is_good[row] = False
                self._bad(row, self.columns.time, error.detail)
        return times, is_good

    def _values(self, column: "pa.Array", name: str, is_good: Mask) -> npt.NDArray[np.float64]:
        """Return a column as numbers; NaN where it is empty."""
        import pyarrow as pa
        import pyarrow.compute as pc

        try:
            values: npt.NDArray[np.float64] = (
                pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False).astype(np.float64)
            )
        except pa.ArrowInvalid:
            values = np.full(len(column), np.nan)
            for row, text in enumerate(column.to_pylist()):
                if text is None or not is_good[row]:
                    continue
                try:
                    values[row] = float(text)
                except ValueError:
                    is_good[row] = False
                    self._bad(row, name, f"{text!r} is not a number")
        values[np.isinf(values)] = np.nan
        return values

    def _long(self, table: "pa.RecordBatch", times: npt.NDArray[np.int64], is_good: Mask) -> ReadingArray:
        names = table.schema.names
        values = self._values(table.column("value"), "value", is_good)
        keys = [self._words(table, names, "site"), self._words(table, names, "machine")]
        keys += [self._words(table, names, "sensor"), self._words(table, names, "unit")]
        for what, column in zip(("site", "machine", "sensor"), keys, strict=False):
            for row in np.flatnonzero((column == "") & is_good):
                is_good[row] = False
                self._bad(int(row), what, "empty")
        places, at = np.unique(np.stack(keys)[:, is_good].astype(str), axis=1, return_inverse=True)
        ids = np.array(self._sensors([tuple(map(str, place)) for place in places.T]), dtype=np.int32)
        return _rows(ids[at] if len(ids) else np.empty(0, dtype=np.int32), times[is_good], values[is_good])

    def _wide(self, table: "pa.RecordBatch", times: npt.NDArray[np.int64], is_good: Mask) -> ReadingArray:
        for what in ("site", "machine"):
            if getattr(self.columns, what) is None:
                raise MissingPlace(file=self.path, what=what)
        names = [name for name in table.schema.names if name != self.columns.time]
        place = (str(self.columns.site), str(self.columns.machine))
        ids = self._sensors([(*place, *_name_and_unit(name)) for name in names])
        parts = []
        for name, sensor_id in zip(names, ids, strict=True):
            good = is_good.copy()
            values = self._values(table.column(name), name, good)
            good &= ~np.isnan(values)  # an empty cell is no reading
            parts.append(_rows(np.full(int(good.sum()), sensor_id, dtype=np.int32), times[good], values[good]))
        return np.concatenate(parts) if parts else _rows(np.empty(0, np.int32), times[:0], np.empty(0))

    def _words(self, table: "pa.RecordBatch", names: list[str], what: str) -> npt.NDArray[np.object_]:
        given = getattr(self.columns, what, None)
        if what not in names:
            if given is None and what != "unit":
                raise MissingPlace(file=self.path, what=what)
            return np.full(table.num_rows, given or "", dtype=object)
        words = table.column(what).to_pylist()
        return np.array([given or "" if word is None else str(word) for word in words], dtype=object)

    def _sensors(self, places: list[Any]) -> list[int]:
        missing = [place for place in places if place not in self._ids]
        if missing:
            self._ids.update(zip(missing, self.writer.sensors(self.tenant, missing), strict=True))
        return [self._ids[place] for place in places]


def _times_at_once(column: "pa.Array", zone: str) -> npt.NDArray[np.int64] | None:
    """Read a column of time stamps of one form; None where rows have to be looked at one by one."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if column.null_count or not len(column):
        return None if len(column) else np.empty(0, dtype=np.int64)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        try:
            column = pc.cast(column, pa.timestamp("us"))
        except pa.ArrowInvalid:
            try:
                column = pc.cast(column, pa.timestamp("us", "UTC"))
            except pa.ArrowInvalid:
                return None
    if not pa.types.is_timestamp(column.type):
        return None
    if column.type.tz is None:
        try:
            column = pc.assume_timezone(pc.cast(column, pa.timestamp("us")), zone)
        except pa.ArrowInvalid:  # an hour that a change of the clock skips or repeats
            return None
    stamps = pc.cast(column, pa.timestamp("us", "UTC"), safe=False)
    micros: npt.NDArray[np.int64] = pc.cast(stamps, pa.int64()).to_numpy(zero_copy_only=False).astype(np.int64)
    return micros


def _name_and_unit(header: str) -> tuple[str, str]:
    """Split the header of a wide column.

    >>> _name_and_unit("vibration [mm/s]"), _name_and_unit("state")
    (('vibration', 'mm/s'), ('state', ''))
    """
    found = re.fullmatch(r"(.+?)\s*\[([^\]]*)\]", header.strip())
    return (found[1], found[2].strip()) if found else (header.strip(), "")


def _rows(ids: npt.NDArray[np.int32], times: npt.NDArray[np.int64], values: npt.NDArray[np.float64]) -> ReadingArray:
    rows = np.empty(len(ids), dtype=READING_DTYPE)
    rows["sensor_id"], rows["ts"], rows["value"], rows["flags"] = ids, times, values, 0
    rows["quality"] = np.where(np.isnan(values), Quality.BAD, Quality.GOOD)
    return rows
