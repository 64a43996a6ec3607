-- Sessions whose terminals are recorded: what one prints goes to a source of its owner. Only adds.

-- One source a session, one session a source. It goes with either of them, and with its owner's membership. Once the session
-- has ended it only says where the recording is, until the source records another session.
CREATE TABLE terminal_sources (
    session_id   uuid PRIMARY KEY,
    org_id       uuid NOT NULL,
    source_id    uuid NOT NULL,
    -- Who owns the session, made the source and sends what is recorded.
    user_id      uuid NOT NULL,
    created_at   timestamptz NOT NULL,
    -- The last start of the session whose end is marked in the source.
    finished     bigint NOT NULL DEFAULT 0,
    -- How far the recording was when it was last written down: of which start, how many bytes of its output, and under which
    -- sequence of stdout the last of them is. What came after that is found there.
    generation   bigint NOT NULL DEFAULT 0,
    recorded     bigint NOT NULL DEFAULT 0 CHECK (recorded >= 0),
    sequence     bigint NOT NULL DEFAULT 0 CHECK (sequence >= 0),
    -- Who records, and until when nobody else does: once the end is marked, until the session starts again.
    lease_holder uuid,
    lease_until  timestamptz NOT NULL,
    UNIQUE (org_id, session_id),
    CONSTRAINT terminal_sources_source_key UNIQUE (org_id, source_id),
    FOREIGN KEY (org_id, session_id) REFERENCES sessions (org_id, id) ON DELETE CASCADE,
    FOREIGN KEY (org_id, source_id) REFERENCES sources (org_id, id) ON DELETE CASCADE,
    FOREIGN KEY (org_id, user_id) REFERENCES memberships (org_id, user_id) ON DELETE CASCADE
) WITH (fillfactor = 70);
CREATE INDEX terminal_sources_user ON terminal_sources (org_id, user_id);
CREATE INDEX terminal_sources_free ON terminal_sources (lease_until);

ALTER TABLE terminal_sources ENABLE ROW LEVEL SECURITY;
ALTER TABLE terminal_sources FORCE ROW LEVEL SECURITY;
REVOKE ALL ON terminal_sources FROM PUBLIC;
CREATE POLICY lister ON terminal_sources FOR SELECT TO tidegate_lister USING (true);
GRANT SELECT ON terminal_sources TO tidegate_lister;
CREATE POLICY org ON terminal_sources TO tidegate_org USING (org_id = tidegate_org_id()) WITH CHECK (org_id = tidegate_org_id());
GRANT SELECT, INSERT, DELETE, UPDATE (finished, generation, recorded, sequence, lease_holder, lease_until) ON terminal_sources TO tidegate_org;

-- Recordings that nobody makes at this moment, and that have something to record: the session was started again since the
-- last end that is marked.
CREATE FUNCTION list_free_recordings(at timestamptz, at_most integer)
RETURNS TABLE (org_id uuid, session_id uuid, agent_id uuid, is_final boolean, since timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT t.org_id, t.session_id, s.agent_id, s.state IN ('terminated', 'failed'), s.state_since
        FROM terminal_sources t JOIN sessions s ON s.id = t.session_id
        WHERE t.lease_until <= at AND t.finished < s.generation AND s.state NOT IN ('pending', 'waking')
        ORDER BY t.lease_until LIMIT at_most;
END
$$;
REVOKE EXECUTE ON FUNCTION list_free_recordings(timestamptz, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION list_free_recordings(timestamptz, integer) TO tidegate_app;
GRANT CREATE ON SCHEMA public TO tidegate_lister;
ALTER FUNCTION list_free_recordings(timestamptz, integer) OWNER TO tidegate_lister;
REVOKE CREATE ON SCHEMA public FROM tidegate_lister;
