//! An agent's life: find what an earlier one left, register, connect, connect again, go.

use std::{sync::Arc, time::Duration};

use rand::RngExt;
use serde_json::json;
use tidegate_model::{AgentMetadata, Clock, CommandId, SystemClock};
use tidegate_protocol::TunnelOpenMessage;
use tokio::{
    sync::{Semaphore, mpsc},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Error, Options, Platform,
    files::make_dir,
    journal::Journal,
    link::{Link, Parted},
    lock::Lock,
    records::Records,
    register::{Registered, register},
    server::{Dial, Keys},
    sessions::Sessions,
    tunnel,
};

/// Commands and tunnels waiting between the link and those who carry them out.
const COMMANDS: usize = 1_024;
const TUNNELS: usize = 256;
/// Tunnels open at one time.
const OPEN_TUNNELS: usize = 4_096;
/// Wait between attempts that only an operator can turn into success.
const SLOWLY: Duration = Duration::from_secs(30);

/// Why an agent ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exited {
    /// It was told to by its own machine.
    Cancelled,
    /// The control plane asked it to drain and exit.
    Asked,
}

/// Runs an agent until `shutdown` is cancelled or the control plane asks it to exit. Sessions go on unless the options
/// say otherwise; the next start finds them.
pub async fn run(
    options: Options,
    platform: Arc<dyn Platform>,
    shutdown: CancellationToken,
) -> Result<Exited, Error> {
    let private = options.data_dir.join("private");
    make_dir(&private, 0o700)?;
    let _lock = Lock::take(&options.data_dir).await?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let dial = Dial::new(Arc::new(options), Keys::new(private.clone()))?;
    let options = Arc::clone(&dial.options);
    let records = Records::open(&options.data_dir.join("sessions"))?;
    let (journal, unfinished) = Journal::open(&private.join("journal.jsonl"), Arc::clone(&clock))?;
    let sessions = Sessions::new(Arc::clone(&platform), records, journal, clock, options.max_sessions);
    sessions.recover(unfinished).await;
    let tasks = TaskTracker::new();
    let (commands, accepted) = mpsc::channel(COMMANDS);
    let (tunnels, wanted) = mpsc::channel(TUNNELS);
    let accepting = tasks.spawn(Arc::clone(&sessions).accept(accepted));
    let dialling = tasks.spawn(dial_tunnels(Arc::clone(&sessions), dial.clone(), wanted));
    let link = Link {
        dial,
        sessions,
        boot_id: CommandId::new().to_string(),
        platform: platform.kind(),
        commands,
        asked: CancellationToken::new(),
        tunnels,
    };
    let stop = shutdown.child_token();
    let leaving = tasks.spawn(leave_when_asked(
        Arc::clone(&link.sessions),
        options.farewell,
        link.asked.clone(),
        stop.clone(),
    ));
    let mut metadata = platform.metadata();
    metadata.insert("version".into(), json!(env!("CARGO_PKG_VERSION")));
    let life = Life { link, metadata: AgentMetadata(metadata) };
    let exited = life.live(&stop).await;
    leaving.abort();
    accepting.abort();
    dialling.abort();
    tasks.close();
    tasks.wait().await;
    exited
}

/// The control plane asked the agent to go: ends the sessions while the link reports it, then the link.
async fn leave_when_asked(
    sessions: Arc<Sessions>,
    farewell: Duration,
    asked: CancellationToken,
    stop: CancellationToken,
) {
    asked.cancelled().await;
    sessions.end_all().await;
    let settled = async {
        while !sessions.outbox.is_settled() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    let _ = timeout(farewell, settled).await;
    stop.cancel();
}

/// Each tunnel is a task of its own; all end with this one.
async fn dial_tunnels(sessions: Arc<Sessions>, dial: Dial, mut wanted: mpsc::Receiver<TunnelOpenMessage>) {
    let mut open = tokio::task::JoinSet::new();
    let room = Arc::new(Semaphore::new(OPEN_TUNNELS));
    while let Some(tunnel) = wanted.recv().await {
        while open.try_join_next().is_some() {}
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
            tracing::warn!("{OPEN_TUNNELS} tunnels are open: another one is refused");
            continue;
        };
        let (sessions, dial) = (Arc::clone(&sessions), dial.clone());
        open.spawn(async move {
            tunnel::run(sessions, &dial, tunnel).await;
            drop(permit);
        });
    }
}

struct Life {
    link: Link,
    metadata: AgentMetadata,
}

