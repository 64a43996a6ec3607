//! `POST sessions/{id}/disconnect`.

use actix_web::{HttpResponse, web::Data};
use tidegate_model::{DisconnectRequest, SessionId, UserId};
use utoipa::ToSchema;

use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    valid::{Body, Segment},
};

/// Whose viewing ends: at most one of the two; without either, the caller's own.
#[derive(Debug, ToSchema)]
#[schema(as = DisconnectRequest, rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "the shape of `DisconnectRequest`, which is read field by field, for the OpenAPI document"
)]
pub(crate) struct Whose {
    /// A member of the organization, by name.
    username: Option<String>,
    /// A member of the organization.
    user_id: Option<UserId>,
}

/// Ends the caller's viewing of a session, and leaves the session as it is: streams they have open are cut within a second,
/// on every replica, and tickets and cookies they got for it open nothing any more. They may open it again. The session's
/// owner and those who manage sessions may end another member's.
#[utoipa::path(post, path = "/api/v1/sessions/{id}/disconnect", tag = "sessions", request_body = Option<Whose>,
    params(("id" = String, Path)), responses(
    (status = 204, description = "nothing that was open to them before is any more"),
    (status = 400, description = "bad fields", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "another member's viewing of a session that is only shared with the caller", body = ErrorAnswer),
    (status = 404, description = "no such session or member", body = ErrorAnswer),
))]
pub(crate) async fn disconnect(
    context: Data<Context>,
    caller: Identified,
    id: Segment<SessionId>,
    body: Body<DisconnectRequest>,
) -> Result<HttpResponse, Problem> {
    let (services, org) = (&context.services, caller.org()?);
    let found = async || Ok(services.sessions.get(org, id.0).await.map(drop)?);
    let whose = body.after(found).await?;
    services.streams.disconnect(org, id.0, whose).await?;
    Ok(HttpResponse::NoContent().finish())
}
