-- What a DBA runs once per cluster, as a superuser, before Tidegate's first start. Running it again changes nothing.
-- tidegate_migrator owns the schema and changes it; tidegate_app serves and can read nothing by itself: each
-- transaction takes one of the four scope roles. tidegate_lister owns the few functions that run before a scope exists.
DO $$
DECLARE
    scope text;
BEGIN
    FOREACH scope IN ARRAY ARRAY['tidegate_org', 'tidegate_user', 'tidegate_hub', 'tidegate_platform', 'tidegate_lister'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = scope) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN NOINHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS', scope);
        END IF;
    END LOOP;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'tidegate_migrator') THEN
        CREATE ROLE tidegate_migrator LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'tidegate_app') THEN
        CREATE ROLE tidegate_app LOGIN NOINHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS;
    END IF;
END
$$;
GRANT tidegate_org, tidegate_user, tidegate_hub, tidegate_platform TO tidegate_app;
GRANT tidegate_lister TO tidegate_migrator;

-- The schema needs one extension, pg_trgm, which comes with PostgreSQL's contrib modules. It is trusted: a migration adds it
-- where tidegate_migrator owns the database. Only where it does not, a superuser runs this in that database first:
--   CREATE EXTENSION IF NOT EXISTS pg_trgm;
