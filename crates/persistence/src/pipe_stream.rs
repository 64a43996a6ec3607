//! Streams that should be there, one for each pipe that was ever used, and what the broker said of them.

use chrono::{DateTime, Utc};
use diesel::sql_types::{BigInt, Nullable, Text, Timestamptz, Uuid};
use diesel_async::RunQueryDsl;
use tidegate_model::{OrgId, Retention, SourceId, UserId};

use crate::{
    Error, OrgTx, Result,
    statement::{Statement, statement},
};

/// A stream that should be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PipeStream {
    /// The source.
    pub source_id: SourceId,
    /// The pipe.
    pub pipe: String,
    /// Who made the source, and its handle: what the stream's subjects begin with.
    pub creator: UserId,
    /// The source's handle.
    pub handle: String,
    /// What it is to keep.
    pub wanted: Retention,
    /// What the broker said that it keeps; none before it was made.
    pub in_force: Option<InForce>,
}

/// A stream as the broker has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InForce {
    /// What it keeps.
    pub retention: Retention,
    /// When the broker made it.
    pub incarnation: DateTime<Utc>,
}

pub(crate) type Columns = (
    Uuid,
    Text,
    Uuid,
    Text,
    BigInt,
    BigInt,
    BigInt,
    Nullable<BigInt>,
    Nullable<BigInt>,
    Nullable<BigInt>,
    Nullable<Timestamptz>,
);
pub(crate) type Row = (
    SourceId,
    String,
    UserId,
    String,
    i64,
    i64,
    i64,
    Option<i64>,
    Option<i64>,
    Option<i64>,
    Option<DateTime<Utc>>,
);

fn stream(row: Row) -> PipeStream {
    let (
        source_id,
        pipe,
        creator,
        handle,
        ttl_seconds,
        max_msgs,
        max_bytes,
        force_ttl,
        force_msgs,
        force_bytes,
        made,
    ) = row;
    let in_force = match (force_ttl, force_msgs, force_bytes, made) {
        (Some(ttl_seconds), Some(max_msgs), Some(max_bytes), Some(incarnation)) => {
            Some(InForce { retention: Retention { ttl_seconds, max_msgs, max_bytes }, incarnation })
        }
        _ => None,
    };
    let wanted = Retention { ttl_seconds, max_msgs, max_bytes };
    PipeStream { source_id, pipe, creator, handle, wanted, in_force }
}

/// Wants a stream, or another retention of the one that is wanted. False where that was known.
pub async fn want(
    tx: &mut OrgTx,
    source: SourceId,
    pipe: &str,
    wanted: Retention,
    now: DateTime<Utc>,
) -> Result<bool> {
    let org = tx.org_id();
    let changed = statement::<()>(
        "INSERT INTO pipe_streams AS s (org_id, source_id, pipe, ttl_seconds, max_msgs, max_bytes, created_at) VALUES (?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (org_id, source_id, pipe) DO UPDATE
         SET ttl_seconds = EXCLUDED.ttl_seconds, max_msgs = EXCLUDED.max_msgs, max_bytes = EXCLUDED.max_bytes
         WHERE (s.ttl_seconds, s.max_msgs, s.max_bytes) IS DISTINCT FROM (EXCLUDED.ttl_seconds, EXCLUDED.max_msgs, EXCLUDED.max_bytes)",
    )
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(source)
    .bind::<Text, _>(pipe.to_owned())
    .bind::<BigInt, _>(wanted.ttl_seconds)
    .bind::<BigInt, _>(wanted.max_msgs)
    .bind::<BigInt, _>(wanted.max_bytes)
    .bind::<Timestamptz, _>(now)
    .execute(tx.conn()?)
    .await?;
    Ok(changed == 1)
}

/// Notes what the broker has; false where the stream is not wanted any more.
pub async fn note(
    tx: &mut OrgTx,
    source: SourceId,
    pipe: &str,
    found: InForce,
    now: DateTime<Utc>,
) -> Result<bool> {
    let org = tx.org_id();
    let changed = statement::<()>(
        "UPDATE pipe_streams SET force_ttl_seconds = ?, force_max_msgs = ?, force_max_bytes = ?, incarnation = ?, seen_at = ?
         WHERE org_id = ? AND source_id = ? AND pipe = ?",
    )
    .bind::<BigInt, _>(found.retention.ttl_seconds)
    .bind::<BigInt, _>(found.retention.max_msgs)
    .bind::<BigInt, _>(found.retention.max_bytes)
    .bind::<Timestamptz, _>(found.incarnation)
    .bind::<Timestamptz, _>(now)
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(source)
    .bind::<Text, _>(pipe.to_owned())
    .execute(tx.conn()?)
    .await?;
    Ok(changed == 1)
}

