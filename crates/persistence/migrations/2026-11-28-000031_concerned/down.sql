REVOKE DELETE ON nats_accounts FROM tidegate_platform;
DROP FUNCTION list_free_recordings(uuid[], timestamptz, timestamptz, integer);
DROP INDEX pipe_operations_failed;
CREATE OR REPLACE FUNCTION tidegate_right_gone() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    INSERT INTO pipe_operations (id, org_id, kind, topic, next_at, created_at)
    SELECT tidegate_uuid_v7(clock_timestamp()), g.org_id, 'review_readers', 'readers', 'epoch', clock_timestamp()
    FROM (SELECT DISTINCT org_id FROM gone) g WHERE EXISTS (SELECT 1 FROM read_cursors c WHERE c.org_id = g.org_id);
    UPDATE nats_principals p SET narrowed = true
    WHERE p.org_id IN (SELECT org_id FROM gone) AND p.grants > 0 AND NOT p.narrowed;
    RETURN NULL;
END
$$;
DROP TRIGGER place_gone ON group_memberships;
CREATE TRIGGER right_gone AFTER DELETE ON group_memberships REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION tidegate_right_gone();
DROP FUNCTION tidegate_place_gone();
CREATE OR REPLACE FUNCTION tidegate_group_hung() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    INSERT INTO pipe_operations (id, org_id, kind, topic, next_at, created_at)
    SELECT tidegate_uuid_v7(clock_timestamp()), NEW.org_id, 'review_readers', 'readers', 'epoch', clock_timestamp()
    WHERE EXISTS (SELECT 1 FROM read_cursors c WHERE c.org_id = NEW.org_id);
    UPDATE nats_principals p SET narrowed = true WHERE p.org_id = NEW.org_id AND p.grants > 0 AND NOT p.narrowed;
    RETURN NULL;
END
$$;
DROP FUNCTION people_below(uuid, uuid);
