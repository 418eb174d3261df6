"""`fettle backtest`: what detection would have said of a stored period or a file, under one configuration or two."""

import argparse
import asyncio
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from fettle import running
from fettle.errors import FettleError
from fettle.settings import Settings


class WhichMachine(FettleError):
    """--failure-at names no machine, and there are {count}: write {example}, or choose one with --machine."""


def add(verbs: Any) -> None:
    parser: argparse.ArgumentParser = verbs.add_parser(
        "backtest",
        help="run a stored period or a file through detection, and judge its findings",
        description="Without FILE the readings of the database are used, in order of their time stamps. A file is long "
        "(time, machine, sensor, value, perhaps site and unit) or wide (time, perhaps site and machine, then a column of "
        "numbers per sensor, its unit in brackets: 'vibration [mm/s]'). Nothing is stored and no ticket is opened.",
    )
    parser.add_argument("file", nargs="?", type=Path, help="a .csv, .csv.gz or .parquet file (default: the database)")
    parser.add_argument(
        "--from", dest="start", metavar="TIME", help="begin here, ISO 8601 (default: the first reading)"
    )
    parser.add_argument("--to", dest="end", metavar="TIME", help="end before this (default: after the last reading)")
    parser.add_argument(
        "--machine", action="append", default=[], metavar="NUMBER", help="only this one; may be repeated"
    )
    reading = parser.add_argument_group("file")
    reading.add_argument(
        "--time-column", metavar="COLUMN", help="column of the time stamps (default: found by its name)"
    )
    reading.add_argument(
        "--unit", action="append", default=[], metavar="SENSOR=UNIT", help="unit of a sensor that the file gives none"
    )
    reading.add_argument("--separator", help="between columns of a CSV file (default: found from the header)")
    judging = parser.add_argument_group("judging")
    judging.add_argument(
        "--truth", type=Path, metavar="FILE", help="JSON of what failed, as `fettle simulate` writes it"
    )
    judging.add_argument(
        "--failure-at",
        action="append",
        default=[],
        metavar="[NUMBER=]TIME",
        help="when a machine failed; NUMBER= where there are several machines; may be repeated",
    )
    judging.add_argument(
        "--baseline", default="0d", metavar="DURATION", help='learn for so long before judging, as "14d" (default: 0d)'
    )
    judging.add_argument(
        "--name-plates", action="store_true", help="take rated current and class of the machines from the truth file"
    )
    judging.add_argument(
        "--opinions", action="store_true", help="ask scikit-learn models for second opinions on the findings"
    )
    versions = parser.add_argument_group("versions")
    versions.add_argument(
        "--config", type=Path, metavar="FILE", help="TOML of parameters that differ from the defaults"
    )
    versions.add_argument("--limits", type=Path, metavar="FILE", help="TOML of limits instead of the shipped ones")
    versions.add_argument(
        "--against",
        type=Path,
        metavar="FILE",
        help="compare with another configuration (.toml), or with a result stored by --out (.json)",
    )
    out = parser.add_argument_group("results")
    out.add_argument("--report", type=Path, metavar="FILE", help="write a page with plots, .html")
    out.add_argument("--out", type=Path, metavar="FILE", help="store the findings, .json")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, settings: Settings) -> int:
    from anomaly import api
    from simulators.api import SIGNAL_UNITS, DurationWrong, parse_duration_s

    console = Console(soft_wrap=True, width=None if sys.stdout.isatty() else 140)
    try:
        _check_files(args)
        start_us, end_us = (_instant(option, text) for option, text in (("--from", args.start), ("--to", args.end)))
        units = dict(SIGNAL_UNITS if args.truth else {}) | _units(args.unit)
        failures = [_failure(text) for text in args.failure_at]
        baseline_us = round(parse_duration_s(args.baseline) * 1e6) if args.baseline not in {"0", "0d"} else 0
    except (ValueError, DurationWrong) as error:
        print(f"fettle: {error}", file=sys.stderr)
        return 2
    truth = api.read_truth(args.truth) if args.truth else api.Truth()
    base = api.EngineConfig(false_tickets_per_machine_day=settings.false_tickets_per_machine_day)
    first = api.read_config(args.config, base=base) if args.config else base
    configs = [(args.config.stem if args.config else "current", first)]
    if args.against is not None and args.against.suffix == ".toml":
        configs.append((args.against.stem, api.read_config(args.against, base=base)))
    limits = api.load_limits(args.limits) if args.limits else None
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[readings]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    ) as bar:
        if args.file:
            survey = bar.add_task("survey", total=1.0, readings="")
            is_surveying = True

            def tell(share: float) -> None:
                if is_surveying:
                    bar.update(survey, completed=share)

            history: api.History = api.open_file(
                args.file,
                layout=api.Layout(time=args.time_column, units=units, separator=args.separator),
                numbers=args.machine,
                start_us=start_us,
                end_us=end_us,
                plates=truth.plates if args.name_plates else None,
                on_progress=tell,
            )
            bar.update(survey, completed=1.0)
            is_surveying = False
        else:
            history = asyncio.run(_open_stored(running.join(settings), args.machine, start_us, end_us))
        episodes = [*truth.episodes, *_episodes(failures, history)]
        task = bar.add_task("backtest", total=history.end_us - history.start_us, readings="")
        done = api.backtest(
            history,
            configs,
            limits=limits,
            traces=api.Traces(history.sensors, start_us=history.start_us, end_us=history.end_us)
            if args.report or args.opinions
            else None,
            on_progress=lambda at_us, n: bar.update(
                task, completed=at_us - history.start_us, readings=f"{n:,} readings"
            ),
        )
        if args.opinions:
            asking = bar.add_task("second opinions", total=len(done.runs[0].tickets), readings="")
            api.with_opinions(done, on_progress=lambda n, total: bar.update(asking, completed=n, total=total))
    if args.out:
        api.store_run(done.runs[0], history, args.out)
    if args.against is not None and args.against.suffix == ".json":
        done.runs.append(api.load_run(args.against, history))
    is_known = bool(args.truth or failures)
    judgements = [
        api.judge(
            r.tickets,
            episodes if is_known else [],
            machines=[(m.site, m.number) for m in history.machines],
            start_us=history.start_us + baseline_us,
            end_us=history.end_us,
        )
        for r in done.runs
    ]
    _print_tickets(console, done, judgements if is_known else None)
    _print_figures(console, done, judgements, is_known=is_known)
    if len(done.runs) == 2:
        _print_comparison(console, done, judgements if is_known else None)
    if args.report:
        args.report.write_text(api.report_page(done, judgements, is_known=is_known), encoding="utf-8")
        console.print(f"report: {args.report}", markup=False)
    return 0


