-- name: list_tenants
-- Which tenants exist; the workers' only read across tenants.
SELECT id, slug FROM tenant

-- name: name_tenant
-- Say whose catalogue the rest of the transaction reads and writes.
SELECT set_config('fettle.tenant', %(tenant_id)s::text, true)

-- name: find_sensors
-- The sensors of the named places that exist, with the place's position in the arrays. Place by place, so that no statistics,
-- old or absent, can turn a look-up by the whole key into a walk over all sensors of a name.
SELECT w.i::int - 1, s.id, s.kind, s.unit, s.is_enabled
FROM unnest(%(sites)s::text[], %(machines)s::text[], %(sensors)s::text[]) WITH ORDINALITY AS w (site, machine, sensor, i)
CROSS JOIN LATERAL (
    SELECT m.id FROM machine AS m
    WHERE m.tenant_id = %(tenant_id)s::int AND m.number = w.machine
        AND m.site_id = (SELECT p.id FROM site AS p WHERE p.tenant_id = %(tenant_id)s::int AND p.code = w.site)
    LIMIT 1
) AS m
CROSS JOIN LATERAL (
    SELECT f.id, f.kind, f.unit, f.is_enabled FROM sensor AS f
    WHERE f.tenant_id = %(tenant_id)s::int AND f.machine_id = m.id AND f.name = w.sensor
    LIMIT 1
) AS s

-- name: count_sensors
-- How many sensors the tenant has: the guard against topics made up by the thousand.
SELECT count(*) FROM sensor WHERE tenant_id = %(tenant_id)s::int

-- name: register_sites
-- Make the sites that topics name and nobody has entered.
INSERT INTO site (tenant_id, code, name)
SELECT DISTINCT %(tenant_id)s::int, w.site, w.site
FROM unnest(%(sites)s::text[]) AS w (site)
WHERE NOT EXISTS (SELECT FROM site AS p WHERE p.tenant_id = %(tenant_id)s::int AND p.code = w.site)
ORDER BY 2
ON CONFLICT DO NOTHING

-- name: register_machines
-- Make the machines that topics name and nobody has entered.
INSERT INTO machine (tenant_id, site_id, number, name, is_registered_by_topic)
SELECT DISTINCT %(tenant_id)s::int, p.id, w.machine, w.machine, true
FROM unnest(%(sites)s::text[], %(machines)s::text[]) AS w (site, machine)
JOIN site AS p ON p.tenant_id = %(tenant_id)s::int AND p.code = w.site
WHERE NOT EXISTS (SELECT FROM machine AS m
                  WHERE m.tenant_id = %(tenant_id)s::int AND m.site_id = p.id AND m.number = w.machine)
ORDER BY 2, 3
ON CONFLICT DO NOTHING

-- name: register_sensors
-- Make the sensors that topics name and nobody has entered.
INSERT INTO sensor (tenant_id, machine_id, name, kind, unit)
SELECT DISTINCT ON (m.id, w.sensor) %(tenant_id)s::int, m.id, w.sensor, w.kind, w.unit
FROM unnest(%(sites)s::text[], %(machines)s::text[], %(sensors)s::text[], %(kinds)s::text[], %(units)s::text[])
    WITH ORDINALITY AS w (site, machine, sensor, kind, unit, i)
CROSS JOIN LATERAL (
    SELECT f.id FROM machine AS f
    WHERE f.tenant_id = %(tenant_id)s::int AND f.number = w.machine
        AND f.site_id = (SELECT p.id FROM site AS p WHERE p.tenant_id = %(tenant_id)s::int AND p.code = w.site)
    LIMIT 1
) AS m
ORDER BY m.id, w.sensor, w.i
ON CONFLICT DO NOTHING

-- name: name_units
-- Give sensors the unit that their messages now carry, where they had none.
UPDATE sensor AS s SET unit = w.unit, kind = w.kind
FROM unnest(%(ids)s::int[], %(kinds)s::text[], %(units)s::text[]) AS w (id, kind, unit)
WHERE s.tenant_id = %(tenant_id)s::int AND s.id = w.id AND s.unit = ''

