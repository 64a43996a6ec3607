//! WebSocket messages without a WebSocket: what the transport hands in and takes. No HTTP server is named here.

use std::borrow::Cow;

use bytes::Bytes;
use bytestring::ByteString;

/// A whole WebSocket message, fragments already put together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Text, already known to be UTF-8.
    Text(ByteString),
    /// Bytes.
    Binary(Bytes),
    /// Is anybody there? The hub answers it; the transport does not.
    Ping(Bytes),
    /// Somebody is.
    Pong(Bytes),
    /// The last frame of its direction, with at most 123 bytes of reason.
    Close(CloseCode, Cow<'static, str>),
}

impl Frame {
    /// What a frame costs beside its bytes: without it a million empty frames would weigh nothing in a queue.
    pub const OVERHEAD: usize = 64;

    /// The bytes it carries.
    pub fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) | Self::Ping(bytes) | Self::Pong(bytes) => bytes.len(),
            Self::Close(_, reason) => reason.len(),
        }
    }

    /// Whether it carries none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What it counts in a queue that is bounded in bytes.
    pub fn weight(&self) -> usize {
        self.len() + Self::OVERHEAD
    }
}

/// A close code of RFC 6455.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CloseCode(pub u16);

impl CloseCode {
    /// Done.
    pub const NORMAL: Self = Self(1000);
    /// The other side goes away.
    pub const AWAY: Self = Self(1001);
    /// The rules of the protocol were broken.
    pub const PROTOCOL: Self = Self(1002);
    /// A kind of frame that is not taken here.
    pub const UNSUPPORTED: Self = Self(1003);
    /// A close frame without a code; never sent.
    pub const NO_STATUS: Self = Self(1005);
    /// Text that is not UTF-8.
    pub const INVALID: Self = Self(1007);
    /// Not allowed, or not allowed any more.
    pub const POLICY: Self = Self(1008);
    /// Too large.
    pub const TOO_LARGE: Self = Self(1009);
    /// A failure on the sender's side.
    pub const ERROR: Self = Self(1011);
    /// The sender restarts or lost what was behind it: come again.
    pub const RESTART: Self = Self(1012);
}

/// Why a transport yields no further frame.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// A text frame that is not UTF-8.
    #[error("a text frame is not UTF-8")]
    InvalidUtf8,
    /// A frame over the transport's limit.
    #[error("a frame is larger than this connection takes")]
    TooLarge,
    /// The peer does not speak WebSocket as it should.
    #[error("the peer broke the WebSocket protocol")]
    Protocol,
    /// The connection is gone.
    #[error("the connection was lost")]
    Lost(#[source] Option<std::io::Error>),
}

impl TransportError {
    /// The code to close with; `None` where nobody is left to read it.
    pub const fn close_code(&self) -> Option<CloseCode> {
        match self {
            Self::InvalidUtf8 => Some(CloseCode::INVALID),
            Self::TooLarge => Some(CloseCode::TOO_LARGE),
            Self::Protocol => Some(CloseCode::PROTOCOL),
            Self::Lost(_) => None,
        }
    }
}
