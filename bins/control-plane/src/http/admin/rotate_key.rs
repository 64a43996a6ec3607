//! `POST admin/agents/{agentId}/rotate-key`.

use actix_web::web::{Data, Json};
use serde::Serialize;
use tidegate_model::{AgentHandle, Fields, FromFields};
use utoipa::ToSchema;

use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    valid::{Body, Segment},
};

/// How to rotate.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "camelCase")]
pub(crate) struct Rotation {
    /// Answer the new key, once. Default true: nobody else is told it.
    #[schema(required = false)]
    show_key: bool,
}

impl FromFields for Rotation {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        Some(Self { show_key: fields.optional("showKey").unwrap_or(true) })
    }
}

/// The new key.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Rotated {
    /// The agent.
    agent_id: AgentHandle,
    /// Its new key, shown once; the old one is good for nothing any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    api_key: Option<String>,
}

/// Gives an agent a new key. The old one, and what it opened, end at once.
#[utoipa::path(post, path = "/api/v1/admin/agents/{agentId}/rotate-key", tag = "admin", request_body = Rotation,
    params(("agentId" = String, Path)), responses(
    (status = 200, description = "rotated", body = Rotated),
    (status = 400, description = "bad fields", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an operator", body = ErrorAnswer),
    (status = 404, description = "no such agent", body = ErrorAnswer),
    (status = 409, description = "it is not approved", body = ErrorAnswer),
))]
pub(crate) async fn rotate_key(
    context: Data<Context>,
    caller: Identified,
    agent: Segment<AgentHandle>,
    body: Body<Rotation>,
) -> Result<Json<Rotated>, Problem> {
    let (agents, operator) = (&context.services.agents, caller.operator()?);
    let found = async || Ok(agents.get(&operator, &agent.0).await.map(drop)?);
    let show = body.after(found).await?.show_key;
    let key = agents.rotate_key(&operator, &agent.0).await?;
    Ok(Json(Rotated { agent_id: agent.0, api_key: show.then(|| key.into_inner()) }))
}
