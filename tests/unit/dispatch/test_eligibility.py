"""Hard rules: certificates over the whole job, shifts over midnight and clock changes, absences, cap, region, refusals."""

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatch.assign import decide
from dispatch.eligibility import distance_km, duty_windows, judge
from dispatch.model import (
    Absence,
    Certificate,
    Code,
    Engineer,
    Job,
    OffShift,
    Policy,
    Requirement,
    Shift,
)
from fettle.model import EngineerId, Priority, TicketId, TicketType

NOW = datetime(2026, 6, 3, 12, 0, tzinfo=UTC)  # a Wednesday
HOUR = timedelta(hours=1)
AROUND = tuple(Shift(day, time(0), 24.0) for day in range(1, 8))


def engineer(number=1, **change):
    values = {
        "id": EngineerId(number), "code": f"e{number}", "name": f"E{number}", "latitude": 31.3, "longitude": 120.62,
        "time_zone": "UTC", "job_cap": 3, "active_jobs": 0, "shifts": AROUND,
    }  # fmt: skip
    return Engineer(**{**values, **change})


def job(**change):
    values = {
        "ticket_id": TicketId(1), "number": "T-1", "type": TicketType.POTENTIAL_FAULT, "priority": Priority.NORMAL,
        "region": "East", "latitude": 31.3, "longitude": 120.62,
    }  # fmt: skip
    return Job(**{**values, **change})


def codes(who, what=None, policy=None, now=NOW):
    return [x.code for x in judge(who, what or job(), now=now, policy=policy or Policy())[1]]


def held(**change):
    values = {"code": "hv", "level": 2, "valid_from": NOW - HOUR, "valid_until": NOW + HOUR * 24}
    return Certificate(**{**values, **change})


@pytest.mark.parametrize(
    ("certificates", "expected"),
    [
        ((), [Code.CERTIFICATE_MISSING]),
        ((held(code="other"),), [Code.CERTIFICATE_MISSING]),
        ((held(level=1),), [Code.CERTIFICATE_LEVEL]),
        ((held(),), []),
        ((held(level=3),), []),
        ((held(valid_from=NOW),), []),
        ((held(valid_from=NOW + timedelta(seconds=1)),), [Code.CERTIFICATE_NOT_YET_VALID]),
        ((held(valid_until=NOW + HOUR),), []),  # the job takes one hour, the end is not part of either
        ((held(valid_until=NOW + HOUR - timedelta(seconds=1)),), [Code.CERTIFICATE_EXPIRED]),
        ((held(valid_until=None),), []),
        ((held(review_due_at=NOW + HOUR),), []),
        ((held(review_due_at=NOW + HOUR - timedelta(seconds=1)),), [Code.REVIEW_OVERDUE]),
        ((held(level=1), held(valid_until=NOW)), [Code.CERTIFICATE_EXPIRED]),  # the nearest miss is named
        ((held(valid_until=NOW), held()), []),
    ],
)
def test_a_certificate_must_hold_for_the_whole_job(certificates, expected):
    needs = job(requirements=(Requirement("hv", 2),))
    assert codes(engineer(certificates=certificates), needs) == expected


def test_each_of_several_requirements_counts():
    needs = job(requirements=(Requirement("hv", 2), Requirement("vibration", 1)))
    assert codes(engineer(certificates=(held(),)), needs) == [Code.CERTIFICATE_MISSING]


def test_a_night_shift_runs_past_midnight_in_the_engineers_zone():
    shanghai = ZoneInfo("Asia/Shanghai")
    who = engineer(time_zone="Asia/Shanghai", shifts=(Shift(3, time(22), 8.0),))  # Wednesday 22:00 to Thursday 06:00
    refuse = Policy(off_shift=OffShift.REFUSE)
    for hour, expected in [(21, [Code.OFF_SHIFT]), (22, []), (23, [])]:
        at = datetime(2026, 6, 3, hour, 0, tzinfo=shanghai).astimezone(UTC)
        assert codes(who, policy=refuse, now=at) == expected, hour
    for hour, expected in [(0, []), (5, []), (6, [Code.OFF_SHIFT])]:
        at = datetime(2026, 6, 4, hour, 0, tzinfo=shanghai).astimezone(UTC)
        assert codes(who, policy=refuse, now=at) == expected, hour
    late = datetime(2026, 6, 4, 5, 1, tzinfo=shanghai).astimezone(UTC)
    assert codes(who, policy=refuse, now=late) == [Code.OFF_SHIFT]  # it would end after the shift