impl Life {
    async fn live(&self, shutdown: &CancellationToken) -> Result<Exited, Error> {
        let mut attempts = 0;
        loop {
            let wait = match self.connect_once(shutdown, &mut attempts).await? {
                Next::Wait(wait) => wait,
                Next::Cancelled => return self.go().await,
            };
            tokio::select! {
                () = sleep(wait) => {}
                () = shutdown.cancelled() => {}
            }
        }
    }

    async fn connect_once(&self, shutdown: &CancellationToken, attempts: &mut u32) -> Result<Next, Error> {
        if shutdown.is_cancelled() {
            return Ok(Next::Cancelled);
        }
        let Some(key) = self.link.dial.keys.key()? else {
            return Ok(self.register_once(shutdown, attempts).await);
        };
        let mut connected = false;
        let parted = self.link.run(&key, shutdown, &mut connected).await?;
        if connected {
            *attempts = 0;
        }
        Ok(match parted {
            Parted::Cancelled => Next::Cancelled,
            Parted::Lost(reason) => {
                tracing::warn!(reason, "not connected");
                Next::Wait(self.back_off(attempts))
            }
            Parted::NotApproved => {
                tracing::warn!(
                    "the control plane does not admit this agent now: it is not approved, or brings no certificate of its own"
                );
                Next::Wait(self.back_off(attempts))
            }
            Parted::KeyRefused => {
                tracing::warn!("the control plane does not take this agent's key");
                match self.register_once(shutdown, attempts).await {
                    Next::Wait(_) => Next::Wait(self.back_off(attempts)),
                    Next::Cancelled => Next::Cancelled,
                }
            }
        })
    }

    async fn register_once(&self, shutdown: &CancellationToken, attempts: &mut u32) -> Next {
        let Link { dial, platform, .. } = &self.link;
        let registered = tokio::select! {
            registered = register(dial, *platform, self.metadata.clone()) => registered,
            () = shutdown.cancelled() => return Next::Cancelled,
        };
        match registered {
            Ok(Registered::Key) => {
                tracing::info!("registered: the agent has a key of its own");
                *attempts = 0;
                Next::Wait(Duration::ZERO)
            }
            Ok(Registered::Waiting) => {
                tracing::info!(agent_id = %dial.options.agent_id, "registered: waits for an operator's approval");
                Next::Wait(self.back_off(attempts))
            }
            Ok(Registered::Refused(reason)) => {
                tracing::error!(reason, "not registered");
                Next::Wait(SLOWLY.min(dial.options.reconnect_max))
            }
            Err(error) => {
                tracing::warn!(error = error.chain(), "not registered");
                Next::Wait(self.back_off(attempts))
            }
        }
    }

    /// Full jitter: many agents that lost the same control plane do not come back at once.
    fn back_off(&self, attempts: &mut u32) -> Duration {
        let Options { reconnect_min, reconnect_max, .. } = *self.link.dial.options;
        let most = reconnect_min.saturating_mul(1 << (*attempts + 1).min(16)).min(reconnect_max);
        *attempts = attempts.saturating_add(1);
        reconnect_min.max(most.mul_f64(rand::rng().random::<f64>()))
    }

    /// Goes: ends the sessions if that is wanted, reports, and waits for work in progress.
    async fn go(&self) -> Result<Exited, Error> {
        let Link { sessions, dial, .. } = &self.link;
        let options = &dial.options;
        let exited = if self.link.asked.is_cancelled() { Exited::Asked } else { Exited::Cancelled };
        if options.stop_sessions_on_exit {
            sessions.end_all().await;
        }
        if timeout(options.farewell, sessions.close()).await.is_err() {
            tracing::warn!("a command is still being carried out; the next start goes on with it");
        }
        if sessions.outbox.is_settled() {
            return Ok(exited);
        }
        let Some(key) = self.link.dial.keys.key()? else { return Ok(exited) };
        // One last connection for the last reports.
        let done = CancellationToken::new();
        let settled = async {
            while !sessions.outbox.is_settled() {
                sleep(Duration::from_millis(20)).await;
            }
            done.cancel();
        };
        let mut connected = false;
        let farewell = async { tokio::join!(self.link.run(&key, &done, &mut connected), settled) };
        if timeout(options.farewell, farewell).await.is_err() {
            tracing::warn!("the last reports were not taken; the next start sends them again");
        }
        Ok(exited)
    }
}

enum Next {
    Wait(Duration),
    Cancelled,
}
