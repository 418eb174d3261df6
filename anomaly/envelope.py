"""What one recorded waveform says: features of its energy, and the race its impacts come from (ISO 13374 blocks DM, HA).

A damaged race strikes once per rolling element that passes. The strikes ring the housing at some kHz; the envelope of
that band repeats at the defect's own frequency, which geometry and shaft speed foretell:

    waveform ─▶ band-pass ─▶ |analytic signal| ─▶ spectrum ─▶ lines at BPFO, BPFI, BSF, FTF over the floor ─▶ race

Randall, Antoni, "Rolling element bearing diagnostics: a tutorial", Mechanical Systems and Signal Processing 25 (2011).
Resolution is one over the duration: record two seconds or more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from fettle.errors import FettleError

Floats = NDArray[np.float64]
Band = tuple[float, float]

DEFAULT_BAND: Band = (2_000.0, 5_500.0)
FLOOR_BAND: Band = (5.0, 600.0)
SLIP = 0.015
HARMONICS = 3
NAMED_AT = 10.0
AHEAD_BY = 2.0
STANDARD_GRAVITY = 9.80665


class RecordingUnusable(FettleError):
    """This recording of {samples} samples at {rate_hz} Hz cannot be analysed: {why}."""


class Race(StrEnum):
    """Part of a rolling bearing."""

    OUTER = "outer race"
    INNER = "inner race"
    BALL = "rolling element"
    CAGE = "cage"


@dataclass(frozen=True, slots=True)
class Geometry:
    """Defect frequencies of a bearing as multiples of the shaft frequency."""

    bpfo: float
    bpfi: float
    bsf: float
    ftf: float
    source: str = ""

    @classmethod
    def of(
        cls, *, elements: int, element_diameter: float, pitch_diameter: float, contact_angle_deg: float = 0.0
    ) -> "Geometry":
        """Work the multiples out from the drawing; both diameters in the same unit."""
        ratio = element_diameter / pitch_diameter * np.cos(np.radians(contact_angle_deg))
        return cls(
            bpfo=float(elements / 2 * (1 - ratio)),
            bpfi=float(elements / 2 * (1 + ratio)),
            bsf=float(pitch_diameter / element_diameter * (1 - ratio**2)),  # it strikes both races: twice the spin
            ftf=float((1 - ratio) / 2),
            source="drawing",
        )

    @classmethod
    def guessed(cls, *, elements: int) -> "Geometry":
        """Guess from the number of rolling elements alone: BPFO ≈ .4 n, BPFI ≈ .6 n; the ball line from a usual ratio."""
        return cls(bpfo=0.4 * elements, bpfi=0.6 * elements, bsf=4.8, ftf=0.4, source="number of elements")

    def lines_hz(self, shaft_hz: float) -> dict[Race, float]:
        """Return the frequency of each part's line. A damaged element strikes both races, so twice a spin."""
        return {
            Race.OUTER: self.bpfo * shaft_hz,
            Race.INNER: self.bpfi * shaft_hz,
            Race.BALL: self.bsf * shaft_hz,
            Race.CAGE: self.ftf * shaft_hz,
        }


SKF_6205 = Geometry(bpfo=3.5848, bpfi=5.4152, bsf=4.7135, ftf=0.39828, source="CWRU Bearing Data Center")
"""Drive-end bearing of the CWRU rig; its BSF line is quoted as twice the spin, for an element strikes both races."""


