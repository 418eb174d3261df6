r"""What leaves the package: findings and their changes of state (ISO 13374 blocks SD and HA, the content of AG).

A finding is raised once, collects evidence while it is open, and is cleared once:

    excursion      ____/~~~~~~~~~~~~~~~~~\______________
    finding            |   raised ... evidence ...    cleared
                     onset  (onset + on-delay)        (below the clear level for the off-delay)
"""

import hashlib
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from fettle.model import FaultFamily, FindingKind, MachineId, SensorId, Severity, SignalKind


@dataclass(frozen=True, slots=True)
class SensorMeta:
    """What detection knows about a sensor. `kind` and `unit` steer detectors; the name never does."""

    sensor_id: SensorId
    machine_id: MachineId
    name: str
    kind: SignalKind
    unit: str = ""


@dataclass(frozen=True, slots=True)
class MachineMeta:
    """What detection knows about a machine.

    `iso_class` is a row of the vibration severity table (`limits.toml`); without it a default row stands in and says so
    on every finding. `limits` overrides limits by signal kind: `{"temperature": 95.0}`. `line` and `site` group machines
    that fall silent or jump together.
    """

    machine_id: MachineId
    number: str
    machine_class: str | None = None
    iso_class: str | None = None
    rated_current_a: float | None = None
    line: str | None = None
    site: str | None = None
    limits: dict[str, float] = field(default_factory=dict)


class Change(StrEnum):
    RAISED = "raised"
    EVIDENCE = "evidence"
    CLEARED = "cleared"


@dataclass(frozen=True, slots=True)
class Finding:
    """A state of a machine or a sensor that calls for a response, with the evidence for it.

    Instants are int64 microseconds since 1970, UTC, in event time. `p_value` is the chance that a healthy machine
    scores as high in one block of time; it is no probability of a fault. `evidence` is JSON: see
    `docs/explanation/detection.md` for its keys.
    """

    key: str
    machine_id: MachineId
    fault_family: FaultFamily
    kind: FindingKind
    severity: Severity
    onset_us: int
    raised_us: int
    cleared_us: int | None
    detector: str
    block: str
    model_version: str
    tier: int
    mode: str
    score: float
    p_value: float | None
    threshold: float
    set_rate: float
    sensor_ids: tuple[SensorId, ...]
    evidence: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Return the finding as JSON-able values; `from_dict` is the inverse."""
        return {
            "key": self.key,
            "machine_id": int(self.machine_id),
            "fault_family": self.fault_family.value,
            "kind": self.kind.value,
            "severity": self.severity.value,
            "onset_us": self.onset_us,
            "raised_us": self.raised_us,
            "cleared_us": self.cleared_us,
            "detector": self.detector,
            "block": self.block,
            "model_version": self.model_version,
            "tier": self.tier,
            "mode": self.mode,
            "score": self.score,
            "p_value": self.p_value,
            "threshold": self.threshold,
            "set_rate": self.set_rate,
            "sensor_ids": [int(s) for s in self.sensor_ids],
            "evidence": self.evidence,
        }

    @classmethod
    def from_dict(cls, body: dict[str, Any]) -> "Finding":
        return cls(
            **{
                **body,
                "machine_id": MachineId(body["machine_id"]),
                "fault_family": FaultFamily(body["fault_family"]),
                "kind": FindingKind(body["kind"]),
                "severity": Severity(body["severity"]),
                "sensor_ids": tuple(SensorId(s) for s in body["sensor_ids"]),
            }
        )

    def changed(self, **fields: Any) -> "Finding":
        return replace(self, **fields)


@dataclass(frozen=True, slots=True)
class FindingEvent:
    """One change of state of one finding, `at_us` in event time."""

    change: Change
    finding: Finding
    at_us: int


def finding_key(*, machine_id: int, family: FaultFamily, onset_us: int) -> str:
    """Return the name of a finding that is the same however often it is derived.

    >>> finding_key(machine_id=7, family=FaultFamily.BEARING, onset_us=0)
    '7-bearing-b46ac6ed60ea'
    """
    digest = hashlib.sha256(f"{machine_id}|{family.value}|{onset_us}".encode()).hexdigest()[:12]
    return f"{machine_id}-{family.value}-{digest}"
