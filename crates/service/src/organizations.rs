//! Organizations: made by anybody, changed by their `org_admin`s, ended and given away by their owner alone. What the
//! platform's admins do to organizations of others stands in `all_organizations`.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tidegate_model::{
    CreateOrganizationRequest, CredentialId, Operation, OrgId, OrgRole, Organization, Scopes, Standing,
    UpdateOrganizationRequest, UserId, default_namespace,
};
use tidegate_persistence::{
    Error as DbError, OrgScope, OrgTx, application, audit, bearer_token, installed_plugin, login_session,
    membership,
    organization::{self, NewOrganization},
    session_end::{self, EndAll, EndOf},
};

use crate::{
    Caller, Core, Error, Idempotency, Listed, Made, Nudge, Paging, Result,
    error::Named,
    options::Options,
    permissions::{require, require_platform, standing},
    users::held_in,
};

/// Organizations of the caller.
#[derive(Debug, Clone)]
pub struct Organizations(pub(crate) Arc<Core>);

/// What a caller may do in the organization of the request.
#[derive(Debug, Clone)]
pub struct Permissions {
    /// The organization, if the request has one, and its name.
    pub organization: Option<(OrgId, String)>,
    /// Where the caller stands.
    pub standing: Standing,
    /// Everything they may do with what they brought.
    pub operations: Vec<Operation>,
    /// What an API key may be used for; none for a login, which is held to its roles alone.
    pub scopes: Option<Scopes>,
}

impl Organizations {
    /// Makes an organization of the caller's own.
    pub async fn create(&self, caller: &Caller, request: CreateOrganizationRequest) -> Result<Organization> {
        self.create_keyed(caller, request, None, |_| Value::Null).await?.made()
    }

    /// The same for a request that may be a repeat.
    pub async fn create_keyed(
        &self,
        caller: &Caller,
        request: CreateOrganizationRequest,
        idempotency: Option<&Idempotency>,
        answer: impl Fn(&Organization) -> Value + Send + Sync,
    ) -> Result<Made<Organization>> {
        let (core, id, now) = (&self.0, OrgId::new(), self.0.clock.now());
        let name = request.name.clone();
        if request.k8s_namespace != default_namespace(&name) {
            // Sessions run in it: whoever could choose it freely would choose another organization's.
            require_platform(Operation::ManageAllOrganizations, caller)?;
        }
        let new = NewOrganization { id, request, owner: Some(caller.user.user_id()), now };
        let shown = shown_new(&new);
        let made = core
            .db
            .in_user(&caller.user, async |tx| {
                held_in(tx).await?;
                if let Some(key) = idempotency
                    && let Some(replay) = key.find_own_in(tx, now).await?
                {
                    return Ok(Made::Replay(replay));
                }
                organization::insert_own(tx, new).await?;
                let line = entry("organization.create", &name, json!({"after": shown}), now);
                audit::insert_user(tx, Some(id), line).await?;
                let made = organization::find_own(tx, id).await?;
                if let Some(key) = idempotency {
                    key.keep_own_in(tx, 201, answer(&made), now).await?;
                }
                Ok::<_, Error>(Made::New(made))
            })
            .await;
        match (made, idempotency) {
            // A racer with the same key was faster: its answer is there now.
            (Err(lost @ Error::Conflict { .. }), Some(key)) => {
                let kept = core.db.in_user(&caller.user, async |tx| key.find_own_in(tx, now).await).await?;
                kept.map(Made::Replay).ok_or(lost)
            }
            (made, _) => made,
        }
    }

    /// The caller's organizations by name, with the role in each.
    pub async fn list(&self, caller: &Caller, paging: &Paging) -> Result<Listed<(Organization, OrgRole)>> {
        let after = paging.after()?.unwrap_or_default();
        let rows = paging.rows();
        let (items, total) = self
            .0
            .db
            .in_user(&caller.user, async |tx| organization::list_own(tx, &after, rows).await)
            .await?;
        Ok(paging.page(items, total, |(organization, _)| organization.name.clone()))
    }

    /// The organization of the scope.
    pub async fn get(&self, scope: &OrgScope) -> Result<Organization> {
        self.0.db.in_org(scope, async |tx| organization::find(tx).await).await.named("organization")
    }

