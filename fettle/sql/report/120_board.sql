-- What the board and Grafana need beyond the operational views: who may see what, the newest value of each sensor,
-- evidence and assignments of tickets, and a trace that never answers more points than a screen has.

-- Whose machine and whose ticket it is: rows a customer or an engineer is limited to.
CREATE VIEW report.machine_scope WITH (security_barrier) AS
SELECT m.tenant_id, m.id AS machine_id, m.customer_id, NULL::int AS engineer_id
FROM public.machine AS m
WHERE m.tenant_id = public.current_tenant() AND m.customer_id IS NOT NULL
UNION
SELECT t.tenant_id, t.machine_id, NULL, a.engineer_id
FROM public.assignment AS a
JOIN public.ticket AS t ON t.tenant_id = a.tenant_id AND t.id = a.ticket_id
WHERE a.tenant_id = public.current_tenant() AND t.machine_id IS NOT NULL;

CREATE VIEW report.ticket_scope WITH (security_barrier) AS
SELECT t.tenant_id, t.id AS ticket_id, coalesce(t.customer_id, m.customer_id) AS customer_id, NULL::int AS engineer_id
FROM public.ticket AS t
LEFT JOIN public.machine AS m ON m.tenant_id = t.tenant_id AND m.id = t.machine_id
WHERE t.tenant_id = public.current_tenant() AND coalesce(t.customer_id, m.customer_id) IS NOT NULL
UNION
SELECT a.tenant_id, a.ticket_id, NULL, a.engineer_id
FROM public.assignment AS a
WHERE a.tenant_id = public.current_tenant();

-- The newest value of each sensor within a week; null where it has been silent for longer.
CREATE VIEW report.sensor_latest WITH (security_barrier) AS
SELECT s.tenant_id, s.machine_id, s.id AS sensor_id, s.name, s.kind, s.unit, r.ts AS at, r.value
FROM public.sensor AS s
LEFT JOIN LATERAL (
    SELECT x.ts, x.value
    FROM public.reading AS x
    WHERE x.sensor_id = s.id AND x.ts > now() - interval '7 days' AND x.value IS NOT NULL
    ORDER BY x.ts DESC
    LIMIT 1
) AS r ON true
WHERE s.tenant_id = public.current_tenant() AND s.is_enabled;

CREATE VIEW report.ticket_evidence WITH (security_barrier) AS
SELECT e.tenant_id, e.ticket_id, e.id AS evidence_id, e.finding_id, e.finding_key, e.revision, e.at, e.evidence
FROM public.ticket_evidence AS e
WHERE e.tenant_id = public.current_tenant();

-- The life of a ticket with its reasons in both languages; Chinese is empty where the one who acted gave none.
CREATE VIEW report.ticket_life WITH (security_barrier) AS
SELECT v.tenant_id, v.ticket_id, v.id AS event_id, v.at, v.actor, v.kind, v.from_state, v.to_state, v.reason,
    coalesce(v.detail ->> 'reason_zh', '') AS reason_zh
FROM public.ticket_event AS v
WHERE v.tenant_id = public.current_tenant();

CREATE VIEW report.assignment WITH (security_barrier) AS
SELECT a.tenant_id, a.ticket_id, a.id AS assignment_id, a.engineer_id, e.name AS engineer, e.phone AS engineer_phone,
    a.status, a.offered_at, a.expires_at, a.ended_at, a.reason
FROM public.assignment AS a
JOIN public.engineer AS e ON e.tenant_id = a.tenant_id AND e.id = a.engineer_id
WHERE a.tenant_id = public.current_tenant();

-- What a call about a ticket needs besides its id: the version the caller saw, and whether a customer judges the result.
CREATE VIEW report.ticket_handle WITH (security_barrier) AS
SELECT t.tenant_id, t.id AS ticket_id, t.version, t.customer_id IS NOT NULL AS has_customer
FROM public.ticket AS t
WHERE t.tenant_id = public.current_tenant();

CREATE VIEW report.tenant WITH (security_barrier) AS
SELECT t.id AS tenant_id, t.slug, t.name
FROM public.tenant AS t
WHERE t.id = public.current_tenant();

-- Hours of a range whose rollups lag behind the readings: those of batches the rollup job has not read yet. Continuous
-- aggregates never lag, they read the tail themselves. Runs as the owner; hours of the ledger are no tenant's secret.
CREATE OR REPLACE FUNCTION report.rollup_lag(from_at timestamptz, to_at timestamptz) RETURNS SETOF timestamptz
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp
AS $$
BEGIN
    IF to_regclass('public.rollup_position') IS NULL THEN
        RETURN;
    END IF;
    RETURN QUERY
    SELECT DISTINCT h.at
    FROM batch AS b
    LEFT JOIN rollup_position AS p ON p.collector_id = b.collector_id
    CROSS JOIN LATERAL generate_series(
        date_bin('1 hour', greatest(b.first_ts, from_at), timestamptz '2000-01-03 00:00+00'), least(b.last_ts, to_at),
        interval '1 hour') AS h (at)
    WHERE b.number > coalesce(p.number, 0) AND b.first_ts < to_at AND b.last_ts >= from_at;
