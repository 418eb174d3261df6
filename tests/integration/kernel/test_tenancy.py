"""Tenant A sees nothing of tenant B, on any table or view, as any role that people or programs act under."""

import psycopg
import pytest

from fettle.db import DatabaseRole, connect_sync

# Telemetry tables carry no policy because COPY and columnstore refuse it; no tenant role may touch them.
TELEMETRY = {
    "batch", "collector", "liveness", "reading", "reading_1d", "reading_1h", "reading_1m", "reading_text",
    "rejected_message", "rollup_position", "sparkplug_node", "waveform",
}  # fmt: skip
SHARED = {"schema_migration", "ticket_transition", "detector_state", "detector_config", "detector_promotion"}


def _fill(url: str) -> dict[str, int]:
    """Two tenants with a row of everything; returns slug -> id."""
    with connect_sync(url, role=DatabaseRole.OWNER, name="test") as conn:
        ids = {}
        for slug in ("a", "b"):
            (tenant,) = conn.execute(
                "INSERT INTO tenant (slug, name) VALUES (%s, %s) RETURNING id", (slug, slug)
            ).fetchone()
            ids[slug] = tenant
            with conn.transaction():
                conn.execute("SELECT set_config('fettle.tenant', %s, true)", (str(tenant),))
                (site,) = conn.execute(
                    "INSERT INTO site (tenant_id, code, name) VALUES (%s, 's', 's') RETURNING id", (tenant,)
                ).fetchone()
                conn.execute(
                    "INSERT INTO line (tenant_id, site_id, code, name) VALUES (%s, %s, 'l', 'l')", (tenant, site)
                )
                conn.execute("INSERT INTO customer (tenant_id, code, name) VALUES (%s, 'c', 'c')", (tenant,))
                (machine,) = conn.execute(
                    "INSERT INTO machine (tenant_id, site_id, number, name) VALUES (%s, %s, 'm', 'm') RETURNING id",
                    (tenant, site),
                ).fetchone()
                (sensor,) = conn.execute(
                    "INSERT INTO sensor (tenant_id, machine_id, name) VALUES (%s, %s, 'v') RETURNING id",
                    (tenant, machine),
                ).fetchone()
                (engineer,) = conn.execute(
                    "INSERT INTO engineer (tenant_id, code, name, latitude, longitude) VALUES (%s, 'e', 'e', 1, 1) RETURNING id",
                    (tenant,),
                ).fetchone()
                conn.execute(
                    "INSERT INTO certificate (tenant_id, engineer_id, code, valid_during) VALUES (%s, %s, 'HV', '[2020-01-01,)')",
                    (tenant, engineer),
                )
                conn.execute(
                    "INSERT INTO engineer_shift (tenant_id, engineer_id, weekday, starts_at, hours) VALUES (%s, %s, 1, '08:00', 8)",
                    (tenant, engineer),
                )
                (account,) = conn.execute(
                    "INSERT INTO account (tenant_id, login, password_hash, role, display_name) VALUES (%s, %s, 'x', 'admin', 'x') RETURNING id",
                    (tenant, slug),
                ).fetchone()
                conn.execute(
                    "INSERT INTO login_session (token_hash, tenant_id, account_id, expires_at) VALUES (%s, %s, %s, 'infinity')",
                    (slug.encode(), tenant, account),
                )
                conn.execute(
                    """INSERT INTO finding (tenant_id, machine_id, key, fault_family, kind, severity, onset_at, raised_at, detector,
                       model_version, score, evidence) VALUES (%s, %s, 'k', 'bearing', 'machine', 'low', now(), now(), 'd', '1', 1, '{}')""",
                    (tenant, machine),
                )
                _fill_detection(conn, slug, tenant, machine, sensor)
                (ticket,) = conn.execute(
                    """INSERT INTO ticket (tenant_id, number, type, channel, equipment_number, machine_id, fault_description, contact_phone,
                       region, occurred_at, created_at, updated_at)
                       VALUES (%s, 'T-1', 'repair', 'api', 'm', %s, 'x', '1', 'r', now(), now(), now()) RETURNING id""",
                    (tenant, machine),
                ).fetchone()
                conn.execute(
                    "INSERT INTO ticket_event (tenant_id, ticket_id, at, actor, kind) VALUES (%s, %s, now(), 'x', 'filed')",
                    (tenant, ticket),
                )
                conn.execute(
                    "INSERT INTO ticket_evidence (tenant_id, ticket_id, finding_key, revision, at, evidence) VALUES (%s, %s, 'k', 1, now(), '{}')",
                    (tenant, ticket),
                )
                conn.execute(
                    "INSERT INTO assignment (tenant_id, ticket_id, engineer_id, offered_at, planned_during, reason) VALUES (%s, %s, %s, now(), '[2026-01-01,2026-01-02)', '{}')",
                    (tenant, ticket, engineer),
                )
                conn.execute(
                    "INSERT INTO ticket_requirement (tenant_id, ticket_id, certificate_code) VALUES (%s, %s, 'HV')",
                    (tenant, ticket),
                )
                conn.execute(
                    "INSERT INTO dispatch_decision (tenant_id, ticket_id, at, actor, outcome, record) VALUES (%s, %s, now(), 'x', 'nobody_eligible', '{}')",
                    (tenant, ticket),
                )
                conn.execute(
                    "INSERT INTO work_report (tenant_id, ticket_id, assignment_id, at, result, hours) SELECT tenant_id, ticket_id, id, now(), 'x', 1 FROM assignment WHERE ticket_id = %s",
                    (ticket,),
                )
                conn.execute(
                    "INSERT INTO engineer_absence (tenant_id, engineer_id, absent_during) VALUES (%s, %s, '[2020-01-01,2020-01-02)')",
                    (tenant, engineer),
                )
                conn.execute(
                    "INSERT INTO idempotency_key (tenant_id, account_id, key, request_hash, created_at) VALUES (%s, %s, 'k', 'h', now())",
                    (tenant, account),
                )
                conn.execute("SELECT ensure_reading_partitions(now(), now())")
                conn.execute(
                    "INSERT INTO reading (sensor_id, quality, flags, ts, value) VALUES (%s, 192, 0, now(), 1)",
                    (sensor,),
                )
                conn.execute(
                    "INSERT INTO rejected_message (tenant_id, received_at, topic, payload, reason) VALUES (%s, now(), 't', 'p', 'r')",
                    (tenant,),
                )
        return ids


