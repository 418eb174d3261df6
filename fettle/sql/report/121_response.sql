-- How long people waited: one row a ticket, the moments of its life as columns, and the hours
-- from filing to each. Null where it has not come to that.

CREATE VIEW report.ticket_times WITH (security_barrier) AS
SELECT t.tenant_id, t.id AS ticket_id, t.number, t.type, t.priority, t.severity, t.fault_family, t.region, t.machine_id,
    t.created_at, v.dispatched_at, a.accepted_at, a.started_at, w.reported_at, t.closed_at, t.resolution_code,
    a.offers, a.refused, w.hours AS work_hours, f.onset_at,
    (extract(epoch FROM v.dispatched_at - t.created_at) / 3600.0)::float8 AS dispatch_h,
    (extract(epoch FROM a.accepted_at - t.created_at) / 3600.0)::float8 AS accept_h,
    (extract(epoch FROM a.started_at - t.created_at) / 3600.0)::float8 AS start_h,
    (extract(epoch FROM w.reported_at - t.created_at) / 3600.0)::float8 AS result_h,
    (extract(epoch FROM t.closed_at - t.created_at) / 3600.0)::float8 AS close_h,
    (extract(epoch FROM t.created_at - f.onset_at) / 3600.0)::float8 AS onset_to_ticket_h
FROM public.ticket AS t
LEFT JOIN LATERAL (
    SELECT min(x.at) AS dispatched_at
    FROM public.ticket_event AS x
    WHERE x.tenant_id = t.tenant_id AND x.ticket_id = t.id AND x.to_state = 'dispatched'
) AS v ON true
LEFT JOIN LATERAL (
    SELECT min(x.accepted_at) AS accepted_at, min(x.started_at) AS started_at, count(*)::int AS offers,
        count(*) FILTER (WHERE x.status IN ('rejected', 'expired'))::int AS refused
    FROM public.assignment AS x
    WHERE x.tenant_id = t.tenant_id AND x.ticket_id = t.id
) AS a ON true
LEFT JOIN LATERAL (
    SELECT min(x.at) AS reported_at, sum(x.hours) AS hours
    FROM public.work_report AS x
    WHERE x.tenant_id = t.tenant_id AND x.ticket_id = t.id
) AS w ON true
LEFT JOIN LATERAL (
    SELECT min(x.onset_at) AS onset_at
    FROM public.ticket_evidence AS e
    JOIN public.finding AS x ON x.tenant_id = e.tenant_id AND x.id = e.finding_id
    WHERE e.tenant_id = t.tenant_id AND e.ticket_id = t.id
) AS f ON true
WHERE t.tenant_id = public.current_tenant();

-- What each engineer was asked and did.
CREATE VIEW report.work_done WITH (security_barrier) AS
SELECT a.tenant_id, a.engineer_id, e.name AS engineer, a.ticket_id, a.status, a.offered_at, a.accepted_at, a.started_at, a.ended_at,
    (extract(epoch FROM a.accepted_at - a.offered_at) / 3600.0)::float8 AS accept_h,
    (extract(epoch FROM a.ended_at - a.started_at) / 3600.0)::float8 AS work_h
FROM public.assignment AS a
JOIN public.engineer AS e ON e.tenant_id = a.tenant_id AND e.id = a.engineer_id
WHERE a.tenant_id = public.current_tenant();
