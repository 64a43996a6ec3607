//! Quotas of members, groups and the organization of the scope. Whoever is held by a bound may tighten it and never
//! loosen it: an organization stays under the platform's ceiling, a group's own admins under what was set for it.
//! Every change holds the organization's lock, so that what is being started is counted before or held back after.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tidegate_model::{
    BuiltInTemplate, FieldErrors, GroupId, GroupQuota, Member, Operation, OrganizationQuota,
    OrganizationUsage, PatchField, QuotaCeiling, QuotaCheck, QuotaLimits, QuotaNumbers, QuotaOwner,
    QuotaResource, QuotaVerdict, SetQuotaRequest, Usage, UserId, UserQuota,
};
use tidegate_persistence::{
    OrgScope, OrgTx, audit, group, membership,
    organization::Locked,
    quota::{self, Stored, UNLIMITED},
};

use crate::{
    Core, Error, Result,
    error::Named,
    groups::role_in,
    members::Person,
    permissions::{require, standing},
    room,
};

/// What members, groups and the organization may use.
#[derive(Debug, Clone)]
pub struct Quotas(pub(crate) Arc<Core>);

impl Quotas {
    /// A member's quota with what they use: one's own, or anybody's for those who set it.
    pub async fn of_user(&self, scope: &OrgScope, id: UserId) -> Result<UserQuota> {
        let core = &self.0;
        core.db
            .in_org(scope, async |tx| {
                let member = membership::find(tx, id).await.named(format_args!("user {id}"))?;
                if id != scope.user_id() {
                    may_set(scope, scope.role())?;
                }
                user_in(core, tx, member).await
            })
            .await
    }

    /// Sets a member's quota, as far as it is given.
    pub async fn set_user(
        &self,
        scope: &OrgScope,
        id: UserId,
        request: SetQuotaRequest,
    ) -> Result<UserQuota> {
        let request = without_name(request)?;
        self.change(scope, async |core, tx, locked| {
            let member = membership::find(tx, id).await.named(format_args!("user {id}"))?;
            may_set(scope, locked.role)?;
            set_user_in(core, tx, member, &request).await
        })
        .await
    }

    /// Gives a member the default again.
    pub async fn reset_user(&self, scope: &OrgScope, id: UserId) -> Result<()> {
        self.change(scope, async |core, tx, locked| {
            let member = membership::find(tx, id).await.named(format_args!("user {id}"))?;
            may_set(scope, locked.role)?;
            reset_user_in(core, tx, &member).await
        })
        .await
    }

    /// A group's quota with what its members and those of the groups below it use.
    pub async fn of_group(&self, scope: &OrgScope, id: GroupId) -> Result<GroupQuota> {
        require(Operation::ReadGroups, standing(scope, scope.role()))?;
        self.0
            .db
            .in_org(scope, async |tx| {
                group::find(tx, id).await.named(format_args!("group {id}"))?;
                group_in(tx, id).await
            })
            .await
    }

    /// Sets a group's quota, as far as it is given. Its own admins may only tighten it.
    pub async fn set_group(
        &self,
        scope: &OrgScope,
        id: GroupId,
        request: SetQuotaRequest,
    ) -> Result<GroupQuota> {
        let request = without_name(request)?;
        self.change(scope, async |core, tx, locked| {
            group::find(tx, id).await.named(format_args!("group {id}"))?;
            let before =
                quota::of_group(tx, id).await?.map_or(QuotaLimits::UNLIMITED, |it| QuotaLimits(it.set));
            let after = request.over(before);
            may_set_group_in(tx, scope, &locked, id, after.looser_than(before)).await?;
            if after != before {
                let now = core.clock.now();
                quota::set_group(tx, id, after, now).await?;
                audit_in(tx, "quota.set", format!("group:{id}"), (Some(before), Some(after)), now).await?;
            }
            group_in(tx, id).await
        })
        .await
    }

