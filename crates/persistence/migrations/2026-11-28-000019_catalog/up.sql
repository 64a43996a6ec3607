-- Repositories and the catalog of templates and plugins that is read from them. It belongs to the platform, and to no
-- organization: everybody sees the same one. Only adds.

-- Trusted since PostgreSQL 13: whoever owns the database may add it.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_trgm') THEN
        RAISE EXCEPTION 'the extension pg_trgm is not there: install the contrib modules of this PostgreSQL (Debian: postgresql, Fedora: postgresql-contrib) and start again';
    END IF;
    CREATE EXTENSION IF NOT EXISTS pg_trgm;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE EXCEPTION 'the extension pg_trgm cannot be added by %: as a superuser, run CREATE EXTENSION pg_trgm in database %, and start again', current_user, current_database();
END
$$;

CREATE TABLE repositories (
    id                bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name              text NOT NULL CHECK (char_length(name) BETWEEN 1 AND 100),
    url               text NOT NULL CHECK (char_length(url) BETWEEN 1 AND 2048),
    branch            text,
    type              text NOT NULL CHECK (type IN ('git', 'http')),
    auth_type         text NOT NULL DEFAULT 'none' CHECK (auth_type IN ('none', 'token', 'basic', 'ssh')),
    -- What the remote wants to see, sealed; and what a webhook is signed with, sealed.
    secret            bytea,
    webhook_secret    bytea,
    description       text NOT NULL DEFAULT '' CHECK (char_length(description) <= 500),
    enabled           boolean NOT NULL DEFAULT true,
    sync_status       text NOT NULL DEFAULT 'never' CHECK (sync_status IN ('never', 'syncing', 'synced', 'failed')),
    -- In plain words, without secrets.
    sync_error        text CHECK (char_length(sync_error) <= 2000),
    -- Somebody wants a sync now; a sync that began later has answered it.
    sync_requested_at timestamptz,
    sync_started_at   timestamptz,
    -- The last one that went well.
    synced_at         timestamptz,
    next_sync_at      timestamptz,
    revision          text,
    -- Whoever syncs holds it until then, and renews it; after that anybody may take it.
    lease_holder      uuid,
    lease_until       timestamptz,
    templates         integer NOT NULL DEFAULT 0,
    plugins           integer NOT NULL DEFAULT 0,
    problems          integer NOT NULL DEFAULT 0,
    created_at        timestamptz NOT NULL,
    -- Of the repository itself: a sync is no change.
    updated_at        timestamptz NOT NULL,
    removed_at        timestamptz,
    CHECK ((lease_holder IS NULL) = (lease_until IS NULL))
);
CREATE UNIQUE INDEX repositories_name_key ON repositories (lower(name)) WHERE removed_at IS NULL;

-- Files of the last sync that are not in the catalog.
CREATE TABLE repository_problems (
    repository_id bigint NOT NULL REFERENCES repositories (id) ON DELETE CASCADE,
    seq           integer NOT NULL,
    path          text NOT NULL,
    line          integer,
    reason        text NOT NULL,
    PRIMARY KEY (repository_id, seq)
);

-- What is kept of repositories' files, by its SHA-256: icons, and plugins' folders as tar archives. What is installed is
-- read from here, by whichever replica.
CREATE TABLE catalog_blobs (
    digest     bytea PRIMARY KEY CHECK (octet_length(digest) = 32),
    media_type text NOT NULL,
    size       bigint NOT NULL,
    content    bytea NOT NULL,
    -- Last time somebody wanted it to be there: who is about to refer to it has a while to do so.
    put_at     timestamptz NOT NULL,
    CHECK (size = octet_length(content)),
    CHECK (CASE WHEN media_type LIKE 'image/%' THEN size <= 262144 ELSE size <= 16777216 END)
);
-- They are compressed already, or small.
ALTER TABLE catalog_blobs ALTER COLUMN content SET STORAGE EXTERNAL;
CREATE INDEX catalog_blobs_put ON catalog_blobs (put_at);

-- The words of an entry: its own weigh most, then keywords, then what it says of itself, as they stand and by their stems.
CREATE FUNCTION catalog_words(name text, display_name text, category text, tags text[], description text) RETURNS tsvector
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT setweight(to_tsvector('simple', name || ' ' || display_name), 'A')
        || setweight(to_tsvector('simple', category || ' ' || array_to_string(tags, ' ')), 'B')
        || setweight(to_tsvector('simple', description), 'C')
        || setweight(to_tsvector('english', display_name || ' ' || category || ' ' || array_to_string(tags, ' ') || ' ' || description), 'D')
