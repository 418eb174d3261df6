"""What detection finds in a simulated plant, and how often it cries wolf.

Protocol: one engine for each group of scenarios, in the shipped configuration, from the first reading on; readings come by
the hour in the order they arrive. False tickets and machine-days count from day 14, outside of episodes. A fault is found
by a ticket raised within its episode; one that was open at its onset finds nothing, further ones are repeats; delays are
medians over all episodes, missed ones as infinite. `reference` are plain equations on which detectors can be compared;
the other scenarios are machines of every class with product changes, shifts and weather.
Nuisance: tickets of a disturbed fleet beyond those of the same fleet, same seed, undisturbed; told apart are those that say
that nothing comes any more, which is so while a network is down. Top-1: the injected signal leads; told apart is whether its
quantity leads, measured by another sensor. Calibration: `benchmarks.fleet_calibration`. A simulator of our own: this compares,
and promises nothing about real plants.

Baselines on the same readings: static limits at 3 sigma of days 0 to 14; a ticket each midnight on every machine; none.
"""

import argparse
import os
import platform
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, replace

import numpy as np
from rich.console import Console
from rich.progress import Progress

from anomaly.api import Change, Engine, EngineConfig, FindingEvent, MachineMeta, SensorMeta
from anomaly.columns import IntArray
from benchmarks.corpus import versions
from benchmarks.fleet_calibration import RATES, Realised, realise
from benchmarks.fleet_judge import (
    DAY_US,
    Case,
    Raised,
    Result,
    ThreeSigma,
    Verdict,
    always,
    extra_tickets,
    is_class_right,
    is_kind_right,
    joined,
    judge,
    poisson_interval,
    share,
)
from fettle.model import FindingKind, MachineId, Quality, SensorId, SignalKind
from fettle.wire import READING_DTYPE, ReadingArray
from simulators import api

HOUR_US = 3_600_000_000
JUDGED_DAY = 14
KINDS = {
    "temperature": SignalKind.TEMPERATURE,
    "vibration": SignalKind.VIBRATION_VELOCITY,
    "current": SignalKind.CURRENT,
    "current_l1": SignalKind.CURRENT,
    "current_l2": SignalKind.CURRENT,
    "current_l3": SignalKind.CURRENT,
    "vibration_acceleration": SignalKind.VIBRATION_ACCELERATION,
    "speed": SignalKind.SPEED,
    "power": SignalKind.POWER,
    "pressure": SignalKind.PRESSURE,
    "flow": SignalKind.FLOW,
    "ambient": SignalKind.TEMPERATURE,
}
QUANTITY = {
    "vibration_acceleration": "vibration",
    "current_l1": "current",
    "current_l2": "current",
    "current_l3": "current",
}


@dataclass(frozen=True)
class Outcome:
    """One group, judged: the engine and the static limit, and how many tickets each scenario caused after the baseline, silence aside or not."""

    engine: Verdict
    static: Verdict
    daily: Verdict
    tickets_of: dict[str, int]
    but_silence_of: dict[str, int]
    seconds: float