    /// Changes names and namespace. The status is the platform's to change.
    pub async fn update(&self, scope: &OrgScope, change: UpdateOrganizationRequest) -> Result<Organization> {
        if change.status.is_some() || change.k8s_namespace.is_some() {
            require(Operation::ManageAllOrganizations, standing(scope, scope.role()))?;
        }
        let now = self.0.clock.now();
        self.0
            .db
            .in_org_locked(scope, async |tx, locked| {
                let locked = locked.named("organization")?;
                require(Operation::UpdateOrganization, standing(scope, locked.role))?;
                update_in(tx, change, now).await
            })
            .await
    }

    /// Gives the organization to another member, who becomes `org_admin`.
    pub async fn transfer(&self, scope: &OrgScope, to: UserId) -> Result<Organization> {
        let now = self.0.clock.now();
        self.0
            .db
            .in_org_locked(scope, async |tx, locked| {
                let locked = locked.named("organization")?;
                let before = organization::find(tx).await?;
                let owner = before.owner_user_id == Some(scope.user_id());
                require(Operation::TransferOrganization, Standing { owner, ..standing(scope, locked.role) })?;
                transfer_in(tx, &before, to, now).await
            })
            .await
    }

    /// Ends the organization: sessions are stopped by commands, invites revoked, and nobody gets in any more.
    pub async fn delete(&self, scope: &OrgScope) -> Result<()> {
        let core = &self.0;
        let now = core.clock.now();
        let agents = core
            .db
            .in_org_locked(scope, async |tx, locked| {
                let locked = locked.named("organization")?;
                let before = organization::find(tx).await?;
                let owner = before.owner_user_id == Some(scope.user_id());
                require(Operation::DeleteOrganization, Standing { owner, ..standing(scope, locked.role) })?;
                delete_in(core, tx, &before, now).await
            })
            .await?;
        core.ended(agents);
        Ok(())
    }

    /// Chooses the organization of all later requests of this login that name none.
    pub async fn switch(&self, caller: &Caller, wanted: &str) -> Result<(Organization, OrgRole)> {
        let core = &self.0;
        let shown: String = wanted.chars().filter(|c| !c.is_control()).take(64).collect();
        let what = || Error::not_found(format_args!("organization {shown}"));
        if wanted.contains('\0') {
            return Err(what());
        }
        let credential = caller.credential();
        if let CredentialId::ApiKey(_) = credential {
            return Err(Error::Forbidden(
                "an API key is of one organization: log in to choose another".into(),
            ));
        }
        let now = core.clock.now();
        let chosen = core.db.in_user(&caller.user, async |tx| {
            let (before, chosen) = match credential {
                CredentialId::Login(login) => login_session::choose(tx, login, wanted).await?,
                CredentialId::Token(token) => bearer_token::choose(tx, token, wanted).await?,
                CredentialId::ApiKey(_) => return Err(DbError::NotFound),
            };
            let detail = json!({"before": {"organizationId": before}, "after": {"organizationId": chosen}});
            let resource = credential.to_string();
            let line = audit::Entry { action: "auth.switch", resource, address: None, detail, at: now };
            audit::insert_user(tx, None, line).await?;
            Ok(chosen)
        });
        let chosen = chosen.await.map_err(|error| match error {
            DbError::NotFound => what(),
            other => other.into(),
        })?;
        let caller =
            crate::Logins(Arc::clone(core)).caller(caller.credential(), Some(&chosen.to_string())).await?;
        let scope = caller.org()?;
        Ok((self.get(scope).await?, scope.role()))
    }

    /// What the caller may do in the organization of the request.
    pub async fn permissions(&self, caller: &Caller) -> Result<Permissions> {
        let (organization, owner) = match caller.org.as_ref().map(|scope| (scope, scope.told())) {
            // As of the lookup that let the caller in: nothing is asked again.
            Some((scope, Some(told))) => (Some((scope.org_id(), told.name.clone())), told.owned),
            Some((scope, None)) => {
                let org = self.get(scope).await?;
                (Some((org.id, org.name)), org.owner_user_id == Some(caller.user.user_id()))
            }
            None => (None, false),
        };
        let org = caller.org.as_ref().map(OrgScope::role);
        let standing = Standing { system: caller.role(), org, owner };
        let scopes = match caller.credential() {
            CredentialId::ApiKey(_) => Some(caller.scopes()),
            CredentialId::Login(_) | CredentialId::Token(_) => None,
        };
        let reaches = |operation: &Operation| {
            scopes.is_none_or(|scopes| operation.scope().is_some_and(|scope| scopes.allow(scope)))
        };
        let operations = Operation::allowed(standing).into_iter().filter(reaches).collect();
        Ok(Permissions { organization, standing, operations, scopes })
    }
}

