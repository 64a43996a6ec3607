//! The header `Idempotency-Key` of requests that make something.

use actix_web::{HttpRequest, HttpResponse, http::StatusCode};
use tidegate_service::{Idempotency, Replay};

use super::{
    Problem,
    gate::{Identified, context},
};

/// The first answer once more.
pub(crate) fn again(replay: Replay) -> HttpResponse {
    HttpResponse::build(StatusCode::from_u16(replay.status).unwrap_or(StatusCode::OK)).json(replay.body)
}

/// The key a repeat is known by, scoped to the caller's credential and to `route`. `body` is whatever must be the same
/// for it to be a repeat.
pub(crate) fn idempotency(
    request: &HttpRequest,
    caller: &Identified,
    route: &'static str,
    body: &[u8],
) -> Result<Option<Idempotency>, Problem> {
    let Some(key) = request.headers().get("Idempotency-Key") else { return Ok(None) };
    // What is no text cannot be a key either, and is refused as one.
    let key = key.to_str().unwrap_or_default();
    let digest = context(request)?.services.fingerprint(body);
    Ok(Some(Idempotency::new(caller.0.credential(), route, key, &digest)?))
}
