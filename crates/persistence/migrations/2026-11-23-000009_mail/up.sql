-- Mails that wait to be sent: what each is about, never its text. Only adds.

CREATE TABLE mails (
    id          uuid PRIMARY KEY,
    org_id      uuid NOT NULL REFERENCES organizations (id),
    -- A mail about an invite that is gone is about nothing.
    invite_id   uuid NOT NULL,
    status      text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'sent', 'dropped', 'failed')),
    -- Whoever sends it raises this and puts `due_at` off, which is their lease: after a crash it is due again, and what the
    -- one before writes late is told by the number.
    attempts    integer NOT NULL DEFAULT 0,
    due_at      timestamptz NOT NULL,
    created_at  timestamptz NOT NULL,
    finished_at timestamptz,
    -- Why it was put off, dropped or given up; it names no address and no secret.
    reason      text CHECK (char_length(reason) <= 300),
    CHECK ((status = 'pending') = (finished_at IS NULL)),
    FOREIGN KEY (org_id, invite_id) REFERENCES invites (org_id, id) ON DELETE CASCADE
) WITH (fillfactor = 80);
CREATE INDEX mails_due ON mails (due_at) WHERE status = 'pending';
CREATE INDEX mails_finished ON mails (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX mails_invite ON mails (org_id, invite_id);

ALTER TABLE mails ENABLE ROW LEVEL SECURITY;
ALTER TABLE mails FORCE ROW LEVEL SECURITY;
REVOKE ALL ON mails FROM PUBLIC;
-- An organization asks for a mail and hears nothing of it again: whether it was sent would tell who has an address.
CREATE POLICY org ON mails FOR INSERT TO tidegate_org WITH CHECK (org_id = tidegate_org_id() AND status = 'pending' AND attempts = 0);
CREATE POLICY org_counts ON mails FOR SELECT TO tidegate_org USING (org_id = tidegate_org_id());
CREATE POLICY platform ON mails TO tidegate_platform USING (true);
GRANT SELECT (org_id), INSERT (id, org_id, invite_id, due_at, created_at) ON mails TO tidegate_org;
GRANT SELECT, UPDATE (status, attempts, due_at, finished_at, reason), DELETE ON mails TO tidegate_platform;
