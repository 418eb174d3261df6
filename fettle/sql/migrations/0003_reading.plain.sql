-- Readings on plain PostgreSQL: native range partitions by week made ahead, BRIN on time, rollups kept by our own job
-- from a queue of dirty buckets.

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
                EXECUTE format('CREATE TABLE %I PARTITION OF reading FOR VALUES FROM (%L) TO (%L)',
                               partition_name, starts_at, starts_at + interval '7 days');
                EXECUTE format('CREATE INDEX %I ON %I USING brin (ts)', partition_name || '_ts_idx', partition_name);
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

-- Buckets of one hour whose rollups must be computed again from the readings. Written with each batch.
CREATE TABLE dirty_bucket (
    sensor_id int NOT NULL,
    bucket timestamptz NOT NULL,
    CONSTRAINT dirty_bucket_pkey PRIMARY KEY (sensor_id, bucket)
);

REVOKE ALL ON FUNCTION ensure_reading_partitions(timestamptz, timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ensure_reading_partitions(timestamptz, timestamptz) TO fettle_worker;
GRANT SELECT, INSERT, UPDATE ON reading TO fettle_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON reading_1m, reading_1h, reading_1d, dirty_bucket TO fettle_worker;
