-- Indexes that one look alone may use, and a queue whose commands move without touching an index.

-- Sessions that are there have several partial indexes with one condition. Where the statistics say that there are none at
-- the moment, each of them looks the same to the planner, and a plan that is kept would read all sessions of everybody for
-- what one agent runs. That the leading column is there is said only by whoever asks for it: no other look fits.
DROP INDEX sessions_agent_active;
CREATE INDEX sessions_agent_active ON sessions (agent_id) INCLUDE (cpu_millis, memory_bytes)
    WHERE state IN ('pending', 'running', 'waking', 'hibernating', 'terminating') AND agent_id IS NOT NULL;
DROP INDEX sessions_org_active;
CREATE INDEX sessions_org_active ON sessions (org_id, user_id)
    WHERE state IN ('pending', 'running', 'waking', 'hibernating', 'terminating') AND org_id IS NOT NULL;
DROP INDEX sessions_user_living;
CREATE INDEX sessions_user_living ON sessions (user_id) WHERE state NOT IN ('terminated', 'failed') AND user_id IS NOT NULL;
DROP INDEX sessions_waiting;
CREATE INDEX sessions_waiting ON sessions (state_since)
    WHERE state IN ('pending', 'waking', 'hibernating', 'terminating') AND state_since IS NOT NULL;

-- A command is open until it has an end. Its status is in no index: what is claimed and acknowledged stays where it is on
-- its page (HOT), instead of being entered into each index anew.
ALTER TABLE commands ADD CONSTRAINT commands_end CHECK ((completed_at IS NULL) = (status IN ('pending', 'sent', 'ack')));
ALTER TABLE commands ADD CONSTRAINT commands_why CHECK ((error_message IS NULL) = (status <> 'failed'));
DROP INDEX commands_open;
CREATE INDEX commands_open ON commands (agent_id, seq) WHERE completed_at IS NULL;
DROP INDEX commands_deadline;
CREATE INDEX commands_deadline ON commands (deadline) WHERE completed_at IS NULL AND deadline IS NOT NULL;
DROP INDEX commands_failed_starts;
CREATE INDEX commands_failed_starts ON commands (agent_id, completed_at)
    WHERE error_message IS NOT NULL AND action IN ('start_session', 'wake_session');

-- A thing has lines in one organization: one index serves both looks.
DROP INDEX audit_log_org_resource;

-- History and events are written for each row, under a condition: an update that changes no state hands no rows to a
-- trigger, and a single row needs no table to be handed over in.
DROP TRIGGER session_made ON sessions;
DROP TRIGGER session_moved ON sessions;
DROP TRIGGER command_made ON commands;
CREATE OR REPLACE FUNCTION tidegate_session_made() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO session_events (id, org_id, session_id, agent_id, from_state, to_state, reason, generation, at)
    VALUES (tidegate_uuid_v7(NEW.state_since), NEW.org_id, NEW.id, NEW.agent_id, NULL, NEW.state, NEW.state_reason, NEW.generation, NEW.state_since);
    RETURN NULL;
END
$$;
CREATE OR REPLACE FUNCTION tidegate_session_moved() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO session_events (id, org_id, session_id, agent_id, from_state, to_state, reason, generation, at)
    VALUES (tidegate_uuid_v7(NEW.state_since), NEW.org_id, NEW.id, NEW.agent_id, OLD.state, NEW.state, NEW.state_reason, NEW.generation, NEW.state_since);
    RETURN NULL;
END
$$;
CREATE OR REPLACE FUNCTION tidegate_command_made() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    INSERT INTO events (org_id, kind, agent_id, agent_handle, session_id, command_id, action, status, at)
    VALUES (NEW.org_id, 'command', NEW.agent_id, NEW.agent_handle, NEW.session_id, NEW.id, NEW.action, NEW.status, NEW.created_at);
    RETURN NULL;
END
$$;
CREATE TRIGGER session_made AFTER INSERT ON sessions FOR EACH ROW EXECUTE FUNCTION tidegate_session_made();
CREATE TRIGGER session_moved AFTER UPDATE ON sessions FOR EACH ROW WHEN (OLD.state IS DISTINCT FROM NEW.state)
    EXECUTE FUNCTION tidegate_session_moved();
CREATE TRIGGER command_made AFTER INSERT ON commands FOR EACH ROW EXECUTE FUNCTION tidegate_command_made();

GRANT CREATE ON SCHEMA public TO tidegate_lister;
CREATE OR REPLACE FUNCTION agent_usage(agents uuid[], failed_since timestamptz)
RETURNS TABLE (agent_id uuid, active bigint, cpu bigint, memory bigint, failures bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 4 SET search_path = public, pg_temp SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT a, u.active, u.cpu, u.memory,
        (SELECT count(*) FROM (SELECT 1 FROM commands c WHERE c.agent_id = a AND c.completed_at > failed_since
            AND c.error_message IS NOT NULL AND c.action IN ('start_session', 'wake_session') LIMIT 100) f)
    FROM unnest(agents) a CROSS JOIN LATERAL (
        SELECT count(*) AS active, LEAST(COALESCE(sum(s.cpu_millis), 0), 9223372036854775807)::bigint AS cpu,
               LEAST(COALESCE(sum(s.memory_bytes), 0), 9223372036854775807)::bigint AS memory
        FROM sessions s WHERE s.agent_id = a AND s.state IN ('pending', 'running', 'waking', 'hibernating', 'terminating')) u;
END
$$;
CREATE OR REPLACE FUNCTION list_agents_with_overdue_commands(now timestamptz) RETURNS TABLE (agent_id uuid)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT DISTINCT c.agent_id FROM commands c WHERE c.completed_at IS NULL AND c.deadline < now
$$;
REVOKE CREATE ON SCHEMA public FROM tidegate_lister;
