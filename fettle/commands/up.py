"""`fettle up`: everything on this machine in one go."""

import argparse
from typing import Any

from rich.console import Console

from fettle import running
from fettle.settings import Settings
from fettle.stack import Interrupted, Stack, start_stack
from fettle.supervisor import stop_on_signals


def add(verbs: Any) -> None:
    parser: argparse.ArgumentParser = verbs.add_parser(
        "up",
        help="run everything on this machine: collect, detect, work and serve, with an embedded database and broker unless addresses are set",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, settings: Settings) -> int:
    del args
    console = Console(soft_wrap=True)
    try:
        with (
            stop_on_signals() as stop,
            running.hold(settings),
            start_stack(settings, stop=stop, report=lambda step: console.print(f"  {step}")) as stack,
        ):
            stack.start_verbs()
            stack.wait_until_serving()
            _welcome(console, stack)
            stack.watch()
    except Interrupted as interrupted:
        console.print(str(interrupted))
    return 0


def _welcome(console: Console, stack: Stack) -> None:
    parts = stack.running
    console.print(
        f"Board and API: [bold]{parts.api_url}[/]   broker: {parts.broker_host}:{parts.broker_port} ({parts.broker_kind})"
    )
    if parts.broker_kind == "amqtt":
        console.print(
            "The embedded broker keeps nothing through a restart: install Mosquitto before real sensors depend on it.",
            style="yellow",
        )
    console.print(
        f"First account: fettle account --login you --role admin.   Logs: {stack.settings.data_dir}/*.log   Ctrl-C stops everything."
    )
