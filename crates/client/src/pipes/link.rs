//! Connections to NATS: one after the other, each with a token of its own, the next one there before the one before ends.
//! Nothing is said over them here.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_nats::{Auth, AuthError, ConnectOptions, Event, HeaderMap, ServerError, Subscriber};
use bytes::Bytes;
use nkeys::KeyPair;
use tokio::{
    sync::{Notify, watch},
    task::AbortHandle,
    time::{Instant, sleep, timeout_at},
};

use super::{PipeError, PipesOptions, names::Names};
use crate::{Client, Error, NatsAccess, StatusCode, tls};

/// How long one connection attempt may take.
const ATTEMPT: Duration = Duration::from_secs(5);
/// How often a connection that says nothing is asked whether it is there.
const PING: Duration = Duration::from_secs(5);
/// The longest wait between two attempts.
const LONGEST: Duration = Duration::from_secs(5);
/// A connection that ends sooner is no success: there is a wait before the next one.
const SOON: Duration = Duration::from_secs(1);
/// A token lives as long as the control plane says, within these bounds: this machine's clock may be wrong.
const SHORTEST_LIFE: Duration = Duration::from_secs(30);
const LONGEST_LIFE: Duration = Duration::from_mins(5);

/// One connection. It is never made again by itself: what was written to it and not acknowledged is lost or not, and only
/// whoever wrote it can write it again without anything overtaking it.
#[derive(Debug)]
pub(super) struct Link {
    client: async_nats::Client,
    number: u64,
    told: watch::Receiver<Told>,
    names: Names,
}

/// What the server said of a connection.
#[derive(Debug, Clone, Default)]
struct Told {
    broken: bool,
    /// Each subject that it did not let us publish to or read, in its words.
    refusals: Vec<String>,
}

/// Words of refusals that are kept.
const REFUSALS: usize = 64;

impl Link {
    /// Grows from one connection to the next.
    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    /// What NATS knows a key by.
    pub(super) fn name(&self, key: &str) -> String {
        self.names.name(key)
    }

    pub(super) fn is_broken(&self) -> bool {
        self.told.borrow().broken
    }

    /// Returns when the connection is lost, and at once where it was.
    pub(super) async fn broken(&self) {
        let mut told = self.told.clone();
        // An end of the connection's task is an end of the connection.
        drop(told.wait_for(|told| told.broken).await);
    }

    /// Returns when the server has refused something that has to do with this part of a subject.
    pub(super) async fn refuses(&self, part: &str) {
        let mut told = self.told.clone();
        let refused = |told: &Told| told.refusals.iter().any(|text| text.contains(part));
        if told.wait_for(refused).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// An inbox of our own and what comes there; nothing where the connection is lost.
    pub(super) async fn inbox(&self, ending: &str) -> Option<(String, Subscriber)> {
        let inbox = self.client.new_inbox();
        let answers = self.client.subscribe(format!("{inbox}{ending}")).await.ok()?;
        Some((inbox, answers))
    }

    /// Writes a message in its turn; whether there still is a connection to write to.
    pub(super) async fn write(
        &self,
        subject: &str,
        reply: String,
        headers: HeaderMap,
        payload: Bytes,
    ) -> bool {
        let subject = subject.to_owned();
        self.client.publish_with_reply_and_headers(subject, reply, headers, payload).await.is_ok()
    }

    /// Asks and waits for an answer until `until`; nothing where none came.
    pub(super) async fn ask(
        &self,
        subject: String,
        payload: Bytes,
        until: Instant,
    ) -> Option<async_nats::Message> {
        let asked = self.client.request(subject, payload);
        tokio::select! {
            answer = timeout_at(until, asked) => answer.ok()?.ok(),
            () = self.broken() => None,
        }
    }
}

/// Which connection there is.
#[derive(Debug, Clone)]
pub(super) enum Standing {
    /// None yet, or none for the moment: why, where it is known.
    Down(Option<PipeError>),
    /// This one.
    Up(Arc<Link>),
    /// There will be none any more.
    Ended(PipeError),
}

/// The connections of one credential; they end with it.
#[derive(Debug)]
pub(super) struct Links {
    standing: watch::Receiver<Standing>,
    renew: Arc<Notify>,
    number: Arc<AtomicU64>,
    task: AbortHandle,
}

impl Drop for Links {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Links {
    /// Begins to connect, and goes on for as long as the credential is good.
    pub(super) fn start(client: Client, options: PipesOptions) -> Self {
        let (sender, standing) = watch::channel(Standing::Down(None));
        let (renew, number) = (Arc::new(Notify::new()), Arc::new(AtomicU64::new(0)));
        let (on_demand, counted) = (Arc::clone(&renew), Arc::clone(&number));
        let keeper = Keeper { client, options, standing: sender, renew: on_demand, number: counted };
        let task = tokio::spawn(keeper.run()).abort_handle();
        Self { standing, renew, number, task }
    }

