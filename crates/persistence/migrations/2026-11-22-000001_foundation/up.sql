-- The path of the first session: organizations, users, memberships, login sessions, agents, sessions, commands.
-- Every table has row-level security, enabled and forced, and one policy per scope role. The scope roles get
-- exactly the columns they need; tidegate_app itself gets nothing but the right to call the lookups at the end.

CREATE FUNCTION tidegate_uuid_v7(at timestamptz) RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
    SELECT encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid())
        PLACING substring(int8send((extract(epoch FROM at) * 1000)::bigint) FROM 3) FROM 1 FOR 6), 52, 1), 53, 1), 'hex')::uuid
$$;
CREATE FUNCTION tidegate_org_id() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT NULLIF(current_setting('app.org_id', true), '')::uuid
$$;
CREATE FUNCTION tidegate_user_id() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT NULLIF(current_setting('app.user_id', true), '')::uuid
$$;
CREATE FUNCTION tidegate_agent_ids() RETURNS uuid[] LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT NULLIF(current_setting('app.agent_ids', true), '')::uuid[]
$$;

CREATE TABLE users (
    id            uuid PRIMARY KEY,
    username      text NOT NULL CHECK (username ~ '^[A-Za-z0-9_-]{3,32}$'),
    email         text,
    full_name     text NOT NULL,
    role          text NOT NULL CHECK (role IN ('user', 'operator', 'admin')),
    provider      text NOT NULL CHECK (provider IN ('local', 'saml', 'oidc', 'github')),
    active        boolean NOT NULL DEFAULT true,
    password_hash text,
    created_at    timestamptz NOT NULL,
    updated_at    timestamptz NOT NULL,
    last_login    timestamptz
);
CREATE UNIQUE INDEX users_username_key ON users (lower(username));
CREATE UNIQUE INDEX users_email_key ON users (lower(email));

CREATE TABLE organizations (
    id            uuid PRIMARY KEY,
    name          text NOT NULL CONSTRAINT organizations_name_key UNIQUE CHECK (name ~ '^[a-z0-9]([a-z0-9-]*[a-z0-9])?$'),
    display_name  text NOT NULL,
    description   text NOT NULL DEFAULT '',
    k8s_namespace text NOT NULL,
    status        text NOT NULL CHECK (status IN ('active', 'suspended', 'deleted')),
    owner_user_id uuid REFERENCES users (id),
    created_at    timestamptz NOT NULL,
    updated_at    timestamptz NOT NULL
);
CREATE INDEX organizations_owner ON organizations (owner_user_id);

CREATE TABLE memberships (
    org_id     uuid NOT NULL REFERENCES organizations (id),
    user_id    uuid NOT NULL REFERENCES users (id),
    role       text NOT NULL CHECK (role IN ('org_admin', 'maintainer', 'user', 'viewer')),
    created_at timestamptz NOT NULL,
    PRIMARY KEY (org_id, user_id)
);
CREATE INDEX memberships_user ON memberships (user_id);

-- A login: tokens carry its id, and end with it. `org_id` is the organization chosen for it, null for the default.
CREATE TABLE login_sessions (
    id                    uuid PRIMARY KEY,
    user_id               uuid NOT NULL REFERENCES users (id),
    org_id                uuid REFERENCES organizations (id),
    refresh_hash          bytea NOT NULL CONSTRAINT login_sessions_refresh_hash_key UNIQUE,
    previous_refresh_hash bytea,
    created_at            timestamptz NOT NULL,
    refreshed_at          timestamptz NOT NULL,
    expires_at            timestamptz NOT NULL,
    revoked_at            timestamptz
);
CREATE INDEX login_sessions_user ON login_sessions (user_id);
CREATE INDEX login_sessions_previous ON login_sessions (previous_refresh_hash);

