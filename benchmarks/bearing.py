"""Run-to-failure bearing records through the engine, one file after the other: is the failing machine found, when, how often.

A file is a CSV: a time column (row numbers before it are ignored), then one numeric column per channel; its end is the
failure. All channels of a file are sensors of one machine. The engine sees each row once, in order, in its one shipped
configuration; names steer nothing. Printed beside it: a static 3-sigma rule on the first 20 % of each file's rows, which
needs to know the file's length, and silence.
"""

import argparse
import csv
import platform
import re
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from anomaly.api import Change, Engine, EngineConfig, MachineMeta, SensorMeta
from fettle.errors import FettleError
from fettle.model import MachineId, Quality, SensorId, read_unit
from fettle.wire import READING_DTYPE

FOUND_BEFORE = 0.95  # share of life
EARLY = 0.10  # share of the life after the baseline


class BadRecord(FettleError):
    """{path} line {line}: {why}. Expected a header, then a time and one number per channel in every row."""


def read_time(text: str) -> float:
    """Return seconds since 1970 of a time written as ISO 8601, with dots between all its parts, or as a number.

    >>> read_time("2004.02.12.10.32.39") == read_time("2004-02-12 10:32:39")
    True
    """
    parts = re.split(r"[-./: T]+", text.strip().removesuffix("Z"))
    if len(parts) >= 6 and len(parts[0]) == 4:
        year, month, day, hour, minute, second = (int(p) for p in parts[:6])
        fraction = float("0." + parts[6]) if len(parts) > 6 and parts[6].isdigit() else 0.0
        return datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp() + fraction
    try:
        return datetime.fromisoformat(text.strip()).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return float(text)


def read_record(path: Path) -> tuple[list[str], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return channel names, seconds, and values (time, channel).

    Raises:
        BadRecord: a row does not hold a time and a number per channel.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.reader(file))
    header, body = rows[0], rows[1:]
    first = 1 if not header[0].strip() or header[0].strip().lower() in {"index", "row"} else 0
    names = header[first + 1 :]
    seconds, values = [], []
    for line, row in enumerate(body, start=2):
        try:
            seconds.append(read_time(row[first]))
            values.append([float(v) if v.strip() else float("nan") for v in row[first + 1 : first + 1 + len(names)]])
        except (ValueError, IndexError) as error:
            raise BadRecord(path=path, line=line, why=str(error)) from error
    return names, np.array(seconds), np.array(values)


def replay(
    names: list[str],
    seconds: npt.NDArray[np.float64],
    values: npt.NDArray[np.float64],
    *,
    unit: str,
    progress: Progress,
) -> tuple[list[tuple[float, str]], float | None]:
    """Return the raised findings (share of life, first sensor), and the share of life at which learned verdicts begin."""
    kind, canonical = read_unit(unit)
    engine = Engine(EngineConfig())
    machine = MachineId(1)
    engine.register(
        [MachineMeta(machine, "rig")],
        [SensorMeta(SensorId(i), machine, name, kind, canonical) for i, name in enumerate(names, start=1)],
    )
    span = seconds[-1] - seconds[0]
    raised: list[tuple[float, str]] = []
    baseline: float | None = None
    batch = np.zeros(len(names), dtype=READING_DTYPE)
    batch["sensor_id"] = np.arange(1, len(names) + 1)
    batch["quality"] = Quality.GOOD
    task = progress.add_task("rows", total=len(seconds))
    for second, row in zip(seconds, values, strict=True):
        batch["ts"] = round(second * 1e6)
        batch["value"] = row
        for event in engine.fold(batch, round(second * 1e6)):
            if event.change is Change.RAISED:
                share = float((event.at_us / 1e6 - seconds[0]) / span)
                raised.append((share, str(event.finding.evidence["first_out"]["sensor"])))
        if baseline is None and engine.machines.tier[0] > 0:
            baseline = (second - seconds[0]) / span
        progress.advance(task)
    progress.remove_task(task)
    return raised, baseline


def static_three_sigma(values: npt.NDArray[np.float64]) -> float | None:
    """Return the share of rows after which |z| > 3 held on some channel for three rows, on the first 20 % of rows."""
    n = len(values) // 5
    z = np.abs((values - np.nanmean(values[:n], axis=0)) / np.maximum(np.nanstd(values[:n], axis=0), 1e-12))
    over = (z[n:] > 3).any(axis=1)
    three = np.flatnonzero(over[2:] & over[1:-1] & over[:-2])
    return float((n + 2 + three[0]) / len(values)) if len(three) else None


def run(argv: list[str]) -> dict[str, object]:
    parser = argparse.ArgumentParser(prog="benchmarks bearing", description=__doc__)
    parser.add_argument("--data", nargs="+", type=Path, required=True, help="run-to-failure CSV files")
    parser.add_argument("--unit", default="g", help="unit of the channels (default: g)")
    args = parser.parse_args(argv)
    console = Console(stderr=False)
    config = EngineConfig()
    console.print(
        f"bearing: python {platform.python_version()}, numpy {np.__version__}, configuration {config.digest()}, no randomness"
    )
    table = Table(
        "file",
        "days",
        "rows",
        "verdicts from",
        "tickets",
        "first ticket",
        "first sensor",
        "lead, days",
        "static 3-sigma from",
    )
    files: dict[str, dict[str, object]] = {}
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for path in args.data:
            names, seconds, values = read_record(path)
            raised, baseline = replay(names, seconds, values, unit=args.unit, progress=progress)
            days = (seconds[-1] - seconds[0]) / 86400
            first = raised[0][0] if raised else None
            start = baseline if baseline is not None else 1.0
            is_early = any(share < start + EARLY * (1 - start) for share, _ in raised)
            files[path.name] = {
                "lead_share_of_life": None if first is None else 1 - first,
                "lead_days": None if first is None else float((1 - first) * days),
                "tickets": len(raised),
                "first_ticket_time": None
                if first is None
                else datetime.fromtimestamp(seconds[0] + first * days * 86400, UTC).isoformat(),
                "first_sensor": raised[0][1] if raised else None,
                "is_found": bool(first is not None and first < FOUND_BEFORE),
                "is_early_false": bool(is_early),
            }
            static = static_three_sigma(values)
            table.add_row(
                path.name,
                f"{days:.2f}",
                str(len(seconds)),
                f"{start:.1%}",
                str(len(raised)),
                "none" if first is None else f"{first:.1%}",
                raised[0][1] if raised else "",
                "" if first is None else f"{(1 - first) * days:.2f}",
                "never" if static is None else f"{static:.1%}",
            )
    console.print(table)
    n = len(files)
    return {
        "files": files,
        "found_share": sum(bool(f["is_found"]) for f in files.values()) / n,
        "early_false_share": sum(bool(f["is_early_false"]) for f in files.values()) / n,
        "max_tickets": max(int(str(f["tickets"])) for f in files.values()),
    }
