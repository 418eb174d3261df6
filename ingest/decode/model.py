"""What every codec takes and returns."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

import orjson

from fettle.errors import FettleError
from fettle.model import Quality
from ingest.decode.naming import Naming

Path = tuple[str, str, str]
"""Names of site, machine and sensor. The tenant is `Context.tenant`."""

MAX_NAME = 200
MAX_UNIT = 64
_PATHS_KEPT = 20_000
_CONTROL = frozenset(chr(c) for c in (*range(32), *range(127, 160)))


class Reason(StrEnum):
    """Why a message or a reading was refused: the code in `dead_letter.reason`."""

    NO_RULE = "no_rule"
    TOO_LARGE = "too_large"
    TOO_DEEP = "too_deep"
    TOO_MANY = "too_many"
    BAD_SYNTAX = "bad_syntax"
    BAD_STRUCTURE = "bad_structure"
    BAD_NAME = "bad_name"
    BAD_VALUE = "bad_value"
    BAD_QUALITY = "bad_quality"
    BAD_TIMESTAMP = "bad_timestamp"
    FUTURE = "future"
    BEYOND_RETENTION = "beyond_retention"
    UNKNOWN_ALIAS = "unknown_alias"
    UNKNOWN_METRIC = "unknown_metric"
    BEFORE_BIRTH = "before_birth"
    UNSUPPORTED = "unsupported"


class BadPayload(FettleError):
    """{reason}: {detail}."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason=reason, detail=detail[:1000])
        self.reason = reason
        self.detail = detail[:1000]


class Sample(NamedTuple):
    """One decoded reading before its sensor is resolved."""

    path: Path
    ts_us: int | None  # None: the payload has no time stamp; use the receive time and Flag.RECEIVE_TIME
    value: float | None  # None: a null reading, or a text reading when `text` is set; never NaN or infinite
    unit: str | None  # as the sender spells it; None: the sender does not say
    quality: int  # fettle.model.Quality
    flags: int  # bits of fettle.model.Flag
    text: str | None = None  # set: the reading belongs in `reading_text`


class WaveformBurst(NamedTuple):
    """Equally spaced samples: `value = scale * sample`, the first one at `t0_us`."""

    path: Path
    t0_us: int | None  # None: use the receive time as the time of the last sample
    fs_hz: float
    unit: str | None
    n: int
    dtype: str  # numpy spelling, little-endian: "<f4", "<f8", "<i2", "<i4"
    scale: float
    data: bytes
    flags: int = 0


class Liveness(NamedTuple):
    """A device said, or its last will says, that it is there or gone."""

    path: tuple[str, str]  # site, machine
    is_online: bool
    ts_us: int | None  # None: the receive time
    detail: str = ""


class Rejection(NamedTuple):
    """One reading of a message that was otherwise decoded."""

    reason: Reason
    detail: str


