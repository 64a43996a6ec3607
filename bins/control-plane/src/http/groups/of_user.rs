//! `GET users/{id}/groups`.

use actix_web::web::{Data, Json};
use serde::Serialize;
use tidegate_model::{GroupMembership, UserId};
use utoipa::ToSchema;

use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    page::Page,
    valid::{Query, Segment},
};

/// A page of the groups that a user is in.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = UserGroups)]
pub(crate) struct Found {
    /// By name of the group.
    groups: Vec<GroupMembership>,
    /// How many there are on all pages.
    total: i64,
    /// Asks for the next page; `null` on the last.
    next_cursor: Option<String>,
}

/// The groups that a member of the organization is in, with the role in each.
#[utoipa::path(get, path = "/api/v1/users/{id}/groups", tag = "groups", params(
    ("id" = String, Path),
    ("limit" = Option<u32>, Query, description = "1 to 100, default 50"),
    ("cursor" = Option<String>, Query, description = "`nextCursor` of the page before"),
), responses(
    (status = 200, description = "a page", body = Found),
    (status = 400, description = "bad query", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "somebody else's, and not an org_admin", body = ErrorAnswer),
    (status = 404, description = "no such member", body = ErrorAnswer),
))]
pub(crate) async fn of_user(
    context: Data<Context>,
    caller: Identified,
    id: Segment<UserId>,
    page: Query<Page>,
) -> Result<Json<Found>, Problem> {
    let listed = context.services.groups.of_user(caller.org()?, id.0, &page.0.0).await?;
    Ok(Json(Found { groups: listed.items, total: listed.total, next_cursor: listed.next_cursor }))
}
