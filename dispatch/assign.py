"""Soft terms: which of the eligible engineers is best placed. One function gives ranking and explanation.

score = sum(weight * term) / sum(weight), each term between 0 and 1, higher is better
ties: score, then fewer jobs, then the smaller id
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from dispatch.eligibility import judge
from dispatch.model import Candidate, Decision, Engineer, Job, Plan, Policy


def combine(terms: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """Return the weighted mean of the terms.

    The worked example of ServiceNow's dynamic scheduling, availability 5 of 8 hours and 2 of 5 parts:

    >>> round(combine({"availability": 5 / 8, "parts": 2 / 5}, {"availability": 20, "parts": 10}), 4)
    0.55
    """
    total = sum(weights.values())
    return sum(weight * terms[name] for name, weight in weights.items()) / total


def decide(job: Job, engineers: Iterable[Engineer], *, now: datetime, policy: Policy) -> Decision:
    """Return every candidate, eligible ones best first. The same input gives the same decision."""
    eligible: list[Candidate] = []
    excluded: list[Candidate] = []
    weights = policy.weights_for(job)
    for engineer in engineers:
        plan, exclusions = judge(engineer, job, now=now, policy=policy)
        if exclusions:
            excluded.append(Candidate(engineer, plan, exclusions))
        else:
            terms = weigh(engineer, job, plan, now=now, policy=policy)
            eligible.append(Candidate(engineer, plan, (), terms, combine(terms, weights)))
    eligible.sort(key=lambda c: (-(c.score or 0.0), c.engineer.active_jobs, c.engineer.id))
    excluded.sort(key=lambda c: c.engineer.id)
    return Decision(job, now, (*eligible, *excluded))


def weigh(engineer: Engineer, job: Job, plan: Plan, *, now: datetime, policy: Policy) -> dict[str, float]:
    """Return the soft terms of an eligible engineer."""
    waiting = plan.starts_at - now - plan.travel
    return {
        "travel": _falling(plan.travel, timedelta(minutes=policy.far_minutes)),
        "soon": _falling(waiting, timedelta(hours=policy.late_hours)),
        "load": 1.0 - engineer.active_jobs / engineer.job_cap,
        "skill": _skill_fit(engineer, job),
    }


def _falling(span: timedelta, worst: timedelta) -> float:
    """Return 1 for no time at all, 0 for `worst` and more."""
    return min(1.0, max(0.0, 1.0 - span / worst))


def _skill_fit(engineer: Engineer, job: Job) -> float:
    """Return 1 for exactly the level required, less for each level above: seniors are kept free for what needs them."""
    if not job.requirements:
        return 1.0
    spare = []
    for requirement in job.requirements:
        levels = [c.level for c in engineer.certificates if c.code == requirement.certificate_code]
        spare.append(min((lv - requirement.level for lv in levels if lv >= requirement.level), default=0))
    return 1.0 / (1.0 + sum(spare) / len(spare))
