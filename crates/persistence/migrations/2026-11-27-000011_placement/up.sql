-- Where sessions go: what an agent can hold beside sessions, whose it is, its drain with an end, two keys at a time.
-- What agents said of CPU and memory before is read with their next heartbeat; until then it bounds nothing.

ALTER TABLE agents
    -- It serves this organization alone; null serves all.
    ADD COLUMN org_id                  uuid REFERENCES organizations (id),
    -- What `capacity` says, read; null is unknown, and bounds nothing.
    ADD COLUMN cpu_millis              bigint CHECK (cpu_millis > 0),
    ADD COLUMN memory_bytes            bigint CHECK (memory_bytes > 0),
    -- Of an operator's drain; they mean nothing without it.
    ADD COLUMN drained_at              timestamptz,
    ADD COLUMN drain_deadline          timestamptz,
    ADD COLUMN drain_reason            text CHECK (char_length(drain_reason) <= 500),
    -- The key before the last rotation, good until then.
    ADD COLUMN previous_key_hash       bytea,
    ADD COLUMN previous_key_expires_at timestamptz,
    -- The key that the live connection was opened with.
    ADD COLUMN connection_key_hash     bytea,
    ADD CHECK ((previous_key_hash IS NULL) = (previous_key_expires_at IS NULL));
CREATE UNIQUE INDEX agents_previous_key_hash_key ON agents (previous_key_hash) WHERE previous_key_hash IS NOT NULL;
CREATE INDEX agents_previous_key_expires ON agents (previous_key_expires_at) WHERE previous_key_expires_at IS NOT NULL;
CREATE INDEX agents_drain_deadline ON agents (drain_deadline) WHERE drain_deadline IS NOT NULL;
CREATE INDEX agents_org ON agents (org_id) WHERE org_id IS NOT NULL;
CREATE INDEX agents_removed ON agents (deleted_at) WHERE deleted_at IS NOT NULL;
-- A ring for each owner: whoever walks their own or the shared one never steps over agents of others.
DROP INDEX agents_placeable;
CREATE INDEX agents_placeable ON agents (platform, org_id, shuffle)
    WHERE approval_status = 'approved' AND deleted_at IS NULL AND status = 'online' AND NOT operator_drain AND max_sessions > 0;
-- What is placed on an agent is summed from the index.
DROP INDEX sessions_agent_active;
CREATE INDEX sessions_agent_active ON sessions (agent_id) INCLUDE (cpu_millis, memory_bytes)
    WHERE state IN ('pending', 'running', 'waking', 'hibernating', 'terminating');
-- Starts that failed lately put an agent at the back.
CREATE INDEX commands_failed_starts ON commands (agent_id, completed_at)
    WHERE status = 'failed' AND action IN ('start_session', 'wake_session');

-- An organization sees the agents that serve it. Asked for once a statement: called in the condition itself, it would be
-- parsed for every row.
DROP POLICY org ON agents;
CREATE POLICY org ON agents TO tidegate_org
    USING (approval_status = 'approved' AND deleted_at IS NULL AND (org_id IS NULL OR org_id = (SELECT tidegate_org_id())));
GRANT SELECT (org_id, cpu_millis, memory_bytes, last_heartbeat, created_at) ON agents TO tidegate_org;
GRANT UPDATE (cpu_millis, memory_bytes, previous_key_hash, previous_key_expires_at, connection_key_hash) ON agents TO tidegate_hub;

-- What is placed on each of these agents, of all organizations, and how many starts failed there after `failed_since`;
-- past a hundred they are not counted. Beside agent_load, which the version before still calls.
CREATE FUNCTION agent_usage(agents uuid[], failed_since timestamptz)
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
-- Neighbours on a ring in random order, from a random place on: a few steps in the index, however many agents there are,
-- and all of them where there are only a few. Of this organization's own ring, or of the shared one for null. Called with
-- the caller's rights, behind the policies. The planner takes the filters to leave nothing, and would read and sort the
-- whole ring for it: it is kept to the index.
CREATE FUNCTION agents_on_ring(wanted_platform text, of_org uuid, wanted_region text, heard_since timestamptz, few bigint)
RETURNS SETOF uuid
LANGUAGE plpgsql VOLATILE SECURITY INVOKER ROWS 4 SET search_path = public, pg_temp SET plan_cache_mode = force_generic_plan
SET enable_sort = off SET enable_bitmapscan = off SET enable_seqscan = off AS $$
DECLARE
    place double precision := random();
    found bigint;
