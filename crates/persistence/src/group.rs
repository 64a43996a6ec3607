//! Groups and who is in them.

use chrono::{DateTime, Utc};
use diesel::sql_types::{BigInt, Bool, Nullable, Text, Timestamptz, Uuid};
use diesel_async::RunQueryDsl;
use tidegate_model::{
    CreateGroupRequest, Group, GroupId, GroupMembership, GroupMembershipId, GroupRole, GroupType, OrgId,
    PatchField, UpdateGroupRequest, UserId,
};

use crate::{Error, OrgTx, Result, statement::statement};

type Columns = (Uuid, Uuid, Text, Text, Text, Text, Nullable<Uuid>, BigInt, Timestamptz, Timestamptz);
type Row =
    (GroupId, OrgId, String, String, String, GroupType, Option<GroupId>, i64, DateTime<Utc>, DateTime<Utc>);

fn group(row: Row) -> Group {
    let (id, org_id, name, display_name, description, kind, parent_id, member_count, created_at, updated_at) =
        row;
    Group {
        id,
        org_id,
        name,
        display_name,
        description,
        kind,
        parent_id,
        member_count,
        created_at,
        updated_at,
        quota: None,
    }
}

/// A group of the organization.
pub async fn find(tx: &mut OrgTx, id: GroupId) -> Result<Group> {
    let org = tx.org_id();
    let rows: Vec<Row> = statement::<Columns>(
        "SELECT g.id, g.org_id, g.name, g.display_name, g.description, g.type, g.parent_id,
                (SELECT count(*) FROM group_memberships m WHERE m.org_id = g.org_id AND m.group_id = g.id), g.created_at, g.updated_at
         FROM groups g WHERE g.org_id = ? AND g.id = ?",
    )
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(id)
    .load(tx.conn()?)
    .await?;
    rows.into_iter().next().map(group).ok_or(Error::NotFound)
}

/// The group of this name.
pub async fn find_named(tx: &mut OrgTx, name: &str) -> Result<GroupId> {
    let org = tx.org_id();
    let rows: Vec<GroupId> = statement::<Uuid>("SELECT id FROM groups WHERE org_id = ? AND name = ?")
        .bind::<Uuid, _>(org)
        .bind::<Text, _>(name.to_owned())
        .load(tx.conn()?)
        .await?;
    rows.into_iter().next().ok_or(Error::NotFound)
}

/// Groups by name from the one after `after` on, with how many there are on all pages.
pub async fn list(tx: &mut OrgTx, after: &str, limit: i64) -> Result<(Vec<Group>, i64)> {
    let org = tx.org_id();
    let conn = tx.conn()?;
    let rows: Vec<Row> = statement::<Columns>(
        "SELECT g.id, g.org_id, g.name, g.display_name, g.description, g.type, g.parent_id,
                (SELECT count(*) FROM group_memberships m WHERE m.org_id = g.org_id AND m.group_id = g.id), g.created_at, g.updated_at
         FROM groups g WHERE g.org_id = ? AND g.name > ? ORDER BY g.name LIMIT ?",
    )
    .bind::<Uuid, _>(org)
    .bind::<Text, _>(after.to_owned())
    .bind::<BigInt, _>(limit)
    .load(conn)
    .await?;
    let total: Vec<i64> =
        statement::<BigInt>("SELECT count(*) FROM (SELECT 1 FROM groups WHERE org_id = ? LIMIT 10001) g")
            .bind::<Uuid, _>(org)
            .load(conn)
            .await?;
    Ok((rows.into_iter().map(group).collect(), total.into_iter().next().unwrap_or(0)))
}

