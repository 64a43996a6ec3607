//! Calls of JetStream's API, and what its refusals mean.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::OrgBroker;
use crate::{Error, Full, Missing, Result};

/// JetStream's own codes for what a caller can do something about.
mod code {
    pub(super) const ACCOUNT_RESOURCES_EXCEEDED: u64 = 10_002;
    pub(super) const CONSUMER_NOT_FOUND: u64 = 10_014;
    pub(super) const INSUFFICIENT_RESOURCES: u64 = 10_023;
    pub(super) const MAXIMUM_CONSUMERS: u64 = 10_026;
    pub(super) const MAXIMUM_STREAMS: u64 = 10_027;
    pub(super) const NO_MESSAGE_FOUND: u64 = 10_037;
    pub(super) const STORAGE_EXCEEDED: u64 = 10_047;
    pub(super) const STREAM_NOT_FOUND: u64 = 10_059;
    pub(super) const ANOTHER_STREAM: u64 = 10_060;
    pub(super) const STREAM_STORE_FAILED: u64 = 10_077;
    pub(super) const STREAM_OFFLINE: u64 = 10_118;
    pub(super) const CONSUMER_OFFLINE: u64 = 10_119;
    pub(super) const CLUSTER_NO_LEADER: u64 = 10_008;
}

/// A stream of that name has another configuration.
pub(super) const STREAM_NAME_TAKEN: u64 = 10_058;
/// A consumer of that name exists.
pub(super) const CONSUMER_EXISTS: [u64; 2] = [10_105, 10_148];

#[derive(Deserialize)]
#[serde(untagged)]
enum Answer<T> {
    Error { error: ApiError },
    Good(T),
}

#[derive(Debug, Deserialize)]
pub(super) struct ApiError {
    code: u64,
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

impl ApiError {
    /// What the caller can do about it.
    pub(super) fn into_error(self, doing: &'static str) -> Error {
        let full = |limit, description| Error::Full { limit, description, usage: None };
        match self.err_code {
            code::STREAM_NOT_FOUND | code::ANOTHER_STREAM => Error::NotFound(Missing::Stream),
            code::CONSUMER_NOT_FOUND => Error::NotFound(Missing::Reader),
            code::NO_MESSAGE_FOUND => Error::NotFound(Missing::Message),
            code::MAXIMUM_STREAMS => full(Full::Streams, self.description),
            code::MAXIMUM_CONSUMERS => full(Full::Readers, self.description),
            code::ACCOUNT_RESOURCES_EXCEEDED => full(Full::AccountStorage, self.description),
            // Which of the two it is, the code does not say; whoever makes streams finds out.
            code::STORAGE_EXCEEDED | code::INSUFFICIENT_RESOURCES => {
                full(Full::ServerStorage, self.description)
            }
            code::STREAM_STORE_FAILED if self.description.contains("no space") => {
                full(Full::ServerStorage, self.description)
            }
            code::CLUSTER_NO_LEADER | code::STREAM_OFFLINE | code::CONSUMER_OFFLINE => {
                Error::unavailable(doing, self.description)
            }
            0 if self.code == 503 => Error::unavailable(doing, self.description),
            0 => Error::Refused { doing, code: self.code, description: self.description },
            err_code => Error::Refused { doing, code: err_code, description: self.description },
        }
    }
}

/// What an answer says, or why not.
pub(super) fn parse<T: DeserializeOwned>(doing: &'static str, payload: &[u8]) -> Result<T> {
    match serde_json::from_slice(payload) {
        Ok(Answer::Good(answer)) => Ok(answer),
        Ok(Answer::Error { error }) => Err(error.into_error(doing)),
        Err(error) => Err(Error::unavailable(doing, error)),
    }
}

impl OrgBroker {
    /// One call of the API with a request: `subject` is what follows `$JS.API.`.
    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        doing: &'static str,
        subject: &str,
        request: &impl Serialize,
    ) -> Result<T> {
        let body = serde_json::to_vec(request).map_err(|error| Error::unavailable(doing, error))?;
        self.send(doing, subject, body.into()).await
    }

    /// One call of the API that says all with its subject.
    pub(super) async fn ask<T: DeserializeOwned>(&self, doing: &'static str, subject: &str) -> Result<T> {
        self.send(doing, subject, Bytes::new()).await
    }

    async fn send<T: DeserializeOwned>(&self, doing: &'static str, subject: &str, body: Bytes) -> Result<T> {
        let subject = format!("$JS.API.{subject}");
        // A stream that is deleted late may be another one's by then.
        self.connection.is_there(doing)?;
        match self.connection.request(doing, &subject, body, None, Missing::Account).await {
            Ok(answer) => parse(doing, &answer.payload),
            // The API itself has no listener while a server starts.
            Err(Error::NotFound(Missing::Account)) => Err(Error::late(doing)),
            Err(error) => Err(error),
        }
    }
}
