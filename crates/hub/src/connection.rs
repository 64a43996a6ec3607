//! One live connection of an agent, as the rest of the hub sees it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bytestring::ByteString;
use chrono::{DateTime, Utc};
use tidegate_model::AgentId;
use tidegate_protocol::ToAgent;
use tidegate_service::Link;
use tokio::time::Instant;

use crate::{
    CloseReason, Frame, Options,
    liveness::Liveness,
    outbox::{Full, Outbox},
};

/// A link with what waits to be written to it.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) link: Arc<Link>,
    pub(crate) outbox: Outbox,
    pub(crate) liveness: Liveness,
    /// Whether commands may be sent: the agent has spoken, or had the time to.
    ready: AtomicBool,
}

impl Connection {
    pub(crate) fn new(link: Link, options: &Options) -> Self {
        let now = Instant::now();
        Self {
            link: Arc::new(link),
            outbox: Outbox::new(options.outbox_bytes, now),
            liveness: Liveness::new(now),
            ready: AtomicBool::new(false),
        }
    }

    pub(crate) fn agent(&self) -> AgentId {
        self.link.agent_id()
    }

    /// Queues messages, in order, as one batch.
    pub(crate) fn say<'a>(
        &self,
        messages: impl IntoIterator<Item = &'a ToAgent>,
        now: DateTime<Utc>,
    ) -> Result<(), Full> {
        self.outbox.push(messages.into_iter().map(|message| encode(message, now)))
    }

    pub(crate) fn close(&self, reason: CloseReason) {
        self.outbox.close(reason);
    }

    /// The agent has spoken; `true` the first time.
    pub(crate) fn make_ready(&self) -> bool {
        !self.ready.swap(true, Ordering::Relaxed)
    }

    /// Whether commands may be claimed for it now.
    pub(crate) fn takes_commands(&self, now: Instant, options: &Options) -> bool {
        let ready = self.ready.load(Ordering::Relaxed) || self.liveness.age(now) >= options.hello_grace;
        ready && self.outbox.has_room()
    }
}

pub(crate) fn encode(message: &ToAgent, now: DateTime<Utc>) -> Frame {
    Frame::Text(ByteString::from(message.encode(now)))
}
