"""Many findings of one incident make one ticket; one that stays when the rest is over gets its own."""

from anomaly.api import Announcement, Change, Finding, FindingEvent
from fettle.model import FaultFamily, FindingKind, MachineId, SensorId, Severity
from fettle.wiring import ticket_opener

NOON_US = 1_780_488_000_000_000


def announced(company, machine, *, incident, change=Change.RAISED, revision=1):
    finding = Finding(
        key=f"{machine}-no_load", machine_id=MachineId(company.ids[machine]), fault_family=FaultFamily.NO_LOAD,
        kind=FindingKind.MACHINE, severity=Severity.LOW, onset_us=NOON_US, raised_us=NOON_US, cleared_us=None, detector="excess",
        block="SD", model_version="v", tier=2, mode="running", score=1.0, p_value=None, threshold=1.0, set_rate=0.01,
        sensor_ids=(SensorId(1),), evidence={"machine": machine, "contributions": [], "incident": incident},
    )  # fmt: skip
    return Announcement(company.tenant_id, 1, revision, FindingEvent(change, finding, NOON_US + revision))


async def tickets(company):
    async with company.api() as conn:
        cursor = await conn.execute("SELECT machine_id FROM ticket ORDER BY id")
        return [row[0] for row in await cursor.fetchall()]


async def test_members_of_an_incident_open_no_ticket_until_they_stand_alone(company):
    acme = await company("acme")
    hand_on = ticket_opener(acme.workers)
    await hand_on(announced(acme, "press", incident={"role": "headline", "findings": 2}))
    member = {"role": "member", "headline": "press-no_load"}
    await hand_on(announced(acme, "cabinet", incident=member))
    assert await tickets(acme) == [acme.ids["press"]]
    await hand_on(announced(acme, "cabinet", incident=None, change=Change.EVIDENCE, revision=2))
    assert await tickets(acme) == [acme.ids["press"], acme.ids["cabinet"]]
