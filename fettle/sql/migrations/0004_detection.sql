-- How people steer detection: inhibitions, outcomes of findings, raised alarm levels, orders, model versions, shadow runs.

ALTER TABLE finding ADD COLUMN held text NOT NULL DEFAULT '';   -- why its last change was not handed on: '', inhibited, watch
ALTER TABLE finding ADD COLUMN held_by bigint;                  -- the inhibition that holds or held it
ALTER TABLE finding ADD CONSTRAINT finding_held_check CHECK (held IN ('', 'inhibited', 'watch'));
CREATE INDEX finding_key_idx ON finding (tenant_id, key);

-- No ticket for a while, by a person's decision. Each kind has its longest time: nothing stays silent because it was forgotten.
CREATE TABLE inhibition (
    id bigint GENERATED ALWAYS AS IDENTITY,
    tenant_id int NOT NULL,
    machine_id int NOT NULL,
    sensor_id int,                        -- null: every sensor of the machine
    fault_family text NOT NULL DEFAULT '',  -- empty: every family
    kind text NOT NULL,
    starts_at timestamptz NOT NULL,
    ends_at timestamptz NOT NULL,
    reason text NOT NULL,
    created_by text NOT NULL,
    created_at timestamptz NOT NULL,
    ended_at timestamptz,                 -- a person ended it before its time
    ended_by text NOT NULL DEFAULT '',
    CONSTRAINT inhibition_pkey PRIMARY KEY (id),
    CONSTRAINT inhibition_tenant_key UNIQUE (tenant_id, id),
    CONSTRAINT inhibition_machine_fkey FOREIGN KEY (tenant_id, machine_id) REFERENCES machine (tenant_id, id),
    CONSTRAINT inhibition_sensor_fkey FOREIGN KEY (tenant_id, sensor_id) REFERENCES sensor (tenant_id, id),
    CONSTRAINT inhibition_kind_check CHECK (kind IN ('shelved', 'suppressed', 'out_of_service', 'maintenance')),
    CONSTRAINT inhibition_reason_check CHECK (btrim(reason) <> ''),
    CONSTRAINT inhibition_ended_check CHECK ((ended_at IS NULL) = (ended_by = '')),
    CONSTRAINT inhibition_length_check CHECK (ends_at > starts_at AND ends_at - starts_at <= CASE kind
        WHEN 'shelved' THEN interval '168 hours'
        WHEN 'maintenance' THEN interval '720 hours'
        WHEN 'suppressed' THEN interval '2160 hours'
        ELSE interval '8784 hours' END)
);
CREATE INDEX inhibition_machine_idx ON inhibition (tenant_id, machine_id, ends_at);

-- What became of a finding, as people found it; or a failure that detection missed (no finding).
CREATE TABLE finding_outcome (
    id bigint GENERATED ALWAYS AS IDENTITY,
    tenant_id int NOT NULL,
    machine_id int NOT NULL,
    finding_id bigint,
    fault_family text NOT NULL,
    detector text NOT NULL DEFAULT '',
    machine_class text NOT NULL DEFAULT '',
    outcome text NOT NULL,
    reason text NOT NULL DEFAULT '',      -- of a rejection
    action text NOT NULL DEFAULT 'none',  -- what was done to the machine
    note text NOT NULL DEFAULT '',
    ticket text NOT NULL DEFAULT '',      -- number of the ticket whose closing said so; empty: a person said it of the finding
    decided_by text NOT NULL,
    decided_at timestamptz NOT NULL,
    is_assumed boolean NOT NULL DEFAULT false,  -- follows only from how the ticket was closed; nobody said it in so many words
    learned_at timestamptz,               -- when detection drew its conclusions
    CONSTRAINT finding_outcome_pkey PRIMARY KEY (id),
    CONSTRAINT finding_outcome_finding_fkey FOREIGN KEY (tenant_id, finding_id) REFERENCES finding (tenant_id, id),
    CONSTRAINT finding_outcome_machine_fkey FOREIGN KEY (tenant_id, machine_id) REFERENCES machine (tenant_id, id),
    CONSTRAINT finding_outcome_outcome_check CHECK (outcome IN ('confirmed', 'rejected', 'unknown', 'missed')),
    CONSTRAINT finding_outcome_finding_check CHECK ((outcome = 'missed') = (finding_id IS NULL)),
    CONSTRAINT finding_outcome_reason_check CHECK (
        reason IN ('', 'process_change', 'sensor', 'tolerated', 'duplicate') AND (reason = '' OR outcome = 'rejected')),
    CONSTRAINT finding_outcome_action_check CHECK (action IN ('none', 'repaired', 'replaced'))
);
CREATE INDEX finding_outcome_finding_idx ON finding_outcome (tenant_id, finding_id);
CREATE INDEX finding_outcome_rule_idx ON finding_outcome (tenant_id, decided_at);
CREATE UNIQUE INDEX finding_outcome_ticket_key ON finding_outcome (tenant_id, ticket, finding_id) WHERE ticket <> '';
CREATE INDEX finding_outcome_unlearned_idx ON finding_outcome (tenant_id, id) WHERE learned_at IS NULL;

