//! `POST auth/refresh`.

use actix_web::{
    HttpRequest,
    web::{Data, Json},
};
use tidegate_model::{Fields, FromFields, Secret};
use utoipa::ToSchema;

use super::login::Tokens;
use crate::http::{Context, ErrorAnswer, Problem, source::source, valid::Body};

/// The refresh token of the last answer.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "camelCase")]
pub(crate) struct Refresh {
    /// Good for one refresh; a repeat ends the login.
    #[schema(value_type = String)]
    refresh_token: Secret<String>,
}

impl FromFields for Refresh {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        Some(Self { refresh_token: fields.required("refreshToken")? })
    }
}

/// Exchanges a refresh token for a new pair of tokens.
#[utoipa::path(post, path = "/api/v1/auth/refresh", tag = "auth", request_body = Refresh, security(()), responses(
    (status = 200, description = "a new pair", body = Tokens),
    (status = 400, description = "a field is missing", body = ErrorAnswer),
    (status = 401, description = "the token was used or has ended", body = ErrorAnswer),
    (status = 429, description = "too many attempts", body = ErrorAnswer),
))]
pub(crate) async fn refresh(
    request: HttpRequest,
    context: Data<Context>,
    body: Body<Refresh>,
) -> Result<Json<Tokens>, Problem> {
    let from = source(&request, &context);
    let tokens = context.services.logins.refresh(&body.valid()?.refresh_token, from).await?;
    Ok(Json(tokens.into()))
}
