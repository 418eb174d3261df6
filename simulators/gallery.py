"""Draw the picture gallery: what every fault, sensor fault and machine class looks like, from the simulator itself.

`fettle simulate --gallery FOLDER` makes the pictures of docs/explanation/fault-gallery.md.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from simulators.disturbances import SENSOR_FAULT_KINDS, SensorFault
from simulators.faults import Fault, FaultKind, builtin_fault_kinds
from simulators.fleet import Fleet
from simulators.machine import Machine
from simulators.production import State
from simulators.scenario import Scenario, load_scenario
from simulators.signals import SIGNAL_UNITS
from simulators.vibration import G
from simulators.waveform import Waveform

Floats = npt.NDArray[np.float64]

_DAY_US = 86_400_000_000
_HEALTHY, _FAULTY, _MARK = "#7d8b99", "#c8442b", "#20639b"
_STATE_COLOURS = {
    State.PLANNED_STOP: "#c9ced3",
    State.IDLE: "#f2d16b",
    State.SETUP: "#8fb8de",
    State.BREAKDOWN: "#c8442b",
    State.RUNNING: "#7bb28a",
}
_VICTIM = {
    "cavitation": "P-101",
    "current_unbalance": "K-301",
    "phase_loss": "C-602",
    "overload": "C-601",
    "imbalance": "F-202",
}
_EXTRA = {
    "current_unbalance": ("current_l1", "current_l2", "current_l3"),
    "phase_loss": ("current_l1", "current_l2", "current_l3"),
    "cavitation": ("flow", "pressure"),
}
_SPAN_D = {"phase_loss": 0.4}


def draw_gallery(folder: Path) -> Iterator[Path]:
    """Yield the path of each picture as it is drawn; equal releases give equal pictures."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams.update({"font.size": 8, "axes.titlesize": 9, "axes.spines.top": False, "axes.spines.right": False})
    folder.mkdir(parents=True, exist_ok=True)
    scenario = load_scenario("quiet-day")
    for kind in builtin_fault_kinds().values():
        yield _save(_draw_fault(scenario, kind), folder / f"fault-{kind.name.replace('_', '-')}.png")
    yield _save(_draw_sensor_faults(scenario), folder / "sensor-faults.png")
    seen = set()
    motors = replace(load_scenario("reference-fleet"), model="physics")  # quiet-day has none
    for plant in (scenario, motors):
        for machine in Fleet(plant).machines:
            if machine.class_name not in seen:
                seen.add(machine.class_name)
                yield _save(_draw_class(plant, machine), folder / f"class-{machine.class_name.replace('_', '-')}.png")
    yield _save(_draw_severities(), folder / "growth-laws.png")


def _save(figure: Any, path: Path) -> Path:
    import matplotlib.pyplot as plt
    from PIL import Image

    figure.savefig(path, dpi=80, metadata={"Software": None})
    plt.close(figure)
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(48, dither=Image.Dither.NONE).save(path, optimize=True)
    return path


def _figure(rows: int, columns: int = 1, *, height: float = 1.55, width: float = 9.0) -> tuple[Any, Any]:
    import matplotlib.pyplot as plt

    return plt.subplots(rows, columns, figsize=(width, height * rows), layout="constrained", squeeze=False)


def _series(
    fleet: Fleet, number: str, start_us: int, days: float, signals: tuple[str, ...]
) -> dict[str, tuple[Floats, Floats]]:
    end_us = start_us + round(days * _DAY_US)
    return {
        s.signal: ((s.times - start_us) / _DAY_US, s.values)
        for s in fleet.generate(start_us, end_us, machines=(fleet.machine(number),), signals=signals)
    }


