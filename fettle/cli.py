"""The command line: `fettle VERB`. Each verb is one module of `fettle.commands`."""

import argparse
import importlib
import os
import re
import sys
from collections.abc import Sequence

from pydantic import ValidationError
from pydantic_settings import SettingsError

from fettle import logs, running
from fettle.errors import FettleError
from fettle.settings import Settings

VERBS = (
    "demo",
    "up",
    "migrate",
    "company",
    "account",
    "collect",
    "detect",
    "work",
    "backtest",
    "explain",
    "model",
    "shelve",
    "serve",
    "simulate",
    "replay",
    "import",
    "rejected",
    "provision",
    "check",
)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all verbs."""
    parser = argparse.ArgumentParser(
        prog="fettle",
        description="Predictive maintenance: sensor readings in, the right engineer at the right machine before it breaks.",
        epilog="Settings come from FETTLE_… environment variables or a file .env; see docs/reference/settings.md.",
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb in VERBS:
        importlib.import_module(f"fettle.commands.{verb}_" if verb == "import" else f"fettle.commands.{verb}").add(
            verbs
        )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code: 0 done, 1 failed with a message, 2 wrong usage or settings."""
    args = build_parser().parse_args(argv)
    try:
        settings = Settings()
    except ValidationError as error:
        for problem in error.errors():
            field = str(problem["loc"][0])
            given = "" if "password" in field or "token" in field or "url" in field else f"'{problem['input']}': "
            print(
                f"fettle: FETTLE_{field.upper()}: {given}{problem['msg']} (docs/reference/settings.md)", file=sys.stderr
            )
        return 2
    except SettingsError as error:
        name = re.sub(r'.*"(\w+)" from.*', r"FETTLE_\1", str(error)).upper()
        print(
            f'fettle: {name}: write a JSON list, for example ["a", "b"] (docs/reference/settings.md)', file=sys.stderr
        )
        return 2
    logs.configure(level=settings.log_level, form=settings.log_format)
    try:
        if args.verb not in {"demo", "up"}:
            settings = running.join(settings)
        return int(args.run(args, settings))
    except FettleError as error:
        print(f"fettle: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # who read our output has enough of it: `fettle simulate | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes it on its way out
        return 0


if __name__ == "__main__":
    sys.exit(main())