@dataclass(frozen=True, slots=True)
class Features:
    """Energy of a waveform, in the unit of the waveform unless said otherwise.

    Attributes:
        rms, peak, peak_to_peak: of the waveform without its mean.
        crest: peak / rms; 3 to 4 in a healthy machine, above 5 with shocks.
        kurtosis: 3 for Gaussian noise; it falls back late in a bearing's life.
        velocity_rms_mm_s: 10 to 1 000 Hz, where the waveform is in m/s² (ISO 20816).
        bands: RMS in each of `BANDS`, then at 1, 2 and 3 times shaft speed, NaN where it is unknown or above Nyquist.
    """

    rms: float
    peak: float
    peak_to_peak: float
    crest: float
    kurtosis: float
    velocity_rms_mm_s: float
    bands: Floats

    def vector(self) -> Floats:
        """Return ln rms, ln kurtosis, ln of each finite band: what joins the level and volatility distance."""
        finite = np.where(np.isfinite(self.bands) & (self.bands > 0), self.bands, np.nan)
        return np.asarray(np.log(np.concatenate([[self.rms, self.kurtosis], finite])), dtype=np.float64)


BANDS: tuple[Band, ...] = ((10.0, 1_000.0), (1_000.0, 3_000.0), (3_000.0, 6_000.0), (6_000.0, 20_000.0))


def features(waveform: Floats, rate_hz: float, *, shaft_hz: float | None = None) -> Features:
    """Return the features of one recording; give it in m/s² if the velocity is to mean anything.

    Raises:
        RecordingUnusable: fewer than 64 samples, or samples that are not finite.
    """
    wave = _checked(waveform, rate_hz)
    rms = float(np.sqrt(np.mean(wave**2)))
    peak = float(np.abs(wave).max())
    spectrum = fft.rfft(wave)
    frequency = fft.rfftfreq(len(wave), 1 / rate_hz)
    power = 2 * np.abs(spectrum) ** 2 / len(wave) ** 2  # per line, so that lines sum to the mean square
    power[0] /= 2
    if len(wave) % 2 == 0:
        power[-1] /= 2
    iso = (frequency >= 10) & (frequency <= 1000)
    velocity = np.sqrt((power[iso] / (2 * np.pi * frequency[iso]) ** 2).sum()) * 1000
    bands = [_band_rms(power, frequency, band) for band in BANDS]
    for multiple in (1, 2, 3):
        at = None if shaft_hz is None else multiple * shaft_hz
        width = max(2.0 / (len(wave) / rate_hz), SLIP * (at or 0.0))
        bands.append(np.nan if at is None else _band_rms(power, frequency, (at - width, at + width)))
    return Features(
        rms=rms,
        peak=peak,
        peak_to_peak=float(np.ptp(wave)),
        crest=peak / rms if rms else 0.0,
        kurtosis=float(np.mean(wave**4) / rms**4) if rms else 0.0,
        velocity_rms_mm_s=float(velocity),
        bands=np.array(bands),
    )


@dataclass(frozen=True, slots=True)
class Naming:
    """Which part the impacts come from.

    Attributes:
        race: the named part, or None.
        strengths: how far each part's line stands over the floor of the envelope spectrum; 1 is the floor.
        band: where the envelope was taken, Hz.
    """

    race: Race | None
    strengths: Mapping[Race, float]
    band: Band

    @property
    def winner(self) -> Race:
        """The strongest line, named or not."""
        return max(self.strengths, key=lambda race: self.strengths[race])

    @property
    def lead(self) -> float:
        """The strongest line as a multiple of the runner-up."""
        first, second = sorted(self.strengths.values(), reverse=True)[:2]
        return first / max(second, 1e-12)


def envelope_spectrum(waveform: Floats, rate_hz: float, band: Band = DEFAULT_BAND) -> tuple[Floats, Floats]:
    """Return (frequencies in Hz, amplitudes) of the envelope of one band.

    Raises:
        RecordingUnusable: the band lies beyond half the sampling rate.
    """
    wave = _checked(waveform, rate_hz)
    low, high = band
    if low >= rate_hz / 2:
        raise RecordingUnusable(
            samples=len(wave), rate_hz=rate_hz, why=f"the band begins at {low:g} Hz, above half the rate"
        )
    spectrum = fft.fft(wave)
    frequency = fft.fftfreq(len(wave), 1 / rate_hz)
    spectrum[(frequency < low) | (frequency > high)] = 0  # no negative frequencies: the inverse is the analytic signal
    envelope = np.abs(fft.ifft(2 * spectrum))
    return fft.rfftfreq(len(wave), 1 / rate_hz), np.abs(fft.rfft(envelope - envelope.mean()))


