"""When readings reach the broker: at once, or late, twice and out of order where a scenario says so."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from simulators.disturbances import DELIVERY_KINDS, Disturbance
from simulators.fleet import Fleet
from simulators.machine import Machine

DELIVERY_DTYPE = np.dtype(
    [("deliver_us", "<i8"), ("ts", "<i8"), ("value", "<f8"), ("machine", "<i4"), ("signal", "<i2")]
)
"""One delivered reading: when it reaches the broker, its time stamp, its value, the index of its machine in the fleet and
of its signal in the scenario."""

DeliveryArray = npt.NDArray[np.void]
Instants = npt.NDArray[np.int64]

_DUPLICATE_DELAY_US = 3_000_000
_MISSED, _DELAYED, _DOUBLED = 1, 2, 3


def deliveries(fleet: Fleet, start_us: int, end_us: int) -> DeliveryArray:
    """Return what reaches the broker in [start, end), in order of arrival.

    Readings of an outage arrive when it ends. Consecutive calls cover every delivery exactly once.
    """
    parts: list[DeliveryArray] = []
    by_machine = _delivery_disturbances(fleet)
    plain = tuple(m for m in fleet.machines if not by_machine.get(m.key))
    index = {m.key: i for i, m in enumerate(fleet.machines)}
    signal_index = {name: i for i, name in enumerate(fleet.scenario.signals)}
    for series in fleet.generate(start_us, end_us, machines=plain):
        if series.times.size:
            part = np.empty(series.times.size, DELIVERY_DTYPE)
            part["deliver_us"] = part["ts"] = series.times
            part["value"] = series.values
            part["machine"], part["signal"] = index[series.machine.key], signal_index[series.signal]
            parts.append(part)
    for machine in fleet.machines:
        for deliver, ts, values, signal in _disturbed(
            fleet, machine, by_machine.get(machine.key, ()), start_us, end_us
        ):
            part = np.empty(deliver.size, DELIVERY_DTYPE)
            part["deliver_us"], part["ts"], part["value"] = deliver, ts, values
            part["machine"], part["signal"] = index[machine.key], signal_index[signal]
            parts.append(part)
    if not parts:
        return np.empty(0, DELIVERY_DTYPE)
    out = np.concatenate(parts)
    out = out[np.isfinite(out["value"])]
    order = np.lexsort((out["signal"], out["ts"], out["machine"], out["deliver_us"]))
    return np.asarray(out[order])


def _delivery_disturbances(fleet: Fleet) -> dict[int, tuple[Disturbance, ...]]:
    wanted = [d for d in fleet.scenario.disturbances if d.kind in DELIVERY_KINDS]
    if not wanted:
        return {}
    return {
        m.key: found
        for m in fleet.machines
        if (found := tuple(d for d in wanted if d.where.covers(site=m.site, line=m.line, machine=m.number)))
    }


def _disturbed(
    fleet: Fleet, machine: Machine, here: tuple[Disturbance, ...], start_us: int, end_us: int
) -> Iterator[tuple[Instants, Instants, npt.NDArray[np.float64], str]]:
    if not here:
        return
    # everything that may arrive in the span was taken at most this long before it
    reach = max(
        [_DUPLICATE_DELAY_US]
        + [round(d.delay_s * 1e6) for d in here if d.kind == "reordering"]
        + [end_us - d.start_us for d in here if d.kind == "network_outage" and start_us <= d.end_us < end_us]
    )
    longest = max([0] + [round(d.delay_s * 1e6) for d in here if d.kind == "reordering"]) + _DUPLICATE_DELAY_US
    for series in fleet.generate(start_us - max(reach, longest), end_us, machines=(machine,)):
        ts, values = series.times, series.values
        if not ts.size:
            continue
        deliver = ts.copy()
        for d in here:
            if d.kind == "reordering":
                u = _hash_uniform(machine.key, _DELAYED, ts)
                hit = (u < d.size) & (ts >= d.start_us) & (ts < d.end_us)
                deliver += np.where(hit, (u / max(d.size, 1e-9) * d.delay_s * 1e6).astype(np.int64), 0)
        twice = np.zeros(ts.size, np.bool_)
        for d in here:
            if d.kind == "duplicates":
                twice |= (_hash_uniform(machine.key, _DOUBLED, ts) < d.size) & (ts >= d.start_us) & (ts < d.end_us)
        again = deliver[twice] + _DUPLICATE_DELAY_US
        deliver = np.concatenate((deliver, again))
        for d in here:
            if d.kind == "network_outage":
                deliver = np.where((deliver >= d.start_us) & (deliver < d.end_us), d.end_us, deliver)
        ts, values = np.concatenate((ts, ts[twice])), np.concatenate((values, values[twice]))
        inside = (deliver >= start_us) & (deliver < end_us)
        yield deliver[inside], ts[inside], values[inside], series.signal


def _hash_uniform(key: int, salt: int, ts: Instants) -> npt.NDArray[np.float64]:
    """Return numbers in [0, 1) that depend on machine and instant alone (splitmix64)."""
    x = ts.astype(np.uint64) + np.uint64((key * 0x9E3779B97F4A7C15 + salt * 0xD1B54A32D192ED03) & 0xFFFFFFFFFFFFFFFF)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(((x ^ (x >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53)
