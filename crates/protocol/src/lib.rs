//! What control plane and agent say to each other: the envelope, the messages of both directions and the control
//! frames of a terminal tunnel. No database, no HTTP server and no business rule is named here.
//!
//! Source: seed A's agent protocol, with the additions of the wire contract (`hello`, `welcome`, `tunnel_open`,
//! `tunnel_failed`). Reading is tolerant, writing is exact.
//!
//! ```
//! use tidegate_protocol::{Decoded, FromAgent};
//!
//! let frame = r#"{"type":"ack","payload":{"commandId":"cmd-1"}}"#;
//! let Decoded::Message(FromAgent::Ack(ack)) = FromAgent::decode(frame)? else { panic!("an ack") };
//! assert_eq!(ack.command_id, "cmd-1");
//! # Ok::<(), tidegate_protocol::DecodeError>(())
//! ```

mod envelope;
mod from_agent;
mod terminal;
mod to_agent;
mod tunnel_id;

pub use envelope::{AgentMessage, DecodeError, Decoded, MAX_FRAME_BYTES, PROTOCOL_VERSION};
pub use from_agent::{
    AckMessage, CompleteMessage, FailedMessage, FromAgent, HeartbeatMessage, HelloMessage, HelloSession,
    PongMessage, StatusMessage, TunnelFailedMessage,
};
pub use terminal::TerminalFrame;
pub use to_agent::{
    CommandMessage, PingMessage, ShutdownMessage, ToAgent, TunnelOpenMessage, TunnelTarget, WelcomeMessage,
};
pub use tunnel_id::TunnelId;

/// The header that carries an agent's key.
pub const API_KEY_HEADER: &str = "X-Agent-API-Key";
/// The header that carries an agent's claim token while it waits for its key.
pub const CLAIM_HEADER: &str = "X-Agent-Claim";
