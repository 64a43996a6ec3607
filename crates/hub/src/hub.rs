//! The hub's handle, its parts and their life: `Options` → [`Hub::new`] → [`Hub::run`].

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use metrics::gauge;
use tidegate_model::{AgentId, Clock, SessionId, UserId};
use tidegate_protocol::{ToAgent, TunnelId, TunnelOpenMessage};
use tidegate_service::{AgentIdentity, Links, Nudge};
use tokio::{
    runtime::Handle,
    sync::{Notify, broadcast},
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    CloseReason, Error, Options, TunnelEnd, TunnelError, TunnelHandle, TunnelRequest,
    connection::Connection,
    dispatch::{self, Wanted, precise},
    guard::lock,
    ingest::{Entry, Intake, Writer},
    parcel,
    registry::Registry,
    tunnel::Tunnels,
    watch,
};

/// The live agents of this process. Cheap to clone; every clone is the same hub.
#[derive(Clone)]
pub struct Hub {
    pub(crate) inner: Arc<Inner>,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub").field("connected", &self.connected()).finish_non_exhaustive()
    }
}

/// What all parts of the hub share.
pub(crate) struct Inner {
    pub(crate) links: Links,
    pub(crate) options: Arc<Options>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) registry: Registry<Arc<Connection>>,
    pub(crate) wanted: Wanted,
    pub(crate) intake: Intake,
    pub(crate) tunnels: Arc<Tunnels>,
    /// Look at the agents' rows now.
    pub(crate) look: Notify,
    /// No connection is taken any more.
    pub(crate) stopping: CancellationToken,
    /// One token a connection.
    pub(crate) seats: TaskTracker,
    /// Short database work that must outlive a connection which is dropped half-way.
    pub(crate) chores: TaskTracker,
    /// Where that work runs: the threads that serve sockets may end before it.
    pub(crate) runtime: Handle,
    queues: Mutex<Option<Vec<parcel::Receiver<Entry>>>>,
}

impl Hub {
    /// A hub with nobody in it. It delivers and writes nothing until [`Hub::run`] runs.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(links: Links, options: Options, clock: Arc<dyn Clock>) -> Self {
        let options = Arc::new(options);
        let (intake, queues) = Intake::new(&options);
        let inner = Inner {
            links,
            tunnels: Tunnels::new(Arc::clone(&options)),
            options,
            clock,
            registry: Registry::default(),
            wanted: Wanted::default(),
            intake,
            look: Notify::new(),
            stopping: CancellationToken::new(),
            seats: TaskTracker::new(),
            chores: TaskTracker::new(),
            runtime: Handle::current(),
            queues: Mutex::new(Some(queues)),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Delivers commands, writes reports and watches over connections until `shutdown`, then closes every connection
    /// with 1012 and writes what is left. An error means that it cannot go on: stop the process.
    pub async fn run(&self, shutdown: CancellationToken) -> Result<(), Error> {
        let inner = &self.inner;
        let queues = lock(&inner.queues).take().ok_or(Error::AlreadyRunning)?;
        let (stop, written) = (CancellationToken::new(), CancellationToken::new());
        // Should this future be dropped, what it started ends all the same.
        let _guards = (stop.clone().drop_guard(), written.clone().drop_guard());
        let mut loops = JoinSet::new();
        loops.spawn_on(dispatch::run(Arc::clone(inner), stop.clone()), &inner.runtime);
        loops.spawn_on(watch::nudges(Arc::clone(inner), stop.clone()), &inner.runtime);
        loops.spawn_on(watch::guard(Arc::clone(inner), stop.clone()), &inner.runtime);
        loops.spawn_on(watch::sweep(Arc::clone(inner), stop.clone()), &inner.runtime);
        loops.spawn_on(watch::tick(Arc::clone(inner), stop.clone()), &inner.runtime);
        let mut writers = JoinSet::new();
        for queue in queues {
            let writer = Writer {
                links: inner.links.clone(),
                queue,
                most: inner.options.ingest_batch.max(1),
                linger: inner.options.ingest_linger,
                stop: written.clone(),
            };
            writers.spawn_on(writer.run(), &inner.runtime);
        }
        let ended = tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            _ = loops.join_next() => Err(Error::TaskEnded),
            _ = writers.join_next() => Err(Error::TaskEnded),
        };
        self.close_all().await;
        stop.cancel();
        let looped = join(&mut loops).await;
        let drain = inner.options.drain;
        inner.chores.close();
        if timeout(drain, inner.chores.wait()).await.is_err() {
            tracing::warn!("the end of some connections is not recorded, their heartbeats will be missed");
        }
        written.cancel();
        let joined = timeout(drain, join(&mut writers)).await.unwrap_or_else(|_| {
            tracing::warn!("some reports are not written, their agents will repeat them");
            Ok(())
        });
        ended.and(looped).and(joined)
    }

