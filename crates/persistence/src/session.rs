//! Sessions, their specs and their history.

use chrono::{DateTime, Utc};
use diesel::{
    ExpressionMethods, Insertable, PgArrayExpressionMethods, QueryDsl, Queryable, Selectable,
    SelectableHelper,
    sql_types::{Array, BigInt, Bool, Bytea, Integer, Jsonb, Nullable, Text, Timestamptz, Uuid},
};
use diesel_async::RunQueryDsl;
use serde_json::Value;
use tidegate_model::{
    AgentId, OrgId, Platform, Quantity, Resources, Session, SessionEvent, SessionEventId, SessionFilter,
    SessionId, SessionState, TimeLimit, UserId,
};

use crate::{
    AgentTx, Error, OrgTx, Result,
    schema::{session_events, session_specs, sessions},
    statement::statement,
};

#[derive(Queryable, Selectable)]
#[diesel(table_name = sessions)]
struct Row {
    id: SessionId,
    org_id: OrgId,
    user_id: UserId,
    username: String,
    name: String,
    template: String,
    application_id: Option<String>,
    agent_handle: Option<String>,
    platform: Platform,
    region: Option<String>,
    state: SessionState,
    state_reason: Option<String>,
    state_since: DateTime<Utc>,
    generation: i64,
    cpu_millis: i64,
    memory_bytes: i64,
    storage_bytes: i64,
    persistent_home: bool,
    idle_seconds: i32,
    max_seconds: i32,
    tags: Vec<String>,
    streaming_ready: bool,
    streaming_port: Option<i32>,
    platform_metadata: Value,
    created_at: DateTime<Utc>,
    started_at: Option<DateTime<Utc>>,
    last_activity_at: Option<DateTime<Utc>>,
    hibernated_at: Option<DateTime<Utc>>,
    ended_at: Option<DateTime<Utc>>,
}

fn limit(seconds: i32) -> Result<TimeLimit> {
    let seconds = u64::try_from(seconds).map_err(|error| Error::corrupt("time limit", error))?;
    TimeLimit::from_seconds(seconds).map_err(|error| Error::corrupt("time limit", error))
}

impl TryFrom<Row> for Session {
    type Error = Error;
    fn try_from(row: Row) -> Result<Self> {
        let agent_id = row.agent_handle.map(|handle| handle.parse()).transpose();
        let resources = Resources {
            cpu: Quantity::from_millis(u64::try_from(row.cpu_millis).unwrap_or(0)),
            memory: Quantity::from_bytes(u64::try_from(row.memory_bytes).unwrap_or(0)),
            storage: Quantity::from_bytes(u64::try_from(row.storage_bytes).unwrap_or(0)),
        };
        Ok(Self {
            id: row.id,
            org_id: row.org_id,
            user: row.username,
            user_id: row.user_id,
            name: row.name,
            template: row.template,
            application_id: row.application_id,
            agent_id: agent_id.map_err(|error: &str| Error::corrupt("agent id", error))?,
            platform: row.platform,
            region: row.region,
            state: row.state,
            state_reason: row.state_reason,
            state_since: row.state_since,
            generation: row.generation,
            resources,
            persistent_home: row.persistent_home,
            idle_timeout: limit(row.idle_seconds)?,
            max_session_duration: limit(row.max_seconds)?,
            tags: row.tags,
            streaming_ready: row.streaming_ready,
            streaming_port: row.streaming_port.and_then(|port| u16::try_from(port).ok()),
            platform_metadata: row.platform_metadata.as_object().cloned().unwrap_or_default(),
            created_at: row.created_at,
            started_at: row.started_at,
            last_activity_at: row.last_activity_at,
            hibernated_at: row.hibernated_at,
            ended_at: row.ended_at,
        })
    }
}

