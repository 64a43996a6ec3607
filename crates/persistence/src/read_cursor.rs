//! How far members have read pipes. A row stands before its consumer does, and goes before it: what it leaves for NATS takes
//! the consumer away.

use chrono::{DateTime, Utc};
use diesel::sql_types::{Array, BigInt, Nullable, Text, Timestamptz, Uuid};
use diesel_async::RunQueryDsl;
use tidegate_model::{SourceId, UserId};

use crate::{OrgTx, Result, statement::statement};

/// A place in a pipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadCursor {
    /// The source.
    pub source_id: SourceId,
    /// The pipe.
    pub pipe: String,
    /// Of which stream: another one begins anew. None before it is known.
    pub incarnation: Option<DateTime<Utc>>,
    /// The last message that was taken; 0 before the first.
    pub sequence: i64,
    /// When it was written down.
    pub at: DateTime<Utc>,
}

type Columns = (Uuid, Text, Nullable<Timestamptz>, BigInt, Timestamptz);
type Row = (SourceId, String, Option<DateTime<Utc>>, i64, DateTime<Utc>);

fn cursor((source_id, pipe, incarnation, sequence, at): Row) -> ReadCursor {
    ReadCursor { source_id, pipe, incarnation, sequence, at }
}

/// Writes down how far a member is. It never goes back within one stream, and a stream that was made before the known one
/// changes nothing. Says whether it moved.
pub async fn put(tx: &mut OrgTx, user: UserId, cursor: ReadCursor) -> Result<bool> {
    let org = tx.org_id();
    let moved = statement::<()>(
        "INSERT INTO read_cursors AS c (org_id, user_id, source_id, pipe, incarnation, sequence, at) VALUES (?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (org_id, source_id, pipe, user_id) DO UPDATE
         SET incarnation = EXCLUDED.incarnation, sequence = EXCLUDED.sequence, at = EXCLUDED.at
         WHERE EXCLUDED.incarnation IS NOT NULL AND (c.incarnation IS NULL OR c.incarnation < EXCLUDED.incarnation
            OR (c.incarnation = EXCLUDED.incarnation AND c.sequence < EXCLUDED.sequence))",
    )
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(user)
    .bind::<Uuid, _>(cursor.source_id)
    .bind::<Text, _>(cursor.pipe)
    .bind::<Nullable<Timestamptz>, _>(cursor.incarnation)
    .bind::<BigInt, _>(cursor.sequence)
    .bind::<Timestamptz, _>(cursor.at)
    .execute(tx.conn()?)
    .await?;
    Ok(moved == 1)
}

/// Moves a place that is there to where its reader says to be: never back within one stream, and never into one that was
/// made before the known one. A place that is gone stays so, because the right to read went with it. Says whether it moved.
pub async fn advance(tx: &mut OrgTx, user: UserId, cursor: ReadCursor) -> Result<bool> {
    let org = tx.org_id();
    let moved = statement::<()>(
        "UPDATE read_cursors c SET incarnation = ?, sequence = ?, at = ?
         WHERE c.org_id = ? AND c.source_id = ? AND c.pipe = ? AND c.user_id = ?
           AND (c.incarnation IS NULL OR c.incarnation < ? OR (c.incarnation = ? AND c.sequence < ?))",
    )
    .bind::<Nullable<Timestamptz>, _>(cursor.incarnation)
    .bind::<BigInt, _>(cursor.sequence)
    .bind::<Timestamptz, _>(cursor.at)
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(cursor.source_id)
    .bind::<Text, _>(cursor.pipe)
    .bind::<Uuid, _>(user)
    .bind::<Nullable<Timestamptz>, _>(cursor.incarnation)
    .bind::<Nullable<Timestamptz>, _>(cursor.incarnation)
    .bind::<BigInt, _>(cursor.sequence)
    .execute(tx.conn()?)
    .await?;
    Ok(moved == 1)
}

/// Sets a place back that lies beyond the end of its stream, which came back from a backup: to `sequence`, unless it has
/// moved since it was looked at. Says whether it did.
pub async fn set_back(tx: &mut OrgTx, user: UserId, known: &ReadCursor, sequence: i64) -> Result<bool> {
    let org = tx.org_id();
    let moved = statement::<()>(
        "UPDATE read_cursors c SET sequence = ?
         WHERE c.org_id = ? AND c.source_id = ? AND c.pipe = ? AND c.user_id = ? AND c.incarnation = ? AND c.sequence = ?",
    )
    .bind::<BigInt, _>(sequence)
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(known.source_id)
    .bind::<Text, _>(known.pipe.clone())
    .bind::<Uuid, _>(user)
    .bind::<Nullable<Timestamptz>, _>(known.incarnation)
    .bind::<BigInt, _>(known.sequence)
    .execute(tx.conn()?)
    .await?;
    Ok(moved == 1)
}

