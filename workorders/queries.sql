-- name: find_machine_by_number
-- A machine by the equipment number people quote, with its customer; a machine in the caller's region comes first.
SELECT m.id, m.number, m.name, m.class, m.customer_id, m.required_certificate, m.required_level,
    s.code AS site, s.name AS site_name, s.region, s.time_zone, coalesce(l.code, '') AS line,
    coalesce(c.code, '') AS customer_code, coalesce(c.name, '') AS customer_name, coalesce(c.phone, '') AS customer_phone
FROM machine AS m
JOIN site AS s ON s.tenant_id = m.tenant_id AND s.id = m.site_id
LEFT JOIN line AS l ON l.tenant_id = m.tenant_id AND l.id = m.line_id
LEFT JOIN customer AS c ON c.tenant_id = m.tenant_id AND c.id = m.customer_id
WHERE m.tenant_id = (SELECT current_tenant())
    AND (m.number = %(number)s OR lower(m.number) = lower(%(number)s))
ORDER BY (m.number = %(number)s) DESC, (s.region = %(region)s) DESC, m.id
LIMIT 1

-- name: find_machine
-- A machine by id, with what a ticket takes over from it.
SELECT m.id, m.number, m.name, m.class, m.customer_id, m.required_certificate, m.required_level,
    s.code AS site, s.name AS site_name, s.region, s.time_zone, coalesce(l.code, '') AS line,
    coalesce(c.code, '') AS customer_code, coalesce(c.name, '') AS customer_name, coalesce(c.phone, '') AS customer_phone
FROM machine AS m
JOIN site AS s ON s.tenant_id = m.tenant_id AND s.id = m.site_id
LEFT JOIN line AS l ON l.tenant_id = m.tenant_id AND l.id = m.line_id
LEFT JOIN customer AS c ON c.tenant_id = m.tenant_id AND c.id = m.customer_id
WHERE m.tenant_id = (SELECT current_tenant()) AND m.id = %(machine_id)s

-- name: take_ticket_number
-- The next ticket number of the tenant. Locks the tenant's row, so numbers have no gaps and no twins.
UPDATE tenant SET tickets_filed = tickets_filed + 1
WHERE id = (SELECT current_tenant())
RETURNING tickets_filed

-- name: read_policy
-- What the tenant has set otherwise than the defaults.
SELECT policy FROM tenant WHERE id = (SELECT current_tenant())

-- name: add_ticket
-- A new ticket in state submitted. Nothing comes back if an open potential-fault ticket for the same cause is there.
INSERT INTO ticket (tenant_id, number, type, channel, priority, severity, equipment_number, machine_id, customer_id,
    fault_family, fault_description, fault_description_zh, contact_phone, region, work_center, operation, answers,
    occurred_at, created_at, updated_at)
VALUES ((SELECT current_tenant()), %(number)s, %(type)s, %(channel)s, %(priority)s, %(severity)s, %(equipment_number)s,
    %(machine_id)s, %(customer_id)s, %(fault_family)s, %(fault_description)s, %(fault_description_zh)s,
    %(contact_phone)s, %(region)s, %(work_center)s, %(operation)s, %(answers)s, %(occurred_at)s, %(now)s, %(now)s)
ON CONFLICT (tenant_id, machine_id, fault_family) WHERE type = 'potential_fault' AND state <> 'closed' DO NOTHING
RETURNING id

-- name: add_requirement
-- A certificate that the job takes; the higher level wins.
INSERT INTO ticket_requirement (tenant_id, ticket_id, certificate_code, level)
VALUES ((SELECT current_tenant()), %(ticket_id)s, %(certificate_code)s, %(level)s)

-- name: read_requirements
-- The certificates that a ticket's job takes.
SELECT certificate_code, level
FROM ticket_requirement
WHERE tenant_id = (SELECT current_tenant()) AND ticket_id = %(ticket_id)s
ORDER BY certificate_code

