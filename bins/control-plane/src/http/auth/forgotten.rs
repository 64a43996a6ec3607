//! `POST auth/password/reset` and `POST auth/password/new`.

use actix_web::{HttpRequest, HttpResponse, web::Data};
use tidegate_model::{NewPasswordRequest, ResetPasswordRequest};
use utoipa::ToSchema;

use crate::http::{Context, ErrorAnswer, Problem, source::source, valid::Body};

/// Whose password was forgotten.
#[derive(Debug, ToSchema)]
#[schema(as = ResetPasswordRequest)]
#[expect(
    dead_code,
    reason = "the shape of `ResetPasswordRequest`, which is read field by field, for the OpenAPI document"
)]
pub(crate) struct Forgotten {
    /// Username or e-mail address, in any case.
    username: String,
}

/// Asks for a mail with a link that sets another password. Whoever is asked for, the answer is the same, in words and time:
/// users who are active, have a password here and an address get one.
#[utoipa::path(post, path = "/api/v1/auth/password/reset", tag = "auth", request_body = Forgotten, security(()), responses(
    (status = 202, description = "a mail is on its way, if there is such a user"),
    (status = 400, description = "bad fields, each named", body = ErrorAnswer),
    (status = 429, description = "asked for too often, from this address or for this name", body = ErrorAnswer),
))]
pub(crate) async fn reset_password(
    request: HttpRequest,
    context: Data<Context>,
    body: Body<ResetPasswordRequest>,
) -> Result<HttpResponse, Problem> {
    let from = source(&request, &context);
    context.services.password_resets.ask(&body.valid()?, from).await?;
    Ok(HttpResponse::Accepted().finish())
}

/// Another password, for the token of a mail.
#[derive(Debug, ToSchema)]
#[schema(as = NewPasswordRequest, rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "the shape of `NewPasswordRequest`, which is read field by field, for the OpenAPI document"
)]
pub(crate) struct New {
    /// What the link of the mail brings.
    token: String,
    /// 8–256 characters, no common password and not the username.
    new_password: String,
}

/// Sets another password for the token of a mail, once. Every login of the user ends, and every device's.
#[utoipa::path(post, path = "/api/v1/auth/password/new", tag = "auth", request_body = New, security(()), responses(
    (status = 204, description = "set"),
    (status = 400, description = "bad fields, each named", body = ErrorAnswer),
    (status = 404, description = "the token was used, is too old, or its user has changed since", body = ErrorAnswer),
    (status = 429, description = "too many wrong tokens", body = ErrorAnswer),
))]
pub(crate) async fn new_password(
    request: HttpRequest,
    context: Data<Context>,
    body: Body<NewPasswordRequest>,
) -> Result<HttpResponse, Problem> {
    let from = source(&request, &context);
    context.services.password_resets.set(body.valid()?, from).await?;
    Ok(HttpResponse::NoContent().finish())
}
