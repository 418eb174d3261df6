"""Hard rules: who may do a job at all, and when he or she would do it.

Every rule that an engineer fails is reported, not only the first: together they say what would have to change.

    now ---travel---> earliest start
    shifts minus absences:   |======|        |==========|
    the job fits here:               .........[job]
"""

import math
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from dispatch.model import (
    Absence,
    Certificate,
    Code,
    Engineer,
    Exclusion,
    Job,
    OffShift,
    Plan,
    Policy,
    Requirement,
    Shift,
)
from fettle.words import Words

_EARTH_KM = 6371.0088  # mean radius
Window = tuple[datetime, datetime]


def distance_km(latitude_a: float, longitude_a: float, latitude_b: float, longitude_b: float) -> float:
    """Return the great-circle distance by the haversine formula.

    >>> round(distance_km(31.30, 120.62, 30.59, 114.31))
    607
    """
    phi_a, phi_b = math.radians(latitude_a), math.radians(latitude_b)
    half = (
        math.sin((phi_b - phi_a) / 2) ** 2
        + math.cos(phi_a) * math.cos(phi_b) * math.sin(math.radians(longitude_b - longitude_a) / 2) ** 2
    )
    return 2 * _EARTH_KM * math.asin(min(1.0, math.sqrt(half)))


def judge(engineer: Engineer, job: Job, *, now: datetime, policy: Policy) -> tuple[Plan, tuple[Exclusion, ...]]:
    """Return when the engineer would do the job, and every rule that forbids it.

    The plan of somebody who cannot be planned is the earliest moment of arrival: the exclusions refer to it.
    """
    km, travel = travel_to(engineer, job, policy)
    earliest, length = now + travel, policy.job_length(job)
    exclusions: list[Exclusion] = []
    starts_at, on_duty = _plan_start(engineer, job, earliest=earliest, length=length, policy=policy)
    if on_duty is not None:
        exclusions.append(on_duty)
    plan = Plan(starts_at, starts_at + length, km, travel)
    exclusions += check_certificates(engineer.certificates, job.requirements, plan=plan)
    if policy.region_is_hard and engineer.regions and job.region not in engineer.regions:
        exclusions.append(Exclusion(Code.REGION, Words(f"does not serve {job.region}", f"不服务区域 {job.region}")))
    if engineer.active_jobs >= engineer.job_cap:
        load = f"{engineer.active_jobs}/{engineer.job_cap}"
        exclusions.append(Exclusion(Code.AT_CAP, Words(f"has {load} jobs", f"已有 {load} 个任务")))
    if engineer.id in job.refused_by:
        exclusions.append(
            Exclusion(Code.REFUSED, Words("refused this ticket or let it expire", "已拒绝本工单或超时未接"))
        )
    return plan, tuple(exclusions)


def travel_to(engineer: Engineer, job: Job, policy: Policy) -> tuple[float | None, timedelta]:
    """Return road kilometres and travel time to the job; unknown places are no distance away."""
    if job.latitude is None or job.longitude is None:
        return None, timedelta(0)
    km = policy.detour * distance_km(engineer.latitude, engineer.longitude, job.latitude, job.longitude)
    return km, timedelta(hours=km / policy.speed_km_h)


def check_certificates(
    held: Iterable[Certificate], required: Iterable[Requirement], *, plan: Plan
) -> Iterator[Exclusion]:
    """Yield one exclusion for each requirement that no certificate meets for the whole of the job."""
    by_code: dict[str, list[Certificate]] = {}
    for certificate in held:
        by_code.setdefault(certificate.code, []).append(certificate)
    for requirement in required:
        found = [_certificate_fault(c, requirement, plan) for c in by_code.get(requirement.certificate_code, [])]
        if None in found:
            continue
        faults = [fault for fault in found if fault is not None]
        name = f"{requirement.certificate_code} {requirement.level}"
        yield (
            min(faults, key=lambda fault: _NEARNESS.index(fault.code))
            if faults
            else Exclusion(Code.CERTIFICATE_MISSING, Words(f"does not hold {name}", f"未持有证书 {name}"))
        )


# Of several certificates that fail, the one that comes nearest is named.
_NEARNESS = [
    Code.REVIEW_OVERDUE,
    Code.CERTIFICATE_NOT_YET_VALID,
    Code.CERTIFICATE_EXPIRED,
    Code.CERTIFICATE_LEVEL,
    Code.CERTIFICATE_MISSING,
]


