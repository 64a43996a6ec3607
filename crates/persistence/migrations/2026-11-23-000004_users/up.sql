-- People: where they come from, where they are at home, and how they go. Only adds.

ALTER TABLE users ADD COLUMN github_id bigint;
ALTER TABLE users ADD COLUMN avatar_url text;
-- Whose account it is: the organization that made it, whose admins may change and end it.
ALTER TABLE users ADD COLUMN home_org_id uuid REFERENCES organizations (id);
-- The row stays for the books, and its name with it: what a name did is never somebody else's doing.
ALTER TABLE users ADD COLUMN deleted_at timestamptz;
CREATE UNIQUE INDEX users_github_id_key ON users (github_id);
CREATE INDEX users_home ON users (home_org_id) WHERE home_org_id IS NOT NULL;
-- The order of lists, which begin anywhere in it.
CREATE INDEX users_listed ON users ((lower(username) COLLATE "C")) WHERE deleted_at IS NULL;
CREATE INDEX users_admins ON users (id) WHERE role = 'admin' AND active;
CREATE INDEX invites_inviter ON invites (inviter_user_id) WHERE status = 'pending';

-- Where a login was made from.
ALTER TABLE login_sessions ADD COLUMN address text;
CREATE INDEX login_sessions_listed ON login_sessions (user_id, created_at DESC, id DESC) WHERE revoked_at IS NULL;

-- An organization makes users that are its own, with no role on the platform. It changes none by itself.
CREATE POLICY org_makes ON users FOR INSERT TO tidegate_org
    WITH CHECK (home_org_id = tidegate_org_id() AND role = 'user' AND provider <> 'github' AND active AND deleted_at IS NULL);
GRANT SELECT (avatar_url, github_id, home_org_id),
    INSERT (id, username, email, full_name, role, provider, active, password_hash, home_org_id, created_at, updated_at) ON users TO tidegate_org;

-- Who ends a user ends what the user runs, in every organization, in the same transaction.
GRANT UPDATE (state, state_reason, state_since, streaming_ready) ON sessions TO tidegate_platform;
GRANT INSERT ON session_events TO tidegate_platform;
GRANT UPDATE (status, decided_at, accepted_by) ON invites TO tidegate_platform;
GRANT EXECUTE ON FUNCTION tidegate_session_moved() TO tidegate_platform;

-- Whether somebody may act at this moment: asked after the locks were taken, when a lookup of before may be too old.
CREATE FUNCTION user_is_active(wanted uuid) RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    RETURN EXISTS (SELECT 1 FROM users u WHERE u.id = wanted AND u.active);
END
$$;
-- Whether a login or key still stands.
CREATE FUNCTION credential_stands(owner uuid, credential text, at timestamptz) RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    RETURN EXISTS (SELECT 1 FROM users u WHERE u.id = owner AND u.active) AND CASE split_part(credential, ':', 1)
        WHEN 'login' THEN EXISTS (SELECT 1 FROM login_sessions l WHERE l.id = split_part(credential, ':', 2)::uuid
            AND l.user_id = owner AND l.revoked_at IS NULL AND l.expires_at > at)
        WHEN 'key' THEN EXISTS (SELECT 1 FROM api_keys k WHERE k.id = split_part(credential, ':', 2)::uuid
            AND k.created_by_user_id = owner AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > at))
        ELSE false END;
END
$$;
REVOKE EXECUTE ON FUNCTION user_is_active(uuid), credential_stands(uuid, text, timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION user_is_active(uuid), credential_stands(uuid, text, timestamptz) TO tidegate_org;
GRANT EXECUTE ON FUNCTION credential_stands(uuid, text, timestamptz) TO tidegate_user;
GRANT CREATE ON SCHEMA public TO tidegate_lister;
ALTER FUNCTION user_is_active(uuid) OWNER TO tidegate_lister;
ALTER FUNCTION credential_stands(uuid, text, timestamptz) OWNER TO tidegate_lister;
REVOKE CREATE ON SCHEMA public FROM tidegate_lister;
-- What a user runs, in all organizations together.
CREATE INDEX sessions_user_living ON sessions (user_id) WHERE state NOT IN ('terminated', 'failed');