CREATE TABLE agents (
    id                   uuid PRIMARY KEY,
    agent_id             text NOT NULL,
    platform             text NOT NULL CHECK (platform IN ('kubernetes', 'docker', 'vm', 'cloud')),
    region               text,
    status               text NOT NULL CHECK (status IN ('online', 'offline', 'draining')),
    operator_drain       boolean NOT NULL DEFAULT false,
    capacity             jsonb,
    max_sessions         integer NOT NULL DEFAULT 0,
    active_sessions      integer NOT NULL DEFAULT 0,
    metadata             jsonb,
    last_heartbeat       timestamptz,
    websocket_id         text,
    epoch                bigint NOT NULL DEFAULT 0,
    boot_id              text,
    api_key_hash         bytea,
    api_key_created_at   timestamptz,
    api_key_last_used_at timestamptz,
    claim_hash           bytea,
    approval_status      text NOT NULL CHECK (approval_status IN ('pending', 'approved', 'rejected')),
    approved_at          timestamptz,
    approved_by          text,
    placed_at            timestamptz,
    created_at           timestamptz NOT NULL,
    updated_at           timestamptz NOT NULL,
    deleted_at           timestamptz,
    -- Where it stands on the ring that placement walks.
    shuffle              double precision NOT NULL DEFAULT random()
) WITH (fillfactor = 70);
CREATE UNIQUE INDEX agents_agent_id_key ON agents (agent_id) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX agents_api_key_hash_key ON agents (api_key_hash);
CREATE INDEX agents_placeable ON agents (platform, shuffle)
    WHERE approval_status = 'approved' AND deleted_at IS NULL AND status = 'online' AND NOT operator_drain AND max_sessions > 0;

CREATE TABLE sessions (
    id                uuid PRIMARY KEY,
    org_id            uuid NOT NULL REFERENCES organizations (id),
    user_id           uuid NOT NULL REFERENCES users (id),
    username          text NOT NULL,
    name              text NOT NULL,
    template          text NOT NULL,
    application_id    text,
    agent_id          uuid REFERENCES agents (id),
    agent_handle      text,
    platform          text NOT NULL,
    region            text,
    state             text NOT NULL CHECK (state IN ('pending', 'running', 'hibernating', 'hibernated', 'waking', 'terminating', 'terminated', 'failed')),
    state_reason      text,
    state_since       timestamptz NOT NULL,
    generation        bigint NOT NULL,
    cpu_millis        bigint NOT NULL CHECK (cpu_millis >= 0),
    memory_bytes      bigint NOT NULL CHECK (memory_bytes >= 0),
    storage_bytes     bigint NOT NULL CHECK (storage_bytes >= 0),
    persistent_home   boolean NOT NULL,
    idle_seconds      integer NOT NULL,
    max_seconds       integer NOT NULL,
    tags              text[] NOT NULL,
    streaming_ready   boolean NOT NULL DEFAULT false,
    streaming_port    integer,
    platform_metadata jsonb NOT NULL DEFAULT '{}',
    created_at        timestamptz NOT NULL,
    started_at        timestamptz,
    last_activity_at  timestamptz,
    hibernated_at     timestamptz,
    ended_at          timestamptz,
    hidden_at         timestamptz,
    UNIQUE (org_id, id)
) WITH (fillfactor = 80);
CREATE INDEX sessions_org_created ON sessions (org_id, created_at DESC, id DESC) WHERE hidden_at IS NULL;
CREATE INDEX sessions_agent_active ON sessions (agent_id)
    WHERE state IN ('pending', 'running', 'waking', 'hibernating', 'terminating');
CREATE INDEX sessions_agent_hibernated ON sessions (agent_id) WHERE state = 'hibernated';
-- Sessions in a state that waits for a command: what the healer looks through.
CREATE INDEX sessions_waiting ON sessions (state_since) WHERE state IN ('pending', 'waking', 'hibernating', 'terminating');

-- What a start needs beyond the session's row. `environment` is sealed; both are wiped when the session ends.
CREATE TABLE session_specs (
    org_id      uuid NOT NULL,
    session_id  uuid NOT NULL,
    command     jsonb,
    environment bytea,
    PRIMARY KEY (session_id),
    FOREIGN KEY (org_id, session_id) REFERENCES sessions (org_id, id)
);

CREATE TABLE session_events (
    id         uuid PRIMARY KEY,
    org_id     uuid NOT NULL,
    session_id uuid NOT NULL,
    agent_id   uuid,
    from_state text,
    to_state   text NOT NULL,
    reason     text,
    generation bigint NOT NULL,
    at         timestamptz NOT NULL,
    seq        bigint GENERATED ALWAYS AS IDENTITY,
    FOREIGN KEY (org_id, session_id) REFERENCES sessions (org_id, id)
);
CREATE INDEX session_events_session ON session_events (session_id, seq);

