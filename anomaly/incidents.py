"""One fault, one finding: groups the alarms of a machine, names the fault family and ranks the evidence.

Two findings may be open on a machine at a time: one of kind `machine` and one of kind `sensor`. Further alarms of a kind
become evidence of the open one. An alarm that comes back soon after its finding was cleared opens it again.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from anomaly.config import VIBRATION
from anomaly.diagnosis import names_bearing
from anomaly.finding import Change, Finding, FindingEvent, finding_key
from anomaly.state import Rule, View
from fettle.model import FaultFamily, FindingKind, MachineId, SensorId, Severity, SignalKind

CHECKS: dict[FaultFamily, tuple[str, ...]] = {
    FaultFamily.BEARING: ("envelope_spectrum", "grease", "replace_bearing"),
    FaultFamily.IMBALANCE: ("fasteners", "coupling", "balance"),
    FaultFamily.OVERHEATING: ("fan", "filter", "coolant", "temperature_sensor"),
    FaultFamily.OVERLOAD: ("process", "jam", "brake"),
    FaultFamily.NO_LOAD: ("coupling", "suction"),
    FaultFamily.ELECTRICAL_UNBALANCE: ("supply", "terminals", "windings"),
    FaultFamily.SENSOR_FAULT: ("wiring", "mounting", "configuration"),
    FaultFamily.UNKNOWN_DEVIATION: ("top_contributions",),
}
"""Keys of the suggested checks; `anomaly.wording` has them in Chinese and English."""

MACHINE_RULES = frozenset({Rule.LIMIT, Rule.DEVIATION, Rule.CHANGE, Rule.RATE})
"""Rules that blame the machine; all others blame a sensor."""

IMPACTS = (".kurtosis", ".crest")
"""How ingestion names the sensors that it derives from waveforms and that rise with impacts."""

_SOON_US = 48 * 3_600_000_000
_RANK = {Severity.LOW: 0, Severity.MEDIUM: 1, Severity.HIGH: 2}


@dataclass(frozen=True, slots=True)
class Sign:
    """One alarm, or a channel on its way to one, as evidence.

    `score` is in alarm levels, `is_up` the direction of the deviation, `is_step` whether it came at once.
    """

    rule: Rule
    view: View | None
    sensor_id: SensorId
    kind: SignalKind
    name: str
    unit: str
    onset_us: int
    score: float
    is_up: bool
    is_step: bool
    is_active: bool
    measured: float
    expected: float | None
    low: float | None
    high: float | None
    limit: float | None = None
    source: str = ""
    is_drift: bool = False

    @property
    def detector(self) -> str:
        view = {
            View.LEVEL: "residual",
            View.SIBLINGS: "siblings",
            View.EXCESS_HIGH: "excess",
            View.EXCESS_LOW: "excess",
        }
        if self.is_drift:
            return "drift"
        return view[self.view] if self.view is not None else self.rule.name.lower()

    def as_dict(self) -> dict[str, Any]:
        return {
            "sensor_id": int(self.sensor_id),
            "sensor": self.name,
            "kind": self.kind.value,
            "unit": self.unit,
            "feature": self.detector,
            "direction": "up" if self.is_up else "down",
            "onset_us": self.onset_us,
            "contribution": self.score,
            "measured": _finite(self.measured),
            "expected": _finite(self.expected),
            "low": _finite(self.low),
            "high": _finite(self.high),
            "limit": _finite(self.limit),
            "source": self.source,
        }


def _finite(value: float | None) -> float | None:
    return value if value is not None and abs(value) < float("inf") and value == value else None  # noqa: PLR0124


@dataclass(slots=True)
class Context:
    """What the engine knows about the machine at the moment of a change."""

    machine_id: MachineId
    number: str
    at_us: int
    mode: str
    tier: int
    model_version: str
    set_rate: float
    p_value: float | None = None
    zone: str | None = None
    zone_table: str | None = None
    zone_source: str | None = None
    health: float | None = None
    time_to_limit: dict[str, Any] | None = None
    tie_us: int = 0  # onsets that lie within an on-delay of each other are one
    known: Callable[[str, str], dict[str, Any]] | None = None  # (detector, family) -> what feedback says of that rule
    extra: dict[str, Any] = field(default_factory=dict)


def rank(signs: list[Sign], tie_us: int = 0) -> list[Sign]:
    """Order evidence sensor by sensor: active ones first, by first onset, then by contribution.

    Neighbours alarm later, by cross-talk; onsets within `tie_us` of the first are the same onset. The signs of one sensor
    stay together, the strongest active one first.
    """
    by_sensor: dict[int, list[Sign]] = {}
    for sign in signs:
        by_sensor.setdefault(int(sign.sensor_id), []).append(sign)
    first = min((s.onset_us for s in signs if s.is_active), default=0)

    def place(mine: list[Sign]) -> tuple[bool, int, float, int]:
        active = [s for s in mine if s.is_active]
        onset = min(s.onset_us for s in active or mine)
        late = onset if tie_us <= 0 else max(onset - first, 0) // tie_us
        return (not active, late, -math.fsum(s.score for s in mine), int(mine[0].sensor_id))

    ordered = sorted(by_sensor.values(), key=place)
    return [s for mine in ordered for s in sorted(mine, key=lambda s: (not s.is_active, -s.score, int(s.rule)))]


def entries(ranked: list[Sign]) -> list[dict[str, Any]]:
    """Return one entry per sensor, in order; `features` lists what was said of it, `contribution` is their sum."""
    out: dict[int, dict[str, Any]] = {}
    for sign in ranked:
        part = sign.as_dict()
        entry = out.setdefault(int(sign.sensor_id), {**part, "contribution": 0.0, "features": []})
        names = ("feature", "direction", "contribution", "measured", "expected", "low", "high", "limit", "source")
        entry["features"].append({**{name: part[name] for name in names}, "is_active": sign.is_active})
    for entry in out.values():
        entry["contribution"] = math.fsum(f["contribution"] for f in entry["features"])
    return list(out.values())


def score_of(ranked: list[Sign]) -> float:
    return math.fsum(entry["contribution"] for entry in entries(ranked))


def family_of(signs: list[Sign]) -> FaultFamily:
    """Name the fault family from which quantities left their band, in which direction, and how."""
    active = [s for s in signs if s.is_active]
    vibration = [s for s in active if s.kind in VIBRATION and s.is_up]
    if any(s.view is View.SIBLINGS and s.kind is SignalKind.CURRENT for s in active):
        return FaultFamily.ELECTRICAL_UNBALANCE
    hot = any(s.kind is SignalKind.TEMPERATURE and s.is_up for s in active)
    if any(s.view is View.EXCESS_HIGH or (s.rule is Rule.LIMIT and s.kind is SignalKind.CURRENT) for s in active):
        return FaultFamily.OVERLOAD
    # impacts ring at some kHz: acceleration and its kurtosis rise, velocity below 1 kHz hardly moves
    if any(s.is_up and s.name.endswith(IMPACTS) for s in active):
        return FaultFamily.BEARING
    if vibration:
        is_slow = {s.sensor_id for s in signs if s.kind is SignalKind.VIBRATION_VELOCITY}
        rings = bool(is_slow) and not is_slow.intersection(s.sensor_id for s in vibration)
        growing = hot or rings or not vibration[0].is_step
        return FaultFamily.BEARING if growing else FaultFamily.IMBALANCE
    if any(s.view is View.EXCESS_LOW for s in active):
        return FaultFamily.NO_LOAD
    if hot:
        return FaultFamily.OVERHEATING
    return FaultFamily.UNKNOWN_DEVIATION


@dataclass(slots=True)
class Open:
    """A finding that is open, or was cleared a short while ago, and the alarms that hold it open."""

    finding: Finding
    alarms: set[int]
    seen: set[int]


class Incidents:
    """The open and recent findings of all machines."""

    def __init__(self, *, reopen_us: int) -> None:
        self._reopen_us = reopen_us
        self._open: dict[tuple[int, FindingKind], Open] = {}

    def is_open(self, machine_id: int) -> bool:
        """Say whether a fault of the machine itself is raised."""
        known = self._open.get((machine_id, FindingKind.MACHINE))
        return known is not None and known.finding.cleared_us is None

    def faulty(self) -> set[int]:
        """Return the machines of which a fault is raised."""
        return {
            m for (m, kind), o in self._open.items() if kind is FindingKind.MACHINE and o.finding.cleared_us is None
        }

    def open_findings(self, machine_id: int) -> list[Finding]:
        return [o.finding for (m, _), o in self._open.items() if m == machine_id and o.finding.cleared_us is None]

    def raise_alarms(
        self, alarms: list[int], signs: list[Sign], context: Context, kind: FindingKind
    ) -> list[FindingEvent]:
        """Take newly raised alarms of one machine and one kind; `signs` is all the evidence there is, theirs included."""
        key = (int(context.machine_id), kind)
        known = self._open.get(key)
        ranked = rank(signs, context.tie_us)
        severity = _severity(ranked, context)
        if known is not None and (
            known.finding.cleared_us is None or context.at_us - known.finding.cleared_us <= self._reopen_us
        ):
            return self._add(known, alarms, ranked, context, severity)
        family = FaultFamily.SENSOR_FAULT if kind is FindingKind.SENSOR else family_of(ranked)
        head = ranked[0]
        onset = min(s.onset_us for s in ranked if s.is_active)
        finding = Finding(
            key=finding_key(machine_id=int(context.machine_id), family=family, onset_us=onset),
            machine_id=context.machine_id,
            fault_family=family,
            kind=kind,
            severity=severity,
            onset_us=onset,
            raised_us=context.at_us,
            cleared_us=None,
            detector=head.detector,
            block="DM" if kind is FindingKind.SENSOR else "SD",
            model_version=context.model_version,
            tier=context.tier,
            mode=context.mode,
            score=score_of(ranked),
            p_value=context.p_value,
            threshold=1.0,
            set_rate=context.set_rate,
            sensor_ids=_merge((), ranked),
            evidence=_evidence(ranked, context, onset, first=None, reopened=False, rule=(head.detector, family.value)),
        )
        self._open[key] = Open(finding, set(alarms), set(alarms))
        return [FindingEvent(Change.RAISED, finding, context.at_us)]

    @staticmethod
    def _add(
        known: Open, alarms: list[int], ranked: list[Sign], context: Context, severity: Severity
    ) -> list[FindingEvent]:
        """Append evidence; say so only if it is news: another sensor or rule, a worse severity, or that it is back."""
        before = known.finding
        sensors = _merge(before.sensor_ids, ranked)
        severity = max(severity, before.severity, key=_RANK.__getitem__)
        reopened = before.cleared_us is not None
        is_news = reopened or severity is not before.severity or not known.seen.issuperset(alarms)
        known.alarms.update(alarms)
        known.seen.update(alarms)
        known.finding = before.changed(
            severity=severity,
            cleared_us=None,
            score=score_of(ranked),
            sensor_ids=sensors,
            evidence=_evidence(
                ranked, context, before.onset_us, first=before.evidence, reopened=reopened, rule=_rule(before)
            ),
        )
        return [FindingEvent(Change.EVIDENCE, known.finding, context.at_us)] if is_news else []

    def refresh(self, signs: list[Sign], context: Context) -> list[FindingEvent]:
        """Bring the evidence of an open fault of a machine up to date; told only if its severity rose or the outlook changed."""
        known = self._open.get((int(context.machine_id), FindingKind.MACHINE))
        if known is None or known.finding.cleared_us is not None or not signs:
            return []
        if max((s.score for s in signs if s.is_active), default=0.0) < 1.0:
            return []  # on its way to clear: what it looked like while it lasted stays
        before = known.finding
        ranked = rank(signs, context.tie_us)
        severity = max(_severity(ranked, context), before.severity, key=_RANK.__getitem__)
        has_outlook = context.time_to_limit is not None
        is_news = severity is not before.severity or has_outlook or before.evidence.get("time_to_limit") is not None
        known.finding = before.changed(
            severity=severity,
            score=score_of(ranked),
            sensor_ids=_merge(before.sensor_ids, ranked),
            evidence=_evidence(
                ranked, context, before.onset_us, first=before.evidence, reopened=False, rule=_rule(before)
            ),
        )
        return [FindingEvent(Change.EVIDENCE, known.finding, context.at_us)] if is_news else []

    def amend(self, key: str, *, family: FaultFamily | None = None, **evidence: Any) -> Finding | None:
        """Add to the evidence of a finding what was found out beside the fold; return it, or None if it is not known."""
        for known in self._open.values():
            if known.finding.key == key:
                body = {**known.finding.evidence, **evidence}
                if family is not None:
                    body |= {"family_now": family.value, "checks": list(CHECKS[family])}
                known.finding = known.finding.changed(evidence=body, fault_family=family or known.finding.fault_family)
                return known.finding
        return None

    def clear_alarms(self, alarms: list[int], context: Context) -> list[FindingEvent]:
        """Take alarms that cleared; a finding is cleared with the last alarm that holds it open."""
        events = []
        for kind in FindingKind:
            known = self._open.get((int(context.machine_id), kind))
            if known is None or known.finding.cleared_us is not None or not known.alarms.intersection(alarms):
                continue
            known.alarms.difference_update(alarms)
            if not known.alarms:
                known.finding = known.finding.changed(cleared_us=context.at_us)
                events.append(FindingEvent(Change.CLEARED, known.finding, context.at_us))
        return events

    def take(self, other: "Incidents", machine_ids: set[int], alarm_of: dict[int, int]) -> None:
        """Take over what another has open on some machines; `alarm_of` gives an alarm's row here for its row there."""
        for (machine_id, kind), known in other._open.items():  # noqa: SLF001 -- another of the same class
            if machine_id in machine_ids:
                alarms, seen = ({alarm_of[a] for a in rows if a in alarm_of} for rows in (known.alarms, known.seen))
                self._open[machine_id, kind] = Open(known.finding, alarms, seen)

    def dump(self) -> list[dict[str, Any]]:
        return [
            {
                "machine": m,
                "kind": kind.value,
                "finding": o.finding.as_dict(),
                "alarms": sorted(o.alarms),
                "seen": sorted(o.seen),
            }
            for (m, kind), o in self._open.items()
        ]

    def load(self, body: list[dict[str, Any]]) -> None:
        self._open = {
            (row["machine"], FindingKind(row["kind"])): Open(
                Finding.from_dict(row["finding"]), set(row["alarms"]), set(row["seen"])
            )
            for row in body
        }


