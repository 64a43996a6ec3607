//! `admin/quotas`, `admin/quotas/{username}` and `admin/organizations/{id}/quota`.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Json},
};
use serde::Serialize;
use tidegate_model::{
    FieldErrors, Fields, FromFields, ListedQuota, OrgId, OrganizationQuota, SetQuotaRequest, UserQuota,
};
use tidegate_service::Made;
use utoipa::ToSchema;

use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    idempotency::{again, idempotency},
    page::Page,
    quotas::answer::Limits,
    valid::{Body, Query, Segment},
};

/// A page of members' quotas.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Quotas)]
pub(crate) struct Found {
    /// By username and organization.
    quotas: Vec<ListedQuota>,
    /// How many there are on all pages.
    total: i64,
    /// `false` where there are more than `total`, else absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    total_is_exact: Option<bool>,
    /// Asks for the next page; `null` on the last.
    next_cursor: Option<String>,
}

/// In which organization the user is meant.
#[derive(Debug)]
pub(crate) struct Of {
    organization: Option<String>,
}

impl FromFields for Of {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        Some(Self { organization: fields.optional("organization") })
    }
}

/// The members of all organizations who have a quota of their own, with what they use.
#[utoipa::path(get, path = "/api/v1/admin/quotas", tag = "admin", params(
    ("limit" = Option<u32>, Query, description = "1 to 100, default 50"),
    ("cursor" = Option<String>, Query, description = "`nextCursor` of the page before"),
), responses(
    (status = 200, description = "a page", body = Found),
    (status = 400, description = "bad query", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an operator", body = ErrorAnswer),
))]
pub(crate) async fn list_quotas(
    context: Data<Context>,
    caller: Identified,
    page: Query<Page>,
) -> Result<Json<Found>, Problem> {
    let listed = context.services.platform_quotas.list(&caller.0, &page.0.0).await?;
    Ok(Json(Found {
        quotas: listed.items,
        total: listed.total,
        total_is_exact: (!listed.total_is_exact).then_some(false),
        next_cursor: listed.next_cursor,
    }))
}

/// Sets the quota of the user that the body names, in the organization that they own or joined first.
#[utoipa::path(post, path = "/api/v1/admin/quotas", tag = "admin", request_body = Limits, params(
    ("Idempotency-Key" = Option<String>, Header, description = "a repeat with the same key and body gets the first answer"),
    ("organization" = Option<String>, Query, description = "id or name of another organization of theirs"),
), responses(
    (status = 200, description = "the quota", body = UserQuota),
    (status = 400, description = "bad fields, each named", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an operator", body = ErrorAnswer),
    (status = 404, description = "no such user in the organization", body = ErrorAnswer),
))]
pub(crate) async fn set_named_quota(
    request: HttpRequest,
    context: Data<Context>,
    caller: Identified,
    of: Query<Of>,
    body: Body<SetQuotaRequest>,
) -> Result<HttpResponse, Problem> {
    let key = idempotency(&request, &caller, "POST admin/quotas", body.bytes())?;
    let wanted = body.valid()?;
    let Some(name) = wanted.username.clone() else {
        return Err(Problem::invalid(FieldErrors::one("username", "is required")));
    };
    let (quotas, org) = (&context.services.platform_quotas, of.0.organization);
    Ok(match quotas.set_user(&caller.0, &name, org.as_deref(), wanted, key.as_ref()).await? {
        Made::New(quota) => HttpResponse::Ok().json(quota),
        Made::Replay(replay) => again(replay),
    })
}

/// A user's quota in the organization that they own or joined first, or in another one of theirs.
#[utoipa::path(get, path = "/api/v1/admin/quotas/{username}", tag = "admin", params(
    ("username" = String, Path),
    ("organization" = Option<String>, Query, description = "id or name of another organization of theirs"),
), responses(
    (status = 200, description = "the quota", body = UserQuota),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an operator", body = ErrorAnswer),
    (status = 404, description = "no such user in the organization", body = ErrorAnswer),
))]
pub(crate) async fn get_quota(
    context: Data<Context>,
    caller: Identified,
    name: Segment<String>,
    of: Query<Of>,
) -> Result<Json<UserQuota>, Problem> {
    let (quotas, org) = (&context.services.platform_quotas, of.0.organization);
    Ok(Json(quotas.of_user(&caller.0, &name.0, org.as_deref()).await?))
}

