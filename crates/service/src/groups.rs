//! Groups of an organization's members. Rights reach down: an admin of a group manages the groups below it too. Every
//! change holds the organization's lock, so that two of them together close no circle.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tidegate_model::{
    CreateGroupRequest, GROUP_DEPTH, Group, GroupId, GroupMembership, GroupRole, Operation, OrgRole,
    PatchField, UpdateGroupRequest,
};
use tidegate_persistence::{OrgScope, OrgTx, audit, group, quota};

use crate::{
    Core, Error, Idempotency, Listed, Nudge, Paging, Replay, Result,
    error::Named,
    organizations::conflict,
    permissions::{require, standing},
    quotas::group_in,
};

/// Groups of an organization's members.
#[derive(Debug, Clone)]
pub struct Groups(pub(crate) Arc<Core>);

/// What asking for a group gave.
#[derive(Debug, Clone, PartialEq)]
pub enum MadeGroup {
    /// A new one.
    New(Box<Group>),
    /// The kept answer to an earlier request with the same key.
    Replay(Replay),
}

/// What putting somebody into a group did.
#[derive(Debug, Clone, PartialEq)]
pub enum GroupAdded {
    /// They are new in it.
    New(GroupMembership),
    /// They were in it, and have the role now.
    Changed(GroupMembership),
    /// The kept answer to an earlier request with the same key.
    Replay(Replay),
}

/// What becomes of the children of a group that is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChildrenOf {
    /// They keep it from being deleted.
    Keep,
    /// They hang under its own parent from then on.
    Lift,
}

/// Children named in a refusal.
const NAMED: i64 = 10;

impl Groups {
    /// Makes a group: at the top for `org_admin`s, below a group for its admins too.
    pub async fn create(
        &self,
        scope: &OrgScope,
        request: CreateGroupRequest,
        idempotency: Option<&Idempotency>,
        answer: impl Fn(&Group) -> Value + Send + Sync,
    ) -> Result<MadeGroup> {
        let (id, now) = (GroupId::new(), self.0.clock.now());
        self.0
            .db
            .in_org_locked(scope, async |tx, locked| {
                let locked = locked.named("organization")?;
                if let Some(key) = idempotency
                    && let Some(replay) = key.find_in(tx, now).await?
                {
                    return Ok(MadeGroup::Replay(replay));
                }
                may_place_in(tx, scope, locked.role, request.parent_id).await?;
                if let Some(parent) = request.parent_id {
                    check_depth(group::lineage(tx, parent).await?.len(), 1)?;
                }
                let shown =
                    json!({"name": request.name, "type": request.kind, "parentId": request.parent_id});
                group::insert(tx, id, request, now).await?;
                audit_in(tx, "group.create", id, json!({"after": shown}), now).await?;
                let made = group::find(tx, id).await?;
                if let Some(key) = idempotency {
                    key.keep_in(tx, 201, answer(&made), now).await?;
                }
                Ok(MadeGroup::New(Box::new(made)))
            })
            .await
    }

    /// The organization's groups by name.
    pub async fn list(&self, scope: &OrgScope, paging: &Paging) -> Result<Listed<Group>> {
        require(Operation::ReadGroups, standing(scope, scope.role()))?;
        let (after, rows) = (paging.after()?.unwrap_or_default(), paging.rows());
        let (items, total) = self.0.db.in_org(scope, async |tx| group::list(tx, &after, rows).await).await?;
        Ok(paging.page(items, total, |group| group.name.clone()))
    }

    /// One group, with its quota where one is set.
    pub async fn get(&self, scope: &OrgScope, id: GroupId) -> Result<Group> {
        require(Operation::ReadGroups, standing(scope, scope.role()))?;
        self.0
            .db
            .in_org(scope, async |tx| {
                let mut found = group::find(tx, id).await.named(format_args!("group {id}"))?;
                if quota::of_group(tx, id).await?.is_some() {
                    found.quota = Some(group_in(tx, id).await?);
                }
                Ok(found)
            })
            .await
    }

    /// Changes a group. Moved, it leaves what its old parent's quota sums up: that takes rights over both places.
    pub async fn update(&self, scope: &OrgScope, id: GroupId, change: UpdateGroupRequest) -> Result<Group> {
        let now = self.0.clock.now();
        self.0
            .db
            .in_org_locked(scope, async |tx, locked| {
                let locked = locked.named("organization")?;
                let before = group::find(tx, id).await.named(format_args!("group {id}"))?;
                manage_in(tx, scope, locked.role, id).await?;
                move_in(tx, scope, locked.role, &before, &change.parent_id).await?;
                group::update(tx, id, change, now).await?;
                let after = group::find(tx, id).await?;
                let detail = json!({"before": shown(&before), "after": shown(&after)});
                audit_in(tx, "group.update", id, detail, now).await?;
                Ok(after)
            })
            .await
    }

