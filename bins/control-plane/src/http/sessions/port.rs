//! `GET sessions/{id}/ports/{port}`, upgraded to a WebSocket.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Payload},
};
use tidegate_model::{FieldErrors, SessionId, StreamMode};

use super::{terminal::watched, viewer::Wanted};
use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::caller,
    origin,
    valid::{Last, Segment},
};

/// One connection to a TCP port of the session: binary frames are its bytes both ways. For programs with a bearer token.
#[utoipa::path(get, path = "/api/v1/sessions/{id}/ports/{port}", tag = "sessions",
    params(("id" = String, Path), ("port" = u16, Path)), responses(
    (status = 101, description = "the connection"),
    (status = 400, description = "no WebSocket, or no port", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "opened from a page of another site", body = ErrorAnswer),
    (status = 404, description = "no such session", body = ErrorAnswer),
    (status = 409, description = "it does not run, or nothing of it listens on the port", body = ErrorAnswer),
    (status = 503, description = "its agent is offline", body = ErrorAnswer),
    (status = 504, description = "its agent did not answer", body = ErrorAnswer),
))]
pub(crate) async fn port(
    request: HttpRequest,
    payload: Payload,
    context: Data<Context>,
    id: Segment<SessionId>,
    port: Last<String>,
) -> Result<HttpResponse, Problem> {
    let caller = caller(&request).await?;
    origin::check(&request, &context)?;
    let opened = context.services.streams.open(caller, id.0, StreamMode::Control).await?;
    let port = port.0.parse().ok().filter(|port| *port > 0);
    let port =
        port.ok_or_else(|| Problem::invalid(FieldErrors::one("port", "must be a number from 1 to 65535")))?;
    watched(&request, payload, &context, opened, Wanted::Port(port)).await
}
