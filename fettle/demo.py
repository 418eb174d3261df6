"""The demonstration: a company with two simulated plants, on embedded parts, some of its machines about to fail.

first run    plan (when the scenario began) -> company -> eight days of history in bulk -> live over MQTT
later runs   the same plan -> what was missed since -> live over MQTT
"""

import asyncio
import json
import shutil
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path

import numpy as np

from fettle.company import Company, Customer, Line, Machine, read_company
from fettle.db import DatabaseRole, connect_sync, describe
from fettle.errors import FettleError
from fettle.settings import Settings
from fettle.wiring import load_company
from ingest.api import bulk_writer
from simulators.api import SIGNAL_UNITS, Fleet, Scenario, load_scenario

SCENARIO = "demo"
PASSWORD = "fettle-demo"  # noqa: S105 -- the demonstration's, and only there
_STRETCH_US = 6 * 3_600_000_000  # six hours at a time, so that memory stays small


class NotADemonstration(FettleError):
    """The database at {where} has accounts or machines that no demonstration made. The demonstration, whose passwords everybody knows, stays out of it: give another FETTLE_DATA_DIR, and no FETTLE_DATABASE_URL."""


@dataclass(frozen=True)
class Plan:
    """What a demonstration keeps between runs."""

    began_us: int  # start of the simulated history
    password: str
    faulty_machines: tuple[str, ...]
    is_seeded: bool  # the company is in the database

    @property
    def began_at(self) -> datetime:
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=self.began_us)


def _path(settings: Settings) -> Path:
    return settings.data_dir / "demo.json"


def read_plan(settings: Settings) -> Plan | None:
    """Return the plan of this data folder, or None where no demonstration has begun."""
    try:
        body = json.loads(_path(settings).read_text(encoding="utf-8"))
        return Plan(
            int(body["began_us"]), str(body["password"]), tuple(body["faulty_machines"]), bool(body.get("is_seeded"))
        )
    except (FileNotFoundError, ValueError, KeyError):
        return None


def _write_plan(settings: Settings, plan: Plan) -> None:
    fresh = _path(settings).with_suffix(".new")
    fresh.write_text(json.dumps(asdict(plan)), encoding="utf-8")
    fresh.replace(_path(settings))


def make_plan(*, now_us: int) -> Plan:
    """Return the plan of a demonstration whose history ends now."""
    scenario = load_scenario(SCENARIO)
    began_us = now_us - scenario.duration_us
    began_us -= began_us % scenario.period_us
    fleet = Fleet(scenario)
    faulty = sorted({fault.machine for machine in fleet.machines for fault in fleet.faults_of(machine)})
    return Plan(began_us, PASSWORD, tuple(faulty), is_seeded=False)


def forget(settings: Settings) -> None:
    """Remove a former demonstration's data; what is not a demonstration's stays. The caller holds the folder."""
    if not _path(settings).exists():
        return
    for entry in settings.data_dir.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name not in {"lock", _path(settings).name}:
            entry.unlink()
    _path(settings).unlink()  # last, so that an interrupted removal can be repeated


def demo_company(scenario: Scenario) -> Company:
    """Return the people of the demonstration together with the machines of its scenario."""
    people = read_company(Path(str(resources.files("fettle") / "demo_company.toml")))
    places = {site.code: site for site in people.sites}
    ratings = {(m.site, m.number): m.rated_current_a for m in Fleet(scenario).machines}
    customers: dict[str, Customer] = dict(zip(places, people.customers, strict=True))
    sites = [
        places[plant.name].model_copy(
            update={
                "lines": tuple(
                    Line(
                        code=line.name,
                        name=f"{line.title} {line.title_zh}",
                        machine=tuple(
                            Machine.model_validate(
                                {
                                    "number": m.number,
                                    "name": f"{m.title} {m.title_zh}",
                                    "class": m.kind.name,
                                    "customer": customers[plant.name].code,
                                    "rated_current_a": ratings[plant.name, m.number],
                                }
                            )
                            for m in line.machines
                        ),
                    )
                    for line in plant.lines
                )
            }
        )
        for plant in scenario.plants
    ]
    return people.model_copy(update={"sites": tuple(sites)})