    /// Takes a group's quota away.
    pub async fn reset_group(&self, scope: &OrgScope, id: GroupId) -> Result<()> {
        self.change(scope, async |core, tx, locked| {
            group::find(tx, id).await.named(format_args!("group {id}"))?;
            let before =
                quota::of_group(tx, id).await?.map_or(QuotaLimits::UNLIMITED, |it| QuotaLimits(it.set));
            may_set_group_in(tx, scope, &locked, id, QuotaLimits::UNLIMITED.looser_than(before)).await?;
            if quota::reset_group(tx, id).await? {
                let (change, now) = ((Some(before), None), core.clock.now());
                audit_in(tx, "quota.reset", format!("group:{id}"), change, now).await?;
            }
            Ok(())
        })
        .await
    }

    /// The organization's quota under the platform's ceiling, with what it uses.
    pub async fn of_organization(&self, scope: &OrgScope) -> Result<OrganizationQuota> {
        require(Operation::ReadGroups, standing(scope, scope.role()))?;
        self.0.db.in_org(scope, async |tx| organization_in(tx).await).await
    }

    /// Sets the organization's own quota, as far as it is given and within the platform's ceiling.
    pub async fn set_organization(
        &self,
        scope: &OrgScope,
        request: SetQuotaRequest,
    ) -> Result<OrganizationQuota> {
        let request = without_name(request)?;
        self.change(scope, async |core, tx, locked| {
            require(Operation::ManageQuotas, standing(scope, locked.role))?;
            let (own, ceiling) = own_and_ceiling_in(tx).await?;
            within(&request, ceiling)?;
            let after = request.over(own);
            if after != own {
                let now = core.clock.now();
                quota::set_organization(tx, after, now).await?;
                let resource = format!("organization:{}", tx.org_id());
                audit_in(tx, "quota.set", resource, (Some(own), Some(after)), now).await?;
            }
            organization_in(tx).await
        })
        .await
    }

    /// Takes the organization's own quota away; the platform's ceiling stays.
    pub async fn reset_organization(&self, scope: &OrgScope) -> Result<()> {
        self.change(scope, async |core, tx, locked| {
            require(Operation::ManageQuotas, standing(scope, locked.role))?;
            let (own, _) = own_and_ceiling_in(tx).await?;
            if !own.is_unlimited() {
                let now = core.clock.now();
                quota::set_organization(tx, QuotaLimits::UNLIMITED, now).await?;
                let resource = format!("organization:{}", tx.org_id());
                audit_in(tx, "quota.reset", resource, (Some(own), None), now).await?;
            }
            Ok(())
        })
        .await
    }

    /// Whether the quotas leave room for such a session at this moment: a dry run, for oneself or, for those who set
    /// quotas, for any member.
    pub async fn check(&self, scope: &OrgScope, check: QuotaCheck) -> Result<QuotaVerdict> {
        let template = check.session.template.as_deref().unwrap_or("shell");
        let shown: String = template.chars().filter(|c| !c.is_control()).take(64).collect();
        let template: BuiltInTemplate =
            template.parse().map_err(|_| Error::not_found(format_args!("template {shown}")))?;
        let resources = check.session.resources.unwrap_or_default();
        let wanted = Usage::of_session(template.resources(resources, check.session.persistent_home));
        let core = &self.0;
        let verdict = core
            .db
            .in_org(scope, async |tx| {
                let owner = whose_in(tx, scope, check.user.as_deref()).await?;
                let bounds = quota::bounds(tx, owner, room::default_bounds(core)).await?;
                room::find_in(tx, &room::resolve(core, bounds), owner, wanted).await
            })
            .await;
        match verdict {
            Ok(_) => Ok(QuotaVerdict { allowed: true, bound: None }),
            Err(Error::QuotaExceeded(bound)) => Ok(QuotaVerdict { allowed: false, bound: Some(*bound) }),
            Err(error) => Err(error),
        }
    }

    /// What there is of the organization and what it uses.
    pub async fn usage(&self, scope: &OrgScope) -> Result<OrganizationUsage> {
        require(Operation::ReadGroups, standing(scope, scope.role()))?;
        self.0
            .db
            .in_org(scope, async |tx| {
                let (states, members, groups) = quota::census(tx).await?;
                let OrganizationQuota { org_id, numbers, .. } = organization_in(tx).await?;
                Ok(OrganizationUsage {
                    org_id,
                    members,
                    groups,
                    sessions: states.into_iter().collect(),
                    numbers,
                })
            })
            .await
    }