-- name: disabled_sensors
-- Sensors whose messages are to be ignored.
SELECT id FROM sensor WHERE tenant_id = %(tenant_id)s::int AND NOT is_enabled

-- name: know_collector
-- Make the collector's row at its first start.
INSERT INTO collector (name) VALUES (%(name)s) ON CONFLICT (name) DO NOTHING

-- name: find_collector
-- Who the collector is, and who leased it last.
SELECT id, lease_token FROM collector WHERE name = %(name)s

-- name: lock_collector
-- Take the collector's lease for as long as this connection lives; false: another connection has it.
SELECT pg_try_advisory_lock(%(space)s::int, %(collector_id)s::int)

-- name: lease_collector
-- Become the one writer; waits for a transaction of the last connection that is still committing.
UPDATE collector SET lease_token = %(token)s, leased_at = clock_timestamp()
WHERE id = %(collector_id)s
RETURNING last_number, has_session

-- name: find_batch
-- What became of a batch whose COMMIT was not answered.
SELECT stored, duplicates, collisions, rejected FROM batch WHERE collector_id = %(collector_id)s AND number = %(number)s

-- name: write_batch
-- The ledger row of a batch; none is written where another process has taken the lease.
WITH holder AS (
    UPDATE collector SET last_number = %(number)s
    WHERE id = %(collector_id)s AND lease_token = %(token)s AND last_number = %(number)s::bigint - 1
    RETURNING id
)
INSERT INTO batch (collector_id, number, messages, stored, duplicates, collisions, rejected, ignored, first_ts, last_ts, payload)
SELECT holder.id, %(number)s, %(messages)s, %(stored)s, %(duplicates)s, %(collisions)s, %(rejected)s, %(ignored)s,
    %(first_ts)s::timestamptz, %(last_ts)s::timestamptz, %(payload)s
FROM holder

-- name: insert_readings
-- The conflict path: store what is new, and say what was.
INSERT INTO reading (sensor_id, quality, flags, ts, value)
SELECT w.sensor_id, w.quality, w.flags, w.ts, nullif(w.value, 'NaN')
FROM unnest(%(sensor_ids)s::int[], %(qualities)s::smallint[], %(flags)s::smallint[], %(ts)s::timestamptz[], %(values)s::float8[])
    AS w (sensor_id, quality, flags, ts, value)
ORDER BY w.sensor_id, w.ts
ON CONFLICT DO NOTHING
RETURNING sensor_id, (extract(epoch FROM ts) * 1000000)::bigint

-- name: count_collisions
-- Of readings whose key exists already, those whose value is another one.
SELECT w.i::int - 1
FROM unnest(%(sensor_ids)s::int[], %(ts)s::timestamptz[], %(values)s::float8[]) WITH ORDINALITY AS w (sensor_id, ts, value, i)
JOIN reading AS r ON r.sensor_id = w.sensor_id AND r.ts = w.ts
WHERE r.ts >= %(first_ts)s::timestamptz AND r.ts <= %(last_ts)s::timestamptz
    AND r.value IS DISTINCT FROM nullif(w.value, 'NaN')

-- name: overwrite_readings
-- Policy `last`: the newer value replaces the older one.
UPDATE reading AS r SET value = nullif(w.value, 'NaN'), quality = w.quality, flags = w.flags
FROM unnest(%(sensor_ids)s::int[], %(qualities)s::smallint[], %(flags)s::smallint[], %(ts)s::timestamptz[], %(values)s::float8[])
    AS w (sensor_id, quality, flags, ts, value)
WHERE r.sensor_id = w.sensor_id AND r.ts = w.ts
    AND r.ts >= %(first_ts)s::timestamptz AND r.ts <= %(last_ts)s::timestamptz

-- name: insert_texts
-- Readings that are words.
INSERT INTO reading_text (sensor_id, quality, flags, ts, value)
SELECT w.sensor_id, w.quality, w.flags, w.ts, w.value
FROM unnest(%(sensor_ids)s::int[], %(qualities)s::smallint[], %(flags)s::smallint[], %(ts)s::timestamptz[], %(values)s::text[])
    AS w (sensor_id, quality, flags, ts, value)
