"""Many findings at once are one incident; nothing is lost, and what stands alone is not held back."""

import json

import numpy as np
import pytest

from anomaly.api import Engine, MachineMeta, SensorMeta
from anomaly.finding import Change, Finding, FindingEvent, finding_key
from anomaly.grouping import Grouping, is_member
from fettle.model import FaultFamily, FindingKind, MachineId, Quality, SensorId, Severity, SignalKind
from fettle.wire import READING_DTYPE

MINUTE = 60_000_000
NOON = 1_790_000_000_000_000


def plant_of(machines, *, site="north", lines=1):
    metas = {m: MachineMeta(MachineId(m), f"M-{m}", site=site, line=f"L{m % lines}") for m in range(1, machines + 1)}
    return Grouping(metas.get, lambda: list(metas.values()))


def finding(machine, *, onset=0.0, raised=3.0, family=FaultFamily.NO_LOAD):
    onset_us, raised_us = NOON + int(onset * MINUTE), NOON + int(raised * MINUTE)
    return Finding(
        key=finding_key(machine_id=machine, family=family, onset_us=onset_us), machine_id=MachineId(machine),
        fault_family=family, kind=FindingKind.MACHINE, severity=Severity.LOW, onset_us=onset_us, raised_us=raised_us,
        cleared_us=None, detector="excess", block="SD", model_version="v", tier=2, mode="running", score=1.0, p_value=None,
        threshold=1.0, set_rate=0.01, sensor_ids=(SensorId(machine),), evidence={"machine": f"M-{machine}"},
    )  # fmt: skip


def raise_(f):
    return FindingEvent(Change.RAISED, f, f.raised_us)


def clear(f, at):
    at_us = NOON + int(at * MINUTE)
    return FindingEvent(Change.CLEARED, f.changed(cleared_us=at_us), at_us)


def incidents(events):
    """What a person is told: raised findings that belong to no other."""
    return [e.finding for e in events if e.change is Change.RAISED and not is_member(e.finding)]


def test_findings_on_their_own_pass_at_once_and_untouched():
    grouping = plant_of(40)
    for machine, onset in ((1, 0.0), (2, 30.0), (3, 60.0)):
        event = raise_(finding(machine, onset=onset, raised=onset + 3))
        assert grouping.take([event], event.at_us) == [event]


def test_two_alike_of_forty_are_two_findings_the_second_ten_minutes_later():
    grouping = plant_of(40)
    first, second = raise_(finding(1)), raise_(finding(2))
    assert grouping.take([first, second], first.at_us) == [first]
    assert grouping.take([], first.at_us + 9 * MINUTE) == []
    assert grouping.take([], first.at_us + 11 * MINUTE) == [second]


def test_a_power_dip_on_five_hundred_machines_is_one_incident_with_the_first_out_as_headline():
    grouping = plant_of(500, lines=25)
    random = np.random.default_rng(3)
    order = random.permutation(np.arange(2, 501)).tolist()
    found = [finding(1, onset=-0.5)] + [finding(m, onset=float(random.uniform(0, 1))) for m in order]
    out = []
    for start in range(0, 500, 60):  # as batches come
        out += grouping.take([raise_(f) for f in found[start : start + 60]], NOON + 3 * MINUTE + start)
    assert [f.machine_id for f in incidents(out)] == [1]
    assert {e.finding.key for e in out if e.change is Change.RAISED} == {f.key for f in found}
    told = [e for e in out if e.change is Change.EVIDENCE]
    assert all(e.finding.key == found[0].key for e in told)
    assert len(told) <= 10
    assert told[-1].finding.evidence["incident"]["machine_count"] > 250
    members = [e.finding.evidence["incident"] for e in out if is_member(e.finding)]
    assert {note["headline"] for note in members} == {found[0].key}
    times = [e.at_us for e in told]
    assert times == sorted(set(times))
    assert times[0] > found[0].raised_us


def test_half_a_line_together_is_one_incident():
    grouping = plant_of(40, lines=10)  # four machines a line
    out = grouping.take([raise_(finding(m)) for m in (10, 20, 30)], NOON + 3 * MINUTE)
    assert len(incidents(out)) == 1
    assert next(e for e in out if e.change is Change.EVIDENCE).finding.evidence["incident"]["reason"] == "together"


def test_more_than_ten_in_ten_minutes_collapse_even_if_nothing_else_is_alike():
    grouping = plant_of(200)
    families = [FaultFamily.BEARING, FaultFamily.OVERLOAD, FaultFamily.OVERHEATING]
    found = [finding(m, onset=-60.0 * m, raised=m / 2, family=families[m % 3]) for m in range(1, 19)]
    out = []
    for f in found:
        out += grouping.take([raise_(f)], f.raised_us)
    alone = incidents(out)
    assert len(alone) == 10
    assert {e.finding.evidence["incident"]["reason"] for e in out if is_member(e.finding)} == {"flood"}
    assert sum(is_member(e.finding) for e in out) == 8
    headline = next(e.finding for e in out if e.change is Change.EVIDENCE)
    assert headline.key == min(alone, key=lambda f: f.onset_us).key


def test_a_flood_ends_by_itself():
    grouping = plant_of(200)
    found = [finding(m, onset=-60.0 * m, raised=m / 2) for m in range(1, 19)]
    for f in found:
        grouping.take([raise_(f)], f.raised_us)
    later = finding(150, onset=25, raised=40)
    assert grouping.take([raise_(later)], later.raised_us) == [raise_(later)]


