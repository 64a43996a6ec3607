//! What a session's limits do to it, each in one statement that asks the row itself whether it is still due: of two who
//! sweep, and of a sweep and an activity, one comes first and the other changes nothing.

use chrono::{DateTime, TimeDelta, Utc};
use diesel::sql_types::{Array, BigInt, Integer, Nullable, Text, Timestamptz, Uuid};
use diesel_async::RunQueryDsl;
use tidegate_model::{LimitAction, LimitMarks, LimitSource, SessionId, SessionState};

use crate::{Error, OrgTx, Result, statement::statement};

/// What of a session's limits its entity does not show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// What its moments are counted from.
    pub marks: LimitMarks,
    /// Who set the idle timeout.
    pub idle_source: LimitSource,
    /// Who set the longest duration.
    pub max_source: LimitSource,
}

type Row =
    (i32, Option<DateTime<Utc>>, Option<DateTime<Utc>>, Option<DateTime<Utc>>, LimitSource, LimitSource);
type Columns = (Integer, Nullable<Timestamptz>, Nullable<Timestamptz>, Nullable<Timestamptz>, Text, Text);

/// What of a session's limits its entity does not show.
pub async fn find(tx: &mut OrgTx, id: SessionId) -> Result<Limits> {
    let org = tx.org_id();
    let rows: Vec<Row> = statement::<Columns>(
        "SELECT extended_seconds, kept_until, warned_at, warned_of, idle_source, max_source FROM sessions WHERE org_id = ? AND id = ?",
    )
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(id)
    .load(tx.conn()?)
    .await?;
    let (extended, kept_until, warned_at, warned_of, idle_source, max_source) =
        rows.into_iter().next().ok_or(Error::NotFound)?;
    let extended_seconds = u32::try_from(extended).map_err(|error| Error::corrupt("time limit", error))?;
    let marks = LimitMarks { extended_seconds, kept_until, warned_at, warned_of };
    Ok(Limits { marks, idle_source, max_source })
}

/// Moments of a session and whether something is due by a moment, as the row says it; one word for every statement here.
macro_rules! due {
    ($begin:literal, $end:literal) => {
        concat!(
            $begin,
            " FROM (SELECT m.id, m.idle_at, m.ends_at, session_due_at(m.idle_at, m.idle_seconds, m.ends_at, m.max_seconds, m.warned_at, m.warned_of) AS due_at
                    FROM (SELECT x.*, session_idle_at(x.state, x.state_since, x.last_activity_at, x.kept_until, x.idle_seconds) AS idle_at,
                                 session_ends_at(x.started_at, x.max_seconds, x.extended_seconds) AS ends_at
                          FROM sessions x WHERE x.id = ? AND x.org_id = ? AND x.hidden_at IS NULL AND x.state IN ('running', 'hibernated')
                          FOR NO KEY UPDATE) m) d
              WHERE s.id = d.id AND d.due_at <= ?",
            $end
        )
    };
}

/// Takes note that its owner was warned of what comes next, with a line in its history. False when nothing is due any
/// more, or somebody else has warned already.
pub async fn warn(tx: &mut OrgTx, id: SessionId, reason: &str, now: DateTime<Utc>) -> Result<bool> {
    let org = tx.org_id();
    let warned: Vec<i64> = statement::<BigInt>(due!(
        "WITH warned AS (UPDATE sessions s SET warned_at = ?, warned_of = LEAST(d.idle_at, d.ends_at)",
        " AND s.warned_of IS DISTINCT FROM LEAST(d.idle_at, d.ends_at)
              RETURNING s.id, s.org_id, s.agent_id, s.state, s.generation, s.warned_at),
          told AS (INSERT INTO session_events (id, org_id, session_id, agent_id, from_state, to_state, reason, generation, at)
              SELECT tidegate_uuid_v7(w.warned_at), w.org_id, w.id, w.agent_id, w.state, w.state, ?, w.generation, w.warned_at FROM warned w)
          SELECT count(*) FROM warned"
    ))
    .bind::<Timestamptz, _>(now)
    .bind::<Uuid, _>(id)
    .bind::<Uuid, _>(org)
    .bind::<Timestamptz, _>(now)
    .bind::<Text, _>(reason.to_owned())
    .load(tx.conn()?)
    .await?;
    Ok(warned == [1])
}

