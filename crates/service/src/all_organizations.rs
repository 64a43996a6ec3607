//! What operators see of all organizations and the platform's admins do to them. Each act stands in the platform's own
//! log and in the organization's.

use std::sync::Arc;

use serde_json::json;
use tidegate_model::{
    CreateOrganizationRequest, Operation, OrgId, OrgRole, OrgStatus, Organization, UpdateOrganizationRequest,
    UserId,
};
use tidegate_persistence::{
    OrgScope, audit, membership,
    organization::{self, NewOrganization},
    user, user_change,
};

use crate::{
    Caller, Core, Error, Listed, Nudge, Paging, Result,
    error::Named,
    organizations::{conflict, delete_in, entry, transfer_in, update_in},
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
    ) -> Result<Organization> {
        let operator = require_platform(Operation::ManageAllOrganizations, caller)?;
        let (id, now, name) = (OrgId::new(), self.0.clock.now(), request.name.clone());
        self.0
            .db
            .in_platform(&operator, async |tx| {
                let owner_id = user::find_id(tx, owner).await.named(format_args!("user {owner}"))?;
                if !user_change::hold(tx, owner_id).await? {
                    let message = format!("{owner} is deactivated and cannot own anything");
                    return Err(conflict("E_USER_INACTIVE", &message));
                }
                let new = NewOrganization { id, request, owner: Some(owner_id), now };
                organization::insert(tx, new).await?;
                membership::put_for_platform(tx, id, owner_id, OrgRole::Admin, now).await?;
                let detail = json!({"after": {"ownerUserId": owner_id}});
                audit::insert_platform(tx, entry("organization.create", &name, detail.clone(), now)).await?;
                audit::insert_platform_about(tx, id, entry("organization.create", &name, detail, now))
                    .await?;
                Ok::<_, Error>(organization::find_any(tx, id).await?)
            })
            .await
    }

    /// Changes an organization, its status too: suspended, nobody gets in and no session starts; deleted is final.
    pub async fn update(
        &self,
        caller: &Caller,
        id: OrgId,
        change: UpdateOrganizationRequest,
    ) -> Result<Organization> {
        let status = change.status;
        if status == Some(OrgStatus::Deleted) {
            let before = self.get(caller, id).await?;
            self.delete(caller, id).await?;
            return Ok(Organization { status: OrgStatus::Deleted, ..before });
        }
        let (scope, now) = (self.enter(caller, id, "organization.update").await?, self.0.clock.now());
        let plain = UpdateOrganizationRequest { status: None, ..change };
        if plain != UpdateOrganizationRequest::default() {
            self.0.db.in_org(&scope, async |tx| update_in(tx, plain, now).await).await?;
        }
        if let Some(status) = status {
            self.set_status(caller, id, status).await?;
        }
        self.get(caller, id).await
    }

    async fn set_status(&self, caller: &Caller, id: OrgId, status: OrgStatus) -> Result<()> {
        let operator = require_platform(Operation::ManageAllOrganizations, caller)?;
        let now = self.0.clock.now();
        self.0
            .db
            .in_platform(&operator, async |tx| {
                let before = organization::find_any(tx, id).await.named(format_args!("organization {id}"))?;
                organization::set_status(tx, id, status, now).await?;
                let detail = json!({"before": {"status": before.status}, "after": {"status": status}});
                let line = entry("organization.status", &before.name, detail, now);
                Ok::<_, Error>(audit::insert_platform_about(tx, id, line).await?)
            })
            .await?;
        self.0.nudges.send(Nudge::Revalidate);
        Ok(())
    }

    /// Gives an organization, which may be nobody's, to one of its members.
    pub async fn transfer(&self, caller: &Caller, id: OrgId, to: UserId) -> Result<Organization> {
        let (scope, now) = (self.enter(caller, id, "organization.transfer").await?, self.0.clock.now());
        self.0
            .db
            .in_org(&scope, async |tx| {
                let before = organization::lock_own(tx).await.named(format_args!("organization {id}"))?;
                transfer_in(tx, &before, to, now).await
            })
            .await
    }

    /// Ends an organization, as its owner could.
    pub async fn delete(&self, caller: &Caller, id: OrgId) -> Result<()> {
        let (scope, now) = (self.enter(caller, id, "organization.delete").await?, self.0.clock.now());
        let core = &self.0;
        let agents = core
            .db
            .in_org(&scope, async |tx| {
                let before = organization::lock_own(tx).await.named(format_args!("organization {id}"))?;
                delete_in(core, tx, &before, now).await
            })
            .await?;
        core.ended(agents);
        Ok(())
    }

    /// The caller as an admin inside an organization of others, which stands in the platform's log before anything is done.
    async fn enter(&self, caller: &Caller, id: OrgId, action: &'static str) -> Result<OrgScope> {
        let operator = require_platform(Operation::ManageAllOrganizations, caller)?;
        let now = self.0.clock.now();
        self.0
            .db
            .in_platform(&operator, async |tx| {
                let scope = organization::enter(tx, &caller.user, id).await;
                let scope = scope.named(format_args!("organization {id}"))?;
                audit::insert_platform(tx, entry(action, &id.to_string(), json!({}), now)).await?;
                Ok::<_, Error>(scope)
            })
            .await
    }
}