ORDER BY w.sensor_id, w.ts
ON CONFLICT DO NOTHING

-- name: count_text_collisions
-- Words whose key holds another word; asked after the insert.
SELECT count(*)
FROM unnest(%(sensor_ids)s::int[], %(ts)s::timestamptz[], %(values)s::text[]) AS w (sensor_id, ts, value)
JOIN reading_text AS r ON r.sensor_id = w.sensor_id AND r.ts = w.ts
WHERE r.value <> w.value

-- name: insert_waveform
-- One burst of samples.
INSERT INTO waveform (sensor_id, t0, fs_hz, n, dtype, scale, data)
VALUES (%(sensor_id)s, %(t0)s, %(fs_hz)s, %(n)s, %(dtype)s, %(scale)s, %(data)s)
ON CONFLICT DO NOTHING

-- name: record_life
-- The last sign of life of each source; an older one changes nothing.
INSERT INTO liveness (tenant_id, source, is_online, at, detail)
VALUES (%(tenant_id)s, %(source)s, %(is_online)s, %(at)s, %(detail)s)
ON CONFLICT (tenant_id, source) DO UPDATE SET is_online = EXCLUDED.is_online, at = EXCLUDED.at, detail = EXCLUDED.detail
WHERE liveness.at <= EXCLUDED.at

-- name: reject_messages
-- What could not be stored, with the message as it came.
INSERT INTO rejected_message (tenant_id, collector_id, received_at, topic, payload, reason, detail, is_retained)
SELECT w.tenant_id, %(collector_id)s, w.received_at, w.topic, w.payload, w.reason, w.detail, w.is_retained
FROM unnest(%(tenant_ids)s::int[], %(received_at)s::timestamptz[], %(topics)s::bytea[], %(payloads)s::bytea[],
            %(reasons)s::text[], %(details)s::text[], %(retained)s::boolean[])
    AS w (tenant_id, received_at, topic, payload, reason, detail, is_retained)

-- name: count_rejected
-- Refused messages by reason, the largest pile first.
SELECT reason, count(*), min(received_at), max(received_at)
FROM rejected_message
WHERE (%(ids)s::bigint[] IS NULL OR id = ANY (%(ids)s::bigint[]))
    AND (%(reason)s::text IS NULL OR reason = %(reason)s::text)
    AND (%(topic)s::bytea IS NULL OR substr(topic, 1, length(%(topic)s::bytea)) = %(topic)s::bytea)
    AND (%(since)s::timestamptz IS NULL OR received_at >= %(since)s::timestamptz)
GROUP BY reason
ORDER BY count(*) DESC, reason

-- name: list_rejected
-- The newest refused messages.
SELECT id, received_at, topic, payload, reason, detail, is_retained
FROM rejected_message
WHERE (%(ids)s::bigint[] IS NULL OR id = ANY (%(ids)s::bigint[]))
    AND (%(reason)s::text IS NULL OR reason = %(reason)s::text)
    AND (%(topic)s::bytea IS NULL OR substr(topic, 1, length(%(topic)s::bytea)) = %(topic)s::bytea)
    AND (%(since)s::timestamptz IS NULL OR received_at >= %(since)s::timestamptz)
ORDER BY id DESC
LIMIT %(most)s

-- name: last_rejected
-- Up to where a second try goes, so that it never meets what it refused itself.
SELECT max(id) FROM rejected_message

-- name: read_rejected
-- Refused messages in the order in which they came, some at a time.
SELECT id, received_at, topic, payload, reason, detail, is_retained
FROM rejected_message
WHERE id > %(after)s AND id <= %(last)s
    AND (%(ids)s::bigint[] IS NULL OR id = ANY (%(ids)s::bigint[]))
    AND (%(reason)s::text IS NULL OR reason = %(reason)s::text)
    AND (%(topic)s::bytea IS NULL OR substr(topic, 1, length(%(topic)s::bytea)) = %(topic)s::bytea)
    AND (%(since)s::timestamptz IS NULL OR received_at >= %(since)s::timestamptz)
