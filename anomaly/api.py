"""What other packages may use of detection.

engine = Engine(EngineConfig())
engine.register(machines, sensors)
for event in engine.fold(readings, received_us): ...
"""

from anomaly.columns import ForeignState
from anomaly.config import EngineConfig
from anomaly.engine import Engine
from anomaly.finding import Change, Finding, FindingEvent, MachineMeta, SensorMeta, finding_key
from anomaly.limits import BadLimitsFile, Limits, UnknownIsoClass, load_limits, shipped_limits
from anomaly.store import Announcement, LostShard, find_finding, forget_state
from anomaly.watch import Watch, WatchCounts, watch

__all__ = [
    "Announcement",
    "BadLimitsFile",
    "Change",
    "Engine",
    "EngineConfig",
    "Finding",
    "FindingEvent",
    "ForeignState",
    "Limits",
    "LostShard",
    "MachineMeta",
    "SensorMeta",
    "UnknownIsoClass",
    "Watch",
    "WatchCounts",
    "find_finding",
    "finding_key",
    "forget_state",
    "load_limits",
    "shipped_limits",
    "watch",
]
