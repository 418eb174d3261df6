"""`fettle simulate`: run a simulated plant, live over MQTT."""

import argparse
from datetime import datetime, timedelta
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from fettle import clock, running
from fettle.settings import Settings
from fettle.supervisor import stop_on_signals


def add(verbs: Any) -> None:
    parser: argparse.ArgumentParser = verbs.add_parser(
        "simulate", help="run a simulated plant, live over MQTT or into a file"
    )
    parser.add_argument(
        "scenario", nargs="?", help="name of a scenario, or path of a TOML file; without it the names are listed"
    )
    parser.add_argument("--machines", type=int, metavar="N", help="number of machines (default: those of the scenario)")
    parser.add_argument("--seed", type=int, help="instead of the scenario's")
    parser.add_argument(
        "--speed", type=float, default=1.0, help="plant seconds per second; 0 is as fast as possible (default: 1)"
    )
    parser.add_argument("--format", default="fettle", help="payload format (default: fettle)")
    parser.add_argument(
        "--for", dest="duration", metavar="DURATION", help='plant time to run, as "2h" (default: until stopped)'
    )
    parser.add_argument(
        "--began",
        type=datetime.fromisoformat,
        metavar="INSTANT",
        help="when the scenario began, as 2026-03-01T08:00:00+00:00; go on from now (default: it begins with this run)",
    )
    parser.add_argument("--tenant", help="tenant (default: FETTLE_TENANT)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, settings: Settings) -> int:
    from simulators import api

    if not args.scenario:
        for name in api.scenario_names():
            scenario = api.load_scenario(name)
            print(f"{name:22} {scenario.description}")
        return 0
    scenario = api.load_scenario(args.scenario)
    present = clock.now_us()
    span_us = round(api.parse_duration_s(args.duration) * 1e6) if args.duration else None
    # faster than the clock: begin in the past, so that time stamps end at the present
    back_us = 0 if args.speed == 1 else (span_us or scenario.duration_us)
    start_us = present - back_us
    began_us = start_us if args.began is None else round(args.began.timestamp() * 1e6)
    fleet = api.Fleet(scenario, seed=args.seed, machines=args.machines, start_us=began_us)
    address = api.BrokerAddress.of(running.join(settings))
    console = Console(stderr=True)
    console.print(
        f"{scenario.name}: {len(fleet.machines)} machines -> {address.host}:{address.port}, format {args.format}",
        markup=False,
    )
    with stop_on_signals() as stop, Live(console=console, refresh_per_second=4, transient=False) as line:
        status = api.publish_live(
            fleet,
            address=address,
            start_us=start_us,
            end_us=None if span_us is None else start_us + span_us,
            speed=args.speed,
            payload_format=args.format,
            tenant=args.tenant or settings.tenant,
            stop=stop,
            on_status=lambda s: line.update(Text(_line(s))),
        )
    for warning in status.warnings:
        console.print(f"warning: {warning}", markup=False, style="yellow")
    print(
        f"sent {status.messages} messages with {status.readings} readings, {status.acknowledged} acknowledged, in {status.elapsed_s:.1f} s"
    )
    return 0


def _line(s: Any) -> str:
    at = datetime.fromisoformat("1970-01-01T00:00:00+00:00") + timedelta(microseconds=s.at_us)
    return (
        f"{at:%Y-%m-%d %H:%M:%S} UTC  {s.messages:,} messages, {s.acknowledged:,} acknowledged, "
        f"{s.rate:,.0f}/s, {s.lag_s:.1f} s behind"
    )
