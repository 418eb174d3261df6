-- Tenants, plants, people, tickets, dispatch, findings. Every row has its tenant; row-level security is enabled and forced.

-- Roles belong to the cluster: another database may have made them, or an administrator. The owner of this database must
-- be able to act as each of them. Making a role is not enough for that since PostgreSQL 16, so it is tried.
DO $$
DECLARE
    role_name text;
BEGIN
    FOREACH role_name IN ARRAY ARRAY['fettle_api', 'fettle_worker', 'fettle_tenant'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', role_name);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL;  -- another database was faster
            END;
        END IF;
        BEGIN
            EXECUTE format('SET LOCAL ROLE %I', role_name);
            SET LOCAL ROLE NONE;
        EXCEPTION WHEN insufficient_privilege THEN
            EXECUTE format('GRANT %I TO CURRENT_USER', role_name);
        END;
    END LOOP;
END
$$;

CREATE SCHEMA report;
GRANT USAGE ON SCHEMA public, report TO fettle_api, fettle_worker;
GRANT USAGE ON SCHEMA report TO fettle_tenant;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;

-- Whose rows the caller may see. A tenant's own login role, fettle_tenant_<id>, is bound to that tenant: neither a setting
-- nor SET ROLE changes it, so it may be handed to people who write SQL. The API and the workers write their own SQL, and
-- name the tenant in a transaction-local setting; unset means nobody's rows, and nobody else's setting counts.
CREATE FUNCTION current_tenant() RETURNS int
LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE
    WHEN session_user ~ '^fettle_tenant_[0-9]+$' THEN substring(session_user::text FROM '[0-9]+$')::int
    WHEN current_user ~ '^fettle_tenant_[0-9]+$' THEN substring(current_user::text FROM '[0-9]+$')::int
    WHEN pg_has_role(current_user, 'fettle_api', 'MEMBER') OR pg_has_role(current_user, 'fettle_worker', 'MEMBER')
        THEN nullif(current_setting('fettle.tenant', true), '')::int
END;

CREATE TABLE tenant (
    id int GENERATED ALWAYS AS IDENTITY,
    slug text NOT NULL,
    name text NOT NULL,
    tickets_filed int NOT NULL DEFAULT 0,
    policy jsonb NOT NULL DEFAULT '{}',   -- what the tenant sets otherwise than the defaults: dispatch weights, time-outs
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT tenant_pkey PRIMARY KEY (id),
    CONSTRAINT tenant_slug_key UNIQUE (slug),
    CONSTRAINT tenant_slug_check CHECK (slug ~ '^[a-z0-9][a-z0-9_-]{0,62}$')
);

CREATE TABLE site (
    id int GENERATED ALWAYS AS IDENTITY,
    tenant_id int NOT NULL,
    code text NOT NULL,
    name text NOT NULL,
    region text NOT NULL DEFAULT '',
    latitude float8,
    longitude float8,
    time_zone text NOT NULL DEFAULT 'UTC',
    CONSTRAINT site_pkey PRIMARY KEY (id),
    CONSTRAINT site_tenant_key UNIQUE (tenant_id, id),
    CONSTRAINT site_code_key UNIQUE (tenant_id, code),
    CONSTRAINT site_tenant_fkey FOREIGN KEY (tenant_id) REFERENCES tenant (id),
    CONSTRAINT site_latitude_check CHECK (latitude BETWEEN -90 AND 90),
    CONSTRAINT site_longitude_check CHECK (longitude BETWEEN -180 AND 180)
);

CREATE TABLE line (
    id int GENERATED ALWAYS AS IDENTITY,
    tenant_id int NOT NULL,
    site_id int NOT NULL,
    code text NOT NULL,
    name text NOT NULL,
    CONSTRAINT line_pkey PRIMARY KEY (id),
    CONSTRAINT line_tenant_key UNIQUE (tenant_id, id),
    CONSTRAINT line_code_key UNIQUE (tenant_id, site_id, code),
    CONSTRAINT line_site_fkey FOREIGN KEY (tenant_id, site_id) REFERENCES site (tenant_id, id)
);

CREATE TABLE customer (
    id int GENERATED ALWAYS AS IDENTITY,
    tenant_id int NOT NULL,
    code text NOT NULL,
    name text NOT NULL,
    phone text NOT NULL DEFAULT '',
    region text NOT NULL DEFAULT '',
    CONSTRAINT customer_pkey PRIMARY KEY (id),
    CONSTRAINT customer_tenant_key UNIQUE (tenant_id, id),
    CONSTRAINT customer_code_key UNIQUE (tenant_id, code),
    CONSTRAINT customer_tenant_fkey FOREIGN KEY (tenant_id) REFERENCES tenant (id)
);

CREATE TABLE machine (
    id int GENERATED ALWAYS AS IDENTITY,
    tenant_id int NOT NULL,
    site_id int NOT NULL,
    line_id int,
    customer_id int,
    number text NOT NULL,                 -- the equipment number people quote and topics carry
    name text NOT NULL,
    class text NOT NULL DEFAULT '',
    iso_class text NOT NULL DEFAULT '',   -- row of the vibration severity table that applies; empty: the default one
    rated_current_a float8,
    required_certificate text NOT NULL DEFAULT '',
    required_level int NOT NULL DEFAULT 0,
    is_registered_by_topic boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT machine_pkey PRIMARY KEY (id),
    CONSTRAINT machine_tenant_key UNIQUE (tenant_id, id),
    CONSTRAINT machine_number_key UNIQUE (tenant_id, site_id, number),
    CONSTRAINT machine_site_fkey FOREIGN KEY (tenant_id, site_id) REFERENCES site (tenant_id, id),
    CONSTRAINT machine_line_fkey FOREIGN KEY (tenant_id, line_id) REFERENCES line (tenant_id, id),
    CONSTRAINT machine_customer_fkey FOREIGN KEY (tenant_id, customer_id) REFERENCES customer (tenant_id, id)
);
CREATE INDEX machine_tenant_number_idx ON machine (tenant_id, number);

CREATE TABLE sensor (
    id int GENERATED ALWAYS AS IDENTITY,
    tenant_id int NOT NULL,
    machine_id int NOT NULL,
    name text NOT NULL,
    kind text NOT NULL DEFAULT 'other',
    unit text NOT NULL DEFAULT '',
    is_enabled boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT sensor_pkey PRIMARY KEY (id),
    CONSTRAINT sensor_tenant_key UNIQUE (tenant_id, id),
    CONSTRAINT sensor_name_key UNIQUE (tenant_id, machine_id, name),
    CONSTRAINT sensor_machine_fkey FOREIGN KEY (tenant_id, machine_id) REFERENCES machine (tenant_id, id)
);

CREATE TABLE engineer (
    id int GENERATED ALWAYS AS IDENTITY,
    tenant_id int NOT NULL,
    code text NOT NULL,
    name text NOT NULL,
    phone text NOT NULL DEFAULT '',
    latitude float8 NOT NULL,
    longitude float8 NOT NULL,
    time_zone text NOT NULL DEFAULT 'UTC',
    job_cap int NOT NULL DEFAULT 3,
    active_jobs int NOT NULL DEFAULT 0,   -- live assignments, kept by a trigger
    is_active boolean NOT NULL DEFAULT true,
    regions text[] NOT NULL DEFAULT '{}', -- regions served; empty: all
    CONSTRAINT engineer_pkey PRIMARY KEY (id),
    CONSTRAINT engineer_tenant_key UNIQUE (tenant_id, id),
    CONSTRAINT engineer_code_key UNIQUE (tenant_id, code),
    CONSTRAINT engineer_tenant_fkey FOREIGN KEY (tenant_id) REFERENCES tenant (id),
    CONSTRAINT engineer_cap_check CHECK (active_jobs BETWEEN 0 AND job_cap)
);

CREATE TABLE certificate (
    id int GENERATED ALWAYS AS IDENTITY,
    tenant_id int NOT NULL,
    engineer_id int NOT NULL,
    code text NOT NULL,
    level int NOT NULL DEFAULT 1,
    valid_during tstzrange NOT NULL,      -- half-open: ends when the last valid day has ended
    review_due_at timestamptz,            -- a review that is overdue suspends the certificate
    CONSTRAINT certificate_pkey PRIMARY KEY (id),
    CONSTRAINT certificate_code_key UNIQUE (tenant_id, engineer_id, code, valid_during),
    CONSTRAINT certificate_engineer_fkey FOREIGN KEY (tenant_id, engineer_id) REFERENCES engineer (tenant_id, id)
);

CREATE TABLE engineer_shift (
    id int GENERATED ALWAYS AS IDENTITY,
    tenant_id int NOT NULL,
    engineer_id int NOT NULL,
    weekday int NOT NULL,                 -- ISO: 1 Monday to 7 Sunday, the day on which the shift begins
    starts_at time NOT NULL,              -- wall clock in the engineer's time zone
    hours float8 NOT NULL,                -- may run past midnight
    CONSTRAINT engineer_shift_pkey PRIMARY KEY (id),
    CONSTRAINT engineer_shift_key UNIQUE (tenant_id, engineer_id, weekday, starts_at),
    CONSTRAINT engineer_shift_engineer_fkey FOREIGN KEY (tenant_id, engineer_id) REFERENCES engineer (tenant_id, id),
    CONSTRAINT engineer_shift_weekday_check CHECK (weekday BETWEEN 1 AND 7),
    CONSTRAINT engineer_shift_hours_check CHECK (hours > 0 AND hours <= 24)
);

CREATE TABLE engineer_absence (
    id int GENERATED ALWAYS AS IDENTITY,
    tenant_id int NOT NULL,
    engineer_id int NOT NULL,
    absent_during tstzrange NOT NULL,
    reason text NOT NULL DEFAULT '',
    CONSTRAINT engineer_absence_pkey PRIMARY KEY (id),
    CONSTRAINT engineer_absence_key UNIQUE (tenant_id, engineer_id, absent_during),
    CONSTRAINT engineer_absence_engineer_fkey FOREIGN KEY (tenant_id, engineer_id) REFERENCES engineer (tenant_id, id),
    CONSTRAINT engineer_absence_during_check CHECK (NOT isempty(absent_during))
);

CREATE TABLE account (
    id int GENERATED ALWAYS AS IDENTITY,
    tenant_id int NOT NULL,
    login text NOT NULL,
    password_hash text NOT NULL,
    role text NOT NULL,
    display_name text NOT NULL,
    language text NOT NULL DEFAULT 'en',
    engineer_id int,
    customer_id int,
    is_active boolean NOT NULL DEFAULT true,
    CONSTRAINT account_pkey PRIMARY KEY (id),
    CONSTRAINT account_tenant_key UNIQUE (tenant_id, id),
    CONSTRAINT account_login_key UNIQUE (login),
    CONSTRAINT account_tenant_fkey FOREIGN KEY (tenant_id) REFERENCES tenant (id),
    CONSTRAINT account_engineer_fkey FOREIGN KEY (tenant_id, engineer_id) REFERENCES engineer (tenant_id, id),
    CONSTRAINT account_customer_fkey FOREIGN KEY (tenant_id, customer_id) REFERENCES customer (tenant_id, id),
    CONSTRAINT account_role_check CHECK (role IN ('customer_rep', 'order_taker', 'supervisor', 'engineer', 'finance',
                                                  'admin', 'hq_viewer', 'machine_account')),
    CONSTRAINT account_language_check CHECK (language IN ('en', 'zh'))
);

CREATE TABLE login_session (
    token_hash bytea NOT NULL,            -- SHA-256 of the bearer token; the token itself is never stored
    tenant_id int NOT NULL,
    account_id int NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    CONSTRAINT login_session_pkey PRIMARY KEY (token_hash),
    CONSTRAINT login_session_account_fkey FOREIGN KEY (tenant_id, account_id) REFERENCES account (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX login_session_account_idx ON login_session (tenant_id, account_id);

-- The life cycle: these pairs and no others. The event table refers to them, so the database knows the whitelist too.
CREATE TABLE ticket_transition (
    from_state text NOT NULL,
    to_state text NOT NULL,
    CONSTRAINT ticket_transition_pkey PRIMARY KEY (from_state, to_state)
);
INSERT INTO ticket_transition (from_state, to_state) VALUES
    ('submitted', 'pending_confirmation'),
    ('submitted', 'dispatched'),
    ('submitted', 'closed'),
    ('pending_confirmation', 'submitted'),
    ('pending_confirmation', 'dispatched'),
    ('pending_confirmation', 'closed'),
    ('dispatched', 'pending_confirmation'),
    ('dispatched', 'in_progress'),
    ('dispatched', 'closed'),
    ('in_progress', 'dispatched'),
    ('in_progress', 'pending_acceptance'),
    ('in_progress', 'closed'),
    ('pending_acceptance', 'in_progress'),
    ('pending_acceptance', 'closed');

CREATE TABLE finding (
    id bigint GENERATED ALWAYS AS IDENTITY,
    tenant_id int NOT NULL,
    machine_id int NOT NULL,
    key text NOT NULL,                    -- same machine, fault family and onset: the same finding, however often it is derived
    fault_family text NOT NULL,
    kind text NOT NULL,
    severity text NOT NULL,
    onset_at timestamptz NOT NULL,
    raised_at timestamptz NOT NULL,
    cleared_at timestamptz,
    detector text NOT NULL,
    model_version text NOT NULL,
    score float8 NOT NULL,
    p_value float8,
    evidence jsonb NOT NULL,
    announced_change text NOT NULL DEFAULT '',  -- the last change that was handed on: '', raised, evidence, cleared
    change text NOT NULL DEFAULT 'raised',      -- the last change there is
    revision int NOT NULL DEFAULT 1,
    announced_revision int NOT NULL DEFAULT 0,
    stored_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT finding_pkey PRIMARY KEY (id),
    CONSTRAINT finding_tenant_key UNIQUE (tenant_id, id),
    CONSTRAINT finding_key UNIQUE (tenant_id, machine_id, key),
    CONSTRAINT finding_machine_fkey FOREIGN KEY (tenant_id, machine_id) REFERENCES machine (tenant_id, id),
    CONSTRAINT finding_kind_check CHECK (kind IN ('machine', 'sensor')),
    CONSTRAINT finding_severity_check CHECK (severity IN ('low', 'medium', 'high')),
    CONSTRAINT finding_change_check CHECK (change IN ('raised', 'evidence', 'cleared'))
);
CREATE INDEX finding_unannounced_idx ON finding (id) WHERE revision > announced_revision;

CREATE TABLE detector_state (
    shard text NOT NULL,                  -- which part of the fleet; '0/1' is all of it
    positions jsonb NOT NULL,             -- collector id -> number of the last batch folded
    state bytea NOT NULL,
    code_version text NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT detector_state_pkey PRIMARY KEY (shard)
);

CREATE TABLE ticket (
    id bigint GENERATED ALWAYS AS IDENTITY,
    tenant_id int NOT NULL,
    number text NOT NULL,
    type text NOT NULL,
    state text NOT NULL DEFAULT 'submitted',
    channel text NOT NULL,
    priority text NOT NULL DEFAULT 'normal',
    severity text NOT NULL DEFAULT 'low',
    equipment_number text NOT NULL,
    machine_id int,                       -- null: the number is unknown; the ticket is kept and flagged
    customer_id int,
    fault_family text NOT NULL DEFAULT '',
    fault_description text NOT NULL,
    fault_description_zh text NOT NULL DEFAULT '',  -- what a program wrote has both languages; empty: as people wrote it
    contact_phone text NOT NULL,
    region text NOT NULL,
    work_center text NOT NULL DEFAULT '',
    operation text NOT NULL DEFAULT '',
    answers jsonb NOT NULL DEFAULT '{}',  -- to the guided questions
    owner_account_id int,
    hold_reason text,
    resolution_code text,
    duplicate_of bigint,
    rework_count int NOT NULL DEFAULT 0,
    satisfaction int,
    failed_offers int NOT NULL DEFAULT 0,
    dispatch_hold text NOT NULL DEFAULT '',  -- why dispatch does not try: '', nobody_eligible, offers_failed, taken_back
    dispatch_after timestamptz,           -- when it tries again; null: when somebody says so
    version int NOT NULL DEFAULT 1,
    occurred_at timestamptz NOT NULL,     -- onset of the fault, or when it was reported
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    closed_at timestamptz,
    CONSTRAINT ticket_pkey PRIMARY KEY (id),
    CONSTRAINT ticket_tenant_key UNIQUE (tenant_id, id),
    CONSTRAINT ticket_number_key UNIQUE (tenant_id, number),
    CONSTRAINT ticket_tenant_fkey FOREIGN KEY (tenant_id) REFERENCES tenant (id),
    CONSTRAINT ticket_machine_fkey FOREIGN KEY (tenant_id, machine_id) REFERENCES machine (tenant_id, id),
    CONSTRAINT ticket_customer_fkey FOREIGN KEY (tenant_id, customer_id) REFERENCES customer (tenant_id, id),
    CONSTRAINT ticket_duplicate_fkey FOREIGN KEY (tenant_id, duplicate_of) REFERENCES ticket (tenant_id, id),
    CONSTRAINT ticket_satisfaction_check CHECK (satisfaction BETWEEN 1 AND 5),
    CONSTRAINT ticket_dispatch_hold_check CHECK (dispatch_hold IN ('', 'nobody_eligible', 'offers_failed', 'taken_back')),
    CONSTRAINT ticket_resolution_check CHECK (resolution_code IN ('accepted', 'auto_accepted', 'cancelled', 'rejected', 'duplicate', 'false_alarm')),
    CONSTRAINT ticket_hold_check CHECK (hold_reason IN ('material', 'plant_condition', 'customer', 'weather')),
    CONSTRAINT ticket_owner_fkey FOREIGN KEY (tenant_id, owner_account_id) REFERENCES account (tenant_id, id),
    CONSTRAINT ticket_type_check CHECK (type IN ('repair', 'maintenance', 'emergency_stop', 'part_request', 'potential_fault', 'inspection')),
    CONSTRAINT ticket_state_check CHECK (state IN ('submitted', 'pending_confirmation', 'dispatched', 'in_progress', 'pending_acceptance', 'closed')),
    CONSTRAINT ticket_priority_check CHECK (priority IN ('low', 'normal', 'high', 'emergency')),
    CONSTRAINT ticket_severity_check CHECK (severity IN ('low', 'medium', 'high')),
    CONSTRAINT ticket_closed_check CHECK ((state = 'closed') = (closed_at IS NOT NULL)),
    CONSTRAINT ticket_resolved_check CHECK ((state = 'closed') = (resolution_code IS NOT NULL)),
    CONSTRAINT ticket_duplicate_check CHECK ((duplicate_of IS NOT NULL) = (resolution_code IS NOT DISTINCT FROM 'duplicate') AND duplicate_of <> id)
);
-- One fault, one ticket.
CREATE UNIQUE INDEX ticket_open_potential_fault_key ON ticket (tenant_id, machine_id, fault_family)
    WHERE type = 'potential_fault' AND state <> 'closed';
CREATE INDEX ticket_open_idx ON ticket (tenant_id, state, created_at) WHERE state <> 'closed';
CREATE INDEX ticket_created_idx ON ticket (tenant_id, created_at, id);
CREATE INDEX ticket_machine_idx ON ticket (tenant_id, machine_id, created_at);

-- Certificates that whoever does the job must hold: all of them, at this level or above.
CREATE TABLE ticket_requirement (
    tenant_id int NOT NULL,
    ticket_id bigint NOT NULL,
    certificate_code text NOT NULL,
    level int NOT NULL DEFAULT 1,
    CONSTRAINT ticket_requirement_pkey PRIMARY KEY (tenant_id, ticket_id, certificate_code),
    CONSTRAINT ticket_requirement_ticket_fkey FOREIGN KEY (tenant_id, ticket_id) REFERENCES ticket (tenant_id, id)
);

CREATE TABLE ticket_event (
    id bigint GENERATED ALWAYS AS IDENTITY,
    tenant_id int NOT NULL,
    ticket_id bigint NOT NULL,
    at timestamptz NOT NULL,
    actor text NOT NULL,                  -- account login, or the name of the program that acted
    kind text NOT NULL,                   -- filed, transition, evidence, note, assignment
    from_state text,
    to_state text,
    reason text NOT NULL DEFAULT '',
    detail jsonb NOT NULL DEFAULT '{}',
    CONSTRAINT ticket_event_pkey PRIMARY KEY (id),
    CONSTRAINT ticket_event_ticket_fkey FOREIGN KEY (tenant_id, ticket_id) REFERENCES ticket (tenant_id, id),
    CONSTRAINT ticket_event_transition_fkey FOREIGN KEY (from_state, to_state) REFERENCES ticket_transition (from_state, to_state),
    CONSTRAINT ticket_event_kind_check CHECK (kind IN ('filed', 'transition', 'evidence', 'note', 'assignment')),
    CONSTRAINT ticket_event_pair_check CHECK ((kind = 'transition') = (from_state IS NOT NULL AND to_state IS NOT NULL))
);
CREATE INDEX ticket_event_ticket_idx ON ticket_event (tenant_id, ticket_id, id);

CREATE TABLE ticket_evidence (
    id bigint GENERATED ALWAYS AS IDENTITY,
    tenant_id int NOT NULL,
    ticket_id bigint NOT NULL,
    finding_id bigint,
    finding_key text NOT NULL,
    revision int NOT NULL,
    at timestamptz NOT NULL,
    evidence jsonb NOT NULL,
    CONSTRAINT ticket_evidence_pkey PRIMARY KEY (id),
    CONSTRAINT ticket_evidence_key UNIQUE (tenant_id, ticket_id, finding_key, revision),
    CONSTRAINT ticket_evidence_ticket_fkey FOREIGN KEY (tenant_id, ticket_id) REFERENCES ticket (tenant_id, id)
);

-- Why dispatch decided as it did, one row a decision: every candidate, what excluded it, its terms and score.
CREATE TABLE dispatch_decision (
    id bigint GENERATED ALWAYS AS IDENTITY,
    tenant_id int NOT NULL,
    ticket_id bigint NOT NULL,
    at timestamptz NOT NULL,
    actor text NOT NULL,
    outcome text NOT NULL,
    engineer_id int,
    record jsonb NOT NULL,
    CONSTRAINT dispatch_decision_pkey PRIMARY KEY (id),
    CONSTRAINT dispatch_decision_tenant_key UNIQUE (tenant_id, id),
    CONSTRAINT dispatch_decision_ticket_fkey FOREIGN KEY (tenant_id, ticket_id) REFERENCES ticket (tenant_id, id),
    CONSTRAINT dispatch_decision_engineer_fkey FOREIGN KEY (tenant_id, engineer_id) REFERENCES engineer (tenant_id, id),
    CONSTRAINT dispatch_decision_outcome_check CHECK (outcome IN ('offered', 'reassigned', 'nobody_eligible')),
    CONSTRAINT dispatch_decision_chosen_check CHECK ((outcome = 'nobody_eligible') = (engineer_id IS NULL))
);
CREATE INDEX dispatch_decision_ticket_idx ON dispatch_decision (tenant_id, ticket_id, id);

CREATE TABLE assignment (
    id bigint GENERATED ALWAYS AS IDENTITY,
    tenant_id int NOT NULL,
    ticket_id bigint NOT NULL,
    engineer_id int NOT NULL,
    status text NOT NULL DEFAULT 'offered',
    offered_at timestamptz NOT NULL,
    expires_at timestamptz,
    accepted_at timestamptz,
    started_at timestamptz,
    ended_at timestamptz,
    refusal text NOT NULL DEFAULT '',     -- why the engineer refused it
    planned_during tstzrange NOT NULL,    -- when the job is expected to be done: certificates must cover all of it
    decision_id bigint,
    reason jsonb NOT NULL,                -- why this engineer, in short; the whole of it is the decision's record
    CONSTRAINT assignment_pkey PRIMARY KEY (id),
    CONSTRAINT assignment_tenant_key UNIQUE (tenant_id, id),
    CONSTRAINT assignment_ticket_fkey FOREIGN KEY (tenant_id, ticket_id) REFERENCES ticket (tenant_id, id),
    CONSTRAINT assignment_engineer_fkey FOREIGN KEY (tenant_id, engineer_id) REFERENCES engineer (tenant_id, id),
    CONSTRAINT assignment_decision_fkey FOREIGN KEY (tenant_id, decision_id) REFERENCES dispatch_decision (tenant_id, id),
    CONSTRAINT assignment_planned_check CHECK (NOT isempty(planned_during) AND NOT lower_inf(planned_during) AND NOT upper_inf(planned_during)),
    CONSTRAINT assignment_status_check CHECK (status IN ('offered', 'accepted', 'started', 'rejected', 'expired', 'withdrawn', 'finished'))
);
CREATE UNIQUE INDEX assignment_live_key ON assignment (tenant_id, ticket_id) WHERE status IN ('offered', 'accepted', 'started');
CREATE INDEX assignment_ticket_idx ON assignment (tenant_id, ticket_id, id);
CREATE INDEX assignment_engineer_idx ON assignment (tenant_id, engineer_id, offered_at);

CREATE FUNCTION count_active_jobs() RETURNS trigger
LANGUAGE plpgsql
AS $$
DECLARE
    was_live boolean := TG_OP = 'UPDATE' AND OLD.status IN ('offered', 'accepted', 'started');
    is_live boolean := NEW.status IN ('offered', 'accepted', 'started');
BEGIN
    IF was_live AND NOT is_live THEN
        UPDATE engineer SET active_jobs = active_jobs - 1 WHERE tenant_id = OLD.tenant_id AND id = OLD.engineer_id;
    ELSIF is_live AND NOT was_live THEN
        UPDATE engineer SET active_jobs = active_jobs + 1 WHERE tenant_id = NEW.tenant_id AND id = NEW.engineer_id;
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER assignment_count_active_jobs AFTER INSERT OR UPDATE OF status ON assignment
    FOR EACH ROW EXECUTE FUNCTION count_active_jobs();

-- No way past a certificate: whatever program offers, accepts or starts a job, the engineer must hold every certificate
-- that the ticket requires, valid and reviewed for the whole of the job. The rows are locked, so that a certificate
-- cannot be withdrawn between this check and the commit.
CREATE FUNCTION check_certificates() RETURNS trigger
LANGUAGE plpgsql
AS $$
DECLARE
    lacking text;
BEGIN
    IF NEW.status NOT IN ('offered', 'accepted', 'started') THEN
        RETURN NEW;
    END IF;
    PERFORM FROM certificate AS c
    WHERE c.tenant_id = NEW.tenant_id AND c.engineer_id = NEW.engineer_id
    ORDER BY c.id FOR SHARE;
    SELECT string_agg(q.certificate_code || ' level ' || q.level, ', ') INTO lacking
    FROM ticket_requirement AS q
    WHERE q.tenant_id = NEW.tenant_id AND q.ticket_id = NEW.ticket_id
        AND NOT EXISTS (
            SELECT FROM certificate AS c
            WHERE c.tenant_id = NEW.tenant_id AND c.engineer_id = NEW.engineer_id AND c.code = q.certificate_code
                AND c.level >= q.level AND c.valid_during @> NEW.planned_during
                AND (c.review_due_at IS NULL OR c.review_due_at >= upper(NEW.planned_during))
        );
    IF lacking IS NOT NULL THEN
        RAISE EXCEPTION 'engineer % lacks % for ticket %', NEW.engineer_id, lacking, NEW.ticket_id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'assignment_certificate_check';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER assignment_check_certificates BEFORE INSERT OR UPDATE OF status, planned_during ON assignment
    FOR EACH ROW EXECUTE FUNCTION check_certificates();

-- What the engineer did, handed in with the result.
CREATE TABLE work_report (
    id bigint GENERATED ALWAYS AS IDENTITY,
    tenant_id int NOT NULL,
    ticket_id bigint NOT NULL,
    assignment_id bigint NOT NULL,
    at timestamptz NOT NULL,
    result text NOT NULL,
    cause text NOT NULL DEFAULT '',
    hours float8 NOT NULL,
    parts jsonb NOT NULL DEFAULT '[]',    -- [{"number", "quantity", "serial_in", "serial_out"}]
    CONSTRAINT work_report_pkey PRIMARY KEY (id),
    CONSTRAINT work_report_ticket_fkey FOREIGN KEY (tenant_id, ticket_id) REFERENCES ticket (tenant_id, id),
    CONSTRAINT work_report_assignment_fkey FOREIGN KEY (tenant_id, assignment_id) REFERENCES assignment (tenant_id, id),
    CONSTRAINT work_report_hours_check CHECK (hours >= 0 AND hours < 1000)
);
CREATE INDEX work_report_ticket_idx ON work_report (tenant_id, ticket_id);

-- Answers already given, so that a request sent twice acts once.
CREATE TABLE idempotency_key (
    tenant_id int NOT NULL,
    account_id int NOT NULL,
    key text NOT NULL,
    request_hash bytea NOT NULL,
    status int,
    headers jsonb,
    body jsonb,
    created_at timestamptz NOT NULL,
    CONSTRAINT idempotency_key_pkey PRIMARY KEY (tenant_id, account_id, key),
    CONSTRAINT idempotency_key_account_fkey FOREIGN KEY (tenant_id, account_id) REFERENCES account (tenant_id, id),
    CONSTRAINT idempotency_key_length_check CHECK (length(key) BETWEEN 1 AND 255)
);

CREATE FUNCTION check_transition() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM ticket_transition WHERE from_state = OLD.state AND to_state = NEW.state) THEN
        RAISE EXCEPTION 'a ticket does not go from % to %', OLD.state, NEW.state
            USING ERRCODE = 'check_violation', CONSTRAINT = 'ticket_transition_check';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER ticket_check_transition BEFORE UPDATE OF state ON ticket
    FOR EACH ROW WHEN (OLD.state IS DISTINCT FROM NEW.state) EXECUTE FUNCTION check_transition();

CREATE FUNCTION refuse_change() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    RAISE EXCEPTION 'table % is append-only', TG_TABLE_NAME USING ERRCODE = 'integrity_constraint_violation';
END
$$;
CREATE TRIGGER ticket_event_append_only BEFORE UPDATE OR DELETE ON ticket_event
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER ticket_event_no_truncate BEFORE TRUNCATE ON ticket_event
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER dispatch_decision_append_only BEFORE UPDATE OR DELETE ON dispatch_decision
    FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- Waking the loops. A slow poll backs every one of these, so a lost notification costs seconds, not work.
CREATE FUNCTION notify_ticket() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM pg_notify('fettle_ticket', '');  -- any login may listen: whose ticket it is, is not said
    RETURN NEW;
END
$$;
CREATE TRIGGER ticket_notify AFTER INSERT OR UPDATE OF state ON ticket
    FOR EACH ROW EXECUTE FUNCTION notify_ticket();

-- Row-level security, enabled and forced.
DO $$
DECLARE
    table_name text;
BEGIN
    FOREACH table_name IN ARRAY ARRAY['site', 'line', 'customer', 'machine', 'sensor', 'engineer', 'certificate',
        'engineer_shift', 'engineer_absence', 'account', 'login_session', 'finding', 'ticket', 'ticket_requirement',
        'ticket_event', 'ticket_evidence', 'dispatch_decision', 'assignment', 'work_report', 'idempotency_key']
    LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', table_name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', table_name);
        EXECUTE format('CREATE POLICY %I ON %I USING (tenant_id = (SELECT current_tenant())) '
                       'WITH CHECK (tenant_id = (SELECT current_tenant()))', table_name || '_tenant', table_name);
    END LOOP;
END
$$;
ALTER TABLE tenant ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenant FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_own ON tenant USING (id = (SELECT current_tenant())) WITH CHECK (id = (SELECT current_tenant()));
CREATE POLICY tenant_list ON tenant FOR SELECT TO fettle_worker USING (true);  -- the workers' only cross-tenant read

CREATE POLICY tenant_owner ON tenant TO CURRENT_USER USING (true) WITH CHECK (true);  -- makes new tenants

-- Logging in happens before the tenant is known. These functions are the only way past the policies; they answer only
-- to an exact login or token hash, and run as the owner of the tables.
CREATE POLICY account_login ON account FOR SELECT TO CURRENT_USER USING (true);
CREATE POLICY login_session_login ON login_session FOR SELECT TO CURRENT_USER USING (true);

CREATE FUNCTION find_account(wanted_login text)
RETURNS TABLE (tenant_id int, account_id int, password_hash text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp
AS $$
    SELECT a.tenant_id, a.id, a.password_hash FROM account AS a WHERE a.login = wanted_login AND a.is_active
$$;

CREATE FUNCTION find_login_session(wanted_token_hash bytea, at timestamptz)
RETURNS TABLE (tenant_id int, account_id int, login text, role text, display_name text, language text,
               engineer_id int, customer_id int)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp
AS $$
    SELECT a.tenant_id, a.id, a.login, a.role, a.display_name, a.language, a.engineer_id, a.customer_id
    FROM login_session AS s
    JOIN account AS a ON a.tenant_id = s.tenant_id AND a.id = s.account_id
    WHERE s.token_hash = wanted_token_hash AND s.expires_at > at AND a.is_active
$$;
REVOKE ALL ON FUNCTION find_account(text), find_login_session(bytea, timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION find_account(text), find_login_session(bytea, timestamptz) TO fettle_api;

-- Default deny: each role gets what its programs do, by name.
GRANT SELECT ON tenant, site, line, customer, machine, sensor, engineer, certificate, engineer_shift, engineer_absence,
    ticket, ticket_requirement, ticket_transition, ticket_event, ticket_evidence, dispatch_decision, assignment, work_report, finding TO fettle_api, fettle_worker;
GRANT INSERT, UPDATE ON site, line, customer, machine, sensor, engineer, certificate, engineer_shift, engineer_absence TO fettle_api, fettle_worker;
GRANT UPDATE (tickets_filed) ON tenant TO fettle_api, fettle_worker;
GRANT INSERT, UPDATE ON ticket TO fettle_api, fettle_worker;
GRANT INSERT, UPDATE (status, expires_at, accepted_at, started_at, ended_at, refusal, planned_during) ON assignment TO fettle_api, fettle_worker;
GRANT INSERT ON ticket_event, ticket_evidence, ticket_requirement, dispatch_decision, work_report TO fettle_api, fettle_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON idempotency_key TO fettle_api;
GRANT SELECT, INSERT, UPDATE ON account TO fettle_api;
GRANT SELECT (id, tenant_id, login, role, display_name, engineer_id, customer_id, is_active) ON account TO fettle_worker;
GRANT SELECT, INSERT, DELETE ON login_session TO fettle_api;
GRANT INSERT, UPDATE ON finding TO fettle_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON detector_state TO fettle_worker;
