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
    model_version, score, p_value, evidence, change, revision,
    CASE WHEN announced_change = '' THEN 0 ELSE announced_revision END AS announced, held, held_by
FROM finding
WHERE tenant_id = %(tenant_id)s AND revision > announced_revision
ORDER BY id

-- name: mark_announced
-- Note that a change of a finding was handed on.
UPDATE finding
SET announced_revision = greatest(announced_revision, %(revision)s), announced_change = %(change)s, held = '', held_by = NULL
WHERE tenant_id = %(tenant_id)s AND id = %(id)s

-- name: find_finding
-- One finding by its key.
SELECT id, tenant_id, machine_id, key, fault_family, kind, severity, onset_at, raised_at, cleared_at, detector,
    model_version, score, p_value, evidence, change, revision, announced_revision
FROM finding
WHERE tenant_id = %(tenant_id)s AND key = %(name)s
ORDER BY id DESC
LIMIT 1

-- name: find_finding_by_id
-- One finding by its number.
SELECT id, tenant_id, machine_id, key, fault_family, kind, severity, onset_at, raised_at, cleared_at, detector,
    model_version, score, p_value, evidence, change, revision, announced_revision
FROM finding
WHERE tenant_id = %(tenant_id)s AND id = %(id)s::bigint

-- name: list_open_families
-- Faults of a machine that are open, of other families than one.
SELECT id, fault_family
FROM finding
WHERE tenant_id = %(tenant_id)s AND machine_id = %(machine_id)s AND kind = 'machine' AND cleared_at IS NULL
    AND fault_family <> %(fault_family)s
ORDER BY id

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

-- name: add_inhibition
-- Keep a machine, one of its sensors or one fault family from making tickets for a while.
INSERT INTO inhibition (tenant_id, machine_id, sensor_id, fault_family, kind, starts_at, ends_at, reason, created_by, created_at)
VALUES (
    %(tenant_id)s, %(machine_id)s, %(sensor_id)s, %(fault_family)s, %(kind)s, %(starts_at)s, %(ends_at)s, %(reason)s,
    %(created_by)s, %(now)s
)
RETURNING id, machine_id, sensor_id, fault_family, kind, starts_at, ends_at, reason, created_by, created_at, ended_at, ended_by

-- name: end_inhibition
-- End an inhibition before its time; nothing if it is over.
UPDATE inhibition
SET ended_at = greatest(%(now)s::timestamptz, starts_at), ended_by = %(ended_by)s
WHERE tenant_id = %(tenant_id)s AND id = %(id)s AND ended_at IS NULL AND ends_at > %(now)s
RETURNING id, machine_id, sensor_id, fault_family, kind, starts_at, ends_at, reason, created_by, created_at, ended_at, ended_by

-- name: find_inhibition
-- One inhibition by its number.
SELECT id, machine_id, sensor_id, fault_family, kind, starts_at, ends_at, reason, created_by, created_at, ended_at, ended_by
FROM inhibition
WHERE tenant_id = %(tenant_id)s AND id = %(id)s

-- name: list_inhibitions
-- Inhibitions of some machines that were in force at or after an instant, oldest first.
SELECT id, machine_id, sensor_id, fault_family, kind, starts_at, ends_at, reason, created_by, created_at, ended_at, ended_by
FROM inhibition
WHERE tenant_id = %(tenant_id)s AND machine_id = ANY (%(machine_ids)s::int[]) AND ends_at >= %(since)s
ORDER BY id

-- name: hold_finding
-- Note why the last change of a finding is not handed on; nothing if it is noted already.
UPDATE finding
SET held = %(held)s, held_by = %(held_by)s
WHERE tenant_id = %(tenant_id)s AND id = %(id)s AND (held, held_by) IS DISTINCT FROM (%(held)s, %(held_by)s::bigint)

-- name: settle_finding
-- Let the last change of a finding rest: it is never handed on.
UPDATE finding
SET announced_revision = greatest(announced_revision, %(revision)s::int)
WHERE tenant_id = %(tenant_id)s AND id = %(id)s

-- name: list_findings
-- A page of findings, newest first.
SELECT f.id, f.key, f.machine_id, m.number, f.fault_family, f.kind, f.severity, f.onset_at, f.raised_at, f.cleared_at, f.detector,
    f.model_version, f.score, f.held, f.held_by, f.announced_change <> '' AS is_announced
