//! `ANY plugins/{name}/api/{path}`: what `api` plugins answer.

use actix_web::{
    HttpRequest, HttpResponse,
    http::{
        StatusCode,
        header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, X_CONTENT_TYPE_OPTIONS},
    },
    web::{Data, Path, Payload, Query},
};
use serde_json::{Map, Value};
use tidegate_service::PluginAsked;
use tokio::time::timeout;

use crate::http::{Context, ErrorAnswer, Problem, gate::Identified, valid::collect};

/// Asks a plugin, whatever the method. It is told who asks and in which organization, and never by what credential.
#[utoipa::path(get, path = "/api/v1/plugins/{name}/api/{path}", tag = "plugins", params(
    ("name" = String, Path, description = "the plugin"), ("path" = String, Path, description = "what of it"),
), responses(
    (status = 200, description = "what the plugin answers; it chooses the status, too"),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 404, description = "no such plugin runs for the organization", body = ErrorAnswer),
    (status = 502, description = "the plugin failed", body = ErrorAnswer),
    (status = 503, description = "too many plugins run at this moment", body = ErrorAnswer),
))]
pub(crate) async fn ask(
    request: HttpRequest,
    context: Data<Context>,
    caller: Identified,
    path: Path<(String, String)>,
    payload: Payload,
) -> Result<HttpResponse, Problem> {
    let reading = collect(payload.into_inner(), context.limits.body_bytes);
    let bytes = timeout(context.body_time(), reading).await;
    let bytes = bytes.map_err(|_| Problem::of_status(StatusCode::REQUEST_TIMEOUT))??;
    let body = match bytes.as_ref() {
        [] => Value::Null,
        bytes => serde_json::from_slice(bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(bytes).into_owned())),
    };
    let query: Map<String, Value> = Query::<Vec<(String, String)>>::from_query(request.query_string())
        .map(|query| {
            query.into_inner().into_iter().map(|(name, value)| (name, Value::String(value))).collect()
        })
        .unwrap_or_default();
    let (name, path) = path.into_inner();
    let asked = PluginAsked { method: request.method().to_string(), path: format!("/{path}"), query, body };
    let answer = context.services.plugins.ask(caller.org()?, &name, asked).await?;
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    Ok(HttpResponse::build(status)
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((CONTENT_SECURITY_POLICY, "sandbox; default-src 'none'"))
        .content_type(answer.content_type)
        .body(answer.body))
}
