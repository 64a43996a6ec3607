-- What people do is repeated safely wherever they do it, and what they leave behind goes with them. Only adds: a control
-- plane of the version before goes on working beside this one.

-- An answer that is past its time gives way to the next one under the same key.
GRANT UPDATE (body_hash, status, body, created_at) ON idempotency_keys TO tidegate_org;

-- Answers to what belongs to no organization: what somebody does as themselves, or as an operator of the platform.
CREATE TABLE user_idempotency_keys (
    user_id    uuid NOT NULL REFERENCES users (id),
    credential uuid NOT NULL,
    route      text NOT NULL,
    key        text NOT NULL CHECK (length(key) <= 255),
    body_hash  bytea NOT NULL,
    status     integer NOT NULL,
    body       jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (user_id, credential, route, key)
);
CREATE INDEX user_idempotency_keys_created ON user_idempotency_keys (created_at);

ALTER TABLE user_idempotency_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE user_idempotency_keys FORCE ROW LEVEL SECURITY;
REVOKE ALL ON user_idempotency_keys FROM PUBLIC;
CREATE POLICY lister ON user_idempotency_keys FOR SELECT TO tidegate_lister USING (true);
GRANT SELECT ON user_idempotency_keys TO tidegate_lister;
CREATE POLICY "user" ON user_idempotency_keys TO tidegate_user
    USING (user_id = tidegate_user_id()) WITH CHECK (user_id = tidegate_user_id());
CREATE POLICY platform ON user_idempotency_keys TO tidegate_platform USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE (body_hash, status, body, created_at) ON user_idempotency_keys TO tidegate_user, tidegate_platform;
GRANT DELETE ON user_idempotency_keys TO tidegate_platform;

-- Agents that wait for an operator: counted before another one may.
CREATE INDEX agents_pending ON agents (created_at) WHERE approval_status = 'pending' AND deleted_at IS NULL;

-- Whoever is deleted is nobody's identity any more: the same person may come again, as somebody new.
GRANT DELETE ON identities TO tidegate_platform;

-- A member who leaves has chosen the organization no more. The role may not read whose logins they are: the transaction
-- says who leaves, and the policy picks the rows. Where it names nobody, all are meant, as when the organization ends.
CREATE FUNCTION tidegate_leaving() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT NULLIF(current_setting('app.leaving', true), '')::uuid
$$;
REVOKE EXECUTE ON FUNCTION tidegate_leaving() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION tidegate_leaving() TO tidegate_org;
DROP POLICY org ON login_sessions;
CREATE POLICY org ON login_sessions FOR UPDATE TO tidegate_org
    USING (org_id = tidegate_org_id() AND (tidegate_leaving() IS NULL OR user_id = tidegate_leaving())) WITH CHECK (org_id IS NULL);

GRANT CREATE ON SCHEMA public TO tidegate_lister;
-- The organization that was chosen comes first, where it is active and its user a member of it; else the default does:
-- the oldest that is theirs, then the one joined first, be it somebody's or nobody's.
CREATE OR REPLACE FUNCTION auth_login_session(login uuid, wanted text)
RETURNS TABLE (user_id uuid, username text, role text, org_id uuid, org_role text, revoked_at timestamptz, expires_at timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT u.id, u.username, u.role, o.id, m.role, l.revoked_at, l.expires_at
    FROM login_sessions l
    JOIN users u ON u.id = l.user_id AND u.active
    LEFT JOIN LATERAL (
        SELECT o.id FROM organizations o JOIN memberships m ON m.org_id = o.id AND m.user_id = u.id
        WHERE o.status = 'active' AND (wanted IS NULL OR o.id::text = lower(wanted) OR o.name = wanted)
        ORDER BY (o.id = l.org_id) DESC NULLS LAST, COALESCE(o.owner_user_id = u.id, false) DESC,
                 CASE WHEN o.owner_user_id = u.id THEN o.created_at ELSE m.created_at END, o.id
        LIMIT 1) o ON true
    LEFT JOIN memberships m ON m.org_id = o.id AND m.user_id = u.id
    WHERE l.id = login;
END
$$;
CREATE OR REPLACE FUNCTION auth_bearer_token(wanted_hash bytea, wanted_id uuid, wanted_org text)
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
        WHERE o.status = 'active' AND (wanted_org IS NULL OR o.id::text = lower(wanted_org) OR o.name = wanted_org)
        ORDER BY (o.id = t.org_id) DESC NULLS LAST, COALESCE(o.owner_user_id = u.id, false) DESC,
                 CASE WHEN o.owner_user_id = u.id THEN o.created_at ELSE m.created_at END, o.id
        LIMIT 1) o ON true
    LEFT JOIN memberships m ON m.org_id = o.id AND m.user_id = u.id
    WHERE t.id = found_id;
END
$$;
REVOKE CREATE ON SCHEMA public FROM tidegate_lister;

-- Memberships of groups are called by an id of their own, too.
ALTER TABLE group_memberships ADD COLUMN id uuid NOT NULL DEFAULT gen_random_uuid();
ALTER TABLE group_memberships ADD CONSTRAINT group_memberships_id_key UNIQUE (org_id, id);

-- Homes have an id to be called by, and an end: asked for here, and over when the agent has said so.
ALTER TABLE homes ADD COLUMN id uuid NOT NULL DEFAULT gen_random_uuid();
ALTER TABLE homes ADD COLUMN deleting_at timestamptz;
ALTER TABLE homes ADD COLUMN delete_command uuid;
-- Why the last attempt came to nothing.
ALTER TABLE homes ADD COLUMN delete_error text CHECK (char_length(delete_error) <= 500);
ALTER TABLE homes ADD CONSTRAINT homes_id_key UNIQUE (org_id, id);
ALTER TABLE homes ADD CONSTRAINT homes_of_a_command CHECK ((deleting_at IS NULL) = (delete_command IS NULL));
CREATE UNIQUE INDEX homes_delete_command ON homes (delete_command) WHERE delete_command IS NOT NULL;
CREATE INDEX homes_listed ON homes (org_id, created_at, id);
CREATE INDEX sessions_of_a_home ON sessions (agent_id, user_id, created_at DESC) WHERE persistent_home;
-- An organization lets a home go by itself only where its agent is gone, and nobody could say that the home is: agents
-- that are there are those it sees.
DROP POLICY org ON homes;
CREATE POLICY org ON homes FOR SELECT TO tidegate_org USING (org_id = tidegate_org_id());
CREATE POLICY org_makes ON homes FOR INSERT TO tidegate_org WITH CHECK (org_id = tidegate_org_id());
CREATE POLICY org_changes ON homes FOR UPDATE TO tidegate_org USING (org_id = tidegate_org_id()) WITH CHECK (org_id = tidegate_org_id());
CREATE POLICY org_forgets ON homes FOR DELETE TO tidegate_org
    USING (org_id = tidegate_org_id() AND agent_id NOT IN (SELECT a.id FROM agents a));
GRANT UPDATE (deleting_at, delete_command, delete_error), DELETE ON homes TO tidegate_org;
-- The agent says what became of it.
CREATE POLICY hub ON homes TO tidegate_hub USING (agent_id = ANY ((SELECT tidegate_agent_ids())::uuid[]));
GRANT SELECT (org_id, user_id, agent_id, delete_command), UPDATE (deleting_at, delete_command, delete_error), DELETE ON homes TO tidegate_hub;