def _fill_detection(conn: psycopg.Connection, slug: str, tenant: int, machine: int, sensor: int) -> None:
    conn.execute(
        """INSERT INTO inhibition (tenant_id, machine_id, kind, starts_at, ends_at, reason, created_by, created_at)
           VALUES (%s, %s, 'shelved', now(), now() + interval '1 hour', 'r', 'x', now())""",
        (tenant, machine),
    )
    (outcome,) = conn.execute(
        """INSERT INTO finding_outcome (tenant_id, machine_id, fault_family, outcome, decided_by, decided_at)
           VALUES (%s, %s, 'bearing', 'missed', 'x', now()) RETURNING id""",
        (tenant, machine),
    ).fetchone()
    conn.execute(
        """INSERT INTO alarm_lift (tenant_id, machine_id, sensor_id, feature, factor, outcome_id, created_at, expires_at)
           VALUES (%s, %s, %s, 'residual', 1.5, %s, now(), now())""",
        (tenant, machine, sensor, outcome),
    )
    conn.execute(
        """INSERT INTO detector_order (tenant_id, machine_id, kind, reason, ordered_by, ordered_at)
           VALUES (%s, %s, 'reset', 'r', 'x', now())""",
        (tenant, machine),
    )
    conn.execute(
        """INSERT INTO model_version (tenant_id, machine_id, version, number, sha256, config_digest, code_version, feature_schema,
           metrics, arrays, created_at) VALUES (%s, %s, '1', 1, 'x', 'x', 'x', '{}', '{}', '', now())""",
        (tenant, machine),
    )
    (config,) = conn.execute(
        "INSERT INTO detector_config (name, digest, body, created_by, created_at) VALUES (%s, 'x', '{}', 'x', now()) RETURNING id",
        (slug,),
    ).fetchone()
    conn.execute(
        """INSERT INTO shadow_finding (tenant_id, config_id, machine_id, key, fault_family, kind, severity, onset_at, raised_at,
           detector, model_version, score, evidence, change)
           VALUES (%s, %s, %s, 'k', 'bearing', 'machine', 'low', now(), now(), 'd', '1', 1, '{}', 'raised')""",
        (tenant, config, machine),
    )
    conn.execute(
        "INSERT INTO detection_event (tenant_id, machine_id, at, actor, kind) VALUES (%s, %s, now(), 'x', 'inhibited')",
        (tenant, machine),
    )


