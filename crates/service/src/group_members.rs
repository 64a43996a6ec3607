//! Who is in a group. Nobody gives or takes a role above their own, and a quota sums up whoever is in at the moment.

use serde_json::{Value, json};
use tidegate_model::{AddGroupMemberRequest, GroupId, GroupMembership, GroupRole, Operation, UserId};
use tidegate_persistence::{Error as DbError, OrgScope, OrgTx, group, membership};

use crate::{
    Error, GroupAdded, Groups, Idempotency, Listed, Nudge, Paging, Result,
    error::Named,
    groups::{audit_in, manage_in, quota_allows_in},
    page,
    permissions::{require, standing},
};

impl Groups {
    /// Who is in a group, in joining order.
    pub async fn members(
        &self,
        scope: &OrgScope,
        id: GroupId,
        paging: &Paging,
    ) -> Result<Listed<GroupMembership>> {
        require(Operation::ReadGroups, standing(scope, scope.role()))?;
        let (after, rows) = (paging.after_moment()?, paging.rows());
        let (items, total) = self
            .0
            .db
            .in_org(scope, async |tx| {
                group::find(tx, id).await.named(format_args!("group {id}"))?;
                Ok::<_, Error>(group::members(tx, id, after, rows).await?)
            })
            .await?;
        Ok(paging.page(items, total, |member| page::moment(member.created_at, member.user_id)))
    }

    /// One membership, for requests about it that may be bad in other ways.
    pub async fn member(&self, scope: &OrgScope, id: GroupId, user: UserId) -> Result<GroupMembership> {
        self.0.db.in_org(scope, async |tx| member_in(tx, id, user).await).await
    }

    /// The groups that a member is in, by name: one's own, or anybody's for those who manage groups.
    pub async fn of_user(
        &self,
        scope: &OrgScope,
        user: UserId,
        paging: &Paging,
    ) -> Result<Listed<GroupMembership>> {
        let (after, rows) = (paging.after()?.unwrap_or_default(), paging.rows());
        let (items, total) = self
            .0
            .db
            .in_org(scope, async |tx| {
                membership::find(tx, user).await.named(format_args!("user {user}"))?;
                let standing = standing(scope, scope.role());
                if user != scope.user_id() && !Operation::ManageAllQuotas.allows(standing) {
                    require(Operation::ManageGroups, standing)?;
                }
                Ok::<_, Error>(group::of_user(tx, user, &after, rows).await?)
            })
            .await?;
        Ok(paging.page(items, total, |member| member.group_name.clone()))
    }

    /// Puts a member of the organization into a group; a repeat gives them the role.
    pub async fn add(
        &self,
        scope: &OrgScope,
        id: GroupId,
        request: AddGroupMemberRequest,
    ) -> Result<GroupAdded> {
        self.add_keyed(scope, id, request, None, |_| Value::Null).await
    }

    /// The same for a request that may be a repeat.
    pub async fn add_keyed(
        &self,
        scope: &OrgScope,
        id: GroupId,
        request: AddGroupMemberRequest,
        idempotency: Option<&Idempotency>,
        answer: impl Fn(&GroupMembership) -> Value + Send + Sync,
    ) -> Result<GroupAdded> {
        let AddGroupMemberRequest { user_id: user, role } = request;
        let now = self.0.clock.now();
        self.0
            .db
            .in_org_locked(scope, async |tx, locked| {
                let locked = locked.named("organization")?;
                group::find(tx, id).await.named(format_args!("group {id}"))?;
                let own = manage_in(tx, scope, locked.role, id).await?;
                if let Some(key) = idempotency
                    && let Some(replay) = key.find_in(tx, now).await?
                {
                    return Ok(GroupAdded::Replay(replay));
                }
                match group::find_member(tx, id, user).await {
                    Ok(before) => {
                        let member = self.change_in(tx, own, before, role).await?;
                        if let Some(key) = idempotency {
                            key.keep_in(tx, 200, answer(&member), now).await?;
                        }
                        return Ok(GroupAdded::Changed(member));
                    }
                    Err(DbError::NotFound) => {}
                    Err(error) => return Err(error.into()),
                }
                may_grant(own, role)?;
                quota_allows_in(tx, scope, locked.role, id).await?;
                let member = membership::find(tx, user).await.named(format_args!("user {user}"))?;
                group::put_member(tx, id, user, role, now).await?;
                let detail = json!({"after": {"userId": user, "username": member.username, "role": role}});
                audit_in(tx, "group.member.add", id, detail, now).await?;
                let member = group::find_member(tx, id, user).await?;
                if let Some(key) = idempotency {
                    key.keep_in(tx, 201, answer(&member), now).await?;
                }
                Ok(GroupAdded::New(member))
            })
            .await
    }

    /// Gives somebody in a group another role.
    pub async fn set_role(
        &self,
        scope: &OrgScope,
        id: GroupId,
        user: UserId,
        role: GroupRole,
    ) -> Result<GroupMembership> {
        self.0
            .db
            .in_org_locked(scope, async |tx, locked| {
                let locked = locked.named("organization")?;
                let before = member_in(tx, id, user).await?;
                let own = manage_in(tx, scope, locked.role, id).await?;
                self.change_in(tx, own, before, role).await
            })
            .await
    }

    /// Takes somebody out of a group.
    pub async fn remove(&self, scope: &OrgScope, id: GroupId, user: UserId) -> Result<()> {
        let now = self.0.clock.now();
        self.0
            .db
            .in_org_locked(scope, async |tx, locked| {
                let locked = locked.named("organization")?;
                let before = member_in(tx, id, user).await?;
                may_grant(manage_in(tx, scope, locked.role, id).await?, before.role)?;
                quota_allows_in(tx, scope, locked.role, id).await?;
                group::remove_member(tx, id, user).await?;
                let detail =
                    json!({"before": {"userId": user, "username": before.username, "role": before.role}});
                audit_in(tx, "group.member.remove", id, detail, now).await
            })
            .await?;
        // Whoever watches a session that was shared with the group is looked at again.
        self.0.nudges.send(Nudge::Revalidate);
        Ok(())
    }

    async fn change_in(
        &self,
        tx: &mut OrgTx,
        own: GroupRole,
        before: GroupMembership,
        role: GroupRole,
    ) -> Result<GroupMembership> {
        if before.role == role {
            return Ok(before);
        }
        // What is taken away is held by somebody as much as what is given.
        may_grant(own, before.role)?;
        may_grant(own, role)?;
        let (id, user, now) = (before.group_id, before.user_id, self.0.clock.now());
        group::put_member(tx, id, user, role, now).await?;
        let detail = json!({"before": {"userId": user, "role": before.role}, "after": {"role": role}});
        audit_in(tx, "group.member.set_role", id, detail, now).await?;
        Ok(GroupMembership { role, ..before })
    }
}

async fn member_in(tx: &mut OrgTx, id: GroupId, user: UserId) -> Result<GroupMembership> {
    group::find(tx, id).await.named(format_args!("group {id}"))?;
    group::find_member(tx, id, user).await.named(format_args!("user {user} in group {id}"))
}

fn may_grant(own: GroupRole, role: GroupRole) -> Result<()> {
    if own.may_grant(role) {
        return Ok(());
    }
    Err(Error::Forbidden(format!("an {own} of the group neither gives nor takes the role {role}")))
}
