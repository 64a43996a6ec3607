//! What operators order of agents: keys, drains, whom they serve, their end; and what the platform does by itself when
//! such an order is due, in the agents' own scope.

use chrono::{DateTime, Utc};
use diesel::sql_types::{Array, BigInt, Bool, Bytea, Nullable, Text, Timestamptz, Uuid};
use diesel_async::RunQueryDsl;
use tidegate_model::{AgentHandle, AgentId, OrgId, SessionId, SessionState};

use crate::{AgentTx, Error, PlatformTx, Result, statement::statement};

/// Another key for an agent.
#[derive(Debug, Clone)]
pub struct KeyChange {
    /// Digest of the new key.
    pub hash: Vec<u8>,
    /// The key before it is good until then; not at all without it.
    pub old_until: Option<DateTime<Utc>>,
    /// The present.
    pub now: DateTime<Utc>,
}

/// Gives an agent a new key. Without an overlap what the old one opened ends: the epoch moves on, and nobody is connected.
pub async fn set_key(tx: &mut PlatformTx, id: AgentId, change: KeyChange) -> Result<()> {
    statement::<()>(
        "UPDATE agents SET api_key_hash = r.key, api_key_created_at = r.now, api_key_last_used_at = NULL, updated_at = r.now,
                previous_key_hash = CASE WHEN r.until IS NULL THEN NULL ELSE api_key_hash END,
                previous_key_expires_at = CASE WHEN api_key_hash IS NULL THEN NULL ELSE r.until END,
                epoch = CASE WHEN r.until IS NULL THEN epoch + 1 ELSE epoch END,
                status = CASE WHEN r.until IS NULL THEN 'offline' ELSE status END,
                websocket_id = CASE WHEN r.until IS NULL THEN NULL ELSE websocket_id END
         FROM (SELECT ?::bytea AS key, ?::timestamptz AS until, ?::timestamptz AS now) r
         WHERE id = ? AND approval_status = 'approved' AND deleted_at IS NULL",
    )
    .bind::<Bytea, _>(change.hash)
    .bind::<Nullable<Timestamptz>, _>(change.old_until)
    .bind::<Timestamptz, _>(change.now)
    .bind::<Uuid, _>(id)
    .execute(tx.conn()?)
    .await?;
    Ok(())
}

/// Takes an agent's keys, the old one too, and closes what they opened. Its claim token is good for nothing any more
/// either: it would give it a new key.
pub async fn revoke_key(tx: &mut PlatformTx, id: AgentId, now: DateTime<Utc>) -> Result<()> {
    statement::<()>(
        "UPDATE agents SET api_key_hash = NULL, api_key_created_at = NULL, previous_key_hash = NULL, previous_key_expires_at = NULL,
                claim_hash = NULL, epoch = epoch + 1, status = 'offline', websocket_id = NULL, active_sessions = 0, updated_at = ?
         WHERE id = ?",
    )
    .bind::<Timestamptz, _>(now)
    .bind::<Uuid, _>(id)
    .execute(tx.conn()?)
    .await?;
    Ok(())
}

/// A drain as it is written.
#[derive(Debug, Clone)]
pub struct Drain {
    /// When what still runs is hibernated or ended.
    pub deadline: Option<DateTime<Utc>>,
    /// Why.
    pub reason: Option<String>,
    /// The present.
    pub now: DateTime<Utc>,
}

/// Sets an operator's drain, or changes the one that is set; since when it is drained stays.
pub async fn drain(tx: &mut PlatformTx, handle: &AgentHandle, drain: Drain) -> Result<()> {
    let changed = statement::<()>(
        "UPDATE agents SET operator_drain = true, drain_deadline = ?, drain_reason = ?, updated_at = r.now,
                drained_at = CASE WHEN operator_drain THEN COALESCE(drained_at, r.now) ELSE r.now END
         FROM (SELECT ?::timestamptz AS now) r WHERE agent_id = ? AND deleted_at IS NULL",
    )
    .bind::<Nullable<Timestamptz>, _>(drain.deadline)
    .bind::<Nullable<Text>, _>(drain.reason)
    .bind::<Timestamptz, _>(drain.now)
    .bind::<Text, _>(handle.as_str().to_owned())
    .execute(tx.conn()?)
    .await?;
    if changed == 1 { Ok(()) } else { Err(Error::NotFound) }
}

/// Lifts an operator's drain; what was hibernated or ended for it stays so.
pub async fn undrain(tx: &mut PlatformTx, handle: &AgentHandle, now: DateTime<Utc>) -> Result<()> {
    let changed = statement::<()>(
        "UPDATE agents SET operator_drain = false, drained_at = NULL, drain_deadline = NULL, drain_reason = NULL, updated_at = ?
         WHERE agent_id = ? AND deleted_at IS NULL",
    )
    .bind::<Timestamptz, _>(now)
    .bind::<Text, _>(handle.as_str().to_owned())
    .execute(tx.conn()?)
    .await?;
    if changed == 1 { Ok(()) } else { Err(Error::NotFound) }
}