@dataclass(slots=True)
class Decoded:
    """All that one message said. Every reading in it is in exactly one of the fields."""

    samples: list[Sample] = field(default_factory=list)
    waveforms: list[WaveformBurst] = field(default_factory=list)
    liveness: list[Liveness] = field(default_factory=list)
    rejected: list[Rejection] = field(default_factory=list)
    ignored: int = 0  # readings, or the whole message, left out by rule

    def reject(self, reason: Reason, detail: str) -> None:
        self.rejected.append(Rejection(reason, detail[:1000]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a message may cost. Beyond any of them the message or reading is refused with the limit's name."""

    max_bytes: int = 1 << 20
    max_depth: int = 8
    max_records: int = 10_000  # readings in one message
    max_key: int = 128  # characters of one key, metric or field name
    max_text: int = 4096  # characters of one text reading
    max_waveform: int = 1 << 20  # samples in one burst


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecOptions:
    """The options of a topic rule, as the codecs see them; `docs/reference/payload-formats.md` explains each."""

    time_zone: str = "UTC"  # of time stamps that name none
    time_unit: str = "auto"  # of numeric time stamps: auto, s, ms, us, ns
    time_keys: tuple[str, ...] = ("ts", "time", "timestamp", "timestamp_ms", "t")
    value_keys: tuple[str, ...] = ("value", "v", "val")
    name_keys: tuple[str, ...] = ("sensor", "signal", "name")
    unit_keys: tuple[str, ...] = ("unit", "u", "uom")
    quality_keys: tuple[str, ...] = ("quality", "q")
    ignore_keys: frozenset[str] = frozenset()
    units: Mapping[str, str] = field(default_factory=dict)  # key, or last part of it -> unit where the sender is silent
    words: Mapping[str, float] = field(default_factory=dict)  # bare words stored as numbers, e.g. {"ON": 1, "OFF": 0}
    numeric_strings: bool = False  # "23.4" is a number
    large_integers: str = "flag"  # beyond 2**53: flag, text
    burst: str = "auto"  # equally spaced samples become: auto, readings, waveform
    waveform_above_hz: float = 20.0  # where `auto` draws the line
    limits: Limits = Limits()
    raw: Mapping[str, object] = field(default_factory=dict)  # header of raw waveforms, see ingest.decode.raw


class Context:
    """What the topic said: tenant, captures, how names are built, options. One per topic; it caches the names it built."""

    __slots__ = ("_paths", "captures", "memo", "naming", "options", "tenant")

    def __init__(self, *, tenant: str, captures: Mapping[str, str], naming: Naming, options: CodecOptions) -> None:
        self.tenant = tenant
        self.captures = captures
        self.naming = naming
        self.options = options
        self._paths: dict[Hashable, Path] = {}
        self.memo: dict[Hashable, Any] = {}

    def path(self, key: str = "", /, **fields: str) -> Path:
        """Build the names of a reading from the topic and, where the payload names it, `key` and further fields.

        Raises:
            BadPayload: a name is empty, too long, or holds control characters.
        """
        at: Hashable = (key, *fields.items()) if fields else key
        found = self._paths.get(at)
        if found is not None:
            return found
        if len(key) > self.options.limits.max_key:
            raise BadPayload(Reason.BAD_NAME, f"key of {len(key)} characters; at most {self.options.limits.max_key}")
        built = self.build_path({**fields, "key": key})
        if len(self._paths) < _PATHS_KEPT:
            self._paths[at] = built
        return built

    def build_path(self, fields: Mapping[str, str]) -> Path:
        """Build the names of a reading from the topic and fields of the payload, without keeping them.

        Raises:
            BadPayload: as `path`.
        """
        site, machine, sensor = self.naming.render({**fields, **self.captures})
        return check_name("site", site), check_name("machine", machine), check_name("sensor", sensor or "value")

    def remember(self, key: Hashable, value: object) -> None:
        """Keep something a codec worked out for this topic in `memo`; bounded, so never rely on finding it again."""
        if len(self.memo) >= _PATHS_KEPT:
            self.memo.clear()
        self.memo[key] = value

    def unit(self, key: str, sent: str | None) -> str | None:
        """Return the unit the sender gave, else the rule's unit for the key or for its last part."""
        if sent:
            return check_unit(sent)
        units = self.options.units
        if not units:
            return None
        return units.get(key) or units.get(key.rpartition(".")[2]) or units.get("*")


def check_unit(unit: str) -> str:
    """Return `unit` if the catalogue can hold it.

    Raises:
        BadPayload: it is longer than 64 characters or holds what cannot be printed.
    """
    if len(unit) > MAX_UNIT or not unit.isprintable():
        raise BadPayload(Reason.BAD_VALUE, f"unit {unit[:60]!r}; at most {MAX_UNIT} printable characters")
    return unit


Codec = Callable[[Context, bytes, int], Decoded]
"""(what the topic said, payload, receive time in microseconds) -> what the message says. Raises only BadPayload."""


def check_name(what: str, name: str) -> str:
    """Return `name` if the catalogue can hold it.

    Raises:
        BadPayload: it is empty, longer than 200 characters, or holds control characters or lone surrogates.
    """
    if not name or name.isspace():
        raise BadPayload(Reason.BAD_NAME, f"the {what} has no name; the topic rule must say where it stands")
    if len(name) > MAX_NAME:
        raise BadPayload(Reason.BAD_NAME, f"{what} name of {len(name)} characters; at most {MAX_NAME}")
    if not _CONTROL.isdisjoint(name) or not _is_utf8(name):
        raise BadPayload(Reason.BAD_NAME, f"{what} name {name[:60]!r} holds control characters")
    return name


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_size(payload: bytes, limits: Limits) -> None:
    """Refuse an oversized payload before any parser sees it."""
    if len(payload) > limits.max_bytes:
        raise BadPayload(Reason.TOO_LARGE, f"{len(payload)} bytes; max_bytes is {limits.max_bytes}")


def load_json(payload: bytes, limits: Limits) -> object:
    """Parse JSON within the limits of size and depth.

    Raises:
        BadPayload: too large, too deep, or not JSON.
    """
    check_size(payload, limits)
    try:
        body: object = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise BadPayload(Reason.BAD_SYNTAX, f"not JSON: {error}") from None
    if (payload.count(b"{") + payload.count(b"[")) > limits.max_depth:
        check_depth(body, limits.max_depth)
    return body


def check_depth(body: object, limit: int) -> None:
    """Refuse a structure nested deeper than `limit`."""
    level = [body]
    for _ in range(limit):
        below: list[object] = []
        for node in level:
            if isinstance(node, dict):
                below.extend(node.values())
            elif isinstance(node, list):
                below.extend(node)
        if not below:
            return
        level = below
    if any(isinstance(node, dict | list) for node in level):
        raise BadPayload(Reason.TOO_DEEP, f"nested deeper than max_depth {limit}")


def text_sample(context: Context, path: Path, ts_us: int | None, text: str, *, flags: int = 0) -> Sample:
    """Make a text reading.

    Raises:
        BadPayload: PostgreSQL could not store the text (NUL, lone surrogate), or it is longer than `max_text`.
    """
    if len(text) > context.options.limits.max_text:
        raise BadPayload(
            Reason.BAD_VALUE, f"text of {len(text)} characters; max_text is {context.options.limits.max_text}"
        )
    if "\0" in text or not _is_utf8(text):
        raise BadPayload(Reason.BAD_VALUE, "the text holds NUL or a lone surrogate, which PostgreSQL cannot store")
    return Sample(path, ts_us, None, None, Quality.GOOD, flags, text)
