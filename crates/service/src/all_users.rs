//! What operators see of all users and do to them: as far as their own role, and never so that no admin is left.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tidegate_model::{
    AgentId, BearerToken, BearerTokenId, CreateUserRequest, FieldErrors, ImportedUser, Operation, OrgId,
    OrgRole, PatchField, PlatformUser, Provider, Secret, Standing, SystemRole, UpdateUserRequest, UserId,
    validate_password,
};
use tidegate_persistence::{
    Actor, Operator, PlatformTx, audit, bearer_token, membership, organization,
    user::{self, NewUser},
    user_change::{self, Change},
};

use crate::{
    Caller, Core, Error, Idempotency, Listed, Made, Nudge, Paging, Replay, Result,
    error::Named,
    options::Options,
    organizations::conflict,
    page::moment,
    passwords::check_imported,
    permissions::require_platform,
    users::{entry, new_user, page},
};

/// Every user of the platform.
#[derive(Debug, Clone)]
pub struct AllUsers(pub(crate) Arc<Core>);

impl AllUsers {
    /// The caller as operator, who may see and change users.
    pub fn operator(&self, caller: &Caller) -> Result<Operator> {
        require_platform(Operation::ManageAllUsers, caller)
    }

    /// Users by name; `search` is part of a name or an e-mail address.
    pub async fn list(
        &self,
        operator: &Operator,
        search: Option<String>,
        paging: &Paging,
    ) -> Result<Listed<PlatformUser>> {
        let page = page(search, paging)?;
        let (items, total) = self.0.db.in_platform(operator, async |tx| user::list(tx, page).await).await?;
        Ok(paging.page(items, total, |user| user.username.to_lowercase()))
    }

    /// One user.
    pub async fn get(&self, operator: &Operator, id: UserId) -> Result<PlatformUser> {
        let found = self.0.db.in_platform(operator, async |tx| user::find(tx, id).await);
        found.await.named(format_args!("user {id}"))
    }

    /// The id of the user of a name, in any case.
    pub async fn id_of(&self, operator: &Operator, username: &str) -> Result<UserId> {
        let found = self.0.db.in_platform(operator, async |tx| user::find_id(tx, username).await);
        found.await.named(format_args!("user {username}"))
    }

    /// Makes a user, whose home is an organization where one is named. Nobody grants more than they hold.
    pub async fn create(
        &self,
        operator: &Operator,
        request: CreateUserRequest,
        org: Option<&str>,
        source: Option<IpAddr>,
        idempotency: Option<&Idempotency>,
        answer: impl Fn(&PlatformUser) -> Value + Send + Sync,
    ) -> Result<Made<PlatformUser>> {
        reaches(operator, request.role)?;
        if org.is_some() {
            may_appoint(operator, request.org_role)?;
        }
        if let Some(replay) = self.replay(operator, idempotency).await? {
            return Ok(Made::Replay(replay));
        }
        let hash = match &request.password {
            Some(password) => Some(self.0.passwords.hash_for_another(password.clone()).await?),
            None => None,
        };
        let (id, now) = (UserId::new(), self.0.clock.now());
        let new = new_user(id, &request, hash, now);
        let made = self
            .0
            .db
            .in_platform(operator, async |tx| {
                insert_in(tx, new, org, request.org_role, source).await?;
                let made = user::find(tx, id).await?;
                if let Some(key) = idempotency {
                    key.keep_operators_in(tx, 201, answer(&made), now).await?;
                }
                Ok::<_, Error>(Made::New(made))
            })
            .await;
        match made {
            // A racer with the same key won while this one hashed: its answer is there now.
            Err(lost @ Error::Conflict { .. }) => {
                self.replay(operator, idempotency).await?.map(Made::Replay).ok_or(lost)
            }
            made => made,
        }
    }

