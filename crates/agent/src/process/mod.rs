//! The process platform: a session is a group of this machine's processes, kept by a shim that outlives the agent.

mod launch;
pub(crate) mod limits;
mod stream;
mod trash;
mod users;

use std::{path::PathBuf, sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use serde_json::{Map, json};

use crate::{
    Ended, Error, Exit, Found, Keep, Platform, Progress, SessionKey, SessionSpec, SessionStream,
    StreamRequest, files::make_dir, shims::Shims,
};
use limits::Limits;
use trash::Trash;
use users::Users;

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
    shims: Shims,
    users: Users,
    limits: Limits,
    /// Folders of desktops, and where they go.
    desktops: PathBuf,
    desktop_trash: Trash,
}

impl ProcessPlatform {
    /// Makes the folders and finds out what this machine can do.
    pub fn open(options: ProcessOptions) -> Result<Self, Error> {
        let shims = Shims::open(&options.data_dir, options.runtime_dir.as_deref(), &options.program)?;
        let users = Users::open(&options.data_dir, &options.data_dir.join("private"))?;
        let limits = Limits::detect(&shims.name, options.cgroup_root.as_deref());
        let desktops = options.data_dir.join("desktops");
        make_dir(&desktops, 0o711)?;
        let desktop_trash = Trash::open(&desktops)?;
        desktop_trash.delete_beside(desktop_trash.names(), drop);
        tracing::info!(limits = limits.name(), "process platform is ready");
        Ok(Self { inner: Arc::new(Inner { options, shims, users, limits, desktops, desktop_trash }) })
    }
}

impl Inner {
    /// What became of a session that no shim answers for.
    async fn remains(&self, key: &SessionKey) -> Ended {
        let cleared = self.clear(key).await;
        cleared.unwrap_or_else(|error| {
            tracing::error!(session = %key, error = error.chain(), "something of a session goes on");
            Ended::Lost(error.chain())
        })
    }

    /// The same, unless something of it does not end.
    async fn clear(&self, key: &SessionKey) -> Result<Ended, Error> {
        // A shim that wrote the exit has ended everything before.
        if let Some(exit) = self.shims.exit(key) {
            return Ok(Ended::Exited(exit));
        }
        self.shims.kill_strays(key, &self.limits.cgroups(key)).await?;
        self.limits.remove(key);
        Ok(Ended::Lost("the process that held the session was killed, or the machine restarted".into()))
    }

    async fn find(&self, key: &SessionKey) -> Result<Found, Error> {
        if self.shims.runs(key).await? {
            return Ok(Found::Running);
        }
        Ok(Found::Ended(self.remains(key).await))
    }

    async fn start(&self, spec: &SessionSpec) -> Result<(), Error> {
        let begun = self.shims.was_begun(&spec.key)?;
        if begun && !matches!(self.find(&spec.key).await?, Found::Ended(Ended::Lost(_))) {
            // It runs, or has run to its end: whoever watches it is told.
            return Ok(());
        }
        self.launch(spec).await
    }

    async fn watch(&self, key: &SessionKey) -> Ended {
        match self.shims.watch(key).await {
            Some(exit) => {
                self.limits.remove(key);
                Ended::Exited(exit)
            }
            None => self.remains(key).await,
        }
    }

    async fn stop(&self, key: &SessionKey, keep: Keep) -> Result<Option<Exit>, Error> {
        let exit = match self.shims.stop(key, self.options.grace).await {
            Some(exit) => {
                self.limits.remove(key);
                Some(exit)
            }
            None => match self.clear(key).await? {
                Ended::Exited(exit) => Some(exit),
                Ended::Lost(_) => None,
            },
        };
        if keep == Keep::Nothing {
            self.release(key);
        }
        Ok(exit)
    }

    /// Frees what only this session used. What it wrote is out of the way when this returns, and deleted later; nothing
    /// that goes wrong with that keeps the session from having ended.
    fn release(&self, key: &SessionKey) {
        self.limits.remove(key);
        self.discard_desktop(key);
        self.users.release(&key.session_id);
    }

    /// Takes the folder of a session's desktop away, with its socket and its cookie.
    fn discard_desktop(&self, key: &SessionKey) {
        let folder = self.desktops.join(&key.session_id);
        match self.desktop_trash.take(&folder) {
            Ok(name) => self.desktop_trash.delete_beside(name.into_iter().collect(), drop),
            Err(error) => tracing::warn!(path = %folder.display(), %error, "a session's folder stays"),
        }
    }

    async fn open(&self, key: &SessionKey, request: StreamRequest) -> Result<SessionStream, Error> {
        match request {
            StreamRequest::Terminal(_) | StreamRequest::Logs { .. } => {
                self.shims.open_stream(key, request).await
            }
            StreamRequest::Stream => self.open_endpoint(key).await,
            StreamRequest::Port(port) => self.open_port(key, port).await,
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

    fn start<'a>(&'a self, spec: &'a SessionSpec, _: Progress) -> BoxFuture<'a, Result<(), Error>> {
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
        async move { inner.watch(&key).await }.boxed()
    }

    fn ready(&self, key: &SessionKey) -> BoxFuture<'static, Option<u16>> {
        let (inner, key) = (Arc::clone(&self.inner), key.clone());
        async move { inner.ready(&key).await }.boxed()
    }

    fn release<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, Result<(), Error>> {
        async move {
            self.inner.release(key);
            Ok(())
        }
        .boxed()
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
