//! Sessions of every organization, for operators of the platform, who see them and begin their end.

use chrono::{DateTime, Utc};
use diesel::{
    ExpressionMethods, OptionalExtension, PgArrayExpressionMethods, QueryDsl, SelectableHelper,
    sql_types::{Array, Text, Timestamptz, Uuid},
};
use diesel_async::RunQueryDsl;
use tidegate_model::{AgentId, OrgId, Session, SessionFilter, SessionId, SessionState};

use super::{EXACT_TOTAL, Row};
use crate::{Error, PlatformTx, Result, schema::sessions, statement::statement};

/// A page of the list of all sessions.
#[derive(Debug, Clone)]
pub struct EveryPage {
    /// What it is narrowed to.
    pub filter: SessionFilter,
    /// Of this organization alone.
    pub org: Option<OrgId>,
    /// Rows at most.
    pub limit: i64,
    /// Only sessions made before this one.
    pub before: Option<SessionId>,
}

/// Sessions of every organization, the newest first (ids are made in order), and how many there are without paging,
/// counted up to one past [`EXACT_TOTAL`].
pub async fn list_all(tx: &mut PlatformTx, page: &EveryPage) -> Result<(Vec<Session>, i64)> {
    let narrowed = || {
        let mut query = sessions::table.filter(sessions::hidden_at.is_null()).into_boxed();
        if let Some(org) = page.org {
            query = query.filter(sessions::org_id.eq(org));
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
        if let Some(application) = page.filter.application {
            query = query.filter(sessions::installed_application_id.eq(application));
        }
        query
    };
    let mut query = narrowed().select(Row::as_select());
    if let Some(before) = page.before {
        query = query.filter(sessions::id.lt(before));
    }
    let query = query.order(sessions::id.desc()).limit(page.limit);
    let rows: Vec<Row> = query.load(tx.conn()?).await?;
    let ids: Vec<SessionId> = narrowed().select(sessions::id).limit(EXACT_TOTAL + 1).load(tx.conn()?).await?;
    let total = i64::try_from(ids.len()).unwrap_or(i64::MAX);
    Ok((rows.into_iter().map(Session::try_from).collect::<Result<_>>()?, total))
}

/// A session of any organization that was not cleaned up.
pub async fn find_any(tx: &mut PlatformTx, id: SessionId) -> Result<Session> {
    let row: Option<Row> = sessions::table
        .select(Row::as_select())
        .filter(sessions::id.eq(id))
        .filter(sessions::hidden_at.is_null())
        .first(tx.conn()?)
        .await
        .optional()?;
    row.ok_or(Error::NotFound)?.try_into()
}

/// How an operator ends a session.
#[derive(Debug, Clone)]
pub struct Ended {
    /// The session.
    pub id: SessionId,
    /// Why.
    pub reason: String,
    /// When the stop fails by itself.
    pub deadline: DateTime<Utc>,
    /// The present.
    pub now: DateTime<Utc>,
}

/// Begins the end of a session, with a stop for its agent, in one statement. `None` where it is being ended already, or
/// has ended.
pub async fn terminate_any(tx: &mut PlatformTx, ended: Ended) -> Result<Option<AgentId>> {
    let rows: Vec<AgentId> = statement::<Uuid>(
        "WITH moved AS (
             UPDATE sessions s SET state = 'terminating', state_reason = ?, state_since = ?, streaming_ready = false
             WHERE s.id = ? AND s.agent_id IS NOT NULL AND s.hidden_at IS NULL AND s.state NOT IN ('terminated', 'failed') AND s.state = ANY(?)
             RETURNING s.id, s.org_id, s.agent_id, s.agent_handle, s.generation)
         INSERT INTO commands (id, org_id, agent_id, agent_handle, session_id, generation, action, payload, status, deadline, created_at)
         SELECT tidegate_uuid_v7(?), m.org_id, m.agent_id, m.agent_handle, m.id, m.generation, 'stop_session',
                jsonb_build_object('sessionId', m.id, 'generation', m.generation), 'pending', ?, ? FROM moved m
         RETURNING agent_id",
    )
    .bind::<Text, _>(ended.reason)
    .bind::<Timestamptz, _>(ended.now)
    .bind::<Uuid, _>(ended.id)
    .bind::<Array<Text>, _>(SessionState::Terminating.predecessors().to_vec())
    .bind::<Timestamptz, _>(ended.now)
    .bind::<Timestamptz, _>(ended.deadline)
    .bind::<Timestamptz, _>(ended.now)
    .load(tx.conn()?)
    .await?;
    Ok(rows.into_iter().next())
}
