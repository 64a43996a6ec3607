//! `POST admin/agents/{agentId}/approve` and `…/reject`.

use actix_web::web::{Data, Json};
use serde::Serialize;
use tidegate_model::{Agent, AgentHandle, Fields, FromFields, Secret};
use tidegate_service::Decision;
use utoipa::ToSchema;

use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    valid::{Body, Segment},
};

/// How to approve.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "camelCase")]
pub(crate) struct Approval {
    /// Answer the agent's key, once: for agents that keep no claim token. Default false.
    #[schema(required = false)]
    show_key: bool,
}

impl FromFields for Approval {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        Some(Self { show_key: fields.optional("showKey").unwrap_or(false) })
    }
}

/// Nothing more to say.
#[derive(Debug, ToSchema)]
pub(crate) struct Nothing {}

impl FromFields for Nothing {
    fn from_fields(_: &mut Fields) -> Option<Self> {
        Some(Self {})
    }
}

/// The agent as it now stands.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Decided {
    /// The agent.
    agent: Agent,
    /// Its key, shown once, where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    api_key: Option<String>,
}

/// Lets an agent that waits in.
#[utoipa::path(post, path = "/api/v1/admin/agents/{agentId}/approve", tag = "admin", request_body = Approval,
    params(("agentId" = String, Path)), responses(
    (status = 200, description = "approved", body = Decided),
    (status = 400, description = "bad fields", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an operator", body = ErrorAnswer),
    (status = 404, description = "no such agent", body = ErrorAnswer),
    (status = 409, description = "it does not wait", body = ErrorAnswer),
))]
pub(crate) async fn approve(
    context: Data<Context>,
    caller: Identified,
    agent: Segment<AgentHandle>,
    body: Body<Approval>,
) -> Result<Json<Decided>, Problem> {
    let (agents, operator) = (&context.services.agents, caller.operator()?);
    let found = async || Ok(agents.get(&operator, &agent.0).await.map(drop)?);
    let show = body.after(found).await?.show_key;
    let (agent, key) = agents.decide(&operator, &agent.0, Decision::Approve, show).await?;
    Ok(Json(Decided { agent, api_key: key.map(Secret::into_inner) }))
}

/// Keeps an agent that waits out.
#[utoipa::path(post, path = "/api/v1/admin/agents/{agentId}/reject", tag = "admin", params(("agentId" = String, Path)), responses(
    (status = 200, description = "rejected", body = Decided),
    (status = 400, description = "bad fields", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an operator", body = ErrorAnswer),
    (status = 404, description = "no such agent", body = ErrorAnswer),
    (status = 409, description = "it does not wait", body = ErrorAnswer),
))]
pub(crate) async fn reject(
    context: Data<Context>,
    caller: Identified,
    agent: Segment<AgentHandle>,
    body: Body<Nothing>,
) -> Result<Json<Decided>, Problem> {
    let (agents, operator) = (&context.services.agents, caller.operator()?);
    let found = async || Ok(agents.get(&operator, &agent.0).await.map(drop)?);
    body.after(found).await?;
    let (agent, _) = agents.decide(&operator, &agent.0, Decision::Reject, false).await?;
    Ok(Json(Decided { agent, api_key: None }))
}