/// A session to insert, already placed.
#[derive(Debug, Clone, Insertable)]
#[diesel(table_name = sessions)]
pub struct NewRow {
    /// The id.
    pub id: SessionId,
    /// The organization; row-level security refuses any but the transaction's.
    pub org_id: OrgId,
    /// The owner.
    pub user_id: UserId,
    /// The owner's username.
    pub username: String,
    /// For people.
    pub name: String,
    /// Template name.
    pub template: String,
    /// Where it is placed.
    pub agent_id: AgentId,
    /// That agent's name.
    pub agent_handle: String,
    /// That agent's platform.
    pub platform: Platform,
    /// That agent's region.
    pub region: Option<String>,
    /// Pending.
    pub state: SessionState,
    /// The present.
    pub state_since: DateTime<Utc>,
    /// 1.
    pub generation: i64,
    /// Millicores.
    pub cpu_millis: i64,
    /// Bytes.
    pub memory_bytes: i64,
    /// Bytes of the persistent home.
    pub storage_bytes: i64,
    /// Whether the home outlives the session.
    pub persistent_home: bool,
    /// Seconds, 0 for never.
    pub idle_seconds: i32,
    /// Seconds, 0 for never.
    pub max_seconds: i32,
    /// Labels.
    pub tags: Vec<String>,
    /// The present.
    pub created_at: DateTime<Utc>,
}

/// Inserts a placed session.
pub async fn insert(tx: &mut OrgTx, new: &NewRow) -> Result<Session> {
    let row: Row = diesel::insert_into(sessions::table)
        .values(new)
        .returning(Row::as_returning())
        .get_result(tx.conn()?)
        .await?;
    row.try_into()
}

/// What a start needs beyond the row.
#[derive(Debug, Clone, Default)]
pub struct Spec {
    /// Program and arguments.
    pub command: Option<Vec<String>>,
    /// Sealed environment.
    pub environment: Option<Vec<u8>>,
}

/// Keeps a session's spec.
pub async fn insert_spec(tx: &mut OrgTx, session: SessionId, spec: Spec) -> Result<()> {
    let org_id = tx.org_id();
    statement::<()>(
        "INSERT INTO session_specs (org_id, session_id, command, environment) VALUES (?, ?, ?, ?)",
    )
    .bind::<Uuid, _>(org_id)
    .bind::<Uuid, _>(session)
    .bind::<Nullable<Jsonb>, _>(spec.command.map(Value::from))
    .bind::<Nullable<Bytea>, _>(spec.environment)
    .execute(tx.conn()?)
    .await?;
    Ok(())
}

/// A session's spec; empty when it has none.
pub async fn find_spec(tx: &mut OrgTx, session: SessionId) -> Result<Spec> {
    let rows: Vec<(Option<Value>, Option<Vec<u8>>)> = session_specs::table
        .select((session_specs::command, session_specs::environment))
        .filter(session_specs::session_id.eq(session))
        .load(tx.conn()?)
        .await?;
    let Some((command, environment)) = rows.into_iter().next() else { return Ok(Spec::default()) };
    let command = command.map(serde_json::from_value).transpose();
    Ok(Spec { command: command.map_err(|error| Error::corrupt("session spec", error))?, environment })
}

/// A session of the organization that was not cleaned up.
pub async fn find(tx: &mut OrgTx, id: SessionId) -> Result<Session> {
    let rows: Vec<Row> = sessions::table
        .select(Row::as_select())
        .filter(sessions::id.eq(id))
        .filter(sessions::hidden_at.is_null())
        .load(tx.conn()?)
        .await?;
    rows.into_iter().next().ok_or(Error::NotFound)?.try_into()
}

/// A page of a list: what was asked for, and from where.
#[derive(Debug, Clone)]
pub struct Page {
    /// What it is narrowed to.
    pub filter: SessionFilter,
    /// Of this owner only: what the caller may see at all.
    pub owner: Option<UserId>,
    /// Rows at most.
    pub limit: i64,
    /// Only sessions made before this one.
    pub before: Option<(DateTime<Utc>, SessionId)>,
}

/// Totals are exact up to here.
pub const EXACT_TOTAL: i64 = 10_000;