def _check_files(args: argparse.Namespace) -> None:
    for option, path, ending in (("--report", args.report, ".html"), ("--out", args.out, ".json")):
        if path is not None and (path.suffix != ending or not path.absolute().parent.is_dir()):
            raise ValueError(f"{option} {path}: expected a file that ends in {ending}, in a folder that exists")
    if args.against is not None and args.against.suffix not in {".toml", ".json"}:
        raise ValueError(f"--against {args.against}: expected a configuration (.toml) or a stored result (.json)")
    if args.name_plates and not args.truth:
        raise ValueError("--name-plates: they are read from the truth file; add --truth FILE")


def _instant(option: str, text: str | None) -> int | None:
    from anomaly.api import parse_instant_us

    if text is None:
        return None
    try:
        return parse_instant_us(text)
    except ValueError:
        raise ValueError(f"{option} {text}: expected an instant such as 2026-03-02T06:00:00Z") from None


def _units(given: Sequence[str]) -> dict[str, str]:
    units = {}
    for pair in given:
        sensor, sign, unit = pair.partition("=")
        if not sign or not sensor or not unit:
            raise ValueError(f"--unit {pair}: expected SENSOR=UNIT, for example vibration=mm/s")
        units[sensor] = unit
    return units


def _failure(text: str) -> tuple[str | None, int]:
    number, sign, instant = text.rpartition("=")
    at_us = _instant("--failure-at", instant)
    assert at_us is not None
    return (number if sign else None), at_us


def _episodes(failures: Sequence[tuple[str | None, int]], history: Any) -> list[Any]:
    from anomaly.api import Episode, pick_machines

    episodes = []
    for number, at_us in failures:
        if number is None and len(history.machines) > 1:
            example = f"--failure-at {history.machines[0].number}=TIME"
            raise WhichMachine(count=len(history.machines), example=example)
        (machine, *_) = pick_machines(history.name, history.machines, [number] if number else [])
        episodes.append(
            Episode(
                machine.number,
                machine.site,
                None,
                history.start_us,
                at_us,
                at_us,
                name="failure",
                is_onset_known=False,
            )
        )
    return episodes


async def _open_stored(settings: Settings, numbers: Sequence[str], start_us: int | None, end_us: int | None) -> Any:
    from anomaly.api import load_fleet, open_stored
    from fettle.commands.migrate import database_url
    from fettle.db import DatabaseRole, open_pool
    from fettle.wiring import find_tenant

    url = database_url(settings)
    async with open_pool(url, role=DatabaseRole.WORKER, name="fettle-backtest", size=1) as pool:
        tenant_id = await find_tenant(pool, settings.tenant)
        fleet = await load_fleet(pool)
    machines = [m for m in fleet.machines if fleet.tenant_of[int(m.machine_id)] == tenant_id]
    return await asyncio.to_thread(
        open_stored,
        url,
        machines=machines,
        sensors=fleet.sensors,
        numbers=numbers,
        start_us=start_us,
        end_us=end_us,
    )


