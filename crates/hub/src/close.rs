//! Why an agent's connection ended, and what is said in the last frame.

use std::borrow::Cow;

use crate::{CloseCode, Frame, TransportError};

/// Why an agent's connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The agent closed it.
    Left,
    /// It was lost without a word.
    Lost,
    /// A newer connection of the same agent took its place.
    Superseded,
    /// The agent is no longer approved, was removed, or got another key.
    Revoked,
    /// This process stops.
    Shutdown,
    /// The database could not be asked whether the agent may connect.
    Unavailable,
    /// Something failed here that no repeat would mend.
    Failed,
    /// Ten frames in a row that are no messages.
    Undecodable,
    /// A frame over 512 KiB.
    TooLarge,
    /// A binary frame: stream bytes have sockets of their own.
    Binary,
    /// A text frame that is not UTF-8.
    InvalidUtf8,
    /// Not WebSocket as it should be.
    Protocol,
    /// The agent speaks only versions that are unknown here.
    NoCommonVersion,
    /// The agent does not read what is sent to it.
    OutboundFull,
    /// Nothing was heard for three heartbeats.
    Silent,
}

impl CloseReason {
    /// One word, for logs and as a metric's label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Lost => "lost",
            Self::Superseded => "superseded",
            Self::Revoked => "revoked",
            Self::Shutdown => "shutdown",
            Self::Unavailable => "unavailable",
            Self::Failed => "failed",
            Self::Undecodable => "undecodable",
            Self::TooLarge => "too_large",
            Self::Binary => "binary",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::Protocol => "protocol",
            Self::NoCommonVersion => "no_common_version",
            Self::OutboundFull => "outbound_full",
            Self::Silent => "silent",
        }
    }

    /// The code of the last frame; `None` where nobody is left to read it.
    pub const fn code(self) -> Option<CloseCode> {
        match self {
            Self::Left => Some(CloseCode::NORMAL),
            Self::Lost => None,
            Self::Shutdown | Self::Unavailable => Some(CloseCode::RESTART),
            Self::Failed => Some(CloseCode::ERROR),
            Self::Superseded | Self::Revoked | Self::Undecodable | Self::OutboundFull | Self::Silent => {
                Some(CloseCode::POLICY)
            }
            Self::TooLarge => Some(CloseCode::TOO_LARGE),
            Self::Binary => Some(CloseCode::UNSUPPORTED),
            Self::InvalidUtf8 => Some(CloseCode::INVALID),
            Self::Protocol | Self::NoCommonVersion => Some(CloseCode::PROTOCOL),
        }
    }

    /// What the last frame says, for the people who run the agent.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Left | Self::Lost => "",
            Self::Superseded => "superseded by a newer connection of this agent",
            Self::Revoked => "this agent may not be connected with this key any more",
            Self::Shutdown => "the control plane restarts, connect again",
            Self::Unavailable => "the database is not reachable, connect again",
            Self::Failed => "the control plane failed, connect again",
            Self::Undecodable => "ten frames in a row were no messages",
            Self::TooLarge => "a frame may have 524288 bytes",
            Self::Binary => "messages are text frames, tunnels have sockets of their own",
            Self::InvalidUtf8 => "a text frame was not UTF-8",
            Self::Protocol => "the WebSocket protocol was broken",
            Self::NoCommonVersion => "this control plane speaks protocol version 1 alone",
            Self::OutboundFull => "this agent does not read what is sent to it",
            Self::Silent => "nothing was heard for three heartbeats",
        }
    }

    /// The last frame, where there is one.
    pub(crate) fn frame(self) -> Option<Frame> {
        self.code().map(|code| Frame::Close(code, Cow::Borrowed(self.sentence())))
    }
}

impl From<&TransportError> for CloseReason {
    fn from(error: &TransportError) -> Self {
        match error {
            TransportError::InvalidUtf8 => Self::InvalidUtf8,
            TransportError::TooLarge => Self::TooLarge,
            TransportError::Protocol => Self::Protocol,
            TransportError::Lost(_) => Self::Lost,
        }
    }
}
