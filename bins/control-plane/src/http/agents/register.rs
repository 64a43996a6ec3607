//! `POST agents/register`.

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web::Data};
use serde::Serialize;
use tidegate_model::{
    Agent, AgentCapacity, AgentMetadata, AgentRegistrationRequest, ApprovalStatus, Platform, Secret,
};
use tidegate_protocol::{API_KEY_HEADER, CLAIM_HEADER};
use tidegate_service::{Registered, Registration};
use utoipa::ToSchema;

use super::key::{certified, header};
use crate::http::{Context, ErrorAnswer, Problem, source::source, valid::Body};

/// Who the agent is and what it can hold.
#[derive(Debug, ToSchema)]
#[schema(as = AgentRegistrationRequest, rename_all = "camelCase")]
#[expect(dead_code, reason = "the shape of `AgentRegistrationRequest` for the OpenAPI document")]
pub(crate) struct NewAgent {
    /// The name it chooses, 3–100 characters.
    agent_id: String,
    /// What it runs sessions on.
    platform: Platform,
    /// Where it stands, 2–50 characters.
    region: Option<String>,
    /// What it can hold.
    capacity: Option<AgentCapacity>,
    /// Free data, at most 16 KiB.
    metadata: Option<AgentMetadata>,
}

/// What a registration came to.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Answer {
    /// The agent.
    agent: Agent,
    /// Whether an operator let it in.
    approval_status: ApprovalStatus,
    /// Gets the key once it is approved; given once, with the first answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    claim_token: Option<String>,
    /// The agent's own key, until one was used to connect.
    #[serde(skip_serializing_if = "Option::is_none")]
    api_key: Option<String>,
}

impl Answer {
    fn of(agent: Agent, claim: Option<Secret<String>>, key: Option<Secret<String>>) -> Self {
        let approval_status = agent.approval_status;
        let (claim_token, api_key) = (claim.map(Secret::into_inner), key.map(Secret::into_inner));
        Self { agent, approval_status, claim_token, api_key }
    }
}

/// Registers an agent with the bootstrap key, and hands it its own key after an operator approved it.
#[utoipa::path(post, path = "/api/v1/agents/register", tag = "agents", request_body = NewAgent, security(("agentKey" = [])),
    params(("X-Agent-Claim" = Option<String>, Header, description = "the claim token of the first answer")), responses(
    (status = 200, description = "approved", body = Answer),
    (status = 202, description = "waits for an operator", body = Answer),
    (status = 400, description = "bad fields", body = ErrorAnswer),
    (status = 401, description = "no key, or a wrong one", body = ErrorAnswer),
    (status = 403, description = "rejected by an operator", body = ErrorAnswer),
    (status = 409, description = "known, and neither claim token nor key fits", body = ErrorAnswer),
    (status = 429, description = "too many attempts", body = ErrorAnswer),
))]
pub(crate) async fn register(
    request: HttpRequest,
    context: Data<Context>,
    body: Body<AgentRegistrationRequest>,
) -> Result<HttpResponse, Problem> {
    let headers = request.headers();
    let key = header(headers, API_KEY_HEADER)
        .ok_or_else(|| Problem::unauthenticated("the header X-Agent-API-Key is missing"))?;
    let presented = Registration {
        key: Some(key),
        claim: header(headers, CLAIM_HEADER),
        source: source(&request, &context),
    };
    let (agents, wanted) = (&context.services.agents, body.valid()?);
    // The bootstrap key opens nothing that a certificate would have to guard.
    if let Some(key) = presented.key.as_ref().filter(|key| !agents.is_bootstrap(key)) {
        agents.authenticate(&wanted.agent_id, Some(key), presented.source).await?;
        certified(&request, &context, &wanted.agent_id)?;
    }
    match agents.register(presented, wanted).await? {
        Registered::Pending(agent, claim) => {
            Ok(HttpResponse::Accepted().json(Answer::of(*agent, claim, None)))
        }
        Registered::Approved(agent, key) => Ok(HttpResponse::Ok().json(Answer::of(*agent, None, key))),
        Registered::Rejected(agent) => {
            let message = format!("agent {} was rejected by an operator", agent.agent_id);
            Err(Problem::new(StatusCode::FORBIDDEN, "E_AGENT_REJECTED", message))
        }
    }
}
