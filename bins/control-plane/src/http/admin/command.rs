//! `GET admin/commands/{commandId}`.

use std::str::FromStr;

use actix_web::web::{Data, Json};
use tidegate_model::{AgentCommand, CommandId};

use crate::http::{Context, ErrorAnswer, Problem, gate::Identified, valid::Segment};

/// A command's id with or without `cmd-`.
#[derive(Debug)]
pub(crate) struct Wire(CommandId);

impl FromStr for Wire {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        CommandId::from_wire(text).map(Self).ok_or(())
    }
}

/// One command with all its times.
#[utoipa::path(get, path = "/api/v1/admin/commands/{commandId}", tag = "admin", params(("commandId" = String, Path)), responses(
    (status = 200, description = "the command", body = AgentCommand),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an operator", body = ErrorAnswer),
    (status = 404, description = "no such command", body = ErrorAnswer),
))]
pub(crate) async fn command(
    context: Data<Context>,
    caller: Identified,
    id: Segment<Wire>,
) -> Result<Json<AgentCommand>, Problem> {
    Ok(Json(context.services.agents.command(&caller.operator()?, id.0.0).await?))
}
