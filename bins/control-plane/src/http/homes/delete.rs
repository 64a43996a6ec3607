//! `DELETE homes/{id}`.

use actix_web::{HttpResponse, web::Data};
use serde::Serialize;
use tidegate_model::{CommandId, Home, HomeId};
use utoipa::ToSchema;

use crate::http::{Context, ErrorAnswer, Problem, gate::Identified, valid::Segment};

/// A home that its agent was asked to delete.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = HomeLeaving)]
pub(crate) struct Leaving {
    /// The home as it stands.
    home: Home,
    /// The command, `cmd-…`; absent where it was asked for before, or where the agent is gone and the home with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    command_id: Option<String>,
}

/// Deletes a persistent home with everything in it: one's own, or anybody's for those who manage sessions. Its agent is
/// asked, and it counts until the agent has confirmed.
#[utoipa::path(delete, path = "/api/v1/homes/{id}", tag = "sessions", params(("id" = String, Path)), responses(
    (status = 200, description = "nothing is left to do: it was asked for before, or its agent is gone", body = Leaving),
    (status = 202, description = "its agent is asked", body = Leaving),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 404, description = "no such home, or not to be seen", body = ErrorAnswer),
    (status = 409, description = "a session that has not ended is at home there", body = ErrorAnswer),
))]
pub(crate) async fn delete(
    context: Data<Context>,
    caller: Identified,
    id: Segment<HomeId>,
) -> Result<HttpResponse, Problem> {
    let (home, command) = context.services.homes.delete(caller.org()?, id.0).await?;
    let command_id = command.map(CommandId::to_wire);
    let mut answer = if command_id.is_some() { HttpResponse::Accepted() } else { HttpResponse::Ok() };
    Ok(answer.json(Leaving { home, command_id }))
}