$$;

CREATE TABLE catalog_templates (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    repository_id bigint NOT NULL REFERENCES repositories (id),
    name          text NOT NULL,
    display_name  text NOT NULL,
    description   text NOT NULL,
    category      text NOT NULL,
    app_type      text NOT NULL CHECK (app_type IN ('desktop', 'webapp', 'terminal')),
    platforms     text[] NOT NULL,
    tags          text[] NOT NULL,
    icon          bytea REFERENCES catalog_blobs (digest),
    manifest      jsonb NOT NULL,
    -- Of all that the repository says of it: whether it changed is seen without reading it.
    digest        bytea NOT NULL,
    withdrawn_at  timestamptz,
    created_at    timestamptz NOT NULL,
    updated_at    timestamptz NOT NULL,
    title         text NOT NULL GENERATED ALWAYS AS (lower(name || ' ' || display_name)) STORED,
    sort_name     text COLLATE "C" NOT NULL GENERATED ALWAYS AS (lower(display_name)) STORED,
    search        tsvector NOT NULL GENERATED ALWAYS AS (catalog_words(name, display_name, category, tags, description)) STORED,
    CONSTRAINT catalog_templates_name_key UNIQUE (repository_id, name)
);

CREATE TABLE catalog_plugins (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    repository_id bigint NOT NULL REFERENCES repositories (id),
    name          text NOT NULL,
    version       text NOT NULL,
    display_name  text NOT NULL,
    description   text NOT NULL,
    category      text NOT NULL,
    plugin_type   text NOT NULL CHECK (plugin_type IN ('extension', 'webhook', 'api', 'ui', 'theme')),
    tags          text[] NOT NULL,
    icon          bytea REFERENCES catalog_blobs (digest),
    package       bytea NOT NULL REFERENCES catalog_blobs (digest),
    manifest      jsonb NOT NULL,
    digest        bytea NOT NULL,
    withdrawn_at  timestamptz,
    created_at    timestamptz NOT NULL,
    updated_at    timestamptz NOT NULL,
    title         text NOT NULL GENERATED ALWAYS AS (lower(name || ' ' || display_name)) STORED,
    sort_name     text COLLATE "C" NOT NULL GENERATED ALWAYS AS (lower(display_name)) STORED,
    search        tsvector NOT NULL GENERATED ALWAYS AS (catalog_words(name, display_name, category, tags, description)) STORED,
    CONSTRAINT catalog_plugins_name_key UNIQUE (repository_id, name)
);

CREATE TABLE plugin_versions (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    plugin_id  bigint NOT NULL REFERENCES catalog_plugins (id) ON DELETE CASCADE,
    version    text NOT NULL,
    changelog  text NOT NULL DEFAULT '',
    manifest   jsonb NOT NULL,
    package    bytea NOT NULL REFERENCES catalog_blobs (digest),
    created_at timestamptz NOT NULL,
    CONSTRAINT plugin_versions_version_key UNIQUE (plugin_id, version)
);
CREATE INDEX plugin_versions_package ON plugin_versions (package);
CREATE INDEX plugin_versions_created ON plugin_versions (created_at);

-- Counts stand beside their entry: they change all the time, and an entry is in many indexes.
CREATE TABLE template_stats (
    template_id       bigint PRIMARY KEY REFERENCES catalog_templates (id) ON DELETE CASCADE,
    install_count     bigint NOT NULL DEFAULT 0,
    rating_sum        bigint NOT NULL DEFAULT 0,
    rating_count      bigint NOT NULL DEFAULT 0,
    -- In millionths, so that a cursor holds it exactly.
    rating_mean       bigint NOT NULL GENERATED ALWAYS AS (CASE WHEN rating_count = 0 THEN 0 ELSE rating_sum * 1000000 / rating_count END) STORED,
    last_installed_at timestamptz,
    updated_at        timestamptz NOT NULL,
    CHECK (rating_count >= 0 AND rating_sum BETWEEN rating_count AND rating_count * 5)
) WITH (fillfactor = 80);
CREATE INDEX template_stats_popular ON template_stats (install_count DESC, template_id DESC);
CREATE INDEX template_stats_rating ON template_stats (rating_mean DESC, rating_count DESC, template_id DESC);