/// One of them.
pub async fn find(tx: &mut OrgTx, source: SourceId, pipe: &str) -> Result<PipeStream> {
    let org = tx.org_id();
    let rows: Vec<Row> = statement::<Columns>(
        "SELECT p.source_id, p.pipe, s.created_by, s.handle, p.ttl_seconds, p.max_msgs, p.max_bytes,
                p.force_ttl_seconds, p.force_max_msgs, p.force_max_bytes, p.incarnation
         FROM pipe_streams p JOIN sources s ON s.org_id = p.org_id AND s.id = p.source_id
         WHERE p.org_id = ? AND p.source_id = ? AND p.pipe = ?",
    )
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(source)
    .bind::<Text, _>(pipe.to_owned())
    .load(tx.conn()?)
    .await?;
    first(rows).ok_or(Error::NotFound)
}

pub(crate) fn first(rows: Vec<Row>) -> Option<PipeStream> {
    rows.into_iter().next().map(stream)
}

/// What asks for the stream of a source's pipe by their names: by its whole key, whatever the planner believes of how many there
/// are.
pub(crate) fn by_name(org: OrgId, handle: &str, pipe: &str) -> Statement<Columns> {
    statement::<Columns>(
        "SELECT p.source_id, p.pipe, s.created_by, s.handle, p.ttl_seconds, p.max_msgs, p.max_bytes,
                p.force_ttl_seconds, p.force_max_msgs, p.force_max_bytes, p.incarnation
         FROM pipe_streams p JOIN sources s ON s.org_id = p.org_id AND s.id = p.source_id
         WHERE p.org_id = ? AND p.source_id = (SELECT f.id FROM sources f WHERE f.org_id = ? AND f.handle = ?) AND p.pipe = ?",
    )
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(org)
    .bind::<Text, _>(handle.to_owned())
    .bind::<Text, _>(pipe.to_owned())
}

/// Those of a source.
pub async fn of_source(tx: &mut OrgTx, source: SourceId) -> Result<Vec<PipeStream>> {
    let org = tx.org_id();
    let rows: Vec<Row> = statement::<Columns>(
        "SELECT p.source_id, p.pipe, s.created_by, s.handle, p.ttl_seconds, p.max_msgs, p.max_bytes,
                p.force_ttl_seconds, p.force_max_msgs, p.force_max_bytes, p.incarnation
         FROM pipe_streams p JOIN sources s ON s.org_id = p.org_id AND s.id = p.source_id
         WHERE p.org_id = ? AND p.source_id = ? ORDER BY p.pipe",
    )
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(source)
    .load(tx.conn()?)
    .await?;
    Ok(rows.into_iter().map(stream).collect())
}

/// Those of the organization from the one after `after` on, in the order of their sources' ids: what the broker's own list
/// is compared with.
pub async fn list(tx: &mut OrgTx, after: Option<(SourceId, String)>, limit: i64) -> Result<Vec<PipeStream>> {
    let org = tx.org_id();
    let (source, pipe) = after.unwrap_or_else(|| (SourceId::from_uuid(uuid::Uuid::nil()), String::new()));
    let rows: Vec<Row> = statement::<Columns>(
        "SELECT p.source_id, p.pipe, s.created_by, s.handle, p.ttl_seconds, p.max_msgs, p.max_bytes,
                p.force_ttl_seconds, p.force_max_msgs, p.force_max_bytes, p.incarnation
         FROM pipe_streams p JOIN sources s ON s.org_id = p.org_id AND s.id = p.source_id
         WHERE p.org_id = ? AND (p.source_id, p.pipe) > (?, ?) ORDER BY p.source_id, p.pipe LIMIT ?",
    )
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(source)
    .bind::<Text, _>(pipe)
    .bind::<BigInt, _>(limit)
    .load(tx.conn()?)
    .await?;
    Ok(rows.into_iter().map(stream).collect())
}