class Plants:
    """Several fleets under one engine, their machines and sensors numbered through."""

    def __init__(self, scenarios: list[tuple[str, api.Scenario]], *, machines: int | None) -> None:
        self.fleets = [(name, api.Fleet(s, machines=machines)) for name, s in scenarios]
        self.start_us = scenarios[0][1].start_us
        self.days = min(s.duration_us for _, s in scenarios) // DAY_US
        self.end_us = self.start_us + self.days * DAY_US
        self.judged_us = self.start_us + JUDGED_DAY * DAY_US
        self.machines: list[MachineMeta] = []
        self.sensors: list[SensorMeta] = []
        self.plant_of: dict[int, str] = {}
        self.cases: list[Case] = []
        for name, fleet in self.fleets:
            self._add(name, fleet)

    def _add(self, name: str, fleet: api.Fleet) -> None:
        # the currents of the plain equations have nothing to do with the name plates of the machine class
        first = len(self.machines) + 1
        number = {}
        for i, m in enumerate(fleet.machines):
            number[m.site, m.number] = first + i
            self.plant_of[first + i] = name
            self.machines.append(
                MachineMeta(
                    MachineId(first + i),
                    number=m.number,
                    machine_class=m.class_name,
                    rated_current_a=None if fleet.scenario.model == "reference" else m.rated_current_a,
                    line=f"{name}/{m.line}",
                    site=f"{name}/{m.site}",
                )
            )
            for signal in fleet.scenario.signals:
                sensor_id = SensorId(len(self.sensors) + 1)
                self.sensors.append(SensorMeta(sensor_id, MachineId(first + i), signal, KINDS[signal]))
        for e in api.episodes(fleet, self.start_us, self.end_us):
            if name.startswith("nuisance"):
                continue
            machine = number[e.site, e.machine]
            mine = [f for f in fleet.faults_of(fleet.machine(e.machine, site=e.site)) if f.onset_us == e.onset_us]
            limits = [t for t in (e.failure_us, e.limit_us) if t is not None]
            self.cases.append(
                Case(
                    machine,
                    name.split("#", maxsplit=1)[0],
                    e.fault,
                    e.kind is FindingKind.SENSOR,
                    tuple(s for s in e.signals if s in fleet.scenario.signals),
                    e.onset_us,
                    e.end_us,
                    min(limits, default=None),
                    0.0 if not mine or mine[0].growth == "step" else (mine[0].failure_us - e.onset_us) / DAY_US,
                )
            )


def _raised(event: FindingEvent, name_of: dict[int, str]) -> Raised:
    f = event.finding
    contributions = f.evidence.get("contributions") or []
    top = max(contributions, key=lambda c: c["contribution"], default=None)
    sensor = int(top["sensor_id"]) if top and "sensor_id" in top else int(f.sensor_ids[0])
    return Raised(
        int(f.machine_id),
        f.raised_us,
        f.kind is FindingKind.SENSOR,
        name_of[sensor],
        f.severity.value,
        f.fault_family.value,
        f.detector,
    )


def watch(plants: Plants, config: EngineConfig, bar: Progress, label: str) -> Outcome:
    """Run a group through an engine and the static limit, and judge both."""
    engine = Engine(config)
    engine.register(plants.machines, plants.sensors)
    static = ThreeSigma(np.array([int(s.machine_id) for s in plants.sensors]), plants.start_us, plants.judged_us)
    name_of = {int(s.sensor_id): s.name for s in plants.sensors}
    tickets = []
    seconds = 0.0
    for day in bar.track(range(plants.days), description=label):
        day_us = plants.start_us + day * DAY_US
        arrived, readings = _day(plants, day_us)
        static.add_day(day_us, readings["sensor_id"].astype(np.int64) - 1, readings["ts"], readings["value"])
        ends = day_us + HOUR_US * np.arange(1, 25)
        began = time.process_time()
        for end_us, part in zip(ends.tolist(), np.split(readings, np.searchsorted(arrived, ends[:-1])), strict=True):
            events = engine.fold(part, end_us) + engine.advance(end_us)
            tickets += [_raised(e, name_of) for e in events if e.change is Change.RAISED]
        seconds += time.process_time() - began
    judged = [m for m, name in plants.plant_of.items() if not name.startswith("nuisance")]
    of_plant: dict[str, int] = defaultdict(int)
    but_silence_of: dict[str, int] = defaultdict(int)
    for ticket in tickets:
        plant, counts = plants.plant_of[ticket.machine], ticket.at_us >= plants.judged_us
        of_plant[plant] += counts
        but_silence_of[plant] += counts and ticket.detector != "silent"

    def verdict(raised: list[Raised]) -> Verdict:
        mine = [t for t in raised if t.machine in set(judged)] if len(judged) < len(plants.machines) else raised
        return judge(mine, plants.cases, judged, plants.judged_us, plants.end_us)

    daily = always(judged, plants.start_us, plants.end_us)
    return Outcome(
        verdict(tickets), verdict(static.tickets), verdict(daily), dict(of_plant), dict(but_silence_of), seconds
    )


