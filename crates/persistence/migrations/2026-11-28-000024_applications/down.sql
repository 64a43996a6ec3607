GRANT CREATE ON SCHEMA public TO tidegate_lister;
CREATE OR REPLACE FUNCTION catalog_template_in_use(template bigint) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$ SELECT false $$;
REVOKE CREATE ON SCHEMA public FROM tidegate_lister;
DROP FUNCTION list_due_installations(timestamptz, integer);
DROP FUNCTION applications_of(uuid, uuid);
ALTER TABLE session_specs DROP COLUMN manifest;
ALTER TABLE sessions DROP COLUMN installed_application_id;
DROP TABLE application_groups;
DROP TABLE installed_applications;
