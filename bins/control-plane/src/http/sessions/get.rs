//! `GET sessions/{id}`.

use actix_web::web::{Data, Json};
use tidegate_model::{Session, SessionId};

use crate::http::{Context, ErrorAnswer, Problem, gate::Identified, valid::Segment};

/// One session: the caller's own, or any of the organization for those who manage sessions.
#[utoipa::path(get, path = "/api/v1/sessions/{id}", tag = "sessions", params(("id" = String, Path)), responses(
    (status = 200, description = "the session", body = Session),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 404, description = "no such session", body = ErrorAnswer),
))]
pub(crate) async fn get(
    context: Data<Context>,
    caller: Identified,
    id: Segment<SessionId>,
) -> Result<Json<Session>, Problem> {
    Ok(Json(context.services.sessions.get(caller.org()?, id.0).await?))
}
