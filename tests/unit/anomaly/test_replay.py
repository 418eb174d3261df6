"""The fold is deterministic: however batches are cut, repeated, reordered inside or replayed, the findings are the same."""

import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anomaly.api import Engine, ForeignState

HOUR_US = 3_600_000_000
TAUGHT_DAY, DAYS = 18, 25


@pytest.fixture(scope="module")
def story(plant):
    """Two machines, every two hours; one gets a bearing fault on day 19, and what the plain fold makes of it.

    The baseline is learned once: every test goes on from its state.
    """
    machines = [plant.machine(days=DAYS, period_s=7200, seed=3), plant.machine(days=DAYS, period_s=7200, seed=8)]
    first = machines[0].day(19)
    machines[0].values[1, first:] *= np.exp(np.linspace(0, 1.4, machines[0].values.shape[1] - first))
    rows = plant.readings(machines)
    engine = plant.engine_for(2)
    is_later = rows["ts"] >= plant.START_US + TAUGHT_DAY * plant.DAY_US
    assert plant.fold_in_batches(engine, rows[~is_later], batch_s=86400.0) == []
    taught = engine.dump()
    events = plant.fold_in_batches(engine, rows[is_later])
    assert len(plant.raised(events)) == 1
    return rows[is_later], outcome(events), engine, taught


@pytest.fixture
def taught(plant, story):
    """Return a function that gives an engine which has learned the baseline."""
    machines, sensors = plant.metas(2)
    return lambda: Engine.load(story[3], machines=machines, sensors=sensors)


def outcome(events):
    return [(e.change, e.finding.key, e.finding.onset_us, e.at_us) for e in events]


def quarter_days(rows):
    return (rows["ts"] - rows["ts"].min()) // (6 * HOUR_US)


KEEP = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
FEW = settings(max_examples=4, deadline=None, suppress_health_check=KEEP, derandomize=True)


@FEW
@given(hours=st.integers(1, 100), seed=st.integers(0, 2**16))
def test_the_order_of_rows_inside_a_batch_and_its_length_do_not_matter(story, taught, hours, seed):
    rows, expected, _, _ = story
    engine = taught()
    random = np.random.default_rng(seed)
    events = []
    bins = rows["ts"] // (hours * HOUR_US)
    for b in np.unique(bins):
        batch = rows[bins == b]
        events.extend(engine.fold(batch[random.permutation(len(batch))], 0))
    assert outcome(events) == expected


@FEW
@given(repeats=st.lists(st.integers(0, 27), max_size=20))
def test_repeated_batches_change_nothing(story, taught, repeats):
    rows, expected, _, _ = story
    engine = taught()
    bins = quarter_days(rows)
    events = []
    for b in np.unique(bins):
        events.extend(engine.fold(rows[bins == b], 0))
        for again in repeats:
            if again <= b:
                assert engine.fold(rows[bins == again], 0) == []
    assert outcome(events) == expected


@FEW
@given(cuts=st.lists(st.floats(0.02, 0.98), min_size=1, max_size=5))
def test_restarts_at_any_place_change_nothing(plant, story, taught, cuts):
    rows, expected, whole, _ = story
    machines, sensors = plant.metas(2)
    engine = taught()
    events = []
    edges = sorted({0, len(rows), *(int(c * len(rows)) for c in cuts)})
    for start, end in itertools.pairwise(edges):
        events.extend(plant.fold_in_batches(engine, rows[start:end]))
        engine = Engine.load(engine.dump(), machines=machines, sensors=sensors)
    assert outcome(events) == expected
    assert np.array_equal(engine.channels.score, whole.channels.score)
    assert engine.dump() == Engine.load(engine.dump(), machines=machines, sensors=sensors).dump()


@FEW
@given(first=st.integers(0, 20), late_by=st.integers(2, 8))
def test_a_batch_that_comes_late_as_a_whole_raises_nothing_and_costs_no_event(story, taught, first, late_by):
    rows, expected, _, _ = story
    bins = quarter_days(rows)
    late = (bins == first) & (rows["sensor_id"] > 3)
    engine = taught()
    events = []
    for b in np.unique(bins):
        events.extend(engine.fold(rows[(bins == b) & ~late], 0))
        if b == first + late_by:
            assert engine.fold(rows[late], 0) == []
    keys = [(change, key, onset) for change, key, onset, _ in outcome(events) if change == "raised"]
    assert keys == [(change, key, onset) for change, key, onset, _ in expected if change == "raised"]


@FEW
@given(seed=st.integers(0, 2**16))
def test_batches_in_any_order_within_a_day_cost_no_event_and_raise_nothing_of_their_own(story, taught, seed):
    rows, expected, _, _ = story
    random = np.random.default_rng(seed)
    bins = quarter_days(rows)
    order = np.concatenate([random.permutation(day) for day in np.array_split(np.unique(bins), 7)])
    engine = taught()
    events = []
    for b in order:
        events.extend(engine.fold(rows[bins == b], 0))
    raised = [(e.finding.machine_id, e.finding.fault_family) for e in events if e.change == "raised"]
    assert len(raised) == len([e for e in expected if e[0] == "raised"]) == 1
    assert raised[0][0] == 1


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
