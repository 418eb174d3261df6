-- name: find_tenant
-- The name at the top of the board.
SELECT slug, name
FROM report.tenant;

-- name: list_scope_machines
-- The machines that a customer or an engineer is limited to.
SELECT DISTINCT machine_id
FROM report.machine_scope
WHERE customer_id = %(customer_id)s OR engineer_id = %(engineer_id)s;

-- name: list_scope_tickets
-- The tickets that a customer or an engineer is limited to.
SELECT DISTINCT ticket_id
FROM report.ticket_scope
WHERE customer_id = %(customer_id)s OR engineer_id = %(engineer_id)s;

-- name: list_machines
-- Every machine with where it stands and how it is, worst first.
SELECT m.machine_id, m.number, m.name, m.class, m.site, m.site_name, m.line, m.line_name, m.customer, m.region, f.health, f.open_tickets
FROM report.machine AS m
JOIN report.fleet_health AS f ON f.machine_id = m.machine_id
ORDER BY m.site, m.line, m.number;

-- name: list_latest
-- The newest value of each enabled sensor.
SELECT machine_id, kind, name, unit, at, value
FROM report.sensor_latest
ORDER BY machine_id, kind, name;

-- name: list_open_evidence
-- The newest evidence of each open ticket, for its headline.
SELECT DISTINCT ON (e.ticket_id) e.ticket_id, e.evidence
FROM report.ticket_evidence AS e
JOIN report.ticket AS t ON t.ticket_id = e.ticket_id
WHERE t.state <> 'closed'
ORDER BY e.ticket_id, e.evidence_id DESC;

-- name: find_machine
-- One machine for the head of its traces.
SELECT machine_id, number, name, class, site, site_name, line, line_name, customer
FROM report.machine
WHERE machine_id = %(machine_id)s;

-- name: find_newest_reading
-- When a machine last said anything at all.
SELECT max(r.at)
FROM report.sensor AS s
CROSS JOIN LATERAL (SELECT x.at FROM report.reading AS x WHERE x.sensor_id = s.sensor_id ORDER BY x.at DESC LIMIT 1) AS r
WHERE s.machine_id = %(machine_id)s;

-- name: list_trace
-- All sensors of a machine over a range, in steps that fit the screen.
SELECT sensor_id, name, kind, unit, at, mean, low, high
FROM report.trace(%(machine_id)s, %(from_at)s, %(to_at)s, %(points)s);

-- name: list_sensors
-- The sensors of a machine, also those that sent nothing in the range.
SELECT sensor_id, name, kind, unit
FROM report.sensor
WHERE machine_id = %(machine_id)s
ORDER BY kind, name;

-- name: list_tickets_in_range
-- Tickets of a machine that overlap a range, with their newest evidence, to be marked on its traces.
SELECT t.ticket_id, t.number, t.type, t.state, t.severity, t.fault_family, t.fault_description,
    t.fault_description_zh, t.occurred_at, t.created_at, t.closed_at,
    (SELECT e.evidence FROM report.ticket_evidence AS e WHERE e.ticket_id = t.ticket_id
     ORDER BY e.evidence_id DESC LIMIT 1) AS evidence
FROM report.ticket AS t
WHERE t.machine_id = %(machine_id)s
  AND t.occurred_at < %(to_at)s AND coalesce(t.closed_at, 'infinity') > %(from_at)s
ORDER BY t.occurred_at;

-- name: find_ticket
-- One ticket with everything its page shows.
SELECT t.ticket_id, t.number, t.type, t.state, t.channel, t.priority, t.severity, t.equipment_number, t.machine_id, t.machine,
    coalesce(m.site_name, t.site, '') AS site, t.region, t.customer, t.fault_family, t.fault_description, t.fault_description_zh,
    t.dispatch_hold, t.occurred_at, t.created_at, t.updated_at, t.closed_at, t.resolution_code, t.engineer, t.assignment_status, h.version, h.has_customer
FROM report.ticket AS t
JOIN report.ticket_handle AS h ON h.ticket_id = t.ticket_id
LEFT JOIN report.machine AS m ON m.machine_id = t.machine_id
WHERE t.number = %(number)s;

-- name: list_ticket_events
-- The life of a ticket, oldest first.
SELECT at, actor, kind, from_state, to_state, reason, reason_zh
FROM report.ticket_life
WHERE ticket_id = %(ticket_id)s
ORDER BY event_id;

-- name: list_ticket_evidence
-- The evidence of a ticket with the finding it came from, newest first.
SELECT e.at, e.revision, e.evidence, f.fault_family, f.severity, f.kind, f.onset_at, f.raised_at, f.cleared_at, f.detector,
    f.model_version, f.score, f.p_value
FROM report.ticket_evidence AS e
LEFT JOIN report.finding AS f ON f.finding_id = e.finding_id
WHERE e.ticket_id = %(ticket_id)s
ORDER BY e.evidence_id DESC;

-- name: list_ticket_assignments
-- Who was asked, who answered how, and why it was them, newest first.
SELECT assignment_id, engineer_id, engineer, engineer_phone, status, offered_at, expires_at, ended_at, reason
FROM report.assignment
WHERE ticket_id = %(ticket_id)s
ORDER BY assignment_id DESC;

-- name: list_machine_tickets
-- The latest tickets of a machine, closed ones too.
SELECT number, type, state, severity, fault_family, occurred_at, closed_at
FROM report.ticket
WHERE machine_id = %(machine_id)s
ORDER BY created_at DESC
LIMIT 20;
