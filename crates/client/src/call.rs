//! One call: its address, its credential, its time limit, its retries and the bound of its answer.

use std::time::Duration;

use bytes::Bytes;
use reqwest::{
    Method, Response, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
};
use serde::{Serialize, de::DeserializeOwned};
use tidegate_model::Secret;

use crate::{ApiError, Client, Error};

/// Largest answer that is read: a page of a hundred sessions has a tenth of it.
const BODY: usize = 8 << 20;
/// How often a call that may be repeated is made.
const ATTEMPTS: u32 = 5;
/// Longest wait that a server may ask for between attempts.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// When a call may be made again after its connection was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Only when it certainly never arrived.
    Unsent,
    /// Always: it changes nothing, or changes the same thing once.
    Safe,
}

/// How long a call may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// The client's timeout, body included.
    Whole,
    /// The client's timeout until the answer begins; its body is a stream.
    Opening,
}

/// A call to be made.
#[derive(Debug)]
pub(crate) struct Call {
    method: Method,
    path: Vec<String>,
    query: Vec<(&'static str, String)>,
    headers: HeaderMap,
    body: Option<Bytes>,
    bearer: bool,
    in_api: bool,
    repeat: Repeat,
    limit: Limit,
}

impl Call {
    /// A call under `/api/v1`. GET, PUT and DELETE may be repeated, POST only when it never arrived.
    pub(crate) fn new(method: Method, path: &[&str]) -> Self {
        let repeat = if method == Method::POST { Repeat::Unsent } else { Repeat::Safe };
        Self {
            method,
            path: path.iter().map(|&segment| segment.to_owned()).collect(),
            query: Vec::new(),
            headers: HeaderMap::new(),
            body: None,
            bearer: true,
            in_api: true,
            repeat,
            limit: Limit::Whole,
        }
    }

    pub(crate) fn get(path: &[&str]) -> Self {
        Self::new(Method::GET, path)
    }

    pub(crate) fn post(path: &[&str]) -> Self {
        Self::new(Method::POST, path)
    }

    pub(crate) fn json(mut self, body: &impl Serialize) -> Result<Self, Error> {
        let bytes = serde_json::to_vec(body)
            .map_err(|error| Error::Setting(format!("the request cannot be written: {error}")))?;
        self.body = Some(bytes.into());
        Ok(self)
    }

    pub(crate) fn query(mut self, name: &'static str, value: String) -> Self {
        self.query.push((name, value));
        self
    }

    pub(crate) fn query_if<T: ToString>(self, name: &'static str, value: Option<T>) -> Self {
        match value {
            Some(value) => self.query(name, value.to_string()),
            None => self,
        }
    }

    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    pub(crate) fn without_bearer(mut self) -> Self {
        self.bearer = false;
        self
    }

    /// A call beside `/api/v1`.
    pub(crate) fn outside_of_the_api(mut self) -> Self {
        self.in_api = false;
        self
    }

    pub(crate) fn repeatable(mut self) -> Self {
        self.repeat = Repeat::Safe;
        self
    }

    pub(crate) fn once(mut self) -> Self {
        self.repeat = Repeat::Unsent;
        self
    }

    pub(crate) fn streaming(mut self) -> Self {
        self.limit = Limit::Opening;
        self
    }

    fn may_repeat(&self, error: &Error) -> bool {
        match error {
            Error::Transport { source, .. } => self.repeat == Repeat::Safe || source.is_connect(),
            // The first of two racing creates is still at work: its answer is ours.
            Error::Api(error) => {
                self.repeat == Repeat::Safe
                    && self.method == Method::POST
                    && error.status == StatusCode::CONFLICT
                    && error.retry_after.is_some()
            }
            _ => false,
        }
    }
}

impl Client {
    /// Makes a call and reads its JSON answer.
    pub(crate) async fn fetch<T: DeserializeOwned>(&self, call: Call) -> Result<T, Error> {
        let response = self.send(&call).await?;
        self.read_json(&call, response).await
    }

    /// Makes a call once, without a bearer token, and reads its JSON answer: for the renewal of the token itself.
    pub(crate) async fn fetch_once<T: DeserializeOwned>(&self, call: Call) -> Result<T, Error> {
        let response = self.send_once(&call, None).await?;
        if !response.status().is_success() {
            return Err(Error::Api(Box::new(ApiError::read(response).await)));
        }
        self.read_json(&call, response).await
    }

    async fn read_json<T: DeserializeOwned>(&self, call: &Call, response: Response) -> Result<T, Error> {
        let body = read_bounded(response, BODY).await.map_err(|fault| self.body_fault(fault))?;
        serde_json::from_slice(&body).map_err(|error| {
            let path = call.path.join("/");
            Error::Protocol(format!("the answer to {} {path} cannot be read ({error})", call.method))
        })
    }

