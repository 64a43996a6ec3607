//! Registration: the bootstrap key opens it, the claim token waits for approval, the agent's own key ends it.

use std::time::Duration;

use reqwest::{Client, StatusCode};
use rustls::ClientConfig;
use serde::Deserialize;
use tidegate_model::{AgentCapacity, AgentMetadata, AgentRegistrationRequest, Platform, Secret};
use tidegate_protocol::{API_KEY_HEADER, CLAIM_HEADER};

use crate::{
    Error, Options,
    server::{Dial, Keys, address},
};

/// Longest answer to a registration.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What a registration came to.
#[derive(Debug)]
pub(crate) enum Registered {
    /// The agent has its own key now.
    Key,
    /// An operator has to approve it first.
    Waiting,
    /// It will not get a key by itself; the sentence says what an operator has to do.
    Refused(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    api_key: Option<Secret<String>>,
    claim_token: Option<Secret<String>>,
}

/// Registers once.
pub(crate) async fn register(
    Dial { options, keys, tls }: &Dial,
    platform: Platform,
    metadata: AgentMetadata,
) -> Result<Registered, Error> {
    let Some(bootstrap) = &options.bootstrap_key else {
        return Ok(Registered::Refused(format!(
            "the agent has neither a key of its own nor a bootstrap key: set one, or put the agent's key into {}",
            keys.key_path().display()
        )));
    };
    let body = AgentRegistrationRequest {
        agent_id: options.agent_id.clone(),
        platform,
        region: options.region.clone(),
        capacity: Some(capacity(options)),
        metadata: Some(metadata),
    };
    let url = address(&options.server, "agents/register", ["http", "https"])?;
    let link = |error: reqwest::Error| Error::Link(format!("registration failed: {}", whole(&error)));
    let client = Client::builder()
        .timeout(TIMEOUT)
        .tls_backend_preconfigured(ClientConfig::clone(tls))
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(link)?;
    let mut request = client.post(url).header(API_KEY_HEADER, bootstrap.expose()).json(&body);
    if let Some(claim) = keys.claim()? {
        request = request.header(CLAIM_HEADER, claim);
    }
    let response = request.send().await.map_err(link)?;
    match response.status() {
        StatusCode::ACCEPTED => {
            let answer: Answer = response.json().await.map_err(link)?;
            if let Some(claim) = &answer.claim_token {
                keys.keep_claim(claim.expose())?;
            }
            Ok(Registered::Waiting)
        }
        StatusCode::OK => match response.json::<Answer>().await.map_err(link)?.api_key {
            Some(key) => keys.keep_key(key.expose()).map(|()| Registered::Key),
            // The key was used before, and is shown no more.
            None => Ok(Registered::Refused(needs_key(options, keys))),
        },
        StatusCode::FORBIDDEN => Ok(Registered::Refused("an operator rejected this agent".into())),
        StatusCode::UNAUTHORIZED => {
            Ok(Registered::Refused("the bootstrap key is not the control plane's".into()))
        }
        StatusCode::CONFLICT => Ok(Registered::Refused(needs_key(options, keys))),
        status => Err(Error::Link(format!("registration was answered with {status}"))),
    }
}

/// An error of the HTTP client with what caused it: by itself it does not say that a certificate was refused.
fn whole(error: &reqwest::Error) -> String {
    let (mut text, mut source) = (error.to_string(), std::error::Error::source(error));
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn needs_key(options: &Options, keys: &Keys) -> String {
    format!(
        "an agent named {} is registered and this one holds no token of it: choose another name, or have its key rotated and put into {}",
        options.agent_id,
        keys.key_path().display()
    )
}

/// What this machine can hold.
pub(crate) fn capacity(options: &Options) -> AgentCapacity {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib: u64 = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse().ok())
        .unwrap_or(0);
    AgentCapacity {
        max_sessions: options.max_sessions,
        cpu: options.cpu.clone().unwrap_or_else(|| cores.to_string()),
        memory: options.memory.clone().unwrap_or_else(|| format!("{}Mi", kib / 1_024)),
        storage: None,
    }
}