def test_what_is_open_an_hour_after_the_headline_cleared_stands_for_itself():
    grouping = plant_of(6)
    found = [finding(m) for m in range(1, 7)]
    out = grouping.take([raise_(f) for f in found], NOON + 3 * MINUTE)
    assert len(incidents(out)) == 1
    out = grouping.take([clear(f, 20) for f in found[:-1]], NOON + 20 * MINUTE)
    assert [e.change for e in out].count(Change.CLEARED) == 5
    assert grouping.take([], NOON + 70 * MINUTE) == []
    freed = grouping.take([], NOON + 90 * MINUTE)
    assert [(e.change, e.finding.key, is_member(e.finding)) for e in freed] == [(Change.EVIDENCE, found[-1].key, False)]
    back = clear(found[-1], 120)
    assert grouping.take([back], back.at_us) == [back]


def test_a_headline_that_is_over_still_tells_of_those_that_join():
    grouping = plant_of(6)
    first, *others = [finding(m) for m in range(1, 7)]
    assert grouping.take([raise_(first)], first.raised_us) == [raise_(first)]
    over = clear(first, 5)
    assert grouping.take([over], over.at_us) == [over]
    out = grouping.take([raise_(finding(m, raised=6)) for m in range(2, 7)], NOON + 6 * MINUTE)
    (told,) = [e for e in out if not is_member(e.finding)]
    assert (told.change, told.finding.key) == (Change.CLEARED, first.key)
    assert told.at_us > over.at_us
    assert told.finding.evidence["incident"]["machine_count"] == 6
    freed = grouping.take([], NOON + 70 * MINUTE)  # and it ends like any other
    assert {e.finding.key for e in freed} == {f.key for f in others}


@pytest.mark.parametrize("cut", [1, 2, 3, 4, 7, 11])
def test_a_restart_at_any_place_changes_nothing(cut):
    found = [finding(m, onset=m / 10, raised=3 + m / 10) for m in range(1, 15)]
    events = [raise_(f) for f in found] + [clear(f, 30 + i) for i, f in enumerate(found)]

    def run(cuts):
        grouping, out = plant_of(20), []
        for i, event in enumerate(events):
            if i in cuts:
                body = json.loads(json.dumps(grouping.dump()))
                grouping = plant_of(20)
                grouping.load(body)
            out += grouping.take([event], event.at_us)
        return out

    assert run({cut, cut + 13}) == run(set())


def test_machines_without_a_place_are_never_grouped():
    metas = {m: MachineMeta(MachineId(m), f"M-{m}") for m in range(1, 31)}
    grouping = Grouping(metas.get, lambda: list(metas.values()))
    events = [raise_(finding(m)) for m in range(1, 31)]
    assert grouping.take(events, NOON + 3 * MINUTE) == events


def storm(machines):
    """An engine of `machines` machines with one temperature each, sampled a minute apart for two hours."""
    engine = Engine()
    engine.register(
        [MachineMeta(MachineId(m), f"M-{m}", site="north") for m in range(1, machines + 1)],
        [SensorMeta(SensorId(m), MachineId(m), "t", SignalKind.TEMPERATURE, "°C") for m in range(1, machines + 1)],
    )
    n = 120
    rows = np.zeros((n, machines), dtype=READING_DTYPE)
    rows["sensor_id"], rows["quality"] = np.arange(1, machines + 1), Quality.GOOD
    rows["ts"] = (NOON + np.arange(n) * MINUTE)[:, None]
    rows["value"] = 40 + np.random.default_rng(1).normal(0, 0.1, (n, machines))
    return engine, rows


def test_a_device_storm_through_the_engine_is_one_incident_and_every_finding_is_kept():
    engine, rows = storm(60)
    rows["quality"][90:] = Quality.BAD  # a gateway goes wild: every value of the site is bad at once
    events = []
    for k in range(0, 120, 10):
        events += engine.fold(rows[k : k + 10].ravel(), int(rows["ts"][k + 9].max()) + 1)
    assert len([e for e in events if e.change is Change.RAISED]) == 60
    assert len(incidents(events)) == 1


def test_a_site_that_runs_hot_at_once_is_one_incident_in_whatever_batches_it_comes():
    said = []
    for size in (3, 30):
        engine, rows = storm(40)
        rows["value"][90:] = 130.0
        events = []
        for k in range(0, 120, size):
            events += engine.fold(rows[k : k + size].ravel(), int(rows["ts"][k + size - 1].max()) + 1)
        said.append([(e.finding.key, is_member(e.finding)) for e in events if e.change is Change.RAISED])
        assert len(incidents(events)) == 1
    assert said[0] == said[1]


def test_what_is_held_when_the_data_end_is_handed_on_by_the_clock():
    engine, rows = storm(40)
    rows["quality"][90:, :2] = Quality.BAD
    events = []
    for row in rows[:93]:
        events += engine.fold(row, int(row["ts"].max()) + 1)
    assert [e.finding.machine_id for e in events if e.change is Change.RAISED] == [1]
    ended = int(rows["ts"][92].max())
    reached = engine.assessment.dump()[1]["reached_us"]
    assert engine.advance(ended + 9 * MINUTE) == []
    late = engine.advance(ended + 11 * MINUTE)
    assert [e.finding.machine_id for e in late if e.change is Change.RAISED] == [2]
    assert engine.advance(ended + 12 * MINUTE) == []
    assert engine.assessment.dump()[1]["reached_us"] == reached
