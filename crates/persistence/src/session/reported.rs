//! What agents' reports do to sessions, and what the reconciler compares them with.

use chrono::{DateTime, Utc};
use diesel::sql_types::{Array, BigInt, Bool, Integer, Jsonb, Nullable, Text, Timestamptz, Uuid};
use diesel_async::RunQueryDsl;
use serde_json::Value;
use tidegate_model::{AgentId, OrgId, SessionId, SessionState};

use crate::{AgentTx, Result, statement::statement};

/// A change of state that an agent's report asks for.
#[derive(Debug, Clone)]
pub struct Move {
    /// The session.
    pub id: SessionId,
    /// The agent it must be placed on.
    pub agent: AgentId,
    /// The connection that says so; `None` where the platform itself decides.
    pub epoch: Option<i64>,
    /// The start or wake it must belong to; `None` for the current one.
    pub generation: Option<i64>,
    /// Where to.
    pub to: SessionState,
    /// From where it may be entered for this report; never more than the lifecycle allows.
    pub from: Vec<SessionState>,
    /// Why.
    pub reason: Option<String>,
    /// Whether the stream can be watched; `None` leaves it.
    pub streaming_ready: Option<bool>,
    /// The stream's port; `None` leaves it.
    pub streaming_port: Option<u16>,
    /// Merged into what the platform said before; `None` leaves it.
    pub metadata: Option<Value>,
}

/// A session that an agent's report has changed the state of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// The session.
    pub id: SessionId,
    /// Its organization.
    pub org_id: OrgId,
    /// Where it stands now.
    pub state: SessionState,
}

#[derive(Default)]
struct Columns {
    ids: Vec<SessionId>,
    agents: Vec<AgentId>,
    epochs: Vec<Option<i64>>,
    generations: Vec<Option<i64>>,
    states: Vec<SessionState>,
    froms: Vec<String>,
    reasons: Vec<Option<String>>,
    ready: Vec<Option<bool>>,
    ports: Vec<Option<i32>>,
    metadata: Vec<Option<Value>>,
}

impl Columns {
    fn push(&mut self, change: Move) {
        // The lifecycle has the last word, whatever the report's rule says.
        let allowed = change.from.iter().filter(|from| from.may_become(change.to));
        self.froms.push(allowed.map(|from| from.as_str()).collect::<Vec<_>>().join(","));
        self.ids.push(change.id);
        self.agents.push(change.agent);
        self.epochs.push(change.epoch);
        self.generations.push(change.generation);
        self.states.push(change.to);
        self.reasons.push(change.reason);
        self.ready.push(change.streaming_ready);
        self.ports.push(change.streaming_port.map(i32::from));
        self.metadata.push(change.metadata);
    }
}

/// Applies reports, one for each session at most, in one statement. A report that may not move its session changes
/// nothing, unless it repeats the state the session is in: then it may add what it carries.
/// Returns the sessions that are now in the reported state.
///
/// Every session that is named and placed there is locked, in the order of the ids, before any is changed: two writers
/// never wait for each other.
pub async fn apply(tx: &mut AgentTx, moves: Vec<Move>, now: DateTime<Utc>) -> Result<Vec<Moved>> {
    if moves.is_empty() {
        return Ok(Vec::new());
    }
    let mut columns = Columns::default();
    for change in moves {
        columns.push(change);
    }
    let rows: Vec<(SessionId, OrgId, SessionState)> = statement::<(Uuid, Uuid, Text)>(
        "WITH held AS MATERIALIZED (
             SELECT r.*, ?::timestamptz AS now FROM unnest(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
                 AS r(id, agent_id, epoch, generation, state, froms, reason, ready, port, metadata)
             JOIN agents a ON a.id = r.agent_id AND a.epoch = COALESCE(r.epoch, a.epoch)
             JOIN sessions h ON h.id = r.id AND h.agent_id = r.agent_id
             WHERE r.epoch IS NULL OR a.approval_status = 'approved'
             ORDER BY h.id FOR NO KEY UPDATE OF h)
         UPDATE sessions s SET state = r.state,
                state_reason = CASE WHEN s.state = r.state THEN s.state_reason
                    -- Why it was asked for is why it is so, where its agent says nothing else.
                    WHEN (s.state, r.state) IN (('hibernating', 'hibernated'), ('terminating', 'terminated')) THEN COALESCE(r.reason, s.state_reason)
                    ELSE r.reason END,
                state_since = CASE WHEN s.state = r.state THEN s.state_since ELSE r.now END,
                streaming_ready = CASE WHEN r.state <> 'running' THEN false ELSE COALESCE(r.ready, s.streaming_ready) END,
                streaming_port = COALESCE(r.port, s.streaming_port),
                platform_metadata = CASE WHEN pg_column_size(s.platform_metadata || r.metadata) <= 32768 THEN s.platform_metadata || r.metadata
                                         ELSE s.platform_metadata END,
                started_at = CASE WHEN r.state = 'running' THEN COALESCE(s.started_at, r.now) ELSE s.started_at END,
                hibernated_at = CASE WHEN r.state = 'hibernated' AND s.state <> r.state THEN r.now ELSE s.hibernated_at END,
                ended_at = CASE WHEN r.state IN ('terminated', 'failed') THEN COALESCE(s.ended_at, r.now) ELSE s.ended_at END
         FROM held r
         WHERE s.id = r.id AND s.agent_id = r.agent_id AND s.generation = COALESCE(r.generation, s.generation)
           AND (s.state = ANY(string_to_array(r.froms, ',')) OR s.state = r.state)
         RETURNING s.id, s.org_id, s.state",
    )
    .bind::<Timestamptz, _>(now)
    .bind::<Array<Uuid>, _>(columns.ids)
    .bind::<Array<Uuid>, _>(columns.agents)
    .bind::<Array<Nullable<BigInt>>, _>(columns.epochs)
    .bind::<Array<Nullable<BigInt>>, _>(columns.generations)
    .bind::<Array<Text>, _>(columns.states)
    .bind::<Array<Text>, _>(columns.froms)
    .bind::<Array<Nullable<Text>>, _>(columns.reasons)
    .bind::<Array<Nullable<Bool>>, _>(columns.ready)
    .bind::<Array<Nullable<Integer>>, _>(columns.ports)
    .bind::<Array<Nullable<Jsonb>>, _>(columns.metadata)
    .load(tx.conn()?)
    .await?;
    let changed: Vec<Moved> =
        rows.into_iter().map(|(id, org_id, state)| Moved { id, org_id, state }).collect();
    wipe_specs(tx, changed.iter().filter(|row| row.state.is_final()).map(|row| row.id).collect()).await?;
    Ok(changed)
}

