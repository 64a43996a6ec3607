//! `GET /metrics`.

use actix_web::{HttpRequest, HttpResponse, web::Data};

use crate::http::{Context, ErrorAnswer, Problem, gate::bearer_of};

/// Figures for Prometheus: with `metrics.token` for whoever brings it, without it for programs of this machine.
#[utoipa::path(get, path = "/metrics", tag = "operations", security((), ("bearer" = [])), responses(
    (status = 200, description = "the figures", body = String, content_type = "text/plain"),
    (status = 401, description = "the token is missing or wrong", body = ErrorAnswer),
    (status = 403, description = "asked from another machine, and no token is set", body = ErrorAnswer),
))]
pub(crate) async fn metrics(request: HttpRequest, context: Data<Context>) -> Result<HttpResponse, Problem> {
    match &context.metrics_token {
        Some(token) => {
            let brought = bearer_of(request.headers()).unwrap_or_default();
            if !same(brought.as_bytes(), token.expose().as_bytes()) {
                return Err(Problem::unauthenticated("bring `metrics.token` as bearer token"));
            }
        }
        None if is_local(&request) => {}
        None => {
            return Err(Problem::forbidden("set `metrics.token` to read the metrics from other machines"));
        }
    }
    Ok(HttpResponse::Ok().content_type("text/plain; version=0.0.4").body(context.metrics.render()))
}

/// Whether a program of this machine asks, and not a proxy of this machine for somebody else.
pub(crate) fn is_local(request: &HttpRequest) -> bool {
    let forwarded = ["X-Forwarded-For", "Forwarded", "Via"];
    let direct = !forwarded.iter().any(|name| request.headers().contains_key(*name));
    direct && request.peer_addr().is_some_and(|peer| peer.ip().to_canonical().is_loopback())
}

/// Compares without telling by its time where the difference is.
fn same(left: &[u8], right: &[u8]) -> bool {
    let difference = left.iter().zip(right).fold(0, |sum, (left, right)| sum | (left ^ right));
    left.len() == right.len() && difference == 0
}
