DROP INDEX sessions_agent_active;
CREATE INDEX sessions_agent_active ON sessions (agent_id) INCLUDE (cpu_millis, memory_bytes)
    WHERE state IN ('pending', 'running', 'waking', 'hibernating', 'terminating');
DROP INDEX sessions_org_active;
CREATE INDEX sessions_org_active ON sessions (org_id, user_id)
    WHERE state IN ('pending', 'running', 'waking', 'hibernating', 'terminating');
DROP INDEX sessions_user_living;
CREATE INDEX sessions_user_living ON sessions (user_id) WHERE state NOT IN ('terminated', 'failed');
DROP INDEX sessions_waiting;
CREATE INDEX sessions_waiting ON sessions (state_since) WHERE state IN ('pending', 'waking', 'hibernating', 'terminating');

ALTER TABLE commands DROP CONSTRAINT commands_end;
ALTER TABLE commands DROP CONSTRAINT commands_why;
DROP INDEX commands_open;
CREATE INDEX commands_open ON commands (agent_id, seq) WHERE status IN ('pending', 'sent', 'ack');
DROP INDEX commands_deadline;
CREATE INDEX commands_deadline ON commands (deadline) WHERE status IN ('pending', 'sent', 'ack');
DROP INDEX commands_failed_starts;
CREATE INDEX commands_failed_starts ON commands (agent_id, completed_at)
    WHERE status = 'failed' AND action IN ('start_session', 'wake_session');

CREATE INDEX audit_log_org_resource ON audit_log (org_id, resource, at DESC, id DESC);

DROP TRIGGER session_made ON sessions;
DROP TRIGGER session_moved ON sessions;
DROP TRIGGER command_made ON commands;
CREATE OR REPLACE FUNCTION tidegate_session_made() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO session_events (id, org_id, session_id, agent_id, from_state, to_state, reason, generation, at)
    SELECT tidegate_uuid_v7(m.state_since), m.org_id, m.id, m.agent_id, NULL, m.state, m.state_reason, m.generation, m.state_since
    FROM made m;
    RETURN NULL;
END
$$;
CREATE OR REPLACE FUNCTION tidegate_session_moved() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO session_events (id, org_id, session_id, agent_id, from_state, to_state, reason, generation, at)
    SELECT tidegate_uuid_v7(a.state_since), a.org_id, a.id, a.agent_id, b.state, a.state, a.state_reason, a.generation, a.state_since
    FROM after_move a JOIN before_move b ON b.id = a.id WHERE b.state <> a.state;
    RETURN NULL;
END
$$;
CREATE OR REPLACE FUNCTION tidegate_command_made() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    INSERT INTO events (org_id, kind, agent_id, agent_handle, session_id, command_id, action, status, at)
    SELECT m.org_id, 'command', m.agent_id, m.agent_handle, m.session_id, m.id, m.action, m.status, m.created_at FROM made m ORDER BY m.seq;
    RETURN NULL;
END
$$;
CREATE TRIGGER session_made AFTER INSERT ON sessions REFERENCING NEW TABLE AS made
    FOR EACH STATEMENT EXECUTE FUNCTION tidegate_session_made();
CREATE TRIGGER session_moved AFTER UPDATE ON sessions REFERENCING OLD TABLE AS before_move NEW TABLE AS after_move
    FOR EACH STATEMENT EXECUTE FUNCTION tidegate_session_moved();
CREATE TRIGGER command_made AFTER INSERT ON commands REFERENCING NEW TABLE AS made
    FOR EACH STATEMENT EXECUTE FUNCTION tidegate_command_made();

GRANT CREATE ON SCHEMA public TO tidegate_lister;
CREATE OR REPLACE FUNCTION agent_usage(agents uuid[], failed_since timestamptz)
RETURNS TABLE (agent_id uuid, active bigint, cpu bigint, memory bigint, failures bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 4 SET search_path = public, pg_temp SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT a, u.active, u.cpu, u.memory,
        (SELECT count(*) FROM (SELECT 1 FROM commands c WHERE c.agent_id = a AND c.completed_at > failed_since
            AND c.status = 'failed' AND c.action IN ('start_session', 'wake_session') LIMIT 100) f)
    FROM unnest(agents) a CROSS JOIN LATERAL (
        SELECT count(*) AS active, LEAST(COALESCE(sum(s.cpu_millis), 0), 9223372036854775807)::bigint AS cpu,
               LEAST(COALESCE(sum(s.memory_bytes), 0), 9223372036854775807)::bigint AS memory
        FROM sessions s WHERE s.agent_id = a AND s.state IN ('pending', 'running', 'waking', 'hibernating', 'terminating')) u;
END
$$;
CREATE OR REPLACE FUNCTION list_agents_with_overdue_commands(now timestamptz) RETURNS TABLE (agent_id uuid)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT DISTINCT c.agent_id FROM commands c WHERE c.status IN ('pending', 'sent', 'ack') AND c.deadline < now
$$;
REVOKE CREATE ON SCHEMA public FROM tidegate_lister;
