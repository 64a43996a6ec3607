-- What keeps a session alive, and what ends that: activity, idle timeouts, longest durations, warnings ahead of both,
-- extensions, and what an organization says of them. Only adds; a control plane of the version before leaves the new
-- columns as they are, and everything below is worked out from the row as it stands.

ALTER TABLE sessions
    -- Who set the two limits: the request, or the rule it was silent about.
    ADD COLUMN idle_source text NOT NULL DEFAULT 'request'
        CHECK (idle_source IN ('request', 'organization_default', 'organization_maximum', 'platform_default', 'platform_maximum')),
    ADD COLUMN max_source text NOT NULL DEFAULT 'request'
        CHECK (max_source IN ('request', 'organization_default', 'organization_maximum', 'platform_default', 'platform_maximum')),
    -- By how much its owner put its end off, and until when it is not idle whatever happens.
    ADD COLUMN extended_seconds integer NOT NULL DEFAULT 0 CHECK (extended_seconds >= 0),
    ADD COLUMN kept_until timestamptz,
    -- When its owner was warned, and of which moment. Activity moves the moment, and the warning with it is void.
    ADD COLUMN warned_at timestamptz,
    ADD COLUMN warned_of timestamptz,
    -- How often activity was written down: it says which of the kept reasons is the oldest.
    ADD COLUMN activity_count bigint NOT NULL DEFAULT 0;

-- What an organization says of sessions that are asked for in it, in seconds. Null says nothing; 0 is never.
ALTER TABLE organizations
    ADD COLUMN idle_default_seconds integer CHECK (idle_default_seconds BETWEEN 0 AND 2592000),
    ADD COLUMN idle_maximum_seconds integer CHECK (idle_maximum_seconds BETWEEN 0 AND 2592000),
    ADD COLUMN duration_default_seconds integer CHECK (duration_default_seconds BETWEEN 0 AND 2592000),
    ADD COLUMN duration_maximum_seconds integer CHECK (duration_maximum_seconds BETWEEN 0 AND 2592000);
GRANT UPDATE (idle_default_seconds, idle_maximum_seconds, duration_default_seconds, duration_maximum_seconds) ON organizations TO tidegate_org;

-- The three moments of a session. They depend on nothing but what is handed to them, so that an index may hold the last
-- one; seconds are the same in every time zone, which is why `immutable` is true though adding them is not marked so.
-- plpgsql keeps its plan for the connection's life; a plain SQL function that is not inlined is started at every call.

-- When it hibernates unless somebody is active before.
CREATE FUNCTION session_idle_at(state text, state_since timestamptz, last_activity_at timestamptz, kept_until timestamptz, idle_seconds integer)
RETURNS timestamptz LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    IF state <> 'running' OR idle_seconds <= 0 THEN
        RETURN NULL;
    END IF;
    RETURN GREATEST(GREATEST(state_since, last_activity_at) + make_interval(secs => idle_seconds), kept_until);
END
$$;
-- When it is terminated, awake or asleep.
CREATE FUNCTION session_ends_at(started_at timestamptz, max_seconds integer, extended_seconds integer)
RETURNS timestamptz LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    IF max_seconds <= 0 THEN
        RETURN NULL;
    END IF;
    RETURN started_at + make_interval(secs => max_seconds) + make_interval(secs => extended_seconds);
END
$$;
-- When there is something to do about it: first a warning, 5 minutes ahead (half of the limit where that is less), then
-- what it warned of, and never sooner after the warning than the warning promised.
CREATE FUNCTION session_due_at(idle_at timestamptz, idle_seconds integer, ends_at timestamptz, max_seconds integer, warned_at timestamptz, warned_of timestamptz)
RETURNS timestamptz LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    moment timestamptz := LEAST(idle_at, ends_at);
    lead interval := make_interval(secs => LEAST(300, CASE WHEN ends_at <= idle_at OR idle_at IS NULL THEN max_seconds ELSE idle_seconds END / 2));
BEGIN
    IF warned_of = moment THEN
        RETURN GREATEST(moment, warned_at + lead);
    END IF;
    RETURN moment - lead;
END
$$;
CREATE INDEX sessions_due ON sessions ((session_due_at(session_idle_at(state, state_since, last_activity_at, kept_until, idle_seconds), idle_seconds,
        session_ends_at(started_at, max_seconds, extended_seconds), max_seconds, warned_at, warned_of)), id)
    WHERE state IN ('running', 'hibernated') AND (idle_seconds > 0 OR max_seconds > 0);

