"""`fettle rejected`: messages that could not be stored: which, why, and another try."""

import argparse
import sys
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fettle import running
from fettle.commands.migrate import database_url
from fettle.settings import Settings
from ingest.api import Choice, count_rejected, list_rejected, retry_rejected

_SHOWN = 100  # characters of a payload in a list


def add(verbs: Any) -> None:
    parser: argparse.ArgumentParser = verbs.add_parser(
        "rejected",
        help="look at messages that could not be stored, and read them again once the reason is gone",
        description="A message that cannot be stored is kept as it came, with the reason. After a topic rule was corrected or "
        "Fettle updated, 'replay' reads such messages again: what can be stored now is, and leaves the list; the others stay.",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="how many there are by reason, and the newest of them")
    listing.add_argument("--last", type=_count, default=20, metavar="N", help="show so many messages (default: 20)")
    show = actions.add_parser("show", help="write the payload of one message to standard output, byte for byte")
    show.add_argument("id", type=_count, help="its number in the list")
    replay = actions.add_parser("replay", help="read them again, and store what can be stored now")
    replay.add_argument("--id", type=_count, action="append", metavar="ID", help="only this one; may be repeated")
    replay.add_argument("--check", action="store_true", help="only say how many could be read with the rules of today")
    for action in (listing, replay):
        action.add_argument("--reason", metavar="CODE", help="only those refused for this reason, for example no_rule")
        action.add_argument("--topic", metavar="BEGINNING", help="only those whose topic begins so")
        action.add_argument(
            "--since", type=_instant, metavar="TIME", help="only those received since, for example 2026-01-31 (UTC)"
        )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, settings: Settings) -> int:
    settings = running.join(settings)
    url = database_url(settings)
    match args.action:
        case "list":
            return _list(args, url)
        case "show":
            return _show(args, url)
        case _:
            return _replay(args, settings, url)


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _instant(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def _choice(args: argparse.Namespace) -> Choice:
    return Choice(ids=getattr(args, "id", None), reason=args.reason, topic=args.topic, since=args.since)


def _list(args: argparse.Namespace, url: str) -> int:
    choice = _choice(args)
    piles = count_rejected(url, choice)
    for pile in piles:
        print(f"{pile.messages:>10} {pile.reason:24} from {pile.first_at:%Y-%m-%d %H:%M:%S} to {pile.last_at:%Y-%m-%d %H:%M:%S} UTC")  # fmt: skip
    if not piles:
        print("no rejected messages")
        return 0
    print()
    for message in reversed(list_rejected(url, choice, most=args.last)):
        topic = message.topic.decode("utf-8", "backslashreplace")
        print(
            f"{message.id:>10} {message.received_at:%Y-%m-%d %H:%M:%S} {message.reason}: {_printable(message.detail)}"
        )
        print(
            f"{'':10} {_printable(topic)}  {_printable(message.payload[: _SHOWN * 4].decode('utf-8', 'backslashreplace'))}"
        )
    return 0


def _printable(text: str) -> str:
    """Keep control characters of strangers off the terminal."""
    cut = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in cut)


def _show(args: argparse.Namespace, url: str) -> int:
    found = list_rejected(url, Choice(ids=[args.id]), most=1)
    if not found:
        print(f"fettle: there is no rejected message {args.id}; see fettle rejected list", file=sys.stderr)
        return 1
    sys.stdout.buffer.write(found[0].payload)
    sys.stdout.buffer.flush()
    return 0


def _replay(args: argparse.Namespace, settings: Settings, url: str) -> int:
    choice = _choice(args)
    total = sum(pile.messages for pile in count_rejected(url, choice))
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=Console(stderr=True),
    ) as bar:  # fmt: skip
        task = bar.add_task("reading again", total=total)
        done = retry_rejected(
            settings, url=url, choice=choice, is_trial=args.check, on_progress=lambda n: bar.advance(task, n)
        )
    if args.check:
        print(f"{done.messages} messages: {done.accepted} can be read with the rules of today, {done.refused} cannot.")
    else:
        print(
            f"{done.messages} messages: {done.accepted} accepted, {done.refused} refused again; "
            f"{done.stored} readings stored, {done.duplicates} there already."
        )
    for reason, messages in sorted(done.reasons.items()):
        print(f"{messages:>10} {reason}")
    if done.left_alone:
        print(f"{done.left_alone} of Sparkplug left alone: their edge nodes have been asked for a rebirth instead.")
    return 0