-- name: add_event
-- One row of a ticket's history.
INSERT INTO ticket_event (tenant_id, ticket_id, at, actor, kind, from_state, to_state, reason, detail)
VALUES ((SELECT current_tenant()), %(ticket_id)s, %(at)s, %(actor)s, %(kind)s, %(from_state)s, %(to_state)s,
    %(reason)s, %(detail)s)

-- name: add_evidence
-- Evidence of a finding, once for each revision.
INSERT INTO ticket_evidence (tenant_id, ticket_id, finding_id, finding_key, revision, at, evidence)
VALUES ((SELECT current_tenant()), %(ticket_id)s, %(finding_id)s, %(finding_key)s, %(revision)s, %(at)s, %(evidence)s)
ON CONFLICT (tenant_id, ticket_id, finding_key, revision) DO NOTHING
RETURNING id

-- name: lock_open_potential_fault
-- The one open ticket about a fault family of a machine, locked.
SELECT id, number, severity
FROM ticket
WHERE tenant_id = (SELECT current_tenant()) AND machine_id = %(machine_id)s AND fault_family = %(fault_family)s
    AND type = 'potential_fault' AND state <> 'closed'
FOR NO KEY UPDATE

-- name: find_ticket_of_finding
-- The ticket that has evidence of this very finding, newest first; it may be closed.
SELECT t.id, t.number, t.severity
FROM ticket_evidence AS e
JOIN ticket AS t ON t.tenant_id = e.tenant_id AND t.id = e.ticket_id
WHERE e.tenant_id = (SELECT current_tenant()) AND t.machine_id = %(machine_id)s AND e.finding_key = %(finding_key)s
ORDER BY t.id DESC
LIMIT 1

-- name: raise_severity
-- A finding got worse: the ticket's severity and priority rise, never fall.
UPDATE ticket
SET severity = %(severity)s,
    priority = CASE WHEN priority = 'emergency' THEN priority ELSE %(priority)s END,
    version = version + 1, updated_at = %(now)s
WHERE tenant_id = (SELECT current_tenant()) AND id = %(ticket_id)s

-- name: lock_ticket
-- A ticket, locked until the transaction ends.
SELECT id, tenant_id, number, type, state, channel, priority, severity, equipment_number, machine_id, customer_id,
    fault_family, fault_description, fault_description_zh, contact_phone, region, work_center, operation, answers,
    hold_reason, resolution_code, duplicate_of, rework_count, satisfaction, failed_offers, dispatch_hold, dispatch_after,
    version, occurred_at, created_at, updated_at, closed_at
FROM ticket
WHERE tenant_id = (SELECT current_tenant()) AND id = %(ticket_id)s
FOR NO KEY UPDATE

-- name: read_ticket
-- A ticket, if it is within the caller's scope.
SELECT t.id, t.tenant_id, t.number, t.type, t.state, t.channel, t.priority, t.severity, t.equipment_number, t.machine_id,
    t.customer_id, t.fault_family, t.fault_description, t.fault_description_zh, t.contact_phone, t.region, t.work_center,
    t.operation, t.answers, t.hold_reason, t.resolution_code, t.duplicate_of, t.rework_count, t.satisfaction,
    t.failed_offers, t.dispatch_hold, t.dispatch_after, t.version, t.occurred_at, t.created_at, t.updated_at, t.closed_at
FROM ticket AS t
WHERE t.tenant_id = (SELECT current_tenant()) AND t.id = %(ticket_id)s
    AND (%(customer_id)s::int IS NULL OR t.customer_id = %(customer_id)s)
    AND (%(engineer_id)s::int IS NULL OR EXISTS (
        SELECT FROM assignment AS a
        WHERE a.tenant_id = t.tenant_id AND a.ticket_id = t.id AND a.engineer_id = %(engineer_id)s
    ))

-- name: list_tickets
-- A page of tickets within the caller's scope, newest first, after a cursor.
SELECT t.id, t.tenant_id, t.number, t.type, t.state, t.channel, t.priority, t.severity, t.equipment_number, t.machine_id,
    t.customer_id, t.fault_family, t.fault_description, t.fault_description_zh, t.contact_phone, t.region, t.work_center,
    t.operation, t.answers, t.hold_reason, t.resolution_code, t.duplicate_of, t.rework_count, t.satisfaction,
    t.failed_offers, t.dispatch_hold, t.dispatch_after, t.version, t.occurred_at, t.created_at, t.updated_at, t.closed_at
