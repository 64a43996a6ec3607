//! `GET admin/organizations` and `GET admin/organizations/{id}`.

use actix_web::web::{Data, Json};
use serde::Serialize;
use tidegate_model::{OrgId, Organization};
use utoipa::ToSchema;

use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    page::Page,
    valid::{Query, Segment},
};

/// A page of organizations.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Organizations)]
pub(crate) struct Found {
    /// By name.
    organizations: Vec<Organization>,
    /// How many there are on all pages.
    total: i64,
    /// `false` where there are more than `total`, else absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    total_is_exact: Option<bool>,
    /// Asks for the next page; `null` on the last.
    next_cursor: Option<String>,
}

/// The organizations of the platform, by name.
#[utoipa::path(get, path = "/api/v1/admin/organizations", tag = "admin", params(
    ("limit" = Option<u32>, Query, description = "1 to 100, default 50"),
    ("cursor" = Option<String>, Query, description = "`nextCursor` of the page before"),
), responses(
    (status = 200, description = "a page", body = Found),
    (status = 400, description = "bad query", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an operator", body = ErrorAnswer),
))]
pub(crate) async fn list_organizations(
    context: Data<Context>,
    caller: Identified,
    page: Query<Page>,
) -> Result<Json<Found>, Problem> {
    let listed = context.services.all_organizations.list(&caller.0, &page.0.0).await?;
    Ok(Json(Found {
        organizations: listed.items,
        total: listed.total,
        total_is_exact: (!listed.total_is_exact).then_some(false),
        next_cursor: listed.next_cursor,
    }))
}

/// One organization.
#[utoipa::path(get, path = "/api/v1/admin/organizations/{id}", tag = "admin", params(("id" = String, Path)), responses(
    (status = 200, description = "the organization", body = Organization),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an operator", body = ErrorAnswer),
    (status = 404, description = "no such organization", body = ErrorAnswer),
))]
pub(crate) async fn get_organization(
    context: Data<Context>,
    caller: Identified,
    id: Segment<OrgId>,
) -> Result<Json<Organization>, Problem> {
    Ok(Json(context.services.all_organizations.get(&caller.0, id.0).await?))
}
