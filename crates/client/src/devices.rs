//! Device-code login (RFC 8628) and the bearer tokens that come of it.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use tidegate_model::{BearerToken, BearerTokenId, OrgId, Secret};
use tokio::time::{Instant, sleep};

use crate::{ApiError, Client, Error, call::Call};

/// What a poll slowed down waits longer from then on (RFC 8628, 3.5).
const SLOWER: Duration = Duration::from_secs(5);
/// Longest wait between polls while the control plane cannot be reached.
const LONGEST: Duration = Duration::from_mins(1);

/// A code pair.
#[derive(Debug, Clone, Deserialize)]
pub struct DeviceCodes {
    /// What is polled with.
    pub device_code: Secret<String>,
    /// What somebody compares or types.
    pub user_code: String,
    /// Where.
    pub verification_uri: String,
    /// The same with the code in it.
    #[serde(default)]
    pub verification_uri_complete: Option<String>,
    /// Seconds until both codes end.
    pub expires_in: u64,
    /// Seconds between polls.
    #[serde(default = "five")]
    pub interval: u64,
}

const fn five() -> u64 {
    5
}

/// A token that a device got.
#[derive(Debug, Clone, Deserialize)]
pub struct DeviceToken {
    /// The bearer token.
    pub access_token: Secret<String>,
    /// The organization that was chosen for it.
    pub account_id: OrgId,
}

/// One page of bearer tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenPage {
    /// The newest first, revoked ones too.
    pub tokens: Vec<BearerToken>,
    /// How many there are on all pages.
    pub total: u64,
    /// What asks for the next page; `None` on the last one.
    #[serde(default)]
    pub next_cursor: Option<String>,
}

#[derive(Serialize)]
struct Asked<'a> {
    client_name: &'a str,
}

#[derive(Serialize)]
struct Poll<'a> {
    device_code: &'a str,
    grant_type: &'static str,
}

#[derive(Deserialize)]
struct Refusal {
    error: String,
    error_description: Option<String>,
}

#[derive(Deserialize)]
struct RevokedToken {
    token: BearerToken,
}

/// What a poll gave.
enum Polled {
    Token(DeviceToken),
    Pending,
    SlowDown,
}

impl Client {
    /// `POST /oauth/device/code`.
    pub async fn device_codes(&self, client_name: &str) -> Result<DeviceCodes, Error> {
        let call = Call::post(&["oauth", "device", "code"]).outside_of_the_api().without_bearer();
        self.fetch(call.json(&Asked { client_name })?).await
    }

    /// Polls `POST /oauth/device/token` as often as it may until somebody has decided, or the codes have ended. A
    /// control plane that cannot be reached is asked less and less often.
    pub async fn device_token(&self, codes: &DeviceCodes) -> Result<DeviceToken, Error> {
        let until = Instant::now() + Duration::from_secs(codes.expires_in);
        let mut wait = Duration::from_secs(codes.interval.max(1));
        loop {
            sleep(wait).await;
            match self.poll_device(codes).await {
                Ok(Polled::Token(token)) => return Ok(token),
                Ok(Polled::Pending) => {}
                Ok(Polled::SlowDown) => wait += SLOWER,
                Err(error) if error.is_passing() => wait = (wait * 2).min(LONGEST),
                Err(error) => return Err(error),
            }
            if Instant::now() >= until {
                return Err(Error::DeviceExpired);
            }
        }
    }

    async fn poll_device(&self, codes: &DeviceCodes) -> Result<Polled, Error> {
        let grant_type = "urn:ietf:params:oauth:grant-type:device_code";
        let body = Poll { device_code: codes.device_code.expose(), grant_type };
        let call = Call::post(&["oauth", "device", "token"]).outside_of_the_api().without_bearer();
        let (status, answer) = self.fetch_any(call.json(&body)?).await?;
        let odd = || Error::Protocol("the answer to a device's poll cannot be read".to_owned());
        if status.is_success() {
            return serde_json::from_slice(&answer).map(Polled::Token).map_err(|_| odd());
        }
        let Ok(refusal) = serde_json::from_slice::<Refusal>(&answer) else {
            return Err(Error::Api(Box::new(ApiError::parse(status, None, &answer))));
        };
        match refusal.error.as_str() {
            "authorization_pending" => Ok(Polled::Pending),
            "slow_down" => Ok(Polled::SlowDown),
            "access_denied" => Err(Error::DeviceDenied),
            "expired_token" | "invalid_grant" => Err(Error::DeviceExpired),
            _ if refusal.error_description.is_none() => Err(odd()),
            _ => Err(Error::Api(Box::new(ApiError::parse(status, None, &answer)))),
        }
    }

    /// `GET auth/tokens`, one page: at most 100, from `cursor` on.
    pub async fn bearer_tokens(&self, cursor: Option<&str>) -> Result<TokenPage, Error> {
        let call = Call::get(&["auth", "tokens"]).query("limit", "100".to_owned());
        self.fetch(call.query_if("cursor", cursor)).await
    }

    /// `DELETE auth/tokens/{id}`: the same when repeated.
    pub async fn revoke_bearer_token(&self, id: BearerTokenId) -> Result<BearerToken, Error> {
        let call = Call::new(Method::DELETE, &["auth", "tokens", &id.to_string()]);
        self.fetch::<RevokedToken>(call).await.map(|answer| answer.token)
    }

    /// A call's answer with any status.
    async fn fetch_any(&self, call: Call) -> Result<(StatusCode, Vec<u8>), Error> {
        let response = self.send_once(&call, None).await?;
        let status = response.status();
        Ok((status, self.read_any(response).await?))
    }
}
