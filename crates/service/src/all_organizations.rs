//! What operators see of all organizations and the platform's admins do to them. Each act stands in the platform's own
//! log and in the organization's.

use std::sync::Arc;

use serde_json::{Value, json};
use tidegate_model::{
    CreateOrganizationRequest, FieldErrors, Operation, OrgId, OrgRole, OrgStatus, Organization,
    UpdateOrganizationRequest, UserId,
};
use tidegate_persistence::{
    OrgTx, PlatformTx, audit, membership,
    organization::{self, NewOrganization},
    user, user_change,
};

use crate::{
    Caller, Core, Error, Idempotency, Listed, Made, Nudge, Paging, Result,
    error::Named,
    organizations::{conflict, delete_in, entry, shown, shown_new, transfer_in},
    permissions::require_platform,
};

/// Every organization of the platform.
#[derive(Debug, Clone)]
pub struct AllOrganizations(pub(crate) Arc<Core>);

impl AllOrganizations {
    /// Organizations by name.
    pub async fn list(&self, caller: &Caller, paging: &Paging) -> Result<Listed<Organization>> {
        let operator = require_platform(Operation::ReadAllOrganizations, caller)?;
        let (after, rows) = (paging.after()?.unwrap_or_default(), paging.rows());
        let listed =
            self.0.db.in_platform(&operator, async |tx| organization::list_all(tx, &after, rows).await);
        let (items, total) = listed.await?;
        Ok(paging.page(items, total, |organization| organization.name.clone()))
    }

    /// One organization.
    pub async fn get(&self, caller: &Caller, id: OrgId) -> Result<Organization> {
        let operator = require_platform(Operation::ReadAllOrganizations, caller)?;
        let found = self.0.db.in_platform(&operator, async |tx| organization::find_any(tx, id).await);
        found.await.named(format_args!("organization {id}"))
    }

    /// Makes an organization for somebody else, who owns it.
    pub async fn create(
        &self,
        caller: &Caller,
        request: CreateOrganizationRequest,
        owner: &str,
        idempotency: Option<&Idempotency>,
        answer: impl Fn(&Organization) -> Value + Send + Sync,
    ) -> Result<Made<Organization>> {
        let operator = require_platform(Operation::ManageAllOrganizations, caller)?;
        let (id, now, name) = (OrgId::new(), self.0.clock.now(), request.name.clone());
        let made = self
            .0
            .db
            .in_platform(&operator, async |tx| {
                if let Some(key) = idempotency
                    && let Some(replay) = key.find_operators_in(tx, now).await?
                {
                    return Ok(Made::Replay(replay));
                }
                let owner_id = user::find_id(tx, owner).await.named(format_args!("user {owner}"))?;
                if !user_change::hold(tx, owner_id).await? {
                    let message = format!("{owner} is deactivated and cannot own anything");
                    return Err(conflict("E_USER_INACTIVE", &message));
                }
                let new = NewOrganization { id, request, owner: Some(owner_id), now };
                let detail = json!({"after": shown_new(&new)});
                organization::insert(tx, new).await?;
                membership::put_for_platform(tx, id, owner_id, OrgRole::Admin, now).await?;
                audit_in(tx, id, entry("organization.create", &name, detail, now)).await?;
                let made = organization::find_any(tx, id).await?;
                if let Some(key) = idempotency {
                    key.keep_operators_in(tx, 201, answer(&made), now).await?;
                }
                Ok::<_, Error>(Made::New(made))
            })
            .await;
        match (made, idempotency) {
            // A racer with the same key was faster: its answer is there now.
            (Err(lost @ Error::Conflict { .. }), Some(key)) => {
                let find = async |tx: &mut PlatformTx| key.find_operators_in(tx, now).await;
                self.0.db.in_platform(&operator, find).await?.map(Made::Replay).ok_or(lost)
            }
            (made, _) => made,
        }
    }

