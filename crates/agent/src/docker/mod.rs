//! The Docker platform: a session is a container. Its terminal is held by a shim, as that of a process is: below the shim
//! a bridge (`session-container`) is attached to the container, so that the agent may come and go.
//!
//! Containers are found by their labels alone: an agent that lost everything it wrote down still finds what runs.

mod bridge;
mod container;
mod engine;
mod evidence;
mod home;
mod image;
mod stream;

use std::{path::PathBuf, sync::Arc, time::Duration};

use bollard::plugin::{ContainerCreateBody, ContainerInspectResponse};
use futures_util::{FutureExt, future::BoxFuture};
use serde_json::{Map, Value, json};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep},
};

use crate::{
    Discovered, Ended, Error, Exit, Found, Keep, Platform, Program, Progress, SessionKey, SessionSpec,
    SessionStream, StreamRequest,
    exec::ExecSpec,
    files::make_dir,
    shim::ShimSpec,
    shims::{PATH, Shims},
};
use bridge::{Bridge, Role};
use container::{Labels, Standing, UNKNOWN_CODE};
use engine::Engine;
use home::Home;

pub use bridge::session_container;

/// How long a container's start is looked at before it is believed to go on by itself.
const STARTS: Duration = Duration::from_mins(1);
/// How often something is looked for that is about to happen.
const LOOK: Duration = Duration::from_millis(50);
/// How long what was asked for waits for an engine that is away: longer than one takes to be upgraded, and not as long as
/// a command may take.
const PATIENCE: Duration = Duration::from_mins(2);
/// How often an engine that is away is tried again.
const AWAY: Duration = Duration::from_secs(1);
/// Why a session fails whose program ended while nobody was there to see it.
const END_UNSEEN: &str =
    "the program ended while the container engine was away, which does not know its exit code";
/// Beyond a container's own grace, until the engine has killed it.
const MARGIN: Duration = Duration::from_secs(10);

/// Where the Docker platform finds its engine and keeps things.
#[derive(Debug, Clone)]
pub struct DockerOptions {
    /// The agent's data folder.
    pub data_dir: PathBuf,
    /// Folder of the shims' sockets; `run` in the data folder when absent.
    pub runtime_dir: Option<PathBuf>,
    /// The engine's Unix socket.
    pub socket: PathBuf,
    /// The agent's program, for its hidden subcommands.
    pub program: PathBuf,
    /// How long a container may take to end by itself.
    pub grace: Duration,
    /// How long a `command` session waits for its first reader before output is dropped.
    pub first_reader: Duration,
}

/// Sessions as containers of this machine's Docker engine.
#[derive(Debug)]
pub struct DockerPlatform {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    options: DockerOptions,
    shims: Shims,
    engine: Engine,
    version: String,
    /// Held while a home that outlives its session is made, until it is given away.
    homes: Mutex<()>,
    /// Held while a shell is looked for and started.
    shells: Mutex<()>,
}

impl DockerPlatform {
    /// Makes the folders and looks whether the engine answers.
    pub async fn open(options: DockerOptions) -> Result<Self, Error> {
        let shims = Shims::open(&options.data_dir, options.runtime_dir.as_deref(), &options.program)?;
        let engine = Engine::negotiate(&options.socket).await.map_err(|error| {
            Error::Setting(format!(
                "no Docker engine answers at {}: start it, or name its socket with --docker-socket ({})",
                options.socket.display(),
                error.chain()
            ))
        })?;
        let version = engine.version().await?;
        engine.make_network().await?;
        tracing::info!(version, "docker platform is ready");
        let (homes, shells) = (Mutex::default(), Mutex::default());
        Ok(Self { inner: Arc::new(Inner { options, shims, engine, version, homes, shells }) })
    }
}

/// Does what may be repeated until the engine says what came of it. One that is killed or upgraded comes back, and its
/// containers went on without it: no session fails for that.
async fn patiently<T, F>(work: impl Fn() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let until = Instant::now() + PATIENCE;
    loop {
        match work().await {
            Err(error @ Error::Away { .. }) if Instant::now() < until => {
                tracing::debug!(error = error.chain(), "the engine is away");
                sleep(AWAY).await;
            }
            done => return done,
        }
    }
}