def seed(settings: Settings, url: str, *, now_us: int) -> tuple[Plan, bool]:
    """Load the company where it is not loaded yet; return the plan, and whether it is new.

    Raises:
        NotADemonstration: the database is somebody's real one.
    """
    plan = read_plan(settings)
    if plan is not None and plan.is_seeded:
        return plan, False
    if plan is None:
        if _is_in_use(url, settings.tenant):
            raise NotADemonstration(where=describe(url))
        plan = make_plan(now_us=now_us)
        _write_plan(settings, plan)
    scenario = load_scenario(SCENARIO)
    asyncio.run(load_company(url, tenant=settings.tenant, company=demo_company(scenario), password=PASSWORD))
    plan = replace(plan, is_seeded=True)
    _write_plan(settings, plan)
    return plan, True


def _is_in_use(url: str, tenant: str) -> bool:
    """Tell whether somebody has accounts in the database, or this tenant machines."""
    with connect_sync(url, role=DatabaseRole.OWNER, name="fettle-demo") as conn, conn.transaction():
        conn.execute(
            "SELECT set_config('fettle.tenant', id::text, true) FROM tenant WHERE slug = %(tenant)s", {"tenant": tenant}
        )
        row = conn.execute("SELECT EXISTS (SELECT FROM account) OR EXISTS (SELECT FROM machine)").fetchone()
        return bool(row and row[0])


def backfill(
    settings: Settings,
    url: str,
    plan: Plan,
    *,
    until_us: int,
    on_progress: Callable[[int, int], None],
    stop: threading.Event,
) -> int:
    """Store the history that the database lacks, in bulk, and return the number of readings.

    Args:
        settings: policies of the writer.
        url: the database.
        plan: says when the history began.
        until_us: where it ends: now.
        on_progress: is told the microseconds done and the microseconds in all.
        stop: ends it early.
    """
    fleet = Fleet(load_scenario(SCENARIO), start_us=plan.began_us)
    places = [
        (m.site, m.number, signal, SIGNAL_UNITS[signal]) for m in fleet.machines for signal in fleet.scenario.signals
    ]
    with bulk_writer(settings, url=url, name="fettle-demo-history") as bulk:
        ids = bulk.sensors(settings.tenant, places)
        sensor_ids = {(site, number, signal): i for (site, number, signal, _), i in zip(places, ids, strict=True)}
        from_us = max(plan.began_us, _last_reading_us(url, ids) + 1, until_us - fleet.scenario.duration_us)
        at_us = from_us
        while at_us < until_us and not stop.is_set():
            end_us = min(at_us + _STRETCH_US, until_us)
            rows = fleet.readings(at_us, end_us, sensor_ids)
            bulk.store(rows[np.argsort(rows["ts"], kind="stable")])
            at_us = end_us
            on_progress(at_us - from_us, until_us - from_us)
        return bulk.stored


def _last_reading_us(url: str, sensor_ids: list[int]) -> int:
    """Return the latest instant that is stored for these sensors, or 0."""
    with connect_sync(url, role=DatabaseRole.WORKER, name="fettle-demo") as conn:
        row = conn.execute(
            """
            SELECT max(latest.ts)
            FROM unnest(%(sensor_ids)s::int[]) AS wanted (sensor_id)
            CROSS JOIN LATERAL (
                SELECT ts FROM reading WHERE reading.sensor_id = wanted.sensor_id ORDER BY ts DESC LIMIT 1
            ) AS latest
            """,
            {"sensor_ids": sensor_ids},
        ).fetchone()
    return 0 if row is None or row[0] is None else round(row[0].timestamp() * 1e6)
