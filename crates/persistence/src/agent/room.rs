//! Room on agents, as an organization sees it: a few candidates from a walk in an index, all of them for a refusal, one
//! of them locked and counted.

use chrono::{DateTime, TimeDelta, Utc};
use diesel::sql_types::{BigInt, Bool, Integer, Nullable, Text, Timestamptz, Uuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use futures_util::future::join3;
use tidegate_model::{AgentHandle, AgentId, AgentStatus, Platform};

use crate::{Error, OrgTx, Result, statement::statement};

/// What is looked for.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The platform of the agent.
    pub platform: Platform,
    /// Its region; any without it.
    pub region: Option<String>,
    /// CPU that must be free, in thousandths of a core.
    pub cpu_millis: i64,
    /// Memory that must be free, in bytes.
    pub memory_bytes: i64,
    /// The present.
    pub now: DateTime<Utc>,
    /// How long an agent may have been silent.
    pub silence: TimeDelta,
    /// How long a start that failed puts its agent at the back.
    pub grudge: TimeDelta,
}

/// An agent that could take a session, or why it cannot.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The agent.
    pub id: AgentId,
    /// Its name.
    pub handle: AgentHandle,
    /// What it runs sessions on.
    pub platform: Platform,
    /// Its region.
    pub region: Option<String>,
    /// Its health.
    pub status: AgentStatus,
    /// Whether an operator drains it.
    pub drained: bool,
    /// When it was last heard of.
    pub heard: DateTime<Utc>,
    /// Sessions it holds at most.
    pub max_sessions: i64,
    /// CPU it has, in thousandths of a core; `None` is unknown, and bounds nothing.
    pub cpu_millis: Option<i64>,
    /// Memory it has, in bytes; `None` is unknown, and bounds nothing.
    pub memory_bytes: Option<i64>,
    /// Sessions placed on it, of all organizations.
    pub active: i64,
    /// CPU of what is placed on it.
    pub used_cpu: i64,
    /// Memory of what is placed on it.
    pub used_memory: i64,
}

type Columns = (
    Uuid,
    Text,
    Text,
    Nullable<Text>,
    Text,
    Bool,
    Timestamptz,
    (Integer, Nullable<BigInt>, Nullable<BigInt>),
    (BigInt, BigInt, BigInt),
);
type Row = (
    AgentId,
    String,
    Platform,
    Option<String>,
    AgentStatus,
    bool,
    DateTime<Utc>,
    (i32, Option<i64>, Option<i64>),
    (i64, i64, i64),
);

fn candidate(row: Row) -> Result<Candidate> {
    let (id, handle, platform, region, status, drained, heard, can_hold, placed) = row;
    let (max_sessions, cpu_millis, memory_bytes) = can_hold;
    let (active, used_cpu, used_memory) = placed;
    Ok(Candidate {
        id,
        handle: handle.parse().map_err(|error: &str| Error::corrupt("agent id", error))?,
        platform,
        region,
        status,
        drained,
        heard,
        max_sessions: i64::from(max_sessions),
        cpu_millis,
        memory_bytes,
        active,
        used_cpu,
        used_memory,
    })
}

