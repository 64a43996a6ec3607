//! `GET applications/{id}`.

use actix_web::web::{Data, Json};
use tidegate_model::{ApplicationId, InstalledApplication};

use crate::http::{Context, ErrorAnswer, Problem, gate::Identified, valid::Segment};

/// One application; for those who may change it with its configuration, its manifest and the groups that may use it.
#[utoipa::path(get, path = "/api/v1/applications/{id}", tag = "applications", params(("id" = String, Path)), responses(
    (status = 200, description = "the application", body = InstalledApplication),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 404, description = "no such application, or not for the caller", body = ErrorAnswer),
))]
pub(crate) async fn get(
    context: Data<Context>,
    caller: Identified,
    id: Segment<ApplicationId>,
) -> Result<Json<InstalledApplication>, Problem> {
    Ok(Json(context.services.applications.get(caller.org()?, id.0).await?))
}
