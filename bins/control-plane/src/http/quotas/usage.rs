//! `GET organizations/{id}/usage`.

use actix_web::web::{Data, Json};
use tidegate_model::OrganizationUsage;

use crate::http::{Context, ErrorAnswer, Problem, gate::Identified};

/// What there is of an organization, what it uses and how much it may.
#[utoipa::path(get, path = "/api/v1/organizations/{id}/usage", tag = "quotas",
    params(("id" = String, Path, description = "id or name")), responses(
    (status = 200, description = "counts, resources and their bounds", body = OrganizationUsage),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 404, description = "no such organization, or not a member of it", body = ErrorAnswer),
))]
pub(crate) async fn usage(
    context: Data<Context>,
    caller: Identified,
) -> Result<Json<OrganizationUsage>, Problem> {
    Ok(Json(context.services.quotas.usage(caller.org()?).await?))
}
