-- Viewings that are ended without touching their session, and since when somebody whom a session is shared with may hear
-- of it. Only adds: a control plane of the version before goes on working beside this one.

-- The last time that somebody's viewings of a session were ended. Whatever they had opened before it is over, on whichever
-- replica; what they open later carries its number. Numbers are never used twice, so a row may go once nothing that is
-- older than it can be open.
CREATE SEQUENCE viewing_ends_number;
CREATE TABLE viewing_ends (
    org_id     uuid NOT NULL,
    session_id uuid NOT NULL,
    user_id    uuid NOT NULL,
    number     bigint NOT NULL DEFAULT nextval('viewing_ends_number'),
    at         timestamptz NOT NULL,
    PRIMARY KEY (session_id, user_id),
    FOREIGN KEY (org_id, session_id) REFERENCES sessions (org_id, id) ON DELETE CASCADE,
    FOREIGN KEY (org_id, user_id) REFERENCES memberships (org_id, user_id) ON DELETE CASCADE
);
CREATE INDEX viewing_ends_user ON viewing_ends (org_id, user_id);
CREATE INDEX viewing_ends_at ON viewing_ends (at);

ALTER TABLE viewing_ends ENABLE ROW LEVEL SECURITY;
ALTER TABLE viewing_ends FORCE ROW LEVEL SECURITY;
REVOKE ALL ON viewing_ends FROM PUBLIC;
CREATE POLICY lister ON viewing_ends FOR SELECT TO tidegate_lister USING (true);
CREATE POLICY org ON viewing_ends TO tidegate_org USING (org_id = tidegate_org_id()) WITH CHECK (org_id = tidegate_org_id());
CREATE POLICY platform ON viewing_ends TO tidegate_platform USING (true);
GRANT SELECT ON viewing_ends TO tidegate_lister;
GRANT SELECT, INSERT, UPDATE (number, at) ON viewing_ends TO tidegate_org;
GRANT SELECT, DELETE ON viewing_ends TO tidegate_platform;
GRANT USAGE ON SEQUENCE viewing_ends_number TO tidegate_org;

-- What a browser was given ends with the viewing.
CREATE POLICY org_ends ON stream_grants FOR DELETE TO tidegate_org USING (org_id = tidegate_org_id());
GRANT SELECT (user_id), DELETE ON stream_grants TO tidegate_org;

