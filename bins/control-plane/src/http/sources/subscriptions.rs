//! `pipes/subscriptions` and `pipes/members`.

use actix_web::web::{Data, Json};
use serde::Serialize;
use tidegate_model::{SeenMember, Subscription};
use utoipa::ToSchema;

use crate::http::{Context, ErrorAnswer, Problem, gate::Identified, page::Page, valid::Query};

/// A page of pipes that somebody reads.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Subscriptions)]
pub(crate) struct Read {
    /// By handle and pipe.
    subscriptions: Vec<Subscription>,
    /// How many there are on all pages.
    total: i64,
    /// `false` where there are more than `total`, else absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    total_is_exact: Option<bool>,
    /// Asks for the next page; `null` on the last.
    next_cursor: Option<String>,
}

/// A page of members who use pipes.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SeenMembers)]
pub(crate) struct Seen {
    /// The last one who was seen first.
    members: Vec<SeenMember>,
    /// How many there are on all pages.
    total: i64,
    /// `false` where there are more than `total`, else absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    total_is_exact: Option<bool>,
    /// Asks for the next page; `null` on the last.
    next_cursor: Option<String>,
}

/// The pipes that the caller reads from a place of their own, with how much waits there and what was sent last.
#[utoipa::path(get, path = "/api/v1/pipes/subscriptions", tag = "sources", params(
    ("limit" = Option<u32>, Query, description = "1 to 100, default 50"),
    ("cursor" = Option<String>, Query, description = "`nextCursor` of the page before"),
), responses(
    (status = 200, description = "a page", body = Read),
    (status = 400, description = "bad query", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 404, description = "not a member of the organization", body = ErrorAnswer),
))]
pub(crate) async fn subscriptions(
    context: Data<Context>,
    caller: Identified,
    page: Query<Page>,
) -> Result<Json<Read>, Problem> {
    let listed = context.services.messages.subscriptions(caller.org()?, &page.0.0).await?;
    Ok(Json(Read {
        subscriptions: listed.items,
        total: listed.total,
        total_is_exact: (!listed.total_is_exact).then_some(false),
        next_cursor: listed.next_cursor,
    }))
}

/// Members of the organization who read pipes or hold a token for NATS.
#[utoipa::path(get, path = "/api/v1/pipes/members", tag = "sources", params(
    ("limit" = Option<u32>, Query, description = "1 to 100, default 50"),
    ("cursor" = Option<String>, Query, description = "`nextCursor` of the page before"),
), responses(
    (status = 200, description = "a page", body = Seen),
    (status = 400, description = "bad query", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 404, description = "not a member of the organization", body = ErrorAnswer),
))]
pub(crate) async fn seen(
    context: Data<Context>,
    caller: Identified,
    page: Query<Page>,
) -> Result<Json<Seen>, Problem> {
    let listed = context.services.messages.seen(caller.org()?, &page.0.0).await?;
    Ok(Json(Seen {
        members: listed.items,
        total: listed.total,
        total_is_exact: (!listed.total_is_exact).then_some(false),
        next_cursor: listed.next_cursor,
    }))
}
