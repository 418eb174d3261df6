-- Readings on TimescaleDB: a hypertable with columnstore compression and continuous aggregates. Policies are settings,
-- written at every migrate.

CREATE EXTENSION IF NOT EXISTS timescaledb;

CREATE TABLE reading (
    sensor_id int NOT NULL,
    quality smallint NOT NULL,
    flags smallint NOT NULL,
    ts timestamptz NOT NULL,
    value float8,
    CONSTRAINT reading_pkey PRIMARY KEY (sensor_id, ts)
);
SELECT create_hypertable('reading', by_range('ts', interval '7 days'), create_default_indexes => false);
ALTER TABLE reading SET (
    timescaledb.enable_columnstore,
    timescaledb.segmentby = 'sensor_id',
    timescaledb.orderby = 'ts DESC'
);

-- Chunks make themselves; the name stays so that nothing above knows the difference.
CREATE FUNCTION ensure_reading_partitions(from_ts timestamptz, to_ts timestamptz) RETURNS int
LANGUAGE sql IMMUTABLE
AS $$ SELECT 0 $$;

CREATE MATERIALIZED VIEW reading_1m WITH (timescaledb.continuous, timescaledb.materialized_only = false) AS
SELECT sensor_id, time_bucket(interval '1 minute', ts) AS bucket,
    count(value)::int AS n, sum(value) AS total, min(value) AS low, max(value) AS high, sum(value * value) AS sum_of_squares
FROM reading
GROUP BY 1, 2
WITH NO DATA;

CREATE MATERIALIZED VIEW reading_1h WITH (timescaledb.continuous, timescaledb.materialized_only = false) AS
SELECT sensor_id, time_bucket(interval '1 hour', bucket) AS bucket,
    sum(n)::int AS n, sum(total) AS total, min(low) AS low, max(high) AS high, sum(sum_of_squares) AS sum_of_squares
FROM reading_1m
GROUP BY 1, 2
WITH NO DATA;

CREATE MATERIALIZED VIEW reading_1d WITH (timescaledb.continuous, timescaledb.materialized_only = false) AS
SELECT sensor_id, time_bucket(interval '1 day', bucket) AS bucket,
    sum(n)::int AS n, sum(total) AS total, min(low) AS low, max(high) AS high, sum(sum_of_squares) AS sum_of_squares
FROM reading_1h
GROUP BY 1, 2
WITH NO DATA;

GRANT SELECT, INSERT, UPDATE ON reading TO fettle_worker;
GRANT SELECT ON reading_1m, reading_1h, reading_1d TO fettle_worker;