CREATE TABLE commands (
    id              uuid PRIMARY KEY,
    org_id          uuid,
    agent_id        uuid NOT NULL REFERENCES agents (id),
    agent_handle    text NOT NULL,
    session_id      uuid,
    generation      bigint,
    action          text NOT NULL CHECK (action IN ('start_session', 'stop_session', 'hibernate_session', 'wake_session')),
    payload         jsonb NOT NULL,
    sealed          bytea,
    status          text NOT NULL CHECK (status IN ('pending', 'sent', 'ack', 'completed', 'failed')),
    error_message   text,
    result          jsonb,
    sent_epoch      bigint NOT NULL DEFAULT 0,
    deadline        timestamptz NOT NULL,
    created_at      timestamptz NOT NULL,
    sent_at         timestamptz,
    acknowledged_at timestamptz,
    completed_at    timestamptz,
    seq             bigint GENERATED ALWAYS AS IDENTITY,
    FOREIGN KEY (org_id, session_id) REFERENCES sessions (org_id, id)
) WITH (fillfactor = 80);
-- The queue. Without this partial index claims read every command ever finished.
CREATE INDEX commands_open ON commands (agent_id, seq) WHERE status IN ('pending', 'sent', 'ack');
CREATE INDEX commands_deadline ON commands (deadline) WHERE status IN ('pending', 'sent', 'ack');
CREATE INDEX commands_agent_seq ON commands (agent_id, seq DESC);
CREATE INDEX commands_session ON commands (session_id);

-- Sessions an agent runs and nobody here knows: kept until an operator or the grace period decides.
CREATE TABLE quarantined_sessions (
    agent_id   uuid NOT NULL REFERENCES agents (id),
    session_id text NOT NULL,
    state      text NOT NULL,
    first_seen timestamptz NOT NULL,
    last_seen  timestamptz NOT NULL,
    PRIMARY KEY (agent_id, session_id)
);

CREATE TABLE stream_tickets (
    id          uuid PRIMARY KEY,
    hash        bytea NOT NULL CONSTRAINT stream_tickets_hash_key UNIQUE,
    org_id      uuid NOT NULL,
    session_id  uuid NOT NULL,
    user_id     uuid NOT NULL REFERENCES users (id),
    login_id    uuid NOT NULL REFERENCES login_sessions (id),
    kind        text NOT NULL,
    mode        text NOT NULL,
    expires_at  timestamptz NOT NULL,
    consumed_at timestamptz,
    FOREIGN KEY (org_id, session_id) REFERENCES sessions (org_id, id)
);
CREATE INDEX stream_tickets_expires ON stream_tickets (expires_at);

CREATE TABLE idempotency_keys (
    org_id     uuid NOT NULL REFERENCES organizations (id),
    credential uuid NOT NULL,
    route      text NOT NULL,
    key        text NOT NULL CHECK (length(key) <= 255),
    body_hash  bytea NOT NULL,
    status     integer NOT NULL,
    body       jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (org_id, credential, route, key)
);
CREATE INDEX idempotency_keys_created ON idempotency_keys (created_at);

-- Append-only: no role may update it, and only the platform role may delete what retention says.
CREATE TABLE audit_log (
    id         uuid PRIMARY KEY,
    org_id     uuid REFERENCES organizations (id),
    actor      text NOT NULL,
    action     text NOT NULL,
    resource   text NOT NULL,
    address    text,
    detail     jsonb NOT NULL DEFAULT '{}',
    at         timestamptz NOT NULL
);
CREATE INDEX audit_log_org ON audit_log (org_id, at DESC);
CREATE INDEX audit_log_at ON audit_log (at DESC);

-- Every change of a session's state is written down by the table itself, so that no path can forget it.
CREATE FUNCTION tidegate_session_made() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO session_events (id, org_id, session_id, agent_id, from_state, to_state, reason, generation, at)
    SELECT tidegate_uuid_v7(m.state_since), m.org_id, m.id, m.agent_id, NULL, m.state, m.state_reason, m.generation, m.state_since
    FROM made m;
    RETURN NULL;