def _relations(conn: psycopg.Connection, schema: str) -> list[tuple[str, bool]]:
    rows = conn.execute(
        """SELECT c.relname, EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id')
           FROM pg_class c WHERE c.relnamespace = %s::regnamespace AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition
           AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')""",
        (schema,),
    ).fetchall()
    return [(name, has) for name, has in rows if not (schema == "public" and name in SHARED)]


def test_every_business_table_has_a_forced_policy(database):
    with connect_sync(database.url, role=DatabaseRole.OWNER, name="test") as conn:
        rows = conn.execute(
            """SELECT c.relname, c.relrowsecurity, c.relforcerowsecurity FROM pg_class c
               WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition"""
        ).fetchall()
    business = {name: (on, forced) for name, on, forced in rows if name not in TELEMETRY | SHARED}
    assert len(business) >= 15
    assert all(state == (True, True) for state in business.values()), business


def test_telemetry_is_granted_to_no_tenant_role(database):
    with connect_sync(database.url, role=DatabaseRole.OWNER, name="test") as conn:
        for table in TELEMETRY:
            for role in ("fettle_api", "fettle_tenant"):
                granted = conn.execute("SELECT to_regclass(%s) IS NOT NULL AND has_table_privilege(%s, to_regclass(%s), 'SELECT')",
                                       (table, role, table)).fetchone()  # fmt: skip
                assert granted != (True,), (table, role)


@pytest.mark.parametrize("who", ["api", "login role"])
def test_a_tenant_sees_its_own_rows_and_none_of_another(database, who):
    ids = _fill(database.url)
    with connect_sync(database.url, role=DatabaseRole.OWNER, name="test") as conn:
        relations = [("report", *r) for r in _relations(conn, "report")]
        if who == "api":
            relations += [("public", *r) for r in _relations(conn, "public") if r[0] not in TELEMETRY]
            login = "fettle_api"
        else:
            login = f"fettle_tenant_{ids['a']}"
            if conn.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (login,)).fetchone() is None:
                conn.execute(f"CREATE ROLE {login} IN ROLE fettle_tenant")
    seen = 0
    with connect_sync(database.url, role=DatabaseRole.OWNER, name="test") as conn, conn.transaction():
        conn.execute(f"SET LOCAL ROLE {login}")
        # the login role is bound to tenant a: even the setting of b changes nothing
        conn.execute("SELECT set_config('fettle.tenant', %s, true)", (str(ids["a"] if who == "api" else ids["b"]),))
        for schema, name, has_tenant in relations:
            if not has_tenant and name != "tenant":
                continue
            if not conn.execute("SELECT has_table_privilege(%s, 'SELECT')", (f"{schema}.{name}",)).fetchone()[0]:
                continue
            column = "tenant_id" if has_tenant else "id"
            owners = {t for (t,) in conn.execute(f"SELECT DISTINCT {column} FROM {schema}.{name}")}
            assert owners <= {ids["a"]}, (schema, name)
            seen += bool(owners)
    assert seen >= (20 if who == "api" else 6)


@pytest.mark.parametrize("escape", ["", "SET ROLE fettle_tenant", "SET ROLE NONE"])
def test_a_tenant_that_sends_its_own_sql_cannot_become_another(database, escape):
    ids = _fill(database.url)
    login = f"fettle_tenant_{ids['a']}"
    with connect_sync(database.url, role=DatabaseRole.OWNER, name="test") as conn:
        if conn.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (login,)).fetchone() is None:
            conn.execute(f"CREATE ROLE {login} IN ROLE fettle_tenant")
        conn.execute(f"ALTER ROLE {login} LOGIN")
        views = [name for name, has_tenant in _relations(conn, "report") if has_tenant]
    with psycopg.connect(database.url.replace("//postgres@", f"//{login}@"), autocommit=True) as conn:
        if escape:
            conn.execute(escape)
        conn.execute("SELECT set_config('fettle.tenant', %s, false)", (str(ids["b"]),))
        for view in views:
            owners = {t for (t,) in conn.execute(f"SELECT DISTINCT tenant_id FROM report.{view}")}
            assert owners <= {ids["a"]}, view
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("SET ROLE fettle_api")


