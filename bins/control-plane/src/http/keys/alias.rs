//! `orgs/{id}/keys`, which is `organizations/{id}/keys` under the name of the pipes service.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Json},
};
use tidegate_model::NewApiKey;

use super::{
    answer::Made,
    create::{New, create},
    list::{Found, Wanted, list},
};
use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    valid::{Body, Query},
};

/// Alias of `GET /api/v1/organizations/{id}/keys`.
#[utoipa::path(get, path = "/api/v1/orgs/{id}/keys", tag = "keys", params(
    ("id" = String, Path, description = "id or name of the organization"),
    ("limit" = Option<u32>, Query, description = "1 to 100, default 50"),
    ("cursor" = Option<String>, Query, description = "`nextCursor` of the page before"),
), responses(
    (status = 200, description = "a page", body = Found),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an admin of the organization", body = ErrorAnswer),
    (status = 404, description = "not a member of the organization", body = ErrorAnswer),
))]
pub(crate) async fn list_alias(
    context: Data<Context>,
    caller: Identified,
    wanted: Query<Wanted>,
) -> Result<Json<Found>, Problem> {
    list(context, caller, wanted).await
}

/// Alias of `POST /api/v1/organizations/{id}/keys`.
#[utoipa::path(post, path = "/api/v1/orgs/{id}/keys", tag = "keys", request_body = New,
    params(("id" = String, Path, description = "id or name of the organization")), responses(
    (status = 201, description = "made", body = Made),
    (status = 400, description = "bad fields, each named", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an admin of the organization, or the key would be wider than what makes it", body = ErrorAnswer),
    (status = 404, description = "not a member of the organization", body = ErrorAnswer),
))]
pub(crate) async fn create_alias(
    request: HttpRequest,
    context: Data<Context>,
    caller: Identified,
    body: Body<NewApiKey>,
) -> Result<HttpResponse, Problem> {
    create(request, context, caller, body).await
}
