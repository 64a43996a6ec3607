//! Agents' rows: registration and approval by operators, everything live by the agents' own scope.

mod orders;
mod room;

use chrono::{DateTime, Utc};
use diesel::sql_types::{Array, BigInt, Bool, Bytea, Integer, Jsonb, Nullable, Text, Timestamptz, Uuid};
use diesel_async::{RunQueryDsl, SimpleAsyncConnection};
use serde_json::Value;
use tidegate_model::{
    Agent, AgentCapacity, AgentDrain, AgentHandle, AgentId, AgentMetadata, AgentRegistrationRequest,
    AgentReportedStatus, AgentStatus, ApprovalStatus, OrgId, Platform,
};

use crate::{AgentTx, Error, PlatformTx, Result, statement::statement};

pub use orders::{
    Drain, Held, KeyChange, Overdue, assign, drain, end_overlap, end_removed, held, lock_any, overrun,
    remove, revoke_key, set_key, set_region, undrain,
};
pub use room::{Candidate, Wanted, lock, sample, survey, unlock};

/// An agent's columns in three parts: what it is, how it lives, what operators decided.
type Row = (What, Life, Decided);
type What =
    (AgentId, String, Platform, Option<String>, Option<Value>, Option<Value>, DateTime<Utc>, DateTime<Utc>);
type Life = (AgentStatus, i32, Option<DateTime<Utc>>, Option<String>);
type Decided = (Approval, Option<OrgId>, Option<String>, Drained, Keys);
type Approval = (ApprovalStatus, Option<DateTime<Utc>>, Option<String>);
type Drained = (bool, Option<DateTime<Utc>>, Option<DateTime<Utc>>, Option<String>);
type Keys = (Option<DateTime<Utc>>, Option<DateTime<Utc>>, Option<DateTime<Utc>>);
type Columns = (
    (Uuid, Text, Text, Nullable<Text>, Nullable<Jsonb>, Nullable<Jsonb>, Timestamptz, Timestamptz),
    (Text, Integer, Nullable<Timestamptz>, Nullable<Text>),
    (
        (Text, Nullable<Timestamptz>, Nullable<Text>),
        Nullable<Uuid>,
        Nullable<Text>,
        (Bool, Nullable<Timestamptz>, Nullable<Timestamptz>, Nullable<Text>),
        (Nullable<Timestamptz>, Nullable<Timestamptz>, Nullable<Timestamptz>),
    ),
);

fn agent((what, life, decided): Row) -> Result<Agent> {
    let (id, agent_id, platform, region, capacity, metadata, created_at, updated_at) = what;
    let (status, active_sessions, last_heartbeat, websocket_id) = life;
    let ((approval_status, approved_at, approved_by), org_id, organization, drained, keys) = decided;
    let (operator_drain, since, deadline, reason) = drained;
    let (key_created_at, key_last_used_at, old_key_until) = keys;
    let read = |value: Option<Value>| value.map(serde_json::from_value::<AgentCapacity>).transpose();
    // An operator's drain outlasts the agent's own `online`.
    let draining = operator_drain && status == AgentStatus::Online;
    Ok(Agent {
        id,
        agent_id: agent_id.parse().map_err(|error: &str| Error::corrupt("agent id", error))?,
        platform,
        region,
        status: if draining { AgentStatus::Draining } else { status },
        capacity: read(capacity).map_err(|error| Error::corrupt("agent capacity", error))?,
        active_sessions: u32::try_from(active_sessions).unwrap_or(0),
        last_heartbeat,
        websocket_id,
        metadata: metadata.and_then(|value| value.as_object().cloned()).map(AgentMetadata),
        approval_status,
        approved_at,
        approved_by,
        org_id,
        organization,
        drain: operator_drain.then_some(AgentDrain { since, deadline, reason }),
        key_created_at,
        key_last_used_at,
        old_key_until,
        created_at,
        updated_at,
    })
}

/// What an agent can hold, as it said it and as placement reads it.
#[derive(Default)]
struct Capacity {
    said: Option<Value>,
    max_sessions: Option<i32>,
    cpu_millis: Option<i64>,
    memory_bytes: Option<i64>,
}