/// Sessions, the newest first, and how many there are without paging (counted up to one past [`EXACT_TOTAL`]).
pub async fn list(tx: &mut OrgTx, page: &Page) -> Result<(Vec<Session>, i64)> {
    let narrowed = || {
        let mut query = sessions::table.filter(sessions::hidden_at.is_null()).into_boxed();
        if let Some(owner) = page.owner {
            query = query.filter(sessions::user_id.eq(owner));
        }
        if let Some(user) = &page.filter.user {
            query = query.filter(sessions::username.eq(user.clone()));
        }
        if let Some(state) = page.filter.state {
            query = query.filter(sessions::state.eq(state));
        }
        if let Some(tag) = &page.filter.tag {
            query = query.filter(sessions::tags.contains(vec![tag.clone()]));
        }
        if let Some(agent) = &page.filter.agent {
            query = query.filter(sessions::agent_handle.eq(agent.as_str().to_owned()));
        }
        query
    };
    let mut query = narrowed().select(Row::as_select());
    if let Some((created, id)) = page.before {
        use diesel::BoolExpressionMethods;
        query = query.filter(
            sessions::created_at.lt(created).or(sessions::created_at.eq(created).and(sessions::id.lt(id))),
        );
    }
    let query = query.order((sessions::created_at.desc(), sessions::id.desc())).limit(page.limit);
    let rows: Vec<Row> = query.load(tx.conn()?).await?;
    let ids: Vec<SessionId> = narrowed().select(sessions::id).limit(EXACT_TOTAL + 1).load(tx.conn()?).await?;
    let total = i64::try_from(ids.len()).unwrap_or(i64::MAX);
    Ok((rows.into_iter().map(Session::try_from).collect::<Result<_>>()?, total))
}

/// A change of state that a person asks for.
#[derive(Debug, Clone)]
pub struct Advance {
    /// The session.
    pub id: SessionId,
    /// Where to.
    pub to: SessionState,
    /// Why.
    pub reason: Option<String>,
    /// Whether this is another start: raises the generation.
    pub starts: bool,
    /// The present.
    pub now: DateTime<Utc>,
}

/// Moves a session along its lifecycle, in one statement. `None`: it is in a state that does not allow it, or not there.
pub async fn advance(tx: &mut OrgTx, advance: Advance) -> Result<Option<Session>> {
    let step = i64::from(advance.starts);
    let row: Vec<Row> = diesel::update(sessions::table)
        .filter(sessions::id.eq(advance.id))
        .filter(sessions::hidden_at.is_null())
        .filter(sessions::state.eq_any(advance.to.predecessors()))
        .set((
            sessions::state.eq(advance.to),
            sessions::state_reason.eq(advance.reason),
            sessions::state_since.eq(advance.now),
            sessions::generation.eq(sessions::generation + step),
            sessions::streaming_ready.eq(false),
        ))
        .returning(Row::as_returning())
        .load(tx.conn()?)
        .await?;
    row.into_iter().next().map(Session::try_from).transpose()
}

/// Cleans a final session up: it is not shown any more. False when it is not final or not there.
pub async fn hide(tx: &mut OrgTx, id: SessionId, now: DateTime<Utc>) -> Result<bool> {
    let changed = statement::<()>(
        "UPDATE sessions SET hidden_at = ? WHERE id = ? AND hidden_at IS NULL AND state IN ('terminated', 'failed')",
    )
    .bind::<Timestamptz, _>(now)
    .bind::<Uuid, _>(id)
    .execute(tx.conn()?)
    .await?;
    Ok(changed == 1)
}

/// Replaces a session's tags.
pub async fn set_tags(tx: &mut OrgTx, id: SessionId, tags: Vec<String>) -> Result<()> {
    let changed = statement::<()>("UPDATE sessions SET tags = ? WHERE id = ? AND hidden_at IS NULL")
        .bind::<Array<Text>, _>(tags)
        .bind::<Uuid, _>(id)
        .execute(tx.conn()?)
        .await?;
    if changed == 1 { Ok(()) } else { Err(Error::NotFound) }
}

/// Stamps a viewer or declared activity.
pub async fn touch(tx: &mut OrgTx, id: SessionId, now: DateTime<Utc>) -> Result<()> {
    statement::<()>("UPDATE sessions SET last_activity_at = ? WHERE id = ?")
        .bind::<Timestamptz, _>(now)
        .bind::<Uuid, _>(id)
        .execute(tx.conn()?)
        .await?;
    Ok(())
}

