"""Run one benchmark by name, or all: `python -m benchmarks NAME [ARGUMENTS]`; the last line is one JSON object."""

import importlib
import json
import pkgutil
import sys

import benchmarks


def names() -> list[str]:
    """Return the benchmarks: every module of this package that has a `run`."""
    modules = [found.name for found in pkgutil.iter_modules(benchmarks.__path__) if not found.name.startswith("_")]
    return [name for name in modules if hasattr(importlib.import_module(f"benchmarks.{name}"), "run")]


def main(argv: list[str]) -> int:
    """Dispatch to `benchmarks.NAME.run`; `all` runs each in turn and goes on where data is missing."""
    if not argv or argv[0] in {"-h", "--help"}:
        print(f"usage: python -m benchmarks NAME [ARGUMENTS]\nNAME: all, {', '.join(names())}")
        return 0 if argv else 2
    name, rest = argv[0], argv[1:]
    if name == "all":
        results: dict[str, object] = {}
        for one in names():
            print(f"\n=== {one}")
            try:
                results[one] = importlib.import_module(f"benchmarks.{one}").run([])
            except SystemExit as stopped:
                results[one] = {"stopped": str(stopped.code)}
        print(json.dumps(results, default=float, ensure_ascii=False))
        return 0
    if name not in names():
        print(f"{name}: no such benchmark; choose from {', '.join(names())}", file=sys.stderr)
        return 2
    print(json.dumps(importlib.import_module(f"benchmarks.{name}").run(rest), default=float, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
