"""`fettle explain`: the evidence of a finding in words, on the terminal and as a plot."""

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fettle import clock
from fettle.settings import Settings

_SPARKS = 64
_BARS = 20


def add(verbs: Any) -> None:
    parser: argparse.ArgumentParser = verbs.add_parser(
        "explain",
        help="say why detection raised a finding: sensors, expectation, limits, model, what to check",
        description="FINDING is the number or the key of a finding, or the number of the ticket it opened, such as T-000001.",
    )
    parser.add_argument("finding", metavar="FINDING", help="number or key of a finding, or number of its ticket")
    parser.add_argument("--language", choices=("en", "zh"), default="en", help="of the words (default: en)")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the readings around it, .svg or .png")
    parser.add_argument("--json", action="store_true", help="print the finding as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, settings: Settings) -> int:
    from anomaly.api import check_plot_file, write_plot

    if args.plot is not None:
        check_plot_file(args.plot)
    finding, words, plot = asyncio.run(_load(args, settings))
    if args.json:
        print(json.dumps({**finding.as_dict(), "explanation": words}, ensure_ascii=False, indent=1))
    else:
        console = Console(soft_wrap=True, width=None if sys.stdout.isatty() else 120)
        _print(console, words, plot, is_zh=args.language == "zh")
    if args.plot is not None:
        write_plot(plot, args.plot, title=words["headline"])
        if not args.json:
            print(args.plot)
    return 0


async def _load(args: argparse.Namespace, settings: Settings) -> tuple[Any, dict[str, Any], Any]:
    from anomaly.api import NoSuchFinding, draw, explain, find_finding
    from fettle.commands.migrate import database_url
    from fettle.db import DatabaseRole, open_pool, transaction
    from fettle.wiring import find_tenant, find_ticket_finding

    now = clock.now()
    url = database_url(settings)
    async with open_pool(url, role=DatabaseRole.WORKER, name="fettle-explain", size=1) as pool:
        tenant_id = await find_tenant(pool, settings.tenant)
        async with transaction(pool, tenant_id=tenant_id) as conn:
            found = await find_finding(conn, tenant_id=tenant_id, name=args.finding)
            if found is None:
                key = await find_ticket_finding(conn, number=args.finding)
                found = None if key is None else await find_finding(conn, tenant_id=tenant_id, name=key)
            if found is None:
                raise NoSuchFinding(name=args.finding)
            plot = await draw(conn, found[1], now=now)
    return found[1], explain(found[1], args.language, now=now), plot


def _print(console: Console, words: dict[str, Any], plot: Any, *, is_zh: bool) -> None:
    from anomaly.api import series, span_in_words, sparkline

    console.print(Text(words["headline"], style="bold"))
    grid = Table.grid(padding=(0, 2))
    for name, text in words["facts"]:
        grid.add_row(Text(name, style="dim"), Text(text))
    console.print(grid)
    console.print()
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for row in words["contributions"]:
        bar = "█" * max(round(_BARS * row["share"]), 1 if row["share"] > 0 else 0)
        why = f"{row['why']} ({row['source']})" if row["source"] else row["why"]
        table.add_row(
            Text(row["sensor"], style="bold"),
            Text(f"{bar:<{_BARS}} {row['share']:>4.0%}", style="red"),
            Text(row["measured"]),
            Text(why, style="dim"),
        )
    console.print(table)
    drawn = [panel for panel in plot.panels if len(panel.ts)]
    if drawn:
        console.print()
        lines = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
        for panel in drawn:
            spark = Text(sparkline(series(panel, plot, pieces=_SPARKS), width=_SPARKS), style="cyan")
            lines.add_row(Text(panel.name, style="bold"), spark, Text(span_in_words(panel)))
        place = min(max(int((plot.marks[0] - plot.start_us) / (plot.end_us - plot.start_us) * _SPARKS), 0), _SPARKS - 1)
        lines.add_row("", Text(" " * place + "▲ " + ("报出" if is_zh else "raised")), "")
        console.print(lines)
    else:
        console.print(
            "\n" + ("此时段没有已存储的读数。" if is_zh else "No readings of that period are stored any more.")
        )
    if words["checks"]:
        console.print()
        first = "建议先查：" if is_zh else "Check first: "
        console.print(Text(first + ("、" if is_zh else ", ").join(words["checks"])))