def _certificate_fault(held: Certificate, required: Requirement, plan: Plan) -> Exclusion | None:
    name = held.code
    if held.level < required.level:
        return Exclusion(
            Code.CERTIFICATE_LEVEL,
            Words(
                f"holds {name} at level {held.level}, {required.level} is required",
                f"{name} 证书等级为 {held.level}，要求 {required.level}",
            ),
        )
    if plan.starts_at < held.valid_from:
        day = held.valid_from.date().isoformat()
        words = Words(f"{name} is valid only from {day}", f"{name} 证书自 {day} 起生效")
        return Exclusion(Code.CERTIFICATE_NOT_YET_VALID, words, held.valid_from)
    if held.valid_until is not None and plan.ends_at > held.valid_until:
        day = held.valid_until.date().isoformat()
        return Exclusion(Code.CERTIFICATE_EXPIRED, Words(f"{name} expires on {day}", f"{name} 证书于 {day} 到期"))
    if held.review_due_at is not None and plan.ends_at > held.review_due_at:
        day = held.review_due_at.date().isoformat()
        return Exclusion(
            Code.REVIEW_OVERDUE, Words(f"{name} was due for review on {day}", f"{name} 证书应于 {day} 复审")
        )
    return None


def _plan_start(
    engineer: Engineer, job: Job, *, earliest: datetime, length: timedelta, policy: Policy
) -> tuple[datetime, Exclusion | None]:
    """Return when the job can begin, with the reason why it cannot if it cannot."""
    until = _absent_until(engineer.absences, earliest, earliest + length)
    if job.is_emergency and policy.emergencies_off_shift:
        return earliest, until
    horizon = earliest + timedelta(hours=policy.horizon_hours)
    windows = duty_windows(engineer, begins_at=earliest, ends_at=horizon)
    start = next((max(lo, earliest) for lo, hi in windows if max(lo, earliest) + length <= hi), None)
    if start == earliest or (start is not None and policy.off_shift is OffShift.NEXT_SHIFT):
        return start, None
    if until is not None:
        return earliest, until
    words = Words("is off duty", "不在班")
    if start is not None:
        at = start.astimezone(_zone(engineer.time_zone)).strftime("%Y-%m-%d %H:%M")
        words = Words(f"is off duty until {at} local time", f"不在班，当地时间 {at} 上班")
    return earliest, Exclusion(Code.OFF_SHIFT, words, start)


def _absent_until(absences: Iterable[Absence], begins_at: datetime, ends_at: datetime) -> Exclusion | None:
    for absence in absences:
        if absence.begins_at < ends_at and (absence.ends_at is None or absence.ends_at > begins_at):
            if absence.ends_at is None:
                return Exclusion(Code.ABSENT, Words("is away", "不在岗"))
            day = absence.ends_at.date().isoformat()
            return Exclusion(Code.ABSENT, Words(f"is away until {day}", f"{day} 前不在岗"), absence.ends_at)
    return None


def duty_windows(engineer: Engineer, *, begins_at: datetime, ends_at: datetime) -> list[Window]:
    """Return when an engineer is on duty within a period: shifts joined where they touch, absences taken out."""
    windows = [(begins_at, ends_at)]
    if engineer.shifts:
        # two days back: yesterday's shift may run past midnight, and no zone is a whole day from UTC
        first, last = begins_at.toordinal() - 2, ends_at.toordinal() + 1
        calendar = _calendar(engineer.shifts, engineer.time_zone, first, last)
        windows = [(lo, hi) for lo, hi in calendar if hi > begins_at and lo < ends_at]
    for absence in engineer.absences:
        windows = [piece for window in windows for piece in _without(window, absence)]
    return windows


@lru_cache(maxsize=4096)
def _calendar(shifts: tuple[Shift, ...], time_zone: str, first: int, last: int) -> tuple[Window, ...]:
    """Return the shifts of the days with ordinals `first` to `last`, in UTC, joined where they touch; engineers share them."""
    zone = _zone(time_zone)
    windows: list[Window] = []
    for ordinal in range(first, last + 1):
        day = date.fromordinal(ordinal)
        for shift in shifts:
            if shift.weekday == day.isoweekday():
                # the wall clock says when it begins; it then lasts real hours, whatever the clock does
                starts_at = datetime.combine(day, shift.starts_at, tzinfo=zone).astimezone(UTC)
                windows.append((starts_at, starts_at + timedelta(hours=shift.hours)))
    joined: list[Window] = []
    for lo, hi in sorted(windows):
        if joined and lo <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(hi, joined[-1][1]))
        else:
            joined.append((lo, hi))
    return tuple(joined)


def _without(window: Window, absence: Absence) -> Iterator[Window]:
    lo, hi = window
    if absence.begins_at >= hi or (absence.ends_at is not None and absence.ends_at <= lo):
        yield window
        return
    if lo < absence.begins_at:
        yield lo, absence.begins_at
    if absence.ends_at is not None and absence.ends_at < hi:
        yield absence.ends_at, hi


@lru_cache(maxsize=512)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)
