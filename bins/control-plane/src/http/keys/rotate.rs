//! `POST keys/{id}/rotate`.

use actix_web::{HttpRequest, HttpResponse, web::Data};
use chrono::{DateTime, Utc};
use tidegate_model::{ApiKeyId, Fields, FromFields};
use utoipa::ToSchema;

use super::answer::{Made, kept, made};
use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    idempotency::idempotency,
    source::source,
    valid::{Body, Segment},
};

/// How to rotate.
#[derive(Debug, ToSchema)]
#[schema(as = RotateApiKey, rename_all = "camelCase")]
pub(crate) struct Rotation {
    /// When the new key ends; after as long a time as the old one had, where it is absent.
    expires_at: Option<DateTime<Utc>>,
}

impl FromFields for Rotation {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        Some(Self { expires_at: fields.optional("expiresAt") })
    }
}

/// Puts a new key in the place of one of the caller's own, with the same label and scopes. The old one ends in the same
/// moment, and the new secret is shown this once.
#[utoipa::path(post, path = "/api/v1/keys/{id}/rotate", tag = "keys", request_body = Rotation,
    params(
        ("id" = String, Path),
        ("Idempotency-Key" = Option<String>, Header, description = "a repeat with the same key and body gets the first answer without the secret"),
    ), responses(
    (status = 201, description = "the new key", body = Made),
    (status = 400, description = "bad fields, each named", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "another member's key, not an admin of the organization, or a key wider than what rotates it", body = ErrorAnswer),
    (status = 404, description = "no such key in the organization of the request", body = ErrorAnswer),
    (status = 409, description = "it is revoked", body = ErrorAnswer),
    (status = 429, description = "too many keys are being made at this moment", body = ErrorAnswer),
))]
pub(crate) async fn rotate(
    request: HttpRequest,
    context: Data<Context>,
    caller: Identified,
    id: Segment<ApiKeyId>,
    body: Body<Rotation>,
) -> Result<HttpResponse, Problem> {
    let (keys, org) = (&context.services.keys, caller.org()?);
    let about = [id.0.to_string().as_bytes(), body.bytes()].concat();
    let rotation = body.after(async || Ok(keys.get(org, id.0).await.map(drop)?)).await?;
    let repeat = idempotency(&request, &caller, "POST keys/rotate", &about)?;
    let from = source(&request, &context);
    Ok(made(keys.rotate_api_key(org, id.0, rotation.expires_at, from, repeat.as_ref(), kept).await?))
}
