//! `POST admin/users`.

use actix_web::{HttpRequest, HttpResponse, web::Data};
use serde_json::json;
use tidegate_model::{CreateUserRequest, Fields, FromFields, OrgRole, PlatformUser, Provider, SystemRole};
use utoipa::ToSchema;

use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    idempotency::{again, idempotency},
    source::source,
    users::create::{Made, notice},
    valid::Body,
};

/// A user to make, in an organization or in none.
#[derive(Debug, ToSchema)]
#[schema(as = CreateUserForRequest, rename_all = "camelCase")]
#[expect(dead_code, reason = "the shape of `Wanted`, which is read field by field, for the OpenAPI document")]
pub(crate) struct New {
    /// Id or name of the organization that becomes the user's home.
    organization: Option<String>,
    /// 3–32 of `A-Z a-z 0-9 _ -`, unique on the platform without regard to case.
    username: String,
    /// Unique on the platform without regard to case.
    email: String,
    /// 1–200 characters.
    full_name: String,
    /// 8–256 characters, for local users.
    password: Option<String>,
    /// Role on the platform, as far as one's own. Default `user`.
    role: Option<SystemRole>,
    /// `local`, `saml` or `oidc`. Default `local`.
    provider: Option<Provider>,
    /// Role in the organization. Default `user`.
    org_role: Option<OrgRole>,
}

/// A body of this route.
#[derive(Debug)]
pub(crate) struct Wanted {
    organization: Option<String>,
    request: CreateUserRequest,
}

impl FromFields for Wanted {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let organization = fields.optional("organization");
        Some(Self { organization, request: CreateUserRequest::from_fields(fields)? })
    }
}

/// Makes a user. Nobody grants more than they hold.
#[utoipa::path(post, path = "/api/v1/admin/users", tag = "admin", request_body = New, params(
    ("Idempotency-Key" = Option<String>, Header, description = "a repeat with the same key and body gets the first answer"),
), responses(
    (status = 201, description = "made", body = Made<PlatformUser>),
    (status = 400, description = "bad fields, each named", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an operator, or a role above one's own", body = ErrorAnswer),
    (status = 404, description = "no such organization", body = ErrorAnswer),
    (status = 409, description = "the username or the e-mail address is taken", body = ErrorAnswer),
    (status = 429, description = "too many at a time", body = ErrorAnswer),
))]
pub(crate) async fn create_user(
    request: HttpRequest,
    context: Data<Context>,
    caller: Identified,
    body: Body<Wanted>,
) -> Result<HttpResponse, Problem> {
    let (users, from) = (&context.services.all_users, source(&request, &context));
    let operator = users.operator(&caller.0)?;
    let key = idempotency(&request, &caller, "POST admin/users", body.bytes())?;
    let Wanted { organization, request } = body.valid()?;
    let answer = |user: &PlatformUser| json!(Made { user, notice: notice(user.provider) });
    let made = users.create(&operator, request, organization.as_deref(), from, key.as_ref(), answer);
    Ok(match made.await? {
        tidegate_service::Made::New(user) => HttpResponse::Created().json(answer(&user)),
        tidegate_service::Made::Replay(replay) => again(replay),
    })
}
