//! `GET applications/{id}/icon`.

use actix_web::{
    HttpResponse,
    http::header::{
        CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS,
    },
    web::Data,
};
use tidegate_model::ApplicationId;

use crate::http::{Context, ErrorAnswer, Problem, gate::Identified, valid::Segment};

/// What a browser may be told that a picture is. Everything else goes as bytes, which it shows to nobody.
const PICTURES: [&str; 5] = ["image/png", "image/jpeg", "image/gif", "image/webp", "image/svg+xml"];

/// The picture of an application. It came from a stranger: no type is guessed, and as a page of its own it may do nothing.
#[utoipa::path(get, path = "/api/v1/applications/{id}/icon", tag = "applications", params(("id" = String, Path)), responses(
    (status = 200, description = "the picture", content_type = "image/*", body = Vec<u8>),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 404, description = "no such application, not for the caller, or it has none", body = ErrorAnswer),
))]
pub(crate) async fn icon(
    context: Data<Context>,
    caller: Identified,
    id: Segment<ApplicationId>,
) -> Result<HttpResponse, Problem> {
    let icon = context.services.applications.icon(caller.org()?, id.0).await?;
    let known = PICTURES.iter().find(|known| **known == icon.media_type);
    Ok(HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, known.copied().unwrap_or("application/octet-stream")))
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
        // Opened by itself, an SVG is a document: without scripts, styles from elsewhere, or an origin.
        .insert_header((
            CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; sandbox",
        ))
        .insert_header((CONTENT_DISPOSITION, "inline; filename=\"icon\""))
        // Who may see it may change: kept by the browser alone, and not for long.
        .insert_header((CACHE_CONTROL, "private, max-age=300"))
        .body(icon.content))
}