/// Locks an agent that was not removed, as whoever places a session does: what is counted in a later statement stays so.
pub async fn lock_any(tx: &mut PlatformTx, handle: &AgentHandle) -> Result<AgentId> {
    let rows: Vec<AgentId> = statement::<Uuid>(
        "SELECT id FROM agents WHERE agent_id = ? AND deleted_at IS NULL FOR NO KEY UPDATE",
    )
    .bind::<Text, _>(handle.as_str().to_owned())
    .load(tx.conn()?)
    .await?;
    rows.into_iter().next().ok_or(Error::NotFound)
}

/// Sessions that an agent holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Those that run, start, stop or wake.
    pub active: i64,
    /// Those that sleep.
    pub asleep: i64,
}

/// What an agent holds; with `but` only what is of other organizations than that one.
pub async fn held(tx: &mut PlatformTx, id: AgentId, but: Option<OrgId>) -> Result<Held> {
    let rows: Vec<(i64, i64)> = statement::<(BigInt, BigInt)>(
        "SELECT (SELECT count(*) FROM sessions s WHERE s.agent_id = ? AND s.org_id IS DISTINCT FROM ?
                   AND s.state IN ('pending', 'running', 'waking', 'hibernating', 'terminating')),
                (SELECT count(*) FROM sessions s WHERE s.agent_id = ? AND s.org_id IS DISTINCT FROM ? AND s.state = 'hibernated')",
    )
    .bind::<Uuid, _>(id)
    .bind::<Nullable<Uuid>, _>(but)
    .bind::<Uuid, _>(id)
    .bind::<Nullable<Uuid>, _>(but)
    .load(tx.conn()?)
    .await?;
    let (active, asleep) = rows.into_iter().next().unwrap_or_default();
    Ok(Held { active, asleep })
}

/// Says which organization an agent serves alone; all of them for `None`. Lock it first.
pub async fn assign(tx: &mut PlatformTx, id: AgentId, org: Option<OrgId>, now: DateTime<Utc>) -> Result<()> {
    statement::<()>("UPDATE agents SET org_id = ?, updated_at = ? WHERE id = ?")
        .bind::<Nullable<Uuid>, _>(org)
        .bind::<Timestamptz, _>(now)
        .bind::<Uuid, _>(id)
        .execute(tx.conn()?)
        .await?;
    Ok(())
}

/// Says where an agent stands.
pub async fn set_region(
    tx: &mut PlatformTx,
    id: AgentId,
    region: Option<String>,
    now: DateTime<Utc>,
) -> Result<()> {
    statement::<()>("UPDATE agents SET region = ?, updated_at = ? WHERE id = ?")
        .bind::<Nullable<Text>, _>(region)
        .bind::<Timestamptz, _>(now)
        .bind::<Uuid, _>(id)
        .execute(tx.conn()?)
        .await?;
    Ok(())
}

/// Removes an agent: its row stays for the books, its name is free, its keys are gone and what they opened ends. The end
/// of the sessions it held is begun, and carried out by [`end_removed`]; returned are their organizations, each with how
/// many.
pub async fn remove(
    tx: &mut PlatformTx,
    id: AgentId,
    reason: &str,
    now: DateTime<Utc>,
) -> Result<Vec<(OrgId, i64)>> {
    revoke_key(tx, id, now).await?;
    let conn = tx.conn()?;
    statement::<()>(
        "UPDATE agents SET deleted_at = ?, operator_drain = false, drained_at = NULL, drain_deadline = NULL, drain_reason = NULL
         WHERE id = ?",
    )
    .bind::<Timestamptz, _>(now)
    .bind::<Uuid, _>(id)
    .execute(conn)
    .await?;
    Ok(statement::<(Uuid, BigInt)>(
        "WITH moved AS (
             UPDATE sessions s SET state = 'terminating', state_reason = ?, state_since = ?, streaming_ready = false
             WHERE s.agent_id = ? AND s.state NOT IN ('terminated', 'failed') AND (s.state = ANY(?) OR s.state = 'terminating')
             RETURNING s.org_id)
         SELECT org_id, count(*) FROM moved GROUP BY org_id ORDER BY org_id",
    )
    .bind::<Text, _>(reason.to_owned())
    .bind::<Timestamptz, _>(now)
    .bind::<Uuid, _>(id)
    .bind::<Array<Text>, _>(SessionState::Terminating.predecessors().to_vec())
    .load(conn)
    .await?)
}

