"""What other packages may use of the simulators."""

from pathlib import Path

from simulators.broker import BrokerAddress, BrokerGone, BrokerRefused, BrokerUnreachable
from simulators.clients import CLIENTS, PAHO_KEEPS_UP, ClientChoice, choose_client
from simulators.delivery import DELIVERY_DTYPE, deliveries
from simulators.faults import Fault
from simulators.files import LAYOUTS, write_readings
from simulators.fleet import Fleet, SensorKey, Series
from simulators.live import (
    FORMATS,
    Bursts,
    FormatUnknown,
    LiveStatus,
    expected_rate,
    machines_for_rate,
    prepare,
    publish_live,
)
from simulators.machine import Machine
from simulators.production import Oee, State, Stretch, oee_of
from simulators.recording import Recording, read_recording
from simulators.replay import ReplayBroken, Replayed, publish_recording
from simulators.scenario import Line, MachineSpec, Plant, Scenario, load_scenario, scenario_names
from simulators.signals import SIGNAL_UNITS
from simulators.toml_table import DurationWrong, ScenarioWrong, parse_duration_s
from simulators.truth import Episode, episodes, iso, truth, write_truth
from simulators.waveform import BearingLines, Waveform, bearing_lines

__all__ = [
    "CLIENTS",
    "DELIVERY_DTYPE",
    "FORMATS",
    "LAYOUTS",
    "PAHO_KEEPS_UP",
    "SIGNAL_UNITS",
    "BearingLines",
    "BrokerAddress",
    "BrokerGone",
    "BrokerRefused",
    "BrokerUnreachable",
    "Bursts",
    "ClientChoice",
    "DurationWrong",
    "Episode",
    "Fault",
    "Fleet",
    "FormatUnknown",
    "Line",
    "LiveStatus",
    "Machine",
    "MachineSpec",
    "Oee",
    "Plant",
    "Recording",
    "ReplayBroken",
    "Replayed",
    "Scenario",
    "ScenarioWrong",
    "SensorKey",
    "Series",
    "State",
    "Stretch",
    "Waveform",
    "bearing_lines",
    "choose_client",
    "deliveries",
    "draw_gallery",
    "episodes",
    "expected_rate",
    "iso",
    "load_scenario",
    "machines_for_rate",
    "oee_of",
    "parse_duration_s",
    "prepare",
    "publish_live",
    "publish_recording",
    "read_recording",
    "scenario_names",
    "truth",
    "write_readings",
    "write_truth",
]


def draw_gallery(folder: Path) -> list[Path]:
    """Draw one picture per fault and machine class into a folder and return their paths. Loads the plotting library."""
    from simulators.gallery import draw_gallery as draw

    return list(draw(folder))
