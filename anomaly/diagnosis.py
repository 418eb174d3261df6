"""What the recorded waveforms of a machine say about a finding on it: which race, or a bearing at all (ISO 13374 block HA).

newest recording ─▶ shaft speed: measured, or the strongest line of its spectrum
                 ─▶ envelope in three bands ─▶ lines of the known bearing ─▶ a race is named
                                            ─▶ bearing unknown: impacts that are no multiple of the shaft
earlier ones     ─▶ energy and kurtosis ─▶ risen: a bearing, unspecified
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import fft

from anomaly import envelope
from anomaly.envelope import Band, Features, Floats, Geometry, Naming, Race

BANDS: tuple[Band, ...] = (envelope.DEFAULT_BAND, (1_000.0, 2_500.0), (5_000.0, 10_000.0))
SHAFT_HZ: Band = (5.0, 120.0)
_CANDIDATES = 3
_KURTOSIS = 4.5
_RISE = 1.5
_OFF_SHAFT = 0.04
_G = envelope.STANDARD_GRAVITY


@dataclass(frozen=True, slots=True)
class Recording:
    """One stored waveform; `t0_us` is its first sample, `values` in `unit`."""

    sensor: str
    unit: str
    t0_us: int
    rate_hz: float
    values: Floats


@dataclass(frozen=True, slots=True)
class Bearing:
    """A known bearing: its lines, and where that knowledge comes from."""

    name: str
    geometry: Geometry
    is_assumed: bool

    @property
    def source(self) -> str:
        return f"{self.name}, {self.geometry.source}" + (" (assumed)" if self.is_assumed else "")


def diagnose(
    now: Recording, earlier: Sequence[Recording], *, bearing: Bearing | None, shaft_hz: float | None = None
) -> dict[str, Any]:
    """Return the evidence that a recording gives, ready for JSON: `race`, `lines`, `has_risen`, features, shaft speed.

    Args:
        now: the recording made during the excursion.
        earlier: recordings from before it, where there are any.
        bearing: of the machine, if it is known.
        shaft_hz: measured shaft speed, if there is one.

    Raises:
        envelope.RecordingUnusable: too short, not finite, or too slow a rate for any band.
    """
    here = envelope.features(_in_m_s2(now), now.rate_hz)
    candidates = [shaft_hz] if shaft_hz else shaft_speeds(now.values, now.rate_hz)
    shaft, naming, impacts = None, None, None
    if bearing is not None:
        shaft, naming = _name(now, candidates, bearing)
    is_named = naming is not None and naming.race is not None
    if not is_named and candidates and (bearing is None or bearing.is_assumed):
        shaft = shaft or candidates[0]
        impacts = blind_impacts(now, shaft)
    has_risen = is_named or impacts is not None or _has_risen(here, earlier)
    return {
        "sensor": now.sensor,
        "t0_us": now.t0_us,
        "rate_hz": now.rate_hz,
        "duration_s": len(now.values) / now.rate_hz,
        "race": naming.race.value if naming is not None and naming.race is not None else None,
        "lines": _lines(naming, bearing, shaft),
        "impacts_hz": impacts,
        "band_hz": list(naming.band) if naming is not None else None,
        "has_risen": has_risen,
        "kurtosis": here.kurtosis,
        "crest": here.crest,
        "rms_m_s2": here.rms,
        "velocity_rms_mm_s": here.velocity_rms_mm_s,
        "shaft_hz": shaft,
        "shaft_source": "measured" if shaft_hz else "spectrum" if shaft else None,
        "geometry_source": bearing.source if bearing is not None else None,
        "compared_with": len(earlier),
    }


def names_bearing(found: dict[str, Any] | None) -> bool:
    """Say whether a diagnosis speaks for a bearing, named or not."""
    return found is not None and bool(found.get("race") or found.get("has_risen"))


def _name(now: Recording, candidates: Sequence[float], bearing: Bearing) -> tuple[float | None, Naming | None]:
    """Return the shaft speed and the naming of the first candidate that names a race, or those of the likeliest."""
    first: tuple[float | None, Naming | None] = (None, None)
    for shaft in candidates:
        naming = envelope.name_race(now.values, now.rate_hz, shaft_hz=shaft, geometry=bearing.geometry, bands=BANDS)
        if naming.race is not None:
            return shaft, naming
        if first[1] is None:
            first = shaft, naming
    return first


def _lines(naming: Naming | None, bearing: Bearing | None, shaft: float | None) -> list[dict[str, Any]]:
    if naming is None or bearing is None or shaft is None:
        return []
    hz = bearing.geometry.lines_hz(shaft)
    ranked = sorted(naming.strengths.items(), key=lambda item: -item[1])
    return [{"race": Race(race).value, "hz": hz[race], "strength": strength} for race, strength in ranked]


def _has_risen(here: Features, earlier: Sequence[Recording]) -> bool:
    """Say whether high bands doubled against the median of earlier recordings, or impacts stand out of the noise."""
    usable = [r for r in earlier if len(r.values) >= 64 and np.isfinite(r.values).all()]
    if not usable:
        return here.kurtosis >= _KURTOSIS
    before = [envelope.features(_in_m_s2(r), r.rate_hz) for r in usable]
    middle = min(before, key=lambda f: abs(f.rms - float(np.median([b.rms for b in before]))))
    usual = float(np.median([f.kurtosis for f in before]))
    return envelope.risen(here, middle) or here.kurtosis >= max(_KURTOSIS, _RISE * usual)


def _in_m_s2(recording: Recording) -> Floats:
    return recording.values * (_G if recording.unit == "g" else 1.0)


def shaft_speeds(waveform: Floats, rate_hz: float) -> list[float]:
    """Return the likeliest shaft speeds in Hz: the strongest lines of the velocity spectrum, lower ones first if alike.

    >>> t = np.arange(25_600) / 25_600
    >>> [round(f, 1) for f in shaft_speeds(np.sin(2 * np.pi * 24.6 * t), 25_600.0)][:1]
    [24.6]
    """
    wave = np.asarray(waveform, dtype=np.float64)
    wave = (wave - wave.mean()) * np.hanning(len(wave))
    frequency = fft.rfftfreq(len(wave), 1 / rate_hz)
    amplitude = np.abs(fft.rfft(wave)) / np.maximum(frequency, 1.0)
    inside = np.flatnonzero((frequency >= SHAFT_HZ[0]) & (frequency <= SHAFT_HZ[1]))
    inside = inside[(inside > 0) & (inside < len(amplitude) - 1)]
    if len(inside) == 0:
        return []
    is_peak = (amplitude[inside] > amplitude[inside - 1]) & (amplitude[inside] >= amplitude[inside + 1])
    peaks = inside[is_peak]
    peaks = peaks[amplitude[peaks] > 4.0 * np.median(amplitude[inside])]
    strongest = peaks[np.argsort(-amplitude[peaks])][:_CANDIDATES]
    return [_refined(frequency, amplitude, int(k)) for k in strongest]


def _refined(frequency: Floats, amplitude: Floats, k: int) -> float:
    """Return the frequency of a peak between the lines of the spectrum, by a parabola through its logarithm."""
    low, top, high = np.log(np.maximum(amplitude[k - 1 : k + 2], 1e-300))
    bend = low - 2 * top + high
    shift = 0.5 * (low - high) / bend if bend < 0 else 0.0
    return float(frequency[k] + shift * (frequency[1] - frequency[0]))


def blind_impacts(recording: Recording, shaft_hz: float) -> float | None:
    """Return the rate in Hz of impacts that are no multiple of the shaft, or None; for a bearing that nobody described."""
    for band in BANDS:
        if band[0] >= recording.rate_hz / 2:
            continue
        frequency, amplitude = envelope.envelope_spectrum(recording.values, recording.rate_hz, band)
        floor = float(
            np.median(amplitude[(frequency >= envelope.FLOOR_BAND[0]) & (frequency <= envelope.FLOOR_BAND[1])])
        )
        inside = np.flatnonzero((frequency > 2.2 * shaft_hz) & (frequency < 14.0 * shaft_hz))
        orders = frequency[inside] / shaft_hz
        inside = inside[np.abs(orders - np.rint(orders)) > _OFF_SHAFT]
        if len(inside) == 0 or floor <= 0:
            continue
        top = float(frequency[inside[np.argmax(amplitude[inside])]])
        strength = envelope.line_strengths(frequency, amplitude, {Race.OUTER: top})[Race.OUTER]
        if strength >= envelope.NAMED_AT:
            return top
    return None
