//! `POST auth/logout`.

use actix_web::{HttpResponse, web::Data};

use crate::http::{Context, ErrorAnswer, Problem, gate::Identified};

/// Ends the caller's login, its refresh token and its open streams.
#[utoipa::path(post, path = "/api/v1/auth/logout", tag = "auth", responses(
    (status = 204, description = "logged out"),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "the credential is an API key, which has no login to end", body = ErrorAnswer),
))]
pub(crate) async fn logout(context: Data<Context>, caller: Identified) -> Result<HttpResponse, Problem> {
    context.services.logins.logout(&caller.0).await?;
    Ok(HttpResponse::NoContent().finish())
}
