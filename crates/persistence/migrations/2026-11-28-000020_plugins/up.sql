-- Plugins that are installed, what they keep for themselves, and what they are told of. Only adds.

-- What plugins consist of, each as a tar of its folder. A copy of what the catalog had when it was installed: it stays
-- whatever becomes of the repository.
CREATE TABLE plugin_packages (
    digest     bytea PRIMARY KEY CHECK (octet_length(digest) = 32),
    content    bytea NOT NULL CHECK (octet_length(content) <= 16777216),
    created_at timestamptz NOT NULL
);
ALTER TABLE plugin_packages ALTER COLUMN content SET STORAGE EXTERNAL;

-- The row is the truth: a plugin runs wherever somebody asks this table and finds it enabled.
CREATE TABLE installed_plugins (
    id                bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- None where it was uploaded by hand. The catalog withdraws what is installed, and never deletes it.
    catalog_plugin_id bigint,
    -- None where it is the whole platform's.
    org_id            uuid REFERENCES organizations (id),
    name              text NOT NULL CHECK (char_length(name) <= 100),
    version           text NOT NULL,
    plugin_type       text NOT NULL CHECK (plugin_type IN ('extension', 'webhook', 'api', 'ui', 'theme')),
    enabled           boolean NOT NULL,
    config            jsonb NOT NULL,
    manifest          jsonb NOT NULL,
    package           bytea NOT NULL REFERENCES plugin_packages (digest),
    -- What an operator granted, as the manifest asked for it.
    permissions       text[] NOT NULL,
    -- Which events it hears, where they are sent to, and whether one waits for the one before: read out of `config`.
    events            text[] NOT NULL,
    ordered           boolean NOT NULL,
    -- Whether starts of sessions ask it first.
    vetoes            boolean NOT NULL,
    -- Signs what is sent to it; sealed.
    secret            bytea,
    -- It hears of what was committed after it was enabled.
    since_xact        bigint NOT NULL DEFAULT 0,
    -- Raised by every change: what a process remembers of a plugin is of one revision.
    revision          bigint NOT NULL DEFAULT 1,
    -- Faults since the last call that went well, and why it was disabled by them.
    faults            integer NOT NULL DEFAULT 0,
    disabled_reason   text CHECK (char_length(disabled_reason) <= 500),
    -- What it was before the last upgrade.
    previous          jsonb,
    previous_package  bytea REFERENCES plugin_packages (digest),
    installed_by      text NOT NULL,
    installed_at      timestamptz NOT NULL,
    updated_at        timestamptz NOT NULL,
    CHECK ((previous IS NULL) = (previous_package IS NULL)),
    CONSTRAINT installed_plugins_name_key UNIQUE NULLS NOT DISTINCT (org_id, name)
);
CREATE INDEX installed_plugins_name ON installed_plugins (name);
CREATE INDEX installed_plugins_package ON installed_plugins (package);
CREATE INDEX installed_plugins_previous ON installed_plugins (previous_package) WHERE previous_package IS NOT NULL;
CREATE INDEX installed_plugins_vetoes ON installed_plugins (org_id) WHERE enabled AND vetoes;

-- What plugins keep, each organization's apart.
CREATE TABLE plugin_store (
    plugin_id  bigint NOT NULL REFERENCES installed_plugins (id) ON DELETE CASCADE,
    org_id     uuid REFERENCES organizations (id),
    key        text NOT NULL CHECK (octet_length(key) BETWEEN 1 AND 256),
    value      jsonb NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT plugin_store_key UNIQUE NULLS NOT DISTINCT (plugin_id, org_id, key)
);

