//! `POST /oauth/device/code`.

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{CACHE_CONTROL, PRAGMA},
    web::Data,
};
use serde::Serialize;
use tidegate_model::FieldErrors;
use utoipa::ToSchema;

use super::token::refuse_open;
use crate::http::{
    Context, ErrorAnswer, Problem,
    browser::{VERIFY, is_private},
    form::Parameters,
    origin,
    source::source,
};

/// Who asks.
#[derive(Debug, ToSchema)]
#[schema(as = DeviceRequest)]
#[expect(dead_code, reason = "the shape of a form or JSON object, for the OpenAPI document")]
pub(crate) struct Asked {
    /// What the device calls itself, at most 100 characters; shown to whoever lets it in.
    client_name: Option<String>,
}

/// A code pair.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeviceCodes)]
pub(crate) struct Codes {
    /// What the device polls `/oauth/device/token` with.
    device_code: String,
    /// What somebody compares or types.
    #[schema(example = "WDJB-MJHT")]
    user_code: String,
    /// Where.
    verification_uri: String,
    /// The same with the code in it.
    verification_uri_complete: String,
    /// Seconds until both codes end.
    expires_in: u32,
    /// Seconds between polls.
    interval: u16,
}

/// Makes a code pair for a device that wants to act for somebody (RFC 8628, 3.1 and 3.2). As a form or as JSON.
#[utoipa::path(post, path = "/oauth/device/code", tag = "auth", request_body = Asked, security(()), responses(
    (status = 200, description = "the codes", body = Codes),
    (status = 400, description = "the name is too long, or a parameter is given twice; or, as a `DeviceRefusal`, the connection is not encrypted", body = ErrorAnswer),
    (status = 429, description = "too many of this address, or too many at all", body = ErrorAnswer),
))]
pub(crate) async fn code(
    request: HttpRequest,
    context: Data<Context>,
    asked: Parameters,
) -> Result<HttpResponse, Problem> {
    let bad = |name: &str, what: &str| Problem::invalid(FieldErrors::one(name, what));
    if let Some(complaint) = asked.complaint() {
        return Err(bad("body", complaint));
    }
    if asked.is_odd("client_name") {
        return Err(bad("client_name", "must be a text"));
    }
    let own = origin::own(&request, &context).ok_or_else(|| bad("Host", "must name this server"))?;
    if !is_private(&request, &context) {
        return Ok(refuse_open());
    }
    let from = source(&request, &context);
    let name = asked.get("client_name").unwrap_or_default();
    let made = context.services.devices.create_device_code(name, from).await?;
    let (verification_uri, user_code) = (format!("{own}{VERIFY}"), made.user_code.to_string());
    let codes = Codes {
        device_code: made.device_code.into_inner(),
        verification_uri_complete: format!("{verification_uri}?user_code={user_code}"),
        user_code,
        verification_uri,
        expires_in: made.expires_in,
        interval: made.interval,
    };
    Ok(HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header((PRAGMA, "no-cache"))
        .json(codes))
}
