"""`fettle demo`: a company with simulated plants on embedded parts, some machines about to fail."""

import argparse
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from fettle import clock, demo, running
from fettle.settings import Settings
from fettle.stack import Interrupted, Stack, start_stack
from fettle.supervisor import stop_on_signals

ACCOUNTS = (
    ("supervisor", "dispatch supervisor 派工主管: everything that is open"),
    ("customer", "customer 客户代表: files tickets, sees its own machines"),
    ("taker", "order taker 接单员"),
    ("engineer", "field engineer 现场工程师"),
    ("finance", "finance auditor 财务审核"),
    ("viewer", "headquarters 总部, read only"),
    ("admin", "administrator 管理员"),
    ("machine", "machine account 机器账号, for programs"),
)


def add(verbs: Any) -> None:
    parser: argparse.ArgumentParser = verbs.add_parser(
        "demo", help="run a demonstration: two simulated plants with machines about to fail, on embedded parts"
    )
    parser.add_argument("--fresh", action="store_true", help="forget the former demonstration and begin anew")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, settings: Settings) -> int:
    console = Console(highlight=False, soft_wrap=True)
    try:
        with stop_on_signals() as stop, running.hold(settings):
            if args.fresh:
                demo.forget(settings)
            with start_stack(settings, stop=stop, report=lambda step: console.print(f"  {step}")) as stack:
                _play(console, stack)
    except Interrupted:
        pass  # we were asked to
    console.print("Stopped. `make demo` goes on where it was; `make demo FRESH=1` begins anew.")
    return 0


def _play(console: Console, stack: Stack) -> None:
    """Bring the company, its history and its sensors to life, and keep them so until we are to stop."""
    url = stack.running.database_url
    plan = demo.read_plan(stack.settings)
    if plan is None or not plan.is_seeded:
        console.print("  making the company")
    plan, is_new = demo.seed(stack.settings, url, now_us=clock.now_us())
    stack.go_on()
    stack.start_verb("serve")
    stack.start_verb("work")
    stack.wait_until_serving()
    _welcome(console, stack, plan)
    with Progress(TextColumn("  {task.description}"), BarColumn(), TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task("storing history" if is_new else "storing what was missed", total=None)
        stored = 0
        for _ in range(2):  # the second round stores what came due during the first
            stored += demo.backfill(
                stack.settings,
                url,
                plan,
                until_us=clock.now_us(),
                on_progress=lambda done, total: progress.update(task, completed=done, total=total),
                stop=stack.stop,
            )
    stack.go_on()
    stack.start_verb("simulate", ["simulate", demo.SCENARIO, "--began", plan.began_at.isoformat()])
    stack.start_verb("collect")
    stack.start_verb("detect")
    console.print(
        f"  {stored:,} readings stored; sensors are live. Machines about to fail: {', '.join(plan.faulty_machines)}."
    )
    console.print("  Their tickets appear on the board within a minute or two. Ctrl-C stops everything.")
    stack.watch()


def _welcome(console: Console, stack: Stack, plan: demo.Plan) -> None:
    console.print()
    console.print(f"  Open [bold]{stack.running.api_url}[/] and log in with password [bold]{plan.password}[/] as:")
    table = Table(box=None, show_header=False, pad_edge=True, padding=(0, 2))
    for login, text in ACCOUNTS:
        table.add_row(f"[bold]{login}[/]", text)
    console.print(table)
    console.print(
        f"  Broker: {stack.running.broker_host}:{stack.running.broker_port} ({stack.running.broker_kind}). Logs: {stack.settings.data_dir}/*.log"
    )
    if stack.running.broker_kind == "amqtt":
        console.print(
            "  This is the pure-Python broker: fit for the demo alone. With Mosquitto installed, the demo uses that.",
            style="yellow",
        )
    console.print()
