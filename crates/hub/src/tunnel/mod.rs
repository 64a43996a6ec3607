//! Tunnels: the bytes between a viewer's socket and the one its agent dials for it. They never share the control
//! connection, and they outlive it.

mod activity;
mod bytes;
mod dials;
mod end;
mod ending;
mod relay;
mod rfb;
mod tunnels;

pub use bytes::plain;
pub use end::{TunnelEnd, TunnelHandle};
pub use ending::TunnelEnding;
pub use relay::relay;
pub(crate) use tunnels::Tunnels;

use tidegate_model::{AgentId, SessionId, StreamKind, StreamMode, UserId};
use tidegate_protocol::TunnelTarget;

/// What a viewer wants to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TunnelRequest {
    /// The agent the session is placed on.
    pub agent_id: AgentId,
    /// The session.
    pub session_id: SessionId,
    /// The start or wake that is meant.
    pub generation: i64,
    /// What it leads to.
    pub target: TunnelTarget,
    /// What is spoken through it.
    pub protocol: StreamKind,
    /// What the viewer may do.
    pub mode: StreamMode,
    /// Who the viewer is.
    pub viewer: UserId,
    /// For target `port`.
    pub port: Option<u16>,
    /// For target `logs`: bytes to leave out.
    pub after: Option<u64>,
    /// For target `logs`: whether to stay until the program ends.
    pub follow: Option<bool>,
}

impl TunnelRequest {
    /// Whether it is over with its session. Its agent has the log of a session that ended, too: whoever asks for it is
    /// told all of it, then and later.
    const fn ends_with_session(&self) -> bool {
        !matches!(self.target, TunnelTarget::Logs)
    }

    /// Whether its agent ends it by itself, whatever becomes of the session.
    const fn ends_by_itself(&self) -> bool {
        matches!((self.target, self.follow), (TunnelTarget::Logs, None | Some(false)))
    }
}

/// Why there is no tunnel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TunnelError {
    /// The agent is not connected to this process, or was revoked meanwhile.
    #[error("the session's agent is offline, try again when it is connected")]
    AgentOffline,
    /// It did not dial in time.
    #[error("the session's agent did not answer in time, try again")]
    AgentDidNotAnswer,
    /// It said why not; without control characters, at most 300 characters.
    #[error("the session's agent refused: {0}")]
    AgentRefused(String),
    /// The session has as many viewers as it may have.
    #[error("the session has {limit} viewers already, close one of them")]
    TooManyViewers {
        /// The bound.
        limit: usize,
    },
}
