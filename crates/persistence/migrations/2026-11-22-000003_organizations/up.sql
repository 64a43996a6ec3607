-- Organizations that people make and share: invites, and what a user may do beyond the organization they are in.

CREATE TABLE invites (
    id               uuid PRIMARY KEY,
    org_id           uuid NOT NULL REFERENCES organizations (id),
    invitee_username text NOT NULL CHECK (invitee_username ~ '^[A-Za-z0-9_-]{3,32}$'),
    inviter_user_id  uuid NOT NULL REFERENCES users (id),
    inviter_username text NOT NULL,
    role             text NOT NULL CHECK (role IN ('org_admin', 'maintainer', 'user', 'viewer')),
    status           text NOT NULL CHECK (status IN ('pending', 'accepted', 'declined', 'revoked')),
    created_at       timestamptz NOT NULL,
    expires_at       timestamptz NOT NULL,
    decided_at       timestamptz,
    -- Who accepted it and is a member by it; forgotten when that membership ends.
    accepted_by      uuid REFERENCES users (id),
    UNIQUE (org_id, id)
);
-- One pending invite of an organization and username, in whatever case it is written.
CREATE UNIQUE INDEX invites_pending_key ON invites (org_id, lower(invitee_username)) WHERE status = 'pending';
CREATE INDEX invites_invitee ON invites (lower(invitee_username)) WHERE status = 'pending';
CREATE INDEX invites_org_created ON invites (org_id, created_at DESC, id DESC);
CREATE INDEX invites_accepted ON invites (org_id, accepted_by) WHERE accepted_by IS NOT NULL;
CREATE INDEX login_sessions_org ON login_sessions (org_id) WHERE org_id IS NOT NULL;
CREATE INDEX memberships_joined ON memberships (org_id, created_at, user_id);

ALTER TABLE invites ENABLE ROW LEVEL SECURITY;
ALTER TABLE invites FORCE ROW LEVEL SECURITY;
REVOKE ALL ON invites FROM PUBLIC;
CREATE POLICY lister ON invites FOR SELECT TO tidegate_lister USING (true);
GRANT SELECT ON invites TO tidegate_lister;
CREATE POLICY org ON invites TO tidegate_org USING (org_id = tidegate_org_id()) WITH CHECK (org_id = tidegate_org_id());
-- Whom it is for sees it, and may answer it while it is pending: nobody revives one that was revoked, declined or used.
CREATE POLICY "user" ON invites FOR SELECT TO tidegate_user
    USING (lower(invitee_username) = (SELECT lower(u.username) FROM users u WHERE u.id = tidegate_user_id()));
CREATE POLICY user_answers ON invites FOR UPDATE TO tidegate_user
    USING (status = 'pending' AND lower(invitee_username) = (SELECT lower(u.username) FROM users u WHERE u.id = tidegate_user_id()))
    WITH CHECK (status = 'declined' OR (status = 'accepted' AND accepted_by = tidegate_user_id()));
CREATE POLICY platform ON invites TO tidegate_platform USING (true);
GRANT SELECT, INSERT, UPDATE (status, decided_at, accepted_by) ON invites TO tidegate_org;
GRANT SELECT, UPDATE (status, decided_at, accepted_by) ON invites TO tidegate_user;
GRANT SELECT, DELETE ON invites TO tidegate_platform;

-- Whether the user of this transaction may join an organization in a role: as the owner who makes it, or by an invite
-- that they accepted.
CREATE FUNCTION tidegate_may_join(org uuid, wanted text) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT EXISTS (SELECT 1 FROM organizations o
                   WHERE o.id = org AND o.owner_user_id = tidegate_user_id() AND o.status = 'active' AND wanted = 'org_admin')
        OR EXISTS (SELECT 1 FROM invites i
                   WHERE i.org_id = org AND i.accepted_by = tidegate_user_id() AND i.status = 'accepted' AND i.role = wanted)
$$;
-- Somebody to be made a member: organizations see their own members only.
CREATE FUNCTION org_person(wanted_id uuid, wanted_name text) RETURNS TABLE (user_id uuid, username text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT u.id, u.username FROM users u WHERE u.active AND (u.id = wanted_id OR lower(u.username) = lower(wanted_name))
$$;
-- Whom an invite is for, so that anybody else can be told that it is not for them.
CREATE FUNCTION invite_is_for_me(wanted uuid) RETURNS TABLE (mine boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT EXISTS (SELECT 1 FROM users u WHERE u.id = tidegate_user_id() AND lower(u.username) = lower(i.invitee_username))
    FROM invites i WHERE i.id = wanted
$$;
-- An organization may end itself and no more: suspending and reviving is the platform's, and an end is final.
CREATE FUNCTION tidegate_org_status() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (current_user = 'tidegate_org' AND NEW.status <> 'deleted') OR (OLD.status = 'deleted' AND NEW.status <> 'deleted') THEN
        RAISE EXCEPTION 'this role may not set the status %', NEW.status USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER organization_status BEFORE UPDATE OF status ON organizations
    FOR EACH ROW EXECUTE FUNCTION tidegate_org_status();
GRANT UPDATE (status) ON organizations TO tidegate_org;

-- A user makes organizations of their own, and sees those that they are in or invited to.
DROP POLICY "user" ON organizations;
CREATE POLICY "user" ON organizations TO tidegate_user
    USING (id IN (SELECT m.org_id FROM memberships m) OR id IN (SELECT i.org_id FROM invites i WHERE i.status = 'pending'))
    WITH CHECK (owner_user_id = tidegate_user_id() AND status = 'active');
GRANT INSERT ON organizations TO tidegate_user;
DROP POLICY "user" ON memberships;
CREATE POLICY "user" ON memberships TO tidegate_user USING (user_id = tidegate_user_id())
    WITH CHECK (user_id = tidegate_user_id() AND tidegate_may_join(org_id, role));
GRANT INSERT ON memberships TO tidegate_user;

-- An organization that ends is nobody's choice any more. It may forget who chose it, and read nothing of it.
CREATE POLICY org ON login_sessions FOR UPDATE TO tidegate_org USING (org_id = tidegate_org_id()) WITH CHECK (org_id IS NULL);
GRANT UPDATE (org_id) ON login_sessions TO tidegate_org;

REVOKE EXECUTE ON FUNCTION tidegate_may_join(uuid, text), org_person(uuid, text), invite_is_for_me(uuid), tidegate_org_status() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION tidegate_may_join(uuid, text), invite_is_for_me(uuid) TO tidegate_user;
GRANT EXECUTE ON FUNCTION org_person(uuid, text) TO tidegate_org;
GRANT CREATE ON SCHEMA public TO tidegate_lister;
ALTER FUNCTION tidegate_may_join(uuid, text) OWNER TO tidegate_lister;
ALTER FUNCTION org_person(uuid, text) OWNER TO tidegate_lister;
ALTER FUNCTION invite_is_for_me(uuid) OWNER TO tidegate_lister;
REVOKE CREATE ON SCHEMA public FROM tidegate_lister;
