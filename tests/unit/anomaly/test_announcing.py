"""Which changes of findings are handed on: pure judgement, and how inhibitions cover time."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomaly.announcing import judge
from anomaly.finding import Change, Finding
from anomaly.inhibitions import Inhibition, covered, holder
from anomaly.store import Unannounced
from fettle.model import FaultFamily, FindingKind, MachineId, SensorId, Severity

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def at(hours):
    return EPOCH + timedelta(hours=hours)


def inhibition(starts, ends, *, number=1, sensor=None, family="", machine=1, ended=None):
    return Inhibition(
        number, machine, sensor, family, "shelved", at(starts), at(ends), "r", "x", at(0),
        None if ended is None else at(ended), "x" if ended is not None else "",
    )  # fmt: skip


def row(*, raised=10, cleared=None, announced=0, change=Change.RAISED, incident=None, sensors=(1,), **evidence):
    finding = Finding(
        key="k", machine_id=MachineId(1), fault_family=FaultFamily.BEARING, kind=FindingKind.MACHINE, severity=Severity.LOW,
        onset_us=0, raised_us=round(raised * 3.6e9), cleared_us=None if cleared is None else round(cleared * 3.6e9),
        detector="residual", block="SD", model_version="v", tier=2, mode="running", score=1.0, p_value=None, threshold=1.0,
        set_rate=0.01, sensor_ids=tuple(SensorId(s) for s in sensors), evidence={"incident": incident, "changed_us": 0, **evidence},
    )  # fmt: skip
    return Unannounced(1, finding, change, 2, announced, "", None)


def decided(found, held_under=(), *, now=12.0, is_watched=False):
    why, by, rests = judge(found, list(held_under), is_watched=is_watched, now=at(now))
    return why, None if by is None else by.id, rests


def test_what_nothing_holds_is_handed_on():
    assert decided(row()) == ("", None, False)
    assert decided(row(), [inhibition(9, 20, machine=2)]) == ("", None, False)


def test_it_waits_while_inhibited_and_goes_on_when_that_is_over():
    shelf = [inhibition(9, 13)]
    assert decided(row(), shelf) == ("inhibited", 1, False)
    assert decided(row(), shelf, now=13) == ("", None, False)
    assert decided(row(), [inhibition(9, 13, ended=11)]) == ("", None, False)


def test_what_came_and_went_meanwhile_rests_whenever_it_is_judged():
    gone = row(cleared=12, change=Change.CLEARED)
    for now in (12.5, 14, 400):
        assert decided(gone, [inhibition(9, 13)], now=now) == ("inhibited", 1, True)
    assert decided(gone, [inhibition(9, 11)], now=14) == ("", None, False)


def test_who_knows_of_it_is_told_that_it_is_over_and_nothing_else():
    shelf = [inhibition(9, 20)]
    assert decided(row(cleared=12, change=Change.CLEARED, announced=1), shelf) == ("", None, False)
    assert decided(row(change=Change.EVIDENCE, announced=1), shelf) == ("inhibited", 1, False)


def test_a_watched_rule_makes_no_ticket_but_goes_on_with_one_that_is_there():
    assert decided(row(), is_watched=True) == ("watch", None, True)
    assert decided(row(change=Change.EVIDENCE), is_watched=True) == ("watch", None, True)
    assert decided(row(change=Change.EVIDENCE, announced=1), is_watched=True) == ("", None, False)


@pytest.mark.parametrize("is_watched", [False, True])
def test_a_headline_stands_for_machines_that_nobody_holds(is_watched):
    note = {"role": "headline", "machine_count": 3}
    assert decided(row(incident=note), [inhibition(9, 20)], is_watched=is_watched) == ("", None, False)
    alone = {"role": "headline", "machine_count": 1}
    assert decided(row(incident=alone), [inhibition(9, 20)], is_watched=is_watched)[0] != ""
    member = {"role": "member", "machine_count": 3}
    assert decided(row(incident=member), [inhibition(9, 20)], is_watched=is_watched)[0] != ""


def test_a_silent_site_makes_its_ticket_although_its_first_machine_is_held():
    shelf = [inhibition(9, 20)]
    assert decided(row(scope="site", machines=["P-1", "P-2"]), shelf, is_watched=True) == ("", None, False)
    assert decided(row(scope="machine"), shelf)[0] == "inhibited"
    assert decided(row(scope="site", machines=["P-1"]), shelf)[0] == "inhibited"


def test_a_finding_of_two_sensors_is_held_when_both_are():
    one, other = inhibition(9, 20, number=1, sensor=1), inhibition(9, 15, number=2, sensor=2)
    assert decided(row(sensors=(1, 2)), [one]) == ("", None, False)
    assert decided(row(sensors=(1, 2)), [one, other]) == ("inhibited", 1, False)
    assert decided(row(sensors=(1, 2)), [one, other], now=16) == ("", None, False)


periods = st.lists(
    st.tuples(st.integers(0, 30), st.integers(1, 12), st.sampled_from([None, 1, 2]), st.sampled_from(["", "bearing", "overload"])),
    max_size=6,
)  # fmt: skip


@given(periods, st.integers(0, 30), st.integers(0, 12), st.sampled_from([(1,), (1, 2)]))
def test_cover_is_cover_at_every_instant(given_periods, since, lasts, sensors):
    every = [
        inhibition(start, start + length, number=n, sensor=sensor, family=family)
        for n, (start, length, sensor, family) in enumerate(given_periods)
    ]
    scope = {"family": "bearing", "sensor_ids": sensors}
    slowly = all(holder(every, **scope, at=at(since + k / 4)) for k in range(4 * lasts + 1))
    assert bool(covered(every, **scope, since=at(since), until=at(since + lasts))) is slowly
