"""The pages about payload formats are true: every example is run, every option, limit, format and reason is named."""

import re
from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from google.protobuf import text_format

from ingest.decode import CodecOptions, Decoded, Limits, Reason
from ingest.decode.formats import CONTENT_TYPES, FORMATS
from ingest.decode.sparkplug import Host
from ingest.decode.sparkplug_payload import Payload
from ingest.topics import Table, load_table, parse_rules

DOCS = Path(__file__).parents[3] / "docs"
PAGES = [
    "reference/payload-formats.md",
    "how-to/connect-a-sparkplug-edge.md",
    "how-to/connect-tasmota-and-zigbee-devices.md",
    "how-to/read-your-own-topics.md",
]
NOW = 1_795_219_260_000_000
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$\n(?:\n((?:^\|[^\n]*\|$\n)+))?", re.MULTILINE | re.DOTALL)


def examples(page: str) -> Iterator[tuple[str, str, str | None]]:
    for found in BLOCK.finditer((DOCS / page).read_text(encoding="utf-8")):
        kind, text, table = found.groups()
        if kind in {"message", "hex", "sparkplug", "toml"}:
            yield kind, text, table


def table_rows(table: str) -> list[list[str]]:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.strip().splitlines()]
    assert rows[0] == ["site", "machine", "sensor", "time", "value", "unit", "quality"]
    return rows[2:]


def written(ts_us: int | None) -> str:
    if ts_us is None:
        return "receipt"
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=ts_us)
    return at.isoformat().replace("+00:00", "Z")


def decoded_rows(out: Decoded) -> list[list[str]]:
    rows = []
    for s in out.samples:
        value = f'"{s.text}"' if s.text is not None else "null" if s.value is None else str(s.value)
        rows.append([*s.path, written(s.ts_us), value, s.unit or "", str(s.quality)])
    rows += [[*w.path, written(w.t0_us), f"waveform of {w.n} at {w.fs_hz} Hz", w.unit or "", ""] for w in out.waveforms]
    if not rows:
        rows = [[*e.path, "", written(e.ts_us), "online" if e.is_online else "offline", "", ""] for e in out.liveness]
    return rows


@pytest.mark.parametrize("page", PAGES)
def test_every_example_is_true(page):
    shipped = load_table(tenant="acme")
    host = Host()
    table = shipped
    ran = 0
    for kind, text, expected in examples(page):
        if kind == "toml":
            rules, content_types = parse_rules(text, file=page)
            table = Table([*rules, *shipped.rules], tenant="acme", content_types=content_types)
            continue
        topic, _, body = text.partition("\n")
        route = table.route(topic)
        assert route is not None, topic
        if kind == "sparkplug":
            payload = text_format.Parse(body, Payload()).SerializeToString()
            out = host.receive(route.context, topic, payload, NOW)
        else:
            payload = bytes.fromhex(body) if kind == "hex" else body.strip().encode()
            out = route.decode(payload, NOW)
        assert out.rejected == [], topic
        assert expected is not None, f"{topic}: no table follows"
        assert decoded_rows(out) == table_rows(expected), topic
        ran += 1
    assert ran >= 1


def test_the_reference_names_everything():
    text = (DOCS / PAGES[0]).read_text(encoding="utf-8")
    words = set(re.findall(r"[a-z0-9_./+-]+", text))
    wanted = {f.name for f in fields(CodecOptions)} | {f.name for f in fields(Limits)}
    wanted |= set(FORMATS) | {reason.value for reason in Reason} | set(CONTENT_TYPES)
    assert wanted - words == set()


def test_the_reference_states_the_defaults_of_the_limits():
    text = (DOCS / PAGES[0]).read_text(encoding="utf-8")
    for f in fields(Limits):
        assert f"| `{f.name}` | {getattr(Limits(), f.name):,} |" in text