/// A few random agents with room, of the organization's own and of those that serve all: first those where no start
/// failed lately, the emptiest of them first. The exact count comes with the lock.
pub async fn sample(tx: &mut OrgTx, wanted: &Wanted, limit: i64) -> Result<Vec<Candidate>> {
    let rows: Vec<Row> = statement::<Columns>(
        // Two rings: the one of agents that serve all, and the organization's own.
        "WITH w AS MATERIALIZED (
             SELECT ?::text AS platform, ?::text AS region, ?::timestamptz AS heard_since, ?::bigint AS few,
                    ?::bigint AS cpu, ?::bigint AS memory, ?::timestamptz AS failed_since, ?::uuid AS org),
         chosen AS MATERIALIZED (SELECT ARRAY(
             SELECT agents_on_ring(w.platform, NULL, w.region, w.heard_since, w.few) FROM w
             UNION ALL SELECT agents_on_ring(w.platform, w.org, w.region, w.heard_since, w.few) FROM w) AS ids)
         SELECT s.id, s.agent_id, s.platform, s.region, s.status, s.operator_drain, COALESCE(s.last_heartbeat, s.created_at),
                s.max_sessions, s.cpu_millis, s.memory_bytes, l.active, l.cpu, l.memory
         FROM w CROSS JOIN chosen CROSS JOIN LATERAL agent_usage(chosen.ids, w.failed_since) l JOIN agents s ON s.id = l.agent_id
         WHERE l.active < s.max_sessions AND l.cpu + w.cpu <= COALESCE(s.cpu_millis, 9223372036854775807)
           AND l.memory + w.memory <= COALESCE(s.memory_bytes, 9223372036854775807)
         ORDER BY l.failures, GREATEST(l.active::float8 / s.max_sessions, l.cpu::float8 / s.cpu_millis, l.memory::float8 / s.memory_bytes)",
    )
    .bind::<Text, _>(wanted.platform)
    .bind::<Nullable<Text>, _>(wanted.region.clone())
    .bind::<Timestamptz, _>(wanted.now - wanted.silence)
    .bind::<BigInt, _>(limit)
    .bind::<BigInt, _>(wanted.cpu_millis)
    .bind::<BigInt, _>(wanted.memory_bytes)
    .bind::<Timestamptz, _>(wanted.now - wanted.grudge)
    .bind::<Uuid, _>(tx.org_id())
    .load(tx.conn()?)
    .await?;
    rows.into_iter().map(candidate).collect()
}

/// Every agent that serves the organization with what is placed on it, for the exact search and for the reasons of a
/// refusal: in the order of [`sample`]; at most 1 000, those that are online before others.
pub async fn survey(tx: &mut OrgTx, wanted: &Wanted) -> Result<Vec<Candidate>> {
    let rows: Vec<Row> = statement::<Columns>(
        "WITH few AS MATERIALIZED (
             SELECT id FROM agents ORDER BY (status = 'online' AND NOT operator_drain AND platform = ?) DESC, id LIMIT 1000),
         chosen AS MATERIALIZED (SELECT ARRAY(SELECT id FROM few) AS ids)
         SELECT s.id, s.agent_id, s.platform, s.region, s.status, s.operator_drain, COALESCE(s.last_heartbeat, s.created_at),
                s.max_sessions, s.cpu_millis, s.memory_bytes, l.active, l.cpu, l.memory
         FROM chosen CROSS JOIN LATERAL agent_usage(chosen.ids, ?) l JOIN agents s ON s.id = l.agent_id
         ORDER BY l.failures, GREATEST(l.active::float8 / NULLIF(s.max_sessions, 0), l.cpu::float8 / s.cpu_millis,
                  l.memory::float8 / s.memory_bytes), s.agent_id",
    )
    .bind::<Text, _>(wanted.platform)
    .bind::<Timestamptz, _>(wanted.now - wanted.grudge)
    .load(tx.conn()?)
    .await?;
    rows.into_iter().map(candidate).collect()
}

/// Locks an agent, the last of the lock order, and counts again. `None` when it is gone, or serves others now. Only one
/// agent is ever locked at a time: see [`unlock`].
pub async fn lock(tx: &mut OrgTx, id: AgentId) -> Result<Option<Candidate>> {
    let conn: &AsyncPgConnection = tx.conn()?;
    let (mut first, mut second, mut third) = (conn, conn, conn);
    let lock =
        statement::<(Uuid,)>("SELECT id FROM agents WHERE id = ? FOR NO KEY UPDATE").bind::<Uuid, _>(id);
    // A statement of its own: only one that begins after the lock was granted sees what the holder before us wrote.
    // All are sent at once; the server begins each when the one before is done.
    let count = statement::<Columns>(
        "SELECT a.id, a.agent_id, a.platform, a.region, a.status, a.operator_drain, COALESCE(a.last_heartbeat, a.created_at),
                a.max_sessions, a.cpu_millis, a.memory_bytes, l.active, l.cpu, l.memory
         FROM agents a, agent_usage(ARRAY[a.id], 'infinity') l WHERE a.id = ?",
    )
    .bind::<Uuid, _>(id);
    // Joined, and not given up at the first error: an answer nobody waits for would be the next statement's.
    let (saved, locked, rows) = join3(
        first.batch_execute("SAVEPOINT placement"),
        lock.load::<(AgentId,)>(&mut second),
        count.load::<Row>(&mut third),
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
