import io

import numpy as np
import pytest

from anomaly import fleet_life


def history(seed):
    """A machine of 60 to 160 cycles whose channels bend away in its last 60."""
    rng = np.random.default_rng(seed)
    length = int(rng.integers(60, 160))
    left = np.arange(length)[::-1]
    worn = np.maximum(60 - left, 0) / 60
    rows = rng.normal(size=(length, 4)) * 0.2
    rows[:, 0] += 3 * worn
    rows[:, 1] -= 2 * worn**2
    rows[:, 3] = 7
    return rows


@pytest.fixture(scope="module")
def model():
    return fleet_life.learn([history(seed) for seed in range(24)], cap=60.0, trees=60)


def test_cycles_left_are_close_and_covered_on_machines_never_seen(model):
    errors, covered = [], []
    for seed in range(100, 130):
        rows = history(seed)
        features, _ = fleet_life.advance(model, fleet_life.fresh(model), rows)
        asked = np.random.default_rng(seed).integers(20, len(rows), 5)
        estimate = fleet_life.cycles_left(model, features[asked])
        truth = np.minimum(len(rows) - 1 - asked, 60)
        errors += (estimate.middle - truth).tolist()
        covered += ((estimate.low <= truth) & (truth <= estimate.high)).tolist()
    assert np.sqrt(np.mean(np.square(errors))) < 8
    assert np.mean(covered) > 0.8


def test_cycle_by_cycle_equals_all_at_once(model):
    rows = history(7)
    whole, _ = fleet_life.advance(model, fleet_life.fresh(model), rows)
    progress, parts = fleet_life.fresh(model), []
    for row in rows:
        part, progress = fleet_life.advance(model, progress, row[None])
        parts.append(part)
    np.testing.assert_allclose(np.vstack(parts), whole, rtol=0, atol=1e-9)


def test_features_are_causal(model):
    rows = history(8)
    altered = rows.copy()
    altered[30:] += 100
    before = fleet_life.advance(model, fleet_life.fresh(model), rows)[0][:30]
    assert (fleet_life.advance(model, fleet_life.fresh(model), altered)[0][:30] == before).all()


def test_a_restored_model_estimates_bit_identically(model):
    file = io.BytesIO()
    np.savez(file, **model.dump())
    file.seek(0)
    with np.load(file, allow_pickle=False) as arrays:
        again = fleet_life.FleetModel.restore(dict(arrays))
    features, _ = fleet_life.advance(model, fleet_life.fresh(model), history(9))
    assert (fleet_life.cycles_left(again, features).low == fleet_life.cycles_left(model, features).low).all()


def test_early_life_is_open_above(model):
    features, _ = fleet_life.advance(
        model, fleet_life.fresh(model), np.random.default_rng(0).normal(size=(40, 4)) * 0.2
    )
    assert np.isinf(fleet_life.cycles_left(model, features[-1:]).high).all()


def test_too_few_histories_are_refused():
    with pytest.raises(fleet_life.HistoriesTooFew, match="at least 20"):
        fleet_life.learn([history(seed) for seed in range(5)])
