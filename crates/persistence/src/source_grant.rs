//! Who may do what with a source beside its creator.

use chrono::{DateTime, Utc};
use diesel::sql_types::{Array, BigInt, Nullable, Text, Timestamptz, Uuid};
use diesel_async::RunQueryDsl;
use tidegate_model::{GroupId, SourceGrant, SourceGrantId, SourceId, SourceRight, UserId};

use crate::{Error, OrgTx, Result, statement::statement};

/// A right to give.
#[derive(Debug, Clone, Copy)]
pub struct NewGrant {
    /// The id it gets where it is new.
    pub id: SourceGrantId,
    /// The source.
    pub source_id: SourceId,
    /// The member it is for.
    pub user_id: Option<UserId>,
    /// The group it is for; with neither it is for everyone.
    pub group_id: Option<GroupId>,
    /// What they may do.
    pub right: SourceRight,
    /// The present.
    pub now: DateTime<Utc>,
}

type Columns =
    (Uuid, Uuid, Nullable<Uuid>, Nullable<Text>, Nullable<Uuid>, Nullable<Text>, Text, Uuid, Timestamptz);
type Row = (
    SourceGrantId,
    SourceId,
    Option<UserId>,
    Option<String>,
    Option<GroupId>,
    Option<String>,
    SourceRight,
    UserId,
    DateTime<Utc>,
);

fn grant((id, source_id, user_id, user, group_id, group, right, granted_by, created_at): Row) -> SourceGrant {
    let everyone = user_id.is_none() && group_id.is_none();
    SourceGrant { id, source_id, user_id, user, group_id, group, everyone, right, granted_by, created_at }
}

/// Gives a right by whoever opened the transaction. False where it was given before.
pub async fn insert(tx: &mut OrgTx, new: NewGrant) -> Result<bool> {
    let (org, giver) = (tx.org_id(), tx.user_id()?);
    let made = statement::<()>(
        "INSERT INTO source_grants (id, org_id, source_id, user_id, group_id, allows, granted_by, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT ON CONSTRAINT source_grants_key DO NOTHING",
    )
    .bind::<Uuid, _>(new.id)
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(new.source_id)
    .bind::<Nullable<Uuid>, _>(new.user_id)
    .bind::<Nullable<Uuid>, _>(new.group_id)
    .bind::<Text, _>(new.right)
    .bind::<Uuid, _>(giver)
    .bind::<Timestamptz, _>(new.now)
    .execute(tx.conn()?)
    .await?;
    Ok(made == 1)
}

/// The grants of a source, the oldest first; at most `limit`.
pub async fn list(tx: &mut OrgTx, source: SourceId, limit: i64) -> Result<Vec<SourceGrant>> {
    let org = tx.org_id();
    let rows: Vec<Row> = statement::<Columns>(
        "SELECT r.id, r.source_id, r.user_id, u.username, r.group_id, g.name, r.allows, r.granted_by, r.created_at
         FROM source_grants r LEFT JOIN users u ON u.id = r.user_id LEFT JOIN groups g ON g.org_id = r.org_id AND g.id = r.group_id
         WHERE r.org_id = ? AND r.source_id = ? ORDER BY r.created_at, r.id LIMIT ?",
    )
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(source)
    .bind::<BigInt, _>(limit)
    .load(tx.conn()?)
    .await?;
    Ok(rows.into_iter().map(grant).collect())
}

/// Takes a right away. Readers who had it by nothing else are to be looked for with [`crate::read_cursor::end_unreadable`].
pub async fn delete(tx: &mut OrgTx, source: SourceId, id: SourceGrantId) -> Result<()> {
    let org = tx.org_id();
    let gone = statement::<()>("DELETE FROM source_grants WHERE org_id = ? AND source_id = ? AND id = ?")
        .bind::<Uuid, _>(org)
        .bind::<Uuid, _>(source)
        .bind::<Uuid, _>(id)
        .execute(tx.conn()?)
        .await?;
    if gone == 1 { Ok(()) } else { Err(Error::NotFound) }
}

/// What a member may do with some sources of others, by grants at this moment.
pub async fn rights(
    tx: &mut OrgTx,
    user: UserId,
    sources: Vec<SourceId>,
) -> Result<Vec<(SourceId, SourceRight)>> {
    let org = tx.org_id();
    Ok(statement::<(Uuid, Text)>(
        "SELECT r.source_id, r.allows FROM source_rights(?, ?) r WHERE r.source_id = ANY (?) ORDER BY 1, 2",
    )
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(user)
    .bind::<Array<Uuid>, _>(sources)
    .load(tx.conn()?)
    .await?)
}

/// Pipes of others that a member may write to by a grant, with their sources' handles.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteTargets {
    /// The first of them: one of each creator in turn, of each the oldest source's first, so that nobody's sources crowd
    /// out what others gave.
    pub first: Vec<(String, String)>,
    /// How many there are.
    pub all: i64,
}

