-- A plant to look at: two sites, fourteen machines, readings up to now, one bearing that goes, tickets in every state,
-- and a second tenant whose rows nobody else may see. Everything follows from now(); noise is a hash, so it repeats.

INSERT INTO tenant (slug, name) VALUES ('default', 'default'), ('rival', 'Rival GmbH') ON CONFLICT DO NOTHING;
SELECT set_config('fettle.tenant', (SELECT id::text FROM tenant WHERE slug = 'default'), false);

INSERT INTO site (tenant_id, code, name, region, latitude, longitude, time_zone)
SELECT current_tenant(), v.code, v.name, v.region, v.lat, v.lon, v.zone
FROM (VALUES ('sz', 'Suzhou Works', 'East China', 31.30, 120.58, 'Asia/Shanghai'),
             ('bre', 'Bremen', 'North', 53.08, 8.80, 'Europe/Berlin')) AS v (code, name, region, lat, lon, zone);
INSERT INTO line (tenant_id, site_id, code, name)
SELECT current_tenant(), s.id, v.code, v.name
FROM site AS s
JOIN (VALUES ('sz', 'L1', 'Line 1'), ('sz', 'L2', 'Line 2'), ('bre', 'U', 'Utilities')) AS v (site, code, name) ON v.site = s.code;
INSERT INTO customer (tenant_id, code, name, phone, region)
VALUES (current_tenant(), 'hd', '恒达化工', '+86 512 555 0101', 'East China'), (current_tenant(), 'nw', 'Nordwasser AG', '+49 421 555 0', 'North');

INSERT INTO machine (tenant_id, site_id, line_id, customer_id, number, name, class, rated_current_a)
SELECT current_tenant(), s.id, l.id, c.id, v.number, v.name, v.class, 30
FROM (VALUES
    ('sz', 'L1', 'hd', 'P-101', 'Feed pump 1', 'pump'), ('sz', 'L1', 'hd', 'P-102', 'Feed pump 2', 'pump'),
    ('sz', 'L1', 'hd', 'F-110', 'Exhaust fan', 'fan'), ('sz', 'L1', NULL, 'M-120', 'Mixer', 'mixer'),
    ('sz', 'L1', NULL, 'C-130', 'Belt conveyor north', 'conveyor'),
    ('sz', 'L2', 'hd', 'P-201', 'Cooling water pump', 'pump'), ('sz', 'L2', NULL, 'F-210', 'Cooling tower fan', 'fan'),
    ('sz', 'L2', NULL, 'S-220', 'Spindle A', 'spindle'), ('sz', 'L2', NULL, 'S-221', 'Spindle B', 'spindle'),
    ('sz', 'L2', NULL, 'G-230', '减速机 3 号', 'gearbox'),
    ('bre', 'U', 'nw', 'K-301', 'Air compressor 1', 'compressor'), ('bre', 'U', 'nw', 'K-302', 'Air compressor 2', 'compressor'),
    ('bre', 'U', 'nw', 'P-310', 'Booster pump', 'pump'), ('bre', 'U', NULL, 'F-320', 'Supply air fan', 'fan')
) AS v (site, line, customer, number, name, class)
JOIN site AS s ON s.code = v.site
JOIN line AS l ON l.site_id = s.id AND l.code = v.line
LEFT JOIN customer AS c ON c.code = v.customer
ORDER BY v.site DESC, v.number;

INSERT INTO sensor (tenant_id, machine_id, name, kind, unit)
SELECT current_tenant(), m.id, v.name, v.kind, v.unit
FROM machine AS m
CROSS JOIN (VALUES ('vibration_de', 'vibration_velocity', 'mm/s'), ('vibration_nde', 'vibration_velocity', 'mm/s'),
                   ('temperature', 'temperature', '°C'), ('current', 'current', 'A')) AS v (name, kind, unit)
WHERE v.name <> 'vibration_nde' OR m.number IN ('P-101', 'K-301');

SELECT ensure_reading_partitions(now() - interval '2 days', now() + interval '1 day');

