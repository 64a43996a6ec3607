-- Lookups that take one round trip for many who ask, or for all that one asks. Only adds: a control plane of the version
-- before goes on working beside this one.

-- `auth_api_key` for many keys at a time, by their digests, with what everybody who brings one may know of its organization. `place` says which of the
-- questions a row answers; a key that is not there, or without an owner who is an active member, has none.
CREATE FUNCTION auth_api_keys(digests bytea[], orgs text[])
RETURNS TABLE (place integer, id uuid, user_id uuid, username text, role text, org_id uuid, org_role text, org_open boolean, scopes text[],
    expires_at timestamptz, revoked_at timestamptz, last_used_at timestamptz, org_name text, owned boolean)
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 16 SET search_path = public, pg_temp SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    -- Each by itself: however many ask, nothing but the indexes of what they name is read.
    RETURN QUERY SELECT w.place::integer, f.*
    FROM unnest(digests, orgs) WITH ORDINALITY AS w (digest, org, place)
    CROSS JOIN LATERAL (
        SELECT k.id, u.id AS user_id, u.username, CASE o.status WHEN 'active' THEN u.role ELSE 'user' END, o.id AS org_id, m.role,
            o.status = 'active' AND (w.org IS NULL OR o.id::text = lower(w.org) OR o.name = w.org),
            k.scopes, k.expires_at, k.revoked_at, k.last_used_at, o.name, COALESCE(o.owner_user_id = u.id, false)
        FROM api_keys k
        JOIN users u ON u.id = k.created_by_user_id AND u.active
        JOIN memberships m ON m.org_id = k.org_id AND m.user_id = k.created_by_user_id
        JOIN organizations o ON o.id = k.org_id
        WHERE k.digest = w.digest LIMIT 1) f;
END
$$;
-- What somebody needs to know who opens a stream of a session, whoever they are: whose it is, where it runs, what they may do
-- with it at this moment, and the last end of their viewings of it; 0 before the first. No row where there is no such session.
CREATE FUNCTION auth_stream(org uuid, session uuid, person uuid, at timestamptz)
RETURNS TABLE (owner_id uuid, owner_name text, state text, generation bigint, agent_id uuid, shown text, ended bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 1 SET search_path = public, pg_temp SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT s.user_id, s.username, s.state, s.generation, s.agent_id,
        CASE WHEN s.user_id = person THEN 'control' ELSE (SELECT h.mode FROM share_of(org, session, person, at) h) END,
        COALESCE((SELECT v.number FROM viewing_ends v WHERE v.session_id = session AND v.user_id = person AND v.org_id = org), 0::bigint)
    FROM sessions s WHERE s.org_id = org AND s.id = session AND s.hidden_at IS NULL;
END
$$;
-- The grant with this digest, whatever became of it: the credential behind it as it stands, and what it opens, as of one
-- moment. No row where there is no such grant, or its credential is nobody's any more.
CREATE FUNCTION auth_granted_stream(wanted bytea, at timestamptz)
RETURNS TABLE (id uuid, session_id uuid, credential text, mode text, grant_expires_at timestamptz,
    user_id uuid, username text, role text, org_id uuid, org_role text, scopes text[], expires_at timestamptz, revoked_at timestamptz,
    owner_id uuid, owner_name text, state text, generation bigint, agent_id uuid, shown text, ended bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 1 SET search_path = public, pg_temp SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    g record;
    c record;
    credential_id uuid;
BEGIN
    SELECT s.id, s.org_id, s.session_id, s.credential, s.mode, s.expires_at INTO g FROM stream_grants s WHERE s.hash = wanted;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    credential_id := split_part(g.credential, ':', 2)::uuid;
    CASE split_part(g.credential, ':', 1)
        WHEN 'login' THEN
            SELECT l.user_id, NULL::text[] AS scopes, l.expires_at, l.revoked_at INTO c FROM login_sessions l WHERE l.id = credential_id;
        WHEN 'key' THEN
            SELECT k.created_by_user_id AS user_id, k.scopes, k.expires_at, k.revoked_at INTO c FROM api_keys k
            WHERE k.id = credential_id AND k.org_id = g.org_id;
        WHEN 'token' THEN
            SELECT t.user_id, NULL::text[] AS scopes, t.expires_at, t.revoked_at INTO c FROM bearer_tokens t WHERE t.id = credential_id;
        ELSE
            RETURN;
    END CASE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    -- The functions that look each of these up are not called: what a call costs is most of what they take.
    RETURN QUERY SELECT g.id, g.session_id, g.credential, g.mode, g.expires_at,
        u.id, u.username, u.role, m.org_id, m.role, c.scopes, c.expires_at, c.revoked_at,
        s.user_id, s.username, s.state, s.generation, s.agent_id,
        CASE WHEN s.user_id = u.id THEN 'control'
             WHEN s.id IS NOT NULL THEN (SELECT h.mode FROM share_of(g.org_id, g.session_id, u.id, at) h) END,
        CASE WHEN s.id IS NOT NULL THEN COALESCE((SELECT v.number FROM viewing_ends v
            WHERE v.session_id = g.session_id AND v.user_id = u.id AND v.org_id = g.org_id), 0::bigint) END
    FROM users u
    LEFT JOIN organizations o ON o.id = g.org_id AND o.status = 'active'
    LEFT JOIN memberships m ON m.org_id = o.id AND m.user_id = u.id
    LEFT JOIN sessions s ON s.org_id = g.org_id AND s.id = g.session_id AND s.hidden_at IS NULL
    WHERE u.id = c.user_id AND u.active;
END
$$;
REVOKE EXECUTE ON FUNCTION auth_api_keys(bytea[], text[]), auth_stream(uuid, uuid, uuid, timestamptz), auth_granted_stream(bytea, timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION auth_api_keys(bytea[], text[]), auth_stream(uuid, uuid, uuid, timestamptz), auth_granted_stream(bytea, timestamptz) TO tidegate_app;

GRANT CREATE ON SCHEMA public TO tidegate_lister;
ALTER FUNCTION auth_api_keys(bytea[], text[]) OWNER TO tidegate_lister;
ALTER FUNCTION auth_stream(uuid, uuid, uuid, timestamptz) OWNER TO tidegate_lister;
ALTER FUNCTION auth_granted_stream(bytea, timestamptz) OWNER TO tidegate_lister;
REVOKE CREATE ON SCHEMA public FROM tidegate_lister;
