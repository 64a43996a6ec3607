//! Which source a session's terminal is recorded at, and how far the recording is. Whoever records holds a lease: of
//! several, one does.

use chrono::{DateTime, Utc};
use diesel::sql_types::{Array, BigInt, Bool, Nullable, Text, Timestamptz, Uuid};
use diesel_async::RunQueryDsl;
use tidegate_model::{AgentId, Handle, Hibernation, SessionId, SourceId, TerminalSource, UserId};
use uuid::Uuid as LeaseHolder;

use crate::{Error, OrgTx, Result, statement::statement};

type Columns = (Uuid, Uuid, Text, Timestamptz);
type Row = (SessionId, SourceId, String, DateTime<Utc>);

/// The source that a session's terminal is recorded at.
pub async fn find(tx: &mut OrgTx, session: SessionId) -> Result<TerminalSource> {
    let found = of_sessions(tx, vec![session]).await?;
    found.into_iter().next().map(|(_, source)| source).ok_or(Error::NotFound)
}

/// The same for many; those whose terminals are not recorded are left out.
pub async fn of_sessions(
    tx: &mut OrgTx,
    sessions: Vec<SessionId>,
) -> Result<Vec<(SessionId, TerminalSource)>> {
    let org = tx.org_id();
    let rows: Vec<Row> = statement::<Columns>(
        "SELECT t.session_id, t.source_id, s.handle, t.created_at
         FROM terminal_sources t JOIN sources s ON s.org_id = t.org_id AND s.id = t.source_id
         WHERE t.org_id = ? AND t.session_id = ANY (?)",
    )
    .bind::<Uuid, _>(org)
    .bind::<Array<Uuid>, _>(sessions)
    .load(tx.conn()?)
    .await?;
    let source = |(session, source_id, handle, since): Row| {
        let handle = Handle::try_from(handle).map_err(|error| Error::corrupt("handle", error))?;
        Ok((session, TerminalSource { source_id, handle, since }))
    };
    rows.into_iter().map(source).collect()
}

/// The session that is recorded at a source, and whether nothing more of it will come.
pub async fn of_source(tx: &mut OrgTx, source: SourceId) -> Result<Option<(SessionId, bool)>> {
    let org = tx.org_id();
    let rows: Vec<(SessionId, bool)> = statement::<(Uuid, Bool)>(
        "SELECT t.session_id, s.state IN ('terminated', 'failed') AND t.finished >= s.generation
         FROM terminal_sources t JOIN sessions s ON s.org_id = t.org_id AND s.id = t.session_id
         WHERE t.org_id = ? AND t.source_id = ?",
    )
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(source)
    .load(tx.conn()?)
    .await?;
    Ok(rows.into_iter().next())
}

/// Has the terminal of a session recorded at a source; both are of `user`. Nobody records it yet.
pub async fn insert(
    tx: &mut OrgTx,
    session: SessionId,
    source: SourceId,
    user: UserId,
    now: DateTime<Utc>,
) -> Result<()> {
    let org = tx.org_id();
    statement::<()>(
        "INSERT INTO terminal_sources (session_id, org_id, source_id, user_id, created_at, lease_until) VALUES (?, ?, ?, ?, ?, 'epoch')",
    )
    .bind::<Uuid, _>(session)
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(source)
    .bind::<Uuid, _>(user)
    .bind::<Timestamptz, _>(now)
    .execute(tx.conn()?)
    .await?;
    Ok(())
}

/// Ends that; false where there was nothing to end.
pub async fn delete(tx: &mut OrgTx, session: SessionId) -> Result<bool> {
    let org = tx.org_id();
    let gone = statement::<()>("DELETE FROM terminal_sources WHERE org_id = ? AND session_id = ?")
        .bind::<Uuid, _>(org)
        .bind::<Uuid, _>(session)
        .execute(tx.conn()?)
        .await?;
    Ok(gone == 1)
}

/// A recording, as whoever makes it found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recording {
    /// The session.
    pub session: SessionId,
    /// Its start that is to be recorded.
    pub generation: i64,
    /// The agent it is placed on.
    pub agent: Option<AgentId>,
    /// Whether its program outlives the session's sleep, and what it prints is counted on.
    pub pauses: bool,
    /// Where to.
    pub source: SourceId,
    /// In whose name: the owner of the session, who made the source.
    pub user: UserId,
    /// Whether they may be acted for: they are active.
    pub active: bool,
    /// How far it was when that was last written down.
    pub progress: Progress,
}

/// How far a recording is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Of which start of the session.
    pub generation: i64,
    /// How many bytes of its output.
    pub recorded: i64,
    /// The sequence of the last message.
    pub sequence: i64,
}