FROM finding AS f
JOIN machine AS m ON m.tenant_id = f.tenant_id AND m.id = f.machine_id
WHERE f.tenant_id = %(tenant_id)s
    AND (%(machine_id)s::int IS NULL OR f.machine_id = %(machine_id)s::int)
    AND (%(held)s::text IS NULL OR f.held = %(held)s::text)
    AND (NOT %(is_open)s::boolean OR f.cleared_at IS NULL)
    AND (%(before)s::bigint IS NULL OR f.id < %(before)s::bigint)
    AND ((%(customer_id)s::int IS NULL AND %(engineer_id)s::int IS NULL) OR EXISTS (
        SELECT
        FROM report.machine_scope AS s
        WHERE s.machine_id = f.machine_id
            AND (s.customer_id = %(customer_id)s::int OR s.engineer_id = %(engineer_id)s::int)
    ))
ORDER BY f.id DESC
LIMIT %(limit)s

-- name: find_machines
-- The machines of an equipment number; there are several where sites number alike.
SELECT m.id, m.number, m.class, s.code AS site
FROM machine AS m
JOIN site AS s ON s.tenant_id = m.tenant_id AND s.id = m.site_id
WHERE m.tenant_id = %(tenant_id)s AND m.number = %(number)s AND (%(site)s::text IS NULL OR s.code = %(site)s::text)
    AND ((%(customer_id)s::int IS NULL AND %(engineer_id)s::int IS NULL) OR EXISTS (
        SELECT
        FROM report.machine_scope AS v
        WHERE v.machine_id = m.id AND (v.customer_id = %(customer_id)s::int OR v.engineer_id = %(engineer_id)s::int)
    ))
ORDER BY m.id

-- name: find_sensor
-- A sensor of a machine by its name.
SELECT id
FROM sensor
WHERE tenant_id = %(tenant_id)s AND machine_id = %(machine_id)s AND name = %(name)s

-- name: add_detection_event
-- Write one row of the history of detection.
INSERT INTO detection_event (tenant_id, machine_id, at, actor, kind, reason, detail)
VALUES (%(tenant_id)s, %(machine_id)s, %(at)s, %(actor)s, %(kind)s, %(reason)s, %(detail)s)

-- name: list_detection_events
-- What was done to detection on a machine, newest first.
SELECT id, at, actor, kind, reason, detail
FROM detection_event
WHERE tenant_id = %(tenant_id)s AND machine_id = %(machine_id)s
ORDER BY id DESC
LIMIT %(limit)s

-- name: add_outcome
-- Record what became of a finding; of one ticket only once.
INSERT INTO finding_outcome (
    tenant_id, machine_id, finding_id, fault_family, detector, machine_class, outcome, reason, action, note, ticket, decided_by, decided_at,
    is_assumed
)
SELECT m.tenant_id, m.id, %(finding_id)s::bigint, %(fault_family)s, %(detector)s, m.class, %(outcome)s, %(reason)s, %(action)s, %(note)s,
    %(ticket)s, %(decided_by)s, %(decided_at)s, %(is_assumed)s
FROM machine AS m
WHERE m.tenant_id = %(tenant_id)s AND m.id = %(machine_id)s
ON CONFLICT DO NOTHING
RETURNING id

-- name: has_outcome
-- Whether a person said of a finding what became of it.
SELECT 1
FROM finding_outcome
WHERE tenant_id = %(tenant_id)s AND finding_id = %(finding_id)s
LIMIT 1

-- name: list_unlearned_outcomes
-- Outcomes that detection has drawn no conclusions from, oldest first.
SELECT id, machine_id, finding_id, fault_family, detector, machine_class, outcome, reason, action, ticket, decided_by, decided_at, is_assumed
FROM finding_outcome
WHERE tenant_id = %(tenant_id)s AND learned_at IS NULL
ORDER BY id

-- name: mark_learned
-- Note that detection drew its conclusions from an outcome; nothing if another process did.
UPDATE finding_outcome
SET learned_at = %(now)s
WHERE tenant_id = %(tenant_id)s AND id = %(id)s AND learned_at IS NULL

-- name: count_rejections
-- How often in a row one pattern on one machine was rejected, up to an outcome; duplicates do not count.
SELECT count(*)
FROM (
    SELECT DISTINCT ON (finding_id) finding_id, outcome, reason, id
    FROM finding_outcome
    WHERE tenant_id = %(tenant_id)s AND machine_id = %(machine_id)s AND fault_family = %(fault_family)s
        AND detector = ANY (%(detectors)s::text[]) AND decided_at > %(since)s AND id <= %(id)s AND finding_id IS NOT NULL
    ORDER BY finding_id, id DESC
) AS o
WHERE o.outcome = 'rejected' AND o.reason <> 'duplicate' AND o.id > coalesce((
    SELECT max(c.id)
    FROM finding_outcome AS c
    WHERE c.tenant_id = %(tenant_id)s AND c.machine_id = %(machine_id)s AND c.fault_family = %(fault_family)s
        AND c.detector = ANY (%(detectors)s::text[]) AND c.outcome = 'confirmed' AND c.id <= %(id)s
), 0)