ORDER BY id
LIMIT %(most)s

-- name: delete_rejected
-- These messages are stored now.
DELETE FROM rejected_message WHERE id = ANY (%(ids)s::bigint[])

-- name: ensure_partitions
-- Make the partitions that cover a span; nothing to do on TimescaleDB.
SELECT ensure_reading_partitions(%(from_ts)s, %(to_ts)s)

-- name: remember_session
-- From now on the broker should have our session.
UPDATE collector SET has_session = true, sessions_lost = sessions_lost + %(lost)s::int WHERE id = %(collector_id)s

-- name: try_lock
-- Be the only one who does a piece of house-keeping; until the transaction ends.
SELECT pg_try_advisory_xact_lock(%(space)s::int, %(number)s::int)

-- name: next_unrolled_batches
-- What has been stored since the rollups were last brought up to date, oldest first, some of each collector.
-- storage: plain
SELECT c.id, b.number, b.payload, b.stored, b.first_ts, b.last_ts
FROM collector AS c
LEFT JOIN rollup_position AS p ON p.collector_id = c.id
CROSS JOIN LATERAL (
    SELECT number, payload, stored, first_ts, last_ts
    FROM (
        SELECT number, payload, stored, first_ts, last_ts, sum(stored) OVER (ORDER BY number) AS together
        FROM (
            SELECT number, payload, stored, first_ts, last_ts FROM batch
            WHERE collector_id = c.id AND number > coalesce(p.number, 0)
            ORDER BY number
            LIMIT %(most)s
        ) AS next
    ) AS n
    WHERE n.together - n.stored < %(most_rows)s
) AS b
ORDER BY c.id, b.number

-- name: find_span_minutes
-- Minutes with readings in a span: where a batch no longer has its payload, all of them are computed again.
-- storage: plain
SELECT DISTINCT sensor_id, (extract(epoch FROM date_bin('1 minute', ts, timestamptz '2000-01-01')) * 1000000)::bigint
FROM reading
WHERE ts >= %(first_ts)s::timestamptz AND ts <= %(last_ts)s::timestamptz

-- name: roll_minutes
-- Compute minutes again from the readings.
-- storage: plain
INSERT INTO reading_1m (sensor_id, bucket, n, total, low, high, sum_of_squares)
SELECT d.sensor_id, d.bucket, r.n, r.total, r.low, r.high, r.sum_of_squares
FROM unnest(%(sensor_ids)s::int[], %(buckets)s::timestamptz[]) AS d (sensor_id, bucket)
CROSS JOIN LATERAL (
    SELECT count(value)::int AS n, sum(value) AS total, min(value) AS low, max(value) AS high, sum(value * value) AS sum_of_squares
    FROM reading
    WHERE sensor_id = d.sensor_id AND ts >= d.bucket AND ts < d.bucket + interval '1 minute'
        AND ts >= %(first_ts)s::timestamptz AND ts < %(last_ts)s::timestamptz
) AS r
ON CONFLICT (sensor_id, bucket) DO UPDATE SET n = EXCLUDED.n, total = EXCLUDED.total, low = EXCLUDED.low,
    high = EXCLUDED.high, sum_of_squares = EXCLUDED.sum_of_squares

-- name: roll_hours
-- Compute hours again from their minutes.
-- storage: plain
INSERT INTO reading_1h (sensor_id, bucket, n, total, low, high, sum_of_squares)
SELECT d.sensor_id, d.bucket, r.n, r.total, r.low, r.high, r.sum_of_squares
FROM unnest(%(sensor_ids)s::int[], %(buckets)s::timestamptz[]) AS d (sensor_id, bucket)
CROSS JOIN LATERAL (
    SELECT sum(n)::int AS n, sum(total) AS total, min(low) AS low, max(high) AS high, sum(sum_of_squares) AS sum_of_squares
    FROM reading_1m
    WHERE sensor_id = d.sensor_id AND bucket >= d.bucket AND bucket < d.bucket + interval '1 hour'
) AS r
ON CONFLICT (sensor_id, bucket) DO UPDATE SET n = EXCLUDED.n, total = EXCLUDED.total, low = EXCLUDED.low,
    high = EXCLUDED.high, sum_of_squares = EXCLUDED.sum_of_squares