FROM ticket AS t
WHERE t.tenant_id = (SELECT current_tenant())
    AND (%(customer_id)s::int IS NULL OR t.customer_id = %(customer_id)s)
    AND (%(engineer_id)s::int IS NULL OR EXISTS (
        SELECT FROM assignment AS a
        WHERE a.tenant_id = t.tenant_id AND a.ticket_id = t.id AND a.engineer_id = %(engineer_id)s
    ))
    AND (%(states)s::text[] IS NULL OR t.state = ANY (%(states)s))
    AND (%(types)s::text[] IS NULL OR t.type = ANY (%(types)s))
    AND (%(equipment_number)s::text IS NULL OR t.equipment_number = %(equipment_number)s)
    AND (%(before_at)s::timestamptz IS NULL OR (t.created_at, t.id) < (%(before_at)s, %(before_id)s))
ORDER BY t.created_at DESC, t.id DESC
LIMIT %(limit)s

-- name: read_events
-- The history of a ticket, oldest first.
SELECT id, at, actor, kind, from_state, to_state, reason, detail
FROM ticket_event
WHERE tenant_id = (SELECT current_tenant()) AND ticket_id = %(ticket_id)s
ORDER BY id

-- name: read_evidence
-- The evidence of a ticket, oldest first.
SELECT id, finding_id, finding_key, revision, at, evidence
FROM ticket_evidence
WHERE tenant_id = (SELECT current_tenant()) AND ticket_id = %(ticket_id)s
ORDER BY id

-- name: read_assignments
-- To whom a ticket was offered, oldest first.
SELECT a.id, a.engineer_id, e.code AS engineer_code, e.name AS engineer, a.status, a.offered_at, a.expires_at, a.accepted_at,
    a.started_at, a.ended_at, a.refusal, a.reason
FROM assignment AS a
JOIN engineer AS e ON e.tenant_id = a.tenant_id AND e.id = a.engineer_id
WHERE a.tenant_id = (SELECT current_tenant()) AND a.ticket_id = %(ticket_id)s
ORDER BY a.id

-- name: read_work
-- What the guards of the life cycle ask about a ticket's assignments and reports.
SELECT
    (SELECT a.engineer_id FROM assignment AS a
     WHERE a.tenant_id = (SELECT current_tenant()) AND a.ticket_id = %(ticket_id)s AND a.status IN ('offered', 'accepted', 'started')
    ) AS live_engineer_id,
    (SELECT a.status FROM assignment AS a
     WHERE a.tenant_id = (SELECT current_tenant()) AND a.ticket_id = %(ticket_id)s AND a.status IN ('offered', 'accepted', 'started')
    ) AS live_status,
    EXISTS (
        SELECT FROM work_report AS w
        JOIN assignment AS a ON a.id = w.assignment_id
        WHERE w.tenant_id = (SELECT current_tenant()) AND w.ticket_id = %(ticket_id)s
            AND a.status IN ('offered', 'accepted', 'started')
            AND w.at >= a.started_at
    ) AS has_result

-- name: withdraw_live_assignment
-- End the live assignment of a ticket that is cancelled or taken back.
UPDATE assignment SET status = 'withdrawn', ended_at = %(now)s
WHERE tenant_id = (SELECT current_tenant()) AND ticket_id = %(ticket_id)s AND status IN ('offered', 'accepted', 'started')
RETURNING id, engineer_id

