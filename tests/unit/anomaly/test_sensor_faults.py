"""Sensor faults are told apart, and are not blamed on the machine."""

import numpy as np
import pytest

from fettle.model import FaultFamily

FAULT_DAY = 1.6


def story(plant, change, seed=1):
    machine = plant.machine(days=2.6, period_s=120, seed=seed)
    first = machine.day(FAULT_DAY)
    random = np.random.default_rng(7)
    machine.values[2] = np.where(machine.values[2] < 1, 0.05, machine.values[2])
    change(machine.values, first, random)
    return plant.raised(plant.feed(plant.engine_for(), [machine]))


def stuck(values, first, _):
    values[0, first:] = values[0, first]


def spikes(values, first, random):
    at = first + np.flatnonzero(random.random(values.shape[1] - first) < 0.03)
    values[0, at] += 60.0


def offset(values, first, _):
    values[0, first:] += 12.0


def fahrenheit(values, first, _):
    values[0, first:] = values[0, first:] * 1.8 + 32


def thousandfold(values, first, _):
    values[1, first:] *= 1000.0


def noisy(values, first, random):
    values[1, first:] *= np.exp(random.normal(0, 0.25, values.shape[1] - first))


def deadened(values, first, _):
    n = values.shape[1] - first
    keep = np.ones(61) / 61
    values[0, first:] = np.convolve(values[0, first - 30 : first + n + 30], keep, "same")[30 : 30 + n]


def silent(values, first, _):
    values[1, first:] = np.nan


def broken(values, first, _):
    values[0, first:] = 3000.0


@pytest.mark.parametrize(
    ("change", "rules"),
    [
        (stuck, {"stuck"}),
        (spikes, {"spike"}),
        (offset, {"offset"}),
        (fahrenheit, {"unit"}),
        (thousandfold, {"unit", "invalid"}),
        (noisy, {"noise"}),
        (deadened, {"noise"}),
        (silent, {"silent"}),
        (broken, {"invalid"}),
    ],
)
def test_each_sensor_fault_is_named_and_no_machine_is_blamed(plant, change, rules):
    findings = story(plant, change)
    assert [f.fault_family for f in findings] == [FaultFamily.SENSOR_FAULT]
    assert findings[0].detector in rules
    assert findings[0].kind == "sensor"
    assert FAULT_DAY - 0.02 <= plant.days(findings[0].onset_us) <= plant.days(findings[0].raised_us) <= FAULT_DAY + 0.6


def test_a_sound_plant_has_no_sensor_fault(plant):
    assert story(plant, lambda *_: None) == []


def test_a_machine_at_rest_may_be_constant(plant):
    def rest(values, first, _):
        values[0, first:] = values[0, first]
        values[1, first:] = 0.05
        values[2, first:] = 0.05

    assert story(plant, rest) == []


def test_an_offset_that_goes_away_clears(plant):
    machine = plant.machine(days=2.6, period_s=120, seed=1)
    first, last = machine.day(1.6), machine.day(2.0)
    machine.values[0, first:last] += 12.0
    events = plant.feed(plant.engine_for(), [machine])
    assert [e.change for e in events] == ["raised", "cleared"]


def test_missing_samples_are_no_fault(plant):
    machine = plant.machine(days=2.6, period_s=120, seed=1)
    random = np.random.default_rng(3)
    machine.values[random.random(machine.values.shape) < 0.05] = np.nan
    assert plant.feed(plant.engine_for(), [machine]) == []


@pytest.mark.parametrize(("per_day", "is_sensor"), [(1.5, True), (0.0, False)])
def test_a_temperature_that_creeps_at_any_load_is_laid_to_the_sensor_and_lost_cooling_is_not(plant, per_day, is_sensor):
    machine = plant.machine(days=30, period_s=1800, seed=2)
    first = machine.day(20)
    days = np.arange(machine.values.shape[1] - first) * 1800 / 86400
    heat = np.clip(machine.values[0, first:] - 24, 0, None)
    machine.values[0, first:] += days * per_day if is_sensor else heat * 0.08 * days
    findings = plant.raised(plant.feed(plant.engine_for(), [machine]))
    expected = ("sensor", FaultFamily.SENSOR_FAULT) if is_sensor else ("machine", FaultFamily.OVERHEATING)
    assert [(f.kind, f.fault_family) for f in findings] == [expected]
    assert (findings[0].detector == "drift") == is_sensor


def starting(plant, *, hours, jog_every_s, seed=5):
    """Return a pump sampled each ten seconds that is started again and again, with inrush in its current."""
    period = 10.0
    n = int(hours * 3600 / period)
    random = np.random.default_rng(seed)
    at = np.arange(n) * period
    into = at % jog_every_s
    on = (into >= 300) | (at < 3600)  # an hour of steady running, then five minutes of rest before each start
    since = np.where(at < 3600, np.inf, into - 300 + random.uniform(0, 3, n))
    current = np.where(on, 14 * random.normal(1, 0.02, n) + 77 * np.exp(-np.maximum(since, 0) / 2.5), 0.05)
    vibration = np.where(on, 1.2 * np.exp(random.normal(0, 0.06, n)), 0.05)
    temperature = 40 + random.normal(0, 0.25, n)
    return plant.Machine(np.round(np.stack([temperature, vibration, current]), 2), period)


@pytest.mark.parametrize("jog_every_s", [900, 2400])
def test_inrush_after_a_start_is_no_fault_of_the_sensor(plant, jog_every_s):
    machine = starting(plant, hours=9, jog_every_s=jog_every_s)
    assert machine.values[2].max() > 40
    assert plant.feed(plant.engine_for(), [machine]) == []


def test_a_machine_that_stands_still_from_the_first_sample_on_is_no_stuck_sensor(plant):
    """At rest its current is constant to the sensor's resolution, and nothing tells yet what it draws when it runs."""
    machine = starting(plant, hours=4, jog_every_s=1500)
    rest = machine.values.shape[1] // 2
    machine.values[1:, :rest] = 0.05
    assert plant.feed(plant.engine_for(), [machine]) == []
