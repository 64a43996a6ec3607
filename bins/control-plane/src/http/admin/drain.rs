//! `POST admin/agents/{agentId}/drain` and `…/undrain`.

use actix_web::web::{Data, Json};
use tidegate_model::{Agent, AgentHandle};

use crate::http::{Context, ErrorAnswer, Problem, gate::Identified, valid::Segment};

/// No new sessions are placed on the agent; running ones stay.
#[utoipa::path(post, path = "/api/v1/admin/agents/{agentId}/drain", tag = "admin", params(("agentId" = String, Path)), responses(
    (status = 200, description = "the agent", body = Agent),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an operator", body = ErrorAnswer),
    (status = 404, description = "no such agent", body = ErrorAnswer),
))]
pub(crate) async fn drain(
    context: Data<Context>,
    caller: Identified,
    agent: Segment<AgentHandle>,
) -> Result<Json<Agent>, Problem> {
    Ok(Json(context.services.agents.drain(&caller.operator()?, &agent.0, true).await?))
}

/// New sessions are placed on the agent again.
#[utoipa::path(post, path = "/api/v1/admin/agents/{agentId}/undrain", tag = "admin", params(("agentId" = String, Path)), responses(
    (status = 200, description = "the agent", body = Agent),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an operator", body = ErrorAnswer),
    (status = 404, description = "no such agent", body = ErrorAnswer),
))]
pub(crate) async fn undrain(
    context: Data<Context>,
    caller: Identified,
    agent: Segment<AgentHandle>,
) -> Result<Json<Agent>, Problem> {
    Ok(Json(context.services.agents.drain(&caller.operator()?, &agent.0, false).await?))
}
