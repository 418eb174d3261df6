"""Words every package shares: ids, states, kinds. No behaviour beyond naming them.

States and kinds are `StrEnum` with the values that the database and the API carry.
"""

from enum import StrEnum
from typing import NewType

TenantId = NewType("TenantId", int)
SiteId = NewType("SiteId", int)
MachineId = NewType("MachineId", int)
SensorId = NewType("SensorId", int)
CustomerId = NewType("CustomerId", int)
EngineerId = NewType("EngineerId", int)
TicketId = NewType("TicketId", int)
UserId = NewType("UserId", int)


class SignalKind(StrEnum):
    """The physical quantity of a sensor. Follows from its unit, never from its name."""

    VIBRATION_VELOCITY = "vibration_velocity"
    VIBRATION_ACCELERATION = "vibration_acceleration"
    TEMPERATURE = "temperature"
    CURRENT = "current"
    VOLTAGE = "voltage"
    POWER = "power"
    PRESSURE = "pressure"
    FLOW = "flow"
    SPEED = "speed"
    HUMIDITY = "humidity"
    STATE = "state"
    COUNT = "count"
    OTHER = "other"


UNITS: dict[str, tuple[SignalKind, str]] = {
    # accepted spelling (case-insensitive, blanks dropped) -> kind, unit as Fettle writes it
    "mm/s": (SignalKind.VIBRATION_VELOCITY, "mm/s"),
    "g": (SignalKind.VIBRATION_ACCELERATION, "g"),
    "m/s2": (SignalKind.VIBRATION_ACCELERATION, "m/s²"),
    "m/s²": (SignalKind.VIBRATION_ACCELERATION, "m/s²"),
    "cel": (SignalKind.TEMPERATURE, "°C"),
    "°c": (SignalKind.TEMPERATURE, "°C"),
    "degc": (SignalKind.TEMPERATURE, "°C"),
    "c": (SignalKind.TEMPERATURE, "°C"),
    "°f": (SignalKind.TEMPERATURE, "°F"),
    "degf": (SignalKind.TEMPERATURE, "°F"),
    "k": (SignalKind.TEMPERATURE, "K"),
    "a": (SignalKind.CURRENT, "A"),
    "v": (SignalKind.VOLTAGE, "V"),
    "w": (SignalKind.POWER, "W"),
    "kw": (SignalKind.POWER, "kW"),
    "bar": (SignalKind.PRESSURE, "bar"),
    "pa": (SignalKind.PRESSURE, "Pa"),
    "kpa": (SignalKind.PRESSURE, "kPa"),
    "l/min": (SignalKind.FLOW, "l/min"),
    "m3/h": (SignalKind.FLOW, "m³/h"),
    "1/min": (SignalKind.SPEED, "1/min"),
    "rpm": (SignalKind.SPEED, "1/min"),
    "hz": (SignalKind.SPEED, "Hz"),
    "%rh": (SignalKind.HUMIDITY, "%RH"),
    "state": (SignalKind.STATE, "state"),
    "count": (SignalKind.COUNT, "count"),
}


def read_unit(spelling: str | None) -> tuple[SignalKind, str]:
    """Return the kind and the canonical unit of a spelling; an unknown one is kept as written with kind `other`.

    >>> read_unit("Cel")
    (<SignalKind.TEMPERATURE: 'temperature'>, '°C')
    >>> read_unit("furlong")
    (<SignalKind.OTHER: 'other'>, 'furlong')
    """
    if not spelling:
        return SignalKind.OTHER, ""
    return UNITS.get(spelling.replace(" ", "").lower(), (SignalKind.OTHER, spelling))


class Quality:
    """Quality of a reading, the codes of Sparkplug B 3.0, used for every format."""

    BAD = 0
    GOOD = 192
    STALE = 500


class Flag:
    """Bits of `reading.flags`: what the collector did to a reading."""

    RECEIVE_TIME = 1  # no time stamp in the payload; the time of receipt stands in
    CLAMPED = 2  # the time stamp lay in the future and was set to the time of receipt
    LATE = 4  # arrived later than the lateness that counts as live
    INEXACT = 8  # an integer beyond 2**53 lost digits
    HISTORICAL = 16  # the sender says this is history: store it, do not alarm on it


class FaultFamily(StrEnum):
    """What a finding says is wrong. With the machine it is the key of the one open ticket."""

    BEARING = "bearing"
    IMBALANCE = "imbalance"  # imbalance, misalignment, looseness: a vibration step at unchanged load
    OVERHEATING = "overheating"
    OVERLOAD = "overload"
    NO_LOAD = "no_load"  # lost coupling, dry run, cavitation
    ELECTRICAL_UNBALANCE = "electrical_unbalance"
    SENSOR_FAULT = "sensor_fault"
    UNKNOWN_DEVIATION = "unknown_deviation"


class FindingKind(StrEnum):
    MACHINE = "machine"
    SENSOR = "sensor"


class Severity(StrEnum):
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class FindingOutcome(StrEnum):
    """What became of a finding, as people found it."""

    CONFIRMED = "confirmed"
    REJECTED = "rejected"
    UNKNOWN = "unknown"


class Rejection(StrEnum):
    """Why a finding was no fault."""

    PROCESS_CHANGE = "process_change"
    SENSOR = "sensor"
    TOLERATED = "tolerated"
    DUPLICATE = "duplicate"


class Repair(StrEnum):
    """What was done to a machine."""

    NONE = "none"
    REPAIRED = "repaired"
    REPLACED = "replaced"


class TicketState(StrEnum):
    """The six states of a ticket, in the order of its life."""

    SUBMITTED = "submitted"  # 已提交
    PENDING_CONFIRMATION = "pending_confirmation"  # 待确认
    DISPATCHED = "dispatched"  # 已派发
    IN_PROGRESS = "in_progress"  # 处理中
    PENDING_ACCEPTANCE = "pending_acceptance"  # 待验收
    CLOSED = "closed"  # 已关闭


class TicketType(StrEnum):
    REPAIR = "repair"  # 设备报修
    MAINTENANCE = "maintenance"  # 定期保养
    EMERGENCY_STOP = "emergency_stop"  # 紧急停机
    PART_REQUEST = "part_request"  # 配件申领
    POTENTIAL_FAULT = "potential_fault"  # 潜在故障
    INSPECTION = "inspection"  # 巡检


class Priority(StrEnum):
    """How soon a ticket must be served, least first."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"
    EMERGENCY = "emergency"


class Role(StrEnum):
    CUSTOMER_REP = "customer_rep"  # 客户代表
    ORDER_TAKER = "order_taker"  # 接单员
    SUPERVISOR = "supervisor"  # 派工主管
    ENGINEER = "engineer"  # 现场工程师
    FINANCE = "finance"  # 财务审核
    ADMIN = "admin"
    HQ_VIEWER = "hq_viewer"
    MACHINE_ACCOUNT = "machine_account"
