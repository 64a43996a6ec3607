//! `POST admin/agents/{agentId}/drain` and `…/undrain`.

use actix_web::web::{Data, Json};
use tidegate_model::{Agent, AgentHandle, DrainRequest};
use utoipa::ToSchema;

use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    valid::{Body, Segment},
};

/// How to drain: the whole wish, so that a drain without a deadline takes an earlier one's away.
#[derive(Debug, ToSchema)]
#[schema(as = DrainRequest)]
#[expect(dead_code, reason = "the shape of `DrainRequest` for the OpenAPI document")]
pub(crate) struct Wish {
    /// When what still runs is hibernated, or terminated where it has no home: a time (RFC 3339) or a duration such as
    /// `90s`, `30m`, `8h` or `2d`, at most 30 days. Never without it.
    deadline: Option<String>,
    /// Why, for people; 1 to 500 characters.
    reason: Option<String>,
}

/// No sessions are placed on the agent or woken there; running ones stay, until the deadline if there is one.
#[utoipa::path(post, path = "/api/v1/admin/agents/{agentId}/drain", tag = "admin", request_body = Wish,
    params(("agentId" = String, Path)), responses(
    (status = 200, description = "the agent", body = Agent),
    (status = 400, description = "bad fields", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an operator", body = ErrorAnswer),
    (status = 404, description = "no such agent", body = ErrorAnswer),
))]
pub(crate) async fn drain(
    context: Data<Context>,
    caller: Identified,
    agent: Segment<AgentHandle>,
    body: Body<DrainRequest>,
) -> Result<Json<Agent>, Problem> {
    let (agents, operator) = (&context.services.agents, caller.operator()?);
    let found = async || Ok(agents.get(&operator, &agent.0).await.map(drop)?);
    let wish = body.after(found).await?;
    Ok(Json(agents.drain(&operator, &agent.0, wish).await?))
}

/// Sessions are placed on the agent again. What was hibernated or ended for the drain stays so.
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
    Ok(Json(context.services.agents.undrain(&caller.operator()?, &agent.0).await?))
}
