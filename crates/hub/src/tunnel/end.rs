//! The two ends of a tunnel, each held by the task of one socket, and what they share.

use std::sync::{
    Arc, Mutex, OnceLock, Weak,
    atomic::{AtomicU64, Ordering},
};

use metrics::gauge;
use tidegate_model::{AgentId, SessionId, StreamMode};
use tidegate_protocol::{TunnelId, TunnelTarget};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{TunnelEnding, TunnelRequest, tunnels::Tunnels};
use crate::{Frame, guard::lock, parcel};

/// Whose socket an end belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Viewer,
    Agent,
}

/// One end of a tunnel. Give it to [`crate::relay`] with the socket it belongs to; dropping it ends the tunnel.
#[derive(Debug)]
pub struct TunnelEnd {
    pub(crate) side: Side,
    pub(crate) outgoing: parcel::Sender<Frame>,
    pub(crate) incoming: parcel::Receiver<Frame>,
    pub(crate) live: Arc<Live>,
}

impl TunnelEnd {
    /// What names and cuts the tunnel while its ends are busy.
    pub fn handle(&self) -> TunnelHandle {
        TunnelHandle::of(&self.live)
    }
}

/// Names a tunnel and can cut it. Holding one keeps nothing alive.
#[derive(Debug, Clone)]
pub struct TunnelHandle {
    id: TunnelId,
    request: TunnelRequest,
    live: Weak<Live>,
}

impl TunnelHandle {
    pub(crate) fn of(live: &Arc<Live>) -> Self {
        Self { id: live.id.clone(), request: live.request, live: Arc::downgrade(live) }
    }

    /// The tunnel.
    pub const fn id(&self) -> &TunnelId {
        &self.id
    }

    /// The session it leads to.
    pub const fn session_id(&self) -> SessionId {
        self.request.session_id
    }

    /// The agent that dialled it.
    pub const fn agent_id(&self) -> AgentId {
        self.request.agent_id
    }

    /// What its viewer may do.
    pub const fn mode(&self) -> StreamMode {
        self.request.mode
    }

    /// What it leads to.
    pub const fn target(&self) -> TunnelTarget {
        self.request.target
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.live.upgrade().is_none_or(|live| live.ended.is_cancelled())
    }

    /// Ends it: both sockets are closed with the codes of this ending. A repeat changes nothing.
    pub fn cut(&self, ending: TunnelEnding) {
        if let Some(live) = self.live.upgrade() {
            live.cut(ending);
        }
    }
}

/// What both ends share.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) id: TunnelId,
    pub(crate) request: TunnelRequest,
    ending: OnceLock<TunnelEnding>,
    /// An ending is known; what is on its way may still be delivered.
    pub(crate) ended: CancellationToken,
    /// The agent's end stops.
    stop_agent: CancellationToken,
    /// The viewer's end stops, whatever is on its way.
    stop_viewer: CancellationToken,
    /// When the agent's time to end it by itself is over.
    deadline: Mutex<Option<Instant>>,
    /// The viewer's frames that crossed and keep the session alive, since somebody last asked.
    typed: AtomicU64,
    home: Weak<Tunnels>,
}

impl Live {
    /// A tunnel that both ends hold: the viewer's and the agent's.
    pub(crate) fn pair(id: TunnelId, request: TunnelRequest, home: &Arc<Tunnels>) -> (TunnelEnd, TunnelEnd) {
        let live = Arc::new(Self {
            id,
            request,
            ending: OnceLock::new(),
            ended: CancellationToken::new(),
            stop_agent: CancellationToken::new(),
            stop_viewer: CancellationToken::new(),
            deadline: Mutex::new(None),
            typed: AtomicU64::new(0),
            home: Arc::downgrade(home),
        });
        gauge!("tidegate_hub_tunnels_open").increment(1);
        let (to_agent, from_viewer) = parcel::channel(home.bound());
        let (to_viewer, from_agent) = parcel::channel(home.bound());
        let viewer = TunnelEnd {
            side: Side::Viewer,
            outgoing: to_agent,
            incoming: from_agent,
            live: Arc::clone(&live),
        };
        let agent = TunnelEnd { side: Side::Agent, outgoing: to_viewer, incoming: from_viewer, live };
        (viewer, agent)
    }

    /// Records why it ends and returns what stands: the first cause.
    pub(crate) fn end(&self, ending: TunnelEnding) -> TunnelEnding {
        let stands = *self.ending.get_or_init(|| ending);
        self.ended.cancel();
        stands
    }

    /// Why it ended, if it has.
    pub(crate) fn ending(&self) -> Option<TunnelEnding> {
        self.ending.get().copied()
    }

    /// Ends it from outside. A gentle ending stops the agent's end and lets the viewer have what is on its way.
    pub(crate) fn cut(&self, ending: TunnelEnding) {
        self.end(ending);
        self.stop_agent.cancel();
        // The new ending decides, not the one that stands: a shutdown hurries a tunnel that was ending gently.
        if !ending.is_gentle() {
            self.stop_viewer.cancel();
        }
    }

    /// A frame of the viewer's crossed that keeps the session alive.
    pub(crate) fn count_typed(&self) {
        self.typed.fetch_add(1, Ordering::Relaxed);
    }

    /// How many did since the last call.
    pub(crate) fn take_typed(&self) -> u64 {
        self.typed.swap(0, Ordering::Relaxed)
    }

    /// Gives the agent until `deadline` to end it by itself; the earliest deadline stands.
    pub(crate) fn end_by(&self, deadline: Instant) {
        lock(&self.deadline).get_or_insert(deadline);
    }

    pub(crate) fn is_overdue(&self, now: Instant) -> bool {
        lock(&self.deadline).is_some_and(|deadline| deadline <= now)
    }

    /// Waits until this side has to stop.
    pub(crate) async fn stopped(&self, side: Side) {
        match side {
            Side::Viewer => self.stop_viewer.cancelled().await,
            Side::Agent => self.stop_agent.cancelled().await,
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        gauge!("tidegate_hub_tunnels_open").decrement(1);
        if let Some(home) = self.home.upgrade() {
            if self.take_typed() > 0 {
                home.note_activity(self.request.session_id, self.request.viewer);
            }
            home.leave(&self.id);
        }
    }
}
