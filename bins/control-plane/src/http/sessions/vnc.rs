//! `GET sessions/{id}/vnc`, upgraded to a WebSocket.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Payload},
};
use tidegate_model::{SessionId, StreamKind, StreamMode};

use super::{
    terminal::{open, watched},
    viewer::Wanted,
};
use crate::http::{Context, ErrorAnswer, Problem, valid::Segment};

/// The session's desktop: binary frames are the bytes of RFB both ways, as noVNC speaks it. Of those who only watch, keys,
/// pointer and clipboard go no further than this server.
///
/// Programs bring a bearer token, browsers the subprotocols `tidegate.v1, ticket.<ticket>`.
#[utoipa::path(get, path = "/api/v1/sessions/{id}/vnc", tag = "sessions",
    params(("id" = String, Path), ("mode" = Option<StreamMode>, Query, description = "`view` to watch only")), responses(
    (status = 101, description = "the stream"),
    (status = 400, description = "no WebSocket, or a bad query", body = ErrorAnswer),
    (status = 401, description = "no credential, or a ticket that is not good", body = ErrorAnswer),
    (status = 403, description = "opened from a page of another site", body = ErrorAnswer),
    (status = 404, description = "no such session", body = ErrorAnswer),
    (status = 409, description = "it does not run, has no desktop, or its agent refused", body = ErrorAnswer),
    (status = 503, description = "its agent is offline", body = ErrorAnswer),
    (status = 504, description = "its agent did not answer", body = ErrorAnswer),
))]
pub(crate) async fn vnc(
    request: HttpRequest,
    payload: Payload,
    context: Data<Context>,
    id: Segment<SessionId>,
) -> Result<HttpResponse, Problem> {
    let opened = open(&request, &context, id.0, StreamKind::Vnc).await?;
    watched(&request, payload, &context, opened, Wanted::Stream(StreamKind::Vnc)).await
}