CREATE INDEX ticket_closed_fault_idx ON ticket (tenant_id, closed_at) WHERE type = 'potential_fault' AND state = 'closed';

-- An alarm level that a rejection raised: of one rule on one sensor, bounded, for a time.
CREATE TABLE alarm_lift (
    id bigint GENERATED ALWAYS AS IDENTITY,
    tenant_id int NOT NULL,
    machine_id int NOT NULL,
    sensor_id int NOT NULL,
    feature text NOT NULL,
    factor float8 NOT NULL,               -- of the calibrated alarm level
    is_stopped boolean NOT NULL DEFAULT false,  -- rejected so often that a rule without a level is silent altogether
    outcome_id bigint NOT NULL,           -- the rejection that led to it
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    ended_at timestamptz,
    CONSTRAINT alarm_lift_pkey PRIMARY KEY (id),
    CONSTRAINT alarm_lift_key UNIQUE (tenant_id, outcome_id, sensor_id, feature),
    CONSTRAINT alarm_lift_machine_fkey FOREIGN KEY (tenant_id, machine_id) REFERENCES machine (tenant_id, id),
    CONSTRAINT alarm_lift_sensor_fkey FOREIGN KEY (tenant_id, sensor_id) REFERENCES sensor (tenant_id, id),
    CONSTRAINT alarm_lift_factor_check CHECK (factor >= 1 AND factor <= CASE WHEN is_stopped THEN 20 ELSE 2 END),
    CONSTRAINT alarm_lift_expiry_check CHECK (expires_at - created_at <= interval '2160 hours')
);
CREATE INDEX alarm_lift_machine_idx ON alarm_lift (tenant_id, machine_id, expires_at);

-- What detection is told to do with the model of one machine; done with the state that follows, in one transaction.
CREATE TABLE detector_order (
    id bigint GENERATED ALWAYS AS IDENTITY,
    tenant_id int NOT NULL,
    machine_id int NOT NULL,
    kind text NOT NULL,
    version text NOT NULL DEFAULT '',     -- of an activation
    reason text NOT NULL,
    ordered_by text NOT NULL,
    ordered_at timestamptz NOT NULL,
    done_at timestamptz,
    refusal text NOT NULL DEFAULT '',     -- why it was not carried out, where it is done without
    CONSTRAINT detector_order_pkey PRIMARY KEY (id),
    CONSTRAINT detector_order_machine_fkey FOREIGN KEY (tenant_id, machine_id) REFERENCES machine (tenant_id, id),
    CONSTRAINT detector_order_kind_check CHECK (kind IN ('reset', 'activate')),
    CONSTRAINT detector_order_version_check CHECK ((kind = 'activate') = (version <> '')),
    CONSTRAINT detector_order_reason_check CHECK (btrim(reason) <> '')
);
CREATE INDEX detector_order_waiting_idx ON detector_order (tenant_id, id) WHERE done_at IS NULL;

-- What was learned of one machine, for good: parameters and arrays, never changed.
CREATE TABLE model_version (
    tenant_id int NOT NULL,
    machine_id int NOT NULL,
    version text NOT NULL,
    number int NOT NULL,                  -- counts the fits of this machine
    sha256 text NOT NULL,                 -- of `arrays`
    trained_from timestamptz,
    trained_until timestamptz,
    config_digest text NOT NULL,
    code_version text NOT NULL,
    feature_schema jsonb NOT NULL,        -- name -> type and shape of every array
    metrics jsonb NOT NULL,
    arrays bytea NOT NULL,                -- .npz without pickled objects
    created_at timestamptz NOT NULL,
    CONSTRAINT model_version_pkey PRIMARY KEY (tenant_id, machine_id, version),
    CONSTRAINT model_version_machine_fkey FOREIGN KEY (tenant_id, machine_id) REFERENCES machine (tenant_id, id)
);

-- Configurations of the installation, never changed, and which of them is in force: the last row of the second table.
CREATE TABLE detector_config (
    id int GENERATED ALWAYS AS IDENTITY,
    name text NOT NULL,
    digest text NOT NULL,
    body jsonb NOT NULL,                  -- the fields that differ from the shipped ones
    created_by text NOT NULL,
    created_at timestamptz NOT NULL,
    CONSTRAINT detector_config_pkey PRIMARY KEY (id),
    CONSTRAINT detector_config_name_key UNIQUE (name),
    CONSTRAINT detector_config_name_check CHECK (name ~ '^[a-z0-9][a-z0-9_-]{0,62}$')
);
CREATE TABLE detector_promotion (
    id int GENERATED ALWAYS AS IDENTITY,
    config_id int,                        -- null: the shipped configuration
    reason text NOT NULL,
    promoted_by text NOT NULL,
    promoted_at timestamptz NOT NULL,
    CONSTRAINT detector_promotion_pkey PRIMARY KEY (id),
    CONSTRAINT detector_promotion_config_fkey FOREIGN KEY (config_id) REFERENCES detector_config (id)
);

