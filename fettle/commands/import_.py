"""`fettle import`: readings from a CSV or Parquet file."""

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from fettle import running
from fettle.commands.migrate import database_url
from fettle.settings import Settings
from ingest.api import Columns, bulk_writer, import_file


def add(verbs: Any) -> None:
    parser: argparse.ArgumentParser = verbs.add_parser(
        "import",
        help="store readings from a CSV or Parquet file; importing a file twice changes nothing",
        description="Two forms are read. Long: one reading per row, columns time, machine, sensor, value and perhaps site "
        "and unit. Wide: one instant per row, a column time and one column per sensor, its unit in brackets: "
        "'vibration [mm/s]'.",
    )
    parser.add_argument("file", type=Path, help="a file that ends in .csv, .csv.gz, .tsv or .parquet")
    parser.add_argument("--site", help="site code of readings that name none")
    parser.add_argument("--machine", help="equipment number of readings that name none")
    parser.add_argument("--time", default="time", metavar="COLUMN", help="column of time stamps (default: time)")
    parser.add_argument("--time-zone", default="UTC", help="of time stamps that name none (default: UTC)")
    parser.add_argument(
        "--encoding",
        default="utf-8",
        metavar="NAME",
        help="how the text of a CSV file is written, for example gb18030, cp1252 or utf-16 (default: utf-8)",
    )
    parser.add_argument("--skip-bad", action="store_true", help="leave out rows that cannot be read, and count them")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, settings: Settings) -> int:
    console = Console()
    settings = running.join(settings)
    columns = Columns(
        site=args.site,
        machine=args.machine,
        time=args.time,
        time_zone=args.time_zone,
        encoding=args.encoding,
        skip_bad=args.skip_bad,
    )
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(), console=console
    )
    with bulk_writer(settings, url=database_url(settings), name="import") as writer, bar:
        task = bar.add_task(args.file.name, total=1.0)
        done = import_file(
            args.file,
            columns,
            tenant=settings.tenant,
            writer=writer,
            on_progress=lambda share: bar.update(task, completed=share),
        )
        bar.update(task, completed=1.0)
    console.print(
        f"{done.rows} rows: {done.stored} readings stored, {done.duplicates} there already, "
        f"{done.collisions} with another value there already, {done.bad} rows left out."
    )
    for problem in done.problems:
        console.print(f"  {problem}")
    return 0