/// Ends what is still begun on an agent that was removed: its commands fail, its sessions are terminated. Nothing for an
/// agent that is there, and nothing twice.
pub async fn end_removed(tx: &mut AgentTx, id: AgentId, now: DateTime<Utc>) -> Result<Vec<SessionId>> {
    let conn = tx.conn()?;
    statement::<()>(
        "UPDATE commands c SET status = 'failed', sealed = NULL, completed_at = ?, error_message = 'the agent was removed'
         WHERE c.agent_id = ? AND c.completed_at IS NULL
           AND EXISTS (SELECT 1 FROM agents a WHERE a.id = c.agent_id AND a.deleted_at IS NOT NULL)",
    )
    .bind::<Timestamptz, _>(now)
    .bind::<Uuid, _>(id)
    .execute(conn)
    .await?;
    Ok(statement::<Uuid>(
        "WITH ended AS (
             UPDATE sessions s SET state = 'terminated', state_since = ?, streaming_ready = false, ended_at = COALESCE(s.ended_at, ?)
             WHERE s.agent_id = ? AND s.state = 'terminating'
               AND EXISTS (SELECT 1 FROM agents a WHERE a.id = s.agent_id AND a.deleted_at IS NOT NULL)
             RETURNING s.id),
         forgotten AS (DELETE FROM session_specs WHERE session_id IN (SELECT id FROM ended))
         SELECT id FROM ended",
    )
    .bind::<Timestamptz, _>(now)
    .bind::<Timestamptz, _>(now)
    .bind::<Uuid, _>(id)
    .load(conn)
    .await?)
}

/// Forgets the key before the last rotation where its time is over. True where the live connection was opened with it:
/// then the epoch has moved on, and the connection can change nothing any more.
pub async fn end_overlap(tx: &mut AgentTx, id: AgentId, now: DateTime<Utc>) -> Result<bool> {
    let rows: Vec<bool> = statement::<Bool>(
        "UPDATE agents a SET previous_key_hash = NULL, previous_key_expires_at = NULL,
                epoch = CASE WHEN b.cut THEN a.epoch + 1 ELSE a.epoch END,
                status = CASE WHEN b.cut THEN 'offline' ELSE a.status END,
                websocket_id = CASE WHEN b.cut THEN NULL ELSE a.websocket_id END
         FROM (SELECT o.id, COALESCE(o.connection_key_hash = o.previous_key_hash, false) AS cut FROM agents o
               WHERE o.id = ? AND o.previous_key_expires_at <= ? FOR NO KEY UPDATE) b
         WHERE a.id = b.id RETURNING b.cut",
    )
    .bind::<Uuid, _>(id)
    .bind::<Timestamptz, _>(now)
    .load(tx.conn()?)
    .await?;
    Ok(rows == [true])
}

/// What is done at the end of a drain.
#[derive(Debug, Clone, Copy)]
pub struct Overdue {
    /// The agent.
    pub agent: AgentId,
    /// When the commands for it fail by themselves.
    pub deadline: DateTime<Utc>,
    /// The present.
    pub now: DateTime<Utc>,
}

/// At the end of a drain, asks the agent to hibernate what runs with a home, and to stop what has none; a session whose
/// hibernation failed since then is stopped as well, its home stays. What starts or wakes with a home is left until it
/// runs. Says how many commands were queued: none when there is nothing to do, before the deadline, or undrained.
pub async fn overrun(tx: &mut AgentTx, overdue: Overdue) -> Result<i64> {
    let rows: Vec<i64> = statement::<BigInt>(
        "WITH due AS MATERIALIZED (
             SELECT a.id, a.agent_id, a.drain_deadline, a.drain_reason FROM agents a
             WHERE a.id = ? AND a.operator_drain AND a.drain_deadline <= ? AND a.deleted_at IS NULL FOR NO KEY UPDATE),
         wanted AS MATERIALIZED (
             SELECT s.id, s.state, CASE WHEN s.persistent_home AND NOT EXISTS (
                     SELECT 1 FROM commands c WHERE c.session_id = s.id AND c.action = 'hibernate_session' AND c.status = 'failed'
                       AND c.completed_at >= d.drain_deadline) THEN 'hibernating' ELSE 'terminating' END AS becomes,
                 'agent ' || d.agent_id || ' was drained and its time is over' || COALESCE(': ' || d.drain_reason, '') AS reason
             FROM due d JOIN sessions s ON s.agent_id = d.id
             WHERE s.state = 'running' OR (s.state IN ('pending', 'waking') AND NOT s.persistent_home)),
         moved AS (
             UPDATE sessions s SET state = w.becomes, state_reason = w.reason, state_since = ?, streaming_ready = false
             FROM wanted w WHERE s.id = w.id AND s.state = w.state
             RETURNING s.id, s.org_id, s.agent_id, s.agent_handle, s.generation, s.state),
         queued AS (
             INSERT INTO commands (id, org_id, agent_id, agent_handle, session_id, generation, action, payload, status, deadline, created_at)
             SELECT tidegate_uuid_v7(?), m.org_id, m.agent_id, m.agent_handle, m.id, m.generation,
                    CASE m.state WHEN 'hibernating' THEN 'hibernate_session' ELSE 'stop_session' END,
                    jsonb_build_object('sessionId', m.id, 'generation', m.generation), 'pending', ?, ? FROM moved m
             RETURNING 1)
         SELECT count(*) FROM queued",
    )
    .bind::<Uuid, _>(overdue.agent)
    .bind::<Timestamptz, _>(overdue.now)
    .bind::<Timestamptz, _>(overdue.now)
    .bind::<Timestamptz, _>(overdue.now)
    .bind::<Timestamptz, _>(overdue.deadline)
    .bind::<Timestamptz, _>(overdue.now)
    .load(tx.conn()?)
    .await?;
    Ok(rows.into_iter().next().unwrap_or(0))
}
