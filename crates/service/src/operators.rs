//! What operators do to users and organizations from the console.

use std::sync::Arc;

use serde_json::{Value, json};
use tidegate_model::{
    FieldErrors, OrgId, OrgRole, Provider, Secret, SystemRole, User, UserId, validate_org_name,
    validate_password,
};
use tidegate_persistence::{
    Operator, OrgScope, PlatformTx, UserScope, audit, auth, membership,
    organization::{self, NewOrganization},
    user, user_change,
};

use crate::{
    AllUsers, Core, Error, Result, all_sessions::find_org_in, error::Named, organizations::shown_new,
};

/// What operators do to users and organizations.
#[derive(Debug, Clone)]
pub struct Operators(pub(crate) Arc<Core>);

/// A local user to make.
#[derive(Debug, Clone)]
pub struct NewLocalUser {
    /// 3–32 of `A-Z a-z 0-9 _ -`.
    pub username: String,
    /// RFC 5322 addr-spec.
    pub email: Option<String>,
    /// 1–200 characters.
    pub full_name: String,
    /// 8–256 characters.
    pub password: Secret<String>,
    /// System-wide role.
    pub role: SystemRole,
}

/// What a bootstrap made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bootstrapped {
    /// The organization.
    pub org_id: OrgId,
    /// Its owner, admin of the platform.
    pub user_id: UserId,
}

impl Operators {
    /// Whether somebody is admin yet.
    pub async fn is_set_up(&self) -> Result<bool> {
        Ok(auth::admin_exists(&self.0.db).await?)
    }

    /// Makes the first organization and its owner, who is admin of the platform. A second bootstrap is a conflict.
    pub async fn bootstrap(
        &self,
        operator: &Operator,
        org_name: &str,
        admin: NewLocalUser,
    ) -> Result<Bootstrapped> {
        let mut errors = check(&admin);
        errors.check("organization", validate_org_name(org_name));
        errors.into_result().map_err(Error::Invalid)?;
        if self.is_set_up().await? {
            return Err(already_set_up());
        }
        let hash = self.0.passwords.hash(admin.password.clone()).await?;
        let (org_id, user_id, now) = (OrgId::new(), UserId::new(), self.0.clock.now());
        self.0
            .db
            .in_platform(operator, async |tx| {
                // Two racers meet here: the second waits, then finds the first one's admin.
                if !user::claim_setup(tx).await? {
                    return Err(already_set_up());
                }
                let shown = json!({"organization": org_name, "username": admin.username, "role": admin.role});
                user::insert(tx, new_user(user_id, admin, hash, None, now)).await?;
                let new = NewOrganization::named(org_id, org_name, Some(user_id), now);
                organization::insert(tx, new).await?;
                membership::put_for_platform(tx, org_id, user_id, OrgRole::Admin, now).await?;
                user_change::settle(tx, user_id, org_id).await?;
                let resource = format!("organization:{org_name}");
                audit_in(tx, org_id, "platform.bootstrap", resource, shown, now).await
            })
            .await?;
        Ok(Bootstrapped { org_id, user_id })
    }

    /// Makes a user, member of one organization.
    pub async fn create_user(
        &self,
        operator: &Operator,
        new: NewLocalUser,
        org: &str,
        role: OrgRole,
    ) -> Result<UserId> {
        check(&new).into_result().map_err(Error::Invalid)?;
        let hash = self.0.passwords.hash(new.password.clone()).await?;
        let (id, now) = (UserId::new(), self.0.clock.now());
        let resource = format!("user:{id}");
        let shown = json!({"username": new.username, "role": new.role, "organization": org, "orgRole": role});
        self.0
            .db
            .in_platform(operator, async |tx| {
                let org =
                    organization::find_by_name(tx, org).await.named(format_args!("organization {org}"))?;
                user::insert(tx, new_user(id, new, hash, Some(org.id), now)).await?;
                membership::put_for_platform(tx, org.id, id, role, now).await?;
                audit_in(tx, org.id, "user.create", resource, shown, now).await
            })
            .await?;
        Ok(id)
    }

    /// Makes an organization, owned by nobody yet.
    pub async fn create_organization(&self, operator: &Operator, name: &str) -> Result<OrgId> {
        validate_org_name(name).map_err(|complaint| Error::Invalid(FieldErrors::one("name", complaint)))?;
        let (id, now) = (OrgId::new(), self.0.clock.now());
        let new = NewOrganization::named(id, name, None, now);
        let shown = shown_new(&new);
        let resource = format!("organization:{name}");
        self.0
            .db
            .in_platform(operator, async |tx| {
                organization::insert(tx, new).await?;
                audit_in(tx, id, "organization.create", resource, shown, now).await
            })
            .await?;
        Ok(id)
    }

    /// The console inside an organization, by id or name: whatever an `org_admin` may do there, written down in both logs.
    pub async fn enter(&self, wanted: &str) -> Result<OrgScope> {
        let shown: String = wanted.chars().filter(|c| !c.is_control()).take(64).collect();
        let (operator, user) = (Operator::console(), UserScope::console());
        self.0
            .db
            .in_platform(&operator, async |tx| {
                let id = find_org_in(tx, &shown).await?;
                organization::enter(tx, &user, id).await.named(format_args!("organization {shown}"))
            })
            .await
    }

    /// Sets a user's password and ends all their logins and keys.
    pub async fn set_password(
        &self,
        operator: &Operator,
        username: &str,
        password: Secret<String>,
    ) -> Result<()> {
        let users = AllUsers(Arc::clone(&self.0));
        let id = users.id_of(operator, username).await?;
        users.reset_password(operator, id, password, None).await
    }
}

fn already_set_up() -> Error {
    Error::Conflict {
        code: "E_ALREADY_SET_UP",
        message: "an admin exists already: log in, or use `tidegate-admin users set-password`".into(),
    }
}

fn check(new: &NewLocalUser) -> FieldErrors {
    let mut errors = match User::check_new(&new.username, new.email.as_deref(), &new.full_name) {
        Ok(()) => FieldErrors::new(),
        Err(errors) => errors,
    };
    errors.check("password", validate_password(new.password.expose(), &new.username));
    errors
}

fn new_user(
    id: UserId,
    new: NewLocalUser,
    hash: String,
    home_org_id: Option<OrgId>,
    now: chrono::DateTime<chrono::Utc>,
) -> user::NewUser {
    user::NewUser {
        id,
        username: new.username,
        email: new.email,
        full_name: new.full_name,
        role: new.role,
        provider: Provider::Local,
        active: true,
        password_hash: Some(hash),
        home_org_id,
        now,
    }
}

/// A line of the platform's log, and of the log of the organization that it is about.
async fn audit_in(
    tx: &mut PlatformTx,
    org: OrgId,
    action: &'static str,
    resource: String,
    after: Value,
    at: chrono::DateTime<chrono::Utc>,
) -> Result<()> {
    let entry = audit::Entry { action, resource, address: None, detail: json!({"after": after}), at };
    audit::insert_platform_about(tx, org, entry.clone()).await?;
    Ok(audit::insert_platform(tx, entry).await?)
}
