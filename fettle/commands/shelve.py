"""`fettle shelve`: keep a machine from making tickets for a while, list what does, and end it."""

import argparse
import asyncio
import getpass
import re
from datetime import timedelta
from typing import Any

from fettle import clock
from fettle.errors import FettleError
from fettle.model import FaultFamily
from fettle.settings import Settings

_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


class BadDuration(FettleError):
    """--for {given}: write a number and m, h or d, such as 90m, 8h or 3d."""


class NoDuration(FettleError):
    """Say for how long with --for, such as --for 8h: nothing stays silent without an end."""


class NotOfMachine(FettleError):
    """Inhibition {number} is not of machine {machine}. `fettle shelve {machine}` lists those it has."""


def add(verbs: Any) -> None:
    parser: argparse.ArgumentParser = verbs.add_parser(
        "shelve",
        help="keep a machine from making tickets for a while, with a reason; list and end what does",
        description="Without --for: list what keeps MACHINE from making tickets. Findings are stored all the same; one that is "
        "still raised at the end makes its ticket then.",
    )
    parser.add_argument("machine", metavar="MACHINE", help="equipment number")
    parser.add_argument("--site", help="code of the site, where several have a machine of that number")
    parser.add_argument("--for", dest="duration", metavar="DURATION", help="how long, as 90m, 8h or 3d")
    parser.add_argument(
        "--kind",
        choices=("shelved", "maintenance", "suppressed", "out_of_service"),
        default="shelved",
        help="at most 7, 30, 90 and 366 days (default: shelved)",
    )
    parser.add_argument("--sensor", metavar="NAME", help="only this sensor")
    parser.add_argument("--family", choices=[family.value for family in FaultFamily], help="only this fault family")
    parser.add_argument("--reason", default="", help="why; kept with who did it")
    parser.add_argument("--end", type=int, metavar="NUMBER", help="end this inhibition now")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, settings: Settings) -> int:
    asyncio.run(_run(args, settings))
    return 0


def read_duration(given: str) -> timedelta:
    """Return a duration such as 90m, 8h or 3d.

    Raises:
        BadDuration: it is written otherwise.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([mhd])", given)
    if match is None:
        raise BadDuration(given=given)
    return timedelta(**{_UNITS[match[2]]: float(match[1])})


async def _run(args: argparse.Namespace, settings: Settings) -> None:
    from anomaly.api import (
        InhibitionKind,
        add_inhibition,
        end_inhibition,
        find_inhibition,
        find_machine,
        find_sensor,
        list_inhibitions,
    )
    from fettle.commands.migrate import database_url
    from fettle.db import DatabaseRole, open_pool, transaction
    from fettle.wiring import find_tenant

    now, by = clock.now(), getpass.getuser()
    length = read_duration(args.duration) if args.duration else None
    if length is None and args.reason and args.end is None:
        raise NoDuration
    async with open_pool(database_url(settings), role=DatabaseRole.WORKER, name="fettle-shelve", size=1) as pool:
        tenant_id = int(await find_tenant(pool, settings.tenant))
        async with transaction(pool, tenant_id=tenant_id) as conn:
            machine = await find_machine(conn, tenant_id=tenant_id, number=args.machine, site=args.site)
            if args.end is not None:
                known = await find_inhibition(conn, tenant_id=tenant_id, id=args.end)
                if known.machine_id != machine.id:
                    raise NotOfMachine(number=args.end, machine=machine.number)
                await end_inhibition(conn, tenant_id=tenant_id, id=args.end, by=by, now=now)
                print(f"Inhibition {args.end} is over; what is still raised on {machine.number} makes its ticket now.")
                return
            if length is not None:
                made = await add_inhibition(
                    conn,
                    tenant_id=tenant_id,
                    machine_id=machine.id,
                    kind=InhibitionKind(args.kind),
                    ends_at=now + length,
                    reason=args.reason,
                    by=by,
                    now=now,
                    sensor_id=await find_sensor(conn, tenant_id=tenant_id, machine=machine, name=args.sensor)
                    if args.sensor
                    else None,
                    fault_family=FaultFamily(args.family) if args.family else None,
                )
                print(
                    f"{machine.number} makes no tickets until {made.ends_at:%Y-%m-%d %H:%M} UTC ({made.kind}, number {made.id})."
                )
                return
            found = await list_inhibitions(conn, tenant_id=tenant_id, machine_ids=[machine.id], since=now)
    standing = [i for i in found if i.until > now]
    if not standing:
        print(f"Nothing keeps {machine.number} from making tickets.")
    for i in standing:
        what = i.fault_family or "all families"
        print(
            f"{i.id}: {i.kind}, {what}, {i.starts_at:%Y-%m-%d %H:%M} to {i.until:%Y-%m-%d %H:%M} UTC, by {i.created_by}: {i.reason}"
        )
