"""Write the readings of a run to a file: Parquet or CSV, one row per reading or one row per machine and instant."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from fettle.errors import FettleError
from simulators.delivery import deliveries
from simulators.fleet import Fleet
from simulators.production import DAY_US
from simulators.signals import SIGNAL_UNITS

LAYOUTS = ("long", "wide", "delivered")


class FileKindUnknown(FettleError):
    """{path}: readings are written to .parquet or .csv; choose one of these endings."""


def write_readings(
    fleet: Fleet,
    start_us: int,
    end_us: int,
    path: Path,
    *,
    layout: str = "long",
    on_progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write the readings of [start, end) and return how many there are; equal runs give equal bytes.

    `layout` is `long` (a row per reading, in the order of time stamps within a day, machine by machine), `wide` (a row per
    machine and instant, a column per signal: what `fettle replay` reads), or `delivered` (a row per reading in order of
    arrival, with its time of arrival). `on_progress` is told (days done, days in all).

    Raises:
        FileKindUnknown: the ending is neither .parquet nor .csv.
    """
    if path.suffix not in {".parquet", ".csv"}:
        raise FileKindUnknown(path=path)
    schema = _schema(fleet, layout)
    writer: Any = pq.ParquetWriter(path, schema) if path.suffix == ".parquet" else pa_csv.CSVWriter(path, schema)
    count = done = 0
    days = list(range(start_us // DAY_US, -(-end_us // DAY_US)))
    with writer:
        for day in days:
            low, high = max(start_us, day * DAY_US), min(end_us, (day + 1) * DAY_US)
            for table, readings in _tables(fleet, low, high, layout, schema):
                writer.write_table(table)
                count += readings
            done += 1
            if on_progress:
                on_progress(done, len(days))
    return count


def _schema(fleet: Fleet, layout: str) -> Any:
    time = pa.timestamp("us", tz="UTC")
    head = [("time", time), ("site", pa.string()), ("machine", pa.string())]
    if layout == "wide":
        return pa.schema(head + [(s, pa.float64()) for s in fleet.scenario.signals])
    arrival = [("arrived", time)] if layout == "delivered" else []
    return pa.schema([*head, ("signal", pa.string()), ("value", pa.float64()), ("unit", pa.string()), *arrival])


def _tables(fleet: Fleet, low: int, high: int, layout: str, schema: Any) -> Iterator[tuple[Any, int]]:
    if layout == "delivered":
        rows = deliveries(fleet, low, high)
        machines, signals = fleet.machines, fleet.scenario.signals
        columns = [
            rows["ts"],
            _words([m.site for m in machines], rows["machine"]),
            _words([m.number for m in machines], rows["machine"]),
            _words(list(signals), rows["signal"]),
            rows["value"],
            _words([SIGNAL_UNITS[s] for s in signals], rows["signal"]),
            rows["deliver_us"],
        ]
        yield _table(columns, schema), rows.size
        return
    for machine in fleet.machines:
        series = list(fleet.generate(low, high, machines=(machine,)))
        if layout == "wide":
            times = np.unique(np.concatenate([s.times for s in series]))
            columns = [times, *_same(times.size, machine.site, machine.number)]
            for s in series:
                values = np.full(times.size, np.nan)
                values[np.searchsorted(times, s.times)] = s.values
                columns.append(pa.array(values, from_pandas=True))
            yield _table(columns, schema), sum(int(s.times.size) for s in series)
            continue
        for s in series:
            n = s.times.size
            site, number, signal, unit = _same(n, machine.site, machine.number, s.signal, s.unit)
            yield _table([s.times, site, number, signal, s.values, unit], schema), n


def _same(n: int, *words: str) -> list[Any]:
    return [
        pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), pa.array([w])).cast(pa.string()) for w in words
    ]


def _words(words: list[str], index: Any) -> Any:
    return pa.DictionaryArray.from_arrays(pa.array(index.astype(np.int32)), pa.array(words)).cast(pa.string())


def _table(columns: list[Any], schema: Any) -> Any:
    arrays = [
        pa.array(np.ascontiguousarray(c)).cast(field.type) if isinstance(c, np.ndarray) else c
        for c, field in zip(columns, schema, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=schema)
