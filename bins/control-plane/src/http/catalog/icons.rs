//! `GET catalog/icons/{digest}`: pictures that strangers drew.
//!
//! A picture is never anything else than a picture here: its type is one of a few and not guessed, and what an SVG may do is
//! taken from it by its policy instead of by rewriting it: a sanitiser would have to know every way in which a browser reads
//! SVG, a sandbox without scripts, forms, origin and network needs to know none. Whoever opens one by itself gets a download.

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{
        CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, ETAG, HeaderName, IF_NONE_MATCH,
        X_CONTENT_TYPE_OPTIONS,
    },
    web::Data,
};
use tidegate_model::BlobDigest;

use crate::http::{Context, ErrorAnswer, Problem, gate::Identified, valid::Segment};

const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; sandbox";
/// What is served as what it says it is, and what it is called as a file.
const TYPES: &[(&str, &str)] = &[
    ("image/gif", "gif"),
    ("image/jpeg", "jpg"),
    ("image/png", "png"),
    ("image/svg+xml", "svg"),
    ("image/webp", "webp"),
];

/// An icon of the catalog. Its address is made of its content's digest, so that whoever has it need never ask again.
#[utoipa::path(get, path = "/api/v1/catalog/icons/{digest}", tag = "catalog", params(
    ("digest" = String, Path, description = "SHA-256, 64 hexadecimal digits; stands in `iconUrl`"),
), responses(
    (status = 200, description = "the picture, immutable; an SVG is sandboxed", content_type = "image/*"),
    (status = 304, description = "the caller has it"),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 404, description = "no such icon", body = ErrorAnswer),
))]
pub(crate) async fn icon(
    request: HttpRequest,
    context: Data<Context>,
    caller: Identified,
    digest: Segment<BlobDigest>,
) -> Result<HttpResponse, Problem> {
    let file = context.services.catalog.icon(&caller.0, digest.0).await?;
    let icon = Picture { media_type: &file.media_type, content: file.content, tag: digest.0.to_string() };
    icon.answer(&request, IMMUTABLE)
}

/// What never changes at its address. Only whoever is logged in gets it: no cache in between keeps it for others.
pub(crate) const IMMUTABLE: &str = "private, max-age=31536000, immutable";
/// What is asked for again each time, and not sent again where it is the same.
pub(crate) const ASKED_AGAIN: &str = "private, no-cache";

/// A picture of a stranger's.
pub(crate) struct Picture<'a> {
    pub(crate) media_type: &'a str,
    pub(crate) content: Vec<u8>,
    /// Another one for another picture.
    pub(crate) tag: String,
}

impl Picture<'_> {
    /// Serves it as a picture and nothing else; not found where it is none.
    pub(crate) fn answer(
        self,
        request: &HttpRequest,
        kept_for: &'static str,
    ) -> Result<HttpResponse, Problem> {
        let tag = format!("\"{}\"", self.tag);
        let known = TYPES.iter().find(|(media_type, _)| *media_type == self.media_type);
        let (media_type, ending) =
            known.ok_or_else(|| Problem::of_status(actix_web::http::StatusCode::NOT_FOUND))?;
        let lines = request.headers().get_all(IF_NONE_MATCH).filter_map(|line| line.to_str().ok());
        let kept = lines.flat_map(|line| line.split(',')).any(|item| {
            let item = item.trim();
            item == "*" || item.trim_start_matches("W/") == tag
        });
        let mut response = if kept { HttpResponse::NotModified() } else { HttpResponse::Ok() };
        response
            .insert_header((CACHE_CONTROL, kept_for))
            .insert_header((ETAG, tag))
            .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
            .insert_header((CONTENT_SECURITY_POLICY, POLICY))
            .insert_header((CROSS_ORIGIN_RESOURCE_POLICY, "same-origin"));
        if kept {
            return Ok(response.finish());
        }
        let disposition = format!("attachment; filename=\"icon.{ending}\"");
        Ok(response
            .insert_header((CONTENT_DISPOSITION, disposition))
            .content_type(*media_type)
            .body(self.content))
    }
}
