//! Quotas of every organization, as operators set them: members' by username, and the ceilings of organizations. Each
//! act stands in the platform's own log and in the organization's.

use std::sync::Arc;

use serde_json::json;
use tidegate_model::{
    ListedQuota, Operation, OrgId, OrganizationQuota, QuotaLimits, SetQuotaRequest, UserId, UserQuota,
};
use tidegate_persistence::{OrgTx, PlatformTx, audit, membership, organization, quota};

use crate::{
    Caller, Core, Error, Idempotency, Listed, Made, Paging, Result,
    error::Named,
    members::Person,
    permissions::require_platform,
    quotas::{limits_json, organization_in, reset_user_in, set_user_in, user_in},
};

/// Quotas of every organization.
#[derive(Debug, Clone)]
pub struct PlatformQuotas(pub(crate) Arc<Core>);

impl PlatformQuotas {
    /// Members who have a quota of their own, by name and organization.
    pub async fn list(&self, caller: &Caller, paging: &Paging) -> Result<Listed<ListedQuota>> {
        let operator = require_platform(Operation::ManageAllQuotas, caller)?;
        let after = paging.after()?.map(|text| read_cursor(&text)).transpose()?;
        let rows = paging.rows();
        let core = &self.0;
        let listed =
            core.db.in_platform(&operator, async |tx| quota::list_all(tx, after, rows).await).await?;
        let page =
            paging.page(listed.0, listed.1, |it| format!("{} {}", it.username.to_lowercase(), it.org_id));
        let mut items = Vec::new();
        for quota::Listed { org_id, organization, user_id, .. } in page.items {
            // Usage is an organization's to count; one that has just ended, or a member who left, is left out.
            match self.find(caller, org_id, user_id).await {
                Ok(quota) => items.push(ListedQuota { organization, quota }),
                Err(Error::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let (total, total_is_exact) = (page.total, page.total_is_exact);
        Ok(Listed { items, total, total_is_exact, next_cursor: page.next_cursor })
    }

    /// A member's quota: in the organization named by id or name, else in the one they own or joined first.
    pub async fn of_user(&self, caller: &Caller, username: &str, org: Option<&str>) -> Result<UserQuota> {
        let (org, user) = self.whose(caller, username, org).await?;
        self.find(caller, org, user).await
    }

    /// Sets a member's quota, as far as it is given.
    pub async fn set_user(
        &self,
        caller: &Caller,
        username: &str,
        org: Option<&str>,
        request: SetQuotaRequest,
        idempotency: Option<&Idempotency>,
    ) -> Result<Made<UserQuota>> {
        let core = &self.0;
        let now = core.clock.now();
        let (org, user) = self.whose(caller, username, org).await?;
        self.inside(caller, org, async |tx| {
            // Under the lock: of two requests with one key the second finds the answer of the first.
            organization::lock_own(tx).await.named(format_args!("organization {org}"))?;
            if let Some(key) = idempotency
                && let Some(replay) = key.find_in(tx, now).await?
            {
                return Ok(Made::Replay(replay));
            }
            let member = membership::find(tx, user).await.named(Person::Named(username.to_owned()))?;
            let quota = set_user_in(core, tx, member, &request).await?;
            if let Some(key) = idempotency {
                key.keep_in(tx, 200, json!(quota), now).await?;
            }
            Ok(Made::New(quota))
        })
        .await
    }

    /// Gives a member the default again.
    pub async fn reset_user(&self, caller: &Caller, username: &str, org: Option<&str>) -> Result<()> {
        let core = &self.0;
        let (org, user) = self.whose(caller, username, org).await?;
        self.inside(caller, org, async |tx| {
            organization::lock_own(tx).await.named(format_args!("organization {org}"))?;
            let member = membership::find(tx, user).await.named(Person::Named(username.to_owned()))?;
            reset_user_in(core, tx, &member).await
        })
        .await
    }

    /// An organization's quota under its ceiling, with what it uses.
    pub async fn of_organization(&self, caller: &Caller, org: OrgId) -> Result<OrganizationQuota> {
        self.inside(caller, org, async |tx| organization_in(tx).await).await
    }

    /// Sets an organization's ceiling, as far as it is given.
    pub async fn set_ceiling(
        &self,
        caller: &Caller,
        org: OrgId,
        request: SetQuotaRequest,
    ) -> Result<OrganizationQuota> {
        if request.username.is_some() {
            let complaint = "belongs to the quotas of users: the path says whose ceiling it is";
            return Err(Error::Invalid(tidegate_model::FieldErrors::one("username", complaint)));
        }
        self.change_ceiling(caller, org, "quota.ceiling", |before| request.over(before)).await?;
        self.of_organization(caller, org).await
    }

    /// Takes an organization's ceiling away; its own quota stays.
    pub async fn reset_ceiling(&self, caller: &Caller, org: OrgId) -> Result<()> {
        self.change_ceiling(caller, org, "quota.ceiling.reset", |_| QuotaLimits::UNLIMITED).await
    }

    async fn change_ceiling(
        &self,
        caller: &Caller,
        org: OrgId,
        action: &'static str,
        change: impl FnOnce(QuotaLimits) -> QuotaLimits,
    ) -> Result<()> {
        let operator = require_platform(Operation::ManageAllQuotas, caller)?;
        let now = self.0.clock.now();
        self.0
            .db
            .in_platform(&operator, async |tx| {
                let before = quota::lock_ceiling(tx, org).await.named(format_args!("organization {org}"))?;
                let after = change(before);
                if after != before {
                    quota::set_ceiling(tx, org, after, now).await?;
                    let detail = json!({"before": limits_json(before), "after": limits_json(after)});
                    let resource = format!("organization:{org}");
                    let entry = audit::Entry { action, resource, address: None, detail, at: now };
                    audit::insert_platform(tx, entry.clone()).await?;
                    audit::insert_platform_about(tx, org, entry).await?;
                }
                Ok(())
            })
            .await
    }

    async fn find(&self, caller: &Caller, org: OrgId, user: UserId) -> Result<UserQuota> {
        let core = &self.0;
        self.inside(caller, org, async |tx| {
            let member = membership::find(tx, user).await.named(format_args!("user {user}"))?;
            user_in(core, tx, member).await
        })
        .await
    }

    async fn whose(&self, caller: &Caller, username: &str, org: Option<&str>) -> Result<(OrgId, UserId)> {
        let operator = require_platform(Operation::ManageAllQuotas, caller)?;
        let what = Person::Named(username.to_owned());
        if username.contains('\0') || org.is_some_and(|org| org.contains('\0')) {
            return Err(Error::not_found(what));
        }
        let found = self.0.db.in_platform(&operator, async |tx| quota::whose(tx, username, org).await).await;
        match org {
            Some(org) => {
                let org: String = org.chars().filter(|c| !c.is_control()).take(64).collect();
                found.named(format_args!("{what} in organization {org}"))
            }
            None => found.named(what),
        }
    }

    /// Does something inside an organization of others. What is changed there stands in both logs.
    async fn inside<T>(
        &self,
        caller: &Caller,
        org: OrgId,
        work: impl AsyncFnOnce(&mut OrgTx) -> Result<T>,
    ) -> Result<T> {
        let operator = require_platform(Operation::ManageAllQuotas, caller)?;
        let enter = async |tx: &mut PlatformTx| {
            organization::enter(tx, &caller.user, org).await.named(format_args!("organization {org}"))
        };
        self.0.db.in_org_of_others(&operator, enter, work).await
    }
}

fn read_cursor(text: &str) -> Result<(String, OrgId)> {
    let read = || {
        let (name, org) = text.rsplit_once(' ')?;
        Some((name.to_owned(), org.parse().ok()?))
    };
    read().ok_or_else(crate::page::bad_cursor)
}
