//! Agents' rows: registration and approval by operators, everything live by the agents' own scope.

use chrono::{DateTime, Utc};
use diesel::{
    ExpressionMethods, QueryDsl, Queryable, Selectable, SelectableHelper,
    sql_types::{Array, BigInt, Bool, Bytea, Integer, Jsonb, Nullable, Text, Timestamptz, Uuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use futures_util::future::join3;
use serde_json::Value;
use tidegate_model::{
    Agent, AgentCapacity, AgentHandle, AgentId, AgentMetadata, AgentRegistrationRequest, AgentReportedStatus,
    AgentStatus, ApprovalStatus, Platform,
};

use crate::{AgentTx, Error, OrgTx, PlatformTx, Result, schema::agents, statement::statement};

#[derive(Queryable, Selectable)]
#[diesel(table_name = agents)]
struct Row {
    id: AgentId,
    agent_id: String,
    platform: Platform,
    region: Option<String>,
    status: AgentStatus,
    operator_drain: bool,
    capacity: Option<Value>,
    active_sessions: i32,
    metadata: Option<Value>,
    last_heartbeat: Option<DateTime<Utc>>,
    websocket_id: Option<String>,
    approval_status: ApprovalStatus,
    approved_at: Option<DateTime<Utc>>,
    approved_by: Option<String>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl TryFrom<Row> for Agent {
    type Error = Error;
    fn try_from(row: Row) -> Result<Self> {
        let read = |value: Option<Value>| value.map(serde_json::from_value::<AgentCapacity>).transpose();
        let metadata = row.metadata.and_then(|value| value.as_object().cloned()).map(AgentMetadata);
        // An operator's drain outlasts the agent's own `online`.
        let drained = row.operator_drain && row.status == AgentStatus::Online;
        Ok(Self {
            id: row.id,
            agent_id: row.agent_id.parse().map_err(|error: &str| Error::corrupt("agent id", error))?,
            platform: row.platform,
            region: row.region,
            status: if drained { AgentStatus::Draining } else { row.status },
            capacity: read(row.capacity).map_err(|error| Error::corrupt("agent capacity", error))?,
            active_sessions: u32::try_from(row.active_sessions).unwrap_or(0),
            last_heartbeat: row.last_heartbeat,
            websocket_id: row.websocket_id,
            metadata,
            approval_status: row.approval_status,
            approved_at: row.approved_at,
            approved_by: row.approved_by,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

fn capacity_columns(capacity: Option<AgentCapacity>) -> (Option<Value>, Option<i32>) {
    let capacity = capacity.map(AgentCapacity::clamped);
    let max = capacity.as_ref().map(|capacity| i32::try_from(capacity.max_sessions).unwrap_or(i32::MAX));
    (capacity.and_then(|capacity| serde_json::to_value(capacity).ok()), max)
}

/// Inserts an agent that waits for approval.
pub async fn insert(
    tx: &mut PlatformTx,
    id: AgentId,
    new: AgentRegistrationRequest,
    claim_hash: Vec<u8>,
    now: DateTime<Utc>,
) -> Result<()> {
    let (capacity, max_sessions) = capacity_columns(new.capacity);
    statement::<()>(
        "INSERT INTO agents (id, agent_id, platform, region, status, capacity, max_sessions, metadata, claim_hash, approval_status, created_at, updated_at)
         VALUES (?, ?, ?, ?, 'offline', ?, ?, ?, ?, 'pending', ?, ?)",
    )
    .bind::<Uuid, _>(id)
    .bind::<Text, _>(new.agent_id.as_str().to_owned())
    .bind::<Text, _>(new.platform)
    .bind::<Nullable<Text>, _>(new.region)
    .bind::<Nullable<Jsonb>, _>(capacity)
    .bind::<Integer, _>(max_sessions.unwrap_or(0))
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
    let (capacity, max_sessions) = capacity_columns(new.capacity);
    statement::<()>(
        "UPDATE agents SET region = COALESCE(?, region), capacity = COALESCE(?, capacity), max_sessions = COALESCE(?, max_sessions),
                metadata = COALESCE(?, metadata), updated_at = ? WHERE id = ?",
    )
    .bind::<Nullable<Text>, _>(new.region)
    .bind::<Nullable<Jsonb>, _>(capacity)
    .bind::<Nullable<Integer>, _>(max_sessions)
    .bind::<Nullable<Jsonb>, _>(new.metadata.map(|metadata| Value::Object(metadata.0)))
    .bind::<Timestamptz, _>(now)
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
}

/// Agents by name, removed ones left out; at most 1 000.
pub async fn list(tx: &mut PlatformTx, filter: Filter) -> Result<Vec<Agent>> {
    let mut query = agents::table.select(Row::as_select()).filter(agents::deleted_at.is_null()).into_boxed();
    if let Some(platform) = filter.platform {
        query = query.filter(agents::platform.eq(platform));
    }
    if let Some(status) = filter.status {
        query = query.filter(agents::status.eq(status));
    }
    if let Some(region) = filter.region {
        query = query.filter(agents::region.eq(region));
    }
    if let Some(approval) = filter.approval {
        query = query.filter(agents::approval_status.eq(approval));
    }
    let rows: Vec<Row> = query.order(agents::agent_id).limit(1_000).load(tx.conn()?).await?;
    rows.into_iter().map(Agent::try_from).collect()
}

/// The agent of this name.
pub async fn find(tx: &mut PlatformTx, handle: &AgentHandle) -> Result<Agent> {
    let rows: Vec<Row> = agents::table
        .select(Row::as_select())
        .filter(agents::agent_id.eq(handle.as_str()))
        .filter(agents::deleted_at.is_null())
        .load(tx.conn()?)
        .await?;
    rows.into_iter().next().ok_or(Error::NotFound)?.try_into()
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

/// Gives an agent a new key and closes what the old one opened: the epoch moves on.
pub async fn set_key(tx: &mut PlatformTx, id: AgentId, hash: Vec<u8>, now: DateTime<Utc>) -> Result<()> {
    statement::<()>(
        "UPDATE agents SET api_key_hash = ?, api_key_created_at = ?, api_key_last_used_at = NULL, epoch = epoch + 1, updated_at = ?
         WHERE id = ? AND approval_status = 'approved' AND deleted_at IS NULL",
    )
    .bind::<Bytea, _>(hash)
    .bind::<Timestamptz, _>(now)
    .bind::<Timestamptz, _>(now)
    .bind::<Uuid, _>(id)
    .execute(tx.conn()?)
    .await?;
    Ok(())
}

/// Sets or lifts an operator's drain.
pub async fn set_drain(
    tx: &mut PlatformTx,
    handle: &AgentHandle,
    drain: bool,
    now: DateTime<Utc>,
) -> Result<AgentId> {
    let rows: Vec<(AgentId,)> = statement::<(Uuid,)>(
        "UPDATE agents SET operator_drain = ?, updated_at = ? WHERE agent_id = ? AND deleted_at IS NULL RETURNING id",
    )
    .bind::<Bool, _>(drain)
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
        "UPDATE agents SET epoch = epoch + 1, status = 'online', websocket_id = ?, last_heartbeat = ?, api_key_last_used_at = ?,
                claim_hash = NULL
         WHERE id = ? AND api_key_hash = ? AND approval_status = 'approved' AND deleted_at IS NULL RETURNING epoch",
    )
    .bind::<Text, _>(connection.to_owned())
    .bind::<Timestamptz, _>(now)
    .bind::<Timestamptz, _>(now)
    .bind::<Uuid, _>(id)
    .bind::<Bytea, _>(key_hash.to_vec())
    .load(tx.conn()?)
    .await?;
    rows.into_iter().next().map(|row| row.0).ok_or(Error::NotFound)
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
    for beat in beats {
        let (capacity, max) = capacity_columns(beat.capacity);
        ids.push(beat.agent);
        epochs.push(beat.epoch);
        statuses.push(beat.said.map(|(status, _)| status));
        active.push(beat.said.map(|(_, active)| i32::try_from(active.min(1_000_000)).unwrap_or(0)));
        capacities.push(capacity);
        maxima.push(max);
    }
    let changed = statement::<()>(
        "WITH held AS MATERIALIZED (
             SELECT r.* FROM unnest(?, ?, ?, ?, ?, ?) AS r(id, epoch, status, active, capacity, max)
             JOIN agents h ON h.id = r.id AND h.epoch = COALESCE(r.epoch, h.epoch)
             WHERE h.approval_status = 'approved' AND h.deleted_at IS NULL
             ORDER BY h.id FOR NO KEY UPDATE OF h)
         UPDATE agents a SET status = COALESCE(r.status, CASE a.status WHEN 'offline' THEN 'online' ELSE a.status END),
                active_sessions = COALESCE(r.active, a.active_sessions), capacity = COALESCE(r.capacity, a.capacity),
                max_sessions = COALESCE(r.max, a.max_sessions), last_heartbeat = ?
         FROM held r
         WHERE a.id = r.id AND a.epoch = COALESCE(r.epoch, a.epoch) AND a.approval_status = 'approved' AND a.deleted_at IS NULL",
    )
    .bind::<Array<Uuid>, _>(ids)
    .bind::<Array<Nullable<BigInt>>, _>(epochs)
    .bind::<Array<Nullable<Text>>, _>(statuses)
    .bind::<Array<Nullable<Integer>>, _>(active)
    .bind::<Array<Nullable<Jsonb>>, _>(capacities)
    .bind::<Array<Nullable<Integer>>, _>(maxima)
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

/// An agent that could take a session, or why it cannot.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The agent.
    pub id: AgentId,
    /// Its name.
    pub handle: AgentHandle,
    /// Its region.
    pub region: Option<String>,
    /// Its health.
    pub status: AgentStatus,
    /// Whether an operator drains it.
    pub drained: bool,
    /// Sessions it holds at most.
    pub max_sessions: i64,
    /// Sessions placed on it, of all organizations.
    pub active: i64,
}

type CandidateRow = (AgentId, String, Option<String>, AgentStatus, bool, i32, i64);

fn candidate(row: CandidateRow) -> Result<Candidate> {
    let (id, handle, region, status, drained, max, active) = row;
    let handle = handle.parse().map_err(|error: &str| Error::corrupt("agent id", error))?;
    Ok(Candidate { id, handle, region, status, drained, max_sessions: i64::from(max), active })
}

/// A few random agents with room, the emptiest first: the exact count comes with the lock.
pub async fn sample(
    tx: &mut OrgTx,
    platform: Platform,
    region: Option<&str>,
    limit: i64,
) -> Result<Vec<Candidate>> {
    let rows: Vec<CandidateRow> = statement::<(Uuid, Text, Nullable<Text>, Text, Bool, Integer, BigInt)>(
        // Neighbours on a ring in random order, from a random place on: a few steps in the index, however many agents
        // there are, and all of them where there are only a few.
        "WITH few AS MATERIALIZED (
             SELECT a.* FROM (SELECT random() AS place) p CROSS JOIN LATERAL (
                 (SELECT id, agent_id, region, status, operator_drain, max_sessions FROM agents
                  WHERE approval_status = 'approved' AND deleted_at IS NULL AND status = 'online' AND NOT operator_drain
                    AND max_sessions > 0 AND platform = ? AND (?::text IS NULL OR region = ?) AND shuffle >= p.place
                  ORDER BY shuffle LIMIT ?)
                 UNION ALL
                 (SELECT id, agent_id, region, status, operator_drain, max_sessions FROM agents
                  WHERE approval_status = 'approved' AND deleted_at IS NULL AND status = 'online' AND NOT operator_drain
                    AND max_sessions > 0 AND platform = ? AND (?::text IS NULL OR region = ?) AND shuffle < p.place
                  ORDER BY shuffle LIMIT ?)
                 LIMIT ?) a)
         SELECT s.id, s.agent_id, s.region, s.status, s.operator_drain, s.max_sessions, l.active
         FROM few s JOIN agent_load(ARRAY(SELECT id FROM few)) l ON l.agent_id = s.id
         WHERE l.active < s.max_sessions ORDER BY l.active::float8 / s.max_sessions",
    )
    .bind::<Text, _>(platform)
    .bind::<Nullable<Text>, _>(region.map(str::to_owned))
    .bind::<Nullable<Text>, _>(region.map(str::to_owned))
    .bind::<BigInt, _>(limit)
    .bind::<Text, _>(platform)
    .bind::<Nullable<Text>, _>(region.map(str::to_owned))
    .bind::<Nullable<Text>, _>(region.map(str::to_owned))
    .bind::<BigInt, _>(limit)
    .bind::<BigInt, _>(limit)
    .load(tx.conn()?)
    .await?;
    rows.into_iter().map(candidate).collect()
}

/// Every approved agent with its load, for the exact search and for the reasons of a refusal; at most 1 000.
pub async fn survey(tx: &mut OrgTx) -> Result<Vec<(Platform, Candidate)>> {
    let rows: Vec<(Platform, AgentId, String, Option<String>, AgentStatus, bool, i32, i64)> =
        statement::<(Text, Uuid, Text, Nullable<Text>, Text, Bool, Integer, BigInt)>(
            "WITH few AS MATERIALIZED (
                 SELECT platform, id, agent_id, region, status, operator_drain, max_sessions FROM agents ORDER BY id LIMIT 1000)
             SELECT s.platform, s.id, s.agent_id, s.region, s.status, s.operator_drain, s.max_sessions, l.active
             FROM few s JOIN agent_load(ARRAY(SELECT id FROM few)) l ON l.agent_id = s.id ORDER BY s.id",
        )
        .load(tx.conn()?)
        .await?;
    rows.into_iter()
        .map(|(platform, id, handle, region, status, drained, max, active)| {
            candidate((id, handle, region, status, drained, max, active))
                .map(|candidate| (platform, candidate))
        })
        .collect()
}

/// Locks an agent, the last of the lock order, and counts again. `None` when it is gone. Only one agent is ever locked
/// at a time: see [`unlock`].
pub async fn lock(tx: &mut OrgTx, id: AgentId) -> Result<Option<Candidate>> {
    let conn: &AsyncPgConnection = tx.conn()?;
    let (mut first, mut second, mut third) = (conn, conn, conn);
    let lock =
        statement::<(Uuid,)>("SELECT id FROM agents WHERE id = ? FOR NO KEY UPDATE").bind::<Uuid, _>(id);
    // A statement of its own: only one that begins after the lock was granted sees what the holder before us wrote.
    // All are sent at once; the server begins each when the one before is done.
    let count = statement::<(Uuid, Text, Nullable<Text>, Text, Bool, Integer, BigInt)>(
        "SELECT a.id, a.agent_id, a.region, a.status, a.operator_drain, a.max_sessions, l.active
         FROM agents a, agent_load(ARRAY[a.id]) l WHERE a.id = ?",
    )
    .bind::<Uuid, _>(id);
    // Joined, and not given up at the first error: an answer nobody waits for would be the next statement's.
    let (saved, locked, rows) = join3(
        first.batch_execute("SAVEPOINT placement"),
        lock.load::<(AgentId,)>(&mut second),
        count.load::<CandidateRow>(&mut third),
    )
    .await;
    saved?;
    locked?;
    rows?.into_iter().next().map(candidate).transpose()
}

/// Gives the lock of [`lock`] back, so that whoever looks for room never holds one agent while waiting for another.
pub async fn unlock(tx: &mut OrgTx) -> Result<()> {
    Ok(tx.conn()?.batch_execute("ROLLBACK TO SAVEPOINT placement").await?)
}