    async fn replay(&self, operator: &Operator, idempotency: Option<&Idempotency>) -> Result<Option<Replay>> {
        let Some(key) = idempotency else { return Ok(None) };
        let now = self.0.clock.now();
        self.0.db.in_platform(operator, async |tx| key.find_operators_in(tx, now).await).await
    }

    /// Takes a user over from another system, with the hash that it kept: bcrypt or argon2id of bounded cost, which is
    /// replaced by one of ours at the first login.
    pub async fn import(&self, operator: &Operator, brought: ImportedUser) -> Result<UserId> {
        reaches(operator, brought.role)?;
        if brought.organization.is_some() {
            may_appoint(operator, brought.org_role)?;
        }
        let hash = brought.password_hash.map(Secret::into_inner);
        if let Some(complaint) = hash.as_deref().and_then(|hash| check_imported(hash).err()) {
            return Err(Error::Invalid(FieldErrors::one("passwordHash", complaint)));
        }
        let (id, now) = (UserId::new(), self.0.clock.now());
        let new = NewUser {
            id,
            username: brought.username,
            email: brought.email,
            full_name: brought.full_name,
            role: brought.role,
            provider: brought.provider,
            active: brought.active,
            password_hash: hash,
            home_org_id: None,
            now,
        };
        let (org, role) = (brought.organization, brought.org_role);
        self.0
            .db
            .in_platform(operator, async |tx| insert_in(tx, new, org.as_deref(), role, None).await)
            .await?;
        Ok(id)
    }

    /// Changes a user.
    pub async fn update(
        &self,
        operator: &Operator,
        id: UserId,
        change: UpdateUserRequest,
        source: Option<IpAddr>,
    ) -> Result<PlatformUser> {
        self.update_as(operator, id, change, source).await?;
        self.get(operator, id).await
    }

    /// The same for whoever may: deactivated, everything of the user's ends in this transaction; reactivating brings
    /// none of it back.
    pub(crate) async fn update_as(
        &self,
        operator: &Operator,
        id: UserId,
        change: UpdateUserRequest,
        source: Option<IpAddr>,
    ) -> Result<()> {
        let (core, now) = (&self.0, self.0.clock.now());
        let change = Change {
            email: change.email,
            full_name: change.full_name,
            role: change.role,
            active: change.active,
            home: match change.home_org_id {
                PatchField::Absent => None,
                PatchField::Clear => Some(None),
                PatchField::Set(org) => Some(Some(org)),
            },
        };
        let agents = core
            .db
            .in_platform(operator, async |tx| {
                let before = touch_in(tx, operator, id).await?;
                if let Some(role) = change.role {
                    reaches(operator, role)?;
                    not_raised(operator, &before, role)?;
                }
                if change.email.as_ref().is_some_and(|email| before.email.as_ref() != Some(email)) {
                    may_readdress_in(tx, operator, &before).await?;
                }
                if let Some(Some(org)) = change.home {
                    organization::find_any(tx, org).await.named(format_args!("organization {org}"))?;
                }
                let is_admin = |role, active| role == SystemRole::Admin && active;
                let stays =
                    is_admin(change.role.unwrap_or(before.role), change.active.unwrap_or(before.active));
                if is_admin(before.role, before.active) && !stays {
                    another_admin_in(tx, id).await?;
                }
                user_change::update(tx, id, change.clone(), now).await?;
                let after = user::find(tx, id).await?;
                let mut about: BTreeSet<OrgId> =
                    before.home_org_id.into_iter().chain(after.home_org_id).collect();
                let mut agents = Vec::new();
                if before.active && !after.active {
                    about.extend(user_change::organizations(tx, id).await?);
                    agents = self.end_in(tx, id, "the owner was deactivated", now).await?;
                }
                let detail = json!({"before": shown(&before), "after": shown(&after)});
                audit_in(tx, about, entry("user.update", id, source, detail, now)).await?;
                Ok::<_, Error>(agents)
            })
            .await?;
        core.ended(agents);
        Ok(())
    }

