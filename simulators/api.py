"""What other packages may use of the simulators."""

from simulators.faults import Fault
from simulators.fleet import Fleet, SensorKey, Series
from simulators.machine import Machine
from simulators.scenario import Line, MachineSpec, Plant, Scenario, load_scenario, scenario_names
from simulators.signals import SIGNAL_UNITS

__all__ = [
    "SIGNAL_UNITS",
    "Fault",
    "Fleet",
    "Line",
    "Machine",
    "MachineSpec",
    "Plant",
    "Scenario",
    "SensorKey",
    "Series",
    "load_scenario",
    "scenario_names",
]
