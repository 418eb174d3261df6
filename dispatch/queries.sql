-- name: claim_ticket
-- The most urgent ticket that waits for dispatch and that nobody else is working on, locked.
SELECT t.id
FROM ticket AS t
WHERE t.tenant_id = (SELECT current_tenant())
    AND (
        (t.state = 'pending_confirmation' AND (t.type = ANY (%(types)s) OR t.priority = 'emergency'))
        OR (t.state = 'submitted' AND (t.type = 'emergency_stop' OR t.priority = 'emergency'))
    )
    AND (t.dispatch_hold = '' OR t.dispatch_after <= %(now)s)
    AND t.id <> ALL (%(passed_over)s)
ORDER BY array_position(ARRAY['emergency', 'high', 'normal', 'low'], t.priority), t.created_at, t.id
LIMIT 1
FOR NO KEY UPDATE SKIP LOCKED

-- name: read_job
-- What a ticket asks of whoever does it, and where.
SELECT t.id, t.number, t.type, t.priority, t.region, s.latitude, s.longitude,
    ARRAY(
        SELECT a.engineer_id FROM assignment AS a
        WHERE a.tenant_id = t.tenant_id AND a.ticket_id = t.id AND a.status IN ('rejected', 'expired')
    ) AS refused_by
FROM ticket AS t
LEFT JOIN machine AS m ON m.tenant_id = t.tenant_id AND m.id = t.machine_id
LEFT JOIN site AS s ON s.tenant_id = m.tenant_id AND s.id = m.site_id
WHERE t.tenant_id = (SELECT current_tenant()) AND t.id = %(ticket_id)s

-- name: read_requirements
-- The certificates that a ticket's job takes.
SELECT certificate_code, level
FROM ticket_requirement
WHERE tenant_id = (SELECT current_tenant()) AND ticket_id = %(ticket_id)s
ORDER BY certificate_code

-- name: read_engineers
-- The engineers of the tenant with their present load.
SELECT id, code, name, latitude, longitude, time_zone, job_cap, active_jobs, regions
FROM engineer
WHERE tenant_id = (SELECT current_tenant()) AND is_active
ORDER BY id

-- name: read_certificates
-- What the engineers are certified for; only the codes a job asks for, or all.
SELECT engineer_id, code, level, coalesce(nullif(lower(valid_during), '-infinity'), '1900-01-01') AS valid_from,
    nullif(upper(valid_during), 'infinity') AS valid_until, nullif(review_due_at, 'infinity') AS review_due_at
FROM certificate
WHERE tenant_id = (SELECT current_tenant()) AND NOT isempty(valid_during)
    AND (%(codes)s::text[] IS NULL OR code = ANY (%(codes)s))
ORDER BY id

-- name: read_shifts
-- The weekly shifts of all engineers.
SELECT engineer_id, weekday, starts_at, hours
FROM engineer_shift
WHERE tenant_id = (SELECT current_tenant())
ORDER BY engineer_id, weekday, starts_at

-- name: read_absences
-- Who is away now or soon.
SELECT engineer_id, coalesce(nullif(lower(absent_during), '-infinity'), '1900-01-01') AS begins_at,
    nullif(upper(absent_during), 'infinity') AS ends_at
FROM engineer_absence
WHERE tenant_id = (SELECT current_tenant()) AND absent_during && tstzrange(%(now)s, %(until)s)
ORDER BY engineer_id, begins_at

-- name: lock_engineers
-- Engineers whose load is about to change, in the order that everybody locks them.
SELECT id
FROM engineer
WHERE tenant_id = (SELECT current_tenant()) AND id = ANY (%(ids)s)
ORDER BY id
FOR NO KEY UPDATE

-- name: add_decision
-- Why a ticket went to whom, or to nobody.
INSERT INTO dispatch_decision (tenant_id, ticket_id, at, actor, outcome, engineer_id, record)
VALUES ((SELECT current_tenant()), %(ticket_id)s, %(at)s, %(actor)s, %(outcome)s, %(engineer_id)s, %(record)s)
RETURNING id

