//! `GET /style.css`.

use actix_web::{HttpResponse, http::header::CACHE_CONTROL};

/// What the pages look like.
pub(crate) async fn style() -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, "max-age=3600"))
        .content_type("text/css; charset=utf-8")
        .body(include_str!("../../../templates/style.css"))
}
