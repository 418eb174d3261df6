"""New sensors by the thousand: registered in few statements, without a change of the schema, and never beyond the cap."""

import psycopg
import pytest

from fettle import clock
from fettle.db import DatabaseRole, connect_sync
from ingest.api import bulk_writer
from ingest.batch import Wanted
from ingest.catalogue import Catalogue, Refused, RegistrationPolicy, queries

NEW = 4000


@pytest.fixture
def no_ddl():
    """From now on every change of the schema fails."""

    def forbid(database):
        with psycopg.connect(database.url) as conn:
            conn.execute("CREATE FUNCTION public.refuse_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'a change of the schema: %', tg_tag; END $$")  # fmt: skip
            conn.execute("CREATE EVENT TRIGGER refuse_ddl ON ddl_command_start EXECUTE FUNCTION public.refuse_ddl()")

    return forbid


def _topic(i):
    return f"fettle/default/s{i % 3}/m{i // 10}/sensor_{i % 10}"


async def test_thousands_of_new_sensors_need_no_ddl_and_few_statements(
    database, mosquitto, collecting, publish, reading, rows, no_ddl
):
    async with collecting(database, mosquitto) as running:
        await publish(
            mosquitto, [("fettle/default/s0/first/v", reading(1))]
        )  # makes the partition or chunk of this week
        await running.settle(1)
        no_ddl(database)
        await publish(mosquitto, [(_topic(i), reading(i, n=1)) for i in range(NEW)])
        await running.settle(NEW + 1, seconds=60)
        assert running.collector.counters.readings.done == NEW + 1
        assert not running.collector.writer.status.retries
    assert rows(database, "SELECT count(*) FROM sensor") == [(NEW + 1,)]
    assert rows(database, "SELECT count(DISTINCT sensor_id), sum(value) FROM reading WHERE value <> 1 OR sensor_id > 1") == [
        (NEW, sum(range(NEW)))
    ]  # fmt: skip


def test_registration_does_not_keep_a_writer_of_known_sensors_waiting(plain_database, settings_for):
    """Both write sensors of the same tenant; the second finds its own while the first one's transaction is open."""
    with bulk_writer(settings_for(), url=plain_database.url, name="first") as writer:
        writer.sensors("default", [("s1", "m1", "known", "A")])
    one, two = (Catalogue(RegistrationPolicy()) for _ in range(2))
    with (
        connect_sync(plain_database.url, role=DatabaseRole.WORKER, name="one") as registering,
        connect_sync(
            plain_database.url, role=DatabaseRole.WORKER, name="two", options={"lock_timeout": "50ms"}
        ) as reading,
        registering.transaction(),
    ):
        new = [Wanted("default", ("s1", "m1", f"new_{i}"), "A") for i in range(500)]
        assert len(one.resolve(registering, new, now_s=0.0)) == 500
        known = Wanted("default", ("s1", "m1", "known"), "A")
        assert not isinstance(two.resolve(reading, [known], now_s=0.0)[known], Refused)
        other = Wanted("default", ("s2", "m9", "elsewhere"), "A")
        assert not isinstance(two.resolve(reading, [other], now_s=0.0)[other], Refused)


async def test_beyond_the_cap_messages_are_kept_aside_and_known_sensors_go_on(
    plain_database, mosquitto, collecting, publish, reading, rows
):
    cap = 40
    async with collecting(plain_database, mosquitto, collector_max_sensors=cap) as running:
        await publish(mosquitto, [(_topic(i), reading(i)) for i in range(60)])
        await running.settle(60)
        readings = running.collector.counters.readings
        assert (readings.done, readings.rejected) == (cap, 60 - cap)
        known = {f"fettle/default/{site}/{machine}/{name}" for site, machine, name in rows(plain_database, "SELECT p.code, m.number, s.name FROM sensor s JOIN machine m ON m.id = s.machine_id JOIN site p ON p.id = m.site_id")}  # fmt: skip
        assert len(known) == cap
        await publish(mosquitto, [(topic, reading(7, n=1)) for topic in sorted(known)])
        await running.settle(60 + cap)
    assert rows(plain_database, "SELECT reason, count(*) FROM rejected_message GROUP BY 1") == [
        ("too_many_sensors", 20)
    ]
    assert rows(plain_database, "SELECT count(*) FROM reading") == [(2 * cap,)]


def test_the_cap_holds_for_each_tenant_alone(plain_database):
    with psycopg.connect(plain_database.url) as conn:
        conn.execute("INSERT INTO tenant (slug, name) VALUES ('other', 'Other')")
    catalogue = Catalogue(RegistrationPolicy(max_sensors=10))
    with connect_sync(plain_database.url, role=DatabaseRole.WORKER, name="test") as conn:
        wanted = [Wanted(tenant, ("s", "m", f"v{i}"), None) for tenant in ("default", "other") for i in range(12)]
        found = catalogue.resolve(conn, wanted, now_s=clock.monotonic_s())
    refused = [want.tenant for want, answer in found.items() if isinstance(answer, Refused)]
    assert sorted(refused) == ["default", "default", "other", "other"]


@pytest.mark.parametrize("is_analysed", [False, True])
def test_a_sensor_is_looked_up_by_its_whole_key_whatever_the_statistics_say(plain_database, is_analysed):
    """The planner once preferred to walk over all sensors of a name: 25,000 sensors on, a batch took half a minute."""
    place = {
        "sites": ["s1"] * 500,
        "machines": [f"m{i // 5}" for i in range(500)],
        "sensors": [f"v{i % 5}" for i in range(500)],
    }
    with connect_sync(plain_database.url, role=DatabaseRole.WORKER, name="test") as conn:
        wanted = [Wanted("default", ("s1", f"m{i // 5}", f"v{i % 5}"), None) for i in range(2000)]
        Catalogue(RegistrationPolicy()).resolve(conn, wanted, now_s=0.0)
        if is_analysed:
            with psycopg.connect(plain_database.url) as owner:
                owner.execute("ANALYZE sensor, machine, site")
        with conn.transaction():
            conn.execute(queries.name_tenant, {"tenant_id": 1})
            explained = conn.execute("EXPLAIN " + queries.find_sensors, {"tenant_id": 1, **place})
            plan = "\n".join(line for (line,) in explained)
    assert "(machine_id = machine.id)" in plan.replace("m_1.id", "machine.id").replace("m.id", "machine.id"), plan
    assert "(name = w.sensor)" in plan, plan


def test_of_two_collectors_that_name_a_unit_at_once_both_believe_the_first(plain_database, settings_for):
    """The second one had read that there was none."""
    place = ("s1", "m1", "pressure")
    with bulk_writer(settings_for(), url=plain_database.url, name="first") as writer:
        writer.sensors("default", [(*place, "")])
    slow = Catalogue(RegistrationPolicy())

    def read_and_wait(conn, tenant_id, wants):
        found = Catalogue._read(conn, tenant_id, wants)
        slow._read = Catalogue._read
        with bulk_writer(settings_for(), url=plain_database.url, name="first") as writer:
            writer.sensors("default", [(*place, "bar")])
        return found

    slow._read = read_and_wait
    want = Wanted("default", place, "Cel")
    with connect_sync(plain_database.url, role=DatabaseRole.WORKER, name="slow") as conn:
        assert slow.resolve(conn, [want], now_s=0.0)[want].unit == "bar"
    assert slow.find("default", place, "Cel").unit == "bar"
