//! One connection of ours: a fresh key and a fresh token each time it is made, so that neither is ever kept.
//! Never what is said over it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_nats::client::{Request, RequestErrorKind};
use async_nats::connection::State;
use async_nats::{Auth, AuthError, Client, ConnectOptions, HeaderMap, Message};
use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::jwt::UserToken;
use crate::keys::{UserKey, UserPublic};
use crate::{Error, Missing, Options, Result};

/// The first pause before a connection that broke is made again; doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A connection on which no more than a bounded number of requests wait at a time. It is made again when it breaks.
#[derive(Clone)]
pub(crate) struct Connection {
    client: Client,
    waiting: Arc<Semaphore>,
    in_flight: usize,
    timeout: Duration,
}

impl Connection {
    /// Connects as the user that `mint` makes a token for, at each attempt anew.
    pub(crate) async fn open(
        options: &Options,
        name: &str,
        mint: impl Fn(&UserPublic) -> Result<UserToken> + Send + Sync + 'static,
    ) -> Result<Self> {
        let mint = Arc::new(mint);
        let mut connect = ConnectOptions::with_auth_callback(move |nonce| {
            let auth = authenticate(&nonce, &*mint);
            async move { auth.map_err(AuthError::new) }
        })
        .name(name)
        .connection_timeout(options.connect_timeout)
        .request_timeout(Some(options.request_timeout))
        .reconnect_delay_callback(pause)
        .require_tls(options.tls.required);
        for root in &options.tls.roots {
            connect = connect.add_root_certificates(root.clone());
        }
        // The library's own bound covers a connection, not the look-up of its name.
        let connecting = connect.connect(options.urls.as_slice());
        let client = tokio::time::timeout(options.connect_timeout, connecting)
            .await
            .map_err(|_| Error::late("connect"))?
            .map_err(|error| Error::unavailable("connect", error))?;
        Ok(Self {
            client,
            waiting: Arc::new(Semaphore::new(options.in_flight)),
            in_flight: options.in_flight,
            timeout: options.request_timeout,
        })
    }

    pub(crate) const fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) const fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Refuses while the connection is being made again: what is asked then waits in the client beyond its time, and is
    /// carried out once it is there, whatever others did meanwhile.
    pub(crate) fn is_there(&self, doing: &'static str) -> Result<()> {
        match self.client.connection_state() {
            State::Connected => Ok(()),
            State::Pending | State::Disconnected => Err(Error::late(doing)),
        }
    }

    /// A place among the requests that wait; refused when all are taken, because a queue would only grow.
    pub(crate) fn place(&self) -> Result<tokio::sync::SemaphorePermit<'_>> {
        self.waiting.try_acquire().map_err(|_| Error::Busy { limit: self.in_flight })
    }

    /// Asks and waits for the one answer. `nobody` is what it means that no one listens.
    pub(crate) async fn request(
        &self,
        doing: &'static str,
        subject: &str,
        payload: Bytes,
        headers: Option<HeaderMap>,
        nobody: Missing,
    ) -> Result<Message> {
        let _place = self.place()?;
        let request = Request { payload: Some(payload), headers, ..Request::default() };
        self.client.send_request(subject.to_owned(), request).await.map_err(|error| match error.kind() {
            RequestErrorKind::NoResponders => Error::NotFound(nobody),
            _ => Error::unavailable(doing, error),
        })
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("state", &self.client.connection_state()).finish_non_exhaustive()
    }
}

fn authenticate(
    nonce: &[u8],
    mint: &impl Fn(&UserPublic) -> Result<UserToken>,
) -> Result<Auth, async_nats::Error> {
    let key = UserKey::generate();
    let token = mint(key.public())?;
    let mut auth = Auth::new();
    auth.jwt = Some(token.as_str().to_owned());
    auth.signature = Some(key.sign(nonce)?);
    Ok(auth)
}

/// Grows with each failed attempt.
fn pause(attempts: usize) -> Duration {
    let doublings = u32::try_from(attempts.saturating_sub(1)).unwrap_or(u32::MAX).min(10);
    (FIRST_PAUSE * 2_u32.pow(doublings)).min(LONGEST_PAUSE)
}
