//! `POST organizations/{id}/keys`.

use actix_web::{HttpRequest, HttpResponse, web::Data};
use chrono::{DateTime, Utc};
use tidegate_model::{NewApiKey, Scopes};
use utoipa::ToSchema;

use super::answer::{Made, kept, made};
use crate::http::{
    Context, ErrorAnswer, Problem, gate::Identified, idempotency::idempotency, source::source, valid::Body,
};

/// The key that is asked for.
#[derive(Debug, ToSchema)]
#[schema(as = NewApiKey, rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "the shape of `NewApiKey`, which is read field by field, for the OpenAPI document"
)]
pub(crate) struct New {
    /// What it is for, 1–100 characters.
    label: String,
    /// What it may be used for; `["*"]`, everything inside the organization, where it is absent.
    #[schema(required = false)]
    scopes: Scopes,
    /// When it ends by itself; never where it is absent.
    expires_at: Option<DateTime<Utc>>,
}

/// Makes an API key that acts as the caller inside this organization. It may do nothing that the caller's own
/// credential may not, and its secret is shown this once.
#[utoipa::path(post, path = "/api/v1/organizations/{id}/keys", tag = "keys", request_body = New,
    params(
        ("id" = String, Path, description = "id or name of the organization"),
        ("Idempotency-Key" = Option<String>, Header, description = "a repeat with the same key and body gets the first answer without the secret"),
    ), responses(
    (status = 201, description = "made", body = Made),
    (status = 400, description = "bad fields, each named", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an admin of the organization, or the key would be wider than what makes it", body = ErrorAnswer),
    (status = 404, description = "not a member of the organization", body = ErrorAnswer),
    (status = 409, description = "the idempotency key was used with another body", body = ErrorAnswer),
    (status = 429, description = "too many keys are being made at this moment", body = ErrorAnswer),
))]
pub(crate) async fn create(
    request: HttpRequest,
    context: Data<Context>,
    caller: Identified,
    body: Body<NewApiKey>,
) -> Result<HttpResponse, Problem> {
    let (keys, org) = (&context.services.keys, caller.org()?);
    let about = [org.org_id().to_string().as_bytes(), body.bytes()].concat();
    let new = body.after(async || Ok(keys.check_manager(org).await?)).await?;
    let repeat = idempotency(&request, &caller, "POST organizations/keys", &about)?;
    let from = source(&request, &context);
    Ok(made(keys.insert_api_key(org, &new, from, repeat.as_ref(), kept).await?))
}
