"""The words of tickets: what a ticket holds, who acts on it, what a finding brings."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from fettle.model import (
    CustomerId,
    EngineerId,
    FaultFamily,
    FindingKind,
    MachineId,
    Priority,
    Role,
    Severity,
    TenantId,
    TicketId,
    TicketState,
    TicketType,
)


class Channel(StrEnum):
    """How a ticket came in."""

    API = "api"
    BOARD = "board"
    PHONE = "phone"
    MAIL = "mail"
    CHAT = "chat"
    DETECTOR = "detector"


class Resolution(StrEnum):
    """Why a ticket is closed."""

    ACCEPTED = "accepted"
    AUTO_ACCEPTED = "auto_accepted"
    CANCELLED = "cancelled"
    REJECTED = "rejected"
    DUPLICATE = "duplicate"
    FALSE_ALARM = "false_alarm"


class DispatchHold(StrEnum):
    """Why dispatch does not try a ticket that waits for it."""

    NONE = ""
    NOBODY_ELIGIBLE = "nobody_eligible"
    OFFERS_FAILED = "offers_failed"
    TAKEN_BACK = "taken_back"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts: an account, or a program under the role `machine_account`."""

    name: str
    role: Role
    engineer_id: EngineerId | None = None
    customer_id: CustomerId | None = None


DETECTION = Actor("fettle-detect", Role.MACHINE_ACCOUNT)
DISPATCH = Actor("fettle-dispatch", Role.MACHINE_ACCOUNT)


def is_internal(*, kind: str, actor: str) -> bool:
    """Say whether the words of an event are the office's own: they weigh engineers against each other, which customers are not told."""
    return actor == DISPATCH.name or (kind in {"assignment", "note"} and actor != DETECTION.name)


@dataclass(frozen=True, slots=True)
class Report:
    """A complete fault report as somebody filed it."""

    equipment_number: str
    fault_description: str
    contact_phone: str
    region: str
    type: TicketType = TicketType.REPAIR
    priority: Priority = Priority.NORMAL
    channel: Channel = Channel.API
    occurred_at: datetime | None = None
    work_center: str = ""
    operation: str = ""
    answers: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Requirement:
    """A certificate that whoever does the job must hold, at this level or above."""

    certificate_code: str
    level: int = 1


@dataclass(frozen=True, slots=True)
class ReportedFinding:
    """One state of a finding, as detection hands it on. `key` and `revision` together name it for good."""

    key: str
    revision: int
    machine_id: MachineId
    fault_family: FaultFamily
    kind: FindingKind
    severity: Severity
    onset_at: datetime
    at: datetime
    detector: str
    score: float
    threshold: float | None = None
    evidence: dict[str, Any] = field(default_factory=dict)
    finding_id: int | None = None


@dataclass(frozen=True, slots=True)
class Ticket:
    """One row of `ticket`."""

    id: TicketId
    tenant_id: TenantId
    number: str
    type: TicketType
    state: TicketState
    channel: Channel
    priority: Priority
    severity: Severity
    equipment_number: str
    machine_id: MachineId | None
    customer_id: CustomerId | None
    fault_family: str
    fault_description: str
    fault_description_zh: str
    contact_phone: str
    region: str
    work_center: str
    operation: str
    answers: dict[str, Any]
    hold_reason: str | None
    resolution_code: str | None
    duplicate_of: TicketId | None
    rework_count: int
    satisfaction: int | None
    failed_offers: int
    dispatch_hold: str
    dispatch_after: datetime | None
    version: int
    occurred_at: datetime
    created_at: datetime
    updated_at: datetime
    closed_at: datetime | None

    @property
    def is_open(self) -> bool:
        return self.state != TicketState.CLOSED

    @property
    def has_known_machine(self) -> bool:
        return self.machine_id is not None


@dataclass(frozen=True, slots=True)
class Opened:
    """A finding opened a ticket."""

    ticket_id: TicketId
    number: str


@dataclass(frozen=True, slots=True)
class Appended:
    """A finding belongs to a ticket that is there already; `is_news` is false when this very revision was known."""

    ticket_id: TicketId
    number: str
    is_news: bool
    severity_rose: bool


@dataclass(frozen=True, slots=True)
class NoOpenTicket:
    """A finding cleared, and no open ticket is about it."""
