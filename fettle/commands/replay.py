"""`fettle replay`: publish the columns of a CSV file as readings, all of it or, where the file is wrong, nothing."""

import argparse
import math
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fettle import clock, running
from fettle.settings import Settings


def add(verbs: Any) -> None:
    parser: argparse.ArgumentParser = verbs.add_parser(
        "replay", help="publish the columns of a CSV file as readings, with their own time stamps or shifted to now"
    )
    parser.add_argument("file", type=Path, help="the CSV file, with a header line")
    parser.add_argument("--time-column", required=True, metavar="COLUMN", help="column of the time stamps")
    whose = parser.add_mutually_exclusive_group(required=True)
    whose.add_argument("--machine", default="", help="number of the machine the readings belong to")
    whose.add_argument("--machine-column", metavar="COLUMN", help="column that says it, row by row")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--site", default="default", help="site of the machine (default: default)")
    where.add_argument("--site-column", metavar="COLUMN", help="column that says it, row by row")
    parser.add_argument("--tenant", help="tenant (default: FETTLE_TENANT)")
    parser.add_argument("--columns", metavar="A,B", help="only these columns; separated by commas")
    parser.add_argument(
        "--without", action="append", default=[], metavar="COLUMN", help="leave a column out; may be repeated"
    )
    parser.add_argument(
        "--unit",
        action="append",
        default=[],
        metavar="UNIT|COLUMN=UNIT",
        help="unit of all columns, or of one; may be repeated",
    )
    parser.add_argument(
        "--rename",
        action="append",
        default=[],
        metavar="COLUMN=SENSOR",
        help="publish a column under another name; may be repeated",
    )
    parser.add_argument(
        "--speed", type=float, default=1.0, help="recorded seconds per second; 0 is as fast as possible (default: 1)"
    )
    parser.add_argument(
        "--client",
        choices=("auto", "paho", "batch"),
        default="auto",
        help="who publishes: paho, or the batch publisher that takes less CPU a message (default: auto, which is paho up to "
        "2000 readings a second and batch above and with --speed 0)",
    )
    parser.add_argument("--shift-to-now", action="store_true", help="shift the time stamps so that the last one is now")
    parser.add_argument(
        "--time-format",
        help="how times are written, for strptime, or epoch_s, epoch_ms, epoch_us (default: found from the first row)",
    )
    parser.add_argument(
        "--utc-offset", type=float, default=0.0, metavar="HOURS", help="zone of times that carry none (default: 0, UTC)"
    )
    parser.add_argument("--separator", help="between columns (default: found from the header)")
    parser.add_argument("--decimal", choices=(".", ","), default=".", metavar="SIGN", help="decimal sign (default: .)")
    parser.add_argument("--from-line", type=int, default=0, metavar="N", help="go on at this line of the file")
    parser.add_argument("--check", action="store_true", help="read and check the file, publish nothing")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, settings: Settings) -> int:
    from simulators import api

    console = Console(stderr=True, soft_wrap=True)
    if not 0 <= args.speed < math.inf:
        print(
            f"fettle: --speed {args.speed:g}: must be a number, 0 or more (0 is as fast as possible)", file=sys.stderr
        )
        return 2
    if args.from_line < 0:
        print(f"fettle: --from-line {args.from_line}: must be a line of the file; the first is 1", file=sys.stderr)
        return 2
    recording = api.read_recording(
        args.file,
        time_column=args.time_column,
        columns=[c.strip() for c in args.columns.split(",")] if args.columns else (),
        without=args.without,
        label_columns=[c for c in (args.site_column, args.machine_column) if c],
        separator="\t" if args.separator in {"\\t", "tab"} else args.separator,
        time_format=args.time_format,
        utc_offset_h=args.utc_offset,
        decimal=args.decimal,
    )
    try:
        units, names = _units(args.unit, recording.columns), _pairs("--rename", args.rename, recording.columns)
    except ValueError as error:
        print(f"fettle: {error}", file=sys.stderr)
        return 2
    shift_us = clock.now_us() - int(recording.times.max()) if args.shift_to_now else 0
    if recording.ignored:
        console.print(f"left out: {', '.join(recording.ignored)}", markup=False)
    if recording.backwards:
        console.print(
            f"note: {recording.backwards} rows lie before the row above; they are published in the order of the file",
            markup=False,
        )
    print(
        f"{args.file}: {recording.times.size} rows, {recording.readings} readings in {len(recording.columns)} columns, all well formed"
    )
    if args.check:
        return 0
    with Progress(
        TextColumn("replay"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[acknowledged]} acknowledged"),
        TimeRemainingColumn(),
        console=console,
    ) as bar:
        task = bar.add_task("replay", total=recording.readings, acknowledged=0)
        done = api.publish_recording(
            recording,
            address=api.BrokerAddress.of(running.join(settings)),
            tenant=args.tenant or settings.tenant,
            site=args.site,
            machine=args.machine,
            site_column=args.site_column,
            machine_column=args.machine_column,
            units=units,
            names=names,
            speed=args.speed,
            shift_us=shift_us,
            from_line=args.from_line,
            on_progress=lambda sent, acknowledged, total: bar.update(
                task, completed=sent, acknowledged=acknowledged, total=total
            ),
            client=args.client,
            on_connected=lambda who: console.print(f"client: {who}", markup=False),
        )
    print(f"sent {done.sent} readings, {done.acknowledged} acknowledged by the broker, in {done.elapsed_s:.1f} s")
    return 0 if done.acknowledged == done.total else 1


def _pairs(option: str, given: list[str], columns: Any) -> dict[str, str]:
    out = {}
    for pair in given:
        column, sign, value = pair.rpartition("=")
        if not sign or not value or column not in columns:
            raise ValueError(f"{option} {pair}: expected COLUMN=VALUE with one of the columns {', '.join(columns)}")
        out[column] = value
    return out


def _units(given: list[str], columns: Any) -> dict[str, str]:
    everywhere = [u for u in given if "=" not in u]
    if len(everywhere) > 1:
        raise ValueError(f"--unit is given for all columns {len(everywhere)} times; write COLUMN=UNIT for single ones")
    units = dict.fromkeys(columns, everywhere[0]) if everywhere else {}
    return units | _pairs("--unit", [u for u in given if "=" in u], columns)
