"""`fettle serve`: the API and the board."""

import argparse
import asyncio
from typing import Any

import uvicorn

from fettle import logs
from fettle.commands.migrate import database_url
from fettle.settings import Settings
from fettle.stack import PortTaken, is_free
from fettle.wiring import web_application


def add(verbs: Any) -> None:
    parser: argparse.ArgumentParser = verbs.add_parser("serve", help="serve the API and the board")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, settings: Settings) -> int:
    del args
    if settings.api_port and not is_free(settings.api_host, settings.api_port):
        raise PortTaken(port=settings.api_port, host=settings.api_host)
    asyncio.run(_serve(settings))
    return 0


async def _serve(settings: Settings) -> None:
    async with web_application(settings, url=database_url(settings)) as app:
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                host=settings.api_host,
                port=settings.api_port,
                log_config=None,
                access_log=False,
                lifespan="off",
                timeout_graceful_shutdown=3,
                server_header=False,
            )
        )
        logs.get("serve").info("serve.started", host=settings.api_host, port=settings.api_port)
        await server.serve()