    /// A connection whose number is more than `after`, waited for until `until`.
    pub(super) async fn newer(&self, after: u64, until: Instant) -> Result<Arc<Link>, PipeError> {
        let mut standing = self.standing.clone();
        let good = |standing: &Standing| match standing {
            Standing::Down(_) => false,
            Standing::Up(link) => link.number > after && !link.is_broken(),
            Standing::Ended(_) => true,
        };
        if let Ok(Ok(found)) = timeout_at(until, standing.wait_for(good)).await {
            return match &*found {
                Standing::Up(link) => Ok(Arc::clone(link)),
                Standing::Ended(error) | Standing::Down(Some(error)) => Err(error.clone()),
                Standing::Down(None) => Err(PipeError::NoAnswer),
            };
        }
        match &*self.standing.borrow() {
            Standing::Down(Some(error)) | Standing::Ended(error) => Err(error.clone()),
            Standing::Down(None) | Standing::Up(_) => Err(PipeError::NoAnswer),
        }
    }

    /// The number of the newest connection.
    pub(super) fn number(&self) -> u64 {
        self.number.load(Ordering::Relaxed)
    }

    /// Whether there is a connection after this one.
    pub(super) fn has_newer(&self, number: u64) -> bool {
        matches!(&*self.standing.borrow(), Standing::Up(link) if link.number > number)
    }

    /// Returns when there is a connection after this one, or none any more.
    pub(super) async fn superseded(&self, number: u64) {
        let later = |standing: &Standing| match standing {
            Standing::Down(_) => false,
            Standing::Up(link) => link.number > number,
            Standing::Ended(_) => true,
        };
        drop(self.standing.clone().wait_for(later).await);
    }

    /// Asks for a connection with a new token: what one may have changed.
    pub(super) fn renew(&self) {
        self.renew.notify_one();
    }
}

/// What makes them.
struct Keeper {
    client: Client,
    options: PipesOptions,
    standing: watch::Sender<Standing>,
    renew: Arc<Notify>,
    /// Of the newest connection that was made.
    number: Arc<AtomicU64>,
}

impl Keeper {
    async fn run(self) {
        let mut failures = 0;
        loop {
            let number = self.number.load(Ordering::Relaxed) + 1;
            match self.connect(number).await {
                Ok((link, life)) => {
                    self.number.store(number, Ordering::Relaxed);
                    let (mut told, since) = (link.told.clone(), Instant::now());
                    self.standing.send_replace(Standing::Up(Arc::new(link)));
                    tokio::select! {
                        () = sleep(life) => {}
                        () = self.renew.notified() => {}
                        _ = told.wait_for(|told| told.broken) => {}
                    }
                    failures = if since.elapsed() < SOON { failures + 1 } else { 0 };
                    if failures > 1 {
                        sleep(self.client.wait_before(failures).min(LONGEST)).await;
                    }
                }
                Err(error) if may_pass(&error) => {
                    self.is_down(error);
                    failures += 1;
                    sleep(self.client.wait_before(failures).min(LONGEST)).await;
                }
                Err(error) => {
                    self.standing.send_replace(Standing::Ended(error));
                    return;
                }
            }
        }
    }

    /// Tells why there is none, where there is none: the one before may be good for a while.
    fn is_down(&self, error: PipeError) {
        self.standing.send_if_modified(|standing| {
            let down = match standing {
                Standing::Up(link) => link.is_broken(),
                Standing::Down(_) => true,
                Standing::Ended(_) => false,
            };
            if down {
                *standing = Standing::Down(Some(error));
            }
            down
        });
    }

    /// A connection with a new token, and how long until the next one is to be made.
    async fn connect(&self, number: u64) -> Result<(Link, Duration), PipeError> {
        let access = self.exchange().await?;
        let left = access.expires_at - self.client.inner.clock.now();
        let life = left.to_std().unwrap_or_default().clamp(SHORTEST_LIFE, LONGEST_LIFE);
        let link = self.dial(&access, number).await?;
        Ok((link, self.options.renew_after.unwrap_or(life * 2 / 3)))
    }