impl From<Option<AgentCapacity>> for Capacity {
    fn from(capacity: Option<AgentCapacity>) -> Self {
        let Some(capacity) = capacity.map(AgentCapacity::clamped) else { return Self::default() };
        Self {
            max_sessions: Some(i32::try_from(capacity.max_sessions).unwrap_or(i32::MAX)),
            cpu_millis: capacity.cpu_millis(),
            memory_bytes: capacity.memory_bytes(),
            said: serde_json::to_value(capacity).ok(),
        }
    }
}

/// How many agents wait for an operator, counted up to `most`. Whoever registers one takes turns here.
pub async fn pending(tx: &mut PlatformTx, most: i64) -> Result<i64> {
    let conn = tx.conn()?;
    conn.batch_execute("SELECT pg_advisory_xact_lock(7526411283028599911)").await?;
    let count = statement::<BigInt>(
        "SELECT count(*) FROM (SELECT 1 FROM agents WHERE approval_status = 'pending' AND deleted_at IS NULL LIMIT ?) a",
    );
    let rows: Vec<i64> = count.bind::<BigInt, _>(most).load(conn).await?;
    Ok(rows.into_iter().next().unwrap_or(0))
}

/// Inserts an agent that waits for approval.
pub async fn insert(
    tx: &mut PlatformTx,
    id: AgentId,
    new: AgentRegistrationRequest,
    claim_hash: Vec<u8>,
    now: DateTime<Utc>,
) -> Result<()> {
    let capacity = Capacity::from(new.capacity);
    statement::<()>(
        "INSERT INTO agents (id, agent_id, platform, region, status, capacity, max_sessions, cpu_millis, memory_bytes, metadata, claim_hash,
                             approval_status, created_at, updated_at)
         VALUES (?, ?, ?, ?, 'offline', ?, ?, ?, ?, ?, ?, 'pending', ?, ?)",
    )
    .bind::<Uuid, _>(id)
    .bind::<Text, _>(new.agent_id.as_str().to_owned())
    .bind::<Text, _>(new.platform)
    .bind::<Nullable<Text>, _>(new.region)
    .bind::<Nullable<Jsonb>, _>(capacity.said)
    .bind::<Integer, _>(capacity.max_sessions.unwrap_or(0))
    .bind::<Nullable<BigInt>, _>(capacity.cpu_millis)
    .bind::<Nullable<BigInt>, _>(capacity.memory_bytes)
    .bind::<Nullable<Jsonb>, _>(new.metadata.map(|metadata| Value::Object(metadata.0)))
    .bind::<Bytea, _>(claim_hash)
    .bind::<Timestamptz, _>(now)
    .bind::<Timestamptz, _>(now)
    .execute(tx.conn()?)
    .await?;
    Ok(())
}

/// What an agent that is already known says of itself when it registers again.
pub async fn refresh(
    tx: &mut PlatformTx,
    id: AgentId,
    new: AgentRegistrationRequest,
    now: DateTime<Utc>,
) -> Result<()> {
    let capacity = Capacity::from(new.capacity);
    // What was said anew without a word that can be read is unknown from now on.
    statement::<()>(
        "UPDATE agents SET region = COALESCE(?, region), capacity = COALESCE(r.capacity, agents.capacity),
                max_sessions = COALESCE(r.max, max_sessions),
                cpu_millis = CASE WHEN r.capacity IS NULL THEN cpu_millis ELSE r.cpu END,
                memory_bytes = CASE WHEN r.capacity IS NULL THEN memory_bytes ELSE r.memory END,
                metadata = COALESCE(?, metadata), updated_at = ?
         FROM (SELECT ?::jsonb AS capacity, ?::integer AS max, ?::bigint AS cpu, ?::bigint AS memory) r WHERE id = ?",
    )
    .bind::<Nullable<Text>, _>(new.region)
    .bind::<Nullable<Jsonb>, _>(new.metadata.map(|metadata| Value::Object(metadata.0)))
    .bind::<Timestamptz, _>(now)
    .bind::<Nullable<Jsonb>, _>(capacity.said)
    .bind::<Nullable<Integer>, _>(capacity.max_sessions)
    .bind::<Nullable<BigInt>, _>(capacity.cpu_millis)
    .bind::<Nullable<BigInt>, _>(capacity.memory_bytes)
    .bind::<Uuid, _>(id)
    .execute(tx.conn()?)
    .await?;
    Ok(())
}

