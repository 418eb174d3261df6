"""Readings of a period in event time, a stretch at a time, from a file or from the database, in bounded memory.

file      batches ─▶ held back until no later batch can hold an earlier instant ─▶ stretches
database  one COPY for each stretch
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from anomaly.columns import IntArray
from anomaly.finding import MachineMeta, SensorMeta
from anomaly.store import to_instant, to_us
from fettle.db import DatabaseRole, connect_sync, load_queries
from fettle.errors import FettleError
from fettle.model import Flag, MachineId, Quality, SensorId, read_unit
from fettle.wire import READING_DTYPE, ReadingArray

if TYPE_CHECKING:
    from anomaly.files import FileReader

HOUR_US = 3_600_000_000
_MOST_HELD = 40_000_000  # readings held back at a time, 24 B each
_AIM = 400_000  # readings in a stretch
_COPY_EPOCH_US = 946_684_800_000_000  # PostgreSQL counts from 2000
_COPY_ROW = np.dtype(
    [
        ("fields", ">i2"),
        ("n0", ">i4"), ("sensor_id", ">i4"),
        ("n1", ">i4"), ("quality", ">i2"),
        ("n2", ">i4"), ("flags", ">i2"),
        ("n3", ">i4"), ("ts", ">i8"),
        ("n4", ">i4"), ("value", ">f8"),
    ]
)  # fmt: skip


class BadHistoryFile(FettleError):
    """{file} cannot be read: {problem}."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How to read a file where its header does not say.

    Attributes:
        time: column of the time stamps; by default one named time, timestamp, datetime, date or ts.
        machine: equipment number of all rows, where there is no column `machine`.
        units: unit by column or sensor name; one in the file wins.
        separator: of a CSV file; by default the likeliest in the header.
    """

    time: str | None = None
    machine: str = "machine"
    units: Mapping[str, str] = field(default_factory=dict)
    separator: str | None = None


class NothingStored(FettleError):
    """{where} holds no readings {what}. Check --machine, --from and --to."""


class NoSuchMachine(FettleError):
    """{where} has no machine {number!r}; it has {known}. Check --machine."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """The readings of the half-open period [start_us, end_us), in event-time order or not."""

    start_us: int
    end_us: int
    readings: ReadingArray


class History(Protocol):
    """Where a backtest takes its readings from: the period [start_us, end_us) of some machines."""

    name: str
    machines: Sequence[MachineMeta]
    sensors: Sequence[SensorMeta]
    start_us: int
    end_us: int

    def stretches(self) -> Iterator[Stretch]:
        """Yield the period in order, without the stretches that hold nothing."""


def pick_machines(where: str, machines: Sequence[MachineMeta], numbers: Sequence[str]) -> list[MachineMeta]:
    """Return the machines of these numbers, all where none is given.

    Raises:
        NoSuchMachine: a number is not there.
    """
    known = {m.number for m in machines}
    for number in numbers:
        if number not in known:
            some = ", ".join(sorted(known)[:8]) + (", …" if len(known) > 8 else "")
            raise NoSuchMachine(where=where, number=number, known=some or "none")
    return [m for m in machines if not numbers or m.number in numbers]


# -- files -----------------------------------------------------------------------------------------------------------


@dataclass
class FileHistory:
    """The readings of a CSV or Parquet file; machines and sensors are numbered in the order of their names."""

    name: str
    machines: Sequence[MachineMeta]
    sensors: Sequence[SensorMeta]
    start_us: int
    end_us: int
    _reader: "FileReader"
    _keys: list[str]  # words of a batch's keys
    _sensor_of: npt.NDArray[np.int32]  # sensor id by key, 0 where left out
    _ends: IntArray  # rows up to the end of each batch of the survey
    _earliest_us: IntArray  # earliest instant of that batch and all after it
    _length_us: int
    held: int = field(default=0)  # most readings held back at a time

    def stretches(self) -> Iterator[Stretch]:
        waiting: list[ReadingArray] = []
        done_us = self.start_us // self._length_us * self._length_us
        for batch in self._reader.readings(self._keys):
            ids = self._sensor_of[batch.key]
            wanted = (ids > 0) & (batch.ts >= self.start_us) & (batch.ts < self.end_us)
            rows = np.empty(int(wanted.sum()), dtype=READING_DTYPE)
            rows["sensor_id"], rows["ts"], rows["value"] = ids[wanted], batch.ts[wanted], batch.value[wanted]
            rows["quality"] = np.where(np.isfinite(rows["value"]), Quality.GOOD, Quality.BAD)
            rows["flags"] = 0
            waiting.append(rows)
            self.held = max(self.held, sum(map(len, waiting)))
            if self.held > _MOST_HELD:
                raise BadHistoryFile(
                    file=self.name,
                    problem=f"its rows are so far from the order of time that {_MOST_HELD:,} readings had to be held back; "
                    "sort it by time, or store it with `fettle import` and run the backtest on the database",
                )
            following = int(np.searchsorted(self._ends, batch.end, side="right"))
            until_us = self.end_us
            if following < len(self._ends):
                later_us = int(self._earliest_us[following])
                until_us = min(later_us // self._length_us * self._length_us, self.end_us)
            if until_us > done_us:
                ready, waiting = _split(np.concatenate(waiting), until_us)
                yield from self._cut(ready)
                done_us = until_us

    def _cut(self, readings: ReadingArray) -> Iterator[Stretch]:
        if not len(readings):
            return
        piece = readings["ts"] // self._length_us
        first = int(piece.min())
        order = np.argsort((piece - first).astype(np.int32), kind="stable")
        readings, piece = readings[order], piece[order]
        for part in np.split(readings, np.flatnonzero(np.diff(piece)) + 1):
            start_us = int(part["ts"][0]) // self._length_us * self._length_us
            yield Stretch(start_us, min(start_us + self._length_us, self.end_us), part)


def _split(readings: ReadingArray, until_us: int) -> tuple[ReadingArray, list[ReadingArray]]:
    is_ready = readings["ts"] < until_us
    return (readings, []) if is_ready.all() else (readings[is_ready], [readings[~is_ready]])


def open_file(
    path: Path,
    *,
    layout: Layout | None = None,
    numbers: Sequence[str] = (),
    start_us: int | None = None,
    end_us: int | None = None,
    plates: Mapping[str, Mapping[str, Any]] | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> FileHistory:
    """Read through a file once and return what it holds, ready to be read again.

    Args:
        path: a .csv, .csv.gz or .parquet file.
        layout: how to read it.
        numbers: only these machines.
        start_us: from here on; by default the first reading.
        end_us: up to but not including this instant; by default all.
        on_progress: told the share read so far, once through for the survey and once for the run.
        plates: by equipment number what its name plate says: `rated_current_a`, `class`, `iso_class`, `line`.

    Raises:
        BadHistoryFile: it cannot be read, with the remedy.
        NoSuchMachine, NothingStored: nothing is left to read.
    """
    from anomaly.files import FileReader  # Arrow is loaded where a file is read, not by every process

    reader = FileReader(path, layout or Layout(), on_progress=on_progress)
    survey = reader.survey()
    keys = sorted(survey.units)  # site, machine, sensor, joined
    places: dict[tuple[str, str], MachineMeta] = {}
    sensors: list[SensorMeta] = []
    key_of_sensor: dict[int, str] = {}
    for key in keys:
        site, number, name = key.split("\0")
        if (site, number) not in places:
            plate = (plates or {}).get(number, {})
            places[site, number] = MachineMeta(
                MachineId(len(places) + 1),
                number,
                machine_class=plate.get("class"),
                iso_class=plate.get("iso_class"),
                rated_current_a=plate.get("rated_current_a"),
                line=plate.get("line"),
                site=site or None,
            )
        kind, unit = read_unit(survey.units[key])
        sensor = SensorMeta(SensorId(len(sensors) + 1), places[site, number].machine_id, name, kind, unit)
        sensors.append(sensor)
        key_of_sensor[int(sensor.sensor_id)] = key
    machines = pick_machines(str(path), list(places.values()), numbers)
    chosen = {int(m.machine_id) for m in machines}
    sensors = [s for s in sensors if int(s.machine_id) in chosen]
    words = list(survey.units)
    place_of = {word: i for i, word in enumerate(words)}
    sensor_of = np.zeros(len(words), dtype=np.int32)
    for s in sensors:
        sensor_of[place_of[key_of_sensor[int(s.sensor_id)]]] = s.sensor_id
    low = max(survey.start_us, -(2**62) if start_us is None else start_us)
    high = min(survey.end_us, 2**62 if end_us is None else end_us)
    if low >= high:
        span = f"in that period; it reaches from {to_instant(survey.start_us):%Y-%m-%d %H:%M} to {to_instant(survey.end_us):%Y-%m-%d %H:%M} UTC"
        raise NothingStored(where=path, what=span)
    return FileHistory(
        str(path),
        machines,
        sensors,
        low,
        high,
        reader,
        words,
        sensor_of,
        np.array(survey.ends),
        np.minimum.accumulate(survey.first_us[::-1])[::-1],
        _length_for(survey.readings, survey.end_us - survey.start_us),
    )


def _length_for(readings: int, span_us: int) -> int:
    """Return the length of stretches of a handy number of readings, between a minute and a day."""
    aim = span_us * _AIM / max(readings, 1)
    lengths = [60_000_000 * m for m in (1, 5, 15, 60, 120, 180, 360, 720, 1440)]
    return max([length for length in lengths if length <= aim], default=lengths[0])


# -- the database ----------------------------------------------------------------------------------------------------


@dataclass
class StoredHistory:
    """The readings that collectors and imports stored."""

    name: str
    machines: Sequence[MachineMeta]
    sensors: Sequence[SensorMeta]
    start_us: int
    end_us: int
    _url: str

    def stretches(self) -> Iterator[Stretch]:
        query = "COPY (" + load_queries("anomaly").copy_readings + ") TO STDOUT (FORMAT BINARY)"
        ids = [int(s.sensor_id) for s in self.sensors]
        length_us, at_us = HOUR_US, self.start_us
        with connect_sync(self._url, role=DatabaseRole.WORKER, name="fettle backtest") as conn:
            while at_us < self.end_us:
                until_us = min(at_us // length_us * length_us + length_us, self.end_us)
                parameters = {"sensor_ids": ids, "start": to_instant(at_us), "stop": to_instant(until_us)}
                with conn.cursor() as cursor, cursor.copy(query, parameters) as copy:
                    readings = read_copy(b"".join(bytes(block) for block in copy))
                if len(readings):
                    yield Stretch(at_us, until_us, readings)
                if len(readings) > 2 * _AIM and length_us > 60_000_000:
                    length_us //= 2
                elif len(readings) < _AIM // 4 and length_us < 24 * HOUR_US:
                    length_us *= 2
                at_us = until_us


def read_copy(data: bytes) -> ReadingArray:
    """Return the rows of a binary COPY of the five columns of a reading, none of them null.

    What the sender marked as history is taken as live: whether it would have raised an alarm is the question.
    """
    body = np.frombuffer(data, dtype=_COPY_ROW, offset=19, count=(len(data) - 21) // _COPY_ROW.itemsize)
    readings = np.empty(len(body), dtype=READING_DTYPE)
    for name in ("sensor_id", "quality", "flags", "value"):
        readings[name] = body[name]
    readings["ts"] = body["ts"] + _COPY_EPOCH_US
    readings["flags"] &= ~Flag.HISTORICAL
    return readings


def open_stored(
    url: str,
    *,
    machines: Sequence[MachineMeta],
    sensors: Sequence[SensorMeta],
    numbers: Sequence[str] = (),
    start_us: int | None = None,
    end_us: int | None = None,
) -> StoredHistory:
    """Return the stored readings of machines; the whole stored period where no bound is given.

    Raises:
        NoSuchMachine: a number is not there.
        NothingStored: no reading of them lies in the period.
    """
    chosen = pick_machines("the database", machines, numbers)
    theirs = {int(m.machine_id) for m in chosen}
    mine = [s for s in sensors if int(s.machine_id) in theirs]
    with connect_sync(url, role=DatabaseRole.WORKER, name="fettle backtest") as conn:
        parameters = {
            "sensor_ids": [int(s.sensor_id) for s in mine],
            "start": _bound(start_us, -math.inf),
            "stop": _bound(end_us, math.inf),
        }
        row = conn.execute(load_queries("anomaly").find_reading_span, parameters).fetchone()
    if row is None or row[0] is None:
        raise NothingStored(where="the database", what="of these machines in that period")
    first_us, last_us = to_us(row[0]), to_us(row[1])
    low = first_us if start_us is None else max(first_us, start_us)
    high = last_us + 1 if end_us is None else min(last_us + 1, end_us)
    return StoredHistory("the database", chosen, mine, low, high, url)


def _bound(us: int | None, otherwise: float) -> datetime:
    if us is not None:
        return to_instant(us)
    return datetime.min.replace(tzinfo=UTC) if otherwise < 0 else datetime.max.replace(tzinfo=UTC)
