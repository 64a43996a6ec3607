//! `GET organizations/{id}/invites`.

use actix_web::web::{Data, Json};
use serde::Serialize;
use tidegate_model::Invite;
use utoipa::ToSchema;

use crate::http::{Context, ErrorAnswer, Problem, gate::Identified, page::Page, valid::Query};

/// A page of invites.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Invites)]
pub(crate) struct Found {
    /// The newest first.
    pub(super) invites: Vec<Invite>,
    /// How many there are on all pages.
    pub(super) total: i64,
    /// Asks for the next page; `null` on the last.
    pub(super) next_cursor: Option<String>,
}

/// The organization's invites, the newest first, answered ones too.
#[utoipa::path(get, path = "/api/v1/organizations/{id}/invites", tag = "invites", params(
    ("id" = String, Path, description = "id or name"),
    ("limit" = Option<u32>, Query, description = "1 to 100, default 50"),
    ("cursor" = Option<String>, Query, description = "`nextCursor` of the page before"),
), responses(
    (status = 200, description = "a page", body = Found),
    (status = 400, description = "bad query", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an org_admin", body = ErrorAnswer),
    (status = 404, description = "no such organization, or not a member of it", body = ErrorAnswer),
))]
pub(crate) async fn list(
    context: Data<Context>,
    caller: Identified,
    page: Query<Page>,
) -> Result<Json<Found>, Problem> {
    let listed = context.services.invites.list(caller.org()?, &page.0.0).await?;
    Ok(Json(Found { invites: listed.items, total: listed.total, next_cursor: listed.next_cursor }))
}