def test_a_login_that_reads_reports_for_no_tenant_sees_nothing(plain_database):
    ids = _fill(plain_database.url)
    with connect_sync(plain_database.url, role=DatabaseRole.OWNER, name="test") as conn:
        conn.execute("DROP ROLE IF EXISTS reader")
        conn.execute("CREATE ROLE reader LOGIN IN ROLE fettle_tenant")
    with psycopg.connect(plain_database.url.replace("//postgres@", "//reader@"), autocommit=True) as conn:
        conn.execute("SELECT set_config('fettle.tenant', %s, false)", (str(ids["b"]),))
        assert conn.execute("SELECT count(*) FROM report.machine").fetchone() == (0,)


def test_a_rejected_topic_that_is_no_text_does_not_hide_the_others(plain_database):
    ids = _fill(plain_database.url)
    with connect_sync(plain_database.url, role=DatabaseRole.OWNER, name="test") as conn:
        conn.execute("UPDATE rejected_message SET topic = '\\xff00'::bytea WHERE tenant_id = %s", (ids["a"],))
        conn.execute(
            "INSERT INTO rejected_message (tenant_id, received_at, topic, payload, reason) VALUES (%s, now(), %s, 'p', 'r')",
            (ids["a"], "工厂/泵".encode()),
        )
    with connect_sync(plain_database.url, role=DatabaseRole.API, name="test") as conn, conn.transaction():
        conn.execute("SELECT set_config('fettle.tenant', %s, true)", (str(ids["a"]),))
        topics = {topic for (topic,) in conn.execute("SELECT topic FROM report.rejected_message")}
    assert topics == {"\\377\\000", "工厂/泵"}


def test_no_foreign_key_leaves_the_tenant(plain_database):
    """A key that does not lead with the tenant would let one tenant's row refer to another's."""
    with connect_sync(plain_database.url, role=DatabaseRole.OWNER, name="test") as conn:
        rows = conn.execute(
            """SELECT k.conname FROM pg_constraint AS k
               JOIN pg_attribute AS theirs ON theirs.attrelid = k.confrelid AND theirs.attname = 'tenant_id'
               WHERE k.contype = 'f' AND k.connamespace = 'public'::regnamespace AND NOT theirs.attnum = ANY (k.confkey)"""
        ).fetchall()
    assert rows == []


def test_no_tenant_named_means_no_rows(database):
    _fill(database.url)
    with connect_sync(database.url, role=DatabaseRole.API, name="test") as conn:
        for table in ("machine", "ticket", "report.machine", "report.reading", "report.ticket"):
            assert conn.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table


def test_a_tenant_cannot_write_for_another(database):
    ids = _fill(database.url)
    with connect_sync(database.url, role=DatabaseRole.API, name="test") as conn:
        with pytest.raises(psycopg.errors.InsufficientPrivilege), conn.transaction():
            conn.execute("SELECT set_config('fettle.tenant', %s, true)", (str(ids["a"]),))
            conn.execute("INSERT INTO site (tenant_id, code, name) VALUES (%s, 'x', 'x')", (ids["b"],))


def test_ticket_events_are_append_only_even_for_the_owner(plain_database):
    ids = _fill(plain_database.url)
    with connect_sync(plain_database.url, role=DatabaseRole.OWNER, name="test") as conn:
        for statement in ("UPDATE ticket_event SET actor = 'y'", "DELETE FROM ticket_event", "TRUNCATE ticket_event"):
            with pytest.raises(psycopg.errors.IntegrityConstraintViolation), conn.transaction():
                conn.execute("SELECT set_config('fettle.tenant', %s, true)", (str(ids["a"]),))
                conn.execute(statement)
