"""What was learned of a machine as bytes: the same scores after save and load, and no code inside."""

import ast
import hashlib
import io
import pickle
from pathlib import Path

import numpy as np
import pytest

from anomaly.api import Engine, EngineConfig
from anomaly.columns import Columns, ForeignState
from anomaly.state import Channels, Machines, Sensors
from anomaly.versions import (
    LEARNED_OF_CHANNEL,
    LEARNED_OF_MACHINE,
    LEARNED_OF_SENSOR,
    ForeignModel,
    extract,
    name_of,
    put,
    read,
)

ROOT = Path(__file__).parents[3]


@pytest.fixture
def learned(plant):
    """An engine after six days, and the readings that follow."""
    machines = [plant.machine(days=16, period_s=1800, seed=seed) for seed in (3, 8)]
    machines[0].values[1, machines[0].day(13) :] *= 1.6
    rows = plant.readings(machines)
    engine = plant.engine_for(2)
    cut = np.searchsorted(rows["ts"], rows["ts"][0] + 6 * plant.DAY_US)
    plant.fold_in_batches(engine, rows[:cut])
    return engine, rows[cut:]


def copy_of(engine, plant):
    machines, sensors = plant.metas(2)
    return Engine.load(engine.dump(), machines=machines, sensors=sensors, config=EngineConfig())


