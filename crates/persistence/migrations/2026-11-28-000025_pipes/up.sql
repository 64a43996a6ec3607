-- Sources, their pipes, who may use them, and what NATS is to be told. PostgreSQL says what should exist; NATS carries it.
-- Only adds.

-- A handle of an organization. Deleted and made anew under the same handle it has another id, and so other streams.
CREATE TABLE sources (
    id                uuid PRIMARY KEY,
    org_id            uuid NOT NULL REFERENCES organizations (id),
    created_by        uuid NOT NULL REFERENCES users (id),
    handle            text NOT NULL CHECK (handle ~ '^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$'),
    kind              text NOT NULL CHECK (kind IN ('message', 'pty')),
    created_at        timestamptz NOT NULL,
    -- When something was last sent to it, through which pipe, and its beginning.
    last_message_at   timestamptz,
    last_message_pipe text,
    last_message      text CHECK (char_length(last_message) <= 500),
    UNIQUE (org_id, id),
    CHECK ((last_message_at IS NULL) = (last_message IS NULL)),
    CHECK ((last_message_at IS NULL) = (last_message_pipe IS NULL)),
    CONSTRAINT sources_handle_key UNIQUE (org_id, handle)
) WITH (fillfactor = 80);
CREATE INDEX sources_creator ON sources (org_id, created_by);

-- Pipes that somebody made; those of a source's kind are no rows. What is null is the default.
CREATE TABLE pipes (
    id          uuid PRIMARY KEY,
    org_id      uuid NOT NULL,
    source_id   uuid NOT NULL,
    created_by  uuid NOT NULL REFERENCES users (id),
    name        text NOT NULL CHECK (name ~ '^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$'),
    ttl_seconds bigint CHECK (ttl_seconds BETWEEN 1 AND 31536000),
    max_msgs    bigint CHECK (max_msgs BETWEEN 1 AND 10000000),
    max_bytes   bigint CHECK (max_bytes >= 1024),
    created_at  timestamptz NOT NULL,
    UNIQUE (org_id, id),
    CONSTRAINT pipes_name_key UNIQUE (org_id, source_id, name),
    FOREIGN KEY (org_id, source_id) REFERENCES sources (org_id, id) ON DELETE CASCADE
);

-- Pipes whose stream should be there, from their first message or reader on: a stream's bytes are reserved when it is made.
-- What it is to keep, and what the broker said that it keeps.
CREATE TABLE pipe_streams (
    org_id      uuid NOT NULL,
    source_id   uuid NOT NULL,
    pipe        text NOT NULL,
    ttl_seconds bigint NOT NULL,
    max_msgs    bigint NOT NULL,
    max_bytes   bigint NOT NULL,
    created_at  timestamptz NOT NULL,
    force_ttl_seconds bigint,
    force_max_msgs    bigint,
    force_max_bytes   bigint,
    -- When the broker made it: with another time it is another stream, and starts with its first message.
    incarnation timestamptz,
    seen_at     timestamptz,
    PRIMARY KEY (org_id, source_id, pipe),
    CHECK (num_nulls(force_ttl_seconds, force_max_msgs, force_max_bytes, incarnation, seen_at) IN (0, 5)),
    FOREIGN KEY (org_id, source_id) REFERENCES sources (org_id, id) ON DELETE CASCADE
);

-- Who may do what with a source beside its creator: a member, a group with those below it, or, with neither, every member.
CREATE TABLE source_grants (
    id         uuid PRIMARY KEY,
    org_id     uuid NOT NULL,
    source_id  uuid NOT NULL,
    user_id    uuid,
    group_id   uuid,
    allows     text NOT NULL CHECK (allows IN ('read', 'write', 'type')),
    granted_by uuid NOT NULL REFERENCES users (id),
    created_at timestamptz NOT NULL,
    UNIQUE (org_id, id),
    CHECK (user_id IS NULL OR group_id IS NULL),
    CONSTRAINT source_grants_key UNIQUE NULLS NOT DISTINCT (org_id, source_id, user_id, group_id, allows),
    FOREIGN KEY (org_id, source_id) REFERENCES sources (org_id, id) ON DELETE CASCADE,
    FOREIGN KEY (org_id, user_id) REFERENCES memberships (org_id, user_id) ON DELETE CASCADE,
    FOREIGN KEY (org_id, group_id) REFERENCES groups (org_id, id) ON DELETE CASCADE
);
CREATE INDEX source_grants_user ON source_grants (org_id, user_id) WHERE user_id IS NOT NULL;
CREATE INDEX source_grants_group ON source_grants (org_id, group_id) WHERE group_id IS NOT NULL;
CREATE INDEX source_grants_everyone ON source_grants (org_id) WHERE user_id IS NULL AND group_id IS NULL;

