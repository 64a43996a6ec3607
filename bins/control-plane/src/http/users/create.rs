//! `POST users`.

use actix_web::{HttpRequest, HttpResponse, web::Data};
use serde::Serialize;
use serde_json::json;
use tidegate_model::{CreateUserRequest, OrgRole, Provider, SystemRole, User};
use tidegate_service::MadeUser;
use utoipa::ToSchema;

use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    idempotency::{again, idempotency},
    source::source,
    valid::Body,
};

/// A user to make.
#[derive(Debug, ToSchema)]
#[schema(as = CreateUserRequest, rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "the shape of `CreateUserRequest`, which is read field by field, for the OpenAPI document"
)]
pub(crate) struct New {
    /// 3–32 of `A-Z a-z 0-9 _ -`, unique on the platform without regard to case.
    username: String,
    /// Unique on the platform without regard to case.
    email: String,
    /// 1–200 characters.
    full_name: String,
    /// 8–256 characters, for local users.
    password: Option<String>,
    /// Role on the platform; operators give others than `user`, under `admin/users`.
    role: Option<SystemRole>,
    /// `local`, `saml` or `oidc`. Default `local`.
    provider: Option<Provider>,
    /// Role in the organization. Default `user`.
    org_role: Option<OrgRole>,
}

/// A user that was made.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Made<T> {
    /// The user.
    #[serde(flatten)]
    pub(crate) user: T,
    /// What stands in the way of a login, where something does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) notice: Option<&'static str>,
}

/// Says so where users of a provider cannot log in yet.
pub(crate) fn notice(provider: Provider) -> Option<&'static str> {
    let saml = "this user is kept and cannot log in: sign-in with SAML is not built yet";
    (provider == Provider::Saml).then_some(saml)
}

/// Makes a user whose home is the organization: its admins may change and end the account.
#[utoipa::path(post, path = "/api/v1/users", tag = "users", request_body = New, params(
    ("Idempotency-Key" = Option<String>, Header, description = "a repeat with the same key and body gets the first answer"),
), responses(
    (status = 201, description = "made", body = Made<User>),
    (status = 400, description = "bad fields, each named", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an org_admin, or a role above one's own", body = ErrorAnswer),
    (status = 404, description = "not a member of the organization", body = ErrorAnswer),
    (status = 409, description = "the username or the e-mail address is taken", body = ErrorAnswer),
    (status = 429, description = "too many at a time", body = ErrorAnswer),
))]
pub(crate) async fn create(
    request: HttpRequest,
    context: Data<Context>,
    caller: Identified,
    body: Body<CreateUserRequest>,
) -> Result<HttpResponse, Problem> {
    let (users, org, from) = (&context.services.users, caller.org()?, source(&request, &context));
    let key = idempotency(&request, &caller, "POST users", body.bytes())?;
    let new = body.after(async || Ok(users.check_manager(org)?)).await?;
    let answer = |user: &User| json!(Made { user, notice: notice(user.provider) });
    Ok(match users.create(org, new, from, key.as_ref(), answer).await? {
        MadeUser::New(user) => HttpResponse::Created().json(answer(&user)),
        MadeUser::Replay(replay) => again(replay),
    })
}
