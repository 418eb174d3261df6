-- Collectors, the ledger of batches, rejected messages, what readings do not hold. These carry no row-level security,
-- because COPY, columnstore and continuous aggregates refuse it; they are granted to no tenant role. Tenants read the
-- definer-owned views in schema report.

CREATE TABLE collector (
    id int GENERATED ALWAYS AS IDENTITY,
    name text NOT NULL,                   -- MQTT client id, or the name of an importer
    has_session boolean NOT NULL DEFAULT false,  -- subscribed before: its session should be present at the broker
    sessions_lost int NOT NULL DEFAULT 0,        -- times that the broker had forgotten it
    lease_token uuid,                     -- who writes: checked by every batch, so that a writer thought dead cannot go on
    leased_at timestamptz,                -- liveness itself is an advisory lock of the writer's connection
    last_number bigint NOT NULL DEFAULT 0,
    CONSTRAINT collector_pkey PRIMARY KEY (id),
    CONSTRAINT collector_name_key UNIQUE (name)
);

-- One row per stored batch, in the order of its collector. It settles whether a lost COMMIT took effect, and is the
-- arrival order that detection folds over: the batch's own readings stay in `payload` for some hours.
CREATE TABLE batch (
    collector_id int NOT NULL,
    number bigint NOT NULL,
    committed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    messages int NOT NULL DEFAULT 0,
    stored int NOT NULL DEFAULT 0,
    duplicates int NOT NULL DEFAULT 0,
    collisions int NOT NULL DEFAULT 0,
    rejected int NOT NULL DEFAULT 0,
    ignored int NOT NULL DEFAULT 0,
    first_ts timestamptz,
    last_ts timestamptz,
    payload bytea,                        -- the stored readings, 24 bytes each (fettle.wire.READING_DTYPE), sorted by sensor and time
    CONSTRAINT batch_pkey PRIMARY KEY (collector_id, number),
    CONSTRAINT batch_collector_fkey FOREIGN KEY (collector_id) REFERENCES collector (id)
);
ALTER TABLE batch ALTER COLUMN payload SET STORAGE EXTERNAL;
CREATE INDEX batch_committed_at_idx ON batch (committed_at);

CREATE FUNCTION notify_batch() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM pg_notify('fettle_batch', '');
    RETURN NEW;
END
$$;
CREATE TRIGGER batch_notify AFTER INSERT ON batch FOR EACH STATEMENT EXECUTE FUNCTION notify_batch();

CREATE TABLE rejected_message (
    id bigint GENERATED ALWAYS AS IDENTITY,
    tenant_id int,                        -- null: the topic does not say whose it is
    collector_id int,
    received_at timestamptz NOT NULL,
    topic bytea NOT NULL,                 -- bytea throughout: the text may be what the database refuses
    payload bytea NOT NULL,
    reason text NOT NULL,
    detail text NOT NULL DEFAULT '',
    qos int NOT NULL DEFAULT 1,
    is_retained boolean NOT NULL DEFAULT false,
    CONSTRAINT rejected_message_pkey PRIMARY KEY (id)
);
CREATE INDEX rejected_message_received_at_idx ON rejected_message (received_at);

CREATE TABLE reading_text (
    sensor_id int NOT NULL,
    quality smallint NOT NULL,
    flags smallint NOT NULL,
    ts timestamptz NOT NULL,
    value text NOT NULL,
    CONSTRAINT reading_text_pkey PRIMARY KEY (sensor_id, ts)
);

CREATE TABLE waveform (
    sensor_id int NOT NULL,
    t0 timestamptz NOT NULL,
    fs_hz float8 NOT NULL,
    n int NOT NULL,
    dtype text NOT NULL,
    scale float8 NOT NULL DEFAULT 1,
    data bytea NOT NULL,
    CONSTRAINT waveform_pkey PRIMARY KEY (sensor_id, t0)
);

-- Last sign of life of a device or gateway, from births, deaths, wills and availability topics.
CREATE TABLE liveness (
    tenant_id int NOT NULL,
    source text NOT NULL,
    is_online boolean NOT NULL,
    at timestamptz NOT NULL,
    detail text NOT NULL DEFAULT '',
    CONSTRAINT liveness_pkey PRIMARY KEY (tenant_id, source)
);

-- Names and aliases that Sparkplug edge nodes gave with their births: data carries the alias alone, so a restart of ours
-- must not forget them.
CREATE TABLE sparkplug_node (
    tenant_id int NOT NULL,
    group_name text NOT NULL,
    edge_node text NOT NULL,
    births bytea NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT sparkplug_node_pkey PRIMARY KEY (tenant_id, group_name, edge_node)
);

GRANT SELECT, INSERT, UPDATE ON collector, liveness, sparkplug_node TO fettle_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON batch, rejected_message, reading_text, waveform TO fettle_worker;
