//! `POST events/ticket`.

use actix_web::{
    HttpRequest,
    web::{Data, Json},
};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::{Context, ErrorAnswer, Problem, gate::Identified, origin};

/// A way into the stream of events.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EventConnection {
    /// Good for one WebSocket, as subprotocols `tidegate.v1, ticket.<ticket>`.
    ticket: String,
    /// Until then.
    expires_at: DateTime<Utc>,
    /// Where the stream is.
    url: String,
}

/// A single-use ticket for the stream of events, for browsers.
#[utoipa::path(post, path = "/api/v1/events/ticket", tag = "events", responses(
    (status = 200, description = "the ticket, shown once", body = EventConnection),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 404, description = "no organization of the caller's", body = ErrorAnswer),
))]
pub(crate) async fn ticket(
    request: HttpRequest,
    context: Data<Context>,
    caller: Identified,
) -> Result<Json<EventConnection>, Problem> {
    let given = context.services.events.ticket(&caller.0).await?;
    let path = "/api/v1/events";
    let url = origin::own(&request, &context).map_or_else(|| path.to_owned(), |own| own.socket(path));
    Ok(Json(EventConnection { ticket: given.ticket, expires_at: given.expires_at, url }))
}
