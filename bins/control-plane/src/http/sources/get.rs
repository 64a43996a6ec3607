//! `GET sources/{handle}`.

use actix_web::web::{Data, Json};
use tidegate_model::Source;

use crate::http::{Context, ErrorAnswer, Problem, gate::Identified, valid::Segment};

/// One source. What was last sent to it is shown to those who may read it.
#[utoipa::path(get, path = "/api/v1/sources/{handle}", tag = "sources", params(("handle" = String, Path)), responses(
    (status = 200, description = "the source", body = Source),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 404, description = "no such source", body = ErrorAnswer),
))]
pub(crate) async fn get(
    context: Data<Context>,
    caller: Identified,
    handle: Segment<String>,
) -> Result<Json<Source>, Problem> {
    Ok(Json(context.services.sources.get(caller.org()?, &handle.0).await?))
}