def test_off_duty_means_the_next_shift_or_out_and_an_emergency_waits_for_nobody():
    who = engineer(shifts=(Shift(4, time(8), 8.0),))
    plan, exclusions = judge(who, job(), now=NOW, policy=Policy())
    assert (plan.starts_at, exclusions) == (datetime(2026, 6, 4, 8, 0, tzinfo=UTC), ())
    (out,) = judge(who, job(), now=NOW, policy=Policy(off_shift=OffShift.REFUSE))[1]
    assert (out.code, out.until) == (Code.OFF_SHIFT, datetime(2026, 6, 4, 8, 0, tzinfo=UTC))
    urgent = job(priority=Priority.EMERGENCY)
    assert judge(who, urgent, now=NOW, policy=Policy(off_shift=OffShift.REFUSE))[0].starts_at == NOW
    assert codes(who, urgent, Policy(off_shift=OffShift.REFUSE, emergencies_off_shift=False)) == [Code.OFF_SHIFT]


def test_a_certificate_is_judged_at_the_planned_time_not_now():
    who = engineer(shifts=(Shift(4, time(8), 8.0),), certificates=(held(valid_until=NOW + HOUR * 20),))
    needs = job(requirements=(Requirement("hv", 1),))
    assert codes(who, needs) == [Code.CERTIFICATE_EXPIRED]  # would begin tomorrow at 8, when 20 hours are over
    assert codes(engineer(certificates=who.certificates), needs) == []


def test_an_absence_delays_or_excludes():
    away = Absence(NOW - HOUR, NOW + HOUR * 5)
    assert judge(engineer(absences=(away,)), job(), now=NOW, policy=Policy())[0].starts_at == NOW + HOUR * 5
    (out,) = judge(engineer(absences=(away,)), job(), now=NOW, policy=Policy(off_shift=OffShift.REFUSE))[1]
    assert (out.code, out.until) == (Code.ABSENT, NOW + HOUR * 5)
    assert codes(engineer(absences=(Absence(NOW - HOUR, None),))) == [Code.ABSENT]
    assert codes(engineer(absences=(away,)), job(priority=Priority.EMERGENCY)) == [Code.ABSENT]


def test_cap_region_and_refusals():
    assert codes(engineer(active_jobs=3)) == [Code.AT_CAP]
    hard = Policy(region_is_hard=True)
    assert codes(engineer(regions=("West",)), policy=hard) == [Code.REGION]
    assert codes(engineer(regions=("West",))) == []
    assert codes(engineer(regions=()), policy=hard) == []
    assert codes(engineer(), job(refused_by=frozenset({EngineerId(1)}))) == [Code.REFUSED]


def test_every_rule_that_fails_is_reported():
    who = engineer(active_jobs=3, regions=("West",))
    needs = job(requirements=(Requirement("hv"),), refused_by=frozenset({EngineerId(1)}))
    assert set(codes(who, needs, Policy(region_is_hard=True))) == {
        Code.AT_CAP,
        Code.REGION,
        Code.CERTIFICATE_MISSING,
        Code.REFUSED,
    }


def test_the_clock_change_shortens_no_shift():
    # Berlin, 29 March 2026: 02:00 becomes 03:00. A shift of 8 h from 22:00 ends at 07:00 by the wall clock.
    berlin = ZoneInfo("Europe/Berlin")
    who = engineer(time_zone="Europe/Berlin", shifts=(Shift(6, time(22), 8.0),))
    begins = datetime(2026, 3, 28, 12, 0, tzinfo=UTC)
    ((lo, hi),) = duty_windows(who, begins_at=begins, ends_at=begins + HOUR * 36)
    assert hi - lo == HOUR * 8
    assert hi.astimezone(berlin).hour == 7


def test_an_engineer_without_a_calendar_is_always_on_duty():
    assert judge(engineer(shifts=()), job(), now=NOW, policy=Policy(off_shift=OffShift.REFUSE))[1] == ()


