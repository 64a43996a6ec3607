-- Changes of sessions, commands and agents as one stream in the order in which they became final. Only adds.
--
-- A place in the stream is (xact, seq): the transaction that wrote a line, and the line's number. A number is taken before
-- its transaction commits, so it alone would be passed by a reader while it is still to come; below the oldest transaction
-- that runs (`pg_snapshot_xmin`) nothing comes any more. `docs/decisions/0015` says more.

-- Lines that are there belong to this migration's transaction, in the order of their numbers. No row is rewritten: the
-- default is the same for all of them.
ALTER TABLE session_events ADD COLUMN xact bigint NOT NULL DEFAULT (pg_current_xact_id()::text::bigint);
CREATE INDEX session_events_order ON session_events (xact, seq);
CREATE INDEX session_events_org_order ON session_events (org_id, xact, seq);

-- What sessions' own history does not hold: commands that were queued or became final, and agents that changed. It is
-- written by the triggers below, as the owner, and by no role of the server. So it needs no foreign key: what it says of
-- an organization and its session was checked on the command. It outlives what it is about, as the audit log does.
CREATE TABLE events (
    xact            bigint NOT NULL DEFAULT (pg_current_xact_id()::text::bigint),
    -- One sequence for both tables: no two lines have the same place.
    seq             bigint NOT NULL DEFAULT nextval('session_events_seq_seq'),
    org_id          uuid,
    kind            text NOT NULL CHECK (kind IN ('command', 'agent')),
    agent_id        uuid NOT NULL,
    agent_handle    text NOT NULL,
    session_id      uuid,
    command_id      uuid,
    action          text,
    -- The command's, or the agent's.
    status          text NOT NULL,
    reason          text,
    approval_status text,
    drained         boolean,
    removed         boolean,
    at              timestamptz NOT NULL,
    PRIMARY KEY (xact, seq),
    CHECK (kind <> 'command' OR (command_id IS NOT NULL AND action IS NOT NULL)),
    CHECK (kind <> 'agent' OR (approval_status IS NOT NULL AND drained IS NOT NULL AND removed IS NOT NULL))
);
CREATE INDEX events_org_order ON events (org_id, xact, seq);
CREATE INDEX events_agents ON events (xact, seq) WHERE kind = 'agent';

-- The last place that is not kept any more: whoever asks for what came after an earlier one may have missed something.
CREATE TABLE event_horizon (
    one  boolean PRIMARY KEY DEFAULT true CHECK (one),
    xact bigint NOT NULL,
    seq  bigint NOT NULL
);
INSERT INTO event_horizon (xact, seq) VALUES (0, 0);

