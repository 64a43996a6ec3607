//! From a refusal to a status: the one place where both are known.

use std::{borrow::Cow, fmt, sync::Arc};

use actix_web::{
    HttpResponse, HttpResponseBuilder, ResponseError,
    http::{
        StatusCode,
        header::{RETRY_AFTER, WWW_AUTHENTICATE},
    },
};
use serde::Serialize;
use tidegate_hub::TunnelError;
use tidegate_model::FieldErrors;
use tidegate_service::Error;
use utoipa::ToSchema;

/// Every refusal: `{"error": {"code", "message", "fields"?, "requestId"}}`.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ErrorAnswer {
    /// What is wrong.
    pub error: ErrorBody,
}

/// What is wrong.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ErrorBody {
    /// The machine's word for it.
    #[schema(example = "E_NOT_FOUND")]
    pub code: Cow<'static, str>,
    /// The sentence for people.
    pub message: Cow<'static, str>,
    /// Every bad field of the request, with what is wrong with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<std::collections::BTreeMap<String, String>>)]
    pub fields: Option<FieldErrors>,
    /// What the log knows the request by.
    pub request_id: String,
}

/// A refusal or a failure on its way out. The envelope gives it the request's id.
#[derive(Debug, Clone)]
pub struct Problem {
    pub(crate) status: StatusCode,
    code: &'static str,
    message: Cow<'static, str>,
    fields: Option<FieldErrors>,
    retry_after: Option<i64>,
    /// What failed: for the log, never for the answer.
    cause: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

/// What is said of a fault of ours, whatever it was.
const FAULT: &str = "the server made a mistake; its log knows more under this request id";
const UNAVAILABLE: &str = "the service is not available for a moment, try again";

impl Problem {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, code, message: message.into(), fields: None, retry_after: None, cause: None }
    }

    pub(crate) fn not_found(what: impl fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, "E_NOT_FOUND", format!("{what} is not found"))
    }

    pub(crate) fn unauthenticated(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "E_UNAUTHENTICATED", message)
    }

    pub(crate) fn forbidden(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "E_FORBIDDEN", message)
    }

    pub(crate) fn invalid(fields: FieldErrors) -> Self {
        let message = format!("the request is not valid: {fields}");
        Self { fields: Some(fields), ..Self::new(StatusCode::BAD_REQUEST, "E_INVALID", message) }
    }

    /// The same refusal under the word that the first of these fields has which is bad.
    pub(crate) fn worded(self, words: &[(&str, &'static str)]) -> Self {
        let bad = |name: &str| self.fields.iter().flat_map(FieldErrors::iter).any(|(field, _)| field == name);
        let word = words.iter().find(|(field, _)| bad(field)).map(|(_, word)| *word);
        Self { code: word.unwrap_or(self.code), ..self }
    }

    pub(crate) fn too_large(limit: usize) -> Self {
        let message = format!("the request's body may have {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "E_TOO_LARGE", message)
    }

    /// What a session's own program did wrong: nobody's fault here, and told to whoever looks at it.
    pub(crate) fn bad_gateway(message: &'static str, why: impl fmt::Display) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, "E_SESSION", format!("{message}: {why}"))
    }

    /// More at once than one may have.
    pub(crate) fn busy(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "E_BUSY", message).with_retry(1)
    }

    pub(crate) fn fault(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        let cause = Some(Arc::from(cause.into()));
        Self { cause, ..Self::new(StatusCode::INTERNAL_SERVER_ERROR, "E_INTERNAL", FAULT) }
    }

    /// What is said while something that every request needs does not answer.
    pub(crate) fn unavailable(cause: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "E_UNAVAILABLE", UNAVAILABLE)
            .with_retry(1)
            .with_cause(cause)
    }

    /// What a bare status of the HTTP server itself means.
    pub(crate) fn of_status(status: StatusCode) -> Self {
        let (code, message) = match status {
            StatusCode::NOT_FOUND => ("E_NOT_FOUND", "there is nothing at this path"),
            StatusCode::METHOD_NOT_ALLOWED => ("E_METHOD_NOT_ALLOWED", "this path does not take this method"),
            StatusCode::PAYLOAD_TOO_LARGE => ("E_TOO_LARGE", "the request's body is too large"),
            StatusCode::REQUEST_TIMEOUT => ("E_TIMEOUT", "the request took too long to arrive"),
            status if status.is_server_error() => ("E_INTERNAL", FAULT),
            _ => ("E_BAD_REQUEST", "the request cannot be understood"),
        };
        Self::new(status, code, message)
    }

    /// Seconds to wait before the next try.
    pub(crate) fn retry_after(&self) -> Option<i64> {
        self.retry_after.map(|seconds| seconds.max(1))
    }

    /// The same, with the seconds to wait before the next try.
    pub(crate) fn with_retry(self, seconds: i64) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    fn with_cause(self, cause: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self { cause: Some(Arc::new(cause)), ..self }
    }

    /// The cause, where the log should tell of it.
    pub(crate) fn cause(&self) -> Option<&(dyn std::error::Error + Send + Sync)> {
        self.cause.as_deref()
    }

    /// The answer, with the request's id.
    pub(crate) fn answer(&self, request_id: &str) -> HttpResponse {
        let mut response = HttpResponseBuilder::new(self.status);
        if self.status == StatusCode::UNAUTHORIZED {
            response.insert_header((WWW_AUTHENTICATE, "Bearer"));
        }
        if let Some(seconds) = self.retry_after() {
            response.insert_header((RETRY_AFTER, seconds.to_string()));
        }
        response.json(ErrorAnswer {
            error: ErrorBody {
                code: Cow::Borrowed(self.code),
                message: self.message.clone(),
                fields: self.fields.clone(),
                request_id: request_id.to_owned(),
            },
        })
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let said = error.to_string();
        match error {
            Error::NotFound(_) => Self::new(StatusCode::NOT_FOUND, "E_NOT_FOUND", said),
            Error::Unauthenticated(message) => Self::unauthenticated(message),
            Error::InvalidCredentials => Self::new(StatusCode::UNAUTHORIZED, "E_INVALID_CREDENTIALS", said),
            Error::Forbidden(_) => Self::forbidden(said),
            Error::Invalid(fields) => Self::invalid(fields),
            Error::WrongState { .. } => Self::new(StatusCode::CONFLICT, "E_WRONG_STATE", said),
            Error::Conflict { code: code @ "E_IDEMPOTENCY_RUNNING", .. } => {
                Self::new(StatusCode::CONFLICT, code, said).with_retry(1)
            }
            Error::Conflict { code, .. } => Self::new(StatusCode::CONFLICT, code, said),
            Error::NoAgent(reasons) => {
                let mut fields = FieldErrors::new();
                for reason in &reasons {
                    fields.add(&reason.agent_id, &reason.reason);
                }
                let fields = (!reasons.is_empty()).then_some(fields);
                Self { fields, ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "E_NO_AGENT", said) }
            }
            Error::QuotaExceeded(bound) => {
                let mut fields = FieldErrors::new();
                fields.add("resource", bound.resource);
                fields.add("bound", format_args!("{} {}", bound.owner, bound.name));
                fields.add("limit", &bound.limit);
                fields.add("used", &bound.used);
                fields.add("requested", &bound.requested);
                Self { fields: Some(fields), ..Self::new(StatusCode::FORBIDDEN, "E_QUOTA_EXCEEDED", said) }
            }
            Error::RateLimited(wait) => Self::new(StatusCode::TOO_MANY_REQUESTS, "E_RATE_LIMITED", said)
                .with_retry(wait.num_seconds()),
            unavailable @ Error::Unavailable(_) => Self::unavailable(unavailable),
            silent @ Error::ProviderUnavailable { .. } => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "E_PROVIDER_UNAVAILABLE", said)
                    .with_retry(5)
                    .with_cause(silent)
            }
            silent @ Error::BrokerUnavailable(_) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "E_PIPES_UNAVAILABLE", said)
                    .with_retry(1)
                    .with_cause(silent)
            }
            Error::NotReady(_) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "E_NOT_READY", said).with_retry(1)
            }
            Error::StorageFull { figures, .. } => {
                let full = Self::new(StatusCode::INSUFFICIENT_STORAGE, "E_STORAGE_FULL", said);
                Self { fields: Some(figures), ..full }
            }
            Error::TooLarge(_) => Self::new(StatusCode::PAYLOAD_TOO_LARGE, "E_TOO_LARGE", said),
            Error::PluginFailed(..) => Self::new(StatusCode::BAD_GATEWAY, "E_PLUGIN", said),
            internal @ (Error::Internal(_) | Error::AskPlugins) => Self::fault(internal),
        }
    }
}

impl From<TunnelError> for Problem {
    fn from(error: TunnelError) -> Self {
        let (status, code) = match &error {
            TunnelError::AgentOffline => (StatusCode::SERVICE_UNAVAILABLE, "E_AGENT_OFFLINE"),
            TunnelError::AgentDidNotAnswer => (StatusCode::GATEWAY_TIMEOUT, "E_AGENT_TIMEOUT"),
            TunnelError::AgentRefused(_) => (StatusCode::CONFLICT, "E_AGENT_REFUSED"),
            TunnelError::TooManyViewers { .. } => (StatusCode::CONFLICT, "E_TOO_MANY_VIEWERS"),
        };
        Self::new(status, code, error.to_string())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    /// Only what is refused before the envelope gets here: a request id is then nobody's.
    fn error_response(&self) -> HttpResponse {
        self.answer("")
    }
}
