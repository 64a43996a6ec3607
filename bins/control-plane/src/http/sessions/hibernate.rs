//! `PUT sessions/{id}/hibernate`.

use actix_web::{HttpResponse, web::Data};
use tidegate_model::SessionId;

use super::answer::{Accepted, changed};
use crate::http::{Context, ErrorAnswer, Problem, gate::Identified, valid::Segment};

/// Stops the processes and keeps the home.
#[utoipa::path(put, path = "/api/v1/sessions/{id}/hibernate", tag = "sessions", params(("id" = String, Path)), responses(
    (status = 200, description = "it was so already", body = Accepted),
    (status = 202, description = "asked for", body = Accepted),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 404, description = "no such session", body = ErrorAnswer),
    (status = 409, description = "its state does not allow it", body = ErrorAnswer),
))]
pub(crate) async fn hibernate(
    context: Data<Context>,
    caller: Identified,
    id: Segment<SessionId>,
) -> Result<HttpResponse, Problem> {
    Ok(changed(context.services.sessions.hibernate(caller.org()?, id.0).await?))
}
