"""What really happened: episodes of faults, disturbances, states, counts and production figures of a run.

The truth leaves the simulator as a file of its own, never through the readings.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from fettle.model import FaultFamily, FindingKind
from simulators.disturbances import SensorFault
from simulators.faults import Fault
from simulators.fleet import Fleet
from simulators.machine import Machine
from simulators.production import DAY_US, State, oee_of
from simulators.toml_table import EPOCH
from simulators.vibration import healthy_velocity, velocity_factor

_POINTS = 100


@dataclass(frozen=True, kw_only=True)
class Episode:
    """One fault of a machine or of a sensor, as far as it lies in a run: the half-open span [onset, end).

    Attributes:
        signals: sensors that show it, the clearest first.
        end_us: repair, or the end of the run.
        failure_us: instant of severity 1; None where the run or a repair comes first, and for sensor faults.
        limit_us: first instant at which expected vibration passes the trip limit of the class, or temperature its limit.
    """

    site: str
    line: str
    machine: str
    kind: FindingKind
    family: FaultFamily
    fault: str
    signals: tuple[str, ...]
    onset_us: int
    end_us: int
    failure_us: int | None
    limit_us: int | None


def episodes(fleet: Fleet, start_us: int, end_us: int) -> list[Episode]:
    """Return the episodes that touch [start, end), by machine in the order of the fleet, then by onset."""
    return list(_episodes(fleet, start_us, end_us))


def _episodes(fleet: Fleet, start_us: int, end_us: int) -> Iterator[Episode]:
    physical = fleet.scenario.model == "physics"
    for m in fleet.machines:
        found = [
            Episode(
                site=m.site,
                line=m.line,
                machine=m.number,
                kind=FindingKind.MACHINE,
                family=f.kind.family,
                fault=f.kind.name,
                signals=f.kind.signals,
                onset_us=f.onset_us,
                end_us=end_us if f.end_us is None else min(f.end_us, end_us),
                failure_us=f.failure_us
                if physical and f.fails and f.growth != "step" and f.failure_us < end_us
                else None,
                limit_us=_limit_us(fleet, m, f, end_us),
            )
            for f in fleet.faults_of(m)
            if f.overlaps(start_us, end_us)
        ]
        by_cause: dict[tuple[str, int, int | None], list[SensorFault]] = {}
        for s in fleet.sensor_faults_of(m):
            if s.overlaps(start_us, end_us):
                by_cause.setdefault((s.kind, s.onset_us, s.end_us), []).append(s)
        found += [
            Episode(
                site=m.site,
                line=m.line,
                machine=m.number,
                kind=FindingKind.SENSOR,
                family=FaultFamily.SENSOR_FAULT,
                fault=kind,
                signals=tuple(s.signal for s in together),
                onset_us=onset_us,
                end_us=end_us if until_us is None else min(until_us, end_us),
                failure_us=None,
                limit_us=None,
            )
            for (kind, onset_us, until_us), together in by_cause.items()
        ]
        yield from sorted(found, key=lambda e: e.onset_us)


def _limit_us(fleet: Fleet, m: Machine, fault: Fault, end_us: int) -> int | None:
    if fleet.scenario.model == "reference":
        return None
    until = end_us if fault.end_us is None else min(fault.end_us, end_us)
    for day in range(fault.onset_us // DAY_US, -(-until // DAY_US)):
        plan = fleet.day_plan(m, day)
        if plan.state is None:
            continue
        minute_s = 60 * np.arange(plan.wander.size - 1)
        span = np.searchsorted(plan.spans.start_s, minute_s, side="right") - 1
        load = plan.level[span] * (1 + plan.wander[:-1])
        velocity = healthy_velocity(m, load) * velocity_factor(m, plan.state)[:-1]
        over = (plan.on[span] & (velocity > m.kind.iso_trip_mm_s)) | (
            plan.temperature_c[:-1] > m.kind.temperature_limit_c
        )
        at_us = day * DAY_US + minute_s * 1_000_000
        hits = at_us[over & (at_us >= fault.onset_us) & (at_us < until)]
        if hits.size:
            return int(hits[0])
    return None


def truth(fleet: Fleet, start_us: int, end_us: int) -> dict[str, Any]:
    """Return everything that is true of a run, ready for JSON; instants in ISO 8601."""
    s = fleet.scenario
    machines = []
    for m in fleet.machines:
        entry: dict[str, Any] = {
            "site": m.site,
            "line": m.line,
            "machine": m.number,
            "class": m.class_name,
            "rated_power_kw": m.rated_power_kw,
            "rated_current_a": m.rated_current_a,
        }
        if s.model == "physics":
            stretches = list(fleet.production(start_us, end_us, machines=(m,)))
            figures = oee_of(stretches)
            entry |= {
                "ideal_cycle_s": m.kind.ideal_cycle_s,
                "good": figures.good,
                "scrap": figures.scrap,
                "seconds": {
                    state.name.lower(): math.fsum((x.end_us - x.start_us) / 1e6 for x in stretches if x.state is state)
                    for state in State
                },
                "availability": _figure(figures.availability),
                "performance": _figure(figures.performance),
                "quality": _figure(figures.quality),
                "oee": _figure(figures.oee),
                "stretches": [
                    [iso(x.start_us), iso(x.end_us), x.state.name.lower(), x.product, x.good, x.scrap]
                    for x in stretches
                ],
            }
        machines.append(entry)
    return {
        "scenario": s.name,
        "seed": fleet.seed,
        "start": iso(start_us),
        "end": iso(end_us),
        "period_s": fleet.period_us / 1e6,
        "signals": list(s.signals),
        "episodes": [_episode(fleet, e, start_us) for e in episodes(fleet, start_us, end_us)],
        "disturbances": [
            {
                "kind": d.kind,
                "site": d.where.site,
                "line": d.where.line,
                "machine": d.where.machine,
                "start": iso(d.start_us),
                "end": iso(d.end_us),
                "size": d.size,
            }
            for d in s.disturbances
            if d.overlaps(start_us, end_us)
        ],
        "stretch_columns": ["start", "end", "state", "product", "good", "scrap"],
        "machines": machines,
    }


def _episode(fleet: Fleet, e: Episode, start_us: int) -> dict[str, Any]:
    out: dict[str, Any] = {
        "site": e.site,
        "line": e.line,
        "machine": e.machine,
        "kind": e.kind.value,
        "family": e.family.value,
        "fault": e.fault,
        "signals": list(e.signals),
        "onset": iso(e.onset_us),
        "end": iso(e.end_us),
        "failure": None if e.failure_us is None else iso(e.failure_us),
        "limit": None if e.limit_us is None else iso(e.limit_us),
    }
    if e.kind is FindingKind.MACHINE:
        machine = fleet.machine(e.machine, site=e.site)
        fault = next(f for f in fleet.faults_of(machine) if (f.kind.name, f.onset_us) == (e.fault, e.onset_us))
        at = np.linspace(max(e.onset_us, start_us), e.end_us - 1, _POINTS).astype(np.int64)
        out["severity"] = [[iso(int(t)), round(float(v), 6)] for t, v in zip(at, fault.severity(at), strict=True)]
    return out


def write_truth(fleet: Fleet, start_us: int, end_us: int, path: Path) -> None:
    """Write the truth of a run as JSON; equal runs give equal bytes."""
    path.write_text(json.dumps(truth(fleet, start_us, end_us), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def iso(t_us: int) -> str:
    """Return an instant in ISO 8601 with Z."""
    return (EPOCH + timedelta(microseconds=t_us)).isoformat().replace("+00:00", "Z")


def _figure(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 9)
