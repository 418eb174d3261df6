"""`fettle company FILE`: load sites, machines, engineers and accounts from a TOML file."""

import argparse
import asyncio
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from fettle.commands.migrate import database_url
from fettle.company import read_company
from fettle.settings import Settings
from fettle.wiring import load_company


def add(verbs: Any) -> None:
    parser: argparse.ArgumentParser = verbs.add_parser(
        "company", help="load sites, machines, engineers and accounts from a TOML file; may be repeated after changes"
    )
    parser.add_argument("file", type=Path, help="the company file; docs/how-to/describe-your-company.md shows one")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, settings: Settings) -> int:
    company = read_company(args.file)
    loaded = asyncio.run(load_company(database_url(settings), tenant=settings.tenant, company=company))
    console = Console()
    console.print(
        f"Tenant {settings.tenant}: {loaded.sites} sites, {loaded.machines} machines, {loaded.customers} customers, "
        f"{loaded.engineers} engineers, {loaded.accounts} accounts."
    )
    if loaded.new_passwords:
        table = Table("login", "password", title="New passwords, shown this once")
        for login, password in loaded.new_passwords.items():
            table.add_row(login, password)
        console.print(table)
    return 0