/// Sets a user's quota, as far as it is given.
#[utoipa::path(put, path = "/api/v1/admin/quotas/{username}", tag = "admin", request_body = Limits, params(
    ("username" = String, Path),
    ("organization" = Option<String>, Query, description = "id or name of another organization of theirs"),
), responses(
    (status = 200, description = "the quota", body = UserQuota),
    (status = 400, description = "bad fields, each named", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an operator", body = ErrorAnswer),
    (status = 404, description = "no such user in the organization", body = ErrorAnswer),
))]
pub(crate) async fn set_quota(
    context: Data<Context>,
    caller: Identified,
    name: Segment<String>,
    of: Query<Of>,
    body: Body<SetQuotaRequest>,
) -> Result<HttpResponse, Problem> {
    let request = body.valid()?;
    if request.username.as_ref().is_some_and(|said| !said.eq_ignore_ascii_case(&name.0)) {
        return Err(Problem::invalid(FieldErrors::one("username", "must be the one of the path")));
    }
    let (quotas, org) = (&context.services.platform_quotas, of.0.organization);
    Ok(match quotas.set_user(&caller.0, &name.0, org.as_deref(), request, None).await? {
        Made::New(quota) => HttpResponse::Ok().json(quota),
        Made::Replay(replay) => again(replay),
    })
}

/// Gives a user the platform's default again.
#[utoipa::path(delete, path = "/api/v1/admin/quotas/{username}", tag = "admin", params(
    ("username" = String, Path),
    ("organization" = Option<String>, Query, description = "id or name of another organization of theirs"),
), responses(
    (status = 204, description = "the default holds"),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an operator", body = ErrorAnswer),
    (status = 404, description = "no such user in the organization", body = ErrorAnswer),
))]
pub(crate) async fn reset_quota(
    context: Data<Context>,
    caller: Identified,
    name: Segment<String>,
    of: Query<Of>,
) -> Result<HttpResponse, Problem> {
    let (quotas, org) = (&context.services.platform_quotas, of.0.organization);
    quotas.reset_user(&caller.0, &name.0, org.as_deref()).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// What an organization may use under its ceiling, and uses.
#[utoipa::path(get, path = "/api/v1/admin/organizations/{id}/quota", tag = "admin", params(("id" = String, Path)), responses(
    (status = 200, description = "the quota with its ceiling", body = OrganizationQuota),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an operator", body = ErrorAnswer),
    (status = 404, description = "no such organization", body = ErrorAnswer),
))]
pub(crate) async fn get_ceiling(
    context: Data<Context>,
    caller: Identified,
    id: Segment<OrgId>,
) -> Result<Json<OrganizationQuota>, Problem> {
    Ok(Json(context.services.platform_quotas.of_organization(&caller.0, id.0).await?))
}

/// Sets an organization's ceiling: its own quota only tightens it.
#[utoipa::path(put, path = "/api/v1/admin/organizations/{id}/quota", tag = "admin", request_body = Limits,
    params(("id" = String, Path)), responses(
    (status = 200, description = "the quota with its ceiling", body = OrganizationQuota),
    (status = 400, description = "bad fields, each named", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an operator", body = ErrorAnswer),
    (status = 404, description = "no such organization", body = ErrorAnswer),
))]
pub(crate) async fn set_ceiling(
    context: Data<Context>,
    caller: Identified,
    id: Segment<OrgId>,
    body: Body<SetQuotaRequest>,
) -> Result<Json<OrganizationQuota>, Problem> {
    Ok(Json(context.services.platform_quotas.set_ceiling(&caller.0, id.0, body.valid()?).await?))
}

/// Takes an organization's ceiling away; its own quota stays.
#[utoipa::path(delete, path = "/api/v1/admin/organizations/{id}/quota", tag = "admin", params(("id" = String, Path)), responses(
    (status = 204, description = "there is no ceiling"),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an operator", body = ErrorAnswer),
    (status = 404, description = "no such organization", body = ErrorAnswer),
))]
pub(crate) async fn reset_ceiling(
    context: Data<Context>,
    caller: Identified,
    id: Segment<OrgId>,
) -> Result<HttpResponse, Problem> {
    context.services.platform_quotas.reset_ceiling(&caller.0, id.0).await?;
    Ok(HttpResponse::NoContent().finish())
}
