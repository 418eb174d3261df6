-- What tenants may read of the telemetry: definer-owned barrier views bound to the caller's tenant.

CREATE VIEW report.reading WITH (security_barrier) AS
SELECT s.tenant_id, s.machine_id, r.sensor_id, r.ts AS at, r.value, r.quality, r.flags
FROM public.reading AS r
JOIN public.sensor AS s ON s.id = r.sensor_id
WHERE s.tenant_id = public.current_tenant();

CREATE VIEW report.reading_1m WITH (security_barrier) AS
SELECT s.tenant_id, s.machine_id, r.sensor_id, r.bucket AS at, r.n, r.total / nullif(r.n, 0) AS mean, r.low, r.high, r.sum_of_squares
FROM public.reading_1m AS r
JOIN public.sensor AS s ON s.id = r.sensor_id
WHERE s.tenant_id = public.current_tenant();

CREATE VIEW report.reading_1h WITH (security_barrier) AS
SELECT s.tenant_id, s.machine_id, r.sensor_id, r.bucket AS at, r.n, r.total / nullif(r.n, 0) AS mean, r.low, r.high, r.sum_of_squares
FROM public.reading_1h AS r
JOIN public.sensor AS s ON s.id = r.sensor_id
WHERE s.tenant_id = public.current_tenant();

CREATE VIEW report.reading_1d WITH (security_barrier) AS
SELECT s.tenant_id, s.machine_id, r.sensor_id, r.bucket AS at, r.n, r.total / nullif(r.n, 0) AS mean, r.low, r.high, r.sum_of_squares
FROM public.reading_1d AS r
JOIN public.sensor AS s ON s.id = r.sensor_id
WHERE s.tenant_id = public.current_tenant();

CREATE VIEW report.sensor WITH (security_barrier) AS
SELECT s.tenant_id, s.id AS sensor_id, s.machine_id, s.name, s.kind, s.unit
FROM public.sensor AS s
WHERE s.tenant_id = public.current_tenant();

-- A topic as text: what is no UTF-8, or holds a null character, as octal escapes. One bad row must not spoil the view.
CREATE OR REPLACE FUNCTION report.topic_text(topic bytea) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT  -- never parallel: catching an error takes a subtransaction
AS $$
BEGIN
    RETURN convert_from(topic, 'UTF8');
EXCEPTION WHEN character_not_in_repertoire OR untranslatable_character THEN
    RETURN encode(topic, 'escape');
END
$$;

CREATE VIEW report.rejected_message WITH (security_barrier) AS
SELECT m.tenant_id, m.received_at AS at, report.topic_text(m.topic) AS topic, m.reason, m.detail
FROM public.rejected_message AS m
WHERE m.tenant_id = public.current_tenant();
