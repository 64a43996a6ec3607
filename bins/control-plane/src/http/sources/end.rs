//! `GET sources/{handle}/pipes/{name}/end`.

use actix_web::{HttpResponse, http::header::CACHE_CONTROL, web::Data};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    valid::{Last, Segment},
};

/// Where a pipe ends.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = PipeEnd)]
pub(crate) struct PipeEnd {
    /// The sequence of the newest message ever; 0 where there never was one.
    last: u64,
    /// Which stream it is: another one begins with its first message, and its sequences mean other messages.
    incarnation: Option<DateTime<Utc>>,
}

/// Where a pipe ends: `after` that sequence are the messages that are sent from now on, whatever any clock says. Nothing
/// moves.
#[utoipa::path(get, path = "/api/v1/sources/{handle}/pipes/{name}/end", tag = "sources", params(
    ("handle" = String, Path),
    ("name" = String, Path),
), responses(
    (status = 200, description = "its end", body = PipeEnd),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not allowed to read it", body = ErrorAnswer),
    (status = 404, description = "no such source or pipe", body = ErrorAnswer),
    (status = 503, description = "the broker does not answer, or the pipe is being made: ask again", body = ErrorAnswer),
    (status = 507, description = "no room is left to make the pipe; `fields` has the numbers", body = ErrorAnswer),
))]
pub(crate) async fn end(
    context: Data<Context>,
    caller: Identified,
    handle: Segment<String>,
    name: Last<String>,
) -> Result<HttpResponse, Problem> {
    let end = context.services.messages.end(caller.org()?, &handle.0, &name.0).await?;
    let end = PipeEnd { last: end.last, incarnation: end.incarnation };
    Ok(HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).json(end))
}
