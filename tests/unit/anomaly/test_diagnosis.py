"""Waveforms name the race, or at least a bearing; healthy ones name nothing."""

import json

import numpy as np
import pytest

from anomaly import diagnosis, envelope, limits, wording
from anomaly.diagnosis import Bearing, Recording
from anomaly.envelope import SKF_6205, Geometry, Race
from anomaly.finding import MachineMeta

RATE = 12_800.0
SHAFT = 24.6
KNOWN = Bearing("6205", SKF_6205, is_assumed=False)


def recording(*, race=None, seed=0, strength=1.0, seconds=2.0, multiple=None, t0_us=0):
    """Return noise, a shaft line and, at the rate of a race, ringing impacts with slip."""
    random = np.random.default_rng(seed)
    t = np.arange(int(seconds * RATE)) / RATE
    wave = 0.3 * np.sin(2 * np.pi * SHAFT * t) + 0.1 * random.standard_normal(len(t))
    rate = multiple * SHAFT if multiple else SKF_6205.lines_hz(SHAFT)[race] if race else None
    if rate:
        ring = np.exp(-np.arange(80) / 12) * np.sin(2 * np.pi * 3500 * np.arange(80) / RATE)
        at = np.cumsum(1 / rate * (1 + 0.003 * random.standard_normal(int(rate * seconds)))) * RATE
        train = np.zeros(len(t))
        train[at[at < len(t) - 1].astype(int)] = strength
        wave = wave + np.convolve(train, ring)[: len(t)]
    return Recording("vibration", "g", t0_us, RATE, wave)


@pytest.mark.parametrize("race", [Race.OUTER, Race.INNER])
@pytest.mark.parametrize("measured", [SHAFT, None])
def test_a_race_is_named_whether_or_not_the_speed_is_measured(race, measured):
    found = diagnosis.diagnose(recording(race=race), [recording(seed=9)], bearing=KNOWN, shaft_hz=measured)
    assert found["race"] == race.value
    assert found["lines"][0]["race"] == race.value
    assert found["lines"][0]["strength"] >= 10
    assert found["lines"][0]["strength"] >= 2 * found["lines"][1]["strength"]
    assert found["shaft_hz"] == pytest.approx(SHAFT, rel=0.01)
    assert found["geometry_source"].startswith("6205")
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert wording.say(wording.RACES, race.value, "zh") in wording.waveform(found, "zh")


@pytest.mark.parametrize("bearing", [KNOWN, None])
def test_a_healthy_recording_names_nothing(bearing):
    found = diagnosis.diagnose(recording(seed=3), [recording(seed=k) for k in (4, 5)], bearing=bearing)
    assert found["race"] is None
    assert not found["has_risen"]
    assert not diagnosis.names_bearing(found)


def test_impacts_of_an_unknown_bearing_are_a_bearing_unspecified():
    found = diagnosis.diagnose(recording(multiple=4.63), [recording(seed=9)], bearing=None)
    assert found["race"] is None
    assert found["impacts_hz"] == pytest.approx(4.63 * SHAFT, rel=0.02)
    assert diagnosis.names_bearing(found)
    assert "unspecified" in wording.waveform(found, "en")


def test_more_energy_above_a_kilohertz_without_a_line_is_a_bearing_unspecified():
    loud = recording(seed=3)
    loud = Recording(loud.sensor, loud.unit, 1, RATE, loud.values + 0.3 * np.random.default_rng(1).standard_normal(len(loud.values)))  # fmt: skip
    found = diagnosis.diagnose(loud, [recording(seed=k) for k in (4, 5, 6)], bearing=KNOWN)
    assert found["race"] is None
    assert found["has_risen"]


def test_a_recording_that_cannot_be_used_is_refused_not_guessed():
    with pytest.raises(envelope.RecordingUnusable):
        diagnosis.diagnose(Recording("v", "g", 0, RATE, np.zeros(10)), [], bearing=None)


def test_bearings_come_from_the_limits_file_by_number_then_by_class():
    text = '[bearing.rows.N203]\nelements = 11\nelement_diameter_mm = 6.75\npitch_diameter_mm = 28.5\nsource = "drawing 7"\n[bearing.of_machine]\n"P-7" = "N203"\n[bearing.of_class]\npump = "N203"\n'
    import tomllib

    mine = limits.Limits({**limits.shipped_limits().body, "bearing": tomllib.loads(text)["bearing"]})
    own = mine.bearing(MachineMeta(1, "P-7"))
    assert own.geometry.bpfo == pytest.approx(11 / 2 * (1 - 6.75 / 28.5))
    assert own.source == "N203, drawing 7"
    assert mine.bearing(MachineMeta(1, "P-8", machine_class="pump")).source.endswith("(assumed)")
    assert mine.bearing(MachineMeta(1, "P-8")) is None


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("\n[bearing.of_machine.x]\n", "used but has no"),
        ('[bearing.rows.A]\nelements = 8\nsource = "s"', "element_diameter_mm"),
    ],
)
def test_a_bearing_that_is_not_described_is_refused(more, says):
    from importlib import resources

    text = resources.files("anomaly").joinpath("limits.toml").read_text(encoding="utf-8")
    text = (
        text.replace("[bearing.of_machine]\n", '[bearing.of_machine]\n"P-1" = "lost"\n')
        if "of_machine" in more
        else text + more
    )
    with pytest.raises(limits.BadLimitsFile, match=says):
        limits.read_limits(text, path="mine.toml")


def test_the_rolling_element_line_is_twice_the_spin_from_a_drawing_too():
    drawn = Geometry.of(elements=9, element_diameter=7.94, pitch_diameter=39.04)
    assert drawn.bsf == pytest.approx(SKF_6205.bsf, rel=0.01)