def _draw_fault(scenario: Scenario, kind: FaultKind) -> Any:
    number = _VICTIM.get(kind.name, "P-102")
    signals = ("vibration", "temperature", "current", *_EXTRA.get(kind.name, ()))
    scale = kind.to_failure_s / 86_400
    days = _SPAN_D.get(kind.name, max(min(scale * 1.25, 24.0), 2.0))
    onset_us = scenario.start_us + round(days * 0.25 * _DAY_US)
    failure_us = onset_us + round(kind.to_failure_s * 1e6)
    fault = Fault(
        site="north",
        machine=number,
        kind=kind,
        onset_us=onset_us,
        failure_us=failure_us,
        end_us=None,
        growth=kind.growth,
    )
    step = replace(scenario, period_us=60_000_000)
    healthy, faulty = Fleet(step), Fleet(replace(step, faults=(fault,)))
    figure, axes = _figure(len(signals) + 1)
    ones, twos = (_series(f, number, scenario.start_us, days, signals) for f in (healthy, faulty))
    for axis, signal in zip(axes[:-1, 0], signals, strict=True):
        axis.plot(*ones[signal], color=_HEALTHY, lw=0.5, label="healthy")
        axis.plot(*twos[signal], color=_FAULTY, lw=0.5, alpha=0.9, label="with the fault")
        axis.axvline(days * 0.25, color=_MARK, lw=0.8, ls="--")
        axis.set_ylabel(f"{signal.replace('_', ' ')}\n{SIGNAL_UNITS[signal]}")
        axis.set_xlim(0, days)
        high = max(np.percentile(ones[signal][1], 99.5), np.percentile(twos[signal][1], 99.5))
        low = 0.0 if signal != "temperature" else min(ones[signal][1].min(), twos[signal][1].min()) - 2
        axis.set_ylim(low, 1.08 * high)
    axes[0, 0].set_title(f"{kind.title}: {faulty.machine(number).kind.title.lower()}, days; dashed: onset", loc="left")
    axes[0, 0].legend(loc="lower right", bbox_to_anchor=(1.0, 0.98), frameon=False, ncols=2)
    late_us = min(scenario.start_us + round(0.97 * days * _DAY_US), failure_us)
    _draw_spectra(axes[-1, 0], healthy, faulty, number, late_us, envelope=bool(kind.race))
    return figure


def _running(fleet: Fleet, number: str, at_us: int) -> Waveform:
    """Return the last waveform before an instant at which the machine runs."""
    machine = fleet.machine(number)
    while True:
        wave = fleet.waveform(machine, at_us, duration_s=2.0)
        if wave.shaft_hz:
            return wave
        at_us -= 600_000_000


def _draw_spectra(axis: Any, healthy: Fleet, faulty: Fleet, number: str, at_us: int, *, envelope: bool) -> None:
    waves = [_running(f, number, at_us) for f in (healthy, faulty)]
    for wave, colour in zip(waves, (_HEALTHY, _FAULTY), strict=True):
        freq, level = _envelope_spectrum(wave) if envelope else _velocity_spectrum(wave)
        shown = freq <= (8 * wave.shaft_hz * 2 if envelope else 400)
        axis.plot(freq[shown], level[shown], color=colour, lw=0.6)
    lines, shaft = waves[1].lines, waves[1].shaft_hz
    marks = (
        {"BPFO": lines.bpfo, "BPFI": lines.bpfi, "2·BSF": 2 * lines.bsf} if envelope else {"1×": shaft, "2×": 2 * shaft}
    )
    top = axis.get_ylim()[1]
    for name, hz in marks.items():
        axis.axvline(hz, color=_MARK, lw=0.6, ls=":")
        axis.text(hz, top * 0.95, f" {name}", color=_MARK, fontsize=7, va="top")
    axis.set_xlim(0, None)
    axis.set_xlabel("Hz, shortly before the end")
    axis.set_ylabel("envelope\nspectrum, g" if envelope else "velocity\nspectrum, mm/s")


def _velocity_spectrum(wave: Waveform) -> tuple[Floats, Floats]:
    n = wave.values.size
    freq = np.fft.rfftfreq(n, 1 / wave.fs_hz)
    level = np.abs(np.fft.rfft(wave.values * np.hanning(n))) * 4 / n / np.sqrt(2) * G * 1000
    level[1:] /= 2 * np.pi * freq[1:]
    level[freq < 5] = 0
    return np.asarray(freq, np.float64), np.asarray(level, np.float64)


def _envelope_spectrum(wave: Waveform) -> tuple[Floats, Floats]:
    from scipy.signal import butter, hilbert, sosfiltfilt

    band = butter(4, [2000, 5500], "band", fs=wave.fs_hz, output="sos")
    envelope = np.abs(hilbert(sosfiltfilt(band, wave.values)))
    n = envelope.size
    level = np.abs(np.fft.rfft(envelope - envelope.mean())) * 2 / n
    return np.asarray(np.fft.rfftfreq(n, 1 / wave.fs_hz), np.float64), np.asarray(level, np.float64)


_SENSOR_SIGNAL = {"spike": "vibration", "noise_up": "vibration", "dropout": "current", "unit_change": "vibration"}


