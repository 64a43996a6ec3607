//! `GET admin/agents/{agentId}`.

use actix_web::web::{Data, Json};
use tidegate_model::{Agent, AgentHandle};

use crate::http::{Context, ErrorAnswer, Problem, gate::Identified, valid::Segment};

/// One agent.
#[utoipa::path(get, path = "/api/v1/admin/agents/{agentId}", tag = "admin", params(("agentId" = String, Path)), responses(
    (status = 200, description = "the agent", body = Agent),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an operator", body = ErrorAnswer),
    (status = 404, description = "no such agent", body = ErrorAnswer),
))]
pub(crate) async fn get(
    context: Data<Context>,
    caller: Identified,
    agent: Segment<AgentHandle>,
) -> Result<Json<Agent>, Problem> {
    Ok(Json(context.services.agents.get(&caller.operator()?, &agent.0).await?))
}
