//! `POST sessions/{id}/connect`.

use actix_web::{
    HttpRequest,
    web::{Data, Json},
};
use chrono::{DateTime, Utc};
use serde::Serialize;
use tidegate_model::{Fields, FromFields, SessionId, SessionState, StreamKind, StreamMode};
use tidegate_service::StreamTicket;
use utoipa::ToSchema;

use crate::http::{
    Context, ErrorAnswer, Problem, content,
    gate::Identified,
    origin,
    valid::{Body, Segment},
};

/// Which stream, and what for.
#[derive(Debug, ToSchema)]
pub(crate) struct Connect {
    /// `terminal`, the desktop (`vnc`) or the web application (`http`).
    kind: StreamKind,
    /// Default `control`.
    #[schema(required = false, default = "control")]
    mode: StreamMode,
}

impl FromFields for Connect {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let kind = fields.required("kind");
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
    /// Good once: for a WebSocket as subprotocols `tidegate.v1, ticket.<ticket>`, for a web application as the field
    /// `ticket` of a form that is posted to `url`.
    ticket: String,
    /// Until then.
    expires_at: DateTime<Utc>,
    /// Where the stream is; of a web application, where a browser's form exchanges the ticket for a cookie.
    url: String,
}

impl Connection {
    /// The way that a ticket opens.
    pub(crate) fn new(
        request: &HttpRequest,
        context: &Context,
        kind: StreamKind,
        given: StreamTicket,
    ) -> Self {
        let id = given.session.id;
        let path = match kind {
            StreamKind::Terminal | StreamKind::Http => format!("/api/v1/sessions/{id}/terminal"),
            StreamKind::Vnc => format!("/api/v1/sessions/{id}/vnc"),
        };
        let socket = || origin::own(request, context).map_or_else(|| path.clone(), |own| own.socket(&path));
        let url = match kind {
            StreamKind::Terminal | StreamKind::Vnc => socket(),
            StreamKind::Http => content::entrance(request, context, id).unwrap_or_else(socket),
        };
        Self { state: given.session.state, ticket: given.ticket, expires_at: given.expires_at, url }
    }
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
    Ok(Json(Connection::new(&request, &context, kind, given)))
}
