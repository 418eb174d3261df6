"""Say why: the record that is kept of a decision, its sentences, and what would have to change when nobody may go."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dispatch.model import Candidate, Code, Decision, Policy
from fettle.words import Words

SOLVER = "argmax/1"
_MOST = 5  # relaxations worth reading

_CODES: Mapping[Code, Words] = {
    Code.CERTIFICATE_MISSING: Words("without the certificate", "缺少证书"),
    Code.CERTIFICATE_LEVEL: Words("certificate level too low", "证书等级不足"),
    Code.CERTIFICATE_NOT_YET_VALID: Words("certificate not valid yet", "证书尚未生效"),
    Code.CERTIFICATE_EXPIRED: Words("certificate expired", "证书过期"),
    Code.REVIEW_OVERDUE: Words("certificate review overdue", "证书复审逾期"),
    Code.OFF_SHIFT: Words("off duty", "不在班"),
    Code.ABSENT: Words("away", "不在岗"),
    Code.REGION: Words("other region", "不在服务区域"),
    Code.AT_CAP: Words("at the job limit", "任务已满"),
    Code.REFUSED: Words("refused or let the offer expire", "已拒绝或超时"),
}


@dataclass(frozen=True, slots=True)
class Relaxation:
    """An engineer who could go if exactly these rules did not hold; nobody lacks less."""

    candidate: Candidate

    @property
    def words(self) -> Words:
        name = self.candidate.engineer.name
        return Words(
            f"{name}: {'; '.join(x.words.en for x in self.candidate.excluded_by)}",
            f"{name}：{'；'.join(x.words.zh for x in self.candidate.excluded_by)}",
        )


def minimal_relaxations(decision: Decision) -> tuple[Relaxation, ...]:
    """Return the engineers who fail the fewest rules, those who will be free soonest first."""
    excluded = [c for c in decision.candidates if not c.is_eligible]
    if not excluded:
        return ()
    fewest = min(len(c.excluded_by) for c in excluded)
    nearest = [c for c in excluded if len(c.excluded_by) == fewest]
    nearest.sort(key=lambda c: (_free_at(c) is None, _free_at(c) or decision.at, c.engineer.id))
    return tuple(Relaxation(c) for c in nearest[:_MOST])


def next_chance(decision: Decision) -> datetime | None:
    """Return the earliest moment at which time alone makes somebody eligible."""
    moments = [at for c in decision.candidates if not c.is_eligible and (at := _free_at(c)) is not None]
    return min(moments, default=None)


def _free_at(candidate: Candidate) -> datetime | None:
    moments = [x.until for x in candidate.excluded_by]
    known = [at for at in moments if at is not None]
    return max(known) if known and len(known) == len(moments) else None


def tell_choice(decision: Decision) -> Words:
    """Return why the chosen engineer was chosen, one sentence a line."""
    chosen = decision.chosen
    assert chosen is not None
    engineer, plan = chosen.engineer, chosen.plan
    minutes = round(plan.travel.total_seconds() / 60)
    way = Words("place unknown", "位置未知")
    if plan.travel_km is not None:
        way = Words(
            f"{plan.travel_km:.0f} km away, {minutes} min", f"距离 {plan.travel_km:.0f} 公里，约 {minutes} 分钟"
        )
    load = f"{engineer.active_jobs}/{engineer.job_cap}"
    needs = ", ".join(f"{r.certificate_code} {r.level}" for r in decision.job.requirements)
    en = [f"{engineer.name} scores {chosen.score:.2f}: {way.en}, {load} jobs" + (f", holds {needs}." if needs else ".")]
    zh = [f"{engineer.name} 得分 {chosen.score:.2f}：{way.zh}，任务 {load}" + (f"，持有 {needs}。" if needs else "。")]
    if decision.runner_up is not None:
        other = decision.runner_up
        en.append(f"Next best: {other.engineer.name}, {other.score:.2f}.")
        zh.append(f"次优：{other.engineer.name}，{other.score:.2f}。")
    counts = Counter(x.code for c in decision.candidates for x in c.excluded_by)
    if counts:
        ruled_out = sum(not c.is_eligible for c in decision.candidates)
        parts = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        en.append(f"{ruled_out} not eligible: {', '.join(f'{n} {_CODES[code].en}' for code, n in parts)}.")
        zh.append(f"{ruled_out} 人不符合条件：{'，'.join(f'{_CODES[code].zh} {n} 人' for code, n in parts)}。")
    return Words("\n".join(en), "\n".join(zh))


def tell_nobody(decision: Decision) -> Words:
    """Return why nobody may go, and who comes nearest."""
    nearest = minimal_relaxations(decision)
    if not nearest:
        return Words("There are no engineers.", "没有任何工程师。")
    return Words(
        "Nobody is eligible. Nearest: " + " | ".join(r.words.en for r in nearest) + ".",
        "没有符合条件的工程师。最接近的：" + " | ".join(r.words.zh for r in nearest) + "。",
    )


def record_of(decision: Decision, policy: Policy) -> dict[str, Any]:
    """Return the decision as JSON: every candidate with what excluded it, or its terms and score."""
    job, chosen = decision.job, decision.chosen
    candidates = [_entry_of(c) for c in decision.candidates]
    body: dict[str, Any] = {
        "solver": SOLVER,
        "at": decision.at.isoformat(),
        "job": {
            "ticket_id": job.ticket_id,
            "type": job.type.value,
            "priority": job.priority.value,
            "region": job.region,
            "requirements": [{"certificate_code": r.certificate_code, "level": r.level} for r in job.requirements],
            "refused_by": sorted(job.refused_by),
        },
        "weights": dict(policy.weights_for(job)),
        "candidates": candidates,
        "chosen": None if chosen is None else chosen.engineer.id,
        "runner_up": None if decision.runner_up is None else decision.runner_up.engineer.id,
        "margin": decision.margin,
        "relaxations": [
            {"engineer_id": r.candidate.engineer.id, "codes": [x.code.value for x in r.candidate.excluded_by], "en": r.words.en, "zh": r.words.zh}
            for r in (() if chosen else minimal_relaxations(decision))
        ],
    }  # fmt: skip
    return body


def _entry_of(candidate: Candidate) -> dict[str, Any]:
    """Return one candidate as JSON, small: a decision may have a thousand of them."""
    engineer, plan = candidate.engineer, candidate.plan
    if candidate.excluded_by:
        return {
            "engineer_id": engineer.id,
            "code": engineer.code,
            "excluded_by": [x.code.value for x in candidate.excluded_by],
        }
    return {
        "engineer_id": engineer.id,
        "code": engineer.code,
        "active_jobs": engineer.active_jobs,
        "starts_at": plan.starts_at.isoformat(),
        "travel_km": None if plan.travel_km is None else round(plan.travel_km, 1),
        "terms": {name: round(term, 6) for name, term in candidate.terms.items()},
        "score": round(candidate.score or 0.0, 6),
    }


def same_outcome(record: Mapping[str, Any] | None, decision: Decision) -> bool:
    """Say whether an earlier record found nobody for the same reasons."""
    if record is None or decision.chosen is not None or record.get("chosen") is not None:
        return False
    before = {c["engineer_id"]: c.get("excluded_by") for c in record["candidates"]}
    return before == {c.engineer.id: [x.code.value for x in c.excluded_by] for c in decision.candidates}
