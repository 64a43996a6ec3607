//! What NATS is to be told: rows in the transaction of what they serve, claimed with a lease by whoever tells it. Operations
//! on one topic are done in their order, and no organization holds up another one.

use chrono::{DateTime, Utc};
use diesel::sql_types::{BigInt, Bool, Integer, Nullable, Text, Timestamptz, Uuid};
use diesel_async::RunQueryDsl;
use tidegate_model::{OrgId, PipeOperationId, Retention, SourceId, UserId, stream_name};

use crate::{Error, OrgTx, PlatformTx, Result, SystemScope, pipe_stream::InForce, statement::statement};

/// The topic of an account.
const ACCOUNT: &str = "account";
/// The topic of an account's readers.
const READERS: &str = "readers";

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Make a pipe's stream, or make it keep what it is to keep.
    EnsureStream(SourceId, String),
    /// Delete the stream of a pipe, whatever is in it.
    DeleteStream(SourceId, String),
    /// Delete a reader of a pipe.
    DeleteConsumer(SourceId, String, UserId),
    /// Look which readers may not read any more.
    ReviewReaders,
    /// Sign the account anew and push it.
    PushAccount,
}

impl Operation {
    const fn kind(&self) -> &'static str {
        match self {
            Self::EnsureStream(..) => "ensure_stream",
            Self::DeleteStream(..) => "delete_stream",
            Self::DeleteConsumer(..) => "delete_consumer",
            Self::ReviewReaders => "review_readers",
            Self::PushAccount => "push_account",
        }
    }

    /// What its order is kept for.
    pub fn topic(&self) -> String {
        match self {
            Self::EnsureStream(source, pipe)
            | Self::DeleteStream(source, pipe)
            | Self::DeleteConsumer(source, pipe, _) => stream_name(*source, pipe),
            Self::ReviewReaders => READERS.to_owned(),
            Self::PushAccount => ACCOUNT.to_owned(),
        }
    }

    fn of_row(
        kind: &str,
        source: Option<SourceId>,
        pipe: Option<String>,
        user: Option<UserId>,
    ) -> Result<Self> {
        match (kind, source.zip(pipe), user) {
            ("ensure_stream", Some((source, pipe)), None) => Ok(Self::EnsureStream(source, pipe)),
            ("delete_stream", Some((source, pipe)), None) => Ok(Self::DeleteStream(source, pipe)),
            ("delete_consumer", Some((source, pipe)), Some(user)) => {
                Ok(Self::DeleteConsumer(source, pipe, user))
            }
            ("review_readers", None, None) => Ok(Self::ReviewReaders),
            ("push_account", None, None) => Ok(Self::PushAccount),
            _ => Err(Error::corrupt("pipe operation", format!("{kind} with other columns"))),
        }
    }

    fn parts(&self) -> (Option<SourceId>, Option<String>, Option<UserId>) {
        match self {
            Self::EnsureStream(source, pipe) | Self::DeleteStream(source, pipe) => {
                (Some(*source), Some(pipe.clone()), None)
            }
            Self::DeleteConsumer(source, pipe, user) => (Some(*source), Some(pipe.clone()), Some(*user)),
            Self::ReviewReaders | Self::PushAccount => (None, None, None),
        }
    }
}