    /// Deletes a user: the row and the name stay for the books, everything else of theirs ends at once.
    pub async fn delete(&self, operator: &Operator, id: UserId, source: Option<IpAddr>) -> Result<()> {
        self.delete_as(operator, id, source).await
    }

    pub(crate) async fn delete_as(
        &self,
        operator: &Operator,
        id: UserId,
        source: Option<IpAddr>,
    ) -> Result<()> {
        let (core, now) = (&self.0, self.0.clock.now());
        let agents = core
            .db
            .in_platform(operator, async |tx| {
                let before = touch_in(tx, operator, id).await?;
                may_go_in(tx, &before).await?;
                let about = organizations_in(tx, &before).await?;
                let agents = self.end_in(tx, id, "the owner was deleted", now).await?;
                user_change::delete(tx, id, now).await?;
                let detail = json!({"before": shown(&before)});
                audit_in(tx, about, entry("user.delete", id, source, detail, now)).await?;
                Ok::<_, Error>(agents)
            })
            .await?;
        core.ended(agents);
        Ok(())
    }

    /// Gives a local user another password, and ends every login and key of theirs: whoever had them may be why.
    pub async fn reset_password(
        &self,
        operator: &Operator,
        id: UserId,
        password: Secret<String>,
        source: Option<IpAddr>,
    ) -> Result<()> {
        // Refused before anything is hashed, and again under the lock.
        let found = self
            .0
            .db
            .in_platform(operator, async |tx| {
                let found = user::find(tx, id).await.named(format_args!("user {id}"))?;
                may_touch(operator, &found)?;
                may_reset_in(tx, operator, &found).await?;
                Ok::<_, Error>(found)
            })
            .await?;
        validate_password(password.expose(), &found.username)
            .map_err(|complaint| Error::Invalid(FieldErrors::one("password", complaint)))?;
        local(&found)?;
        let hash = self.0.passwords.hash_for_another(password).await?;
        let now = self.0.clock.now();
        self.0
            .db
            .in_platform(operator, async |tx| {
                let before = touch_in(tx, operator, id).await?;
                may_reset_in(tx, operator, &before).await?;
                local(&before)?;
                user::set_password(tx, id, hash, now).await?;
                user_change::end_credentials(tx, id, now).await?;
                let about = organizations_in(tx, &before).await?;
                audit_in(tx, about, entry("user.reset_password", id, source, json!({}), now)).await
            })
            .await?;
        self.0.nudges.send(Nudge::Revalidate);
        Ok(())
    }

    /// A user's bearer tokens, revoked ones too, the newest first.
    pub async fn tokens(
        &self,
        operator: &Operator,
        id: UserId,
        paging: &Paging,
    ) -> Result<Listed<BearerToken>> {
        let (before, rows) = (paging.after_moment()?, paging.rows());
        let (items, total) = self
            .0
            .db
            .in_platform(operator, async |tx| {
                user::find(tx, id).await.named(format_args!("user {id}"))?;
                Ok::<_, Error>(bearer_token::list_of(tx, id, before, rows).await?)
            })
            .await?;
        Ok(paging.page(items, total, |token| moment(token.created_at, token.id)))
    }

    /// Revokes a bearer token of a user: from the next request on it opens nothing. Revoking it again changes nothing.
    pub async fn revoke_token(
        &self,
        operator: &Operator,
        user: UserId,
        id: BearerTokenId,
    ) -> Result<BearerToken> {
        let now = self.0.clock.now();
        let token = self
            .0
            .db
            .in_platform(operator, async |tx| {
                let owner = touch_in(tx, operator, user).await?;
                let revoked = bearer_token::revoke_of(tx, user, id, now).await?;
                let token = bearer_token::find_of(tx, user, id).await.named(format_args!("token {id}"))?;
                if revoked {
                    let detail =
                        json!({"before": {"clientName": token.client_name, "username": owner.username}});
                    let (action, resource) = ("token.revoke", format!("token:{id}"));
                    let line = audit::Entry { action, resource, address: None, detail, at: now };
                    audit_in(tx, token.org_id.into_iter().collect(), line).await?;
                }
                Ok::<_, Error>(token)
            })
            .await?;
        self.0.nudges.send(Nudge::Revalidate);
        Ok(token)
    }

