//! `GET sessions`.

use actix_web::web::{Data, Json};
use serde::Serialize;
use tidegate_model::{Fields, FromFields, Session, SessionFilter};
use tidegate_service::{Listed, Paging};
use utoipa::ToSchema;

use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    page::Page,
    valid::{Query, parsed},
};

/// What the list is narrowed to, and which page of it.
#[derive(Debug)]
pub(crate) struct Wanted {
    filter: SessionFilter,
    paging: Paging,
}

impl FromFields for Wanted {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let filter = SessionFilter {
            user: fields.optional("user"),
            state: fields.optional("state"),
            tag: fields.optional("tag"),
            agent: fields.optional("agent"),
            application: parsed(fields, "application", "must be the id of an application"),
            shared: parsed(fields, "shared", "must be true or false").unwrap_or(false),
        };
        Some(Self { filter, paging: Page::from_fields(fields)?.0 })
    }
}

/// A page of sessions.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Sessions)]
pub(crate) struct Found {
    /// The newest first.
    sessions: Vec<Session>,
    /// How many there are on all pages.
    total: i64,
    /// `false` where there are more than `total`, else absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    total_is_exact: Option<bool>,
    /// Asks for the next page; `null` on the last.
    next_cursor: Option<String>,
}

impl From<Listed<Session>> for Found {
    fn from(page: Listed<Session>) -> Self {
        Self {
            sessions: page.items,
            total: page.total,
            total_is_exact: (!page.total_is_exact).then_some(false),
            next_cursor: page.next_cursor,
        }
    }
}

/// Sessions, the newest first: the caller's own and those shared with them, or all of the organization for those who manage
/// sessions. Of what is shared with the caller, `shared` says to do what, and until when.
#[utoipa::path(get, path = "/api/v1/sessions", tag = "sessions", params(
    ("user" = Option<String>, Query, description = "of this owner only"),
    ("state" = Option<tidegate_model::SessionState>, Query, description = "in this state only"),
    ("tag" = Option<String>, Query, description = "with this tag only"),
    ("agent" = Option<String>, Query, description = "on this agent only"),
    ("application" = Option<String>, Query, description = "of this installed application only"),
    ("shared" = Option<bool>, Query, description = "`true`: of others, shared with the caller, only"),
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
    wanted: Query<Wanted>,
) -> Result<Json<Found>, Problem> {
    let Wanted { filter, paging } = wanted.0;
    let page = context.services.sessions.list(caller.org()?, filter, &paging).await?;
    Ok(Json(page.into()))
}
