//! Users in the light of one organization: its members, those whose home it is, and everybody for themselves. What the
//! platform's operators do stands in `all_users`.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use serde_json::{Value, json};
use tidegate_model::{
    CreateUserRequest, FieldErrors, Operation, PatchField, Secret, SystemRole, UpdateUserRequest, User,
    UserId,
};
use tidegate_persistence::{
    Error as DbError, Operator, OrgScope, OrgTx, UserTx, audit, group, membership, organization, quota,
    user::{self, NewUser, Page},
    user_change,
};

use crate::{
    AllUsers, Caller, Core, Error, Idempotency, Listed, Paging, Replay, Result,
    error::Named,
    members::may_grant,
    own_logins,
    permissions::{may, require, standing},
    quotas::user_in,
};

/// Users in the light of the caller's organization.
#[derive(Debug, Clone)]
pub struct Users(pub(crate) Arc<Core>);

/// What asking for a user gave.
#[derive(Debug, Clone)]
pub enum MadeUser {
    /// The new user.
    New(Box<User>),
    /// The kept answer to an earlier request with the same idempotency key.
    Replay(Replay),
}

/// Ids that names are asked for at once, at most.
const NAMES: usize = 1_000;

impl Users {
    /// Members by name; `search` is part of a name or an e-mail address.
    pub async fn list(
        &self,
        scope: &OrgScope,
        search: Option<String>,
        paging: &Paging,
    ) -> Result<Listed<User>> {
        require(Operation::ReadUsers, standing(scope, scope.role()))?;
        let page = page(search, paging)?;
        let listed = self.0.db.in_org(scope, async |tx| user::list_members(tx, page).await);
        let (items, total) = listed.await?;
        Ok(paging.page(items, total, |user| user.username.to_lowercase()))
    }

    /// Makes a user whose home is the organization, and who is a member of it. Whether a name or an address is taken
    /// anywhere on the platform is said: both are unique, and how often one may be told is limited.
    pub async fn create(
        &self,
        scope: &OrgScope,
        request: CreateUserRequest,
        source: Option<IpAddr>,
        idempotency: Option<&Idempotency>,
        answer: impl Fn(&User) -> Value + Send + Sync,
    ) -> Result<MadeUser> {
        // Before anything is hashed, and again under the lock.
        may_make(scope, scope.role(), &request)?;
        if let Some(replay) = self.replay(scope, idempotency).await? {
            return Ok(MadeUser::Replay(replay));
        }
        // Refused for the names of others, as when members are added by name.
        self.0.throttle.allows_lookup(scope.user_id(), self.0.clock.now())?;
        let hash = match &request.password {
            Some(password) => Some(self.0.passwords.hash_for_another(password.clone()).await?),
            None => None,
        };
        let now = self.0.clock.now();
        let made = self
            .0
            .db
            .in_org_locked(scope, async |tx, locked| {
                may_make(scope, locked.named("organization")?.role, &request)?;
                let id = UserId::new();
                let detail = json!({"after": {"username": request.username, "provider": request.provider, "orgRole": request.org_role}});
                user::insert_at_home(tx, new_user(id, &request, hash, now)).await?;
                membership::put(tx, id, request.org_role, now).await?;
                audit::insert_org(tx, entry("user.create", id, source, detail, now)).await?;
                let made = user::find_member(tx, id).await?;
                if let Some(idempotency) = idempotency {
                    idempotency.keep_in(tx, 201, answer(&made), now).await?;
                }
                Ok::<_, Error>(MadeUser::New(Box::new(made)))
            })
            .await;
        match made {
            // A racer with the same idempotency key won while this one hashed: its answer is there now.
            Err(lost @ Error::Conflict { .. }) => {
                let replay = self.replay(scope, idempotency).await?;
                if replay.is_none() {
                    self.0.throttle.lookup_failed(scope.user_id(), now);
                }
                replay.map(MadeUser::Replay).ok_or(lost)
            }
            made => made,
        }
    }