-- P-101 in full for thirty hours, its drive-end bearing failing for the last nine; the rest every minute for two hours.
INSERT INTO reading (sensor_id, quality, flags, ts, value)
SELECT s.id, 192, 0, t.ts,
    CASE s.kind
        WHEN 'vibration_velocity' THEN 1.5 + m.id % 5 * 0.12 + 0.5 * load + 0.16 * noise
            + CASE WHEN m.number = 'P-101' THEN CASE s.name WHEN 'vibration_de' THEN 1.0 ELSE 0.25 END
                * 0.22 * (exp(greatest(0, age_h) / 2.9) - 1) ELSE 0 END
            + CASE WHEN m.number = 'F-110' THEN CASE WHEN t.ts > now() - interval '40 minutes' THEN 2.1 ELSE 0 END ELSE 0 END
        WHEN 'temperature' THEN 47 + m.id % 7 + 9 * load + 0.35 * noise
            + CASE WHEN m.number = 'P-101' THEN 0.9 * greatest(0, age_h - 3) ELSE 0 END
            + CASE WHEN m.number = 'K-301' AND t.ts > now() - interval '1 hour' THEN 14 ELSE 0 END
        ELSE 12 + m.id % 4 + 7 * load + 0.3 * noise
    END
FROM machine AS m
JOIN sensor AS s ON s.machine_id = m.id
CROSS JOIN LATERAL generate_series(
    date_trunc('minute', now()) - CASE WHEN m.number = 'P-101' THEN interval '30 hours' ELSE interval '2 hours' END,
    CASE WHEN m.number = 'F-320' THEN now() - interval '80 minutes' ELSE now() END,
    CASE WHEN m.number = 'P-101' THEN interval '10 s' ELSE interval '60 s' END) AS t (ts)
CROSS JOIN LATERAL (
    SELECT (hashint8extended(extract(epoch FROM t.ts)::bigint, s.id) % 1000) / 1000.0
             + (hashint8extended(extract(epoch FROM t.ts)::bigint, s.id + 7919) % 1000) / 1000.0 AS noise,
        0.5 + 0.32 * sin(extract(epoch FROM t.ts) / 3600.0 * 0.7 + m.id)
            + CASE WHEN extract(epoch FROM t.ts)::bigint / 1800 % 5 = 0 THEN 0.12 ELSE 0 END AS load,
        extract(epoch FROM t.ts - (now() - interval '9 hours')) / 3600.0 AS age_h
) AS x
WHERE NOT (m.number = 'P-101' AND t.ts BETWEEN now() - interval '16 hours' AND now() - interval '15 hours 20 minutes');

INSERT INTO engineer (tenant_id, code, name, phone, latitude, longitude, time_zone, job_cap) VALUES
    (current_tenant(), 'e1', '王伟', '+86 138 0000 0001', 31.2, 120.6, 'Asia/Shanghai', 3),
    (current_tenant(), 'e2', 'Lena Brandt', '+49 151 000 001', 53.1, 8.8, 'Europe/Berlin', 3);

INSERT INTO finding (tenant_id, machine_id, key, fault_family, kind, severity, onset_at, raised_at, detector, model_version, score, p_value, evidence)
SELECT current_tenant(), m.id, 'k-' || m.number, v.family, 'machine', v.severity, now() - v.onset, now() - v.onset + interval '25 minutes',
    'residual', '2026.11', v.score, v.p, '{}'
FROM (VALUES ('P-101', 'bearing', 'high', interval '6 hours', 7.4, 0.00021), ('F-110', 'imbalance', 'medium', interval '39 minutes', 3.1, 0.0016),
             ('K-301', 'overheating', 'low', interval '58 minutes', 2.2, 0.004)) AS v (number, family, severity, onset, score, p)
JOIN machine AS m ON m.number = v.number;

INSERT INTO ticket (tenant_id, number, type, state, channel, priority, severity, equipment_number, machine_id, customer_id, fault_family,
    fault_description, contact_phone, region, occurred_at, created_at, updated_at, closed_at, resolution_code)
SELECT current_tenant(), v.number, v.type, v.state, v.channel, v.priority, v.severity, v.machine, m.id, m.customer_id, v.family, v.what,
    '+86 512 555 0101', 'East China', now() - v.onset, now() - v.filed, now() - v.filed, now() - v.closed,
    CASE WHEN v.closed IS NOT NULL THEN 'accepted' END