/// A session that ended needs no secrets any more.
async fn wipe_specs(tx: &mut AgentTx, ended: Vec<SessionId>) -> Result<()> {
    if ended.is_empty() {
        return Ok(());
    }
    statement::<()>("DELETE FROM session_specs WHERE session_id = ANY(?)")
        .bind::<Array<Uuid>, _>(ended)
        .execute(tx.conn()?)
        .await?;
    Ok(())
}

/// What the reconciler compares an agent's inventory with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The session.
    pub id: SessionId,
    /// Its organization.
    pub org_id: OrgId,
    /// Where it stands.
    pub state: SessionState,
    /// Which start or wake.
    pub generation: i64,
    /// Whether a command for it is still open.
    pub has_open_command: bool,
    /// Since when it stands there.
    pub since: DateTime<Utc>,
}

/// The sessions placed on an agent that are not final, and those of `named` whatever their state.
pub async fn placed(tx: &mut AgentTx, agent: AgentId, named: Vec<SessionId>) -> Result<Vec<Placed>> {
    let rows: Vec<(SessionId, OrgId, SessionState, i64, bool, DateTime<Utc>)> =
        statement::<(Uuid, Uuid, Text, BigInt, Bool, Timestamptz)>(
            // One branch for each index: a single condition reads every session there ever was.
            "SELECT s.id, s.org_id, s.state, s.generation, s.has_open, s.state_since FROM (
                 SELECT p.*, EXISTS (SELECT 1 FROM commands c WHERE c.session_id = p.id AND c.completed_at IS NULL) AS has_open
                 FROM sessions p WHERE p.agent_id = ? AND p.id IN (
                     SELECT a.id FROM sessions a
                     WHERE a.agent_id = ? AND a.state IN ('pending', 'running', 'waking', 'hibernating', 'terminating')
                     UNION SELECT h.id FROM sessions h WHERE h.agent_id = ? AND h.state = 'hibernated'
                     UNION SELECT unnest(?::uuid[]))) s
             ORDER BY s.id",
        )
        .bind::<Uuid, _>(agent)
        .bind::<Uuid, _>(agent)
        .bind::<Uuid, _>(agent)
        .bind::<Array<Uuid>, _>(named)
        .load(tx.conn()?)
        .await?;
    let placed = |(id, org_id, state, generation, has_open_command, since)| Placed {
        id,
        org_id,
        state,
        generation,
        has_open_command,
        since,
    };
    Ok(rows.into_iter().map(placed).collect())
}

/// Sessions of these agents that wait for a command which is not open any more, since before `before`.
pub async fn stuck(
    tx: &mut AgentTx,
    agents: &[AgentId],
    before: DateTime<Utc>,
) -> Result<Vec<(SessionId, AgentId, SessionState, i64)>> {
    Ok(statement::<(Uuid, Uuid, Text, BigInt)>(
        "SELECT s.id, s.agent_id, s.state, s.generation FROM sessions s
         WHERE s.agent_id = ANY(?) AND s.state IN ('pending', 'waking', 'hibernating', 'terminating') AND s.state_since < ?
           AND NOT EXISTS (SELECT 1 FROM commands c WHERE c.session_id = s.id AND c.completed_at IS NULL)",
    )
    .bind::<Array<Uuid>, _>(agents.to_vec())
    .bind::<Timestamptz, _>(before)
    .load(tx.conn()?)
    .await?)
}
