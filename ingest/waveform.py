"""What a burst of samples says, as a handful of numbers that are stored like any reading.

The burst itself goes to table `waveform`; its features become readings of derived sensors, named after the sensor:
`vibration.rms`, `vibration.peak`, `vibration.crest`, `vibration.kurtosis`, and for an accelerometer
`vibration.velocity_rms`, the severity of ISO 20816 (10 Hz to 1 kHz, mm/s).
"""

from typing import NamedTuple

import numpy as np

from fettle.model import SignalKind, read_unit
from ingest.decode import WaveformBurst

_STANDARD_GRAVITY = 9.80665
_LOW_HZ, _HIGH_HZ = 10.0, 1000.0


class Feature(NamedTuple):
    name: str
    value: float
    unit: str | None


def features(burst: WaveformBurst) -> list[Feature]:
    """Return the features of a burst, about its mean; empty where it has fewer than 16 samples or any is not finite.

    Kurtosis is Pearson's (3 for noise). Velocity is integrated in the frequency domain.
    """
    samples = np.frombuffer(burst.data, dtype=np.dtype(burst.dtype)).astype(np.float64) * burst.scale
    if len(samples) < 16 or not np.isfinite(samples).all():
        return []
    samples -= samples.mean()
    square = float(np.mean(samples**2))
    rms = square**0.5
    peak = float(np.abs(samples).max())
    found = [Feature("rms", rms, burst.unit), Feature("peak", peak, burst.unit)]
    if rms > 0:
        found += [
            Feature("crest", peak / rms, None),
            Feature("kurtosis", float(np.mean(samples**4)) / square**2, None),
        ]
    kind, unit = read_unit(burst.unit)
    if kind is SignalKind.VIBRATION_ACCELERATION and burst.fs_hz > 2.5 * _LOW_HZ:
        metres = samples * (_STANDARD_GRAVITY if unit == "g" else 1.0)
        found.append(Feature("velocity_rms", velocity_rms_mm_s(metres, burst.fs_hz), "mm/s"))
    return found


def velocity_rms_mm_s(acceleration_m_s2: np.ndarray[tuple[int], np.dtype[np.float64]], fs_hz: float) -> float:
    """Return the RMS of the vibration velocity between 10 Hz and 1 kHz, in mm/s (ISO 20816-1)."""
    n = len(acceleration_m_s2)
    window = np.hanning(n)
    spectrum = np.fft.rfft(acceleration_m_s2 * window)
    frequencies = np.fft.rfftfreq(n, 1 / fs_hz)
    band = (frequencies >= _LOW_HZ) & (frequencies <= _HIGH_HZ)
    velocity = np.abs(spectrum[band]) / (2 * np.pi * frequencies[band])
    # Parseval for a windowed one-sided spectrum
    power = 2 * float(np.sum(velocity**2)) / (n * float(np.sum(window**2)))
    return float(power**0.5 * 1000)
