//! `POST sessions/{id}/connect`.

use actix_web::{
    HttpRequest,
    web::{Data, Json},
};
use chrono::{DateTime, Utc};
use serde::Serialize;
use tidegate_model::{Fields, FromFields, SessionId, SessionState, StreamKind, StreamMode};
use utoipa::ToSchema;

use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    origin,
    valid::{Body, Segment},
};

/// Which stream, and what for.
#[derive(Debug, ToSchema)]
pub(crate) struct Connect {
    /// `terminal`; the other kinds are not served yet.
    kind: StreamKind,
    /// Default `control`.
    #[schema(required = false, default = "control")]
    mode: StreamMode,
}

impl FromFields for Connect {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let kind = fields.required("kind");
        if matches!(kind, Some(StreamKind::Vnc | StreamKind::Http)) {
            fields.errors().add("kind", "must be `terminal`: this server streams nothing else yet");
        }
        let mode = fields.optional("mode").unwrap_or(StreamMode::Control);
        Some(Self { kind: kind?, mode })
    }
}

/// A way into a session's stream.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Connection {
    /// The session's state: `waking` where the call woke it.
    state: SessionState,
    /// Good for one WebSocket, as subprotocols `tidegate.v1, ticket.<ticket>`.
    ticket: String,
    /// Until then.
    expires_at: DateTime<Utc>,
    /// Where the stream is.
    url: String,
}

/// A single-use ticket for a stream. Wakes the session if it is asleep.
#[utoipa::path(post, path = "/api/v1/sessions/{id}/connect", tag = "sessions", request_body = Connect,
    params(("id" = String, Path)), responses(
    (status = 200, description = "the ticket, shown once", body = Connection),
    (status = 400, description = "bad fields", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 404, description = "no such session", body = ErrorAnswer),
    (status = 409, description = "its state does not allow it", body = ErrorAnswer),
))]
pub(crate) async fn connect(
    request: HttpRequest,
    context: Data<Context>,
    caller: Identified,
    id: Segment<SessionId>,
    body: Body<Connect>,
) -> Result<Json<Connection>, Problem> {
    let (services, org) = (&context.services, caller.org()?);
    let found = async || Ok(services.sessions.get(org, id.0).await.map(drop)?);
    let Connect { kind, mode } = body.after(found).await?;
    let given = services.streams.connect(org, id.0, kind, mode).await?;
    let path = format!("/api/v1/sessions/{}/terminal", id.0);
    let url = origin::own(&request, &context).map_or_else(|| path.clone(), |own| own.socket(&path));
    Ok(Json(Connection {
        state: given.session.state,
        ticket: given.ticket,
        expires_at: given.expires_at,
        url,
    }))
}
