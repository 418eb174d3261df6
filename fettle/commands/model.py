"""`fettle model`: versions of what was learned, and configurations of detection: list, show, shadow, promote, roll back, reset."""

import argparse
import asyncio
import getpass
import json
import sys
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.table import Table

from fettle import clock
from fettle.errors import FettleError
from fettle.settings import Settings

_WAIT_S = 5.0


class NotCarriedOut(FettleError):
    """Order {order} was given, but no process carried it out within {seconds} s. Is `fettle detect` running? It will be carried out when it is."""


def add(verbs: Any) -> None:
    parser: argparse.ArgumentParser = verbs.add_parser(
        "model",
        help="versions of what was learned of a machine, and configurations of detection",
        description="ACTION: list MACHINE; show MACHINE VERSION; promote MACHINE VERSION; rollback MACHINE; reset MACHINE; "
        "configs; keep NAME (with --config); compare NAME; promote-config NAME; rollback-config. A configuration in shadow "
        "runs as `fettle detect --shadow NAME`.",
    )
    parser.add_argument("action", choices=sorted(_ACTIONS), metavar="ACTION", help=", ".join(sorted(_ACTIONS)))
    parser.add_argument(
        "subject", nargs="?", metavar="MACHINE|NAME", help="equipment number, or name of a configuration"
    )
    parser.add_argument("version", nargs="?", metavar="VERSION", help="as `fettle model list` and findings give it")
    parser.add_argument("--site", help="code of the site, where several have a machine of that number")
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="keep: TOML of parameters that differ from the defaults"
    )
    parser.add_argument("--since", metavar="TIME", help="compare: from here on, ISO 8601 (default: since it was kept)")
    parser.add_argument("--reason", default="", help="why; kept with who did it")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, settings: Settings) -> int:
    asyncio.run(_ACTIONS[args.action](args, settings))
    return 0


class MissingArgument(FettleError):
    """fettle model {action} needs {what}."""


def _need(args: argparse.Namespace, *names: str) -> None:
    words = {"subject": "MACHINE or NAME", "version": "VERSION", "config": "--config FILE", "reason": "--reason"}
    for name in names:
        if not getattr(args, name):
            raise MissingArgument(action=args.action, what=words[name])


class _Place:
    """The database and the tenant that a call works on."""

    def __init__(self, settings: Settings) -> None:
        from fettle.commands.migrate import database_url
        from fettle.db import DatabaseRole, open_pool

        self._settings = settings
        self.pool = open_pool(database_url(settings), role=DatabaseRole.WORKER, name="fettle-model", size=2)
        self.by = getpass.getuser()

    async def __aenter__(self) -> Self:
        from fettle.wiring import find_tenant

        await self.pool.__aenter__()
        self.tenant_id = int(await find_tenant(self.pool, self._settings.tenant))
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.pool.close()

    def begin(self) -> Any:
        from fettle.db import transaction

        return transaction(self.pool, tenant_id=self.tenant_id)


async def _list(args: argparse.Namespace, settings: Settings) -> None:
    from anomaly.api import find_machine, list_versions

    _need(args, "subject")
    async with _Place(settings) as place, place.begin() as conn:
        machine = await find_machine(conn, tenant_id=place.tenant_id, number=args.subject, site=args.site)
        found = await list_versions(conn, tenant_id=place.tenant_id, machine_id=machine.id)
    if args.json:
        print(json.dumps(found, default=str, ensure_ascii=False, indent=1))
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("version", "trained from", "until", "tier", "hours", "findings", "sha256", "bytes"):
        table.add_column(name)
    for row in found:
        metrics = row["metrics"]
        table.add_row(
            row["version"], _time(row["trained_from"]), _time(row["trained_until"]), str(metrics["tier"]),
            f"{metrics['learned_hours']:.1f}", str(row["findings"]), row["sha256"][:12], str(row["bytes"]),
        )  # fmt: skip
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(table if found else f"Nothing is learned of {args.subject} yet.")


async def _show(args: argparse.Namespace, settings: Settings) -> None:
    from anomaly.api import NoSuchVersion, find_machine, find_version

    _need(args, "subject", "version")
    async with _Place(settings) as place, place.begin() as conn:
        machine = await find_machine(conn, tenant_id=place.tenant_id, number=args.subject, site=args.site)
        found = await find_version(conn, tenant_id=place.tenant_id, machine_id=machine.id, version=args.version)
    if found is None:
        raise NoSuchVersion(machine=args.subject, version=args.version)
    found["arrays"] = f"{len(found['arrays'])} bytes, checked against the SHA-256"
    print(json.dumps(found, default=str, ensure_ascii=False, indent=1))


async def _promote(args: argparse.Namespace, settings: Settings) -> None:
    from anomaly.api import activate, find_machine

    _need(args, "subject", "version", "reason")
    async with _Place(settings) as place:
        async with place.begin() as conn:
            machine = await find_machine(conn, tenant_id=place.tenant_id, number=args.subject, site=args.site)
            order = await activate(
                conn, tenant_id=place.tenant_id, machine_id=machine.id, number=machine.number, version=args.version,
                reason=args.reason, by=place.by, now=clock.now(),
            )  # fmt: skip
        await _wait(place, order, f"{args.subject} stays with version {args.version}")


async def _roll_back(args: argparse.Namespace, settings: Settings) -> None:
    from anomaly.api import activate, find_machine, previous_version

    _need(args, "subject", "reason")
    async with _Place(settings) as place:
        async with place.begin() as conn:
            machine = await find_machine(conn, tenant_id=place.tenant_id, number=args.subject, site=args.site)
            version = await previous_version(
                conn, tenant_id=place.tenant_id, machine_id=machine.id, number=machine.number
            )
            order = await activate(
                conn, tenant_id=place.tenant_id, machine_id=machine.id, number=machine.number, version=version,
                reason=args.reason, by=place.by, now=clock.now(),
            )  # fmt: skip
        await _wait(place, order, f"{args.subject} is back at version {version}")