def test_scores_are_the_same_bit_by_bit_after_a_version_was_stored_and_put_back(learned, plant):
    engine, rows = learned
    version = extract(engine, 1)
    plain, again = copy_of(engine, plant), copy_of(engine, plant)
    for one in (plain, again):
        put(one, version.arrays, sha256=version.sha256)
    scores = [[], []]
    for batch in np.array_split(rows[: len(rows) // 2], 40):
        for one, into in zip((plain, again), scores, strict=True):
            one.fold(batch, 0)
            into.append(one.channels.score.tobytes())
    assert scores[0] == scores[1]
    assert extract(again, 1).arrays == version.arrays or again.channels.shift.any()
    assert len(set(scores[0])) > 10


def test_an_earlier_version_replaces_a_later_one_and_stays(learned, plant):
    engine, rows = learned
    early = extract(engine, 1)
    plant.fold_in_batches(engine, rows)
    late = extract(engine, 1)
    assert late.number > early.number
    assert late.trained_us[1] > early.trained_us[1]
    neighbour = extract(engine, 2)
    put(engine, early.arrays, sha256=early.sha256)
    assert name_of(engine, 1) == early.version
    assert extract(engine, 1).sha256 == early.sha256
    assert extract(engine, 2).sha256 == neighbour.sha256
    assert not engine.machines.is_learning[0]
    more = plant.readings([plant.machine(days=30, period_s=1800, seed=seed) for seed in (3, 8)])
    plant.fold_in_batches(engine, more[more["ts"] > rows["ts"].max()])
    assert name_of(engine, 1) == early.version
    put(engine, late.arrays, sha256=late.sha256)
    assert name_of(engine, 1) == late.version


def test_findings_name_the_version_they_came_from(learned, plant):
    engine, rows = learned
    version = extract(engine, 1)
    put(engine, version.arrays, sha256=version.sha256)
    found = plant.raised(plant.fold_in_batches(engine, rows), "machine")
    assert [f.model_version for f in found] == [version.version]


class Trap:
    def __reduce__(self):
        return (Path("trapped").touch, ())


def registered(body):
    return {"body": body, "sha256": hashlib.sha256(body).hexdigest()}


def npz(**arrays):
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


@pytest.mark.parametrize(
    "body",
    [
        pickle.dumps({"machine_id": [1]}),
        pickle.dumps(Trap()),
        npz(machine_id=np.array([1]), evil=np.array([Trap()], dtype=object)),
        b"",
        b"PK\x03\x04 no zip",
        npz(machine_id=np.array([1]))[:-30],
    ],
    ids=["pickle", "trap", "object array", "empty", "torn zip", "cut zip"],
)
def test_what_is_not_plain_arrays_is_refused_and_runs_nothing(body, tmp_path, monkeypatch, learned):
    monkeypatch.chdir(tmp_path)
    engine, _ = learned
    for act in (lambda: read(**registered(body)), lambda: put(engine, **registered(body))):
        with pytest.raises(ForeignModel, match="no model version that can be used here"):
            act()
    assert list(tmp_path.iterdir()) == []


def test_a_bare_array_is_no_version():
    out = io.BytesIO()
    np.save(out, np.arange(3))
    with pytest.raises(ForeignModel, match=r"no \.npz"):
        read(**registered(out.getvalue()))


def test_bytes_that_changed_are_refused(learned):
    version = extract(learned[0], 1)
    with pytest.raises(ForeignModel, match="SHA-256"):
        read(version.arrays[:-1] + b"x", sha256=version.sha256)


def test_a_version_of_another_shape_or_machine_is_refused_and_changes_nothing(learned):
    engine, _ = learned
    arrays = read(extract(engine, 1).arrays, sha256=extract(engine, 1).sha256)
    before = engine.dump()
    wrong = {**arrays, "channel.coefficients": arrays["channel.coefficients"][:, :2]}
    for body, words in (
        (npz(**wrong), "channel.coefficients"),
        (npz(**{**arrays, "machine_id": np.array([9])}), "machine 9"),
        (npz(x=np.zeros(2)), "machine_id"),
    ):
        with pytest.raises(ForeignModel, match=words):
            put(engine, **registered(body))
    assert engine.dump() == before


def test_a_version_with_floats_of_another_width_is_taken(learned):
    engine, _ = learned
    version = extract(engine, 1)
    arrays = read(version.arrays, sha256=version.sha256)
    wide = {name: v.astype(np.float64) if v.dtype == np.float32 else v for name, v in arrays.items()}
    assert wide["channel.coefficients"].dtype != arrays["channel.coefficients"].dtype
    put(engine, **registered(npz(**wide)))
    assert extract(engine, 1).sha256 == version.sha256


def test_a_state_with_floats_of_another_width_is_read_and_other_types_are_refused():
    channels, again = Channels(), Channels()
    channels.add(2)
    channels.coefficients[:] = 0.5
    arrays = channels.dump("channel")
    again.load("channel", {**arrays, "channel.coefficients": arrays["channel.coefficients"].astype(np.float64)})
    assert again.coefficients.dtype == np.float32
    assert (again.coefficients == 0.5).all()
    with pytest.raises(ForeignState, match=r"channel\.fitted_us is float64"):
        again.load("channel", {**arrays, "channel.fitted_us": arrays["channel.fitted_us"].astype(np.float64)})


def test_all_that_a_fit_writes_comes_back_after_the_model_was_lost(learned):
    """Extract, wipe what is learned, put: the same version, bit by bit."""
    engine, _ = learned
    version = extract(engine, 1)
    rows = {"sensor": engine.sensors_of.of(0), "channel": engine.channels_of.of(0), "machine": np.array([0])}
    tables = {"sensor": engine.sensors, "channel": engine.channels, "machine": engine.machines}
    written = {
        "machine": ("load_scale", "load_low", "load_high", "lag_low", "lag_high", "knows_off", "is_sure", "tier")
    }
    written["sensor"] = ("rest_below", "stuck_at")
    written["channel"] = ("coefficients", "sigma", "noise", "least", "most", "edge", "fitted_us", "is_log", "is_fitted")
    before = {(t, name): getattr(tables[t], name)[rows[t]].copy() for t, names in written.items() for name in names}
    for t, name in before:
        getattr(tables[t], name)[rows[t]] = tables[t].defaults()[name]
    put(engine, version.arrays, sha256=version.sha256)
    for (t, name), values in before.items():
        np.testing.assert_array_equal(getattr(tables[t], name)[rows[t]], values, err_msg=f"{t}.{name}")


def test_everything_that_a_fit_writes_is_in_a_version(learned, plant):
    """A column that `fit_machine` or the learning of habits writes and a version lacks would survive a roll-back."""
    engine, _ = learned
    before = {
        name: table.dump("") for name, table in (("m", engine.machines), ("s", engine.sensors), ("c", engine.channels))
    }
    before = {name: {k: v.copy() for k, v in columns.items()} for name, columns in before.items()}
    engine.steps._fit(0)
    for name, table, learned_names in (
        ("m", engine.machines, LEARNED_OF_MACHINE),
        ("s", engine.sensors, LEARNED_OF_SENSOR),
        ("c", engine.channels, LEARNED_OF_CHANNEL),
    ):
        changed = {
            k[1:]
            for k, v in table.dump("").items()
            if not np.array_equal(v, before[name][k], equal_nan=v.dtype.kind == "f")
        }
        assert changed <= {*learned_names, "is_learning", "newest"}


def test_a_fit_after_an_earlier_version_was_put_back_takes_a_name_of_its_own(learned, plant):
    engine, _ = learned
    earlier, again = extract(engine, 1), copy_of(engine, plant)
    engine.steps._fit(0)
    given = engine.model_version(0)
    put(engine, earlier.arrays, sha256=earlier.sha256)
    assert engine.model_version(0) == earlier.version
    again.machines.newest[0] = engine.machines.newest[0]  # one that learns on from there
    again.steps._fit(0)
    assert again.model_version(0) not in {earlier.version, given}


def test_the_names_of_what_is_learned_are_columns():
    for table, names in ((Machines, LEARNED_OF_MACHINE), (Sensors, LEARNED_OF_SENSOR), (Channels, LEARNED_OF_CHANNEL)):
        assert issubclass(table, Columns)
        assert set(names) <= set(table().defaults())


def test_no_module_of_the_product_loads_pickles():
    packages = ("fettle", "ingest", "anomaly", "workorders", "dispatch", "dashboards", "simulators")
    for file in [f for package in packages for f in (ROOT / package).rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert {n.split(".")[0] for n in names}.isdisjoint({"pickle", "joblib", "dill", "cloudpickle", "shelve"}), (
                file
            )
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert isinstance(node.value, ast.Constant), file
                assert node.value.value is False, file
            is_load = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "load"
            if is_load and isinstance(node.func.value, ast.Name) and node.func.value.id == "np":
                assert any(k.arg == "allow_pickle" for k in node.keywords), file