/// Makes a group; a name that is taken is a violation.
pub async fn insert(tx: &mut OrgTx, id: GroupId, new: CreateGroupRequest, now: DateTime<Utc>) -> Result<()> {
    let org = tx.org_id();
    statement::<()>(
        "INSERT INTO groups (id, org_id, name, display_name, description, type, parent_id, created_at, updated_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind::<Uuid, _>(id)
    .bind::<Uuid, _>(org)
    .bind::<Text, _>(new.name)
    .bind::<Text, _>(new.display_name)
    .bind::<Text, _>(new.description)
    .bind::<Text, _>(new.kind)
    .bind::<Nullable<Uuid>, _>(new.parent_id)
    .bind::<Timestamptz, _>(now)
    .bind::<Timestamptz, _>(now)
    .execute(tx.conn()?)
    .await?;
    Ok(())
}

/// Changes what is given. Whether a new parent would close a circle is to be asked of [`lineage`] first, under the
/// organization's lock.
pub async fn update(
    tx: &mut OrgTx,
    id: GroupId,
    change: UpdateGroupRequest,
    now: DateTime<Utc>,
) -> Result<()> {
    let org = tx.org_id();
    let (moves, parent) = match change.parent_id {
        PatchField::Absent => (false, None),
        PatchField::Clear => (true, None),
        PatchField::Set(parent) => (true, Some(parent)),
    };
    let changed = statement::<()>(
        "UPDATE groups SET display_name = COALESCE(?, display_name), description = COALESCE(?, description), type = COALESCE(?, type),
                parent_id = CASE WHEN ? THEN ? ELSE parent_id END, updated_at = ? WHERE org_id = ? AND id = ?",
    )
    .bind::<Nullable<Text>, _>(change.display_name)
    .bind::<Nullable<Text>, _>(change.description)
    .bind::<Nullable<Text>, _>(change.kind)
    .bind::<Bool, _>(moves)
    .bind::<Nullable<Uuid>, _>(parent)
    .bind::<Timestamptz, _>(now)
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(id)
    .execute(tx.conn()?)
    .await?;
    if changed == 1 { Ok(()) } else { Err(Error::NotFound) }
}

/// Hangs the children of a group under its own parent.
pub async fn lift_children(tx: &mut OrgTx, id: GroupId, now: DateTime<Utc>) -> Result<usize> {
    let org = tx.org_id();
    Ok(statement::<()>(
        "UPDATE groups c SET parent_id = g.parent_id, updated_at = ? FROM groups g
         WHERE g.org_id = ? AND g.id = ? AND c.org_id = g.org_id AND c.parent_id = g.id",
    )
    .bind::<Timestamptz, _>(now)
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(id)
    .execute(tx.conn()?)
    .await?)
}

/// Deletes a group with its memberships and its quota; one with children stays, which is a fault of the caller's.
pub async fn delete(tx: &mut OrgTx, id: GroupId) -> Result<()> {
    let org = tx.org_id();
    let gone = statement::<()>("DELETE FROM groups WHERE org_id = ? AND id = ?")
        .bind::<Uuid, _>(org)
        .bind::<Uuid, _>(id)
        .execute(tx.conn()?)
        .await?;
    if gone == 1 { Ok(()) } else { Err(Error::NotFound) }
}

/// The names of the groups right below one; at most `limit`.
pub async fn children(tx: &mut OrgTx, id: GroupId, limit: i64) -> Result<Vec<String>> {
    let org = tx.org_id();
    Ok(statement::<Text>("SELECT name FROM groups WHERE org_id = ? AND parent_id = ? ORDER BY name LIMIT ?")
        .bind::<Uuid, _>(org)
        .bind::<Uuid, _>(id)
        .bind::<BigInt, _>(limit)
        .load(tx.conn()?)
        .await?)
}

/// A group and all above it, the lowest first. Empty when there is no such group.
pub async fn lineage(tx: &mut OrgTx, id: GroupId) -> Result<Vec<GroupId>> {
    let org = tx.org_id();
    Ok(statement::<Uuid>(
        "WITH RECURSIVE up (id, parent_id, step) AS (
             SELECT id, parent_id, 1 FROM groups WHERE org_id = ? AND id = ?
             UNION ALL SELECT g.id, g.parent_id, up.step + 1 FROM groups g JOIN up ON g.id = up.parent_id WHERE g.org_id = ? AND up.step < 64)
         SELECT id FROM up ORDER BY step",
    )
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(id)
    .bind::<Uuid, _>(org)
    .load(tx.conn()?)
    .await?)
}

