-- Machines, tickets and engineers as the boards show them.

CREATE VIEW report.machine WITH (security_barrier) AS
SELECT m.tenant_id, m.id AS machine_id, m.number, m.name, m.class, si.code AS site, si.name AS site_name, si.region,
    coalesce(l.code, '') AS line, coalesce(l.name, '') AS line_name, coalesce(c.name, '') AS customer,
    si.latitude, si.longitude
FROM public.machine AS m
JOIN public.site AS si ON si.tenant_id = m.tenant_id AND si.id = m.site_id
LEFT JOIN public.line AS l ON l.tenant_id = m.tenant_id AND l.id = m.line_id
LEFT JOIN public.customer AS c ON c.tenant_id = m.tenant_id AND c.id = m.customer_id
WHERE m.tenant_id = public.current_tenant();

CREATE VIEW report.ticket WITH (security_barrier) AS
SELECT t.tenant_id, t.id AS ticket_id, t.number, t.type, t.state, t.channel, t.priority, t.severity, t.equipment_number,
    t.machine_id, m.name AS machine, si.code AS site, t.region, coalesce(c.name, '') AS customer, t.fault_family,
    t.fault_description, t.fault_description_zh, t.dispatch_hold, t.occurred_at, t.created_at, t.updated_at, t.closed_at, t.resolution_code,
    a.engineer_id, e.name AS engineer, a.status AS assignment_status, a.offered_at,
    (SELECT min(v.at) FROM public.ticket_event AS v
     WHERE v.tenant_id = t.tenant_id AND v.ticket_id = t.id AND v.to_state = 'dispatched') AS dispatched_at
FROM public.ticket AS t
LEFT JOIN public.machine AS m ON m.tenant_id = t.tenant_id AND m.id = t.machine_id
LEFT JOIN public.site AS si ON si.tenant_id = m.tenant_id AND si.id = m.site_id
LEFT JOIN public.customer AS c ON c.tenant_id = t.tenant_id AND c.id = t.customer_id
LEFT JOIN public.assignment AS a ON a.tenant_id = t.tenant_id AND a.ticket_id = t.id
    AND a.status IN ('offered', 'accepted', 'started')
LEFT JOIN public.engineer AS e ON e.tenant_id = a.tenant_id AND e.id = a.engineer_id
WHERE t.tenant_id = public.current_tenant();

CREATE VIEW report.ticket_event WITH (security_barrier) AS
SELECT v.tenant_id, v.ticket_id, v.id AS event_id, v.at, v.actor, v.kind, v.from_state, v.to_state, v.reason
FROM public.ticket_event AS v
WHERE v.tenant_id = public.current_tenant();

CREATE VIEW report.finding WITH (security_barrier) AS
SELECT f.tenant_id, f.id AS finding_id, f.machine_id, f.fault_family, f.kind, f.severity, f.onset_at, f.raised_at, f.cleared_at,
    f.detector, f.model_version, f.score, f.p_value
FROM public.finding AS f
WHERE f.tenant_id = public.current_tenant();

CREATE VIEW report.engineer WITH (security_barrier) AS
SELECT e.tenant_id, e.id AS engineer_id, e.code, e.name, e.latitude, e.longitude, e.job_cap, e.active_jobs
FROM public.engineer AS e
WHERE e.tenant_id = public.current_tenant() AND e.is_active;

-- One row per machine: is it well, and what is open on it.
CREATE VIEW report.fleet_health WITH (security_barrier) AS
SELECT m.tenant_id, m.machine_id, m.number, m.name, m.class, m.site, m.line,
    CASE
        WHEN bool_or(t.severity = 'high') THEN 'high'
        WHEN bool_or(t.severity = 'medium') THEN 'medium'
        WHEN count(t.ticket_id) > 0 THEN 'low'
        ELSE 'well'
    END AS health,
    count(t.ticket_id)::int AS open_tickets,
    min(t.number) AS first_ticket
FROM report.machine AS m
LEFT JOIN report.ticket AS t ON t.machine_id = m.machine_id AND t.state <> 'closed'
GROUP BY m.tenant_id, m.machine_id, m.number, m.name, m.class, m.site, m.line;
