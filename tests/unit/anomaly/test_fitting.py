"""What a baseline tells, and what it does not."""

import numpy as np

from fettle.model import SignalKind

LEAK = (("leak", SignalKind.FLOW, "m³/h"),)


def test_a_baseline_that_is_always_zero_tells_nothing(plant):
    told = plant.Machine(np.zeros((1, 12 * 48)), 1800.0)
    told.values[0, told.day(10) :] = 0.001
    engine, events = plant.watch({"leak": (told, LEAK)})
    assert float(engine.channels.score.max()) < 1.0
    assert plant.raised(events["leak"], "machine") == []