/// How many groups stand on each other from this one down, itself included.
pub async fn height(tx: &mut OrgTx, id: GroupId) -> Result<i64> {
    let org = tx.org_id();
    let rows: Vec<Option<i64>> = statement::<Nullable<BigInt>>(
        "WITH RECURSIVE below (id, step) AS (
             SELECT id, 1::bigint FROM groups WHERE org_id = ? AND id = ?
             UNION ALL SELECT g.id, b.step + 1 FROM groups g JOIN below b ON g.parent_id = b.id WHERE g.org_id = ? AND b.step < 64)
         SELECT max(step) FROM below",
    )
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(id)
    .bind::<Uuid, _>(org)
    .load(tx.conn()?)
    .await?;
    Ok(rows.into_iter().next().flatten().unwrap_or(0))
}

/// The roles of a user in a group and in all above it.
pub async fn roles(tx: &mut OrgTx, id: GroupId, user: UserId) -> Result<Vec<GroupRole>> {
    let org = tx.org_id();
    Ok(statement::<Text>(
        "WITH RECURSIVE up (id) AS (
             SELECT ?::uuid
             UNION SELECT g.parent_id FROM groups g JOIN up ON g.id = up.id WHERE g.org_id = ? AND g.parent_id IS NOT NULL)
         SELECT m.role FROM group_memberships m JOIN up ON up.id = m.group_id WHERE m.org_id = ? AND m.user_id = ?",
    )
    .bind::<Uuid, _>(id)
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(user)
    .load(tx.conn()?)
    .await?)
}

type MemberColumns = (Uuid, Uuid, Text, Uuid, Text, Text, Timestamptz);
type MemberRow = (GroupMembershipId, GroupId, String, UserId, String, GroupRole, DateTime<Utc>);

fn membership((id, group_id, group_name, user_id, username, role, created_at): MemberRow) -> GroupMembership {
    GroupMembership { id, group_id, group_name, user_id, username, role, created_at }
}

/// Somebody in a group.
pub async fn find_member(tx: &mut OrgTx, id: GroupId, user: UserId) -> Result<GroupMembership> {
    let org = tx.org_id();
    let rows: Vec<MemberRow> = statement::<MemberColumns>(
        "SELECT m.id, g.id, g.name, u.id, u.username, m.role, m.created_at
         FROM group_memberships m JOIN groups g ON g.org_id = m.org_id AND g.id = m.group_id JOIN users u ON u.id = m.user_id
         WHERE m.org_id = ? AND m.group_id = ? AND m.user_id = ?",
    )
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(id)
    .bind::<Uuid, _>(user)
    .load(tx.conn()?)
    .await?;
    rows.into_iter().next().map(membership).ok_or(Error::NotFound)
}

/// Who is in a group in joining order, from the one after `after` on, with how many there are on all pages.
pub async fn members(
    tx: &mut OrgTx,
    id: GroupId,
    after: Option<(DateTime<Utc>, UserId)>,
    limit: i64,
) -> Result<(Vec<GroupMembership>, i64)> {
    let org = tx.org_id();
    let (at, user) = after.unzip();
    let conn = tx.conn()?;
    let rows: Vec<MemberRow> = statement::<MemberColumns>(
        "SELECT m.id, g.id, g.name, u.id, u.username, m.role, m.created_at
         FROM group_memberships m JOIN groups g ON g.org_id = m.org_id AND g.id = m.group_id JOIN users u ON u.id = m.user_id
         WHERE m.org_id = ? AND m.group_id = ?
           AND (m.created_at, m.user_id) > (COALESCE(?, '-infinity'), COALESCE(?, '00000000-0000-0000-0000-000000000000'))
         ORDER BY m.created_at, m.user_id LIMIT ?",
    )
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(id)
    .bind::<Nullable<Timestamptz>, _>(at)
    .bind::<Nullable<Uuid>, _>(user)
    .bind::<BigInt, _>(limit)
    .load(conn)
    .await?;
    let total: Vec<i64> = statement::<BigInt>(
        "SELECT count(*) FROM (SELECT 1 FROM group_memberships WHERE org_id = ? AND group_id = ? LIMIT 10001) m",
    )
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(id)
    .load(conn)
    .await?;
    Ok((rows.into_iter().map(membership).collect(), total.into_iter().next().unwrap_or(0)))
}

