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

/// Every pipe of others that a member may write to by a grant, with its source's handle, in their order; at most `limit`.
pub async fn write_targets(tx: &mut OrgTx, user: UserId, limit: i64) -> Result<Vec<(String, String)>> {
    let org = tx.org_id();
    Ok(statement::<(Text, Text)>(
        "SELECT DISTINCT s.handle, t.pipe FROM source_rights(?, ?) r JOIN sources s ON s.org_id = ? AND s.id = r.source_id
         CROSS JOIN LATERAL (
            SELECT unnest(ARRAY['stdin', 'stdctrl']) AS pipe WHERE r.allows = 'type' AND s.kind = 'pty'
            UNION ALL SELECT p.name FROM pipes p WHERE r.allows = 'write' AND p.org_id = s.org_id AND p.source_id = s.id) t
         WHERE s.created_by <> ? ORDER BY 1, 2 LIMIT ?",
    )
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(user)
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(user)
    .bind::<BigInt, _>(limit)
    .load(tx.conn()?)
    .await?)
}