CREATE TABLE plugin_stats (
    plugin_id         bigint PRIMARY KEY REFERENCES catalog_plugins (id) ON DELETE CASCADE,
    view_count        bigint NOT NULL DEFAULT 0,
    install_count     bigint NOT NULL DEFAULT 0,
    rating_sum        bigint NOT NULL DEFAULT 0,
    rating_count      bigint NOT NULL DEFAULT 0,
    rating_mean       bigint NOT NULL GENERATED ALWAYS AS (CASE WHEN rating_count = 0 THEN 0 ELSE rating_sum * 1000000 / rating_count END) STORED,
    last_viewed_at    timestamptz,
    last_installed_at timestamptz,
    updated_at        timestamptz NOT NULL,
    CHECK (rating_count >= 0 AND rating_sum BETWEEN rating_count AND rating_count * 5)
) WITH (fillfactor = 80);
CREATE INDEX plugin_stats_popular ON plugin_stats (install_count DESC, plugin_id DESC);
CREATE INDEX plugin_stats_rating ON plugin_stats (rating_mean DESC, rating_count DESC, plugin_id DESC);

CREATE TABLE template_ratings (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    template_id bigint NOT NULL REFERENCES catalog_templates (id) ON DELETE CASCADE,
    user_id     uuid NOT NULL REFERENCES users (id),
    rating      smallint NOT NULL CHECK (rating BETWEEN 1 AND 5),
    review      text NOT NULL DEFAULT '' CHECK (char_length(review) <= 2000),
    created_at  timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL,
    CONSTRAINT template_ratings_user_key UNIQUE (template_id, user_id)
);
CREATE INDEX template_ratings_latest ON template_ratings (template_id, updated_at DESC, id DESC);
CREATE INDEX template_ratings_user ON template_ratings (user_id);

