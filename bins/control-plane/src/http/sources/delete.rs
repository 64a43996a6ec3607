//! `DELETE sources/{handle}`.

use actix_web::{HttpResponse, web::Data};

use crate::http::{Context, ErrorAnswer, Problem, gate::Identified, valid::Segment};

/// Ends a source with its pipes, their messages and who may use it. One that is made under the same handle later starts
/// empty. For whoever made it, and for those who manage sources.
#[utoipa::path(delete, path = "/api/v1/sources/{handle}", tag = "sources", params(("handle" = String, Path)), responses(
    (status = 204, description = "ended"),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "somebody else's", body = ErrorAnswer),
    (status = 404, description = "no such source", body = ErrorAnswer),
    (status = 503, description = "ended, and the broker has not followed yet (`E_NOT_READY`) or does not answer: it does later", body = ErrorAnswer),
))]
pub(crate) async fn delete(
    context: Data<Context>,
    caller: Identified,
    handle: Segment<String>,
) -> Result<HttpResponse, Problem> {
    let (services, org) = (&context.services, caller.org()?);
    let operations = services.sources.delete(org, &handle.0).await?;
    services.messages.settled(org, &operations).await?;
    Ok(HttpResponse::NoContent().finish())
}