    /// Refuses whoever may not make users.
    pub fn check_manager(&self, scope: &OrgScope) -> Result<()> {
        require(Operation::ManageUsers, standing(scope, scope.role()))
    }

    async fn replay(&self, scope: &OrgScope, idempotency: Option<&Idempotency>) -> Result<Option<Replay>> {
        let Some(idempotency) = idempotency else { return Ok(None) };
        let now = self.0.clock.now();
        self.0.db.in_org(scope, async |tx| idempotency.find_in(tx, now).await).await
    }

    /// A user: the caller, a member for the organization's admins, anybody for operators. Nobody else's is there.
    pub async fn get(&self, caller: &Caller, id: UserId) -> Result<User> {
        let what = format_args!("user {id}").to_string();
        if let Some(scope) = &caller.org
            && (id == caller.user.user_id() || may(scope, Operation::ReadUsers))
        {
            match self.0.db.in_org(scope, async |tx| whole_in(&self.0, tx, id).await).await {
                Err(Error::NotFound(_)) => {}
                found => return found,
            }
        }
        match caller.user.operator() {
            Some(operator) => {
                let found = self.0.db.in_platform(&operator, async |tx| user::find_somewhere(tx, id).await);
                found.await.named(what)
            }
            None => Err(Error::not_found(what)),
        }
    }

    /// The caller's own user in the organization of the request.
    pub async fn me(&self, caller: &Caller) -> Result<User> {
        let id = caller.user.user_id();
        self.0.db.in_org(caller.org()?, async |tx| whole_in(&self.0, tx, id).await).await
    }

    /// Changes a user: oneself as far as everybody may, those whose home is the organization for its admins, and
    /// anybody whose role is not above their own for operators.
    pub async fn update(
        &self,
        caller: &Caller,
        id: UserId,
        change: UpdateUserRequest,
        source: Option<IpAddr>,
    ) -> Result<User> {
        if id == caller.user.user_id() && (change.is_profile() || caller.user.operator().is_none()) {
            return self.update_own(caller, change, source).await;
        }
        let operator = self.acting(caller, id).await?;
        // Who was kept out by the platform is not let in again by an organization.
        if !operator.role().is_operator() && change.active == Some(true) {
            return Err(Error::Forbidden(
                "`active` is switched on by operators of the platform: leave it out".into(),
            ));
        }
        if !operator.role().is_operator()
            && (change.role.is_some() || change.home_org_id != PatchField::Absent)
        {
            return Err(Error::Forbidden(
                "`role` and `homeOrgId` are changed by operators of the platform: leave them out".into(),
            ));
        }
        AllUsers(Arc::clone(&self.0)).update_as(&operator, id, change, source).await?;
        self.get(caller, id).await
    }

    /// Changes the caller's own profile: nobody raises their own role. Whoever has a password here brings it for another
    /// address, as for another password: a mail to the address may set it.
    pub async fn update_own(
        &self,
        caller: &Caller,
        change: UpdateUserRequest,
        source: Option<IpAddr>,
    ) -> Result<User> {
        if !change.is_profile() {
            return Err(Error::Forbidden(
                "nobody changes their own role, state or home: `email` and `fullName` are yours to change"
                    .into(),
            ));
        }
        let now = self.0.clock.now();
        let UpdateUserRequest { email, full_name, current_password, .. } = change;
        let id = caller.user.user_id();
        self.0.throttle.allows_lookup(id, now)?;
        let proof = match &email {
            Some(email) => self.proof(caller, email, current_password, source).await?,
            None => None,
        };
        let changed = self.0.db.in_user(&caller.user, async |tx| {
            let shown = |(email, full_name)| json!({"email": email, "fullName": full_name});
            let before = shown(user::lock_own(tx).await?);
            if let Some(hash) = proof
                && !user::has_password(tx, hash).await?
            {
                return Err(Error::InvalidCredentials);
            }
            user::update_own(tx, email, full_name, now).await?;
            let detail = json!({"before": before, "after": shown(user::lock_own(tx).await?)});
            Ok(audit::insert_user(tx, None, entry("user.update", id, source, detail, now)).await?)
        });
        let changed: Result<()> = changed.await;
        if matches!(changed, Err(Error::Conflict { .. })) {
            self.0.throttle.lookup_failed(id, now);
        }
        changed?;
        self.get(caller, id).await
    }

