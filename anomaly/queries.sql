-- name: list_tenants
-- The tenants whose fleets are watched.
SELECT id
FROM tenant
ORDER BY id

-- name: list_machines
-- The machines of one tenant, with what detection may use of them.
SELECT m.id, m.number, m.class, m.iso_class, m.rated_current_a, l.code AS line, s.code AS site
FROM machine AS m
JOIN site AS s ON s.tenant_id = m.tenant_id AND s.id = m.site_id
LEFT JOIN line AS l ON l.tenant_id = m.tenant_id AND l.id = m.line_id
WHERE m.tenant_id = %(tenant_id)s
ORDER BY m.id

-- name: list_sensors
-- The sensors of one tenant.
SELECT id, machine_id, name, kind, unit
FROM sensor
WHERE tenant_id = %(tenant_id)s AND is_enabled
ORDER BY id

-- name: find_state
-- The stored state of a shard and the batches it has folded.
SELECT positions, state, code_version
FROM detector_state
WHERE shard = %(shard)s

-- name: insert_state
-- The first state of a shard; nothing if another process was first.
INSERT INTO detector_state (shard, positions, state, code_version)
VALUES (%(shard)s, %(positions)s, %(state)s, %(code_version)s)
ON CONFLICT ON CONSTRAINT detector_state_pkey DO NOTHING

-- name: replace_state
-- The next state of a shard, only over the state it was derived from.
UPDATE detector_state
SET positions = %(positions)s, state = %(state)s, code_version = %(code_version)s, updated_at = clock_timestamp()
WHERE shard = %(shard)s AND positions = %(derived_from)s

-- name: delete_state
-- Forget what a shard has learned, so that it is learned again from the ledger.
DELETE FROM detector_state
WHERE shard = %(shard)s

-- name: list_batches
-- The next batches of every collector after the given positions, in the order of each collector.
SELECT b.collector_id, b.number, b.committed_at, b.payload
FROM collector AS c
LEFT JOIN unnest(%(collectors)s::int[], %(numbers)s::bigint[]) AS p (collector_id, number) ON p.collector_id = c.id
CROSS JOIN LATERAL (
    SELECT collector_id, number, committed_at, payload
    FROM batch
    WHERE collector_id = c.id AND number > coalesce(p.number, 0)
    ORDER BY number
    LIMIT %(most)s
) AS b
ORDER BY b.committed_at, b.collector_id, b.number

-- name: store_finding
-- Insert a finding or move it on; the same or an older change of it is not stored again.
INSERT INTO finding (
    tenant_id, machine_id, key, fault_family, kind, severity, onset_at, raised_at, cleared_at,
    detector, model_version, score, p_value, evidence, change
)
VALUES (
    %(tenant_id)s, %(machine_id)s, %(key)s, %(fault_family)s, %(kind)s, %(severity)s, %(onset_at)s, %(raised_at)s,
    %(cleared_at)s, %(detector)s, %(model_version)s, %(score)s, %(p_value)s, %(evidence)s, %(change)s
)
ON CONFLICT ON CONSTRAINT finding_key DO UPDATE
SET severity = excluded.severity, cleared_at = excluded.cleared_at, detector = excluded.detector,
    model_version = excluded.model_version, score = excluded.score, p_value = excluded.p_value,
    evidence = excluded.evidence, change = excluded.change, revision = finding.revision + 1
WHERE (finding.evidence ->> 'changed_us')::bigint < (excluded.evidence ->> 'changed_us')::bigint

-- name: list_unannounced
-- Findings whose last change was not handed on yet, oldest first.
SELECT id, tenant_id, machine_id, key, fault_family, kind, severity, onset_at, raised_at, cleared_at, detector,
    model_version, score, p_value, evidence, change, revision, announced_revision
FROM finding
WHERE tenant_id = %(tenant_id)s AND revision > announced_revision
ORDER BY id

-- name: mark_announced
-- Note that a change of a finding was handed on.
UPDATE finding
SET announced_revision = greatest(announced_revision, %(revision)s), announced_change = %(change)s
WHERE tenant_id = %(tenant_id)s AND id = %(id)s

-- name: find_finding
-- One finding by its key or number.
SELECT id, tenant_id, machine_id, key, fault_family, kind, severity, onset_at, raised_at, cleared_at, detector,
    model_version, score, p_value, evidence, change, revision, announced_revision
FROM finding
WHERE tenant_id = %(tenant_id)s AND (key = %(name)s OR id::text = %(name)s)

-- name: list_readings
-- Stored readings of some sensors over a half-open period, in time order.
SELECT sensor_id, quality, flags, ts, value
FROM reading
WHERE sensor_id = ANY (%(sensor_ids)s) AND ts >= %(start)s AND ts < %(stop)s
ORDER BY ts, sensor_id

-- name: copy_readings
-- Stored readings of some sensors over a half-open period, no column null, for a binary COPY.
SELECT sensor_id, quality, flags, ts, coalesce(value, 'NaN'::float8) AS value
FROM reading
WHERE sensor_id = ANY (%(sensor_ids)s) AND ts >= %(start)s AND ts < %(stop)s

-- name: find_reading_span
-- First and last instant at which some sensors have readings in a half-open period.
SELECT min(first.ts) AS first_ts, max(last.ts) AS last_ts
FROM unnest(%(sensor_ids)s::int[]) AS s (id)
CROSS JOIN LATERAL (
    SELECT ts
    FROM reading
    WHERE sensor_id = s.id AND ts >= %(start)s AND ts < %(stop)s
    ORDER BY ts
    LIMIT 1
) AS first
CROSS JOIN LATERAL (
    SELECT ts
    FROM reading
    WHERE sensor_id = s.id AND ts >= %(start)s AND ts < %(stop)s
    ORDER BY ts DESC
    LIMIT 1
) AS last

-- name: read_trace
-- Lowest and highest value per step of every sensor of a machine, as the caller's tenant may read them.
SELECT sensor_id, at, low, high
FROM report.trace(%(machine_id)s::bigint, %(start)s, %(stop)s, %(points)s::int)
ORDER BY sensor_id, at

-- name: list_machine_sensors
-- The sensors of one machine of the caller's tenant.
SELECT sensor_id, name, kind, unit
FROM report.sensor
WHERE machine_id = %(machine_id)s

-- name: find_machine_in_scope
-- A machine that a customer, or an engineer with a ticket of it, may see; null bounds mean all machines.
SELECT 1
FROM report.machine_scope
WHERE machine_id = %(machine_id)s
    AND (customer_id = %(customer_id)s::int OR engineer_id = %(engineer_id)s::int)
LIMIT 1
