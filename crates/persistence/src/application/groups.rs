//! The groups that may do something with an application.

use chrono::{DateTime, Utc};
use diesel::sql_types::{Nullable, Text, Timestamptz, Uuid};
use diesel_async::RunQueryDsl;
use tidegate_model::{AccessLevel, ApplicationGroupAccess, ApplicationGroupId, ApplicationId, GroupId};

use crate::{Error, OrgTx, Result, statement::statement};

type GroupColumns = (Uuid, Uuid, Uuid, Text, Timestamptz, Text, Text);
type GroupTuple = (ApplicationGroupId, ApplicationId, GroupId, AccessLevel, DateTime<Utc>, String, String);

fn access(row: GroupTuple) -> ApplicationGroupAccess {
    let (id, application_id, group_id, access_level, created_at, group_name, group_display_name) = row;
    ApplicationGroupAccess {
        id,
        application_id,
        group_id,
        access_level,
        created_at,
        group_name,
        group_display_name,
    }
}

/// The groups that may do something with an application, by name; one of them where it is named.
pub async fn groups(
    tx: &mut OrgTx,
    id: ApplicationId,
    group: Option<GroupId>,
) -> Result<Vec<ApplicationGroupAccess>> {
    let org = tx.org_id();
    let rows: Vec<GroupTuple> = statement::<GroupColumns>(
        "SELECT x.id, x.application_id, x.group_id, x.access_level, x.created_at, g.name, g.display_name
         FROM application_groups x JOIN groups g ON g.org_id = x.org_id AND g.id = x.group_id
         WHERE x.org_id = ? AND x.application_id = ? AND (?::uuid IS NULL OR x.group_id = ?) ORDER BY g.name",
    )
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(id)
    .bind::<Nullable<Uuid>, _>(group)
    .bind::<Nullable<Uuid>, _>(group)
    .load(tx.conn()?)
    .await?;
    Ok(rows.into_iter().map(access).collect())
}

/// One of them.
pub async fn find_group(tx: &mut OrgTx, id: ApplicationId, group: GroupId) -> Result<ApplicationGroupAccess> {
    groups(tx, id, Some(group)).await?.into_iter().next().ok_or(Error::NotFound)
}

/// Lets a group do so much with an application; a repeat gives the level. Says whether it is new.
pub async fn put_group(
    tx: &mut OrgTx,
    id: ApplicationId,
    (group, level): (GroupId, AccessLevel),
    now: DateTime<Utc>,
) -> Result<bool> {
    let (org, new) = (tx.org_id(), ApplicationGroupId::new());
    let rows: Vec<ApplicationGroupId> = statement::<Uuid>(
        "INSERT INTO application_groups (id, org_id, application_id, group_id, access_level, created_at) VALUES (?, ?, ?, ?, ?, ?)
         ON CONFLICT (application_id, group_id) DO UPDATE SET access_level = EXCLUDED.access_level RETURNING id",
    )
    .bind::<Uuid, _>(new)
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(id)
    .bind::<Uuid, _>(group)
    .bind::<Text, _>(level)
    .bind::<Timestamptz, _>(now)
    .load(tx.conn()?)
    .await?;
    Ok(rows == [new])
}

/// Takes a group's access away.
pub async fn remove_group(tx: &mut OrgTx, id: ApplicationId, group: GroupId) -> Result<()> {
    let org = tx.org_id();
    let gone = statement::<()>(
        "DELETE FROM application_groups WHERE org_id = ? AND application_id = ? AND group_id = ?",
    )
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(id)
    .bind::<Uuid, _>(group)
    .execute(tx.conn()?)
    .await?;
    if gone == 1 { Ok(()) } else { Err(Error::NotFound) }
}