-- Events on their way to a plugin, and what became of them. The id is the same however often it is tried.
CREATE TABLE plugin_deliveries (
    id          uuid PRIMARY KEY,
    -- The order of events for one plugin.
    seq         bigint GENERATED ALWAYS AS IDENTITY,
    plugin_id   bigint NOT NULL REFERENCES installed_plugins (id) ON DELETE CASCADE,
    -- Whose event it is; none where it is the platform's.
    org_id      uuid,
    event       text NOT NULL,
    payload     jsonb NOT NULL,
    status      text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'delivered', 'failed')),
    -- Whoever tries raises this and puts `due_at` off, which is their lease.
    attempts    integer NOT NULL DEFAULT 0,
    due_at      timestamptz NOT NULL,
    -- Since when it is tried: a delivery that is asked for again begins anew.
    since       timestamptz NOT NULL,
    created_at  timestamptz NOT NULL,
    finished_at timestamptz,
    -- The last answer's.
    last_status integer,
    reason      text CHECK (char_length(reason) <= 500),
    CHECK ((status = 'pending') = (finished_at IS NULL))
) WITH (fillfactor = 80);
CREATE INDEX plugin_deliveries_open ON plugin_deliveries (plugin_id, seq) WHERE status = 'pending';
CREATE INDEX plugin_deliveries_due ON plugin_deliveries (plugin_id, due_at, seq) WHERE status = 'pending';
CREATE INDEX plugin_deliveries_since ON plugin_deliveries (since) WHERE status = 'pending';
CREATE INDEX plugin_deliveries_plugin ON plugin_deliveries (plugin_id, created_at DESC, id DESC);
CREATE INDEX plugin_deliveries_finished ON plugin_deliveries (finished_at) WHERE finished_at IS NOT NULL;

-- Up to where events were handed out, in the order in which they became final (`docs/decisions/0015`).
CREATE TABLE plugin_feed (
    one          boolean PRIMARY KEY DEFAULT true CHECK (one),
    session_xact bigint NOT NULL,
    session_seq  bigint NOT NULL,
    other_xact   bigint NOT NULL,
    other_seq    bigint NOT NULL,
    audit_xact   bigint NOT NULL,
    audit_id     uuid NOT NULL
);
INSERT INTO plugin_feed VALUES (true, 0, 0, 0, 0, 0, '00000000-0000-0000-0000-000000000000');

-- Changes of users, applications and plugins are told by their lines in the audit log, which the change's own transaction
-- wrote. No row is rewritten: the default is the same for all that are there. Only what is told has an entry in the index.
ALTER TABLE audit_log ADD COLUMN xact bigint NOT NULL DEFAULT (pg_current_xact_id()::text::bigint);
CREATE INDEX audit_log_told ON audit_log (xact, id)
    WHERE action LIKE 'user.%' OR action LIKE 'application.%' OR action LIKE 'plugin.%';

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['plugin_packages', 'installed_plugins', 'plugin_store', 'plugin_deliveries', 'plugin_feed'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('REVOKE ALL ON %I FROM PUBLIC', name);
        EXECUTE format('CREATE POLICY lister ON %I FOR SELECT TO tidegate_lister USING (true)', name);
        EXECUTE format('GRANT SELECT ON %I TO tidegate_lister', name);
        EXECUTE format('CREATE POLICY platform ON %I TO tidegate_platform USING (true) WITH CHECK (true)', name);
    END LOOP;
END
$$;

GRANT SELECT, INSERT, DELETE ON plugin_packages TO tidegate_platform;
GRANT SELECT, INSERT, UPDATE, DELETE ON installed_plugins TO tidegate_platform;
GRANT SELECT, INSERT, UPDATE, DELETE ON plugin_store TO tidegate_platform;
GRANT SELECT, INSERT, UPDATE, DELETE ON plugin_deliveries TO tidegate_platform;
GRANT SELECT, UPDATE ON plugin_feed TO tidegate_platform;

-- An organization uses what is its own and what is everybody's; operators alone decide what that is.
CREATE POLICY org ON installed_plugins FOR SELECT TO tidegate_org USING (org_id IS NULL OR org_id = tidegate_org_id());
GRANT SELECT (id, org_id, name, version, plugin_type, enabled, config, manifest, package, permissions, vetoes, revision)
    ON installed_plugins TO tidegate_org;
CREATE POLICY org ON plugin_packages FOR SELECT TO tidegate_org
    USING (digest IN (SELECT p.package FROM installed_plugins p));
GRANT SELECT (digest, content) ON plugin_packages TO tidegate_org;
CREATE POLICY org ON plugin_store TO tidegate_org USING (org_id = tidegate_org_id()) WITH CHECK (org_id = tidegate_org_id());
GRANT SELECT, INSERT, UPDATE (value, updated_at), DELETE ON plugin_store TO tidegate_org;
-- What was delivered is for operators to read; an organization only counts its own.
CREATE POLICY org_counts ON plugin_deliveries FOR SELECT TO tidegate_org USING (org_id = tidegate_org_id());
GRANT SELECT (org_id) ON plugin_deliveries TO tidegate_org;
