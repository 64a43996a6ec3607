//! Sessions an agent runs and nobody here knows.

use chrono::{DateTime, Utc};
use diesel::sql_types::{Array, Text, Timestamptz, Uuid};
use diesel_async::RunQueryDsl;
use tidegate_model::{AgentId, CommandId, SessionState};

use crate::{AgentTx, PlatformTx, Result, statement::statement};

/// One quarantined session.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Quarantined {
    /// The name of the agent that runs it.
    pub agent_id: String,
    /// The id the agent gave.
    pub session_id: String,
    /// The state the agent gave.
    pub state: String,
    /// First reported.
    pub first_seen: DateTime<Utc>,
    /// Last reported.
    pub last_seen: DateTime<Utc>,
}

/// Puts sessions into quarantine, or stamps those that are there. At most `LIMIT` an agent are kept.
pub async fn upsert(
    tx: &mut AgentTx,
    agent: AgentId,
    sessions: &[(String, SessionState)],
    now: DateTime<Utc>,
) -> Result<()> {
    let (ids, states): (Vec<String>, Vec<SessionState>) = sessions.iter().cloned().unzip();
    statement::<()>(
        "INSERT INTO quarantined_sessions (agent_id, session_id, state, first_seen, last_seen)
         SELECT ?, x.id, x.state, ?, ? FROM (SELECT DISTINCT ON (u.id) u.id, u.state FROM unnest(?, ?) AS u(id, state) ORDER BY u.id LIMIT 1000) x
         WHERE (SELECT count(*) FROM quarantined_sessions q WHERE q.agent_id = ?) < 1000
         ON CONFLICT (agent_id, session_id) DO UPDATE SET state = EXCLUDED.state, last_seen = EXCLUDED.last_seen",
    )
    .bind::<Uuid, _>(agent)
    .bind::<Timestamptz, _>(now)
    .bind::<Timestamptz, _>(now)
    .bind::<Array<Text>, _>(ids)
    .bind::<Array<Text>, _>(states)
    .bind::<Uuid, _>(agent)
    .execute(tx.conn()?)
    .await?;
    Ok(())
}

/// Whether an agent has this session in quarantine; if so, it stays there as it is until the transaction ends.
pub async fn hold(tx: &mut PlatformTx, agent: AgentId, session_id: &str) -> Result<bool> {
    let agents: Vec<AgentId> = statement::<Uuid>(
        "SELECT a.id FROM agents a WHERE a.id = ?
           AND EXISTS (SELECT 1 FROM quarantined_sessions q WHERE q.agent_id = a.id AND q.session_id = ?) FOR NO KEY UPDATE",
    )
    .bind::<Uuid, _>(agent)
    .bind::<Text, _>(session_id.to_owned())
    .load(tx.conn()?)
    .await?;
    Ok(!agents.is_empty())
}

/// Takes a session off the list.
pub async fn forget(tx: &mut PlatformTx, agent: AgentId, session_id: &str) -> Result<()> {
    statement::<()>("DELETE FROM quarantined_sessions WHERE agent_id = ? AND session_id = ?")
        .bind::<Uuid, _>(agent)
        .bind::<Text, _>(session_id.to_owned())
        .execute(tx.conn()?)
        .await?;
    Ok(())
}

/// Takes sessions off the list that have ended.
pub async fn ended(tx: &mut AgentTx, agent: AgentId, sessions: Vec<String>) -> Result<()> {
    statement::<()>("DELETE FROM quarantined_sessions WHERE agent_id = ? AND session_id = ANY(?)")
        .bind::<Uuid, _>(agent)
        .bind::<Array<Text>, _>(sessions)
        .execute(tx.conn()?)
        .await?;
    Ok(())
}

/// Takes the sessions off the list that these commands have stopped.
pub async fn stopped(tx: &mut AgentTx, commands: Vec<CommandId>) -> Result<()> {
    statement::<()>(
        "DELETE FROM quarantined_sessions q USING commands c
         WHERE c.id = ANY(?) AND q.agent_id = c.agent_id AND q.session_id = c.payload->>'sessionId'",
    )
    .bind::<Array<Uuid>, _>(commands)
    .execute(tx.conn()?)
    .await?;
    Ok(())
}

/// Every quarantined session, the newest first.
pub async fn list(tx: &mut PlatformTx) -> Result<Vec<Quarantined>> {
    let rows: Vec<(String, String, String, DateTime<Utc>, DateTime<Utc>)> =
        statement::<(Text, Text, Text, Timestamptz, Timestamptz)>(
            "SELECT a.agent_id, q.session_id, q.state, q.first_seen, q.last_seen
             FROM quarantined_sessions q JOIN agents a ON a.id = q.agent_id ORDER BY q.last_seen DESC LIMIT 1000",
        )
        .load(tx.conn()?)
        .await?;
    let quarantined = |(agent_id, session_id, state, first_seen, last_seen)| Quarantined {
        agent_id,
        session_id,
        state,
        first_seen,
        last_seen,
    };
    Ok(rows.into_iter().map(quarantined).collect())
}
