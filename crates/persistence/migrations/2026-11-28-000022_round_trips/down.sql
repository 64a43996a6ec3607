DROP FUNCTION auth_granted_stream(bytea, timestamptz);
DROP FUNCTION auth_stream(uuid, uuid, uuid, timestamptz);
DROP FUNCTION auth_api_keys(bytea[], text[]);
