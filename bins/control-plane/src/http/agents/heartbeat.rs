//! `POST agents/{agentId}/heartbeat`.

use actix_web::{
    HttpRequest,
    web::{Data, Json},
};
use serde::Serialize;
use tidegate_model::{AgentCapacity, AgentHeartbeatRequest, AgentReportedStatus, Fields, FromFields};
use utoipa::ToSchema;

use super::key::prove;
use crate::http::{
    Context, ErrorAnswer, Problem,
    valid::{Body, Segment},
};

/// How the agent is.
#[derive(Debug, ToSchema)]
#[schema(as = AgentHeartbeatRequest, rename_all = "camelCase")]
#[expect(dead_code, reason = "the shape of `AgentHeartbeatRequest` for the OpenAPI document")]
pub(crate) struct HowItIs {
    /// Online or draining.
    status: AgentReportedStatus,
    /// Sessions it runs.
    active_sessions: Option<u32>,
    /// What it can hold; unchanged when absent.
    capacity: Option<AgentCapacity>,
}

/// A heartbeat, with the name that some agents repeat in it.
#[derive(Debug)]
pub(crate) struct Heartbeat {
    named: Option<String>,
    request: AgentHeartbeatRequest,
}

impl FromFields for Heartbeat {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let named = fields.optional("agentId");
        Some(Self { named, request: AgentHeartbeatRequest::from_fields(fields)? })
    }
}

/// That it was heard.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Heard {
    /// `ok`.
    status: &'static str,
}

/// A sign of life of an agent without a control connection.
#[utoipa::path(post, path = "/api/v1/agents/{agentId}/heartbeat", tag = "agents", request_body = HowItIs,
    security(("agentKey" = [])), params(("agentId" = String, Path)), responses(
    (status = 200, description = "heard", body = Heard),
    (status = 400, description = "bad fields", body = ErrorAnswer),
    (status = 401, description = "no key, or not this agent's", body = ErrorAnswer),
    (status = 403, description = "not approved, or the body names another agent", body = ErrorAnswer),
))]
pub(crate) async fn heartbeat(
    request: HttpRequest,
    context: Data<Context>,
    agent: Segment<String>,
    body: Body<Heartbeat>,
) -> Result<Json<Heard>, Problem> {
    let identity = prove(&request, &context, &agent.0).await?;
    let heartbeat = body.valid()?;
    if heartbeat.named.as_ref().is_some_and(|named| named != identity.handle().as_str()) {
        return Err(Problem::forbidden("the body names another agent than the path"));
    }
    context.services.agents.heartbeat(&identity, heartbeat.request).await?;
    Ok(Json(Heard { status: "ok" }))
}
