//! `POST keys/{id}/revoke`.

use actix_web::{
    HttpRequest,
    web::{Data, Json},
};
use serde::Serialize;
use tidegate_model::{ApiKey, ApiKeyId, Fields, FromFields};
use utoipa::ToSchema;

use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    source::source,
    valid::{Body, Segment},
};

/// Nothing more to say.
#[derive(Debug, ToSchema)]
#[schema(as = RevokeApiKey)]
pub(crate) struct Nothing {}

impl FromFields for Nothing {
    fn from_fields(_: &mut Fields) -> Option<Self> {
        Some(Self {})
    }
}

/// The key as it now stands.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RevokedApiKey)]
pub(crate) struct Revoked {
    /// The key.
    key: ApiKey,
}

/// Revokes a key of the organization: from the next request on it opens nothing, and the streams it opened end.
/// Revoking it again changes nothing.
#[utoipa::path(post, path = "/api/v1/keys/{id}/revoke", tag = "keys", request_body = Nothing,
    params(("id" = String, Path)), responses(
    (status = 200, description = "revoked, now or before", body = Revoked),
    (status = 400, description = "bad fields", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "another member's key, and not an admin of the organization", body = ErrorAnswer),
    (status = 404, description = "no such key in the organization of the request", body = ErrorAnswer),
))]
pub(crate) async fn revoke(
    request: HttpRequest,
    context: Data<Context>,
    caller: Identified,
    id: Segment<ApiKeyId>,
    body: Body<Nothing>,
) -> Result<Json<Revoked>, Problem> {
    let (keys, org) = (&context.services.keys, caller.org()?);
    body.after(async || Ok(keys.get(org, id.0).await.map(drop)?)).await?;
    let key = keys.revoke_api_key(org, id.0, source(&request, &context)).await?;
    Ok(Json(Revoked { key }))
}