/// The end of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamEnd {
    /// The source.
    pub source_id: SourceId,
    /// The pipe.
    pub pipe: String,
    /// Which stream.
    pub incarnation: DateTime<Utc>,
    /// Its last message; 0 before the first.
    pub last: i64,
}

/// Places that lie beyond the end of their stream, and whose they are.
pub async fn beyond(tx: &mut OrgTx, ends: Vec<StreamEnd>) -> Result<Vec<(UserId, ReadCursor)>> {
    type Columns = (Uuid, (Uuid, Text, Nullable<Timestamptz>, BigInt, Timestamptz));
    let org = tx.org_id();
    let (mut sources, mut pipes, mut incarnations, mut lasts) = (vec![], vec![], vec![], vec![]);
    for StreamEnd { source_id, pipe, incarnation, last } in ends {
        sources.push(source_id);
        pipes.push(pipe);
        incarnations.push(incarnation);
        lasts.push(last);
    }
    let rows: Vec<(UserId, Row)> = statement::<Columns>(
        "SELECT c.user_id, c.source_id, c.pipe, c.incarnation, c.sequence, c.at
         FROM unnest(?::uuid[], ?::text[], ?::timestamptz[], ?::bigint[]) AS e (source_id, pipe, incarnation, last)
         JOIN read_cursors c ON c.org_id = ? AND c.source_id = e.source_id AND c.pipe = e.pipe
         WHERE c.incarnation = e.incarnation AND c.sequence > e.last",
    )
    .bind::<Array<Uuid>, _>(sources)
    .bind::<Array<Text>, _>(pipes)
    .bind::<Array<Timestamptz>, _>(incarnations)
    .bind::<Array<BigInt>, _>(lasts)
    .bind::<Uuid, _>(org)
    .load(tx.conn()?)
    .await?;
    Ok(rows.into_iter().map(|(user, row)| (user, cursor(row))).collect())
}

/// Where a member is in a pipe.
pub async fn find(tx: &mut OrgTx, user: UserId, source: SourceId, pipe: &str) -> Result<Option<ReadCursor>> {
    let org = tx.org_id();
    let rows: Vec<Row> = statement::<Columns>(
        "SELECT c.source_id, c.pipe, c.incarnation, c.sequence, c.at FROM read_cursors c
         WHERE c.org_id = ? AND c.source_id = ? AND c.pipe = ? AND c.user_id = ?",
    )
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(source)
    .bind::<Text, _>(pipe.to_owned())
    .bind::<Uuid, _>(user)
    .load(tx.conn()?)
    .await?;
    Ok(rows.into_iter().next().map(cursor))
}

/// Ends the places of those who may not read there any more, in one source or in all, and with each its consumer. Gives how
/// many.
pub async fn end_unreadable(tx: &mut OrgTx, source: Option<SourceId>) -> Result<usize> {
    let org = tx.org_id();
    // Who is below which group is found once for all, and not for each place.
    Ok(statement::<()>(
        "WITH RECURSIVE up (user_id, id) AS (
            SELECT m.user_id, m.group_id FROM group_memberships m WHERE m.org_id = ?
            UNION SELECT up.user_id, p.parent_id FROM groups p JOIN up ON up.id = p.id WHERE p.org_id = ? AND p.parent_id IS NOT NULL)
         DELETE FROM read_cursors c USING sources s
         WHERE c.org_id = ? AND s.org_id = c.org_id AND s.id = c.source_id AND c.user_id <> s.created_by
           AND (?::uuid IS NULL OR c.source_id = ?)
           AND (c.pipe IN ('inbox', 'stdin', 'stdctrl') OR NOT EXISTS (
                SELECT 1 FROM source_grants g WHERE g.org_id = c.org_id AND g.source_id = c.source_id AND g.allows = 'read'
                  AND (g.user_id = c.user_id OR (g.user_id IS NULL AND g.group_id IS NULL)
                       OR (c.user_id, g.group_id) IN (SELECT up.user_id, up.id FROM up))))",
    )
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(org)
    .bind::<Nullable<Uuid>, _>(source)
    .bind::<Nullable<Uuid>, _>(source)
    .execute(tx.conn()?)
    .await?)
}

/// Whose places there are in the pipes of some sources.
pub async fn readers(tx: &mut OrgTx, sources: Vec<SourceId>) -> Result<Vec<(SourceId, String, UserId)>> {
    let org = tx.org_id();
    Ok(statement::<(Uuid, Text, Uuid)>(
        "SELECT c.source_id, c.pipe, c.user_id FROM read_cursors c WHERE c.org_id = ? AND c.source_id = ANY (?)",
    )
    .bind::<Uuid, _>(org)
    .bind::<Array<Uuid>, _>(sources)
    .load(tx.conn()?)
    .await?)
}
