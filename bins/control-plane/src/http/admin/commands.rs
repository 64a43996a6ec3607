//! `GET admin/agents/{agentId}/commands`.

use actix_web::{
    HttpRequest,
    web::{Data, Json},
};
use serde::Serialize;
use tidegate_model::{AgentCommand, AgentHandle, Fields, FromFields};
use utoipa::ToSchema;

use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    valid::{Segment, parsed, read_query},
};

/// What the query may say.
#[derive(Debug)]
struct Wanted {
    limit: u32,
}

impl FromFields for Wanted {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let limit = parsed(fields, "limit", "must be a number from 1 to 100").unwrap_or(50);
        if !(1..=100).contains(&limit) {
            fields.errors().add("limit", "must be a number from 1 to 100");
        }
        Some(Self { limit })
    }
}

/// Commands.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Commands {
    /// The newest first.
    commands: Vec<AgentCommand>,
    /// How many are shown.
    total: usize,
}

/// An agent's commands with all their times, the newest first.
#[utoipa::path(get, path = "/api/v1/admin/agents/{agentId}/commands", tag = "admin", params(
    ("agentId" = String, Path),
    ("limit" = Option<u32>, Query, description = "1 to 100, default 50"),
), responses(
    (status = 200, description = "the commands", body = Commands),
    (status = 400, description = "bad query", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an operator", body = ErrorAnswer),
    (status = 404, description = "no such agent", body = ErrorAnswer),
))]
pub(crate) async fn commands(
    request: HttpRequest,
    context: Data<Context>,
    caller: Identified,
    agent: Segment<AgentHandle>,
) -> Result<Json<Commands>, Problem> {
    let (agents, operator) = (&context.services.agents, caller.operator()?);
    agents.get(&operator, &agent.0).await?;
    let wanted: Wanted = read_query(request.query_string()).map_err(Problem::invalid)?;
    let commands = agents.commands(&operator, &agent.0, wanted.limit).await?;
    Ok(Json(Commands { total: commands.len(), commands }))
}
