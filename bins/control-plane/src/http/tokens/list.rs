//! `GET auth/tokens`.

use actix_web::web::{Data, Json};
use serde::Serialize;
use tidegate_model::BearerToken;
use utoipa::ToSchema;

use crate::http::{Context, ErrorAnswer, Problem, gate::Identified, page::Page, valid::Query};

/// A page of tokens.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = BearerTokens)]
pub(crate) struct Found {
    /// The newest first, revoked ones too.
    tokens: Vec<BearerToken>,
    /// How many there are on all pages.
    total: i64,
    /// `false` where there are more than `total`, else absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    total_is_exact: Option<bool>,
    /// What asks for the next page; `null` on the last one.
    next_cursor: Option<String>,
}

/// The bearer tokens of the caller's devices.
#[utoipa::path(get, path = "/api/v1/auth/tokens", tag = "auth", params(
    ("limit" = Option<u32>, Query, description = "tokens on a page, 1 to 100, default 50"),
    ("cursor" = Option<String>, Query, description = "`nextCursor` of the page before"),
), responses(
    (status = 200, description = "the tokens", body = Found),
    (status = 400, description = "bad query", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "the credential is an API key", body = ErrorAnswer),
))]
pub(crate) async fn list(
    context: Data<Context>,
    caller: Identified,
    page: Query<Page>,
) -> Result<Json<Found>, Problem> {
    let listed = context.services.bearer_tokens.list(&caller.0, &page.0.0).await?;
    let total_is_exact = (!listed.total_is_exact).then_some(false);
    Ok(Json(Found {
        tokens: listed.items,
        total: listed.total,
        total_is_exact,
        next_cursor: listed.next_cursor,
    }))
}
