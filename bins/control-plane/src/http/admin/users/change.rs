//! `PATCH` and `DELETE admin/users/{id}`, and `POST …/password`.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Json},
};
use tidegate_model::{Fields, FromFields, PlatformUser, Secret, UpdateUserRequest, UserId};
use utoipa::ToSchema;

use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    source::source,
    users::one::Change,
    valid::{Body, Segment},
};

/// Changes a user whose role is not above one's own. Deactivated, everything of theirs ends at once.
#[utoipa::path(patch, path = "/api/v1/admin/users/{id}", tag = "admin", request_body = Change,
    params(("id" = String, Path)), responses(
    (status = 200, description = "the user", body = PlatformUser),
    (status = 400, description = "bad fields, each named", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an operator, or a role above one's own", body = ErrorAnswer),
    (status = 404, description = "no such user or organization", body = ErrorAnswer),
    (status = 409, description = "the e-mail address is taken, or nobody else is admin", body = ErrorAnswer),
))]
pub(crate) async fn update_user(
    request: HttpRequest,
    context: Data<Context>,
    caller: Identified,
    id: Segment<UserId>,
    body: Body<UpdateUserRequest>,
) -> Result<Json<PlatformUser>, Problem> {
    let (users, from) = (&context.services.all_users, source(&request, &context));
    let operator = users.operator(&caller.0)?;
    let change = body.after(async || Ok(users.get(&operator, id.0).await.map(drop)?)).await?;
    Ok(Json(users.update(&operator, id.0, change, from).await?))
}

/// Deletes a user whose role is not above one's own.
#[utoipa::path(delete, path = "/api/v1/admin/users/{id}", tag = "admin", params(("id" = String, Path)), responses(
    (status = 204, description = "deleted"),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an operator, or a role above one's own", body = ErrorAnswer),
    (status = 404, description = "no such user", body = ErrorAnswer),
    (status = 409, description = "owns organizations, or nobody else is admin", body = ErrorAnswer),
))]
pub(crate) async fn delete_user(
    request: HttpRequest,
    context: Data<Context>,
    caller: Identified,
    id: Segment<UserId>,
) -> Result<HttpResponse, Problem> {
    let users = &context.services.all_users;
    users.delete(&users.operator(&caller.0)?, id.0, source(&request, &context)).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Another password.
#[derive(Debug, ToSchema)]
#[schema(as = ResetPasswordRequest)]
pub(crate) struct Reset {
    /// 8–256 characters, no common password and not the username.
    #[schema(value_type = String)]
    password: Secret<String>,
}

impl FromFields for Reset {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        Some(Self { password: fields.required("password")? })
    }
}

/// Gives a local user another password, and ends every login and API key of theirs.
#[utoipa::path(post, path = "/api/v1/admin/users/{id}/password", tag = "admin", request_body = Reset,
    params(("id" = String, Path)), responses(
    (status = 204, description = "changed"),
    (status = 400, description = "bad fields, each named", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an operator, or a role above one's own", body = ErrorAnswer),
    (status = 404, description = "no such user", body = ErrorAnswer),
    (status = 409, description = "the user signs in elsewhere", body = ErrorAnswer),
    (status = 429, description = "too many at a time", body = ErrorAnswer),
))]
pub(crate) async fn reset_password(
    request: HttpRequest,
    context: Data<Context>,
    caller: Identified,
    id: Segment<UserId>,
    body: Body<Reset>,
) -> Result<HttpResponse, Problem> {
    let (users, from) = (&context.services.all_users, source(&request, &context));
    let operator = users.operator(&caller.0)?;
    let reset = body.after(async || Ok(users.get(&operator, id.0).await.map(drop)?)).await?;
    users.reset_password(&operator, id.0, reset.password, from).await?;
    Ok(HttpResponse::NoContent().finish())
}