/// The row id of the agent a session is placed on.
pub async fn placement(tx: &mut OrgTx, id: SessionId) -> Result<Option<AgentId>> {
    let rows: Vec<Option<AgentId>> =
        sessions::table.select(sessions::agent_id).filter(sessions::id.eq(id)).load(tx.conn()?).await?;
    rows.into_iter().next().ok_or(Error::NotFound)
}

/// A session's history, oldest first; at most 1 000 changes.
pub async fn history(tx: &mut OrgTx, id: SessionId) -> Result<Vec<SessionEvent>> {
    type EventRow =
        (SessionEventId, SessionId, Option<SessionState>, SessionState, Option<String>, i64, DateTime<Utc>);
    let rows: Vec<EventRow> = session_events::table
        .select((
            session_events::id,
            session_events::session_id,
            session_events::from_state,
            session_events::to_state,
            session_events::reason,
            session_events::generation,
            session_events::at,
        ))
        .filter(session_events::session_id.eq(id))
        .order(session_events::seq)
        .limit(1_000)
        .load(tx.conn()?)
        .await?;
    let event = |(id, session_id, from_state, to_state, reason, generation, at): EventRow| SessionEvent {
        id,
        session_id,
        from_state,
        to_state,
        reason,
        generation,
        at,
    };
    Ok(rows.into_iter().map(event).collect())
}

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
pub async fn apply(tx: &mut AgentTx, moves: Vec<Move>, now: DateTime<Utc>) -> Result<Vec<Moved>> {
    if moves.is_empty() {
        return Ok(Vec::new());
    }
    let mut columns = Columns::default();
    for change in moves {
        columns.push(change);
    }
    let rows: Vec<(SessionId, OrgId, SessionState)> = statement::<(Uuid, Uuid, Text)>(
        "UPDATE sessions s SET state = r.state,
                state_reason = CASE WHEN s.state = r.state THEN s.state_reason ELSE r.reason END,
                state_since = CASE WHEN s.state = r.state THEN s.state_since ELSE r.now END,
                streaming_ready = CASE WHEN r.state <> 'running' THEN false ELSE COALESCE(r.ready, s.streaming_ready) END,
                streaming_port = COALESCE(r.port, s.streaming_port),
                platform_metadata = CASE WHEN pg_column_size(s.platform_metadata || r.metadata) <= 32768 THEN s.platform_metadata || r.metadata
                                         ELSE s.platform_metadata END,
                started_at = CASE WHEN r.state = 'running' THEN COALESCE(s.started_at, r.now) ELSE s.started_at END,
                hibernated_at = CASE WHEN r.state = 'hibernated' AND s.state <> r.state THEN r.now ELSE s.hibernated_at END,
                ended_at = CASE WHEN r.state IN ('terminated', 'failed') THEN COALESCE(s.ended_at, r.now) ELSE s.ended_at END
         FROM (SELECT x.*, ?::timestamptz AS now FROM unnest(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
                 AS x(id, agent_id, epoch, generation, state, froms, reason, ready, port, metadata)) r
         JOIN agents a ON a.id = r.agent_id AND a.epoch = COALESCE(r.epoch, a.epoch)
         WHERE s.id = r.id AND s.agent_id = r.agent_id AND s.generation = COALESCE(r.generation, s.generation)
           AND (r.epoch IS NULL OR a.approval_status = 'approved')
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
                 SELECT p.*, EXISTS (SELECT 1 FROM commands c WHERE c.session_id = p.id AND c.status IN ('pending', 'sent', 'ack')) AS has_open
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
           AND NOT EXISTS (SELECT 1 FROM commands c WHERE c.session_id = s.id AND c.status IN ('pending', 'sent', 'ack'))",
    )
    .bind::<Array<Uuid>, _>(agents.to_vec())
    .bind::<Timestamptz, _>(before)
    .load(tx.conn()?)
    .await?)
}
