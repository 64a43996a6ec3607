//! Which groups may do what with an application. Who is in a group is in those above it, too, as shares count them.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tidegate_model::{
    APPLICATION_GROUPS, AccessLevel, AddGroupAccessRequest, ApplicationGroupAccess, ApplicationId, GroupId,
};
use tidegate_persistence::{OrgScope, OrgTx, application, group};

use super::{Applications, audit_in, changeable_in, looking, managed_in};
use crate::{Error, Idempotency, Replay, Result, error::Named, organizations::conflict};

/// What giving a group access did.
#[derive(Debug, Clone, PartialEq)]
pub enum ChangedAccess {
    /// It had none.
    New(ApplicationGroupAccess),
    /// It had some, and has this now.
    Changed(ApplicationGroupAccess),
    /// The kept answer to an earlier request with the same key.
    Replay(Replay),
}

impl Applications {
    /// The groups that may do something with an application, by name; for those who may change it.
    pub async fn groups(&self, scope: &OrgScope, id: ApplicationId) -> Result<Vec<ApplicationGroupAccess>> {
        let right = looking(scope, scope.role());
        self.0
            .db
            .in_org(scope, async |tx| {
                changeable_in(tx, id, right).await?;
                Ok(application::groups(tx, id, None).await?)
            })
            .await
    }

    /// One of them.
    pub async fn group(
        &self,
        scope: &OrgScope,
        id: ApplicationId,
        group: GroupId,
    ) -> Result<ApplicationGroupAccess> {
        let right = looking(scope, scope.role());
        self.0
            .db
            .in_org(scope, async |tx| {
                changeable_in(tx, id, right).await?;
                application::find_group(tx, id, group).await.named(access_of(id, group))
            })
            .await
    }

    /// Lets a group do something with an application; a repeat gives the level.
    pub async fn add_group(
        &self,
        scope: &OrgScope,
        id: ApplicationId,
        request: AddGroupAccessRequest,
        idempotency: Option<&Idempotency>,
        answer: impl Fn(&ApplicationGroupAccess) -> Value + Send + Sync,
    ) -> Result<ChangedAccess> {
        let AddGroupAccessRequest { group_id, access_level } = request;
        let now = self.0.clock.now();
        self.0
            .db
            .in_org_locked(scope, async |tx, locked| {
                let role = locked.named("organization")?.role;
                if let Some(key) = idempotency
                    && let Some(replay) = key.find_in(tx, now).await?
                {
                    return Ok(ChangedAccess::Replay(replay));
                }
                managed_in(tx, scope, role, id, looking(scope, role)).await?;
                group::find(tx, group_id).await.named(format_args!("group {group_id}"))?;
                let there = application::groups(tx, id, None).await?;
                let before = there.iter().find(|access| access.group_id == group_id);
                if before.is_none() && there.len() >= APPLICATION_GROUPS {
                    let message = format!(
                        "the application has {APPLICATION_GROUPS} groups already: give access to a group above some of them"
                    );
                    return Err(conflict("E_TOO_MANY_GROUPS", &message));
                }
                let (new, after) =
                    put_in(tx, id, (group_id, access_level), before.map(|it| it.access_level), now).await?;
                if let Some(key) = idempotency {
                    key.keep_in(tx, if new { 201 } else { 200 }, answer(&after), now).await?;
                }
                Ok(if new { ChangedAccess::New(after) } else { ChangedAccess::Changed(after) })
            })
            .await
    }

    /// Gives a group that has access another level.
    pub async fn set_group(
        &self,
        scope: &OrgScope,
        id: ApplicationId,
        group: GroupId,
        level: AccessLevel,
    ) -> Result<ApplicationGroupAccess> {
        let now = self.0.clock.now();
        self.0
            .db
            .in_org_locked(scope, async |tx, locked| {
                let role = locked.named("organization")?.role;
                managed_in(tx, scope, role, id, looking(scope, role)).await?;
                let before = application::find_group(tx, id, group).await.named(access_of(id, group))?;
                Ok(put_in(tx, id, (group, level), Some(before.access_level), now).await?.1)
            })
            .await
    }

    /// Takes a group's access away: from then on its members start nothing of it.
    pub async fn remove_group(&self, scope: &OrgScope, id: ApplicationId, group: GroupId) -> Result<()> {
        let now = self.0.clock.now();
        self.0
            .db
            .in_org_locked(scope, async |tx, locked| {
                let role = locked.named("organization")?.role;
                managed_in(tx, scope, role, id, looking(scope, role)).await?;
                let before = application::find_group(tx, id, group).await.named(access_of(id, group))?;
                application::remove_group(tx, id, group).await?;
                let detail = json!({"before": shown(&before)});
                audit_in(tx, "application.group.remove", id, detail, now).await
            })
            .await
    }
}

async fn put_in(
    tx: &mut OrgTx,
    id: ApplicationId,
    (group, level): (GroupId, AccessLevel),
    before: Option<AccessLevel>,
    now: DateTime<Utc>,
) -> Result<(bool, ApplicationGroupAccess)> {
    let new = application::put_group(tx, id, (group, level), now).await?;
    let after = application::find_group(tx, id, group).await?;
    let action = if new { "application.group.add" } else { "application.group.change" };
    let mut detail = json!({"after": shown(&after)});
    if let Some(level) = before {
        detail["before"] = json!({"groupId": group, "accessLevel": level});
    }
    audit_in(tx, action, id, detail, now).await?;
    Ok::<_, Error>((new, after))
}

fn access_of(id: ApplicationId, group: GroupId) -> String {
    format!("access of group {group} to application {id}")
}

fn shown(access: &ApplicationGroupAccess) -> Value {
    json!({"groupId": access.group_id, "group": access.group_name, "accessLevel": access.access_level})
}
