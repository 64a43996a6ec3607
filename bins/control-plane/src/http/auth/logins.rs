//! `GET auth/logins` and `DELETE auth/logins/{id}`.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Json},
};
use serde::Serialize;
use tidegate_model::{LoginSession, LoginSessionId};
use utoipa::ToSchema;

use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    page::Page,
    source::source,
    valid::{Query, Segment},
};

/// A page of logins.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Logins)]
pub(crate) struct Found {
    /// The newest first.
    logins: Vec<LoginSession>,
    /// How many there are on all pages.
    total: i64,
    /// Asks for the next page; `null` on the last.
    next_cursor: Option<String>,
}

/// Where the caller is logged in, the newest login first.
#[utoipa::path(get, path = "/api/v1/auth/logins", tag = "auth", params(
    ("limit" = Option<u32>, Query, description = "1 to 100, default 50"),
    ("cursor" = Option<String>, Query, description = "`nextCursor` of the page before"),
), responses(
    (status = 200, description = "a page", body = Found),
    (status = 400, description = "bad query", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "the credential is an API key", body = ErrorAnswer),
))]
pub(crate) async fn logins(
    context: Data<Context>,
    caller: Identified,
    page: Query<Page>,
) -> Result<Json<Found>, Problem> {
    let listed = context.services.logins.list(&caller.0, &page.0.0).await?;
    Ok(Json(Found { logins: listed.items, total: listed.total, next_cursor: listed.next_cursor }))
}

/// Ends a login of the caller's, with its tokens and open streams, be it the one that asks.
#[utoipa::path(delete, path = "/api/v1/auth/logins/{id}", tag = "auth", params(("id" = String, Path)), responses(
    (status = 204, description = "ended"),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "the credential is an API key", body = ErrorAnswer),
    (status = 404, description = "no such login of yours, or it has ended", body = ErrorAnswer),
))]
pub(crate) async fn revoke_login(
    request: HttpRequest,
    context: Data<Context>,
    caller: Identified,
    id: Segment<LoginSessionId>,
) -> Result<HttpResponse, Problem> {
    context.services.logins.revoke(&caller.0, id.0, source(&request, &context)).await?;
    Ok(HttpResponse::NoContent().finish())
}
