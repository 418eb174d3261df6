"""Templates that turn captures and payload fields into the names of site, machine and sensor.

`{name}` inserts a capture or a payload field, `{one|other}` the first that is not empty; `{name[0]}`, `{name[-1]}` and `{name[1:3]}` insert levels of one that holds
several, separated by `/`. Where a field is empty its separator goes too, so `{sensor}.{key}` is `temp` for an empty key.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from fettle.errors import FettleError

_FIELD = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*(?:\|[A-Za-z_][A-Za-z0-9_]*)*)(?:\[(-?\d*)(?:(:)(-?\d*))?\])?\}")


class BadTemplate(FettleError):
    """Template {template!r} is not well formed: write text and {{field}}, {{one|other}}, {{field[0]}}, {{field[-1]}} or {{field[1:3]}}."""


class Template:
    """One compiled template.

    >>> Template("{location[-1]}").render({"location": "acme/press/4"})
    '4'
    >>> Template("{sensor}.{key}").render({"sensor": "temp", "key": ""})
    'temp'
    """

    __slots__ = ("_parts", "fields", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._parts: list[tuple[str, tuple[str, ...], slice | int | None]] = []  # literal before, fields, levels
        at = 0
        literals = []
        for found in _FIELD.finditer(text):
            literals.append(text[at : found.start()])
            name, first, colon, last = found.groups()
            levels: slice | int | None = None
            if colon:
                levels = slice(int(first) if first else None, int(last) if last else None)
            elif first is not None:
                if first in {"", "-"}:
                    raise BadTemplate(template=text)
                levels = int(first)
            self._parts.append((literals[-1], tuple(name.split("|")), levels))
            at = found.end()
        tail = text[at:]
        if any(c in part for part in (*literals, tail) for c in "{}"):
            raise BadTemplate(template=text)
        self._parts.append((tail, (), None))
        self.fields = frozenset(name for _, names, _ in self._parts for name in names)

    def render(self, values: Mapping[str, str]) -> str:
        """Fill the template; a field that `values` lacks counts as empty."""
        out: list[str] = []
        skipped = False  # the field before the next literal was empty and nothing is written yet
        for literal, names, levels in self._parts:
            if not names:
                if not skipped:
                    out.append(literal)
                continue
            value = next((found for name in names if (found := values.get(name))), "")
            if levels is not None and value:
                value = _levels(value.split("/"), levels)
            if value:
                if not skipped:
                    out.append(literal)
                out.append(value)
                skipped = False
            elif not out:
                skipped = True
        return "".join(out)


def _levels(parts: list[str], levels: slice | int) -> str:
    if isinstance(levels, slice):
        return "/".join(parts[levels])
    return parts[levels] if -len(parts) <= levels < len(parts) else ""


@dataclass(frozen=True, slots=True)
class Naming:
    """Where the three names of a reading come from."""

    site: Template
    machine: Template
    sensor: Template

    def render(self, values: Mapping[str, str]) -> tuple[str, str, str]:
        return self.site.render(values), self.machine.render(values), self.sensor.render(values)
