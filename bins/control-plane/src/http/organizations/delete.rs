//! `DELETE organizations/{id}`.

use actix_web::{HttpResponse, web::Data};

use crate::http::{Context, ErrorAnswer, Problem, gate::Identified};

/// Ends an organization: its sessions are stopped, its invites revoked, and nobody gets in any more. Its name stays taken.
#[utoipa::path(delete, path = "/api/v1/organizations/{id}", tag = "organizations",
    params(("id" = String, Path, description = "id or name")), responses(
    (status = 204, description = "ended"),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not the owner", body = ErrorAnswer),
    (status = 404, description = "no such organization, or not a member of it", body = ErrorAnswer),
))]
pub(crate) async fn delete(context: Data<Context>, caller: Identified) -> Result<HttpResponse, Problem> {
    context.services.organizations.delete(caller.org()?).await?;
    Ok(HttpResponse::NoContent().finish())
}
