//! `GET /api/openapi.json` and `GET /api/docs`.

use std::fmt::Write as _;

use actix_web::{HttpResponse, web::Json};
use serde_json::Value;
use utoipa::openapi::OpenApi;

use super::{escaped, page};
use crate::http::openapi::document;

/// The OpenAPI document, made from the handlers.
pub(crate) async fn openapi() -> Json<OpenApi> {
    Json(document())
}

/// The same for people: every operation with what it does and what it answers.
pub(crate) async fn docs() -> HttpResponse {
    let document = serde_json::to_value(document()).unwrap_or_default();
    let mut body = String::from(
        "<h1>Tidegate API</h1><p>Every operation. The whole of it, with all fields, is the \
         <a href=\"/api/openapi.json\">OpenAPI document</a>.</p>",
    );
    let paths = document["paths"].as_object().cloned().unwrap_or_default();
    for (path, methods) in &paths {
        for (method, operation) in methods.as_object().into_iter().flatten() {
            describe(&mut body, method, path, operation);
        }
    }
    page("Tidegate API", &body)
}

fn describe(body: &mut String, method: &str, path: &str, operation: &Value) {
    let text = |value: &Value| escaped(value.as_str().unwrap_or_default());
    let (method, path) = (escaped(&method.to_uppercase()), escaped(path));
    // Writing into a String cannot fail.
    let _ =
        write!(body, "<h2><code>{method} {path}</code></h2><p>{}</p><table>", text(&operation["summary"]));
    for (status, response) in operation["responses"].as_object().into_iter().flatten() {
        let _ =
            write!(body, "<tr><td>{}</td><td>{}</td></tr>", escaped(status), text(&response["description"]));
    }
    body.push_str("</table>");
}
