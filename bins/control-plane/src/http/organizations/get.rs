//! `GET organizations/{id}`.

use actix_web::web::{Data, Json};
use tidegate_model::Organization;

use crate::http::{Context, ErrorAnswer, Problem, gate::Identified};

/// One organization of the caller's.
#[utoipa::path(get, path = "/api/v1/organizations/{id}", tag = "organizations",
    params(("id" = String, Path, description = "id or name")), responses(
    (status = 200, description = "the organization", body = Organization),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 404, description = "no such organization, or not a member of it", body = ErrorAnswer),
))]
pub(crate) async fn get(context: Data<Context>, caller: Identified) -> Result<Json<Organization>, Problem> {
    Ok(Json(context.services.organizations.get(caller.org()?).await?))
}
