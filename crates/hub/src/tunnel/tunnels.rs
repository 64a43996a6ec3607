//! Every tunnel of this process: those being dialled and those open.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, Weak},
};

use metrics::counter;
use tidegate_model::{AgentId, SessionId, UserId};
use tidegate_protocol::TunnelId;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use super::{
    TunnelEnding, TunnelError, TunnelRequest,
    dials::{Dial, Dials},
    end::{Live, TunnelEnd, TunnelHandle},
};
use crate::{Options, guard::lock};

/// Longest refusal shown to people, in characters.
const MAX_REFUSAL: usize = 300;
/// Sessions with activity that waits to be asked for, at most; a hub has fewer by far.
const ACTIVE: usize = 100_000;

/// Who waits for a dial, and what for.
#[derive(Debug)]
struct Waiter {
    request: TunnelRequest,
    answer: oneshot::Sender<Result<TunnelEnd, TunnelError>>,
}

/// The tunnels. Dials are locked before open ones where both are, and looked at first where both are ended: what was a dial
/// before is a tunnel after.
#[derive(Debug)]
pub(crate) struct Tunnels {
    options: Arc<Options>,
    dials: Mutex<Dials<Waiter>>,
    open: Mutex<HashMap<TunnelId, Weak<Live>>>,
    /// Sessions that somebody was active in, by tunnels that have ended or by what others say.
    active: Mutex<BTreeMap<SessionId, UserId>>,
}

/// A dial that is waited for; dropping it forgets the dial, so that a viewer who left leaves nothing behind.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) id: TunnelId,
    deadline: Instant,
    answer: oneshot::Receiver<Result<TunnelEnd, TunnelError>>,
    home: Arc<Tunnels>,
}

impl Waiting {
    /// The viewer's end, once the agent has dialled.
    pub(crate) async fn answer(mut self) -> Result<TunnelEnd, TunnelError> {
        match timeout_at(self.deadline, &mut self.answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(TunnelError::AgentDidNotAnswer),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        lock(&self.home.dials).forget(&self.id);
    }
}

impl Tunnels {
    pub(crate) fn new(options: Arc<Options>) -> Arc<Self> {
        Arc::new(Self { options, dials: Mutex::default(), open: Mutex::default(), active: Mutex::default() })
    }

    /// Bytes on their way in one direction.
    pub(crate) fn bound(&self) -> usize {
        self.options.tunnel_bytes
    }

    /// Expects a dial.
    pub(crate) fn expect_dial(
        self: &Arc<Self>,
        request: TunnelRequest,
        now: Instant,
    ) -> Result<Waiting, TunnelError> {
        let limit = self.options.tunnels_per_session;
        let session = request.session_id;
        let (answer, receiver) = oneshot::channel();
        let id = TunnelId::from_random(rand::random());
        let deadline = now + self.options.tunnel_dial;
        // Dials first: one that becomes a tunnel meanwhile is counted as it is before or after.
        let mut dials = lock(&self.dials);
        let open = self.open_where(|live| live.request.session_id == session).len();
        if open + dials.of_session(session) >= limit {
            return Err(TunnelError::TooManyViewers { limit });
        }
        let waiter = Waiter { request, answer };
        dials.insert(id.clone(), Dial { agent: request.agent_id, session, deadline, waiter });
        Ok(Waiting { id, deadline, answer: receiver, home: Arc::clone(self) })
    }

    /// The agent's end of the tunnel it dials; `None` for a wrong agent, an unknown, used or late id, a viewer who left.
    pub(crate) fn accept(self: &Arc<Self>, agent: AgentId, id: &TunnelId, now: Instant) -> Option<TunnelEnd> {
        // Held until it is open: whoever ends dials and tunnels finds it among the ones or the others.
        let mut dials = lock(&self.dials);
        let dial = dials.take(id, agent, now)?;
        let (viewer, agents) = Live::pair(id.clone(), dial.waiter.request, self);
        lock(&self.open).insert(id.clone(), Arc::downgrade(&agents.live));
        drop(dials);
        dial.waiter.answer.send(Ok(viewer)).ok()?;
        Some(agents)
    }