impl Inner {
    fn container(&self, key: &SessionKey) -> String {
        format!("{}-{}", self.shims.name, key.session_id)
    }

    /// The container of a session, whatever its state.
    async fn inspect(&self, key: &SessionKey) -> Result<Option<ContainerInspectResponse>, Error> {
        self.engine.inspect(&self.container(key)).await
    }

    /// Where a bridge writes down why nobody can know how this start ended, or whether it happened.
    fn lost_path(&self, key: &SessionKey) -> PathBuf {
        self.shims.folder(key).join(format!("lost.{}.txt", key.generation))
    }

    /// What its bridge wrote there.
    fn lost(&self, key: &SessionKey) -> Option<String> {
        std::fs::read_to_string(self.lost_path(key)).ok()
    }

    /// How a session ended whose shim tells this exit.
    fn told(&self, key: &SessionKey, exit: Exit) -> Ended {
        self.lost(key).map_or(Ended::Exited(exit), Ended::Lost)
    }

    /// What became of a session whose container is not running.
    fn remains(&self, key: &SessionKey, container: Option<&ContainerInspectResponse>) -> Ended {
        if let Some(exit) = self.shims.exit(key) {
            return self.told(key, exit);
        }
        match container.map(container::standing) {
            // Nobody saw it end.
            Some(Standing::Exited { code: UNKNOWN_CODE, .. }) => Ended::Lost(END_UNSEEN.into()),
            Some(Standing::Exited { code, at }) => {
                Ended::Exited(Exit { code, signal: None, output_start: 0, at })
            }
            Some(Standing::Created | Standing::Running | Standing::Paused) => {
                Ended::Lost("the session's container never ran".into())
            }
            Some(Standing::Leaving) | None => {
                Ended::Lost("the session's container was removed, or the machine restarted".into())
            }
        }
    }

    async fn find(&self, key: &SessionKey) -> Result<Found, Error> {
        let container = self.inspect(key).await?;
        if container.as_ref().map(container::standing) == Some(Standing::Running) {
            self.hold(key).await?;
            return Ok(Found::Running);
        }
        if self.shims.runs(key).await? {
            // Its bridge starts the container, makes it again, or is about to say how it ended: until then a container
            // that is not there, or calls itself ended, is no end of the session.
            return Ok(Found::Starting);
        }
        Ok(Found::Ended(self.remains(key, container.as_ref())))
    }

    /// Sees to it that a shim holds a running container's terminal.
    async fn hold(&self, key: &SessionKey) -> Result<(), Error> {
        if self.shims.runs(key).await? {
            return Ok(());
        }
        self.shims.clear_strays(key, &[]).await;
        let role = Role::Main { starts: false, lost: self.lost_path(key) };
        self.spawn_bridge(key, key, role, Duration::ZERO).await
    }

    /// Starts a shim whose program is a bridge to `session`'s container.
    async fn spawn_bridge(
        &self,
        key: &SessionKey,
        session: &SessionKey,
        role: Role,
        hold: Duration,
    ) -> Result<(), Error> {
        let folder = self.shims.folder(key);
        make_dir(&folder, 0o700)?;
        let bridge = Bridge {
            socket: self.options.socket.clone(),
            api: self.engine.api_version(),
            container: self.container(session),
            role,
        };
        let program = self.shims.program().to_string_lossy().into_owned();
        let spec = serde_json::to_string(&bridge)
            .map_err(|error| Error::Refused(format!("the bridge cannot be described: {error}")))?;
        let shim = ShimSpec {
            key: key.clone(),
            socket: self.shims.socket(key)?,
            folder,
            program: self.options.program.clone(),
            environment: container::marks(&self.shims.name, key, PATH),
            exec: ExecSpec {
                uid: None,
                home: PathBuf::from("/"),
                cgroups: Vec::new(),
                rlimits: std::collections::BTreeMap::new(),
                argv: vec![program, "session-container".into(), spec],
                login: false,
            },
            hold_ms: u64::try_from(hold.as_millis()).unwrap_or(u64::MAX),
        };
        self.shims.spawn(&shim, &[]).await
    }

