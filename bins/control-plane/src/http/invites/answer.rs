//! `POST invites/{id}/accept` and `…/decline`.

use actix_web::{
    HttpResponse,
    web::{Data, Json},
};
use serde::Serialize;
use tidegate_model::{InviteId, OrgId, OrgRole};
use utoipa::ToSchema;

use crate::http::{Context, ErrorAnswer, Problem, gate::Identified, valid::Segment};

/// What the caller is a member of now.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Accepted {
    /// The organization.
    org_id: OrgId,
    /// The role that the invite gave.
    role: OrgRole,
}

/// Accepts an invite: exactly once, by whom it is for.
#[utoipa::path(post, path = "/api/v1/invites/{id}/accept", tag = "invites", params(("id" = String, Path)), responses(
    (status = 200, description = "a member now", body = Accepted),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "for somebody else", body = ErrorAnswer),
    (status = 404, description = "no such invite", body = ErrorAnswer),
    (status = 409, description = "answered, revoked or expired", body = ErrorAnswer),
))]
pub(crate) async fn accept(
    context: Data<Context>,
    caller: Identified,
    id: Segment<InviteId>,
) -> Result<Json<Accepted>, Problem> {
    let (org_id, role) = context.services.invites.accept(&caller.0, id.0).await?;
    Ok(Json(Accepted { org_id, role }))
}

/// Declines an invite.
#[utoipa::path(post, path = "/api/v1/invites/{id}/decline", tag = "invites", params(("id" = String, Path)), responses(
    (status = 204, description = "declined"),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "for somebody else", body = ErrorAnswer),
    (status = 404, description = "no such invite", body = ErrorAnswer),
    (status = 409, description = "answered or revoked", body = ErrorAnswer),
))]
pub(crate) async fn decline(
    context: Data<Context>,
    caller: Identified,
    id: Segment<InviteId>,
) -> Result<HttpResponse, Problem> {
    context.services.invites.decline(&caller.0, id.0).await?;
    Ok(HttpResponse::NoContent().finish())
}
