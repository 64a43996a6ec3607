DROP FUNCTION list_free_recordings(timestamptz, integer);
DROP TABLE terminal_sources;
