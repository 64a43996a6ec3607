//! `GET`, `PATCH` and `DELETE users/{id}`, and `GET users/{id}/sessions`.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Json},
};
use tidegate_model::{OrgId, SystemRole, UpdateUserRequest, User, UserId};
use utoipa::ToSchema;

use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    page::Page,
    sessions::list::Found,
    source::source,
    valid::{Body, Query, Segment},
};

/// A user: oneself, a member for the organization's admins, anybody for operators.
#[utoipa::path(get, path = "/api/v1/users/{id}", tag = "users", params(("id" = String, Path)), responses(
    (status = 200, description = "the user", body = User),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 404, description = "no such user, or not to be seen", body = ErrorAnswer),
))]
pub(crate) async fn get(
    context: Data<Context>,
    caller: Identified,
    id: Segment<UserId>,
) -> Result<Json<User>, Problem> {
    Ok(Json(context.services.users.get(&caller.0, id.0).await?))
}

/// What changes of a user; what is absent stays.
#[derive(Debug, ToSchema)]
#[schema(as = UpdateUserRequest, rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "the shape of `UpdateUserRequest`, which is read field by field, for the OpenAPI document"
)]
pub(crate) struct Change {
    /// Unique without regard to case.
    email: Option<String>,
    /// 1–200 characters.
    full_name: Option<String>,
    /// Role on the platform; for operators, as far as their own.
    role: Option<SystemRole>,
    /// Off, the user's logins, keys, invites, sessions and open streams end at once.
    active: Option<bool>,
    /// Whose account it is; for operators. `null`: nobody's.
    home_org_id: Option<OrgId>,
    /// Your password in force, for another `email` of your own where you have a password here.
    current_password: Option<String>,
}

/// Changes a user: oneself, those whose home the organization is for its admins, anybody of no higher role for operators.
#[utoipa::path(patch, path = "/api/v1/users/{id}", tag = "users", request_body = Change, params(("id" = String, Path)), responses(
    (status = 200, description = "the user", body = User),
    (status = 400, description = "bad fields, each named", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not yours to change", body = ErrorAnswer),
    (status = 404, description = "no such user, or not to be seen", body = ErrorAnswer),
    (status = 409, description = "the e-mail address is taken, or nobody else is admin", body = ErrorAnswer),
))]
pub(crate) async fn update(
    request: HttpRequest,
    context: Data<Context>,
    caller: Identified,
    id: Segment<UserId>,
    body: Body<UpdateUserRequest>,
) -> Result<Json<User>, Problem> {
    let (users, from) = (&context.services.users, source(&request, &context));
    let change = body.after(async || Ok(users.get(&caller.0, id.0).await.map(drop)?)).await?;
    Ok(Json(users.update(&caller.0, id.0, change, from).await?))
}

/// Deletes a user. The name stays taken; everything of theirs ends at once. Who owns an organization gives it away first.
#[utoipa::path(delete, path = "/api/v1/users/{id}", tag = "users", params(("id" = String, Path)), responses(
    (status = 204, description = "deleted"),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not yours to delete", body = ErrorAnswer),
    (status = 404, description = "no such user, or not to be seen", body = ErrorAnswer),
    (status = 409, description = "owns organizations, or nobody else is admin", body = ErrorAnswer),
))]
pub(crate) async fn delete(
    request: HttpRequest,
    context: Data<Context>,
    caller: Identified,
    id: Segment<UserId>,
) -> Result<HttpResponse, Problem> {
    context.services.users.delete(&caller.0, id.0, source(&request, &context)).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// A member's sessions in the organization, the newest first: one's own, or anybody's for those who manage sessions.
#[utoipa::path(get, path = "/api/v1/users/{id}/sessions", tag = "users", params(
    ("id" = String, Path),
    ("limit" = Option<u32>, Query, description = "1 to 100, default 50"),
    ("cursor" = Option<String>, Query, description = "`nextCursor` of the page before"),
), responses(
    (status = 200, description = "a page", body = Found),
    (status = 400, description = "bad query", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 404, description = "no such member, or not to be seen", body = ErrorAnswer),
))]
pub(crate) async fn sessions(
    context: Data<Context>,
    caller: Identified,
    id: Segment<UserId>,
    page: Query<Page>,
) -> Result<Json<Found>, Problem> {
    Ok(Json(context.services.sessions.list_of(caller.org()?, id.0, &page.0.0).await?.into()))
}