def _draw_sensor_faults(scenario: Scenario) -> Any:
    kinds = [k for k in SENSOR_FAULT_KINDS if k != "clock_skew"]
    figure, axes = _figure(4, 2, width=9.5)
    for axis, kind in zip(axes.flat, kinds, strict=True):
        signal = _SENSOR_SIGNAL.get(kind, "temperature")
        fault = SensorFault(
            site="north",
            machine="P-101",
            signal=signal,
            kind=kind,
            onset_us=scenario.start_us + _DAY_US,
            end_us=scenario.start_us + 2 * _DAY_US,
            size={"unit_change": 1000.0, "drift": 12.0}.get(kind, float("nan")),
            rate_per_h=2.0,
            fahrenheit=False,
        )
        fleet = Fleet(replace(scenario, sensor_faults=(fault,)))
        t, values = _series(fleet, "P-101", scenario.start_us, 3.0, (signal,))[signal]
        inside = (t >= 1) & (t < 2)
        gap = np.where(np.diff(t, prepend=t[0]) > 0.1, np.nan, 1.0)
        axis.plot(t, values * gap, color=_HEALTHY, lw=0.5)
        axis.plot(t[inside], (values * gap)[inside], color=_FAULTY, lw=0.6)
        axis.axvspan(1, 2, color=_FAULTY, alpha=0.07, lw=0)
        axis.set_title(f"{kind.replace('_', ' ')}: {signal}, {SIGNAL_UNITS[signal]}", loc="left")
        axis.set_xlim(0, 3)
        if kind == "unit_change":
            axis.set_yscale("log")
        elif signal == "current":
            axis.set_ylim(0, np.percentile(values, 99.5) * 1.1)
    for axis in axes[-1]:
        axis.set_xlabel("days; shaded: faulty")
    return figure


def _draw_class(scenario: Scenario, machine: Machine) -> Any:
    fleet = Fleet(replace(scenario, period_us=10_000_000))
    start_us = scenario.start_us + 4 * _DAY_US  # a Friday, so that shifts show
    signals = ("current", "temperature", "vibration", "speed")
    shown = _series(fleet, machine.number, start_us, 2.0, signals)
    figure, axes = _figure(len(signals) + 1)
    stretches = list(fleet.production(start_us, start_us + 2 * _DAY_US, machines=(fleet.machine(machine.number),)))
    for axis, signal in zip(axes[:-1, 0], signals, strict=True):
        axis.plot(*shown[signal], color="#2b3a48", lw=0.5)
        high = np.percentile(shown[signal][1], 99.8) * 1.15
        axis.set_ylim(min(0, shown[signal][1].min()) if signal != "temperature" else None, high)
        for s in stretches:
            a, b = ((t - start_us) / _DAY_US for t in (s.start_us, s.end_us))
            axis.axvspan(a, b, color=_STATE_COLOURS[s.state], alpha=0.28, lw=0)
        axis.set_ylabel(f"{signal}\n{SIGNAL_UNITS[signal]}")
        axis.set_xlim(0, 2)
    states = ", ".join(
        f"{name}" for name in ("green running", "yellow idle", "blue set-up", "grey planned stop", "red breakdown")
    )
    axes[0, 0].set_title(f"{machine.kind.title}, {machine.rated_power_kw:g} kW; days; {states}", loc="left")
    wave = _running(fleet, machine.number, start_us + _DAY_US)
    freq, level = _velocity_spectrum(wave)
    inside = freq <= 1000
    axes[-1, 0].plot(freq[inside], level[inside], color="#2b3a48", lw=0.6)
    axes[-1, 0].set_xlim(0, 1000)
    axes[-1, 0].set_xlabel("Hz")
    axes[-1, 0].set_ylabel("velocity\nspectrum, mm/s")
    return figure


def _draw_severities() -> Any:
    figure, axes = _figure(1, height=2.4, width=6.0)
    kind = builtin_fault_kinds()["overload"]
    t = np.linspace(-0.2, 1.3, 400)
    for growth in ("step", "linear", "quadratic", "exponential"):
        fault = Fault(site="s", machine="m", kind=kind, onset_us=0, failure_us=1_000_000, end_us=None, growth=growth)
        axes[0, 0].plot(t, fault.severity((t * 1e6).astype(np.int64)), lw=1.2, label=growth)
    axes[0, 0].set_xlabel("time from onset (0) to failure (1)")
    axes[0, 0].set_ylabel("severity")
    axes[0, 0].legend(frameon=False)
    return figure
