-- What of the catalog is installed as a plugin: it stays when its repository no longer has it. Only adds.

CREATE INDEX installed_plugins_catalog ON installed_plugins (catalog_plugin_id) WHERE catalog_plugin_id IS NOT NULL;
CREATE INDEX catalog_templates_called ON catalog_templates (name) WHERE withdrawn_at IS NULL;
CREATE INDEX catalog_plugins_called ON catalog_plugins (name) WHERE withdrawn_at IS NULL;
CREATE INDEX catalog_plugins_package ON catalog_plugins (package);

-- Entries change with syncs and are looked for all the time: what a sync brought is put into its place at once, instead of
-- being read through by every search until a vacuum does it.
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['catalog_templates_tags', 'catalog_templates_search', 'catalog_templates_title',
            'catalog_plugins_tags', 'catalog_plugins_search', 'catalog_plugins_title'] LOOP
        EXECUTE format('ALTER INDEX %I SET (fastupdate = off)', name);
        PERFORM gin_clean_pending_list(name::regclass);
    END LOOP;
END
$$;

GRANT CREATE ON SCHEMA public TO tidegate_lister;
CREATE OR REPLACE FUNCTION catalog_plugin_in_use(plugin bigint) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT EXISTS (SELECT 1 FROM installed_plugins i WHERE i.catalog_plugin_id = plugin)
$$;
CREATE OR REPLACE FUNCTION catalog_version_in_use(plugin bigint, version text) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT EXISTS (SELECT 1 FROM installed_plugins i WHERE i.catalog_plugin_id = $1 AND i.version = $2)
$$;
REVOKE CREATE ON SCHEMA public FROM tidegate_lister;
