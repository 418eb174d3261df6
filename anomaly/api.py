"""What other packages may use of detection.

engine = Engine(EngineConfig())
engine.register(machines, sensors)
for event in engine.fold(readings, received_us): ...
"""

from anomaly import wording
from anomaly.backtest import Backtest, BadConfigFile, Run, backtest, read_config
from anomaly.columns import ForeignState
from anomaly.comparison import BadResultFile, Comparison, compare, load_run, store_run
from anomaly.config import EngineConfig
from anomaly.engine import Engine
from anomaly.explanation import BadPlotFile, NoSuchFinding, check_plot_file, draw, explain, series, write_plot
from anomaly.finding import Change, Finding, FindingEvent, MachineMeta, SensorMeta, finding_key
from anomaly.grouping import is_member
from anomaly.history import (
    BadHistoryFile,
    History,
    Layout,
    NoSuchMachine,
    NothingStored,
    open_file,
    open_stored,
    pick_machines,
)
from anomaly.limits import BadLimitsFile, Limits, UnknownIsoClass, load_limits, shipped_limits
from anomaly.plots import span_in_words, sparkline
from anomaly.report_page import report_page
from anomaly.store import Announcement, Fleet, LostShard, find_finding, forget_state, load_fleet, to_instant
from anomaly.traces import Traces
from anomaly.truth import BadTruthFile, Episode, Judgement, Ticket, Truth, judge, parse_instant_us, read_truth
from anomaly.watch import Watch, WatchCounts, watch

__all__ = [
    "Announcement",
    "Backtest",
    "BadConfigFile",
    "BadHistoryFile",
    "BadLimitsFile",
    "BadPlotFile",
    "BadResultFile",
    "BadTruthFile",
    "Change",
    "Comparison",
    "Engine",
    "EngineConfig",
    "Episode",
    "Finding",
    "FindingEvent",
    "Fleet",
    "ForeignState",
    "History",
    "Judgement",
    "Layout",
    "Limits",
    "LostShard",
    "MachineMeta",
    "NoSuchFinding",
    "NoSuchMachine",
    "NothingStored",
    "Run",
    "SensorMeta",
    "Ticket",
    "Traces",
    "Truth",
    "UnknownIsoClass",
    "Watch",
    "WatchCounts",
    "backtest",
    "check_plot_file",
    "compare",
    "draw",
    "explain",
    "find_finding",
    "finding_key",
    "forget_state",
    "is_member",
    "judge",
    "load_fleet",
    "load_limits",
    "load_run",
    "open_file",
    "open_stored",
    "parse_instant_us",
    "pick_machines",
    "read_config",
    "read_truth",
    "report_page",
    "series",
    "shipped_limits",
    "span_in_words",
    "sparkline",
    "store_run",
    "to_instant",
    "watch",
    "wording",
    "write_plot",
]