END
$$;
REVOKE ALL ON FUNCTION report.rollup_lag(timestamptz, timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION report.rollup_lag(timestamptz, timestamptz) TO fettle_api, fettle_worker, fettle_tenant;

-- The narrowest step of the board's scale that cuts [from_at, to_at) into at most `points` pieces.
CREATE OR REPLACE FUNCTION report.trace_step(from_at timestamptz, to_at timestamptz, points int) RETURNS interval
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT coalesce(
        (SELECT min(step) FROM unnest(ARRAY['1 s', '2 s', '5 s', '10 s', '15 s', '20 s', '30 s', '1 min', '2 min', '5 min',
             '10 min', '15 min', '20 min', '30 min', '1 h', '2 h', '3 h', '6 h', '12 h', '24 h', '168 h']::interval[]) AS step
         WHERE extract(epoch FROM step) * greatest(points, 10) >= extract(epoch FROM to_at - from_at)),
        interval '720 h')
$$;

-- Mean, lowest and highest value per step of every sensor of a machine. Runs as the caller, on views bound to the caller:
-- raw readings below a minute, minutes below an hour, hours above. Where rollups lag, the readings themselves.
DROP FUNCTION IF EXISTS report.trace(bigint, timestamptz, timestamptz, int);
CREATE FUNCTION report.trace(wanted_machine bigint, from_at timestamptz, to_at timestamptz, points int)
RETURNS TABLE (sensor_id int, name text, kind text, unit text, at timestamptz, mean float8, low float8, high float8)
LANGUAGE plpgsql STABLE
AS $$
#variable_conflict use_column
DECLARE
    step interval := report.trace_step(from_at, to_at, points);
    origin CONSTANT timestamptz := '2000-01-03 00:00+00';
    begins timestamptz := date_bin(step, from_at, origin);
    source text := CASE WHEN step < interval '1 minute' THEN 'raw' WHEN step < interval '1 hour' THEN '1m' ELSE '1h' END;
    one record;
    is_rolled boolean;
    lagging timestamptz[] := '{}';
    lags_from timestamptz;
    lags_to timestamptz;
BEGIN
    IF source <> 'raw' THEN
        -- as variables, because a barrier view takes no bounds from a join
        SELECT coalesce(array_agg(g.at), '{}'), CASE WHEN count(*) > 0 THEN greatest(min(g.at), begins) END,  -- null: nothing lags
            least(max(g.at) + interval '1 hour', to_at)
        INTO lagging, lags_from, lags_to
        FROM report.rollup_lag(begins, to_at) AS g (at);
    END IF;
    FOR one IN SELECT s.sensor_id, s.name, s.kind, s.unit FROM report.sensor AS s
               WHERE s.machine_id = wanted_machine ORDER BY s.kind, s.name LOOP
        is_rolled := source <> 'raw' AND CASE source
            WHEN '1m' THEN EXISTS (SELECT FROM report.reading_1m AS r
                                   WHERE r.sensor_id = one.sensor_id AND r.at >= begins AND r.at < to_at)
            ELSE EXISTS (SELECT FROM report.reading_1h AS r
                         WHERE r.sensor_id = one.sensor_id AND r.at >= begins AND r.at < to_at) END;
        IF NOT is_rolled THEN
            RETURN QUERY
            SELECT one.sensor_id, one.name, one.kind, one.unit, date_bin(step, r.at, origin), avg(r.value), min(r.value), max(r.value)
            FROM report.reading AS r
            WHERE r.sensor_id = one.sensor_id AND r.at >= begins AND r.at < to_at AND r.value IS NOT NULL
            GROUP BY 5 ORDER BY 5;
        ELSE
            RETURN QUERY
            WITH piece AS (
                SELECT r.at, r.n::float8 AS n, r.mean, r.low, r.high FROM report.reading_1m AS r
                WHERE source = '1m' AND r.sensor_id = one.sensor_id AND r.at >= begins AND r.at < to_at
                  AND date_bin('1 hour', r.at, origin) <> ALL (lagging)
                UNION ALL
                SELECT r.at, r.n::float8, r.mean, r.low, r.high FROM report.reading_1h AS r
                WHERE source = '1h' AND r.sensor_id = one.sensor_id AND r.at >= begins AND r.at < to_at
                  AND r.at <> ALL (lagging)
                UNION ALL
                SELECT r.at, 1, r.value, r.value, r.value FROM report.reading AS r
                WHERE r.sensor_id = one.sensor_id AND r.at >= lags_from AND r.at < lags_to AND r.value IS NOT NULL
                  AND date_bin('1 hour', r.at, origin) = ANY (lagging)
            )
            SELECT one.sensor_id, one.name, one.kind, one.unit, date_bin(step, p.at, origin),
                sum(p.mean * p.n) / sum(p.n), min(p.low), max(p.high)
            FROM piece AS p
            WHERE p.mean IS NOT NULL AND p.n > 0
            GROUP BY 5 ORDER BY 5;
        END IF;
    END LOOP;
END
$$;
