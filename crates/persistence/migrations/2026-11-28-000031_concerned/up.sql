-- Whoever loses something on NATS is cut off there, and nobody else.

-- Members of a group and of those below it.
CREATE FUNCTION people_below(org uuid, top uuid) RETURNS TABLE (user_id uuid)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY WITH RECURSIVE down (id) AS (
            SELECT top UNION SELECT g.id FROM groups g JOIN down ON g.org_id = org AND g.parent_id = down.id)
        SELECT DISTINCT m.user_id FROM group_memberships m JOIN down ON m.org_id = org AND m.group_id = down.id;
END
$$;
REVOKE EXECUTE ON FUNCTION people_below(uuid, uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION people_below(uuid, uuid) TO CURRENT_USER;
GRANT CREATE ON SCHEMA public TO tidegate_lister;
ALTER FUNCTION people_below(uuid, uuid) OWNER TO tidegate_lister;
REVOKE CREATE ON SCHEMA public FROM tidegate_lister;

-- A grant that goes: one to read has the readers looked through, another one ends tokens of whoever had it.
CREATE OR REPLACE FUNCTION tidegate_right_gone() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    INSERT INTO pipe_operations (id, org_id, kind, topic, next_at, created_at)
    SELECT tidegate_uuid_v7(clock_timestamp()), g.org_id, 'review_readers', 'readers', 'epoch', clock_timestamp()
    FROM (SELECT DISTINCT org_id FROM gone WHERE allows = 'read') g
    WHERE EXISTS (SELECT 1 FROM read_cursors c WHERE c.org_id = g.org_id);
    UPDATE nats_principals p SET narrowed = true
    FROM (SELECT g.org_id, g.user_id FROM gone g WHERE g.allows <> 'read' AND g.user_id IS NOT NULL
          UNION SELECT g.org_id, b.user_id
          FROM (SELECT DISTINCT org_id, group_id FROM gone WHERE allows <> 'read' AND group_id IS NOT NULL) g
          CROSS JOIN LATERAL people_below(g.org_id, g.group_id) b) whose
    WHERE p.org_id = whose.org_id AND p.user_id = whose.user_id AND p.grants > 0 AND NOT p.narrowed;
    UPDATE nats_principals p SET narrowed = true
    WHERE p.org_id IN (SELECT org_id FROM gone WHERE allows <> 'read' AND user_id IS NULL AND group_id IS NULL)
      AND p.grants > 0 AND NOT p.narrowed;
    RETURN NULL;
END
$$;

-- A place in a group that goes: its rights were whose place it was.
CREATE FUNCTION tidegate_place_gone() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    INSERT INTO pipe_operations (id, org_id, kind, topic, next_at, created_at)
    SELECT tidegate_uuid_v7(clock_timestamp()), g.org_id, 'review_readers', 'readers', 'epoch', clock_timestamp()
    FROM (SELECT DISTINCT org_id FROM gone) g WHERE EXISTS (SELECT 1 FROM read_cursors c WHERE c.org_id = g.org_id);
    UPDATE nats_principals p SET narrowed = true FROM (SELECT DISTINCT org_id, user_id FROM gone) g
    WHERE p.org_id = g.org_id AND p.user_id = g.user_id AND p.grants > 0 AND NOT p.narrowed;
    RETURN NULL;
END
$$;
REVOKE EXECUTE ON FUNCTION tidegate_place_gone() FROM PUBLIC;
DROP TRIGGER right_gone ON group_memberships;
CREATE TRIGGER place_gone AFTER DELETE ON group_memberships REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION tidegate_place_gone();

-- A group that hangs elsewhere: what the groups above were given was its people's.
CREATE OR REPLACE FUNCTION tidegate_group_hung() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    INSERT INTO pipe_operations (id, org_id, kind, topic, next_at, created_at)
    SELECT tidegate_uuid_v7(clock_timestamp()), NEW.org_id, 'review_readers', 'readers', 'epoch', clock_timestamp()
    WHERE EXISTS (SELECT 1 FROM read_cursors c WHERE c.org_id = NEW.org_id);
    UPDATE nats_principals p SET narrowed = true
    WHERE p.org_id = NEW.org_id AND p.user_id IN (SELECT b.user_id FROM people_below(NEW.org_id, NEW.id) b)
      AND p.grants > 0 AND NOT p.narrowed;
    RETURN NULL;
END
$$;

-- What NATS refused: whoever compares asks for it once in a while, and not each time.
CREATE INDEX pipe_operations_failed ON pipe_operations (org_id, topic, finished_at) WHERE status = 'failed';

-- Recordings that nobody makes at this moment, and that have something to record: of sessions on agents that can be reached, and
-- of those that ended before `given_up`. Whoever waits for an agent that is away keeps nobody else waiting.
CREATE FUNCTION list_free_recordings(agents uuid[], given_up timestamptz, at timestamptz, at_most integer)
RETURNS TABLE (org_id uuid, session_id uuid, agent_id uuid, is_final boolean, since timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT t.org_id, t.session_id, s.agent_id, s.state IN ('terminated', 'failed'), s.state_since
        FROM terminal_sources t JOIN sessions s ON s.id = t.session_id
        WHERE t.lease_until <= at AND t.finished < s.generation AND s.state NOT IN ('pending', 'waking')
          AND (s.agent_id = ANY (agents) OR (s.state IN ('terminated', 'failed') AND s.state_since < given_up))
        ORDER BY t.lease_until LIMIT at_most;
END
$$;
REVOKE EXECUTE ON FUNCTION list_free_recordings(uuid[], timestamptz, timestamptz, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION list_free_recordings(uuid[], timestamptz, timestamptz, integer) TO tidegate_app;
GRANT CREATE ON SCHEMA public TO tidegate_lister;
ALTER FUNCTION list_free_recordings(uuid[], timestamptz, timestamptz, integer) OWNER TO tidegate_lister;
REVOKE CREATE ON SCHEMA public FROM tidegate_lister;

-- The account of a deleted organization goes once its streams are gone and NATS has forgotten it.
GRANT DELETE ON nats_accounts TO tidegate_platform;
