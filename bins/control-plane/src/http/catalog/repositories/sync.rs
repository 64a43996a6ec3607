//! `POST catalog/repositories/{id}/sync` and `…/webhook`.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Payload},
};
use tidegate_model::{RepositoryId, SyncRequested};
use tokio::time::timeout;

use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    source::source,
    valid::{Segment, collect},
};

/// Asks for a sync, which begins as soon as a control plane can. The repository says how it went.
#[utoipa::path(post, path = "/api/v1/catalog/repositories/{id}/sync", tag = "catalog", params(("id" = i64, Path)), responses(
    (status = 202, description = "asked for; asked for again before it began it is the same one", body = SyncRequested),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an operator", body = ErrorAnswer),
    (status = 404, description = "no such repository", body = ErrorAnswer),
    (status = 409, description = "it is disabled", body = ErrorAnswer),
))]
pub(crate) async fn sync(
    context: Data<Context>,
    caller: Identified,
    id: Segment<RepositoryId>,
) -> Result<HttpResponse, Problem> {
    let requested = context.services.repositories.request_sync(&caller.0, id.0).await?;
    Ok(HttpResponse::Accepted().json(requested))
}

/// The server that a repository lies on says that it changed. The body is signed with the repository's `webhookSecret`:
/// its HMAC-SHA-256 in hexadecimal digits stands in `X-Hub-Signature-256`, as GitHub sends it, or in `X-Signature`.
/// Nobody is told whether there is such a repository.
#[utoipa::path(post, path = "/api/v1/catalog/repositories/{id}/webhook", tag = "catalog", params(
    ("id" = i64, Path),
    ("X-Hub-Signature-256" = Option<String>, Header, description = "`sha256=` and the digits"),
    ("X-Signature" = Option<String>, Header, description = "the digits"),
), request_body(content = String, content_type = "application/json", description = "whatever the server has to say; it is not read"), security(()), responses(
    (status = 202, description = "a sync is asked for", body = SyncRequested),
    (status = 401, description = "the signature does not fit", body = ErrorAnswer),
    (status = 413, description = "the body is too long", body = ErrorAnswer),
    (status = 429, description = "too many wrong signatures", body = ErrorAnswer),
))]
pub(crate) async fn webhook(
    request: HttpRequest,
    context: Data<Context>,
    id: Segment<RepositoryId>,
    body: Payload,
) -> Result<HttpResponse, Problem> {
    let reading = collect(body.into_inner(), context.limits.body_bytes);
    let body = timeout(context.body_time(), reading)
        .await
        .map_err(|_| Problem::of_status(actix_web::http::StatusCode::REQUEST_TIMEOUT))??;
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    let signature = header("X-Hub-Signature-256").or_else(|| header("X-Signature"));
    let from = source(&request, &context);
    let requested = context.services.repositories.webhook(id.0, &body, signature, from).await?;
    Ok(HttpResponse::Accepted().json(requested))
}
