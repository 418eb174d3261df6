"""`fettle work`: send the right engineer to each ticket that waits."""

import argparse
import asyncio
import signal
from typing import Any

from dispatch.api import work
from fettle.commands.migrate import database_url
from fettle.db import DatabaseRole, open_pool
from fettle.settings import Settings


def add(verbs: Any) -> None:
    parser: argparse.ArgumentParser = verbs.add_parser("work", help="send the right engineer to each ticket that waits")
    parser.add_argument(
        "--poll-s", type=float, default=2.0, metavar="SECONDS", help="look for work at least this often (default: 2)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, settings: Settings) -> int:
    asyncio.run(_run(args, settings))
    return 0


async def _run(args: argparse.Namespace, settings: Settings) -> None:
    url = database_url(settings)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with open_pool(url, role=DatabaseRole.WORKER, name="fettle-work", size=4) as pool:
        await work(url, pool, stop=stop, poll_s=args.poll_s)