-- How far a member has read a pipe. While there is a row, the broker may have a consumer of theirs.
CREATE TABLE read_cursors (
    org_id      uuid NOT NULL,
    user_id     uuid NOT NULL,
    source_id   uuid NOT NULL,
    pipe        text NOT NULL,
    incarnation timestamptz,
    -- The last message that they have taken; 0 before the first.
    sequence    bigint NOT NULL CHECK (sequence >= 0),
    at          timestamptz NOT NULL,
    PRIMARY KEY (org_id, source_id, pipe, user_id),
    FOREIGN KEY (org_id, source_id) REFERENCES sources (org_id, id) ON DELETE CASCADE,
    FOREIGN KEY (org_id, user_id) REFERENCES memberships (org_id, user_id) ON DELETE CASCADE
) WITH (fillfactor = 80);
CREATE INDEX read_cursors_user ON read_cursors (org_id, user_id);

-- An organization's account on NATS. Made once; both seeds are sealed. Limits are what it may promise, not what it holds.
CREATE TABLE nats_accounts (
    org_id          uuid PRIMARY KEY REFERENCES organizations (id),
    public_key      text NOT NULL CONSTRAINT nats_accounts_public_key UNIQUE CHECK (public_key ~ '^A[A-Z2-7]{55}$'),
    signing_key     text NOT NULL CHECK (signing_key ~ '^A[A-Z2-7]{55}$'),
    account_jwt     text NOT NULL CHECK (octet_length(account_jwt) <= 1048576),
    identity_seed   bytea NOT NULL,
    signing_seed    bytea NOT NULL,
    -- The operator's key that signed the token: another one after a rotation.
    signed_by       text NOT NULL,
    max_disk_bytes  bigint NOT NULL DEFAULT 68719476736 CHECK (max_disk_bytes > 0),
    max_streams     bigint NOT NULL DEFAULT 20000 CHECK (max_streams > 0),
    max_consumers   bigint NOT NULL DEFAULT 100000 CHECK (max_consumers > 0),
    max_connections bigint NOT NULL DEFAULT 10000 CHECK (max_connections > 0),
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL,
    -- When NATS last took the token.
    pushed_at       timestamptz
);

-- The operator of our NATS and its system account: one row, made once, seeds sealed.
CREATE TABLE nats_operator (
    one           boolean PRIMARY KEY DEFAULT true CHECK (one),
    identity_key  text NOT NULL,
    signing_key   text NOT NULL,
    system_key    text NOT NULL,
    identity_seed bytea NOT NULL,
    signing_seed  bytea NOT NULL,
    system_seed   bytea NOT NULL,
    -- Public keys that signed accounts before, until all are signed anew.
    retired_keys  text[] NOT NULL DEFAULT '{}',
    created_at    timestamptz NOT NULL,
    updated_at    timestamptz NOT NULL
);

-- Credentials that got a token for NATS, and until when the last one is good. The key itself is derived, never stored.
CREATE TABLE nats_principals (
    org_id      uuid NOT NULL REFERENCES organizations (id),
    credential  text NOT NULL CHECK (credential ~ '^(login|key|token):'),
    user_id     uuid NOT NULL REFERENCES users (id),
    renewed_at  timestamptz NOT NULL,
    valid_until timestamptz NOT NULL,
    -- Tokens up to then are refused.
    revoked_at  timestamptz,
    -- How many grants of others its tokens carry, and whether what they allow was made less since.
    grants      integer NOT NULL DEFAULT 0 CHECK (grants >= 0),
    narrowed    boolean NOT NULL DEFAULT false,
    PRIMARY KEY (org_id, credential)
) WITH (fillfactor = 80);
CREATE INDEX nats_principals_valid ON nats_principals (valid_until);
CREATE INDEX nats_principals_revoked ON nats_principals (org_id, revoked_at) WHERE revoked_at IS NOT NULL;

