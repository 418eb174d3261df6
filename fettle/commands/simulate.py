"""`fettle simulate`: run a simulated plant, live over MQTT or into a file, and write down what really happened."""

import argparse
import math
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.progress import Progress
from rich.text import Text

from fettle import clock, running
from fettle.settings import Settings
from fettle.supervisor import stop_on_signals

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_OVERLAP_US = 120_000_000


def add(verbs: Any) -> None:
    parser: argparse.ArgumentParser = verbs.add_parser(
        "simulate", help="run a simulated plant, live over MQTT or into a file"
    )
    parser.add_argument(
        "scenario", nargs="?", help="name of a scenario, or path of a TOML file; without it they are listed"
    )
    parser.add_argument("--machines", type=int, metavar="N", help="number of machines (default: those of the scenario)")
    parser.add_argument("--seed", type=int, help="instead of the scenario's")
    parser.add_argument("--signals", metavar="A,B", help="instead of the scenario's, separated by commas")
    parser.add_argument("--period", metavar="DURATION", help="sampling period instead of the scenario's")
    parser.add_argument(
        "--start", metavar="TIME", help="instant to begin at, ISO 8601 (default: now, or the file's own)"
    )
    parser.add_argument(
        "--for",
        dest="duration",
        metavar="DURATION",
        help='plant time to run, as "2h" (default: until stopped; a file: that of the scenario)',
    )
    parser.add_argument("--tenant", help="tenant (default: FETTLE_TENANT)")
    parser.add_argument("--truth", type=Path, metavar="FILE", help="where to write what really happened, as JSON")
    live = parser.add_argument_group("live")
    live.add_argument(
        "--began",
        metavar="TIME",
        help="when the scenario began, ISO 8601: go on from now (default: it begins with --start)",
    )
    live.add_argument(
        "--speed", type=float, default=1.0, help="plant seconds per second; 0 is as fast as possible (default: 1)"
    )
    live.add_argument("--format", default="fettle", help="payload format; `--format list` names them (default: fettle)")
    live.add_argument("--waveforms", metavar="DURATION", help="send a raw waveform of every machine this often")
    live.add_argument("--waveform-rate", type=float, default=25_600.0, metavar="HZ", help="its rate (default: 25600)")
    live.add_argument(
        "--client",
        choices=("auto", "paho", "batch"),
        default="auto",
        help="who publishes: paho, or the batch publisher that takes less CPU a message (default: auto, which is paho up to "
        "2000 messages a second and batch above, with --rate and with --speed 0)",
    )
    live.add_argument(
        "--rate", type=float, metavar="N", help="load: drive this many messages a second and report what was achieved"
    )
    out = parser.add_argument_group("file")
    out.add_argument("--out", type=Path, metavar="FILE", help="write .parquet or .csv instead of publishing")
    out.add_argument(
        "--layout", choices=("long", "wide", "delivered"), default="long", help="rows of the file (default: long)"
    )
    out.add_argument(
        "--gallery", type=Path, metavar="FOLDER", help="draw one picture per fault and machine class instead"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, settings: Settings) -> int:
    from simulators import api

    if args.gallery:
        for path in api.draw_gallery(args.gallery):
            print(path)
        return 0
    if args.format == "list":
        print("\n".join(api.FORMATS))
        return 0
    if not args.scenario:
        for name in api.scenario_names():
            print(f"{name:22} {api.load_scenario(name).description}")
        return 0
    wrong = _wrong_number(args)
    if wrong:
        print(f"fettle: {wrong}", file=sys.stderr)
        return 2
    scenario = api.load_scenario(args.scenario)
    if args.signals:
        scenario = scenario.with_signals(tuple(s.strip() for s in args.signals.split(",")))
    if args.period:
        scenario = scenario.with_period(api.parse_duration_s(args.period))
    if args.out:
        return _write(args, settings, scenario)
    return _publish(args, settings, scenario)


def _wrong_number(args: argparse.Namespace) -> str | None:
    if args.machines is not None and not 1 <= args.machines <= 100_000:
        return f"--machines {args.machines}: expected 1 to 100000"
    if args.speed < 0 or not math.isfinite(args.speed):
        return f"--speed {args.speed:g}: expected 0 or more"
    if args.rate is not None and not 0 < args.rate <= 1e6:
        return f"--rate {args.rate:g}: expected messages a second, above 0"
    for option, text in (("--start", args.start), ("--began", args.began)):
        try:
            _instant_us(text or "2026-03-02")
        except ValueError:
            return f"{option} {text}: expected an instant such as 2026-03-02T06:00:00Z"
    return None


def _instant_us(text: str | None) -> int | None:
    if not text:
        return None
    at = datetime.fromisoformat(text)
    return ((at if at.tzinfo else at.replace(tzinfo=UTC)) - _EPOCH) // timedelta(microseconds=1)


