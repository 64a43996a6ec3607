//! Why a tunnel ended, and what its two sockets are told.

use tidegate_protocol::TunnelTarget;

use crate::CloseCode;

/// Why a tunnel ended. The first cause stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TunnelEnding {
    /// The agent's side said all there was to say.
    Finished,
    /// The agent's side failed and said so.
    AgentFailed,
    /// The agent's socket was lost.
    AgentLost,
    /// The viewer left or was lost.
    ViewerLeft,
    /// Only to be watched, and the desktop does not say what its viewers' words mean.
    Unintelligible,
    /// The viewer's login, membership or ticket is no longer good.
    LoginEnded,
    /// The session is not shared with the viewer any more, or not to do what they do.
    ShareEnded,
    /// The viewer, or somebody who may, ended what they had opened.
    Disconnected,
    /// The session ended and its agent did not end the tunnel by itself.
    SessionEnded,
    /// The agent is no longer approved, was removed, or got another key.
    AgentRevoked,
    /// This process stops.
    Shutdown,
}

impl TunnelEnding {
    /// One word, for logs and as a metric's label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::AgentFailed => "agent_failed",
            Self::AgentLost => "agent_lost",
            Self::ViewerLeft => "viewer_left",
            Self::Unintelligible => "unintelligible",
            Self::LoginEnded => "login_ended",
            Self::ShareEnded => "share_ended",
            Self::Disconnected => "disconnected",
            Self::SessionEnded => "session_ended",
            Self::AgentRevoked => "agent_revoked",
            Self::Shutdown => "shutdown",
        }
    }

    /// What the viewer's socket is closed with: 1012 asks it to attach again by itself. Whoever reads logs takes a normal
    /// end for the end of the log, which only the agent knows: a session that ended keeps its log.
    pub const fn viewer_code(self, target: TunnelTarget) -> CloseCode {
        match self {
            Self::SessionEnded if matches!(target, TunnelTarget::Logs) => CloseCode::RESTART,
            Self::Finished | Self::ViewerLeft | Self::SessionEnded => CloseCode::NORMAL,
            Self::AgentFailed => CloseCode::ERROR,
            Self::AgentLost | Self::AgentRevoked | Self::Shutdown => CloseCode::RESTART,
            Self::Unintelligible | Self::LoginEnded | Self::ShareEnded | Self::Disconnected => {
                CloseCode::POLICY
            }
        }
    }

    /// What the agent's socket is closed with.
    pub const fn agent_code(self) -> CloseCode {
        match self {
            Self::Finished
            | Self::AgentFailed
            | Self::AgentLost
            | Self::ViewerLeft
            | Self::Unintelligible
            | Self::LoginEnded
            | Self::ShareEnded
            | Self::Disconnected
            | Self::SessionEnded => CloseCode::NORMAL,
            Self::AgentRevoked => CloseCode::POLICY,
            Self::Shutdown => CloseCode::RESTART,
        }
    }

    /// What the viewer's socket is told beside the code.
    pub(crate) const fn sentence(self) -> &'static str {
        match self {
            Self::Finished | Self::ViewerLeft => "",
            Self::AgentFailed => "the agent failed",
            Self::AgentLost => "the agent was lost, attach again",
            Self::Unintelligible => "this desktop speaks no RFB of 3.7 or newer, and cannot be watched only",
            Self::LoginEnded => "the login is no longer good",
            Self::ShareEnded => "the session is no longer shared with you",
            Self::Disconnected => "the viewing was ended, the session goes on",
            Self::SessionEnded => "the session ended",
            Self::AgentRevoked => "the agent may not be used any more",
            Self::Shutdown => "the control plane restarts, attach again",
        }
    }

    /// Whether what is still on its way to the viewer is delivered first.
    pub(crate) const fn is_gentle(self) -> bool {
        match self {
            Self::Finished | Self::AgentFailed | Self::AgentLost | Self::ViewerLeft | Self::SessionEnded => {
                true
            }
            Self::Unintelligible
            | Self::LoginEnded
            | Self::ShareEnded
            | Self::Disconnected
            | Self::AgentRevoked
            | Self::Shutdown => false,
        }
    }
}