    /// Changes an organization, its status too: suspended, nobody gets in and no session starts; deleted is final, and
    /// nothing else is changed with it.
    pub async fn update(
        &self,
        caller: &Caller,
        id: OrgId,
        change: UpdateOrganizationRequest,
    ) -> Result<Organization> {
        let operator = require_platform(Operation::ManageAllOrganizations, caller)?;
        if change.status == Some(OrgStatus::Deleted) {
            ends_alone(&change)?;
            return self.end(caller, id).await;
        }
        let now = self.0.clock.now();
        let after = self
            .0
            .db
            .in_platform(&operator, async |tx| {
                let before = organization::lock_any(tx, id).await.named(format_args!("organization {id}"))?;
                organization::update_any(tx, id, change, now).await?;
                let after = organization::find_any(tx, id).await?;
                let (old, new) = (shown(&before), shown(&after));
                if old != new {
                    let detail = json!({"before": old, "after": new});
                    audit_in(tx, id, entry("organization.update", &after.name, detail, now)).await?;
                }
                if before.status != after.status {
                    let detail =
                        json!({"before": {"status": before.status}, "after": {"status": after.status}});
                    audit_in(tx, id, entry("organization.status", &after.name, detail, now)).await?;
                }
                Ok::<_, Error>(after)
            })
            .await?;
        self.0.nudges.send(Nudge::Revalidate);
        Ok(after)
    }

    /// Gives an organization, which may be nobody's, to one of its members.
    pub async fn transfer(&self, caller: &Caller, id: OrgId, to: UserId) -> Result<Organization> {
        let now = self.0.clock.now();
        self.inside(caller, id, async |tx| {
            let before = organization::lock_own(tx).await.named(format_args!("organization {id}"))?;
            transfer_in(tx, &before, to, now).await
        })
        .await
    }

    /// Ends an organization, as its owner could.
    pub async fn delete(&self, caller: &Caller, id: OrgId) -> Result<()> {
        self.end(caller, id).await.map(drop)
    }

    /// The same, and what is left of it.
    async fn end(&self, caller: &Caller, id: OrgId) -> Result<Organization> {
        let (core, now) = (&self.0, self.0.clock.now());
        let (before, agents) = self
            .inside(caller, id, async |tx| {
                let before = organization::lock_own(tx).await.named(format_args!("organization {id}"))?;
                let agents = delete_in(core, tx, &before, now).await?;
                Ok((before, agents))
            })
            .await?;
        core.ended(agents);
        Ok(Organization { status: OrgStatus::Deleted, updated_at: now, ..before })
    }

    /// Does something inside an organization of others, as an admin of it would.
    async fn inside<T>(
        &self,
        caller: &Caller,
        id: OrgId,
        work: impl AsyncFnOnce(&mut OrgTx) -> Result<T>,
    ) -> Result<T> {
        let operator = require_platform(Operation::ManageAllOrganizations, caller)?;
        let enter = async |tx: &mut PlatformTx| {
            organization::enter(tx, &caller.user, id).await.named(format_args!("organization {id}"))
        };
        self.0.db.in_org_of_others(&operator, enter, work).await
    }
}

/// What an organization is called does not matter any more when it ends.
fn ends_alone(change: &UpdateOrganizationRequest) -> Result<()> {
    let mut errors = FieldErrors::new();
    for (name, given) in [
        ("displayName", change.display_name.is_some()),
        ("description", change.description.is_some()),
        ("k8sNamespace", change.k8s_namespace.is_some()),
    ] {
        if given {
            errors.add(name, "cannot be changed when the organization ends: leave it out");
        }
    }
    errors.into_result().map_err(Error::Invalid)
}

/// A line of the platform's log and of the organization's.
async fn audit_in(tx: &mut PlatformTx, id: OrgId, line: audit::Entry) -> Result<()> {
    audit::insert_platform_about(tx, id, line.clone()).await?;
    Ok(audit::insert_platform(tx, line).await?)
}
