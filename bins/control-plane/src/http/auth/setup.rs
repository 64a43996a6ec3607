//! `POST auth/setup`.

use actix_web::{
    HttpRequest,
    web::{Data, Json},
};
use serde::Serialize;
use tidegate_model::{
    Fields, FromFields, OrgId, Secret, SystemRole, User, UserId, validate_org_name, validate_password,
};
use tidegate_service::{NewLocalUser, Operator};
use utoipa::ToSchema;

use crate::http::{Context, ErrorAnswer, Problem, gate::origin_of, origin, source::source, valid::Body};

/// The first admin, and the organization that is theirs.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "camelCase")]
pub(crate) struct Setup {
    /// 3–32 of `A-Z a-z 0-9 _ -`. Default `admin`.
    #[schema(value_type = Option<String>)]
    username: String,
    /// 8–256 characters.
    #[schema(value_type = String)]
    password: Secret<String>,
    /// The password again.
    #[schema(value_type = String)]
    #[expect(dead_code, reason = "compared when it is read, and named in the OpenAPI document")]
    password_confirm: Secret<String>,
    /// RFC 5322 addr-spec.
    email: String,
    /// Name of the first organization, 3–50 of `a-z 0-9 -`. Default `main`.
    #[schema(value_type = Option<String>)]
    organization: String,
}

impl FromFields for Setup {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let username = fields.optional("username").unwrap_or_else(|| "admin".to_owned());
        let password: Option<String> = fields.required("password");
        let confirmed: Option<String> = fields.required("passwordConfirm");
        let email: Option<String> = fields.required("email");
        let organization = fields.optional("organization").unwrap_or_else(|| "main".to_owned());
        let errors = fields.errors();
        if let Err(complaints) = User::check_new(&username, email.as_deref(), &username) {
            // The full name is the username until somebody says otherwise: its complaint would be about no field.
            complaints
                .iter()
                .filter(|(name, _)| *name != "fullName")
                .for_each(|(name, what)| errors.add(name, what));
        }
        errors.check("organization", validate_org_name(&organization));
        if let Some(password) = &password {
            errors.check("password", validate_password(password, &username));
            if confirmed.as_ref().is_some_and(|confirmed| confirmed != password) {
                errors.add("passwordConfirm", "is not the same as password");
            }
        }
        let (password, password_confirm) = (Secret::new(password?), Secret::new(confirmed?));
        Some(Self { username, password, password_confirm, email: email?, organization })
    }
}

/// What the setup made.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SetUp {
    /// The admin, who can log in now.
    user_id: UserId,
    /// Their name.
    username: String,
    /// The organization they own.
    org_id: OrgId,
    /// Its name.
    organization: String,
}

/// Makes the first admin and their organization, once: of several at a time exactly one succeeds.
#[utoipa::path(post, path = "/api/v1/auth/setup", tag = "auth", request_body = Setup, security(()), responses(
    (status = 200, description = "set up; log in now", body = SetUp),
    (status = 400, description = "bad fields, each named", body = ErrorAnswer),
    (status = 403, description = "asked from a page of another site", body = ErrorAnswer),
    (status = 409, description = "somebody is admin already", body = ErrorAnswer),
    (status = 429, description = "too many at a time", body = ErrorAnswer),
))]
pub(crate) async fn setup(
    request: HttpRequest,
    context: Data<Context>,
    body: Body<Setup>,
) -> Result<Json<SetUp>, Problem> {
    // The one change that needs no credential: a page of somebody else must not make it through a visitor's browser.
    origin::check(&request, &context)?;
    let setup = body.valid()?;
    let admin = NewLocalUser {
        username: setup.username.clone(),
        email: Some(setup.email),
        full_name: setup.username.clone(),
        password: setup.password,
        role: SystemRole::Admin,
    };
    let operators = &context.services.operators;
    let system = Operator::system().with_origin(origin_of(&request, source(&request, &context)));
    let made = operators.bootstrap(&system, &setup.organization, admin).await?;
    let (username, organization) = (setup.username, setup.organization);
    Ok(Json(SetUp { user_id: made.user_id, username, org_id: made.org_id, organization }))
}
