"""The plain equations on which detectors are compared: three signals a minute, three loads, six faults.

Not realistic, and not meant to be: small enough to be written down and rebuilt elsewhere, so that figures can be
compared. A run begins at the scenario's start and depends on it, unlike the physical model.

- load 0.4, 0.7 or 1, redrawn every 120 min; every 480 min off with probability .08
- ambient 22 + 5 sin(day, random phase) °C + random walk of .01 a step
- current I0·(.35 + .65 load), I0 from U(15, 40) A, .05 A when off, times N(1, .02), plus N(0, .1)
- temperature: ambient + first-order lag (45 min) of 35 U(.8, 1.2) load^1.5, plus N(0, .3)
- vibration v0·(.3 + .7 load) when on, + .05, v0 from U(.8, 1.8) mm/s, times lognormal(.08)
- faults d days after onset, as written in `_run`; a stuck or drifting sensor is a sensor fault of the scenario
"""

from collections import OrderedDict

import numpy as np
import numpy.typing as npt

from simulators.faults import Fault
from simulators.machine import Machine, generator
from simulators.scenario import Scenario

Floats = npt.NDArray[np.float64]
_MINUTE_US = 60_000_000
_STREAM = 40
_KEPT = 128
_runs: OrderedDict[tuple[object, ...], dict[str, npt.NDArray[np.float32]]] = OrderedDict()


def reference_columns(
    machine: Machine, seed: int, scenario: Scenario, faults: tuple[Fault, ...], taken_us: npt.NDArray[np.int64]
) -> dict[str, Floats]:
    """Return temperature, vibration and current at each instant; NaN before the run and after its end."""
    key = (machine.key, seed, scenario.start_us, scenario.duration_us, faults)
    run = _runs.get(key)
    if run is None:
        run = {name: values.astype(np.float32) for name, values in _run(machine, seed, scenario, faults).items()}
        _runs[key] = run
        while len(_runs) > _KEPT:
            _runs.popitem(last=False)
    index = (taken_us - scenario.start_us) // _MINUTE_US
    n = run["temperature"].size
    inside = (index >= 0) & (index < n)
    at = np.clip(index, 0, n - 1)
    return {name: np.where(inside, values[at].astype(np.float64), np.nan) for name, values in run.items()}


def _run(machine: Machine, seed: int, scenario: Scenario, faults: tuple[Fault, ...]) -> dict[str, Floats]:
    from scipy import signal  # loaded where it is needed: it is slow to start

    n = scenario.duration_us // _MINUTE_US
    rng = generator(seed, machine.key, _STREAM)
    load = np.repeat(rng.choice([0.4, 0.7, 1.0], n // 120 + 1), 120)[:n]
    on = np.repeat(rng.random(n // 480 + 1) >= 0.08, 480)[:n]
    minute = np.arange(n)
    ambient = 22 + 5 * np.sin(2 * np.pi * (minute / 1440 + rng.random())) + np.cumsum(rng.normal(0, 0.01, n))
    rated, v0, rise = rng.uniform(15, 40), rng.uniform(0.8, 1.8), 35 * rng.uniform(0.8, 1.2)
    drive = rise * load**1.5 * on
    current = np.where(on, rated * (0.35 + 0.65 * load), 0.05)
    vibration = v0 * (0.3 + 0.7 * load) * on
    for fault in faults:
        t_us = scenario.start_us + minute * _MINUTE_US
        days = (t_us - fault.onset_us) / 86_400e6
        active = (days >= 0) & ((t_us < fault.end_us) if fault.end_us is not None else True)
        d = np.where(active, days, 0.0)
        match fault.kind.family:
            case "bearing":
                vibration = vibration * (1 + 0.05 * np.expm1(np.minimum(0.35 * d, 5)))
                drive = drive + 0.6 * np.expm1(np.minimum(0.25 * d, 4)) * on
            case "imbalance":
                vibration = np.where(active, vibration * 1.6, vibration)
            case "overheating":
                drive = drive * (1 + 0.06 * d)
            case "overload":
                current = np.where(on, current * (1 + 0.03 * np.minimum(d, 10)), current)
            case _:
                pass  # the other families have no equation here
    keep = np.exp(-1 / 45)
    lagged = signal.lfilter([1 - keep], [1, -keep], drive)
    return {
        "temperature": ambient + lagged + rng.normal(0, 0.3, n),
        "vibration": (vibration + 0.05) * rng.lognormal(0, 0.08, n),
        "current": current * rng.normal(1, 0.02, n) + rng.normal(0, 0.1, n),
    }