/// Asks for something in the organization.
pub async fn insert(tx: &mut OrgTx, operation: &Operation, now: DateTime<Utc>) -> Result<PipeOperationId> {
    let org = tx.org_id();
    let id = PipeOperationId::new();
    let (source, pipe, user) = operation.parts();
    statement::<()>(
        "INSERT INTO pipe_operations (id, org_id, kind, topic, source_id, pipe, user_id, next_at, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind::<Uuid, _>(id)
    .bind::<Uuid, _>(org)
    .bind::<Text, _>(operation.kind().to_owned())
    .bind::<Text, _>(operation.topic())
    .bind::<Nullable<Uuid>, _>(source)
    .bind::<Nullable<Text>, _>(pipe)
    .bind::<Nullable<Uuid>, _>(user)
    .bind::<Timestamptz, _>(now)
    .bind::<Timestamptz, _>(now)
    .execute(tx.conn()?)
    .await?;
    Ok(id)
}

/// Wants a pipe's stream that nobody wanted before, and asks for it, for whoever makes it themselves: claimed until `lease`, as
/// [`claim_one`] would, unless an earlier operation on the stream is not over. None where it was wanted already.
pub async fn insert_wanted(
    tx: &mut OrgTx,
    (source, pipe): (SourceId, &str),
    wanted: Retention,
    now: DateTime<Utc>,
    lease: Option<DateTime<Utc>>,
) -> Result<Option<Asked>> {
    let org_id = tx.org_id();
    let operation = Operation::EnsureStream(source, pipe.to_owned());
    let id = PipeOperationId::new();
    let rows: Vec<(i32,)> = statement::<(Integer,)>(
        "WITH wanted AS (
            INSERT INTO pipe_streams (org_id, source_id, pipe, ttl_seconds, max_msgs, max_bytes, created_at) VALUES (?, ?, ?, ?, ?, ?, ?)
            ON CONFLICT (org_id, source_id, pipe) DO NOTHING RETURNING org_id, source_id, pipe, created_at),
         turn AS (
            SELECT ?::timestamptz AS lease, ?::text AS topic),
         asked AS (
            SELECT w.org_id, w.source_id, w.pipe, w.created_at, t.topic, t.lease,
                   t.lease IS NOT NULL AND NOT EXISTS (
                       SELECT 1 FROM pipe_operations e WHERE e.org_id = w.org_id AND e.topic = t.topic AND e.status = 'pending') AS claimed
            FROM wanted w CROSS JOIN turn t)
         INSERT INTO pipe_operations (id, org_id, kind, topic, source_id, pipe, attempts, next_at, created_at)
         SELECT ?, a.org_id, 'ensure_stream', a.topic, a.source_id, a.pipe, CASE WHEN a.claimed THEN 1 ELSE 0 END,
                CASE WHEN a.claimed THEN a.lease ELSE a.created_at END, a.created_at
         FROM asked a RETURNING attempts",
    )
    .bind::<Uuid, _>(org_id)
    .bind::<Uuid, _>(source)
    .bind::<Text, _>(pipe.to_owned())
    .bind::<BigInt, _>(wanted.ttl_seconds)
    .bind::<BigInt, _>(wanted.max_msgs)
    .bind::<BigInt, _>(wanted.max_bytes)
    .bind::<Timestamptz, _>(now)
    .bind::<Nullable<Timestamptz>, _>(lease)
    .bind::<Text, _>(operation.topic())
    .bind::<Uuid, _>(id)
    .load(tx.conn()?)
    .await?;
    let scope = SystemScope { org_id };
    Ok(rows.into_iter().next().map(|(attempt,)| match attempt {
        0 => Asked::Waiting,
        attempt => Asked::Claimed(Claimed { id, attempt, scope, operation, created_at: now }),
    }))
}

/// What became of asking for a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// Whoever asked makes it.
    Claimed(Claimed),
    /// It is anybody's, once what was asked before is over.
    Waiting,
}

/// Asks for an organization's account to be pushed, by the platform.
pub async fn insert_push(tx: &mut PlatformTx, org: OrgId, now: DateTime<Utc>) -> Result<PipeOperationId> {
    let id = PipeOperationId::new();
    statement::<()>(
        "INSERT INTO pipe_operations (id, org_id, kind, topic, next_at, created_at) VALUES (?, ?, 'push_account', 'account', ?, ?)",
    )
    .bind::<Uuid, _>(id)
    .bind::<Uuid, _>(org)
    .bind::<Timestamptz, _>(now)
    .bind::<Timestamptz, _>(now)
    .execute(tx.conn()?)
    .await?;
    Ok(id)
}

/// Where an operation stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It waits or is being done; why it went wrong before, if it did.
    Pending(Option<String>),
    /// It is done.
    Done,
    /// It was given up, and why.
    Failed(String),
}

