//! `DELETE auth/tokens/{id}`.

use actix_web::{
    HttpRequest,
    web::{Data, Json},
};
use serde::Serialize;
use tidegate_model::{BearerToken, BearerTokenId};
use utoipa::ToSchema;

use crate::http::{Context, ErrorAnswer, Problem, gate::Identified, source::source, valid::Segment};

/// The token as it now stands.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RevokedBearerToken)]
pub(crate) struct Revoked {
    /// The token.
    token: BearerToken,
}

/// Revokes a token of the caller's: from the next request on it opens nothing, and the streams it opened end. Revoking
/// it again changes nothing.
#[utoipa::path(delete, path = "/api/v1/auth/tokens/{id}", tag = "auth", params(("id" = String, Path)), responses(
    (status = 200, description = "revoked, now or before", body = Revoked),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "the credential is an API key", body = ErrorAnswer),
    (status = 404, description = "no such token of the caller's", body = ErrorAnswer),
))]
pub(crate) async fn revoke(
    request: HttpRequest,
    context: Data<Context>,
    caller: Identified,
    id: Segment<BearerTokenId>,
) -> Result<Json<Revoked>, Problem> {
    let from = source(&request, &context);
    let token = context.services.bearer_tokens.revoke(&caller.0, id.0, from).await?;
    Ok(Json(Revoked { token }))
}
