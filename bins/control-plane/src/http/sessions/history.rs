//! `GET sessions/{id}/history`.

use actix_web::web::{Data, Json};
use serde::Serialize;
use tidegate_model::{SessionEvent, SessionId};
use utoipa::ToSchema;

use crate::http::{Context, ErrorAnswer, Problem, gate::Identified, valid::Segment};

/// What happened to a session.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct History {
    /// Its changes of state, the oldest first.
    events: Vec<SessionEvent>,
    /// How many there are.
    total: usize,
}

/// A session's changes of state, the oldest first.
#[utoipa::path(get, path = "/api/v1/sessions/{id}/history", tag = "sessions", params(("id" = String, Path)), responses(
    (status = 200, description = "the history", body = History),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 404, description = "no such session", body = ErrorAnswer),
))]
pub(crate) async fn history(
    context: Data<Context>,
    caller: Identified,
    id: Segment<SessionId>,
) -> Result<Json<History>, Problem> {
    let events = context.services.sessions.history(caller.org()?, id.0).await?;
    Ok(Json(History { total: events.len(), events }))
}