/// What a session's limits do to it when their time has come.
#[derive(Debug, Clone)]
pub struct Enforce {
    /// The session.
    pub id: SessionId,
    /// Hibernate or terminate.
    pub action: LimitAction,
    /// Why, for people.
    pub reason: String,
    /// How old the end of an idle timeout must be: so long an activity may be on its way to the database.
    pub grace: TimeDelta,
    /// The present.
    pub now: DateTime<Utc>,
}

/// Begins what was warned of. False when it is not due any more, or somebody else was first.
pub async fn enforce(tx: &mut OrgTx, enforce: Enforce) -> Result<bool> {
    let org = tx.org_id();
    let (to, at_the_latest) = match enforce.action {
        LimitAction::Hibernate => (SessionState::Hibernating, enforce.now - enforce.grace),
        LimitAction::Terminate => (SessionState::Terminating, enforce.now),
    };
    let changed = statement::<()>(due!(
        "UPDATE sessions s SET state = ?, state_reason = ?, state_since = ?, streaming_ready = false",
        " AND s.warned_of = LEAST(d.idle_at, d.ends_at) AND s.state = ANY(?)
          AND ? = CASE WHEN d.ends_at <= d.idle_at OR d.idle_at IS NULL THEN 'terminate' ELSE 'hibernate' END"
    ))
    .bind::<Text, _>(to)
    .bind::<Text, _>(enforce.reason)
    .bind::<Timestamptz, _>(enforce.now)
    .bind::<Uuid, _>(enforce.id)
    .bind::<Uuid, _>(org)
    .bind::<Timestamptz, _>(at_the_latest)
    .bind::<Array<Text>, _>(to.predecessors().to_vec())
    .bind::<Text, _>(enforce.action)
    .execute(tx.conn()?)
    .await?;
    Ok(changed == 1)
}

/// How a session is extended.
#[derive(Debug, Clone, Copy)]
pub struct Extend {
    /// The session.
    pub id: SessionId,
    /// By so many seconds.
    pub by: u32,
    /// No longer than so many seconds altogether.
    pub most: u32,
    /// The present.
    pub now: DateTime<Utc>,
}

/// Puts a session's end off, and keeps it from being idle for as long. False when that would be too much by now, or when
/// it has ended.
pub async fn extend(tx: &mut OrgTx, extend: Extend) -> Result<bool> {
    let org = tx.org_id();
    let seconds = |seconds: u32| i32::try_from(seconds).unwrap_or(i32::MAX);
    let kept_until = extend.now + TimeDelta::seconds(i64::from(extend.by));
    let changed = statement::<()>(
        "UPDATE sessions SET extended_seconds = CASE WHEN max_seconds > 0 THEN extended_seconds + ? ELSE 0 END,
                kept_until = CASE WHEN idle_seconds > 0 THEN GREATEST(kept_until, ?) END
         WHERE org_id = ? AND id = ? AND hidden_at IS NULL AND state NOT IN ('terminating', 'terminated', 'failed')
           AND (max_seconds = 0 OR max_seconds::bigint + extended_seconds + ? <= ?)",
    )
    .bind::<Integer, _>(seconds(extend.by))
    .bind::<Timestamptz, _>(kept_until)
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(extend.id)
    .bind::<Integer, _>(seconds(extend.by))
    .bind::<Integer, _>(seconds(extend.most))
    .execute(tx.conn()?)
    .await?;
    Ok(changed == 1)
}