-- name: read_last_decision
-- The newest decision about a ticket.
SELECT id, outcome, record
FROM dispatch_decision
WHERE tenant_id = (SELECT current_tenant()) AND ticket_id = %(ticket_id)s
ORDER BY id DESC
LIMIT 1

-- name: read_decisions
-- All decisions about a ticket, newest first.
SELECT id, at, actor, outcome, engineer_id, record
FROM dispatch_decision
WHERE tenant_id = (SELECT current_tenant()) AND ticket_id = %(ticket_id)s
ORDER BY id DESC

-- name: add_assignment
-- Offer a job, or give it back to whoever had it.
INSERT INTO assignment (tenant_id, ticket_id, engineer_id, status, offered_at, expires_at, accepted_at, started_at,
    planned_during, decision_id, reason)
VALUES ((SELECT current_tenant()), %(ticket_id)s, %(engineer_id)s, %(status)s, %(now)s, %(expires_at)s, %(accepted_at)s,
    %(started_at)s, tstzrange(%(starts_at)s, %(ends_at)s, '[)'), %(decision_id)s, %(reason)s)
RETURNING id

-- name: read_assignment
-- One assignment.
SELECT id, ticket_id, engineer_id, status, offered_at, expires_at, accepted_at, started_at, ended_at,
    lower(planned_during) AS starts_at, upper(planned_during) AS ends_at
FROM assignment
WHERE tenant_id = (SELECT current_tenant()) AND id = %(assignment_id)s

-- name: read_live_assignment
-- The one assignment of a ticket that is offered, accepted or started.
SELECT id, ticket_id, engineer_id, status, offered_at, expires_at, accepted_at, started_at, ended_at,
    lower(planned_during) AS starts_at, upper(planned_during) AS ends_at
FROM assignment
WHERE tenant_id = (SELECT current_tenant()) AND ticket_id = %(ticket_id)s AND status IN ('offered', 'accepted', 'started')

-- name: read_last_finished
-- Who did the job last.
SELECT id, engineer_id
FROM assignment
WHERE tenant_id = (SELECT current_tenant()) AND ticket_id = %(ticket_id)s AND status = 'finished'
ORDER BY id DESC
LIMIT 1

-- name: change_assignment
-- Move an assignment on. Starting sets the time of the job anew.
UPDATE assignment
SET status = %(status)s,
    accepted_at = CASE WHEN %(status)s = 'accepted' THEN %(now)s::timestamptz ELSE accepted_at END,
    started_at = CASE WHEN %(status)s = 'started' THEN %(now)s::timestamptz ELSE started_at END,
    ended_at = CASE WHEN %(status)s IN ('rejected', 'expired', 'withdrawn', 'finished') THEN %(now)s::timestamptz END,
    refusal = %(refusal)s,
    planned_during = CASE WHEN %(starts_at)s::timestamptz IS NULL THEN planned_during
        ELSE tstzrange(%(starts_at)s, %(ends_at)s, '[)') END
WHERE tenant_id = (SELECT current_tenant()) AND id = %(assignment_id)s

-- name: count_failure
-- An offer came to nothing.
UPDATE ticket SET failed_offers = failed_offers + 1, updated_at = %(now)s
WHERE tenant_id = (SELECT current_tenant()) AND id = %(ticket_id)s
RETURNING failed_offers

-- name: hold_ticket
-- Dispatch leaves a ticket alone until a moment, or until somebody says so.
UPDATE ticket SET dispatch_hold = %(hold)s, dispatch_after = %(after)s
WHERE tenant_id = (SELECT current_tenant()) AND id = %(ticket_id)s

-- name: touch_ticket
-- Something about the ticket changed within its state: whoever saw the old version must look again.
UPDATE ticket SET version = version + 1, updated_at = %(now)s, dispatch_hold = '', dispatch_after = NULL
WHERE tenant_id = (SELECT current_tenant()) AND id = %(ticket_id)s