    /// Makes a call and gives its answer once it is a success (or an upgrade), with its body still to be read.
    pub(crate) async fn send(&self, call: &Call) -> Result<Response, Error> {
        let mut attempt = 1;
        let mut renewed = false;
        loop {
            let bearer = if call.bearer { Some(self.bearer().await?) } else { None };
            let error = match self.send_once(call, bearer.as_ref()).await {
                Ok(response) if response.status().is_success() => return Ok(response),
                Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => return Ok(response),
                Ok(response) => Error::Api(Box::new(ApiError::read(response).await)),
                Err(error) => error,
            };
            if let Some(refused) = bearer.filter(|_| error.status() == Some(StatusCode::UNAUTHORIZED)) {
                if renewed || !self.renews() {
                    return Err(error);
                }
                self.renew(refused).await?;
                renewed = true;
                continue;
            }
            if attempt >= ATTEMPTS || !call.may_repeat(&error) {
                return Err(error);
            }
            let asked = error.api().and_then(|error| error.retry_after);
            tokio::time::sleep(asked.unwrap_or(self.wait_before(attempt)).min(LONGEST_WAIT)).await;
            attempt += 1;
        }
    }

    /// The wait before attempt `attempt + 1`: doubled each time, and up to half as long again at random, so that
    /// clients cut off together do not come back together.
    pub(crate) fn wait_before(&self, attempt: u32) -> Duration {
        let base = self.inner.backoff.saturating_mul(1 << attempt.saturating_sub(1).min(8)).min(LONGEST_WAIT);
        let random = u32::from(uuid::Uuid::new_v4().as_bytes()[0]);
        base + base * random / 512
    }

    /// Reads an answer as it is.
    pub(crate) async fn read_any(&self, response: Response) -> Result<Vec<u8>, Error> {
        read_bounded(response, BODY).await.map_err(|fault| self.body_fault(fault))
    }

    pub(crate) async fn send_once(
        &self,
        call: &Call,
        bearer: Option<&Secret<String>>,
    ) -> Result<Response, Error> {
        let mut request =
            self.inner.http.request(call.method.clone(), self.url(call)?).headers(call.headers.clone());
        if let Some(token) = bearer {
            request = request.header(AUTHORIZATION, secret_header(&format!("Bearer {}", token.expose()))?);
        }
        if let Some(body) = &call.body {
            request = request.header(CONTENT_TYPE, "application/json").body(body.clone());
        }
        if call.limit == Limit::Whole {
            request = request.timeout(self.inner.timeout);
        }
        match tokio::time::timeout(self.inner.timeout, request.send()).await {
            Ok(answer) => answer.map_err(|error| self.transport(error)),
            Err(_) => Err(self.timed_out()),
        }
    }

    fn url(&self, call: &Call) -> Result<url::Url, Error> {
        let mut url = self.inner.base.clone();
        url.path_segments_mut()
            .map_err(|()| Error::Setting(format!("`{}` cannot hold a path", self.inner.base)))?
            .pop_if_empty()
            .extend(if call.in_api { ["api", "v1"].as_slice() } else { &[] })
            .extend(&call.path);
        if !call.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&call.query);
        }
        Ok(url)
    }

    pub(crate) fn transport(&self, error: reqwest::Error) -> Error {
        if error.is_timeout() {
            return self.timed_out();
        }
        Error::Transport { url: self.inner.base.to_string(), source: error.without_url() }
    }

    fn timed_out(&self) -> Error {
        Error::Timeout { url: self.inner.base.to_string(), after: self.inner.timeout }
    }

    fn body_fault(&self, fault: BodyFault) -> Error {
        match fault {
            BodyFault::Network(error) => self.transport(error),
            BodyFault::TooLarge(limit) => Error::Protocol(format!("the answer has more than {limit} bytes")),
        }
    }
}

/// A header whose value no log shows.
pub(crate) fn secret_header(value: &str) -> Result<HeaderValue, Error> {
    let mut value = HeaderValue::from_str(value).map_err(|_| {
        Error::Setting("the credential holds characters that none has: copy it again".to_owned())
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// Why a body was not read.
pub(crate) enum BodyFault {
    /// The network's fault.
    Network(reqwest::Error),
    /// Larger than so many bytes.
    TooLarge(usize),
}

/// Reads a body of at most `limit` bytes.
pub(crate) async fn read_bounded(mut response: Response, limit: usize) -> Result<Vec<u8>, BodyFault> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(BodyFault::Network)? {
        if body.len() + chunk.len() > limit {
            return Err(BodyFault::TooLarge(limit));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
