//! `GET users`.

use actix_web::web::{Data, Json};
use serde::Serialize;
use tidegate_model::{Fields, FromFields, User};
use utoipa::ToSchema;

use crate::http::{Context, ErrorAnswer, Problem, gate::Identified, page::Page, valid::Query};

/// What a list of users is narrowed to, and which page of it.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) search: Option<String>,
    pub(crate) page: Page,
}

impl FromFields for Wanted {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let search: Option<String> = fields.optional("search");
        if let Some(search) = &search {
            fields.check_length("search", search, 0..=200);
        }
        Some(Self { search, page: Page::from_fields(fields)? })
    }
}

/// A page of users.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Users)]
pub(crate) struct Found {
    /// By name.
    users: Vec<User>,
    /// How many there are on all pages.
    total: i64,
    /// `false` where there are more than `total`, else absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    total_is_exact: Option<bool>,
    /// Asks for the next page; `null` on the last.
    next_cursor: Option<String>,
}

/// The members of the organization by name, with everything that is known of them.
#[utoipa::path(get, path = "/api/v1/users", tag = "users", params(
    ("search" = Option<String>, Query, description = "part of a username, a name or an e-mail address, in any case"),
    ("limit" = Option<u32>, Query, description = "1 to 100, default 50"),
    ("cursor" = Option<String>, Query, description = "`nextCursor` of the page before"),
), responses(
    (status = 200, description = "a page", body = Found),
    (status = 400, description = "bad query", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an org_admin", body = ErrorAnswer),
    (status = 404, description = "not a member of the organization", body = ErrorAnswer),
))]
pub(crate) async fn list(
    context: Data<Context>,
    caller: Identified,
    wanted: Query<Wanted>,
) -> Result<Json<Found>, Problem> {
    let Wanted { search, page } = wanted.0;
    let listed = context.services.users.list(caller.org()?, search, &page.0).await?;
    Ok(Json(Found {
        users: listed.items,
        total: listed.total,
        total_is_exact: (!listed.total_is_exact).then_some(false),
        next_cursor: listed.next_cursor,
    }))
}
