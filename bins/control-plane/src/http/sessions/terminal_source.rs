//! `PUT` and `DELETE sessions/{id}/terminal-source`.

use actix_web::{
    HttpResponse,
    web::{Data, Json},
};
use tidegate_model::{RecordTerminalRequest, Session, SessionId};
use tidegate_service::RecordedAt;

use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    valid::{Body, Segment},
};

/// Has the terminal of a session of the caller's recorded at a source of kind `pty` of theirs, which is made where the
/// handle is free: what it prints goes to `stdout`, what its agent still keeps of before included; its beginnings, sizes and
/// ends go to `stdctrl`. The source is watched, read and searched as any other, by whoever may read it, and stays when the
/// session has ended. A repeat changes nothing; another handle ends the recording at the one before.
#[utoipa::path(put, path = "/api/v1/sessions/{id}/terminal-source", tag = "sessions", request_body = RecordTerminalRequest,
    params(("id" = String, Path)), responses(
    (status = 200, description = "the session", body = Session),
    (status = 400, description = "bad fields, or no source of kind pty", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "somebody else's session or source", body = ErrorAnswer),
    (status = 404, description = "no such session", body = ErrorAnswer),
    (status = 409, description = "it has ended or shows no terminal, or the source records another session", body = ErrorAnswer),
    (status = 503, description = "there is no NATS", body = ErrorAnswer),
))]
pub(crate) async fn record(
    context: Data<Context>,
    caller: Identified,
    id: Segment<SessionId>,
    body: Body<RecordTerminalRequest>,
) -> Result<Json<Session>, Problem> {
    let (services, org) = (&context.services, caller.org()?);
    let found = async || Ok(services.sessions.get(org, id.0).await.map(drop)?);
    let request = body.after(found).await?;
    let (RecordedAt::New(session) | RecordedAt::Known(session)) =
        services.terminal_sources.set(org, id.0, &request).await?;
    Ok(Json(*session))
}

/// Ends the recording of a session's terminal within a moment; what is recorded stays. For the session's owner and for those
/// who manage sessions.
#[utoipa::path(delete, path = "/api/v1/sessions/{id}/terminal-source", tag = "sessions", params(("id" = String, Path)), responses(
    (status = 204, description = "it is recorded no more"),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "a session that is only shared with the caller", body = ErrorAnswer),
    (status = 404, description = "no such session, or it is not recorded", body = ErrorAnswer),
))]
pub(crate) async fn unrecord(
    context: Data<Context>,
    caller: Identified,
    id: Segment<SessionId>,
) -> Result<HttpResponse, Problem> {
    context.services.terminal_sources.unset(caller.org()?, id.0).await?;
    Ok(HttpResponse::NoContent().finish())
}