def test_travel_is_the_haversine_distance_with_a_detour():
    # Suzhou to Wuhan, checked against the spherical law of cosines by hand
    assert distance_km(31.3, 120.62, 30.59, 114.31) == pytest.approx(607.5, abs=2)
    assert distance_km(10, 20, 10, 20) == 0
    plan, _ = judge(
        engineer(latitude=30.59, longitude=114.31), job(), now=NOW, policy=Policy(speed_km_h=60, detour=1.5)
    )
    assert plan.travel_km == pytest.approx(911, abs=3)
    assert plan.travel == pytest.approx(timedelta(hours=911 / 60), abs=timedelta(minutes=3))
    assert plan.starts_at == NOW + plan.travel


instants = st.integers(-100, 200).map(lambda h: NOW + HOUR * h)
certificates = st.builds(
    Certificate, code=st.sampled_from(["hv", "lv", "vib"]), level=st.integers(0, 3), valid_from=instants,
    valid_until=st.none() | instants, review_due_at=st.none() | instants,
)  # fmt: skip
shift_lists = st.lists(
    st.builds(Shift, weekday=st.integers(1, 7), starts_at=st.integers(0, 23).map(time), hours=st.sampled_from([4.0, 8.0, 12.0, 24.0])), max_size=6
).map(tuple)  # fmt: skip
engineers = st.builds(
    engineer,
    number=st.integers(1, 50), certificates=st.lists(certificates, max_size=4).map(tuple), shifts=shift_lists,
    time_zone=st.sampled_from(["UTC", "Asia/Shanghai", "America/New_York", "Europe/Berlin"]),
    latitude=st.floats(-60, 60), longitude=st.floats(-170, 170), job_cap=st.integers(1, 4), active_jobs=st.integers(0, 4),
    absences=st.lists(st.builds(Absence, begins_at=instants, ends_at=st.none() | instants), max_size=2).map(
        lambda found: tuple(a for a in found if a.ends_at is None or a.ends_at > a.begins_at)
    ),
).filter(lambda e: e.active_jobs <= e.job_cap)  # fmt: skip
jobs = st.builds(
    job,
    requirements=st.lists(st.builds(Requirement, certificate_code=st.sampled_from(["hv", "lv"]), level=st.integers(0, 3)), max_size=2).map(tuple),
    priority=st.sampled_from(list(Priority)), refused_by=st.frozensets(st.integers(1, 50).map(EngineerId), max_size=5),
)  # fmt: skip


def _on_duty(who, at):
    """A slow second opinion: walk the shifts of the days around an instant."""
    if not who.shifts:
        return True
    zone = ZoneInfo(who.time_zone)
    for back in range(3):
        day = (at.astimezone(zone) - timedelta(days=back)).date()
        for shift in who.shifts:
            if shift.weekday == day.isoweekday():
                begins = datetime.combine(day, shift.starts_at, tzinfo=zone).astimezone(UTC)
                if begins <= at < begins + timedelta(hours=shift.hours):
                    return True
    return False


@given(st.lists(engineers, max_size=6, unique_by=lambda e: e.id), jobs, st.sampled_from(list(OffShift)))
def test_whoever_is_chosen_breaks_no_hard_rule(people, what, off_shift):
    decision = decide(what, people, now=NOW, policy=Policy(off_shift=off_shift, horizon_hours=200))
    assert len(decision.candidates) == len(people)
    for candidate in decision.ranked:
        who, plan = candidate.engineer, candidate.plan
        for need in what.requirements:
            assert any(
                c.code == need.certificate_code
                and c.level >= need.level
                and c.valid_from <= plan.starts_at
                and (c.valid_until is None or plan.ends_at <= c.valid_until)
                and (c.review_due_at is None or plan.ends_at <= c.review_due_at)
                for c in who.certificates
            )
        assert who.active_jobs < who.job_cap
        assert who.id not in what.refused_by
        assert plan.starts_at >= NOW + plan.travel
        for minutes in (0, 1, 30, 59):
            at = plan.starts_at + timedelta(minutes=minutes)
            assert what.is_emergency or _on_duty(who, at)
            assert not any(a.begins_at <= at and (a.ends_at is None or at < a.ends_at) for a in who.absences)
    for candidate in decision.candidates:
        assert candidate.is_eligible or candidate.excluded_by
