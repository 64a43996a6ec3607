-- What is asked for every message, and again and again for everybody on NATS, in as few steps as there are. Only adds: a
-- control plane of the version before goes on working beside this one.

-- `auth_login_session` for many logins at a time. `place` says which of the questions a row answers.
CREATE FUNCTION auth_login_sessions(logins uuid[], orgs text[])
RETURNS TABLE (place integer, user_id uuid, username text, role text, org_id uuid, org_role text, revoked_at timestamptz, expires_at timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 16 SET search_path = public, pg_temp SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    -- Each by itself: however many ask, nothing but the indexes of what they name is read.
    RETURN QUERY SELECT w.place::integer, f.*
    FROM unnest(logins, orgs) WITH ORDINALITY AS w (login, wanted, place)
    CROSS JOIN LATERAL (
        SELECT u.id AS user_id, u.username, u.role, o.id AS org_id, m.role AS org_role, l.revoked_at, l.expires_at
        FROM login_sessions l
        JOIN users u ON u.id = l.user_id AND u.active
        LEFT JOIN LATERAL (
            SELECT o.id FROM organizations o JOIN memberships m ON m.org_id = o.id AND m.user_id = u.id
            WHERE o.status = 'active' AND (w.wanted IS NULL OR o.id::text = lower(w.wanted) OR o.name = w.wanted)
            ORDER BY (o.id = l.org_id) DESC NULLS LAST, COALESCE(o.owner_user_id = u.id, false) DESC,
                     CASE WHEN o.owner_user_id = u.id THEN o.created_at ELSE m.created_at END, o.id
            LIMIT 1) o ON true
        LEFT JOIN memberships m ON m.org_id = o.id AND m.user_id = u.id
        WHERE l.id = w.login LIMIT 1) f;
END
$$;

-- Pipes that somebody may write to at this moment and whose stream is there, many at a time: `place` says which of the questions
-- a row answers. `needs` is what writing needs of anybody but the source's creator: a right, 'members' where it needs none, null
-- where it is the creator's alone. No row where anything is missing, or to be done before.
CREATE FUNCTION auth_writable_pipes(orgs uuid[], people uuid[], handles text[], names text[], needs text[])
RETURNS TABLE (place integer, source_id uuid, created_by uuid)
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 16 SET search_path = public, pg_temp SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT w.place::integer, f.*
    FROM unnest(orgs, people, handles, names, needs) WITH ORDINALITY AS w (org, person, handle, name, needed, place)
    CROSS JOIN LATERAL (
        SELECT s.id, s.created_by FROM sources s
        JOIN pipe_streams p ON p.org_id = w.org AND p.source_id = s.id AND p.pipe = w.name AND p.incarnation IS NOT NULL
        WHERE s.org_id = w.org AND s.handle = w.handle
          AND CASE WHEN s.created_by = w.person OR w.needed = 'members' THEN true
                   WHEN w.needed IS NULL THEN false
                   ELSE EXISTS (SELECT 1 FROM source_rights(w.org, w.person) r WHERE r.source_id = s.id AND r.allows = w.needed) END
          AND NOT EXISTS (SELECT 1 FROM pipe_operations o WHERE o.org_id = w.org AND o.status = 'pending'
                          AND o.topic = replace(s.id::text, '-', '') || '_' || w.name)
        LIMIT 1) f;
END
$$;
GRANT EXECUTE ON FUNCTION source_rights(uuid, uuid) TO tidegate_lister;

-- Whoever tells NATS writes what became of it and what NATS has now in one statement.
CREATE POLICY platform ON pipe_streams TO tidegate_platform USING (true) WITH CHECK (true);
GRANT SELECT (org_id, source_id, pipe), UPDATE (force_ttl_seconds, force_max_msgs, force_max_bytes, incarnation, seen_at)
    ON pipe_streams TO tidegate_platform;

-- Whatever ends a credential marks what it holds on NATS, so that nobody has to look at everybody for it.
CREATE INDEX nats_principals_credential ON nats_principals (credential);
CREATE INDEX nats_principals_user ON nats_principals (user_id);
CREATE INDEX nats_principals_narrowed ON nats_principals (valid_until)
    WHERE narrowed AND (revoked_at IS NULL OR revoked_at < renewed_at);

CREATE FUNCTION tidegate_credential_ended() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    UPDATE nats_principals p SET narrowed = true WHERE p.credential = TG_ARGV[0] || ':' || NEW.id AND NOT p.narrowed;
    RETURN NULL;
END
$$;
CREATE TRIGGER credential_ended AFTER UPDATE ON login_sessions FOR EACH ROW
    WHEN (OLD.revoked_at IS DISTINCT FROM NEW.revoked_at) EXECUTE FUNCTION tidegate_credential_ended('login');
CREATE TRIGGER credential_ended AFTER UPDATE ON bearer_tokens FOR EACH ROW
    WHEN (OLD.revoked_at IS DISTINCT FROM NEW.revoked_at) EXECUTE FUNCTION tidegate_credential_ended('token');
-- One that is to end later is found when it has.
CREATE TRIGGER credential_ended AFTER UPDATE ON api_keys FOR EACH ROW
    WHEN (OLD.revoked_at IS DISTINCT FROM NEW.revoked_at AND NEW.revoked_at <= now() + interval '5 seconds')
    EXECUTE FUNCTION tidegate_credential_ended('key');

CREATE FUNCTION tidegate_member_gone() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    UPDATE nats_principals p SET narrowed = true FROM gone g
    WHERE p.org_id = g.org_id AND p.user_id = g.user_id AND NOT p.narrowed;
    RETURN NULL;
END
$$;
CREATE TRIGGER member_gone AFTER DELETE ON memberships REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION tidegate_member_gone();

CREATE FUNCTION tidegate_user_gone() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    UPDATE nats_principals p SET narrowed = true WHERE p.user_id = NEW.id AND NOT p.narrowed;
    RETURN NULL;
END
$$;
CREATE TRIGGER user_gone AFTER UPDATE ON users FOR EACH ROW
    WHEN ((OLD.active AND NOT NEW.active) OR OLD.deleted_at IS DISTINCT FROM NEW.deleted_at) EXECUTE FUNCTION tidegate_user_gone();

CREATE FUNCTION tidegate_org_shut() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    UPDATE nats_principals p SET narrowed = true WHERE p.org_id = NEW.id AND NOT p.narrowed;
    RETURN NULL;
END
$$;
CREATE TRIGGER organization_shut AFTER UPDATE ON organizations FOR EACH ROW
    WHEN (OLD.status IS DISTINCT FROM NEW.status AND NEW.status <> 'active') EXECUTE FUNCTION tidegate_org_shut();

-- Credentials that hold a token for NATS and are not good any more: those that were marked, at most `at_most`, and what is found
-- among the `each` ones behind the place `past`, whatever marked nothing: expired, or ended while the token was made. The last
-- row, which is nobody's end, is the place to go on from; none where there is nothing behind.
CREATE FUNCTION list_lapsed_principals(at timestamptz, at_most integer, past_org uuid, past_credential text, each integer)
RETURNS TABLE (org_id uuid, credential text, lapsed boolean)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT p.org_id, p.credential, true FROM nats_principals p
        WHERE p.narrowed AND (p.revoked_at IS NULL OR p.revoked_at < p.renewed_at) AND p.valid_until > at
        ORDER BY p.valid_until LIMIT at_most;
    RETURN QUERY WITH few AS MATERIALIZED (
            SELECT p.* FROM nats_principals p WHERE (p.org_id, p.credential) > (past_org, past_credential)
            ORDER BY p.org_id, p.credential LIMIT each)
        (SELECT p.org_id, p.credential, true FROM few p
        JOIN users u ON u.id = p.user_id JOIN organizations o ON o.id = p.org_id
        LEFT JOIN memberships m ON m.org_id = p.org_id AND m.user_id = p.user_id
        WHERE NOT p.narrowed AND p.valid_until > at AND (p.revoked_at IS NULL OR p.revoked_at < p.renewed_at)
          AND (NOT u.active OR u.deleted_at IS NOT NULL OR o.status <> 'active' OR m.user_id IS NULL
               OR NOT CASE split_part(p.credential, ':', 1)
                    WHEN 'login' THEN EXISTS (SELECT 1 FROM login_sessions l WHERE l.id = split_part(p.credential, ':', 2)::uuid
                        AND l.revoked_at IS NULL AND l.expires_at > at)
                    WHEN 'key' THEN EXISTS (SELECT 1 FROM api_keys k WHERE k.id = split_part(p.credential, ':', 2)::uuid
                        AND (k.revoked_at IS NULL OR k.revoked_at > at) AND (k.expires_at IS NULL OR k.expires_at > at))
                    ELSE EXISTS (SELECT 1 FROM bearer_tokens t WHERE t.id = split_part(p.credential, ':', 2)::uuid
                        AND t.revoked_at IS NULL AND t.expires_at > at) END))
        UNION ALL (SELECT p.org_id, p.credential, false FROM few p ORDER BY p.org_id, p.credential OFFSET each - 1);
END
$$;

REVOKE EXECUTE ON FUNCTION auth_login_sessions(uuid[], text[]), auth_writable_pipes(uuid[], uuid[], text[], text[], text[]),
    list_lapsed_principals(timestamptz, integer, uuid, text, integer), tidegate_credential_ended(), tidegate_member_gone(),
    tidegate_user_gone(), tidegate_org_shut() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION auth_login_sessions(uuid[], text[]), auth_writable_pipes(uuid[], uuid[], text[], text[], text[]),
    list_lapsed_principals(timestamptz, integer, uuid, text, integer) TO tidegate_app;
GRANT CREATE ON SCHEMA public TO tidegate_lister;
ALTER FUNCTION auth_login_sessions(uuid[], text[]) OWNER TO tidegate_lister;
ALTER FUNCTION auth_writable_pipes(uuid[], uuid[], text[], text[], text[]) OWNER TO tidegate_lister;
ALTER FUNCTION list_lapsed_principals(timestamptz, integer, uuid, text, integer) OWNER TO tidegate_lister;
REVOKE CREATE ON SCHEMA public FROM tidegate_lister;