def _day(plants: Plants, day_us: int) -> tuple[IntArray, ReadingArray]:
    """Return when the readings of a day arrive, and the readings, in that order."""
    parts, times, sensor = [], [], 1
    for _, fleet in plants.fleets:
        d = api.deliveries(fleet, day_us, day_us + DAY_US)
        out = np.empty(len(d), READING_DTYPE)
        out["sensor_id"] = sensor + d["machine"] * len(fleet.scenario.signals) + d["signal"]
        out["ts"], out["value"], out["quality"], out["flags"] = d["ts"], d["value"], Quality.GOOD, 0
        parts.append(out)
        times.append(d["deliver_us"] - _ahead_us(fleet, d["machine"], d["ts"]))
        sensor += len(fleet.machines) * len(fleet.scenario.signals)
    arrived = np.concatenate(times)
    order = np.argsort(arrived, kind="stable")
    return arrived[order], np.concatenate(parts)[order]


def _ahead_us(fleet: api.Fleet, machine: IntArray, ts: IntArray) -> IntArray:
    """Return how far stamps are ahead of the time at which they were given: a wrong clock does not delay a delivery."""
    ahead = np.zeros(len(ts), np.int64)
    place = {(m.site, m.number): i for i, m in enumerate(fleet.machines)}
    for fault in fleet.scenario.sensor_faults:
        if fault.kind == "clock_skew":
            size_us = round(fault.size * 1e6)
            end_us = np.iinfo(np.int64).max if fault.end_us is None else fault.end_us
            here = (machine == place.get((fault.site, fault.machine))) & (ts - size_us >= fault.onset_us)
            ahead[here & (ts - size_us < end_us)] = size_us
    return ahead


def _scenarios(name: str, seeds: range) -> list[tuple[str, api.Scenario]]:
    s = api.load_scenario(name)
    return [(f"{name}#{seed}", replace(s, seed=s.seed + 1000 * seed)) for seed in seeds]


def _thinned(s: api.Scenario, each: int, days: int) -> api.Scenario:
    """Return the first machines of each line over fewer days."""
    plants = tuple(
        replace(p, lines=tuple(replace(line, machines=line.machines[:each]) for line in p.lines)) for p in s.plants
    )
    kept = {m.number for p in plants for line in p.lines for m in line.machines}
    return replace(
        s,
        plants=plants,
        duration_us=days * DAY_US,
        faults=tuple(f for f in s.faults if f.machine in kept),
        sensor_faults=tuple(f for f in s.sensor_faults if f.machine in kept),
    )


def groups(seed: int, *, copies: int, quick: bool) -> dict[str, list[tuple[str, api.Scenario]]]:
    """Return the scenarios of each engine."""
    first = range(seed - 1, seed)
    several = range(seed - 1, seed - 1 + copies)
    if quick:
        name, s = _scenarios("reference-fleet", first)[0]
        return {"reference": [(name, _thinned(s, 2, 30))]}
    disturbed = _scenarios("nuisance", several)
    calm = [
        (name.replace("nuisance", "nuisance-calm"), replace(s, disturbances=(), sensor_faults=()))
        for name, s in disturbed
    ]
    return {
        "reference": _scenarios("reference-fleet", first),
        "healthy": _scenarios("healthy-fleet", first),
        "bearings": _scenarios("bearing-wear", several),
        "drives, cooling, sensors": [
            pair for name in ("drive-faults", "cooling-loss", "sensor-faults") for pair in _scenarios(name, several)
        ],
        "nuisance": disturbed + calm,
    }


