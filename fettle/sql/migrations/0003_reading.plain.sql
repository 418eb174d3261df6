-- Readings on plain PostgreSQL: native range partitions by week, made ahead and on demand, BRIN on time, and rollups
-- that our own job recomputes from the readings wherever the ledger of batches says that something arrived.

CREATE TABLE reading (
    sensor_id int NOT NULL,
    quality smallint NOT NULL,
    flags smallint NOT NULL,
    ts timestamptz NOT NULL,
    value float8,
    CONSTRAINT reading_pkey PRIMARY KEY (sensor_id, ts)
) PARTITION BY RANGE (ts);

-- Make the weekly partitions that cover [from_ts, to_ts]. Safe to call from several writers at once.
CREATE FUNCTION ensure_reading_partitions(from_ts timestamptz, to_ts timestamptz) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp
AS $$
DECLARE
    starts_at timestamptz := date_bin('7 days', from_ts, timestamptz '2000-01-03 00:00+00');
    partition_name text;
    made int := 0;
BEGIN
    IF to_ts - from_ts > interval '40 years' THEN
        RAISE EXCEPTION 'a span of % is not a plausible range of readings', to_ts - from_ts;
    END IF;
    WHILE starts_at <= to_ts LOOP
        partition_name := 'reading_' || to_char(starts_at AT TIME ZONE 'UTC', 'YYYYMMDD');
        IF to_regclass(partition_name) IS NULL THEN
            PERFORM pg_advisory_xact_lock(hashtext('fettle.reading_partitions'));
            IF to_regclass(partition_name) IS NULL THEN
                -- attached, not made as a partition: that would lock out every reader and writer of the parent
                EXECUTE format('CREATE TABLE %I (LIKE reading INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING INDEXES)',
                               partition_name);
                EXECUTE format('CREATE INDEX %I ON %I USING brin (ts)', partition_name || '_ts_idx', partition_name);
                EXECUTE format('ALTER TABLE reading ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                               partition_name, starts_at, starts_at + interval '7 days');
                made := made + 1;
            END IF;
        END IF;
        starts_at := starts_at + interval '7 days';
    END LOOP;
    RETURN made;
END
$$;

CREATE TABLE reading_1m (
    sensor_id int NOT NULL,
    bucket timestamptz NOT NULL,
    n int NOT NULL,
    total float8,
    low float8,
    high float8,
    sum_of_squares float8,
    CONSTRAINT reading_1m_pkey PRIMARY KEY (sensor_id, bucket)
);
CREATE TABLE reading_1h (LIKE reading_1m);
ALTER TABLE reading_1h ADD CONSTRAINT reading_1h_pkey PRIMARY KEY (sensor_id, bucket);
CREATE TABLE reading_1d (LIKE reading_1m);
ALTER TABLE reading_1d ADD CONSTRAINT reading_1d_pkey PRIMARY KEY (sensor_id, bucket);

-- How far the rollup job has read each collector's batches. The ledger is its queue: a batch and its readings commit
-- together, so what lies beyond the position is exactly what the rollups lack, late readings included.
CREATE TABLE rollup_position (
    collector_id int NOT NULL,
    number bigint NOT NULL,
    CONSTRAINT rollup_position_pkey PRIMARY KEY (collector_id),
    CONSTRAINT rollup_position_collector_fkey FOREIGN KEY (collector_id) REFERENCES collector (id)
);

REVOKE ALL ON FUNCTION ensure_reading_partitions(timestamptz, timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ensure_reading_partitions(timestamptz, timestamptz) TO fettle_worker;
GRANT SELECT, INSERT, UPDATE ON reading TO fettle_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON reading_1m, reading_1h, reading_1d, rollup_position TO fettle_worker;
