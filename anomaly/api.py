"""What other packages may use of detection.

engine = Engine(EngineConfig())
engine.register(machines, sensors)
for event in engine.fold(readings, received_us): ...
"""

from anomaly import wording
from anomaly.backtest import Backtest, BadConfigFile, Run, backtest, read_config, with_opinions
from anomaly.columns import ForeignState
from anomaly.comparison import BadResultFile, Comparison, compare, load_run, store_run
from anomaly.config import EngineConfig
from anomaly.engine import Engine
from anomaly.explanation import BadPlotFile, NoSuchFinding, check_plot_file, draw, explain, series, write_plot
from anomaly.finding import Change, Finding, FindingEvent, MachineMeta, SensorMeta, finding_key
from anomaly.grouping import is_member
from anomaly.handover import BadShard
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
from anomaly.inhibitions import (
    Inhibition,
    InhibitionKind,
    NoSuchInhibition,
    add_inhibition,
    end_inhibition,
    list_inhibitions,
)
from anomaly.limits import BadLimitsFile, Limits, UnknownIsoClass, load_limits, shipped_limits
from anomaly.outcomes import Closing, Closings, give_order, list_lifts, list_rules, record_outcome
from anomaly.plots import span_in_words, sparkline
from anomaly.registry import (
    ConfigTaken,
    KeptConfig,
    NoEarlierVersion,
    NoSuchConfig,
    NoSuchVersion,
    OrderRefused,
    StructureChanged,
    activate,
    compare_shadow,
    find_config,
    find_version,
    keep_config,
    list_configs,
    list_promotions,
    list_versions,
    previous_version,
    promote,
    wait_for_order,
)
from anomaly.report_page import report_page
from anomaly.store import (
    Announcement,
    Fleet,
    FoundMachine,
    LostShard,
    SeveralMachines,
    UnknownMachine,
    UnknownSensor,
    find_finding,
    find_machine,
    find_sensor,
    forget_state,
    load_fleet,
    to_instant,
)
from anomaly.traces import Traces
from anomaly.truth import BadTruthFile, Episode, Judgement, Ticket, Truth, judge, parse_instant_us, read_truth
from anomaly.versions import ForeignModel
from anomaly.watch import Watch, WatchCounts, watch

__all__ = [
    "Announcement",
    "Backtest",
    "BadConfigFile",
    "BadHistoryFile",
    "BadLimitsFile",
    "BadPlotFile",
    "BadResultFile",
    "BadShard",
    "BadTruthFile",
    "Change",
    "Closing",
    "Closings",
    "Comparison",
    "ConfigTaken",
    "Engine",
    "EngineConfig",
    "Episode",
    "Finding",
    "FindingEvent",
    "Fleet",
    "ForeignModel",
    "ForeignState",
    "FoundMachine",
    "History",
    "Inhibition",
    "InhibitionKind",
    "Judgement",
    "KeptConfig",
    "Layout",
    "Limits",
    "LostShard",
    "MachineMeta",
    "NoEarlierVersion",
    "NoSuchConfig",
    "NoSuchFinding",
    "NoSuchInhibition",
    "NoSuchMachine",
    "NoSuchVersion",
    "NothingStored",
    "OrderRefused",
    "Run",
    "SensorMeta",
    "SeveralMachines",
    "StructureChanged",
    "Ticket",
    "Traces",
    "Truth",
    "UnknownIsoClass",
    "UnknownMachine",
    "UnknownSensor",
    "Watch",
    "WatchCounts",
    "activate",
    "add_inhibition",
    "backtest",
    "check_plot_file",
    "compare",
    "compare_shadow",
    "draw",
    "end_inhibition",
    "explain",
    "find_config",
    "find_finding",
    "find_machine",
    "find_sensor",
    "find_version",
    "finding_key",
    "forget_state",
    "give_order",
    "is_member",
    "judge",
    "keep_config",
    "list_configs",
    "list_inhibitions",
    "list_lifts",
    "list_promotions",
    "list_rules",
    "list_versions",
    "load_fleet",
    "load_limits",
    "load_run",
    "open_file",
    "open_stored",
    "parse_instant_us",
    "pick_machines",
    "previous_version",
    "promote",
    "read_config",
    "read_truth",
    "record_outcome",
    "report_page",
    "series",
    "shipped_limits",
    "span_in_words",
    "sparkline",
    "store_run",
    "to_instant",
    "wait_for_order",
    "watch",
    "with_opinions",
    "wording",
    "write_plot",
]