FROM (VALUES
    ('WO-20261122-0003', 'potential_fault', 'dispatched', 'detector', 'high', 'high', 'P-101', 'bearing', 'Vibration far above what its load explains', interval '6 hours', interval '5 hours 35 minutes', NULL::interval),
    ('WO-20261122-0004', 'potential_fault', 'submitted', 'detector', 'normal', 'medium', 'F-110', 'imbalance', 'Vibration step at unchanged load', interval '39 minutes', interval '14 minutes', NULL),
    ('WO-20261122-0005', 'potential_fault', 'in_progress', 'detector', 'normal', 'low', 'K-301', 'overheating', 'Temperature above expectation', interval '58 minutes', interval '33 minutes', NULL),
    ('WO-20261122-0002', 'repair', 'pending_confirmation', 'phone', 'normal', 'low', 'X-999', '', '电话报修：现场有异响，编号待核对', interval '2 hours', interval '2 hours', NULL),
    ('WO-20261121-0009', 'maintenance', 'closed', 'api', 'low', 'low', 'P-101', '', 'Grease the bearings', interval '27 hours', interval '27 hours', interval '22 hours')
) AS v (number, type, state, channel, priority, severity, machine, family, what, onset, filed, closed)
LEFT JOIN machine AS m ON m.number = v.machine;

INSERT INTO ticket_evidence (tenant_id, ticket_id, finding_id, finding_key, revision, at, evidence)
SELECT current_tenant(), t.id, f.id, f.key, 1, t.created_at, jsonb_build_object(
    'machine', m.number, 'at_us', (extract(epoch FROM t.created_at) * 1e6)::bigint,
    'window_us', jsonb_build_array((extract(epoch FROM t.occurred_at) * 1e6)::bigint - 86400000000, (extract(epoch FROM t.created_at) * 1e6)::bigint),
    'zone', v.zone, 'zone_table', 'ISO 10816-1 class II, 15 to 75 kW', 'zone_source', 'ISO 10816-1 annex B', 'family_now', t.fault_family,
    'checks', v.checks::jsonb, 'mode', 'running', 'tier', 2, 'time_to_limit', NULL,
    'contributions', (SELECT jsonb_agg(jsonb_build_object(
        'sensor_id', s.id, 'sensor', s.name, 'kind', s.kind, 'unit', s.unit, 'feature', 'residual', 'direction', 'up',
        'onset_us', (extract(epoch FROM t.occurred_at) * 1e6)::bigint, 'contribution', c.share * f.score, 'measured', c.measured,
        'expected', c.expected, 'low', c.low, 'high', c.high, 'limit', c.upper, 'source', '') ORDER BY c.share DESC)
        FROM jsonb_to_recordset(v.rows::jsonb) AS c (name text, share float8, measured float8, expected float8, low float8, high float8, upper float8)
        JOIN sensor AS s ON s.machine_id = m.id AND s.name = c.name))
FROM (VALUES
    ('P-101', 'C', '["envelope_spectrum", "grease", "replace_bearing"]', '[{"name":"vibration_de","share":0.71,"measured":6.42,"expected":1.94,"low":1.5,"high":2.6,"upper":7.1},{"name":"temperature","share":0.19,"measured":63.2,"expected":54.8,"low":51.0,"high":58.5},{"name":"vibration_nde","share":0.10,"measured":2.9,"expected":1.9,"low":1.5,"high":2.5,"upper":7.1}]'),
    ('F-110', 'C', '["fasteners", "coupling", "balance"]', '[{"name":"vibration_de","share":0.94,"measured":4.31,"expected":2.16,"low":1.7,"high":2.7,"upper":7.1}]'),
    ('K-301', NULL, '["fan", "filter", "coolant", "temperature_sensor"]', '[{"name":"temperature","share":1,"measured":71.3,"expected":57.0,"low":54.1,"high":60.2,"upper":105}]')
) AS v (number, zone, checks, rows)
JOIN machine AS m ON m.number = v.number
JOIN finding AS f ON f.machine_id = m.id
JOIN ticket AS t ON t.machine_id = m.id AND t.fault_family = f.fault_family;

INSERT INTO ticket_event (tenant_id, ticket_id, at, actor, kind, from_state, to_state, reason)
SELECT current_tenant(), t.id, t.created_at + v.after, v.actor, v.kind, v.from_state, v.to_state, v.reason
FROM (VALUES
    ('WO-20261122-0003', interval '0', 'detector', 'filed', NULL, NULL, 'bearing finding raised'),
    ('WO-20261122-0003', interval '9 seconds', 'dispatch', 'transition', 'submitted', 'dispatched', 'offered to 王伟'),
    ('WO-20261122-0003', interval '41 minutes', 'detector', 'evidence', NULL, NULL, 'temperature follows'),
    ('WO-20261122-0004', interval '0', 'detector', 'filed', NULL, NULL, ''),
    ('WO-20261122-0005', interval '0', 'detector', 'filed', NULL, NULL, ''),
    ('WO-20261122-0005', interval '5 seconds', 'dispatch', 'transition', 'submitted', 'dispatched', 'offered to Lena Brandt'),
    ('WO-20261122-0005', interval '7 minutes', 'e2', 'transition', 'dispatched', 'in_progress', 'on site'),
    ('WO-20261122-0002', interval '0', 'anna', 'filed', NULL, NULL, ''),
    ('WO-20261122-0002', interval '1 second', 'anna', 'transition', 'submitted', 'pending_confirmation', 'unknown equipment number')
) AS v (number, after, actor, kind, from_state, to_state, reason)
JOIN ticket AS t ON t.number = v.number
ORDER BY 3;