    /// The hash that must still be in force when the caller's address changes. None where nothing has to be proved: no
    /// mail sets the password of somebody who has none here, and an address may be said again.
    async fn proof(
        &self,
        caller: &Caller,
        email: &str,
        current: Option<Secret<String>>,
        source: Option<IpAddr>,
    ) -> Result<Option<String>> {
        let (core, name) = (&self.0, caller.user.username());
        if own_logins::stored(core, name).await?.is_none() {
            return Ok(None);
        }
        let (address, _) = core.db.in_user(&caller.user, async |tx| user::lock_own(tx).await).await?;
        if address.as_deref() == Some(email) {
            return Ok(None);
        }
        let Some(current) = current else {
            let complaint = "must be your password, because a mail to another `email` may set it";
            return Err(Error::Invalid(FieldErrors::one("currentPassword", complaint)));
        };
        own_logins::verified(core, name, current, source).await.map(Some)
    }

    /// Deletes a user, whom the same may change; everybody may go.
    pub async fn delete(&self, caller: &Caller, id: UserId, source: Option<IpAddr>) -> Result<()> {
        let operator = if id == caller.user.user_id() {
            user_change::on_own(&caller.user)
        } else {
            self.acting(caller, id).await?
        };
        AllUsers(Arc::clone(&self.0)).delete_as(&operator, id, source).await
    }