END
$$;
CREATE FUNCTION tidegate_session_moved() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO session_events (id, org_id, session_id, agent_id, from_state, to_state, reason, generation, at)
    SELECT tidegate_uuid_v7(a.state_since), a.org_id, a.id, a.agent_id, b.state, a.state, a.state_reason, a.generation, a.state_since
    FROM after_move a JOIN before_move b ON b.id = a.id WHERE b.state <> a.state;
    RETURN NULL;
END
$$;
CREATE TRIGGER session_made AFTER INSERT ON sessions REFERENCING NEW TABLE AS made
    FOR EACH STATEMENT EXECUTE FUNCTION tidegate_session_made();
CREATE TRIGGER session_moved AFTER UPDATE ON sessions REFERENCING OLD TABLE AS before_move NEW TABLE AS after_move
    FOR EACH STATEMENT EXECUTE FUNCTION tidegate_session_moved();

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['users', 'organizations', 'memberships', 'login_sessions', 'agents', 'sessions', 'session_specs',
        'session_events', 'commands', 'quarantined_sessions', 'stream_tickets', 'idempotency_keys', 'audit_log'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('REVOKE ALL ON %I FROM PUBLIC', name);
        EXECUTE format('CREATE POLICY lister ON %I FOR SELECT TO tidegate_lister USING (true)', name);
        EXECUTE format('GRANT SELECT ON %I TO tidegate_lister', name);
    END LOOP;
END
$$;

-- organizations
CREATE POLICY org ON organizations TO tidegate_org USING (id = tidegate_org_id()) WITH CHECK (id = tidegate_org_id());
CREATE POLICY "user" ON organizations FOR SELECT TO tidegate_user USING (id IN (SELECT m.org_id FROM memberships m));
CREATE POLICY platform ON organizations TO tidegate_platform USING (true) WITH CHECK (true);
GRANT SELECT, UPDATE (display_name, description, k8s_namespace, owner_user_id, updated_at) ON organizations TO tidegate_org;
GRANT SELECT ON organizations TO tidegate_user;
GRANT SELECT, INSERT, UPDATE ON organizations TO tidegate_platform;

-- users: a global identity; an organization sees its members without their password
CREATE POLICY org ON users FOR SELECT TO tidegate_org USING (id IN (SELECT m.user_id FROM memberships m));
CREATE POLICY "user" ON users TO tidegate_user USING (id = tidegate_user_id()) WITH CHECK (id = tidegate_user_id());
CREATE POLICY platform ON users TO tidegate_platform USING (true) WITH CHECK (true);
GRANT SELECT (id, username, email, full_name, role, provider, active, created_at, updated_at, last_login) ON users TO tidegate_org;
GRANT SELECT, UPDATE (email, full_name, password_hash, updated_at, last_login) ON users TO tidegate_user;
GRANT SELECT, INSERT, UPDATE ON users TO tidegate_platform;

-- memberships
CREATE POLICY org ON memberships TO tidegate_org USING (org_id = tidegate_org_id()) WITH CHECK (org_id = tidegate_org_id());
CREATE POLICY "user" ON memberships FOR SELECT TO tidegate_user USING (user_id = tidegate_user_id());
CREATE POLICY platform ON memberships TO tidegate_platform USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE (role), DELETE ON memberships TO tidegate_org;
GRANT SELECT ON memberships TO tidegate_user;
GRANT SELECT, INSERT, UPDATE, DELETE ON memberships TO tidegate_platform;

-- login sessions
CREATE POLICY "user" ON login_sessions TO tidegate_user USING (user_id = tidegate_user_id()) WITH CHECK (user_id = tidegate_user_id());
CREATE POLICY platform ON login_sessions TO tidegate_platform USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE (org_id, refresh_hash, previous_refresh_hash, refreshed_at, expires_at, revoked_at) ON login_sessions TO tidegate_user;
GRANT SELECT, UPDATE (revoked_at), DELETE ON login_sessions TO tidegate_platform;

-- agents: organizations see the approved ones to place on, and may lock but not change them
CREATE POLICY org ON agents TO tidegate_org USING (approval_status = 'approved' AND deleted_at IS NULL);
-- The list of agents is asked for once a statement: called in the condition itself, it would be parsed for every row.
CREATE POLICY hub ON agents TO tidegate_hub USING (id = ANY ((SELECT tidegate_agent_ids())::uuid[])) WITH CHECK (id = ANY ((SELECT tidegate_agent_ids())::uuid[]));
CREATE POLICY platform ON agents TO tidegate_platform USING (true) WITH CHECK (true);
GRANT SELECT (id, agent_id, platform, region, status, operator_drain, max_sessions, approval_status, deleted_at, shuffle), UPDATE (placed_at) ON agents TO tidegate_org;
GRANT SELECT, UPDATE (status, capacity, max_sessions, active_sessions, last_heartbeat, websocket_id, epoch, boot_id, api_key_last_used_at, claim_hash) ON agents TO tidegate_hub;
GRANT SELECT, INSERT, UPDATE ON agents TO tidegate_platform;

-- sessions: the hub changes their state and never their organization, owner or placement
CREATE POLICY org ON sessions TO tidegate_org USING (org_id = tidegate_org_id()) WITH CHECK (org_id = tidegate_org_id());
CREATE POLICY hub ON sessions TO tidegate_hub USING (agent_id = ANY ((SELECT tidegate_agent_ids())::uuid[])) WITH CHECK (agent_id = ANY ((SELECT tidegate_agent_ids())::uuid[]));
CREATE POLICY platform ON sessions TO tidegate_platform USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE ON sessions TO tidegate_org;
GRANT SELECT, UPDATE (state, state_reason, state_since, streaming_ready, streaming_port, platform_metadata, started_at, hibernated_at, ended_at) ON sessions TO tidegate_hub;
GRANT SELECT ON sessions TO tidegate_platform;

CREATE POLICY org ON session_specs TO tidegate_org USING (org_id = tidegate_org_id()) WITH CHECK (org_id = tidegate_org_id());
CREATE POLICY hub ON session_specs TO tidegate_hub USING (session_id IN (SELECT s.id FROM sessions s));
GRANT SELECT, INSERT, DELETE ON session_specs TO tidegate_org;
GRANT SELECT (org_id, session_id), DELETE ON session_specs TO tidegate_hub;

CREATE POLICY org ON session_events TO tidegate_org USING (org_id = tidegate_org_id()) WITH CHECK (org_id = tidegate_org_id());
CREATE POLICY hub ON session_events TO tidegate_hub USING (agent_id = ANY ((SELECT tidegate_agent_ids())::uuid[])) WITH CHECK (agent_id = ANY ((SELECT tidegate_agent_ids())::uuid[]));
CREATE POLICY platform ON session_events TO tidegate_platform USING (true);
GRANT SELECT, INSERT ON session_events TO tidegate_org;
GRANT SELECT, INSERT ON session_events TO tidegate_hub;
GRANT SELECT, DELETE ON session_events TO tidegate_platform;

-- commands
CREATE POLICY org ON commands TO tidegate_org USING (org_id = tidegate_org_id()) WITH CHECK (org_id = tidegate_org_id());
CREATE POLICY hub ON commands TO tidegate_hub USING (agent_id = ANY ((SELECT tidegate_agent_ids())::uuid[])) WITH CHECK (agent_id = ANY ((SELECT tidegate_agent_ids())::uuid[]));
CREATE POLICY platform ON commands TO tidegate_platform USING (true) WITH CHECK (true);
GRANT SELECT, INSERT ON commands TO tidegate_org;
GRANT SELECT, INSERT, UPDATE (status, error_message, result, sent_epoch, sealed, sent_at, acknowledged_at, completed_at) ON commands TO tidegate_hub;
GRANT SELECT, INSERT, DELETE ON commands TO tidegate_platform;

CREATE POLICY hub ON quarantined_sessions TO tidegate_hub USING (agent_id = ANY ((SELECT tidegate_agent_ids())::uuid[])) WITH CHECK (agent_id = ANY ((SELECT tidegate_agent_ids())::uuid[]));
CREATE POLICY platform ON quarantined_sessions TO tidegate_platform USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE (state, last_seen), DELETE ON quarantined_sessions TO tidegate_hub;
GRANT SELECT, DELETE ON quarantined_sessions TO tidegate_platform;

CREATE POLICY org ON stream_tickets TO tidegate_org USING (org_id = tidegate_org_id()) WITH CHECK (org_id = tidegate_org_id());
CREATE POLICY platform ON stream_tickets TO tidegate_platform USING (true);
GRANT SELECT, INSERT, UPDATE (consumed_at) ON stream_tickets TO tidegate_org;
GRANT SELECT, DELETE ON stream_tickets TO tidegate_platform;

CREATE POLICY org ON idempotency_keys TO tidegate_org USING (org_id = tidegate_org_id()) WITH CHECK (org_id = tidegate_org_id());
CREATE POLICY platform ON idempotency_keys TO tidegate_platform USING (true);
GRANT SELECT, INSERT ON idempotency_keys TO tidegate_org;
GRANT SELECT, DELETE ON idempotency_keys TO tidegate_platform;

CREATE POLICY org ON audit_log TO tidegate_org USING (org_id = tidegate_org_id()) WITH CHECK (org_id = tidegate_org_id());
CREATE POLICY "user" ON audit_log TO tidegate_user USING (false) WITH CHECK (actor = 'user:' || tidegate_user_id()::text);
CREATE POLICY platform ON audit_log TO tidegate_platform USING (true) WITH CHECK (true);
GRANT SELECT, INSERT ON audit_log TO tidegate_org;
GRANT INSERT ON audit_log TO tidegate_user;
GRANT SELECT, INSERT, DELETE ON audit_log TO tidegate_platform;

-- Lookups that run before a scope exists. They read and never write.
-- plpgsql keeps its plan for the connection's life; a plain SQL function is planned at every call.
CREATE FUNCTION auth_login_session(login uuid, wanted text)
RETURNS TABLE (user_id uuid, username text, role text, org_id uuid, org_role text, revoked_at timestamptz, expires_at timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT u.id, u.username, u.role, o.id, m.role, l.revoked_at, l.expires_at
    FROM login_sessions l
    JOIN users u ON u.id = l.user_id AND u.active
    LEFT JOIN LATERAL (
        SELECT o.id, o.owner_user_id, o.created_at FROM organizations o JOIN memberships m ON m.org_id = o.id AND m.user_id = u.id
        WHERE o.status = 'active' AND (CASE WHEN wanted IS NOT NULL THEN o.id::text = lower(wanted) OR o.name = wanted
                                           WHEN l.org_id IS NOT NULL THEN o.id = l.org_id ELSE true END)
        ORDER BY (o.owner_user_id = u.id) DESC NULLS LAST, CASE WHEN o.owner_user_id = u.id THEN o.created_at ELSE m.created_at END, o.id
        LIMIT 1) o ON true
    LEFT JOIN memberships m ON m.org_id = o.id AND m.user_id = u.id
    WHERE l.id = login;
END
$$;
CREATE FUNCTION auth_user_by_name(wanted text)
RETURNS TABLE (user_id uuid, username text, password_hash text, active boolean, provider text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT u.id, u.username, u.password_hash, u.active, u.provider FROM users u WHERE lower(u.username) = lower(wanted)
$$;
CREATE FUNCTION auth_refresh(hash bytea)
RETURNS TABLE (login_id uuid, user_id uuid, is_current boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT l.id, l.user_id, l.refresh_hash = hash FROM login_sessions l
    WHERE l.refresh_hash = hash OR l.previous_refresh_hash = hash
$$;
CREATE FUNCTION auth_agent(wanted text)
RETURNS TABLE (id uuid, agent_id text, approval_status text, api_key_hash bytea, api_key_last_used_at timestamptz, claim_hash bytea)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT a.id, a.agent_id, a.approval_status, a.api_key_hash, a.api_key_last_used_at, a.claim_hash
    FROM agents a WHERE a.agent_id = wanted AND a.deleted_at IS NULL
$$;
-- Whose key this is: for agents that dial a tunnel without saying who they are.
CREATE FUNCTION auth_agent_by_key(wanted bytea)
RETURNS TABLE (id uuid, agent_id text, approval_status text, api_key_hash bytea, api_key_last_used_at timestamptz, claim_hash bytea)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT a.id, a.agent_id, a.approval_status, a.api_key_hash, a.api_key_last_used_at, a.claim_hash
    FROM agents a WHERE a.api_key_hash = wanted AND a.deleted_at IS NULL
$$;
CREATE FUNCTION auth_ticket(wanted bytea)
RETURNS TABLE (id uuid, org_id uuid, session_id uuid, user_id uuid, login_id uuid)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT t.id, t.org_id, t.session_id, t.user_id, t.login_id FROM stream_tickets t WHERE t.hash = wanted
$$;
CREATE FUNCTION admin_exists() RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT EXISTS (SELECT 1 FROM users WHERE role = 'admin')
$$;
-- How many sessions of all organizations count on each of these agents.
CREATE FUNCTION agent_load(agents uuid[]) RETURNS TABLE (agent_id uuid, active bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 4 SET search_path = public, pg_temp SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT a, (SELECT count(*) FROM sessions s WHERE s.agent_id = a
               AND s.state IN ('pending', 'running', 'waking', 'hibernating', 'terminating'))
    FROM unnest(agents) a;
END
$$;
-- What the healer and the dispatcher look for across all tenants: ids only, to be opened in their own scope.
CREATE FUNCTION list_agents_with_overdue_commands(now timestamptz) RETURNS TABLE (agent_id uuid)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT DISTINCT c.agent_id FROM commands c WHERE c.status IN ('pending', 'sent', 'ack') AND c.deadline < now
$$;
CREATE FUNCTION list_agents_with_stuck_sessions(before timestamptz) RETURNS TABLE (agent_id uuid)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT DISTINCT s.agent_id FROM sessions s
    WHERE s.state IN ('pending', 'waking', 'hibernating', 'terminating') AND s.state_since < before AND s.agent_id IS NOT NULL
$$;
CREATE FUNCTION list_silent_agents(heard_before timestamptz) RETURNS TABLE (agent_id uuid)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT a.id FROM agents a WHERE a.status <> 'offline' AND COALESCE(a.last_heartbeat, a.created_at) < heard_before
$$;

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA public FROM PUBLIC;
GRANT EXECUTE ON FUNCTION tidegate_uuid_v7(timestamptz), tidegate_org_id(), tidegate_user_id(), tidegate_agent_ids()
    TO tidegate_org, tidegate_user, tidegate_hub, tidegate_platform, tidegate_lister;
GRANT EXECUTE ON FUNCTION tidegate_session_made(), tidegate_session_moved() TO tidegate_org, tidegate_hub;
GRANT EXECUTE ON FUNCTION auth_login_session(uuid, text), auth_user_by_name(text), auth_refresh(bytea), auth_agent(text), auth_agent_by_key(bytea), auth_ticket(bytea),
    admin_exists(), list_agents_with_overdue_commands(timestamptz), list_agents_with_stuck_sessions(timestamptz), list_silent_agents(timestamptz) TO tidegate_app;
GRANT EXECUTE ON FUNCTION agent_load(uuid[]) TO tidegate_org;

-- What the health checks compare with the program's own version; no tenant's data.
GRANT SELECT ON __diesel_schema_migrations TO tidegate_app;

GRANT CREATE ON SCHEMA public TO tidegate_lister;
ALTER FUNCTION auth_login_session(uuid, text) OWNER TO tidegate_lister;
ALTER FUNCTION auth_user_by_name(text) OWNER TO tidegate_lister;
ALTER FUNCTION auth_refresh(bytea) OWNER TO tidegate_lister;
ALTER FUNCTION auth_agent(text) OWNER TO tidegate_lister;
ALTER FUNCTION auth_agent_by_key(bytea) OWNER TO tidegate_lister;
ALTER FUNCTION auth_ticket(bytea) OWNER TO tidegate_lister;
ALTER FUNCTION admin_exists() OWNER TO tidegate_lister;
ALTER FUNCTION agent_load(uuid[]) OWNER TO tidegate_lister;
ALTER FUNCTION list_agents_with_overdue_commands(timestamptz) OWNER TO tidegate_lister;
ALTER FUNCTION list_agents_with_stuck_sessions(timestamptz) OWNER TO tidegate_lister;
ALTER FUNCTION list_silent_agents(timestamptz) OWNER TO tidegate_lister;
REVOKE CREATE ON SCHEMA public FROM tidegate_lister;
