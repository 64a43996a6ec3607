//! `GET audit` and `GET admin/audit`.

use actix_web::web::{Data, Json};
use serde::Serialize;
use tidegate_model::{AuditEntry, FieldErrors};
use tidegate_service::Listed;
use utoipa::ToSchema;

use super::Wanted;
use crate::http::{Context, ErrorAnswer, Problem, gate::Identified, valid::Query};

/// A page of the log.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AuditEntries)]
pub(crate) struct Found {
    /// The newest first.
    entries: Vec<AuditEntry>,
    /// How many there are on all pages.
    total: i64,
    /// `false` where there are more than `total`, else absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    total_is_exact: Option<bool>,
    /// Asks for the next page; `null` on the last.
    next_cursor: Option<String>,
}

impl From<Listed<AuditEntry>> for Found {
    fn from(listed: Listed<AuditEntry>) -> Self {
        Self {
            entries: listed.items,
            total: listed.total,
            total_is_exact: (!listed.total_is_exact).then_some(false),
            next_cursor: listed.next_cursor,
        }
    }
}

/// The organization's audit log, the newest first.
#[utoipa::path(get, path = "/api/v1/audit", tag = "audit", params(
    ("actor" = Option<String>, Query, description = "username in any case, or `user:<id>`, `agent:<id>`, `console`, `system`"),
    ("action" = Option<String>, Query, description = "what was done, for example `member.remove`"),
    ("resource" = Option<String>, Query, description = "to what, for example `user:<id>`"),
    ("since" = Option<String>, Query, description = "RFC 3339; from this moment on"),
    ("until" = Option<String>, Query, description = "RFC 3339; before this moment"),
    ("limit" = Option<u32>, Query, description = "1 to 100, default 50"),
    ("cursor" = Option<String>, Query, description = "`nextCursor` of the page before"),
), responses(
    (status = 200, description = "a page", body = Found),
    (status = 400, description = "bad query, each field named", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an org_admin", body = ErrorAnswer),
    (status = 404, description = "no organization of the caller's", body = ErrorAnswer),
))]
pub(crate) async fn list(
    context: Data<Context>,
    caller: Identified,
    wanted: Query<Wanted>,
) -> Result<Json<Found>, Problem> {
    let Wanted { filter, paging, org } = wanted.0;
    no_org(org.as_deref())?;
    Ok(Json(context.services.audit.list(caller.org()?, &filter, &paging).await?.into()))
}

/// The audit log of the platform and of every organization, the newest first.
#[utoipa::path(get, path = "/api/v1/admin/audit", tag = "audit", params(
    ("org" = Option<String>, Query, description = "of this organization alone, by id or name"),
    ("actor" = Option<String>, Query, description = "username in any case, or `user:<id>`, `agent:<id>`, `console`, `system`"),
    ("action" = Option<String>, Query, description = "what was done, for example `member.remove`"),
    ("resource" = Option<String>, Query, description = "to what, for example `user:<id>`"),
    ("since" = Option<String>, Query, description = "RFC 3339; from this moment on"),
    ("until" = Option<String>, Query, description = "RFC 3339; before this moment"),
    ("limit" = Option<u32>, Query, description = "1 to 100, default 50"),
    ("cursor" = Option<String>, Query, description = "`nextCursor` of the page before"),
), responses(
    (status = 200, description = "a page", body = Found),
    (status = 400, description = "bad query, each field named", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an operator", body = ErrorAnswer),
    (status = 404, description = "no such organization", body = ErrorAnswer),
))]
pub(crate) async fn list_all(
    context: Data<Context>,
    caller: Identified,
    wanted: Query<Wanted>,
) -> Result<Json<Found>, Problem> {
    let Wanted { filter, paging, org } = wanted.0;
    Ok(Json(context.services.audit.list_all(&caller.0, org.as_deref(), &filter, &paging).await?.into()))
}

/// The organization of a request is said in its header: in the query it would look as if it chose one.
pub(super) fn no_org(org: Option<&str>) -> Result<(), Problem> {
    org.map_or(Ok(()), |_| Err(Problem::invalid(FieldErrors::one("org", "belongs to admin/audit alone"))))
}
