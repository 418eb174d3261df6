"""The fold is deterministic: however batches are cut, repeated, reordered inside or replayed, the findings are the same."""

import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anomaly.api import Engine, ForeignState

SLOW = settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)


@pytest.fixture(scope="module")
def story(plant):
    """Two machines, hourly for nine days; one of them gets a bearing fault. With what the plain fold makes of it."""
    machines = [plant.machine(days=9, period_s=3600, seed=3), plant.machine(days=9, period_s=3600, seed=8)]
    first = machines[0].day(7)
    machines[0].values[1, first:] *= np.exp(np.linspace(0, 1.8, machines[0].values.shape[1] - first))
    rows = plant.readings(machines)
    engine = plant.engine_for(2)
    events = plant.fold_in_batches(engine, rows)
    assert len(plant.raised(events)) == 1
    return rows, outcome(events), engine


def outcome(events):
    return [(e.change, e.finding.key, e.finding.onset_us, e.at_us) for e in events]


@SLOW
@given(hours=st.integers(1, 200), seed=st.integers(0, 2**16))
def test_the_order_of_rows_inside_a_batch_and_its_length_do_not_matter(plant, story, hours, seed):
    rows, expected, _ = story
    engine = plant.engine_for(2)
    random = np.random.default_rng(seed)
    events = []
    bins = rows["ts"] // (hours * 3_600_000_000)
    for b in np.unique(bins):
        batch = rows[bins == b]
        events.extend(engine.fold(batch[random.permutation(len(batch))], 0))
    assert outcome(events) == expected


@SLOW
@given(repeats=st.lists(st.integers(0, 35), max_size=10))
def test_repeated_batches_change_nothing(plant, story, repeats):
    rows, expected, _ = story
    engine = plant.engine_for(2)
    bins = (rows["ts"] - rows["ts"].min()) // (6 * 3_600_000_000)
    events = []
    for b in np.unique(bins):
        events.extend(engine.fold(rows[bins == b], 0))
        for again in repeats:
            if again <= b:
                assert engine.fold(rows[bins == again], 0) == []
    assert outcome(events) == expected


@SLOW
@given(cuts=st.lists(st.floats(0.02, 0.98), min_size=1, max_size=5), data=st.data())
def test_restarts_at_any_place_change_nothing(plant, story, cuts, data):
    rows, expected, whole = story
    del data
    machines, sensors = plant.metas(2)
    engine = plant.engine_for(2)
    events = []
    edges = sorted({0, len(rows), *(int(c * len(rows)) for c in cuts)})
    for start, end in itertools.pairwise(edges):
        events.extend(plant.fold_in_batches(engine, rows[start:end]))
        engine = Engine.load(engine.dump(), machines=machines, sensors=sensors)
    assert outcome(events) == expected
    assert np.array_equal(engine.channels.score, whole.channels.score)
    assert engine.dump() == Engine.load(engine.dump(), machines=machines, sensors=sensors).dump()


@SLOW
@given(first=st.integers(0, 160), late_by=st.integers(2, 9))
def test_a_batch_that_comes_late_as_a_whole_raises_nothing_and_costs_no_event(plant, story, first, late_by):
    rows, expected, _ = story
    start = rows["ts"].min() + first * 3_600_000_000
    late = (rows["ts"] >= start) & (rows["ts"] < start + 6 * 3_600_000_000) & (rows["sensor_id"] > 3)
    engine = plant.engine_for(2)
    bins = (rows["ts"] - rows["ts"].min()) // (6 * 3_600_000_000)
    events = []
    for b in np.unique(bins):
        events.extend(engine.fold(rows[(bins == b) & ~late], 0))
        if b == first // 6 + late_by:
            assert engine.fold(rows[late], 0) == []
    keys = [(change, key, onset) for change, key, onset, _ in outcome(events) if change == "raised"]
    assert keys == [(change, key, onset) for change, key, onset, _ in expected if change == "raised"]


def test_state_that_holds_pickled_objects_is_refused(plant):
    import io

    class Bomb:
        def __reduce__(self):
            return (print, ("boom",))

    out = io.BytesIO()
    np.savez(out, json=np.array([Bomb()], dtype=object))
    machines, sensors = plant.metas()
    with pytest.raises(ForeignState, match="cannot be read"):
        Engine.load(out.getvalue(), machines=machines, sensors=sensors)


def test_bytes_that_are_no_state_are_refused(plant):
    machines, sensors = plant.metas()
    with pytest.raises(ForeignState, match="fettle detect --rebuild"):
        Engine.load(b"nonsense", machines=machines, sensors=sensors)
