//! `groups/{id}/quota`.

use actix_web::{
    HttpResponse,
    web::{Data, Json},
};
use tidegate_model::{GroupId, GroupQuota, SetQuotaRequest};

use super::answer::Limits;
use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    valid::{Body, Segment},
};

/// What the members of a group and of the groups below it may use together, and use.
#[utoipa::path(get, path = "/api/v1/groups/{id}/quota", tag = "quotas", params(("id" = String, Path)), responses(
    (status = 200, description = "the quota, unlimited where none is set", body = GroupQuota),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 404, description = "no such group", body = ErrorAnswer),
))]
pub(crate) async fn get(
    context: Data<Context>,
    caller: Identified,
    id: Segment<GroupId>,
) -> Result<Json<GroupQuota>, Problem> {
    Ok(Json(context.services.quotas.of_group(caller.org()?, id.0).await?))
}

/// Sets what a group may use together. Its own admins may tighten it and never loosen it.
#[utoipa::path(put, path = "/api/v1/groups/{id}/quota", tag = "quotas", request_body = Limits,
    params(("id" = String, Path)), responses(
    (status = 200, description = "the quota", body = GroupQuota),
    (status = 400, description = "bad fields, each named", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an admin of the group, or one who would loosen it, and not an org_admin", body = ErrorAnswer),
    (status = 404, description = "no such group", body = ErrorAnswer),
))]
pub(crate) async fn set(
    context: Data<Context>,
    caller: Identified,
    id: Segment<GroupId>,
    body: Body<SetQuotaRequest>,
) -> Result<Json<GroupQuota>, Problem> {
    let (quotas, org) = (&context.services.quotas, caller.org()?);
    let request = body.after(async || Ok(quotas.of_group(org, id.0).await.map(drop)?)).await?;
    Ok(Json(quotas.set_group(org, id.0, request).await?))
}

/// Takes a group's quota away.
#[utoipa::path(delete, path = "/api/v1/groups/{id}/quota", tag = "quotas", params(("id" = String, Path)), responses(
    (status = 204, description = "there is none"),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an admin of the group, or one who would loosen it, and not an org_admin", body = ErrorAnswer),
    (status = 404, description = "no such group", body = ErrorAnswer),
))]
pub(crate) async fn reset(
    context: Data<Context>,
    caller: Identified,
    id: Segment<GroupId>,
) -> Result<HttpResponse, Problem> {
    context.services.quotas.reset_group(caller.org()?, id.0).await?;
    Ok(HttpResponse::NoContent().finish())
}
