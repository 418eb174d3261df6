"""`fettle collect`: store what arrives at the broker."""

import argparse
import asyncio
import signal
from typing import Any

from fettle.commands.migrate import database_url
from fettle.settings import Settings
from ingest.api import collect


def add(verbs: Any) -> None:
    parser: argparse.ArgumentParser = verbs.add_parser(
        "collect", help="store what arrives at the broker; a message is acknowledged when it is durable"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, settings: Settings) -> int:
    del args
    asyncio.run(_run(settings))
    return 0


async def _run(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await collect(settings, url=database_url(settings), stop=stop)
