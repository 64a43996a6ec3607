-- The audit log says who, with what, from where and in which request; it can be searched, and what it says of an
-- organization is written by its own people or the platform alone. Finished sessions have an end, too.
-- Only adds, but for one right: the version before cannot delete from the log any more, and tries again later.

ALTER TABLE audit_log
    ADD COLUMN actor_user_id uuid,
    ADD COLUMN actor_name text,
    -- What the log is searched by: the name in lower case, or the actor where it has none. No function is asked for it,
    -- because none that is leakproof could be.
    ADD COLUMN actor_key text,
    ADD COLUMN request_id text,
    ADD COLUMN before jsonb,
    ADD COLUMN after jsonb;

-- What the version before wrote. A forced policy would hide every row from this statement.
ALTER TABLE audit_log NO FORCE ROW LEVEL SECURITY;
ALTER TABLE users NO FORCE ROW LEVEL SECURITY;
UPDATE audit_log a SET actor_key = COALESCE(lower(u.username), a.actor), actor_name = u.username, actor_user_id = u.id,
    before = a.detail -> 'before', after = a.detail -> 'after', detail = a.detail - 'before' - 'after'
    FROM audit_log b LEFT JOIN users u ON b.actor = 'user:' || u.id::text WHERE b.id = a.id;
ALTER TABLE users FORCE ROW LEVEL SECURITY;
ALTER TABLE audit_log FORCE ROW LEVEL SECURITY;

-- Every filter has its index, inside an organization and across them.
CREATE INDEX audit_log_org_time ON audit_log (org_id, at DESC, id DESC);
CREATE INDEX audit_log_org_actor ON audit_log (org_id, actor_key, at DESC, id DESC);
CREATE INDEX audit_log_org_action ON audit_log (org_id, action, at DESC, id DESC);
CREATE INDEX audit_log_org_resource ON audit_log (org_id, resource, at DESC, id DESC);
CREATE INDEX audit_log_time ON audit_log (at DESC, id DESC);
CREATE INDEX audit_log_actor ON audit_log (actor_key, at DESC, id DESC);
CREATE INDEX audit_log_action ON audit_log (action, at DESC, id DESC);
CREATE INDEX audit_log_resource ON audit_log (resource, at DESC, id DESC);
DROP INDEX audit_log_org;
DROP INDEX audit_log_at;

-- Nobody writes in another one's name, and a user only where they belong: into the log of an organization that they are
-- a member of, or that they answer an invite of.
DROP POLICY org ON audit_log;
CREATE POLICY org ON audit_log FOR SELECT TO tidegate_org USING (org_id = tidegate_org_id());
CREATE POLICY org_writes ON audit_log FOR INSERT TO tidegate_org
    WITH CHECK (org_id = tidegate_org_id() AND actor = 'user:' || tidegate_user_id()::text
                AND (actor_user_id IS NULL OR actor_user_id = tidegate_user_id()));
DROP POLICY "user" ON audit_log;
CREATE POLICY "user" ON audit_log FOR INSERT TO tidegate_user
    WITH CHECK (actor = 'user:' || tidegate_user_id()::text AND (actor_user_id IS NULL OR actor_user_id = tidegate_user_id())
                AND (org_id IS NULL OR org_id IN (SELECT m.org_id FROM memberships m)
                     OR (action IN ('invite.accept', 'invite.decline') AND org_id IN (SELECT i.org_id FROM invites i))));

-- No role of the server deletes from the log. What retention lets go goes through this one function, by age alone, the
-- oldest first, and never what is younger than a week, whatever it is told: neither by its own condition nor by the
-- policy of the schema's owner, as whom it runs.
DROP POLICY platform ON audit_log;
CREATE POLICY platform ON audit_log FOR SELECT TO tidegate_platform USING (true);
CREATE POLICY platform_writes ON audit_log FOR INSERT TO tidegate_platform WITH CHECK (true);
REVOKE DELETE ON audit_log FROM tidegate_platform;
CREATE POLICY owner ON audit_log FOR SELECT TO CURRENT_USER USING (at < clock_timestamp() - interval '7 days');
CREATE POLICY owner_forgets ON audit_log FOR DELETE TO CURRENT_USER USING (at < clock_timestamp() - interval '7 days');
CREATE FUNCTION audit_forget(older_than timestamptz, at_most integer) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    gone bigint;
BEGIN
    DELETE FROM audit_log WHERE id IN (
        SELECT a.id FROM audit_log a WHERE a.at < LEAST(older_than, clock_timestamp() - interval '7 days')
        ORDER BY a.at, a.id LIMIT LEAST(at_most, 10000));
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN gone;
END
$$;
REVOKE EXECUTE ON FUNCTION audit_forget(timestamptz, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION audit_forget(timestamptz, integer) TO tidegate_platform;

-- Sessions that ended go with their history, after their commands and tickets. The platform deletes no session that lives.
CREATE INDEX sessions_finished ON sessions (ended_at) WHERE state IN ('terminated', 'failed');
DROP POLICY platform ON sessions;
CREATE POLICY platform ON sessions FOR SELECT TO tidegate_platform USING (true);
-- Who ends a user begins the end of what they run, and changes nothing else of it.
CREATE POLICY platform_ends ON sessions FOR UPDATE TO tidegate_platform
    USING (state NOT IN ('terminated', 'failed')) WITH CHECK (state = 'terminating');
CREATE POLICY platform_forgets ON sessions FOR DELETE TO tidegate_platform USING (state IN ('terminated', 'failed'));
GRANT DELETE ON sessions TO tidegate_platform;
CREATE POLICY platform ON session_specs TO tidegate_platform
    USING (session_id IN (SELECT s.id FROM sessions s WHERE s.state IN ('terminated', 'failed')));
GRANT SELECT (org_id, session_id), DELETE ON session_specs TO tidegate_platform;
CREATE INDEX stream_tickets_session ON stream_tickets (session_id);

-- Logins that were revoked or have expired.
CREATE INDEX login_sessions_ended ON login_sessions ((LEAST(expires_at, revoked_at)));
-- Invites that were decided or have expired.
CREATE INDEX invites_over ON invites ((LEAST(decided_at, expires_at)));