    async fn start(&self, spec: &SessionSpec, progress: &Progress) -> Result<(), Error> {
        let key = &spec.key;
        // What was begun by an earlier life of this agent goes on in its bridge, or has ended there.
        if self.shims.exit(key).is_some() || self.shims.runs(key).await? {
            return self.until_it_runs(key).await;
        }
        if let Some(found) = self.inspect(key).await? {
            match (container::standing(&found), Labels::of(&found)) {
                // One that was paused keeps the number of its first start: it was woken before, and nobody heard of it.
                (Standing::Running, Some(labels))
                    if labels.generation == key.generation
                        || (labels.pauses && labels.generation < key.generation) =>
                {
                    return self.hold(key).await;
                }
                (Standing::Exited { .. }, Some(labels)) if labels.generation == key.generation => {
                    // It has run to its end: whoever watches it is told.
                    return Ok(());
                }
                (Standing::Paused, Some(labels)) if labels.pauses && labels.generation < key.generation => {
                    self.engine.unpause(&self.container(key)).await?;
                    return self.hold(key).await;
                }
                // Its bridge is gone, and may have asked for its start.
                (Standing::Created, Some(labels))
                    if labels.generation == key.generation && self.shims.was_begun(key)? =>
                {
                    if let Some(reason) = evidence::of(&self.engine, &found).await?.reason() {
                        return Err(Error::Refused(reason));
                    }
                    self.engine.remove(&self.container(key)).await?;
                }
                // Of an earlier start, or one that never ran.
                _ => self.engine.remove(&self.container(key)).await?,
            }
        }
        self.create(spec, progress).await?;
        progress.tell("starting the container");
        let hold = match spec.program {
            Program::Command(_) => self.options.first_reader,
            Program::Shell | Program::Desktop(_) | Program::Web(_) => Duration::ZERO,
        };
        let role = Role::Main { starts: true, lost: self.lost_path(key) };
        self.spawn_bridge(key, key, role, hold).await?;
        self.until_it_runs(key).await
    }

    async fn create(&self, spec: &SessionSpec, progress: &Progress) -> Result<(), Error> {
        let image = spec
            .image
            .as_deref()
            .ok_or_else(|| Error::Refused("a container needs an image: name one with --image".into()))?;
        let config = image::ensure(&self.engine, image, progress).await?;
        // Sessions of one user share their home: of those that come at once one makes it, and the others find it.
        let _making = if spec.persistent_home { Some(self.homes.lock().await) } else { None };
        let home = home::ensure(&self.engine, &self.options.data_dir, &self.shims.name, spec).await?;
        let body = container::body(&self.shims.name, spec, image, &config, &home)?;
        let name = self.container(&spec.key);
        match self.create_at(&name, &body, &home).await {
            Err(error) if home.is_unmade(&error) => {
                tracing::warn!(session = %spec.key, error = error.chain(), "the engine did not finish the home: it is made again");
                self.engine.remove(&name).await?;
                home.make_again(&self.engine).await?;
                self.create_at(&name, &body, &home).await?;
            }
            done => done?,
        }
        home.claimed()
    }

    /// Makes the container, and gives a new home to whom it runs as.
    async fn create_at(&self, name: &str, body: &ContainerCreateBody, home: &Home) -> Result<(), Error> {
        self.engine.create(name, body.clone()).await?;
        if home.unclaimed.is_some() {
            home::give_away(&self.engine, name, body.user.as_deref()).await?;
        }
        Ok(())
    }

