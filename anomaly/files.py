"""Reads CSV and Parquet files of readings in batches: one reading a row (long), or one instant a row (wide).

    long   time, [site], machine, sensor (or signal), value, [unit]
    wide   time, [site], [machine], then a column of numbers for each sensor, its unit in brackets: `vibration [mm/s]`

What `fettle simulate --out` writes, `arrived` included, is read as it is.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from anomaly.columns import FloatArray, IntArray
from anomaly.history import BadHistoryFile, Layout

_TIMES = ("time", "timestamp", "datetime", "date", "ts")
_SENSORS = ("sensor", "signal")
_LABELS = ("site", "machine")
_NOT_VALUES = {"arrived", "received"}
_IN_BRACKETS = re.compile(r"(?P<name>.+?)\s*[\[(](?P<unit>[^\])]*)[\])]")
_MISSING = ["", "NaN", "nan", "null", "NULL", "None", "NA", "N/A", "n/a", "-"]
_TIME_FORMS = [
    pa_csv.ISO8601,
    "%Y-%m-%d %H:%M",
    "%Y/%m/%d %H:%M:%S",
    "%Y/%m/%d %H:%M",
    "%d.%m.%Y %H:%M:%S",
    "%d.%m.%Y %H:%M",
]
_ROWS = 1 << 18
_DENSE = 1 << 22


@dataclass(frozen=True, slots=True)
class Rows:
    """Readings of a file in its order; `key` is a place in a list of keys."""

    key: npt.NDArray[np.int64]
    ts: IntArray
    value: FloatArray
    end: int  # rows of the file up to here


@dataclass
class Survey:
    """What a file holds. A key is site, machine and sensor, joined by a null character."""

    units: dict[str, str] = field(default_factory=dict)
    first_us: list[int] = field(default_factory=list)  # earliest instant of each batch
    ends: list[int] = field(default_factory=list)  # rows up to the end of each batch
    start_us: int = 2**62
    end_us: int = -(2**62)
    readings: int = 0


class FileReader:
    """Reads one file any number of times.

    Raises:
        BadHistoryFile: from the constructor and while reading, with row, column and remedy where known.
    """

    def __init__(self, path: Path, layout: Layout, *, on_progress: Callable[[float], None] | None = None) -> None:
        self._path = path
        self._layout = layout
        self._on_progress = on_progress
        self._scale = 0.0
        self._types: dict[str, Any] = {}
        if not path.is_file():
            raise self._bad("there is no such file; give the path of a .csv, .csv.gz or .parquet file")
        self._is_parquet = path.suffix == ".parquet"
        if not self._is_parquet and not path.name.endswith((".csv", ".csv.gz", ".tsv", ".txt")):
            raise self._bad("its ending is none of .csv, .csv.gz, .tsv and .parquet")
        schema = self._read_schema()
        self._names = [str(n) for n in schema.names]
        self._time = self._find_time()
        self._sensor = next((n for n in _SENSORS if n in self._names), None)
        self._is_long = self._sensor is not None and "value" in self._names
        self._values, self.left_out = self._find_values(schema)
        labels = [n for n in _LABELS if n in self._names]
        more = ["unit"] if self._is_long and "unit" in self._names else []
        sensor = [self._sensor] if self._is_long and self._sensor else []
        self._texts = [*labels, *sensor, *more]
        self._wanted = [self._time, *self._texts, *self._values]

    def _bad(self, problem: str) -> BadHistoryFile:
        return BadHistoryFile(file=self._path, problem=problem)

    # -- the header --------------------------------------------------------------------------------------------------

    def _read_schema(self) -> Any:
        try:
            if self._is_parquet:
                return pq.read_schema(self._path)
            with self._open_csv(None) as reader:
                return reader.schema
        except (pa.ArrowException, OSError) as error:
            raise self._bad(f"{error}") from error

    def _find_time(self) -> str:
        if self._layout.time is not None:
            if self._layout.time not in self._names:
                raise self._bad(f"it has no column {self._layout.time!r}; its columns are {', '.join(self._names)}")
            return self._layout.time
        for name in self._names:
            if name.strip().lower() in _TIMES:
                return name
        raise self._bad(
            f"none of its columns ({', '.join(self._names)}) is named {', '.join(_TIMES)}; name it with --time-column"
        )

    def _find_values(self, schema: Any) -> tuple[list[str], list[str]]:
        if self._is_long:
            return ["value"], []
        values: list[str] = []
        left_out: list[str] = []
        for name in self._names:
            kind = schema.field(name).type
            if name == self._time or name in _LABELS or name in _NOT_VALUES or not name.strip():
                continue
            is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
            (values if is_number or pa.types.is_null(kind) else left_out).append(name)
        if not values:
            raise self._bad(
                "it has no column of numbers beside the time; expected sensor and value columns, or a column for each sensor"
            )
        return values, left_out

    def _open_csv(self, columns: list[str] | None) -> Any:
        separator = self._layout.separator or self._find_separator()
        return pa_csv.open_csv(
            pa.input_stream(str(self._path), compression="detect"),
            read_options=pa_csv.ReadOptions(block_size=1 << 23),
            parse_options=pa_csv.ParseOptions(delimiter=separator),
            convert_options=pa_csv.ConvertOptions(
                column_types=self._types,
                include_columns=columns,
                null_values=_MISSING,
                strings_can_be_null=True,
                timestamp_parsers=_TIME_FORMS,
            ),
        )

    def _find_separator(self) -> str:
        with pa.input_stream(str(self._path), compression="detect") as stream:
            header = stream.read(65_536).decode("utf-8", "replace").partition("\n")[0]
        return max((",", ";", "\t", "|"), key=header.count)

    # -- batches -----------------------------------------------------------------------------------------------------

    def _batches(self) -> Iterator[Any]:
        try:
            if self._is_parquet:
                file = pq.ParquetFile(self._path, read_dictionary=self._texts)
                total, done = max(file.metadata.num_rows, 1), 0
                for batch in file.iter_batches(batch_size=_ROWS, columns=self._wanted):
                    yield batch
                    done += batch.num_rows
                    self._tell(done / total)
                return
            self._pin_types()
            with self._open_csv(self._wanted) as reader:
                size, done = max(self._path.stat().st_size, 1), 0
                for batch in reader:
                    yield batch
                    done += batch.nbytes
                    self._tell(min(done / size, 1.0))
        except (pa.ArrowException, OSError) as error:
            raise self._bad(f"{error}; correct the row, or leave the column out") from error

    def _pin_types(self) -> None:
        """Fix the types that Arrow guessed from the first block: a later one may have fractions where it had none."""
        with self._open_csv(self._wanted) as reader:
            kind = reader.schema.field(self._time).type
        if pa.types.is_timestamp(kind):
            self._types[self._time] = pa.timestamp("ns", tz=kind.tz)
        elif pa.types.is_integer(kind):
            self._types[self._time] = pa.float64()
        self._types |= dict.fromkeys(self._values, pa.float64())
        self._types |= dict.fromkeys(self._texts, pa.string())

    def _tell(self, share: float) -> None:
        if self._on_progress:
            self._on_progress(share)

    def _micros(self, column: Any, row: int) -> IntArray:
        if column.null_count:
            at = row + int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
            raise self._bad(f"column {self._time!r} is empty in row {at + 1} below the header; give every row its time")
        kind = column.type
        if pa.types.is_integer(kind) or pa.types.is_floating(kind):
            numbers = column.to_numpy(zero_copy_only=False)
            if not self._scale and len(numbers):
                size = abs(float(numbers[0]))
                self._scale = 1e6 if size < 1e11 else 1e3 if size < 1e14 else 1.0 if size < 1e17 else 1e-3
            scaled: IntArray = np.rint(numbers.astype(np.float64) * self._scale).astype(np.int64)
            return scaled
        if pa.types.is_timestamp(kind) or pa.types.is_date(kind) or pa.types.is_string(kind):
            zone = kind.tz if pa.types.is_timestamp(kind) else None
            try:
                instants = column.cast(pa.timestamp("us", tz=zone), safe=False)
            except pa.ArrowException as error:
                raise self._bad(
                    f"column {self._time!r} holds {str(column[0])!r}, which is no time that is understood; "
                    "write ISO 8601 (2026-03-02T06:00:00Z) or seconds or milliseconds since 1970"
                ) from error
            micros: IntArray = instants.cast(pa.int64()).to_numpy(zero_copy_only=False)
            return micros
        raise self._bad(f"column {self._time!r} holds {kind}, expected times; name the right one with --time-column")

    def survey(self) -> Survey:
        """Read through the file once: which sensors, which units, which period, how far from the order of time."""
        found = Survey()
        rows = 0
        for batch in self._batches():
            if not batch.num_rows:
                continue
            ts = self._micros(batch.column(self._time), rows)
            rows += batch.num_rows
            found.first_us.append(int(ts.min()))
            found.ends.append(rows)
            found.start_us = min(found.start_us, int(ts.min()))
            found.end_us = max(found.end_us, int(ts.max()) + 1)
            keys, _, first = self._keys(batch, rows - batch.num_rows)
            found.readings += batch.num_rows * (1 if self._is_long else len(self._values))
            units = batch.column("unit") if "unit" in self._texts else None
            for key, row in zip(keys, first, strict=True):
                if self._is_long:
                    unit = None if units is None else units[int(row)].as_py()
                    name = key.rpartition("\0")[2]
                    if not found.units.get(key):
                        found.units[key] = unit or self._layout.units.get(name, "")
                    continue
                for column in self._values:
                    name, unit = self._name_and_unit(column)
                    found.units.setdefault(f"{key}\0{name}", unit)
        if not rows:
            raise self._bad("it has a header and no rows")
        return found

    def _name_and_unit(self, column: str) -> tuple[str, str]:
        match = _IN_BRACKETS.fullmatch(column.strip())
        if match:
            return match["name"], match["unit"]
        return column.strip(), self._layout.units.get(column.strip(), "")

    def _keys(self, batch: Any, row: int) -> tuple[list[str], IntArray, IntArray]:
        """Return the keys of a batch, each row's place among them, and the first row of each."""
        n = batch.num_rows
        combined = np.zeros(n, dtype=np.int64)
        words: list[list[str]] = []
        for name in ("site", "machine", self._sensor if self._is_long else None):
            if name is None:
                continue
            if name not in self._texts:
                words.append(["" if name == "site" else self._layout.machine])
                continue
            column = batch.column(name)
            if column.null_count and name != "site":
                at = row + int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
                raise self._bad(f"column {name!r} is empty in row {at + 1} below the header; give every row its {name}")
            column = column.dictionary_encode() if not pa.types.is_dictionary(column.type) else column
            words.append([str(w or "") for w in column.dictionary.to_pylist()] or [""])
            combined *= len(words[-1])
            combined += column.indices.fill_null(0).to_numpy(zero_copy_only=False)
        size = int(np.prod([len(w) for w in words]))
        if size > _DENSE:
            present, first, place = np.unique(combined, return_index=True, return_inverse=True)
        else:
            first_of = np.full(size, -1, dtype=np.int64)
            first_of[combined[::-1]] = np.arange(n - 1, -1, -1)
            present = np.flatnonzero(first_of >= 0)
            place_of = np.zeros(size, dtype=np.int64)
            place_of[present] = np.arange(len(present))
            first, place = first_of[present], place_of[combined]
        keys = []
        for code in present.tolist():
            parts: list[str] = []
            for level in reversed(words):
                code, at = divmod(code, len(level))  # noqa: PLW2901 -- the rest is the next level's
                parts.append(level[at])
            keys.append("\0".join(reversed(parts)))
        return keys, place, first

    def readings(self, keys: list[str]) -> Iterator[Rows]:
        """Yield the readings, `key` being the place in `keys`; an empty cell of a wide file is no reading."""
        place_of = {key: i for i, key in enumerate(keys)}
        rows = 0
        for batch in self._batches():
            if not batch.num_rows:
                continue
            ts = self._micros(batch.column(self._time), rows)
            found, place, _ = self._keys(batch, rows)
            rows += batch.num_rows
            if self._is_long:
                key = np.array([place_of[k] for k in found], dtype=np.int64)[place]
                yield Rows(key, ts, _floats(batch.column("value")), rows)
                continue
            parts = []
            for column in self._values:
                value = _floats(batch.column(column))
                name, _ = self._name_and_unit(column)
                key = np.array([place_of[f"{k}\0{name}"] for k in found], dtype=np.int64)[place]
                is_there = np.isfinite(value)
                parts.append((key, ts, value) if is_there.all() else (key[is_there], ts[is_there], value[is_there]))
            key, ts, value = (np.concatenate(column) for column in zip(*parts, strict=True))
            yield Rows(key, ts, value, rows)


def _floats(column: Any) -> FloatArray:
    values: FloatArray = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return values