CREATE TABLE plugin_ratings (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    plugin_id  bigint NOT NULL REFERENCES catalog_plugins (id) ON DELETE CASCADE,
    user_id    uuid NOT NULL REFERENCES users (id),
    rating     smallint NOT NULL CHECK (rating BETWEEN 1 AND 5),
    review     text NOT NULL DEFAULT '' CHECK (char_length(review) <= 2000),
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT plugin_ratings_user_key UNIQUE (plugin_id, user_id)
);
CREATE INDEX plugin_ratings_latest ON plugin_ratings (plugin_id, updated_at DESC, id DESC);
CREATE INDEX plugin_ratings_user ON plugin_ratings (user_id);

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['catalog_templates', 'catalog_plugins'] LOOP
        EXECUTE format('CREATE INDEX %I ON %I (created_at DESC, id DESC) WHERE withdrawn_at IS NULL', name || '_newest', name);
        EXECUTE format('CREATE INDEX %I ON %I (sort_name, id) WHERE withdrawn_at IS NULL', name || '_by_name', name);
        EXECUTE format('CREATE INDEX %I ON %I (lower(category)) WHERE withdrawn_at IS NULL', name || '_category', name);
        EXECUTE format('CREATE INDEX %I ON %I USING gin (tags) WHERE withdrawn_at IS NULL', name || '_tags', name);
        EXECUTE format('CREATE INDEX %I ON %I USING gin (search) WHERE withdrawn_at IS NULL', name || '_search', name);
        EXECUTE format('CREATE INDEX %I ON %I USING gin (title gin_trgm_ops) WHERE withdrawn_at IS NULL', name || '_title', name);
        EXECUTE format('CREATE INDEX %I ON %I (withdrawn_at) WHERE withdrawn_at IS NOT NULL', name || '_withdrawn', name);
        EXECUTE format('CREATE INDEX %I ON %I (icon) WHERE icon IS NOT NULL', name || '_icon', name);
    END LOOP;
    FOREACH name IN ARRAY ARRAY['repositories', 'repository_problems', 'catalog_blobs', 'catalog_templates', 'catalog_plugins',
            'plugin_versions', 'template_stats', 'plugin_stats', 'template_ratings', 'plugin_ratings'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('REVOKE ALL ON %I FROM PUBLIC', name);
        EXECUTE format('CREATE POLICY platform ON %I TO tidegate_platform USING (true) WITH CHECK (true)', name);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO tidegate_platform', name);
        EXECUTE format('CREATE POLICY lister ON %I FOR SELECT TO tidegate_lister USING (true)', name);
    END LOOP;
    -- What is said of entries is nobody's secret, and a condition here would keep their indexes from being used: which are
    -- listed is a matter of the repository's row, which people see or do not see, and without which there is no entry.
    FOREACH name IN ARRAY ARRAY['catalog_templates', 'catalog_plugins', 'plugin_versions', 'template_stats', 'plugin_stats'] LOOP
        EXECUTE format('CREATE POLICY org ON %I FOR SELECT TO tidegate_org USING (true)', name);
        EXECUTE format('CREATE POLICY "user" ON %I FOR SELECT TO tidegate_user USING (true)', name);
        EXECUTE format('GRANT SELECT ON %I TO tidegate_org, tidegate_user, tidegate_lister', name);
    END LOOP;
    -- One's own ratings are written, everybody's are read.
    FOREACH name IN ARRAY ARRAY['template_ratings', 'plugin_ratings'] LOOP
        EXECUTE format('CREATE POLICY "user" ON %I FOR SELECT TO tidegate_user USING (true)', name);
        EXECUTE format('CREATE POLICY user_writes ON %I FOR INSERT TO tidegate_user WITH CHECK (user_id = tidegate_user_id())', name);
        EXECUTE format('CREATE POLICY user_changes ON %I FOR UPDATE TO tidegate_user USING (user_id = tidegate_user_id()) WITH CHECK (user_id = tidegate_user_id())', name);
        EXECUTE format('CREATE POLICY user_deletes ON %I FOR DELETE TO tidegate_user USING (user_id = tidegate_user_id())', name);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE (rating, review, updated_at), DELETE ON %I TO tidegate_user', name);
        EXECUTE format('GRANT SELECT ON %I TO tidegate_lister', name);
    END LOOP;
    -- Counts change by the functions below, as the owner, and by no role that serves people.
    FOREACH name IN ARRAY ARRAY['template_stats', 'plugin_stats'] LOOP
        EXECUTE format('CREATE POLICY owner ON %I TO CURRENT_USER USING (true) WITH CHECK (true)', name);
    END LOOP;
END
$$;

-- People see repositories that are enabled, were synced once and are not removed, and no secret of any.
CREATE POLICY org ON repositories FOR SELECT TO tidegate_org
    USING (enabled AND synced_at IS NOT NULL AND removed_at IS NULL);
CREATE POLICY "user" ON repositories FOR SELECT TO tidegate_user
    USING (enabled AND synced_at IS NOT NULL AND removed_at IS NULL);
GRANT SELECT (id, name, url, type, description, enabled, synced_at, removed_at, created_at, updated_at) ON repositories
    TO tidegate_org, tidegate_user;
GRANT SELECT (id, name, url, branch, type, auth_type, description, enabled, sync_status, sync_requested_at, sync_started_at, synced_at,
    next_sync_at, lease_until, created_at, updated_at, removed_at) ON repositories TO tidegate_lister;
GRANT SELECT ON repository_problems TO tidegate_lister;

-- People see pictures; what plugins are made of is read by whoever runs them.
CREATE POLICY org ON catalog_blobs FOR SELECT TO tidegate_org USING (media_type LIKE 'image/%');
CREATE POLICY "user" ON catalog_blobs FOR SELECT TO tidegate_user USING (media_type LIKE 'image/%');
GRANT SELECT ON catalog_blobs TO tidegate_org, tidegate_user;
GRANT SELECT (digest, media_type, size, put_at) ON catalog_blobs TO tidegate_lister;

-- A mean is exact at every moment: whatever changes a rating changes its sum, in the same transaction.
CREATE FUNCTION tidegate_template_rated() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    UPDATE template_stats SET rating_sum = rating_sum + COALESCE(NEW.rating, 0) - COALESCE(OLD.rating, 0),
        rating_count = rating_count + (NEW.id IS NOT NULL)::integer - (OLD.id IS NOT NULL)::integer,
        updated_at = clock_timestamp()
    WHERE template_id = COALESCE(NEW.template_id, OLD.template_id);
    RETURN NULL;
END
$$;
CREATE TRIGGER template_rated AFTER INSERT OR DELETE OR UPDATE OF rating ON template_ratings
    FOR EACH ROW EXECUTE FUNCTION tidegate_template_rated();
CREATE FUNCTION tidegate_plugin_rated() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    UPDATE plugin_stats SET rating_sum = rating_sum + COALESCE(NEW.rating, 0) - COALESCE(OLD.rating, 0),
        rating_count = rating_count + (NEW.id IS NOT NULL)::integer - (OLD.id IS NOT NULL)::integer,
        updated_at = clock_timestamp()
    WHERE plugin_id = COALESCE(NEW.plugin_id, OLD.plugin_id);
    RETURN NULL;
END
$$;
CREATE TRIGGER plugin_rated AFTER INSERT OR DELETE OR UPDATE OF rating ON plugin_ratings
    FOR EACH ROW EXECUTE FUNCTION tidegate_plugin_rated();

-- Installing counts, from whichever scope it is done in; it counts and does nothing else.
CREATE FUNCTION catalog_template_installed(template bigint, moment timestamptz) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    UPDATE template_stats SET install_count = install_count + 1, last_installed_at = GREATEST(last_installed_at, moment), updated_at = moment
    WHERE template_id = template
$$;
CREATE FUNCTION catalog_plugin_installed(plugin bigint, moment timestamptz) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    UPDATE plugin_stats SET install_count = install_count + 1, last_installed_at = GREATEST(last_installed_at, moment), updated_at = moment
    WHERE plugin_id = plugin
$$;

-- Whose ratings somebody may know the writers of: their own, and those of people they share an organization with.
CREATE FUNCTION catalog_raters(wanted uuid[]) RETURNS TABLE (user_id uuid, username text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT u.id, u.username FROM users u WHERE u.id = ANY (wanted) AND u.deleted_at IS NULL
      AND (u.id = tidegate_user_id()
           OR EXISTS (SELECT 1 FROM memberships mine JOIN memberships theirs ON theirs.org_id = mine.org_id
                      WHERE mine.user_id = tidegate_user_id() AND theirs.user_id = u.id))
$$;

-- What of the catalog something refers to that is installed. Migrations that bring such things replace these.
CREATE FUNCTION catalog_template_in_use(template bigint) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$ SELECT false $$;
CREATE FUNCTION catalog_plugin_in_use(plugin bigint) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$ SELECT false $$;
CREATE FUNCTION catalog_version_in_use(plugin bigint, version text) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$ SELECT false $$;
CREATE FUNCTION catalog_blob_of_plugins(digest bytea) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$ SELECT false $$;
CREATE FUNCTION catalog_blob_of_applications(digest bytea) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$ SELECT false $$;

REVOKE EXECUTE ON FUNCTION tidegate_template_rated(), tidegate_plugin_rated(), catalog_template_installed(bigint, timestamptz),
    catalog_plugin_installed(bigint, timestamptz), catalog_raters(uuid[]), catalog_template_in_use(bigint), catalog_plugin_in_use(bigint),
    catalog_version_in_use(bigint, text), catalog_blob_of_plugins(bytea), catalog_blob_of_applications(bytea) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION catalog_template_installed(bigint, timestamptz), catalog_plugin_installed(bigint, timestamptz)
    TO tidegate_org, tidegate_platform;
GRANT EXECUTE ON FUNCTION catalog_raters(uuid[]) TO tidegate_user;
GRANT EXECUTE ON FUNCTION catalog_template_in_use(bigint), catalog_plugin_in_use(bigint), catalog_version_in_use(bigint, text),
    catalog_blob_of_plugins(bytea), catalog_blob_of_applications(bytea) TO tidegate_platform;
GRANT CREATE ON SCHEMA public TO tidegate_lister;
ALTER FUNCTION catalog_raters(uuid[]) OWNER TO tidegate_lister;
ALTER FUNCTION catalog_template_in_use(bigint) OWNER TO tidegate_lister;
ALTER FUNCTION catalog_plugin_in_use(bigint) OWNER TO tidegate_lister;
ALTER FUNCTION catalog_version_in_use(bigint, text) OWNER TO tidegate_lister;
ALTER FUNCTION catalog_blob_of_plugins(bytea) OWNER TO tidegate_lister;
ALTER FUNCTION catalog_blob_of_applications(bytea) OWNER TO tidegate_lister;
REVOKE CREATE ON SCHEMA public FROM tidegate_lister;
