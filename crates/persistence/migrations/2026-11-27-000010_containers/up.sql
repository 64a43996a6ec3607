-- Containers, and streams that a browser comes back to. Only adds.

ALTER TABLE sessions ADD COLUMN image text;
ALTER TABLE sessions ADD COLUMN protocol text NOT NULL DEFAULT 'terminal' CHECK (protocol IN ('terminal', 'vnc', 'http'));

-- What a start needs of a container beyond its image: the port that is streamed, what becomes of it asleep.
ALTER TABLE session_specs ADD COLUMN options jsonb;

-- What a browser was given for a ticket: a cookie of the session's own origin, good for one session and as long as the
-- credential that asked for the ticket. Digests alone: whoever reads this table can open nothing.
CREATE TABLE stream_grants (
    id          uuid PRIMARY KEY,
    hash        bytea NOT NULL CONSTRAINT stream_grants_hash_key UNIQUE,
    org_id      uuid NOT NULL,
    session_id  uuid NOT NULL,
    user_id     uuid NOT NULL REFERENCES users (id),
    credential  text NOT NULL,
    mode        text NOT NULL CHECK (mode IN ('control', 'view')),
    created_at  timestamptz NOT NULL,
    expires_at  timestamptz NOT NULL,
    FOREIGN KEY (org_id, session_id) REFERENCES sessions (org_id, id)
);
CREATE INDEX stream_grants_expires ON stream_grants (expires_at);
CREATE INDEX stream_grants_session ON stream_grants (session_id);

ALTER TABLE stream_grants ENABLE ROW LEVEL SECURITY;
ALTER TABLE stream_grants FORCE ROW LEVEL SECURITY;
REVOKE ALL ON stream_grants FROM PUBLIC;
CREATE POLICY lister ON stream_grants FOR SELECT TO tidegate_lister USING (true);
GRANT SELECT ON stream_grants TO tidegate_lister;
-- Nobody makes one that acts as somebody else.
CREATE POLICY org ON stream_grants FOR SELECT TO tidegate_org USING (org_id = tidegate_org_id());
CREATE POLICY org_makes ON stream_grants FOR INSERT TO tidegate_org
    WITH CHECK (org_id = tidegate_org_id() AND user_id = tidegate_user_id());
CREATE POLICY platform ON stream_grants TO tidegate_platform USING (true);
GRANT SELECT (id, org_id, session_id), INSERT ON stream_grants TO tidegate_org;
GRANT SELECT, DELETE ON stream_grants TO tidegate_platform;

-- The grant with this digest, whatever became of it.
CREATE FUNCTION auth_stream_grant(wanted bytea)
RETURNS TABLE (id uuid, org_id uuid, session_id uuid, credential text, mode text, expires_at timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 1 SET search_path = public, pg_temp SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT g.id, g.org_id, g.session_id, g.credential, g.mode, g.expires_at FROM stream_grants g WHERE g.hash = wanted;
END
$$;
REVOKE EXECUTE ON FUNCTION auth_stream_grant(bytea) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION auth_stream_grant(bytea) TO tidegate_app;
GRANT CREATE ON SCHEMA public TO tidegate_lister;
ALTER FUNCTION auth_stream_grant(bytea) OWNER TO tidegate_lister;
REVOKE CREATE ON SCHEMA public FROM tidegate_lister;
