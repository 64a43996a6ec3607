//! A private PostgreSQL: no TCP port, passwords (SCRAM) on a Unix socket in a closed folder, one owner at a time.
//!
//! On disk, below [`Options::data_dir`]: `postgres/` (the cluster), `postgres.log`, `postgres.lock` (who owns it),
//! `secrets/` (a 0600 file per role's password). Below [`Options::run_dir`]: `postgres/` with the socket.
//! A backup is a backup of the database and of `secrets/`.
//!
//! The server ends with its owner: cleanly through [`Postgres::stop`], by itself when the owner is killed. A start clears
//! away whatever an earlier run left, so data survives any end of either side.

mod access;
mod binaries;
mod initdb;
mod layout;
mod postmaster;
mod recover;
mod sql;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio_util::sync::{CancellationToken, DropGuard};

pub use self::access::Access;
pub use self::binaries::{Binaries, OLDEST_MAJOR, find};
use self::layout::Layout;
use self::postmaster::Launch;
use crate::folder::OwnerLock;
use crate::identity::{Engine, Identity};
use crate::log::Log;
use crate::secrets::{self, Password};
pub use crate::supervise::Status;
use crate::supervise::{Launcher as _, Supervisor};
use crate::{Error, Result};

/// Who this is and who may run it.
const ENGINE: Engine = Engine { name: "PostgreSQL", users: ["postgres", "nobody"] };

/// The cluster's superuser, which only [`Postgres`] itself and operators use.
pub const SUPERUSER: &str = "postgres";
/// The role that owns the schema and runs migrations.
pub const MIGRATOR: &str = "tidegate_migrator";
/// The role the services log in as.
pub const APP: &str = "tidegate_app";

/// Whether a commit survives a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Every commit is on disk before it is acknowledged.
    Full,
    /// Nothing is synced. Fast; commits survive a killed server, not a power cut: for tests alone.
    OffForTests,
}

/// How to run the server.
#[derive(Clone, Debug)]
pub struct Options {
    /// Holds cluster, log, lock and passwords; made when missing. The usual place for root is `/var/lib/tidegate`.
    pub data_dir: PathBuf,
    /// Holds the socket's folder; made when missing. Short: a socket's path has at most 107 bytes (103 on macOS).
    /// The usual place for root is `/run/tidegate`.
    pub run_dir: PathBuf,
    /// The user PostgreSQL runs as when this process is root. Without one: the owner of an existing cluster, else
    /// `postgres` where that user exists, else `nobody`.
    pub run_as: Option<String>,
    /// Folders to look for PostgreSQL's programs in, instead of `PATH`, `pg_config` and the usual folders.
    pub bin_dirs: Option<Vec<PathBuf>>,
    /// Whether commits are durable; [`Durability::Full`] but in tests.
    pub durability: Durability,
    /// The greatest number of connections; 100.
    pub max_connections: u32,
    /// Roles that get a generated password each; [`MIGRATOR`] and [`APP`]. Making the roles is the caller's, through
    /// [`Access::run_superuser_sql`].
    pub login_roles: Vec<String>,
    /// How long the first start may take, crash recovery included; 5 minutes.
    pub start_timeout: Duration,
    /// How long a fast shutdown may take before it becomes an immediate one; 30 seconds.
    pub shutdown_timeout: Duration,
    /// The log's size in bytes at which it is set aside as `postgres.log.1`; 10 MiB.
    pub log_limit: u64,
}

impl Options {
    /// Defaults for the two folders given.
    pub fn new(data_dir: impl Into<PathBuf>, run_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            run_dir: run_dir.into(),
            run_as: None,
            bin_dirs: None,
            durability: Durability::Full,
            max_connections: 100,
            login_roles: vec![MIGRATOR.to_owned(), APP.to_owned()],
            start_timeout: Duration::from_mins(5),
            shutdown_timeout: Duration::from_secs(30),
            log_limit: 10 * 1024 * 1024,
        }
    }

    /// The usual folders of this host: `/var/lib/tidegate` and `/run/tidegate` for root; for anybody else `user_dir`
    /// (for instance `~/.local/share/tidegate`) and `run` in it.
    pub fn default_for_host(user_dir: &Path) -> Self {
        if nix::unistd::Uid::effective().is_root() {
            Self::new("/var/lib/tidegate", "/run/tidegate")
        } else {
            Self::new(user_dir, user_dir.join("run"))
        }
    }

    /// A fast, forgetful cluster in a temporary folder, which must have a short path and let the database user through
    /// when this process is root (mode 0711: `tempfile::Builder::new().permissions(…)`).
    pub fn for_tests(folder: &Path) -> Self {
        Self {
            durability: Durability::OffForTests,
            shutdown_timeout: Duration::from_secs(5),
            ..Self::new(folder.join("data"), folder.join("run"))
        }
    }
}