    /// The agent could not make the tunnel.
    pub(crate) fn refuse(&self, agent: AgentId, id: &TunnelId, why: &str, now: Instant) {
        let dial = lock(&self.dials).take(id, agent, now);
        if let Some(dial) = dial {
            counter!("tidegate_hub_tunnels_refused_total").increment(1);
            // A viewer who left needs no answer.
            let _ = dial.waiter.answer.send(Err(TunnelError::AgentRefused(refusal_text(why))));
        }
    }

    /// The session ended: its agent gets some time to end the tunnels by itself, so that the last bytes arrive. What it
    /// kept of the session's output may be asked for still.
    pub(crate) fn end_session(&self, session: SessionId, now: Instant) {
        let over = |dial: &Dial<Waiter>| dial.session == session && dial.waiter.request.ends_with_session();
        let waiters = lock(&self.dials).take_where(over);
        for waiter in waiters {
            let ended = TunnelError::AgentRefused("the session has ended".to_owned());
            let _ = waiter.answer.send(Err(ended));
        }
        let open = |live: &Live| live.request.session_id == session && !live.request.ends_by_itself();
        for live in self.open_where(open) {
            live.end_by(now + self.options.tunnel_grace);
        }
    }

    /// Cuts the tunnels whose time is over.
    pub(crate) fn cut_overdue(&self, now: Instant) {
        for live in self.open_where(|live| live.is_overdue(now)) {
            live.cut(TunnelEnding::SessionEnded);
        }
    }

    /// The agent may not be used any more.
    pub(crate) fn cut_agent(&self, agent: AgentId) {
        let waiters = lock(&self.dials).take_where(|dial| dial.agent == agent);
        for waiter in waiters {
            let _ = waiter.answer.send(Err(TunnelError::AgentOffline));
        }
        for live in self.open_where(|live| live.request.agent_id == agent) {
            live.cut(TunnelEnding::AgentRevoked);
        }
    }

    /// The process stops.
    pub(crate) fn cut_all(&self) {
        let waiters = lock(&self.dials).take_where(|_| true);
        for waiter in waiters {
            let _ = waiter.answer.send(Err(TunnelError::AgentOffline));
        }
        for live in self.open_where(|_| true) {
            live.cut(TunnelEnding::Shutdown);
        }
    }

    /// The open tunnels of a session.
    pub(crate) fn of_session(&self, session: SessionId) -> Vec<TunnelHandle> {
        let open = self.open_where(|live| live.request.session_id == session);
        open.iter().map(TunnelHandle::of).collect()
    }

    /// Somebody was active in a session.
    pub(crate) fn note_activity(&self, session: SessionId, user: UserId) {
        let mut active = lock(&self.active);
        // Nobody asks, so nobody misses what is one too many.
        if active.len() < ACTIVE || active.contains_key(&session) {
            active.insert(session, user);
        }
    }

    /// The sessions that somebody was active in since the last call, each with whoever was.
    pub(crate) fn take_activity(&self) -> BTreeMap<SessionId, UserId> {
        let typed = self.open_where(|live| live.take_typed() > 0);
        let mut active = std::mem::take(&mut *lock(&self.active));
        active.extend(typed.iter().map(|live| (live.request.session_id, live.request.viewer)));
        active
    }

    /// Whether an agent has open tunnels.
    pub(crate) fn has_agent(&self, agent: AgentId) -> bool {
        !self.open_where(|live| live.request.agent_id == agent).is_empty()
    }

    fn open_where(&self, which: impl Fn(&Live) -> bool) -> Vec<Arc<Live>> {
        // Collected first: the last owner of a tunnel takes this very lock when it is dropped.
        let all: Vec<Arc<Live>> = lock(&self.open).values().filter_map(Weak::upgrade).collect();
        all.into_iter().filter(|live| which(live)).collect()
    }

    pub(super) fn leave(&self, id: &TunnelId) {
        lock(&self.open).remove(id);
    }
}

/// An agent's words as people may see them.
fn refusal_text(text: &str) -> String {
    let text: String = text.chars().filter(|c| !c.is_control()).take(MAX_REFUSAL).collect();
    if text.is_empty() { "no reason was given".to_owned() } else { text }
}

#[cfg(test)]
mod tests;