-- name: wake_waiting
-- Somebody became free: tickets that found nobody are tried again at once.
UPDATE ticket SET dispatch_after = %(now)s
WHERE tenant_id = (SELECT current_tenant()) AND id IN (
    SELECT id FROM ticket
    WHERE tenant_id = (SELECT current_tenant()) AND dispatch_hold = 'nobody_eligible' AND state <> 'closed'
        AND dispatch_after > %(now)s
    FOR NO KEY UPDATE SKIP LOCKED
)

-- name: find_expired_offer
-- An offer whose time is over, with its ticket locked.
SELECT a.id, a.ticket_id, a.engineer_id
FROM assignment AS a
JOIN ticket AS t ON t.tenant_id = a.tenant_id AND t.id = a.ticket_id
WHERE a.tenant_id = (SELECT current_tenant()) AND a.status = 'offered' AND a.expires_at <= %(now)s
ORDER BY a.expires_at
LIMIT 1
FOR NO KEY UPDATE OF t SKIP LOCKED

-- name: find_lapsed_assignment
-- A job not begun whose engineer has lost a certificate that it takes, with its ticket locked.
SELECT a.id, a.ticket_id, a.engineer_id
FROM assignment AS a
JOIN ticket AS t ON t.tenant_id = a.tenant_id AND t.id = a.ticket_id
WHERE a.tenant_id = (SELECT current_tenant()) AND a.status IN ('offered', 'accepted')
    AND EXISTS (
        SELECT FROM ticket_requirement AS q
        WHERE q.tenant_id = a.tenant_id AND q.ticket_id = a.ticket_id
            AND NOT EXISTS (
                SELECT FROM certificate AS c
                WHERE c.tenant_id = a.tenant_id AND c.engineer_id = a.engineer_id AND c.code = q.certificate_code
                    AND c.level >= q.level AND c.valid_during @> a.planned_during
                    AND (c.review_due_at IS NULL OR c.review_due_at >= upper(a.planned_during))
            )
    )
ORDER BY a.id
LIMIT 1
FOR NO KEY UPDATE OF t SKIP LOCKED

-- name: find_unjudged_ticket
-- A result that the customer has left unjudged for too long, locked.
SELECT t.id
FROM ticket AS t
WHERE t.tenant_id = (SELECT current_tenant()) AND t.state = 'pending_acceptance' AND t.updated_at <= %(before)s
ORDER BY t.updated_at
LIMIT 1
FOR NO KEY UPDATE SKIP LOCKED

-- name: add_work_report
-- What the engineer did.
INSERT INTO work_report (tenant_id, ticket_id, assignment_id, at, result, cause, hours, parts)
VALUES ((SELECT current_tenant()), %(ticket_id)s, %(assignment_id)s, %(at)s, %(result)s, %(cause)s, %(hours)s, %(parts)s)

-- name: list_offers
-- An engineer's own live jobs with what is needed to decide and to get there.
SELECT a.id AS assignment_id, a.status, a.offered_at, a.expires_at, lower(a.planned_during) AS starts_at,
    upper(a.planned_during) AS ends_at, a.reason, t.id AS ticket_id, t.number, t.type, t.state, t.priority, t.severity,
    t.equipment_number, t.fault_description, t.fault_description_zh, t.contact_phone, t.region,
    coalesce(s.name, '') AS site_name, s.latitude, s.longitude
FROM assignment AS a
JOIN ticket AS t ON t.tenant_id = a.tenant_id AND t.id = a.ticket_id
LEFT JOIN machine AS m ON m.tenant_id = t.tenant_id AND m.id = t.machine_id
LEFT JOIN site AS s ON s.tenant_id = m.tenant_id AND s.id = m.site_id
WHERE a.tenant_id = (SELECT current_tenant()) AND a.engineer_id = %(engineer_id)s
    AND a.status IN ('offered', 'accepted', 'started')
ORDER BY a.offered_at, a.id

-- name: list_tenants
-- The tenants that have a loop to run: the workers' only look across tenants.
SELECT id, policy FROM tenant ORDER BY id

-- name: read_policy
-- What the tenant has set otherwise than the defaults.
SELECT policy FROM tenant WHERE id = (SELECT current_tenant())
