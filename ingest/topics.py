"""Which codec reads which topic: an ordered table of rules, written as data.

A rule is a topic pattern, a format, how names are built, and options of the format. The shipped rules are in
`topics.toml`; a user's file of the same form is asked before them. The first rule that matches decides, unless the
message's MQTT 5 Content Type names another format.

Patterns are topics with named captures: `{site}` is one level, `{location#}` any number of levels (none too),
`{contract:_}` one level that starts with `_`; `+` and a final `#` are MQTT's, and capture nothing.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, cast
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from fettle.errors import FettleError
from ingest.decode.formats import CODECS, CONTENT_TYPES, FORMATS
from ingest.decode.model import BadPayload, Codec, CodecOptions, Context, Decoded, Limits, Reason
from ingest.decode.naming import BadTemplate, Naming, Template
from ingest.decode.raw import BadHeader, Header

MAX_TOPIC_BYTES = 1024
MAX_TOPIC_LEVELS = 32

_LEVEL = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(#|:[^/+#{}]+)?\}")
_OPTION_FIELDS = {f.name: f for f in fields(CodecOptions)}
_LIMIT_FIELDS = {f.name for f in fields(Limits)}
_NAMING_KEYS = ("tenant", "site", "machine", "sensor")
_CHOICES = {
    "time_unit": ("auto", "s", "ms", "us", "ns"),
    "large_integers": ("flag", "text"),
    "burst": ("auto", "readings", "waveform"),
}


class BadTopicRule(FettleError):
    """{file}, rule {rule} ({name}), key {key!r}: {problem}; allowed: {allowed}."""


class BadTopicRules(FettleError):
    """{file}: {problem}."""


class Pattern:
    """One compiled topic pattern.

    >>> Pattern("umh/v1/{location#}/{contract:_}/{tag}").match("umh/v1/acme/press/_raw/temp")
    {'location': 'acme/press', 'contract': '_raw', 'tag': 'temp'}
    """

    __slots__ = ("_regex", "captures", "subscription", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        levels = text.split("/")
        regex: list[str] = []
        filter_levels: list[str] = []
        names: list[str] = []
        for i, level in enumerate(levels):
            separator = "/" if i else ""
            found = _LEVEL.fullmatch(level)
            if found:
                name, kind = found.groups()
                if name in names:
                    raise ValueError(f"capture {{{name}}} stands twice")
                names.append(name)
                if kind == "#":
                    regex.append(f"(?:{separator}(?P<{name}>[^/]+(?:/[^/]+)*?))?" if i else f"(?P<{name}>.+?)")
                elif kind:
                    regex.append(f"{separator}(?P<{name}>{re.escape(kind[1:])}[^/]*)")
                else:
                    regex.append(f"{separator}(?P<{name}>[^/]+)")
                if filter_levels[-1:] != ["#"]:
                    filter_levels.append("#" if kind == "#" else "+")
                continue
            if level == "#" and i == len(levels) - 1:
                regex.append(f"(?:{separator}.*)?" if i else ".*")
            elif level == "+":
                regex.append(f"{separator}[^/]*")
            elif not level or any(c in level for c in "+#{}"):
                raise ValueError(
                    f"level {level!r} is neither text, +, a final #, {{name}}, {{name#}} nor {{name:prefix}}"
                )
            else:
                regex.append(separator + re.escape(level))
            if filter_levels[-1:] != ["#"]:
                filter_levels.append(level)
        if sum(level.endswith("#}") for level in levels) > 2:
            raise ValueError("at most two captures of many levels")
        self._regex = re.compile("".join(regex), re.DOTALL)
        self.captures = tuple(names)
        self.subscription = "/".join(filter_levels)
        """The narrowest MQTT topic filter that covers the pattern."""

    def match(self, topic: str) -> dict[str, str] | None:
        """Return the captures, or None."""
        found = self._regex.fullmatch(topic)
        return None if found is None else {k: v or "" for k, v in found.groupdict().items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One row of the table."""

    name: str
    pattern: Pattern
    format: str
    tenant: Template
    naming: Naming
    options: CodecOptions


