"""Phases are compared whenever current flows, whichever of them is lost and however the load goes."""

import numpy as np
import pytest

from fettle.model import FaultFamily, SignalKind

PHASES = tuple((f"current {k}", SignalKind.CURRENT, "A") for k in range(3))


def phases(plant, *, lost, cycle_s=0.0, days=2.6):
    """Return a machine with three phases, a minute apart, of which one reads 0.0 from day 2 on."""
    period_s = 60.0
    n = int(days * 86400 / period_s)
    random = np.random.default_rng(2)
    at = np.arange(n) * period_s
    load = np.where(at // cycle_s % 2 < 1, 1.0, 0.6) if cycle_s else np.repeat([1.0, 0.8], 120).repeat(n // 240 + 1)[:n]
    values = 20 * load * random.normal(1, 0.005, (3, n))
    machine = plant.Machine(values, period_s)
    if lost is not None:
        machine.values[lost, machine.day(2) :] = 0.0
    return machine, PHASES


@pytest.fixture(scope="module")
def findings_of(plant):
    stories = {
        "the load": phases(plant, lost=0),
        "another of a cyclic machine": phases(plant, lost=1, cycle_s=180.0),
        "none of a cyclic machine": phases(plant, lost=None, cycle_s=180.0),
    }
    return {name: plant.raised(events) for name, events in plant.watch(stories)[1].items()}


def test_the_phase_that_tells_the_load_is_missed_although_it_reads_a_constant(findings_of):
    assert FaultFamily.ELECTRICAL_UNBALANCE in [f.fault_family for f in findings_of["the load"]]


def test_a_lost_phase_of_a_machine_whose_load_never_rests_is_found(findings_of):
    assert [f.fault_family for f in findings_of["another of a cyclic machine"]] == [FaultFamily.ELECTRICAL_UNBALANCE]


def test_a_load_that_never_rests_is_no_unbalance(findings_of):
    assert findings_of["none of a cyclic machine"] == []
