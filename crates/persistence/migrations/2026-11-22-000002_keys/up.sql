-- API keys, and credentials of more than one kind: `login:<id>`, `key:<id>`.
-- Only adds: a control plane of the version before goes on working beside this one.

CREATE TABLE api_keys (
    id                 uuid PRIMARY KEY,
    org_id             uuid NOT NULL REFERENCES organizations (id),
    -- Not a reference to the membership: that one goes when its member goes, and the key's line stays.
    created_by_user_id uuid NOT NULL REFERENCES users (id),
    -- argon2id as the pipes service writes it; asked only where there is no digest under the pepper in force.
    key_hash           text NOT NULL,
    -- HMAC-SHA-256 under a pepper, and which pepper that was.
    digest             bytea CONSTRAINT api_keys_digest_key UNIQUE,
    digest_version     smallint,
    key_prefix         text NOT NULL CHECK (key_prefix ~ '^[0-9a-f]{8}$'),
    label              text NOT NULL CHECK (char_length(label) BETWEEN 1 AND 100),
    scopes             text[] NOT NULL CHECK (cardinality(scopes) > 0),
    created_at         timestamptz NOT NULL,
    expires_at         timestamptz,
    last_used_at       timestamptz,
    revoked_at         timestamptz,
    UNIQUE (org_id, id),
    CHECK ((digest IS NULL) = (digest_version IS NULL))
) WITH (fillfactor = 80);
-- The order of the list: keys that stand first, each part by age.
CREATE INDEX api_keys_org ON api_keys (org_id, (revoked_at IS NOT NULL), created_at, id);
CREATE INDEX api_keys_owner ON api_keys (created_by_user_id) WHERE revoked_at IS NULL;
CREATE INDEX api_keys_prefix ON api_keys (key_prefix, digest_version) WHERE revoked_at IS NULL;
CREATE INDEX api_keys_ended ON api_keys ((LEAST(expires_at, revoked_at)));

ALTER TABLE api_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE api_keys FORCE ROW LEVEL SECURITY;
REVOKE ALL ON api_keys FROM PUBLIC;
CREATE POLICY lister ON api_keys FOR SELECT TO tidegate_lister USING (true);
-- Nobody makes a key that acts as somebody else, and a revoked one stays revoked.
CREATE POLICY org ON api_keys FOR SELECT TO tidegate_org USING (org_id = tidegate_org_id());
CREATE POLICY org_makes ON api_keys FOR INSERT TO tidegate_org
    WITH CHECK (org_id = tidegate_org_id() AND created_by_user_id = tidegate_user_id());
CREATE POLICY org_changes ON api_keys FOR UPDATE TO tidegate_org
    USING (org_id = tidegate_org_id() AND revoked_at IS NULL) WITH CHECK (org_id = tidegate_org_id());
CREATE POLICY platform ON api_keys TO tidegate_platform USING (true) WITH CHECK (true);
GRANT SELECT ON api_keys TO tidegate_lister;
-- Neither hash nor digest is read by anybody but the lookups below.
GRANT SELECT (id, org_id, created_by_user_id, digest_version, key_prefix, label, scopes, created_at, expires_at, last_used_at, revoked_at),
    INSERT, UPDATE (digest, digest_version, revoked_at) ON api_keys TO tidegate_org;
GRANT SELECT (id, org_id, created_by_user_id, expires_at, last_used_at, revoked_at), UPDATE (last_used_at, revoked_at), DELETE
    ON api_keys TO tidegate_platform;

-- A ticket is of the credential that asked for it; `login_id` stays for those of logins, which wait for their tickets' end.
ALTER TABLE stream_tickets ADD COLUMN credential text;
ALTER TABLE stream_tickets ALTER COLUMN login_id DROP NOT NULL;
ALTER TABLE stream_tickets ADD CONSTRAINT stream_tickets_of_a_credential CHECK (login_id IS NOT NULL OR credential IS NOT NULL);
ALTER TABLE audit_log ADD COLUMN credential text;

-- The key with this digest, or else with this id, as far as it reaches: its owner, and its organization if that is
-- active and the one that was asked for. No row where the owner or the membership is gone.
CREATE FUNCTION auth_api_key(wanted_digest bytea, wanted_id uuid, wanted_org text)
RETURNS TABLE (id uuid, user_id uuid, username text, role text, org_id uuid, org_role text, org_open boolean, scopes text[],
    expires_at timestamptz, revoked_at timestamptz, last_used_at timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 1 SET search_path = public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    found_id uuid := wanted_id;
BEGIN
    IF wanted_digest IS NOT NULL THEN
        SELECT k.id INTO found_id FROM api_keys k WHERE k.digest = wanted_digest;
    END IF;
    -- An organization that is suspended or deleted takes the rights of an operator from its keys, too.
    RETURN QUERY SELECT k.id, u.id, u.username, CASE o.status WHEN 'active' THEN u.role ELSE 'user' END, o.id, m.role,
        o.status = 'active' AND (wanted_org IS NULL OR o.id::text = lower(wanted_org) OR o.name = wanted_org),
        k.scopes, k.expires_at, k.revoked_at, k.last_used_at
    FROM api_keys k
    JOIN users u ON u.id = k.created_by_user_id AND u.active
    JOIN memberships m ON m.org_id = k.org_id AND m.user_id = k.created_by_user_id
    JOIN organizations o ON o.id = k.org_id
    WHERE k.id = found_id;
END
$$;
-- Keys of this prefix without a digest under the pepper in force: those whose hash has to be computed.
CREATE FUNCTION auth_api_key_hashes(wanted_prefix text, current_version smallint, at_most integer)
RETURNS TABLE (id uuid, key_hash text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT k.id, k.key_hash FROM api_keys k
    WHERE k.key_prefix = wanted_prefix AND k.digest_version IS DISTINCT FROM current_version AND k.revoked_at IS NULL
    ORDER BY k.id LIMIT at_most;
END
$$;
-- Beside auth_ticket, which the version before still calls.
CREATE FUNCTION auth_stream_ticket(wanted bytea)
RETURNS TABLE (id uuid, org_id uuid, session_id uuid, credential text)
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 1 SET search_path = public, pg_temp AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT t.id, t.org_id, t.session_id, COALESCE(t.credential, 'login:' || t.login_id::text)
    FROM stream_tickets t WHERE t.hash = wanted;
END
$$;
REVOKE EXECUTE ON FUNCTION auth_api_key(bytea, uuid, text), auth_api_key_hashes(text, smallint, integer), auth_stream_ticket(bytea) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION auth_api_key(bytea, uuid, text), auth_api_key_hashes(text, smallint, integer), auth_stream_ticket(bytea) TO tidegate_app;

GRANT CREATE ON SCHEMA public TO tidegate_lister;
ALTER FUNCTION auth_api_key(bytea, uuid, text) OWNER TO tidegate_lister;
ALTER FUNCTION auth_api_key_hashes(text, smallint, integer) OWNER TO tidegate_lister;
ALTER FUNCTION auth_stream_ticket(bytea) OWNER TO tidegate_lister;
REVOKE CREATE ON SCHEMA public FROM tidegate_lister;
