"""`fettle up`: everything on this machine in one go."""

import argparse
from typing import Any

from rich.console import Console

from fettle.settings import Settings
from fettle.stack import start_stack
from fettle.supervisor import stop_on_signals


def add(verbs: Any) -> None:
    parser: argparse.ArgumentParser = verbs.add_parser(
        "up",
        help="run everything on this machine: collect, detect, work and serve, with an embedded database and broker unless addresses are set",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, settings: Settings) -> int:
    del args
    console = Console()
    with stop_on_signals() as stop, start_stack(settings, report=lambda step: console.print(f"  {step}")) as stack:
        stack.start_verbs()
        stack.wait_until_serving()
        console.print(
            f"Board and API: [bold]{stack.running.api_url}[/]   broker: {stack.running.broker_host}:{stack.running.broker_port} ({stack.broker_kind})"
        )
        if stack.broker_kind == "amqtt":
            console.print(
                "The embedded broker keeps nothing through a restart: install Mosquitto before real sensors depend on it.",
                style="yellow",
            )
        console.print(
            f"First account: fettle account --login you --role admin.   Logs: {settings.data_dir}/*.log   Ctrl-C stops everything."
        )
        stack.watch(stop)
    return 0
