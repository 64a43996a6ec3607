//! `PATCH` and `DELETE admin/organizations/{id}`, and `POST …/transfer`.

use actix_web::{
    HttpResponse,
    web::{Data, Json},
};
use tidegate_model::{OrgId, Organization, UpdateOrganizationRequest};

use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    organizations::{answer::Change, transfer::Transfer},
    valid::{Body, Segment},
};

/// Changes an organization. Suspended, nobody gets in and no session starts; deleted is final.
#[utoipa::path(patch, path = "/api/v1/admin/organizations/{id}", tag = "admin", request_body = Change,
    params(("id" = String, Path)), responses(
    (status = 200, description = "the organization", body = Organization),
    (status = 400, description = "bad fields, each named", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an admin of the platform", body = ErrorAnswer),
    (status = 404, description = "no such organization", body = ErrorAnswer),
))]
pub(crate) async fn update_organization(
    context: Data<Context>,
    caller: Identified,
    id: Segment<OrgId>,
    body: Body<UpdateOrganizationRequest>,
) -> Result<Json<Organization>, Problem> {
    Ok(Json(context.services.all_organizations.update(&caller.0, id.0, body.valid()?).await?))
}

/// Ends an organization, as its owner could.
#[utoipa::path(delete, path = "/api/v1/admin/organizations/{id}", tag = "admin", params(("id" = String, Path)), responses(
    (status = 204, description = "ended"),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an admin of the platform", body = ErrorAnswer),
    (status = 404, description = "no such organization", body = ErrorAnswer),
))]
pub(crate) async fn delete_organization(
    context: Data<Context>,
    caller: Identified,
    id: Segment<OrgId>,
) -> Result<HttpResponse, Problem> {
    context.services.all_organizations.delete(&caller.0, id.0).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Gives an organization, which may be nobody's yet, to one of its members.
#[utoipa::path(post, path = "/api/v1/admin/organizations/{id}/transfer", tag = "admin", request_body = Transfer,
    params(("id" = String, Path)), responses(
    (status = 200, description = "the organization", body = Organization),
    (status = 400, description = "a field is missing", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an admin of the platform", body = ErrorAnswer),
    (status = 404, description = "no such organization or member", body = ErrorAnswer),
    (status = 409, description = "the member is deactivated", body = ErrorAnswer),
))]
pub(crate) async fn transfer_organization(
    context: Data<Context>,
    caller: Identified,
    id: Segment<OrgId>,
    body: Body<Transfer>,
) -> Result<Json<Organization>, Problem> {
    let to = body.valid()?.user_id;
    Ok(Json(context.services.all_organizations.transfer(&caller.0, id.0, to).await?))
}
