//! What a session's page may load, run and speak to: its own files, its own streams, and the frame of its application.

use actix_web::HttpRequest;
use tidegate_model::{Session, StreamKind};

use crate::http::{Context, origin};

/// The policy of a page. `nonce` is what the terminal's own style elements carry.
pub(super) fn of(
    request: &HttpRequest,
    context: &Context,
    session: &Session,
    kind: StreamKind,
    nonce: &str,
) -> String {
    let own = origin::own(request, context);
    // Older browsers do not count WebSockets among `'self'`.
    let sockets = own.as_ref().map(|own| own.socket("")).unwrap_or_default();
    let (images, frames) = match kind {
        StreamKind::Terminal => (String::new(), String::new()),
        // The desktop's pictures and cursors arrive in its stream.
        StreamKind::Vnc => (" data:".to_owned(), String::new()),
        StreamKind::Http => (String::new(), content(own.as_ref(), session)),
    };
    [
        "default-src 'none'",
        "script-src 'self'",
        &format!("style-src 'self' 'nonce-{nonce}'"),
        &format!("img-src 'self'{images}"),
        &format!("connect-src 'self' {sockets}"),
        &format!("frame-src {}", if frames.is_empty() { "'none'" } else { &frames }),
        &format!("form-action 'self' {frames}"),
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    ]
    .map(str::trim_end)
    .join("; ")
}

/// The origins a session's application may have.
fn content(own: Option<&origin::Origin>, session: &Session) -> String {
    let of_session = own.and_then(|own| own.loopback_name(&session.id.to_string()));
    let origins = of_session.into_iter().map(|origin| origin.to_string());
    ["'self'".to_owned()].into_iter().chain(origins).collect::<Vec<_>>().join(" ")
}