/// Where an operation of the organization stands.
pub async fn standing(tx: &mut OrgTx, id: PipeOperationId) -> Result<Standing> {
    let org = tx.org_id();
    let rows: Vec<(String, Option<String>)> = statement::<(Text, Nullable<Text>)>(
        "SELECT status, reason FROM pipe_operations WHERE org_id = ? AND id = ?",
    )
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(id)
    .load(tx.conn()?)
    .await?;
    let (status, reason) = rows.into_iter().next().ok_or(Error::NotFound)?;
    match status.as_str() {
        "pending" => Ok(Standing::Pending(reason)),
        "done" => Ok(Standing::Done),
        "failed" => Ok(Standing::Failed(reason.unwrap_or_default())),
        other => Err(Error::corrupt("status of a pipe operation", other.to_owned())),
    }
}

/// Operations of the organization that are to be done, in their order: of one topic, or of all; at most `limit`.
pub async fn pending(
    tx: &mut OrgTx,
    topic: Option<String>,
    limit: i64,
) -> Result<Vec<(PipeOperationId, Operation)>> {
    type Row = (PipeOperationId, String, Option<SourceId>, Option<String>, Option<UserId>);
    let org = tx.org_id();
    // Two texts: a plan that is kept for either could not look for a topic alone.
    let asked = match topic {
        Some(topic) => statement::<(Uuid, Text, Nullable<Uuid>, Nullable<Text>, Nullable<Uuid>)>(
            "SELECT id, kind, source_id, pipe, user_id FROM pipe_operations
             WHERE org_id = ? AND topic = ? AND status = 'pending' ORDER BY seq LIMIT ?",
        )
        .bind::<Uuid, _>(org)
        .bind::<Text, _>(topic),
        None => statement::<(Uuid, Text, Nullable<Uuid>, Nullable<Text>, Nullable<Uuid>)>(
            "SELECT id, kind, source_id, pipe, user_id FROM pipe_operations
             WHERE org_id = ? AND status = 'pending' ORDER BY seq LIMIT ?",
        )
        .bind::<Uuid, _>(org),
    };
    let rows: Vec<Row> = asked.bind::<BigInt, _>(limit).load(tx.conn()?).await?;
    rows.into_iter()
        .map(|(id, kind, source, pipe, user)| Ok((id, Operation::of_row(&kind, source, pipe, user)?)))
        .collect()
}

/// Whether the same was given up since then.
pub async fn has_failed(tx: &mut OrgTx, operation: &Operation, since: DateTime<Utc>) -> Result<bool> {
    let org = tx.org_id();
    let rows: Vec<(bool,)> = statement::<(Bool,)>(
        "SELECT EXISTS (SELECT 1 FROM pipe_operations
         WHERE org_id = ? AND topic = ? AND status = 'failed' AND kind = ? AND finished_at > ?)",
    )
    .bind::<Uuid, _>(org)
    .bind::<Text, _>(operation.topic())
    .bind::<Text, _>(operation.kind().to_owned())
    .bind::<Timestamptz, _>(since)
    .load(tx.conn()?)
    .await?;
    Ok(rows.into_iter().next().is_some_and(|(found,)| found))
}

/// What has to be done for the streams of a source to be gone.
pub async fn deletions(tx: &mut OrgTx, source: SourceId) -> Result<Vec<PipeOperationId>> {
    let org = tx.org_id();
    let rows: Vec<(PipeOperationId,)> = statement::<(Uuid,)>(
        "SELECT id FROM pipe_operations
         WHERE org_id = ? AND status = 'pending' AND source_id = ? AND kind = 'delete_stream' ORDER BY seq",
    )
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(source)
    .load(tx.conn()?)
    .await?;
    Ok(rows.into_iter().map(|(id,)| id).collect())
}

/// An operation that was claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// The operation.
    pub id: PipeOperationId,
    /// Which try this is, from 1 on: the fence of whoever claimed it.
    pub attempt: i32,
    /// The organization, where its rows are read.
    pub scope: SystemScope,
    /// What is to be done.
    pub operation: Operation,
    /// Since when.
    pub created_at: DateTime<Utc>,
}

