//! `GET /healthz` and `GET /readyz`.

use actix_web::{HttpResponse, web::Data};

use crate::{
    health::Readiness,
    http::{Context, envelope::OwnShape},
};

/// Whether the process runs.
#[utoipa::path(get, path = "/healthz", tag = "operations", security(()), responses(
    (status = 200, description = "it runs", body = String, content_type = "text/plain"),
))]
pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether requests should be sent here.
#[utoipa::path(get, path = "/readyz", tag = "operations", security(()), responses(
    (status = 200, description = "ready", body = Readiness),
    (status = 503, description = "not ready, and why", body = Readiness),
))]
pub(crate) async fn readyz(context: Data<Context>) -> HttpResponse {
    let readiness = context.probe.look(&context.services, context.shutdown.is_cancelled()).await;
    let mut response = if readiness.ready {
        HttpResponse::Ok().json(readiness)
    } else {
        HttpResponse::ServiceUnavailable().json(readiness)
    };
    response.extensions_mut().insert(OwnShape);
    response
}
