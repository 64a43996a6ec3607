//! `GET organizations`.

use actix_web::web::{Data, Json};
use serde::Serialize;
use utoipa::ToSchema;

use super::answer::Mine;
use crate::http::{Context, ErrorAnswer, Problem, gate::Identified, page::Page, valid::Query};

/// A page of the caller's organizations.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = MyOrganizations)]
pub(crate) struct Found {
    /// By name.
    organizations: Vec<Mine>,
    /// How many there are on all pages.
    total: i64,
    /// Asks for the next page; `null` on the last.
    next_cursor: Option<String>,
}

/// The caller's organizations by name, suspended ones too, with the role in each.
#[utoipa::path(get, path = "/api/v1/organizations", tag = "organizations", params(
    ("limit" = Option<u32>, Query, description = "1 to 100, default 50"),
    ("cursor" = Option<String>, Query, description = "`nextCursor` of the page before"),
), responses(
    (status = 200, description = "a page", body = Found),
    (status = 400, description = "bad query", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
))]
pub(crate) async fn list(
    context: Data<Context>,
    caller: Identified,
    page: Query<Page>,
) -> Result<Json<Found>, Problem> {
    let listed = context.services.organizations.list(&caller.0, &page.0.0).await?;
    let mine = |(organization, org_role)| Mine { organization, org_role };
    let organizations = listed.items.into_iter().map(mine).collect();
    Ok(Json(Found { organizations, total: listed.total, next_cursor: listed.next_cursor }))
}