    /// Ends a group with its memberships and its quota. Children are never deleted with it.
    pub async fn delete(&self, scope: &OrgScope, id: GroupId, children: ChildrenOf) -> Result<()> {
        let now = self.0.clock.now();
        self.0
            .db
            .in_org_locked(scope, async |tx, locked| {
                let locked = locked.named("organization")?;
                let before = group::find(tx, id).await.named(format_args!("group {id}"))?;
                if role_in(tx, scope, locked.role, id).await? != Some(GroupRole::Owner) {
                    return Err(Error::Forbidden("this needs an owner of the group, or an org_admin".into()));
                }
                quota_allows_in(tx, scope, locked.role, id).await?;
                let below = group::children(tx, id, NAMED).await?;
                match children {
                    ChildrenOf::Keep if !below.is_empty() => return Err(has_children(&before, &below)),
                    ChildrenOf::Keep => {}
                    ChildrenOf::Lift => drop(group::lift_children(tx, id, now).await?),
                }
                group::delete(tx, id).await?;
                let detail = json!({"before": shown(&before), "childrenLifted": below});
                audit_in(tx, "group.delete", id, detail, now).await
            })
            .await?;
        // Whoever watches a session that was shared with it is looked at again.
        self.0.nudges.send(Nudge::Revalidate);
        Ok(())
    }
}

/// Refuses to change who is bounded by a quota, of the group or of one above it: that loosens or tightens what others may
/// use, and is for those who set quotas.
pub(crate) async fn quota_allows_in(
    tx: &mut OrgTx,
    scope: &OrgScope,
    role: OrgRole,
    id: GroupId,
) -> Result<()> {
    if Operation::ManageQuotas.allows(standing(scope, role)) || !quota::bounds_group(tx, id).await? {
        return Ok(());
    }
    let who = Operation::ManageQuotas.who();
    Err(Error::Forbidden(format!(
        "a quota bounds this group, so who is in it is not its own to say: this needs {who}"
    )))
}

/// The caller's role in a group, be it by a role in one above it: `org_admin`s own every group.
pub(crate) async fn role_in(
    tx: &mut OrgTx,
    scope: &OrgScope,
    role: OrgRole,
    id: GroupId,
) -> Result<Option<GroupRole>> {
    if Operation::ManageGroups.allows(standing(scope, role)) {
        return Ok(Some(GroupRole::Owner));
    }
    // Declared from the most to the least.
    Ok(group::roles(tx, id, scope.user_id()).await?.into_iter().min())
}

/// The caller's role in a group that they manage.
pub(crate) async fn manage_in(
    tx: &mut OrgTx,
    scope: &OrgScope,
    role: OrgRole,
    id: GroupId,
) -> Result<GroupRole> {
    role_in(tx, scope, role, id)
        .await?
        .filter(|role| role.manages())
        .ok_or_else(|| Error::Forbidden("this needs an admin or owner of the group, or an org_admin".into()))
}

/// Whether the caller may put a group there.
async fn may_place_in(
    tx: &mut OrgTx,
    scope: &OrgScope,
    role: OrgRole,
    parent: Option<GroupId>,
) -> Result<()> {
    let Some(parent) = parent else { return require(Operation::ManageGroups, standing(scope, role)) };
    group::find(tx, parent).await.named(format_args!("group {parent}"))?;
    manage_in(tx, scope, role, parent).await.map(drop)
}

/// Whether a group may hang under another parent: rights over both, no circle, not too deep.
async fn move_in(
    tx: &mut OrgTx,
    scope: &OrgScope,
    role: OrgRole,
    group: &Group,
    to: &PatchField<GroupId>,
) -> Result<()> {
    let to = match to {
        PatchField::Absent => return Ok(()),
        PatchField::Clear => None,
        PatchField::Set(parent) => Some(*parent),
    };
    if to == group.parent_id {
        return Ok(());
    }
    may_place_in(tx, scope, role, to).await?;
    if let Some(from) = group.parent_id {
        manage_in(tx, scope, role, from).await?;
    }
    let Some(parent) = to else { return Ok(()) };
    let above = group::lineage(tx, parent).await?;
    if above.contains(&group.id) {
        let message =
            format!("group {} would stand above itself: choose a parent that is not below it", group.name);
        return Err(conflict("E_GROUP_CYCLE", &message));
    }
    check_depth(above.len(), group::height(tx, group.id).await?)
}

fn check_depth(above: usize, height: i64) -> Result<()> {
    if i64::try_from(above).unwrap_or(i64::MAX).saturating_add(height) <= GROUP_DEPTH {
        return Ok(());
    }
    let message =
        format!("groups stand on each other {GROUP_DEPTH} deep at most: choose a parent further up");
    Err(conflict("E_GROUP_DEPTH", &message))
}

fn has_children(group: &Group, below: &[String]) -> Error {
    let more = if below.len() == usize::try_from(NAMED).unwrap_or(0) { ", …" } else { "" };
    let message = format!(
        "group {} has groups below it: {}{more}; move or delete them first, or delete it with children=lift",
        group.name,
        below.join(", ")
    );
    conflict("E_GROUP_HAS_CHILDREN", &message)
}

fn shown(group: &Group) -> Value {
    json!({"name": group.name, "displayName": group.display_name, "description": group.description,
           "type": group.kind, "parentId": group.parent_id})
}

pub(crate) async fn audit_in(
    tx: &mut OrgTx,
    action: &'static str,
    id: GroupId,
    detail: Value,
    at: DateTime<Utc>,
) -> Result<()> {
    let resource = format!("group:{id}");
    Ok(audit::insert_org(tx, audit::Entry { action, resource, address: None, detail, at }).await?)
}
