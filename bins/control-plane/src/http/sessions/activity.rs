//! `GET sessions/{id}/activity` and `POST sessions/{id}/heartbeat`: what kept a session alive, and what does.

use actix_web::web::{Data, Json};
use serde::Serialize;
use tidegate_model::{Session, SessionActivity, SessionId};
use utoipa::ToSchema;

use crate::http::{Context, ErrorAnswer, Problem, gate::Identified, valid::Segment};

/// Why a session stayed alive.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SessionActivities)]
pub(crate) struct Reasons {
    /// The last reasons, the newest first; at most 20.
    activity: Vec<SessionActivity>,
    /// How many there are.
    total: usize,
}

/// The last reasons why a session stayed alive: what was typed, streams that were opened, heartbeats, extensions.
/// Looking at a session from outside is none.
#[utoipa::path(get, path = "/api/v1/sessions/{id}/activity", tag = "sessions", params(("id" = String, Path)), responses(
    (status = 200, description = "the reasons, the newest first", body = Reasons),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 404, description = "no such session", body = ErrorAnswer),
))]
pub(crate) async fn activity(
    context: Data<Context>,
    caller: Identified,
    id: Segment<SessionId>,
) -> Result<Json<Reasons>, Problem> {
    let activity = context.services.activity.list(caller.org()?, id.0).await?;
    Ok(Json(Reasons { total: activity.len(), activity }))
}

/// Says that a session is in use, so that it is not idle; the answer says when it would be. For its owner, and for whoever
/// it is shared with to control. It may be said often: it counts once in a few seconds.
#[utoipa::path(post, path = "/api/v1/sessions/{id}/heartbeat", tag = "sessions", params(("id" = String, Path)), responses(
    (status = 200, description = "the session", body = Session),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "somebody else's, and not shared with the caller to control", body = ErrorAnswer),
    (status = 404, description = "no such session", body = ErrorAnswer),
    (status = 409, description = "it has ended", body = ErrorAnswer),
))]
pub(crate) async fn heartbeat(
    context: Data<Context>,
    caller: Identified,
    id: Segment<SessionId>,
) -> Result<Json<Session>, Problem> {
    Ok(Json(context.services.activity.heartbeat(caller.org()?, id.0).await?))
}