class Route:
    """A topic bound to its rule: everything a message on it needs. One per topic; keep it."""

    __slots__ = ("__dict__", "codec", "context", "format", "rule")

    def __init__(self, rule: Rule, context: Context, format_: str) -> None:
        self.rule = rule
        self.context = context
        self.format = format_
        self.codec: Codec | None = CODECS.get(format_)

    @property
    def tenant(self) -> str:
        return self.context.tenant

    @cached_property
    def is_ignored(self) -> bool:
        return self.format == "ignore"

    @cached_property
    def is_sparkplug(self) -> bool:
        """Whether the message belongs to `ingest.decode.sparkplug.Host`, which has memory, and not to `decode`."""
        return self.format == "sparkplug"

    @cached_property
    def is_plain(self) -> bool:
        """Whether `decode_value` and `decode_signals` may be tried first: plain JSON with default ways of reading it."""
        options, default = self.context.options, CodecOptions()
        return (
            self.format == "json"
            and all(
                getattr(options, name) == getattr(default, name)
                for name in (
                    "time_keys",
                    "value_keys",
                    "name_keys",
                    "unit_keys",
                    "quality_keys",
                    "ignore_keys",
                    "limits",
                )
            )
            and options.time_unit in {"auto", "ms"}
        )

    def decode(self, payload: bytes, received_us: int) -> Decoded:
        """Decode one message.

        Raises:
            BadPayload: the message cannot be stored. Nothing else is raised for any payload.
        """
        if self.codec is None:
            if self.is_sparkplug:
                # its state lives in a host; without one the message must not pass for read
                raise BadPayload(Reason.UNSUPPORTED, "Sparkplug needs a host id: set FETTLE_COLLECTOR_SPARKPLUG_HOST")
            return Decoded(ignored=1)
        try:
            return self.codec(self.context, payload, received_us)
        except BadPayload:
            raise
        except (
            RecursionError,
            MemoryError,
            OverflowError,
            ValueError,
            TypeError,
            LookupError,
            ArithmeticError,
        ) as error:
            # a codec's oversight must cost one dead letter, never the collector
            raise BadPayload(Reason.BAD_STRUCTURE, f"{self.format}: {type(error).__name__}: {error}") from error


class Table:
    """The ordered rules; asks the first that matches."""

    def __init__(self, rules: Iterable[Rule], *, tenant: str, content_types: Mapping[str, str] | None = None) -> None:
        self.rules = tuple(rules)
        self.tenant = tenant
        self.content_types = {**CONTENT_TYPES, **(content_types or {})}

    def route(self, topic: str, *, content_type: str | None = None) -> Route | None:
        """Return the route of a topic, or None where no rule matches.

        Raises:
            BadPayload: the topic is too long, too deep, or its rule leaves the tenant empty.
        """
        if len(topic) > MAX_TOPIC_BYTES or topic.count("/") >= MAX_TOPIC_LEVELS:
            raise BadPayload(
                Reason.BAD_NAME,
                f"a topic of {len(topic)} characters and {topic.count('/') + 1} levels; "
                f"at most {MAX_TOPIC_BYTES} and {MAX_TOPIC_LEVELS}",
            )
        for rule in self.rules:
            captures = rule.pattern.match(topic)
            if captures is None:
                continue
            tenant = rule.tenant.render(captures) or self.tenant
            format_ = self._format(rule, content_type)
            context = Context(tenant=tenant, captures=captures, naming=rule.naming, options=rule.options)
            return Route(rule, context, format_)
        return None

    def _format(self, rule: Rule, content_type: str | None) -> str:
        if content_type is None or rule.format in {"ignore", "sparkplug"}:
            return rule.format
        return self.content_types.get(content_type.partition(";")[0].strip().lower(), rule.format)

    def subscriptions(self) -> tuple[str, ...]:
        """Return MQTT topic filters that cover the rules and do not cover each other."""
        filters = dict.fromkeys(rule.pattern.subscription for rule in self.rules if rule.format != "ignore")
        return tuple(f for f in filters if not any(g != f and covers(g, f) for g in filters))


def covers(wide: str, narrow: str) -> bool:
    """Whether every topic that `narrow` matches is matched by `wide`; both are MQTT topic filters.

    >>> covers("tele/#", "tele/+/LWT"), covers("tele/+", "tele/#")
    (True, False)
    """
    wides, narrows = wide.split("/"), narrow.split("/")
    for i, level in enumerate(wides):
        if level == "#":
            return True
        if i >= len(narrows) or narrows[i] == "#" or (level != "+" and level != narrows[i]):
            return False
    return len(wides) == len(narrows)