    async fn end_in(
        &self,
        tx: &mut PlatformTx,
        id: UserId,
        reason: &str,
        now: DateTime<Utc>,
    ) -> Result<Vec<AgentId>> {
        let deadline = now + Options::seconds(self.0.options.stop_deadline_seconds);
        user_change::end_credentials(tx, id, now).await?;
        Ok(user_change::end_work(tx, id, reason, deadline, now).await?)
    }
}

/// Inserts a user, as a member of an organization and at home there, where one is named.
async fn insert_in(
    tx: &mut PlatformTx,
    mut new: NewUser,
    org: Option<&str>,
    role: OrgRole,
    source: Option<IpAddr>,
) -> Result<()> {
    let (id, now) = (new.id, new.now);
    let detail = json!({"after": {"username": new.username, "role": new.role, "provider": new.provider, "organization": org}});
    let home = match org {
        None => None,
        Some(org) => Some(find_org(tx, org).await?),
    };
    new.home_org_id = home;
    user::insert(tx, new).await?;
    let line = entry("user.create", id, source, detail, now);
    if let Some(org) = home {
        membership::put_for_platform(tx, org, id, role, now).await?;
        audit::insert_platform_about(tx, org, line.clone()).await?;
    }
    Ok(audit::insert_platform(tx, line).await?)
}

/// An organization by id or name.
async fn find_org(tx: &mut PlatformTx, org: &str) -> Result<OrgId> {
    let shown: String = org.chars().filter(|c| !c.is_control()).take(64).collect();
    let found = match org.parse() {
        Ok(id) => organization::find_any(tx, id).await,
        Err(_) if org.contains('\0') => return Err(Error::not_found(format_args!("organization {shown}"))),
        Err(_) => organization::find_by_name(tx, org).await,
    };
    Ok(found.named(format_args!("organization {shown}"))?.id)
}

/// A user, locked, whom the operator may touch.
async fn touch_in(tx: &mut PlatformTx, operator: &Operator, id: UserId) -> Result<PlatformUser> {
    let before = user_change::lock(tx, id).await.named(format_args!("user {id}"))?;
    may_touch(operator, &before)?;
    if user_change::still_may_act(tx, operator, id).await? {
        return Ok(before);
    }
    Err(Error::Forbidden(format!(
        "{} is this organization's own account no more, or you are no org_admin of it any more",
        before.username
    )))
}

/// A lower role never touches a higher one's account.
fn may_touch(operator: &Operator, user: &PlatformUser) -> Result<()> {
    if operator.role().may_grant(user.role) {
        return Ok(());
    }
    Err(Error::Forbidden(format!("{} has the role {}, which is above yours", user.username, user.role)))
}

/// Nobody grants more than they hold.
fn reaches(operator: &Operator, role: SystemRole) -> Result<()> {
    if operator.role().may_grant(role) {
        return Ok(());
    }
    Err(Error::Forbidden(format!("the role {} cannot give the role {role} to anybody", operator.role())))
}

/// Whoever makes somebody who manages an organization is in it as much as they are: an operator is in none by their role.
fn may_appoint(operator: &Operator, role: OrgRole) -> Result<()> {
    if matches!(role, OrgRole::User | OrgRole::Viewer) || appoints(operator) {
        return Ok(());
    }
    Err(Error::Forbidden(format!(
        "the role {role} in an organization is given by {}, or by its own org_admins: `orgRole` may be user or viewer",
        Operation::AppointManagers.who()
    )))
}

