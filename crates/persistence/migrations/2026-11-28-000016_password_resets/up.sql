-- Passwords that somebody has forgotten: asked for without a word about whether there is such a user, mailed from here,
-- used once. Only adds.

CREATE TABLE password_resets (
    id          uuid PRIMARY KEY,
    -- What was typed as a name or an address, sealed: it may be anything, a password too. Gone as soon as nobody needs to
    -- look for its user any more.
    subject     bytea CHECK (octet_length(subject) <= 1024),
    status      text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'sent', 'dropped', 'failed')),
    -- As with `mails`: whoever sends it raises this and puts `due_at` off, which is their lease.
    attempts    integer NOT NULL DEFAULT 0,
    due_at      timestamptz NOT NULL,
    created_at  timestamptz NOT NULL,
    finished_at timestamptz,
    -- Why it was put off, dropped or given up; it names no address and no secret.
    reason      text CHECK (char_length(reason) <= 300),
    -- Whose password it sets, by what, until when, and for which state of the user: whatever changes of them ends it.
    user_id     uuid REFERENCES users (id),
    token_hash  bytea CONSTRAINT password_resets_token_hash_key UNIQUE,
    expires_at  timestamptz,
    user_state  timestamptz,
    used_at     timestamptz,
    CHECK ((status = 'pending') = (finished_at IS NULL)),
    CHECK (status = 'pending' OR subject IS NULL),
    CHECK ((user_id IS NULL) = (token_hash IS NULL)),
    CHECK ((token_hash IS NULL) = (expires_at IS NULL)),
    CHECK ((token_hash IS NULL) = (user_state IS NULL)),
    CHECK (used_at IS NULL OR token_hash IS NOT NULL),
    CHECK (expires_at <= created_at + interval '2 hours')
) WITH (fillfactor = 80);
CREATE INDEX password_resets_due ON password_resets (due_at) WHERE status = 'pending';
CREATE INDEX password_resets_created ON password_resets (created_at);
CREATE INDEX password_resets_user ON password_resets (user_id) WHERE user_id IS NOT NULL;

ALTER TABLE password_resets ENABLE ROW LEVEL SECURITY;
ALTER TABLE password_resets FORCE ROW LEVEL SECURITY;
REVOKE ALL ON password_resets FROM PUBLIC;
-- Of nobody until it is used: no organization and no user sees who asked for what.
CREATE POLICY platform ON password_resets TO tidegate_platform USING (true) WITH CHECK (true);
GRANT SELECT, DELETE, INSERT (id, subject, due_at, created_at),
    UPDATE (subject, status, attempts, due_at, finished_at, reason, user_id, token_hash, expires_at, user_state, used_at)
    ON password_resets TO tidegate_platform;