-- name: move_ticket
-- Put a ticket into another state, unless somebody was faster.
UPDATE ticket
SET state = %(to_state)s,
    resolution_code = %(resolution)s,
    duplicate_of = coalesce(%(duplicate_of)s, duplicate_of),
    satisfaction = coalesce(%(satisfaction)s, satisfaction),
    rework_count = rework_count + %(rework)s,
    dispatch_hold = %(dispatch_hold)s,
    dispatch_after = %(dispatch_after)s,
    failed_offers = CASE WHEN %(resets_offers)s THEN 0 ELSE failed_offers END,
    owner_account_id = coalesce(owner_account_id, %(owner_account_id)s),
    closed_at = CASE WHEN %(to_state)s = 'closed' THEN %(now)s::timestamptz END,
    version = version + 1, updated_at = %(now)s
WHERE tenant_id = (SELECT current_tenant()) AND id = %(ticket_id)s
RETURNING version

-- name: put_machine_on_ticket
-- Say which machine a ticket is about, and whose it is where nobody has said so.
UPDATE ticket
SET machine_id = %(machine_id)s, equipment_number = %(number)s, customer_id = coalesce(customer_id, %(customer_id)s),
    version = version + 1, updated_at = %(now)s
WHERE tenant_id = (SELECT current_tenant()) AND id = %(ticket_id)s

-- name: put_site
-- Make a site, or bring it up to date.
INSERT INTO site (tenant_id, code, name, region, latitude, longitude, time_zone)
VALUES ((SELECT current_tenant()), %(code)s, %(name)s, %(region)s, %(latitude)s, %(longitude)s, %(time_zone)s)
ON CONFLICT (tenant_id, code) DO UPDATE SET name = excluded.name, region = excluded.region,
    latitude = excluded.latitude, longitude = excluded.longitude, time_zone = excluded.time_zone
RETURNING id

-- name: put_line
-- Make a line, or bring it up to date.
INSERT INTO line (tenant_id, site_id, code, name)
VALUES ((SELECT current_tenant()), %(site_id)s, %(code)s, %(name)s)
ON CONFLICT (tenant_id, site_id, code) DO UPDATE SET name = excluded.name
RETURNING id

-- name: put_customer
-- Make a customer, or bring it up to date.
INSERT INTO customer (tenant_id, code, name, phone, region)
VALUES ((SELECT current_tenant()), %(code)s, %(name)s, %(phone)s, %(region)s)
ON CONFLICT (tenant_id, code) DO UPDATE SET name = excluded.name, phone = excluded.phone, region = excluded.region
RETURNING id

-- name: put_machine
-- Make a machine, or bring it up to date; one that a topic registered becomes a known one.
INSERT INTO machine (tenant_id, site_id, line_id, customer_id, number, name, class, iso_class, rated_current_a,
    required_certificate, required_level)
VALUES ((SELECT current_tenant()), %(site_id)s, %(line_id)s, %(customer_id)s, %(number)s, %(name)s, %(machine_class)s,
    %(iso_class)s, %(rated_current_a)s, %(required_certificate)s, %(required_level)s)
ON CONFLICT (tenant_id, site_id, number) DO UPDATE SET line_id = excluded.line_id, customer_id = excluded.customer_id,
    name = excluded.name, class = excluded.class, iso_class = excluded.iso_class,
    rated_current_a = excluded.rated_current_a, required_certificate = excluded.required_certificate,
    required_level = excluded.required_level, is_registered_by_topic = false
RETURNING id

-- name: put_engineer
-- Make an engineer, or bring him or her up to date.
INSERT INTO engineer (tenant_id, code, name, phone, latitude, longitude, time_zone, job_cap, regions)
VALUES ((SELECT current_tenant()), %(code)s, %(name)s, %(phone)s, %(latitude)s, %(longitude)s, %(time_zone)s, %(job_cap)s,
    %(regions)s)
ON CONFLICT (tenant_id, code) DO UPDATE SET name = excluded.name, phone = excluded.phone, latitude = excluded.latitude,
    longitude = excluded.longitude, time_zone = excluded.time_zone, job_cap = excluded.job_cap, regions = excluded.regions,
    is_active = true
RETURNING id

