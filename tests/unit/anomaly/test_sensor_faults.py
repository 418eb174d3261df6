"""Sensor faults are told apart, and are not blamed on the machine."""

import numpy as np
import pytest

from fettle.model import FaultFamily

FAULT_DAY = 1.6


def faulty(plant, change, seed=1):
    machine = plant.machine(days=2.4, period_s=120, seed=seed)
    first = machine.day(FAULT_DAY)
    random = np.random.default_rng(7)
    machine.values[2] = np.where(machine.values[2] < 1, 0.05, machine.values[2])
    change(machine.values, first, random)
    return machine


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


def sound(*_):
    pass


def at_rest(values, first, _):
    values[0, first:] = values[0, first]
    values[1:, first:] = 0.05


def offset_for_hours(values, first, _):
    values[0, first : first + 200] += 12.0


def missing(values, _, random):
    values[random.random(values.shape) < 0.05] = np.nan


NAMED = {
    stuck: {"stuck"},
    spikes: {"spike"},
    offset: {"offset"},
    fahrenheit: {"unit"},
    thousandfold: {"unit", "invalid"},
    noisy: {"noise"},
    deadened: {"noise"},
    silent: {"silent"},
    broken: {"invalid"},
}


@pytest.fixture(scope="module")
def events_of(plant):
    """The events of one machine for each story of two and a half days."""
    every = [*NAMED, sound, at_rest, offset_for_hours, missing]
    return plant.watch({change: faulty(plant, change) for change in every})[1]


@pytest.mark.parametrize("change", NAMED)
def test_each_sensor_fault_is_named_and_no_machine_is_blamed(plant, events_of, change):
    findings = plant.raised(events_of[change])
    assert [f.fault_family for f in findings] == [FaultFamily.SENSOR_FAULT]
    assert findings[0].detector in NAMED[change]
    assert findings[0].kind == "sensor"
    assert FAULT_DAY - 0.02 <= plant.days(findings[0].onset_us) <= plant.days(findings[0].raised_us) <= FAULT_DAY + 0.6


@pytest.mark.parametrize("change", [sound, at_rest, missing])
def test_what_is_no_fault_of_a_sensor_raises_nothing(events_of, change):
    """Nothing wrong; a machine at rest, which may be constant; samples that are missing."""
    assert events_of[change] == []


def test_an_offset_that_goes_away_clears(events_of):
    assert [e.change for e in events_of[offset_for_hours]] == ["raised", "cleared"]


def creeping(plant, *, per_day):
    """Return a machine whose temperature creeps from day 20 on: at any load, or with `per_day` 0 in proportion to its heat."""
    machine = plant.machine(days=28, period_s=3600, seed=2)
    first = machine.day(20)
    days = np.arange(machine.values.shape[1] - first) * 3600 / 86400
    heat = np.clip(machine.values[0, first:] - 24, 0, None)
    machine.values[0, first:] += days * per_day if per_day else heat * 0.08 * days
    return machine


def test_a_temperature_that_creeps_at_any_load_is_laid_to_the_sensor_and_lost_cooling_is_not(plant):
    _, events = plant.watch({"sensor": creeping(plant, per_day=2.5), "machine": creeping(plant, per_day=0.0)})
    for kind, family in (("sensor", FaultFamily.SENSOR_FAULT), ("machine", FaultFamily.OVERHEATING)):
        findings = plant.raised(events[kind])
        assert [(f.kind, f.fault_family) for f in findings] == [(kind, family)]
        assert (findings[0].detector == "drift") == (kind == "sensor")


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


def test_neither_starts_with_inrush_nor_a_long_rest_is_a_fault_of_the_sensor(plant):
    """At rest a current is constant to the sensor's resolution, and before the first start nothing tells what it draws."""
    stories = {f"started each {s} s": starting(plant, hours=7, jog_every_s=s) for s in (900, 2400)}
    assert all(machine.values[2].max() > 40 for machine in stories.values())
    rested = starting(plant, hours=7, jog_every_s=1500, seed=6)
    rested.values[1:, :720] = 0.05
    _, events = plant.watch(stories | {"at rest for two hours": rested})
    assert not any(events.values()), events


def cold(plant, *, period_s=120):
    machine = plant.machine(days=2.4, period_s=period_s, seed=1)
    machine.values[0] = -20 + np.random.default_rng(3).normal(0, 0.1, machine.values.shape[1])
    return machine


def test_spikes_of_a_temperature_below_zero_are_spikes_and_no_offset(plant):
    """Below zero every steady value is less than a share of what follows: that is no start of a machine."""
    machine = cold(plant)
    first = machine.day(FAULT_DAY)
    machine.values[0, first::25] += 15.0
    _, events = plant.watch({"cold": machine})
    assert {f.detector for f in plant.raised(events["cold"])} == {"spike"}
