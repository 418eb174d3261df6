"""Of a domain package, others see `api` and `routes` alone."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOMAIN = {"ingest", "anomaly", "workorders", "dispatch", "dashboards", "simulators"}
OPEN = {"api", "routes"}


def test_packages_meet_at_their_api():
    crossing = []
    for package in (*sorted(DOMAIN), "fettle"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = []
                if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    names = (
                        [node.module] if "." in node.module else [f"{node.module}.{alias.name}" for alias in node.names]
                    )
                elif isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                for name in names:
                    other, _, rest = name.partition(".")
                    if other in DOMAIN and other != package and rest.split(".")[0] not in OPEN:
                        crossing.append(f"{path.relative_to(ROOT)}:{node.lineno} imports {name}")
    assert crossing == []