-- name: roll_days
-- Compute days, in UTC, again from their hours.
-- storage: plain
INSERT INTO reading_1d (sensor_id, bucket, n, total, low, high, sum_of_squares)
SELECT d.sensor_id, d.bucket, r.n, r.total, r.low, r.high, r.sum_of_squares
FROM unnest(%(sensor_ids)s::int[], %(buckets)s::timestamptz[]) AS d (sensor_id, bucket)
CROSS JOIN LATERAL (
    SELECT sum(n)::int AS n, sum(total) AS total, min(low) AS low, max(high) AS high, sum(sum_of_squares) AS sum_of_squares
    FROM reading_1h
    WHERE sensor_id = d.sensor_id AND bucket >= d.bucket AND bucket < d.bucket + interval '1 day'
) AS r
ON CONFLICT (sensor_id, bucket) DO UPDATE SET n = EXCLUDED.n, total = EXCLUDED.total, low = EXCLUDED.low,
    high = EXCLUDED.high, sum_of_squares = EXCLUDED.sum_of_squares

-- name: move_rollup_position
-- These batches are in the rollups.
-- storage: plain
INSERT INTO rollup_position (collector_id, number)
SELECT w.collector_id, w.number FROM unnest(%(collector_ids)s::int[], %(numbers)s::bigint[]) AS w (collector_id, number)
ON CONFLICT (collector_id) DO UPDATE SET number = EXCLUDED.number

-- name: drop_old_batches
-- Forget what detection need not replay any more; the newest row of each collector stays.
DELETE FROM batch AS b
WHERE (b.collector_id, b.number) IN (
    SELECT o.collector_id, o.number FROM batch AS o
    JOIN collector AS c ON c.id = o.collector_id
    WHERE o.committed_at < %(before)s AND o.number < c.last_number
    ORDER BY o.committed_at
    LIMIT %(most)s
)

-- name: drop_old_rejected
-- Forget rejected messages beyond their age.
DELETE FROM rejected_message WHERE id IN (
    SELECT id FROM rejected_message WHERE received_at < %(before)s ORDER BY received_at LIMIT %(most)s
)

-- name: measure_rejected
-- How much disk rejected messages take.
SELECT pg_total_relation_size('rejected_message')

-- name: drop_oldest_rejected
-- Forget the oldest rejected messages, since together they are too large.
DELETE FROM rejected_message WHERE id IN (SELECT id FROM rejected_message ORDER BY received_at LIMIT %(most)s)

-- name: drop_old_texts
-- Forget words beyond the age of readings.
DELETE FROM reading_text WHERE ts < %(before)s

-- name: drop_old_waveforms
-- Forget bursts beyond the age of readings.
DELETE FROM waveform WHERE t0 < %(before)s

-- name: drop_old_minutes
-- Forget rollups beyond their age; TimescaleDB has policies.
-- storage: plain
DELETE FROM reading_1m WHERE bucket < %(before)s

-- name: drop_old_hours
-- Forget rollups beyond their age; TimescaleDB has policies.
-- storage: plain
DELETE FROM reading_1h WHERE bucket < %(before)s

-- name: drop_old_days
-- Forget rollups beyond their age; TimescaleDB has policies.
-- storage: plain
DELETE FROM reading_1d WHERE bucket < %(before)s

-- name: keep_births
-- What a Sparkplug edge node said at its birth.
INSERT INTO sparkplug_node (tenant_id, group_name, edge_node, births)
VALUES (%(tenant_id)s, %(group)s, %(edge)s, %(births)s)
ON CONFLICT (tenant_id, group_name, edge_node) DO UPDATE SET births = EXCLUDED.births, updated_at = clock_timestamp()

-- name: load_births
-- What Sparkplug edge nodes said at their births.
SELECT group_name, edge_node, births FROM sparkplug_node ORDER BY group_name, edge_node
