"""Machines keep their state when engines are taken apart and put together: the same findings, bit by bit."""

import numpy as np
import pytest

from anomaly.api import Engine
from anomaly.partition import assemble
from fettle.model import Quality


@pytest.fixture(scope="module")
def story(plant):
    """Four machines of 18 days in one site; two get a fault after two weeks, one of them before the cut at day 15."""
    machines = [plant.machine(days=18, period_s=3600, seed=seed) for seed in (3, 8, 11, 12)]
    for k, day in ((0, 14.2), (2, 15.4)):
        first = machines[k].day(day)
        machines[k].values[1, first:] *= np.exp(np.linspace(0.3, 1.2, machines[k].values.shape[1] - first))
    return plant.readings(machines)


def outcome(events):
    return sorted(
        (e.at_us, e.finding.key, e.change, e.finding.score, len(e.finding.evidence["contributions"])) for e in events
    )


def batches(rows):
    bins = rows["ts"] // (6 * 3_600_000_000)
    return [rows[bins == b] for b in np.unique(bins)]


@pytest.mark.parametrize("site", [None, "S"])
def test_one_two_one_engines_find_what_one_finds(plant, story, site):
    whole = plant.engine_for(4, site=site)
    expected = [e for batch in batches(story) for e in whole.fold(batch, 0)]
    assert len(plant.raised(expected)) == 2
    engines = [plant.engine_for(4, site=site)]
    found = []
    for number, batch in enumerate(batches(story)):
        if number == 40:  # still learning
            engines = [assemble(engines, [2, 4]), assemble(engines, [1, 3])]
        if number == 59:  # the first fault is open
            engines = [assemble(engines)]
        if number == 63:
            engines = [assemble(engines, [1, 2, 3]), assemble(engines, [4])]
        found.extend(e for engine in engines for e in engine.fold(batch, 0))
    assert outcome(found) == outcome(expected)


def test_a_part_is_stored_and_read_back_like_any_engine(plant, story):
    engine = plant.engine_for(4)
    half = len(batches(story)) // 2
    for batch in batches(story)[:half]:
        engine.fold(batch, 0)
    part = assemble([engine], [3, 1])
    machines, sensors = plant.metas(4)
    again = Engine.load(
        part.dump(), machines=machines[:1] + machines[2:3], sensors=[s for s in sensors if s.machine_id in (1, 3)]
    )
    found = [outcome(e for batch in batches(story)[half:] for e in one.fold(batch, 0)) for one in (part, again)]
    assert found[0] == found[1]
    assert found[0]


def test_nothing_is_left_of_machines_that_went(plant, story):
    engine = plant.engine_for(4)
    for batch in batches(story)[:10]:
        engine.fold(batch, 0)
    part = assemble([engine], [2])
    assert part.machines.machine_id.tolist() == [2]
    assert part.sensors.sensor_id.tolist() == [4, 5, 6]
    before = part.sensors.seen.copy()
    part.fold(batches(story)[10], 0)
    assert (part.sensors.seen > before).all()


def state_of(engine, machine_id):
    """All that the tables hold of a machine, but for where its rows lie."""
    machine = int(np.flatnonzero(engine.machines.machine_id == machine_id)[0])
    rows = {"m": [machine], "s": engine.sensors_of.of(machine), "c": engine.channels_of.of(machine)}
    tables = {"m": engine.machines, "s": engine.sensors, "c": engine.channels}
    links = {"machine", "alarm", "sensor", "load_row"}
    return {
        f"{k}.{name}": getattr(table, name)[rows[k]].copy()
        for k, table in tables.items()
        for name in table.defaults()
        if name not in links
    }


@pytest.mark.parametrize("others", [1, 300])
def test_the_state_of_a_machine_does_not_depend_on_who_shares_its_engine(plant, others):
    """All its samples are bad for an hour, so that it closes steps without any, while those of the other are good."""
    rows = plant.readings([plant.machine(days=0.3, period_s=120, seed=seed) for seed in (3, 8)])
    hour = (rows["ts"] - rows["ts"][0]) // 3_600_000_000
    rows["quality"][(rows["sensor_id"] <= 3) & (hour == 4)] = Quality.BAD
    alone, shared = plant.engine_for(1), plant.engine_for(1 + others)
    for engine in (alone, shared):
        plant.fold_in_batches(engine, rows[rows["sensor_id"] <= 3] if engine is alone else rows)
    expected = state_of(alone, 1)
    for name, values in state_of(shared, 1).items():
        np.testing.assert_array_equal(values, expected[name], err_msg=name)


def test_machines_close_their_steps_in_turns_of_256(plant):
    one, many = plant.engine_for(256), plant.engine_for(1024)
    assert not one._turn.any()
    assert (many._turn[:256] == one._turn).all()
    assert np.unique(many._turn, return_counts=True)[1].tolist() == [256] * 4
