"""Which stored changes of findings are handed on, which wait, and which rest for good (ISA-18.2: suppressed or shelved).

stored change ─▶ rule demoted?      rests: watched only
              ─▶ inhibited now?     waits until the inhibition ends
              ─▶ inhibited from raised to cleared?   rests
              ─▶ handed on, with the precision of its rule
"""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime

from anomaly import inhibitions, store
from anomaly.feedback import RuleRecord
from anomaly.finding import Change, Finding
from anomaly.inhibitions import Inhibition
from anomaly.store import Announcement, Unannounced, to_instant
from fettle.db import AsyncConn, Pool, load_queries, transaction

INHIBITED, WATCH = "inhibited", "watch"

Rules = Mapping[tuple[str, str, str], RuleRecord]
"""(fault family, detector, class of machines) -> how often it was right."""


def judge(
    row: Unannounced, held_under: Collection[Inhibition], *, is_watched: bool, now: datetime
) -> tuple[str, Inhibition | None, bool]:
    """Return why a change is not handed on ('' if it is), the inhibition that holds it, and whether it rests for good."""
    finding = row.finding
    if row.announced and row.change is Change.CLEARED:
        return "", None, False  # whoever knows of it is told that it is over
    if _stands_for_others(finding):
        return "", None, False  # nobody keeps the others from making their one ticket
    if is_watched and not row.announced:
        return WATCH, None, True
    mine = [i for i in held_under if i.machine_id == int(finding.machine_id)]
    if not mine:
        return "", None, False
    family, sensor_ids = finding.fault_family.value, [int(s) for s in finding.sensor_ids]
    raised_at = to_instant(finding.raised_us)
    over_at = None if finding.cleared_us is None else to_instant(finding.cleared_us)
    if not row.announced and over_at is not None:
        by = inhibitions.covered(mine, family=family, sensor_ids=sensor_ids, since=raised_at, until=over_at)
        if by is not None:
            return INHIBITED, by, True
    by = inhibitions.holder(mine, family=family, sensor_ids=sensor_ids, at=now)
    return ("", None, False) if by is None else (INHIBITED, by, False)


def _stands_for_others(finding: Finding) -> bool:
    """Say whether a finding stands for several machines, which make no tickets of their own: a headline, or a silent site."""
    if finding.evidence.get("scope") == "site" and len(finding.evidence.get("machines") or ()) > 1:
        return True
    incident = finding.evidence.get("incident")
    if not isinstance(incident, Mapping) or incident.get("role") != "headline":
        return False
    return int(incident.get("machine_count") or 0) > 1


async def take_due(
    pool: Pool,
    *,
    tenant_ids: Iterable[int],
    machine_ids: Collection[int],
    rules: Mapping[int, Rules],
    classes: Mapping[int, str],
    now: datetime,
) -> list[Announcement]:
    """Return what is to be handed on of some machines, in order, and note why the rest is not.

    Args:
        pool: connections under `DatabaseRole.WORKER`.
        tenant_ids: whose findings.
        machine_ids: the machines of this process.
        rules: tenant -> what is known of its rules.
        classes: machine -> its class.
        now: decides what is inhibited.
    """
    due: list[Announcement] = []
    for tenant_id in sorted(set(tenant_ids)):
        async with transaction(pool, tenant_id=tenant_id) as conn:
            rows = [
                r
                for r in await store.list_unannounced(conn, tenant_id=tenant_id)
                if int(r.finding.machine_id) in machine_ids
            ]
            if not rows:
                continue
            held_under = await inhibitions.list_inhibitions(
                conn,
                tenant_id=tenant_id,
                machine_ids={int(r.finding.machine_id) for r in rows},
                since=min(to_instant(r.finding.raised_us) for r in rows),
            )
            for row in rows:
                record = rules.get(tenant_id, {}).get(rule_of(row.finding, classes))
                why, by, rests = judge(row, held_under, is_watched=record is not None and record.is_watch, now=now)
                await _note(conn, tenant_id, row, why=why, by=by, rests=rests, now=now)
                if not why:
                    due.extend(row.announcements(tenant_id))
    return due


def rule_of(finding: Finding, classes: Mapping[int, str]) -> tuple[str, str, str]:
    """Return the name of the rule that raised a finding."""
    return finding.fault_family.value, finding.detector, classes.get(int(finding.machine_id), "")


async def _note(
    conn: AsyncConn, tenant_id: int, row: Unannounced, *, why: str, by: Inhibition | None, rests: bool, now: datetime
) -> None:
    queries = load_queries("anomaly")
    if rests:
        await conn.execute(queries.settle_finding, {"tenant_id": tenant_id, "id": row.id, "revision": row.revision})
    if why == row.held and (by is None or by.id == row.held_by):
        return
    parameters = {"tenant_id": tenant_id, "id": row.id, "held": why, "held_by": by.id if by else None}
    await conn.execute(queries.hold_finding, parameters)
    await inhibitions.note(
        conn,
        tenant_id=tenant_id,
        machine_id=int(row.finding.machine_id),
        at=now,
        actor="fettle-detect",
        kind="held" if why else "released",
        reason=by.reason if by else "",
        detail={
            "finding": row.id,
            "key": row.finding.key,
            "why": why or row.held,
            **({"inhibition": by.id} if by else {}),
        },
    )