/// Takes a recording for `holder` until `until`; none where it is another one's, where there is nothing to record any more,
/// or where it is gone.
pub async fn claim(
    tx: &mut OrgTx,
    session: SessionId,
    holder: LeaseHolder,
    (now, until): (DateTime<Utc>, DateTime<Utc>),
) -> Result<Option<Recording>> {
    type Columns = (Uuid, BigInt, Nullable<Uuid>, Nullable<Text>, Uuid, Uuid, Bool, BigInt, BigInt, BigInt);
    type Row = (SessionId, i64, Option<AgentId>, Option<String>, SourceId, UserId, bool, i64, i64, i64);
    let org = tx.org_id();
    let rows: Vec<Row> = statement::<Columns>(
        "UPDATE terminal_sources t SET lease_holder = ?, lease_until = ?
         FROM sessions s JOIN users u ON u.id = s.user_id LEFT JOIN session_specs p ON p.session_id = s.id
         WHERE t.org_id = ? AND t.session_id = ? AND t.lease_until <= ? AND s.org_id = t.org_id AND s.id = t.session_id
           AND t.finished < s.generation
         RETURNING t.session_id, s.generation, s.agent_id, p.options->>'hibernation', t.source_id, t.user_id,
           u.active, t.generation, t.recorded, t.sequence",
    )
    .bind::<Uuid, _>(holder)
    .bind::<Timestamptz, _>(until)
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(session)
    .bind::<Timestamptz, _>(now)
    .load(tx.conn()?)
    .await?;
    let recording = |row: Row| {
        let (session, generation, agent, hibernation, source, user, active, of, recorded, sequence) = row;
        Recording {
            session,
            generation,
            agent,
            pauses: hibernation.is_some_and(|word| word == Hibernation::Pause.as_str()),
            source,
            user,
            active,
            progress: Progress { generation: of, recorded, sequence },
        }
    };
    Ok(rows.into_iter().next().map(recording))
}

/// How a recording stands for whoever makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// It goes on.
    Held,
    /// It was ended, is another one's by now, or its owner may not be acted for any more.
    Lost,
}

/// Writes down how far a recording is, and keeps it until `until`.
pub async fn renew(
    tx: &mut OrgTx,
    session: SessionId,
    holder: LeaseHolder,
    progress: Progress,
    until: DateTime<Utc>,
) -> Result<Held> {
    let org = tx.org_id();
    let changed = statement::<()>(
        "UPDATE terminal_sources t SET generation = ?, recorded = ?, sequence = ?, lease_until = ?
         FROM users u WHERE t.org_id = ? AND t.session_id = ? AND t.lease_holder = ? AND u.id = t.user_id AND u.active",
    )
    .bind::<BigInt, _>(progress.generation)
    .bind::<BigInt, _>(progress.recorded)
    .bind::<BigInt, _>(progress.sequence)
    .bind::<Timestamptz, _>(until)
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(session)
    .bind::<Uuid, _>(holder)
    .execute(tx.conn()?)
    .await?;
    Ok(if changed == 1 { Held::Held } else { Held::Lost })
}

/// What becomes of a recording that is let go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Somebody goes on with it, from then on.
    From(DateTime<Utc>),
    /// The end of this start is marked.
    Finished(i64),
}

/// Lets a recording go. One whose end is marked is let go until the session starts again.
pub async fn release(
    tx: &mut OrgTx,
    session: SessionId,
    holder: LeaseHolder,
    progress: Progress,
    next: Next,
) -> Result<()> {
    let (from, finished) = match next {
        Next::From(from) => (Some(from), 0),
        Next::Finished(generation) => (None, generation),
    };
    let org = tx.org_id();
    // First, so that a start waits for this or is seen below: else nobody would look again.
    statement::<()>("SELECT 1 FROM sessions WHERE org_id = ? AND id = ? FOR SHARE")
        .bind::<Uuid, _>(org)
        .bind::<Uuid, _>(session)
        .execute(tx.conn()?)
        .await?;
    statement::<()>(
        "UPDATE terminal_sources t SET generation = ?, recorded = ?, sequence = ?, lease_holder = NULL, finished = greatest(t.finished, ?),
           lease_until = COALESCE(?, CASE WHEN s.generation > ? THEN 'epoch'::timestamptz ELSE 'infinity'::timestamptz END)
         FROM sessions s WHERE t.org_id = ? AND t.session_id = ? AND t.lease_holder = ? AND s.org_id = t.org_id AND s.id = t.session_id",
    )
    .bind::<BigInt, _>(progress.generation)
    .bind::<BigInt, _>(progress.recorded)
    .bind::<BigInt, _>(progress.sequence)
    .bind::<BigInt, _>(finished)
    .bind::<Nullable<Timestamptz>, _>(from)
    .bind::<BigInt, _>(finished)
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(session)
    .bind::<Uuid, _>(holder)
    .execute(tx.conn()?)
    .await?;
    Ok(())
}

/// The session starts again: what was let go until then is to be recorded.
pub(crate) async fn starts(tx: &mut OrgTx, session: SessionId) -> Result<()> {
    let org = tx.org_id();
    statement::<()>(
        "UPDATE terminal_sources SET lease_until = 'epoch' WHERE org_id = ? AND session_id = ? AND lease_until = 'infinity'",
    )
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(session)
    .execute(tx.conn()?)
    .await?;
    Ok(())
}
