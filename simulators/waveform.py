"""Raw acceleration of a machine: the waveform whose RMS values the vibration signals report.

Components: shaft harmonics, mesh (gear, blades, vanes) with sidebands, broadband flow noise and structure noise, harmonics and
half harmonics of looseness, hum at twice the line frequency under unbalance, bursts of cavitation, and the impacts of a worn
bearing: a train at the defect frequency with slip, modulated by the load zone, ringing at the resonance of the housing.

Bearing frequencies from geometry (n elements of diameter d on pitch D, contact angle a, shaft frequency f):
BPFO = n/2 f (1 - d/D cos a), BPFI = n/2 f (1 + d/D cos a), BSF = D/2d f (1 - (d/D cos a)²), FTF = f/2 (1 - d/D cos a).
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simulators.faults import Condition, Fault
from simulators.machine import Machine, generator
from simulators.vibration import (
    BEARING_SPLIT,
    FLOW_BAND_HZ,
    FULL_BAND_HZ,
    LOOSE_ORDERS,
    LOOSE_SHARES,
    MESH_SPLIT,
    SHAFT_SPLIT,
    G,
    flow_share,
    healthy_velocity,
    structure_g,
    structure_velocity,
)

Floats = npt.NDArray[np.float64]

MAX_FS_HZ = 25_600.0
LINE_HZ = 50.0
_STREAM = 48
_DAMPING = 0.06
_SLIP = 0.006


@dataclass(frozen=True)
class BearingLines:
    """Frequencies in Hz of a bearing: outer race, inner race, rolling element, cage."""

    bpfo: float
    bpfi: float
    bsf: float
    ftf: float


def bearing_lines(machine: Machine, shaft_hz: float) -> BearingLines:
    """Return the bearing frequencies of a machine at a shaft frequency.

    >>> from simulators.api import Fleet, load_scenario
    >>> pump = Fleet(load_scenario("quiet-day")).machines[0]
    >>> lines = bearing_lines(pump, 29.95)  # 6205, as in the data of Case Western Reserve University
    >>> round(lines.bpfo / 29.95, 2), round(lines.bpfi / 29.95, 2)
    (3.58, 5.42)
    """
    kind = machine.kind
    ratio = kind.bearing_ball_mm / kind.bearing_pitch_mm * math.cos(math.radians(kind.bearing_angle_deg))
    n = kind.bearing_balls
    return BearingLines(
        bpfo=n / 2 * shaft_hz * (1 - ratio),
        bpfi=n / 2 * shaft_hz * (1 + ratio),
        bsf=kind.bearing_pitch_mm / (2 * kind.bearing_ball_mm) * shaft_hz * (1 - ratio**2),
        ftf=shaft_hz / 2 * (1 - ratio),
    )


@dataclass(frozen=True)
class Waveform:
    """Acceleration in g at equal steps; `t0_us` is the first sample. A machine that stands still has shaft_hz 0."""

    machine: Machine
    t0_us: int
    fs_hz: float
    shaft_hz: float
    lines: BearingLines
    values: Floats


def synthesise(
    machine: Machine,
    *,
    seed: int,
    t0_us: int,
    fs_hz: float,
    duration_s: float,
    load: float,
    shaft_hz: float,
    state: Condition | None,
    faults: tuple[Fault, ...],
) -> Waveform:
    """Return the waveform of a machine in a given condition; `load` 0 to 1, `shaft_hz` 0 while it stands still."""
    n = max(round(fs_hz * duration_s), 1)
    rng = generator(seed, machine.key, _STREAM, t0_us // 1000)
    lines = bearing_lines(machine, shaft_hz)
    noise = rng.standard_normal(n)
    if shaft_hz <= 0:
        return Waveform(machine, t0_us, fs_hz, 0.0, lines, 0.004 * noise)
    t = np.arange(n) / fs_hz
    kind = machine.kind
    at_load = np.array([load])
    base = float(healthy_velocity(machine, at_load)[0])

    def effect(name: str) -> float:
        return float(getattr(state, name)[0]) if state is not None else 0.0

    def tone(freq_hz: float, velocity_mm_s: float) -> Floats:
        """Return acceleration in g of a sine of a velocity RMS."""
        if freq_hz >= fs_hz / 2 or velocity_mm_s <= 0:
            return np.zeros(n)
        amplitude = math.sqrt(2) * velocity_mm_s / 1000 * 2 * math.pi * freq_hz / G
        return np.asarray(amplitude * np.sin(2 * math.pi * freq_hz * t + rng.random() * 2 * math.pi))

    out = tone(shaft_hz, base * math.sqrt(kind.imbalance_share) * (1 + effect("imbalance")))
    second = base * math.sqrt(kind.misalignment_share) * (1 + effect("misalignment"))
    for order, part in SHAFT_SPLIT:
        out += tone(order * shaft_hz, part * second)
    mesh_hz = kind.mesh_teeth * shaft_hz
    mesh = base * math.sqrt(kind.mesh_share)
    for order, part in MESH_SPLIT:
        out += tone(mesh_hz + order * shaft_hz, part * mesh)
    if loose := base * effect("looseness"):
        for order, part in zip(LOOSE_ORDERS.tolist(), LOOSE_SHARES.tolist(), strict=True):
            out += tone(order * shaft_hz, loose * part)
    if hum := effect("unbalance") * 2 + effect("phase_loss"):
        out += tone(2 * LINE_HZ, 0.5 * base * hum)

    structure = float(structure_g(machine, at_load)[0])
    below_1khz = float(structure_velocity(np.array([structure]))[0])
    flow = base * math.sqrt(flow_share(machine)) * (1 + effect("broadband"))
    if flow > below_1khz:
        out += _flow_noise(rng, n, fs_hz, math.sqrt(flow**2 - below_1khz**2))
    out += structure * math.sqrt(fs_hz / 2 / FULL_BAND_HZ) * noise

    # what the acceleration signal says there is beyond structure noise, as impacts or as rough friction
    shock_g = structure * math.sqrt(max((1 + effect("shock")) ** 2 - 1, 0.0))
    if shock_g > 0:
        worn = [f for f in faults if f.kind.race and float(f.severity(np.array([t0_us]))[0]) > 0]
        parts = [_impacts(rng, t, fs_hz, kind.resonance_hz, lines, f.kind.race, shaft_hz) for f in worn]
        rough = [
            f
            for f in faults
            if f.kind.effects.shock and not f.kind.race and float(f.severity(np.array([t0_us]))[0]) > 0
        ]
        if rough:
            parts.append(_bursts(rng, n, fs_hz))
        for impacts in parts:
            out += shock_g / math.sqrt(len(parts)) * impacts
        if worn and (velocity := base * effect("bearing")):
            line = {"outer": lines.bpfo, "inner": lines.bpfi, "ball": 2 * lines.bsf}[worn[0].kind.race]
            for order, part in BEARING_SPLIT:
                out += tone(order * line, part * velocity)
    return Waveform(machine, t0_us, fs_hz, shaft_hz, lines, out)


def _flow_noise(rng: np.random.Generator, n: int, fs_hz: float, velocity_mm_s: float) -> Floats:
    """Return acceleration in g of noise with a flat velocity spectrum from 10 to 400 Hz."""
    freq = np.fft.rfftfreq(n, 1 / fs_hz)
    inside = (freq >= FLOW_BAND_HZ[0]) & (freq <= FLOW_BAND_HZ[1])
    if not inside.any():
        return np.zeros(n)
    spectrum = np.zeros(freq.size, np.complex128)
    spectrum[inside] = np.exp(2j * np.pi * rng.random(int(inside.sum())))
    velocity = np.fft.irfft(spectrum, n)
    scale = velocity_mm_s / 1000 / max(float(np.sqrt(np.mean(velocity**2))), 1e-30)
    return np.asarray(np.fft.irfft(spectrum * 2j * np.pi * freq, n) * scale / G)


def _resonator(fs_hz: float, resonance_hz: float) -> tuple[list[float], list[float]]:
    """Return the filter that answers an impulse with a decaying sine."""
    w = 2 * math.pi * min(resonance_hz, 0.4 * fs_hz) / fs_hz
    r = math.exp(-_DAMPING * w)
    return [r * math.sin(w)], [1.0, -2 * r * math.cos(w), r * r]


def _impacts(
    rng: np.random.Generator,
    t: Floats,
    fs_hz: float,
    resonance_hz: float,
    lines: BearingLines,
    race: str,
    shaft_hz: float,
) -> Floats:
    """Return unit-RMS ringing of impacts: constant on the outer race, once per turn on the inner, per cage turn on a ball."""
    from scipy import signal  # loaded where it is needed: it is slow to start

    rate = {"outer": lines.bpfo, "inner": lines.bpfi, "ball": 2 * lines.bsf}[race]
    modulation_hz, depth = {"outer": (0.0, 0.0), "inner": (shaft_hz, 0.8), "ball": (lines.ftf, 0.9)}[race]
    count = int(t[-1] * rate) + 2
    at = np.cumsum(1 / rate * (1 + _SLIP * rng.standard_normal(count))) - rng.random() / rate
    at = at[(at >= 0) & (at < t[-1])]
    size = 1 + 0.12 * rng.standard_normal(at.size)
    if depth:
        size *= 1 + depth * np.cos(2 * math.pi * modulation_hz * at + rng.random() * 2 * math.pi)
    impulses = np.zeros(t.size)
    np.add.at(impulses, (at * fs_hz).astype(np.int64), size)
    return _unit(signal.lfilter(*_resonator(fs_hz, resonance_hz), impulses))


def _bursts(rng: np.random.Generator, n: int, fs_hz: float) -> Floats:
    """Return unit-RMS noise in irregular bursts: collapsing bubbles, or a dry bearing's friction."""
    from scipy import signal  # loaded where it is needed: it is slow to start

    envelope = signal.lfilter([1], [1, -math.exp(-1 / (0.004 * fs_hz))], rng.random(n) < 120 / fs_hz)
    high = signal.lfilter([1, -0.9], [1], rng.standard_normal(n))
    return _unit(high * (0.3 + envelope))


def _unit(x: Floats) -> Floats:
    return np.asarray(x / max(float(np.sqrt(np.mean(x**2))), 1e-30))
