//! Making a client.

use std::{sync::Arc, time::Duration};

use tidegate_model::{Clock, Secret, SystemClock};
use tokio::sync::Mutex;
use url::Url;

use crate::{Error, MemoryStore, TokenStore, Tokens, tls};

/// A client of one control plane. Cloning it is cheap and shares connections and tokens.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) base: Url,
    pub(crate) http: reqwest::Client,
    pub(crate) timeout: Duration,
    pub(crate) backoff: Duration,
    pub(crate) credential: Credential,
    pub(crate) clock: Arc<dyn Clock>,
    /// Authorities that are trusted besides the system's, for connections beside HTTP.
    #[cfg(feature = "pipes")]
    pub(crate) ca_pem: Vec<u8>,
}

/// What calls are made with.
#[derive(Debug)]
pub(crate) enum Credential {
    /// A token that somebody else looks after.
    Fixed(Secret<String>),
    /// Tokens that are renewed here; the mutex lets one renewal happen at a time.
    Renewed { store: Arc<dyn TokenStore>, held: Mutex<Held> },
}

/// The tokens in hand.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(crate) tokens: Option<Tokens>,
    /// Whether they were given to this very process: then their age is not judged by the machine's clock, which may
    /// be wrong, but by the control plane's refusal.
    pub(crate) fresh: bool,
}

/// Settings of a [`Client`].
#[derive(Debug)]
pub struct ClientBuilder {
    base: Url,
    token: Option<Secret<String>>,
    store: Arc<dyn TokenStore>,
    ca_pem: Vec<u8>,
    timeout: Duration,
    backoff: Duration,
    user_agent: String,
    clock: Arc<dyn Clock>,
}

impl Client {
    /// A client of the control plane at `base`, for example `https://tidegate.example.com`.
    pub fn builder(base: Url) -> ClientBuilder {
        ClientBuilder {
            base,
            token: None,
            store: Arc::new(MemoryStore::default()),
            ca_pem: Vec::new(),
            timeout: Duration::from_secs(30),
            backoff: Duration::from_millis(200),
            user_agent: concat!("tidegate-client/", env!("CARGO_PKG_VERSION")).to_owned(),
            clock: Arc::new(SystemClock::new()),
        }
    }

    /// The control plane's address.
    pub fn base_url(&self) -> &Url {
        &self.inner.base
    }

    /// The page on which a browser shows a session.
    pub fn page(&self, session: tidegate_model::SessionId) -> String {
        format!("{}/sessions/{session}", self.inner.base.as_str().trim_end_matches('/'))
    }
}

impl ClientBuilder {
    /// Calls with this token or API key and never renews it; the store is not asked.
    #[must_use]
    pub fn token(mut self, token: Secret<String>) -> Self {
        self.token = Some(token);
        self
    }

    /// Keeps tokens there. Without it they are kept in memory.
    #[must_use]
    pub fn store(mut self, store: Arc<dyn TokenStore>) -> Self {
        self.store = store;
        self
    }

    /// Also trusts these certificate authorities (PEM), for deployments that sign their own certificates.
    #[must_use]
    pub fn ca_pem(mut self, pem: Vec<u8>) -> Self {
        self.ca_pem = pem;
        self
    }

    /// How long an answer may take, its body included; 30 s by default. For streams: until they are open.
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The wait before the first retry, doubled before each further one; 200 ms by default.
    #[must_use]
    pub const fn backoff(mut self, backoff: Duration) -> Self {
        self.backoff = backoff;
        self
    }

    /// The `User-Agent` of every call.
    #[must_use]
    pub fn user_agent(mut self, name: impl Into<String>) -> Self {
        self.user_agent = name.into();
        self
    }

    /// What stored tokens' age is judged by.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The client. Dials nothing yet.
    pub fn build(self) -> Result<Client, Error> {
        let base = check_base(self.base)?;
        let tls =
            if base.scheme() == "https" { tls::tls_config(&self.ca_pem)? } else { tls::no_tls_config()? };
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured((*tls).clone())
            .user_agent(self.user_agent)
            .connect_timeout(Duration::from_secs(10).min(self.timeout))
            // A redirect would carry the credential to wherever it points.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .tcp_keepalive(Duration::from_secs(15))
            .tcp_keepalive_interval(Duration::from_secs(5))
            .tcp_keepalive_retries(4)
            .tcp_user_timeout(Duration::from_secs(35))
            .build()
            .map_err(|error| Error::Setting(format!("the HTTP client cannot be set up: {error}")))?;
        let credential = match self.token {
            Some(token) => Credential::Fixed(token),
            None => Credential::Renewed { store: self.store, held: Mutex::default() },
        };
        let inner = Inner {
            base,
            http,
            timeout: self.timeout,
            backoff: self.backoff,
            credential,
            clock: self.clock,
            #[cfg(feature = "pipes")]
            ca_pem: self.ca_pem,
        };
        Ok(Client { inner: Arc::new(inner) })
    }
}

fn check_base(mut base: Url) -> Result<Url, Error> {
    if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none_or(str::is_empty) {
        return Err(Error::Setting(format!(
            "`{base}` is no address of a control plane: it must be http(s)://host"
        )));
    }
    if !base.username().is_empty() || base.password().is_some() {
        return Err(Error::Setting(
            "the address must not hold a name or password: log in instead".to_owned(),
        ));
    }
    base.set_query(None);
    base.set_fragment(None);
    Ok(base)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_no_control_plane_is_refused_with_what_to_write() {
        for bad in ["ftp://host", "unix:/run/x", "http://alice:secret@host/"] {
            let error = Client::builder(bad.parse().unwrap()).build().unwrap_err().to_string();
            assert!(error.contains("http(s)://host") || error.contains("log in instead"), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
