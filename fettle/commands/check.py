"""`fettle check`, the doctor: one line per part, with the remedy where it is red."""

import argparse
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.markup import escape

from fettle.doctor import (
    Diagnosis,
    diagnose_broker,
    diagnose_database,
    diagnose_detection,
    diagnose_grafana,
    diagnose_migrations,
    diagnose_settings,
    probe_queue,
)
from fettle.settings import Settings

PARTS: dict[str, Callable[[Settings], list[Diagnosis]]] = {
    "settings": diagnose_settings,
    "database": diagnose_database,
    "migrations": diagnose_migrations,
    "broker": diagnose_broker,
    "detection": diagnose_detection,
    "grafana": diagnose_grafana,
}
_MARK = {"green": "[green]ok  [/]", "yellow": "[yellow]warn[/]", "red": "[red]FAIL[/]"}


def add(verbs: Any) -> None:
    parser: argparse.ArgumentParser = verbs.add_parser(
        "check", help="the doctor: settings, database, migrations, broker and Grafana, one line each"
    )
    parser.add_argument("--part", action="append", choices=tuple(PARTS), help="check only this part; may be repeated")
    parser.add_argument("--probe", action="store_true", help="also measure the broker's queue with 1100 small messages")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, settings: Settings) -> int:
    console = Console(soft_wrap=True)
    failed = False
    parts = [PARTS[part] for part in args.part or PARTS]
    if args.probe:
        parts.append(probe_queue)
    for look in parts:
        for found in look(settings):
            failed |= found.colour == "red"
            console.print(f"{_MARK[found.colour]} [bold]{escape(found.part)}[/]  {escape(found.text)}")
            if found.remedy:
                console.print(f"     → {escape(found.remedy)}")
    return 1 if failed else 0
