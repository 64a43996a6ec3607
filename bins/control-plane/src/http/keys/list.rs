//! `GET organizations/{id}/keys`.

use actix_web::web::{Data, Json};
use serde::Serialize;
use tidegate_model::{ApiKey, Fields, FromFields};
use utoipa::ToSchema;

use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    valid::{Query, parsed},
};

/// Which page.
#[derive(Debug)]
pub(crate) struct Wanted {
    limit: u32,
    cursor: Option<String>,
}

impl FromFields for Wanted {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let complaint = "must be a number from 1 to 100";
        let limit = parsed(fields, "limit", complaint).unwrap_or(50);
        if !(1..=100).contains(&limit) {
            fields.errors().add("limit", complaint);
        }
        Some(Self { limit, cursor: fields.optional("cursor") })
    }
}

/// A page of keys.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ApiKeys)]
pub(crate) struct Found {
    /// Those that were not revoked first, each part by age.
    keys: Vec<ApiKey>,
    /// How many there are on all pages.
    total: i64,
    /// `false` where there are more than `total`, else absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    total_is_exact: Option<bool>,
    /// Asks for the next page; `null` on the last.
    next_cursor: Option<String>,
}

/// The organization's API keys, revoked ones too, without their secrets.
#[utoipa::path(get, path = "/api/v1/organizations/{id}/keys", tag = "keys", params(
    ("id" = String, Path, description = "id or name of the organization"),
    ("limit" = Option<u32>, Query, description = "1 to 100, default 50"),
    ("cursor" = Option<String>, Query, description = "`nextCursor` of the page before"),
), responses(
    (status = 200, description = "a page", body = Found),
    (status = 400, description = "bad query", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an admin of the organization", body = ErrorAnswer),
    (status = 404, description = "not a member of the organization", body = ErrorAnswer),
))]
pub(crate) async fn list(
    context: Data<Context>,
    caller: Identified,
    wanted: Query<Wanted>,
) -> Result<Json<Found>, Problem> {
    let Wanted { limit, cursor } = wanted.0;
    let page = context.services.keys.list_api_keys_for_org(caller.org()?, limit, cursor.as_deref()).await?;
    Ok(Json(Found {
        keys: page.keys,
        total: page.total,
        total_is_exact: (!page.total_is_exact).then_some(false),
        next_cursor: page.next_cursor,
    }))
}
