//! A private nats-server in operator mode: loopback, JetStream on disk, accounts in its own (full) resolver, one owner
//! at a time.
//!
//! On disk, below [`Options::data_dir`]: `nats/` (configuration, accounts and streams), `nats.log`, `nats.lock` (who owns
//! it), `nats.port` (where it listens, so that clients find it again). A backup of the pipes is a backup of `nats/` beside
//! one of the database, taken while the server is stopped.
//!
//! No secret is kept or needed here: whom the server trusts is the public half of keys that the caller keeps.
//!
//! The server ends with its owner: cleanly through [`Nats::stop`], by itself when the owner is killed. A start clears away
//! whatever an earlier run left, so that accounts and acknowledged messages survive any end of either side.

mod binary;
mod config;
mod layout;
mod port;
mod server;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio_util::sync::{CancellationToken, DropGuard};

pub use self::binary::{Binary, OLDEST, find};
pub use self::config::{Foreign, MAX_CONTROL_LINE, MAX_PAYLOAD};
use self::layout::Layout;
pub use self::port::running_url;
use self::server::Launch;
use crate::folder::OwnerLock;
use crate::identity::{Engine, Identity};
use crate::log::Log;
pub use crate::supervise::Status;
use crate::supervise::{Launcher as _, Supervisor};
use crate::{Error, Result};

/// Who this is and who may run it.
const ENGINE: Engine = Engine { name: "nats-server", users: ["nats", "nobody"] };

/// Whether an acknowledged message survives a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Every message is on disk before it is acknowledged (`sync_interval: always`).
    Full,
    /// Messages are synced every two minutes, as nats-server does by default: faster; acknowledged messages survive a
    /// killed server, not a power cut.
    Relaxed,
}

/// Whom the server trusts: nothing secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    /// The operator's token.
    pub operator: String,
    /// The system account's public key.
    pub system_account: String,
    /// The system account's token.
    pub system_token: String,
}

/// How to run the server.
#[derive(Clone, Debug)]
pub struct Options {
    /// Holds accounts, streams, log and lock; made when missing. The usual place for root is `/var/lib/tidegate`.
    pub data_dir: PathBuf,
    /// Whom it trusts.
    pub trust: Trust,
    /// The port on 127.0.0.1; none is the one of the last start, else a free one.
    pub port: Option<u16>,
    /// The user nats-server runs as when this process is root. Without one: the owner of the existing data, else `nats`
    /// where that user exists, else `nobody`.
    pub run_as: Option<String>,
    /// Folders to look for nats-server in, instead of `PATH`, the tool folder beside this program and the usual folders.
    pub bin_dirs: Option<Vec<PathBuf>>,
    /// Whether messages are durable; [`Durability::Full`].
    pub durability: Durability,
    /// The greatest number of connections; 65 536.
    pub max_connections: u32,
    /// The bytes that streams of all accounts may promise to hold, together: 1 PiB. Promises are no disk space yet, and
    /// whoever makes them watches the disk.
    pub max_promised_bytes: u64,
    /// How long the first start may take, recovery of all streams included; 5 minutes.
    pub start_timeout: Duration,
    /// How long a polite shutdown may take before the server is killed; 30 seconds.
    pub shutdown_timeout: Duration,
    /// The log's size in bytes at which it is set aside as `nats.log.1`; 10 MiB.
    pub log_limit: u64,
}

impl Options {
    /// Defaults for a data directory.
    pub fn new(data_dir: impl Into<PathBuf>, trust: Trust) -> Self {
        Self {
            data_dir: data_dir.into(),
            trust,
            port: None,
            run_as: None,
            bin_dirs: None,
            durability: Durability::Full,
            max_connections: 65_536,
            max_promised_bytes: 1 << 50,
            start_timeout: Duration::from_mins(5),
            shutdown_timeout: Duration::from_secs(30),
            log_limit: 10 * 1024 * 1024,
        }
    }

    /// A fast server in a temporary folder, which must let the server's user through when this process is root (mode
    /// 0711).
    pub fn for_tests(folder: &Path, trust: Trust) -> Self {
        Self {
            durability: Durability::Relaxed,
            shutdown_timeout: Duration::from_secs(5),
            ..Self::new(folder.join("data"), trust)
        }
    }
}

/// A running, supervised server. Dropping it stops the server too, without waiting for it.
#[derive(Debug)]
pub struct Nats {
    port: u16,
    version: String,
    status: watch::Receiver<Status>,
    configured: Configured,
    restart: Arc<Notify>,
    stop: DropGuard,
    supervisor: JoinHandle<Result<()>>,
}

