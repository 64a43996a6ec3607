-- Logging in by browser and by device code (RFC 8628), and the bearer tokens that devices get.
-- Only adds: a control plane of the version before goes on working beside this one.

-- A browser's login has a cookie in the place of a refresh token.
ALTER TABLE login_sessions ADD COLUMN browser_hash bytea CONSTRAINT login_sessions_browser_hash_key UNIQUE;
ALTER TABLE login_sessions ALTER COLUMN refresh_hash DROP NOT NULL;
ALTER TABLE login_sessions ADD CONSTRAINT login_sessions_of_a_secret CHECK (refresh_hash IS NOT NULL OR browser_hash IS NOT NULL);

-- A device that waits for somebody to let it in. Both codes are kept as digests.
CREATE TABLE device_codes (
    id           uuid PRIMARY KEY,
    device_hash  bytea NOT NULL CONSTRAINT device_codes_device_hash_key UNIQUE,
    user_hash    bytea NOT NULL CONSTRAINT device_codes_user_hash_key UNIQUE,
    client_name  text NOT NULL CHECK (char_length(client_name) <= 100),
    address      text,
    -- How long the device has to wait between its polls; each that comes too soon makes it longer.
    poll_seconds integer NOT NULL CHECK (poll_seconds BETWEEN 1 AND 600),
    polled_at    timestamptz,
    slowed       boolean NOT NULL DEFAULT false,
    decision     text CHECK (decision IN ('approved', 'denied')),
    user_id      uuid REFERENCES users (id),
    org_id       uuid REFERENCES organizations (id),
    decided_at   timestamptz,
    consumed_at  timestamptz,
    created_at   timestamptz NOT NULL,
    expires_at   timestamptz NOT NULL,
    CHECK ((decision IS NULL) = (user_id IS NULL) AND (decision IS NULL) = (decided_at IS NULL)),
    CHECK (decision IS DISTINCT FROM 'approved' OR org_id IS NOT NULL),
    CHECK (consumed_at IS NULL OR decision = 'approved')
) WITH (fillfactor = 70);
CREATE INDEX device_codes_expires ON device_codes (expires_at);
CREATE INDEX device_codes_approved ON device_codes (user_id) WHERE decision = 'approved' AND consumed_at IS NULL;