-- What a configuration in shadow found: never announced, beside the findings of the live one.
CREATE TABLE shadow_finding (
    id bigint GENERATED ALWAYS AS IDENTITY,
    tenant_id int NOT NULL,
    config_id int NOT NULL,
    machine_id int NOT NULL,
    key text NOT NULL,
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
    change text NOT NULL,
    CONSTRAINT shadow_finding_pkey PRIMARY KEY (id),
    CONSTRAINT shadow_finding_key UNIQUE (tenant_id, config_id, machine_id, key),
    CONSTRAINT shadow_finding_machine_fkey FOREIGN KEY (tenant_id, machine_id) REFERENCES machine (tenant_id, id),
    CONSTRAINT shadow_finding_config_fkey FOREIGN KEY (config_id) REFERENCES detector_config (id)
);

-- Who did what to detection, and what detection held back or took up again: append-only.
CREATE TABLE detection_event (
    id bigint GENERATED ALWAYS AS IDENTITY,
    tenant_id int NOT NULL,
    machine_id int NOT NULL,
    at timestamptz NOT NULL,
    actor text NOT NULL,
    kind text NOT NULL,
    reason text NOT NULL DEFAULT '',
    detail jsonb NOT NULL DEFAULT '{}',
    CONSTRAINT detection_event_pkey PRIMARY KEY (id),
    CONSTRAINT detection_event_machine_fkey FOREIGN KEY (tenant_id, machine_id) REFERENCES machine (tenant_id, id),
    CONSTRAINT detection_event_kind_check CHECK (kind IN ('inhibited', 'inhibition_ended', 'held', 'released', 'outcome', 'level_raised',
        'level_restored', 'proposed', 'ordered', 'reset', 'activated', 'refused'))
);
CREATE INDEX detection_event_machine_idx ON detection_event (tenant_id, machine_id, id);

DO $$
DECLARE
    table_name text;
BEGIN
    FOREACH table_name IN ARRAY ARRAY['detection_event', 'model_version', 'detector_config', 'detector_promotion'] LOOP
        EXECUTE format('CREATE TRIGGER %I BEFORE UPDATE OR DELETE ON %I FOR EACH ROW EXECUTE FUNCTION refuse_change()',
                       table_name || '_append_only', table_name);
        EXECUTE format('CREATE TRIGGER %I BEFORE TRUNCATE ON %I FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()',
                       table_name || '_no_truncate', table_name);
    END LOOP;
    FOREACH table_name IN ARRAY ARRAY['inhibition', 'finding_outcome', 'alarm_lift', 'detector_order', 'model_version', 'shadow_finding',
        'detection_event']
    LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', table_name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', table_name);
        EXECUTE format('CREATE POLICY %I ON %I USING (tenant_id = (SELECT current_tenant())) '
                       'WITH CHECK (tenant_id = (SELECT current_tenant()))', table_name || '_tenant', table_name);
    END LOOP;
END
$$;

-- Waking detection for an order, an outcome or an inhibition; a slow poll backs it.
CREATE FUNCTION notify_detection() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM pg_notify('fettle_detection', '');
    RETURN NULL;
END
$$;
CREATE TRIGGER inhibition_notify AFTER INSERT OR UPDATE ON inhibition FOR EACH STATEMENT EXECUTE FUNCTION notify_detection();
CREATE TRIGGER finding_outcome_notify AFTER INSERT ON finding_outcome FOR EACH STATEMENT EXECUTE FUNCTION notify_detection();
CREATE TRIGGER detector_order_notify AFTER INSERT ON detector_order FOR EACH STATEMENT EXECUTE FUNCTION notify_detection();
CREATE TRIGGER detector_promotion_notify AFTER INSERT ON detector_promotion FOR EACH STATEMENT EXECUTE FUNCTION notify_detection();

GRANT SELECT ON inhibition, finding_outcome, alarm_lift, detector_order, model_version, shadow_finding, detection_event, detector_config,
    detector_promotion TO fettle_api, fettle_worker;
GRANT INSERT ON inhibition, finding_outcome, detector_order, detection_event TO fettle_api, fettle_worker;
GRANT UPDATE (ended_at, ended_by) ON inhibition TO fettle_api, fettle_worker;
GRANT UPDATE (learned_at) ON finding_outcome TO fettle_worker;
GRANT UPDATE (done_at, refusal) ON detector_order TO fettle_worker;
GRANT INSERT, UPDATE (ended_at) ON alarm_lift TO fettle_worker;
GRANT INSERT ON model_version, detector_config, detector_promotion TO fettle_worker;
GRANT INSERT, UPDATE, DELETE ON shadow_finding TO fettle_worker;