def load_table(*, tenant: str, user_file: Path | None = None) -> Table:
    """Build the table from the user's rules, if any, and the shipped ones.

    Raises:
        BadTopicRules: the file cannot be read, or is not TOML.
        BadTopicRule: a rule is wrong; the message names file, rule, key and what is allowed.
    """
    rules: list[Rule] = []
    content_types: dict[str, str] = {}
    if user_file is not None:
        try:
            text = user_file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadTopicRules(file=user_file, problem=f"cannot be read: {error}") from None
        rules, content_types = parse_rules(text, file=str(user_file))
    shipped = resources.files("ingest").joinpath("topics.toml").read_text(encoding="utf-8")
    rules.extend(parse_rules(shipped, file="topics.toml")[0])
    return Table(rules, tenant=tenant, content_types=content_types)


def parse_rules(text: str, *, file: str) -> tuple[list[Rule], dict[str, str]]:
    """Read rules and content types from TOML.

    Raises:
        BadTopicRules: not TOML, or an unknown table.
        BadTopicRule: one of the rules is wrong.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadTopicRules(file=file, problem=f"not TOML: {error}") from None
    unknown = sorted(set(document) - {"rule", "content_types"})
    if unknown:
        raise BadTopicRules(file=file, problem=f"unknown key {unknown[0]!r}; allowed: [[rule]] and [content_types]")
    raw_rules = document.get("rule", [])
    if not isinstance(raw_rules, list) or not all(isinstance(raw, dict) for raw in raw_rules):
        raise BadTopicRules(file=file, problem="rules are written as [[rule]], with two brackets")
    content_types = document.get("content_types", {})
    if not isinstance(content_types, dict):
        raise BadTopicRules(file=file, problem="[content_types] must be a table of content type = format")
    for content_type, format_ in content_types.items():
        if format_ not in FORMATS:
            raise BadTopicRules(
                file=file, problem=f"content type {content_type!r}: format {format_!r}; allowed: {_listed(FORMATS)}"
            )
    rules = [_RuleReader(raw, number, file).read() for number, raw in enumerate(raw_rules, start=1)]
    return rules, {str(k).lower(): str(v) for k, v in content_types.items()}


def _listed(words: Iterable[str]) -> str:
    return ", ".join(words)


class _RuleReader:
    """Checks one rule key by key, so that an error can say where it is."""

    def __init__(self, raw: dict[str, Any], number: int, file: str) -> None:
        self._raw = raw
        self._number = number
        self._file = file

    def _wrong(self, key: str, problem: str, allowed: str) -> BadTopicRule:
        name = self._raw.get("name", "without a name")
        return BadTopicRule(file=self._file, rule=self._number, name=name, key=key, problem=problem, allowed=allowed)

    def read(self) -> Rule:
        allowed = ("name", "topic", "format", *_NAMING_KEYS, *_OPTION_FIELDS)
        for key in self._raw:
            if key not in allowed:
                raise self._wrong(key, "unknown", _listed(allowed))
        for key in ("topic", "format"):
            if key not in self._raw:
                raise self._wrong(key, "missing", "every rule needs topic and format")
        pattern = self._pattern()
        format_ = self._raw["format"]
        if format_ not in FORMATS:
            raise self._wrong("format", f"{format_!r} is no format", _listed(FORMATS))
        captures = set(pattern.captures)
        known = captures | FORMATS[format_]
        templates = {key: self._template(key, captures, known) for key in _NAMING_KEYS}
        naming = Naming(templates["site"], templates["machine"], templates["sensor"])
        options = self._options()
        self._check_raw(format_, options)
        return Rule(
            name=str(self._raw.get("name", self._raw["topic"])),
            pattern=pattern,
            format=format_,
            tenant=templates["tenant"],
            naming=naming,
            options=options,
        )

    def _pattern(self) -> Pattern:
        topic = self._raw["topic"]
        allowed = "levels of text, +, a final #, {name}, {name#} and {name:prefix}, separated by /"
        if not isinstance(topic, str) or not topic:
            raise self._wrong("topic", f"{topic!r} is no text", allowed)
        try:
            return Pattern(topic)
        except ValueError as error:
            raise self._wrong("topic", str(error), allowed) from None

    def _template(self, key: str, captures: set[str], known: set[str]) -> Template:
        text = self._raw.get(key)
        if text is None:
            if key == "sensor":
                text = "{sensor}.{key}" if "sensor" in captures else "{key}"
            else:
                text = f"{{{key}}}"
                if key != "tenant" and key not in known and self._raw["format"] != "ignore":
                    raise self._wrong(key, "missing, and the topic does not capture it", self._known(known))
            return Template(text)
        if not isinstance(text, str):
            raise self._wrong(key, f"{text!r} is no text", self._known(known))
        try:
            template = Template(text)
        except BadTemplate as error:
            raise self._wrong(key, str(error), "text with {field}, {field[0]}, {field[-1]}, {field[1:3]}") from None
        fields_known = captures if key == "tenant" else known
        families = tuple(name[:-1] for name in fields_known if name.endswith("*"))
        unknown = sorted(name for name in template.fields - fields_known if not name.startswith(families or "*"))
        if unknown:
            raise self._wrong(key, f"unknown field {{{unknown[0]}}}", self._known(fields_known))
        return template

    @staticmethod
    def _known(known: set[str]) -> str:
        return "text with the fields " + _listed(f"{{{name}}}" for name in sorted(known))

    def _options(self) -> CodecOptions:
        given: dict[str, Any] = {}
        for key in _OPTION_FIELDS:
            if key in self._raw:
                given[key] = self._option(key, self._raw[key])
        return CodecOptions(**given)

    def _option(self, key: str, value: object) -> object:
        if key in _CHOICES:
            if value not in _CHOICES[key]:
                raise self._wrong(key, f"{value!r}", _listed(_CHOICES[key]))
            return value
        match key:
            case "time_zone":
                return self._zone(value)
            case "numeric_strings":
                if not isinstance(value, bool):
                    raise self._wrong(key, f"{value!r}", "true, false")
                return value
            case "waveform_above_hz":
                if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
                    raise self._wrong(key, f"{value!r}", "a number from 0 up")
                return float(value)
            case "units":
                return self._table(key, value, str, "a table of key = unit, texts")
            case "words":
                words = self._table(key, value, (int, float), "a table of word = number")
                return {word: float(cast("float", number)) for word, number in words.items()}
            case "limits":
                return self._limits(value)
            case "raw":
                return self._table(key, value, (str, int, float, list, dict), "a table, see raw waveforms")
            case _:
                if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
                    raise self._wrong(key, f"{value!r}", "a list of texts")
                return frozenset(value) if key == "ignore_keys" else tuple(value)

    def _zone(self, value: object) -> str:
        allowed = "a name of the IANA time zone database, e.g. Europe/Berlin, Asia/Shanghai, UTC"
        if not isinstance(value, str):
            raise self._wrong("time_zone", f"{value!r}", allowed)
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise self._wrong("time_zone", f"{value!r}", allowed) from None
        return value

    def _table(self, key: str, value: object, kind: type | tuple[type, ...], allowed: str) -> dict[str, object]:
        if not isinstance(value, dict):
            raise self._wrong(key, f"{value!r}", allowed)
        for name, item in value.items():
            if not isinstance(item, kind) or (isinstance(item, bool) and kind is not bool):
                raise self._wrong(f"{key}.{name}", f"{item!r}", allowed)
        return value

    def _limits(self, value: object) -> Limits:
        allowed = "positive integers for " + _listed(sorted(_LIMIT_FIELDS))
        if not isinstance(value, dict):
            raise self._wrong("limits", f"{value!r}", allowed)
        for name, limit in value.items():
            if name not in _LIMIT_FIELDS or isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
                raise self._wrong(f"limits.{name}", f"{limit!r}", allowed)
        return Limits(**value)

    def _check_raw(self, format_: str, options: CodecOptions) -> None:
        if format_ == "waveform":
            try:
                Header.from_options(options.raw)
            except BadHeader as error:
                data = error.data
                raise self._wrong(f"raw.{data['key']}", str(data["problem"]), str(data["allowed"])) from None
            return
        allowed = 'with format sparkplug: fs_hz = a positive number, byte_order = "little" or "big"; else nothing'
        for key, value in options.raw.items():
            is_rate = key == "fs_hz" and isinstance(value, int | float) and 0 < value < 1e12
            is_order = key == "byte_order" and isinstance(value, str) and value in {"little", "big"}
            if format_ != "sparkplug" or not (is_rate or is_order):
                raise self._wrong(f"raw.{key}", f"{value!r} with format {format_}", allowed)
