"""`fettle migrate`: bring the database to this version's schema."""

import argparse
from typing import Any

from rich.console import Console

from fettle.errors import FettleError
from fettle.migrate import migrate
from fettle.settings import Settings


class NeedsDatabase(FettleError):
    """This verb needs a database: set FETTLE_DATABASE_URL, for example postgresql://fettle:secret@localhost/fettle, or use `fettle up`, which brings its own."""


def database_url(settings: Settings) -> str:
    """Return the database's URL from the settings.

    Raises:
        NeedsDatabase: none is set.
    """
    if settings.database_url is None:
        raise NeedsDatabase
    return settings.database_url.get_secret_value()


def add(verbs: Any) -> None:
    parser: argparse.ArgumentParser = verbs.add_parser("migrate", help="bring the database to this version's schema")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, settings: Settings) -> int:
    del args
    console = Console()
    done = migrate(
        database_url(settings),
        storage=settings.storage,
        tenant=settings.tenant,
        report=lambda name: console.print(f"  applied {name}"),
    )
    console.print(
        f"Schema is up to date: {len(done.applied)} applied. Readings: {done.storage} ({done.storage_reason})."
    )
    return 0