/// What the server's configuration is written from.
#[derive(Clone, Debug)]
struct Configured {
    layout: Layout,
    identity: Identity,
    options: Options,
}

impl Nats {
    /// Starts the server of `options.data_dir` and returns when it accepts connections and has its streams.
    ///
    /// The supervisor runs on the calling runtime, and the server ends with it. Fails with [`Error::Owned`] when another
    /// process runs this server ([`running_url`] is the way to it then), with [`Error::Missing`] when no nats-server is
    /// installed or all are too old.
    pub async fn start(options: Options) -> Result<Self> {
        let start_timeout = options.start_timeout;
        let (found, options) = off_runtime(move || Ok((Found::look(&options)?, options))).await?;
        server::clear(&found.layout, &found.identity, options.shutdown_timeout).await?;
        let configured = Configured {
            layout: found.layout.clone(),
            identity: found.identity.clone(),
            options: options.clone(),
        };
        let (launch, lock) = off_runtime(move || found.prepare(&options)).await?;
        let mut server = launch.spawn()?;
        if let Err(error) = launch.until_ready(&mut server, Some(start_timeout)).await {
            // why it did not start matters more than how it ended
            server.stop(launch.shutdown_timeout).await.ok();
            return Err(error);
        }
        let (sender, status) = watch::channel(Status::Ready { pid: server.pid() });
        let stop = CancellationToken::new();
        let (port, version) = (launch.port, launch.binary.version.clone());
        let restart = Arc::new(Notify::new());
        let supervisor =
            Supervisor { launch, status: sender, stop: stop.clone(), restart: Arc::clone(&restart), lock };
        let supervisor = tokio::spawn(supervisor.run(server));
        Ok(Self { port, version, status, configured, restart, stop: stop.drop_guard(), supervisor })
    }

    /// Where clients of this machine connect to.
    pub fn url(&self) -> String {
        port::url(self.port)
    }

    /// The server's version, for instance `2.11.3`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The server's process; none while it is being restarted.
    pub fn pid(&self) -> Option<u32> {
        match *self.status.borrow() {
            Status::Ready { pid } => Some(pid),
            Status::Restarting | Status::Stopped => None,
        }
    }

    /// Follows the server's state: wait in it for a restart instead of polling.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Tells the server whom to trust from now on. It learns that at a start alone, so that it is started anew: connections
    /// break, clients come back by themselves, and what was acknowledged is there.
    pub async fn trust(&self, trust: Trust) -> Result<()> {
        let mut configured = self.configured.clone();
        configured.options.trust = trust;
        let port = self.port;
        off_runtime(move || {
            config::write(&configured.layout, &configured.identity, &configured.options, port)
        })
        .await?;
        self.restart();
        Ok(())
    }

    /// Starts the server anew: connections break, clients come back by themselves, and what was acknowledged is there.
    pub fn restart(&self) {
        self.restart.notify_one();
    }

    /// Stops the server and returns when it has ended and the data directory is free for the next owner.
    pub async fn stop(self) -> Result<()> {
        drop(self.stop);
        self.supervisor.await.map_err(|_| Error::SupervisorLost { engine: ENGINE.name })?
    }
}

async fn off_runtime<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    spawn_blocking(work).await.map_err(|_| Error::SupervisorLost { engine: ENGINE.name })?
}

/// What is there before anything of the server's is touched.
struct Found {
    layout: Layout,
    binary: Binary,
    identity: Identity,
    lock: OwnerLock,
}

impl Found {
    fn look(options: &Options) -> Result<Self> {
        let layout = Layout::new(&options.data_dir)?;
        let binary = find(options.bin_dirs.as_deref())?;
        let identity = Identity::resolve(&ENGINE, options.run_as.as_deref(), &layout.folder)?;
        layout.create_data_dir()?;
        identity.can_reach(&layout.data_dir)?;
        let lock = OwnerLock::take(&layout.data_dir, "nats.lock")?;
        layout.create_folders(&identity)?;
        Ok(Self { layout, binary, identity, lock })
    }

    /// Settles the rest, once no earlier run is in the way.
    fn prepare(self, options: &Options) -> Result<(Launch, OwnerLock)> {
        let Self { layout, binary, identity, lock } = self;
        let port = port::choose(&layout, options.port)?;
        let binary = binary.within_reach(&identity, &layout.data_dir)?;
        config::write(&layout, &identity, options, port)?;
        let log = Log::new(layout.log.clone(), options.log_limit);
        let shutdown_timeout = options.shutdown_timeout;
        Ok((Launch { layout, binary, identity, log, port, shutdown_timeout }, lock))
    }
}