BEGIN
    IF of_org IS NULL THEN
        RETURN QUERY SELECT a.id FROM agents a
            WHERE a.approval_status = 'approved' AND a.deleted_at IS NULL AND a.status = 'online' AND NOT a.operator_drain
              AND a.max_sessions > 0 AND a.platform = wanted_platform AND a.org_id IS NULL
              AND (wanted_region IS NULL OR a.region = wanted_region) AND COALESCE(a.last_heartbeat, a.created_at) >= heard_since
              AND a.shuffle >= place ORDER BY a.org_id, a.shuffle LIMIT few;
        GET DIAGNOSTICS found = ROW_COUNT;
        RETURN QUERY SELECT a.id FROM agents a
            WHERE a.approval_status = 'approved' AND a.deleted_at IS NULL AND a.status = 'online' AND NOT a.operator_drain
              AND a.max_sessions > 0 AND a.platform = wanted_platform AND a.org_id IS NULL
              AND (wanted_region IS NULL OR a.region = wanted_region) AND COALESCE(a.last_heartbeat, a.created_at) >= heard_since
              AND a.shuffle < place ORDER BY a.org_id, a.shuffle LIMIT few - found;
    ELSE
        RETURN QUERY SELECT a.id FROM agents a
            WHERE a.approval_status = 'approved' AND a.deleted_at IS NULL AND a.status = 'online' AND NOT a.operator_drain
              AND a.max_sessions > 0 AND a.platform = wanted_platform AND a.org_id = of_org
              AND (wanted_region IS NULL OR a.region = wanted_region) AND COALESCE(a.last_heartbeat, a.created_at) >= heard_since
              AND a.shuffle >= place ORDER BY a.org_id, a.shuffle LIMIT few;
        GET DIAGNOSTICS found = ROW_COUNT;
        RETURN QUERY SELECT a.id FROM agents a
            WHERE a.approval_status = 'approved' AND a.deleted_at IS NULL AND a.status = 'online' AND NOT a.operator_drain
              AND a.max_sessions > 0 AND a.platform = wanted_platform AND a.org_id = of_org
              AND (wanted_region IS NULL OR a.region = wanted_region) AND COALESCE(a.last_heartbeat, a.created_at) >= heard_since
              AND a.shuffle < place ORDER BY a.org_id, a.shuffle LIMIT few - found;
    END IF;
END
$$;
-- Agents for which something that an operator asked for is due: an overlap of keys ends, a drain is over and something
-- still runs, or the agent was removed and its sessions are not ended yet.
CREATE FUNCTION list_agents_with_due_orders(now timestamptz) RETURNS TABLE (agent_id uuid)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT a.id FROM agents a WHERE a.previous_key_expires_at <= now
    UNION SELECT a.id FROM agents a WHERE a.drain_deadline <= now AND a.operator_drain AND a.deleted_at IS NULL
        AND EXISTS (SELECT 1 FROM sessions s WHERE s.agent_id = a.id AND s.state IN ('pending', 'running', 'waking'))
    -- Whatever a day has not ended is healed as all that waits for nothing.
    UNION SELECT a.id FROM agents a WHERE a.deleted_at > now - interval '1 day'
        AND EXISTS (SELECT 1 FROM sessions s WHERE s.agent_id = a.id AND s.state = 'terminating')
$$;
-- The lookups of agents with both keys. Beside auth_agent and auth_agent_by_key, which the version before still calls.
CREATE FUNCTION auth_agent_keys(wanted text)
RETURNS TABLE (id uuid, agent_id text, approval_status text, api_key_hash bytea, api_key_last_used_at timestamptz, claim_hash bytea,
               previous_key_hash bytea, previous_key_expires_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT a.id, a.agent_id, a.approval_status, a.api_key_hash, a.api_key_last_used_at, a.claim_hash,
           a.previous_key_hash, a.previous_key_expires_at
    FROM agents a WHERE a.agent_id = wanted AND a.deleted_at IS NULL
$$;
CREATE FUNCTION auth_agent_keys_by_key(wanted bytea)
RETURNS TABLE (id uuid, agent_id text, approval_status text, api_key_hash bytea, api_key_last_used_at timestamptz, claim_hash bytea,
               previous_key_hash bytea, previous_key_expires_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT a.id, a.agent_id, a.approval_status, a.api_key_hash, a.api_key_last_used_at, a.claim_hash,
           a.previous_key_hash, a.previous_key_expires_at
    FROM agents a WHERE a.deleted_at IS NULL
      AND a.id IN (SELECT b.id FROM agents b WHERE b.api_key_hash = wanted UNION SELECT b.id FROM agents b WHERE b.previous_key_hash = wanted)
$$;

REVOKE EXECUTE ON FUNCTION agents_on_ring(text, uuid, text, timestamptz, bigint), agent_usage(uuid[], timestamptz), list_agents_with_due_orders(timestamptz),
    auth_agent_keys(text), auth_agent_keys_by_key(bytea) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION agents_on_ring(text, uuid, text, timestamptz, bigint), agent_usage(uuid[], timestamptz) TO tidegate_org;
GRANT EXECUTE ON FUNCTION list_agents_with_due_orders(timestamptz), auth_agent_keys(text), auth_agent_keys_by_key(bytea) TO tidegate_app;
GRANT CREATE ON SCHEMA public TO tidegate_lister;
ALTER FUNCTION agent_usage(uuid[], timestamptz) OWNER TO tidegate_lister;
ALTER FUNCTION list_agents_with_due_orders(timestamptz) OWNER TO tidegate_lister;
ALTER FUNCTION auth_agent_keys(text) OWNER TO tidegate_lister;
ALTER FUNCTION auth_agent_keys_by_key(bytea) OWNER TO tidegate_lister;
REVOKE CREATE ON SCHEMA public FROM tidegate_lister;
