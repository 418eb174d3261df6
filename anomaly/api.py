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

__all__ = [
    "BadLimitsFile",
    "Change",
    "Engine",
    "EngineConfig",
    "Finding",
    "FindingEvent",
    "ForeignState",
    "Limits",
    "MachineMeta",
    "SensorMeta",
    "UnknownIsoClass",
    "finding_key",
    "load_limits",
    "shipped_limits",
]
