"""`fettle account`: make an account, or give it a new password."""

import argparse
import asyncio
import getpass
import sys
from typing import Any

from fettle.commands.migrate import database_url
from fettle.errors import FettleError
from fettle.model import Role
from fettle.settings import Settings
from fettle.wiring import make_account


class PasswordTooShort(FettleError):
    """The password has {length} characters; it needs at least 8."""


def add(verbs: Any) -> None:
    parser: argparse.ArgumentParser = verbs.add_parser("account", help="make an account, or give it a new password")
    parser.add_argument("--login", required=True, help="what they log in as")
    parser.add_argument("--role", required=True, choices=[role.value for role in Role], help="what they may do")
    parser.add_argument("--name", default="", help="how they are called")
    parser.add_argument("--language", choices=("en", "zh"), help="language of what they read; en for a new account")
    parser.add_argument(
        "--engineer", default="", metavar="CODE", help="the engineer who logs in; with the role engineer"
    )
    parser.add_argument(
        "--customer", default="", metavar="CODE", help="the customer they speak for; with the role customer_rep"
    )
    parser.add_argument(
        "--password-stdin", action="store_true", help="read the password from standard input instead of asking"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, settings: Settings) -> int:
    url = database_url(settings)
    password = (
        sys.stdin.readline().rstrip("\n") if args.password_stdin else getpass.getpass(f"Password for {args.login}: ")
    )
    if len(password) < 8:
        raise PasswordTooShort(length=len(password))
    asyncio.run(
        make_account(
            url,
            tenant=settings.tenant,
            login=args.login,
            role=Role(args.role),
            name=args.name,
            language=args.language,
            password=password,
            engineer=args.engineer,
            customer=args.customer,
        )
    )
    print(f"{args.login} can log in as {args.role} of tenant {settings.tenant}.")
    return 0
