//! `users/{id}/quota`.

use actix_web::{
    HttpResponse,
    web::{Data, Json},
};
use tidegate_model::{SetQuotaRequest, UserId, UserQuota};

use super::answer::Limits;
use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    valid::{Body, Segment},
};

/// What a member may use in the organization of the request, and uses.
#[utoipa::path(get, path = "/api/v1/users/{id}/quota", tag = "quotas", params(("id" = String, Path)), responses(
    (status = 200, description = "the quota, the platform's default where none is set", body = UserQuota),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "somebody else's, and not an org_admin", body = ErrorAnswer),
    (status = 404, description = "no such member", body = ErrorAnswer),
))]
pub(crate) async fn get(
    context: Data<Context>,
    caller: Identified,
    id: Segment<UserId>,
) -> Result<Json<UserQuota>, Problem> {
    Ok(Json(context.services.quotas.of_user(caller.org()?, id.0).await?))
}

/// Sets what a member may use. Below what they use it holds back what is new alone.
#[utoipa::path(put, path = "/api/v1/users/{id}/quota", tag = "quotas", request_body = Limits,
    params(("id" = String, Path)), responses(
    (status = 200, description = "the quota", body = UserQuota),
    (status = 400, description = "bad fields, each named", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an org_admin", body = ErrorAnswer),
    (status = 404, description = "no such member", body = ErrorAnswer),
))]
pub(crate) async fn set(
    context: Data<Context>,
    caller: Identified,
    id: Segment<UserId>,
    body: Body<SetQuotaRequest>,
) -> Result<Json<UserQuota>, Problem> {
    let (quotas, org) = (&context.services.quotas, caller.org()?);
    let request = body.after(async || Ok(quotas.of_user(org, id.0).await.map(drop)?)).await?;
    Ok(Json(quotas.set_user(org, id.0, request).await?))
}

/// Gives a member the platform's default again.
#[utoipa::path(delete, path = "/api/v1/users/{id}/quota", tag = "quotas", params(("id" = String, Path)), responses(
    (status = 204, description = "the default holds"),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an org_admin", body = ErrorAnswer),
    (status = 404, description = "no such member", body = ErrorAnswer),
))]
pub(crate) async fn reset(
    context: Data<Context>,
    caller: Identified,
    id: Segment<UserId>,
) -> Result<HttpResponse, Problem> {
    context.services.quotas.reset_user(caller.org()?, id.0).await?;
    Ok(HttpResponse::NoContent().finish())
}
