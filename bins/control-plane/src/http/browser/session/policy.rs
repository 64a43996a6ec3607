//! What a session's page may load, run and speak to: its own files, its own streams, and the frame of its application.

use tidegate_model::StreamKind;

use crate::http::origin::Origin;

/// The policy of a page at this origin, whose application has that one. `nonce` is what the terminal's own style elements
/// carry.
pub(super) fn of(
    own: Option<&Origin>,
    application: Option<&Origin>,
    kind: StreamKind,
    nonce: &str,
) -> String {
    // Older browsers do not count WebSockets among `'self'`.
    let sockets = own.map(|own| own.socket("")).unwrap_or_default();
    let (images, frames, forms) = match kind {
        StreamKind::Terminal => ("'self'", "'none'".to_owned(), "'self'".to_owned()),
        // The desktop's pictures and cursors arrive in its stream.
        StreamKind::Vnc => ("'self' data:", "'none'".to_owned(), "'self'".to_owned()),
        // A form brings the ticket to where the frame is, and is led on from there.
        StreamKind::Http => ("'self'", content(application), content(application)),
    };
    [
        "default-src 'none'".to_owned(),
        "script-src 'self'".to_owned(),
        format!("style-src 'self' 'nonce-{nonce}'"),
        format!("img-src {images}"),
        format!("connect-src 'self' {sockets}").trim_end().to_owned(),
        format!("frame-src {frames}"),
        format!("form-action {forms}"),
        "base-uri 'none'".to_owned(),
        "frame-ancestors 'none'".to_owned(),
        "require-trusted-types-for 'script'".to_owned(),
    ]
    .join("; ")
}

/// Where a session's application may be.
fn content(application: Option<&Origin>) -> String {
    application.map_or_else(|| "'none'".to_owned(), Origin::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_page_may_what_it_needs_and_no_more() {
        let (own, other) =
            (Origin::of_url("http://127.0.0.1:8080"), Origin::of_url("http://a.localhost:8080/enter"));
        let policy = |kind| of(own.as_ref(), other.as_ref(), kind, "n0nce");
        let terminal = policy(StreamKind::Terminal);
        assert_eq!(
            terminal,
            "default-src 'none'; script-src 'self'; style-src 'self' 'nonce-n0nce'; img-src 'self'; \
             connect-src 'self' ws://127.0.0.1:8080; frame-src 'none'; form-action 'self'; base-uri 'none'; \
             frame-ancestors 'none'; require-trusted-types-for 'script'"
        );
        let desktop = policy(StreamKind::Vnc);
        assert_eq!(desktop.replace(" data:", ""), terminal);
        let application = policy(StreamKind::Http);
        for directive in ["frame-src", "form-action"] {
            assert!(application.contains(&format!("{directive} http://a.localhost:8080;")), "{application}");
        }
        assert!(!application.contains("data:"), "{application}");
    }
}