def _write(args: argparse.Namespace, settings: Settings, scenario: Any) -> int:
    from simulators import api

    start_us = _instant_us(args.start)
    fleet = api.Fleet(
        replace(scenario, tenant=args.tenant or settings.tenant),
        seed=args.seed,
        machines=args.machines,
        start_us=start_us,
    )
    begin_us = fleet.scenario.start_us
    end_us = begin_us + (round(api.parse_duration_s(args.duration) * 1e6) if args.duration else scenario.duration_us)
    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task(f"{scenario.name}, days", total=None)
        count = api.write_readings(
            fleet,
            begin_us,
            end_us,
            args.out,
            layout=args.layout,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    truth = args.truth or args.out.with_suffix(".truth.json")
    api.write_truth(fleet, begin_us, end_us, truth)
    print(f"wrote {count} readings of {len(fleet.machines)} machines to {args.out}, the truth to {truth}")
    return 0


def _publish(args: argparse.Namespace, settings: Settings, scenario: Any) -> int:
    from simulators import api

    address = api.BrokerAddress.of(running.join(settings))
    tenant = args.tenant or settings.tenant
    span_us = round(api.parse_duration_s(args.duration) * 1e6) if args.duration else None
    machines = args.machines
    if args.rate and machines is None:
        machines = api.machines_for_rate(
            args.rate, period_us=scenario.period_us, signals=len(scenario.signals), payload_format=args.format
        )
    asked_us, began_us, speed = _instant_us(args.start), _instant_us(args.began), args.speed
    if asked_us is not None:
        start_us = asked_us
    elif began_us is not None and speed == 1:
        # go on live; a short way back, at a trot, so that nothing is missed between history and live
        start_us, speed = max(began_us, clock.now_us() - _OVERLAP_US), 60.0
    else:
        # at the speed of the clock or slower: begin now; faster: begin in the past and end at the present
        start_us = clock.now_us() - (0 if speed == 1 else span_us or scenario.duration_us)
    fleet = api.Fleet(scenario, seed=args.seed, machines=machines, start_us=start_us if began_us is None else began_us)
    console = Console(stderr=True, soft_wrap=True)
    client = api.choose_client(
        args.client, rate=api.expected_rate(fleet, payload_format=args.format, speed=speed), load=bool(args.rate)
    )

    def connected(who: str) -> None:
        console.print(f"client: {who}", markup=False)
        console.print(
            f"{scenario.name}: {len(fleet.machines)} machines -> {address.host}:{address.port}, format {args.format}",
            markup=False,
        )

    if asked_us is None and speed == 1:
        with console.status(f"planning the day of {len(fleet.machines)} machines"):
            api.prepare(fleet, start_us)
        start_us = clock.now_us()
    with stop_on_signals() as stop, Live(console=console, refresh_per_second=4) as line:
        status = api.publish_live(
            fleet,
            address=address,
            start_us=start_us,
            end_us=None if span_us is None else start_us + span_us,
            speed=speed,
            payload_format=args.format,
            tenant=tenant,
            stop=stop,
            on_status=lambda s: line.update(Text(_line(s))),
            may_lead=asked_us is not None,
            bursts=api.Bursts(every_s=api.parse_duration_s(args.waveforms), fs_hz=args.waveform_rate)
            if args.waveforms
            else None,
            client=client,
            on_connected=connected,
        )
    for warning in status.warnings:
        console.print(f"warning: {warning}", markup=False, style="yellow")
    print(
        f"sent {status.messages} messages with {status.readings} readings, {status.acknowledged} acknowledged, "
        f"in {status.elapsed_s:.1f} s"
    )
    if args.rate:
        achieved = status.messages / max(status.elapsed_s, 1e-9)
        verdict = "kept up" if status.worst_lag_s < 1.0 else "did NOT keep up"
        print(
            f"asked for {args.rate:,.0f} messages/s, achieved {achieved:,.0f}/s; "
            f"{verdict}: at worst {status.worst_lag_s:.2f} s behind"
        )
    if args.truth or not args.rate:
        truth = args.truth or settings.data_dir / f"{scenario.name}.truth.json"
        truth.parent.mkdir(parents=True, exist_ok=True)
        api.write_truth(fleet, start_us if began_us is None else began_us, max(status.at_us, start_us + 1), truth)
        print(f"what really happened: {truth}")
    return 0


def _line(s: Any) -> str:
    return (
        f"{_EPOCH + timedelta(microseconds=s.at_us):%Y-%m-%d %H:%M:%S} UTC  {s.messages:,} messages, "
        f"{s.acknowledged:,} acknowledged, {s.rate:,.0f}/s, {s.lag_s:.1f} s behind"
    )
