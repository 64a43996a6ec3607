//! What the verbs that make a key answer.

use actix_web::HttpResponse;
use serde::Serialize;
use serde_json::{Value, json};
use tidegate_model::ApiKey;
use tidegate_service::Minted;
use utoipa::ToSchema;

use crate::http::idempotency::again;

/// A key with its secret, which is shown this once.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Made {
    /// The key.
    key: ApiKey,
    /// What programs bring. Absent in the answer to a repeat of the same request.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "ppz_0123456789abcdef0123456789")]
    plaintext: Option<String>,
    /// Whether an earlier answer to the same request has shown it.
    secret_shown: bool,
}

/// What a repeat is answered.
pub(crate) fn kept(key: &ApiKey) -> Value {
    json!({"key": key, "secretShown": true})
}

/// 201 with the secret, or the kept answer without it.
pub(crate) fn made(minted: Minted) -> HttpResponse {
    match minted {
        Minted::New(key, plaintext) => {
            let plaintext = Some(plaintext.into_inner());
            HttpResponse::Created().json(Made { key, plaintext, secret_shown: false })
        }
        Minted::Replay(replay) => again(replay),
    }
}
