"""The words of dispatch: engineers as dispatch sees them, jobs, the tenant's policy, and decisions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from enum import StrEnum

from fettle.model import EngineerId, Priority, TicketId, TicketType
from fettle.words import Words


class AssignmentStatus(StrEnum):
    OFFERED = "offered"
    ACCEPTED = "accepted"
    STARTED = "started"
    REJECTED = "rejected"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"
    FINISHED = "finished"


class OffShift(StrEnum):
    """What to do with an engineer who is not on duty when the job would begin."""

    NEXT_SHIFT = "next_shift"  # plan the job into the next shift
    REFUSE = "refuse"  # leave him or her out


@dataclass(frozen=True, slots=True)
class Certificate:
    """Valid from `valid_from` until just before `valid_until`; a review that is overdue suspends it."""

    code: str
    level: int
    valid_from: datetime
    valid_until: datetime | None = None
    review_due_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Requirement:
    """A certificate that the job takes, at this level or above."""

    certificate_code: str
    level: int = 1


@dataclass(frozen=True, slots=True)
class Shift:
    """Weekly: begins at `starts_at` by the wall clock on ISO weekday `weekday`, and lasts `hours`, past midnight or not."""

    weekday: int
    starts_at: time
    hours: float


@dataclass(frozen=True, slots=True)
class Absence:
    begins_at: datetime
    ends_at: datetime | None


@dataclass(frozen=True, slots=True)
class Engineer:
    """An engineer at the moment of a decision. Without shifts there is no calendar: always on duty."""

    id: EngineerId
    code: str
    name: str
    latitude: float
    longitude: float
    time_zone: str
    job_cap: int
    active_jobs: int
    regions: tuple[str, ...] = ()
    certificates: tuple[Certificate, ...] = ()
    shifts: tuple[Shift, ...] = ()
    absences: tuple[Absence, ...] = ()


@dataclass(frozen=True, slots=True)
class Job:
    """What a ticket asks of whoever does it. Without coordinates every engineer is equally far."""

    ticket_id: TicketId
    number: str
    type: TicketType
    priority: Priority
    region: str
    latitude: float | None
    longitude: float | None
    requirements: tuple[Requirement, ...] = ()
    refused_by: frozenset[EngineerId] = frozenset()

    @property
    def is_emergency(self) -> bool:
        return self.priority is Priority.EMERGENCY or self.type is TicketType.EMERGENCY_STOP


@dataclass(frozen=True, slots=True)
class Policy:
    """How a tenant dispatches. Weights need not sum to one; a term is between 0 and 1, higher is better."""

    weights: Mapping[str, float] = field(
        default_factory=lambda: {"travel": 0.35, "soon": 0.25, "load": 0.25, "skill": 0.15}
    )
    detour: float = 1.3  # road over straight line
    speed_km_h: float = 40.0
    far_minutes: float = 180.0  # travel that scores 0
    late_hours: float = 24.0  # waiting that scores 0
    job_minutes: Mapping[str, float] = field(
        default_factory=lambda: {"potential_fault": 60.0, "inspection": 60.0, "part_request": 60.0, "other": 120.0}
    )
    off_shift: OffShift = OffShift.NEXT_SHIFT
    horizon_hours: float = 96.0  # how far ahead a next shift is looked for
    emergencies_off_shift: bool = True
    emergency_weights: Mapping[str, float] = field(default_factory=lambda: {"travel": 0.7, "soon": 0.3})
    region_is_hard: bool = False
    offer_minutes: Mapping[Priority, float] = field(
        default_factory=lambda: {
            Priority.EMERGENCY: 5.0,
            Priority.HIGH: 15.0,
            Priority.NORMAL: 60.0,
            Priority.LOW: 240.0,
        }
    )
    most_failures: int = 3
    retry_minutes: float = 15.0
    auto_types: tuple[TicketType, ...] = (TicketType.POTENTIAL_FAULT, TicketType.EMERGENCY_STOP)
    accept_after_days: float = 7.0

    def weights_for(self, job: Job) -> Mapping[str, float]:
        return self.emergency_weights if job.is_emergency else self.weights

    def job_length(self, job: Job) -> timedelta:
        return timedelta(minutes=self.job_minutes.get(job.type.value, self.job_minutes["other"]))

    def offer_length(self, job: Job) -> timedelta:
        return timedelta(minutes=self.offer_minutes[Priority.EMERGENCY if job.is_emergency else job.priority])


class Code(StrEnum):
    """Why an engineer may not do a job."""

    CERTIFICATE_MISSING = "certificate_missing"
    CERTIFICATE_LEVEL = "certificate_level"
    CERTIFICATE_NOT_YET_VALID = "certificate_not_yet_valid"
    CERTIFICATE_EXPIRED = "certificate_expired"
    REVIEW_OVERDUE = "review_overdue"
    OFF_SHIFT = "off_shift"
    ABSENT = "absent"
    REGION = "region"
    AT_CAP = "at_cap"
    REFUSED = "refused"


# What a supervisor may set aside. Certificates are law, the cap is the database's, an absent engineer is not there.
WAIVABLE = frozenset({Code.OFF_SHIFT, Code.REGION, Code.REFUSED})


@dataclass(frozen=True, slots=True)
class Exclusion:
    """One hard rule that an engineer fails, in words, and when it will no longer hold, if that is known."""

    code: Code
    words: Words
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """When an engineer would do the job: `[starts_at, ends_at)`."""

    starts_at: datetime
    ends_at: datetime
    travel_km: float | None
    travel: timedelta


@dataclass(frozen=True, slots=True)
class Candidate:
    """One engineer in a decision: excluded, or scored."""

    engineer: Engineer
    plan: Plan
    excluded_by: tuple[Exclusion, ...] = ()
    terms: Mapping[str, float] = field(default_factory=dict)
    score: float | None = None

    @property
    def is_eligible(self) -> bool:
        return not self.excluded_by


@dataclass(frozen=True, slots=True)
class Decision:
    """The outcome for one job: eligible candidates best first, then the excluded ones by id."""

    job: Job
    at: datetime
    candidates: tuple[Candidate, ...]

    @property
    def ranked(self) -> tuple[Candidate, ...]:
        return tuple(c for c in self.candidates if c.is_eligible)

    @property
    def chosen(self) -> Candidate | None:
        return next(iter(self.ranked), None)

    @property
    def runner_up(self) -> Candidate | None:
        return self.ranked[1] if len(self.ranked) > 1 else None

    @property
    def margin(self) -> float | None:
        """How much better the chosen one scores than the next."""
        if len(self.ranked) < 2:
            return None
        return (self.ranked[0].score or 0.0) - (self.ranked[1].score or 0.0)
