//! `GET admin/agents`.

use actix_web::web::{Data, Json};
use serde::Serialize;
use tidegate_model::{Agent, AgentStatus, ApprovalStatus, Fields, FromFields, Platform};
use tidegate_service::AgentFilter;
use utoipa::ToSchema;

use crate::http::{Context, ErrorAnswer, Problem, gate::Identified, valid::Query};

/// What the list is narrowed to.
#[derive(Debug)]
pub(crate) struct Wanted(AgentFilter);

impl FromFields for Wanted {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        Some(Self(AgentFilter {
            platform: fields.optional("platform"),
            status: fields.optional("status"),
            region: fields.optional("region"),
            approval: fields.optional("approvalStatus"),
            organization: fields.optional("organization"),
        }))
    }
}

/// Agents.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Agents {
    /// By name.
    agents: Vec<Agent>,
    /// How many there are.
    total: usize,
}

/// The agents of the platform, by name.
#[utoipa::path(get, path = "/api/v1/admin/agents", tag = "admin", params(
    ("platform" = Option<Platform>, Query, description = "of this platform only"),
    ("status" = Option<AgentStatus>, Query, description = "in this health only"),
    ("region" = Option<String>, Query, description = "of this region only"),
    ("approvalStatus" = Option<ApprovalStatus>, Query, description = "with this approval only"),
    ("organization" = Option<String>, Query, description = "that serve this organization alone, by id or name"),
), responses(
    (status = 200, description = "the agents", body = Agents),
    (status = 400, description = "bad query", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an operator", body = ErrorAnswer),
))]
pub(crate) async fn list(
    context: Data<Context>,
    caller: Identified,
    wanted: Query<Wanted>,
) -> Result<Json<Agents>, Problem> {
    let agents = context.services.agents.list(&caller.operator()?, wanted.0.0).await?;
    Ok(Json(Agents { total: agents.len(), agents }))
}