def line_strengths(frequency: Floats, amplitude: Floats, lines_hz: Mapping[Race, float]) -> dict[Race, float]:
    """Return each line's mean over three harmonics of the peak within slip, in medians of the 5 to 600 Hz spectrum."""
    floor_rows = (frequency >= FLOOR_BAND[0]) & (frequency <= FLOOR_BAND[1])
    floor = max(float(np.median(amplitude[floor_rows])), 1e-300)
    strengths = {}
    for race, line in lines_hz.items():
        peaks = []
        for harmonic in range(1, HARMONICS + 1):
            first, last = np.searchsorted(frequency, [harmonic * line * (1 - SLIP), harmonic * line * (1 + SLIP)])
            if first < len(frequency):
                peaks.append(float(amplitude[first : max(last, first + 1)].max()))
        strengths[race] = float(np.mean(peaks)) / floor if peaks else 0.0
    return strengths


def name_race(
    waveform: Floats,
    rate_hz: float,
    *,
    shaft_hz: float,
    geometry: Geometry,
    bands: Sequence[Band] = (DEFAULT_BAND,),
) -> Naming:
    """Name the part whose line stands at least 10 floors high and twice over the next, in the band where it leads most.

    Args:
        waveform: acceleration in any unit.
        rate_hz: sampling rate.
        shaft_hz: shaft frequency, within 1.5 %.
        geometry: of the bearing.
        bands: where to listen; the first that names a part decides, else the first is reported.
    """
    lines = geometry.lines_hz(shaft_hz)
    silent: Naming | None = None
    for band in bands:
        if band[0] >= rate_hz / 2:
            continue
        strengths = line_strengths(*envelope_spectrum(waveform, rate_hz, band), lines)
        naming = Naming(None, strengths, band)
        if strengths[naming.winner] >= NAMED_AT and naming.lead >= AHEAD_BY:
            return Naming(naming.winner, strengths, band)
        silent = silent or naming
    if silent is None:
        _checked(waveform, rate_hz)
        raise RecordingUnusable(samples=len(waveform), rate_hz=rate_hz, why="every band lies above half the rate")
    return silent


def risen(now: Features, baseline: Features, *, factor: float = 2.0) -> bool:
    """Tell whether a band above 1 kHz rose by the factor while the line spectrum names nobody: bearing, unspecified.

    A rolling element's defect turns in and out of the load zone, so its line is weak; the ringing rises all the same.
    """
    high, before = now.bands[1 : len(BANDS)], baseline.bands[1 : len(BANDS)]
    known = np.isfinite(high) & np.isfinite(before) & (before > 0)
    return bool((high[known] >= factor * before[known]).any())


def _band_rms(power: Floats, frequency: Floats, band: Band) -> float:
    inside = (frequency >= band[0]) & (frequency < band[1])
    return float(np.sqrt(power[inside].sum())) if inside.any() else float("nan")


def _checked(waveform: Floats, rate_hz: float) -> Floats:
    wave = np.asarray(waveform, dtype=np.float64)
    if wave.ndim != 1 or len(wave) < 64:
        raise RecordingUnusable(samples=wave.size, rate_hz=rate_hz, why="at least 64 samples in one row are needed")
    if not np.isfinite(wave).all():
        raise RecordingUnusable(samples=len(wave), rate_hz=rate_hz, why="some samples are not finite")
    if rate_hz <= 0:
        raise RecordingUnusable(samples=len(wave), rate_hz=rate_hz, why="the sampling rate must be positive")
    return np.asarray(wave - wave.mean())