impl Core {
    /// Tells agents of their stops, and viewers that some of them are members no more.
    pub(crate) fn ended(&self, agents: Vec<tidegate_model::AgentId>) {
        for agent in agents {
            self.nudges.send(Nudge::Commands(agent));
        }
        self.nudges.send(Nudge::Revalidate);
    }
}

/// Begins the end of sessions: all of the organization's, one member's, or one application's.
pub(crate) async fn end_sessions_in(
    core: &Core,
    tx: &mut OrgTx,
    of: EndOf,
    reason: &str,
    now: DateTime<Utc>,
) -> Result<Vec<tidegate_model::AgentId>> {
    let deadline = now + Options::seconds(core.options.stop_deadline_seconds);
    Ok(session_end::end_all(tx, EndAll { of, reason: reason.to_owned(), deadline, now }).await?)
}

pub(crate) async fn update_in(
    tx: &mut OrgTx,
    change: UpdateOrganizationRequest,
    now: DateTime<Utc>,
) -> Result<Organization> {
    let before = organization::find(tx).await.named("organization")?;
    organization::update(tx, change, now).await?;
    let after = organization::find(tx).await?;
    let detail = json!({"before": shown(&before), "after": shown(&after)});
    audit::insert_org(tx, entry("organization.update", &after.name, detail, now)).await?;
    Ok(after)
}

pub(crate) async fn transfer_in(
    tx: &mut OrgTx,
    before: &Organization,
    to: UserId,
    now: DateTime<Utc>,
) -> Result<Organization> {
    let member = membership::find(tx, to).await.named(format_args!("member {to}"))?;
    if !member.active {
        return Err(conflict("E_USER_INACTIVE", "this member is deactivated and cannot own anything"));
    }
    if !organization::transfer(tx, before.owner_user_id, to, now).await? {
        return Err(conflict("E_OWNER_CHANGED", "somebody else has given the organization away meanwhile"));
    }
    membership::put(tx, to, OrgRole::Admin, now).await?;
    let detail = json!({"before": {"ownerUserId": before.owner_user_id}, "after": {"ownerUserId": to}});
    audit::insert_org(tx, entry("organization.transfer", &before.name, detail, now)).await?;
    Ok(organization::find(tx).await?)
}

pub(crate) async fn delete_in(
    core: &Core,
    tx: &mut OrgTx,
    before: &Organization,
    now: DateTime<Utc>,
) -> Result<Vec<tidegate_model::AgentId>> {
    let agents = end_sessions_in(core, tx, EndOf::Organization, "the organization was deleted", now).await?;
    organization::delete(tx, now).await.named("organization")?;
    installed_plugin::forget_store(tx).await?;
    application::remove_all(tx, now).await?;
    let detail = json!({"before": {"status": before.status}, "after": {"status": "deleted"}});
    audit::insert_org(tx, entry("organization.delete", &before.name, detail, now)).await?;
    Ok(agents)
}

/// What the audit log says of an organization that is made.
pub(crate) fn shown_new(new: &NewOrganization) -> Value {
    let request = &new.request;
    json!({
        "name": request.name, "displayName": request.display_name, "description": request.description,
        "k8sNamespace": request.k8s_namespace, "ownerUserId": new.owner,
    })
}

/// What the audit log says of an organization that changes.
pub(crate) fn shown(org: &Organization) -> Value {
    json!({"displayName": org.display_name, "description": org.description, "k8sNamespace": org.k8s_namespace})
}

pub(crate) fn conflict(code: &'static str, message: &str) -> Error {
    Error::Conflict { code, message: message.to_owned() }
}

pub(crate) fn entry(action: &'static str, name: &str, detail: Value, at: DateTime<Utc>) -> audit::Entry {
    audit::Entry { action, resource: format!("organization:{name}"), address: None, detail, at }
}