def run(argv: list[str]) -> dict[str, object]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks fleet", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--copies", type=int, default=3, help="of each scenario of physics, with seeds of their own")
    parser.add_argument("--only", help="one group: reference, healthy, bearings, nuisance, calibration ...")
    parser.add_argument("--calibration-days", type=int, default=360, help="of the healthy machines with AR(1) noise")
    parser.add_argument("--quick", action="store_true", help="a seventh of the reference fleet for 30 days")
    args = parser.parse_args(argv)
    config = EngineConfig()
    print(__doc__)
    print(
        f"python {platform.python_version()}, {versions('numpy', 'scipy')}, {os.cpu_count()} cores, seed {args.seed}, "
        f"load {os.getloadavg()[0]:.1f}, configuration {config.digest()}, "
        f"set rate {config.false_tickets_per_machine_day:g} false tickets per machine-day\n"
    )
    began = time.process_time()
    outcomes = {}
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        for label, scenarios in groups(args.seed, copies=args.copies, quick=args.quick).items():
            if args.only in {None, label}:
                outcomes[label] = watch(Plants(scenarios, machines=None), config, bar, label)
                v = outcomes[label].engine
                print(
                    f"{label:26}{v.healthy_days:>8,.0f} healthy machine-days {len(v.false):>4} false "
                    f"{len(v.found):>4} of {len(v.results)} found {outcomes[label].seconds:>7.1f} s in the engine"
                )
        realised = []
        if args.only in {None, "calibration"} and not args.quick:
            task = bar.add_task("calibration", total=len(RATES) * args.calibration_days)
            realised = [
                realise(
                    config,
                    rate,
                    seed=args.seed,
                    each=20,
                    days=args.calibration_days,
                    on_day=lambda: bar.advance(task),
                )
                for rate in RATES
            ]
    if not outcomes and not realised:
        choices = [*groups(1, copies=1, quick=False), "calibration"]
        raise SystemExit(f"--only {args.only}: no such group; choose from {', '.join(choices)}")
    result = _report(outcomes, config, realised)
    result["cpu_s"] = round(time.process_time() - began, 1)
    print(f"\n{result['cpu_s']} s of processor time")
    return result


