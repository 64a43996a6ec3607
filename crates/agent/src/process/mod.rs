//! The process platform: a session is a group of this machine's processes, kept by a shim that outlives the agent.

pub(crate) mod hold;
mod launch;
pub(crate) mod limits;
mod shim;
pub(crate) mod tree;
mod users;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture};
use nix::sys::signal::Signal;
use serde_json::{Map, json};
use tokio::time::{Instant, sleep};

use crate::{
    Ended, Error, Exit, Found, Keep, Platform, SessionKey, SessionSpec, SessionStream, StreamFrame,
    StreamRequest,
    files::make_dir,
    shim::{
        files as remains,
        wire::{Report, Request},
    },
};
use limits::Limits;
use users::Users;

/// How long a shim may take until it listens.
const START: Duration = Duration::from_secs(20);
/// Longest path of a Unix socket, without its closing NUL.
const SOCKET_PATH: usize = 107;

/// Where the process platform keeps things, and how it ends sessions.
#[derive(Debug, Clone)]
pub struct ProcessOptions {
    /// The agent's data folder; sessions' users must be able to pass through it.
    pub data_dir: PathBuf,
    /// Folder of the shims' sockets; `run` in the data folder when absent.
    pub runtime_dir: Option<PathBuf>,
    /// Where the machine's cgroups are, as one tree or a folder per controller; as mounted when absent.
    pub cgroup_root: Option<PathBuf>,
    /// The agent's program, for its hidden subcommands.
    pub program: PathBuf,
    /// How long a program may take to end by itself.
    pub grace: Duration,
    /// How long a `command` session waits for its first reader before output is dropped.
    pub first_reader: Duration,
}

/// Sessions as processes of this machine.
#[derive(Debug)]
pub struct ProcessPlatform {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    options: ProcessOptions,
    sessions: PathBuf,
    sockets: PathBuf,
    users: Users,
    limits: Limits,
    /// Tells agents of one machine apart, the same after each start.
    name: String,
}

impl ProcessPlatform {
    /// Makes the folders and finds out what this machine can do.
    pub fn open(options: ProcessOptions) -> Result<Self, Error> {
        make_dir(&options.data_dir, 0o711)?;
        let (private, sessions) = (options.data_dir.join("private"), options.data_dir.join("sessions"));
        let sockets = options.runtime_dir.clone().unwrap_or_else(|| options.data_dir.join("run"));
        for folder in [&private, &sessions, &sockets] {
            make_dir(folder, 0o700)?;
        }
        let users = Users::open(&options.data_dir, &private)?;
        let name = name_of(&options.data_dir);
        let limits = Limits::detect(&name, options.cgroup_root.as_deref());
        tracing::info!(limits = limits.name(), "process platform is ready");
        Ok(Self { inner: Arc::new(Inner { options, sessions, sockets, users, limits, name }) })
    }
}

/// The name of an agent's cgroups and marks.
fn name_of(data: &Path) -> String {
    use std::hash::{Hash, Hasher};
    let mut hasher = std::hash::DefaultHasher::new();
    data.canonicalize().unwrap_or_else(|_| data.to_owned()).hash(&mut hasher);
    format!("tidegate-{:016x}", hasher.finish())
}

impl Inner {
    fn folder(&self, key: &SessionKey) -> PathBuf {
        self.sessions.join(&key.session_id)
    }

    fn socket(&self, key: &SessionKey) -> Result<PathBuf, Error> {
        let path = self.sockets.join(format!("{key}.sock"));
        if path.as_os_str().len() > SOCKET_PATH {
            return Err(Error::Setting(format!(
                "the socket path {} has more than {SOCKET_PATH} bytes: set a shorter runtime folder",
                path.display()
            )));
        }
        Ok(path)
    }

    /// The file that the shim of a session holds.
    fn hold(&self, key: &SessionKey) -> PathBuf {
        hold::path(&self.folder(key), key)
    }

