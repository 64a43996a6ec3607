//! `GET applications` and `GET applications/user`.

use actix_web::web::{Data, Json};
use serde::Serialize;
use tidegate_model::InstalledApplication;
use tidegate_service::{ApplicationsPage, Listed};
use utoipa::ToSchema;

use crate::http::{Context, ErrorAnswer, Problem, gate::Identified, page::Page, valid::Query};

/// A page of applications.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Applications)]
pub(crate) struct Found {
    /// By name.
    applications: Vec<InstalledApplication>,
    /// How many there are on all pages.
    total: i64,
    /// `false` where there are more than `total`, else absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    total_is_exact: Option<bool>,
    /// Asks for the next page; `null` on the last.
    next_cursor: Option<String>,
}

impl From<Listed<InstalledApplication>> for Found {
    fn from(page: Listed<InstalledApplication>) -> Self {
        Self {
            applications: page.items,
            total: page.total,
            total_is_exact: (!page.total_is_exact).then_some(false),
            next_cursor: page.next_cursor,
        }
    }
}

/// The applications of the organization that the caller may see, by name: for those who manage them all of it, for others
/// what their groups let them see, and what they may change in whatever state it is.
#[utoipa::path(get, path = "/api/v1/applications", tag = "applications", params(
    ("limit" = Option<u32>, Query, description = "1 to 100, default 50"),
    ("cursor" = Option<String>, Query, description = "`nextCursor` of the page before"),
), responses(
    (status = 200, description = "a page", body = Found),
    (status = 400, description = "bad query", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 404, description = "not a member of the organization", body = ErrorAnswer),
))]
pub(crate) async fn list(
    context: Data<Context>,
    caller: Identified,
    page: Query<Page>,
) -> Result<Json<Found>, Problem> {
    let applications = &context.services.applications;
    let listed = applications.list(caller.org()?, ApplicationsPage::Organization, &page.0.0).await?;
    Ok(Json(listed.into()))
}

/// Exactly the applications that the caller may see as somebody who uses them: installed, enabled, and let in by a group or
/// by their role. `access` says what they may do with each.
#[utoipa::path(get, path = "/api/v1/applications/user", tag = "applications", params(
    ("limit" = Option<u32>, Query, description = "1 to 100, default 50"),
    ("cursor" = Option<String>, Query, description = "`nextCursor` of the page before"),
), responses(
    (status = 200, description = "a page", body = Found),
    (status = 400, description = "bad query", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 404, description = "not a member of the organization", body = ErrorAnswer),
))]
pub(crate) async fn list_user(
    context: Data<Context>,
    caller: Identified,
    page: Query<Page>,
) -> Result<Json<Found>, Problem> {
    let applications = &context.services.applications;
    let listed = applications.list(caller.org()?, ApplicationsPage::Users, &page.0.0).await?;
    Ok(Json(listed.into()))
}
