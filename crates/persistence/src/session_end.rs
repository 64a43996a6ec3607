//! A session that ends without its agent's word: beside `session`, whose rows are moved by requests and reports.

use chrono::{DateTime, Utc};
use diesel::sql_types::{Array, BigInt, Text, Timestamptz, Uuid};
use diesel_async::RunQueryDsl;
use tidegate_model::{AgentId, ApplicationId, SessionId, SessionState, UserId};

use crate::{OrgTx, Result, statement::statement};

/// Ends a session that is being terminated, and forgets what its next start would have needed. False when it is not
/// being terminated any more.
pub async fn end(tx: &mut OrgTx, id: SessionId, reason: &str, now: DateTime<Utc>) -> Result<bool> {
    let ended: Vec<i64> = statement::<BigInt>(
        "WITH ended AS (
             UPDATE sessions SET state = 'terminated', state_reason = ?, state_since = ?, streaming_ready = false,
                 ended_at = COALESCE(ended_at, ?)
             WHERE id = ? AND hidden_at IS NULL AND state = 'terminating' RETURNING id),
         forgotten AS (DELETE FROM session_specs WHERE session_id IN (SELECT id FROM ended))
         SELECT count(*) FROM ended",
    )
    .bind::<Text, _>(reason.to_owned())
    .bind::<Timestamptz, _>(now)
    .bind::<Timestamptz, _>(now)
    .bind::<Uuid, _>(id)
    .load(tx.conn()?)
    .await?;
    Ok(ended == [1])
}

/// Whose sessions are ended together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndOf {
    /// All of the organization.
    Organization,
    /// This member's.
    Member(UserId),
    /// Those that came from this installed application.
    Application(ApplicationId),
}

/// Sessions to be ended together.
#[derive(Debug, Clone)]
pub struct EndAll {
    /// Whose.
    pub of: EndOf,
    /// Why.
    pub reason: String,
    /// When their stops fail by themselves.
    pub deadline: DateTime<Utc>,
    /// The present.
    pub now: DateTime<Utc>,
}

/// The statement that ends sessions, of all that a condition leaves.
macro_rules! ending {
    ($whose:literal) => {
        concat!(
            "WITH held AS MATERIALIZED (
             SELECT h.id FROM sessions h
             WHERE h.org_id = ? AND ",
            $whose,
            " AND h.agent_id IS NOT NULL AND h.hidden_at IS NULL AND h.state = ANY(?)
             ORDER BY h.id FOR NO KEY UPDATE),
         moved AS (
             UPDATE sessions s SET state = 'terminating', state_reason = ?, state_since = ?, streaming_ready = false
             FROM held WHERE s.id = held.id AND s.hidden_at IS NULL AND s.state = ANY(?)
             RETURNING s.id, s.org_id, s.agent_id, s.agent_handle, s.generation),
         queued AS (
             INSERT INTO commands (id, org_id, agent_id, agent_handle, session_id, generation, action, payload, status, deadline, created_at)
             SELECT tidegate_uuid_v7(?), m.org_id, m.agent_id, m.agent_handle, m.id, m.generation, 'stop_session',
                    jsonb_build_object('sessionId', m.id, 'generation', m.generation), 'pending', ?, ? FROM moved m
             RETURNING agent_id)
         SELECT DISTINCT agent_id FROM queued"
        )
    };
}

/// Begins the end of every session that has not ended, with a stop for each, in one statement. Gives the agents that
/// have work by it. The sessions are locked in the order of their ids, as agents' reports lock them.
pub async fn end_all(tx: &mut OrgTx, end: EndAll) -> Result<Vec<AgentId>> {
    let org_id = tx.org_id();
    let statement = match end.of {
        EndOf::Organization => statement::<Uuid>(ending!("true")).bind::<Uuid, _>(org_id),
        EndOf::Member(user) => {
            statement::<Uuid>(ending!("h.user_id = ?")).bind::<Uuid, _>(org_id).bind::<Uuid, _>(user)
        }
        EndOf::Application(application) => statement::<Uuid>(ending!("h.installed_application_id = ?"))
            .bind::<Uuid, _>(org_id)
            .bind::<Uuid, _>(application),
    };
    let rows: Vec<AgentId> = statement
        .bind::<Array<Text>, _>(SessionState::Terminating.predecessors().to_vec())
        .bind::<Text, _>(end.reason)
        .bind::<Timestamptz, _>(end.now)
        .bind::<Array<Text>, _>(SessionState::Terminating.predecessors().to_vec())
        .bind::<Timestamptz, _>(end.now)
        .bind::<Timestamptz, _>(end.deadline)
        .bind::<Timestamptz, _>(end.now)
        .load(tx.conn()?)
        .await?;
    Ok(rows)
}