async def _reset(args: argparse.Namespace, settings: Settings) -> None:
    from anomaly.api import find_machine, give_order

    _need(args, "subject", "reason")
    async with _Place(settings) as place:
        async with place.begin() as conn:
            machine = await find_machine(conn, tenant_id=place.tenant_id, number=args.subject, site=args.site)
            order = await give_order(
                conn, tenant_id=place.tenant_id, machine_id=machine.id, kind="reset", reason=args.reason, by=place.by,
                now=clock.now(),
            )  # fmt: skip
        await _wait(place, order, f"{args.subject} is learned anew")


async def _wait(place: _Place, order: int, words: str) -> None:
    from anomaly.api import wait_for_order

    took = await wait_for_order(place.pool, tenant_id=place.tenant_id, order=order, seconds=_WAIT_S)
    if took is None:
        raise NotCarriedOut(order=order, seconds=f"{_WAIT_S:g}")
    print(f"{words}, {took:.2f} s after the order.")


async def _configs(args: argparse.Namespace, settings: Settings) -> None:
    from anomaly.api import list_configs, list_promotions

    async with _Place(settings) as place, place.begin() as conn:
        kept, promotions = await list_configs(conn), await list_promotions(conn)
    last = promotions[0] if promotions else None
    in_force = last["name"] if last else None
    if args.json:
        body = {"in_force": in_force, "configurations": [vars_of(config) for config in kept], "promotions": promotions}
        print(json.dumps(body, default=str, ensure_ascii=False, indent=1))
        return
    print(f"In force: {in_force or 'the shipped configuration'}")
    for config in kept:
        differs = ", ".join(f"{name} = {value}" for name, value in config.body.items())
        print(
            f"  {config.name}  {config.digest}  {_time(config.created_at)} by {config.created_by}: {differs or 'as shipped'}"
        )


def vars_of(config: Any) -> dict[str, Any]:
    """Return a kept configuration as JSON values."""
    return {name: getattr(config, name) for name in ("id", "name", "digest", "body", "created_by", "created_at")}


async def _keep(args: argparse.Namespace, settings: Settings) -> None:
    from anomaly.api import EngineConfig, keep_config, read_config

    _need(args, "subject", "config")
    base = EngineConfig(false_tickets_per_machine_day=settings.false_tickets_per_machine_day)
    config = read_config(args.config, base=base)
    async with _Place(settings) as place, place.begin() as conn:
        kept = await keep_config(conn, name=args.subject, config=config, base=base, by=place.by, now=clock.now())
    print(f"Kept as {kept.name} ({kept.digest}). Run it in shadow: fettle detect --shadow {kept.name}")


async def _compare(args: argparse.Namespace, settings: Settings) -> None:
    from anomaly.api import compare_shadow, find_config

    _need(args, "subject")
    async with _Place(settings) as place, place.begin() as conn:
        config = await find_config(conn, name=args.subject)
        since = _instant(args.since) if args.since else config.created_at
        found = await compare_shadow(conn, tenant_id=place.tenant_id, config=config, since=since)
    if args.json:
        print(json.dumps(found, default=str, ensure_ascii=False, indent=1))
        return
    print(
        f"Since {_time(found['since'])}: live {found['live']} findings with a ticket, {found['config']} in shadow {found['shadow']}, "
        f"the same in both {found['both']}; live without a ticket {found['held']}."
    )
    for name, words in (("only_live", "only live"), ("only_shadow", "only in shadow")):
        for row in found[name]:
            print(
                f"  {words}: {row['number']} {row['fault_family']} ({row['severity']}), raised {_time(row['raised_at'])}"
            )


async def _promote_config(args: argparse.Namespace, settings: Settings) -> None:
    from anomaly.api import find_config, promote

    _need(args, "subject", "reason")
    async with _Place(settings) as place, place.begin() as conn:
        config = await find_config(conn, name=args.subject)
        await promote(conn, config_id=config.id, reason=args.reason, by=place.by, now=clock.now())
    print(f"{config.name} ({config.digest}) is in force; every detect process takes it up within two seconds.")


async def _roll_back_config(args: argparse.Namespace, settings: Settings) -> None:
    from anomaly.api import list_promotions, promote

    _need(args, "reason")
    async with _Place(settings) as place, place.begin() as conn:
        done = await list_promotions(conn)
        present = done[0]["config_id"] if done else None
        before = next((row for row in done if row["config_id"] != present), None)
        target = before["config_id"] if before else None
        await promote(conn, config_id=target, reason=args.reason, by=place.by, now=clock.now())
    print(f"{before['name'] if before and before['name'] else 'The shipped configuration'} is in force again.")


class BadTime(FettleError):
    """--since {given}: write an instant as ISO 8601, such as 2026-03-01 or 2026-03-01T06:00Z."""


def _instant(given: str) -> datetime:
    from anomaly.api import parse_instant_us, to_instant

    try:
        return to_instant(parse_instant_us(given))
    except ValueError as error:
        raise BadTime(given=given) from error


def _time(at: datetime | None) -> str:
    return "" if at is None else f"{at:%Y-%m-%d %H:%M}"


_ACTIONS = {
    "list": _list,
    "show": _show,
    "promote": _promote,
    "rollback": _roll_back,
    "reset": _reset,
    "configs": _configs,
    "keep": _keep,
    "compare": _compare,
    "promote-config": _promote_config,
    "rollback-config": _roll_back_config,
}