/// Claims operations that are due, at most `each` of one organization and `limit` of all, until `lease`: nobody else tries
/// them before, and after it anybody may. One that waits for an earlier one of its topic is not among them, nor one of a
/// suspended organization that nobody can connect to. Where there is more, it is the turn of some organizations or others.
pub async fn claim(
    tx: &mut PlatformTx,
    (each, limit): (i64, i64),
    now: DateTime<Utc>,
    lease: DateTime<Utc>,
) -> Result<Vec<Claimed>> {
    let rows: Vec<Row> = statement::<Columns>(
        "WITH RECURSIVE orgs (id) AS (
            (SELECT o.org_id FROM pipe_operations o WHERE o.status = 'pending' ORDER BY o.org_id LIMIT 1)
            UNION ALL
            SELECT (SELECT o.org_id FROM pipe_operations o WHERE o.status = 'pending' AND o.org_id > orgs.id ORDER BY o.org_id LIMIT 1)
            FROM orgs WHERE orgs.id IS NOT NULL),
         due AS MATERIALIZED (
            SELECT d.id FROM (
                SELECT orgs.id, (SELECT g.status FROM organizations g WHERE g.id = orgs.id) AS status
                FROM orgs WHERE orgs.id IS NOT NULL ORDER BY random()) turn CROSS JOIN LATERAL (
                SELECT o.id FROM pipe_operations o WHERE o.org_id = turn.id AND o.status = 'pending' AND o.next_at <= ?
                  AND (turn.status <> 'suspended' OR o.kind IN ('push_account', 'review_readers'))
                  AND NOT EXISTS (SELECT 1 FROM pipe_operations e WHERE e.org_id = o.org_id AND e.topic = o.topic
                                  AND e.status = 'pending' AND e.seq < o.seq)
                ORDER BY o.seq LIMIT ? FOR UPDATE SKIP LOCKED) d
            LIMIT ?),
         claimed AS (UPDATE pipe_operations o SET attempts = o.attempts + 1, next_at = ? FROM due WHERE o.id = due.id
            RETURNING o.id, o.attempts, o.org_id, o.kind, o.source_id, o.pipe, o.user_id, o.created_at, o.seq)
         SELECT id, attempts, org_id, kind, source_id, pipe, user_id, created_at FROM claimed ORDER BY seq",
    )
    .bind::<Timestamptz, _>(now)
    .bind::<BigInt, _>(each)
    .bind::<BigInt, _>(limit)
    .bind::<Timestamptz, _>(lease)
    .load(tx.conn()?)
    .await?;
    rows.into_iter().map(claimed).collect()
}

/// Claims this operation, for whoever asked for it and waits; none where somebody else has it, it is over, or an earlier one
/// of its topic is not.
pub async fn claim_one(
    tx: &mut PlatformTx,
    id: PipeOperationId,
    now: DateTime<Utc>,
    lease: DateTime<Utc>,
) -> Result<Option<Claimed>> {
    let rows: Vec<Row> = statement::<Columns>(
        "WITH due AS MATERIALIZED (
            SELECT o.id FROM pipe_operations o WHERE o.id = ? AND o.status = 'pending' AND o.next_at <= ?
              AND NOT EXISTS (SELECT 1 FROM pipe_operations e WHERE e.org_id = o.org_id AND e.topic = o.topic
                              AND e.status = 'pending' AND e.seq < o.seq)
            FOR UPDATE SKIP LOCKED)
         UPDATE pipe_operations o SET attempts = o.attempts + 1, next_at = ? FROM due WHERE o.id = due.id
         RETURNING o.id, o.attempts, o.org_id, o.kind, o.source_id, o.pipe, o.user_id, o.created_at",
    )
    .bind::<Uuid, _>(id)
    .bind::<Timestamptz, _>(now)
    .bind::<Timestamptz, _>(lease)
    .load(tx.conn()?)
    .await?;
    rows.into_iter().next().map(claimed).transpose()
}

/// Lets go of every operation that somebody has claimed, or that waits to be tried again; gives how many. For a control plane
/// that is the only one: when it begins, whoever claimed something is no more.
pub async fn let_go(tx: &mut PlatformTx, now: DateTime<Utc>) -> Result<usize> {
    Ok(statement::<()>("UPDATE pipe_operations SET next_at = ? WHERE status = 'pending' AND next_at > ?")
        .bind::<Timestamptz, _>(now)
        .bind::<Timestamptz, _>(now)
        .execute(tx.conn()?)
        .await?)
}