    /// The processes of a session, found without its shim.
    fn strays(&self, key: &SessionKey) -> Vec<i32> {
        let mut pids: Vec<i32> =
            self.limits.cgroups(key).iter().flat_map(|cgroup| tree::members(cgroup)).collect();
        pids.extend(tree::marked(&self.name, &key.session_id, key.generation));
        // A shim that neither listens nor ends: it must not start anything later.
        pids.extend(hold::holders(&self.hold(key)));
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// Kills what a dead shim left behind, until nothing is left.
    async fn kill_strays(&self, key: &SessionKey) {
        tree::forbid_forks(self.limits.cgroups(key).iter().map(PathBuf::as_path));
        loop {
            let strays = self.strays(key);
            if strays.is_empty() {
                break;
            }
            tree::signal_all(&strays, Signal::SIGKILL);
            sleep(Duration::from_millis(10)).await;
        }
        self.limits.remove(key);
        if let Ok(socket) = self.socket(key) {
            let _ = std::fs::remove_file(socket);
        }
    }

    /// What became of a session that no shim answers for.
    async fn remains(&self, key: &SessionKey) -> Ended {
        // A shim that wrote the exit has ended everything before.
        if let Ok(Some(exit)) = remains::read_exit(&self.folder(key), key.generation) {
            return Ended::Exited(exit);
        }
        self.kill_strays(key).await;
        Ended::Lost("the process that held the session was killed, or the machine restarted".into())
    }

    /// Connects to a session's shim and says what is wanted. One that lives and does not listen is only just starting
    /// (the agent that started it may be dead) or ending: that is waited for.
    async fn reach(&self, key: &SessionKey, request: &Request) -> Result<Option<shim::Connection>, Error> {
        let (socket, hold) = (self.socket(key)?, self.hold(key));
        let patience = Instant::now() + START;
        loop {
            // In this order: a shim that is gone by the second look has left its exit.
            if let Ok(connection) = shim::connect(&socket, request).await {
                return Ok(Some(connection));
            }
            if !hold::is_taken(&hold) || Instant::now() > patience {
                return Ok(None);
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn find(&self, key: &SessionKey) -> Result<Found, Error> {
        let connected = self.reach(key, &Request::Watch).await?;
        let Some(mut connection) = connected else { return Ok(Found::Ended(self.remains(key).await)) };
        match shim::report(connection.0.next().await) {
            Some(Report::Running) => Ok(Found::Running),
            _ => Ok(Found::Ended(self.remains(key).await)),
        }
    }

    /// Follows a shim's reports to the end.
    async fn follow(&self, key: &SessionKey, request: &Request) -> Option<Exit> {
        let mut connection = self.reach(key, request).await.ok()??;
        loop {
            match shim::report(connection.0.next().await)? {
                Report::Running => {}
                Report::Ended(exit) => {
                    self.limits.remove(key);
                    return Some(exit);
                }
            }
        }
    }

    async fn start(&self, spec: &SessionSpec) -> Result<(), Error> {
        // Without a log there never was a shim, and nothing to look for.
        let begun = self.hold(&spec.key).exists() || self.socket(&spec.key)?.exists();
        if begun && !matches!(self.find(&spec.key).await?, Found::Ended(Ended::Lost(_))) {
            // It runs, or has run to its end: whoever watches it is told.
            return Ok(());
        }
        self.launch(spec).await
    }

    async fn stop(&self, key: &SessionKey, keep: Keep) -> Result<Option<Exit>, Error> {
        let grace_ms = u64::try_from(self.options.grace.as_millis()).unwrap_or(5_000);
        let exit = match self.follow(key, &Request::Stop { grace_ms }).await {
            Some(exit) => Some(exit),
            None => match self.remains(key).await {
                Ended::Exited(exit) => Some(exit),
                Ended::Lost(_) => None,
            },
        };
        if keep == Keep::Nothing {
            self.release(key)?;
        }
        Ok(exit)
    }

    fn release(&self, key: &SessionKey) -> Result<(), Error> {
        self.limits.remove(key);
        self.users.release(&key.session_id)
    }

    async fn open(&self, key: &SessionKey, request: StreamRequest) -> Result<SessionStream, Error> {
        let wish = match request {
            StreamRequest::Terminal(mode) => Request::Terminal { mode },
            StreamRequest::Logs { after, follow } => Request::Logs { after, follow },
        };
        match shim::attach(&self.socket(key)?, &wish).await {
            Ok(stream) => Ok(stream),
            // It has ended, perhaps at this moment: what it left tells the rest.
            Err(_) => shim::replay(&self.folder(key), key, request).await,
        }
    }
}

impl Platform for ProcessPlatform {
    fn kind(&self) -> tidegate_model::Platform {
        tidegate_model::Platform::Vm
    }

    fn metadata(&self) -> Map<String, serde_json::Value> {
        let mut metadata = Map::new();
        metadata.insert("limits".into(), json!(self.inner.limits.name()));
        metadata
    }

    fn start<'a>(&'a self, spec: &'a SessionSpec) -> BoxFuture<'a, Result<(), Error>> {
        self.inner.start(spec).boxed()
    }

    fn stop<'a>(&'a self, key: &'a SessionKey, keep: Keep) -> BoxFuture<'a, Result<Option<Exit>, Error>> {
        self.inner.stop(key, keep).boxed()
    }

    fn find<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, Result<Found, Error>> {
        self.inner.find(key).boxed()
    }

    fn watch(&self, key: &SessionKey) -> BoxFuture<'static, Ended> {
        let (inner, key) = (Arc::clone(&self.inner), key.clone());
        async move {
            match inner.follow(&key, &Request::Watch).await {
                Some(exit) => Ended::Exited(exit),
                None => inner.remains(&key).await,
            }
        }
        .boxed()
    }

    fn release<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, Result<(), Error>> {
        async move { self.inner.release(key) }.boxed()
    }

    fn delete_home<'a>(&'a self, owner: &'a str) -> BoxFuture<'a, Result<bool, Error>> {
        let (inner, owner) = (Arc::clone(&self.inner), owner.to_owned());
        // A home may hold many files.
        let deleting = tokio::task::spawn_blocking(move || inner.users.delete_home(&owner));
        async move {
            let deleted = deleting.await;
            deleted.map_err(|error| Error::Refused(format!("the home was not deleted: {error}")))??;
            Ok(true)
        }
        .boxed()
    }

    fn open<'a>(
        &'a self,
        key: &'a SessionKey,
        request: StreamRequest,
    ) -> BoxFuture<'a, Result<SessionStream, Error>> {
        self.inner.open(key, request).boxed()
    }
}

/// A text frame, read as such.
pub(crate) fn text_of(frame: &StreamFrame) -> Option<&str> {
    match frame {
        StreamFrame::Text(text) => Some(text),
        StreamFrame::Bytes(_) => None,
    }
}
