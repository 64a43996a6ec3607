//! Sessions, their specs and their history.

mod everywhere;
mod reported;
mod start;

use chrono::{DateTime, Utc};
use diesel::{
    BoolExpressionMethods, ExpressionMethods, PgArrayExpressionMethods, QueryDsl, Queryable, Selectable,
    SelectableHelper,
    sql_types::{Array, Text, Timestamptz, Uuid},
};
use diesel_async::RunQueryDsl;
use serde_json::Value;
use tidegate_model::{
    AgentId, ApplicationId, LimitMarks, OrgId, Platform, Quantity, Resources, Session, SessionEvent,
    SessionEventId, SessionFilter, SessionId, SessionState, StreamKind, TimeLimit, UserId,
};

use crate::{
    Error, OrgTx, PlatformTx, Result,
    schema::{session_events, sessions},
    share,
    statement::statement,
    terminal_source,
};

pub use everywhere::{Ended, EveryPage, find_any, list_all, terminate_any};
pub use reported::{Move, Moved, Placed, apply, placed, stuck};
pub use start::{NewRow, Options, Spec, find_spec, start};

#[derive(Queryable, Selectable)]
#[diesel(table_name = sessions)]
struct Row {
    id: SessionId,
    org_id: OrgId,
    user_id: UserId,
    username: String,
    name: String,
    template: String,
    installed_application_id: Option<ApplicationId>,
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
    image: Option<String>,
    protocol: StreamKind,
    extended_seconds: i32,
    kept_until: Option<DateTime<Utc>>,
    warned_at: Option<DateTime<Utc>>,
    warned_of: Option<DateTime<Utc>>,
}

impl Row {
    fn marks(&self) -> LimitMarks {
        LimitMarks {
            extended_seconds: u32::try_from(self.extended_seconds).unwrap_or(0),
            kept_until: self.kept_until,
            warned_at: self.warned_at,
            warned_of: self.warned_of,
        }
    }
}

/// A stored number of seconds as a limit.
pub(crate) fn time_limit(seconds: i32) -> Result<TimeLimit> {
    let seconds = u64::try_from(seconds).map_err(|error| Error::corrupt("time limit", error))?;
    TimeLimit::from_seconds(seconds).map_err(|error| Error::corrupt("time limit", error))
}

impl TryFrom<Row> for Session {
    type Error = Error;
    fn try_from(row: Row) -> Result<Self> {
        let marks = row.marks();
        let agent_id = row.agent_handle.map(|handle| handle.parse()).transpose();
        let resources = Resources {
            cpu: Quantity::from_millis(u64::try_from(row.cpu_millis).unwrap_or(0)),
            memory: Quantity::from_bytes(u64::try_from(row.memory_bytes).unwrap_or(0)),
            storage: Quantity::from_bytes(u64::try_from(row.storage_bytes).unwrap_or(0)),
        };
        let mut session = Self {
            id: row.id,
            org_id: row.org_id,
            user: row.username,
            user_id: row.user_id,
            name: row.name,
            template: row.template,
            image: row.image,
            protocol: row.protocol,
            application_id: row.installed_application_id,
            agent_id: agent_id.map_err(|error: &str| Error::corrupt("agent id", error))?,
            platform: row.platform,
            region: row.region,
            state: row.state,
            state_reason: row.state_reason,
            state_since: row.state_since,
            generation: row.generation,
            resources,
            persistent_home: row.persistent_home,
            idle_timeout: time_limit(row.idle_seconds)?,
            max_session_duration: time_limit(row.max_seconds)?,
            tags: row.tags,
            streaming_ready: row.streaming_ready,
            streaming_port: row.streaming_port.and_then(|port| u16::try_from(port).ok()),
            platform_metadata: row.platform_metadata.as_object().cloned().unwrap_or_default(),
            created_at: row.created_at,
            started_at: row.started_at,
            last_activity_at: row.last_activity_at,
            hibernated_at: row.hibernated_at,
            ended_at: row.ended_at,
            idle_at: None,
            ends_at: None,
            warning: None,
            shared: None,
            terminal_source: None,
        };
        session.mark(marks);
        Ok(session)
    }
}

