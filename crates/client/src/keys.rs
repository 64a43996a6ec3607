//! API keys: what programs prove themselves with.

use chrono::{DateTime, Utc};
use reqwest::header::HeaderName;
use serde::{Deserialize, Serialize};
use tidegate_model::{ApiKey, ApiKeyId, NewApiKey, OrgId, Secret};

use crate::{Client, Error, IdempotencyKey, call::Call};

/// The header that makes a repeated create the same create.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A key that was made.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MadeKey {
    /// The key.
    pub key: ApiKey,
    /// The secret; `None` where an answer that was lost on its way has shown it: then revoke the key and make another.
    #[serde(default)]
    pub plaintext: Option<Secret<String>>,
}

/// One page of keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyPage {
    /// The keys: those that stand first, each part by age.
    pub keys: Vec<ApiKey>,
    /// How many there are on all pages.
    pub total: u64,
    /// What asks for the next page; `None` on the last one.
    #[serde(default)]
    pub next_cursor: Option<String>,
    /// Whether `total` was counted to the end.
    #[serde(default = "yes")]
    pub total_is_exact: bool,
}

const fn yes() -> bool {
    true
}

#[derive(Deserialize)]
struct RevokedKey {
    key: ApiKey,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Rotation {
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<DateTime<Utc>>,
}

impl Client {
    /// `POST organizations/{id}/keys`; asked again where its answer was lost, and makes no second key.
    pub async fn create_key(&self, org: OrgId, new: &NewApiKey) -> Result<MadeKey, Error> {
        let call = Call::post(&["organizations", &org.to_string(), "keys"]).json(new)?;
        self.fetch(call.header(IDEMPOTENCY_KEY, IdempotencyKey::random().into_header()).repeatable()).await
    }

    /// `GET organizations/{id}/keys`, one page: at most 100, from `cursor` on.
    pub async fn keys(&self, org: OrgId, limit: u32, cursor: Option<&str>) -> Result<KeyPage, Error> {
        let call = Call::get(&["organizations", &org.to_string(), "keys"])
            .query("limit", limit.clamp(1, 100).to_string())
            .query_if("cursor", cursor);
        self.fetch(call).await
    }

    /// `POST keys/{id}/revoke`: the same when repeated.
    pub async fn revoke_key(&self, id: ApiKeyId) -> Result<ApiKey, Error> {
        let call = Call::post(&["keys", &id.to_string(), "revoke"]).repeatable();
        self.fetch::<RevokedKey>(call).await.map(|answer| answer.key)
    }

    /// `POST keys/{id}/rotate`: a new key in the place of one of the caller's own, which ends in the same moment.
    pub async fn rotate_key(
        &self,
        id: ApiKeyId,
        expires_at: Option<DateTime<Utc>>,
    ) -> Result<MadeKey, Error> {
        let call = Call::post(&["keys", &id.to_string(), "rotate"]).json(&Rotation { expires_at })?;
        self.fetch(call.header(IDEMPOTENCY_KEY, IdempotencyKey::random().into_header()).repeatable()).await
    }
}
