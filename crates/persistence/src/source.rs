//! Sources: handles of an organization, and what was last sent to them.

use chrono::{DateTime, Utc};
use diesel::sql_types::{Array, BigInt, Nullable, Text, Timestamptz, Uuid};
use diesel_async::RunQueryDsl;
use tidegate_model::{Handle, OrgId, Source, SourceId, SourceKind, UserId};

use crate::{
    Error, OrgTx, Result,
    statement::{Statement, statement},
};

/// Characters of a message that are kept for lists.
pub const PREVIEW: usize = 500;

pub(crate) type Columns = (
    Uuid,
    Uuid,
    Uuid,
    Nullable<Text>,
    Text,
    Text,
    Timestamptz,
    Nullable<Timestamptz>,
    Nullable<Text>,
    Nullable<Text>,
);
pub(crate) type Row = (
    SourceId,
    OrgId,
    UserId,
    Option<String>,
    String,
    SourceKind,
    DateTime<Utc>,
    Option<DateTime<Utc>>,
    Option<String>,
    Option<String>,
);

/// A source, and the pipe that its last message went through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The source, with its last message whoever may read it.
    pub source: Source,
    /// The pipe of the last message.
    pub last_pipe: Option<String>,
}

fn stored(row: Row) -> Result<Stored> {
    let (
        id,
        org_id,
        created_by,
        created_by_username,
        handle,
        kind,
        created_at,
        last_message_at,
        last_pipe,
        last_message,
    ) = row;
    let handle = Handle::try_from(handle).map_err(|error| Error::corrupt("handle", error))?;
    let source = Source {
        id,
        org_id,
        created_by,
        created_by_username,
        handle,
        kind,
        created_at,
        last_message_at,
        last_message,
    };
    Ok(Stored { source, last_pipe })
}

