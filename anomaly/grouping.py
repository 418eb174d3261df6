r"""Many findings at once are one incident: a power dip on 500 machines, a gateway that goes wild (ISA-18.2, EEMUA 191).

    finding 1  ●──────────────── headline: handed on at once, first-out
    finding 2   ◌······╮         held for at most ten minutes while it may belong to more
    finding 3    ◌·····●         half a line or site together, or more than ten at a site in ten minutes: an incident
    finding 4..500      ●        members: handed on, each naming the headline, so that one ticket collects them all

Nothing is lost: every finding is raised, with its own evidence; only where it belongs is said. What is still open an hour
after the headline cleared stands for itself from then on.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from anomaly.finding import Change, Finding, FindingEvent, MachineMeta

WINDOW_US = 10 * 60_000_000
ONSET_US = 5 * 60_000_000
FLOOD = 10
TOGETHER = 3
_RELEASE_US = 3_600_000_000


@dataclass(slots=True)
class _Seen:
    """A finding that was raised of late at a place, handed on or held."""

    finding: Finding
    place: str
    line: str

    @property
    def key(self) -> str:
        return self.finding.key

    @property
    def machine_id(self) -> int:
        return int(self.finding.machine_id)


@dataclass(slots=True)
class Incident:
    """One headline and the findings that belong to it; `told` is how many of them the headline has named."""

    headline: Finding
    place: str
    reason: str
    machines: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    told: int = 0
    open: dict[str, Finding] = field(default_factory=dict)  # members that are raised
    last_us: int = 0  # of the newest member
    changed_us: int = 0  # of the newest change of the headline that was handed on
    cleared_us: int | None = None

    def note(self) -> dict[str, Any]:
        """Return what the headline says of its members."""
        return {
            "role": "headline",
            "reason": self.reason,
            "place": self.place,
            "findings": len(self.keys) + 1,
            "machines": self.machines[:50],
            "machine_count": len(set(self.machines)),
        }

    def member_note(self) -> dict[str, Any]:
        f = self.headline
        return {
            "role": "member",
            "reason": self.reason,
            "place": self.place,
            "headline": f.key,
            "headline_machine_id": int(f.machine_id),
            "headline_machine": str(f.evidence.get("machine", "")),
            "headline_family": f.fault_family.value,
        }


def is_member(finding: Finding) -> bool:
    """Say whether a finding belongs to an incident that another one heads."""
    note = finding.evidence.get("incident")
    return isinstance(note, dict) and note.get("role") == "member"


class Grouping:
    """Watches the findings of all machines on their way out."""

    def __init__(
        self, meta_of: Callable[[int], MachineMeta | None], census: Callable[[], Iterable[MachineMeta]]
    ) -> None:
        self._meta_of = meta_of
        self._census = census
        self._sizes: dict[str, int] | None = None
        self._seen: list[_Seen] = []
        self._held: dict[str, list[FindingEvent]] = {}
        self._incidents: dict[str, Incident] = {}
        self._member_of: dict[str, str] = {}

    def census_changed(self) -> None:
        """Count the machines of lines and sites anew when it matters next."""
        self._sizes = None

    def take(self, events: list[FindingEvent], reached_us: int) -> list[FindingEvent]:
        """Return what is to be handed on of `events`, in order; `reached_us` is how far event time has come."""
        if not events and not self._held and not self._incidents:
            return []
        out: list[FindingEvent] = []
        for event in events:
            self._release(event.at_us, out)
            self._one(event, out)
        self._release(reached_us, out)
        for incident in self._incidents.values():
            self._tell(incident, out, least=2 * incident.told if incident.told else 1)
        return out

    def overdue(self, now_us: int) -> list[FindingEvent]:
        """Return what was held long enough by the clock, where no data come any more that could move event time on."""
        out: list[FindingEvent] = []
        self._let_go(now_us, out)
        return out

    def _one(self, event: FindingEvent, out: list[FindingEvent]) -> None:
        key = event.finding.key
        if key in self._held:
            self._held[key].append(event)
            return
        if key in self._member_of and self._member_of[key] in self._incidents:
            self._of_member(event, out)
            return
        if key in self._incidents:
            self._of_headline(event, out)
            return
        if event.change is Change.RAISED:
            self._raised(event, out)
            return
        for seen in self._seen:
            if seen.key == key:
                seen.finding = event.finding
        out.append(event)

    # -- a finding is raised -----------------------------------------------------------------------------------------

    def _raised(self, event: FindingEvent, out: list[FindingEvent]) -> None:
        f = event.finding
        meta = self._meta_of(int(f.machine_id))
        place = (meta.site or meta.line or "") if meta else ""
        if meta is None or not place:
            out.append(event)
            return
        self._seen = [s for s in self._seen if f.raised_us - s.finding.raised_us <= WINDOW_US]
        self._seen.append(_Seen(f, place, meta.line or ""))
        for incident in self._incidents.values():
            if incident.place == place and self._joins(incident, f):
                self._join(incident, [event], out)
                return
        here = [s for s in self._seen if s.place == place and s.key not in self._member_of]
        alike = [s for s in here if abs(s.finding.onset_us - f.onset_us) <= ONSET_US]
        reason = self._reason(here, alike, meta)
        if reason:
            self._declare(alike if reason == "together" else here, place, reason, event, out)
        elif any(s.machine_id != int(f.machine_id) for s in alike):
            self._held[f.key] = [event]
        else:
            out.append(event)

    def _reason(self, here: list[_Seen], alike: list[_Seen], meta: MachineMeta) -> str:
        machines = {s.machine_id for s in alike}
        if self._is_most(machines, "site", meta.site or meta.line or ""):
            return "together"
        line = meta.line or ""
        if line and self._is_most({s.machine_id for s in alike if s.line == line}, "line", line):
            return "together"
        return "flood" if len(here) > FLOOD else ""

    def _is_most(self, machines: set[int], kind: str, name: str) -> bool:
        if len(machines) < TOGETHER:
            return False
        if self._sizes is None:
            self._sizes = {}
            for meta in self._census():
                for key in {f"line {meta.line or ''}", f"site {meta.site or meta.line or ''}"}:
                    self._sizes[key] = self._sizes.get(key, 0) + 1
        return 2 * len(machines) >= self._sizes.get(f"{kind} {name}", 0)

    @staticmethod
    def _joins(incident: Incident, f: Finding) -> bool:
        is_recent = f.raised_us - max(incident.last_us, incident.headline.raised_us) <= WINDOW_US
        if incident.reason == "flood":
            return is_recent
        return is_recent and abs(f.onset_us - incident.headline.onset_us) <= ONSET_US

    def _declare(
        self, seen: list[_Seen], place: str, reason: str, event: FindingEvent, out: list[FindingEvent]
    ) -> None:
        """Make the earliest of these findings the headline, and all that was not handed on yet its members."""
        given = [s for s in seen if s.key != event.finding.key and s.key not in self._held]
        if not given:
            out.append(event)
            return
        first = min(given, key=lambda s: (s.finding.onset_us, s.finding.raised_us, s.machine_id))
        headline = first.finding
        incident = Incident(headline, place, reason, [str(headline.evidence.get("machine", ""))], last_us=event.at_us)
        incident.changed_us = event.at_us
        incident.cleared_us = headline.cleared_us  # it may be over already
        self._incidents[headline.key] = incident
        for s in seen:
            if s.key in self._held:
                self._join(incident, self._held.pop(s.key), out)
        self._join(incident, [event], out)

    def _join(self, incident: Incident, events: list[FindingEvent], out: list[FindingEvent]) -> None:
        f = events[0].finding
        incident.keys.append(f.key)
        incident.machines.append(str(f.evidence.get("machine", "")))
        incident.last_us = max(incident.last_us, f.raised_us)
        self._member_of[f.key] = incident.headline.key
        for event in events:
            self._of_member(event, out)

    # -- later -------------------------------------------------------------------------------------------------------

    def _of_member(self, event: FindingEvent, out: list[FindingEvent]) -> None:
        incident = self._incidents[self._member_of[event.finding.key]]
        out.append(_noted(event, incident.member_note()))
        if event.change is Change.CLEARED:
            incident.open.pop(event.finding.key, None)
        else:
            incident.open[event.finding.key] = event.finding

    def _of_headline(self, event: FindingEvent, out: list[FindingEvent]) -> None:
        incident = self._incidents[event.finding.key]
        incident.headline = event.finding
        incident.changed_us = max(incident.changed_us, event.at_us)
        incident.cleared_us = event.at_us if event.change is Change.CLEARED else None
        out.append(_noted(event, incident.note()))

    def _tell(self, incident: Incident, out: list[FindingEvent], *, least: int) -> None:
        """Let the headline name its members, each time their number has doubled; also when it has cleared meanwhile.

        Nobody else speaks for the members: a headline that was held while it stood alone is heard of now.
        """
        if len(incident.keys) < least:
            return
        incident.told = len(incident.keys)
        incident.changed_us = max(incident.changed_us, incident.last_us) + 1
        change = Change.EVIDENCE if incident.cleared_us is None else Change.CLEARED
        out.append(_noted(FindingEvent(change, incident.headline, incident.changed_us), incident.note()))

    def _release(self, reached_us: int, out: list[FindingEvent]) -> None:
        """Hand on what was held long enough; end incidents whose headline cleared an hour ago."""
        self._let_go(reached_us, out)
        for key in list(self._incidents):
            incident = self._incidents[key]
            if incident.cleared_us is None or reached_us - incident.cleared_us <= _RELEASE_US:
                continue
            self._tell(incident, out, least=incident.told + 1)
            still = incident.open.values()
            out.extend(_noted(FindingEvent(Change.EVIDENCE, finding, reached_us), None) for finding in still)
            for member in incident.keys:
                self._member_of.pop(member, None)
            del self._incidents[key]

    def _let_go(self, reached_us: int, out: list[FindingEvent]) -> None:
        for key in [k for k, held in self._held.items() if reached_us - held[0].finding.raised_us > WINDOW_US]:
            out.extend(self._held.pop(key))

    # -- persistence -------------------------------------------------------------------------------------------------

    def dump(self) -> dict[str, Any]:
        return {
            "seen": [{"finding": s.finding.as_dict(), "place": s.place, "line": s.line} for s in self._seen],
            "held": {key: [_event_as_dict(e) for e in events] for key, events in self._held.items()},
            "incidents": [
                {
                    "headline": i.headline.as_dict(),
                    "place": i.place,
                    "reason": i.reason,
                    "machines": i.machines,
                    "keys": i.keys,
                    "told": i.told,
                    "open": [f.as_dict() for f in i.open.values()],
                    "last_us": i.last_us,
                    "changed_us": i.changed_us,
                    "cleared_us": i.cleared_us,
                }
                for i in self._incidents.values()
            ],
        }

    def load(self, body: dict[str, Any]) -> None:
        """Take what `dump` returned; nothing where it is empty."""
        self._seen = [_Seen(Finding.from_dict(s["finding"]), s["place"], s["line"]) for s in body.get("seen", [])]
        self._held = {key: [_event_from_dict(e) for e in events] for key, events in body.get("held", {}).items()}
        self._incidents = {}
        for row in body.get("incidents", []):
            given = {**row, "headline": Finding.from_dict(row["headline"])}
            given["open"] = {f["key"]: Finding.from_dict(f) for f in row["open"]}
            incident = Incident(**given)
            self._incidents[incident.headline.key] = incident
        self._member_of = {key: i.headline.key for i in self._incidents.values() for key in i.keys}


def _noted(event: FindingEvent, note: dict[str, Any] | None) -> FindingEvent:
    evidence = {**event.finding.evidence, "incident": note}
    return FindingEvent(event.change, event.finding.changed(evidence=evidence), event.at_us)


def _event_as_dict(event: FindingEvent) -> dict[str, Any]:
    return {"change": event.change.value, "finding": event.finding.as_dict(), "at_us": event.at_us}


def _event_from_dict(body: dict[str, Any]) -> FindingEvent:
    return FindingEvent(Change(body["change"]), Finding.from_dict(body["finding"]), body["at_us"])
