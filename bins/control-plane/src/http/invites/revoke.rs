//! `POST organizations/{id}/invites/{inviteId}/revoke`.

use actix_web::web::{Data, Json};
use tidegate_model::{Invite, InviteId};

use crate::http::{Context, ErrorAnswer, Problem, gate::Identified, valid::Last};

/// Takes a pending invite back.
#[utoipa::path(post, path = "/api/v1/organizations/{id}/invites/{inviteId}/revoke", tag = "invites",
    params(("id" = String, Path, description = "id or name"), ("inviteId" = String, Path)), responses(
    (status = 200, description = "the invite", body = Invite),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an org_admin", body = ErrorAnswer),
    (status = 404, description = "no such organization or invite", body = ErrorAnswer),
    (status = 409, description = "answered or revoked already", body = ErrorAnswer),
))]
pub(crate) async fn revoke(
    context: Data<Context>,
    caller: Identified,
    invite: Last<InviteId>,
) -> Result<Json<Invite>, Problem> {
    Ok(Json(context.services.invites.revoke(caller.org()?, invite.0).await?))
}
