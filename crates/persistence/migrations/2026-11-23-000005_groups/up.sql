-- Groups of members in a hierarchy, and quotas of members, groups and organizations. Usage is counted when it is asked
-- for and stands nowhere; every change of a group and every start of a session holds the organization's lock, which is
-- why no cycle is made and no bound overrun.

CREATE TABLE groups (
    id           uuid PRIMARY KEY,
    org_id       uuid NOT NULL REFERENCES organizations (id),
    name         text NOT NULL CHECK (name ~ '^[a-z0-9]([a-z0-9-]*[a-z0-9])?$'),
    display_name text NOT NULL,
    description  text NOT NULL DEFAULT '',
    type         text NOT NULL CHECK (type IN ('team', 'department', 'project')),
    parent_id    uuid CHECK (parent_id <> id),
    created_at   timestamptz NOT NULL,
    updated_at   timestamptz NOT NULL,
    UNIQUE (org_id, id),
    CONSTRAINT groups_name_key UNIQUE (org_id, name),
    -- A group with children stays.
    CONSTRAINT groups_parent_fkey FOREIGN KEY (org_id, parent_id) REFERENCES groups (org_id, id)
);
CREATE INDEX groups_parent ON groups (org_id, parent_id) WHERE parent_id IS NOT NULL;

-- Members of the organization alone, and only as long as they are.
CREATE TABLE group_memberships (
    org_id     uuid NOT NULL,
    group_id   uuid NOT NULL,
    user_id    uuid NOT NULL,
    role       text NOT NULL CHECK (role IN ('member', 'admin', 'owner')),
    created_at timestamptz NOT NULL,
    PRIMARY KEY (org_id, group_id, user_id),
    FOREIGN KEY (org_id, group_id) REFERENCES groups (org_id, id) ON DELETE CASCADE,
    FOREIGN KEY (org_id, user_id) REFERENCES memberships (org_id, user_id) ON DELETE CASCADE
);
CREATE INDEX group_memberships_user ON group_memberships (org_id, user_id);
CREATE INDEX group_memberships_joined ON group_memberships (org_id, group_id, created_at, user_id);

-- Null is the platform's default, which settings may change at any time; -1 is unlimited.
CREATE TABLE user_quotas (
    org_id       uuid NOT NULL,
    user_id      uuid NOT NULL,
    max_sessions bigint CHECK (max_sessions >= -1),
    max_cpu      bigint CHECK (max_cpu >= -1),
    max_memory   bigint CHECK (max_memory >= -1),
    max_storage  bigint CHECK (max_storage >= -1),
    created_at   timestamptz NOT NULL,
    updated_at   timestamptz NOT NULL,
    PRIMARY KEY (org_id, user_id),
    FOREIGN KEY (org_id, user_id) REFERENCES memberships (org_id, user_id) ON DELETE CASCADE
);

-- Null is unlimited. Millicores and bytes.
CREATE TABLE group_quotas (
    org_id       uuid NOT NULL,
    group_id     uuid NOT NULL,
    max_sessions bigint CHECK (max_sessions >= 0),
    max_cpu      bigint CHECK (max_cpu >= 0),
    max_memory   bigint CHECK (max_memory >= 0),
    max_storage  bigint CHECK (max_storage >= 0),
    created_at   timestamptz NOT NULL,
    updated_at   timestamptz NOT NULL,
    PRIMARY KEY (org_id, group_id),
    FOREIGN KEY (org_id, group_id) REFERENCES groups (org_id, id) ON DELETE CASCADE
);

-- The organization's own bounds, and the platform's ceilings over them; the tighter of both holds. Null is unlimited.
CREATE TABLE organization_quotas (
    org_id           uuid PRIMARY KEY REFERENCES organizations (id),
    max_sessions     bigint CHECK (max_sessions >= 0),
    max_cpu          bigint CHECK (max_cpu >= 0),
    max_memory       bigint CHECK (max_memory >= 0),
    max_storage      bigint CHECK (max_storage >= 0),
    ceiling_sessions bigint CHECK (ceiling_sessions >= 0),
    ceiling_cpu      bigint CHECK (ceiling_cpu >= 0),
    ceiling_memory   bigint CHECK (ceiling_memory >= 0),
    ceiling_storage  bigint CHECK (ceiling_storage >= 0),
    created_at       timestamptz NOT NULL,
    updated_at       timestamptz NOT NULL
);