type Columns = (Uuid, Integer, Uuid, Text, Nullable<Uuid>, Nullable<Text>, Nullable<Uuid>, Timestamptz);
type Row =
    (PipeOperationId, i32, OrgId, String, Option<SourceId>, Option<String>, Option<UserId>, DateTime<Utc>);

fn claimed((id, attempt, org_id, kind, source, pipe, user, created_at): Row) -> Result<Claimed> {
    let operation = Operation::of_row(&kind, source, pipe, user)?;
    Ok(Claimed { id, attempt, scope: SystemScope { org_id }, operation, created_at })
}

/// What became of a try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// NATS did it.
    Done,
    /// It is tried again at this moment.
    Again(DateTime<Utc>, String),
    /// It is given up: a repeat would be refused the same.
    Failed(String),
}

/// Writes what became of the try that this was; false where its lease had passed and another one began or ended it.
pub async fn finish(
    tx: &mut PlatformTx,
    (id, attempt): (PipeOperationId, i32),
    outcome: Outcome,
    now: DateTime<Utc>,
) -> Result<bool> {
    let (status, next, finished, reason) = match outcome {
        Outcome::Done => ("done", None, Some(now), None),
        Outcome::Again(next, reason) => ("pending", Some(next), None, Some(reason)),
        Outcome::Failed(reason) => ("failed", None, Some(now), Some(reason)),
    };
    let changed = statement::<()>(
        "UPDATE pipe_operations SET status = ?, next_at = COALESCE(?, next_at), finished_at = ?, reason = left(?, 500)
         WHERE id = ? AND attempts = ? AND status = 'pending'",
    )
    .bind::<Text, _>(status.to_owned())
    .bind::<Nullable<Timestamptz>, _>(next)
    .bind::<Nullable<Timestamptz>, _>(finished)
    .bind::<Nullable<Text>, _>(reason)
    .bind::<Uuid, _>(id)
    .bind::<Integer, _>(attempt)
    .execute(tx.conn()?)
    .await?;
    Ok(changed == 1)
}

/// Writes that a stream was made, and what NATS has; false where the lease of the try had passed and another one began or
/// ended it, which writes down what it found itself, or where the stream is not wanted any more.
pub async fn finish_made(
    tx: &mut PlatformTx,
    (id, attempt): (PipeOperationId, i32),
    found: InForce,
    now: DateTime<Utc>,
) -> Result<bool> {
    let changed = statement::<()>(
        "WITH ended AS (
            UPDATE pipe_operations SET status = 'done', finished_at = ?, reason = NULL
            WHERE id = ? AND attempts = ? AND status = 'pending' RETURNING org_id, source_id, pipe)
         UPDATE pipe_streams s SET force_ttl_seconds = ?, force_max_msgs = ?, force_max_bytes = ?, incarnation = ?, seen_at = ?
         FROM ended e WHERE s.org_id = e.org_id AND s.source_id = e.source_id AND s.pipe = e.pipe",
    )
    .bind::<Timestamptz, _>(now)
    .bind::<Uuid, _>(id)
    .bind::<Integer, _>(attempt)
    .bind::<BigInt, _>(found.retention.ttl_seconds)
    .bind::<BigInt, _>(found.retention.max_msgs)
    .bind::<BigInt, _>(found.retention.max_bytes)
    .bind::<Timestamptz, _>(found.incarnation)
    .bind::<Timestamptz, _>(now)
    .execute(tx.conn()?)
    .await?;
    Ok(changed == 1)
}

/// How many operations wait in all, and since when the oldest does: an alarm where that is long ago.
pub async fn backlog(tx: &mut PlatformTx) -> Result<(i64, Option<DateTime<Utc>>)> {
    let rows: Vec<(i64, Option<DateTime<Utc>>)> = statement::<(BigInt, Nullable<Timestamptz>)>(
        "SELECT count(*), min(created_at) FROM pipe_operations WHERE status = 'pending'",
    )
    .load(tx.conn()?)
    .await?;
    Ok(rows.into_iter().next().unwrap_or_default())
}
