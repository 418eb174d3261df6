"""A small plant in a database: machines with one vibration sensor each, their ledger, and the loop on it."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
import psycopg
import pytest

from anomaly.api import Announcement, EngineConfig, Watch
from fettle.db import DatabaseRole, open_pool
from fettle.model import Quality
from fettle.wire import READING_DTYPE

HOUR = 3_600_000_000
START = 1_790_000_000_000_000
PER_HOUR = 6


@dataclass
class Recorder:
    """Whoever is told of findings."""

    heard: list[Announcement] = field(default_factory=list)

    async def __call__(self, announcement: Announcement) -> None:
        self.heard.append(announcement)

    def told(self, kind: str = "machine") -> list[tuple[str, str]]:
        """Return (machine number, change) of what was told of one kind."""
        events = [a.event for a in self.heard]
        return [(e.finding.evidence["machine"], e.change.value) for e in events if e.finding.kind == kind]

    def raised(self) -> list[str]:
        """Return the numbers of the machines whose own faults were told, in order."""
        return [number for number, change in self.told() if change == "raised"]


@dataclass
class Plant:
    """Machines of the first tenant, each with one vibration sensor of about 2 mm/s, sampled every ten minutes."""

    url: str
    machines: list[int]
    sensors: list[int]
    tenant: int
    clock_us: int = START
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(7))
    batches: int = 0

    @staticmethod
    def instant(hours: float) -> datetime:
        return datetime.fromtimestamp((START + hours * HOUR) / 1e6, UTC)

    @staticmethod
    def recorder() -> Recorder:
        return Recorder()

    @staticmethod
    async def drain(loop):
        while await loop.step():
            pass

    def hours(self, first, last, *, levels=None, only=None):
        """Return one batch per hour of [first, last); `levels` multiplies the vibration of a machine by its position."""
        out = []
        for hour in range(first, last):
            parts = []
            for k, sensor in enumerate(self.sensors):
                part = np.zeros(PER_HOUR, dtype=READING_DTYPE)
                part["sensor_id"], part["quality"] = sensor, Quality.GOOD
                part["ts"] = START + hour * HOUR + np.arange(PER_HOUR) * (HOUR // PER_HOUR)
                level = (levels or {}).get(k, 1.0)
                part["value"] = 2.0 * level * np.exp(self.random.normal(0, 0.03, PER_HOUR))
                if only is None or k in only:
                    parts.append(part)
            out.append(np.concatenate(parts))
        return out

    def store(self, batches, *, collector="c1", at_once=1):
        """Store batches in the ledger, some of them as one."""
        batches = [np.concatenate(batches[k : k + at_once]) for k in range(0, len(batches), at_once)]
        with psycopg.connect(self.url) as conn:
            conn.execute("INSERT INTO collector (name) VALUES (%s) ON CONFLICT DO NOTHING", (collector,))
            (number,) = conn.execute("SELECT id FROM collector WHERE name = %s", (collector,)).fetchone()
            for batch in batches:
                self.batches += 1
                conn.execute(
                    "INSERT INTO batch (collector_id, number, stored, payload) VALUES (%s, %s, %s, %s)",
                    (number, self.batches, len(batch), batch.tobytes()),
                )
        self.clock_us = max(self.clock_us, *(int(b["ts"].max()) for b in batches))

    def watch(self, pool, recorder, **options):
        return Watch(
            pool,
            **{"shard": "0/1", "config": EngineConfig(), "on_event": recorder, "heed_every_s": 0.0} | options,
            now_us=lambda: self.clock_us,
        )

    def pool(self, size=3):
        return open_pool(self.url, role=DatabaseRole.WORKER, name="test", size=size)

    def query(self, text, *parameters):
        with psycopg.connect(self.url) as conn:
            conn.execute("SELECT set_config('fettle.tenant', %s, true)", (str(self.tenant),))
            return conn.execute(text, parameters).fetchall()


def make_plant(url, machines=1, *, tenant=None):
    """Make machines P-1, P-2, ... in a site each, so that no grouping joins them."""
    with psycopg.connect(url) as conn:
        tenant = tenant or conn.execute("SELECT min(id) FROM tenant").fetchone()[0]
        conn.execute("SELECT set_config('fettle.tenant', %s, true)", (str(tenant),))
        ids, sensors = [], []
        for k in range(1, machines + 1):
            (site,) = conn.execute(
                "INSERT INTO site (tenant_id, code, name) VALUES (%s, %s, 'S') RETURNING id", (tenant, f"s{k}")
            ).fetchone()
            ids += conn.execute(
                "INSERT INTO machine (tenant_id, site_id, number, name, class) VALUES (%s, %s, %s, 'P', 'pump') RETURNING id",
                (tenant, site, f"P-{k}"),
            ).fetchone()
            sensors += conn.execute(
                """INSERT INTO sensor (tenant_id, machine_id, name, kind, unit)
                   VALUES (%s, %s, 'vibration', 'vibration_velocity', 'mm/s') RETURNING id""",
                (tenant, ids[-1]),
            ).fetchone()
    return Plant(url, ids, sensors, tenant)


@pytest.fixture
def plant_of(database):
    """Return a function that makes a plant of some machines, on both storages."""
    return lambda machines=1: make_plant(database.url, machines)


@pytest.fixture
def plain_plant_of(plain_database):
    """Return a function that makes a plant of some machines, on plain PostgreSQL."""
    return lambda machines=1, **options: make_plant(plain_database.url, machines, **options)