    /// Cuts the tunnels, closes the connections and waits until their tasks have let go.
    async fn close_all(&self) {
        let inner = &self.inner;
        inner.stopping.cancel();
        inner.tunnels.cut_all();
        for connection in inner.registry.all() {
            connection.close(CloseReason::Shutdown);
        }
        inner.seats.close();
        if timeout(inner.options.drain, inner.seats.wait()).await.is_err() {
            tracing::warn!(left = inner.seats.len(), "some agents' connections did not close in time");
        }
    }

    /// How many agents are connected.
    pub fn connected(&self) -> usize {
        self.inner.registry.len()
    }

    /// The agents that are connected.
    pub fn agents(&self) -> Vec<AgentId> {
        self.inner.registry.agents()
    }

    /// Whether an agent is connected.
    pub fn is_connected(&self, agent: AgentId) -> bool {
        self.inner.registry.epoch(agent).is_some()
    }

    /// Hints of what was committed. For the HTTP layer, which checks its viewers' logins again on
    /// [`Nudge::Revalidate`], and when it lagged.
    pub fn subscribe(&self) -> broadcast::Receiver<Nudge> {
        self.inner.links.nudges()
    }

    /// Asks the agent for a tunnel and waits until it has dialled. The viewer's end comes back; give it to
    /// [`crate::relay`] with the viewer's socket. Dropping the future takes the request back.
    pub async fn open_tunnel(&self, request: TunnelRequest) -> Result<TunnelEnd, TunnelError> {
        let inner = &self.inner;
        let connection = inner.registry.get(request.agent_id).ok_or(TunnelError::AgentOffline)?;
        if inner.stopping.is_cancelled() {
            return Err(TunnelError::AgentOffline);
        }
        let waiting = inner.tunnels.expect_dial(request, Instant::now())?;
        let open = ToAgent::TunnelOpen(TunnelOpenMessage {
            tunnel_id: waiting.id.clone(),
            session_id: request.session_id.to_string(),
            generation: request.generation,
            target: request.target,
            port: request.port,
            mode: request.mode,
            after: request.after,
            follow: request.follow,
        });
        connection.say([&open], inner.clock.now()).map_err(|_| TunnelError::AgentOffline)?;
        waiting.answer().await
    }

    /// The agent's end of the tunnel it dials, for the handler of `GET /api/v1/agents/tunnels/{id}`. `None` (a 404) for
    /// an id that is unknown, used, late or another agent's, and when the viewer has left.
    pub fn accept_tunnel(&self, agent: &AgentIdentity, tunnel_id: &str) -> Option<TunnelEnd> {
        let id: TunnelId = tunnel_id.parse().ok()?;
        self.inner.tunnels.accept(agent.id(), &id, Instant::now())
    }

    /// The open tunnels of a session.
    pub fn tunnels(&self, session: SessionId) -> Vec<TunnelHandle> {
        self.inner.tunnels.of_session(session)
    }

    /// The sessions that somebody typed into since the last call, each with whoever did: bytes of viewers that crossed and
    /// keep the session alive. Whoever asks writes them down.
    pub fn take_activity(&self) -> BTreeMap<SessionId, UserId> {
        self.inner.tunnels.take_activity()
    }

    /// Somebody was active in a session by a stream whose frames the hub does not understand.
    pub fn note_activity(&self, session: SessionId, user: UserId) {
        self.inner.tunnels.note_activity(session, user);
    }

    /// The session ended: its agent gets [`Options::tunnel_grace`] to end the tunnels by itself, so that the last bytes
    /// arrive; then they are cut.
    pub fn end_session(&self, session: SessionId) {
        self.inner.tunnels.end_session(session, Instant::now());
    }
}

impl Inner {
    /// Closes an agent's connection and cuts its tunnels.
    pub(crate) fn revoke(&self, agent: AgentId) {
        if let Some(connection) = self.registry.get(agent) {
            connection.close(CloseReason::Revoked);
        }
        self.tunnels.cut_agent(agent);
    }

    pub(crate) fn count_connected(&self) {
        gauge!("tidegate_hub_agents_connected").set(precise(self.registry.len()));
    }
}

/// Waits for all; an error when one of them panicked.
async fn join(tasks: &mut JoinSet<()>) -> Result<(), Error> {
    let mut result = Ok(());
    while let Some(joined) = tasks.join_next().await {
        if joined.is_err() {
            result = Err(Error::TaskEnded);
        }
    }
    result
}
