//! `POST sessions/{id}/terminate` and `DELETE sessions/{id}`: two names of one verb, the first of which may insist.

use actix_web::{HttpRequest, HttpResponse, web::Data};
use tidegate_model::SessionId;

use super::answer::{Accepted, changed};
use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    valid::{Force, Segment, read_query},
};

/// Ends a session, whatever it is doing. A failed one is cleaned up and not shown any more.
///
/// With `force`, a session whose agent is offline is terminated at once; its stop waits for the agent all the same.
#[utoipa::path(post, path = "/api/v1/sessions/{id}/terminate", tag = "sessions", params(
    ("id" = String, Path),
    ("force" = Option<bool>, Query, description = "do not wait for an agent that is offline"),
), responses(
    (status = 200, description = "it was so already", body = Accepted),
    (status = 202, description = "asked for", body = Accepted),
    (status = 400, description = "a bad query", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 404, description = "no such session", body = ErrorAnswer),
))]
pub(crate) async fn terminate(
    request: HttpRequest,
    context: Data<Context>,
    caller: Identified,
    id: Segment<SessionId>,
) -> Result<HttpResponse, Problem> {
    let (sessions, org) = (&context.services.sessions, caller.org()?);
    match read_query::<Force>(request.query_string()) {
        Ok(Force { force: true }) => Ok(changed(sessions.terminate_by_force(org, id.0).await?)),
        Ok(Force { force: false }) => Ok(changed(sessions.terminate(org, id.0).await?)),
        Err(complaints) => {
            // What is not there comes before what is wrong with the request for it.
            sessions.get(org, id.0).await?;
            Err(Problem::invalid(complaints))
        }
    }
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
    Ok(changed(context.services.sessions.terminate(caller.org()?, id.0).await?))
}
