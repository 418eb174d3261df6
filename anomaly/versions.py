"""What was learned of one machine, as bytes that never change: parameters and arrays, no code (ISO 13374 block SD).

    Engine -> extract -> npz bytes + SHA-256 -> registry -> put -> Engine

Only what a fit produces is in it: running state (levels, open steps, alarms, slow adaptation) stays where it is, so that
an earlier model can be put back in the middle of the stream. The bytes are an `.npz`; pickled objects are refused, because
loading one runs its code.
"""

import hashlib
import io
import zipfile
from dataclasses import dataclass
from typing import Any

import numpy as np

from anomaly.columns import NEVER, AnyArray, Columns, IntArray, is_alike
from anomaly.engine import STATE_VERSION, Engine
from fettle.errors import FettleError

LEARNED_OF_MACHINE = (
    "load_scale", "load_low", "load_high", "lag_low", "lag_high", "load_floor", "knows_off", "is_sure", "tier", "version",
    "learned_steps", "learned_us", "next_fit", "trained_from", "trained_until",
)  # fmt: skip
LEARNED_OF_SENSOR = (
    "stuck_at", "rest_below", "same", "pairs", "longest_run", "rough", "largest_step", "usual_spikes", "usual_noise",
    "usual_noise_spread", "usual_noise_steps",
)  # fmt: skip
LEARNED_OF_CHANNEL = (
    "is_log",
    "is_fitted",
    "coefficients",
    "sigma",
    "noise",
    "least",
    "most",
    "edge",
    "shift",
    "fitted_us",
)


