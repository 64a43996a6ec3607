//! Viewings of sessions: what somebody who opens one needs to know, and their end without the session's.

use chrono::{DateTime, Utc};
use diesel::sql_types::{BigInt, Nullable, Timestamptz, Uuid};
use diesel_async::RunQueryDsl;
use tidegate_model::{AgentId, SessionId, UserId};

use crate::{Error, OrgTx, Result, statement::statement};

/// The last time that somebody's viewings of a session were ended, as a number: what was opened before a later one is over.
/// The default is before the first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ViewingEnd(pub(crate) i64);

/// What a viewing that is opened needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opening {
    /// The row id of the agent the session is placed on.
    pub agent: Option<AgentId>,
    /// The last end of the viewer's viewings of it.
    pub ended: ViewingEnd,
}

/// What the transaction's user needs to open a viewing of a session.
pub async fn opening(tx: &mut OrgTx, session: SessionId) -> Result<Opening> {
    let user = tx.user_id()?;
    let rows: Vec<(Option<AgentId>, Option<i64>)> = statement::<(Nullable<Uuid>, Nullable<BigInt>)>(
        "SELECT s.agent_id, (SELECT v.number FROM viewing_ends v WHERE v.session_id = s.id AND v.user_id = ?)
         FROM sessions s WHERE s.id = ?",
    )
    .bind::<Uuid, _>(user)
    .bind::<Uuid, _>(session)
    .load(tx.conn()?)
    .await?;
    let (agent, ended) = rows.into_iter().next().ok_or(Error::NotFound)?;
    Ok(Opening { agent, ended: ViewingEnd(ended.unwrap_or(0)) })
}

/// Ends somebody's viewings of a session: what is open, what a browser was given, and tickets that were not used yet.
pub async fn end(tx: &mut OrgTx, session: SessionId, user: UserId, now: DateTime<Utc>) -> Result<()> {
    let org = tx.org_id();
    // The number is drawn once the row is locked: of two at once, the one that commits last ends what was opened between.
    statement::<()>(
        "INSERT INTO viewing_ends (org_id, session_id, user_id, at) VALUES (?, ?, ?, ?)
         ON CONFLICT (session_id, user_id) DO UPDATE SET number = nextval('viewing_ends_number'), at = EXCLUDED.at",
    )
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(session)
    .bind::<Uuid, _>(user)
    .bind::<Timestamptz, _>(now)
    .execute(tx.conn()?)
    .await?;
    statement::<()>(
        "UPDATE stream_tickets SET consumed_at = ? WHERE org_id = ? AND session_id = ? AND user_id = ? AND consumed_at IS NULL",
    )
    .bind::<Timestamptz, _>(now)
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(session)
    .bind::<Uuid, _>(user)
    .execute(tx.conn()?)
    .await?;
    statement::<()>("DELETE FROM stream_grants WHERE org_id = ? AND session_id = ? AND user_id = ?")
        .bind::<Uuid, _>(org)
        .bind::<Uuid, _>(session)
        .bind::<Uuid, _>(user)
        .execute(tx.conn()?)
        .await?;
    Ok(())
}