-- name: list_rules
-- Per rule and class of machines how many findings were confirmed and rejected of late; of one finding the last word counts.
SELECT o.fault_family, o.detector, o.machine_class,
    count(*) FILTER (WHERE o.outcome = 'confirmed')::int AS confirmed,
    count(*) FILTER (WHERE o.outcome = 'rejected' AND o.reason <> 'duplicate')::int AS rejected,
    count(*) FILTER (WHERE o.outcome = 'unknown' OR o.reason = 'duplicate')::int AS undecided,
    count(*) FILTER (WHERE o.outcome = 'missed')::int AS missed
FROM (
    SELECT DISTINCT ON (coalesce(finding_id, -id)) fault_family, detector, machine_class, outcome, reason
    FROM finding_outcome
    WHERE tenant_id = %(tenant_id)s AND decided_at > %(since)s
    ORDER BY coalesce(finding_id, -id), id DESC
) AS o
GROUP BY o.fault_family, o.detector, o.machine_class
ORDER BY o.fault_family, o.detector, o.machine_class

-- name: list_past_outcomes
-- What became of earlier findings, newest first.
SELECT machine_id, fault_family, detector, outcome, reason, ticket, decided_at
FROM finding_outcome
WHERE tenant_id = %(tenant_id)s AND decided_at > %(since)s AND outcome IN ('confirmed', 'rejected')
ORDER BY id DESC
LIMIT 5000

-- name: add_lift
-- Raise the alarm level of a rule on a sensor for a time.
INSERT INTO alarm_lift (tenant_id, machine_id, sensor_id, feature, factor, is_stopped, outcome_id, created_at, expires_at)
VALUES (%(tenant_id)s, %(machine_id)s, %(sensor_id)s, %(feature)s, %(factor)s, %(is_stopped)s, %(outcome_id)s, %(now)s, %(expires_at)s)
ON CONFLICT ON CONSTRAINT alarm_lift_key DO NOTHING

-- name: end_lifts
-- Take back what rejections made of the rules on some sensors.
UPDATE alarm_lift
SET ended_at = %(now)s
WHERE tenant_id = %(tenant_id)s AND sensor_id = ANY (%(sensor_ids)s::int[]) AND ended_at IS NULL AND expires_at > %(now)s
RETURNING sensor_id, feature

-- name: list_lifts
-- The alarm levels that rejections raised and that are in force.
SELECT id, machine_id, sensor_id, feature, factor, is_stopped, outcome_id, created_at, expires_at
FROM alarm_lift
WHERE tenant_id = %(tenant_id)s AND ended_at IS NULL AND created_at <= %(now)s AND expires_at > %(now)s
    AND (%(machine_id)s::int IS NULL OR machine_id = %(machine_id)s::int)
ORDER BY id

-- name: add_order
-- Tell detection what to do with the model of a machine.
INSERT INTO detector_order (tenant_id, machine_id, kind, version, reason, ordered_by, ordered_at)
VALUES (%(tenant_id)s, %(machine_id)s, %(kind)s, %(version)s, %(reason)s, %(ordered_by)s, %(now)s)
RETURNING id

-- name: list_orders
-- Orders that wait, oldest first, with the number of the newest version of their machine.
SELECT o.id, o.machine_id, o.kind, o.version, o.reason, o.ordered_by, coalesce((
    SELECT max(v.number) FROM model_version AS v WHERE v.tenant_id = o.tenant_id AND v.machine_id = o.machine_id
), 0) AS newest
FROM detector_order AS o
WHERE o.tenant_id = %(tenant_id)s AND o.done_at IS NULL
ORDER BY o.id

-- name: finish_order
-- Note that an order is carried out, or why it never will be.
UPDATE detector_order
SET done_at = %(now)s, refusal = %(refusal)s
WHERE tenant_id = %(tenant_id)s AND id = %(id)s AND done_at IS NULL

-- name: find_order
-- One order, for whoever waits for it.
SELECT id, machine_id, kind, version, ordered_at, done_at, refusal
FROM detector_order
WHERE tenant_id = %(tenant_id)s AND id = %(id)s