    /// As what the caller changes somebody else. Whom they cannot see is not found; whose account is another's, is not
    /// theirs to change.
    async fn acting(&self, caller: &Caller, id: UserId) -> Result<Operator> {
        if let Some(operator) = caller.user.operator() {
            return Ok(operator);
        }
        if let Some(scope) = caller.org.as_ref().filter(|scope| may(scope, Operation::ManageUsers)) {
            match self.0.db.in_org(scope, async |tx| user_change::steward(tx, id).await).await {
                Ok(Some(steward)) => return Ok(steward),
                Ok(None) => {
                    return Err(Error::Forbidden(format!(
                        "user {id} is a member and not this organization's own account: you may remove them from it"
                    )));
                }
                Err(DbError::NotFound) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::not_found(format_args!("user {id}")))
    }

    /// The names of users that the organization knows; an id of nobody is absent (seed B, `UsernamesByIDs`). At most
    /// 1 000 at once.
    pub async fn usernames_by_ids(
        &self,
        scope: &OrgScope,
        ids: Vec<UserId>,
    ) -> Result<HashMap<UserId, String>> {
        if ids.len() > NAMES {
            return Err(Error::Invalid(FieldErrors::one("ids", "must be at most 1000")));
        }
        Ok(self.0.db.in_org(scope, async |tx| user::usernames_by_ids(tx, ids).await).await?)
    }

    /// A member by name, in any case (seed B, `GetUserByUsername`).
    pub async fn get_by_username(&self, scope: &OrgScope, name: &str) -> Result<User> {
        let shown: String = name.chars().filter(|c| !c.is_control()).take(32).collect();
        if tidegate_model::validate_username(name).is_err() {
            return Err(Error::not_found(format_args!("user {shown}")));
        }
        let found = self.0.db.in_org(scope, async |tx| user::find_member_by_name(tx, name).await);
        found.await.named(format_args!("user {shown}"))
    }

    /// Whether somebody is a member of the organization or owns it (seed B, `IsMemberOrOwner`).
    pub async fn is_member_or_owner(&self, scope: &OrgScope, id: UserId) -> Result<bool> {
        Ok(self.0.db.in_org(scope, async |tx| membership::is_member_or_owner(tx, id).await).await?)
    }

    /// The members but the owner, in joining order (seed B, `ListMembers`).
    pub async fn list_non_owners(&self, scope: &OrgScope, paging: &Paging) -> Result<Vec<User>> {
        require(Operation::ReadUsers, standing(scope, scope.role()))?;
        let (after, rows) = (paging.after_moment()?, paging.rows() - 1);
        Ok(self.0.db.in_org(scope, async |tx| user::list_non_owners(tx, after, rows).await).await?)
    }

    /// The oldest organization that the caller owns (seed B, `FirstOwnedAccountFor`).
    pub async fn first_owned(&self, caller: &Caller) -> Result<tidegate_model::Organization> {
        let found = self.0.db.in_user(&caller.user, async |tx| organization::first_owned(tx).await);
        found.await.named("an organization of your own")
    }
}

/// Groups of one user that are named; who is in more asks for them.
const GROUPS: i64 = 1_000;

/// A member with the quota that is set for them and the groups they are in.
async fn whole_in(core: &Core, tx: &mut OrgTx, id: UserId) -> Result<User> {
    let mut found = user::find_member(tx, id).await.named(format_args!("user {id}"))?;
    if quota::of_user(tx, id).await?.is_some() {
        let member = membership::find(tx, id).await.named(format_args!("user {id}"))?;
        found.quota = Some(Box::new(user_in(core, tx, member).await?));
    }
    found.groups = Some(group::ids_of_user(tx, id, GROUPS).await?);
    Ok(found)
}

/// Refuses what the caller may not make: roles on the platform, and more than they hold in the organization.
fn may_make(scope: &OrgScope, role: tidegate_model::OrgRole, new: &CreateUserRequest) -> Result<()> {
    require(Operation::ManageUsers, standing(scope, role))?;
    if new.role != SystemRole::User {
        return Err(Error::Forbidden(
            "roles on the platform are given by its operators: leave `role` out".into(),
        ));
    }
    may_grant(scope, role, new.org_role)
}

/// Keeps the caller from being deactivated or deleted until the transaction ends, and refuses whoever was.
pub(crate) async fn held_in(tx: &mut UserTx) -> Result<()> {
    if user_change::hold_own(tx).await? {
        return Ok(());
    }
    Err(Error::Unauthenticated("the account was deactivated or deleted: ask an administrator"))
}

/// What a page of users is asked for by.
pub(crate) fn page(search: Option<String>, paging: &Paging) -> Result<Page> {
    if search.as_ref().is_some_and(|text| text.chars().count() > 200 || text.contains('\0')) {
        return Err(Error::Invalid(FieldErrors::one("search", "must have at most 200 characters")));
    }
    let search = search.filter(|text| !text.is_empty());
    Ok(Page { search, after: paging.after()?.unwrap_or_default(), limit: paging.rows() })
}

/// A user as somebody asked for them.
pub(crate) fn new_user(
    id: UserId,
    request: &CreateUserRequest,
    hash: Option<String>,
    now: chrono::DateTime<chrono::Utc>,
) -> NewUser {
    NewUser {
        id,
        username: request.username.clone(),
        email: Some(request.email.clone()),
        full_name: request.full_name.clone(),
        role: request.role,
        provider: request.provider,
        active: true,
        password_hash: hash,
        home_org_id: None,
        now,
    }
}

/// A line about a user.
pub(crate) fn entry(
    action: &'static str,
    id: UserId,
    source: Option<IpAddr>,
    detail: Value,
    at: chrono::DateTime<chrono::Utc>,
) -> audit::Entry {
    let address = source.map(|source| source.to_string());
    audit::Entry { action, resource: format!("user:{id}"), address, detail, at }
}
