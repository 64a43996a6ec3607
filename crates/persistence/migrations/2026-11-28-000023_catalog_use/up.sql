-- What of the catalog is installed as a plugin: it stays when its repository no longer has it. Only adds.

CREATE INDEX installed_plugins_catalog ON installed_plugins (catalog_plugin_id) WHERE catalog_plugin_id IS NOT NULL;
CREATE INDEX catalog_plugins_package ON catalog_plugins (package);

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