    /// With the client's credential, which is renewed where it has ended.
    async fn exchange(&self) -> Result<NatsAccess, Error> {
        let account = self.options.account.as_deref();
        let bearer = self.client.bearer().await?;
        match self.client.exchange(&bearer, account).await {
            Err(error) if error.status() == Some(StatusCode::UNAUTHORIZED) && self.client.renews() => {
                let newer = self.client.renew(bearer).await?;
                self.client.exchange(&newer, account).await
            }
            outcome => outcome,
        }
    }

    async fn dial(&self, access: &NatsAccess, number: u64) -> Result<Link, PipeError> {
        let key = KeyPair::from_seed(access.nats_user_seed.expose())
            .map_err(|error| PipeError::Protocol(format!("the seed for NATS cannot be used ({error})")))?;
        let (key, token) = (Arc::new(key), access.nats_user_jwt.expose().clone());
        let spent = Arc::new(AtomicBool::new(false));
        let (sender, told) = watch::channel(Told::default());
        let once = Arc::clone(&spent);
        let options = ConnectOptions::with_auth_callback(move |nonce| {
            let auth = if once.load(Ordering::SeqCst) { None } else { Some(sign(&key, &token, &nonce)) };
            async move { auth.unwrap_or_else(|| Err(AuthError::new("this connection is over"))) }
        })
        .event_callback(move |event| {
            hear(&sender, &event);
            std::future::ready(())
        })
        .name("tidegate-client")
        .custom_inbox_prefix(&access.inbox_prefix)
        .connection_timeout(ATTEMPT)
        .request_timeout(Some(ATTEMPT))
        .ping_interval(PING)
        .ignore_discovered_servers();
        let servers: Vec<&str> =
            access.nats_url.split(',').map(str::trim).filter(|url| !url.is_empty()).collect();
        let secured = servers.iter().any(|url| url.starts_with("tls://"));
        let options = if secured {
            let config = tls::tls_config(&self.client.inner.ca_pem)?;
            options.require_tls(true).tls_client_config((*config).clone())
        } else {
            options
        };
        let connecting = options.max_reconnects(servers.len().max(1)).connect(servers);
        let limit = Instant::now() + ATTEMPT * 2;
        let unreachable = |reason: String| PipeError::Unreachable { url: access.nats_url.clone(), reason };
        let client = timeout_at(limit, connecting)
            .await
            .map_err(|_| unreachable("no answer".to_owned()))?
            .map_err(|error| unreachable(error.to_string()))?;
        // From now on it is this connection or none.
        spent.store(true, Ordering::SeqCst);
        Ok(Link { client, number, told, names: Names::new(access) })
    }
}

fn sign(key: &KeyPair, token: &str, nonce: &[u8]) -> Result<Auth, AuthError> {
    let mut auth = Auth::new();
    auth.jwt = Some(token.to_owned());
    auth.signature = Some(key.sign(nonce).map_err(AuthError::new)?);
    Ok(auth)
}

/// Notes what the library tells of a connection.
fn hear(sender: &watch::Sender<Told>, event: &Event) {
    match event {
        Event::Disconnected | Event::Closed | Event::ServerError(ServerError::AuthorizationViolation) => {
            sender.send_modify(|told| told.broken = true);
        }
        Event::ServerError(error) => sender.send_modify(|told| {
            if told.refusals.len() < REFUSALS {
                told.refusals.push(error.to_string().to_lowercase());
            }
        }),
        Event::Connected
        | Event::LameDuckMode
        | Event::Draining
        | Event::SlowConsumer(_)
        | Event::ClientError(_) => {}
    }
}

/// Whether somebody who connects may try once more: the answer of a control plane that has a fault, or none, says nothing of
/// the credential.
fn may_pass(error: &PipeError) -> bool {
    match error {
        PipeError::Api(error) => {
            let status = error.status();
            let busy = status == Some(StatusCode::TOO_MANY_REQUESTS);
            error.is_passing() || busy || status.is_some_and(|status| status.is_server_error())
        }
        PipeError::Unreachable { .. } => true,
        PipeError::Unknown { .. }
        | PipeError::NoAnswer
        | PipeError::Full(_)
        | PipeError::Message(_)
        | PipeError::Refused(_)
        | PipeError::Protocol(_) => false,
    }
}