-- What somebody may do with a session's stream at this moment, and the last end of their viewings of it; 0 before the first.
CREATE FUNCTION auth_viewing(org uuid, session uuid, person uuid, at timestamptz)
RETURNS TABLE (mode text, ended bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 1 SET search_path = public, pg_temp AS $$
BEGIN
    RETURN QUERY SELECT auth_stream_mode(org, session, person, at),
        COALESCE((SELECT v.number FROM viewing_ends v WHERE v.org_id = org AND v.session_id = session AND v.user_id = person), 0::bigint);
END
$$;
REVOKE EXECUTE ON FUNCTION auth_viewing(uuid, uuid, uuid, timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION auth_viewing(uuid, uuid, uuid, timestamptz) TO tidegate_app;
GRANT CREATE ON SCHEMA public TO tidegate_lister;
ALTER FUNCTION auth_viewing(uuid, uuid, uuid, timestamptz) OWNER TO tidegate_lister;
REVOKE CREATE ON SCHEMA public FROM tidegate_lister;

-- Since when a share, a membership of a group and a group's place below another stand: what was committed before this
-- snapshot was taken came before it, exactly, whatever the clocks say. What is there already counts from now on.
ALTER TABLE session_shares ADD COLUMN since text NOT NULL DEFAULT (pg_current_snapshot()::text);
ALTER TABLE group_memberships ADD COLUMN since text NOT NULL DEFAULT (pg_current_snapshot()::text);
ALTER TABLE groups ADD COLUMN parent_since text NOT NULL DEFAULT (pg_current_snapshot()::text);

-- A share that is given again goes on, unless it had ended meanwhile.
CREATE FUNCTION tidegate_share_again() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.since := pg_current_snapshot()::text;
    RETURN NEW;
END
$$;
CREATE TRIGGER share_again BEFORE UPDATE OF created_at ON session_shares FOR EACH ROW
    WHEN (OLD.expires_at <= NEW.created_at) EXECUTE FUNCTION tidegate_share_again();
CREATE FUNCTION tidegate_group_moved() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.parent_since := pg_current_snapshot()::text;
    RETURN NEW;
END
$$;
CREATE TRIGGER group_moved BEFORE UPDATE OF parent_id ON groups FOR EACH ROW
    WHEN (OLD.parent_id IS DISTINCT FROM NEW.parent_id) EXECUTE FUNCTION tidegate_group_moved();

-- The ways by which some sessions are shared with somebody at this moment, each with the snapshots of all it is made of. It
-- sees what its caller sees, as `shares_with` does.
CREATE FUNCTION shares_since(org uuid, person uuid, wanted uuid[], at timestamptz)
RETURNS TABLE (session_id uuid, since text[])
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
        SELECT s.session_id, ARRAY[s.since] FROM session_shares s
        WHERE s.org_id = org AND s.session_id = ANY (wanted) AND s.user_id = person AND (s.expires_at IS NULL OR s.expires_at > at)
        UNION ALL
        SELECT s.session_id, u.since || s.since FROM session_shares s
        JOIN (
            WITH RECURSIVE up (id, since) AS (
                SELECT m.group_id, ARRAY[m.since] FROM group_memberships m WHERE m.org_id = org AND m.user_id = person
                UNION ALL SELECT g.parent_id, up.since || g.parent_since FROM groups g JOIN up ON up.id = g.id
                -- Groups make no circle; if they ever did, this ends all the same.
                WHERE g.org_id = org AND g.parent_id IS NOT NULL AND cardinality(up.since) < 64)
            SELECT up.id, up.since FROM up) u ON u.id = s.group_id
        WHERE s.org_id = org AND s.session_id = ANY (wanted) AND (s.expires_at IS NULL OR s.expires_at > at);
END
$$;
REVOKE EXECUTE ON FUNCTION shares_since(uuid, uuid, uuid[], timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION shares_since(uuid, uuid, uuid[], timestamptz) TO tidegate_org;

-- The one reader of events of a process marks those of sessions that are shared at all; it still deletes only shares that
-- have a time.
DROP POLICY platform ON session_shares;
CREATE POLICY platform ON session_shares FOR SELECT TO tidegate_platform USING (true);
CREATE POLICY platform_ends ON session_shares FOR DELETE TO tidegate_platform USING (expires_at IS NOT NULL);

-- A dump that is restored into another cluster brings snapshots of transactions that are still to come there. They become
-- snapshots from before the first: everything that happens from then on came after them, and of what a dump brought nothing.
CREATE POLICY owner ON session_shares FOR SELECT TO CURRENT_USER
    USING (since = '1:1:' OR pg_snapshot_xmax(since::pg_snapshot) > pg_snapshot_xmax(pg_current_snapshot()));
CREATE POLICY owner_rebases ON session_shares FOR UPDATE TO CURRENT_USER
    USING (pg_snapshot_xmax(since::pg_snapshot) > pg_snapshot_xmax(pg_current_snapshot())) WITH CHECK (since = '1:1:');
CREATE POLICY owner ON group_memberships FOR SELECT TO CURRENT_USER
    USING (since = '1:1:' OR pg_snapshot_xmax(since::pg_snapshot) > pg_snapshot_xmax(pg_current_snapshot()));
CREATE POLICY owner_rebases ON group_memberships FOR UPDATE TO CURRENT_USER
    USING (pg_snapshot_xmax(since::pg_snapshot) > pg_snapshot_xmax(pg_current_snapshot())) WITH CHECK (since = '1:1:');
CREATE POLICY owner ON groups FOR SELECT TO CURRENT_USER
    USING (parent_since = '1:1:' OR pg_snapshot_xmax(parent_since::pg_snapshot) > pg_snapshot_xmax(pg_current_snapshot()));
CREATE POLICY owner_rebases ON groups FOR UPDATE TO CURRENT_USER
    USING (pg_snapshot_xmax(parent_since::pg_snapshot) > pg_snapshot_xmax(pg_current_snapshot())) WITH CHECK (parent_since = '1:1:');

CREATE OR REPLACE FUNCTION events_rebase(at_most integer) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    moved bigint;
    total bigint := 0;
BEGIN
    UPDATE session_events SET xact = 0 WHERE id IN (
        SELECT e.id FROM session_events e WHERE e.xact >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint LIMIT at_most);
    GET DIAGNOSTICS moved = ROW_COUNT;
    total := total + moved;
    UPDATE events SET xact = 0 WHERE (xact, seq) IN (
        SELECT e.xact, e.seq FROM events e WHERE e.xact >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint LIMIT at_most);
    GET DIAGNOSTICS moved = ROW_COUNT;
    total := total + moved;
    UPDATE event_horizon SET xact = 0 WHERE xact >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint;
    UPDATE session_shares SET since = '1:1:' WHERE id IN (
        SELECT s.id FROM session_shares s WHERE pg_snapshot_xmax(s.since::pg_snapshot) > pg_snapshot_xmax(pg_current_snapshot()) LIMIT at_most);
    GET DIAGNOSTICS moved = ROW_COUNT;
    total := total + moved;
    UPDATE group_memberships SET since = '1:1:' WHERE (group_id, user_id) IN (
        SELECT m.group_id, m.user_id FROM group_memberships m
        WHERE pg_snapshot_xmax(m.since::pg_snapshot) > pg_snapshot_xmax(pg_current_snapshot()) LIMIT at_most);
    GET DIAGNOSTICS moved = ROW_COUNT;
    total := total + moved;
    UPDATE groups SET parent_since = '1:1:' WHERE id IN (
        SELECT g.id FROM groups g WHERE pg_snapshot_xmax(g.parent_since::pg_snapshot) > pg_snapshot_xmax(pg_current_snapshot()) LIMIT at_most);
    GET DIAGNOSTICS moved = ROW_COUNT;
    RETURN total + moved;
END
$$;