-- name: find_certificate
-- The newest certificate of one code that an engineer holds.
SELECT id
FROM certificate
WHERE tenant_id = (SELECT current_tenant()) AND engineer_id = %(engineer_id)s AND code = %(code)s
ORDER BY upper(valid_during) DESC NULLS FIRST, id DESC
LIMIT 1

-- name: add_certificate
-- Give an engineer a certificate.
INSERT INTO certificate (tenant_id, engineer_id, code, level, valid_during, review_due_at)
VALUES ((SELECT current_tenant()), %(engineer_id)s, %(code)s, %(level)s,
    tstzrange(%(valid_from)s, %(valid_until)s, '[)'), %(review_due_at)s)
RETURNING id

-- name: change_certificate
-- Bring a certificate up to date: renewed, raised, reviewed, or withdrawn by an earlier end.
UPDATE certificate
SET level = %(level)s, valid_during = tstzrange(%(valid_from)s, %(valid_until)s, '[)'), review_due_at = %(review_due_at)s
WHERE tenant_id = (SELECT current_tenant()) AND id = %(certificate_id)s

-- name: put_shift
-- Make a weekly shift, or bring its length up to date.
INSERT INTO engineer_shift (tenant_id, engineer_id, weekday, starts_at, hours)
VALUES ((SELECT current_tenant()), %(engineer_id)s, %(weekday)s, %(starts_at)s, %(hours)s)
ON CONFLICT (tenant_id, engineer_id, weekday, starts_at) DO UPDATE SET hours = excluded.hours
RETURNING id

-- name: put_absence
-- Note that an engineer is away.
INSERT INTO engineer_absence (tenant_id, engineer_id, absent_during, reason)
VALUES ((SELECT current_tenant()), %(engineer_id)s, tstzrange(%(begins_at)s, %(ends_at)s, '[)'), %(reason)s)
ON CONFLICT (tenant_id, engineer_id, absent_during) DO UPDATE SET reason = excluded.reason
RETURNING id

-- name: put_account
-- Make an account, or bring it up to date; without a new password the old one stays, and so do a name that is more than
-- the login, and the engineer or customer it stands for as long as the role stays.
INSERT INTO account (tenant_id, login, password_hash, role, display_name, language, engineer_id, customer_id)
VALUES ((SELECT current_tenant()), %(login)s, %(password_hash)s, %(role)s, %(display_name)s,
    coalesce(%(language)s, 'en'), %(engineer_id)s, %(customer_id)s)
ON CONFLICT (login) DO UPDATE SET role = excluded.role,
    display_name = CASE WHEN excluded.display_name = account.login THEN account.display_name ELSE excluded.display_name END,
    language = coalesce(%(language)s, account.language),
    engineer_id = CASE WHEN account.role = excluded.role THEN coalesce(excluded.engineer_id, account.engineer_id)
        ELSE excluded.engineer_id END,
    customer_id = CASE WHEN account.role = excluded.role THEN coalesce(excluded.customer_id, account.customer_id)
        ELSE excluded.customer_id END,
    password_hash = CASE WHEN %(has_password)s THEN excluded.password_hash ELSE account.password_hash END,
    is_active = true
RETURNING id

-- name: find_represented
-- The engineer and the customer of these codes, and whom an account already stands for under this role.
SELECT
    (SELECT id FROM engineer WHERE tenant_id = (SELECT current_tenant()) AND code = %(engineer)s) AS engineer_id,
    (SELECT id FROM customer WHERE tenant_id = (SELECT current_tenant()) AND code = %(customer)s) AS customer_id,
    EXISTS (
        SELECT FROM account
        WHERE tenant_id = (SELECT current_tenant()) AND login = %(login)s AND role = %(role)s
            AND (engineer_id IS NOT NULL OR customer_id IS NOT NULL)
    ) AS is_known

-- name: read_password
-- The stored password of an account of this tenant.
SELECT id, password_hash FROM account WHERE tenant_id = (SELECT current_tenant()) AND login = %(login)s

-- name: end_sessions
-- A new password ends every login of an account.
DELETE FROM login_session WHERE tenant_id = (SELECT current_tenant()) AND account_id = %(account_id)s