def _report(outcomes: dict[str, Outcome], config: EngineConfig, realised: list[Realised]) -> dict[str, object]:
    whole = joined(o.engine for o in outcomes.values())
    rows = {
        "engine": whole,
        "static 3 sigma": joined(o.static for o in outcomes.values()),
        "always (each midnight)": joined(o.daily for o in outcomes.values()),
        "never": replace(whole, false=(), results=tuple(replace(r, tickets=()) for r in whole.results)),
    }
    print(f"\n{'':26}{'false':>6}{'per machine-day':>17}{'95 % interval':>20}{'found':>12}{'median delay':>14}")
    for name, v in rows.items():
        low, high = poisson_interval(len(v.false), v.healthy_days)
        delay = np.median([r.delay_days for r in v.results]) if v.results else np.nan
        print(
            f"{name:26}{len(v.false):>6}{v.rate:>17.4f}{f'{low:.4f} to {high:.4f}':>20}"
            f"{f'{len(v.found)} of {len(v.results)}':>12}{delay:>12.2f} d"
        )
    static = _by_fault(rows["static 3 sigma"])
    print(
        f"\n{'scenario, fault':38}{'found':>10}{'delay':>9}{'lead':>9}{'kind':>6}{'first':>7}{'more':>6}{'3 sigma':>16}"
    )
    for key, results in sorted(_by_fault(whole).items()):
        found = [r for r in results if r.tickets]
        leads = [r.lead_days for r in results if r.case.limit_us is not None]
        other = static[key]
        print(
            f"{key:38}{f'{len(found)}/{len(results)}':>10}{np.median([r.delay_days for r in results]):>7.2f} d"
            f"{f'{np.median(leads):.1f} d' if leads else '':>9}{sum(map(is_kind_right, found)):>6}"
            f"{sum(map(_is_top_right, found)):>7}{sum(len(r.tickets) - 1 for r in found):>6}"
            f"{f'{sum(bool(r.tickets) for r in other)}, {np.median([r.delay_days for r in other]):.2f} d':>16}"
        )
    found = whole.found
    slow = [r for r in whole.results if r.case.growth_days >= 10 and r.case.limit_us is not None]
    of_sensors = [r for r in whole.results if r.case.is_sensor]
    of_machines = [r for r in found if not r.case.is_sensor]
    reference = [r for r in whole.results if r.case.plant == "reference-fleet"]
    result: dict[str, object] = {
        "false_tickets_per_machine_day": round(whole.rate, 5),
        "false_tickets_per_machine_day_high": round(
            sum(t.severity == "high" for t in whole.false) / max(whole.healthy_days, 1e-9), 5
        ),
        "false_tickets_interval": [
            round(x, 5) for x in poisson_interval(len(whole.false), whole.healthy_days) if np.isfinite(x)
        ],
        "false_tickets_per_machine_day_3_sigma": round(rows["static 3 sigma"].rate, 5),
        "healthy_machine_days": round(whole.healthy_days),
        "episodes": len(whole.results),
        "found_share": round(share(len(found), len(whole.results)), 4),
        "found_share_reference": round(share(sum(bool(r.tickets) for r in reference), len(reference)), 4),
        "median_lead_days_slow": round(float(np.median([r.lead_days for r in slow])), 2) if slow else None,
        "one_ticket_per_fault_share": round(share(sum(len(r.tickets) == 1 for r in found), len(found)), 4),
        "sensor_fault_classified_share": round(
            share(sum(is_class_right(r) for r in of_sensors if r.tickets), len(of_sensors)), 4
        ),
        "sensor_fault_kind_share": round(
            share(sum(is_kind_right(r) for r in of_sensors if r.tickets), len(of_sensors)), 4
        ),
        "machine_fault_blamed_on_sensor_share": round(
            share(sum(not is_kind_right(r) for r in of_machines), len(of_machines)), 4
        ),
        "realised_over_set_rate": round(whole.rate / config.false_tickets_per_machine_day, 3),
        "calibration_realised_over_set_rate": None,
        "top1_sensor_share": round(share(sum(map(_is_top_right, found)), len(found)), 4),
        "top1_quantity_share": round(share(sum(map(_is_top_quantity_right, found)), len(found)), 4),
        "nuisance_extra_tickets": None,
        "nuisance_extra_tickets_but_silence": None,
    }
    print(
        "\nfalse tickets: "
        + (", ".join(f"{name} {n}" for name, n in Counter(t.family for t in whole.false).most_common()) or "none")
    )
    print(
        f"sensor faults: {result['sensor_fault_kind_share']} laid to the sensor, "
        f"{result['sensor_fault_classified_share']} by the rule that names them too"
    )
    print(f"faults that grow for ten days or more and reach a limit: {len(slow)}; found before it: {sum(r.lead_days > 0 for r in slow)}")  # fmt: skip
    if realised:
        result["calibration_realised_over_set_rate"] = {
            f"{r.set_rate:g}": round(r.rate / r.set_rate, 3) for r in realised
        }
        print(
            "calibration, healthy AR(1) machines: "
            + "; ".join(
                f"set {r.set_rate:g}, realised {r.rate:.5f} ({r.interval()[0]:.5f} to {r.interval()[1]:.5f}) a machine-day, "
                f"tickets by coefficient {r.tickets}"
                for r in realised
            )
        )
    if "nuisance" in outcomes:
        nuisance = outcomes["nuisance"]
        for name, counts in (("", nuisance.tickets_of), ("_but_silence", nuisance.but_silence_of)):
            calm = {n.replace("nuisance-calm", "nuisance"): k for n, k in counts.items() if "nuisance-calm" in n}
            disturbed = {n: k for n, k in counts.items() if "nuisance-calm" not in n}
            result[f"nuisance_extra_tickets{name}"] = extra_tickets(disturbed, calm)
            print(
                f"nuisance{name.replace('_', ' ')}, tickets disturbed and undisturbed: "
                + "; ".join(f"{n} {k}, {calm.get(n, 0)}" for n, k in disturbed.items())
            )
    return {name: None if isinstance(value, float) and np.isnan(value) else value for name, value in result.items()}


def _by_fault(verdict: Verdict) -> dict[str, list[Result]]:
    out: dict[str, list[Result]] = defaultdict(list)
    for r in verdict.results:
        out[f"{r.case.plant}, {r.case.fault}"].append(r)
    return out


def _is_top_right(result: Result) -> bool:
    """Whether the first ticket's top signal is the injected one: the clearest of a machine fault, any of a sensor fault."""
    case = result.case
    return result.tickets[0].top_signal in (case.signals if case.is_sensor else case.signals[:1])


def _is_top_quantity_right(result: Result) -> bool:
    """Whether the quantity leads: acceleration is as good as velocity, a phase as good as the current, of a machine fault."""
    case, top = result.case, result.tickets[0].top_signal
    if case.is_sensor:
        return top in case.signals
    return QUANTITY.get(top, top) in {QUANTITY.get(s, s) for s in case.signals[:1]}
