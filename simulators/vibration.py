"""Vibration of a machine in RMS values: velocity from its components, acceleration from the same ones.

Components: 1x (imbalance), 2x and 3x (misalignment), mesh of gear, blades or vanes, flow noise from 10 to 400 Hz, harmonics of
looseness, lines of a worn bearing, and the structure noise and shocks that only acceleration sees. `simulators.waveform`
builds the raw signal of the same components.
"""

import math

import numpy as np
import numpy.typing as npt

from simulators.faults import Condition
from simulators.machine import Machine

Floats = npt.NDArray[np.float64]

G = 9.80665
FLOW_BAND_HZ = (10.0, 400.0)
SHAFT_SPLIT = ((2.0, 0.94), (3.0, 0.34))  # order, share of the velocity of misalignment
MESH_SPLIT = ((0.0, 0.9), (-1.0, 0.3), (1.0, 0.3))  # sidebands in shaft orders
BEARING_SPLIT = ((1.0, 0.8), (2.0, 0.5), (3.0, 0.33))  # harmonics of the defect frequency
LOOSE_ORDERS = np.array([0.5, 1, 1.5, 2, 3, 4, 5, 6, 7, 8])
LOOSE_SHARES = LOOSE_ORDERS**-0.7 / np.linalg.norm(LOOSE_ORDERS**-0.7)
FULL_BAND_HZ = 12_800.0

_LOW, _HIGH = FLOW_BAND_HZ
_FLOW_HZ = math.sqrt(
    (_HIGH**2 + _HIGH * _LOW + _LOW**2) / 3
)  # flat velocity: RMS of 2 pi f v over the band, as a frequency
_LOOSE_ORDER = float(np.sqrt(np.sum((LOOSE_ORDERS * LOOSE_SHARES) ** 2)))
_BEARING_ORDER = math.sqrt(sum((k * share) ** 2 for k, share in BEARING_SPLIT))
_SHAFT_ORDER = math.sqrt(sum((k * share) ** 2 for k, share in SHAFT_SPLIT))


def healthy_velocity(machine: Machine, load: Floats) -> Floats:
    """Return velocity RMS in mm/s at a load."""
    share = machine.kind.vibration_load_share
    return machine.vibration_mm_s * (1 - share + share * load)


def flow_share(machine: Machine) -> float:
    """Return the power share of the velocity that is no shaft harmonic and no mesh."""
    kind = machine.kind
    return max(1 - kind.imbalance_share - kind.misalignment_share - kind.mesh_share, 0.0)


def velocity_factor(machine: Machine, faulty: Condition) -> Floats:
    """Return by what the velocity RMS grows: the root of the summed squares of its components."""
    kind = machine.kind
    squares = (
        kind.imbalance_share * (1 + faulty.imbalance) ** 2
        + kind.misalignment_share * (1 + faulty.misalignment) ** 2
        + kind.mesh_share
        + flow_share(machine) * (1 + faulty.broadband) ** 2
        + faulty.looseness**2
        + faulty.bearing**2
    )
    return np.sqrt(squares)


def structure_g(machine: Machine, load: Floats) -> Floats:
    """Return the RMS of structure noise in g, flat up to half the fastest sampling rate."""
    return machine.acceleration_g * (0.6 + 0.4 * load)


def structure_velocity(structure: Floats) -> Floats:
    """Return the velocity RMS in mm/s that structure noise has between 10 and 1000 Hz."""
    return structure * G * 1000 * math.sqrt((1 / 10 - 1 / 1000) / FULL_BAND_HZ) / (2 * math.pi)


def acceleration_g(machine: Machine, load: Floats, shaft_hz: Floats, faulty: Condition | None) -> Floats:
    """Return acceleration RMS in g: structure noise and shocks, and every velocity component times 2 pi f."""
    kind = machine.kind
    velocity = healthy_velocity(machine, load)
    structure = structure_g(machine, load)
    imbalance = misalignment = looseness = bearing = broadband = shock = np.zeros(1)
    if faulty is not None:
        imbalance, misalignment, looseness = faulty.imbalance, faulty.misalignment, faulty.looseness
        bearing, broadband, shock = faulty.bearing, faulty.broadband, faulty.shock
    flow = velocity**2 * flow_share(machine) * (1 + broadband) ** 2
    flow = np.maximum(flow - structure_velocity(structure) ** 2, 0.0)
    orders = (
        kind.imbalance_share * (1 + imbalance) ** 2
        + kind.misalignment_share * (1 + misalignment) ** 2 * _SHAFT_ORDER**2
        + kind.mesh_share * (0.81 * kind.mesh_teeth**2 + 0.18 * (kind.mesh_teeth**2 + 1))
        + looseness**2 * _LOOSE_ORDER**2
        + bearing**2 * (_BEARING_ORDER * 0.4 * kind.bearing_balls) ** 2
    )
    tones = velocity**2 * orders * shaft_hz**2 + flow * _FLOW_HZ**2
    return np.sqrt((structure * (1 + shock)) ** 2 + tones * (2 * math.pi / 1000 / G) ** 2)