/// Makes a source of whoever opened the transaction; a handle that is taken is a violation. Seed B's `InsertSource`.
pub async fn insert(
    tx: &mut OrgTx,
    id: SourceId,
    handle: Handle,
    kind: SourceKind,
    now: DateTime<Utc>,
) -> Result<()> {
    let (org, creator) = (tx.org_id(), tx.user_id()?);
    statement::<()>(
        "INSERT INTO sources (id, org_id, created_by, handle, kind, created_at) VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind::<Uuid, _>(id)
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(creator)
    .bind::<Text, _>(String::from(handle))
    .bind::<Text, _>(kind)
    .bind::<Timestamptz, _>(now)
    .execute(tx.conn()?)
    .await?;
    Ok(())
}

/// How many sources the organization has, and how many of them whoever opened the transaction made.
pub async fn counts(tx: &mut OrgTx) -> Result<(i64, i64)> {
    let (org, creator) = (tx.org_id(), tx.user_id()?);
    let rows: Vec<(i64, i64)> = statement::<(BigInt, BigInt)>(
        "SELECT count(*), count(*) FILTER (WHERE created_by = ?) FROM sources WHERE org_id = ?",
    )
    .bind::<Uuid, _>(creator)
    .bind::<Uuid, _>(org)
    .load(tx.conn()?)
    .await?;
    Ok(rows.into_iter().next().unwrap_or_default())
}

/// The source of this handle. Seed B's `GetSourceByHandle`.
pub async fn find_by_handle(tx: &mut OrgTx, handle: &str) -> Result<Stored> {
    let asked = by_handle(tx.org_id(), handle);
    first(asked.load(tx.conn()?).await?)
}

/// The same, and nobody deletes it before this transaction ends.
pub async fn lock_by_handle(tx: &mut OrgTx, handle: &str) -> Result<Stored> {
    let asked = held_by_handle(tx.org_id(), handle);
    first(asked.load(tx.conn()?).await?)
}

pub(crate) fn first(rows: Vec<Row>) -> Result<Stored> {
    rows.into_iter().next().map_or(Err(Error::NotFound), stored)
}

/// What asks for the source of a handle.
pub(crate) fn by_handle(org: OrgId, handle: &str) -> Statement<Columns> {
    statement::<Columns>(
        "SELECT s.id, s.org_id, s.created_by, u.username, s.handle, s.kind, s.created_at, s.last_message_at, s.last_message_pipe, s.last_message
         FROM sources s LEFT JOIN users u ON u.id = s.created_by WHERE s.org_id = ? AND s.handle = ?",
    )
    .bind::<Uuid, _>(org)
    .bind::<Text, _>(handle.to_owned())
}

/// What asks for the same and locks it against those who share it, too.
fn held_by_handle(org: OrgId, handle: &str) -> Statement<Columns> {
    statement::<Columns>(
        "SELECT s.id, s.org_id, s.created_by, u.username, s.handle, s.kind, s.created_at, s.last_message_at, s.last_message_pipe, s.last_message
         FROM sources s LEFT JOIN users u ON u.id = s.created_by WHERE s.org_id = ? AND s.handle = ? FOR UPDATE OF s",
    )
    .bind::<Uuid, _>(org)
    .bind::<Text, _>(handle.to_owned())
}

/// What asks for the same and locks it beside others who do that: against those who change it or its pipes, and not against
/// the news of what was last sent.
pub(crate) fn shared_by_handle(org: OrgId, handle: &str) -> Statement<Columns> {
    statement::<Columns>(
        "SELECT s.id, s.org_id, s.created_by, u.username, s.handle, s.kind, s.created_at, s.last_message_at, s.last_message_pipe, s.last_message
         FROM sources s LEFT JOIN users u ON u.id = s.created_by WHERE s.org_id = ? AND s.handle = ? FOR KEY SHARE OF s",
    )
    .bind::<Uuid, _>(org)
    .bind::<Text, _>(handle.to_owned())
}

/// Sources by handle from the one after `after` on, with their creators' names and last messages, and how many there are on
/// all pages. Seed B's `ListSourcesForOrg`.
pub async fn list(tx: &mut OrgTx, after: &str, limit: i64) -> Result<(Vec<Stored>, i64)> {
    let org = tx.org_id();
    let conn = tx.conn()?;
    let rows: Vec<Row> = statement::<Columns>(
        "SELECT s.id, s.org_id, s.created_by, u.username, s.handle, s.kind, s.created_at, s.last_message_at, s.last_message_pipe, s.last_message
         FROM sources s LEFT JOIN users u ON u.id = s.created_by WHERE s.org_id = ? AND s.handle > ? ORDER BY s.handle LIMIT ?",
    )
    .bind::<Uuid, _>(org)
    .bind::<Text, _>(after.to_owned())
    .bind::<BigInt, _>(limit)
    .load(conn)
    .await?;
    let total: Vec<i64> =
        statement::<BigInt>("SELECT count(*) FROM (SELECT 1 FROM sources WHERE org_id = ? LIMIT 10001) s")
            .bind::<Uuid, _>(org)
            .load(conn)
            .await?;
    let sources: Vec<Stored> = rows.into_iter().map(stored).collect::<Result<_>>()?;
    Ok((sources, total.into_iter().next().unwrap_or(0)))
}

/// Deletes a source with its pipes, grants and cursors; its streams go by what that leaves for NATS. Seed B's
/// `DeleteSource`.
pub async fn delete(tx: &mut OrgTx, handle: &str) -> Result<()> {
    let org = tx.org_id();
    let gone = statement::<()>("DELETE FROM sources WHERE org_id = ? AND handle = ?")
        .bind::<Uuid, _>(org)
        .bind::<Text, _>(handle.to_owned())
        .execute(tx.conn()?)
        .await?;
    if gone == 1 { Ok(()) } else { Err(Error::NotFound) }
}

/// Deletes some sources of the organization, at most `limit`, as [`delete`] does one. Gives how many.
pub async fn delete_some(tx: &mut OrgTx, limit: i64) -> Result<usize> {
    let org = tx.org_id();
    Ok(statement::<()>(
        "DELETE FROM sources WHERE org_id = ? AND id IN (SELECT id FROM sources WHERE org_id = ? LIMIT ?)",
    )
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(org)
    .bind::<BigInt, _>(limit)
    .execute(tx.conn()?)
    .await?)
}

/// The source of this id where it is there: nobody deletes it, or wants a stream for one of its pipes, before this
/// transaction ends.
pub async fn lock(tx: &mut OrgTx, id: SourceId) -> Result<bool> {
    let org = tx.org_id();
    let rows: Vec<(SourceId,)> =
        statement::<(Uuid,)>("SELECT id FROM sources WHERE org_id = ? AND id = ? FOR UPDATE")
            .bind::<Uuid, _>(org)
            .bind::<Uuid, _>(id)
            .load(tx.conn()?)
            .await?;
    Ok(!rows.is_empty())
}

/// What was sent to a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastMessage {
    /// When.
    pub at: DateTime<Utc>,
    /// Through which pipe.
    pub pipe: String,
    /// Its beginning; more than [`PREVIEW`] characters are cut off.
    pub text: String,
}

/// Notes what was sent to the source of this handle; what is not newer than what is known changes nothing. Says whether it
/// did. Seed B's `UpdateLastBroadcast`.
pub async fn update_last_broadcast(tx: &mut OrgTx, handle: &str, message: LastMessage) -> Result<bool> {
    let id = find_by_handle(tx, handle).await?.source.id;
    Ok(note(tx, vec![(id, message)]).await? == 1)
}

/// The same for many sources in one statement, each at most once; those that are gone are left out.
pub async fn note(tx: &mut OrgTx, messages: Vec<(SourceId, LastMessage)>) -> Result<usize> {
    let org = tx.org_id();
    let (mut ids, mut times, mut pipes, mut texts) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (id, LastMessage { at, pipe, text }) in messages {
        ids.push(id);
        times.push(at);
        pipes.push(pipe);
        texts.push(text);
    }
    Ok(statement::<()>(
        "UPDATE sources s SET last_message_at = m.at, last_message_pipe = m.pipe, last_message = left(m.text, 500)
         FROM unnest(?::uuid[], ?::timestamptz[], ?::text[], ?::text[]) AS m(id, at, pipe, text)
         WHERE s.org_id = ? AND s.id = m.id AND (s.last_message_at IS NULL OR s.last_message_at < m.at)",
    )
    .bind::<Array<Uuid>, _>(ids)
    .bind::<Array<Timestamptz>, _>(times)
    .bind::<Array<Text>, _>(pipes)
    .bind::<Array<Text>, _>(texts)
    .bind::<Uuid, _>(org)
    .execute(tx.conn()?)
    .await?)
}
