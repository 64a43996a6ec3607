//! Hints that something was committed. They may be lost: whoever listens polls too.

use std::sync::Arc;

use tidegate_model::{AgentId, SessionId};
use tokio::sync::{
    Notify,
    broadcast::{self, Receiver, error::RecvError},
};

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
    /// Plugins changed, or one is to be told something again.
    Plugins,
    /// An application waits to be installed.
    Installation,
}

impl Nudge {
    /// Waits for a hint that somebody may have lost a right, or that hints were lost.
    pub async fn revalidation(hints: &mut Receiver<Self>) {
        loop {
            match hints.recv().await {
                Ok(Self::Revalidate) | Err(RecvError::Lagged(_)) => return,
                Ok(
                    Self::Commands(_)
                    | Self::Revoked(_)
                    | Self::SessionEnded(_)
                    | Self::Mail
                    | Self::Plugins
                    | Self::Installation,
                ) => {}
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}

/// Hints waiting for a slow listener at most; past it the oldest are dropped, and the listener polls everything.
const CAPACITY: usize = 4_096;

/// Sends hints to every listener of this process.
#[derive(Debug, Clone)]
pub struct Nudges {
    hints: broadcast::Sender<Nudge>,
    /// That something changed, for the one reader of events: any number of them are one.
    changes: Arc<Notify>,
}

impl Nudges {
    pub(crate) fn new() -> Self {
        Self { hints: broadcast::Sender::new(CAPACITY), changes: Arc::default() }
    }

    pub(crate) fn send(&self, nudge: Nudge) {
        // Nobody listening is no fault: a program without a hub has nobody to tell.
        drop(self.hints.send(nudge));
        self.change();
    }

    /// Says that a session, a command or an agent changed, where there is no more to say of it.
    pub(crate) fn change(&self) {
        self.changes.notify_one();
    }

    /// Waits until something changed since the last time.
    pub(crate) async fn changed(&self) {
        self.changes.notified().await;
    }

    /// Listens from now on.
    pub fn subscribe(&self) -> Receiver<Nudge> {
        self.hints.subscribe()
    }
}