/// The groups that a user is in, by name from the one after `after` on, with how many there are on all pages.
pub async fn of_user(
    tx: &mut OrgTx,
    user: UserId,
    after: &str,
    limit: i64,
) -> Result<(Vec<GroupMembership>, i64)> {
    let org = tx.org_id();
    let conn = tx.conn()?;
    let rows: Vec<MemberRow> = statement::<MemberColumns>(
        "SELECT m.id, g.id, g.name, u.id, u.username, m.role, m.created_at
         FROM group_memberships m JOIN groups g ON g.org_id = m.org_id AND g.id = m.group_id JOIN users u ON u.id = m.user_id
         WHERE m.org_id = ? AND m.user_id = ? AND g.name > ? ORDER BY g.name LIMIT ?",
    )
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(user)
    .bind::<Text, _>(after.to_owned())
    .bind::<BigInt, _>(limit)
    .load(conn)
    .await?;
    let total: Vec<i64> = statement::<BigInt>(
        "SELECT count(*) FROM (SELECT 1 FROM group_memberships WHERE org_id = ? AND user_id = ? LIMIT 10001) m",
    )
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(user)
    .load(conn)
    .await?;
    Ok((rows.into_iter().map(membership).collect(), total.into_iter().next().unwrap_or(0)))
}

/// The groups that a user is in, by name; at most `limit`.
pub async fn ids_of_user(tx: &mut OrgTx, user: UserId, limit: i64) -> Result<Vec<GroupId>> {
    let org = tx.org_id();
    let ids = statement::<Uuid>(
        "SELECT g.id FROM group_memberships m JOIN groups g ON g.org_id = m.org_id AND g.id = m.group_id
         WHERE m.org_id = ? AND m.user_id = ? ORDER BY g.name LIMIT ?",
    );
    Ok(ids.bind::<Uuid, _>(org).bind::<Uuid, _>(user).bind::<BigInt, _>(limit).load(tx.conn()?).await?)
}

/// Puts a member of the organization into a group, or gives somebody in it another role.
pub async fn put_member(
    tx: &mut OrgTx,
    id: GroupId,
    user: UserId,
    role: GroupRole,
    now: DateTime<Utc>,
) -> Result<()> {
    let org = tx.org_id();
    statement::<()>(
        "INSERT INTO group_memberships (id, org_id, group_id, user_id, role, created_at) VALUES (?, ?, ?, ?, ?, ?)
         ON CONFLICT (org_id, group_id, user_id) DO UPDATE SET role = EXCLUDED.role",
    )
    .bind::<Uuid, _>(GroupMembershipId::new())
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(id)
    .bind::<Uuid, _>(user)
    .bind::<Text, _>(role)
    .bind::<Timestamptz, _>(now)
    .execute(tx.conn()?)
    .await?;
    Ok(())
}

/// Takes somebody out of a group.
pub async fn remove_member(tx: &mut OrgTx, id: GroupId, user: UserId) -> Result<()> {
    let org = tx.org_id();
    let gone =
        statement::<()>("DELETE FROM group_memberships WHERE org_id = ? AND group_id = ? AND user_id = ?")
            .bind::<Uuid, _>(org)
            .bind::<Uuid, _>(id)
            .bind::<Uuid, _>(user)
            .execute(tx.conn()?)
            .await?;
    if gone == 1 { Ok(()) } else { Err(Error::NotFound) }
}
