//! `DELETE organizations/{id}/members/{userId}`.

use actix_web::{HttpResponse, web::Data};
use tidegate_model::UserId;

use crate::http::{Context, ErrorAnswer, Problem, gate::Identified, valid::Last};

/// Ends a membership at once, with the sessions and the open streams that hang on it. Anybody may leave.
#[utoipa::path(delete, path = "/api/v1/organizations/{id}/members/{userId}", tag = "members",
    params(("id" = String, Path, description = "id or name"), ("userId" = String, Path)), responses(
    (status = 204, description = "no member any more"),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an org_admin", body = ErrorAnswer),
    (status = 404, description = "no such organization or member", body = ErrorAnswer),
    (status = 409, description = "the owner and the last org_admin stay", body = ErrorAnswer),
))]
pub(crate) async fn remove(
    context: Data<Context>,
    caller: Identified,
    user: Last<UserId>,
) -> Result<HttpResponse, Problem> {
    context.services.members.remove(caller.org()?, user.0).await?;
    Ok(HttpResponse::NoContent().finish())
}
