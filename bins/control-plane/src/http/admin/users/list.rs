//! `GET admin/users` and `GET admin/users/{id}`.

use actix_web::web::{Data, Json};
use serde::Serialize;
use tidegate_model::{PlatformUser, UserId};
use utoipa::ToSchema;

use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    users::list::Wanted,
    valid::{Query, Segment},
};

/// A page of users.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = PlatformUsers)]
pub(crate) struct Found {
    /// By name.
    users: Vec<PlatformUser>,
    /// How many there are on all pages.
    total: i64,
    /// `false` where there are more than `total`, else absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    total_is_exact: Option<bool>,
    /// Asks for the next page; `null` on the last.
    next_cursor: Option<String>,
}

/// The users of the platform, by name.
#[utoipa::path(get, path = "/api/v1/admin/users", tag = "admin", params(
    ("search" = Option<String>, Query, description = "part of a username, a name or an e-mail address, in any case"),
    ("limit" = Option<u32>, Query, description = "1 to 100, default 50"),
    ("cursor" = Option<String>, Query, description = "`nextCursor` of the page before"),
), responses(
    (status = 200, description = "a page", body = Found),
    (status = 400, description = "bad query", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an operator", body = ErrorAnswer),
))]
pub(crate) async fn list_users(
    context: Data<Context>,
    caller: Identified,
    wanted: Query<Wanted>,
) -> Result<Json<Found>, Problem> {
    let users = &context.services.all_users;
    let Wanted { search, page } = wanted.0;
    let listed = users.list(&users.operator(&caller.0)?, search, &page.0).await?;
    Ok(Json(Found {
        users: listed.items,
        total: listed.total,
        total_is_exact: (!listed.total_is_exact).then_some(false),
        next_cursor: listed.next_cursor,
    }))
}

/// One user.
#[utoipa::path(get, path = "/api/v1/admin/users/{id}", tag = "admin", params(("id" = String, Path)), responses(
    (status = 200, description = "the user", body = PlatformUser),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an operator", body = ErrorAnswer),
    (status = 404, description = "no such user", body = ErrorAnswer),
))]
pub(crate) async fn get_user(
    context: Data<Context>,
    caller: Identified,
    id: Segment<UserId>,
) -> Result<Json<PlatformUser>, Problem> {
    let users = &context.services.all_users;
    Ok(Json(users.get(&users.operator(&caller.0)?, id.0).await?))
}