    /// Waits until the bridge has started the container, or has said why it cannot.
    async fn until_it_runs(&self, key: &SessionKey) -> Result<(), Error> {
        let mut waited = Duration::ZERO;
        while waited < STARTS {
            // In this order: a bridge that has ended has written why.
            let has_ended = self.shims.exit(key).is_some();
            let found = self.inspect(key).await?;
            // One that is not there is being made again.
            let begun = match found.as_ref().map(container::standing) {
                Some(Standing::Running | Standing::Paused | Standing::Exited { .. }) => true,
                Some(Standing::Created | Standing::Leaving) | None => false,
            };
            match self.lost(key) {
                // However it ended: whoever watches it is told.
                _ if begun => return Ok(()),
                Some(reason) => return Err(Error::Refused(reason)),
                None if has_ended => return Ok(()),
                None => {}
            }
            sleep(LOOK).await;
            waited += LOOK;
        }
        Err(Error::Refused("the container did not start in time".into()))
    }

    /// Waits for the end of a running session. An engine that is away ends none: its containers may go on without it.
    async fn watch(&self, key: &SessionKey) -> Ended {
        loop {
            let exit = self.shims.watch(key).await;
            match self.inspect(key).await {
                Ok(found) if found.as_ref().map(container::standing) == Some(Standing::Running) => {
                    // The shim was killed and the container was not.
                    if let Err(error) = self.hold(key).await {
                        tracing::warn!(session = %key, error = error.chain(), "a session's terminal is not held");
                        sleep(AWAY).await;
                    }
                }
                Ok(found) => {
                    return exit
                        .map_or_else(|| self.remains(key, found.as_ref()), |exit| self.told(key, exit));
                }
                Err(error) => {
                    tracing::debug!(session = %key, error = error.chain(), "the engine is away");
                    sleep(AWAY).await;
                }
            }
        }
    }

    async fn stop(&self, key: &SessionKey, keep: Keep) -> Result<Option<Exit>, Error> {
        let found = self.inspect(key).await?;
        let name = self.container(key);
        let standing = found.as_ref().map(container::standing);
        let pauses = found.as_ref().and_then(Labels::of).is_some_and(|labels| labels.pauses);
        if keep == Keep::Home && pauses && matches!(standing, Some(Standing::Running | Standing::Paused)) {
            // Paused already: asked for before, by an agent or of an engine that did not live to hear of it.
            if standing == Some(Standing::Running) {
                self.engine.pause(&name).await?;
            }
            self.end_shims(key).await;
            return Ok(None);
        }
        let told = match standing {
            Some(Standing::Running | Standing::Paused | Standing::Exited { .. }) => {
                match self.engine.stop(&name, self.options.grace).await {
                    Err(error @ Error::Refused(_)) => tracing::warn!(
                        session = %key,
                        error = error.chain(),
                        "the container did not stop: it is removed by force"
                    ),
                    done => done?,
                }
                // The bridge hears of the end and the shim writes it down.
                tokio::time::timeout(MARGIN, self.shims.watch(key)).await.ok().flatten()
            }
            // It never ran: what is about to start it must not, and its own end is not the program's.
            Some(Standing::Created | Standing::Leaving) | None => None,
        };
        let ended = match told {
            Some(exit) => self.told(key, exit),
            None => self.remains(key, self.inspect(key).await?.as_ref()),
        };
        let exit = match ended {
            Ended::Exited(exit) => Some(exit),
            Ended::Lost(_) => None,
        };
        self.end_shims(key).await;
        self.engine.remove(&name).await?;
        if keep == Keep::Nothing {
            self.release(key).await?;
        }
        Ok(exit)
    }

    /// Ends the shims of a session, and not its container.
    async fn end_shims(&self, key: &SessionKey) {
        for key in [stream::shell_key(key), key.clone()] {
            if matches!(self.shims.was_begun(&key), Ok(true)) {
                self.shims.stop(&key, Duration::from_secs(1)).await;
                self.shims.clear_strays(&key, &[]).await;
            }
        }
        let _ = std::fs::remove_dir_all(self.shims.folder(&stream::shell_key(key)));
    }

    /// Frees what only this session used: its container and a home that does not outlive it.
    async fn release(&self, key: &SessionKey) -> Result<(), Error> {
        self.end_shims(key).await;
        self.engine.remove(&self.container(key)).await?;
        self.engine.remove_volume(&home::own_volume(&self.shims.name, &key.session_id)).await
    }

