"""Soft terms, ties, explanations and the policy."""

import random
from datetime import UTC, datetime, time, timedelta

import pytest

from dispatch.assign import combine, decide, weigh
from dispatch.explain import minimal_relaxations, next_chance, record_of, same_outcome, tell_choice, tell_nobody
from dispatch.model import Certificate, Engineer, Job, OffShift, Policy, Requirement, Shift
from dispatch.policy import BadPolicy, read_policy
from fettle.model import EngineerId, Priority, TicketId, TicketType

NOW = datetime(2026, 6, 3, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)


def engineer(number, **change):
    values = {
        "id": EngineerId(number), "code": f"e{number}", "name": f"E{number}", "latitude": 31.3, "longitude": 120.62,
        "time_zone": "UTC", "job_cap": 4, "active_jobs": 0,
    }  # fmt: skip
    return Engineer(**{**values, **change})


def job(**change):
    values = {
        "ticket_id": TicketId(1), "number": "T-1", "type": TicketType.POTENTIAL_FAULT, "priority": Priority.NORMAL,
        "region": "East", "latitude": 31.3, "longitude": 120.62,
    }  # fmt: skip
    return Job(**{**values, **change})


def ranking(people, what=None, policy=None):
    return [c.engineer.id for c in decide(what or job(), people, now=NOW, policy=policy or Policy()).ranked]


def test_the_published_example():
    # ServiceNow, dynamic scheduling: weights availability 20 and parts 10; maxima 8 h and 5 parts
    weights = {"availability": 20, "parts": 10}
    alice = combine({"availability": 5 / 8, "parts": 2 / 5}, weights)
    mack = combine({"availability": 8 / 8, "parts": 1 / 5}, weights)
    assert alice == pytest.approx(0.55, abs=5e-4)
    assert mack == pytest.approx(0.7333, abs=5e-4)
    assert mack > alice


def test_nearer_freer_sooner_and_just_skilled_enough_win():
    assert ranking([engineer(1, latitude=31.8), engineer(2)]) == [2, 1]
    assert ranking([engineer(1, active_jobs=2), engineer(2)]) == [2, 1]
    assert ranking([engineer(1, shifts=(Shift(4, time(8), 8.0),)), engineer(2)]) == [2, 1]
    needs = job(requirements=(Requirement("hv", 1),))
    levels = [Certificate("hv", level, NOW - HOUR) for level in (3, 2, 1)]
    people = [engineer(n, certificates=(held,)) for n, held in enumerate(levels, 1)]
    assert ranking(people, needs) == [3, 2, 1]


def test_ties_go_to_fewer_jobs_then_to_the_smaller_id():
    only_travel = Policy(weights={"travel": 1.0})
    assert ranking([engineer(3), engineer(1, active_jobs=1), engineer(2)], policy=only_travel) == [2, 3, 1]


def test_the_order_of_the_input_does_not_matter():
    people = [engineer(n, latitude=31.3 + n % 3 / 10, active_jobs=n % 4) for n in range(1, 30)]
    expected = ranking(people)
    for seed in range(20):
        shuffled = random.Random(seed).sample(people, len(people))
        assert ranking(shuffled) == expected


def test_terms_stay_between_zero_and_one():
    for who in (engineer(1, latitude=-50.0), engineer(1, active_jobs=3), engineer(1)):
        decision = decide(job(), [who], now=NOW, policy=Policy())
        plan = decision.candidates[0].plan
        assert all(0 <= term <= 1 for term in weigh(who, job(), plan, now=NOW, policy=Policy()).values())


def test_an_emergency_counts_the_way_not_the_load():
    people = [engineer(1, active_jobs=3), engineer(2, latitude=31.6)]
    assert ranking(people) == [2, 1]
    assert ranking(people, job(priority=Priority.EMERGENCY)) == [1, 2]