-- Persistent homes: one a user and agent, there until it is deleted, whatever becomes of the sessions it was made for.
CREATE TABLE homes (
    org_id        uuid NOT NULL REFERENCES organizations (id),
    user_id       uuid NOT NULL REFERENCES users (id),
    agent_id      uuid NOT NULL REFERENCES agents (id),
    storage_bytes bigint NOT NULL CHECK (storage_bytes >= 0),
    created_at    timestamptz NOT NULL,
    PRIMARY KEY (org_id, user_id, agent_id)
);
-- The forced policies would hide the sessions from their own table's owner.
ALTER TABLE sessions NO FORCE ROW LEVEL SECURITY;
INSERT INTO homes (org_id, user_id, agent_id, storage_bytes, created_at)
SELECT org_id, user_id, agent_id, max(storage_bytes), min(created_at) FROM sessions
WHERE persistent_home AND agent_id IS NOT NULL GROUP BY org_id, user_id, agent_id;
ALTER TABLE sessions FORCE ROW LEVEL SECURITY;

-- What counts as used, by member and by organization.
CREATE INDEX sessions_org_active ON sessions (org_id, user_id)
    WHERE state IN ('pending', 'running', 'waking', 'hibernating', 'terminating');

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['groups', 'group_memberships', 'user_quotas', 'group_quotas', 'organization_quotas', 'homes'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('REVOKE ALL ON %I FROM PUBLIC', name);
        EXECUTE format('CREATE POLICY lister ON %I FOR SELECT TO tidegate_lister USING (true)', name);
        EXECUTE format('GRANT SELECT ON %I TO tidegate_lister', name);
        EXECUTE format('CREATE POLICY org ON %I TO tidegate_org USING (org_id = tidegate_org_id()) WITH CHECK (org_id = tidegate_org_id())', name);
    END LOOP;
END
$$;
GRANT SELECT, INSERT, UPDATE (display_name, description, type, parent_id, updated_at), DELETE ON groups TO tidegate_org;
GRANT SELECT, INSERT, UPDATE (role), DELETE ON group_memberships TO tidegate_org;
GRANT SELECT, INSERT, UPDATE (max_sessions, max_cpu, max_memory, max_storage, updated_at), DELETE ON user_quotas, group_quotas TO tidegate_org;
-- An organization sets its own bounds, and never its ceiling, which is the platform's to set.
GRANT SELECT, INSERT (org_id, max_sessions, max_cpu, max_memory, max_storage, created_at, updated_at),
    UPDATE (max_sessions, max_cpu, max_memory, max_storage, updated_at) ON organization_quotas TO tidegate_org;
CREATE POLICY platform ON organization_quotas TO tidegate_platform USING (true) WITH CHECK (true);
GRANT SELECT, INSERT (org_id, ceiling_sessions, ceiling_cpu, ceiling_memory, ceiling_storage, created_at, updated_at),
    UPDATE (ceiling_sessions, ceiling_cpu, ceiling_memory, ceiling_storage, updated_at) ON organization_quotas TO tidegate_platform;
CREATE POLICY platform ON user_quotas FOR SELECT TO tidegate_platform USING (true);
GRANT SELECT ON user_quotas TO tidegate_platform;
GRANT SELECT, INSERT, UPDATE (storage_bytes) ON homes TO tidegate_org;

-- What these members of the transaction's organization use at this moment, all of it for null. As the agents' load
-- they are counted past the policies, whose condition would be asked of every row; the organization is never a parameter.
CREATE FUNCTION quota_usage(people uuid[])
RETURNS TABLE (sessions bigint, cpu bigint, memory bigint, storage bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 1 SET search_path = public, pg_temp SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    org uuid := tidegate_org_id();
    most bigint := 9223372036854775807;
BEGIN
    IF people IS NULL THEN
        SELECT count(*), LEAST(COALESCE(sum(s.cpu_millis), 0), most)::bigint, LEAST(COALESCE(sum(s.memory_bytes), 0), most)::bigint
        INTO quota_usage.sessions, quota_usage.cpu, quota_usage.memory
        FROM sessions s WHERE s.org_id = org AND s.state IN ('pending', 'running', 'waking', 'hibernating', 'terminating');
        SELECT LEAST(COALESCE(sum(h.storage_bytes), 0), most)::bigint INTO quota_usage.storage
        FROM homes h JOIN agents a ON a.id = h.agent_id AND a.deleted_at IS NULL WHERE h.org_id = org;
    ELSE
        SELECT count(*), LEAST(COALESCE(sum(s.cpu_millis), 0), most)::bigint, LEAST(COALESCE(sum(s.memory_bytes), 0), most)::bigint
        INTO quota_usage.sessions, quota_usage.cpu, quota_usage.memory
        FROM sessions s WHERE s.org_id = org AND s.user_id = ANY (people)
          AND s.state IN ('pending', 'running', 'waking', 'hibernating', 'terminating');
        SELECT LEAST(COALESCE(sum(h.storage_bytes), 0), most)::bigint INTO quota_usage.storage
        FROM homes h JOIN agents a ON a.id = h.agent_id AND a.deleted_at IS NULL WHERE h.org_id = org AND h.user_id = ANY (people);
    END IF;
    RETURN NEXT;
END
$$;

-- The members of a group and of all groups below it, each once.
CREATE FUNCTION group_people(wanted uuid) RETURNS uuid[]
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    org uuid := tidegate_org_id();
BEGIN
    RETURN ARRAY(
        WITH RECURSIVE below (id) AS (
            SELECT wanted
            UNION SELECT g.id FROM groups g JOIN below b ON g.parent_id = b.id WHERE g.org_id = org)
        SELECT DISTINCT m.user_id FROM group_memberships m JOIN below b ON b.id = m.group_id WHERE m.org_id = org);
END
$$;

-- Every bound that a member of the transaction's organization is under, with what is used of it: their own (always one
-- row), those of their groups and of the groups above, the organization's. What is not bounded is not counted:
-- `default_bounds` says whether a member without a quota is.
CREATE FUNCTION quota_bounds(member uuid, default_bounds boolean)
RETURNS TABLE (owner text, owner_id uuid, name text, unlimited boolean, max_sessions bigint, max_cpu bigint, max_memory bigint,
               max_storage bigint, used_sessions bigint, used_cpu bigint, used_memory bigint, used_storage bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 2 SET search_path = public, pg_temp SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    org uuid := tidegate_org_id();
    above record;
BEGIN
    SELECT 'user', u.id, u.username, u.role = 'admin', q.max_sessions, q.max_cpu, q.max_memory, q.max_storage, 0, 0, 0, 0
    INTO owner, owner_id, name, unlimited, max_sessions, max_cpu, max_memory, max_storage, used_sessions, used_cpu, used_memory, used_storage
    FROM memberships m JOIN users u ON u.id = m.user_id LEFT JOIN user_quotas q ON q.org_id = m.org_id AND q.user_id = m.user_id
    WHERE m.org_id = org AND m.user_id = member;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF (default_bounds AND NOT unlimited) OR GREATEST(max_sessions, max_cpu, max_memory, max_storage) >= 0 THEN
        SELECT x.* INTO used_sessions, used_cpu, used_memory, used_storage FROM quota_usage(ARRAY[member]) x;
    END IF;
    RETURN NEXT;
    unlimited := false;
    IF EXISTS (SELECT 1 FROM group_memberships m WHERE m.org_id = org AND m.user_id = member) THEN
        FOR above IN
            WITH RECURSIVE up (id) AS (
                SELECT m.group_id FROM group_memberships m WHERE m.org_id = org AND m.user_id = member
                UNION SELECT g.parent_id FROM groups g JOIN up ON up.id = g.id WHERE g.org_id = org AND g.parent_id IS NOT NULL)
            SELECT g.id, g.name, q.max_sessions, q.max_cpu, q.max_memory, q.max_storage
            FROM up JOIN groups g ON g.org_id = org AND g.id = up.id JOIN group_quotas q ON q.org_id = org AND q.group_id = up.id
            WHERE COALESCE(q.max_sessions, q.max_cpu, q.max_memory, q.max_storage) IS NOT NULL ORDER BY g.id
        LOOP
            owner := 'group'; owner_id := above.id; name := above.name;
            max_sessions := above.max_sessions; max_cpu := above.max_cpu;
            max_memory := above.max_memory; max_storage := above.max_storage;
            SELECT x.* INTO used_sessions, used_cpu, used_memory, used_storage FROM quota_usage(group_people(above.id)) x;
            RETURN NEXT;
        END LOOP;
    END IF;
    SELECT 'organization', o.id, o.name, LEAST(q.max_sessions, q.ceiling_sessions), LEAST(q.max_cpu, q.ceiling_cpu),
           LEAST(q.max_memory, q.ceiling_memory), LEAST(q.max_storage, q.ceiling_storage)
    INTO owner, owner_id, name, max_sessions, max_cpu, max_memory, max_storage
    FROM organization_quotas q JOIN organizations o ON o.id = q.org_id WHERE q.org_id = org;
    IF FOUND AND COALESCE(max_sessions, max_cpu, max_memory, max_storage) IS NOT NULL THEN
        SELECT x.* INTO used_sessions, used_cpu, used_memory, used_storage FROM quota_usage(NULL) x;
        RETURN NEXT;
    END IF;
END
$$;

REVOKE EXECUTE ON FUNCTION quota_usage(uuid[]), group_people(uuid), quota_bounds(uuid, boolean) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION quota_usage(uuid[]), group_people(uuid), quota_bounds(uuid, boolean) TO tidegate_org;
GRANT CREATE ON SCHEMA public TO tidegate_lister;
ALTER FUNCTION quota_usage(uuid[]) OWNER TO tidegate_lister;
ALTER FUNCTION group_people(uuid) OWNER TO tidegate_lister;
ALTER FUNCTION quota_bounds(uuid, boolean) OWNER TO tidegate_lister;
REVOKE CREATE ON SCHEMA public FROM tidegate_lister;
