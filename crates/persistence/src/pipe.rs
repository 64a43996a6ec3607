//! Pipes that were made at sources. Those of a source's kind are no rows.

use chrono::{DateTime, Utc};
use diesel::sql_types::{BigInt, Nullable, Text, Timestamptz, Uuid};
use diesel_async::RunQueryDsl;
use tidegate_model::{Pipe, PipeId, PipeName, RetentionChoice, SourceId, UserId};

use crate::{Error, OrgTx, Result, statement::statement};

type Columns = (
    Uuid,
    Uuid,
    Uuid,
    Text,
    Nullable<BigInt>,
    Nullable<BigInt>,
    Nullable<BigInt>,
    Timestamptz,
    Nullable<Text>,
);
type Row =
    (PipeId, SourceId, UserId, String, Option<i64>, Option<i64>, Option<i64>, DateTime<Utc>, Option<String>);

/// A pipe, and who made it; `None` once they are no member any more.
type Named = (Pipe, Option<String>);

fn pipe(row: Row) -> Result<Named> {
    let (id, source_id, created_by, name, ttl_seconds, max_msgs, max_bytes, created_at, username) = row;
    let name = PipeName::try_from(name).map_err(|error| Error::corrupt("pipe name", error))?;
    Ok((Pipe { id, source_id, created_by, name, ttl_seconds, max_msgs, max_bytes, created_at }, username))
}

/// Makes a pipe by whoever opened the transaction; a name that is taken is a violation. Seed B's `InsertPipe`.
pub async fn insert(
    tx: &mut OrgTx,
    id: PipeId,
    source: SourceId,
    name: PipeName,
    retention: RetentionChoice,
    now: DateTime<Utc>,
) -> Result<Pipe> {
    let (org, creator) = (tx.org_id(), tx.user_id()?);
    let rows: Vec<Row> = statement::<Columns>(
        "INSERT INTO pipes (id, org_id, source_id, created_by, name, ttl_seconds, max_msgs, max_bytes, created_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
         RETURNING id, source_id, created_by, name, ttl_seconds, max_msgs, max_bytes, created_at, NULL::text",
    )
    .bind::<Uuid, _>(id)
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(source)
    .bind::<Uuid, _>(creator)
    .bind::<Text, _>(String::from(name))
    .bind::<Nullable<BigInt>, _>(retention.ttl_seconds)
    .bind::<Nullable<BigInt>, _>(retention.max_msgs)
    .bind::<Nullable<BigInt>, _>(retention.max_bytes)
    .bind::<Timestamptz, _>(now)
    .load(tx.conn()?)
    .await?;
    Ok(rows.into_iter().next().map_or(Err(Error::NotFound), pipe)?.0)
}

/// How many pipes were made at a source, counted up to `most`, and the bytes that the organization's account may promise;
/// none where it has no account yet.
pub async fn room(tx: &mut OrgTx, source: SourceId, most: i64) -> Result<(i64, Option<i64>)> {
    let org = tx.org_id();
    let rows: Vec<(i64, Option<i64>)> = statement::<(BigInt, Nullable<BigInt>)>(
        "SELECT (SELECT count(*) FROM (SELECT FROM pipes WHERE org_id = ? AND source_id = ? LIMIT ?) p),
                (SELECT max_disk_bytes FROM nats_accounts WHERE org_id = ?)",
    )
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(source)
    .bind::<BigInt, _>(most)
    .bind::<Uuid, _>(org)
    .load(tx.conn()?)
    .await?;
    Ok(rows.into_iter().next().unwrap_or_default())
}

/// The pipe of this name. Seed B's `GetPipeByName`.
pub async fn find_by_name(tx: &mut OrgTx, source: SourceId, name: &str) -> Result<Pipe> {
    let org = tx.org_id();
    let rows: Vec<Row> = statement::<Columns>(
        "SELECT p.id, p.source_id, p.created_by, p.name, p.ttl_seconds, p.max_msgs, p.max_bytes, p.created_at, NULL::text
         FROM pipes p WHERE p.org_id = ? AND p.source_id = ? AND p.name = ?",
    )
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(source)
    .bind::<Text, _>(name.to_owned())
    .load(tx.conn()?)
    .await?;
    Ok(rows.into_iter().next().map_or(Err(Error::NotFound), pipe)?.0)
}

/// The pipes of a source by name, with who made them; at most `limit`.
pub async fn list(tx: &mut OrgTx, source: SourceId, limit: i64) -> Result<Vec<(Pipe, Option<String>)>> {
    let org = tx.org_id();
    let rows: Vec<Row> = statement::<Columns>(
        "SELECT p.id, p.source_id, p.created_by, p.name, p.ttl_seconds, p.max_msgs, p.max_bytes, p.created_at, u.username
         FROM pipes p LEFT JOIN users u ON u.id = p.created_by WHERE p.org_id = ? AND p.source_id = ? ORDER BY p.name LIMIT ?",
    )
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(source)
    .bind::<BigInt, _>(limit)
    .load(tx.conn()?)
    .await?;
    rows.into_iter().map(pipe).collect()
}

/// Sets what a pipe is asked to keep.
pub async fn set_retention(tx: &mut OrgTx, id: PipeId, retention: RetentionChoice) -> Result<()> {
    let org = tx.org_id();
    let changed = statement::<()>(
        "UPDATE pipes SET ttl_seconds = ?, max_msgs = ?, max_bytes = ? WHERE org_id = ? AND id = ?",
    )
    .bind::<Nullable<BigInt>, _>(retention.ttl_seconds)
    .bind::<Nullable<BigInt>, _>(retention.max_msgs)
    .bind::<Nullable<BigInt>, _>(retention.max_bytes)
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(id)
    .execute(tx.conn()?)
    .await?;
    if changed == 1 { Ok(()) } else { Err(Error::NotFound) }
}

/// Deletes a pipe, with the cursors of its readers; its stream goes by what that leaves for NATS. Seed B's `DeletePipe`.
pub async fn delete(tx: &mut OrgTx, source: SourceId, name: &str) -> Result<()> {
    let org = tx.org_id();
    let conn = tx.conn()?;
    let gone = statement::<()>("DELETE FROM pipes WHERE org_id = ? AND source_id = ? AND name = ?")
        .bind::<Uuid, _>(org)
        .bind::<Uuid, _>(source)
        .bind::<Text, _>(name.to_owned())
        .execute(conn)
        .await?;
    if gone == 0 {
        return Err(Error::NotFound);
    }
    for sql in [
        "DELETE FROM read_cursors WHERE org_id = ? AND source_id = ? AND pipe = ?",
        "DELETE FROM pipe_streams WHERE org_id = ? AND source_id = ? AND pipe = ?",
    ] {
        statement::<()>(sql)
            .bind::<Uuid, _>(org)
            .bind::<Uuid, _>(source)
            .bind::<Text, _>(name.to_owned())
            .execute(conn)
            .await?;
    }
    Ok(())
}