def test_the_record_names_every_candidate_and_reads_in_both_languages():
    needs = job(requirements=(Requirement("hv", 1),))
    good = Certificate("hv", 1, NOW - HOUR)
    people = [
        engineer(1, certificates=(good,)),
        engineer(2, certificates=(good,), active_jobs=2),
        engineer(3),
        engineer(4, active_jobs=4),
    ]
    decision = decide(needs, people, now=NOW, policy=Policy())
    record = record_of(decision, Policy())
    assert [(c["engineer_id"], c.get("excluded_by")) for c in record["candidates"]] == [
        (1, None), (2, None), (3, ["certificate_missing"]), (4, ["certificate_missing", "at_cap"]),
    ]  # fmt: skip
    assert (record["chosen"], record["runner_up"]) == (1, 2)
    assert record["margin"] == pytest.approx(0.25 * 0.5)
    for entry in record["candidates"][:2]:
        assert entry["score"] == pytest.approx(combine(entry["terms"], record["weights"]), abs=1e-6)
    assert record == record_of(decide(needs, people, now=NOW, policy=Policy()), Policy())
    words = tell_choice(decision)
    assert words.en == (
        "E1 scores 1.00: 0 km away, 0 min, 0/4 jobs, holds hv 1.\nNext best: E2, 0.88.\n"
        "2 not eligible: 2 without the certificate, 1 at the job limit."
    )
    assert words.zh == (
        "E1 得分 1.00：距离 0 公里，约 0 分钟，任务 0/4，持有 hv 1。\n次优：E2，0.88。\n2 人不符合条件：缺少证书 2 人，任务已满 1 人。"
    )


def test_when_nobody_may_go_the_nearest_are_named():
    needs = job(requirements=(Requirement("hv", 1),))
    expired = Certificate("hv", 1, NOW - HOUR * 99, NOW - HOUR)
    people = [
        engineer(1, active_jobs=4),
        engineer(2, certificates=(expired,)),
        engineer(3, certificates=(expired,), active_jobs=4),
    ]
    decision = decide(needs, people, now=NOW, policy=Policy())
    assert decision.chosen is None
    assert [r.candidate.engineer.id for r in minimal_relaxations(decision)] == [2]
    assert tell_nobody(decision).en == "Nobody is eligible. Nearest: E2: hv expires on 2026-06-03."
    assert tell_nobody(decision).zh == "没有符合条件的工程师。最接近的：E2：hv 证书于 2026-06-03 到期。"
    assert next_chance(decision) is None
    assert tell_nobody(decide(needs, [], now=NOW, policy=Policy())).en == "There are no engineers."


def test_the_next_chance_is_when_time_alone_helps():
    refuse = Policy(off_shift=OffShift.REFUSE)
    people = [
        engineer(1, shifts=(Shift(4, time(8), 8.0),)),
        engineer(2, shifts=(Shift(3, time(18), 8.0),)),
        engineer(3, active_jobs=4),
    ]
    decision = decide(job(), people, now=NOW, policy=refuse)
    assert next_chance(decision) == datetime(2026, 6, 3, 18, 0, tzinfo=UTC)
    assert [r.candidate.engineer.id for r in minimal_relaxations(decision)] == [2, 1, 3]


def test_the_same_outcome_is_recognised_and_another_is_not():
    people = [engineer(1, active_jobs=4)]
    decision = decide(job(), people, now=NOW, policy=Policy())
    record = record_of(decision, Policy())
    assert same_outcome(record, decide(job(), people, now=NOW + HOUR, policy=Policy()))
    assert not same_outcome(None, decision)
    assert not same_outcome(record, decide(job(), [engineer(1)], now=NOW, policy=Policy()))
    assert not same_outcome(record, decide(job(), [*people, engineer(2, active_jobs=4)], now=NOW, policy=Policy()))


def test_a_policy_changes_what_it_names_and_nothing_else():
    policy = read_policy(
        {"off_shift": "refuse", "offer_minutes": {"high": 3}, "most_failures": 5, "auto_types": ["repair"]}
    )
    assert (policy.off_shift, policy.most_failures, policy.auto_types) == (OffShift.REFUSE, 5, (TicketType.REPAIR,))
    assert policy.offer_minutes[Priority.HIGH] == 3
    assert policy.offer_minutes[Priority.LOW] == Policy().offer_minutes[Priority.LOW]
    assert read_policy({}) == Policy()


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"wieghts": {}}, "wieghts"),
        ({"weights": {}}, "weights"),
        ({"weights": {"beauty": 1}}, "weights.beauty"),
        ({"weights": {"travel": 0}}, "weights.travel"),
        ({"speed_km_h": -1}, "speed_km_h"),
        ({"speed_km_h": True}, "speed_km_h"),
        ({"speed_km_h": float("inf")}, "speed_km_h"),
        ({"off_shift": "sleep"}, "off_shift"),
        ({"region_is_hard": 1}, "region_is_hard"),
        ({"most_failures": 2.5}, "most_failures"),
        ({"offer_minutes": {"never": 1}}, "offer_minutes"),
        ({"job_minutes": []}, "job_minutes"),
        ({"auto_types": ["party"]}, "auto_types"),
    ],
)
def test_a_wrong_policy_names_the_key(given, key):
    with pytest.raises(BadPolicy) as refused:
        read_policy(given)
    assert refused.value.data["key"] == key
