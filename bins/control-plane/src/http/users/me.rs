//! `GET` and `PATCH users/me`.

use actix_web::{
    HttpRequest,
    web::{Data, Json},
};
use tidegate_model::{UpdateUserRequest, User};
use utoipa::ToSchema;

use crate::http::{Context, ErrorAnswer, Problem, gate::Identified, source::source, valid::Body};

/// The caller's own user, with the role in the organization of the request.
#[utoipa::path(get, path = "/api/v1/users/me", tag = "users", responses(
    (status = 200, description = "the user", body = User),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 404, description = "not a member of the organization", body = ErrorAnswer),
))]
pub(crate) async fn me(context: Data<Context>, caller: Identified) -> Result<Json<User>, Problem> {
    Ok(Json(context.services.users.me(&caller.0).await?))
}

/// What users change of themselves; what is absent stays.
#[derive(Debug, ToSchema)]
#[schema(as = UpdateProfileRequest, rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "the shape of `UpdateUserRequest`, which is read field by field, for the OpenAPI document"
)]
pub(crate) struct Profile {
    /// Unique without regard to case.
    email: Option<String>,
    /// 1–200 characters.
    full_name: Option<String>,
    /// Your password in force, for another `email` of your own where you have a password here.
    current_password: Option<String>,
}

/// Changes the caller's own profile. Nobody changes their own role or state.
#[utoipa::path(patch, path = "/api/v1/users/me", tag = "users", request_body = Profile, responses(
    (status = 200, description = "the user", body = User),
    (status = 400, description = "bad fields, each named", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "`role`, `active` or `homeOrgId` is given", body = ErrorAnswer),
    (status = 404, description = "not a member of the organization", body = ErrorAnswer),
    (status = 409, description = "the e-mail address is taken", body = ErrorAnswer),
))]
pub(crate) async fn update_me(
    request: HttpRequest,
    context: Data<Context>,
    caller: Identified,
    body: Body<UpdateUserRequest>,
) -> Result<Json<User>, Problem> {
    let from = source(&request, &context);
    Ok(Json(context.services.users.update_own(&caller.0, body.valid()?, from).await?))
}