def _print_tickets(console: Console, done: Any, judgements: Any) -> None:
    from anomaly.api import to_instant

    for place, one in enumerate(done.runs):
        title = f"{len(one.tickets)} findings, {one.label} ({one.version})"
        if not one.tickets:
            console.print(title, markup=False)
            continue
        table = Table(title=title, title_justify="left")
        for column in ("machine", "fault family", "onset", "raised", "first sensor", "severity"):
            table.add_column(column, no_wrap=True)
        said = {}
        if judgements:
            table.add_column("judged")
            said = _judged(judgements[place])
        has_opinions = any(t.finding.evidence.get("second_opinions") for t in one.tickets)
        if has_opinions:
            table.add_column("second opinions")
        for ticket in one.tickets:
            f = ticket.finding
            row = [
                ticket.machine,
                f.fault_family.value.replace("_", " "),
                f"{to_instant(f.onset_us):%Y-%m-%d %H:%M}",
                f"{to_instant(f.raised_us):%Y-%m-%d %H:%M}",
                ticket.sensors[0] if ticket.sensors else "",
                f.severity.value,
            ]
            asked = f.evidence.get("second_opinions") or []
            opinions = f"{sum(one['agrees'] for one in asked)} of {len(asked)} agree" if asked else ""
            table.add_row(*row, *([said.get(f.key, "")] if judgements else []), *([opinions] if has_opinions else []))
        console.print(table)


def _judged(judgement: Any) -> dict[str, str]:
    from anomaly.api import wording

    said = {t.finding.key: "false" for t in judgement.false_tickets}
    for outcome in judgement.outcomes:
        if outcome.ticket is not None:
            words = f"found {outcome.episode.name}"
            if outcome.episode.is_onset_known:
                words += f" after {wording.duration(outcome.delay_us, 'en')}"
            if outcome.lead_us is not None:
                words += f", {wording.duration(outcome.lead_us, 'en')} ahead"
            said[outcome.ticket.finding.key] = words
    return said


def _print_figures(console: Console, done: Any, judgements: Any, *, is_known: bool) -> None:
    from anomaly.api import wording

    history = done.history
    days = (history.end_us - history.start_us) / 86_400e6
    table = Table(title="figures", title_justify="left")
    table.add_column("")
    for one in done.runs:
        table.add_column(one.label, justify="right")
    rows: list[list[str]] = [["findings"] + [str(len(r.tickets)) for r in done.runs]]
    if is_known:
        rows += [
            ["episodes found"] + [f"{j.found} of {len(j.outcomes)}" for j in judgements],
            ["  with the right family"]
            + [f"{sum(o.is_family_right and o.ticket is not None for o in j.outcomes)}" for j in judgements],
            ["median delay after onset"] + [wording.duration(j.median_delay_us(), "en") for j in judgements],
            ["median lead before failure"] + [wording.duration(j.median_lead_us(), "en") for j in judgements],
            ["failures announced"] + ["{} of {}".format(*j.leads()) for j in judgements],
            ["false findings"] + [str(len(j.false_tickets)) for j in judgements],
        ]
    name = "false findings per machine-day" if is_known else "findings per machine-day"
    rows.append([name] + [_rate(j) for j in judgements])
    for row in rows:
        table.add_row(*row)
    console.print(table)
    speed = done.samples / done.seconds if done.seconds else math.nan
    console.print(
        f"{done.samples:,} readings of {len(history.machines)} machines over {days:.1f} days in {done.seconds:.1f} s of "
        f"processor time: {speed:,.0f} a second",
        markup=False,
    )
    if done.late_samples:
        console.print(f"note: {done.late_samples:,} readings were not newer than their sensor's last one", markup=False)
    unit_less = sorted({s.name for s in history.sensors if not s.unit})
    if unit_less:
        some = ", ".join(unit_less[:5])
        console.print(
            f"note: no unit is known of {some}; detection then does not know what they measure: --unit {unit_less[0]}=UNIT",
            markup=False,
        )


def _rate(judgement: Any) -> str:
    low, high = judgement.false_interval()
    return f"{judgement.false_rate:.4f} (95 %: {low:.4f} to {high:.4f}; {judgement.healthy_days:,.0f} machine-days)"


def _print_comparison(console: Console, done: Any, judgements: Any) -> None:
    from anomaly.api import compare

    first, second = done.runs
    result = compare(first.tickets, second.tickets, tuple(judgements) if judgements else None)
    console.print(
        f"{len(result.both)} findings by both, {len(result.only_first)} by {first.label} alone, "
        f"{len(result.only_second)} by {second.label} alone",
        markup=False,
    )
    if result.may_replace is not None:
        verdict = "may" if result.may_replace else "may NOT"
        why = f"; lost: {', '.join(result.lost)}" if result.lost else ""
        console.print(
            f"{second.label} {verdict} replace {first.label}: it loses {len(result.lost)} episodes and has "
            f"{len(judgements[1].false_tickets)} false findings instead of {len(judgements[0].false_tickets)} "
            f"(allowed: none lost, 10 % more){why}",
            markup=False,
        )