-- What NATS is to be told: each row commits with what it serves. Operations on one thing are done in their order.
CREATE TABLE pipe_operations (
    id          uuid PRIMARY KEY,
    seq         bigint GENERATED ALWAYS AS IDENTITY,
    org_id      uuid NOT NULL REFERENCES organizations (id),
    kind        text NOT NULL CHECK (kind IN ('ensure_stream', 'delete_stream', 'delete_consumer', 'review_readers', 'push_account')),
    -- What it is done to: a stream's name, or a word for the account and its readers.
    topic       text NOT NULL CHECK (char_length(topic) <= 100),
    source_id   uuid,
    pipe        text,
    -- Whose consumer.
    user_id     uuid,
    status      text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'done', 'failed')),
    -- Whoever tries raises this and puts `next_at` off, which is their lease.
    attempts    integer NOT NULL DEFAULT 0,
    next_at     timestamptz NOT NULL,
    created_at  timestamptz NOT NULL,
    finished_at timestamptz,
    reason      text CHECK (char_length(reason) <= 500),
    CHECK ((status = 'pending') = (finished_at IS NULL)),
    CHECK ((kind IN ('ensure_stream', 'delete_stream', 'delete_consumer')) = (source_id IS NOT NULL AND pipe IS NOT NULL)),
    CHECK ((kind = 'delete_consumer') = (user_id IS NOT NULL))
) WITH (fillfactor = 80);
CREATE INDEX pipe_operations_open ON pipe_operations (org_id, seq) WHERE status = 'pending';
CREATE INDEX pipe_operations_topic ON pipe_operations (org_id, topic, seq) WHERE status = 'pending';
CREATE INDEX pipe_operations_finished ON pipe_operations (finished_at) WHERE finished_at IS NOT NULL;

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['sources', 'pipes', 'pipe_streams', 'source_grants', 'read_cursors', 'nats_accounts', 'nats_operator',
        'nats_principals', 'pipe_operations'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('REVOKE ALL ON %I FROM PUBLIC', name);
        EXECUTE format('CREATE POLICY lister ON %I FOR SELECT TO tidegate_lister USING (true)', name);
        EXECUTE format('GRANT SELECT ON %I TO tidegate_lister', name);
    END LOOP;
    FOREACH name IN ARRAY ARRAY['sources', 'pipes', 'pipe_streams', 'source_grants', 'read_cursors', 'nats_accounts', 'nats_principals',
        'pipe_operations'] LOOP
        EXECUTE format('CREATE POLICY org ON %I TO tidegate_org USING (org_id = tidegate_org_id()) WITH CHECK (org_id = tidegate_org_id())', name);
    END LOOP;
    FOREACH name IN ARRAY ARRAY['nats_accounts', 'nats_operator', 'nats_principals', 'pipe_operations'] LOOP
        EXECUTE format('CREATE POLICY platform ON %I TO tidegate_platform USING (true) WITH CHECK (true)', name);
    END LOOP;
END
$$;

GRANT SELECT, INSERT, UPDATE (last_message_at, last_message_pipe, last_message), DELETE ON sources TO tidegate_org;
GRANT SELECT, INSERT, UPDATE (ttl_seconds, max_msgs, max_bytes), DELETE ON pipes TO tidegate_org;
GRANT SELECT, INSERT, UPDATE (ttl_seconds, max_msgs, max_bytes, force_ttl_seconds, force_max_msgs, force_max_bytes, incarnation, seen_at), DELETE
    ON pipe_streams TO tidegate_org;
GRANT SELECT, INSERT, DELETE ON source_grants TO tidegate_org;
GRANT SELECT, INSERT, UPDATE (incarnation, sequence, at), DELETE ON read_cursors TO tidegate_org;
-- An organization gets its account and never sets its own limits; the platform signs it anew and pushes it.
GRANT SELECT, INSERT (org_id, public_key, signing_key, account_jwt, identity_seed, signing_seed, signed_by, created_at, updated_at)
    ON nats_accounts TO tidegate_org;
GRANT SELECT, UPDATE (account_jwt, signed_by, max_disk_bytes, max_streams, max_consumers, max_connections, updated_at, pushed_at)
    ON nats_accounts TO tidegate_platform;
GRANT SELECT, INSERT, UPDATE (signing_key, signing_seed, retired_keys, updated_at) ON nats_operator TO tidegate_platform;
GRANT SELECT, INSERT, UPDATE (renewed_at, valid_until, grants, narrowed) ON nats_principals TO tidegate_org;
GRANT SELECT, UPDATE (revoked_at), DELETE ON nats_principals TO tidegate_platform;
GRANT SELECT, INSERT ON pipe_operations TO tidegate_org;
GRANT SELECT, INSERT, UPDATE (status, attempts, next_at, finished_at, reason), DELETE ON pipe_operations TO tidegate_platform;

-- Triggers write operations and ask two things: whether anybody reads in an organization, and whether it has an account.
CREATE POLICY owner ON pipe_operations FOR INSERT TO CURRENT_USER WITH CHECK (true);
CREATE POLICY owner_reads ON read_cursors FOR SELECT TO CURRENT_USER USING (true);
CREATE POLICY owner_reads ON nats_accounts FOR SELECT TO CURRENT_USER USING (true);
-- And note whose tokens for NATS allow more than their owners may.
CREATE POLICY owner_reads ON nats_principals FOR SELECT TO CURRENT_USER USING (true);
CREATE POLICY owner_narrows ON nats_principals FOR UPDATE TO CURRENT_USER USING (true) WITH CHECK (true);

-- Whatever takes a stream's row away, its source or itself, takes the stream away.
CREATE FUNCTION tidegate_stream_gone() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    INSERT INTO pipe_operations (id, org_id, kind, topic, source_id, pipe, next_at, created_at)
    SELECT tidegate_uuid_v7(clock_timestamp()), g.org_id, 'delete_stream', replace(g.source_id::text, '-', '') || '_' || g.pipe,
           g.source_id, g.pipe, 'epoch', clock_timestamp()
    FROM gone g;
    RETURN NULL;
END
$$;
CREATE TRIGGER stream_gone AFTER DELETE ON pipe_streams REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION tidegate_stream_gone();

-- Whatever takes a cursor away, a membership too, takes the reader's consumer away.
CREATE FUNCTION tidegate_reader_gone() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    INSERT INTO pipe_operations (id, org_id, kind, topic, source_id, pipe, user_id, next_at, created_at)
    SELECT tidegate_uuid_v7(clock_timestamp()), g.org_id, 'delete_consumer', replace(g.source_id::text, '-', '') || '_' || g.pipe,
           g.source_id, g.pipe, g.user_id, 'epoch', clock_timestamp()
    FROM gone g;
    RETURN NULL;
END
$$;
CREATE TRIGGER reader_gone AFTER DELETE ON read_cursors REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION tidegate_reader_gone();

-- Whatever takes a right away, a grant, a place in a group or a group's place below another, has the readers looked through,
-- and tokens that carry grants made anew.
CREATE FUNCTION tidegate_right_gone() RETURNS trigger
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
CREATE TRIGGER right_gone AFTER DELETE ON source_grants REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION tidegate_right_gone();
CREATE TRIGGER right_gone AFTER DELETE ON group_memberships REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION tidegate_right_gone();
CREATE FUNCTION tidegate_group_hung() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    INSERT INTO pipe_operations (id, org_id, kind, topic, next_at, created_at)
    SELECT tidegate_uuid_v7(clock_timestamp()), NEW.org_id, 'review_readers', 'readers', 'epoch', clock_timestamp()
    WHERE EXISTS (SELECT 1 FROM read_cursors c WHERE c.org_id = NEW.org_id);
    UPDATE nats_principals p SET narrowed = true WHERE p.org_id = NEW.org_id AND p.grants > 0 AND NOT p.narrowed;
    RETURN NULL;
END
$$;
CREATE TRIGGER group_hung AFTER UPDATE ON groups FOR EACH ROW WHEN (OLD.parent_id IS DISTINCT FROM NEW.parent_id)
    EXECUTE FUNCTION tidegate_group_hung();

-- Another role may send less.
CREATE FUNCTION tidegate_role_moved() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    UPDATE nats_principals p SET narrowed = true WHERE p.org_id = NEW.org_id AND p.user_id = NEW.user_id AND NOT p.narrowed;
    RETURN NULL;
END
$$;
CREATE TRIGGER role_moved AFTER UPDATE ON memberships FOR EACH ROW WHEN (OLD.role IS DISTINCT FROM NEW.role)
    EXECUTE FUNCTION tidegate_role_moved();

-- An organization that is suspended, ended or let in again is so on NATS, too.
CREATE FUNCTION tidegate_org_moved() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    INSERT INTO pipe_operations (id, org_id, kind, topic, next_at, created_at)
    SELECT tidegate_uuid_v7(clock_timestamp()), NEW.id, 'push_account', 'account', 'epoch', clock_timestamp()
    WHERE EXISTS (SELECT 1 FROM nats_accounts a WHERE a.org_id = NEW.id);
    RETURN NULL;
END
$$;
CREATE TRIGGER organization_moved AFTER UPDATE ON organizations FOR EACH ROW WHEN (OLD.status IS DISTINCT FROM NEW.status)
    EXECUTE FUNCTION tidegate_org_moved();

-- What somebody may do at this moment with sources that others made: by grants to them, to everyone, to their groups and
-- to the groups above. It sees what its caller sees.
CREATE FUNCTION source_rights(org uuid, person uuid) RETURNS TABLE (source_id uuid, allows text)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
        SELECT g.source_id, g.allows FROM source_grants g WHERE g.org_id = org AND g.user_id = person
        UNION
        SELECT g.source_id, g.allows FROM source_grants g WHERE g.org_id = org AND g.user_id IS NULL AND g.group_id IS NULL
        UNION
        SELECT g.source_id, g.allows FROM source_grants g WHERE g.org_id = org AND g.group_id IN (
            WITH RECURSIVE up (id) AS (
                SELECT m.group_id FROM group_memberships m WHERE m.org_id = org AND m.user_id = person
                UNION SELECT p.parent_id FROM groups p JOIN up ON up.id = p.id WHERE p.org_id = org AND p.parent_id IS NOT NULL)
            SELECT up.id FROM up);
END
$$;

-- Credentials that hold a token for NATS and are not good any more: revoked, expired, of nobody active, or outside.
CREATE FUNCTION list_lapsed_principals(at timestamptz, at_most integer) RETURNS TABLE (org_id uuid, credential text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT p.org_id, p.credential FROM nats_principals p
        JOIN users u ON u.id = p.user_id JOIN organizations o ON o.id = p.org_id
        LEFT JOIN memberships m ON m.org_id = p.org_id AND m.user_id = p.user_id
        WHERE p.valid_until > at AND (p.revoked_at IS NULL OR p.revoked_at < p.renewed_at)
          AND (p.narrowed OR NOT u.active OR u.deleted_at IS NOT NULL OR o.status <> 'active' OR m.user_id IS NULL
               OR NOT CASE split_part(p.credential, ':', 1)
                    WHEN 'login' THEN EXISTS (SELECT 1 FROM login_sessions l WHERE l.id = split_part(p.credential, ':', 2)::uuid
                        AND l.revoked_at IS NULL AND l.expires_at > at)
                    WHEN 'key' THEN EXISTS (SELECT 1 FROM api_keys k WHERE k.id = split_part(p.credential, ':', 2)::uuid
                        AND (k.revoked_at IS NULL OR k.revoked_at > at) AND (k.expires_at IS NULL OR k.expires_at > at))
                    ELSE EXISTS (SELECT 1 FROM bearer_tokens t WHERE t.id = split_part(p.credential, ':', 2)::uuid
                        AND t.revoked_at IS NULL AND t.expires_at > at) END)
        ORDER BY p.valid_until LIMIT at_most;
END
$$;
-- Organizations with an account on NATS, in the order of their ids, from the one after `past` on.
CREATE FUNCTION list_nats_organizations(past uuid, at_most integer) RETURNS TABLE (org_id uuid)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT a.org_id FROM nats_accounts a WHERE a.org_id > past ORDER BY a.org_id LIMIT at_most;
END
$$;

REVOKE EXECUTE ON FUNCTION tidegate_stream_gone(), tidegate_reader_gone(), tidegate_right_gone(), tidegate_group_hung(), tidegate_role_moved(),
    tidegate_org_moved(),
    source_rights(uuid, uuid), list_lapsed_principals(timestamptz, integer), list_nats_organizations(uuid, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION source_rights(uuid, uuid) TO tidegate_org;
GRANT EXECUTE ON FUNCTION list_lapsed_principals(timestamptz, integer), list_nats_organizations(uuid, integer) TO tidegate_app;
GRANT CREATE ON SCHEMA public TO tidegate_lister;
ALTER FUNCTION list_lapsed_principals(timestamptz, integer) OWNER TO tidegate_lister;
ALTER FUNCTION list_nats_organizations(uuid, integer) OWNER TO tidegate_lister;
REVOKE CREATE ON SCHEMA public FROM tidegate_lister;
