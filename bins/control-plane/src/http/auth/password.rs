//! `POST auth/password`.

use actix_web::{HttpRequest, HttpResponse, web::Data};
use tidegate_model::ChangePasswordRequest;
use utoipa::ToSchema;

use crate::http::{Context, ErrorAnswer, Problem, gate::Identified, source::source, valid::Body};

/// The password in force, and another one.
#[derive(Debug, ToSchema)]
#[schema(as = ChangePasswordRequest, rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "the shape of `ChangePasswordRequest`, which is read field by field, for the OpenAPI document"
)]
pub(crate) struct Change {
    /// The one in force.
    current_password: String,
    /// 8–256 characters, no common password and not the username.
    new_password: String,
}

/// Changes the caller's password. Their other logins end; the one that asks goes on.
#[utoipa::path(post, path = "/api/v1/auth/password", tag = "auth", request_body = Change, responses(
    (status = 204, description = "changed"),
    (status = 400, description = "bad fields, each named", body = ErrorAnswer),
    (status = 401, description = "not logged in, or `currentPassword` is wrong", body = ErrorAnswer),
    (status = 403, description = "the credential is an API key", body = ErrorAnswer),
    (status = 429, description = "too many attempts", body = ErrorAnswer),
))]
pub(crate) async fn password(
    request: HttpRequest,
    context: Data<Context>,
    caller: Identified,
    body: Body<ChangePasswordRequest>,
) -> Result<HttpResponse, Problem> {
    let from = source(&request, &context);
    context.services.logins.change_password(&caller.0, body.valid()?, from).await?;
    Ok(HttpResponse::NoContent().finish())
}
