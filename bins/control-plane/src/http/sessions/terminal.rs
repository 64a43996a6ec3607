//! `GET sessions/{id}/terminal`, upgraded to a WebSocket.

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::SEC_WEBSOCKET_PROTOCOL,
    web::{Data, Payload},
};
use tidegate_model::{Fields, FromFields, SessionId, StreamKind, StreamMode};
use tidegate_service::OpenedStream;

use super::viewer::{self, Wanted};
use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::caller,
    origin, scopes,
    socket::{TUNNEL_FRAME, upgrade},
    valid::{Segment, read_query},
};

/// The subprotocol of streams; the ticket stands beside it.
const PROTOCOL: &str = "tidegate.v1";

/// What the query may say.
#[derive(Debug)]
struct How {
    mode: Option<StreamMode>,
}

impl FromFields for How {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        Some(Self { mode: fields.optional("mode") })
    }
}

/// The session's terminal. Binary frames are its bytes; text frames are `resize` to it, `mode` and `exit` from it.
///
/// Programs bring a bearer token, browsers the subprotocols `tidegate.v1, ticket.<ticket>`.
#[utoipa::path(get, path = "/api/v1/sessions/{id}/terminal", tag = "sessions",
    params(("id" = String, Path), ("mode" = Option<StreamMode>, Query, description = "`view` to watch only")), responses(
    (status = 101, description = "the stream"),
    (status = 400, description = "no WebSocket, or a bad query", body = ErrorAnswer),
    (status = 401, description = "no credential, or a ticket that is not good", body = ErrorAnswer),
    (status = 403, description = "opened from a page of another site", body = ErrorAnswer),
    (status = 404, description = "no such session", body = ErrorAnswer),
    (status = 409, description = "it does not run, or its agent refused", body = ErrorAnswer),
    (status = 503, description = "its agent is offline", body = ErrorAnswer),
    (status = 504, description = "its agent did not answer", body = ErrorAnswer),
))]
pub(crate) async fn terminal(
    request: HttpRequest,
    payload: Payload,
    context: Data<Context>,
    id: Segment<SessionId>,
) -> Result<HttpResponse, Problem> {
    let opened = open(&request, &context, id.0, StreamKind::Terminal).await?;
    watched(&request, payload, &context, opened, Wanted::Terminal).await
}

/// Upgrades the request and shows what is wanted.
pub(super) async fn watched(
    request: &HttpRequest,
    payload: Payload,
    context: &Context,
    opened: OpenedStream,
    wanted: Wanted,
) -> Result<HttpResponse, Problem> {
    let (response, inbound, outbound) = upgrade(request, payload, &[PROTOCOL], TUNNEL_FRAME)?;
    let end = viewer::tunnel(context, &opened, wanted).await?;
    viewer::serve(context, opened.viewing(), end, inbound, outbound);
    Ok(response)
}

/// Who opens what, by ticket or bearer token.
pub(super) async fn open(
    request: &HttpRequest,
    context: &Context,
    id: SessionId,
    kind: StreamKind,
) -> Result<OpenedStream, Problem> {
    let streams = &context.services.streams;
    if let Some(ticket) = ticket(request) {
        origin::check(request, context)?;
        let opened = streams.redeem(&ticket, id, kind).await?;
        scopes::check(request, &opened.caller)?;
        return Ok(opened);
    }
    let caller = caller(request).await?;
    origin::check(request, context)?;
    let mode = match read_query::<How>(request.query_string()) {
        Ok(how) => how.mode.unwrap_or(StreamMode::Control),
        Err(complaints) => {
            // What is not there comes before what is wrong with the request for it.
            context.services.sessions.get(caller.org()?, id).await?;
            return Err(Problem::invalid(complaints));
        }
    };
    Ok(streams.open(caller, id, mode).await?)
}

fn ticket(request: &HttpRequest) -> Option<String> {
    let offered = request.headers().get_all(SEC_WEBSOCKET_PROTOCOL);
    let offered = offered.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    offered.map(str::trim).find_map(|protocol| protocol.strip_prefix("ticket.").map(str::to_owned))
}
