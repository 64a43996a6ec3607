//! `POST auth/login`.

use actix_web::{
    HttpRequest,
    web::{Data, Json},
};
use chrono::{DateTime, Utc};
use serde::Serialize;
use tidegate_model::{LoginRequest, User};
use tidegate_service::LoggedIn;
use utoipa::ToSchema;

use crate::http::{Context, ErrorAnswer, Problem, source::source, valid::Body};

/// A name and its password.
#[derive(Debug, ToSchema)]
#[expect(
    dead_code,
    reason = "the shape of `LoginRequest`, which is read field by field, for the OpenAPI document"
)]
pub(crate) struct Login {
    /// Username, in any case.
    username: String,
    /// Password.
    password: String,
}

/// A fresh pair of tokens.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Tokens {
    /// Bearer token, good for some minutes.
    token: String,
    /// When it ends.
    expires_at: DateTime<Utc>,
    /// Good for one `auth/refresh`.
    refresh_token: String,
    /// Who logged in; `null` for a user without an organization.
    user: Option<User>,
}

impl From<LoggedIn> for Tokens {
    fn from(from: LoggedIn) -> Self {
        let LoggedIn { token, expires_at, refresh_token, user } = from;
        Self { token, expires_at, refresh_token, user }
    }
}

/// Logs in with a password. Whatever is wrong, the answer is the same, in words and time.
#[utoipa::path(post, path = "/api/v1/auth/login", tag = "auth", request_body = Login, security(()), responses(
    (status = 200, description = "logged in", body = Tokens),
    (status = 400, description = "a field is missing", body = ErrorAnswer),
    (status = 401, description = "username or password is wrong", body = ErrorAnswer),
    (status = 429, description = "too many attempts", body = ErrorAnswer),
))]
pub(crate) async fn login(
    request: HttpRequest,
    context: Data<Context>,
    body: Body<LoginRequest>,
) -> Result<Json<Tokens>, Problem> {
    let from = source(&request, &context);
    let tokens = context.services.logins.login(body.valid()?, from).await?;
    Ok(Json(tokens.into()))
}
