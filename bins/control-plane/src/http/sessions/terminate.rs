//! `POST sessions/{id}/terminate` and `DELETE sessions/{id}`: two names of one verb.

use actix_web::{HttpResponse, web::Data};
use tidegate_model::SessionId;

use super::answer::{Accepted, changed};
use crate::http::{Context, ErrorAnswer, Problem, gate::Identified, valid::Segment};

/// Ends a session, whatever it is doing. A failed one is cleaned up and not shown any more.
#[utoipa::path(post, path = "/api/v1/sessions/{id}/terminate", tag = "sessions", params(("id" = String, Path)), responses(
    (status = 200, description = "it was so already", body = Accepted),
    (status = 202, description = "asked for", body = Accepted),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 404, description = "no such session", body = ErrorAnswer),
))]
pub(crate) async fn terminate(
    context: Data<Context>,
    caller: Identified,
    id: Segment<SessionId>,
) -> Result<HttpResponse, Problem> {
    Ok(changed(context.services.sessions.terminate(caller.org()?, id.0).await?))
}

/// Ends a session, whatever it is doing. A failed one is cleaned up and not shown any more.
#[utoipa::path(delete, path = "/api/v1/sessions/{id}", tag = "sessions", params(("id" = String, Path)), responses(
    (status = 200, description = "it was so already", body = Accepted),
    (status = 202, description = "asked for", body = Accepted),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 404, description = "no such session", body = ErrorAnswer),
))]
pub(crate) async fn terminate_it(
    context: Data<Context>,
    caller: Identified,
    id: Segment<SessionId>,
) -> Result<HttpResponse, Problem> {
    terminate(context, caller, id).await
}