    /// A change under the organization's lock.
    async fn change<T>(
        &self,
        scope: &OrgScope,
        work: impl AsyncFnOnce(&Core, &mut OrgTx, Locked) -> Result<T>,
    ) -> Result<T> {
        let core = &self.0;
        core.db
            .in_org_locked(scope, async |tx, locked| work(core, tx, locked.named("organization")?).await)
            .await
    }
}

/// Whether somebody sets quotas of others: `org_admin`s, and operators who are members.
fn may_set(scope: &OrgScope, role: tidegate_model::OrgRole) -> Result<()> {
    let standing = standing(scope, role);
    if Operation::ManageAllQuotas.allows(standing) {
        return Ok(());
    }
    require(Operation::ManageQuotas, standing)
}

async fn may_set_group_in(
    tx: &mut OrgTx,
    scope: &OrgScope,
    locked: &Locked,
    id: GroupId,
    loosened: Option<QuotaResource>,
) -> Result<()> {
    if may_set(scope, locked.role).is_ok() {
        return Ok(());
    }
    let manages = role_in(tx, scope, locked.role, id).await?.is_some_and(tidegate_model::GroupRole::manages);
    match loosened {
        None if manages => Ok(()),
        Some(resource) if manages => Err(Error::Forbidden(format!(
            "an admin of the group may only tighten its quota: more of {resource} is an org_admin's to give"
        ))),
        _ => Err(Error::Forbidden("this needs an admin or owner of the group, or an org_admin".into())),
    }
}

/// `username` belongs to the admin route alone.
fn without_name(request: SetQuotaRequest) -> Result<SetQuotaRequest> {
    if request.username.is_none() {
        return Ok(request);
    }
    let complaint = "belongs to the admin route: the path says whose quota it is";
    Err(Error::Invalid(FieldErrors::one("username", complaint)))
}

/// Whom a dry run is for.
async fn whose_in(tx: &mut OrgTx, scope: &OrgScope, name: Option<&str>) -> Result<UserId> {
    let Some(name) = name.filter(|name| !name.eq_ignore_ascii_case(scope.username())) else {
        return Ok(scope.user_id());
    };
    may_set(scope, scope.role())?;
    let what = Person::Named(name.to_owned());
    let (id, _) = membership::person(tx, None, Some(name.to_owned())).await.named(&what)?;
    membership::find(tx, id).await.named(&what)?;
    Ok(id)
}

pub(crate) async fn user_in(core: &Core, tx: &mut OrgTx, member: Member) -> Result<UserQuota> {
    let stored = quota::of_user(tx, member.user_id).await?;
    let bounds = room::resolve(core, quota::bounds(tx, member.user_id, false).await?);
    let own = bounds.into_iter().find(|bound| bound.owner == QuotaOwner::User);
    let limits = own.map_or(QuotaLimits::UNLIMITED, |bound| bound.limits);
    let used = quota::usage(tx, Some(vec![member.user_id])).await?;
    Ok(UserQuota {
        org_id: tx.org_id(),
        user_id: member.user_id,
        username: member.username,
        numbers: QuotaNumbers::new(limits, used),
        created_at: stored.map(|it| it.created_at),
        updated_at: stored.map(|it| it.updated_at),
    })
}

/// Under the organization's lock.
pub(crate) async fn set_user_in(
    core: &Core,
    tx: &mut OrgTx,
    member: Member,
    request: &SetQuotaRequest,
) -> Result<UserQuota> {
    let before = quota::of_user(tx, member.user_id).await?.map_or([None; 4], |it| it.set);
    let mut after = before;
    for (set, change) in after.iter_mut().zip(&request.limits) {
        match change {
            PatchField::Absent => {}
            PatchField::Clear => *set = Some(UNLIMITED),
            PatchField::Set(value) => *set = Some(*value),
        }
    }
    if after != before {
        let (resource, now) = (format!("user:{}", member.user_id), core.clock.now());
        quota::set_user(tx, member.user_id, after, now).await?;
        // As it was written: what is absent is the default.
        let detail = json!({"before": member_limits(before), "after": member_limits(after)});
        let entry = audit::Entry { action: "quota.set", resource, address: None, detail, at: now };
        audit::insert_org(tx, entry).await?;
    }
    user_in(core, tx, member).await
}