/// A running, supervised server. Dropping it stops the server too, without waiting for it.
///
/// It dereferences to [`Access`]: URLs, passwords and SQL as the superuser.
#[derive(Debug)]
pub struct Postgres {
    access: Access,
    status: watch::Receiver<Status>,
    stop: DropGuard,
    supervisor: JoinHandle<Result<()>>,
}

impl Postgres {
    /// Starts the server of `options.data_dir`, making the cluster first where there is none, and returns when it
    /// accepts connections.
    ///
    /// The supervisor runs on the calling runtime, and the server ends with it. Fails with [`Error::Owned`] when another
    /// process runs this server ([`Access::to_running`] is the way to use it then), with [`Error::Missing`] when no PostgreSQL is installed.
    pub async fn start(options: Options) -> Result<Self> {
        let (prepared, lock) = prepare_off_runtime(options.clone()).await?;
        let Prepared { launch, superuser, passwords } = prepared;
        launch.clear().await?;
        initdb::remove_drafts(&launch.layout.data_dir)?;
        if launch.layout.cluster_major()?.is_none() {
            initdb::make_cluster(
                &launch.layout,
                &launch.binaries,
                &launch.identity,
                launch.durability,
                &superuser,
            )
            .await?;
        }
        let mut server = launch.spawn()?;
        if let Err(error) = launch.until_ready(&mut server, Some(options.start_timeout)).await {
            // why it did not start matters more than how it ended
            server.stop(launch.shutdown_timeout).await.ok();
            return Err(error);
        }
        let (sender, status) = watch::channel(Status::Ready { pid: server.pid() });
        let stop = CancellationToken::new();
        let access = Access { layout: launch.layout.clone(), binaries: launch.binaries.clone(), passwords };
        let supervisor =
            Supervisor { launch, status: sender, stop: stop.clone(), restart: Arc::default(), lock };
        let supervisor = tokio::spawn(supervisor.run(server));
        Ok(Self { access, status, stop: stop.drop_guard(), supervisor })
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

    /// Stops the server and returns when it has ended and the data directory is free for the next owner.
    pub async fn stop(self) -> Result<()> {
        drop(self.stop);
        self.supervisor.await.map_err(|_| Error::SupervisorLost { engine: ENGINE.name })?
    }
}

impl std::ops::Deref for Postgres {
    type Target = Access;

    fn deref(&self) -> &Access {
        &self.access
    }
}

/// Everything that is settled before a process is started.
struct Prepared {
    launch: Launch,
    superuser: Password,
    passwords: BTreeMap<String, Password>,
}

async fn prepare_off_runtime(options: Options) -> Result<(Prepared, OwnerLock)> {
    spawn_blocking(move || prepare(&options))
        .await
        .map_err(|_| Error::SupervisorLost { engine: ENGINE.name })?
}

fn prepare(options: &Options) -> Result<(Prepared, OwnerLock)> {
    let layout = Layout::new(&options.data_dir, &options.run_dir)?;
    let major = layout.cluster_major()?;
    let binaries = find(options.bin_dirs.as_deref(), major)?;
    let identity = Identity::resolve(&ENGINE, options.run_as.as_deref(), &layout.cluster)?;
    layout.create_data_dir()?;
    identity.can_reach(&layout.data_dir)?;
    let lock = OwnerLock::take(&layout.data_dir, "postgres.lock")?;
    layout.create_sockets(&identity)?;
    let superuser = superuser_password(&layout)?;
    let mut passwords = BTreeMap::from([(SUPERUSER.to_owned(), superuser.clone())]);
    for role in &options.login_roles {
        passwords.insert(role.clone(), role_password(&layout, role)?);
    }
    let launch = Launch {
        log: Log::new(layout.log.clone(), options.log_limit),
        layout,
        binaries,
        identity,
        durability: options.durability,
        max_connections: options.max_connections,
        shutdown_timeout: options.shutdown_timeout,
    };
    Ok((Prepared { launch, superuser, passwords }, lock))
}

fn superuser_password(layout: &Layout) -> Result<Password> {
    let path = layout.password_file(SUPERUSER);
    if layout.cluster_major()?.is_some() && !path.exists() {
        let problem =
            "is missing, and only it opens the existing cluster; restore it from a backup".to_owned();
        return Err(Error::Secret { path, problem });
    }
    let password = secrets::password(&path)?;
    let line = format!("*:*:*:{SUPERUSER}:{}\n", password.expose());
    // written anew, in case the password's file was restored from elsewhere
    secrets::replace(&layout.passfile(), line.as_bytes())?;
    Ok(password)
}

fn role_password(layout: &Layout, role: &str) -> Result<Password> {
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    // the name becomes a file's name
    if role.is_empty() || role.len() > 63 || !role.chars().all(is_name) || role == SUPERUSER {
        return Err(Error::Setting(format!("the login role {role:?} must be 1 to 63 of a-z, 0-9 and _")));
    }
    secrets::password(&layout.password_file(role))
}
