-- Applications: templates of the catalog that an organization made its own, the groups that may see, launch and change
-- them, and what sessions remember of what they were started from. Only adds.

CREATE TABLE installed_applications (
    id                    uuid PRIMARY KEY,
    org_id                uuid NOT NULL REFERENCES organizations (id),
    catalog_template_id   bigint NOT NULL REFERENCES catalog_templates (id),
    name                  text NOT NULL,
    display_name          text NOT NULL,
    folder_path           text NOT NULL,
    enabled               boolean NOT NULL DEFAULT true,
    platform              text NOT NULL CHECK (platform IN ('kubernetes', 'docker', 'vm', 'hyperv', 'vcenter')),
    -- The options' values as they hold, defaults included.
    configuration         jsonb NOT NULL DEFAULT '{}',
    created_by            uuid NOT NULL REFERENCES users (id),
    created_at            timestamptz NOT NULL,
    updated_at            timestamptz NOT NULL,
    -- What the template said when it was installed: the catalog may change, or lose it, and nothing here does.
    template_name         text NOT NULL,
    template_display_name text NOT NULL,
    description           text NOT NULL,
    category              text NOT NULL,
    app_type              text NOT NULL CHECK (app_type IN ('desktop', 'webapp', 'terminal')),
    manifest              jsonb NOT NULL,
    icon                  bytea,
    icon_media_type       text,
    install_status        text NOT NULL DEFAULT 'pending' CHECK (install_status IN ('pending', 'creating', 'installed', 'failed')),
    install_message       text,
    -- The try that is at it, from 1 on: the fence of whoever holds the lease.
    install_attempt       integer NOT NULL DEFAULT 0,
    -- When somebody may be at it: at once, or when the lease of whoever is at it has passed. None where nobody has to.
    install_due_at        timestamptz,
    -- Removed, and kept for the sessions that came from it.
    removed_at            timestamptz,
    UNIQUE (org_id, id),
    CHECK ((install_due_at IS NOT NULL) = (install_status IN ('pending', 'creating') AND removed_at IS NULL)),
    CHECK ((icon IS NULL) = (icon_media_type IS NULL))
);
-- A repeat of eight random digits is tried again with others.
CREATE UNIQUE INDEX installed_applications_name_key ON installed_applications (org_id, name) WHERE removed_at IS NULL;
CREATE INDEX installed_applications_due ON installed_applications (install_due_at) WHERE install_due_at IS NOT NULL;
CREATE INDEX installed_applications_removed ON installed_applications (removed_at) WHERE removed_at IS NOT NULL;
CREATE INDEX installed_applications_template ON installed_applications (catalog_template_id);

CREATE TABLE application_groups (
    id             uuid PRIMARY KEY,
    org_id         uuid NOT NULL,
    application_id uuid NOT NULL,
    group_id       uuid NOT NULL,
    access_level   text NOT NULL CHECK (access_level IN ('view', 'launch', 'admin')),
    created_at     timestamptz NOT NULL,
    UNIQUE (org_id, id),
    -- A repeat changes what is there.
    CONSTRAINT application_groups_key UNIQUE (application_id, group_id),
    FOREIGN KEY (org_id, application_id) REFERENCES installed_applications (org_id, id) ON DELETE CASCADE,
    FOREIGN KEY (org_id, group_id) REFERENCES groups (org_id, id) ON DELETE CASCADE
);
CREATE INDEX application_groups_group ON application_groups (org_id, group_id);

-- Beside `application_id`, which is a text that nothing was ever written to, and which the version before still reads.
ALTER TABLE sessions ADD COLUMN installed_application_id uuid;
ALTER TABLE sessions ADD CONSTRAINT sessions_application_fkey
    FOREIGN KEY (org_id, installed_application_id) REFERENCES installed_applications (org_id, id);
CREATE INDEX sessions_application ON sessions (installed_application_id) WHERE installed_application_id IS NOT NULL;

-- Of the template that a session was started from, what each start of it needs: a wake asks neither catalog nor application.
ALTER TABLE session_specs ADD COLUMN manifest jsonb;

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['installed_applications', 'application_groups'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('REVOKE ALL ON %I FROM PUBLIC', name);
        EXECUTE format('CREATE POLICY lister ON %I FOR SELECT TO tidegate_lister USING (true)', name);
        EXECUTE format('GRANT SELECT ON %I TO tidegate_lister', name);
        EXECUTE format('CREATE POLICY org ON %I TO tidegate_org USING (org_id = tidegate_org_id()) WITH CHECK (org_id = tidegate_org_id())', name);
    END LOOP;
END
$$;
GRANT SELECT, INSERT, UPDATE (display_name, enabled, configuration, updated_at, template_display_name, description, category, app_type, manifest,
    icon, icon_media_type, install_status, install_message, install_attempt, install_due_at, removed_at) ON installed_applications TO tidegate_org;
GRANT SELECT, INSERT, UPDATE (access_level), DELETE ON application_groups TO tidegate_org;
-- Retention lets go of what was removed.
CREATE POLICY platform ON installed_applications TO tidegate_platform USING (removed_at IS NOT NULL);
GRANT SELECT (id, removed_at), DELETE ON installed_applications TO tidegate_platform;

-- The applications that somebody's groups give them access to, the best of each: their own groups and those above them, as
-- shares of sessions count them. It sees what its caller sees.
CREATE FUNCTION applications_of(org uuid, person uuid)
RETURNS TABLE (application_id uuid, access_level text)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
        WITH RECURSIVE up (id) AS (
            SELECT m.group_id FROM group_memberships m WHERE m.org_id = org AND m.user_id = person
            UNION SELECT g.parent_id FROM groups g JOIN up ON up.id = g.id WHERE g.org_id = org AND g.parent_id IS NOT NULL)
        SELECT a.application_id,
               (ARRAY['view', 'launch', 'admin'])[max(array_position(ARRAY['view', 'launch', 'admin'], a.access_level))]
        FROM application_groups a JOIN up ON up.id = a.group_id WHERE a.org_id = org GROUP BY a.application_id;
END
$$;

-- What the platform looks for across all tenants: ids only, to be opened in their own scope.
CREATE FUNCTION list_due_installations(now timestamptz, at_most integer) RETURNS TABLE (org_id uuid, application_id uuid)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT i.org_id, i.id FROM installed_applications i WHERE i.install_due_at <= now ORDER BY i.install_due_at LIMIT at_most;
END
$$;

REVOKE EXECUTE ON FUNCTION applications_of(uuid, uuid), list_due_installations(timestamptz, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION applications_of(uuid, uuid) TO tidegate_org;
GRANT EXECUTE ON FUNCTION list_due_installations(timestamptz, integer) TO tidegate_app;
GRANT CREATE ON SCHEMA public TO tidegate_lister;
ALTER FUNCTION list_due_installations(timestamptz, integer) OWNER TO tidegate_lister;
-- A template that something was installed from stays, whatever its repository does.
CREATE OR REPLACE FUNCTION catalog_template_in_use(template bigint) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT EXISTS (SELECT 1 FROM installed_applications i WHERE i.catalog_template_id = template)
$$;
REVOKE CREATE ON SCHEMA public FROM tidegate_lister;