/// Every pipe of others that a member may write to by a grant; at most `limit` are listed.
pub async fn write_targets(tx: &mut OrgTx, user: UserId, limit: i64) -> Result<WriteTargets> {
    let org = tx.org_id();
    let rows: Vec<(String, String, i64)> = statement::<(Text, Text, BigInt)>(
        "SELECT w.handle, w.pipe, w.total FROM (
            SELECT s.handle, t.pipe, s.created_at, count(*) OVER () AS total,
                   row_number() OVER (PARTITION BY s.created_by ORDER BY s.created_at, s.handle, t.pipe) AS turn
            FROM source_rights(?, ?) r JOIN sources s ON s.org_id = ? AND s.id = r.source_id
            CROSS JOIN LATERAL (
                SELECT unnest(ARRAY['stdin', 'stdctrl']) AS pipe WHERE r.allows = 'type' AND s.kind = 'pty'
                UNION ALL SELECT p.name FROM pipes p WHERE r.allows = 'write' AND p.org_id = s.org_id AND p.source_id = s.id) t
            WHERE s.created_by <> ?) w
         ORDER BY w.turn, w.created_at, w.handle, w.pipe LIMIT ?",
    )
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(user)
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(user)
    .bind::<BigInt, _>(limit)
    .load(tx.conn()?)
    .await?;
    let all = rows.as_slice().first().map_or(0, |row| row.2);
    Ok(WriteTargets { first: rows.into_iter().map(|(handle, pipe, _)| (handle, pipe)).collect(), all })
}

/// Whom a grant is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grantee {
    /// Every member.
    Everyone,
    /// A group, with those below it.
    Group(GroupId),
    /// One member.
    User(UserId),
}

/// Who was given the right to write to a source's pipes.
pub async fn writers(tx: &mut OrgTx, source: SourceId) -> Result<Vec<Grantee>> {
    let org = tx.org_id();
    let rows: Vec<(Option<UserId>, Option<GroupId>)> = statement::<(Nullable<Uuid>, Nullable<Uuid>)>(
        "SELECT user_id, group_id FROM source_grants WHERE org_id = ? AND source_id = ? AND allows = 'write'",
    )
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(source)
    .load(tx.conn()?)
    .await?;
    let grantee = |row| match row {
        (Some(user), _) => Grantee::User(user),
        (None, Some(group)) => Grantee::Group(group),
        (None, None) => Grantee::Everyone,
    };
    Ok(rows.into_iter().map(grantee).collect())
}

/// How many pipes of one creator's sources may be written to by grants to anybody; counted to `limit`.
pub async fn count_writable(tx: &mut OrgTx, creator: UserId, limit: i64) -> Result<i64> {
    let org = tx.org_id();
    let rows: Vec<i64> = statement::<BigInt>(
        "SELECT count(*) FROM (
            SELECT DISTINCT s.id, t.pipe FROM sources s JOIN source_grants g ON g.org_id = s.org_id AND g.source_id = s.id
            CROSS JOIN LATERAL (
                SELECT unnest(ARRAY['stdin', 'stdctrl']) AS pipe WHERE g.allows = 'type' AND s.kind = 'pty'
                UNION ALL SELECT p.name FROM pipes p WHERE g.allows = 'write' AND p.org_id = s.org_id AND p.source_id = s.id) t
            WHERE s.org_id = ? AND s.created_by = ? LIMIT ?) w",
    )
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(creator)
    .bind::<BigInt, _>(limit)
    .load(tx.conn()?)
    .await?;
    Ok(rows.into_iter().next().unwrap_or(0))
}

/// How many pipes of one creator's sources somebody may write to by grants: this member, or whoever is in the group, or
/// anybody, and has no other grants. Counted to `limit`.
pub async fn count_writable_by(tx: &mut OrgTx, creator: UserId, grantee: Grantee, limit: i64) -> Result<i64> {
    let org = tx.org_id();
    let (user, group) = match grantee {
        Grantee::Everyone => (None, None),
        Grantee::Group(group) => (None, Some(group)),
        Grantee::User(user) => (Some(user), None),
    };
    let rows: Vec<i64> = statement::<BigInt>(
        "WITH RECURSIVE up (id) AS (
            SELECT ?::uuid WHERE ?::uuid IS NOT NULL
            UNION SELECT m.group_id FROM group_memberships m WHERE m.org_id = ? AND m.user_id = ?
            UNION SELECT p.parent_id FROM groups p JOIN up ON up.id = p.id WHERE p.org_id = ? AND p.parent_id IS NOT NULL)
         SELECT count(*) FROM (
            SELECT DISTINCT s.id, t.pipe FROM sources s JOIN source_grants g ON g.org_id = s.org_id AND g.source_id = s.id
                AND ((g.user_id IS NULL AND g.group_id IS NULL) OR g.user_id = ? OR g.group_id IN (SELECT up.id FROM up))
            CROSS JOIN LATERAL (
                SELECT unnest(ARRAY['stdin', 'stdctrl']) AS pipe WHERE g.allows = 'type' AND s.kind = 'pty'
                UNION ALL SELECT p.name FROM pipes p WHERE g.allows = 'write' AND p.org_id = s.org_id AND p.source_id = s.id) t
            WHERE s.org_id = ? AND s.created_by = ? LIMIT ?) w",
    )
    .bind::<Nullable<Uuid>, _>(group)
    .bind::<Nullable<Uuid>, _>(group)
    .bind::<Uuid, _>(org)
    .bind::<Nullable<Uuid>, _>(user)
    .bind::<Uuid, _>(org)
    .bind::<Nullable<Uuid>, _>(user)
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(creator)
    .bind::<BigInt, _>(limit)
    .load(tx.conn()?)
    .await?;
    Ok(rows.into_iter().next().unwrap_or(0))
}