-- The last reasons why a session stayed alive: 20 places, written one after the other and over again.
CREATE TABLE session_activity (
    org_id     uuid NOT NULL,
    session_id uuid NOT NULL,
    slot       smallint NOT NULL CHECK (slot BETWEEN 0 AND 19),
    at         timestamptz NOT NULL,
    kind       text NOT NULL CHECK (kind IN ('input', 'connect', 'heartbeat', 'extend')),
    user_id    uuid NOT NULL,
    username   text NOT NULL,
    PRIMARY KEY (session_id, slot),
    FOREIGN KEY (org_id, session_id) REFERENCES sessions (org_id, id) ON DELETE CASCADE
) WITH (fillfactor = 70);
ALTER TABLE session_activity ENABLE ROW LEVEL SECURITY;
ALTER TABLE session_activity FORCE ROW LEVEL SECURITY;
REVOKE ALL ON session_activity FROM PUBLIC;
CREATE POLICY lister ON session_activity FOR SELECT TO tidegate_lister USING (true);
CREATE POLICY org ON session_activity TO tidegate_org USING (org_id = tidegate_org_id()) WITH CHECK (org_id = tidegate_org_id());
GRANT SELECT ON session_activity TO tidegate_lister;
GRANT SELECT, INSERT, UPDATE (at, kind, user_id, username) ON session_activity TO tidegate_org;

-- A transaction in an organization that no user opened is the platform's own, and says so in the log. The rest is as it
-- was: nobody writes in another one's name.
DROP POLICY org_writes ON audit_log;
CREATE POLICY org_writes ON audit_log FOR INSERT TO tidegate_org
    WITH CHECK (org_id = tidegate_org_id() AND CASE WHEN tidegate_user_id() IS NULL THEN actor = 'system' AND actor_user_id IS NULL
                ELSE actor = 'user:' || tidegate_user_id()::text AND (actor_user_id IS NULL OR actor_user_id = tidegate_user_id()) END);

-- What the platform looks for across all tenants: ids only, to be opened in their own scope. Due sessions come in the
-- order of the index, from one place in it on.
CREATE FUNCTION list_due_sessions(now timestamptz, after_due timestamptz, after_id uuid, at_most integer)
RETURNS TABLE (org_id uuid, session_id uuid, due_at timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT s.org_id, s.id, session_due_at(session_idle_at(s.state, s.state_since, s.last_activity_at, s.kept_until, s.idle_seconds), s.idle_seconds,
            session_ends_at(s.started_at, s.max_seconds, s.extended_seconds), s.max_seconds, s.warned_at, s.warned_of)
    FROM sessions s
    WHERE s.state IN ('running', 'hibernated') AND (s.idle_seconds > 0 OR s.max_seconds > 0)
      AND session_due_at(session_idle_at(s.state, s.state_since, s.last_activity_at, s.kept_until, s.idle_seconds), s.idle_seconds,
            session_ends_at(s.started_at, s.max_seconds, s.extended_seconds), s.max_seconds, s.warned_at, s.warned_of) <= now
      AND (session_due_at(session_idle_at(s.state, s.state_since, s.last_activity_at, s.kept_until, s.idle_seconds), s.idle_seconds,
            session_ends_at(s.started_at, s.max_seconds, s.extended_seconds), s.max_seconds, s.warned_at, s.warned_of), s.id) > (after_due, after_id)
    ORDER BY 3, s.id LIMIT at_most;
END
$$;
CREATE FUNCTION list_organizations_of_sessions(wanted uuid[]) RETURNS TABLE (org_id uuid, session_id uuid)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT s.org_id, s.id FROM sessions s WHERE s.id = ANY (wanted);
END
$$;

REVOKE EXECUTE ON FUNCTION session_idle_at(text, timestamptz, timestamptz, timestamptz, integer), session_ends_at(timestamptz, integer, integer),
    session_due_at(timestamptz, integer, timestamptz, integer, timestamptz, timestamptz),
    list_due_sessions(timestamptz, timestamptz, uuid, integer), list_organizations_of_sessions(uuid[]) FROM PUBLIC;
-- Whoever changes a session keeps its index.
GRANT EXECUTE ON FUNCTION session_idle_at(text, timestamptz, timestamptz, timestamptz, integer), session_ends_at(timestamptz, integer, integer),
    session_due_at(timestamptz, integer, timestamptz, integer, timestamptz, timestamptz) TO tidegate_org, tidegate_hub, tidegate_platform, tidegate_lister;
GRANT EXECUTE ON FUNCTION list_due_sessions(timestamptz, timestamptz, uuid, integer), list_organizations_of_sessions(uuid[]) TO tidegate_app;
GRANT CREATE ON SCHEMA public TO tidegate_lister;
ALTER FUNCTION list_due_sessions(timestamptz, timestamptz, uuid, integer) OWNER TO tidegate_lister;
ALTER FUNCTION list_organizations_of_sessions(uuid[]) OWNER TO tidegate_lister;
REVOKE CREATE ON SCHEMA public FROM tidegate_lister;
