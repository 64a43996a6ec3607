//! `organizations/{id}/quota`.

use actix_web::{
    HttpResponse,
    web::{Data, Json},
};
use tidegate_model::{OrganizationQuota, SetQuotaRequest};

use super::answer::Limits;
use crate::http::{Context, ErrorAnswer, Problem, gate::Identified, valid::Body};

/// What an organization may use, and uses: the tighter of its own quota and the platform's ceiling.
#[utoipa::path(get, path = "/api/v1/organizations/{id}/quota", tag = "quotas",
    params(("id" = String, Path, description = "id or name")), responses(
    (status = 200, description = "the quota", body = OrganizationQuota),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 404, description = "no such organization, or not a member of it", body = ErrorAnswer),
))]
pub(crate) async fn get(
    context: Data<Context>,
    caller: Identified,
) -> Result<Json<OrganizationQuota>, Problem> {
    Ok(Json(context.services.quotas.of_organization(caller.org()?).await?))
}

/// Sets the organization's own quota, within the platform's ceiling.
#[utoipa::path(put, path = "/api/v1/organizations/{id}/quota", tag = "quotas", request_body = Limits,
    params(("id" = String, Path, description = "id or name")), responses(
    (status = 200, description = "the quota", body = OrganizationQuota),
    (status = 400, description = "bad fields, or more than the ceiling, each named", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an org_admin", body = ErrorAnswer),
    (status = 404, description = "no such organization, or not a member of it", body = ErrorAnswer),
))]
pub(crate) async fn set(
    context: Data<Context>,
    caller: Identified,
    body: Body<SetQuotaRequest>,
) -> Result<Json<OrganizationQuota>, Problem> {
    Ok(Json(context.services.quotas.set_organization(caller.org()?, body.valid()?).await?))
}

/// Takes the organization's own quota away; the platform's ceiling stays.
#[utoipa::path(delete, path = "/api/v1/organizations/{id}/quota", tag = "quotas",
    params(("id" = String, Path, description = "id or name")), responses(
    (status = 204, description = "the ceiling alone holds"),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an org_admin", body = ErrorAnswer),
    (status = 404, description = "no such organization, or not a member of it", body = ErrorAnswer),
))]
pub(crate) async fn reset(context: Data<Context>, caller: Identified) -> Result<HttpResponse, Problem> {
    context.services.quotas.reset_organization(caller.org()?).await?;
    Ok(HttpResponse::NoContent().finish())
}