/// Which agents a list shows.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of this platform only.
    pub platform: Option<Platform>,
    /// In this health only.
    pub status: Option<AgentStatus>,
    /// Of this region only.
    pub region: Option<String>,
    /// With this approval only.
    pub approval: Option<ApprovalStatus>,
    /// Of this organization alone, by id or name.
    pub organization: Option<String>,
}

/// Agents by name, removed ones left out; at most 1 000.
pub async fn list(tx: &mut PlatformTx, filter: Filter) -> Result<Vec<Agent>> {
    let rows: Vec<Row> = statement::<Columns>(
        "SELECT a.id, a.agent_id, a.platform, a.region, a.capacity, a.metadata, a.created_at, a.updated_at,
                a.status, a.active_sessions, a.last_heartbeat, a.websocket_id,
                a.approval_status, a.approved_at, a.approved_by, a.org_id, o.name,
                a.operator_drain, a.drained_at, a.drain_deadline, a.drain_reason,
                a.api_key_created_at, a.api_key_last_used_at, a.previous_key_expires_at
         FROM (SELECT ?::text AS platform, ?::text AS status, ?::text AS region, ?::text AS approval, ?::text AS organization) w
         CROSS JOIN agents a LEFT JOIN organizations o ON o.id = a.org_id
         WHERE a.deleted_at IS NULL AND (w.platform IS NULL OR a.platform = w.platform)
           AND (w.status IS NULL OR w.status = CASE WHEN a.operator_drain AND a.status = 'online' THEN 'draining' ELSE a.status END)
           AND (w.region IS NULL OR a.region = w.region) AND (w.approval IS NULL OR a.approval_status = w.approval)
           AND (w.organization IS NULL OR o.name = w.organization OR o.id::text = w.organization)
         ORDER BY a.agent_id LIMIT 1000",
    )
    .bind::<Nullable<Text>, _>(filter.platform)
    .bind::<Nullable<Text>, _>(filter.status)
    .bind::<Nullable<Text>, _>(filter.region)
    .bind::<Nullable<Text>, _>(filter.approval)
    .bind::<Nullable<Text>, _>(filter.organization)
    .load(tx.conn()?)
    .await?;
    rows.into_iter().map(agent).collect()
}

/// The agent of this name.
pub async fn find(tx: &mut PlatformTx, handle: &AgentHandle) -> Result<Agent> {
    let rows: Vec<Row> = statement::<Columns>(
        "SELECT a.id, a.agent_id, a.platform, a.region, a.capacity, a.metadata, a.created_at, a.updated_at,
                a.status, a.active_sessions, a.last_heartbeat, a.websocket_id,
                a.approval_status, a.approved_at, a.approved_by, a.org_id, o.name,
                a.operator_drain, a.drained_at, a.drain_deadline, a.drain_reason,
                a.api_key_created_at, a.api_key_last_used_at, a.previous_key_expires_at
         FROM agents a LEFT JOIN organizations o ON o.id = a.org_id WHERE a.agent_id = ? AND a.deleted_at IS NULL",
    )
    .bind::<Text, _>(handle.as_str().to_owned())
    .load(tx.conn()?)
    .await?;
    rows.into_iter().next().map_or(Err(Error::NotFound), agent)
}

/// Approves or rejects an agent that waits; `NotFound` when it does not wait. Exactly one of two racers wins.
pub async fn decide(
    tx: &mut PlatformTx,
    handle: &AgentHandle,
    approval: ApprovalStatus,
    now: DateTime<Utc>,
) -> Result<AgentId> {
    let by = tx.author.actor.to_string();
    let rows: Vec<(AgentId,)> = statement::<(Uuid,)>(
        "UPDATE agents SET approval_status = ?, approved_at = ?, approved_by = ?, updated_at = ?
         WHERE agent_id = ? AND approval_status = 'pending' AND deleted_at IS NULL RETURNING id",
    )
    .bind::<Text, _>(approval)
    .bind::<Timestamptz, _>(now)
    .bind::<Text, _>(by)
    .bind::<Timestamptz, _>(now)
    .bind::<Text, _>(handle.as_str().to_owned())
    .load(tx.conn()?)
    .await?;
    rows.into_iter().next().map(|row| row.0).ok_or(Error::NotFound)
}

