import numpy as np
import pytest

from anomaly import envelope
from anomaly.envelope import SKF_6205, Race

RATE = 12_000.0
SHAFT = 29.95


def impacts(race, *, seed=0, seconds=2.0, strength=1.0, slip=0.0):
    """A ring of 3.2 kHz struck once per pass of the race, in Gaussian noise."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * RATE)) / RATE
    wave = rng.normal(size=len(time)) * 0.1
    line = SKF_6205.lines_hz(SHAFT)[race] * (1 + slip)
    for strike in np.arange(0, seconds, 1 / line):
        after = time - strike
        ring = (after >= 0) & (after < 0.01)
        wave[ring] += strength * np.exp(-after[ring] * 800) * np.sin(2 * np.pi * 3200 * after[ring])
    return wave


@pytest.mark.parametrize("race", [Race.OUTER, Race.INNER])
@pytest.mark.parametrize("slip", [-0.01, 0.0, 0.01])
def test_the_struck_race_is_named(race, slip):
    naming = envelope.name_race(impacts(race, slip=slip), RATE, shaft_hz=SHAFT, geometry=SKF_6205)
    assert naming.race is race
    assert naming.strengths[race] >= 10
    assert naming.lead >= 2


def test_noise_names_nobody():
    for seed in range(20):
        noise = np.random.default_rng(seed).normal(size=24_000)
        naming = envelope.name_race(noise, RATE, shaft_hz=SHAFT, geometry=SKF_6205)
        assert naming.race is None
        assert max(naming.strengths.values()) < 10


def test_a_second_band_is_listened_to_where_the_first_hears_nothing():
    wave = impacts(Race.OUTER)
    deaf, loud = (10.0, 300.0), (2_000.0, 5_500.0)
    assert envelope.name_race(wave, RATE, shaft_hz=SHAFT, geometry=SKF_6205, bands=(deaf,)).race is None
    both = envelope.name_race(wave, RATE, shaft_hz=SHAFT, geometry=SKF_6205, bands=(deaf, loud))
    assert both.race is Race.OUTER
    assert both.band == loud


def test_geometry_of_the_drawing_gives_the_published_multiples():
    drawn = envelope.Geometry.of(elements=9, element_diameter=7.94, pitch_diameter=39.04)
    assert drawn.bpfo == pytest.approx(3.5848, rel=2e-3)
    assert drawn.bpfi == pytest.approx(5.4152, rel=2e-3)
    assert drawn.bsf == pytest.approx(4.7135, rel=2e-3)
    assert drawn.ftf == pytest.approx(0.39828, rel=2e-3)
    guessed = envelope.Geometry.guessed(elements=9)
    assert guessed.bpfo == pytest.approx(3.6)
    assert guessed.bpfi == pytest.approx(5.4)


def test_features_of_a_sine():
    time = np.arange(25_600) / 25_600
    sine = 2 * np.sin(2 * np.pi * 100 * time)  # m/s²
    found = envelope.features(sine, 25_600.0, shaft_hz=100.0)
    assert found.rms == pytest.approx(np.sqrt(2))
    assert found.peak == pytest.approx(2, rel=1e-3)
    assert found.peak_to_peak == pytest.approx(4, rel=1e-3)
    assert found.crest == pytest.approx(np.sqrt(2), rel=1e-3)
    assert found.kurtosis == pytest.approx(1.5)
    assert found.velocity_rms_mm_s == pytest.approx(1000 * np.sqrt(2) / (2 * np.pi * 100))
    assert found.bands[0] == pytest.approx(np.sqrt(2))
    assert found.bands[4] == pytest.approx(np.sqrt(2))
    assert found.bands[5] == pytest.approx(0, abs=1e-9)


def test_velocity_ignores_what_lies_below_10_hz():
    time = np.arange(20_000) / 10_000
    assert envelope.features(np.sin(2 * np.pi * 5 * time), 10_000.0).velocity_rms_mm_s == pytest.approx(0, abs=1e-9)


def test_kurtosis_and_crest_rise_with_impacts():
    healthy = envelope.features(np.random.default_rng(0).normal(size=24_000), RATE)
    struck = envelope.features(impacts(Race.OUTER, strength=3.0), RATE)
    assert healthy.kurtosis == pytest.approx(3, abs=0.2)
    assert 3 < healthy.crest < 5
    assert struck.kurtosis > 5
    assert struck.crest > 5


def test_a_risen_high_band_is_noticed_without_a_line():
    quiet = np.random.default_rng(1).normal(size=24_000) * 0.1
    loud = quiet * 3
    assert envelope.risen(envelope.features(loud, RATE), envelope.features(quiet, RATE))
    assert not envelope.risen(envelope.features(quiet, RATE), envelope.features(quiet, RATE))


def test_the_vector_has_one_logarithm_per_feature():
    found = envelope.features(impacts(Race.INNER), RATE, shaft_hz=SHAFT)
    vector = found.vector()
    assert vector[0] == pytest.approx(np.log(found.rms))
    assert len(vector) == 2 + len(found.bands)


@pytest.mark.parametrize(
    ("wave", "rate", "why"),
    [
        (np.zeros(10), RATE, "64 samples"),
        (np.full(100, np.nan), RATE, "not finite"),
        (np.ones(100), 0.0, "must be positive"),
        (np.ones(100), 1000.0, "lies above half the rate"),
    ],
)
def test_an_unusable_recording_is_refused_with_the_reason(wave, rate, why):
    with pytest.raises(envelope.RecordingUnusable, match=why):
        envelope.name_race(wave, rate, shaft_hz=SHAFT, geometry=SKF_6205, bands=((2000.0, 5500.0),))