def _merge(known: tuple[SensorId, ...], ranked: list[Sign]) -> tuple[SensorId, ...]:
    return tuple(dict.fromkeys([*known, *(s.sensor_id for s in ranked if s.is_active)]))


def _severity(ranked: list[Sign], context: Context) -> Severity:
    outlook = context.time_to_limit
    if context.zone == "D" or any(s.rule is Rule.LIMIT and s.is_active for s in ranked):
        return Severity.HIGH
    if outlook is not None and outlook["high_us"] is not None and outlook["high_us"] < _SOON_US:
        return Severity.HIGH
    if context.zone == "C" or max((s.score for s in ranked), default=0.0) >= 2.0:
        return Severity.MEDIUM
    return Severity.LOW


def _rule(finding: Finding) -> tuple[str, str]:
    return finding.detector, finding.fault_family.value


def _evidence(
    ranked: list[Sign],
    context: Context,
    onset_us: int,
    *,
    first: dict[str, Any] | None,
    reopened: bool,
    rule: tuple[str, str],
) -> dict[str, Any]:
    family = (
        FaultFamily.SENSOR_FAULT
        if all(s.is_drift or s.rule not in MACHINE_RULES for s in ranked)
        else family_of(ranked)
    )
    if first is not None and names_bearing(first.get("waveform")) and family is not FaultFamily.SENSOR_FAULT:
        family = FaultFamily.BEARING
    listed = entries(ranked)
    known = context.known(*rule) if context.known else {}
    body: dict[str, Any] = {
        "machine": context.number,
        "at_us": context.at_us,
        "contributions": listed,
        "first_out": first["first_out"] if first else (listed[0] if listed else None),
        "window_us": [onset_us - 86_400_000_000, context.at_us],
        "zone": context.zone,
        "zone_table": context.zone_table,
        "zone_source": context.zone_source,
        "family_now": family.value,
        "checks": list(CHECKS[family]),
        "mode": context.mode,
        "tier": context.tier,
        "health": context.health,
        "time_to_limit": context.time_to_limit,
        "precision": known.get("precision"),
        "similar": known.get("similar", []),
        "incident": None,
        "waveform": None,
        "second_opinions": None,
        **context.extra,
    }
    for name in ("waveform", "second_opinions"):  # found out beside the fold: kept
        body[name] = (first or {}).get(name)
    if reopened:
        body["reopened"] = True
    return body