/// Opens a connection of one agent: raises the fence and returns it. `NotFound` when it is not approved any more, or
/// when the key that was proved is not its key any more.
pub async fn connect(
    tx: &mut AgentTx,
    id: AgentId,
    key_hash: &[u8],
    connection: &str,
    now: DateTime<Utc>,
) -> Result<i64> {
    let rows: Vec<(i64,)> = statement::<(BigInt,)>(
        "UPDATE agents SET epoch = epoch + 1, status = 'online', websocket_id = ?, last_heartbeat = r.now, claim_hash = NULL,
                api_key_last_used_at = CASE WHEN api_key_hash = r.key THEN r.now ELSE api_key_last_used_at END, connection_key_hash = r.key
         FROM (SELECT ?::bytea AS key, ?::timestamptz AS now) r
         WHERE id = ? AND (api_key_hash = r.key OR (previous_key_hash = r.key AND previous_key_expires_at > r.now))
           AND approval_status = 'approved' AND deleted_at IS NULL RETURNING epoch",
    )
    .bind::<Text, _>(connection.to_owned())
    .bind::<Bytea, _>(key_hash.to_vec())
    .bind::<Timestamptz, _>(now)
    .bind::<Uuid, _>(id)
    .load(tx.conn()?)
    .await?;
    rows.into_iter().next().map(|row| row.0).ok_or(Error::NotFound)
}

/// Notes that the agent's key was used without a connection being opened.
pub async fn stamp_key(tx: &mut AgentTx, id: AgentId, key_hash: &[u8], now: DateTime<Utc>) -> Result<()> {
    statement::<()>("UPDATE agents SET api_key_last_used_at = ? WHERE id = ? AND api_key_hash = ?")
        .bind::<Timestamptz, _>(now)
        .bind::<Uuid, _>(id)
        .bind::<Bytea, _>(key_hash.to_vec())
        .execute(tx.conn()?)
        .await?;
    Ok(())
}

/// Notes which start of the agent this connection belongs to; false when the connection is not the newest.
pub async fn set_boot(tx: &mut AgentTx, id: AgentId, epoch: i64, boot_id: &str) -> Result<bool> {
    let changed = statement::<()>("UPDATE agents SET boot_id = ? WHERE id = ? AND epoch = ?")
        .bind::<Text, _>(boot_id.to_owned())
        .bind::<Uuid, _>(id)
        .bind::<BigInt, _>(epoch)
        .execute(tx.conn()?)
        .await?;
    Ok(changed == 1)
}

/// Marks an agent offline, only if `epoch` is still the newest.
pub async fn disconnect(tx: &mut AgentTx, id: AgentId, epoch: i64) -> Result<bool> {
    let changed = statement::<()>(
        "UPDATE agents SET status = 'offline', websocket_id = NULL, active_sessions = 0 WHERE id = ? AND epoch = ?",
    )
    .bind::<Uuid, _>(id)
    .bind::<BigInt, _>(epoch)
    .execute(tx.conn()?)
    .await?;
    Ok(changed == 1)
}

/// Marks agents offline that were not heard of since `heard_before`, whatever their connection.
pub async fn expire(tx: &mut AgentTx, agent: AgentId, heard_before: DateTime<Utc>) -> Result<usize> {
    let changed = statement::<()>(
        "UPDATE agents SET status = 'offline', websocket_id = NULL, active_sessions = 0
         WHERE id = ? AND status <> 'offline' AND COALESCE(last_heartbeat, created_at) < ?",
    )
    .bind::<Uuid, _>(agent)
    .bind::<Timestamptz, _>(heard_before)
    .execute(tx.conn()?)
    .await?;
    Ok(changed)
}