-- What a device proves itself with (seed B, OAuthToken). `org_id` is the organization chosen for it, null for the default.
CREATE TABLE bearer_tokens (
    id           uuid PRIMARY KEY,
    user_id      uuid NOT NULL REFERENCES users (id),
    org_id       uuid REFERENCES organizations (id),
    token_hash   bytea NOT NULL CONSTRAINT bearer_tokens_token_hash_key UNIQUE,
    prefix       text NOT NULL CHECK (prefix ~ '^[0-9a-f]{8}$'),
    client_name  text NOT NULL CHECK (char_length(client_name) <= 100),
    created_at   timestamptz NOT NULL,
    expires_at   timestamptz NOT NULL,
    last_used_at timestamptz,
    revoked_at   timestamptz
) WITH (fillfactor = 80);
CREATE INDEX bearer_tokens_user ON bearer_tokens (user_id, created_at DESC, id DESC);
CREATE INDEX bearer_tokens_org ON bearer_tokens (org_id, user_id) WHERE org_id IS NOT NULL AND revoked_at IS NULL;
CREATE INDEX bearer_tokens_ended ON bearer_tokens ((LEAST(expires_at, revoked_at)));

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['device_codes', 'bearer_tokens'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('REVOKE ALL ON %I FROM PUBLIC', name);
        EXECUTE format('CREATE POLICY lister ON %I FOR SELECT TO tidegate_lister USING (true)', name);
        EXECUTE format('GRANT SELECT ON %I TO tidegate_lister', name);
    END LOOP;
END
$$;

-- A user decides about a code that nobody has decided about, once, as themselves, and for an organization of their own.
-- They see it only by its digest, which nobody can tell who was not shown the code. What they let in and nothing has
-- fetched yet they may still refuse. What a code is for is read by the lookup below alone, which wants the code.
CREATE FUNCTION tidegate_user_code() RETURNS bytea LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT decode(NULLIF(current_setting('app.user_code', true), ''), 'hex')
$$;
REVOKE EXECUTE ON FUNCTION tidegate_user_code() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION tidegate_user_code() TO tidegate_user;
CREATE POLICY "user" ON device_codes FOR SELECT TO tidegate_user
    USING (user_id = tidegate_user_id() OR (user_id IS NULL AND user_hash = tidegate_user_code()));
CREATE POLICY user_decides ON device_codes FOR UPDATE TO tidegate_user
    USING ((decision IS NULL AND user_hash = tidegate_user_code())
           OR (user_id = tidegate_user_id() AND decision = 'approved' AND consumed_at IS NULL))
    WITH CHECK (user_id = tidegate_user_id()
                AND (decision = 'denied' OR (decision = 'approved' AND org_id IN (SELECT m.org_id FROM memberships m))));
-- An organization that ends refuses the devices that were let into it, and reads nothing of them.
CREATE POLICY org_denies ON device_codes FOR UPDATE TO tidegate_org
    USING (org_id = tidegate_org_id() AND decision = 'approved' AND consumed_at IS NULL)
    WITH CHECK (org_id = tidegate_org_id() AND decision = 'denied');
-- Devices come without a credential: the platform makes their codes, and lets them poll.
CREATE POLICY platform ON device_codes TO tidegate_platform USING (true) WITH CHECK (true);
GRANT SELECT (id, user_hash, decision, user_id, expires_at), UPDATE (decision, user_id, org_id, decided_at) ON device_codes TO tidegate_user;
GRANT UPDATE (decision) ON device_codes TO tidegate_org;
GRANT SELECT, INSERT, UPDATE (poll_seconds, polled_at, slowed, decision, consumed_at), DELETE ON device_codes TO tidegate_platform;

-- Nobody makes a token for themselves past the approval, and a revoked one stays revoked.
CREATE POLICY "user" ON bearer_tokens FOR SELECT TO tidegate_user USING (user_id = tidegate_user_id());
CREATE POLICY user_changes ON bearer_tokens FOR UPDATE TO tidegate_user USING (user_id = tidegate_user_id() AND revoked_at IS NULL)
    WITH CHECK (user_id = tidegate_user_id() AND (org_id IS NULL OR revoked_at IS NOT NULL OR org_id IN (SELECT m.org_id FROM memberships m)));
CREATE POLICY org ON bearer_tokens FOR SELECT TO tidegate_org USING (org_id = tidegate_org_id());
CREATE POLICY org_revokes ON bearer_tokens FOR UPDATE TO tidegate_org USING (org_id = tidegate_org_id() AND revoked_at IS NULL)
    WITH CHECK (org_id = tidegate_org_id());
CREATE POLICY platform ON bearer_tokens TO tidegate_platform USING (true) WITH CHECK (true);
-- The digest is read by nobody but the lookup below.
GRANT SELECT (id, user_id, org_id, prefix, client_name, created_at, expires_at, last_used_at, revoked_at), UPDATE (org_id, revoked_at)
    ON bearer_tokens TO tidegate_user;
GRANT SELECT (user_id, org_id, revoked_at), UPDATE (revoked_at) ON bearer_tokens TO tidegate_org;
GRANT SELECT (id, user_id, org_id, prefix, client_name, created_at, expires_at, last_used_at, revoked_at), INSERT,
    UPDATE (last_used_at, revoked_at), DELETE ON bearer_tokens TO tidegate_platform;

-- The login behind a browser's cookie, as `auth_login_session` gives the one behind a token.
CREATE FUNCTION auth_browser_session(cookie bytea, wanted text)
RETURNS TABLE (id uuid, user_id uuid, username text, role text, org_id uuid, org_role text, revoked_at timestamptz, expires_at timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 1 SET search_path = public, pg_temp SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    login uuid;
BEGIN
    SELECT l.id INTO login FROM login_sessions l WHERE l.browser_hash = cookie;
    RETURN QUERY SELECT login, s.user_id, s.username, s.role, s.org_id, s.org_role, s.revoked_at, s.expires_at
    FROM auth_login_session(login, wanted) s;
END
$$;
-- The token with this digest, or else with this id, as far as it reaches. No row where its user is not active.
CREATE FUNCTION auth_bearer_token(wanted_hash bytea, wanted_id uuid, wanted_org text)
RETURNS TABLE (id uuid, user_id uuid, username text, role text, org_id uuid, org_role text, expires_at timestamptz, revoked_at timestamptz,
    last_used_at timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 1 SET search_path = public, pg_temp SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    found_id uuid := wanted_id;
BEGIN
    IF wanted_hash IS NOT NULL THEN
        SELECT t.id INTO found_id FROM bearer_tokens t WHERE t.token_hash = wanted_hash;
    END IF;
    RETURN QUERY SELECT t.id, u.id, u.username, u.role, o.id, m.role, t.expires_at, t.revoked_at, t.last_used_at
    FROM bearer_tokens t
    JOIN users u ON u.id = t.user_id AND u.active
    LEFT JOIN LATERAL (
        SELECT o.id FROM organizations o JOIN memberships m ON m.org_id = o.id AND m.user_id = u.id
        WHERE o.status = 'active' AND (CASE WHEN wanted_org IS NOT NULL THEN o.id::text = lower(wanted_org) OR o.name = wanted_org
                                           WHEN t.org_id IS NOT NULL THEN o.id = t.org_id ELSE true END)
        ORDER BY (o.owner_user_id = u.id) DESC NULLS LAST, CASE WHEN o.owner_user_id = u.id THEN o.created_at ELSE m.created_at END, o.id
        LIMIT 1) o ON true
    LEFT JOIN memberships m ON m.org_id = o.id AND m.user_id = u.id
    WHERE t.id = found_id;
END
$$;
-- What somebody who brings a code is asked about: decided or not, and whether they did.
CREATE FUNCTION device_code_of(wanted bytea)
RETURNS TABLE (id uuid, client_name text, address text, decision text, mine boolean, org_id uuid, decided_at timestamptz,
    consumed_at timestamptz, created_at timestamptz, expires_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT d.id, d.client_name, d.address, d.decision, COALESCE(d.user_id = tidegate_user_id(), false),
        CASE WHEN d.user_id = tidegate_user_id() THEN d.org_id END, d.decided_at, d.consumed_at, d.created_at, d.expires_at
    FROM device_codes d WHERE d.user_hash = wanted
$$;
REVOKE EXECUTE ON FUNCTION auth_browser_session(bytea, text), auth_bearer_token(bytea, uuid, text), device_code_of(bytea) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION auth_browser_session(bytea, text), auth_bearer_token(bytea, uuid, text) TO tidegate_app;
GRANT EXECUTE ON FUNCTION device_code_of(bytea) TO tidegate_user;

GRANT CREATE ON SCHEMA public TO tidegate_lister;
-- Tokens are credentials, too.
CREATE OR REPLACE FUNCTION credential_stands(owner uuid, credential text, at timestamptz) RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    RETURN EXISTS (SELECT 1 FROM users u WHERE u.id = owner AND u.active) AND CASE split_part(credential, ':', 1)
        WHEN 'login' THEN EXISTS (SELECT 1 FROM login_sessions l WHERE l.id = split_part(credential, ':', 2)::uuid
            AND l.user_id = owner AND l.revoked_at IS NULL AND l.expires_at > at)
        WHEN 'key' THEN EXISTS (SELECT 1 FROM api_keys k WHERE k.id = split_part(credential, ':', 2)::uuid
            AND k.created_by_user_id = owner AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > at))
        WHEN 'token' THEN EXISTS (SELECT 1 FROM bearer_tokens t WHERE t.id = split_part(credential, ':', 2)::uuid
            AND t.user_id = owner AND t.revoked_at IS NULL AND t.expires_at > at)
        ELSE false END;
END
$$;
ALTER FUNCTION auth_browser_session(bytea, text) OWNER TO tidegate_lister;
ALTER FUNCTION auth_bearer_token(bytea, uuid, text) OWNER TO tidegate_lister;
ALTER FUNCTION device_code_of(bytea) OWNER TO tidegate_lister;
REVOKE CREATE ON SCHEMA public FROM tidegate_lister;
