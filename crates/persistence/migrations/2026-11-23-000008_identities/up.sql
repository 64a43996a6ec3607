-- Who signs in elsewhere: GitHub and OpenID Connect. Only adds.

-- Whom a provider's subject stands for. The only link there is: an e-mail address never is one.
CREATE TABLE identities (
    provider     text NOT NULL CHECK (provider IN ('github', 'oidc')),
    -- Who says so: two providers may give two people the same subject.
    issuer       text NOT NULL,
    subject      text NOT NULL CHECK (char_length(subject) BETWEEN 1 AND 255),
    user_id      uuid NOT NULL REFERENCES users (id),
    created_at   timestamptz NOT NULL,
    last_used_at timestamptz NOT NULL,
    PRIMARY KEY (provider, issuer, subject)
);
CREATE INDEX identities_user ON identities (user_id);

-- A browser on its way to a provider and back. Digests alone: whoever reads this table can finish nobody's sign-in.
CREATE TABLE identity_attempts (
    state_hash   bytea PRIMARY KEY,
    -- Of the browser that began it: no other one can end it.
    browser_hash bytea NOT NULL,
    nonce_hash   bytea NOT NULL,
    provider     text NOT NULL,
    -- Where to go afterwards: a path of ours.
    next         text NOT NULL CHECK (next ~ '^/' AND next !~ '^//' AND char_length(next) <= 512),
    created_at   timestamptz NOT NULL,
    expires_at   timestamptz NOT NULL
);
CREATE INDEX identity_attempts_expires ON identity_attempts (expires_at);

ALTER TABLE identities ENABLE ROW LEVEL SECURITY;
ALTER TABLE identities FORCE ROW LEVEL SECURITY;
ALTER TABLE identity_attempts ENABLE ROW LEVEL SECURITY;
ALTER TABLE identity_attempts FORCE ROW LEVEL SECURITY;
REVOKE ALL ON identities, identity_attempts FROM PUBLIC;
CREATE POLICY platform ON identities TO tidegate_platform USING (true) WITH CHECK (true);
CREATE POLICY platform ON identity_attempts TO tidegate_platform USING (true) WITH CHECK (true);
-- A link is never moved to another user, and an attempt is used by taking it away.
GRANT SELECT, INSERT, UPDATE (last_used_at) ON identities TO tidegate_platform;
GRANT SELECT, INSERT, DELETE ON identity_attempts TO tidegate_platform;
