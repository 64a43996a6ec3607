//! `GET admin/sessions` and `POST admin/sessions/{id}/terminate`.

use actix_web::{
    HttpResponse,
    web::{Data, Json},
};
use serde::Serialize;
use tidegate_model::{Fields, FromFields, Session, SessionFilter, SessionId};
use tidegate_service::{Listed, Paging};
use utoipa::ToSchema;

use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    page::Page,
    valid::{Body, Query, Segment, parsed},
};

/// What the list is narrowed to, and which page of it.
#[derive(Debug)]
pub(crate) struct Wanted {
    filter: SessionFilter,
    organization: Option<String>,
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
            shared: false,
        };
        let organization = fields.optional("organization");
        Some(Self { filter, organization, paging: Page::from_fields(fields)?.0 })
    }
}

/// A page of sessions of all organizations.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AllSessions)]
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

/// The sessions of every organization, the newest first.
#[utoipa::path(get, path = "/api/v1/admin/sessions", tag = "admin", params(
    ("organization" = Option<String>, Query, description = "of this organization only, by id or name"),
    ("user" = Option<String>, Query, description = "of this owner only"),
    ("state" = Option<tidegate_model::SessionState>, Query, description = "in this state only"),
    ("tag" = Option<String>, Query, description = "with this tag only"),
    ("agent" = Option<String>, Query, description = "on this agent only"),
    ("application" = Option<String>, Query, description = "of this installed application only"),
    ("limit" = Option<u32>, Query, description = "1 to 100, default 50"),
    ("cursor" = Option<String>, Query, description = "`nextCursor` of the page before"),
), responses(
    (status = 200, description = "a page", body = Found),
    (status = 400, description = "bad query", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an operator", body = ErrorAnswer),
    (status = 404, description = "no such organization", body = ErrorAnswer),
))]
pub(crate) async fn list_sessions(
    context: Data<Context>,
    caller: Identified,
    wanted: Query<Wanted>,
) -> Result<Json<Found>, Problem> {
    let all = &context.services.all_sessions;
    let Wanted { filter, organization, paging } = wanted.0;
    let page = all.list(&all.operator(&caller.0)?, filter, organization.as_deref(), &paging).await?;
    Ok(Json(page.into()))
}

/// Why a session is ended.
#[derive(Debug, ToSchema)]
pub(crate) struct Why {
    /// For people, its owner among them; 1 to 300 characters.
    reason: Option<String>,
}

impl FromFields for Why {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let reason: Option<String> = fields.optional("reason");
        if let Some(reason) = &reason {
            fields.check_length("reason", reason, 1..=300);
            if reason.chars().any(char::is_control) {
                fields.errors().add("reason", "must be one line of text");
            }
        }
        Some(Self { reason })
    }
}

/// Ends a session of any organization. Both the platform's log and the organization's say so.
#[utoipa::path(post, path = "/api/v1/admin/sessions/{id}/terminate", tag = "admin", request_body = Why,
    params(("id" = String, Path)), responses(
    (status = 200, description = "it was ended, or being ended, already", body = Session),
    (status = 202, description = "asked for", body = Session),
    (status = 400, description = "bad fields", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an operator", body = ErrorAnswer),
    (status = 404, description = "no such session", body = ErrorAnswer),
))]
pub(crate) async fn terminate_session(
    context: Data<Context>,
    caller: Identified,
    id: Segment<SessionId>,
    body: Body<Why>,
) -> Result<HttpResponse, Problem> {
    let all = &context.services.all_sessions;
    let operator = all.operator(&caller.0)?;
    let found = async || Ok(all.get(&operator, id.0).await.map(drop)?);
    let why = body.after(found).await?;
    let (session, asked) = all.terminate(&operator, id.0, why.reason.as_deref()).await?;
    Ok(if asked { HttpResponse::Accepted() } else { HttpResponse::Ok() }.json(session))
}