-- Tickets of browsers for the stream, each good for one WebSocket.
CREATE TABLE event_tickets (
    id          uuid PRIMARY KEY,
    hash        bytea NOT NULL CONSTRAINT event_tickets_hash_key UNIQUE,
    org_id      uuid NOT NULL,
    user_id     uuid NOT NULL,
    credential  text NOT NULL,
    expires_at  timestamptz NOT NULL,
    consumed_at timestamptz,
    -- Who leaves leaves no ticket behind.
    FOREIGN KEY (org_id, user_id) REFERENCES memberships (org_id, user_id) ON DELETE CASCADE
);
CREATE INDEX event_tickets_member ON event_tickets (org_id, user_id);
CREATE INDEX event_tickets_expires ON event_tickets (expires_at);

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['events', 'event_horizon', 'event_tickets'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('REVOKE ALL ON %I FROM PUBLIC', name);
        EXECUTE format('CREATE POLICY lister ON %I FOR SELECT TO tidegate_lister USING (true)', name);
        EXECUTE format('GRANT SELECT ON %I TO tidegate_lister', name);
    END LOOP;
END
$$;

-- An organization reads its own lines; agents' lines are the platform's, as long as the agent belongs to none.
CREATE POLICY org ON events FOR SELECT TO tidegate_org USING (org_id = tidegate_org_id());
GRANT SELECT ON events TO tidegate_org;
CREATE POLICY platform ON events TO tidegate_platform USING (true);
GRANT SELECT, DELETE ON events TO tidegate_platform;
CREATE POLICY owner ON events FOR INSERT TO CURRENT_USER WITH CHECK (true);

-- Two numbers, of nobody.
CREATE POLICY org ON event_horizon FOR SELECT TO tidegate_org USING (true);
GRANT SELECT ON event_horizon TO tidegate_org;
CREATE POLICY platform ON event_horizon FOR SELECT TO tidegate_platform USING (true);
GRANT SELECT ON event_horizon TO tidegate_platform;
CREATE POLICY owner ON event_horizon TO CURRENT_USER USING (true) WITH CHECK (true);

CREATE POLICY org ON event_tickets TO tidegate_org USING (org_id = tidegate_org_id())
    WITH CHECK (org_id = tidegate_org_id() AND user_id = tidegate_user_id());
GRANT SELECT, INSERT, UPDATE (consumed_at) ON event_tickets TO tidegate_org;
CREATE POLICY platform ON event_tickets TO tidegate_platform USING (true);
GRANT SELECT (id, expires_at), DELETE ON event_tickets TO tidegate_platform;

-- Commands that were queued: a statement may queue many.
CREATE FUNCTION tidegate_command_made() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    INSERT INTO events (org_id, kind, agent_id, agent_handle, session_id, command_id, action, status, at)
    SELECT m.org_id, 'command', m.agent_id, m.agent_handle, m.session_id, m.id, m.action, m.status, m.created_at FROM made m ORDER BY m.seq;
    RETURN NULL;
END
$$;
CREATE TRIGGER command_made AFTER INSERT ON commands REFERENCING NEW TABLE AS made
    FOR EACH STATEMENT EXECUTE FUNCTION tidegate_command_made();

-- Commands that became final. For each row, with its condition: a trigger of the statement would have to be handed every
-- claim and ack, which are two of a command's three updates and nobody's event.
CREATE FUNCTION tidegate_command_over() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    INSERT INTO events (org_id, kind, agent_id, agent_handle, session_id, command_id, action, status, reason, at)
    VALUES (NEW.org_id, 'command', NEW.agent_id, NEW.agent_handle, NEW.session_id, NEW.id, NEW.action, NEW.status,
            left(NEW.error_message, 1000), COALESCE(NEW.completed_at, clock_timestamp()));
    RETURN NULL;
END
$$;
CREATE TRIGGER command_over AFTER UPDATE OF status ON commands FOR EACH ROW
    WHEN (NEW.status IN ('completed', 'failed') AND OLD.status IS DISTINCT FROM NEW.status)
    EXECUTE FUNCTION tidegate_command_over();

-- Agents that were registered, decided on, drained or removed, and that came and went. Heartbeats change none of it.
CREATE FUNCTION tidegate_agent_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    -- Heartbeats are not waited for until they are on the disk. What was told must be.
    PERFORM set_config('synchronous_commit', 'on', true);
    -- By its name in the row, because agents have belonged to no organization before.
    INSERT INTO events (org_id, kind, agent_id, agent_handle, status, approval_status, drained, removed, at)
    VALUES ((to_jsonb(NEW) ->> 'org_id')::uuid, 'agent', NEW.id, NEW.agent_id, NEW.status, NEW.approval_status, NEW.operator_drain,
            NEW.deleted_at IS NOT NULL, clock_timestamp());
    RETURN NULL;
END
$$;
CREATE TRIGGER agent_made AFTER INSERT ON agents FOR EACH ROW EXECUTE FUNCTION tidegate_agent_changed();
CREATE TRIGGER agent_changed AFTER UPDATE ON agents FOR EACH ROW
    WHEN (OLD.status IS DISTINCT FROM NEW.status OR OLD.approval_status IS DISTINCT FROM NEW.approval_status
          OR OLD.operator_drain IS DISTINCT FROM NEW.operator_drain OR (OLD.deleted_at IS NULL) <> (NEW.deleted_at IS NULL))
    EXECUTE FUNCTION tidegate_agent_changed();

-- Whatever deletes lines moves the horizon.
CREATE FUNCTION tidegate_events_gone() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    UPDATE event_horizon h SET xact = l.xact, seq = l.seq
    FROM (SELECT g.xact, g.seq FROM gone g ORDER BY g.xact DESC, g.seq DESC LIMIT 1) l
    WHERE (h.xact, h.seq) < (l.xact, l.seq);
    RETURN NULL;
END
$$;
CREATE TRIGGER events_gone AFTER DELETE ON events REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION tidegate_events_gone();
CREATE TRIGGER session_events_gone AFTER DELETE ON session_events REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION tidegate_events_gone();

-- A dump that is restored into another cluster brings lines of transactions that are still to come there: they would
-- never be handed out, and new ones would sort before them. They become the stream's beginning, in the order of their
-- numbers; a bite at a time, and 0 when nothing is left. No other line can be touched: nobody sees one from the future.
CREATE FUNCTION events_rebase(at_most integer) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    of_sessions bigint;
    of_others bigint;
BEGIN
    UPDATE session_events SET xact = 0 WHERE id IN (
        SELECT e.id FROM session_events e WHERE e.xact >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint LIMIT at_most);
    GET DIAGNOSTICS of_sessions = ROW_COUNT;
    UPDATE events SET xact = 0 WHERE (xact, seq) IN (
        SELECT e.xact, e.seq FROM events e WHERE e.xact >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint LIMIT at_most);
    GET DIAGNOSTICS of_others = ROW_COUNT;
    UPDATE event_horizon SET xact = 0 WHERE xact >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint;
    RETURN of_sessions + of_others;
END
$$;
CREATE POLICY owner ON session_events FOR SELECT TO CURRENT_USER
    USING (xact = 0 OR xact >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint);
CREATE POLICY owner_rebases ON session_events FOR UPDATE TO CURRENT_USER
    USING (xact >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint) WITH CHECK (xact = 0);
CREATE POLICY owner_reads ON events FOR SELECT TO CURRENT_USER
    USING (xact = 0 OR xact >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint);
CREATE POLICY owner_rebases ON events FOR UPDATE TO CURRENT_USER
    USING (xact >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint) WITH CHECK (xact = 0);

-- Whose ticket this is, before a scope exists.
CREATE FUNCTION auth_event_ticket(wanted bytea)
RETURNS TABLE (id uuid, org_id uuid, credential text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT t.id, t.org_id, t.credential FROM event_tickets t WHERE t.hash = wanted
$$;

-- The last line of the transactions before this one, of whatever organization: two numbers, of nobody.
CREATE FUNCTION events_last(below bigint) RETURNS TABLE (xact bigint, seq bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 1 SET search_path = public, pg_temp AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT l.xact, l.seq FROM (
        (SELECT e.xact, e.seq FROM session_events e WHERE e.xact < below ORDER BY e.xact DESC, e.seq DESC LIMIT 1)
        UNION ALL (SELECT e.xact, e.seq FROM events e WHERE e.xact < below ORDER BY e.xact DESC, e.seq DESC LIMIT 1)
        UNION ALL (SELECT h.xact, h.seq FROM event_horizon h)) l ORDER BY l.xact DESC, l.seq DESC LIMIT 1;
END
$$;

REVOKE EXECUTE ON FUNCTION tidegate_command_made(), tidegate_command_over(), tidegate_agent_changed(), tidegate_events_gone(),
    events_rebase(integer), events_last(bigint), auth_event_ticket(bytea) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION events_rebase(integer) TO tidegate_platform;
GRANT EXECUTE ON FUNCTION events_last(bigint) TO tidegate_org, tidegate_platform;
GRANT EXECUTE ON FUNCTION auth_event_ticket(bytea) TO tidegate_app;
GRANT CREATE ON SCHEMA public TO tidegate_lister;
ALTER FUNCTION events_last(bigint) OWNER TO tidegate_lister;
ALTER FUNCTION auth_event_ticket(bytea) OWNER TO tidegate_lister;
REVOKE CREATE ON SCHEMA public FROM tidegate_lister;