/// Whoever gives somebody a password can log in as them.
async fn may_reset_in(tx: &mut PlatformTx, operator: &Operator, user: &PlatformUser) -> Result<()> {
    let own = operator.actor() == Actor::User(user.id);
    if own || appoints(operator) || !user_change::manages(tx, user.id).await? {
        return Ok(());
    }
    Err(Error::Forbidden(format!(
        "{} owns or manages an organization: a new password or address for them needs {}",
        user.username,
        Operation::AppointManagers.who()
    )))
}

/// Whoever reads the mail of a local user can set a password and log in as them: with as much as they are anywhere.
async fn may_readdress_in(tx: &mut PlatformTx, operator: &Operator, user: &PlatformUser) -> Result<()> {
    if user.provider != Provider::Local {
        return Ok(());
    }
    may_reset_in(tx, operator, user).await?;
    if !user_change::reaches_elsewhere(tx, operator, user.id).await? {
        return Ok(());
    }
    Err(Error::Forbidden(format!(
        "{} is in other organizations too, and a mail to their address may set their password: they change it themselves",
        user.username
    )))
}

fn appoints(operator: &Operator) -> bool {
    let standing = Standing { system: operator.role(), org: None, owner: false };
    Operation::AppointManagers.allows(standing)
}

/// Nobody raises their own role, not even to what their credential was let in with a moment ago.
fn not_raised(operator: &Operator, before: &PlatformUser, role: SystemRole) -> Result<()> {
    if operator.actor() != Actor::User(before.id) || before.role.may_grant(role) {
        return Ok(());
    }
    Err(Error::Forbidden("nobody raises their own role".into()))
}

fn local(user: &PlatformUser) -> Result<()> {
    if user.provider == Provider::Local {
        return Ok(());
    }
    let message = format!("{} signs in with {} and has no password here", user.username, user.provider);
    Err(conflict("E_PROVIDER", &message))
}

/// Refuses to delete whoever would leave an organization or the platform to nobody.
async fn may_go_in(tx: &mut PlatformTx, user: &PlatformUser) -> Result<()> {
    let (name, id) = (&user.username, user.id);
    let owned = user_change::owned(tx, id).await?;
    if !owned.is_empty() {
        let message = format!("{name} owns {}: transfer or end these organizations first", owned.join(", "));
        return Err(conflict("E_OWNER", &message));
    }
    let alone = user_change::managed_alone(tx, id).await?;
    if !alone.is_empty() {
        let message = format!(
            "{name} is the last org_admin of {}: give somebody else the role org_admin there first",
            alone.join(", ")
        );
        return Err(conflict("E_LAST_ADMIN", &message));
    }
    if user.role == SystemRole::Admin && user.active {
        another_admin_in(tx, id).await?;
    }
    Ok(())
}

async fn another_admin_in(tx: &mut PlatformTx, id: UserId) -> Result<()> {
    if user_change::another_admin(tx, id).await? {
        return Ok(());
    }
    Err(conflict("E_LAST_ADMIN", "this is the last active admin: give somebody else the role admin first"))
}

/// The organizations in which something ends with a user's credentials, and that which made the account.
async fn organizations_in(tx: &mut PlatformTx, user: &PlatformUser) -> Result<BTreeSet<OrgId>> {
    let of_user = user_change::organizations(tx, user.id).await?;
    Ok(of_user.into_iter().chain(user.home_org_id).collect())
}

/// A line of the platform's log, and of the log of every organization that it is about.
async fn audit_in(tx: &mut PlatformTx, about: BTreeSet<OrgId>, line: audit::Entry) -> Result<()> {
    for org in about {
        audit::insert_platform_about(tx, org, line.clone()).await?;
    }
    Ok(audit::insert_platform(tx, line).await?)
}

/// What the audit log says of a user.
fn shown(user: &PlatformUser) -> Value {
    json!({
        "username": user.username, "email": user.email, "fullName": user.full_name, "role": user.role,
        "active": user.active, "homeOrgId": user.home_org_id,
    })
}
