//! What can go wrong, by what the caller can do about it.

use std::{fmt, io, time::Duration};

use reqwest::{Response, StatusCode, header::RETRY_AFTER};
use serde::Deserialize;
use tidegate_model::FieldErrors;

use crate::call::read_bounded;

/// Largest error answer that is read.
const ERROR_BODY: usize = 256 * 1024;

/// Why a call did not give its answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The control plane refused.
    #[error(transparent)]
    Api(#[from] Box<ApiError>),
    /// There is no credential to call with.
    #[error("not logged in to {0}: log in first")]
    NotLoggedIn(String),
    /// The credential is no longer good and cannot be renewed.
    #[error("the login has ended: log in again")]
    LoginEnded,
    /// Somebody refused the device.
    #[error("the login was refused in the browser")]
    DeviceDenied,
    /// The device was not let in while its codes were good.
    #[error("nobody has let this machine in while its code was good: log in again")]
    DeviceExpired,
    /// The control plane was not reached, or the connection to it was lost.
    #[error("cannot reach {url}: check the address and that the control plane runs")]
    Transport {
        /// The control plane's address.
        url: String,
        /// What the network said.
        #[source]
        source: reqwest::Error,
    },
    /// No answer in time.
    #[error("no answer from {url} within {} s: try again", .after.as_secs())]
    Timeout {
        /// The control plane's address.
        url: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// The answer is not what a control plane says.
    #[error("unexpected answer: {0}; check that the address is a control plane of this version")]
    Protocol(String),
    /// A stream broke.
    #[error("the stream broke")]
    Stream(#[source] Box<tokio_tungstenite::tungstenite::Error>),
    /// A setting cannot be used.
    #[error("{0}")]
    Setting(String),
    /// The token store failed.
    #[error("cannot read or write the stored login")]
    Store(#[source] io::Error),
}

impl Error {
    /// The refusal, where the control plane answered with one.
    pub fn api(&self) -> Option<&ApiError> {
        match self {
            Self::Api(error) => Some(error),
            _ => None,
        }
    }

    /// The refusal's status, where there is one.
    pub fn status(&self) -> Option<StatusCode> {
        self.api().map(|error| error.status)
    }

    /// Whether trying the same again later may work: the connection was lost, or something behind the control plane
    /// is away for now.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Transport { .. } | Self::Timeout { .. } | Self::Stream(_) => true,
            Self::Api(error) => matches!(error.status.as_u16(), 502..=504),
            Self::NotLoggedIn(_)
            | Self::LoginEnded
            | Self::DeviceDenied
            | Self::DeviceExpired
            | Self::Protocol(_)
            | Self::Setting(_)
            | Self::Store(_) => false,
        }
    }
}

impl From<tokio_tungstenite::tungstenite::Error> for Error {
    fn from(error: tokio_tungstenite::tungstenite::Error) -> Self {
        Self::Stream(Box::new(error))
    }
}

/// A refusal: `{"error": {"code", "message", "fields"?, "requestId"}}` with its status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// The status.
    pub status: StatusCode,
    /// The machine's word for it, `E_…`; `E_UNKNOWN` where something else answered (a proxy).
    pub code: String,
    /// The sentence for people.
    pub message: String,
    /// Every bad field of the request.
    pub fields: FieldErrors,
    /// What the control plane's log knows the request by.
    pub request_id: Option<String>,
    /// How long to wait before asking again.
    pub retry_after: Option<Duration>,
}

impl std::error::Error for ApiError {}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        // The message of a control plane names them already.
        if self.fields.iter().next().is_some() && !self.message.contains(&self.fields.to_string()) {
            write!(f, " ({})", self.fields)?;
        }
        if let Some(wait) = self.retry_after {
            write!(f, "; try again in {} s", wait.as_secs())?;
        }
        match &self.request_id {
            Some(id) if self.status.is_server_error() => write!(f, " [request {id}]"),
            _ => Ok(()),
        }
    }
}

#[derive(Deserialize)]
struct Envelope {
    error: Body,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    code: String,
    message: String,
    #[serde(default)]
    fields: FieldErrors,
    #[serde(default)]
    request_id: Option<String>,
}

/// A refusal in the words of RFC 6749, 5.2: what devices hear that are not let in yet.
#[derive(Deserialize)]
struct OAuthRefusal {
    error_description: String,
}

impl ApiError {
    /// Reads a refusal. What is no refusal of ours becomes one with code `E_UNKNOWN`.
    pub(crate) async fn read(response: Response) -> Self {
        let status = response.status();
        let retry_after = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok())
            .and_then(|text| text.parse().ok())
            .map(Duration::from_secs);
        let body = read_bounded(response, ERROR_BODY).await.unwrap_or_default();
        Self::parse(status, retry_after, &body)
    }

    pub(crate) fn parse(status: StatusCode, retry_after: Option<Duration>, body: &[u8]) -> Self {
        match serde_json::from_slice::<Envelope>(body) {
            Ok(Envelope { error }) => Self {
                status,
                code: error.code,
                message: error.message,
                fields: error.fields,
                request_id: error.request_id,
                retry_after,
            },
            Err(_) => Self {
                status,
                code: "E_UNKNOWN".to_owned(),
                message: serde_json::from_slice::<OAuthRefusal>(body).map_or_else(
                    |_| format!("the server answered {status} without a reason; check the address"),
                    |refusal| refusal.error_description,
                ),
                fields: FieldErrors::new(),
                request_id: None,
                retry_after,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_in_oauths_words_keeps_its_sentence() {
        let body = br#"{"error":"invalid_request","error_description":"use the https address"}"#;
        let error = ApiError::parse(StatusCode::BAD_REQUEST, None, body);
        assert_eq!((error.code.as_str(), error.message.as_str()), ("E_UNKNOWN", "use the https address"));
    }

    #[test]
    fn a_refusal_keeps_code_message_fields_and_request_id() {
        let body = br#"{"error":{"code":"E_INVALID","message":"the request has bad fields",
            "fields":{"name":"must have 1 to 100 characters"},"requestId":"r-1"}}"#;
        let error = ApiError::parse(StatusCode::BAD_REQUEST, None, body);
        assert_eq!((error.code.as_str(), error.request_id.as_deref()), ("E_INVALID", Some("r-1")));
        assert_eq!(error.to_string(), "the request has bad fields (name: must have 1 to 100 characters)");
    }

    #[test]
    fn an_answer_of_something_else_is_a_refusal_without_a_code() {
        let error = ApiError::parse(
            StatusCode::BAD_GATEWAY,
            Some(Duration::from_secs(3)),
            b"<html>bad gateway</html>",
        );
        assert_eq!(error.code, "E_UNKNOWN");
        assert!(error.to_string().ends_with("try again in 3 s"), "{error}");
    }
}
