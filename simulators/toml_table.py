"""Read TOML tables strictly: every mistake names the file, the key and what is allowed there."""

import math
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fettle.errors import FettleError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNIT_S = {"w": 604_800.0, "d": 86_400.0, "h": 3_600.0, "m": 60.0, "min": 60.0, "s": 1.0, "ms": 0.001}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|min|[wdhms])")


class ScenarioWrong(FettleError):
    """{file}: {key}: {problem}."""


class DurationWrong(FettleError):
    """{text!r} is not a duration: write for example "90s", "45min", "6h", "2d12h" or a number of seconds."""


def parse_duration_s(text: object) -> float:
    """Return seconds.

    Raises:
        DurationWrong: not a duration.

    >>> parse_duration_s("2d12h")
    216000.0
    >>> parse_duration_s(90)
    90.0
    """
    if isinstance(text, (int, float)) and not isinstance(text, bool) and math.isfinite(text):
        return float(text)
    if isinstance(text, str):
        compact = text.replace(" ", "")
        sign, body = (-1.0, compact[1:]) if compact.startswith("-") else (1.0, compact)
        if re.fullmatch(r"\d+(\.\d+)?", body):
            return sign * float(body)
        if body and "".join(m.group(0) for m in _PART.finditer(body)) == body:
            return sign * sum(float(m.group(1)) * _UNIT_S[m.group(2)] for m in _PART.finditer(body))
    raise DurationWrong(text=text)


def instant_us(value: datetime) -> int:
    """Return microseconds since 1970 of an aware datetime; a naive one is taken as UTC."""
    aware = value if value.tzinfo else value.replace(tzinfo=UTC)
    return (aware - EPOCH) // timedelta(microseconds=1)


def load_toml(path: Path) -> dict[str, Any]:
    """Return the parsed file.

    Raises:
        ScenarioWrong: it cannot be read or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ScenarioWrong(file=path, key="file", problem=f"cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ScenarioWrong(file=path, key="file", problem="is not UTF-8 text") from error
    except tomllib.TOMLDecodeError as error:
        raise ScenarioWrong(file=path, key="file", problem=f"is not valid TOML: {error}") from error


@dataclass
class Table:
    """One TOML table being read; `done` refuses the keys nobody asked for."""

    file: str
    where: str
    data: Mapping[str, Any]
    asked: set[str] = field(default_factory=set)

    def key(self, name: str) -> str:
        return f"{self.where}.{name}" if self.where else name

    def wrong(self, name: str, problem: str) -> ScenarioWrong:
        return ScenarioWrong(file=self.file, key=self.key(name), problem=problem)

    def _get(self, name: str) -> Any:
        self.asked.add(name)
        return self.data.get(name)

    def text(self, name: str, default: str | None = None, *, allowed: Collection[str] | None = None) -> str:
        value = self._get(name)
        if value is None:
            if default is None:
                raise self.wrong(name, "is missing" + (f"; one of {', '.join(allowed)}" if allowed else ""))
            return default
        if not isinstance(value, str) or not value:
            raise self.wrong(name, f"{value!r} must be text")
        if allowed is not None and value not in allowed:
            raise self.wrong(name, f"{value!r} is not one of {', '.join(allowed)}")
        return value

    def number(
        self, name: str, default: float | None = None, *, low: float = -math.inf, high: float = math.inf
    ) -> float:
        value = self._get(name)
        if value is None:
            if default is None:
                raise self.wrong(name, "is missing: a number" + _between(low, high))
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            raise self.wrong(name, f"{value!r} must be a number" + _between(low, high))
        return float(value)

    def integer(self, name: str, default: int | None = None, *, low: int = 0, high: int = 2**53) -> int:
        value = self._get(name)
        if value is None:
            if default is None:
                raise self.wrong(name, f"is missing: a whole number from {low} to {high}")
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.wrong(name, f"{value!r} must be a whole number from {low} to {high}")
        return value

    def flag(self, name: str, default: bool) -> bool:
        value = self._get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.wrong(name, f"{value!r} must be true or false")
        return value

    def duration_s(self, name: str, default: float | None = None, *, low: float = 0.0) -> float:
        value = self._get(name)
        if value is None:
            if default is None:
                raise self.wrong(name, 'is missing: a duration such as "6h" or "2d12h"')
            return default
        try:
            seconds = parse_duration_s(value)
        except DurationWrong as error:
            raise self.wrong(name, str(error)) from error
        if seconds < low:
            raise self.wrong(name, f"{value!r} must be at least {low:g} s")
        return seconds

    def moment_us(self, name: str) -> int | None:
        """Return an absolute instant (a TOML date-time or ISO 8601 text), or None where it is absent."""
        value = self._get(name)
        if value is None:
            return None
        if isinstance(value, str):
            try:
                value = datetime.fromisoformat(value)
            except ValueError:
                value = None
        if not isinstance(value, datetime):
            raise self.wrong(name, "must be an instant such as 2026-03-02T06:00:00Z")
        return instant_us(value)

    def texts(
        self, name: str, default: tuple[str, ...] = (), *, allowed: Collection[str] | None = None
    ) -> tuple[str, ...]:
        value = self._get(name)
        if value is None:
            return default
        if not isinstance(value, list) or not all(isinstance(v, str) and v for v in value):
            raise self.wrong(name, "must be a list of texts")
        for v in value:
            if allowed is not None and v not in allowed:
                raise self.wrong(name, f"{v!r} is not one of {', '.join(allowed)}")
        return tuple(value)

    def numbers(self, name: str, default: tuple[float, ...] = ()) -> tuple[float, ...]:
        value = self._get(name)
        if value is None:
            return default
        if not isinstance(value, list) or not all(
            isinstance(v, (int, float)) and not isinstance(v, bool) for v in value
        ):
            raise self.wrong(name, "must be a list of numbers")
        return tuple(float(v) for v in value)

    def table(self, name: str) -> "Table":
        value = self._get(name)
        if value is None:
            value = {}
        if not isinstance(value, dict):
            raise self.wrong(name, f"must be a table, written [{self.key(name)}]")
        return Table(self.file, self.key(name), value)

    def tables(self, name: str) -> Iterator["Table"]:
        value = self._get(name)
        if value is None:
            return
        if not isinstance(value, list) or not all(isinstance(v, dict) for v in value):
            raise self.wrong(name, f"must be a list of tables, each written [[{name}]]")
        for i, v in enumerate(value, 1):
            yield Table(self.file, f"{self.key(name)}[{i}]", v)

    def done(self) -> None:
        """Refuse keys that nothing read."""
        for name in self.data:
            if name not in self.asked:
                raise self.wrong(name, f"is not known here; allowed are {', '.join(sorted(self.asked))}")


def _between(low: float, high: float) -> str:
    if math.isinf(low) and math.isinf(high):
        return ""
    if math.isinf(high):
        return f" of at least {low:g}"
    return f" from {low:g} to {high:g}"
