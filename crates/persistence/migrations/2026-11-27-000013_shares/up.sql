-- Who may watch or use a session beside its owner. A share goes with its session, with the membership it was given to,
-- and with the group; what is left of it is gone with its time. Only adds.

CREATE TABLE session_shares (
    id         uuid PRIMARY KEY,
    org_id     uuid NOT NULL,
    session_id uuid NOT NULL,
    -- One of the two.
    user_id    uuid,
    group_id   uuid,
    mode       text NOT NULL CHECK (mode IN ('control', 'view')),
    created_at timestamptz NOT NULL,
    -- Null lasts as long as the session.
    expires_at timestamptz,
    UNIQUE (org_id, id),
    CHECK ((user_id IS NULL) <> (group_id IS NULL)),
    -- A repeat changes what is there.
    CONSTRAINT session_shares_user_key UNIQUE (session_id, user_id),
    CONSTRAINT session_shares_group_key UNIQUE (session_id, group_id),
    FOREIGN KEY (org_id, session_id) REFERENCES sessions (org_id, id) ON DELETE CASCADE,
    FOREIGN KEY (org_id, user_id) REFERENCES memberships (org_id, user_id) ON DELETE CASCADE,
    FOREIGN KEY (org_id, group_id) REFERENCES groups (org_id, id) ON DELETE CASCADE
);
CREATE INDEX session_shares_user ON session_shares (org_id, user_id) WHERE user_id IS NOT NULL;
CREATE INDEX session_shares_group ON session_shares (org_id, group_id) WHERE group_id IS NOT NULL;
CREATE INDEX session_shares_over ON session_shares (expires_at) WHERE expires_at IS NOT NULL;

ALTER TABLE session_shares ENABLE ROW LEVEL SECURITY;
ALTER TABLE session_shares FORCE ROW LEVEL SECURITY;
REVOKE ALL ON session_shares FROM PUBLIC;
CREATE POLICY lister ON session_shares FOR SELECT TO tidegate_lister USING (true);
CREATE POLICY org ON session_shares TO tidegate_org USING (org_id = tidegate_org_id()) WITH CHECK (org_id = tidegate_org_id());
CREATE POLICY platform ON session_shares TO tidegate_platform USING (expires_at IS NOT NULL);
GRANT SELECT ON session_shares TO tidegate_lister;
GRANT SELECT, INSERT, UPDATE (mode, expires_at, created_at), DELETE ON session_shares TO tidegate_org;
GRANT SELECT, DELETE ON session_shares TO tidegate_platform;

-- The shares by which somebody may look into sessions of an organization at this moment: those to them, and those to
-- their groups and the groups above. Who shares with a group shares with the groups below it, as quotas count them.
-- Both functions see what their caller sees: an organization's role never another organization's shares.
CREATE FUNCTION shares_with(org uuid, person uuid, at timestamptz)
RETURNS TABLE (session_id uuid, mode text, expires_at timestamptz)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
        SELECT s.session_id, s.mode, s.expires_at FROM session_shares s
        WHERE s.org_id = org AND s.user_id = person AND (s.expires_at IS NULL OR s.expires_at > at)
        UNION ALL
        SELECT s.session_id, s.mode, s.expires_at FROM session_shares s
        WHERE s.org_id = org AND (s.expires_at IS NULL OR s.expires_at > at) AND s.group_id IN (
            WITH RECURSIVE up (id) AS (
                SELECT m.group_id FROM group_memberships m WHERE m.org_id = org AND m.user_id = person
                UNION SELECT g.parent_id FROM groups g JOIN up ON up.id = g.id WHERE g.org_id = org AND g.parent_id IS NOT NULL)
            SELECT up.id FROM up);
END
$$;
-- The best share of one session: control before view, the one that lasts before the one that ends.
CREATE FUNCTION share_of(org uuid, session uuid, person uuid, at timestamptz)
RETURNS TABLE (mode text, expires_at timestamptz)
LANGUAGE plpgsql STABLE ROWS 1 AS $$
#variable_conflict use_column
BEGIN
    -- Most sessions are shared with nobody.
    IF NOT EXISTS (SELECT 1 FROM session_shares s WHERE s.session_id = session) THEN
        RETURN;
    END IF;
    RETURN QUERY SELECT s.mode, s.expires_at FROM shares_with(org, person, at) s WHERE s.session_id = session
    ORDER BY s.mode = 'control' DESC, s.expires_at DESC NULLS FIRST LIMIT 1;
END
$$;
-- What somebody may do with a session's stream at this moment: everything as its owner, else what is shared. Asked
-- beside the lookup of their credential, before there is a scope.
CREATE FUNCTION auth_stream_mode(org uuid, session uuid, person uuid, at timestamptz) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM sessions s WHERE s.org_id = org AND s.id = session AND s.user_id = person) THEN
        RETURN 'control';
    END IF;
    RETURN (SELECT s.mode FROM share_of(org, session, person, at) s);
END
$$;

REVOKE EXECUTE ON FUNCTION shares_with(uuid, uuid, timestamptz), share_of(uuid, uuid, uuid, timestamptz), auth_stream_mode(uuid, uuid, uuid, timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION shares_with(uuid, uuid, timestamptz), share_of(uuid, uuid, uuid, timestamptz) TO tidegate_org, tidegate_lister;
GRANT EXECUTE ON FUNCTION auth_stream_mode(uuid, uuid, uuid, timestamptz) TO tidegate_app;
GRANT CREATE ON SCHEMA public TO tidegate_lister;
ALTER FUNCTION auth_stream_mode(uuid, uuid, uuid, timestamptz) OWNER TO tidegate_lister;
REVOKE CREATE ON SCHEMA public FROM tidegate_lister;
