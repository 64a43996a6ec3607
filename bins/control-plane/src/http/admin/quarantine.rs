//! `GET admin/quarantine`, `POST admin/quarantine/{agentId}/{sessionId}/stop` and `…/forget`.

use actix_web::{
    HttpResponse,
    web::{Data, Json},
};
use chrono::{DateTime, Utc};
use serde::Serialize;
use tidegate_model::{AgentCommand, AgentHandle};
use tidegate_service::{QuarantineDecision, Quarantined};
use utoipa::ToSchema;

use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    valid::{Last, Segment},
};

/// A session that an agent runs and nobody here knows.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Stranger {
    /// The agent that runs it.
    agent_id: String,
    /// The id the agent gave.
    session_id: String,
    /// The state the agent gave.
    state: String,
    /// First reported.
    first_seen: DateTime<Utc>,
    /// Last reported.
    last_seen: DateTime<Utc>,
}

impl From<Quarantined> for Stranger {
    fn from(from: Quarantined) -> Self {
        let Quarantined { agent_id, session_id, state, first_seen, last_seen } = from;
        Self { agent_id, session_id, state, first_seen, last_seen }
    }
}

/// Strangers.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Strangers {
    /// The sessions.
    sessions: Vec<Stranger>,
    /// How many there are.
    total: usize,
}

/// Sessions that agents run and nobody here knows. They are left running until an operator decides.
#[utoipa::path(get, path = "/api/v1/admin/quarantine", tag = "admin", responses(
    (status = 200, description = "the sessions", body = Strangers),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an operator", body = ErrorAnswer),
))]
pub(crate) async fn quarantine(
    context: Data<Context>,
    caller: Identified,
) -> Result<Json<Strangers>, Problem> {
    let found = context.services.agents.quarantined(&caller.operator()?).await?;
    let sessions: Vec<Stranger> = found.into_iter().map(Stranger::from).collect();
    Ok(Json(Strangers { total: sessions.len(), sessions }))
}

/// Tells the agent to stop a session in quarantine. It stays listed until the agent has done so.
#[utoipa::path(post, path = "/api/v1/admin/quarantine/{agentId}/{sessionId}/stop", tag = "admin",
    params(("agentId" = String, Path), ("sessionId" = String, Path)), responses(
    (status = 202, description = "the stop that is on its way; asked for again it is the same one", body = AgentCommand),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an operator", body = ErrorAnswer),
    (status = 404, description = "no such agent, or no such session in its quarantine", body = ErrorAnswer),
    (status = 409, description = "the agent is not approved", body = ErrorAnswer),
))]
pub(crate) async fn stop(
    context: Data<Context>,
    caller: Identified,
    agent: Segment<AgentHandle>,
    session: Last<String>,
) -> Result<HttpResponse, Problem> {
    let (operator, agents) = (caller.operator()?, &context.services.agents);
    let decision = QuarantineDecision::Stop;
    let command = agents.decide_quarantined(&operator, &agent.0, &session.0, decision).await?;
    Ok(HttpResponse::Accepted().json(command))
}

/// Takes a session off the list. What still runs comes back when its agent reports it again.
#[utoipa::path(post, path = "/api/v1/admin/quarantine/{agentId}/{sessionId}/forget", tag = "admin",
    params(("agentId" = String, Path), ("sessionId" = String, Path)), responses(
    (status = 204, description = "it is not listed any more"),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an operator", body = ErrorAnswer),
    (status = 404, description = "no such agent, or no such session in its quarantine", body = ErrorAnswer),
))]
pub(crate) async fn forget(
    context: Data<Context>,
    caller: Identified,
    agent: Segment<AgentHandle>,
    session: Last<String>,
) -> Result<HttpResponse, Problem> {
    let (operator, agents) = (caller.operator()?, &context.services.agents);
    agents.decide_quarantined(&operator, &agent.0, &session.0, QuarantineDecision::Forget).await?;
    Ok(HttpResponse::NoContent().finish())
}