    async fn discover(&self) -> Vec<Discovered> {
        let found = patiently(|| self.engine.of_agent(&self.shims.name)).await.unwrap_or_else(|error| {
            tracing::warn!(error = error.chain(), "the engine's containers were not looked at");
            Vec::new()
        });
        let discovered = |labels: Labels, running| Discovered {
            key: SessionKey { session_id: labels.session_id, generation: labels.generation },
            running,
        };
        found
            .into_iter()
            .filter_map(|(labels, standing)| match standing {
                Standing::Running => Some(discovered(labels, true)),
                Standing::Paused if labels.pauses => Some(discovered(labels, false)),
                Standing::Paused | Standing::Created | Standing::Leaving | Standing::Exited { .. } => None,
            })
            .collect()
    }

    /// Removes containers and homes that no session owns.
    async fn sweep(&self, known: &[SessionKey]) {
        let is_known = |session_id: &str| known.iter().any(|key| key.session_id == session_id);
        let swept = patiently(|| async {
            for (labels, _) in self.engine.of_agent(&self.shims.name).await? {
                if !is_known(&labels.session_id) {
                    tracing::info!(
                        session_id = labels.session_id,
                        "a container that no session owns is removed"
                    );
                    self.engine.remove(&format!("{}-{}", self.shims.name, labels.session_id)).await?;
                }
            }
            let own = home::own_volumes(&self.shims.name);
            for volume in self.engine.volumes_named(&own).await? {
                if !volume.strip_prefix(&own).is_some_and(is_known) {
                    self.engine.remove_volume(&volume).await?;
                }
            }
            Ok(())
        });
        if let Err(error) = swept.await {
            tracing::warn!(error = error.chain(), "what no session owns was not removed");
        }
    }
}

impl Platform for DockerPlatform {
    fn kind(&self) -> tidegate_model::Platform {
        tidegate_model::Platform::Docker
    }

    fn metadata(&self) -> Map<String, Value> {
        let mut metadata = Map::new();
        metadata.insert("engine".into(), json!(format!("docker {}", self.inner.version)));
        metadata
    }

    fn start<'a>(&'a self, spec: &'a SessionSpec, progress: Progress) -> BoxFuture<'a, Result<(), Error>> {
        async move { Box::pin(patiently(|| self.inner.start(spec, &progress))).await }.boxed()
    }

    fn stop<'a>(&'a self, key: &'a SessionKey, keep: Keep) -> BoxFuture<'a, Result<Option<Exit>, Error>> {
        patiently(move || self.inner.stop(key, keep)).boxed()
    }

    fn find<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, Result<Found, Error>> {
        patiently(move || self.inner.find(key)).boxed()
    }

    fn watch(&self, key: &SessionKey) -> BoxFuture<'static, Ended> {
        let (inner, key) = (Arc::clone(&self.inner), key.clone());
        async move { inner.watch(&key).await }.boxed()
    }

    fn ready(&self, key: &SessionKey) -> BoxFuture<'static, Option<u16>> {
        let (inner, key) = (Arc::clone(&self.inner), key.clone());
        async move { inner.ready(&key).await }.boxed()
    }

    fn discover(&self) -> BoxFuture<'_, Vec<Discovered>> {
        self.inner.discover().boxed()
    }

    fn sweep<'a>(&'a self, known: &'a [SessionKey]) -> BoxFuture<'a, ()> {
        self.inner.sweep(known).boxed()
    }

    fn release<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, Result<(), Error>> {
        patiently(move || self.inner.release(key)).boxed()
    }

    fn delete_home<'a>(&'a self, owner: &'a str) -> BoxFuture<'a, Result<bool, Error>> {
        let volume = home::owners_volume(&self.inner.shims.name, owner);
        // The engine refuses one that a container has, a stopped one too.
        async move { patiently(|| self.inner.engine.remove_volume(&volume)).await.map(|()| true) }.boxed()
    }

    fn open<'a>(
        &'a self,
        key: &'a SessionKey,
        request: StreamRequest,
    ) -> BoxFuture<'a, Result<SessionStream, Error>> {
        self.inner.open(key, request).boxed()
    }
}
