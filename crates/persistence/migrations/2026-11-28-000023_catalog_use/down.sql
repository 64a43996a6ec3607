DROP INDEX catalog_templates_called;
DROP INDEX catalog_plugins_called;
DROP INDEX catalog_plugins_package;
DROP INDEX installed_plugins_catalog;
GRANT CREATE ON SCHEMA public TO tidegate_lister;
CREATE OR REPLACE FUNCTION catalog_plugin_in_use(plugin bigint) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$ SELECT false $$;
CREATE OR REPLACE FUNCTION catalog_version_in_use(plugin bigint, version text) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$ SELECT false $$;
REVOKE CREATE ON SCHEMA public FROM tidegate_lister;
