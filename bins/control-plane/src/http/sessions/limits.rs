//! `GET sessions/{id}/policy` and `POST sessions/{id}/extend`: what ends or hibernates a session by itself.

use actix_web::web::{Data, Json};
use tidegate_model::{EffectivePolicy, ExtendRequest, Session, SessionId};
use utoipa::ToSchema;

use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    valid::{Body, Segment},
};

/// What ends or hibernates a session by itself: each limit with its value, where it comes from, whose that is, and every
/// bound that takes part.
#[utoipa::path(get, path = "/api/v1/sessions/{id}/policy", tag = "sessions", params(("id" = String, Path)), responses(
    (status = 200, description = "the policy", body = EffectivePolicy),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 404, description = "no such session", body = ErrorAnswer),
))]
pub(crate) async fn policy(
    context: Data<Context>,
    caller: Identified,
    id: Segment<SessionId>,
) -> Result<Json<EffectivePolicy>, Problem> {
    Ok(Json(context.services.limits.policy(caller.org()?, id.0).await?))
}

/// How much longer.
#[derive(Debug, ToSchema)]
#[schema(as = ExtendRequest)]
#[expect(
    dead_code,
    reason = "the shape of `ExtendRequest`, which is read field by field, for the OpenAPI document"
)]
pub(crate) struct Longer {
    /// 1 m to 30 d.
    #[schema(example = "30m")]
    by: String,
}

/// Puts a session's end off by so much, and keeps it from being idle for as long, within what organization and platform
/// allow. It counts as activity.
#[utoipa::path(post, path = "/api/v1/sessions/{id}/extend", tag = "sessions", request_body = Longer,
    params(("id" = String, Path)), responses(
    (status = 200, description = "the session with its new moments", body = Session),
    (status = 400, description = "a bad duration, or more than is allowed: the bound is named", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "somebody else's, and only shared with the caller", body = ErrorAnswer),
    (status = 404, description = "no such session", body = ErrorAnswer),
    (status = 409, description = "it has ended", body = ErrorAnswer),
))]
pub(crate) async fn extend(
    context: Data<Context>,
    caller: Identified,
    id: Segment<SessionId>,
    body: Body<ExtendRequest>,
) -> Result<Json<Session>, Problem> {
    let (services, org) = (&context.services, caller.org()?);
    let found = async || Ok(services.sessions.get(org, id.0).await.map(drop)?);
    let by = body.after(found).await?.by;
    Ok(Json(services.limits.extend(org, id.0, by).await?))
}
