"""Raw waveforms: bearing frequencies from geometry, the worn race named, RMS values as the signals say."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.signal import butter, hilbert, sosfiltfilt

from simulators.api import Fleet, bearing_lines, load_scenario
from simulators.faults import Fault, builtin_fault_kinds
from simulators.fleet import WaveformTooFast
from simulators.vibration import G

HOUR = 3_600_000_000
DAY = 24 * HOUR
KINDS = builtin_fault_kinds()


def fleet_with(kind_name, severity, machine="P-101"):
    scenario = load_scenario("quiet-day")
    if kind_name is None:
        return Fleet(scenario)
    start = scenario.start_us
    kind = KINDS[kind_name]
    fault = Fault(
        site="north",
        machine=machine,
        kind=kind,
        onset_us=start,
        failure_us=start + 1,
        end_us=None,
        growth="step",
        peak=severity,
        scale=1.0,
    )
    return Fleet(replace(scenario, faults=(fault,)))


def running_wave(fleet, number="P-101", seconds=2.0, fs_hz=25_600.0):
    machine = fleet.machine(number)
    at = fleet.scenario.start_us + 2 * HOUR
    for _ in range(200):
        wave = fleet.waveform(machine, at, duration_s=seconds, fs_hz=fs_hz)
        if wave.shaft_hz:
            return wave
        at += 600_000_000
    raise AssertionError("never runs")


def velocity_rms(wave):
    n = wave.values.size
    freq = np.fft.rfftfreq(n, 1 / wave.fs_hz)
    spectrum = np.fft.rfft(wave.values * G * 1000)
    inside = (freq >= 10) & (freq <= 1000)
    spectrum[~inside] = 0
    spectrum[inside] /= 2j * np.pi * freq[inside]
    return float(np.sqrt(np.mean(np.fft.irfft(spectrum, n) ** 2)))


def strengths(wave):
    """Return the strength of the three races' lines in the envelope spectrum over its floor."""
    band = butter(4, [2000, 5500], "band", fs=wave.fs_hz, output="sos")
    envelope = np.abs(hilbert(sosfiltfilt(band, wave.values)))
    spectrum = np.abs(np.fft.rfft(envelope - envelope.mean()))
    freq = np.fft.rfftfreq(envelope.size, 1 / wave.fs_hz)
    floor = np.median(spectrum[(freq > 5) & (freq < 600)])

    def strength(line):
        return np.mean([spectrum[np.abs(freq - h * line) <= 0.015 * h * line + 0.3].max() for h in (1, 2, 3)]) / floor

    lines = wave.lines
    return {"outer": strength(lines.bpfo), "inner": strength(lines.bpfi), "ball": strength(2 * lines.bsf)}


def test_bearing_frequencies_of_a_6205():
    """Multiples of shaft speed published for the drive-end bearing of the CWRU rig: 3.5848, 5.4152, 4.7135, 0.3983."""
    machine = Fleet(load_scenario("quiet-day")).machine("P-101")
    lines = bearing_lines(machine, 1.0)
    assert lines.bpfo == pytest.approx(3.5848, abs=0.002)
    assert lines.bpfi == pytest.approx(5.4152, abs=0.002)
    assert 2 * lines.bsf == pytest.approx(4.7135, abs=0.01)
    assert lines.ftf == pytest.approx(0.3983, abs=0.001)
    assert lines.bpfo + lines.bpfi == pytest.approx(machine.kind.bearing_balls)


@pytest.mark.parametrize("race", ["outer", "inner", "ball"])
@pytest.mark.parametrize("machine", ["P-101", "K-301", "C-601"])
def test_the_worn_race_stands_out(race, machine):
    found = strengths(running_wave(fleet_with(f"bearing_{race}", 0.5, machine), machine))
    assert found[race] > 10
    assert found[race] >= 1.5 * max(v for k, v in found.items() if k != race)


@pytest.mark.parametrize("machine", ["P-101", "F-201", "K-301", "M-401", "H-501", "C-601"])
def test_a_healthy_bearing_shows_no_line_and_no_shocks(machine):
    wave = running_wave(fleet_with(None, 0), machine)
    assert max(strengths(wave).values()) < 6
    centred = wave.values - wave.values.mean()
    assert 1.5 < np.mean(centred**4) / np.var(wave.values) ** 2 < 3.6


@pytest.mark.parametrize(
    ("kind", "severity"),
    [(None, 0), ("bearing_outer", 0.6), ("imbalance", 1), ("misalignment", 1), ("looseness", 1), ("cavitation", 0.7)],
)
def test_rms_values_are_those_of_the_signals(kind, severity):
    fleet = fleet_with(kind, severity)
    machine = fleet.machine("P-101")
    wave = running_wave(fleet, seconds=4.0)
    near = {
        s.signal: float(np.median(s.values))
        for s in fleet.generate(
            wave.t0_us - 600_000_000,
            wave.t0_us + 600_000_000,
            machines=(machine,),
            signals=("vibration", "vibration_acceleration"),
        )
    }
    assert velocity_rms(wave) == pytest.approx(near["vibration"], rel=0.25)
    assert np.sqrt(np.mean(wave.values**2)) == pytest.approx(near["vibration_acceleration"], rel=0.25)


def order_level(wave, order):
    freq = np.fft.rfftfreq(wave.values.size, 1 / wave.fs_hz)
    spectrum = np.abs(np.fft.rfft(wave.values))
    return spectrum[np.abs(freq - order * wave.shaft_hz) < 1].max()


@pytest.mark.parametrize(("kind", "order"), [("imbalance", 1), ("misalignment", 2), ("looseness", 0.5)])
def test_shaft_faults_raise_their_own_order(kind, order):
    healthy, faulty = (running_wave(fleet_with(k, 1.0)) for k in (None, kind))
    assert order_level(faulty, order) > 1.8 * order_level(healthy, order)


def test_shocks_raise_kurtosis_above_the_gaussian():
    wave = running_wave(fleet_with("bearing_outer", 0.4))
    assert np.mean(wave.values**4) / np.mean(wave.values**2) ** 2 > 5


def test_a_standing_machine_gives_noise_alone():
    scenario = load_scenario("month-of-production")
    fleet = Fleet(scenario)
    saturday = scenario.start_us + 5 * DAY + 6 * HOUR
    wave = fleet.waveform(fleet.machine("M-201"), saturday)
    assert wave.shaft_hz == 0
    assert np.std(wave.values) == pytest.approx(0.004, rel=0.05)


def test_a_waveform_can_be_drawn_again():
    fleet = fleet_with("bearing_ball", 0.5)
    machine = fleet.machine("P-101")
    at = fleet.scenario.start_us + 5 * HOUR
    one, two = (f.waveform(machine, at) for f in (fleet, fleet_with("bearing_ball", 0.5)))
    np.testing.assert_array_equal(one.values, two.values)
    assert one.values.size == 25_600
    assert not np.array_equal(one.values, fleet.waveform(machine, at + 1_000_000).values)


@pytest.mark.parametrize("fs_hz", [50.0, 51_200.0])
def test_a_rate_out_of_range_is_refused(fs_hz):
    fleet = Fleet(load_scenario("quiet-day"))
    with pytest.raises(WaveformTooFast, match="25600"):
        fleet.waveform(fleet.machines[0], 0, fs_hz=fs_hz)
