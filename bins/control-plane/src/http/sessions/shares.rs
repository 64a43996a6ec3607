//! `sessions/{id}/shares` and `sessions/{id}/shares/{shareId}`.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Json},
};
use serde::Serialize;
use serde_json::json;
use tidegate_model::{CreateShareRequest, GroupId, SessionId, SessionShare, ShareId, StreamMode, UserId};
use tidegate_service::Shared;
use utoipa::ToSchema;

use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    idempotency::{again, idempotency},
    valid::{Body, Last, Segment},
};

/// Whom a session is shared with: exactly one of the four.
#[derive(Debug, ToSchema)]
#[schema(as = CreateShareRequest, rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "the shape of `CreateShareRequest`, which is read field by field, for the OpenAPI document"
)]
pub(crate) struct New {
    /// A member of the organization, by name.
    username: Option<String>,
    /// A member of the organization.
    user_id: Option<UserId>,
    /// A group, by name; with it the groups below it.
    group: Option<String>,
    /// A group.
    group_id: Option<GroupId>,
    /// Default `view`.
    mode: Option<StreamMode>,
    /// For how long, 1 m to 30 d; as long as the session where absent.
    #[schema(example = "2h")]
    expires_in: Option<String>,
}

/// Shares of a session.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SessionShares)]
pub(crate) struct Found {
    /// Those that have not expired, the oldest first.
    shares: Vec<SessionShare>,
    /// How many there are.
    total: usize,
}

/// Lets a member or a group watch or use a session of one's own; a repeat gives the mode and the time. They see it in
/// their lists, and may stop it at no time.
#[utoipa::path(post, path = "/api/v1/sessions/{id}/shares", tag = "sessions", request_body = New, params(
    ("id" = String, Path),
    ("Idempotency-Key" = Option<String>, Header, description = "a repeat with the same key and body gets the first answer"),
), responses(
    (status = 200, description = "was shared with them, and is as asked for now", body = SessionShare),
    (status = 201, description = "is shared with them now", body = SessionShare),
    (status = 400, description = "bad fields, each named", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "somebody else's", body = ErrorAnswer),
    (status = 404, description = "no such session, member or group", body = ErrorAnswer),
    (status = 409, description = "it has ended, or has too many shares", body = ErrorAnswer),
))]
pub(crate) async fn create_share(
    request: HttpRequest,
    context: Data<Context>,
    caller: Identified,
    id: Segment<SessionId>,
    body: Body<CreateShareRequest>,
) -> Result<HttpResponse, Problem> {
    let (services, org) = (&context.services, caller.org()?);
    let same = [id.0.as_uuid().as_bytes(), body.bytes().as_ref()].concat();
    let key = idempotency(&request, &caller, "POST sessions/{id}/shares", &same)?;
    let wanted = body.after(async || Ok(services.sessions.get(org, id.0).await.map(drop)?)).await?;
    let made = services.shares.create(org, id.0, wanted, key.as_ref(), |share| json!(share)).await?;
    Ok(match made {
        Shared::New(share) => HttpResponse::Created().json(share),
        Shared::Changed(share) => HttpResponse::Ok().json(share),
        Shared::Replay(replay) => again(replay),
    })
}

/// Whom a session is shared with, for its owner and for those who manage sessions.
#[utoipa::path(get, path = "/api/v1/sessions/{id}/shares", tag = "sessions", params(("id" = String, Path)), responses(
    (status = 200, description = "the shares, the oldest first", body = Found),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "only shared with the caller", body = ErrorAnswer),
    (status = 404, description = "no such session", body = ErrorAnswer),
))]
pub(crate) async fn list_shares(
    context: Data<Context>,
    caller: Identified,
    id: Segment<SessionId>,
) -> Result<Json<Found>, Problem> {
    let shares = context.services.shares.list(caller.org()?, id.0).await?;
    Ok(Json(Found { total: shares.len(), shares }))
}

/// Ends a share: whoever watches by it is cut off within a second, and their tickets open nothing any more. For the
/// session's owner and for those who manage sessions.
#[utoipa::path(delete, path = "/api/v1/sessions/{id}/shares/{shareId}", tag = "sessions",
    params(("id" = String, Path), ("shareId" = String, Path)), responses(
    (status = 204, description = "shared no more"),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "only shared with the caller", body = ErrorAnswer),
    (status = 404, description = "no such session or share", body = ErrorAnswer),
))]
pub(crate) async fn revoke_share(
    context: Data<Context>,
    caller: Identified,
    id: Segment<SessionId>,
    share: Last<ShareId>,
) -> Result<HttpResponse, Problem> {
    context.services.shares.revoke(caller.org()?, id.0, share.0).await?;
    Ok(HttpResponse::NoContent().finish())
}
