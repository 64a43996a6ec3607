//! `POST admin/agents/{agentId}/rotate-key` and `…/revoke-key`.

use actix_web::web::{Data, Json};
use chrono::{DateTime, Utc};
use serde::Serialize;
use tidegate_model::{Agent, AgentHandle, Fields, FromFields};
use tidegate_service::LONGEST_OVERLAP;
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
    /// Seconds that the old key stays good beside the new one, at most 604800. Default 0: it ends at once, and so does what
    /// it opened.
    #[schema(required = false)]
    overlap_seconds: u32,
}

impl FromFields for Rotation {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let show_key = fields.optional("showKey").unwrap_or(true);
        let overlap_seconds = fields.optional("overlapSeconds").unwrap_or(0);
        if overlap_seconds > LONGEST_OVERLAP {
            let complaint = format!("must be a number from 0 to {LONGEST_OVERLAP}, which are 7 days");
            fields.errors().add("overlapSeconds", complaint);
        }
        Some(Self { show_key, overlap_seconds })
    }
}

/// The new key.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Rotated {
    /// The agent.
    agent_id: AgentHandle,
    /// Its new key, shown once.
    #[serde(skip_serializing_if = "Option::is_none")]
    api_key: Option<String>,
    /// Until when the old key is good as well; absent where it is good for nothing any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    old_key_until: Option<DateTime<Utc>>,
}

/// Gives an agent a new key. The old one, and what it opened, end at once, or after the overlap that is asked for.
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
    let Rotation { show_key, overlap_seconds } = body.after(found).await?;
    let (key, old_key_until) = agents.rotate_key(&operator, &agent.0, overlap_seconds).await?;
    Ok(Json(Rotated { agent_id: agent.0, api_key: show_key.then(|| key.into_inner()), old_key_until }))
}

/// Takes an agent's keys. Its connection and its tunnels are cut at once; its sessions run on, and it comes back with the
/// key of a rotation.
#[utoipa::path(post, path = "/api/v1/admin/agents/{agentId}/revoke-key", tag = "admin",
    params(("agentId" = String, Path)), responses(
    (status = 200, description = "the agent", body = Agent),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an operator", body = ErrorAnswer),
    (status = 404, description = "no such agent", body = ErrorAnswer),
    (status = 409, description = "it is not approved", body = ErrorAnswer),
))]
pub(crate) async fn revoke_key(
    context: Data<Context>,
    caller: Identified,
    agent: Segment<AgentHandle>,
) -> Result<Json<Agent>, Problem> {
    Ok(Json(context.services.agents.revoke_key(&caller.operator()?, &agent.0).await?))
}
