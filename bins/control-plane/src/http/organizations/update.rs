//! `PATCH organizations/{id}`.

use actix_web::web::{Data, Json};
use tidegate_model::{Organization, UpdateOrganizationRequest};

use super::answer::Change;
use crate::http::{Context, ErrorAnswer, Problem, gate::Identified, valid::Body};

/// Changes an organization. Its status is changed by the platform's admins alone.
#[utoipa::path(patch, path = "/api/v1/organizations/{id}", tag = "organizations", request_body = Change,
    params(("id" = String, Path, description = "id or name")), responses(
    (status = 200, description = "the organization", body = Organization),
    (status = 400, description = "bad fields, each named", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an org_admin", body = ErrorAnswer),
    (status = 404, description = "no such organization, or not a member of it", body = ErrorAnswer),
))]
pub(crate) async fn update(
    context: Data<Context>,
    caller: Identified,
    body: Body<UpdateOrganizationRequest>,
) -> Result<Json<Organization>, Problem> {
    let (services, change) = (&context.services, body.valid()?);
    let scope = caller.org()?;
    let changed = match change.status {
        Some(_) => services.all_organizations.update(&caller.0, scope.org_id(), change).await?,
        None => services.organizations.update(scope, change).await?,
    };
    Ok(Json(changed))
}