INSERT INTO assignment (tenant_id, ticket_id, engineer_id, status, offered_at, expires_at, accepted_at, started_at, planned_during, reason)
SELECT current_tenant(), t.id, e.id, v.status, t.created_at + interval '9 seconds', t.created_at + interval '15 minutes',
    t.created_at + interval '2 minutes', CASE WHEN v.status = 'started' THEN t.created_at + interval '7 minutes' END,
    tstzrange(t.created_at + interval '1 hour', t.created_at + interval '3 hours'),
    '{"en": ["Nearest of 2 qualified engineers: 12 km, 21 min", "On shift until 18:00, 0 of 3 jobs"], "zh": ["2 名合格工程师中距离最近：12 公里，21 分钟", "当班至 18:00，已有 0/3 单"]}'
FROM (VALUES ('WO-20261122-0003', 'e1', 'accepted'), ('WO-20261122-0005', 'e2', 'started')) AS v (number, engineer, status)
JOIN ticket AS t ON t.number = v.number
JOIN engineer AS e ON e.code = v.engineer;

INSERT INTO account (tenant_id, login, password_hash, role, display_name, language, engineer_id, customer_id)
SELECT current_tenant(), v.login, v.hash, v.role, v.name, v.language, e.id, c.id
FROM (VALUES
    -- password of all: look around
    ('anna', 'HASH', 'supervisor', 'Anna Supervisor', 'en', NULL, NULL),
    ('li', 'HASH', 'supervisor', '李主管', 'zh', NULL, NULL),
    ('hengda', 'HASH', 'customer_rep', '恒达化工', 'zh', NULL, 'hd'),
    ('wang', 'HASH', 'engineer', '王伟', 'zh', 'e1', NULL),
    ('lena', 'HASH', 'engineer', 'Lena Brandt', 'en', 'e2', NULL),
    ('robot', 'HASH', 'machine_account', 'MES', 'en', NULL, NULL)
) AS v (login, hash, role, name, language, engineer, customer)
LEFT JOIN engineer AS e ON e.code = v.engineer
LEFT JOIN customer AS c ON c.code = v.customer;

-- The rival: the same machine number, a ticket, a reading of its own.
SELECT set_config('fettle.tenant', (SELECT id::text FROM tenant WHERE slug = 'rival'), false);
INSERT INTO site (tenant_id, code, name) VALUES (current_tenant(), 'x', 'Rival site');
INSERT INTO machine (tenant_id, site_id, number, name)
SELECT current_tenant(), s.id, 'P-101', 'Rival pump' FROM site AS s WHERE s.tenant_id = current_tenant();
INSERT INTO sensor (tenant_id, machine_id, name, kind, unit)
SELECT current_tenant(), m.id, 'vibration_de', 'vibration_velocity', 'mm/s' FROM machine AS m WHERE m.tenant_id = current_tenant();
INSERT INTO reading (sensor_id, quality, flags, ts, value)
SELECT s.id, 192, 0, t.ts, 99 FROM sensor AS s
CROSS JOIN generate_series(now() - interval '1 hour', now(), interval '1 minute') AS t (ts)
WHERE s.tenant_id = current_tenant();
INSERT INTO ticket (tenant_id, number, type, channel, equipment_number, machine_id, fault_description, contact_phone, region, occurred_at, created_at, updated_at)
SELECT current_tenant(), 'WO-RIVAL', 'repair', 'api', 'P-101', m.id, 'secret', '1', 'r', now(), now(), now()
FROM machine AS m WHERE m.tenant_id = current_tenant();
INSERT INTO account (tenant_id, login, password_hash, role, display_name)
VALUES (current_tenant(), 'spy', 'HASH', 'admin', 'Spy');
