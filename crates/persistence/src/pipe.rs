//! Pipes that were made at sources. Those of a source's kind are no rows.

use chrono::{DateTime, Utc};
use diesel::sql_types::{BigInt, Bool, Nullable, Text, Timestamptz, Uuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures_util::future::{join, join3};
use tidegate_model::{OrgId, Pipe, PipeId, PipeName, RetentionChoice, Source, SourceId, UserId};

use crate::{
    Error, OrgTx, Result, audit,
    pipe_stream::{self, PipeStream},
    source::{self, Stored},
    statement::{Statement, statement},
};

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

/// A pipe to make.
#[derive(Debug, Clone)]
pub struct NewPipe {
    /// The id.
    pub id: PipeId,
    /// Its source.
    pub source: SourceId,
    /// Its name.
    pub name: PipeName,
    /// What it is asked to keep.
    pub retention: RetentionChoice,
    /// The present.
    pub now: DateTime<Utc>,
}

impl NewPipe {
    fn statement(self, org: OrgId, creator: UserId) -> Statement<Columns> {
        statement::<Columns>(
            "INSERT INTO pipes (id, org_id, source_id, created_by, name, ttl_seconds, max_msgs, max_bytes, created_at)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
             RETURNING id, source_id, created_by, name, ttl_seconds, max_msgs, max_bytes, created_at, NULL::text",
        )
        .bind::<Uuid, _>(self.id)
        .bind::<Uuid, _>(org)
        .bind::<Uuid, _>(self.source)
        .bind::<Uuid, _>(creator)
        .bind::<Text, _>(String::from(self.name))
        .bind::<Nullable<BigInt>, _>(self.retention.ttl_seconds)
        .bind::<Nullable<BigInt>, _>(self.retention.max_msgs)
        .bind::<Nullable<BigInt>, _>(self.retention.max_bytes)
        .bind::<Timestamptz, _>(self.now)
    }
}

/// Makes a pipe by whoever opened the transaction, and writes that down, in one round trip; a name that is taken is a
/// violation. Seed B's `InsertPipe`.
pub async fn insert(tx: &mut OrgTx, new: NewPipe, entry: audit::Entry) -> Result<Pipe> {
    let insert = new.statement(tx.org_id(), tx.user_id()?);
    let made = |rows: Vec<Row>| Ok(rows.into_iter().next().map_or(Err(Error::NotFound), pipe)?.0);
    if tx.entered {
        let rows = insert.load(tx.conn()?).await?;
        audit::insert_org(tx, entry).await?;
        return made(rows);
    }
    let line = audit::insert_statement(Some(tx.org_id()), tx.author.clone(), entry);
    let conn: &AsyncPgConnection = tx.conn()?;
    let (mut first, mut second) = (conn, conn);
    let (rows, written) = join(insert.load::<Row>(&mut first), line.execute(&mut second)).await;
    // In their order: what failed first tells why.
    let rows = rows?;
    written?;
    made(rows)
}

/// What there is room for at a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// How many pipes were made at it, counted as far as was asked for.
    pub made: i64,
    /// The bytes that the organization's account may promise; none where it has no account yet.
    pub most_bytes: Option<i64>,
    /// Whether somebody was given the right to write to its pipes.
    pub has_writers: bool,
}

/// The source of this handle, which nobody deletes before this transaction ends, and what there is room for at it: its pipes
/// are counted up to `most`, in the same round trip. Whoever holds the organization's lock, as everybody does who makes pipes,
/// is the only one who makes some; those who write to its pipes for the first time do not wait for them.
pub async fn place(tx: &mut OrgTx, handle: &str, most: i64) -> Result<(Stored, Room)> {
    let org = tx.org_id();
    let held = source::shared_by_handle(org, handle);
    let room = statement::<(BigInt, Nullable<BigInt>, Bool)>(
        "SELECT (SELECT count(*) FROM (SELECT FROM pipes p WHERE p.org_id = s.org_id AND p.source_id = s.id LIMIT ?) counted),
                (SELECT a.max_disk_bytes FROM nats_accounts a WHERE a.org_id = s.org_id),
                EXISTS (SELECT FROM source_grants g WHERE g.org_id = s.org_id AND g.source_id = s.id AND g.allows = 'write')
         FROM sources s WHERE s.org_id = ? AND s.handle = ?",
    )
    .bind::<BigInt, _>(most)
    .bind::<Uuid, _>(org)
    .bind::<Text, _>(handle.to_owned());
    let conn: &AsyncPgConnection = tx.conn()?;
    let (mut one, mut two) = (conn, conn);
    let (held, room) =
        join(held.load::<source::Row>(&mut one), room.load::<(i64, Option<i64>, bool)>(&mut two)).await;
    let stored = source::first(held?)?;
    let (made, most_bytes, has_writers) = room?.into_iter().next().ok_or(Error::NotFound)?;
    Ok((stored, Room { made, most_bytes, has_writers }))
}

/// A source, and what there is of one of its pipes.
#[derive(Debug, Clone)]
pub struct Usable {
    /// The source.
    pub source: Source,
    /// The pipe's stream; none before it was used.
    pub stream: Option<PipeStream>,
    /// The pipe; none where it is one of the source's kind, or there is none.
    pub made: Option<Pipe>,
}

/// The source of this handle with one of its pipes, in one round trip. Where it is `held`, nobody deletes it before this
/// transaction ends, or changes what the pipe keeps; others may hold it, too.
pub async fn usable(tx: &mut OrgTx, (handle, name): (&str, &str), held: bool) -> Result<Usable> {
    let org = tx.org_id();
    let sources = if held { source::shared_by_handle(org, handle) } else { source::by_handle(org, handle) };
    let streams = pipe_stream::by_name(org, handle, name);
    let made = statement::<Columns>(
        "SELECT p.id, p.source_id, p.created_by, p.name, p.ttl_seconds, p.max_msgs, p.max_bytes, p.created_at, NULL::text
         FROM pipes p JOIN sources s ON s.org_id = p.org_id AND s.id = p.source_id
         WHERE p.org_id = ? AND p.source_id = (SELECT f.id FROM sources f WHERE f.org_id = ? AND f.handle = ?) AND p.name = ?",
    )
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(org)
    .bind::<Text, _>(handle.to_owned())
    .bind::<Text, _>(name.to_owned());
    let conn: &AsyncPgConnection = tx.conn()?;
    let (mut one, mut two, mut three) = (conn, conn, conn);
    let (sources, streams, made) = join3(
        sources.load::<source::Row>(&mut one),
        streams.load::<pipe_stream::Row>(&mut two),
        made.load::<Row>(&mut three),
    )
    .await;
    let source = source::first(sources?)?.source;
    let stream = pipe_stream::first(streams?);
    let made = made?.into_iter().next().map(pipe).transpose()?.map(|(pipe, _)| pipe);
    // One that was made anew between two of the questions is another one.
    let stream = stream.filter(|stream| stream.source_id == source.id);
    let made = made.filter(|pipe| pipe.source_id == source.id);
    Ok(Usable { source, stream, made })
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
