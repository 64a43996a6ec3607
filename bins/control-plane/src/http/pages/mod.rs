//! What stands beside the API: for people who just arrived, for probes, for Prometheus, for generators of clients.

pub(crate) mod docs;
pub(crate) mod health;
pub(crate) mod landing;
pub(crate) mod metrics;

pub(crate) use docs::{docs, openapi};
pub(crate) use health::{healthz, readyz};
pub(crate) use landing::landing;
pub(crate) use metrics::metrics;

/// Text as it may stand in HTML.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// A page that loads nothing from anywhere and runs nothing.
fn page(title: &str, body: &str) -> actix_web::HttpResponse {
    let style = include_str!("page.css");
    let title = escaped(title);
    actix_web::HttpResponse::Ok()
        .insert_header(("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"))
        .content_type("text/html; charset=utf-8")
        .body(format!(
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
             content=\"width=device-width\"><title>{title}</title><style>{style}</style></head><body>{body}</body></html>"
        ))
}