/// A session of the organization that was not cleaned up.
pub async fn find(tx: &mut OrgTx, id: SessionId) -> Result<Session> {
    let rows: Vec<Row> = sessions::table
        .select(Row::as_select())
        .filter(sessions::id.eq(id))
        .filter(sessions::hidden_at.is_null())
        .load(tx.conn()?)
        .await?;
    let mut session = Session::try_from(rows.into_iter().next().ok_or(Error::NotFound)?)?;
    let recorded = terminal_source::of_sessions(tx, vec![id]).await?;
    session.terminal_source = recorded.into_iter().next().map(|(_, source)| source);
    Ok(session)
}

/// Whose sessions a list is of: what the caller may see at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// Everybody's.
    Everybodys,
    /// This owner's.
    Of(UserId),
    /// This owner's, and those that are shared with them at this moment.
    OfAndSharedWith(UserId, DateTime<Utc>),
    /// Those of others that are shared with this member at this moment.
    SharedWith(UserId, DateTime<Utc>),
}

/// A page of a list: what was asked for, and from where.
#[derive(Debug, Clone)]
pub struct Page {
    /// What it is narrowed to.
    pub filter: SessionFilter,
    /// Whose.
    pub whose: Whose,
    /// Rows at most.
    pub limit: i64,
    /// Only sessions made before this one.
    pub before: Option<(DateTime<Utc>, SessionId)>,
}

/// Totals are exact up to here.
pub const EXACT_TOTAL: i64 = 10_000;

/// Sessions, the newest first, and how many there are without paging (counted up to one past [`EXACT_TOTAL`]).
pub async fn list(tx: &mut OrgTx, page: &Page) -> Result<(Vec<Session>, i64)> {
    let shared = match page.whose {
        Whose::Everybodys | Whose::Of(_) => Vec::new(),
        Whose::OfAndSharedWith(user, at) | Whose::SharedWith(user, at) => {
            share::sessions_shared_with(tx, user, at).await?
        }
    };
    let narrowed = || {
        let query = sessions::table.filter(sessions::hidden_at.is_null()).into_boxed();
        let mut query = match page.whose {
            Whose::Everybodys => query,
            Whose::OfAndSharedWith(user, _) if !shared.is_empty() => {
                query.filter(sessions::user_id.eq(user).or(sessions::id.eq_any(shared.clone())))
            }
            Whose::Of(user) | Whose::OfAndSharedWith(user, _) => query.filter(sessions::user_id.eq(user)),
            Whose::SharedWith(user, _) => {
                query.filter(sessions::user_id.ne(user)).filter(sessions::id.eq_any(shared.clone()))
            }
        };
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
        if let Some(application) = page.filter.application {
            query = query.filter(sessions::installed_application_id.eq(application));
        }
        query
    };
    let mut query = narrowed().select(Row::as_select());
    if let Some((created, id)) = page.before {
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
    if advance.starts && !row.is_empty() {
        terminal_source::starts(tx, advance.id).await?;
    }
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

/// The row id of the agent a session is placed on.
pub async fn placement(tx: &mut OrgTx, id: SessionId) -> Result<Option<AgentId>> {
    let rows: Vec<Option<AgentId>> =
        sessions::table.select(sessions::agent_id).filter(sessions::id.eq(id)).load(tx.conn()?).await?;
    rows.into_iter().next().ok_or(Error::NotFound)
}

/// Organization and generation of a session that is placed on this agent.
pub async fn placed_on(tx: &mut PlatformTx, agent: AgentId, id: SessionId) -> Result<(OrgId, i64)> {
    let rows: Vec<(OrgId, i64)> = sessions::table
        .select((sessions::org_id, sessions::generation))
        .filter(sessions::id.eq(id))
        .filter(sessions::agent_id.eq(agent))
        .load(tx.conn()?)
        .await?;
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
