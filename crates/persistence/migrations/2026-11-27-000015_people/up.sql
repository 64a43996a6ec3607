-- What people do is repeated safely wherever they do it, and what they leave behind goes with them. Only adds: a control
-- plane of the version before goes on working beside this one.

-- An answer that is past its time gives way to the next one under the same key.
GRANT UPDATE (body_hash, status, body, created_at) ON idempotency_keys TO tidegate_org;

-- Answers to what belongs to no organization: what somebody does as themselves, or as an operator of the platform.
CREATE TABLE user_idempotency_keys (
    user_id    uuid NOT NULL REFERENCES users (id),
    credential uuid NOT NULL,
    route      text NOT NULL,
    key        text NOT NULL CHECK (length(key) <= 255),
    body_hash  bytea NOT NULL,
    status     integer NOT NULL,
    body       jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (user_id, credential, route, key)
);
CREATE INDEX user_idempotency_keys_created ON user_idempotency_keys (created_at);

ALTER TABLE user_idempotency_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE user_idempotency_keys FORCE ROW LEVEL SECURITY;
REVOKE ALL ON user_idempotency_keys FROM PUBLIC;
CREATE POLICY lister ON user_idempotency_keys FOR SELECT TO tidegate_lister USING (true);
GRANT SELECT ON user_idempotency_keys TO tidegate_lister;
CREATE POLICY "user" ON user_idempotency_keys TO tidegate_user
    USING (user_id = tidegate_user_id()) WITH CHECK (user_id = tidegate_user_id());
CREATE POLICY platform ON user_idempotency_keys TO tidegate_platform USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE (body_hash, status, body, created_at) ON user_idempotency_keys TO tidegate_user, tidegate_platform;
GRANT DELETE ON user_idempotency_keys TO tidegate_platform;

-- Agents that wait for an operator: counted before another one may.
CREATE INDEX agents_pending ON agents (created_at) WHERE approval_status = 'pending' AND deleted_at IS NULL;

-- Whoever is deleted is nobody's identity any more: the same person may come again, as somebody new.
GRANT DELETE ON identities TO tidegate_platform;