-- name: add_version
-- Register an immutable version of what was learned of a machine; nothing if it is registered.
INSERT INTO model_version (
    tenant_id, machine_id, version, number, sha256, trained_from, trained_until, config_digest, code_version, feature_schema, metrics,
    arrays, created_at
)
VALUES (
    %(tenant_id)s, %(machine_id)s, %(version)s, %(number)s, %(sha256)s, %(trained_from)s, %(trained_until)s, %(config_digest)s,
    %(code_version)s, %(feature_schema)s, %(metrics)s, %(arrays)s, %(now)s
)
ON CONFLICT ON CONSTRAINT model_version_pkey DO NOTHING

-- name: list_versions
-- The versions of a machine's model, newest first, without their arrays.
SELECT v.machine_id, v.version, v.number, v.sha256, v.trained_from, v.trained_until, v.config_digest, v.code_version, v.metrics, v.created_at,
    octet_length(v.arrays) AS bytes,
    (SELECT count(*) FROM finding AS f
     WHERE f.tenant_id = v.tenant_id AND f.machine_id = v.machine_id AND f.model_version = v.version)::int AS findings
FROM model_version AS v
WHERE v.tenant_id = %(tenant_id)s AND v.machine_id = %(machine_id)s
ORDER BY v.created_at DESC, v.number DESC

-- name: find_version
-- One version with its arrays.
SELECT machine_id, version, number, sha256, trained_from, trained_until, config_digest, code_version, feature_schema, metrics, arrays,
    created_at
FROM model_version
WHERE tenant_id = %(tenant_id)s AND machine_id = %(machine_id)s AND version = %(version)s

-- name: list_activations
-- Which versions of a machine's model people put in force, newest first.
SELECT id, kind, version, reason, ordered_by, ordered_at, done_at
FROM detector_order
WHERE tenant_id = %(tenant_id)s AND machine_id = %(machine_id)s AND done_at IS NOT NULL AND refusal = ''
ORDER BY id DESC

-- name: list_newest_versions
-- The number of the newest registered version of each machine of a tenant.
SELECT machine_id, max(number) AS number
FROM model_version
WHERE tenant_id = %(tenant_id)s
GROUP BY machine_id

-- name: add_config
-- Keep a configuration for good.
INSERT INTO detector_config (name, digest, body, created_by, created_at)
VALUES (%(name)s, %(digest)s, %(body)s, %(created_by)s, %(now)s)
ON CONFLICT ON CONSTRAINT detector_config_name_key DO NOTHING
RETURNING id

-- name: find_config
-- A configuration by its name.
SELECT id, name, digest, body, created_by, created_at
FROM detector_config
WHERE name = %(name)s

-- name: list_configs
-- All configurations, newest first.
SELECT c.id, c.name, c.digest, c.body, c.created_by, c.created_at
FROM detector_config AS c
ORDER BY c.id DESC

-- name: list_promotions
-- Which configurations were put in force, newest first; without a name the shipped one.
SELECT p.id, p.config_id, c.name, c.digest, c.body, p.reason, p.promoted_by, p.promoted_at
FROM detector_promotion AS p
LEFT JOIN detector_config AS c ON c.id = p.config_id
ORDER BY p.id DESC
LIMIT %(limit)s

-- name: add_promotion
-- Put a configuration in force; null is the shipped one.
INSERT INTO detector_promotion (config_id, reason, promoted_by, promoted_at)
VALUES (%(config_id)s, %(reason)s, %(promoted_by)s, %(now)s)
RETURNING id

-- name: store_shadow_finding
-- Insert what a configuration in shadow found, or move it on; the same or an older change is not stored again.
INSERT INTO shadow_finding (
    tenant_id, config_id, machine_id, key, fault_family, kind, severity, onset_at, raised_at, cleared_at,
    detector, model_version, score, p_value, evidence, change
)
VALUES (
    %(tenant_id)s, %(config_id)s, %(machine_id)s, %(key)s, %(fault_family)s, %(kind)s, %(severity)s, %(onset_at)s, %(raised_at)s,
    %(cleared_at)s, %(detector)s, %(model_version)s, %(score)s, %(p_value)s, %(evidence)s, %(change)s
)
ON CONFLICT ON CONSTRAINT shadow_finding_key DO UPDATE
SET severity = excluded.severity, cleared_at = excluded.cleared_at, detector = excluded.detector,
    model_version = excluded.model_version, score = excluded.score, p_value = excluded.p_value,
    evidence = excluded.evidence, change = excluded.change
WHERE (shadow_finding.evidence ->> 'changed_us')::bigint < (excluded.evidence ->> 'changed_us')::bigint

