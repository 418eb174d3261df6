"""What other packages may use of the simulators."""

from simulators.faults import Fault
from simulators.fleet import Fleet, SensorKey, Series
from simulators.live import FORMATS, FormatUnknown, LiveStatus, publish_live
from simulators.machine import Machine
from simulators.mqtt import BrokerAddress, BrokerGone, BrokerRefused, BrokerUnreachable
from simulators.recording import Recording, read_recording
from simulators.replay import ReplayBroken, Replayed, publish_recording
from simulators.scenario import Line, MachineSpec, Plant, Scenario, load_scenario, scenario_names
from simulators.signals import SIGNAL_UNITS
from simulators.toml_table import parse_duration_s

__all__ = [
    "FORMATS",
    "SIGNAL_UNITS",
    "BrokerAddress",
    "BrokerGone",
    "BrokerRefused",
    "BrokerUnreachable",
    "Fault",
    "Fleet",
    "FormatUnknown",
    "Line",
    "LiveStatus",
    "Machine",
    "MachineSpec",
    "Plant",
    "Recording",
    "ReplayBroken",
    "Replayed",
    "Scenario",
    "SensorKey",
    "Series",
    "load_scenario",
    "parse_duration_s",
    "publish_live",
    "publish_recording",
    "read_recording",
    "scenario_names",
]
