"""`fettle detect`: watch the readings that collectors store, and raise findings."""

import argparse
import asyncio
import signal
from typing import Any

from anomaly.api import EngineConfig, load_limits, watch
from fettle.commands.migrate import database_url
from fettle.db import DatabaseRole, open_pool
from fettle.settings import Settings


def add(verbs: Any) -> None:
    parser: argparse.ArgumentParser = verbs.add_parser("detect", help="watch stored readings and raise findings")
    parser.add_argument("--shard", help="part of the fleet this process watches, k/n (default: FETTLE_DETECT_SHARD)")
    parser.add_argument("--limits", help="TOML file of limits to use instead of the shipped ones")
    parser.add_argument(
        "--rebuild", action="store_true", help="forget what was learned and learn again from the ledger of batches"
    )
    parser.add_argument(
        "--shadow",
        metavar="NAME",
        help="fold with this kept configuration beside the live one; what it finds is stored apart and opens no ticket",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, settings: Settings) -> int:
    asyncio.run(_run(args, settings))
    return 0


async def _run(args: argparse.Namespace, settings: Settings) -> None:
    from fettle.wiring import list_closings, ticket_opener

    url = database_url(settings)
    shard = args.shard or settings.detect_shard
    config = EngineConfig(false_tickets_per_machine_day=settings.false_tickets_per_machine_day)
    limits = load_limits(args.limits) if args.limits else None
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with open_pool(url, role=DatabaseRole.WORKER, name="detect-tickets", size=2) as pool:
        await watch(
            url,
            shard=shard,
            config=config,
            on_event=ticket_opener(pool),
            stop=stop,
            limits=limits,
            closings=list_closings,
            shadow=args.shadow,
            rebuild=args.rebuild,
        )
