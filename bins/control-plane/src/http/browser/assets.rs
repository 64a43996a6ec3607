//! `GET /assets/{name}`: what the pages run in a browser, as `build.rs` bundled it. A file's name has its content's hash
//! in it, so that whoever has it never asks again.

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{
        ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, ETAG, HeaderName, IF_NONE_MATCH, VARY,
        X_CONTENT_TYPE_OPTIONS,
    },
    web::Path,
};

use crate::http::Problem;

/// A file of the bundle.
struct Asset {
    name: &'static str,
    kind: &'static str,
    /// Of its content.
    tag: &'static str,
    /// Whether another content would have another name.
    immutable: bool,
    plain: &'static [u8],
    gzip: &'static [u8],
}

include!(concat!(env!("OUT_DIR"), "/assets/assets.rs"));

const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// Where the session page's script is.
pub(super) fn script() -> String {
    format!("/assets/{SCRIPT}")
}

/// Where the session page's style is.
pub(super) fn style() -> String {
    format!("/assets/{STYLE}")
}

/// A file of the bundle.
pub(crate) async fn asset(request: HttpRequest, name: Path<String>) -> Result<HttpResponse, Problem> {
    let found = ASSETS.iter().find(|asset| asset.name == *name);
    let asset = found.ok_or_else(|| Problem::of_status(actix_web::http::StatusCode::NOT_FOUND))?;
    let lists = |header: HeaderName, wanted: &str| {
        let lines = request.headers().get_all(header).filter_map(|line| line.to_str().ok());
        lines.flat_map(|line| line.split(',')).any(|item| item.trim() == wanted)
    };
    let tag = format!("\"{}\"", asset.tag);
    let kept = lists(IF_NONE_MATCH, &tag) || lists(IF_NONE_MATCH, &format!("W/{tag}"));
    let mut response = if kept { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    let cache = if asset.immutable { "public, max-age=31536000, immutable" } else { "public, max-age=3600" };
    response
        .insert_header((CACHE_CONTROL, cache))
        // Weak, because both encodings have it.
        .insert_header((ETAG, format!("W/{tag}")))
        .insert_header((VARY, "Accept-Encoding"))
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((CROSS_ORIGIN_RESOURCE_POLICY, "same-origin"));
    if kept {
        return Ok(response.finish());
    }
    response.content_type(asset.kind);
    if lists(ACCEPT_ENCODING, "gzip") {
        return Ok(response.insert_header((CONTENT_ENCODING, "gzip")).body(asset.gzip));
    }
    Ok(response.body(asset.plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundle_is_whole_and_says_whose_it_is() {
        for entry in [SCRIPT, STYLE] {
            let asset = ASSETS.iter().find(|asset| asset.name == entry).unwrap();
            assert!(asset.immutable && asset.plain.len() > 1_000 && asset.gzip.len() < asset.plain.len());
        }
        let licenses = ASSETS.iter().find(|asset| asset.name == "licenses.txt").unwrap();
        assert!(!licenses.immutable, "its name stays when it changes");
        let text = std::str::from_utf8(licenses.plain).unwrap();
        for owed in
            ["@xterm/xterm 6", "@novnc/novnc 1", "Mozilla Public License", "Permission is hereby granted"]
        {
            assert!(text.contains(owed), "{owed}");
        }
    }

    #[test]
    fn scripts_load_nothing_from_other_places() {
        for asset in ASSETS.iter().filter(|asset| asset.kind.starts_with("text/javascript")) {
            let text = std::str::from_utf8(asset.plain).unwrap();
            for foreign in ["from\"http", "import(\"http", "importScripts(", "new Function(", "eval("] {
                assert!(!text.contains(foreign), "{}: {foreign}", asset.name);
            }
        }
    }
}