/// Under the organization's lock.
pub(crate) async fn reset_user_in(core: &Core, tx: &mut OrgTx, member: &Member) -> Result<()> {
    let before = quota::of_user(tx, member.user_id).await?;
    if quota::reset_user(tx, member.user_id).await? {
        let resource = format!("user:{}", member.user_id);
        let (detail, at) = (json!({"before": before.map(|it| member_limits(it.set))}), core.clock.now());
        let entry = audit::Entry { action: "quota.reset", resource, address: None, detail, at };
        audit::insert_org(tx, entry).await?;
    }
    Ok(())
}

pub(crate) async fn group_in(tx: &mut OrgTx, id: GroupId) -> Result<GroupQuota> {
    let stored = quota::of_group(tx, id).await?;
    let limits = stored.map_or(QuotaLimits::UNLIMITED, |it| QuotaLimits(it.set));
    let used = quota::group_usage(tx, id).await?;
    Ok(GroupQuota {
        group_id: id,
        numbers: QuotaNumbers::new(limits, used),
        created_at: stored.map(|it| it.created_at),
        updated_at: stored.map(|it| it.updated_at),
    })
}

pub(crate) async fn organization_in(tx: &mut OrgTx) -> Result<OrganizationQuota> {
    let found: Option<(Stored, QuotaLimits)> = quota::of_organization(tx).await?;
    let (own, ceiling) =
        found.map_or_else(Default::default, |(own, ceiling)| (QuotaLimits(own.set), ceiling));
    let used = quota::usage(tx, None).await?;
    Ok(OrganizationQuota {
        org_id: tx.org_id(),
        numbers: QuotaNumbers::new(own.tightest(ceiling), used),
        ceiling: QuotaCeiling(ceiling),
        created_at: found.map(|(own, _)| own.created_at),
        updated_at: found.map(|(own, _)| own.updated_at),
    })
}

async fn own_and_ceiling_in(tx: &mut OrgTx) -> Result<(QuotaLimits, QuotaLimits)> {
    let found = quota::of_organization(tx).await?;
    Ok(found.map_or_else(Default::default, |(own, ceiling)| (QuotaLimits(own.set), ceiling)))
}

/// Names every field that asks for more than the platform allows; `null`, no bound of its own, asks for nothing.
fn within(request: &SetQuotaRequest, ceiling: QuotaLimits) -> Result<()> {
    let mut errors = FieldErrors::new();
    let names = ["maxSessions", "maxCpu", "maxMemory", "maxStorage"];
    for ((name, resource), wanted) in names.into_iter().zip(QuotaResource::ALL).zip(&request.limits) {
        if let (PatchField::Set(wanted), Some(most)) = (wanted, ceiling.get(*resource))
            && *wanted > most
        {
            let most = resource.written(most);
            errors.add(
                name,
                format_args!("must not be more than {most}, which the platform allows the organization"),
            );
        }
    }
    errors.into_result().map_err(Error::Invalid)
}

/// Limits as the audit log shows them.
pub(crate) fn limits_json(limits: QuotaLimits) -> Value {
    json!(QuotaCeiling(limits))
}

fn member_limits(set: [Option<i64>; 4]) -> Value {
    let mut shown = serde_json::Map::new();
    for ((name, resource), set) in
        ["maxSessions", "maxCpu", "maxMemory", "maxStorage"].into_iter().zip(QuotaResource::ALL).zip(set)
    {
        match set {
            None => {}
            Some(UNLIMITED) => drop(shown.insert(name.to_owned(), Value::Null)),
            Some(limit) => drop(shown.insert(name.to_owned(), resource.written(limit).into())),
        }
    }
    Value::Object(shown)
}

async fn audit_in(
    tx: &mut OrgTx,
    action: &'static str,
    resource: String,
    (before, after): (Option<QuotaLimits>, Option<QuotaLimits>),
    at: DateTime<Utc>,
) -> Result<()> {
    let detail = json!({"before": before.map(limits_json), "after": after.map(limits_json)});
    Ok(audit::insert_org(tx, audit::Entry { action, resource, address: None, detail, at }).await?)
}
