//! Hints that something was committed. They may be lost: whoever listens polls too.

use tidegate_model::{AgentId, SessionId};
use tokio::sync::broadcast;

/// Something was committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nudge {
    /// Commands wait for this agent.
    Commands(AgentId),
    /// This agent's key or approval was taken back.
    Revoked(AgentId),
    /// This session ended.
    SessionEnded(SessionId),
    /// A login or membership ended: viewers must be looked at again.
    Revalidate,
    /// A mail waits to be sent.
    Mail,
}

/// Hints waiting for a slow listener at most; past it the oldest are dropped, and the listener polls everything.
const CAPACITY: usize = 4_096;

/// Sends hints to every listener of this process.
#[derive(Debug, Clone)]
pub struct Nudges(broadcast::Sender<Nudge>);

impl Nudges {
    pub(crate) fn new() -> Self {
        Self(broadcast::Sender::new(CAPACITY))
    }

    pub(crate) fn send(&self, nudge: Nudge) {
        // Nobody listening is no fault: a program without a hub has nobody to tell.
        drop(self.0.send(nudge));
    }

    /// Listens from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Nudge> {
        self.0.subscribe()
    }
}