class ForeignModel(FettleError):
    """These bytes are no model version that can be used here: {what}. Choose a version that `fettle model list` shows."""


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One immutable version of what was learned of one machine."""

    machine_id: int
    version: str
    number: int
    arrays: bytes
    sha256: str
    trained_us: tuple[int, int] | None
    config_digest: str
    code_version: str
    feature_schema: dict[str, Any]
    metrics: dict[str, Any]


def _rows(engine: Engine, machine_id: int) -> tuple[int, IntArray, IntArray] | None:
    found = np.flatnonzero(engine.machines.machine_id == machine_id)
    if len(found) == 0:
        return None
    machine = int(found[0])
    return machine, engine.sensors_of.of(machine), engine.channels_of.of(machine)


def name_of(engine: Engine, machine_id: int) -> str:
    """Return the name of the version in force for a machine, as its findings give it; empty where nothing is learned."""
    rows = _rows(engine, machine_id)
    if rows is None or engine.machines.version[rows[0]] == 0:
        return ""
    return engine.model_version(rows[0])


def extract(engine: Engine, machine_id: int) -> ModelVersion:
    """Return what an engine has learned of a machine.

    Raises:
        ForeignModel: the engine does not know the machine.
    """
    rows = _rows(engine, machine_id)
    if rows is None:
        raise ForeignModel(what=f"there is no machine {machine_id}")
    machine, sensors, channels = rows
    s, ch, m = engine.sensors, engine.channels, engine.machines
    arrays: dict[str, AnyArray] = {
        "machine_id": np.array([machine_id], dtype=np.int64),
        "sensor_id": s.sensor_id[sensors],
        "channel_sensor_id": s.sensor_id[ch.sensor[channels]],
        "channel_view": ch.view[channels],
    }
    for prefix, table, which, names in (
        ("machine", m, np.array([machine]), LEARNED_OF_MACHINE),
        ("sensor", s, sensors, LEARNED_OF_SENSOR),
        ("channel", ch, channels, LEARNED_OF_CHANNEL),
    ):
        arrays.update({f"{prefix}.{name}": getattr(table, name)[which] for name in names})
    out = io.BytesIO()
    np.savez(out, allow_pickle=False, **arrays)
    body = out.getvalue()
    trained = (int(m.trained_from[machine]), int(m.trained_until[machine]))
    return ModelVersion(
        machine_id=machine_id,
        version=engine.model_version(machine),
        number=int(m.version[machine]),
        arrays=body,
        sha256=hashlib.sha256(body).hexdigest(),
        trained_us=None if trained[0] <= NEVER else trained,
        config_digest=engine.config.digest(),
        code_version=str(STATE_VERSION),
        feature_schema={name: f"{values.dtype} {list(values.shape)}" for name, values in arrays.items()},
        metrics={
            "tier": int(m.tier[machine]),
            "learned_hours": round(float(m.learned_us[machine]) / 3.6e9, 3),
            "learned_steps": int(m.learned_steps[machine]),
            "channels": [
                {
                    "sensor_id": int(s.sensor_id[ch.sensor[c]]),
                    "view": int(ch.view[c]),
                    "is_fitted": bool(ch.is_fitted[c]),
                    "sigma": _finite(ch.sigma[c]),
                    "noise": _finite(ch.noise[c]),
                }
                for c in channels.tolist()
            ],
        },
    )


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def read(body: bytes, *, sha256: str) -> dict[str, AnyArray]:
    """Return the arrays of a version.

    Raises:
        ForeignModel: the bytes are not those that were registered, no `.npz`, or hold pickled objects.
    """
    if hashlib.sha256(body).hexdigest() != sha256:
        raise ForeignModel(what="their SHA-256 is not the registered one")
    if not body.startswith(b"PK"):
        raise ForeignModel(what="they are no .npz")
    try:
        with np.load(io.BytesIO(body), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ForeignModel(what=f"they cannot be read as .npz without pickled objects ({error})") from error


def put(engine: Engine, body: bytes, *, sha256: str) -> None:
    """Put a version in force for its machine; the machine stays with it and learns nothing further until it is reset.

    Raises:
        ForeignModel: see `read`; or the arrays are not those of this program, or of a machine that is not here.
    """
    arrays = read(body, sha256=sha256)
    try:
        machine_id = int(arrays["machine_id"][0])
        sensor_ids, of, views = (arrays[name] for name in ("sensor_id", "channel_sensor_id", "channel_view"))
    except (KeyError, IndexError) as error:
        raise ForeignModel(what=f"they lack {error}") from error
    rows = _rows(engine, machine_id)
    if rows is None:
        raise ForeignModel(what=f"they are of machine {machine_id}, which is not watched here")
    machine, sensors, channels = rows
    s, ch = engine.sensors, engine.channels
    own = {int(s.sensor_id[row]): int(row) for row in sensors}
    ways = {(int(s.sensor_id[ch.sensor[c]]), int(ch.view[c])): int(c) for c in channels}
    pairs = (
        ("machine", engine.machines, [machine], LEARNED_OF_MACHINE),
        ("sensor", s, [own.get(int(i), -1) for i in sensor_ids], LEARNED_OF_SENSOR),
        ("channel", ch, [ways.get((int(i), int(v)), -1) for i, v in zip(of, views, strict=True)], LEARNED_OF_CHANNEL),
    )
    checked = [
        (
            getattr(table, name),
            np.array(target, dtype=np.int64),
            _column(arrays, f"{prefix}.{name}", table, name, target),
        )
        for prefix, table, target, names in pairs
        for name in names
        if f"{prefix}.{name}" in arrays
    ]
    newest = engine.machines.newest
    newest[machine] = max(newest[machine], engine.machines.version[machine])
    for column, target, values in checked:
        here = target >= 0
        column[target[here]] = values[here]
    engine.machines.is_learning[machine] = False
    s.is_learning[sensors] = False
    engine.training.close(machine, sensors)


def _column(arrays: dict[str, AnyArray], key: str, table: Columns, name: str, target: list[int]) -> AnyArray:
    """Return one stored column, checked against the table it goes into."""
    values, column = arrays[key], getattr(table, name)
    if not is_alike(values.dtype, column.dtype) or values.shape != (len(target), *column.shape[1:]):
        raise ForeignModel(what=f"{key} is {values.dtype} {values.shape}")
    return values.astype(column.dtype, copy=False)