-- name: compare_shadow
-- Findings of the live configuration and of one in shadow that were raised since it began, by machine and fault family.
SELECT x.machine_id, m.number, x.fault_family, x.severity, x.onset_at, x.raised_at, x.cleared_at, x.is_live, x.held
FROM (
    SELECT machine_id, fault_family, severity, onset_at, raised_at, cleared_at, true AS is_live, held
    FROM finding
    WHERE tenant_id = %(tenant_id)s AND raised_at >= %(since)s
    UNION ALL
    SELECT machine_id, fault_family, severity, onset_at, raised_at, cleared_at, false AS is_live, '' AS held
    FROM shadow_finding
    WHERE tenant_id = %(tenant_id)s AND config_id = %(config_id)s AND raised_at >= %(since)s
) AS x
JOIN machine AS m ON m.tenant_id = %(tenant_id)s AND m.id = x.machine_id
ORDER BY x.raised_at, m.number

-- name: list_states
-- The stored states of all shards whose names begin alike.
SELECT shard, positions, state, code_version
FROM detector_state
WHERE starts_with(shard, %(prefix)s)
ORDER BY shard

-- name: list_state_names
-- The names of the stored states of all shards whose names begin alike.
SELECT shard
FROM detector_state
WHERE starts_with(shard, %(prefix)s)
ORDER BY shard

-- name: remove_state
-- Take away a state that was handed over, if it is still the one that was read.
DELETE FROM detector_state
WHERE shard = %(shard)s AND positions = %(derived_from)s

-- name: list_unexamined
-- Faults of machines that are open and that no second opinion was given on.
SELECT id, tenant_id, machine_id, key, fault_family, kind, severity, onset_at, raised_at, cleared_at, detector,
    model_version, score, p_value, evidence, change, revision
FROM finding
WHERE tenant_id = %(tenant_id)s AND kind = 'machine' AND cleared_at IS NULL
    AND evidence ? 'second_opinions' AND evidence ->> 'second_opinions' IS NULL
ORDER BY raised_at DESC
LIMIT 50

-- name: list_waveforms
-- The newest waveform of a machine's accelerometers in a half-open period, and after it earlier ones of the same sensor.
WITH newest AS (
    SELECT s.id, s.name, s.unit, w.t0, w.fs_hz, w.dtype, w.scale, w.data
    FROM sensor AS s
    JOIN waveform AS w ON w.sensor_id = s.id
    WHERE s.machine_id = %(machine_id)s::int AND s.kind = ANY (%(kinds)s) AND w.t0 >= %(onset)s AND w.t0 < %(until)s
    ORDER BY w.t0 DESC, s.id
    LIMIT 1
)
SELECT name, unit, t0, fs_hz, dtype, scale, data
FROM (
    SELECT 0 AS place, n.name, n.unit, n.t0, n.fs_hz, n.dtype, n.scale, n.data
    FROM newest AS n
    UNION ALL
    (
        SELECT 1 AS place, n.name, n.unit, w.t0, w.fs_hz, w.dtype, w.scale, w.data
        FROM newest AS n
        JOIN waveform AS w ON w.sensor_id = n.id
        WHERE w.t0 < %(earlier)s
        ORDER BY w.t0 DESC
        LIMIT %(most)s
    )
) AS found
ORDER BY place, t0 DESC

-- name: find_speed
-- The measured shaft speed of a machine nearest to an instant, and its unit.
SELECT r.value, s.unit
FROM sensor AS s
JOIN reading AS r ON r.sensor_id = s.id
WHERE s.machine_id = %(machine_id)s::int AND s.kind = %(kind)s AND r.ts >= %(start)s AND r.ts < %(stop)s
    AND r.value IS NOT NULL
ORDER BY abs(extract(epoch FROM r.ts - %(at)s))
LIMIT 1

-- name: read_means
-- Means per step of every sensor of a machine, as the caller's tenant may read them.
SELECT sensor_id, at, mean
FROM report.trace(%(machine_id)s::bigint, %(start)s, %(stop)s, %(points)s::int)
ORDER BY sensor_id, at

-- name: find_machine_number
-- The equipment number of a machine of the caller's tenant.
SELECT number
FROM machine
WHERE id = %(machine_id)s

-- name: find_handling
-- Whether a finding was announced, why it was not, and the class of its machine.
SELECT f.held, f.held_by, f.announced_change <> '' AS is_announced, m.class
FROM finding AS f
JOIN machine AS m ON m.tenant_id = f.tenant_id AND m.id = f.machine_id
WHERE f.tenant_id = %(tenant_id)s AND f.id = %(id)s

-- name: find_newest_outcome
-- Whether anything was said of findings since the last time.
SELECT coalesce(max(id), 0)
FROM finding_outcome
WHERE tenant_id = %(tenant_id)s
