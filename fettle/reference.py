"""Writes the reference pages that follow from the code: `python -m fettle.reference`.

A test compares the committed pages with these functions, so none can fall behind.
"""

import argparse
import re
from pathlib import Path

from pydantic_core import PydanticUndefined

from fettle.cli import build_parser
from fettle.settings import Settings


def settings_rows() -> list[tuple[str, str, str]]:
    """Return (environment variable, default as written in .env, description) of every setting."""
    rows = []
    for name, info in Settings.model_fields.items():
        default = info.default
        if default is None or default is PydanticUndefined:
            text = ""
        elif isinstance(default, list):
            text = "[" + ", ".join(f'"{item}"' for item in default) + "]"
        else:
            text = str(default)
        rows.append((f"FETTLE_{name.upper()}", text, info.description or ""))
    return rows


def settings_page() -> str:
    """Return docs/reference/settings.md."""
    lines = [
        "# Settings",
        "",
        "Every setting is an environment variable, or a line of a file `.env` in the folder Fettle runs in. A wrong value stops",
        "Fettle at the start, with the name of the setting. Secrets never appear in logs.",
        "",
        "| variable | default | meaning |",
        "| --- | --- | --- |",
    ]
    lines += [
        f"| `{name}` | {f'`{default}`' if default else '(empty)'} | {text} |" for name, default, text in settings_rows()
    ]
    return "\n".join(lines) + "\n"


def env_example() -> str:
    """Return .env.example."""
    lines = ["# Copy to .env and change what differs. docs/reference/settings.md says the same as a table.", ""]
    for name, default, text in settings_rows():
        lines += [f"# {text}", f"# {name}={default}", ""]
    lines += [
        "# For docker-compose.yml only: passwords of the parts it starts. There are no defaults.",
        "# FETTLE_DB_PASSWORD=",
        "# FETTLE_BROKER_PASSWORD=",
        "# It also needs FETTLE_GRAFANA_DB_PASSWORD, from above.",
        "# GRAFANA_ADMIN_PASSWORD=",
    ]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def cli_page() -> str:
    """Return docs/reference/command-line.md."""
    parser = build_parser()
    lines = [
        "# Command line",
        "",
        "`fettle VERB [options]`. Exit code 0: done. 1: failed, with the reason on standard error. 2: wrong usage or settings.",
        "Settings (where the database and the broker are) come from the environment: see [settings](settings.md).",
    ]
    (verbs,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))  # noqa: SLF001 -- argparse offers no other way in
    summaries = {choice.dest: choice.help or "" for choice in verbs._choices_actions}  # noqa: SLF001 -- likewise
    for name, sub in verbs.choices.items():
        lines += ["", f"## fettle {name}", "", f"{summaries.get(name, '')[:1].upper()}{summaries.get(name, '')[1:]}."]
        options = [action for action in sub._actions if action.dest != "help"]  # noqa: SLF001 -- likewise
        if options:
            lines += ["", "| option | meaning |", "| --- | --- |"]
            for action in options:
                label = ", ".join(action.option_strings) or action.dest
                if action.option_strings and action.nargs != 0:
                    label += f" {action.metavar or action.dest.upper()}"
                text = re.sub(
                    r"\s+", " ", (action.help or "").replace("%(default)s", str(action.default)).replace("%%", "%")
                )
                lines.append(f"| `{label}` | {_cell(text)} |")
    return "\n".join(lines) + "\n"


PAGES = {
    Path("docs/reference/settings.md"): settings_page,
    Path("docs/reference/command-line.md"): cli_page,
    Path(".env.example"): env_example,
}


def main() -> None:
    """Write all pages below the current folder."""
    for path, page in PAGES.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page(), encoding="utf-8")
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
