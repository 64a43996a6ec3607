//! `GET homes`.

use actix_web::web::{Data, Json};
use serde::Serialize;
use tidegate_model::Home;
use utoipa::ToSchema;

use crate::http::{Context, ErrorAnswer, Problem, gate::Identified, page::Page, valid::Query};

/// A page of homes.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Homes)]
pub(crate) struct Found {
    /// The oldest first.
    homes: Vec<Home>,
    /// How many there are on all pages.
    total: i64,
    /// `false` where there are more than `total`, else absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    total_is_exact: Option<bool>,
    /// Asks for the next page; `null` on the last.
    next_cursor: Option<String>,
}

/// One's own persistent homes, or everybody's in the organization for those who manage sessions: those of members who are
/// gone, too. They count against the quota of storage until they are deleted.
#[utoipa::path(get, path = "/api/v1/homes", tag = "sessions", params(
    ("limit" = Option<u32>, Query, description = "1 to 100, default 50"),
    ("cursor" = Option<String>, Query, description = "`nextCursor` of the page before"),
), responses(
    (status = 200, description = "a page", body = Found),
    (status = 400, description = "bad query", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 404, description = "no organization of the caller's", body = ErrorAnswer),
))]
pub(crate) async fn list(
    context: Data<Context>,
    caller: Identified,
    page: Query<Page>,
) -> Result<Json<Found>, Problem> {
    let listed = context.services.homes.list(caller.org()?, &page.0.0).await?;
    Ok(Json(Found {
        homes: listed.items,
        total: listed.total,
        total_is_exact: (!listed.total_is_exact).then_some(false),
        next_cursor: listed.next_cursor,
    }))
}
