//! `POST admin/agents/{agentId}/command`.

use actix_web::{
    HttpResponse,
    web::{Data, Json},
};
use serde_json::{Map, Value};
use tidegate_model::{AgentCommand, AgentCommandRequest, AgentHandle, CommandAction, SessionId};
use utoipa::ToSchema;

use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    valid::{Body, Segment},
};

/// A command to give an agent.
#[derive(Debug, ToSchema)]
#[schema(as = AgentCommandRequest, rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "the shape of `AgentCommandRequest`, read field by field, for the OpenAPI document"
)]
pub(crate) struct Order {
    /// What to do.
    action: CommandAction,
    /// The session it is about, which must be placed on that agent.
    session_id: Option<SessionId>,
    /// With what, at most 16 KiB of JSON; it is shown in the history, so never a secret.
    payload: Option<Map<String, Value>>,
}

/// Gives an agent a command, whatever state it is in: one that is offline gets it when it comes back, unless the deadline
/// passes before.
#[utoipa::path(post, path = "/api/v1/admin/agents/{agentId}/command", tag = "admin", params(("agentId" = String, Path)),
    request_body = Order, responses(
    (status = 201, description = "queued", body = AgentCommand),
    (status = 400, description = "bad fields, each named", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an operator", body = ErrorAnswer),
    (status = 404, description = "no such agent, or no such session on it", body = ErrorAnswer),
    (status = 409, description = "the agent is not approved", body = ErrorAnswer),
))]
pub(crate) async fn order(
    context: Data<Context>,
    caller: Identified,
    agent: Segment<AgentHandle>,
    body: Body<AgentCommandRequest>,
) -> Result<HttpResponse, Problem> {
    let (operator, agents) = (caller.operator()?, &context.services.agents);
    let request = body.after(async || Ok(agents.get(&operator, &agent.0).await.map(drop)?)).await?;
    Ok(HttpResponse::Created().json(Json(agents.order(&operator, &agent.0, request).await?).0))
}