/// The newest sign of life of one agent.
#[derive(Debug, Clone)]
pub struct Heartbeat {
    /// The agent.
    pub agent: AgentId,
    /// The connection it came over; `None` for the HTTP route, which has none.
    pub epoch: Option<i64>,
    /// What it said of itself; `None` for a mere sign of life.
    pub said: Option<(AgentReportedStatus, u32)>,
    /// What it can hold, if it said so.
    pub capacity: Option<AgentCapacity>,
}

/// Writes one heartbeat for each agent, in one statement; those of older connections change nothing. The rows are locked
/// in the order of their ids before any is changed: two writers never wait for each other.
pub async fn heartbeats(tx: &mut AgentTx, beats: Vec<Heartbeat>, now: DateTime<Utc>) -> Result<usize> {
    if beats.is_empty() {
        return Ok(0);
    }
    let (mut ids, mut epochs, mut statuses) = (Vec::new(), Vec::new(), Vec::new());
    let (mut active, mut capacities, mut maxima) = (Vec::new(), Vec::new(), Vec::new());
    let (mut cpus, mut memories) = (Vec::new(), Vec::new());
    for beat in beats {
        let capacity = Capacity::from(beat.capacity);
        ids.push(beat.agent);
        epochs.push(beat.epoch);
        statuses.push(beat.said.map(|(status, _)| status));
        active.push(beat.said.map(|(_, active)| i32::try_from(active.min(1_000_000)).unwrap_or(0)));
        capacities.push(capacity.said);
        maxima.push(capacity.max_sessions);
        cpus.push(capacity.cpu_millis);
        memories.push(capacity.memory_bytes);
    }
    let changed = statement::<()>(
        "WITH held AS MATERIALIZED (
             SELECT r.* FROM unnest(?, ?, ?, ?, ?, ?, ?, ?) AS r(id, epoch, status, active, capacity, max, cpu, memory)
             JOIN agents h ON h.id = r.id AND h.epoch = COALESCE(r.epoch, h.epoch)
             WHERE h.approval_status = 'approved' AND h.deleted_at IS NULL
             ORDER BY h.id FOR NO KEY UPDATE OF h)
         UPDATE agents a SET status = COALESCE(r.status, CASE a.status WHEN 'offline' THEN 'online' ELSE a.status END),
                active_sessions = COALESCE(r.active, a.active_sessions), capacity = COALESCE(r.capacity, a.capacity),
                max_sessions = COALESCE(r.max, a.max_sessions), last_heartbeat = ?,
                cpu_millis = CASE WHEN r.capacity IS NULL THEN a.cpu_millis ELSE r.cpu END,
                memory_bytes = CASE WHEN r.capacity IS NULL THEN a.memory_bytes ELSE r.memory END
         FROM held r
         WHERE a.id = r.id AND a.epoch = COALESCE(r.epoch, a.epoch) AND a.approval_status = 'approved' AND a.deleted_at IS NULL",
    )
    .bind::<Array<Uuid>, _>(ids)
    .bind::<Array<Nullable<BigInt>>, _>(epochs)
    .bind::<Array<Nullable<Text>>, _>(statuses)
    .bind::<Array<Nullable<Integer>>, _>(active)
    .bind::<Array<Nullable<Jsonb>>, _>(capacities)
    .bind::<Array<Nullable<Integer>>, _>(maxima)
    .bind::<Array<Nullable<BigInt>>, _>(cpus)
    .bind::<Array<Nullable<BigInt>>, _>(memories)
    .bind::<Timestamptz, _>(now)
    .execute(tx.conn()?)
    .await?;
    Ok(changed)
}

/// Of these connections, those that are the newest of an approved agent.
pub async fn current(tx: &mut AgentTx, connections: &[(AgentId, i64)]) -> Result<Vec<(AgentId, i64)>> {
    let (ids, epochs): (Vec<AgentId>, Vec<i64>) = connections.iter().copied().unzip();
    Ok(statement::<(Uuid, BigInt)>(
        "SELECT a.id, a.epoch FROM agents a JOIN unnest(?, ?) AS r(id, epoch) ON r.id = a.id AND r.epoch = a.epoch
         WHERE a.approval_status = 'approved' AND a.deleted_at IS NULL",
    )
    .bind::<Array<Uuid>, _>(ids)
    .bind::<Array<BigInt>, _>(epochs)
    .load(tx.conn()?)
    .await?)
}
