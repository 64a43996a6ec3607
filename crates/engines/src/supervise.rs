//! Keeps one server running until it is told to stop.
//! Never gives up while the process lives: a server that cannot start is tried again, ever more slowly.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use crate::Result;
use crate::folder::OwnerLock;
use crate::log::Log;
use crate::process::Server;

/// The first pause before a restart that follows a failed one; doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A server that lived this long was well: the next restart is immediate again.
const HEALTHY: Duration = Duration::from_secs(10);
/// How often the log's size is looked at.
const LOG_CHECK: Duration = Duration::from_secs(30);

/// What the server is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It accepts connections.
    Ready {
        /// The server's process.
        pid: u32,
    },
    /// It died and is being started again; connections fail meanwhile.
    Restarting,
    /// It was stopped and will not come back.
    Stopped,
}

/// What the supervisor has to know of an engine: PostgreSQL and NATS are the two.
pub(crate) trait Launcher: Send + Sync + 'static {
    /// What people call it.
    const NAME: &'static str;

    /// Where it writes.
    fn log(&self) -> &Log;

    /// How long it may take to end politely.
    fn shutdown_timeout(&self) -> Duration;

    /// Clears away what an earlier run left.
    fn clear(&self) -> impl Future<Output = Result<()>> + Send;

    /// Starts the server; it is not ready yet.
    fn spawn(&self) -> Result<Server>;

    /// Waits until the server accepts connections. With no limit it waits as long as recovery takes.
    fn until_ready(
        &self,
        server: &mut Server,
        limit: Option<Duration>,
    ) -> impl Future<Output = Result<()>> + Send;
}

/// The task that owns the server and the lock.
pub(crate) struct Supervisor<L> {
    pub(crate) launch: L,
    pub(crate) status: watch::Sender<Status>,
    pub(crate) stop: CancellationToken,
    /// That the server is to be started anew, with what its launcher says then.
    pub(crate) restart: Arc<Notify>,
    pub(crate) lock: OwnerLock,
}

impl<L: Launcher> Supervisor<L> {
    /// Runs until told to stop; then stops the server and, last of all, lets go of the lock.
    pub(crate) async fn run(self, mut server: Server) -> Result<()> {
        let mut pause = Duration::ZERO;
        let outcome = loop {
            let born = tokio::time::Instant::now();
            let ended = self.stay(&mut server).await;
            if ended == Ended::ByOrder {
                break server.stop(self.launch.shutdown_timeout()).await;
            }
            self.status.send_replace(Status::Restarting);
            if ended == Ended::ToComeBack
                && let Err(error) = server.stop(self.launch.shutdown_timeout()).await
            {
                // what is left of it is cleared away before the next one starts
                let error = &error as &dyn std::error::Error;
                tracing::warn!(engine = L::NAME, error, "the server did not end as it should");
            }
            if born.elapsed() > HEALTHY {
                pause = Duration::ZERO;
            }
            match self.replace(&mut pause).await {
                Some(next) => server = next,
                None => break Ok(()),
            }
        };
        drop(self.lock);
        self.status.send_replace(Status::Stopped);
        outcome
    }

    /// Stays with a ready server until it dies or is to be stopped.
    async fn stay(&self, server: &mut Server) -> Ended {
        let mut log_check = interval(LOG_CHECK);
        log_check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ended::ByOrder,
                () = self.restart.notified() => return Ended::ToComeBack,
                status = server.ended() => {
                    tracing::error!(engine = L::NAME, pid = server.pid(), ?status, "the server died; starting it again");
                    return Ended::ByItself;
                }
                _ = log_check.tick() => self.keep_log_bound().await,
            }
        }
    }

    /// Starts servers until one is ready; none when told to stop.
    async fn replace(&self, pause: &mut Duration) -> Option<Server> {
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return None,
                () = sleep(*pause) => {}
            }
            *pause = (*pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
            match self.start_again().await {
                Ok(server) => return server,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(engine = L::NAME, error, "the server did not come back");
                }
            }
        }
    }

    async fn start_again(&self) -> Result<Option<Server>> {
        self.launch.clear().await?;
        let mut server = self.launch.spawn()?;
        let ready = tokio::select! {
            biased;
            () = self.stop.cancelled() => None,
            ready = self.launch.until_ready(&mut server, None) => Some(ready),
        };
        match ready {
            None => server.stop(self.launch.shutdown_timeout()).await.map(|()| None),
            Some(Ok(())) => {
                tracing::info!(engine = L::NAME, pid = server.pid(), "the server is back");
                self.status.send_replace(Status::Ready { pid: server.pid() });
                Ok(Some(server))
            }
            Some(Err(error)) => {
                server.stop(self.launch.shutdown_timeout()).await?;
                Err(error)
            }
        }
    }

    async fn keep_log_bound(&self) {
        let log = self.launch.log().clone();
        let kept = tokio::task::spawn_blocking(move || log.keep_bound()).await;
        if let Ok(Err(error)) = kept {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(engine = L::NAME, error, "the server's log keeps growing");
        }
    }
}

/// How a server's life ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ended {
    ByOrder,
    ToComeBack,
    ByItself,
}
