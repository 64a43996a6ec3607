//! What kept sessions alive. The last reasons of a session stand in places that are written over again, so that there are
//! never more of them, whatever happens.

use chrono::{DateTime, TimeDelta, Utc};
use diesel::sql_types::{Array, Text, Timestamptz, Uuid};
use diesel_async::RunQueryDsl;
use tidegate_model::{ActivityKind, SessionActivity, SessionId, UserId};

use crate::{OrgTx, Result, statement::statement};

/// Activity to write down.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The sessions, each once, with who was active in it.
    pub who: Vec<(SessionId, UserId)>,
    /// What they did.
    pub kind: ActivityKind,
    /// Sessions whose last activity is younger than this are left as they are.
    pub unless_within: TimeDelta,
    /// The present.
    pub now: DateTime<Utc>,
}

/// Stamps sessions that have not ended and keeps the reason, in one statement; says how many those were.
pub async fn note(tx: &mut OrgTx, seen: Seen) -> Result<usize> {
    let org = tx.org_id();
    let (mut who, now) = (seen.who, seen.now);
    // In one order, so that two that write at once wait for each other and not in a circle.
    who.sort_unstable();
    let (sessions, users): (Vec<SessionId>, Vec<UserId>) = who.into_iter().unzip();
    Ok(statement::<()>(
        "WITH active AS MATERIALIZED (
             SELECT s.id, x.user_id FROM unnest(?::uuid[], ?::uuid[]) AS x(session_id, user_id) JOIN sessions s ON s.id = x.session_id
             WHERE s.org_id = ? AND s.hidden_at IS NULL AND s.state NOT IN ('terminating', 'terminated', 'failed')
               AND (s.last_activity_at IS NULL OR s.last_activity_at <= ?)
             ORDER BY s.id FOR NO KEY UPDATE OF s),
         touched AS (
             UPDATE sessions s SET last_activity_at = GREATEST(s.last_activity_at, ?), activity_count = s.activity_count + 1
             FROM active a WHERE s.id = a.id RETURNING s.id, s.org_id, s.activity_count, a.user_id)
         INSERT INTO session_activity (org_id, session_id, slot, at, kind, user_id, username)
         SELECT t.org_id, t.id, (t.activity_count % 20)::smallint, ?, ?, t.user_id, COALESCE(u.username, '')
         FROM touched t LEFT JOIN users u ON u.id = t.user_id
         ON CONFLICT (session_id, slot) DO UPDATE SET at = EXCLUDED.at, kind = EXCLUDED.kind, user_id = EXCLUDED.user_id, username = EXCLUDED.username",
    )
    .bind::<Array<Uuid>, _>(sessions)
    .bind::<Array<Uuid>, _>(users)
    .bind::<Uuid, _>(org)
    .bind::<Timestamptz, _>(now - seen.unless_within)
    .bind::<Timestamptz, _>(now)
    .bind::<Timestamptz, _>(now)
    .bind::<Text, _>(seen.kind)
    .execute(tx.conn()?)
    .await?)
}

/// The last reasons why a session stayed alive, the newest first; at most 20.
pub async fn list(tx: &mut OrgTx, session: SessionId) -> Result<Vec<SessionActivity>> {
    let org = tx.org_id();
    let rows: Vec<(DateTime<Utc>, ActivityKind, UserId, String)> =
        statement::<(Timestamptz, Text, Uuid, Text)>(
            // Written in the same moment, the later place comes first.
            "SELECT a.at, a.kind, a.user_id, a.username FROM session_activity a JOIN sessions s ON s.id = a.session_id
             WHERE a.org_id = ? AND a.session_id = ? ORDER BY a.at DESC, (s.activity_count - a.slot) % 20",
        )
        .bind::<Uuid, _>(org)
        .bind::<Uuid, _>(session)
        .load(tx.conn()?)
        .await?;
    let activity = |(at, kind, user_id, user)| SessionActivity { at, kind, user_id, user };
    Ok(rows.into_iter().map(activity).collect())
}
