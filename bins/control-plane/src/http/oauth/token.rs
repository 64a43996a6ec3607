//! `POST /oauth/device/token`.

use actix_web::{
    HttpRequest, HttpResponse, HttpResponseBuilder,
    http::{
        StatusCode,
        header::{CACHE_CONTROL, PRAGMA},
    },
    web::Data,
};
use serde::Serialize;
use tidegate_model::OrgId;
use tidegate_service::DeviceError;
use utoipa::ToSchema;

use crate::http::{
    Context, ErrorAnswer, Problem, browser::is_private, envelope::OwnShape, form::Parameters, source::source,
};

/// The one grant there is, where it is named at all.
const GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// A poll.
#[derive(Debug, ToSchema)]
#[schema(as = DevicePoll)]
#[expect(dead_code, reason = "the shape of a form or JSON object, for the OpenAPI document")]
pub(crate) struct Poll {
    /// The device's code.
    device_code: String,
    /// `urn:ietf:params:oauth:grant-type:device_code`, or nothing.
    grant_type: Option<String>,
}

/// The token.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeviceToken)]
pub(crate) struct Given {
    /// Brought as bearer token, shown this once.
    access_token: String,
    /// `Bearer`.
    token_type: &'static str,
    /// Seconds until it ends by itself.
    expires_in: u32,
    /// The organization that was chosen for it.
    account_id: OrgId,
}

/// Why there is no token, in RFC 8628's words.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeviceRefusal)]
pub(crate) struct Refusal {
    /// `authorization_pending`, `slow_down`, `access_denied`, `expired_token`, `invalid_grant`, `invalid_request` or
    /// `unsupported_grant_type`.
    error: &'static str,
    /// The sentence for people.
    error_description: String,
}

/// The device's poll (RFC 8628, 3.4 and 3.5): its token once somebody let it in. As a form or as JSON. `slow_down` asks
/// for five seconds more between polls from then on.
#[utoipa::path(post, path = "/oauth/device/token", tag = "auth", request_body = Poll, security(()), responses(
    (status = 200, description = "the token, once", body = Given),
    (status = 400, description = "no token, and why", body = Refusal),
    (status = 429, description = "too many unknown codes", body = ErrorAnswer),
))]
pub(crate) async fn token(
    request: HttpRequest,
    context: Data<Context>,
    poll: Parameters,
) -> Result<HttpResponse, Problem> {
    let refused = |error, words: &str| Ok(refuse(Refusal { error, error_description: words.to_owned() }));
    if !is_private(&request, &context) {
        return Ok(refuse_open());
    }
    if let Some(complaint) = poll.complaint() {
        return refused("invalid_request", complaint);
    }
    if poll.is_odd("grant_type") || poll.get("grant_type").is_some_and(|grant| grant != GRANT) {
        return refused("unsupported_grant_type", &format!("the grant_type is {GRANT}"));
    }
    let Some(device_code) = poll.get("device_code") else {
        return refused("invalid_request", "device_code is missing or no text");
    };
    let from = source(&request, &context);
    let error = match context.services.devices.consume_device_code(device_code, from).await {
        Ok(issued) => {
            return Ok(private(StatusCode::OK).json(Given {
                access_token: issued.token.into_inner(),
                token_type: "Bearer",
                expires_in: issued.expires_in,
                account_id: issued.org_id,
            }));
        }
        Err(DeviceError::Other(error)) => return Err(error.into()),
        Err(error) => error,
    };
    refused(word(&error), &error.to_string())
}

fn word(error: &DeviceError) -> &'static str {
    match error {
        DeviceError::Pending => "authorization_pending",
        DeviceError::SlowDown => "slow_down",
        DeviceError::Expired => "expired_token",
        DeviceError::Denied => "access_denied",
        DeviceError::NotFound => "invalid_grant",
        DeviceError::Other(_) => "server_error",
    }
}

/// The refusal of a connection that others can read along (RFC 8628, 3.1).
pub(super) fn refuse_open() -> HttpResponse {
    let words = "devices are let in over https, because this connection is not encrypted: use the https address, or set \
                 `tls.cert` and `tls.key`, or `public_url` where a proxy in front speaks TLS";
    refuse(Refusal { error: "invalid_request", error_description: words.to_owned() })
}

fn refuse(refusal: Refusal) -> HttpResponse {
    let mut response = private(StatusCode::BAD_REQUEST).json(refusal);
    response.extensions_mut().insert(OwnShape);
    response
}

fn private(status: StatusCode) -> HttpResponseBuilder {
    let mut response = HttpResponseBuilder::new(status);
    response.insert_header((CACHE_CONTROL, "no-store")).insert_header((PRAGMA, "no-cache"));
    response
}
