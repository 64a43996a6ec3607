DROP FUNCTION auth_stream_grant(bytea);
DROP TABLE stream_grants;
ALTER TABLE session_specs DROP COLUMN options;
ALTER TABLE sessions DROP COLUMN protocol;
ALTER TABLE sessions DROP COLUMN image;
